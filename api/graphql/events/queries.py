"""Queries of events: the log in pages, and where it and its projections stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import strawberry
from strawberry.types.nodes import InlineFragment, Selection

from api.access.rights import Right
from api.graphql.as_of import AsOfArgument, position_known, refuse_valid_at
from api.graphql.context import OperationContext, OperationInfo
from api.graphql.events.types import (
    CURSOR_KIND,
    Event,
    EventFilter,
    LogState,
    ProjectionState,
    event_cursor,
    repair_of,
)
from api.graphql.fields import field
from api.graphql.filters import chosen
from api.graphql.relay import (
    After,
    Connection,
    First,
    check_first,
    connection,
    decode_position_cursor,
    encode_cursor,
)
from api.graphql.scalars import Cursor, Position
from domain.errors import InvalidInput
from eventlog import reading
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PAGE_EVENTS_MAX, PayloadOf, read_page
from projections.running.projection import Policy

LOOKS_MAX: Final = 50
"""Times that a page goes on looking while a filter lets nothing through."""

Filter = Annotated[EventFilter | None, strawberry.argument(description="Which events are wanted.")]


@strawberry.type
class EventQueries:
    """Root fields."""

    @field(
        right=Right.READ,
        description="Events in the order of the log, oldest first. A page may hold fewer than "
        "`first` where their payloads are large, and fewer or none where the filter lets few "
        "through; `pageInfo.hasNextPage` says whether to go on, after `pageInfo.endCursor`. As of "
        "a position or a time of recording: those recorded by then.",
    )
    async def events(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Filter = None,
        as_of: AsOfArgument = None,
    ) -> Connection[Event]:
        """Return a page of the log."""
        refuse_valid_at(as_of)
        return await resolve_events(
            info.context,
            first=first,
            after=after,
            wanted=event_filter(filter),
            payloads=payloads_for(info.selected_fields),
            known_at=await position_known(info.context, as_of),
        )

    @field(right=Right.READ, description="Where the log and its projections stand.")
    async def log(self, info: OperationInfo) -> LogState:
        """Return the state of the log."""
        services = info.context.services
        ledger = services.ledger
        head = await ledger.head()
        return LogState(
            ledger=ledger.name,
            position=Position(head),
            start=encode_cursor(CURSOR_KIND, ledger.name, 0),
            end=encode_cursor(CURSOR_KIND, ledger.name, head),
            projections=[
                ProjectionState(
                    name=name,
                    position=Position(runner.position),
                    lag=Position(max(0, head - runner.position)),
                    failure=runner.failure,
                    version=runner.projection.version,
                    active=runner.active,
                    events_per_s=runner.rate_per_s,
                    rebuildable=not isinstance(runner.projection, Policy),
                    repair=repair_of(runner),
                )
                for name, runner in services.runners.items()
            ],
        )


async def resolve_events(
    context: OperationContext,
    *,
    first: int,
    after: Cursor | None,
    wanted: reading.EventFilter,
    payloads: PayloadOf,
    known_at: int | None = None,
) -> Connection[Event]:
    """Return the events after the cursor `after` that are in sight.

    And recorded by the position `known_at`; None: all.

    Whoever sees a part of the ledger is told of events once it is known where they belong.

    Raises
    ------
    InvalidInput
        ``page.first``, ``cursor.malformed``, ``cursor.beyond_log``
    """
    check_first(first)
    sight = await context.sight()
    events: list[RecordedEvent] = []
    async with context.reads:
        head = await context.ledger.head()
        looked_to = 0 if after is None else position_after(context.ledger, after, head)
        head = up_to = head if known_at is None else min(head, known_at)
        if not sight.is_whole:
            up_to = min(up_to, context.services.sights.folded_to())
        for _ in range(LOOKS_MAX if looked_to < up_to else 0):
            page = await read_page(
                context.ledger,
                looked_to,
                up_to=up_to,
                limit=first + 1 if sight.is_whole else PAGE_EVENTS_MAX,
                wanted=wanted,
                payloads=payloads,
            )
            looked_to = page.scanned_to
            visible = await sight.visible(event.stream for event in page)
            events += [event for event in page if event.stream in visible]
            if len(events) > first or looked_to >= up_to or (events and sight.is_whole):
                break
    return connection(
        events[: first + 1],
        first=first,
        after=after,
        position=head,
        node=Event.of,
        cursor=event_cursor,
        goes_on_after=encode_cursor(CURSOR_KIND, context.ledger.name, looked_to)
        if looked_to < head
        else None,
    )


def position_after(ledger: Ledger, cursor: Cursor, head: int) -> int:
    """Return the position that `cursor` stands at, in a log that ends at `head`.

    Raises
    ------
    InvalidInput
        ``cursor.malformed``; ``cursor.beyond_log`` when the log never was that long: what was
        recorded since it was restored would otherwise be skipped in silence
    """
    position = decode_position_cursor(cursor, CURSOR_KIND, ledger.name)
    if position > head:
        raise InvalidInput(
            "cursor.beyond_log",
            f"the cursor stands at {position}, and ledger {ledger.name!r} ends at {head}",
            hint="it comes from another log, or this one was restored to an earlier state",
            value=position,
            limit=head,
        )
    return position


def event_filter(filter: EventFilter | None) -> reading.EventFilter:
    """Return `filter` as the log understands it."""
    wanted = filter or EventFilter()
    return reading.EventFilter(
        types=chosen("types", wanted.types),
        streams=chosen("streams", wanted.streams),
        categories=chosen("categories", wanted.categories),
    )


def payloads_for(selections: Iterable[Selection]) -> PayloadOf:
    """Return which payloads have to be read to answer `selections`: never those of frames."""
    return PayloadOf.FACTS if "fact" in set(_names(selections)) else PayloadOf.NONE


def _names(selections: Iterable[Selection]) -> Iterable[str]:
    for selection in selections:
        if not isinstance(selection, InlineFragment):
            yield selection.name
        yield from _names(selection.selections)
