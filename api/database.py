"""Finding the database: the one the settings name, or the embedded one in the data directory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg

from api.settings import ServerSettings
from domain.errors import Unavailable
from eventlog.database import CONNECTION_LOST, Pool, create_pool
from eventlog.embedded.server import EmbeddedPostgres
from eventlog.ledger import Ledger
from eventlog.transparency.tiles import LedgerTiles


@contextmanager
def open_database(settings: ServerSettings) -> Iterator[str]:
    """Yield the database's URL; an embedded server runs for as long as somebody uses it."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    with EmbeddedPostgres.start(settings.data_dir) as server:
        yield server.url


@asynccontextmanager
async def open_pool(settings: ServerSettings) -> AsyncIterator[tuple[Pool, str]]:
    """Yield connections to the database, and its URL, for a command that does not migrate it.

    Raises
    ------
    Unavailable
        ``database.unavailable``, ``database.old_schema``
    """
    with open_database(settings) as url:
        try:
            pool = await create_pool(url, connections_max=settings.connections_max)
        except CONNECTION_LOST as error:
            raise Unavailable(
                "database.unavailable",
                f"the database cannot be reached: {error}",
                hint="HEDDLE_DATABASE_URL names it",
            ) from error
        try:
            yield pool, url
        except (
            asyncpg.UndefinedTableError,
            asyncpg.UndefinedColumnError,
            asyncpg.UndefinedFunctionError,
        ) as error:
            raise Unavailable(
                "database.old_schema",
                f"the database is older than this program: {error}",
                hint="run `heddle migrate`, or start `heddle serve` once",
            ) from error
        finally:
            await pool.close()


@asynccontextmanager
async def existing_ledger(pool: Pool, name: str) -> AsyncIterator[Ledger]:
    """Yield the ledger called `name`; to open one that is not there would make it.

    Raises
    ------
    NotFound
        ``ledger.unknown``
    """
    await LedgerTiles.of(pool, name)
    ledger = await Ledger.open(pool, name)
    try:
        yield ledger
    finally:
        await ledger.close()
