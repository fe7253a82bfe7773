"""Rollups of frames, and readings over any range and zoom."""
