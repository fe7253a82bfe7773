"""Types of alerts."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import strawberry

from api.graphql.context import OperationContext, OperationInfo
from api.graphql.fields import field
from api.graphql.relay import Node, encode_id
from api.graphql.scalars import Position, described_enum
from api.graphql.units import InUnit, in_unit
from domain.asset_model import Channel, Severity
from domain.asset_types import asset_type
from domain.errors import NotFound
from projections.alerts import AlertRow, AlertState
from projections.twins import AssetRow

if TYPE_CHECKING:
    from api.graphql.assets.types import Asset

ALERT: Final = "Alert"

described_enum(
    Severity,
    "How urgent an alert or a health finding is.",
    {
        "WARNING": "Look at it in time.",
        "CRITICAL": "Look at it now.",
    },
)
described_enum(
    AlertState,
    "Where an alert stands.",
    {
        "RAISED": "Its condition holds and nobody has acknowledged it.",
        "ACKNOWLEDGED": "Its condition holds and somebody has acknowledged it.",
        "CLEARED": "Its condition has gone.",
    },
)


@strawberry.input(description="Which alerts are wanted; what is null or empty does not restrict.")
class AssetAlertFilter:
    """What restricts a list of one asset's alerts."""

    severities: list[Severity] | None = strawberry.field(
        default=None, description="Alerts of these severities."
    )
    states: list[AlertState] | None = strawberry.field(
        default=None, description="Alerts that stand so."
    )


@strawberry.input(description="Which alerts are wanted; what is null or empty does not restrict.")
class AlertFilter(AssetAlertFilter):
    """What restricts a list of alerts."""

    asset_ids: list[str] | None = strawberry.field(
        default=None, description="Alerts of these assets, at most 100."
    )


@strawberry.type(description="A rule of an asset's type that found a channel beyond its limit.")
class Alert(Node):
    """`projections.alerts.AlertRow`."""

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
            cleared_at=row.cleared_at,
            position=Position(row.position),
        )

    @field(description="The asset that it speaks of.")
    async def asset(
        self, info: OperationInfo
    ) -> Annotated[Asset, strawberry.lazy("api.graphql.assets.types")]:
        """Return the alert's asset."""
        from api.graphql.assets.types import Asset

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
        return asset_type(row.asset_type).channel(self.row.channel)

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
