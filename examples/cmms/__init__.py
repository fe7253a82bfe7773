"""A small maintenance system that mirrors Heddle's work orders, and imports none of it."""
