"""How batches reach the database: the connections, and the lock under which appends are judged.

What is stored is the batch's business, and when the writer's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from eventlog.appending.batch import Batch, Head
from eventlog.appending.pipeline import Pipeline
from eventlog.appending.statements import RECORD_EVENTS, STORE_ONE, storing
from eventlog.appending.wire import Value
from eventlog.database import ConnectionLost, CopyingConnection, Pool, telling_loss

PARTITION_MARGIN: Final = 500_000
SESSION: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_memoize": "off",
    "default_transaction_isolation": "read committed",
}
"""Of the writer's connections. A plan is made once (anew for each batch it costs 0.1 ms), and goes
by indexes: one that was made while a table was small would read all of it for ever. A batch that
has queued behind another process's sees what that one has committed."""

LOCK_LEDGER: Final = "select pg_advisory_xact_lock(x'68656465'::integer, $1)"
"""Where batches of a ledger queue, before anyone locks its row."""

_TRUE: Final = b"\1"


class BatchStorage:
    """Stores the batches of one ledger over a connection of its own, and has one to look up."""

    def __init__(self, pool: Pool, ledger: str, ledger_id: int) -> None:
        self._pool = pool
        self._ledger = ledger
        self._ledger_id = ledger_id
        self._partitioned_to = 0
        self._pipeline: Pipeline | None = None
        self._reading: CopyingConnection | None = None
        self._is_locked = False

    def terminate(self) -> None:
        """Drop the connections, which nobody uses any more."""
        if self._pipeline is not None:
            self._pipeline.terminate()
        if self._reading is not None:
            self._reading.terminate()
        self._pipeline = self._reading = None
        self._is_locked = False
        self._partitioned_to = 0  # what was made may have been rolled back

    async def open(self) -> None:
        """Have a connection over which batches are stored."""
        if self._pipeline is not None and self._pipeline.is_lost:
            self._pipeline.terminate()
            self._pipeline = None
        if self._pipeline is None:
            connection = await self._pool.connect_apart(SESSION)
            self._pipeline = await Pipeline.open(connection, (RECORD_EVENTS, STORE_ONE))

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[CopyingConnection]:
        """Yield a connection to look up while the ledger is locked, until `store` commits.

        In what state an error has left the connections is not worth knowing; new ones are made.
        """
        try:
            await self.open()
            pipeline = self._pipeline
            assert pipeline is not None, "it is open"
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
        pipeline = self._pipeline
        if pipeline is None:
            raise ConnectionLost("there is no connection")
        beside: list[asyncio.Future[Value]] = []
        made_to = self._partitioned_to
        if after.position > made_to:
            made_to = after.position + PARTITION_MARGIN
            beside.append(pipeline.run(f"select ensure_event_partitions({made_to})"))
        stored = pipeline.call(*storing(self._ledger_id, self._ledger, batch, after))
        if self._is_locked:
            self._is_locked = False
            beside.append(pipeline.run("commit"))
        if not beside:
            return await stored == _TRUE
        answer, *_ = await asyncio.gather(stored, *beside)
        self._partitioned_to = made_to
        return answer == _TRUE
