"""How batches reach the database: the connections, and the lock under which appends are judged.

What is stored is the batch's business, and when the writer's.

The database commits the batches of a ledger one behind the other. One that is sent over the same
connection as the one before it is taken up when that one has been flushed. Where flushes are slow
a batch goes over a second connection and is *early*: it writes its rows, and what has come of it
before the rest, while the one ahead is flushed, and only moves the ledger's end when it is its
turn. Migration 0026 tells how two locks keep the order.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from eventlog.appending.batch import Batch, Head
from eventlog.appending.flush_time import FlushTime
from eventlog.appending.pipeline import Pipeline
from eventlog.appending.statements import APPEND_BATCH, STORE_ONE, Part, storing
from eventlog.appending.wire import Value
from eventlog.database import (
    COMMAND_TIMEOUT_S,
    ConnectionLost,
    CopyingConnection,
    Pool,
    telling_loss,
)

PARTITION_MARGIN: Final = 500_000
SESSION: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_memoize": "off",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": f"{COMMAND_TIMEOUT_S:.0f}s",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
"""Of the writer's connections. A plan is made once (anew for each batch it costs 0.1 ms), and goes
by indexes: one that was made while a table was small would read all of it for ever. A batch that
has queued behind another process's sees what that one has committed. Should this process be
stopped or cut off while it holds a ledger, others wait for it so long and no longer."""

LOCK_LEDGER: Final = (
    "select pg_advisory_xact_lock(x'68656466'::integer, $1), "
    "pg_advisory_xact_lock(x'68656465'::integer, $1)"
)
"""Where batches of a ledger queue, before anyone locks its row: to write, then to commit."""

_LET_GO: Final = "select pg_advisory_unlock_all()"
"""Of an early batch that failed before it let go of the lock to write."""

PART: Final = 0.25
PART_EVENTS_MIN: Final = 12
"""So many events of an early batch, as a part of those of the one ahead and at the least, are
written before the others have come."""

_now: Final = time.perf_counter


@dataclass(slots=True, eq=False)
class _Transaction:
    """The transaction that stores a batch.

    Attributes
    ----------
    pipeline : the connection over which it goes
    ahead : the batch beside whose flush it writes its rows; None: it does so when it is its turn
    written : so many events are with the database though the batch still grows
    """

    pipeline: Pipeline
    ahead: Batch | None
    batch: Batch
    written: int = 0


class BatchStorage:
    """Stores the batches of one ledger over connections of its own, and has one to look up."""

    def __init__(self, pool: Pool, ledger: str, ledger_id: int) -> None:
        self._pool = pool
        self._ledger = ledger
        self._ledger_id = ledger_id
        self._partitioned_to = 0
        self._pipelines: list[Pipeline] = []
        self._sent: list[_Transaction] = []
        self._begun: _Transaction | None = None
        self._reading: CopyingConnection | None = None
        self._is_locked = False
        self._flushes = FlushTime()

    def terminate(self) -> None:
        """Drop the connections, which nobody uses any more."""
        for pipeline in self._pipelines:
            pipeline.terminate()
        self._pipelines.clear()
        if self._reading is not None:
            self._reading.terminate()
        self._reading = self._begun = None
        self._is_locked = False
        self._partitioned_to = 0  # what was made may have been rolled back

    async def open(self) -> None:
        """Have the connections over which batches are stored."""
        for pipeline in [p for p in self._pipelines if p.is_lost]:
            pipeline.terminate()
            self._pipelines.remove(pipeline)
        while len(self._pipelines) < (2 if self._flushes.is_slow else 1):
            connection = await self._pool.connect_apart(SESSION)
            self._pipelines.append(await Pipeline.open(connection, (APPEND_BATCH, STORE_ONE)))

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[CopyingConnection]:
        """Yield a connection to look up while the ledger is locked, until `store` commits.

        In what state an error has left the connections is not worth knowing; new ones are made.
        """
        try:
            await self.open()
            pipeline = self._pipelines[0]
            if self._reading is None:
                self._reading = await self._pool.connect_apart(SESSION)
            # The row too: a process of an older version waits there, and what it has committed
            # meanwhile is what the next statement sees.
            await pipeline.run(
                f"begin; {LOCK_LEDGER.replace('$1', str(self._ledger_id))}; "
                f"select from ledger where ledger_id = {self._ledger_id} for update"
            )
            self._is_locked = True
            with telling_loss(self._reading):
                yield self._reading
            if self._is_locked:
                self._is_locked = False
                await pipeline.run("rollback")
        except BaseException:
            self.terminate()
            raise

    async def store(self, batch: Batch, after: Head) -> bool:
        """Store `batch` if the ledger still ends where it begins; return whether it did.

        It is sent at once, behind those that were sent before it, and is one transaction: that of
        `locked`, which ends with it, or its own.

        Raises
        ------
        asyncpg.PostgresError, ConnectionLost
            nothing of it is stored; or, where the connection was lost, that is not known
        """
        transaction, self._begun = self._begun or self._new_transaction(batch), None
        assert transaction.batch is batch, "what will not be stored is taken back"
        pipeline, written = transaction.pipeline, transaction.written
        beside: list[asyncio.Future[Value]] = []
        made_to = self._partitioned_to
        if after.position > made_to:
            made_to = after.position + PARTITION_MARGIN
            beside.append(pipeline.run(f"select ensure_event_partitions({made_to})"))
        sent_at = _now()
        part = Part(batch, written, len(batch.events), after, transaction.ahead)
        stored = pipeline.call(*storing(self._ledger_id, self._ledger, part))
        if self._is_locked or written:
            self._is_locked = False
            beside.append(pipeline.run("commit"))
        self._sent.append(transaction)
        try:
            answer, *_ = await asyncio.gather(stored, *beside) if beside else (await stored,)
        except BaseException:
            if transaction.ahead is not None:
                _unheard(pipeline.run(_LET_GO))
            raise
        finally:
            self._sent.remove(transaction)
        self._partitioned_to = max(made_to, self._partitioned_to)
        worked_us = int.from_bytes(answer or b"")
        if worked_us:
            self._flushes.take(sent_at, _now(), worked_us * 1e-6, batch.payload_bytes)
        return bool(worked_us)

    def write_ahead(self, batch: Batch) -> None:
        """Send what has come of `batch` by now if it is to be early and that is worth a statement.

        `store` sends the rest. What it will not be called for has to be taken back.
        """
        transaction = self._begun or self._new_transaction(batch)
        ahead, written = transaction.ahead, transaction.written
        if ahead is None or transaction.batch is not batch:
            return
        end = len(batch.events) - 1  # one is left for `store`
        part = Part(batch, written, end, None, ahead)
        if (
            end - written < max(PART_EVENTS_MIN, int(len(ahead.events) * PART))
            or part.shares_streams
        ):
            return
        if self._begun is None:
            self._begun = transaction
            _unheard(transaction.pipeline.run("begin"))
        _unheard(transaction.pipeline.call(*storing(self._ledger_id, self._ledger, part)))
        transaction.written = end

    def take_back(self) -> None:
        """Undo what has been sent of a batch that will not be stored."""
        if self._begun is not None:
            _unheard(self._begun.pipeline.run("rollback"))
            _unheard(self._begun.pipeline.run(_LET_GO))
            self._begun = None

    def _new_transaction(self, batch: Batch) -> _Transaction:
        if not self._pipelines:
            raise ConnectionLost("there is no connection")
        if not self._sent:
            return _Transaction(self._pipelines[0], None, batch)
        ahead = self._sent[-1]
        if self._flushes.is_slow:
            taken = [transaction.pipeline for transaction in self._sent]
            for pipeline in self._pipelines:
                if pipeline not in taken:
                    return _Transaction(pipeline, ahead.batch, batch)
        return _Transaction(ahead.pipeline, None, batch)


def _unheard(outcome: asyncio.Future[Value]) -> None:
    """Let nobody wait for `outcome`: if it is an error, what is sent behind it fails as well."""
    if not outcome.cancel():
        outcome.exception()
