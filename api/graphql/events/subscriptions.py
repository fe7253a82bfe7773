"""The subscription of events: every wanted one after a cursor, in order, at least once.

It reads the log page by page at the pace of its client: nothing is buffered beyond one page, and
nothing is lost while the database is away.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Final

import strawberry

from api.access.rights import Right
from api.access.sight import StreamsInSight
from api.graphql.context import OperationInfo, Told
from api.graphql.events.queries import Filter, event_filter, payloads_for, position_after
from api.graphql.events.types import CURSOR_KIND, Event, EventMessage, event_cursor
from api.graphql.fields import subscription
from api.graphql.relay import encode_cursor
from api.graphql.scalars import Cursor, Position
from domain.errors import Unavailable
from eventlog.database import CONNECTION_LOST
from eventlog.envelope import RecordedEvent
from eventlog.following.tail import Tail
from eventlog.reading import POSITION_MAX, EventFilter, PayloadOf

RETRIES_MAX: Final = 18
"""Attempts to read the log, with growing pauses: about a minute."""


@strawberry.type(description="Streams of messages, over graphql-transport-ws.")
class EventSubscriptions:
    """Root fields."""

    @subscription(
        right=Right.READ,
        description="Every wanted event after the cursor `after`, once and in order, and then each "
        "as it is recorded. Without `after` it starts with the next event. After a broken "
        "connection resume with the cursor of the last message that was dealt with: nothing is "
        "lost, and at most what was under way comes again. Whoever sees a part of the ledger gets "
        "the events of that part. While the log cannot be read it waits; "
        "after a minute or so it ends with `log.unavailable`, whose `value` is the cursor to "
        "resume from.",
    )
    async def events(
        self,
        info: OperationInfo,
        after: Annotated[
            Cursor | None,
            strawberry.argument(
                description="Cursor of a message, an event, or `log { start }`; null is now."
            ),
        ] = None,
        filter: Filter = None,
    ) -> AsyncGenerator[EventMessage, None]:
        """Yield messages for as long as the client listens."""
        context, tail = info.context, info.context.services.tail
        wanted = event_filter(filter)
        payloads = payloads_for(info.selected_fields)
        head = await tail.ledger.head()
        after = context.resume_after or after
        start = head if after is None else position_after(tail.ledger, after, head)
        context.told = Told(start, start)
        in_sight = StreamsInSight(context.services.sights, context.identity)
        following = follow_or_tell(tail, start, wanted, payloads, context.up_to)
        async with aclosing(following) as events:
            async for event in events:
                if not await in_sight.includes(event.stream, event.position):
                    continue
                context.told = Told(event.position, event.position, lasts=True)
                yield EventMessage(
                    cursor=event_cursor(event),
                    event=Event.of(event),
                    lag=Position(max(0, tail.position - event.position)),
                )


async def follow_or_tell(
    tail: Tail, after: int, wanted: EventFilter, payloads: PayloadOf, up_to: int | None = None
) -> AsyncGenerator[RecordedEvent, None]:
    """Yield what `tail` follows beyond `after`, and tell where to resume when that has to end.

    Parameters
    ----------
    up_to : end once everything up to this position was yielded; None: go on for ever

    Raises
    ------
    Unavailable
        ``log.unavailable`` after `RETRIES_MAX` attempts in a row that failed; its value is the
        cursor from which to resume
    """
    following = tail.follow(
        after,
        wanted=wanted,
        payloads=payloads,
        retries_max=RETRIES_MAX,
        up_to=POSITION_MAX if up_to is None else up_to,
    )
    try:
        async with aclosing(following) as events:
            async for event in events:
                yield event
                after = event.position
    except CONNECTION_LOST as error:
        raise Unavailable(
            "log.unavailable",
            f"ledger {tail.ledger.name!r} cannot be read",
            hint="subscribe again after the cursor in `value`; nothing is lost",
            value=encode_cursor(CURSOR_KIND, tail.ledger.name, after),
        ) from error
