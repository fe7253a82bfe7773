"""Connections to PostgreSQL for the log and whoever reads beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
    PoolConnection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnection
else:
    Pool = Connection = PoolConnection = Any

COMMAND_TIMEOUT_S: Final = 60.0
CONNECT_TIMEOUT_S: Final = 10.0

CONNECTION_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # an operation met a connection that was just ended
    asyncpg.OperatorInterventionError,  # the server is shutting down or was restarted
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,  # a deadlock or a lost serialisation: the other one won
    OSError,
    TimeoutError,
)
"""What is raised when a statement could not run now; the same may succeed later."""


async def _keep_session(_connection: Connection) -> None:
    """Skip the pool's RESET ALL: no code here changes a session's settings."""


async def create_pool(database_url: str, *, connections_max: int = 16) -> Pool:
    """Return a pool of connections to `database_url`."""
    return await asyncpg.create_pool(
        database_url,
        min_size=1,
        max_size=connections_max,
        command_timeout=COMMAND_TIMEOUT_S,
        timeout=CONNECT_TIMEOUT_S,
        reset=_keep_session,
        server_settings={"application_name": "heddle", "jit": "off", "timezone": "UTC"},
    )
