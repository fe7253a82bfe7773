"""Opening ledgers in a process that may be started while the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from eventlog.database import CONNECTION_LOST, Pool, create_pool
from eventlog.ledger import Ledger

CONNECTIONS_MAX: Final = 4
RETRY_S: Final = 0.1


async def open_ledgers(url: str, names: Sequence[str]) -> tuple[Pool, dict[str, Ledger]]:
    """Return a pool and the ledgers `names` on it, once the database is there."""
    while True:
        try:
            pool = await create_pool(url, connections_max=CONNECTIONS_MAX)
        except CONNECTION_LOST:
            await asyncio.sleep(RETRY_S)
            continue
        try:
            return pool, {name: await Ledger.open(pool, name) for name in names}
        except CONNECTION_LOST:
            pool.terminate()
            await asyncio.sleep(RETRY_S)
