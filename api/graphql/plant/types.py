"""Types of the plant: locations, their trees and twins; components and where they have been."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import strawberry

from api.graphql.as_of import Asked, asked_now
from api.graphql.assets import twin as _twin  # noqa: F401 (describes HealthStatus …)
from api.graphql.context import OperationContext, OperationInfo
from api.graphql.fields import field
from api.graphql.plant import enums as _enums  # noqa: F401 (describes Level and RollUp)
from api.graphql.plant.loaders import (
    item_named,
    items_below,
    location_twin,
    path_to,
    stays_by,
)
from api.graphql.plant.twin import LocationTwin
from api.graphql.references import ASSET, asset_named, assets_named
from api.graphql.relay import (
    After,
    Connection,
    First,
    Node,
    check_first,
    connection,
    decode_text_cursor,
    encode_cursor,
    encode_id,
)
from api.graphql.scalars import Position, described_enum
from api.graphql.versions import VERSION, version_of
from domain.asset import asset_stream
from domain.errors import InvalidInput
from domain.plant.component import component_stream
from domain.plant.location import Level, RollUp, location_stream
from projections.plant import twins as plant_twins
from projections.plant.findings import FindingKind
from projections.plant.findings import PlantFinding as Found
from projections.plant.projection import PlantProjection
from projections.plant.queries import DEPTH_MAX, ItemKind, PlantItem, Stay
from projections.plant.twins import TwinKind

LOCATION: Final = "Location"
COMPONENT: Final = "Component"
BELOW_CURSOR: Final = "below a location"

TREE_ITEMS_MAX: Final = 2_000
"""Things that are told of one tree."""

described_enum(
    ItemKind,
    "What stands in the plant.",
    {
        "LOCATION": "An enterprise, site, area, line or cell.",
        "ASSET": "A machine.",
        "COMPONENT": "What is installed in a slot of an asset.",
    },
    name="PlantItemKind",
)
described_enum(
    FindingKind,
    "What does not fit together.",
    {
        "NOT_REMOVED": "Installed elsewhere, or scrapped, while it was in a slot.",
        "NOT_THERE": "Removed from a slot that it was not in.",
        "SLOT_TAKEN": "Two components in one slot at the same time.",
        "IN_WHAT_ENDED": "It stands in what was given up or retired.",
        "IN_WHAT_IS_UNKNOWN": "It stands in what nobody has defined or registered.",
    },
    name="PlantFindingKind",
)


# --- trees --------------------------------------------------------------------------------


@strawberry.type(description="A location, asset or component, where it stands.")
class PlantItemNode:
    """`projections.plant.queries.PlantItem`."""

    key: str = strawberry.field(description="Its stream, such as `location:line-3`.")
    kind: ItemKind = strawberry.field(description="What it is.")
    item_id: strawberry.ID = strawberry.field(description="Natural key.")
    item_type: str | None = strawberry.field(
        description="Level of a location, type of an asset or component; null where nobody has "
        "said what it is."
    )
    title: str | None = strawberry.field(description="What a person calls it.")
    parent: str | None = strawberry.field(description="Key of what it stands in.")
    slot: str | None = strawberry.field(description="Slot of the asset that it is installed in.")
    since: datetime | None = strawberry.field(description="Since when it stands there.")
    depth: int = strawberry.field(description="Levels below where the tree begins.")
    ended: bool = strawberry.field(description="Whether it was given up, retired or scrapped.")

    @classmethod
    def of(cls, item: PlantItem) -> PlantItemNode:
        """Return `item` as the schema tells it."""
        return cls(
            key=item.stream,
            kind=item.kind,
            item_id=strawberry.ID(item.item_id),
            item_type=item.item_type,
            title=item.title,
            parent=item.parent,
            slot=item.slot,
            since=item.since,
            depth=item.depth,
            ended=item.ended,
        )


# --- locations ----------------------------------------------------------------------------


@strawberry.type(
    description="Name of a location. Whoever sees a part of the plant is told of what is above it "
    "by name alone."
)
class LocationName:
    """A location of a path."""

    location_id: strawberry.ID = strawberry.field(description="Natural key.")
    level: Level = strawberry.field(description="Its level after ISA-95.")
    title: str = strawberry.field(description="What a person calls it.")

    @classmethod
    def all_of(cls, path: Sequence[PlantItem]) -> list[LocationName]:
        """Return the locations of `path` that somebody has defined."""
        return [
            cls(
                location_id=strawberry.ID(item.item_id),
                level=Level(item.item_type),
                title=item.title or "",
            )
            for item in path
            if item.kind is ItemKind.LOCATION and item.item_type is not None
        ]


@strawberry.type(description="A place in the plant: an enterprise, site, area, line or cell.")
class Location(Node):
    """A location of `projections.plant.queries.PlantItem`."""

    item: strawberry.Private[PlantItem]
    asked: strawberry.Private[Asked]
    location_id: strawberry.ID = strawberry.field(description="Natural key.")
    level: Level = strawberry.field(description="Its level after ISA-95.")
    title: str = strawberry.field(description="What a person calls it.")
    roll_up: RollUp = strawberry.field(
        description="How it judges the health of what stands in it, as declared; WORST unless."
    )
    required: int | None = strawberry.field(
        description="The k of K_OF_N: so many have to be good; null otherwise."
    )
    since: datetime | None = strawberry.field(
        description="Since when it stands where it does; null for what stands in nothing."
    )
    retired: bool = strawberry.field(description="Whether it was given up.")

    @classmethod
    def of(cls, item: PlantItem, asked: Asked) -> Location:
        """Return `item`, a location as it was `asked` for, as the schema tells it."""
        return cls(
            id=encode_id(LOCATION, item.item_id),
            item=item,
            asked=asked,
            location_id=strawberry.ID(item.item_id),
            level=Level(item.item_type or ""),
            title=item.title or "",
            roll_up=item.roll_up,
            required=item.required,
            since=item.since,
            retired=item.ended,
        )

    @field(description=VERSION)
    async def version(self, info: OperationInfo) -> Position:
        """Return the version of its stream."""
        return await version_of(info.context, self.item.stream, self.asked.position)

    @field(description="The location that it stands in; null for what stands in nothing.")
    async def parent(self, info: OperationInfo) -> Location | None:
        """Return the location above."""
        if self.item.parent is None:
            return None
        item = await item_named(info.context, self.asked, self.item.parent)
        return None if item is None else Location.of(item, self.asked)

    @field(description="What it stands in, from the top to itself.")
    async def path(self, info: OperationInfo) -> list[LocationName]:
        """Return the locations above, and itself."""
        return LocationName.all_of(await path_to(info.context, self.asked, self.item.stream))

    @field(description="Locations that stand in it, by key.")
    async def children(
        self, info: OperationInfo, first: First, after: After = None
    ) -> Connection[Location]:
        """Return a page of locations."""
        check_first(first)
        ledger = info.context.ledger.name
        beyond = "" if after is None else decode_text_cursor(after, BELOW_CURSOR, ledger)
        items = await items_below(info.context, self.asked, self.item.item_id)
        rows = [
            item
            for item in items
            if item.depth == 1
            and item.kind is ItemKind.LOCATION
            and item.item_type is not None
            and not item.ended
            and item.item_id > beyond
        ]
        return connection(
            rows,
            first=first,
            after=after,
            position=self.asked.position,
            node=lambda item: Location.of(item, self.asked),
            cursor=lambda item: encode_cursor(BELOW_CURSOR, ledger, item.item_id),
        )

    @field(
        description="Assets that stand in it or in what stands in it, by key; those that were "
        "retired too.",
        type=Connection[ASSET],
    )
    async def assets(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        directly: Annotated[
            bool,
            strawberry.argument(description="Only those that stand in the location itself."),
        ] = False,
    ) -> Any:
        """Return a page of assets."""
        check_first(first)
        context = info.context
        ledger = context.ledger.name
        beyond = "" if after is None else decode_text_cursor(after, BELOW_CURSOR, ledger)
        items = await items_below(context, self.asked, self.item.item_id)
        names = sorted(
            item.item_id
            for item in items
            if item.kind is ItemKind.ASSET
            and item.item_id > beyond
            and (item.depth == 1 or not directly)
        )
        # One that was placed and that nobody has registered is told by `tree` alone.
        assets = await assets_named(context, names[:first], self.asked)
        goes_on = len(names) > first
        return connection(
            [asset for asset in assets if asset is not None],
            first=first,
            after=after,
            position=self.asked.position,
            node=lambda asset: asset,
            cursor=lambda asset: encode_cursor(BELOW_CURSOR, ledger, asset.asset_id),
            goes_on_after=encode_cursor(BELOW_CURSOR, ledger, names[first - 1])
            if goes_on
            else None,
        )

    @field(
        cost=20,
        description="All locations and assets below it, the nearest first. Fails with "
        f"`plant.too_large` where they are more than {TREE_ITEMS_MAX:,}.",
    )
    async def tree(
        self,
        info: OperationInfo,
        depth: Annotated[
            int, strawberry.argument(description=f"Levels down at most, 1 to {DEPTH_MAX}.")
        ] = DEPTH_MAX,
    ) -> list[PlantItemNode]:
        """Return what stands below it."""
        if not 1 <= depth <= DEPTH_MAX:
            raise InvalidInput(
                "plant.depth",
                f"a tree is 1 to {DEPTH_MAX} levels deep, not {depth}",
                value=depth,
                limit=DEPTH_MAX,
            )
        items = await items_below(info.context, self.asked, self.item.item_id)
        wanted = [item for item in items if item.depth <= depth]
        if len(wanted) > TREE_ITEMS_MAX:
            raise InvalidInput(
                "plant.too_large",
                f"{len(wanted)} things stand there, more than {TREE_ITEMS_MAX}",
                hint="ask for fewer levels, or for a part of the plant",
                value=len(wanted),
                limit=TREE_ITEMS_MAX,
            )
        return [PlantItemNode.of(item) for item in wanted]

    @field(
        cost=20,
        description="How it does, rolled up from the twins of what stands in it. At most "
        f"{plant_twins.ASSETS_MAX:,} assets at once; {plant_twins.ASSETS_AS_OF_MAX} as of earlier.",
    )
    async def twin(self, info: OperationInfo) -> LocationTwin:
        """Return the location's twin."""
        position, judged_at, twin = await location_twin(info.context, self.asked, self.item.item_id)
        sight = await info.context.sight()
        visible = await sight.visible([member.stream for member in twin.concerns])
        return LocationTwin.of(twin, judged_at, position, visible)


async def find_location(
    context: OperationContext, key: str, asked: Asked | None = None
) -> Location | None:
    """Return the location called `key`; None where there is none, or none in sight.

    As it is now where `asked` is None.
    """
    asked = asked or await asked_now(context, PlantProjection.name)
    item = await item_named(context, asked, location_stream(key))
    return None if item is None else Location.of(item, asked)


# --- components ---------------------------------------------------------------------------


@strawberry.type(description="A time that a component has been in a slot.")
class ComponentStay:
    """`projections.plant.queries.Stay`."""

    asset_id: strawberry.ID = strawberry.field(description="Natural key of the asset.")
    slot: str = strawberry.field(description="Slot of the asset.")
    began_at: datetime = strawberry.field(description="When it was put in.")
    ended_at: datetime | None = strawberry.field(
        description="When it was taken out; null while it is in there."
    )
    position: Position = strawberry.field(description="Position of the event that says so.")

    @classmethod
    def of(cls, stay: Stay) -> ComponentStay:
        """Return `stay` as the schema tells it."""
        return cls(
            asset_id=strawberry.ID(stay.place.partition(":")[2]),
            slot=stay.slot or "",
            began_at=stay.began_at,
            ended_at=stay.ended_at,
            position=Position(stay.source_position),
        )

    @field(description="The asset.", type=ASSET | None)
    async def asset(self, info: OperationInfo) -> Any:
        """Return the asset."""
        return await asset_named(info.context, self.asset_id)


@strawberry.type(
    description="What is installed in an asset's slot, wears, and is replaced; and its twin."
)
class Component(Node):
    """A component of `projections.plant.queries.PlantItem`."""

    item: strawberry.Private[PlantItem]
    asked: strawberry.Private[Asked]
    kind: TwinKind = strawberry.field(description="What kind of twin it is: COMPONENT.")
    component_id: strawberry.ID = strawberry.field(description="Natural key.")
    component_type: str | None = strawberry.field(
        description="What it is, such as `rolling-bearing`; null where nobody has said."
    )
    title: str | None = strawberry.field(description="What a person calls it.")
    part_id: strawberry.ID | None = strawberry.field(
        description="Natural key of the part that it was delivered as, if that is known."
    )
    slot: str | None = strawberry.field(description="Slot that it is in; null while it is in none.")
    installed_at: datetime | None = strawberry.field(
        description="Since when it is in the slot; null while it is in none."
    )
    scrapped: bool = strawberry.field(description="Whether it was scrapped.")

    @classmethod
    def of(cls, item: PlantItem, asked: Asked) -> Component:
        """Return `item`, a component as it was `asked` for, as the schema tells it."""
        installed = item.parent is not None
        return cls(
            id=encode_id(COMPONENT, item.item_id),
            item=item,
            asked=asked,
            kind=TwinKind.COMPONENT,
            component_id=strawberry.ID(item.item_id),
            component_type=item.item_type,
            title=item.title,
            part_id=None if item.part_id is None else strawberry.ID(item.part_id),
            slot=item.slot,
            installed_at=item.since if installed else None,
            scrapped=item.ended,
        )

    @field(description=VERSION)
    async def version(self, info: OperationInfo) -> Position:
        """Return the version of its stream."""
        return await version_of(info.context, self.item.stream, self.asked.position)

    @field(description="The asset that it is installed in; null while none.", type=ASSET | None)
    async def asset(self, info: OperationInfo) -> Any:
        """Return the asset."""
        place = self.item.parent
        return await asset_named(info.context, place and place.partition(":")[2], self.asked)

    @field(description="The slots that it has been in, in the order of time.")
    async def stays(self, info: OperationInfo) -> list[ComponentStay]:
        """Return where it has been."""
        stays = await stays_by(info.context, self.asked, self.item.stream)
        return [ComponentStay.of(stay) for stay in stays]

    @field(description="How long it has been in any asset's slot, all its life, s.")
    async def installed_s(self, info: OperationInfo) -> float:
        """Return the time that it has been installed."""
        until = self.asked.valid_at or info.context.now
        stays = await stays_by(info.context, self.asked, self.item.stream)
        return sum(((s.ended_at or until) - s.began_at).total_seconds() for s in stays)


async def find_component(
    context: OperationContext, key: str, asked: Asked | None = None
) -> Component | None:
    """Return the component called `key`; None where there is none, or none in sight.

    As it is now where `asked` is None.
    """
    asked = asked or await asked_now(context, PlantProjection.name)
    item = await item_named(context, asked, component_stream(key))
    return None if item is None else Component.of(item, asked)


def asset_places(asset_ids: list[str]) -> list[str]:
    """Return the streams of assets, as what components are installed in."""
    return [asset_stream(asset_id) for asset_id in asset_ids]


# --- what does not fit --------------------------------------------------------------------


@strawberry.type(
    description="What does not fit together: recorded as it was told, and shown until it is mended."
)
class PlantFinding:
    """`projections.plant.findings.PlantFinding`."""

    kind: FindingKind = strawberry.field(description="What does not fit.")
    subject: str = strawberry.field(description="Key of what it is about.")
    place: str | None = strawberry.field(
        description="Key of what it was said to stand in; null where it was said to be gone."
    )
    slot: str | None = strawberry.field(description="The slot, of a component.")
    other: str | None = strawberry.field(
        description="Of SLOT_TAKEN, key of the component that was there at the same time."
    )
    since: datetime = strawberry.field(description="Since when it does not fit.")
    position: Position = strawberry.field(description="Position of the event that says so.")

    @classmethod
    def of(cls, found: Found) -> PlantFinding:
        """Return `found` as the schema tells it."""
        return cls(
            kind=found.kind,
            subject=found.subject,
            place=found.place,
            slot=found.slot,
            other=found.other,
            since=found.since,
            position=Position(found.source_position),
        )
