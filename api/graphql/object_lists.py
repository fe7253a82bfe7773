"""Lists of objects of the thread: filters, orders and pages, found by the index of objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, TypeVar

import strawberry

from api.access.sight import REFERENCE_CATEGORIES
from api.graphql.as_of import AsOf, asked
from api.graphql.context import OperationContext
from api.graphql.filters import chosen
from api.graphql.objects import objects_in
from api.graphql.relay import Connection, check_first, connection, decode_text_cursor, encode_cursor
from api.graphql.scalars import Cursor, described_enum, parse_time
from domain.errors import InvalidInput
from domain.events import format_time
from eventlog.objects import LoadedObject
from projections.objects import (
    ObjectFilter,
    ObjectOrder,
    ObjectPlace,
    ObjectProjection,
    list_objects,
    standing_of,
)

LOOKS_MAX: Final = 10
"""Times that a page as of a valid time goes on looking while nothing passes its filter."""

T = TypeVar("T")

described_enum(
    ObjectOrder,
    "In which order a list of objects comes.",
    {
        "KEY": "By natural key.",
        "NEWEST": "By when they began, the latest first.",
        "OLDEST": "By when they began, the earliest first.",
        "CHANGED": "By since when they stand as they do, the latest first.",
        "DUE": "By when something about them runs out, such as a calibration, the earliest first; "
        "those of which nothing does are left out.",
    },
)


@strawberry.input
class ObjectFilterInput:
    """What restricts every list of objects."""

    starts_with: str | None = strawberry.field(
        default=None, description="Those whose natural key begins so."
    )
    created_from: datetime | None = strawberry.field(
        default=None, description="Those that began then or later."
    )
    created_to: datetime | None = strawberry.field(
        default=None, description="Those that began before then."
    )

    def wanted(
        self,
        states: Sequence[Any] | None,
        attributes: Mapping[str, Sequence[str] | None],
        due_before: datetime | None = None,
    ) -> ObjectFilter:
        """Return what is wanted, with `states` and `attributes` of the kind.

        Raises
        ------
        InvalidInput
            ``filter.malformed``, ``event.naive_time``
        """
        for moment in (self.created_from, self.created_to, due_before):
            if moment is not None:
                format_time(moment)
        (starts_with,) = chosen("startsWith", [self.starts_with or ""])
        return ObjectFilter(
            states=tuple(state.value for state in chosen("states", states)),
            attributes={name: chosen(name, values) for name, values in attributes.items()},
            starts_with=starts_with,
            created_from=self.created_from,
            created_to=self.created_to,
            due_before=due_before,
        )


OrderBy = Annotated[ObjectOrder, strawberry.argument(description="In which order they come.")]


async def object_page(
    context: OperationContext,
    category: str,
    *,
    name: str,
    first: int,
    after: Cursor | None,
    order: ObjectOrder,
    wanted: ObjectFilter,
    as_of: AsOf | None,
    min_position: int | None,
    node: Callable[[LoadedObject], T],
) -> Connection[T]:
    """Return a page of the objects of a kind.

    With a valid time those that had begun by then, as they were true then; the filter is held
    against that.

    Parameters
    ----------
    name : of the list, for its cursors

    Raises
    ------
    InvalidInput
        ``page.first``, ``cursor.malformed``, and as `api.graphql.as_of.asked`
    """
    check_first(first)
    kind = f"{name}/{order.value}"
    ledger = context.ledger
    place = None if after is None else _place(after, kind, ledger.name)
    when = await asked(context, as_of, min_position, ObjectProjection.name)
    sight = await context.sight()
    places = None if category in REFERENCE_CATEGORIES else sight.places
    indexed = wanted if when.valid_at is None else _begun_by(wanted, when.valid_at)
    found: list[tuple[ObjectPlace, LoadedObject]] = []
    position, goes_on = when.position, False
    for _ in range(LOOKS_MAX):
        async with context.reads:
            page = await list_objects(
                ledger,
                category,
                first=first + 1,
                order=order,
                after=place,
                wanted=indexed,
                as_of=when.known_at,
                places=places,
            )
        position = min(position, page.position) if found else page.position
        at = replace(when, known_at=page.position)
        loaded = await objects_in(context, [one.stream for one in page.places], at)
        found += [
            (one, object_)
            for one, object_ in zip(page.places, loaded, strict=True)
            if object_ is not None and (when.valid_at is None or _passes(wanted, object_))
        ]
        goes_on = len(page.places) > first
        if not goes_on or len(found) > first:
            break
        place = page.places[-1]
    last = None if place is None else encode_cursor(kind, ledger.name, _told_place(place))
    return connection(
        found,
        first=first,
        after=after,
        position=position,
        node=lambda one: node(one[1]),
        cursor=lambda one: encode_cursor(kind, ledger.name, _told_place(one[0])),
        goes_on_after=last if goes_on and len(found) <= first else None,
    )


def _begun_by(wanted: ObjectFilter, valid_at: datetime) -> ObjectFilter:
    """Return what an index by how things are known now can tell of what was true then."""
    by_then = valid_at + timedelta(microseconds=1)
    return ObjectFilter(
        starts_with=wanted.starts_with,
        created_to=by_then if wanted.created_to is None else min(by_then, wanted.created_to),
        created_from=wanted.created_from,
    )


def _passes(wanted: ObjectFilter, loaded: LoadedObject) -> bool:
    standing = standing_of(loaded)
    return standing is not None and wanted.wants(standing)


def _told_place(place: ObjectPlace) -> str:
    return f"{'' if place.at is None else format_time(place.at)} {place.stream}"


def _place(cursor: Cursor, kind: str, ledger: str) -> ObjectPlace:
    text = decode_text_cursor(cursor, kind, ledger)
    at, separator, stream = text.partition(" ")
    try:
        if not separator or not stream:
            raise InvalidInput("cursor.malformed", "no place in a list")
        return ObjectPlace(stream, parse_time(at) if at else None)
    except InvalidInput as error:
        raise InvalidInput(
            "cursor.malformed",
            f"{cursor!r:.80} is no cursor",
            hint="give back a cursor exactly as the API returned it",
            value=cursor[:80],
        ) from error
