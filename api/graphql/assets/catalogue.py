"""Types of the catalogue: an asset type with all that it declares."""

from __future__ import annotations

import math
from typing import Final

import strawberry

from api.graphql.fields import field
from api.graphql.relay import Node, encode_id
from api.graphql.scalars import described_enum
from api.graphql.units import InUnit, in_unit
from domain import asset_model
from domain.asset_model import DeviationRule, Direction, LimitRule, Severity, ValueKind

ASSET_TYPE: Final = "AssetType"

described_enum(
    Direction,
    "On which side of its limit a value is wrong.",
    {"ABOVE": "Above the limit.", "BELOW": "Below the limit."},
)

described_enum(
    ValueKind,
    "What the values of a channel are.",
    {
        "NUMBER": "Measured numbers, in a unit.",
        "INTEGER": "Whole numbers that are exact, such as codes and counts.",
        "BOOLEAN": "True or false, as 1 or 0.",
        "TEXT": "Texts, such as the name of a program; there is no statistics of them.",
    },
)


@strawberry.type(description="One measured quantity, state or name of an asset.")
class Channel:
    """`domain.asset_model.Channel`."""

    channel: strawberry.Private[asset_model.Channel]
    name: str = strawberry.field(description="Name, stable for ever.")
    title: str = strawberry.field(description="What a person calls it.")
    quantity: str = strawberry.field(description="Physical quantity, such as `pressure`.")
    si_unit: str = strawberry.field(description="SI unit in which it is read.")
    input_unit: str = strawberry.field(description="Unit in which its sensor usually delivers.")
    kind: ValueKind = strawberry.field(description="What its values are.")

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
            kind=channel.kind,
        )

    @field(description="A reading below cannot be real and is marked BAD; null of texts.")
    def physical_min(self, unit: InUnit = None) -> float | None:
        """Return the lowest value that can be real."""
        return self._limit(self.channel.physical_min, unit)

    @field(description="A reading above cannot be real and is marked BAD; null of texts.")
    def physical_max(self, unit: InUnit = None) -> float | None:
        """Return the highest value that can be real."""
        return self._limit(self.channel.physical_max, unit)

    def _limit(self, limit_si: float, unit: str | None) -> float | None:
        return in_unit(limit_si, self.quantity, unit) if math.isfinite(limit_si) else None


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
