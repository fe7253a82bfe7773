"""The writer of one ledger: group commit, one batch ahead.

Concurrent appends of a process share a transaction, each with its own outcome. While a batch
commits, the next one is numbered, hashed and encoded. It is built on the head as this process
knows it and stored behind a fence: if another process has moved the head meanwhile, nothing is
written, and the batch is built again under the lock of the head's row (*carefully*), where
nothing has to be assumed. The same happens after any error: there every append gets its due.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg

from domain.errors import InvalidInput, Unavailable
from eventlog.appends import NO_STREAM, Append
from eventlog.batch import BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Batch, Head, Known
from eventlog.copy_format import EVENT_COLUMNS, copy_stream, key_columns
from eventlog.database import (
    CONNECTION_LOST,
    Connection,
    DriverConnection,
    Pool,
    telling_loss,
)
from eventlog.lookup import read_head, read_known, read_versions

logger = logging.getLogger("heddle.eventlog")

WAITING_APPENDS_MAX: Final = 8_000
WAITING_BYTES_MAX: Final = 128 * 1024 * 1024
SINGLE_STATEMENT_EVENTS_MAX: Final = 96
"""So many events go with everything else in one statement; COPY pays beyond."""

SPLIT_EVENTS_MIN: Final = 32
"""From so many waiting events on, a batch that may start leaves half to the next one. Callers who
wait for their outcome come back together; in one batch nothing would be left to overlap with."""

EVENTS_AT_ONCE: Final = 8
"""Events that are numbered and hashed before the database's answers are looked for."""

RETRIES_MAX: Final = 6
RETRY_DELAY_S: Final = 0.1
PARTITION_MARGIN: Final = 500_000
STREAMS_KNOWN_MAX: Final = 200_000
SESSION: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
"""Of the writer's connection. A plan is made once (anew for each batch it costs 0.1 ms), and goes
by indexes: one that was made while a table was small would read all of it for ever."""

CAREFUL_BATCHES: Final = 16
"""After a lost race so many batches are built under the lock: the other writer is still busy."""


class Writer:
    """Stores the appends of this process to one ledger, in the order in which they came."""

    def __init__(
        self, pool: Pool, ledger: str, ledger_id: int, clock: Callable[[], datetime]
    ) -> None:
        self.pool = pool
        self._ledger = ledger
        self._ledger_id = ledger_id
        self._clock = clock
        self._waiting: deque[Append] = deque()
        self._waiting_bytes = 0
        self._work, self._room, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._head: Head | None = None
        self._versions: dict[str, int] = {}
        self._batch: Batch | None = None
        self._under_way: Batch | None = None
        self._commits: set[asyncio.Task[None]] = set()
        self._failed: Batch | None = None
        self._careful_batches = 0
        self._partitioned_to = 0
        self._connection: DriverConnection | None = None
        self._task = asyncio.create_task(self._write(), name=f"ledger-writer:{ledger}")

    async def wait_for_room(self) -> None:
        """Return once another append may be submitted."""
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    @property
    def is_full(self) -> bool:
        """Whether so much waits already that an append should not be submitted."""
        return len(self._waiting) >= WAITING_APPENDS_MAX or self._waiting_bytes >= WAITING_BYTES_MAX

    def submit(self, request: Append) -> None:
        """Take `request` in; its outcome is set in time.

        Raises
        ------
        Unavailable
            ``ledger.unavailable``: the writer has stopped
        """
        if self._task.done():
            raise self._stopped()
        self._waiting.append(request)
        self._waiting_bytes += request.payload_bytes
        self._work.set()

    async def close(self) -> None:
        """Finish what was accepted and stop."""
        if not self._task.done() and not self._is_idle:
            self._idle.clear()
            idle = asyncio.create_task(self._idle.wait())
            await asyncio.wait((idle, self._task), return_when=asyncio.FIRST_COMPLETED)
            idle.cancel()
        for task in (self._task, *self._commits):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._connection is not None:
            self._connection.terminate()

    # --- ahead ----------------------------------------------------------------------------

    @property
    def _is_idle(self) -> bool:
        return not (self._waiting or self._batch or self._under_way or self._commits)

    async def _write(self) -> None:
        try:
            while True:
                if self._is_idle:
                    self._idle.set()
                await self._work.wait()
                self._work.clear()
                if self._failed is not None:
                    self._rewind(careful_batches=CAREFUL_BATCHES)
                if self._careful_batches == 0:
                    await self._write_ahead()
                elif self._under_way is None and (self._waiting or self._batch):
                    self._rewind(careful_batches=self._careful_batches)
                    await self._write_carefully()
        finally:
            left = [b.requests for b in (self._under_way, self._batch) if b is not None]
            for request in (*(r for requests in left for r in requests), *self._waiting):
                request.settle(self._stopped())
            self._waiting.clear()
            self._waiting_bytes = 0
            self._room.set()

    async def _write_ahead(self) -> None:
        """Fill the next batch on what is known of the ledger; commit it when none is under way."""
        try:
            if self._under_way is None:
                if self._batch is None and len(self._versions) > STREAMS_KNOWN_MAX:
                    self._head = None  # what is known of streams is read anew, as it is needed
                await self._fill(leave_half=True)
                self._commit_next()
            await self._fill()
        except CONNECTION_LOST as error:
            logger.warning("ledger %s: the database is away: %s", self._ledger, error)
            self._rewind(careful_batches=1)
        except Exception:
            # A fault of ours must not end the writer and with it every other caller: each
            # append is tried again, alone if need be, and only the culprit learns of it.
            logger.exception("ledger %s: a batch could not be built", self._ledger)
            self._rewind(careful_batches=1)

    async def _fill(self, *, leave_half: bool = False) -> None:
        """Take waiting appends into the batch, which is begun where there is none."""
        waiting = self._waiting
        if not waiting:
            return
        if self._head is None:
            if self._under_way is not None:
                return  # what is under way decides where the ledger ends
            self._head = await read_head(self.pool, self._ledger_id)
            self._versions = {}
        # What comes while the versions are read, or while others have their turn, comes next.
        left = len(waiting)
        await self._learn_versions()
        batch = self._batch
        if batch is None:
            recorded_at = max(self._clock(), self._head.recorded_at)
            known = Known(self._versions)
            self._batch = batch = Batch(
                self._ledger, self._ledger_id, self._head, recorded_at, known, self._under_way
            )
        events_max = BATCH_EVENTS_MAX
        if leave_half:
            events = len(batch.events) + sum([len(request.events) for request in waiting])
            if events >= SPLIT_EVENTS_MIN:
                events_max = events // 2
        yielded = len(batch.events)
        while left and len(batch.events) < events_max and not batch.is_full:
            batch.add(waiting[0])
            self._waiting_bytes -= waiting.popleft().payload_bytes
            left -= 1
            if len(batch.events) - yielded >= EVENTS_AT_ONCE:
                yielded = len(batch.events)
                await asyncio.sleep(0)
                if self._batch is not batch:
                    break  # the commit before it has ended, and this one begun
        if self._under_way is not None:
            _encode(batch)  # while the database is busy with the one before
        self._room.set()
        if waiting:
            self._work.set()

    async def _learn_versions(self) -> None:
        """Read the versions of streams that waiting appends name for the first time."""
        versions = self._versions
        unknown = set()
        for request in self._waiting:
            for event in request.events:
                if event.stream not in versions:
                    unknown.add(event.stream)
            if request.expected:
                unknown.update(stream for stream in request.expected if stream not in versions)
        if unknown:
            found = await read_versions(self.pool, self._ledger_id, unknown)
            versions.update(dict.fromkeys(unknown, NO_STREAM) | found)

    def _commit_next(self) -> None:
        """Begin to commit the batch that was filled, if there is one."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        self._head = batch.sealed()
        self._under_way = batch
        task = asyncio.create_task(self._commit(batch, self._head))
        self._commits.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._commits.discard(task)
        self._work.set()

    async def _commit(self, batch: Batch, after: Head) -> None:
        """Store `batch`, let the next one begin, and tell the callers."""
        is_stored = False
        try:
            is_stored = await self._is_stored(batch, after)
        finally:
            if not is_stored:
                self._failed = batch
        if not is_stored:
            return
        self._under_way = None
        if self._batch is not None:
            self._batch.forget_previous()
        refused = batch.take_refused()
        if refused:
            # What was recorded long ago under these keys has not been looked up yet: a repetition
            # is no conflict, whatever version it expects.
            self._put_back(refused)
            self._careful_batches = max(1, self._careful_batches)
        elif len(batch.events) < SPLIT_EVENTS_MIN:
            # Callers are told before the next batch begins, so that they may be part of it.
            await batch.settle()
            self._work.set()
            return
        elif self._batch is not None and 2 * len(self._batch.events) >= len(batch.events):
            # The database must not wait until all callers of this batch have had their turn.
            self._commit_next()
        self._work.set()
        await batch.settle()

    async def _is_stored(self, batch: Batch, after: Head) -> bool:
        """Store `batch`; return False when its appends have to be judged under the lock."""
        try:
            return not batch.events or await self._store_fenced(batch, after)
        except (asyncpg.PostgresError, *CONNECTION_LOST) as error:
            # A key that is recorded already, or a fault: under the lock each append gets its
            # due. If it was committed after all, its events will recognise themselves.
            logger.debug("ledger %s: a batch is built again: %s", self._ledger, error)
        except asyncio.CancelledError:
            if _is_meant():
                raise
        except Exception:
            # A fault of ours, which under the lock is told from its neighbours.
            logger.exception("ledger %s: a batch could not be stored", self._ledger)
        return False

    def _rewind(self, *, careful_batches: int) -> None:
        """Put every append that will not be committed back to where it waited, in its order."""
        for batch in (self._batch, self._failed):
            if batch is not None:
                self._put_back(batch.requests)
        if self._failed is not None:
            self._failed = self._under_way = None
        self._batch = self._head = None
        self._careful_batches = careful_batches
        self._work.set()

    def _put_back(self, requests: Sequence[Append]) -> None:
        self._waiting.extendleft(reversed(requests))
        self._waiting_bytes += sum([request.payload_bytes for request in requests])

    # --- under the lock -------------------------------------------------------------------

    async def _write_carefully(self) -> None:
        """Commit what waits under the lock of the head row, where nothing has to be assumed."""
        requests: list[Append] = []
        events = size = 0
        while self._waiting and events < BATCH_EVENTS_MAX and size < BATCH_BYTES_MAX:
            request = self._waiting.popleft()
            requests.append(request)
            events += len(request.events)
            size += request.payload_bytes
        self._waiting_bytes -= size
        self._room.set()
        try:
            await self._commit_locked(requests)
        finally:
            for request in requests:
                request.settle(self._stopped())
        self._careful_batches -= 1

    async def _commit_locked(self, requests: Sequence[Append]) -> None:
        """Commit `requests`; settle every one, whatever becomes of the others."""
        for attempt in range(RETRIES_MAX):
            try:
                batch = await self._transact(requests)
            except CONNECTION_LOST as error:
                # Whether it was committed is unknown; event ids make the repetition harmless.
                logger.warning("ledger %s: the database is away: %s", self._ledger, error)
                await asyncio.sleep(RETRY_DELAY_S * 2**attempt)
            except asyncio.CancelledError:
                if _is_meant():
                    raise
            except Exception as error:
                if not isinstance(error, asyncpg.PostgresError):
                    logger.exception("ledger %s: an append failed", self._ledger)
                await self._isolate(requests, error)
                return
            else:
                await batch.settle()
                return
        for request in requests:
            request.settle(
                Unavailable(
                    "ledger.unavailable",
                    f"ledger {self._ledger!r} cannot reach its database",
                    hint="append again later; nothing is recorded twice",
                )
            )

    async def _isolate(self, requests: Sequence[Append], error: Exception) -> None:
        """Halve refused appends until the culprit stands alone."""
        if len(requests) == 1:
            requests[0].settle(
                InvalidInput("append.refused", f"the database refused the append: {error}")
            )
            return
        middle = len(requests) // 2
        await self._commit_locked(requests[:middle])
        await self._commit_locked(requests[middle:])

    async def _transact(self, requests: Sequence[Append]) -> Batch:
        partitioned_to = self._partitioned_to
        async with self._connected() as connection, connection.transaction():
            head = await read_head(connection, self._ledger_id, lock=True)
            known = await read_known(connection, self._ledger_id, requests)
            recorded_at = max(self._clock(), head.recorded_at)
            batch = Batch(self._ledger, self._ledger_id, head, recorded_at, known)
            for request in requests:
                batch.add(request)
            if batch.events:
                reached = await self._store(connection, batch, batch.sealed())
                assert reached is not None, "the head is locked"
                partitioned_to = reached
        self._partitioned_to = partitioned_to
        return batch

    # --- the database ---------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[DriverConnection]:
        """Yield the writer's own connection, which is ended when something went wrong.

        In what state an error has left it is not worth knowing; the next batch gets a new one.
        """
        connection = self._connection
        if connection is None:
            connection = self._connection = await self.pool.connect_apart(SESSION)
        try:
            with telling_loss(connection):
                yield connection
        except BaseException:
            self._connection = None
            connection.terminate()
            raise

    async def _store_fenced(self, batch: Batch, after: Head) -> bool:
        """Store `batch` if the ledger still ends where it begins; return whether it did."""
        async with self._connected() as connection:
            if len(batch.events) <= SINGLE_STATEMENT_EVENTS_MAX and not (
                batch.new_keys or self._lacks_partition(after)
            ):
                stored: bool = await connection.fetchval(
                    _APPEND_EVENTS, *self._heads(batch, after), *batch.columns()
                )
                return stored
            await connection.execute("begin")
            partitioned_to = await self._store(connection, batch, after)
            if partitioned_to is None:
                await connection.execute("rollback")
                return False
            await connection.execute("commit")
        # Not before the commit: a transaction that is rolled back takes its partitions with it.
        self._partitioned_to = partitioned_to
        return True

    async def _store(self, connection: Connection, batch: Batch, after: Head) -> int | None:
        """Write all of `batch` inside the caller's transaction; return how far partitions reach.

        None: the ledger does not end any more where the batch begins, and nothing is written.
        """
        keys = key_columns(batch.events, batch.versions)
        if not await connection.fetchval(_APPEND_KEYS, *self._heads(batch, after), *keys):
            return None
        partitioned_to = self._partitioned_to
        if self._lacks_partition(after):
            partitioned_to = after.position + PARTITION_MARGIN
            await connection.execute("select ensure_event_partitions($1)", partitioned_to)
        if batch.new_keys:
            await connection.execute(
                "insert into idempotency_key "
                "(ledger_id, key, content_sha256, first_position, last_position) "
                "select $1, * from unnest($2::text[], $3::bytea[], $4::bigint[], $5::bigint[])",
                self._ledger_id,
                *([entry[n] for entry in batch.new_keys] for n in range(4)),
            )
        await connection.copy_to_table(
            "event",
            source=copy_stream(batch.rows()),
            columns=EVENT_COLUMNS,
            format="binary",
        )
        return partitioned_to

    def _heads(self, batch: Batch, after: Head) -> tuple[Any, ...]:
        """Return where the ledger has to end and where it will, as both functions take it."""
        return (
            self._ledger_id,
            self._ledger,
            batch.head.position,
            batch.head.root,
            after.recorded_at,
            after.frontier,
            after.root,
        )

    def _lacks_partition(self, after: Head) -> bool:
        return after.position > self._partitioned_to

    def _stopped(self) -> Unavailable:
        return Unavailable("ledger.unavailable", f"ledger {self._ledger!r} has stopped")


def _encode(batch: Batch) -> None:
    """Encode `batch` for the way in which it will probably be stored."""
    if len(batch.events) > SINGLE_STATEMENT_EVENTS_MAX:
        batch.rows()
    elif batch.events:
        batch.columns()


def _is_meant() -> bool:
    """Whether a cancellation is somebody's will.

    Python 3.11 may deliver one at the next await that a timeout, which was left by another
    exception, has withdrawn already; the end of a COPY that was cut is such a timeout.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


_APPEND_KEYS: Final = f"select append_keys({', '.join(f'${n}' for n in range(1, 16))})"
_APPEND_EVENTS: Final = f"select append_events({', '.join(f'${n}' for n in range(1, 30))})"
