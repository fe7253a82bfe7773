"""The ledger: a named log, and the one way to append to it.

`eventlog.appending.writer` stores what is appended: positions are 1, 2, 3 … without gaps, position
order is commit order, and a reader never sees a position before a smaller one, whatever number of
processes append.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from domain.errors import InvalidInput, Unavailable
from eventlog.appending import lookup
from eventlog.appending.appends import (
    KEY_LENGTH_MAX,
    NO_STREAM,
    Append,
    Appended,
    IdempotencyKey,
    Placed,
)
from eventlog.appending.writer import Writer
from eventlog.database import Pool
from eventlog.envelope import NewEvent, check_event
from eventlog.transparency.merkle import EMPTY_ROOT

__all__ = [
    "KEY_LENGTH_MAX",
    "NO_STREAM",
    "Appended",
    "IdempotencyKey",
    "Ledger",
    "Placed",
]

CHANNEL: Final = "heddle_ledger"
"""NOTIFY channel; the payload is ``<ledger>:<position>``."""

APPEND_EVENTS_MAX: Final = 2_000


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """A named log. Open it with `Ledger.open`, close it with `close`."""

    def __init__(self, pool: Pool, name: str, ledger_id: int, clock: Callable[[], datetime]):
        self.name = name
        self.ledger_id = ledger_id
        self.pool = pool
        self._writer = Writer(pool, name, ledger_id, clock)
        self._closed = False

    @classmethod
    async def open(
        cls, pool: Pool, name: str, *, clock: Callable[[], datetime] = _utc_now
    ) -> Ledger:
        """Return the ledger called `name`, created empty when it is new."""
        await pool.execute(
            "insert into ledger (name, root) values ($1, $2) on conflict do nothing",
            name,
            EMPTY_ROOT,
        )
        ledger_id = await pool.fetchval("select ledger_id from ledger where name = $1", name)
        return cls(pool, name, ledger_id, clock)

    async def close(self) -> None:
        """Finish what was accepted and stop the writer."""
        self._closed = True
        await self._writer.close()

    async def append(
        self,
        events: Sequence[NewEvent],
        *,
        expected: Mapping[str, int] | None = None,
        idempotency: IdempotencyKey | None = None,
    ) -> Appended:
        """Record `events` together, once, and return where they stand.

        Parameters
        ----------
        expected : for a stream, the version it must have before this append (`NO_STREAM` = 0);
            streams not named may have any
        idempotency : the same key with the same content returns the first outcome

        Raises
        ------
        InvalidInput
            an event that cannot be recorded, or none or too many of them
        Conflict
            ``stream.version_conflict``, ``idempotency_key.reused``, ``event.id_reused``,
            ``source.sequence_reused`` or ``append.partly_recorded``
        Unavailable
            ``ledger.unavailable``: the database cannot be reached; append again
        """
        if not 1 <= len(events) <= APPEND_EVENTS_MAX:
            raise InvalidInput(
                "append.event_count",
                f"an append has 1 to {APPEND_EVENTS_MAX} events, not {len(events)}",
                value=len(events),
                limit=APPEND_EVENTS_MAX,
            )
        payload_bytes = 0
        for event in events:
            check_event(event)
            payload_bytes += len(event.payload)
        if self._writer.is_full:
            await self._writer.wait_for_room()
        if self._closed:
            raise Unavailable("ledger.closed", f"ledger {self.name!r} is shutting down")
        outcome: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._writer.submit(Append(events, expected or {}, idempotency, payload_bytes, outcome))
        return await outcome

    async def recall(self, idempotency: IdempotencyKey) -> Appended | None:
        """Return the outcome of an earlier append under the same key and content.

        Raises
        ------
        Conflict
            ``idempotency_key.reused``: the key was used for something else
        """
        return await lookup.recall(self.pool, self.ledger_id, idempotency)

    async def stream_version(self, stream: str) -> int:
        """Return the version of the last event on `stream`, 0 when there is none."""
        versions = await lookup.read_versions(self.pool, self.ledger_id, [stream])
        return versions.get(stream, NO_STREAM)

    async def head(self) -> int:
        """Return the position of the last event, 0 when there is none."""
        position: int = await self.pool.fetchval(
            "select position from ledger where ledger_id = $1", self.ledger_id
        )
        return position
