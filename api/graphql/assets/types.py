"""Types of assets: the asset, its twin, and its type with all that the type declares."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final

import strawberry

from api.graphql.alerts.queries import resolve_alerts
from api.graphql.alerts.types import Alert, AssetAlertFilter
from api.graphql.context import OperationInfo
from api.graphql.events.queries import payloads_for, resolve_events
from api.graphql.events.types import Event
from api.graphql.fields import field
from api.graphql.filters import chosen
from api.graphql.relay import After, Connection, First, Node, encode_id
from api.graphql.scalars import Position, described_enum
from api.graphql.telemetry.queries import resolve_readings
from api.graphql.telemetry.types import ChannelUnit, ReadingColumn
from api.graphql.units import InUnit, in_unit
from domain import asset_model
from domain.asset import asset_stream
from domain.asset_model import DeviationRule, Direction, LimitRule, Severity
from domain.asset_types import asset_type
from domain.health import Health as AssessedHealth
from domain.health import HealthStatus
from eventlog import reading
from projections import twins
from projections.readings import POINTS_MAX
from projections.twins import AssetRow, Connectivity, Lifecycle

ASSET: Final = "Asset"
ASSET_TYPE: Final = "AssetType"

described_enum(
    Lifecycle,
    "How far an asset has come.",
    {
        "REGISTERED": "Known under a name, not in service yet.",
        "IN_SERVICE": "Commissioned.",
        "RETIRED": "Out of service for good; it accepts nothing.",
    },
)
described_enum(
    Connectivity,
    "Whether readings of an asset arrive.",
    {
        "ONLINE": "Its last reading is younger than its type's `staleAfterS`.",
        "STALE": "It has been silent for longer.",
        "NEVER_SEEN": "There has been no reading.",
    },
)
described_enum(
    HealthStatus,
    "The worst finding.",
    {
        "GOOD": "Nothing was found.",
        "WARNING": "Look at it in time.",
        "CRITICAL": "Look at it now.",
        "UNKNOWN": "Nothing was measured.",
    },
)
described_enum(
    Direction,
    "On which side of its limit a value is wrong.",
    {"ABOVE": "Above the limit.", "BELOW": "Below the limit."},
)


# --- the type -----------------------------------------------------------------------------


@strawberry.type(description="One measured quantity of an asset.")
class Channel:
    """`domain.asset_model.Channel`."""

    channel: strawberry.Private[asset_model.Channel]
    name: str = strawberry.field(description="Name, stable for ever.")
    title: str = strawberry.field(description="What a person calls it.")
    quantity: str = strawberry.field(description="Physical quantity, such as `pressure`.")
    si_unit: str = strawberry.field(description="SI unit in which it is read.")
    input_unit: str = strawberry.field(description="Unit in which its sensor usually delivers.")

    @classmethod
    def of(cls, channel: asset_model.Channel) -> Channel:
        """Return `channel` as the schema tells it."""
        return cls(
            channel=channel,
            name=channel.name,
            title=channel.title,
            quantity=channel.quantity,
            si_unit=channel.si_unit,
            input_unit=channel.input_unit,
        )

    @field(description="A reading below cannot be real and is marked BAD.")
    def physical_min(self, unit: InUnit = None) -> float:
        """Return the lowest value that can be real."""
        return in_unit(self.channel.physical_min, self.quantity, unit)

    @field(description="A reading above cannot be real and is marked BAD.")
    def physical_max(self, unit: InUnit = None) -> float:
        """Return the highest value that can be real."""
        return in_unit(self.channel.physical_max, self.quantity, unit)


@strawberry.type(description="A value that may be desired of an asset.")
class Setpoint:
    """`domain.asset_model.Setpoint`."""

    setpoint: strawberry.Private[asset_model.Setpoint]
    name: str = strawberry.field(description="Name, stable for ever.")
    title: str = strawberry.field(description="What a person calls it.")
    quantity: str = strawberry.field(description="Physical quantity, such as `volume_flow`.")
    si_unit: str = strawberry.field(description="SI unit in which it is kept.")
    input_unit: str = strawberry.field(description="Unit in which people usually give it.")

    @classmethod
    def of(cls, setpoint: asset_model.Setpoint) -> Setpoint:
        """Return `setpoint` as the schema tells it."""
        return cls(
            setpoint=setpoint,
            name=setpoint.name,
            title=setpoint.title,
            quantity=setpoint.quantity,
            si_unit=setpoint.si_unit,
            input_unit=setpoint.input_unit,
        )

    @field(description="The lowest value that may be desired.")
    def safe_min(self, unit: InUnit = None) -> float:
        """Return the lower safe bound."""
        return in_unit(self.setpoint.safe_min, self.quantity, unit)

    @field(description="The highest value that may be desired.")
    def safe_max(self, unit: InUnit = None) -> float:
        """Return the upper safe bound."""
        return in_unit(self.setpoint.safe_max, self.quantity, unit)


@strawberry.type(description="When an alert is raised of a channel, in outline.")
class AlertRule:
    """`domain.asset_model.AlertRule`."""

    name: str = strawberry.field(description="Name, stable for ever.")
    channel: str = strawberry.field(description="Name of the channel that it watches.")
    severity: Severity = strawberry.field(description="How urgent its alerts are.")
    direction: Direction = strawberry.field(description="On which side the channel is wrong.")
    message: str = strawberry.field(description="What its alerts mean, for people.")
    hold_s: int = strawberry.field(description="For so long it has to be wrong, in seconds.")
    clear_hold_s: int = strawberry.field(
        description="For so long it has to be right again before the alert clears, in seconds."
    )
    limit: float | None = strawberry.field(
        description="A fixed limit, SI; null where the channel is held against its own past."
    )
    deviation_ratio: float | None = strawberry.field(
        description="How far its recent mean may depart from its own past, as a ratio of it; null "
        "where the limit is fixed."
    )

    @classmethod
    def of(cls, rule: asset_model.AlertRule) -> AlertRule:
        """Return `rule` as the schema tells it."""
        return cls(
            name=rule.name,
            channel=rule.channel,
            severity=rule.severity,
            direction=rule.direction,
            message=rule.message,
            hold_s=rule.hold_s,
            clear_hold_s=rule.clear_hold_s,
            limit=rule.limit if isinstance(rule, LimitRule) else None,
            deviation_ratio=rule.deviation_ratio if isinstance(rule, DeviationRule) else None,
        )


@strawberry.type(description="A kind of machine, and all that is known of the kind.")
class AssetType(Node):
    """`domain.asset_model.AssetType`."""

    name: str = strawberry.field(description="Natural key, stable for ever.")
    title: str = strawberry.field(description="What a person calls it.")
    description: str = strawberry.field(description="What it is.")
    stale_after_s: float = strawberry.field(
        description="Without a reading for so long the twin is STALE, in seconds."
    )
    channels: list[Channel] = strawberry.field(description="What is measured.")
    setpoints: list[Setpoint] = strawberry.field(description="What may be desired.")
    alert_rules: list[AlertRule] = strawberry.field(description="When alerts are raised.")

    @classmethod
    def of(cls, described: asset_model.AssetType) -> AssetType:
        """Return `described` as the schema tells it."""
        return cls(
            id=encode_id(ASSET_TYPE, described.name),
            name=described.name,
            title=described.title,
            description=described.description,
            stale_after_s=described.stale_after_s,
            channels=[Channel.of(channel) for channel in described.channels],
            setpoints=[Setpoint.of(setpoint) for setpoint in described.setpoints],
            alert_rules=[AlertRule.of(rule) for rule in described.alert_rules],
        )


# --- the twin -----------------------------------------------------------------------------


@strawberry.type(description="One finding about an asset's health.")
class HealthReason:
    """`domain.health.HealthReason`."""

    quantity: strawberry.Private[str]
    value_si: strawberry.Private[float]
    limit_si: strawberry.Private[float]
    severity: Severity = strawberry.field(description="How urgent it is.")
    channel: str = strawberry.field(description="Name of the channel that it speaks of.")
    message: str = strawberry.field(description="What was found, for people.")

    @field(description="The channel's value, SI unless a unit is given.")
    def value(self, unit: InUnit = None) -> float:
        """Return the value in `unit`."""
        return in_unit(self.value_si, self.quantity, unit)

    @field(description="The limit that it crossed, SI unless a unit is given.")
    def limit(self, unit: InUnit = None) -> float:
        """Return the limit in `unit`."""
        return in_unit(self.limit_si, self.quantity, unit)


@strawberry.type(description="What the latest values and open alerts say of an asset.")
class Health:
    """`domain.health.Health`."""

    status: HealthStatus = strawberry.field(description="The worst finding.")
    index: float | None = strawberry.field(
        description="1 without a finding, 0 beyond a critical limit; null when unknown."
    )
    reasons: list[HealthReason] = strawberry.field(description="The findings, worst first.")

    @classmethod
    def of(cls, health: AssessedHealth, described: asset_model.AssetType) -> Health:
        """Return `health` of an asset of the type `described`."""
        return cls(
            status=health.status,
            index=health.index,
            reasons=[
                HealthReason(
                    quantity=described.channel(reason.channel).quantity,
                    value_si=reason.value,
                    limit_si=reason.limit,
                    severity=reason.severity,
                    channel=reason.channel,
                    message=reason.message,
                )
                for reason in health.reasons
            ],
        )


@strawberry.type(description="What a channel reads now.")
class ChannelReading:
    """`projections.twins.ChannelReading`; a channel that was never read has one too."""

    quantity: strawberry.Private[str]
    value_si: strawberry.Private[float | None]
    window_mean_si: strawberry.Private[float | None]
    channel: str = strawberry.field(description="Name of the channel.")
    title: str = strawberry.field(description="What a person calls it.")
    si_unit: str = strawberry.field(description="SI unit of the values.")
    read_at: datetime | None = strawberry.field(
        description="When the last GOOD reading was taken; null before the first."
    )
    age_s: float | None = strawberry.field(
        description="How old the last GOOD reading is at `asOf`, in seconds."
    )
    good_ratio: float | None = strawberry.field(
        description="Share of GOOD readings in the latest window, 0 to 1; null before the first."
    )
    status: HealthStatus = strawberry.field(
        description="The worst finding about this channel; UNKNOWN while it was never read."
    )

    @field(description="The last GOOD reading, SI unless a unit is given; null before the first.")
    def value(self, unit: InUnit = None) -> float | None:
        """Return the last GOOD reading in `unit`."""
        return None if self.value_si is None else in_unit(self.value_si, self.quantity, unit)

    @field(
        description="Mean of the GOOD readings of the latest window that had any, SI unless a "
        "unit is given. Health is judged by it."
    )
    def window_mean(self, unit: InUnit = None) -> float | None:
        """Return the latest window's mean in `unit`."""
        mean = self.window_mean_si
        return None if mean is None else in_unit(mean, self.quantity, unit)

    @classmethod
    def of(
        cls,
        channel: asset_model.Channel,
        found: twins.ChannelReading | None,
        status: HealthStatus,
    ) -> ChannelReading:
        """Return what `channel` reads; `found` is None while it was never read."""
        return cls(
            quantity=channel.quantity,
            value_si=None if found is None else found.value,
            window_mean_si=None if found is None else found.window_mean,
            channel=channel.name,
            title=channel.title,
            si_unit=channel.si_unit,
            read_at=None if found is None else found.read_at,
            age_s=None if found is None else found.age_s,
            good_ratio=None if found is None else found.good_ratio,
            status=status,
        )


@strawberry.type(description="A set-point as it is desired, and as the machine reports it.")
class SetpointState:
    """`projections.twins.SetpointState`; one that nobody desired has one too."""

    quantity: strawberry.Private[str]
    desired_si: strawberry.Private[float | None]
    reported_si: strawberry.Private[float | None]
    setpoint: str = strawberry.field(description="Name of the set-point.")
    title: str = strawberry.field(description="What a person calls it.")
    si_unit: str = strawberry.field(description="SI unit of the values.")
    desired_at: datetime | None = strawberry.field(description="When it was desired.")
    desired_by: str | None = strawberry.field(description="Who desired it, such as `user:jane`.")
    reported_at: datetime | None = strawberry.field(description="When the machine reported it.")

    @field(description="The value desired last; null where none was.")
    def desired(self, unit: InUnit = None) -> float | None:
        """Return the desired value in `unit`."""
        return None if self.desired_si is None else in_unit(self.desired_si, self.quantity, unit)

    @field(description="The value that the machine reported last; null where none was.")
    def reported(self, unit: InUnit = None) -> float | None:
        """Return the reported value in `unit`."""
        return None if self.reported_si is None else in_unit(self.reported_si, self.quantity, unit)

    @classmethod
    def of(cls, setpoint: asset_model.Setpoint, found: twins.SetpointState | None) -> SetpointState:
        """Return where `setpoint` stands; `found` is None while nobody spoke of it."""
        return cls(
            quantity=setpoint.quantity,
            desired_si=None if found is None else found.desired,
            reported_si=None if found is None else found.reported,
            setpoint=setpoint.name,
            title=setpoint.title,
            si_unit=setpoint.si_unit,
            desired_at=None if found is None else found.desired_at,
            desired_by=None if found is None else found.desired_by,
            reported_at=None if found is None else found.reported_at,
        )


Channels = Annotated[
    list[str] | None,
    strawberry.argument(description="Names of the channels that are wanted; null is all."),
]


@strawberry.type(description="What an asset is and reads now.")
class Twin:
    """`projections.twins.Twin`."""

    twin: strawberry.Private[twins.Twin]
    described: strawberry.Private[asset_model.AssetType]
    as_of: datetime = strawberry.field(description="When it was judged: ages count from here.")
    position: Position = strawberry.field(description="It reflects the log up to here.")
    connectivity: Connectivity = strawberry.field(description="Whether readings arrive.")
    last_reading_at: datetime | None = strawberry.field(
        description="When the latest GOOD reading of any channel was taken."
    )
    open_alert_count: int = strawberry.field(description="Alerts that have not cleared.")

    @classmethod
    def of(cls, twin: twins.Twin, described: asset_model.AssetType) -> Twin:
        """Return `twin` of an asset of the type `described`."""
        return cls(
            twin=twin,
            described=described,
            as_of=twin.as_of,
            position=Position(twin.position),
            connectivity=twin.connectivity,
            last_reading_at=twin.last_reading_at,
            open_alert_count=twin.open_alert_count,
        )

    @field(description="What the latest values and open alerts say of it.")
    def health(self) -> Health:
        """Return the asset's health."""
        return Health.of(self.twin.health, self.described)

    @field(description="What each channel reads, in the order of the asset's type.")
    def readings(self, channels: Channels = None) -> list[ChannelReading]:
        """Return the readings of `channels`."""
        wanted = self.described.channels
        if channels is not None:
            wanted = tuple(self.described.channel(name) for name in dict.fromkeys(channels))
        found = {reading.channel: reading for reading in self.twin.readings}
        worst = _worst_by_channel(self.twin.health)
        return [
            ChannelReading.of(
                channel,
                found.get(channel.name),
                worst.get(channel.name, HealthStatus.GOOD)
                if channel.name in found
                else HealthStatus.UNKNOWN,
            )
            for channel in wanted
        ]

    @field(description="Every set-point of the asset's type.")
    def setpoints(self) -> list[SetpointState]:
        """Return the set-points."""
        found = {state.setpoint: state for state in self.twin.setpoints}
        return [
            SetpointState.of(setpoint, found.get(setpoint.name))
            for setpoint in self.described.setpoints
        ]


def _worst_by_channel(health: AssessedHealth) -> Mapping[str, HealthStatus]:
    # Reasons come worst first, so the last one written is the worst.
    return {
        reason.channel: HealthStatus(reason.severity.value) for reason in reversed(health.reasons)
    }


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


@strawberry.type(description="A machine.")
class Asset(Node):
    """`projections.twins.AssetRow`."""

    row: strawberry.Private[AssetRow]
    asset_id: strawberry.ID = strawberry.field(description="Natural key.")
    title: str = strawberry.field(description="What a person calls it.")
    lifecycle: Lifecycle = strawberry.field(description="How far it has come.")
    version: Position = strawberry.field(
        description="How many events made it what it is: what mutations take as `expectedVersion`."
    )
    registered_at: datetime = strawberry.field(description="When it was registered.")

    @classmethod
    def of(cls, row: AssetRow) -> Asset:
        """Return `row` as the schema tells it."""
        return cls(
            id=encode_id(ASSET, row.asset_id),
            row=row,
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

    @field(description="What it is and reads now.")
    async def twin(self, info: OperationInfo) -> Twin:
        """Return the asset's twin."""
        found = await info.context.twin_by_asset.load(self.row)
        return Twin.of(found, asset_type(self.row.asset_type))

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
        return await resolve_readings(
            info.context,
            self.row.asset_id,
            asset_type(self.row.asset_type),
            channels=channels,
            start=from_,
            end=to,
            points_max=max_points,
            with_bad=include_bad,
            units=units,
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
        return await resolve_alerts(
            info.context,
            first=first,
            after=after,
            asset_ids=(self.row.asset_id,),
            severities=chosen("severities", wanted.severities),
            states=chosen("states", wanted.states),
        )

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
        )
