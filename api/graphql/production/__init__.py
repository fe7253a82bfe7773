"""Production: process runs on assets."""
