"""Telemetry: readings of any range and zoom, as columns."""
