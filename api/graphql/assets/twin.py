"""Types of a twin: what an asset reads now, what is desired of it, and how it fares."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, ClassVar

import strawberry

from api.graphql.fields import Row, field
from api.graphql.scalars import Position, described_enum
from api.graphql.units import InUnit, in_unit
from domain import asset_model
from domain.asset_model import Severity
from domain.health import Health as AssessedHealth
from domain.health import HealthStatus
from projections.twins import projection as twins
from projections.twins.projection import Connectivity

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

    ROW: ClassVar[Row] = Row(AssessedHealth, {"status": None, "index": None})

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
                    quantity=described.judged(reason.channel).quantity,
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
    """`projections.twins.projection.ChannelReading`; a channel that was never read has one too."""

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
    text: str | None = strawberry.field(
        description="The last GOOD reading of a channel of texts, cut after 255 bytes; null of any "
        "other channel, and before the first."
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
            text=None if found is None else found.text,
        )


@strawberry.type(description="A set-point as it is desired, and as the machine reports it.")
class SetpointState:
    """`projections.twins.projection.SetpointState`; one that nobody desired has one too."""

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
    """`projections.twins.projection.Twin`."""

    ROW: ClassVar[Row] = Row(
        twins.Twin,
        {
            "as_of": None,
            "position": None,
            "connectivity": None,
            "last_reading_at": None,
            "open_alert_count": None,
            "health": None,
        },
    )

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
        found = {reading.channel: reading for reading in self.twin.readings}
        if channels is not None:
            wanted = tuple(self.described.channel(name) for name in dict.fromkeys(channels))
        else:
            # Raw values and features are channels of the type, too, where there are any.
            wanted = (*self.described.channels, *self.described.derived(sorted(found)))
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
