"""Instruments, inspections, and what they found wrong."""
