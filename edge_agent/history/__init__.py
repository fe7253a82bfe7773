"""History that stands in tables: Parquet files and the answers of databases."""
