"""Lots, parts, and the process runs that make one of the other."""
