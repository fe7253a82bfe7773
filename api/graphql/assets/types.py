"""Types of assets and of their alerts: each leads to the other, so they stand in one file."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, ClassVar, Final
from uuid import UUID

import strawberry

from api.graphql.alerts.types import AssetAlertFilter
from api.graphql.as_of import Asked, asked_now
from api.graphql.assets.catalogue import AssetType
from api.graphql.assets.loaders import alerts_then_of, twin_then
from api.graphql.assets.twin import Channels, Twin
from api.graphql.context import AlertPage, OperationContext, OperationInfo
from api.graphql.events.queries import payloads_for, resolve_events
from api.graphql.events.types import Event
from api.graphql.fields import Many, Row, field
from api.graphql.filters import chosen
from api.graphql.maintenance.queries import (
    AssetWorkOrderFilter,
    OrderBy,
    work_orders_of_asset,
)
from api.graphql.maintenance.types import WorkOrder
from api.graphql.plant.loaders import components_in, path_to
from api.graphql.plant.types import Component, Location, LocationName, find_location
from api.graphql.production.queries import AssetProcessRunFilter, runs_of_asset
from api.graphql.production.types import ProcessRun
from api.graphql.relay import (
    After,
    Connection,
    First,
    Node,
    check_first,
    connection,
    decode_position_cursor,
    encode_cursor,
    encode_id,
)
from api.graphql.scalars import Cursor, Position, described_enum
from api.graphql.telemetry.queries import resolve_readings
from api.graphql.telemetry.types import ChannelUnit, ReadingColumn
from api.graphql.units import InUnit, in_unit
from domain.asset import asset_stream
from domain.asset_model import Channel, Severity
from domain.asset_types import asset_type
from domain.errors import NotFound
from eventlog import reading
from projections.alerts.projection import AlertRow, AlertState
from projections.maintenance.projection import MaintenanceProjection
from projections.maintenance.work_orders import WorkOrderOrder
from projections.plant.projection import PlantProjection
from projections.plant.queries import ItemKind
from projections.production.projection import ProductionProjection
from projections.telemetry.readings import POINTS_MAX
from projections.twins import projection as twins
from projections.twins.projection import AssetRow, Lifecycle

ASSET: Final = "Asset"
ALERT: Final = "Alert"
ALERT_CURSOR: Final = "alerts"

described_enum(
    Lifecycle,
    "How far an asset has come.",
    {
        "REGISTERED": "Known under a name, not in service yet.",
        "IN_SERVICE": "Commissioned.",
        "RETIRED": "Out of service for good; it accepts nothing.",
    },
)


# --- the asset ----------------------------------------------------------------------------


@strawberry.input(description="Which assets are wanted; what is null or empty does not restrict.")
class AssetFilter:
    """What restricts a list of assets."""

    asset_types: list[str] | None = strawberry.field(
        default=None, description="Assets of these types, at most 100."
    )
    lifecycles: list[Lifecycle] | None = strawberry.field(
        default=None, description="Assets that have come so far."
    )
    locations: list[str] | None = strawberry.field(
        default=None,
        description="Assets that stand in these locations, or in what stands there; at most 100.",
    )


async def _rows_of_twins(context: OperationContext, assets: Sequence[Asset]) -> list[twins.Twin]:
    """Return what the projections say of the twins of `assets`."""
    if all(asset.then is None for asset in assets):
        return await context.twins_of([asset.row for asset in assets])
    return await asyncio.gather(*(asset.found_twin(context) for asset in assets))


async def _twins_of(context: OperationContext, assets: Sequence[Asset]) -> list[Twin]:
    """Return the twins of `assets`, as their field `twin` does for one."""
    found = await _rows_of_twins(context, assets)
    return [
        Twin.of(twin, asset_type(asset.row.asset_type))
        for asset, twin in zip(assets, found, strict=True)
    ]


@strawberry.type(description="A machine.")
class Asset(Node):
    """`projections.twins.projection.AssetRow`."""

    ROW: ClassVar[Row] = Row(
        AssetRow,
        {
            "id": lambda row: encode_id(ASSET, row.asset_id),
            "asset_id": None,
            "title": None,
            "lifecycle": None,
            "version": None,
            "registered_at": None,
        },
    )

    row: strawberry.Private[AssetRow]
    then: strawberry.Private[Asked | None]
    asset_id: strawberry.ID = strawberry.field(description="Natural key.")
    title: str = strawberry.field(description="What a person calls it.")
    lifecycle: Lifecycle = strawberry.field(description="How far it has come.")
    version: Position = strawberry.field(
        description="How many events made it what it is: what mutations take as `expectedVersion`."
    )
    registered_at: datetime = strawberry.field(description="When it was registered.")

    @classmethod
    def of(cls, row: AssetRow, then: Asked | None = None) -> Asset:
        """Return `row` as the schema tells it; `then`: as of when, None: now."""
        return cls(
            id=encode_id(ASSET, row.asset_id),
            row=row,
            then=then,
            asset_id=strawberry.ID(row.asset_id),
            title=row.title,
            lifecycle=row.lifecycle,
            version=Position(row.version),
            registered_at=row.registered_at,
        )

    @field(description="The kind of machine that it is.")
    def type(self) -> AssetType:
        """Return the asset's type."""
        return AssetType.of(asset_type(self.row.asset_type))

    @field(
        description="What it is and reads now, or read then.",
        loads=Many(_twins_of, _rows_of_twins, OperationContext.twins_of),
    )
    async def twin(self, info: OperationInfo) -> Twin:
        """Return the asset's twin."""
        return Twin.of(await self.found_twin(info.context), asset_type(self.row.asset_type))

    async def found_twin(self, context: OperationContext) -> twins.Twin:
        """Return what the projections say of it."""
        if self.then is None:
            return await context.twin_by_asset.load(self.row)
        return await twin_then(context, self.then, self.row.asset_id)

    @field(description="The location that it stands in; null where it stands in none.")
    async def location(self, info: OperationInfo) -> Location | None:
        """Return the location of the asset."""
        when = await self._when(info.context, PlantProjection.name)
        path = await path_to(info.context, when, asset_stream(self.row.asset_id))
        places = [item for item in path if item.kind is ItemKind.LOCATION]
        if not places:
            return None
        return await find_location(info.context, places[-1].item_id, when)

    @field(description="The locations that it stands in, from the top.")
    async def path(self, info: OperationInfo) -> list[LocationName]:
        """Return the locations above the asset."""
        when = await self._when(info.context, PlantProjection.name)
        stream = asset_stream(self.row.asset_id)
        return LocationName.all_of(await path_to(info.context, when, stream))

    @field(description="What is installed in it, by slot.")
    async def components(self, info: OperationInfo) -> list[Component]:
        """Return the components of the asset."""
        when = await self._when(info.context, PlantProjection.name)
        items = await components_in(info.context, when, self.row.asset_id)
        return [Component.of(item, when) for item in items]

    @field(description="Its work orders, open and closed.")
    async def work_orders(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            AssetWorkOrderFilter | None, strawberry.argument(description="Which are wanted.")
        ] = None,
        order_by: OrderBy = WorkOrderOrder.NEWEST,
    ) -> Connection[WorkOrder]:
        """Return a page of the asset's work orders."""
        return await work_orders_of_asset(
            info.context,
            self.row.asset_id,
            await self._when(info.context, MaintenanceProjection.name),
            first=first,
            after=after,
            filter=filter,
            by=order_by,
        )

    @field(description="Its process runs, the latest start first.")
    async def process_runs(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            AssetProcessRunFilter | None, strawberry.argument(description="Which are wanted.")
        ] = None,
    ) -> Connection[ProcessRun]:
        """Return a page of the asset's runs."""
        return await runs_of_asset(
            info.context,
            self.row.asset_id,
            await self._when(info.context, ProductionProjection.name),
            first=first,
            after=after,
            filter=filter,
        )

    async def _when(self, context: OperationContext, *projections: str) -> Asked:
        """Return as of when it is told, for what `projections` say of it."""
        return self.then or await asked_now(context, *projections)

    @field(
        description="Its readings from `from` to `to`, both included, a column a channel. What "
        "was delivered twice counts once; where there are more than 2,000,000 readings in the "
        "range, extremes of seconds, minutes or hours are read instead (`tier`)."
    )
    async def readings(
        self,
        info: OperationInfo,
        from_: Annotated[
            datetime, strawberry.argument(name="from", description="Start of the range.")
        ],
        to: Annotated[datetime, strawberry.argument(description="End of the range.")],
        channels: Channels = None,
        max_points: Annotated[
            int,
            strawberry.argument(
                description=f"At most so many values a channel, 2 to {POINTS_MAX}."
            ),
        ] = 1000,
        include_bad: Annotated[
            bool,
            strawberry.argument(
                description="Return BAD readings too, such as those outside the physical range; "
                "only where `tier` is RAW."
            ),
        ] = False,
        units: Annotated[
            list[ChannelUnit] | None,
            strawberry.argument(description="Channels wanted in another unit than SI."),
        ] = None,
    ) -> list[ReadingColumn]:
        """Return the asset's readings as columns."""
        valid_at = None if self.then is None else self.then.valid_at
        return await resolve_readings(
            info.context,
            self.row.asset_id,
            asset_type(self.row.asset_type),
            channels=channels,
            start=from_,
            end=to if valid_at is None else max(from_, min(to, valid_at)),
            points_max=max_points,
            with_bad=include_bad,
            units=units,
            known_at=None if self.then is None else self.then.known_at,
        )

    @field(description="Its alerts, newest first.")
    async def alerts(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            AssetAlertFilter | None, strawberry.argument(description="Which alerts are wanted.")
        ] = None,
    ) -> Connection[Alert]:
        """Return a page of the asset's alerts."""
        wanted = filter or AssetAlertFilter()
        page = AlertPage(
            self.row.asset_id,
            alerts_before(info.context, first, after),
            first + 1,
            chosen("severities", wanted.severities),
            chosen("states", wanted.states),
        )
        if self.then is not None:
            rows = await alerts_then_of(info.context, self.then, page)
            return alert_connection(info.context, rows, first, after, self.then.position)
        position, rows = await info.context.alerts_by_page.load(page)
        return alert_connection(info.context, rows, first, after, position)

    @field(
        description="The facts of its life, oldest first. Its frames are in the stream "
        "`telemetry:<assetId>` of the root field `events`, and in `readings`."
    )
    async def events(
        self, info: OperationInfo, first: First, after: After = None
    ) -> Connection[Event]:
        """Return a page of the asset's facts."""
        return await resolve_events(
            info.context,
            first=first,
            after=after,
            wanted=reading.EventFilter(streams=(asset_stream(self.row.asset_id),)),
            payloads=payloads_for(info.selected_fields),
            known_at=None if self.then is None else self.then.known_at,
        )


# --- its alerts ---------------------------------------------------------------------------


@strawberry.type(description="A rule of an asset's type that found a channel beyond its limit.")
class Alert(Node):
    """`projections.alerts.projection.AlertRow`."""

    row: strawberry.Private[AlertRow]
    alert_id: UUID = strawberry.field(description="Natural key of the alert.")
    asset_id: strawberry.ID = strawberry.field(description="Natural key of its asset.")
    rule: str = strawberry.field(description="Name of the alert rule of the asset's type.")
    severity: Severity = strawberry.field(description="How urgent it is.")
    state: AlertState = strawberry.field(description="Where it stands.")
    channel: str = strawberry.field(description="Name of the channel that it speaks of.")
    message: str = strawberry.field(description="What it means, for people.")
    since: datetime = strawberry.field(description="Since when the condition has held.")
    raised_at: datetime = strawberry.field(description="When it was raised.")
    acknowledged_at: datetime | None = strawberry.field(
        description="When it was acknowledged; null where it was not."
    )
    acknowledged_by: str | None = strawberry.field(
        description="Who acknowledged it, such as `user:jane`."
    )
    note: str | None = strawberry.field(description="What they noted.")
    escalation_level: int | None = strawberry.field(
        description="Level that it was last passed on to, 1 and upwards; null where it was not."
    )
    escalated_at: datetime | None = strawberry.field(
        description="When it was last passed on; null where it was not."
    )
    escalated_to: str | None = strawberry.field(
        description="Whom it was last passed on to, a person or a team."
    )
    escalation_reason: str | None = strawberry.field(description="Why, in words.")
    cleared_at: datetime | None = strawberry.field(
        description="When its condition had gone; null while it holds."
    )
    position: Position = strawberry.field(description="Where its raising stands in the log.")

    @classmethod
    def of(cls, row: AlertRow) -> Alert:
        """Return `row` as the schema tells it."""
        return cls(
            id=encode_id(ALERT, str(row.alert_id)),
            row=row,
            alert_id=row.alert_id,
            asset_id=strawberry.ID(row.asset_id),
            rule=row.rule,
            severity=row.severity,
            state=row.state,
            channel=row.channel,
            message=row.message,
            since=row.since,
            raised_at=row.raised_at,
            acknowledged_at=row.acknowledged_at,
            acknowledged_by=row.acknowledged_by,
            note=row.note,
            escalation_level=row.escalation_level,
            escalated_at=row.escalated_at,
            escalated_to=row.escalated_to,
            escalation_reason=row.escalation_reason,
            cleared_at=row.cleared_at,
            position=Position(row.position),
        )

    @field(description="The asset that it speaks of.")
    async def asset(self, info: OperationInfo) -> Asset:
        """Return the alert's asset."""
        return Asset.of(await self._asset(info.context))

    @field(description="The channel's value when it was raised.")
    async def value(self, info: OperationInfo, unit: InUnit = None) -> float:
        """Return the value in `unit`."""
        return await self._in_unit(info.context, self.row.value, unit)

    @field(description="The limit that the value was held against.")
    async def limit(self, info: OperationInfo, unit: InUnit = None) -> float:
        """Return the limit in `unit`."""
        return await self._in_unit(info.context, self.row.limit, unit)

    @field(description="SI unit of `value` and `limit`.")
    async def si_unit(self, info: OperationInfo) -> str:
        """Return the SI unit of the alert's channel."""
        return (await self._channel(info.context)).si_unit

    async def _in_unit(
        self, context: OperationContext, value_si: float, symbol: str | None
    ) -> float:
        if symbol is None:
            return value_si
        return in_unit(value_si, (await self._channel(context)).quantity, symbol)

    async def _channel(self, context: OperationContext) -> Channel:
        row = await self._asset(context)
        return asset_type(row.asset_type).judged(self.row.channel)

    async def _asset(self, context: OperationContext) -> AssetRow:
        row = await context.asset_by_asset_id.load(self.row.asset_id)
        if row is None:
            raise NotFound(
                "asset.unknown",
                f"asset {self.row.asset_id!r} is not in the projection yet",
                hint="ask again",
                value=self.row.asset_id,
            )
        return row


def alerts_before(context: OperationContext, first: int, after: Cursor | None) -> int | None:
    """Return the position that a page of alerts goes on before; None at the newest.

    Raises
    ------
    InvalidInput
        ``page.first``, ``cursor.malformed``
    """
    check_first(first)
    if after is None:
        return None
    return decode_position_cursor(after, ALERT_CURSOR, context.ledger.name)


def alert_connection(
    context: OperationContext,
    rows: Sequence[AlertRow],
    first: int,
    after: Cursor | None,
    position: int,
) -> Connection[Alert]:
    """Return the page of `rows`, of which one more than `first` was asked for."""
    return connection(
        rows,
        first=first,
        after=after,
        position=position,
        node=Alert.of,
        cursor=lambda row: encode_cursor(ALERT_CURSOR, context.ledger.name, row.position),
        kept_by="alert_id",
    )
