"""Inspections, the figures made of them, and what is quarantined by rule."""
