"""Connections to PostgreSQL for the log and whoever reads beside it.

A connection may end at any moment, and asyncpg tells that in many ways. Here they become few:
whatever ended because a connection did is one of `CONNECTION_LOST`, and nothing else is. A driver's
complaint about a connection that still stands is a fault of its user and stays what it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg

if TYPE_CHECKING:
    DriverConnection = asyncpg.Connection[asyncpg.Record]
    PoolConnection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Connection = DriverConnection | PoolConnection
    _DriverPool = asyncpg.Pool[asyncpg.Record]
else:
    DriverConnection = asyncpg.Connection
    Connection = PoolConnection = _DriverPool = Any

COMMAND_TIMEOUT_S: Final = 60.0
CONNECT_TIMEOUT_S: Final = 10.0
FAREWELL_TIMEOUT_S: Final = 10.0


class ConnectionLost(ConnectionError):
    """The connection ended before a statement was answered; whether it was run is unknown."""


CONNECTION_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # the server is shutting down or was restarted
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,  # a deadlock or a lost serialisation: the other one won
    OSError,  # `ConnectionLost` too
    TimeoutError,
)
"""What is raised when a statement could not run now; the same may succeed later."""

_SESSION: Final = {"application_name": "heddle", "jit": "off", "timezone": "UTC"}

_COMPLAINTS: Final = (asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises for misuse, and as well for the use of a connection that has just ended."""

_FAREWELL_UNREAD: Final = "cannot switch to state"
"""How asyncpg's complaint begins when the server's last words came before our statement."""


class _Unasked(NamedTuple):
    """In place of a statement that was not run, and so has not taken the unnamed one's place."""

    name: str = "unasked"


_TYPES_TOLD: Final[dict[int, list[asyncpg.Record]]] = {}
"""What servers said of each of their own types, by its number, which is the same in all of them."""

OWN_TYPE_MAX: Final = 9_999
"""PostgreSQL gives its own types their numbers by hand up to here ("OID Assignment")."""


class CopyingConnection(DriverConnection):
    """asyncpg's connection, but for a COPY, which ends when the connection does, and for types.

    Two things asyncpg 0.32 leaves open: a COPY that waits for room in the socket's buffer waits for
    ever when the connection is lost meanwhile, and one that begins after the server's last words
    leaves behind a future that is given an exception and awaited by nobody.

    And every connection asks its server anew what an array of integers is, which takes that 5 ms.
    Of PostgreSQL's own types a process asks once.
    """

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> Any:
        """Return what asyncpg wants to know of types, and the statement by which it was asked."""
        asked = sorted(typeoids)
        if asked[-1] > OWN_TYPE_MAX:
            return await super()._introspect_types(asked, timeout)  # type: ignore[misc]
        statement: object = _Unasked()
        for oid in asked:
            if oid not in _TYPES_TOLD:
                told = await super()._introspect_types([oid], timeout)  # type: ignore[misc]
                _TYPES_TOLD[oid], statement = told
        return [row for oid in asked for row in _TYPES_TOLD[oid]], statement

    async def copy_records_to_table(self, *args: Any, **options: Any) -> str:
        async with self._copying():
            return await super().copy_records_to_table(*args, **options)

    async def copy_to_table(self, *args: Any, **options: Any) -> str:
        async with self._copying():
            return await super().copy_to_table(*args, **options)

    @contextlib.asynccontextmanager
    async def _copying(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        running, lost = True, False

        def end(_: object) -> None:
            nonlocal lost
            if running:
                lost = True
                scope.reschedule(loop.time())

        scope = asyncio.timeout(None)
        self.add_termination_listener(end)
        try:
            async with scope:
                try:
                    yield
                finally:
                    running = False
        except (TimeoutError, RuntimeError) as error:
            # uvloop refuses asyncpg's farewell to a connection that has ended by a RuntimeError.
            if not lost:
                raise
            self.terminate()
            raise ConnectionLost("the connection was lost in the middle of a COPY") from error
        except asyncpg.InternalClientError as error:
            if not str(error).startswith(_FAREWELL_UNREAD):
                raise
            with contextlib.suppress(*_COMPLAINTS, *CONNECTION_LOST):
                await self.close(timeout=FAREWELL_TIMEOUT_S)
            raise ConnectionLost("the server ended the connection before a COPY") from error
        finally:
            self.remove_termination_listener(end)


class Acquisition:
    """A connection of a pool for the length of an `async with`, and what became of it."""

    __slots__ = ("_connection", "_pool", "_timeout_s")

    def __init__(self, pool: _DriverPool, timeout_s: float | None) -> None:
        self._pool = pool
        self._timeout_s = timeout_s

    async def __aenter__(self) -> PoolConnection:
        try:
            self._connection = await self._pool.acquire(timeout=self._timeout_s)
        except asyncpg.InterfaceError as error:
            if self._pool.is_closing():
                raise ConnectionLost(str(error)) from error
            raise
        return self._connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lost = isinstance(error, _COMPLAINTS) and _has_ended(self._connection)
        await self._pool.release(self._connection)
        if error is not None and _was_cancelled(error):
            raise asyncio.CancelledError from error
        if error is not None and lost:
            raise ConnectionLost(_reason(error)) from error


TURNS_TO_SEND: Final = 3
"""Turns of the event loop until a task that was just begun has its statement on the way: of the
task, of what it waits for first, and of the connection, which sends at the end of a turn."""


async def statements_sent() -> None:
    """Return when tasks that were just begun have sent their first statement.

    For one who is about to keep the event loop for a while: the database works meanwhile.
    """
    for _ in range(TURNS_TO_SEND):
        await asyncio.sleep(0)


@contextlib.contextmanager
def telling_loss(connection: Connection) -> Iterator[None]:
    """Have what is raised because `connection` has ended be one of `CONNECTION_LOST`.

    For a connection that is held longer than one `async with` of its pool.
    """
    try:
        yield
    except (*_COMPLAINTS, *CONNECTION_LOST) as error:
        if _was_cancelled(error):
            raise asyncio.CancelledError from error
        if isinstance(error, _COMPLAINTS) and _has_ended(connection):
            raise ConnectionLost(_reason(error)) from error
        raise


def _was_cancelled(error: BaseException) -> bool:
    """Say whether `error` stands in the place of a cancellation of this task.

    The exit of a transaction whose connection has ended raises its own complaint, whatever else is
    under way; who then tries again would never end.
    """
    task = asyncio.current_task()
    if task is None or task.cancelling() == 0 or isinstance(error, asyncio.CancelledError):
        return False
    told: BaseException | None = error
    while told is not None and not isinstance(told, asyncio.CancelledError):
        told = told.__context__
    return told is not None


def _has_ended(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True  # the pool has taken it back, which before we let go it does when it ended


def _reason(complaint: BaseException) -> str:
    """Return how the connection ended: the exit of a transaction complains in place of that."""
    told: BaseException | None = complaint
    while told is not None and not isinstance(told, CONNECTION_LOST):
        told = told.__context__
    return str(told or complaint)


class Pool:
    """A bounded number of connections, each made when needed and again when it was lost.

    Its methods raise `CONNECTION_LOST` where a connection could not be had or has ended, and
    asyncpg's errors otherwise; so does the `async with` block of `acquire` as a whole.
    """

    def __init__(self, connections: _DriverPool, database_url: str) -> None:
        self._connections = connections
        self._database_url = database_url

    def acquire(self, *, timeout_s: float | None = None) -> Acquisition:
        """Return a context that lends a connection."""
        return Acquisition(self._connections, timeout_s)

    async def connect_apart(self, settings: Mapping[str, str] | None = None) -> CopyingConnection:
        """Return a connection beyond the pool's bound, for one who keeps it and closes it.

        So nobody who holds one waits for those who wait for him. `telling_loss` is yours, and so
        are the session's `settings`.
        """
        return await _connect(self._database_url, settings=settings)

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        """Run a statement, or a script without arguments; return its status."""
        async with self.acquire() as connection:
            return await connection.execute(query, *args, timeout=timeout)

    async def executemany(self, query: str, args: Iterable[Sequence[object]]) -> None:
        """Run a statement once for each of `args`, in one transaction."""
        async with self.acquire() as connection:
            await connection.executemany(query, args)

    async def fetch(
        self, query: str, *args: object, timeout: float | None = None
    ) -> list[asyncpg.Record]:
        """Return all rows."""
        async with self.acquire() as connection:
            return await connection.fetch(query, *args, timeout=timeout)

    async def fetchrow(
        self, query: str, *args: object, timeout: float | None = None
    ) -> asyncpg.Record | None:
        """Return the first row, or None."""
        async with self.acquire() as connection:
            return await connection.fetchrow(query, *args, timeout=timeout)

    async def fetchval(self, query: str, *args: object, timeout: float | None = None) -> Any:
        """Return the first value of the first row, or None."""
        async with self.acquire() as connection:
            return await connection.fetchval(query, *args, timeout=timeout)

    async def copy_records_to_table(
        self, table: str, *, records: Iterable[Sequence[object]], columns: Sequence[str]
    ) -> str:
        """Add rows by COPY; return its status."""
        async with self.acquire() as connection:
            return await connection.copy_records_to_table(table, records=records, columns=columns)

    def get_max_size(self) -> int:
        """Return how many connections there are at most."""
        return self._connections.get_max_size()

    async def close(self) -> None:
        """Wait until every connection was given back, and close them."""
        await self._connections.close()

    def terminate(self) -> None:
        """Drop every connection, lent or not."""
        self._connections.terminate()


async def _keep_session(_connection: Connection) -> None:
    """Skip the pool's RESET ALL: no code here changes a session's settings."""


async def create_pool(
    database_url: str,
    *,
    connections_max: int = 16,
    on_statement: Callable[[asyncpg.connection.LoggedQuery], None] | None = None,
) -> Pool:
    """Return a pool of connections to `database_url`.

    Parameters
    ----------
    on_statement : told of each statement after it ended, in the context of who had it run
    """

    async def watch(connection: DriverConnection) -> None:
        if on_statement is not None:
            connection.add_query_logger(on_statement)

    return Pool(
        await asyncpg.create_pool(
            database_url,
            min_size=1,
            max_size=connections_max,
            command_timeout=COMMAND_TIMEOUT_S,
            timeout=CONNECT_TIMEOUT_S,
            reset=_keep_session,
            init=watch,
            connection_class=CopyingConnection,
            server_settings=_SESSION,
        ),
        database_url,
    )


async def _connect(
    database_url: str, application_name: str = "heddle", settings: Mapping[str, str] | None = None
) -> CopyingConnection:
    return await asyncpg.connect(
        database_url,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=COMMAND_TIMEOUT_S,
        connection_class=CopyingConnection,
        server_settings={**_SESSION, "application_name": application_name, **(settings or {})},
    )


@contextlib.asynccontextmanager
async def connected(
    database_url: str, application_name: str = "heddle"
) -> AsyncIterator[CopyingConnection]:
    """Lend a connection of one's own, dropped afterwards; failing as a `Pool` fails."""
    connection = await _connect(database_url, application_name)
    try:
        with telling_loss(connection):
            yield connection
    finally:
        connection.terminate()
