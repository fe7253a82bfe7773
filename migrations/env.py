"""Alembic's entry point: finds the database and runs the revisions in one transaction each."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

LOCK_KEY = 0x68656464  # one migration at a time, whoever starts it


def run(connection: Connection) -> None:
    """Run the revisions on `connection`."""
    context.configure(connection=connection, transaction_per_migration=True)
    connection.exec_driver_sql(f"select pg_advisory_lock({LOCK_KEY})")
    connection.commit()
    try:
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.exec_driver_sql(f"select pg_advisory_unlock({LOCK_KEY})")
        connection.commit()


async def run_on(url: str) -> None:
    """Open the database at `url` and run the revisions."""
    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://", 1), poolclass=NullPool
    )
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


def main() -> None:
    """Migrate the database that the caller names, or the one the server would use."""
    url = context.config.attributes.get("database_url")
    with ExitStack() as stack:
        if url is None:
            from api.database import open_database
            from api.settings import ServerSettings

            url = stack.enter_context(open_database(ServerSettings.from_environment()))
        asyncio.run(run_on(url))


main()
