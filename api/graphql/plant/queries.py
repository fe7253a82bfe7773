"""Queries of the plant: locations and components, one by its natural key or in pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Final, TypeVar

import strawberry

from api.access.rights import Right
from api.graphql.as_of import Asked, AsOf, AsOfArgument, asked
from api.graphql.context import MinPosition, OperationContext, OperationInfo
from api.graphql.fields import field
from api.graphql.filters import chosen
from api.graphql.in_sight import rows_in_sight
from api.graphql.plant.types import (
    Component,
    Location,
    PlantFinding,
    asset_places,
    find_component,
    find_location,
)
from api.graphql.relay import (
    After,
    Connection,
    First,
    check_first,
    connection,
    decode_position_cursor,
    decode_text_cursor,
    encode_cursor,
)
from domain.identifiers import check_identifier
from domain.plant.location import Level, location_stream
from projections.plant.findings import list_findings
from projections.plant.lists import list_items
from projections.plant.projection import PlantProjection
from projections.plant.queries import ItemKind, PlantItem

T = TypeVar("T")

FINDINGS_CURSOR: Final = "plant findings"


@strawberry.input(
    description="Which locations are wanted; what is null or empty does not restrict."
)
class LocationFilter:
    """What restricts a list of locations."""

    levels: list[Level] | None = strawberry.field(
        default=None, description="Locations of these levels."
    )
    parents: list[str] | None = strawberry.field(
        default=None, description="Natural keys of the locations that they stand in, at most 100."
    )
    retired: bool = strawberry.field(
        default=False, description="Tell those that were given up too."
    )


@strawberry.input(
    description="Which components are wanted; what is null or empty does not restrict."
)
class ComponentFilter:
    """What restricts a list of components."""

    component_types: list[str] | None = strawberry.field(
        default=None, description="Components of these types, at most 100."
    )
    asset_ids: list[str] | None = strawberry.field(
        default=None, description="Components that are installed in these assets, at most 100."
    )
    scrapped: bool = strawberry.field(default=False, description="Tell those scrapped too.")


@strawberry.type
class PlantQueries:
    """Root fields."""

    @field(
        right=Right.READ,
        description="The location with this natural key; null where there is none.",
    )
    async def location(
        self,
        info: OperationInfo,
        location_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the location.")
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Location | None:
        """Return one location."""
        check_identifier("location", location_id)
        when = await asked(info.context, as_of, min_position, PlantProjection.name)
        return await find_location(info.context, location_id, when)

    @field(right=Right.READ, description="Locations in the order of their natural key.")
    async def locations(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            LocationFilter | None, strawberry.argument(description="Which locations are wanted.")
        ] = None,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[Location]:
        """Return a page of locations."""
        wanted = filter or LocationFilter()
        return await _page(
            info.context,
            ItemKind.LOCATION,
            Location.of,
            first=first,
            after=after,
            as_of=as_of,
            min_position=min_position,
            types=[level.value for level in chosen("levels", wanted.levels)],
            places=[location_stream(name) for name in chosen("parents", wanted.parents)],
            with_ended=wanted.retired,
        )

    @field(
        right=Right.READ,
        description="The component with this natural key; null where there is none.",
    )
    async def component(
        self,
        info: OperationInfo,
        component_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the component.")
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Component | None:
        """Return one component."""
        check_identifier("component", component_id)
        when = await asked(info.context, as_of, min_position, PlantProjection.name)
        return await find_component(info.context, component_id, when)

    @field(right=Right.READ, description="Components in the order of their natural key.")
    async def components(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            ComponentFilter | None, strawberry.argument(description="Which components are wanted.")
        ] = None,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[Component]:
        """Return a page of components."""
        wanted = filter or ComponentFilter()
        return await _page(
            info.context,
            ItemKind.COMPONENT,
            Component.of,
            first=first,
            after=after,
            as_of=as_of,
            min_position=min_position,
            types=chosen("componentTypes", wanted.component_types),
            places=asset_places(list(chosen("assetIds", wanted.asset_ids))),
            with_ended=wanted.scrapped,
        )

    @field(
        right=Right.READ,
        description="What does not fit together in the plant, by the events that say so, oldest "
        "first. A page may be longer by further findings of its last event.",
    )
    async def plant_findings(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[PlantFinding]:
        """Return a page of findings."""
        check_first(first)
        context = info.context
        ledger = context.ledger
        start = 0
        if after is not None:
            start = decode_position_cursor(after, FINDINGS_CURSOR, ledger.name)
        when = await asked(context, as_of, min_position, PlantProjection.name)
        async with context.reads:
            found = await list_findings(ledger, when.as_of, first=first, after=start)
        named = {name for row in found for name in (row.subject, row.place, row.other) if name}
        visible = await (await context.sight()).visible(named)
        rows = [
            replace(
                row,
                place=row.place if row.place in visible else None,
                other=row.other if row.other in visible else None,
            )
            for row in found
            if row.subject in visible
        ]

        return connection(
            rows,
            first=len(rows),
            after=after,
            position=when.position,
            node=PlantFinding.of,
            cursor=lambda row: encode_cursor(FINDINGS_CURSOR, ledger.name, row.source_position),
            goes_on_after=encode_cursor(FINDINGS_CURSOR, ledger.name, found[-1].source_position)
            if len(found) >= first
            else None,
        )


async def _page(
    context: OperationContext,
    kind: ItemKind,
    node: Callable[[PlantItem, Asked], T],
    *,
    first: int,
    after: After,
    as_of: AsOf | None,
    min_position: int | None,
    types: list[str] | tuple[str, ...],
    places: list[str],
    with_ended: bool,
) -> Connection[T]:
    """Return a page of things of one kind that are in sight, by their natural key."""
    check_first(first)
    ledger = context.ledger
    cursors = f"{kind.value.lower()}s"
    beyond = "" if after is None else decode_text_cursor(after, cursors, ledger.name)
    when = await asked(context, as_of, min_position, PlantProjection.name)

    async def fetch(key: str, count: int) -> list[PlantItem]:
        return await list_items(
            ledger,
            kind,
            when.as_of,
            after=key,
            first=count,
            item_types=types,
            places=places,
            with_ended=with_ended,
        )

    rows, goes_on = await rows_in_sight(
        context,
        fetch,
        after=beyond,
        first=first,
        key=lambda item: item.item_id,
        stream=lambda item: item.stream,
    )
    return connection(
        rows,
        first=first,
        after=after,
        position=when.position,
        node=lambda item: node(item, when),
        cursor=lambda item: encode_cursor(cursors, ledger.name, item.item_id),
        goes_on_after=None if goes_on is None else encode_cursor(cursors, ledger.name, goes_on),
    )
