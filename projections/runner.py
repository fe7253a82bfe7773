"""The runner: follows the log for a projection, and keeps rows and checkpoint together.

Events are folded in batches. A batch and its checkpoint are one transaction that holds the
checkpoint's row, so a second process folding the same projection waits and then sees that the
work is done. An event that cannot be folded stops its projection alone, visibly.

A runner keeps its own pace: while events pour in it folds what has come within an interval at
once, for a batch costs some statements whatever its length. The longer folds take, the longer the
interval, so that a busy machine is left to those who answer requests. An event after a silence,
or one that somebody waits for, is folded without delay.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import ClassVar, Final, Protocol

from opentelemetry import trace

from domain.errors import Unavailable
from eventlog.database import CONNECTION_LOST, Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf, before_unknown
from eventlog.tail import Tail
from projections.pages import SharedPages

logger = logging.getLogger("heddle.projections")
tracer = trace.get_tracer("heddle.projections")

BATCH_EVENTS_MAX: Final = 1_000
EVENTS_AT_ONCE: Final = 16
"""Frames that a fold works on before others get their turn on the event loop."""

FOLD_INTERVAL_S_MIN: Final = 0.1
FOLD_INTERVAL_S_MAX: Final = 1.0
FOLD_SHARE_MAX: Final = 0.25
"""Share of the time that a projection spends folding, while its interval allows it."""

IDLE_WAIT_S: Final = 30.0
RETRY_DELAY_S: Final = 1.0
FAILED_RETRY_DELAY_S: Final = 30.0


class Projection(Protocol):
    """A read model: how a batch of events changes its rows.

    Attributes
    ----------
    name, version : identify the rows; a fold that would give other rows needs a new version
    types : stored types it folds; None for all
    payloads : of which events it needs the payload
    """

    name: ClassVar[str]
    version: ClassVar[int]
    types: ClassVar[tuple[str, ...] | None]
    payloads: ClassVar[PayloadOf]

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Change the rows by `events`, in order, inside the caller's transaction."""


class ProjectionRunner:
    """Keeps one projection of one ledger at the head of the log.

    Parameters
    ----------
    pages : what the runners of a process read together; without it this one reads for itself
    """

    def __init__(
        self, projection: Projection, tail: Tail, pages: SharedPages | None = None
    ) -> None:
        self.projection = projection
        self.position = 0
        self.failure: str | None = None
        self._tail = tail
        self._ledger = tail.ledger
        self._pages = pages or SharedPages(tail.ledger)
        self._moved = asyncio.Event()
        self._waiting = 0
        self._hurry = asyncio.Event()
        self._next_fold_at = 0.0
        self._task = asyncio.create_task(self._run(), name=f"projection:{projection.name}")

    @property
    def lag(self) -> int:
        """Events of the log that are not folded yet."""
        return max(0, self._tail.position - self.position)

    async def close(self) -> None:
        """Stop after the batch in hand; the next start goes on from its checkpoint."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def wait_for(self, position: int, timeout_s: float) -> None:
        """Return once everything up to `position` is folded.

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
                self._advance(await self._checkpoint())
                while True:
                    await self._tail.wait_beyond(self.position, IDLE_WAIT_S)
                    while self.position < self._tail.position:
                        await self._pause()
                        began = asyncio.get_running_loop().time()
                        self._advance(await self._fold_next(self._tail.position))
                        self._set_pace(began)
                        self._recovered()
                    self._recovered()  # somebody else may have folded what we could not
            except (*CONNECTION_LOST, Unavailable) as error:
                await self._failed(f"{type(error).__name__}: {error}", RETRY_DELAY_S)
            except Exception as error:
                # A poison event: everybody else goes on, this projection says why it cannot.
                logger.exception("projection %s stopped", self.projection.name)
                await self._failed(f"{type(error).__name__}: {error}", FAILED_RETRY_DELAY_S)

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

    def _advance(self, position: int) -> None:
        self.position = position
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _pause(self) -> None:
        """Let events gather for a while, unless there are many already or somebody waits."""
        delay_s = self._next_fold_at - asyncio.get_running_loop().time()
        if delay_s <= 0 or self.lag >= BATCH_EVENTS_MAX or self._waiting:
            return
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._hurry.wait()

    def _set_pace(self, began: float) -> None:
        took_s = asyncio.get_running_loop().time() - began
        interval_s = max(FOLD_INTERVAL_S_MIN, min(took_s / FOLD_SHARE_MAX, FOLD_INTERVAL_S_MAX))
        self._next_fold_at = began + interval_s

    async def _checkpoint(self) -> int:
        """Return the position that is stored; make the row when there is none."""
        async with self._ledger.pool.acquire() as connection:
            await connection.execute(
                "insert into projection_checkpoint (ledger_id, projection, version, position) "
                "values ($1, $2, $3, 0) on conflict do nothing",
                *self._key,
            )
            return await self._stored(connection)

    async def _fold_next(self, head: int) -> int:
        """Fold the next batch beyond our position, up to `head`; return where we stand then."""
        page = await self._pages.read(
            self.position, up_to=min(head, self.position + BATCH_EVENTS_MAX), limit=BATCH_EVENTS_MAX
        )
        if not page:
            raise Unavailable(
                "projection.log_ends",
                f"the log ends at {self.position}, before the position {head} that was announced",
                hint="was the database restored to an earlier point?",
                value=head,
                limit=self.position,
            )
        page = before_unknown(page)  # the checkpoint vouches for all, wanted or not
        reached = page[-1].position
        types = self.projection.types
        events = [
            event for event in page if (types is None or event.type in types) and not event.erased
        ]
        with tracer.start_as_current_span(
            f"fold {self.projection.name}", attributes={"heddle.events": len(events)}
        ):
            async with self._ledger.pool.acquire() as connection:
                if not events:
                    moved = await self._move(connection, reached)
                    return reached if moved else await self._stored(connection)
                async with connection.transaction():
                    if not await self._move(connection, reached):
                        return await self._stored(connection)  # another process folded it
                    await self.projection.fold(connection, self._ledger, events)
        return reached

    async def _move(self, connection: Connection, reached: int) -> bool:
        """Take the checkpoint's row and set it to `reached`; False when it is not where we are.

        Where more waits to be folded the commit does not wait for the disk: should the server
        fall, rows and checkpoint are lost together, and the next batch finds out.
        """
        taken = await connection.fetchval(
            "update projection_checkpoint set position = $5 "
            "where ledger_id = $1 and projection = $2 and version = $3 and position = $4 "
            "returning set_config('synchronous_commit', $6, true)",
            *self._key,
            self.position,
            reached,
            "off" if self._tail.position > reached else "on",
        )
        return taken is not None

    async def _stored(self, connection: Connection) -> int:
        position: int = await connection.fetchval(
            "select position from projection_checkpoint "
            "where ledger_id = $1 and projection = $2 and version = $3",
            *self._key,
        )
        return position

    @property
    def _key(self) -> tuple[int, str, int]:
        return self._ledger.ledger_id, self.projection.name, self.projection.version
