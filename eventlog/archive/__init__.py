"""Payloads that leave their rows: moved to Parquet, read from there, and compacted."""
