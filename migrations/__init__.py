"""The database's schema, forward from empty: one Alembic revision after the other."""
