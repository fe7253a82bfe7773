"""The runner: follows the log for a projection, and keeps rows and checkpoint together.

Of all processes that run a projection one is active and folds; the others stand by and follow its
checkpoint (`projections.running.active`). That each event is folded once does not depend on it, but
on the checkpoint's row (`projections.running.checkpoints`).

An event that cannot be folded stops its projection alone, visibly, and right before it: a batch
that fails is halved until the event is found. Meanwhile the lock is free for somebody who can.

Rows of an older version are rebuilt beside themselves and exchanged
(`projections.running.rebuild`); those of a newer version are left alone.

A runner keeps its own pace: while events pour in it folds what has come within an interval at
once, for a batch costs some statements whatever its length. The longer folds take, the longer the
interval, so that a busy machine is left to those who answer requests. An event after a silence,
or one that somebody waits for, is folded without delay, and so is what has gathered once no more
comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from opentelemetry import trace

from domain.errors import Conflict, Unavailable
from domain.events import UnreadableEvent
from eventlog.database import CONNECTION_LOST
from eventlog.envelope import RecordedEvent
from eventlog.following.tail import Tail
from eventlog.reading import PAGE_EVENTS_MAX, before_unknown
from projections.running import metrics
from projections.running.active import ActiveLocks, lock_key
from projections.running.checkpoints import (
    Checkpoint,
    begin,
    carry_over,
    fold_batch,
    fold_envelopes,
    live_checkpoint,
)
from projections.running.pages import SharedPages
from projections.running.poison import PoisonEvent
from projections.running.projection import OfEnvelopes, Policy, Projection, anew
from projections.running.rebuild import rebuild

__all__ = ["EVENTS_AT_ONCE", "Policy", "Projection", "ProjectionRunner"]

logger = logging.getLogger("heddle.projections")
tracer = trace.get_tracer("heddle.projections")

BATCH_EVENTS_MAX: Final = 1_000
FAR_BEHIND_BATCHES: Final = 4
ENVELOPES_MAX: Final = 20_000
"""Positions that a projection of envelopes folds at once; they cost PostgreSQL little."""

EVENTS_AT_ONCE: Final = 16
"""Frames that a fold works on before others get their turn on the event loop."""

FOLD_INTERVAL_S_MIN: Final = 0.1
FOLD_INTERVAL_S_MAX: Final = 1.0
FOLD_SHARE_MAX: Final = 0.25
"""Share of the time that a projection spends folding, while its interval allows it."""

IDLE_WAIT_S: Final = 30.0
STANDBY_LOOK_S: Final = 0.25
STANDBY_HURRY_S: Final = 0.02
"""How often one that stands by looks at the checkpoint, and while somebody waits for it."""

RETRY_DELAY_S: Final = 1.0
FAILED_RETRY_DELAY_S: Final = 30.0


class ProjectionRunner:
    """Keeps one projection of one ledger at the head of the log.

    Parameters
    ----------
    pages : what the runners of a process read together; without it this one reads for itself
    locks : what the runners of a process hold together; without it this one has its own
    """

    def __init__(
        self,
        projection: Projection,
        tail: Tail,
        pages: SharedPages | None = None,
        locks: ActiveLocks | None = None,
    ) -> None:
        self.projection = projection
        self.failure: str | None = None
        self.attributes = {
            "heddle.projection": projection.name,
            "heddle.ledger": tail.ledger.name,
        }
        self._held = Checkpoint(projection.version, 0, 0)
        self._tail = tail
        self._ledger = tail.ledger
        self._pages = pages or SharedPages(tail.ledger)
        self._locks = locks or ActiveLocks(tail.ledger.pool)
        self._owns_locks = locks is None
        self._moved = asyncio.Event()
        self._waiting = 0
        self._hurry = asyncio.Event()
        self._next_fold_at = 0.0
        self._silence_s = FOLD_INTERVAL_S_MIN
        self._suspect_to = 0
        self._rate = metrics.Rate(asyncio.get_running_loop().time())
        key = lock_key(
            "projection", tail.ledger.ledger_id, projection.name, str(projection.version)
        )
        self._claim = self._locks.claim(key, self._hurry.set)
        self._task = asyncio.create_task(self._run(), name=f"projection:{projection.name}")
        metrics.observe(self)

    @property
    def position(self) -> int:
        """What the rows reflect, as far as this process has seen."""
        return self._held.position

    @property
    def lag(self) -> int:
        """Events of the log that are not folded yet."""
        return max(0, self._tail.position - self.position)

    @property
    def active(self) -> bool:
        """Whether this process folds; else it stands by."""
        return self._claim.held

    @property
    def rate_per_s(self) -> float:
        """Events per second over the last minute by which the rows went on."""
        return self._rate.per_s(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Stop after the batch in hand; the next start goes on from its checkpoint."""
        metrics.forget(self)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._pages.forget()
        self._locks.let_go(self._claim)
        if self._owns_locks:
            await self._locks.close()

    async def wait_for(self, position: int, timeout_s: float) -> None:
        """Return once everything up to `position` is folded, by whomever.

        Raises
        ------
        Unavailable
            ``projection.behind`` when that takes longer than `timeout_s`
        """
        self._waiting += 1
        self._hurry.set()
        try:
            async with asyncio.timeout(timeout_s):
                while self.position < position:
                    await self._moved.wait()
        except TimeoutError:
            raise Unavailable(
                "projection.behind",
                f"projection {self.projection.name!r} is at {self.position}, not yet at {position}",
                hint="ask again, or without minPosition",
                value=position,
                limit=self.position,
            ) from None
        finally:
            self._waiting -= 1

    async def _run(self) -> None:
        while True:
            try:
                await self._settle()
                while self._held.version == self.projection.version:
                    if self.active:
                        await self._fold_on()
                    else:
                        await self._stand_by()
            except (*CONNECTION_LOST, Unavailable) as error:
                await self._failed(f"{type(error).__name__}: {error}", RETRY_DELAY_S)
            except PoisonEvent as poison:
                self._tell_poison(poison)
                self._locks.let_go(self._claim, for_s=FAILED_RETRY_DELAY_S)
                await self._failed(_failure(poison), FAILED_RETRY_DELAY_S)
            except Exception as error:
                if str(error) not in (self.failure or ""):
                    logger.exception("projection %s stopped", self.projection.name)
                self._locks.let_go(self._claim, for_s=FAILED_RETRY_DELAY_S)
                await self._failed(f"{type(error).__name__}: {error}", FAILED_RETRY_DELAY_S)

    # --- what rows there are --------------------------------------------------------------

    async def _settle(self) -> None:
        """Find the rows that are there, and see to it that they are of our version.

        Raises
        ------
        Conflict
            ``projection.superseded``: they are of a newer one
        """
        name, version = self.projection.name, self.projection.version
        async with self._ledger.pool.acquire() as connection:
            held = await live_checkpoint(connection, self._ledger.ledger_id, name)
            if held is None:
                await begin(connection, self._ledger.ledger_id, name, version)
                held = Checkpoint(version, 0, 0)
            elif held.version < version and isinstance(self.projection, Policy):
                await carry_over(connection, self._ledger.ledger_id, name, held, version)
                held = replace(held, version=version, generation=held.generation + 1)
        self._advance(held)
        if held.version > version:
            raise Conflict(
                "projection.superseded",
                f"the rows of projection {name!r} are of version {held.version}, and this software "
                f"folds version {version}",
                hint="upgrade this process; to go back, stop the newer ones and "
                f"`heddle rebuild {name}`",
                value=version,
                limit=held.version,
            )
        if held.version < version:
            await self._bring_up(held)

    async def _bring_up(self, held: Checkpoint) -> None:
        """Have rows of an older version rebuilt, unless another process is about it."""
        if self.active:
            logger.info(
                "projection %s: version %d is rebuilt beside version %d",
                self.projection.name,
                self.projection.version,
                held.version,
            )
            try:
                await rebuild(self._ledger.pool, self.projection)
            except Conflict as conflict:
                if conflict.code != "projection.busy":
                    raise
                await self._rest(RETRY_DELAY_S)  # somebody is about it, or checks
        else:
            await self._rest(STANDBY_LOOK_S)

    def _advance(self, held: Checkpoint) -> None:
        if held.generation != self._held.generation:
            self.projection = anew(self.projection)
        if held.version == self._held.version and self._held.position < held.position:
            folded = held.position - self._held.position
            self._rate.add(folded, asyncio.get_running_loop().time())
        self._held = held
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    # --- standing by ----------------------------------------------------------------------

    async def _stand_by(self) -> None:
        """Follow the checkpoint of whoever is active, for a moment."""
        if self.lag:
            await self._look()
        if self.lag == 0:
            self._recovered()
        await self._rest(STANDBY_HURRY_S if self._waiting else STANDBY_LOOK_S)

    async def _look(self) -> None:
        """Take over what the checkpoint says."""
        async with self._ledger.pool.acquire() as connection:
            held = await live_checkpoint(connection, self._ledger.ledger_id, self.projection.name)
        # Where the row is gone, `_settle` makes one.
        self._advance(held or replace(self._held, version=0))

    async def _rest(self, delay_s: float) -> None:
        """Wait, unless somebody is in a hurry or the lock was won or lost."""
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._hurry.wait()

    # --- folding --------------------------------------------------------------------------

    async def _fold_on(self) -> None:
        """Fold until the head is reached, after waiting for there to be something."""
        await self._tail.wait_beyond(self.position, IDLE_WAIT_S)
        while self.active and self.position < self._tail.position:
            await self._pause()
            began = asyncio.get_running_loop().time()
            if not await self._fold_next(self._tail.position):
                await self._look()
                return
            self._set_pace(began)
            if self.position >= self._suspect_to:
                self._recovered()
        if self.active:
            self._recovered()

    async def _pause(self) -> None:
        """Let events gather for a while, unless there are many already or somebody waits.

        Where none has come for as long as the last fold took, there is nothing to gather.
        """
        loop = asyncio.get_running_loop()
        while self.active and self.lag < BATCH_EVENTS_MAX and not self._waiting:
            delay_s = self._next_fold_at - loop.time()
            if delay_s <= 0:
                return
            head = self._tail.position
            await self._rest(min(delay_s, self._silence_s))
            if self._tail.position == head:
                return

    def _set_pace(self, began: float) -> None:
        took_s = asyncio.get_running_loop().time() - began
        interval_s = max(FOLD_INTERVAL_S_MIN, min(took_s / FOLD_SHARE_MAX, FOLD_INTERVAL_S_MAX))
        self._next_fold_at = began + interval_s
        self._silence_s = max(FOLD_INTERVAL_S_MIN, took_s)
        metrics.fold_duration.record(took_s, self.attributes)

    async def _fold_next(self, head: int) -> bool:
        """Fold the next batch up to `head`; False when the checkpoint is not where we were."""
        if isinstance(self.projection, OfEnvelopes):
            return await self._fold_envelopes(self.projection, head)
        # One that is far behind takes more at once; nobody is kept waiting for what is new.
        far = self.lag >= FAR_BEHIND_BATCHES * BATCH_EVENTS_MAX
        limit = min(2 * BATCH_EVENTS_MAX, PAGE_EVENTS_MAX) if far else BATCH_EVENTS_MAX
        if self.position < self._suspect_to:
            limit = max(1, min(limit, (self._suspect_to - self.position) // 2))
        page = await self._pages.read(
            self.position,
            up_to=min(head, self.position + limit),
            limit=limit,
            head=head if far else None,
        )
        if not page:
            raise self._log_ends(self.position, head)
        try:
            batch = before_unknown(page)  # the checkpoint vouches for all, wanted or not
        except UnreadableEvent as error:
            self._suspect(page[:1], error)
        try:
            reached = await self._fold(batch)
        except (*CONNECTION_LOST, Unavailable):
            self.projection = anew(self.projection)
            raise
        except Exception as error:
            self._suspect(batch, error)
            return True
        return self._folded(reached)

    def _folded(self, reached: Checkpoint | None) -> bool:
        if reached is None:
            return False
        metrics.events_folded.add(reached.position - self.position, self.attributes)
        self._advance(reached)
        return True

    async def _fold_envelopes(self, projection: OfEnvelopes, head: int) -> bool:
        up_to = min(head, self.position + ENVELOPES_MAX)
        ends = await self._ledger.head()
        if ends < up_to:
            raise self._log_ends(ends, head)
        with self._span(up_to - self.position):
            async with self._ledger.pool.acquire() as connection:
                reached = await fold_envelopes(
                    connection, projection, self._ledger, self._held, up_to
                )
        return self._folded(reached)

    def _log_ends(self, ends: int, head: int) -> Unavailable:
        return Unavailable(
            "projection.log_ends",
            f"the log ends at {ends}, before the position {head} that was announced",
            hint="was the database restored to an earlier point?",
            value=head,
            limit=ends,
        )

    def _span(self, events: int) -> contextlib.AbstractContextManager[trace.Span]:
        return tracer.start_as_current_span(
            f"fold {self.projection.name}", attributes={"heddle.events": events}
        )

    async def _fold(self, batch: Sequence[RecordedEvent]) -> Checkpoint | None:
        with self._span(len(batch)):
            async with self._ledger.pool.acquire() as connection:
                return await fold_batch(
                    connection,
                    self.projection,
                    self._ledger,
                    batch,
                    self._held,
                    batch[-1].position,
                    wait_for_disk=self._tail.position <= batch[-1].position,
                )

    # --- failures -------------------------------------------------------------------------

    def _suspect(self, batch: Sequence[RecordedEvent], error: Exception) -> None:
        """Look for the event of `batch` that cannot be folded.

        Raises
        ------
        PoisonEvent
            it is found
        """
        self.projection = anew(self.projection)
        self._pages.forget()  # what is wrong with an event may have been put right in the log
        self._suspect_to = batch[-1].position
        if len(batch) == 1:
            raise PoisonEvent(self.projection.name, batch[0], error) from error

    def _tell_poison(self, poison: PoisonEvent) -> None:
        if _failure(poison) != self.failure:
            logger.error("the reason is this", exc_info=poison.cause)

    async def _failed(self, failure: str, delay_s: float) -> None:
        if failure != self.failure:
            logger.error(
                "projection %s stopped at %d: %s", self.projection.name, self.position, failure
            )
        self.failure = failure
        await asyncio.sleep(delay_s)

    def _recovered(self) -> None:
        if self.failure is not None:
            logger.info("projection %s goes on", self.projection.name)
            self.failure = None


def _failure(poison: PoisonEvent) -> str:
    return f"{poison.message} ({poison.hint}; then it goes on by itself)"
