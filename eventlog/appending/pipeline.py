"""A connection to which statements are sent before those ahead of them have been answered.

What a driver does for one statement at a time costs the server a pause between any two: it has
committed one, and waits until this process has read so, had its turn and sent the next. Here the
next stands in the server's socket already. asyncpg connects, by whatever road and with whatever
identity the URL names; then the transport is ours.

Each statement is a transaction of its own. One that fails leaves those behind it alone.

References
----------
The manual of PostgreSQL, "Frontend/Backend Protocol": "Extended Query", "Pipelining", "Message
Formats".
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import asyncpg

from eventlog.appending.wire import NULL, Value, integer, smallint
from eventlog.database import COMMAND_TIMEOUT_S, ConnectionLost, DriverConnection

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A longer answer is none: the statements here answer a value of a few bytes, or an error."""

_HEADER: Final = struct.Struct(">cI")
_ALL_BINARY: Final = smallint(1) + smallint(1)
_EXECUTE: Final = b"E" + integer(9) + b"\0" + integer(0)
_SYNC: Final = b"S" + integer(4)


class Statement(NamedTuple):
    """A statement of one value, and PostgreSQL's numbers for the types of its parameters."""

    name: str
    query: str
    types: tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Asked:
    outcome: asyncio.Future[Value]
    value: Value = None
    error: BaseException | None = None


class Pipeline(asyncio.Protocol):
    """Sends statements one behind the other. Open it with `Pipeline.open`.

    Every answer comes within `COMMAND_TIMEOUT_S` of the one before it, or the connection is ended.
    """

    def __init__(self, connection: DriverConnection, transport: asyncio.Transport) -> None:
        self._connection = connection
        self._driver: asyncio.Protocol = connection._protocol  # type: ignore[attr-defined]
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._asked: deque[_Asked] = deque()
        self._unread = b""
        self._lost: ConnectionLost | None = None
        self._watch: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, connection: DriverConnection, statements: Sequence[Statement]) -> Pipeline:
        """Take `connection` over, which nobody else uses from here on, and prepare `statements`."""
        if connection.is_closed():
            raise ConnectionLost("the connection has ended before it was taken over")
        transport: asyncio.Transport = connection._transport  # type: ignore[attr-defined]
        pipeline = cls(connection, transport)
        transport.set_protocol(pipeline)
        try:
            for statement in statements:
                await pipeline._ask(_parse(statement) + _SYNC)
        except BaseException:
            pipeline.terminate()
            raise
        return pipeline

    @property
    def is_lost(self) -> bool:
        """Whether the connection has ended."""
        return self._lost is not None

    def call(self, statement: Statement, parameters: Sequence[Value]) -> asyncio.Future[Value]:
        """Send `statement` with `parameters` in their binary form; return its answer to be.

        The future raises what PostgreSQL says is wrong, or `ConnectionLost`.
        """
        return self._ask(_calling(statement, parameters))

    def run(self, script: str) -> asyncio.Future[Value]:
        """Send a script without parameters, whose statements are one transaction."""
        body = script.encode() + b"\0"
        return self._ask(b"Q" + integer(4 + len(body)) + body)

    def terminate(self) -> None:
        """Drop the connection; what has not been answered is lost."""
        self._lose("the connection was dropped")
        if not self._transport.is_closing():
            self._connection.terminate()

    # --- the protocol's side ----------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take in what the server sends."""
        unread = self._unread + data if self._unread else data
        at, end = 0, len(unread)
        while end - at >= _HEADER.size:
            kind, length = _HEADER.unpack_from(unread, at)
            if length > MESSAGE_BYTES_MAX:
                self._lose(f"the server sends {length} bytes, more than {MESSAGE_BYTES_MAX}")
                self._transport.abort()
                return
            if end - at <= length:
                break
            self._take(kind, unread[at + _HEADER.size : at + 1 + length])
            at += 1 + length
        self._unread = unread[at:]

    def connection_lost(self, error: Exception | None) -> None:
        """Tell those who wait that nothing will come, and asyncpg that it has ended."""
        self._lose(str(error) if error else "the server has closed the connection")
        self._driver.connection_lost(error)

    def _take(self, kind: bytes, body: bytes) -> None:
        if not self._asked:
            # Notices, and last words that nobody asked for: the end of the connection follows.
            return
        asked = self._asked[0]
        if kind == b"D":
            asked.value = _first_value(body)
        elif kind == b"E":
            asked.error = _error(body)
        elif kind == b"Z":
            self._asked.popleft()
            self._watch_next()
            if not asked.outcome.done():
                if asked.error is None:
                    asked.outcome.set_result(asked.value)
                else:
                    asked.outcome.set_exception(asked.error)

    # --- ours -------------------------------------------------------------------------------

    def _ask(self, message: bytes) -> asyncio.Future[Value]:
        outcome: asyncio.Future[Value] = self._loop.create_future()
        if self._lost is not None:
            outcome.set_exception(self._lost)
            return outcome
        self._asked.append(_Asked(outcome))
        if len(self._asked) == 1:
            self._watch_next()
        self._transport.write(message)
        return outcome

    def _watch_next(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._asked:
            self._watch = self._loop.call_later(COMMAND_TIMEOUT_S, self._expire)

    def _expire(self) -> None:
        self._lose(f"no answer within {COMMAND_TIMEOUT_S:.0f} s")
        self._transport.abort()

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = ConnectionLost(reason)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        while self._asked:
            asked = self._asked.popleft()
            if not asked.outcome.done():
                # Last words, such as those of a server that is shutting down, say more.
                asked.outcome.set_exception(asked.error or ConnectionLost(reason))


def _parse(statement: Statement) -> bytes:
    types = b"".join(map(integer, statement.types))
    body = (
        *(statement.name.encode(), b"\0", statement.query.encode(), b"\0"),
        *(smallint(len(statement.types)), types),
    )
    return b"P" + integer(4 + sum(map(len, body))) + b"".join(body)


def _calling(statement: Statement, parameters: Sequence[Value]) -> bytes:
    if len(parameters) != len(statement.types):
        raise ValueError(f"{statement.name} takes {len(statement.types)} parameters")
    body = [b"\0", statement.name.encode(), b"\0", _ALL_BINARY, smallint(len(parameters))]
    for value in parameters:
        body += (NULL,) if value is None else (integer(len(value)), value)
    body.append(_ALL_BINARY)
    return b"".join((b"B", integer(4 + sum(map(len, body))), *body, _EXECUTE, _SYNC))


def _first_value(row: bytes) -> Value:
    length = int.from_bytes(row[2:6], "big", signed=True)
    return None if length < 0 else row[6 : 6 + length]


def _error(body: bytes) -> BaseException:
    """Return the error that asyncpg raises for the same words."""
    fields = {
        part[:1].decode(): part[1:].decode(errors="replace") for part in body.split(b"\0") if part
    }
    error: Any = asyncpg.PostgresError.new(fields)
    assert isinstance(error, BaseException)
    return error
