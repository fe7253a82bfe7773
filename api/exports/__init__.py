"""Exports over HTTP: readings, rollups, events and figures as Arrow, Parquet, CSV or NDJSON.

One table is one file: an Arrow schema and record batches in the order of a key. An export is
streamed batch by batch, as of one position of the log, and may be resumed after any row.
"""
