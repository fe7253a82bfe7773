"""How batches reach the database: the statements, the connections, and which batch takes which way.

What is stored is the batch's business, and when the writer's.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from eventlog.appending.batch import Batch, Head
from eventlog.appending.copy_format import (
    COPY_EVENTS,
    copy_block,
    copy_stream,
    key_columns,
    microseconds,
)
from eventlog.database import CopyingConnection, Pool, telling_loss

SINGLE_STATEMENT_EVENTS_MAX: Final = 96
"""So many events go with everything else in one statement; COPY pays beyond."""

COPY_BLOCK_BYTES_MAX: Final = 1024 * 1024
"""A batch with larger payloads is sent block by block, as the connection takes them."""

PARTITION_MARGIN: Final = 500_000
SESSION: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "default_transaction_isolation": "read committed",
}
"""Of the writer's connection. A plan is made once (anew for each batch it costs 0.1 ms), and goes
by indexes: one that was made while a table was small would read all of it for ever. A batch that
has queued behind another sees what that one has committed."""

LOCK_LEDGER: Final = "select pg_advisory_xact_lock(x'68656465'::integer, $1)"
"""Where batches of a ledger queue, before anyone locks its row."""

STORE_ONE: Final = f"select store_one({', '.join(f'${n}' for n in range(1, 26))})"
STORE_KEYS: Final = f"select store_keys({', '.join(f'${n}' for n in range(1, 16))})"
STORE_EVENTS: Final = f"select store_events({', '.join(f'${n}' for n in range(1, 30))})"

INSERT_KEYS: Final = """
    insert into idempotency_key (ledger_id, key, content_sha256, first_position, last_position)
    select $1, * from unnest($2::text[], $3::bytea[], $4::bigint[], $5::bigint[])
"""


class BatchStorage:
    """Stores the batches of one ledger, on connections of its own."""

    def __init__(self, pool: Pool, ledger: str, ledger_id: int) -> None:
        self._pool = pool
        self._ledger = ledger
        self._ledger_id = ledger_id
        self._partitioned_to = 0
        self._connections: list[CopyingConnection] = []

    def terminate(self) -> None:
        """Drop the connections, which nobody uses any more."""
        for connection in self._connections:
            connection.terminate()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[CopyingConnection]:
        """Yield a connection of its own, which is ended when something went wrong.

        In what state an error has left it is not worth knowing; the next batch gets a new one.
        """
        if self._connections:
            connection = self._connections.pop()
        else:
            connection = await self._pool.connect_apart(SESSION)
        try:
            with telling_loss(connection):
                yield connection
        except BaseException:
            connection.terminate()
            raise
        self._connections.append(connection)

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[CopyingConnection]:
        """Yield a connection whose transaction holds the ledger, and commit it afterwards."""
        async with self.connected() as connection:
            # The row too: a process of an older version waits there, and what it has committed
            # meanwhile is what the next statement sees.
            await connection.execute(
                f"begin; {LOCK_LEDGER.replace('$1', str(self._ledger_id))}; "
                f"select from ledger where ledger_id = {self._ledger_id} for update"
            )
            yield connection
            await connection.execute("commit")

    async def store_fenced(self, batch: Batch, after: Head) -> bool:
        """Store `batch` if the ledger still ends where it begins; return whether it did."""
        async with self.connected() as connection:
            if self._is_small(batch, after):
                return await self._store_small(connection, batch, after)
            await connection.execute("begin")
            if not await self._store_large(connection, batch, after, then="; commit"):
                await connection.execute("rollback")
                return False
        self.note_committed(batch, after)
        return True

    async def store(self, connection: CopyingConnection, batch: Batch, after: Head) -> bool:
        """Write all of `batch` inside the caller's transaction; False as `store_fenced`."""
        if self._is_small(batch, after):
            return await self._store_small(connection, batch, after)
        return await self._store_large(connection, batch, after)

    def _is_small(self, batch: Batch, after: Head) -> bool:
        """Whether `batch` is stored by one statement."""
        return len(batch.events) <= SINGLE_STATEMENT_EVENTS_MAX and not (
            batch.new_keys or self._lacks_partition(after)
        )

    async def _store_small(self, connection: CopyingConnection, batch: Batch, after: Head) -> bool:
        if len(batch.events) == 1:
            arguments = _one_event(self._ledger_id, batch, after)
            return bool(await connection.fetchval(STORE_ONE, *arguments))
        ends = _heads(self._ledger_id, self._ledger, batch, after)
        return bool(await connection.fetchval(STORE_EVENTS, *ends, *batch.columns()))

    async def _store_large(
        self, connection: CopyingConnection, batch: Batch, after: Head, then: str = ""
    ) -> bool:
        """Write all of `batch` inside a transaction; `then` goes with its last statement."""
        ends = _heads(self._ledger_id, self._ledger, batch, after)
        keys = key_columns(batch.events, batch.versions)
        if not await connection.fetchval(STORE_KEYS, *ends, *keys):
            return False
        if self._lacks_partition(after):
            await connection.execute(
                "select ensure_event_partitions($1)", after.position + PARTITION_MARGIN
            )
        if batch.new_keys:
            columns = ([entry[n] for entry in batch.new_keys] for n in range(4))
            await connection.execute(INSERT_KEYS, self._ledger_id, *columns)
        rows = batch.rows()
        is_large = batch.payload_bytes > COPY_BLOCK_BYTES_MAX
        await connection.run_with_copy(
            COPY_EVENTS + then, copy_stream(rows) if is_large else copy_block(rows)
        )
        return True

    def note_committed(self, batch: Batch, after: Head) -> None:
        """Remember the partitions that `batch` has made: not before, for a rollback takes them."""
        if batch.events and self._lacks_partition(after):
            self._partitioned_to = after.position + PARTITION_MARGIN

    def _lacks_partition(self, after: Head) -> bool:
        return after.position > self._partitioned_to


def encode(batch: Batch) -> None:
    """Encode `batch` beforehand for the way in which it will probably be stored."""
    if len(batch.events) > SINGLE_STATEMENT_EVENTS_MAX:
        batch.rows()


def _heads(ledger_id: int, ledger: str, batch: Batch, after: Head) -> tuple[Any, ...]:
    """Return where the ledger has to end and where it will, as `STORE_KEYS` begins."""
    before = batch.head
    return (
        *(ledger_id, ledger, before.position, before.root),
        *(after.recorded_at, after.frontier, after.root),
    )


def _one_event(ledger_id: int, batch: Batch, after: Head) -> tuple[Any, ...]:
    """Return the only event of `batch` as `STORE_ONE` takes it."""
    before, event, window = batch.head, batch.events[0], batch.events[0].window
    ends = (ledger_id, before.position, before.root, after.recorded_at, after.frontier, after.root)
    envelope = (
        *(event.event_id, event.stream, batch.versions[0], event.type, event.schema_version),
        *(microseconds(event.occurred_at), event.actor, event.payload, event.payload_sha256),
        *(batch.leaves[0], event.correlation_id, event.causation_id, event.traceparent),
        *(event.source, event.sequence),
    )
    if window is None:
        return (*ends, *envelope, None, None, None, None)
    return (
        *(*ends, *envelope),
        *(window.start_ns, window.end_ns, window.reading_count, window.statistics),
    )
