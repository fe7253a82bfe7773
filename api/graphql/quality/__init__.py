"""Quality: inspections, non-conformances, instruments."""
