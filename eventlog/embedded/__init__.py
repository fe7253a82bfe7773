"""The embedded PostgreSQL: what Heddle runs on when nobody gave it a database."""
