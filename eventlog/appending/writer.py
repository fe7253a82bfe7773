"""The writer of one ledger: group commit, two batches ahead.

Concurrent appends of a process share a transaction, each with its own outcome. While one batch
commits, the next has been sent and stands ready behind it, and the one after that is numbered and
hashed. Each is built on the head that the one before it will leave, and stored behind a fence:
where the ledger does not end there, nothing is written. So what holds is this:

- A batch is committed only if the one before it is. If one is not, because another process has
  moved the head or for any error, none behind it is; when the last of them has been answered, all
  their appends go back to where they waited, in their order.
- They are then built again under the lock of the head's row (*carefully*), where nothing has to be
  assumed and every append gets its due. While appends are judged there, nothing is under way.
- An append is told its outcome when its batch is committed, and not before.
- Only the writer's task begins a batch or puts one back. A commit's task says what became of its
  own, and lets the one that stands filled behind it go, so that the database need not wait for
  the writer's turn: who fills a batch looks after each pause whether it has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import asyncpg

from domain.errors import InvalidInput, Unavailable
from eventlog.appending.appends import NO_STREAM, Append
from eventlog.appending.batch import (
    BATCH_BYTES_MAX,
    BATCH_EVENTS_MAX,
    LARGE_APPEND_BYTES,
    Batch,
    Head,
    Known,
)
from eventlog.appending.lookup import read_head, read_known, read_versions
from eventlog.appending.storage import BatchStorage
from eventlog.database import CONNECTION_LOST, Pool

logger = logging.getLogger("heddle.eventlog")

WAITING_APPENDS_MAX: Final = 8_000
WAITING_BYTES_MAX: Final = 128 * 1024 * 1024
UNDER_WAY_MAX: Final = 2
"""Batches that the database has and has not answered: when it has committed one it goes on with the
next, and does not wait until this process has heard of the first and had its turn."""

OVERLAP_EVENTS_MIN: Final = 8
"""So many events, under way and waiting, are worth a second batch behind the first. Of fewer, each
batch would be so small that what it costs whatever its size outweighs what the overlap saves."""

SHARE: Final = 0.5
"""A batch takes in no more than this part of the events that are under way and waiting: callers
who wait for their outcome come back together, and one batch of all would overlap with nothing."""

SHARE_EVENTS_MIN: Final = 4
"""So many events are worth a batch of their own while another is under way."""

EVENTS_AT_ONCE: Final = 32
"""Events that are numbered and hashed before others have their turn."""

RETRIES_MAX: Final = 6
RETRY_DELAY_S: Final = 0.1
STREAMS_KNOWN_MAX: Final = 200_000
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
        self._waiting_events = 0
        self._batch: Batch | None = None
        self._under_way: list[Batch] = []
        self._uncommitted: list[Known] = []
        self._commits: list[asyncio.Task[bool]] = []
        self._failed: list[Batch] = []
        self._careful_batches = 0
        self._storage = BatchStorage(pool, ledger, ledger_id)
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
        self._waiting_events += len(request.events)
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
        self._storage.terminate()

    # --- ahead ----------------------------------------------------------------------------

    @property
    def _is_idle(self) -> bool:
        return not (self._waiting or self._batch or self._commits or self._failed)

    async def _write(self) -> None:
        try:
            while True:
                if self._is_idle:
                    self._idle.set()
                await self._work.wait()
                self._work.clear()
                if not self._failed and self._careful_batches == 0:
                    await self._write_ahead()
                elif not self._under_way and (self._waiting or self._batch or self._failed):
                    self._rewind(CAREFUL_BATCHES if self._failed else self._careful_batches)
                    await self._write_carefully()
        finally:
            left = [*self._under_way, *self._failed, *([self._batch] if self._batch else [])]
            for request in (*(r for batch in left for r in batch.requests), *self._waiting):
                request.settle(self._stopped())
            self._waiting.clear()
            self._waiting_bytes = self._waiting_events = 0
            self._room.set()

    async def _write_ahead(self) -> None:
        """Fill batches on what is known of the ledger, and begin to commit them."""
        try:
            while await self._fill():
                self._begin_commit()
        except CONNECTION_LOST as error:
            logger.warning("ledger %s: the database is away: %s", self._ledger, error)
            self._rewind(careful_batches=1)
        except Exception:
            # A fault of ours must not end the writer and with it every other caller: each
            # append is tried again, alone if need be, and only the culprit learns of it.
            logger.exception("ledger %s: a batch could not be built", self._ledger)
            self._rewind(careful_batches=1)

    async def _fill(self) -> bool:
        """Take waiting appends into the next batch; return whether it is to be committed now."""
        batch = self._batch
        if self._waiting:
            batch = batch or await self._new_batch()
            if batch is None:
                return False
            await self._take_in(batch)
            if self._batch is not batch:
                return False  # the commit before it has ended, and this one begun
        if batch is None or self._failed or len(self._under_way) >= self._under_way_max:
            return False
        # One without events, all of whose appends are repeated or refused, never begins behind
        # another: what it tells them may not be committed.
        if not self._under_way or batch.is_full or len(batch.events) >= self._share:
            return True
        self._storage.write_ahead(batch)
        return False

    async def _new_batch(self) -> Batch | None:
        """Return a batch on the head; None: what is under way decides first where that is."""
        await self._storage.open()
        if self._head is None or len(self._versions) > STREAMS_KNOWN_MAX:
            if self._under_way:
                return None
            self._head = await read_head(self.pool, self._ledger_id)
            self._versions = {}
        recorded_at = max(self._clock(), self._head.recorded_at)
        known = Known(self._versions)
        self._batch = Batch(self._ledger, self._head, recorded_at, known, self._uncommitted)
        return self._batch

    async def _take_in(self, batch: Batch) -> None:
        """Number and hash what waits by now, until it is worth a commit that may begin."""
        waiting = self._waiting
        # What comes while the versions are read, or while others have their turn, comes next.
        left = len(waiting)
        await self._learn_versions()
        if self._batch is not batch:
            return
        is_filled_only = len(self._under_way) >= self._under_way_max
        share = BATCH_EVENTS_MAX if is_filled_only else self._share
        yielded = len(batch.events)
        while left and not batch.is_full and len(batch.events) < share:
            batch.add(waiting[0])
            self._count_out(waiting.popleft())
            left -= 1
            if len(batch.events) - yielded >= EVENTS_AT_ONCE:
                yielded = len(batch.events)
                await asyncio.sleep(0)
                if self._batch is not batch:
                    return
        self._room.set()
        if waiting:
            self._work.set()

    @property
    def _share(self) -> int:
        """So many events make a batch that may begin."""
        return max(SHARE_EVENTS_MIN, int(self._outstanding * SHARE))

    @property
    def _under_way_max(self) -> int:
        """So many batches may be under way."""
        return UNDER_WAY_MAX if self._outstanding >= OVERLAP_EVENTS_MIN else 1

    @property
    def _outstanding(self) -> int:
        """So many events are under way or wait."""
        batches = (*self._under_way, self._batch) if self._batch else self._under_way
        return self._waiting_events + sum([len(batch.events) for batch in batches])

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

    def _begin_commit(self) -> None:
        batch, self._batch = self._batch, None
        assert batch is not None, "it has just been filled"
        self._head = batch.sealed()
        self._under_way.append(batch)
        self._uncommitted.append(batch.known)
        task = asyncio.create_task(self._commit(batch, self._head))
        self._commits.append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[bool]) -> None:
        self._commits.remove(task)
        self._work.set()

    async def _commit(self, batch: Batch, after: Head) -> bool:
        """Store `batch` and tell the callers; return whether it is stored."""
        is_stored = False
        try:
            is_stored = await self._is_stored(batch, after)
        finally:
            self._under_way.remove(batch)
            self._uncommitted.remove(batch.known)
            if not is_stored:
                self._failed.append(batch)
        if not is_stored:
            return False
        refused = batch.take_refused()
        if refused:
            # What was recorded long ago under these keys has not been looked up yet: a repetition
            # is no conflict, whatever version it expects.
            self._put_back(refused)
            self._careful_batches = max(1, self._careful_batches)
        elif self._stands_ready_after(batch):
            # The database must not wait until all callers of this batch have had their turn.
            self._begin_commit()
        self._work.set()
        # Of few, callers are told before the next batch begins, so that they may be part of it.
        await batch.settle()
        return True

    def _stands_ready_after(self, batch: Batch) -> bool:
        """Return whether the next batch is worth a commit at once, now that `batch` is stored."""
        return (
            self._batch is not None
            and not self._under_way
            and not self._failed
            and (len(batch.events) >= SHARE_EVENTS_MIN or batch.payload_bytes >= LARGE_APPEND_BYTES)
            and 2 * len(self._batch.events) >= len(batch.events)
        )

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

    def _rewind(self, careful_batches: int) -> None:
        """Put every append that will not be committed back to where it waited, in its order."""
        self._storage.take_back()
        if self._batch is not None:
            self._put_back(self._batch.requests)
        for batch in sorted(self._failed, key=lambda batch: batch.head.position, reverse=True):
            self._put_back(batch.requests)
        self._failed.clear()
        self._batch = self._head = None
        self._careful_batches = careful_batches
        self._work.set()

    def _put_back(self, requests: Sequence[Append]) -> None:
        self._waiting.extendleft(reversed(requests))
        self._waiting_bytes += sum([request.payload_bytes for request in requests])
        self._waiting_events += sum([len(request.events) for request in requests])

    def _count_out(self, request: Append) -> None:
        self._waiting_bytes -= request.payload_bytes
        self._waiting_events -= len(request.events)

    async def _store_fenced(self, batch: Batch, after: Head) -> bool:
        return await self._storage.store(batch, after)

    # --- under the lock -------------------------------------------------------------------

    async def _write_carefully(self) -> None:
        """Commit what waits under the lock of the head row, where nothing has to be assumed."""
        requests: list[Append] = []
        events = size = 0
        while self._waiting and events < BATCH_EVENTS_MAX and size < BATCH_BYTES_MAX:
            request = self._waiting.popleft()
            self._count_out(request)
            requests.append(request)
            events += len(request.events)
            size += request.payload_bytes
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
        storage = self._storage
        async with storage.locked() as connection:
            head = await read_head(connection, self._ledger_id)
            known = await read_known(connection, self._ledger_id, requests)
            recorded_at = max(self._clock(), head.recorded_at)
            batch = Batch(self._ledger, head, recorded_at, known)
            for request in requests:
                batch.add(request)
            after = batch.sealed()
            if batch.events:
                is_stored = await storage.store(batch, after)
                assert is_stored, "the head is locked"
        return batch

    def _stopped(self) -> Unavailable:
        return Unavailable("ledger.unavailable", f"ledger {self._ledger!r} has stopped")


def _is_meant() -> bool:
    """Whether a cancellation is somebody's will.

    Python 3.11 may deliver one at the next await that a timeout, which was left by another
    exception, has withdrawn already; the end of a COPY that was cut is such a timeout.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
