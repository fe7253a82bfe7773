"""Changes of what a subscription shows: gathered at a client's pace, told once they are reflected.

A subscription to the state of things follows the log like any other, but tells of what the events
made: all that is there when a message is due goes into it, and the message waits until the
projections reflect its last event. So a slow client gets fewer messages and never an old state,
and a cursor in each of them from which nothing is missed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Annotated, Final

import strawberry

from api.access.sight import StreamsInSight
from api.graphql.context import OperationContext, Told
from api.graphql.events.queries import position_after
from api.graphql.events.subscriptions import follow_or_tell
from api.graphql.events.types import CURSOR_KIND
from api.graphql.relay import encode_cursor
from api.graphql.scalars import Cursor, Position
from domain.errors import InvalidInput, Unavailable
from eventlog.envelope import RecordedEvent
from eventlog.reading import EventFilter, PayloadOf

EVENTS_A_CHANGE_MAX: Final = 500
EVERY_S_MIN: Final = 0.05
EVERY_S_MAX: Final = 3_600.0
EVERY_S_DEFAULT: Final = 0.2
BEHIND_S_MAX: Final = 60.0
"""A projection that is behind for longer ends the subscription, and says where to resume."""

ChangesAfter = Annotated[
    Cursor | None,
    strawberry.argument(
        description="Cursor of the last message that was dealt with, of an event, or "
        "`log { start }`; null is now."
    ),
]
EveryS = Annotated[
    float,
    strawberry.argument(
        description=f"At most one message in so many seconds, {EVERY_S_MIN} to {EVERY_S_MAX:g}; "
        "what happens meanwhile goes into the next one."
    ),
]


@strawberry.interface(description="What every message about the state of things says.")
class ChangeMessage:
    """Where a message stands."""

    cursor: Cursor = strawberry.field(
        description="Keep it once the message is dealt with, and resume with `after`."
    )
    events: int = strawberry.field(description="How many events of the log the message tells of.")
    lag: Position = strawberry.field(
        description="Events in the log beyond this message when it was sent; 0 is live."
    )


@dataclass(frozen=True, slots=True)
class Change:
    """Events that a message is made of, in order, and the log's length when they were taken."""

    events: tuple[RecordedEvent, ...]
    head: int

    @property
    def position(self) -> int:
        """Position of the last event."""
        return self.events[-1].position

    @property
    def lag(self) -> Position:
        """Events of the log beyond."""
        return Position(max(0, self.head - self.position))


async def changes(
    context: OperationContext,
    after: Cursor | None,
    wanted: EventFilter,
    *,
    every_s: float,
    payloads: PayloadOf = PayloadOf.FACTS,
    projections: tuple[str, ...] = (),
) -> AsyncGenerator[Change, None]:
    """Yield what happens beyond the cursor `after`, in sight, for as long as somebody listens.

    Parameters
    ----------
    every_s : at most one change in so many s
    projections : reflect a change before it is yielded

    Raises
    ------
    InvalidInput
        ``subscription.every``, ``cursor.malformed``, ``cursor.beyond_log``
    Unavailable
        ``log.unavailable``, ``projection.behind``; its value is the cursor to resume from
    """
    if not EVERY_S_MIN <= every_s <= EVERY_S_MAX:
        raise InvalidInput(
            "subscription.every",
            f"a message comes every {EVERY_S_MIN} to {EVERY_S_MAX:g} s, not every {every_s:g}",
            value=every_s,
            limit=EVERY_S_MAX,
        )
    tail = context.services.tail
    head = await tail.ledger.head()
    after = context.resume_after or after
    done = head if after is None else position_after(tail.ledger, after, head)
    context.told = Told(done, done)
    in_sight = StreamsInSight(context.services.sights, context.identity)
    async with (
        aclosing(follow_or_tell(tail, done, wanted, payloads, context.up_to)) as following,
        aclosing(_Gathered(following, every_s)) as gathered,
    ):
        async for batch in gathered:
            seen = tuple([e for e in batch if await in_sight.includes(e.stream, e.position)])
            if not seen:
                continue
            await _reflected(context, projections, seen[-1].position, done)
            # What this operation has loaded so far was true before.
            context.forget()
            context.told = Told(seen[0].position, seen[-1].position)
            yield Change(seen, tail.position)
            done = seen[-1].position


class _Gathered:
    """Events as they come, at most one batch of them in so many seconds."""

    def __init__(self, events: AsyncGenerator[RecordedEvent, None], every_s: float) -> None:
        self._events = events
        self._every_s = every_s
        self._coming: asyncio.Future[RecordedEvent] | None = None
        self._due_s = 0.0

    def __aiter__(self) -> _Gathered:
        return self

    async def __anext__(self) -> list[RecordedEvent]:
        batch = [await self._next()]
        while len(batch) < EVENTS_A_CHANGE_MAX:
            coming = self._started()
            # Also when it is due at once, what is there already goes along.
            waits_s = max(0.0, self._due_s - time.monotonic())
            if not (await asyncio.wait((coming,), timeout=waits_s))[0]:
                break
            if coming.exception() is not None:
                break  # what came before the end is told before it
            batch.append(await self._next())
        self._due_s = time.monotonic() + self._every_s
        return batch

    async def aclose(self) -> None:
        """End what is still being waited for."""
        if self._coming is not None:
            self._coming.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
                await self._coming

    def _started(self) -> asyncio.Future[RecordedEvent]:
        if self._coming is None:
            self._coming = asyncio.ensure_future(anext(self._events))
        return self._coming

    async def _next(self) -> RecordedEvent:
        event = await self._started()
        self._coming = None
        return event


async def _reflected(
    context: OperationContext, projections: tuple[str, ...], position: int, done: int
) -> None:
    """Return once `projections` reflect `position`; `done` is where to resume otherwise."""
    until_s = time.monotonic() + BEHIND_S_MAX
    while True:
        try:
            await context.wait_for(Position(position), *projections)
        except Unavailable as error:
            if error.code != "projection.behind" or time.monotonic() >= until_s:
                ledger = context.ledger.name
                raise Unavailable(
                    error.code,
                    error.message,
                    hint="subscribe again after the cursor in `value`; nothing is lost",
                    value=encode_cursor(CURSOR_KIND, ledger, done),
                ) from error
        else:
            return


def cursor_at(context: OperationContext, position: int) -> Cursor:
    """Return the cursor of a message that tells of all up to `position`."""
    return encode_cursor(CURSOR_KIND, context.ledger.name, position)
