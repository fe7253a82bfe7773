"""An asset's life, as it is told: its events, and the commands that cause them.

`domain.asset_decider` decides between them. Readings are not here: frames live in the asset's
telemetry stream, so that the versions of this stream count decisions and not samples.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from domain.asset_model import Severity
from domain.events import event_type
from domain.plant.location import (
    location_stream,
)
from domain.thread import Link, LinkEnd, LinkKind, NodeState, Standing, ThreadItem


def asset_stream(asset_id: str) -> str:
    """Return the stream of an asset's facts."""
    return f"asset:{asset_id}"


def alert_node(alert_id: uuid.UUID) -> str:
    """Return the node of an alert in the thread; its events lie in its asset's stream."""
    return f"alert:{alert_id}"


def telemetry_stream(asset_id: str) -> str:
    """Return the stream of an asset's frames."""
    return f"telemetry:{asset_id}"


# --- events -------------------------------------------------------------------------------


@event_type("asset.registered")
@dataclass(frozen=True)
class AssetRegistered:
    """An asset of a type became known under a name."""

    asset_id: str
    asset_type: str
    title: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return that it exists."""
        return (Standing(asset_stream(self.asset_id), NodeState.ACTIVE),)


@event_type("asset.commissioned")
@dataclass(frozen=True)
class AssetCommissioned:
    """An asset was put into service."""

    asset_id: str


@event_type("asset.placed")
@dataclass(frozen=True)
class AssetPlaced:
    """An asset stands in a location from the event's `occurred_at` on.

    Parameters
    ----------
    from_location_id : where it was known to stand before, or None
    late : told after newer facts; where the asset stands now does not follow from it
    """

    asset_id: str
    location_id: str
    from_location_id: str | None
    late: bool = False

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return where it stands, and the end of where it stood."""
        node = asset_stream(self.asset_id)
        placed = Link(LinkKind.LOCATED_IN, node, location_stream(self.location_id))
        if self.from_location_id is None:
            return (placed,)
        before = location_stream(self.from_location_id)
        return (LinkEnd(LinkKind.LOCATED_IN, node, before), placed)


@event_type("asset.retired")
@dataclass(frozen=True)
class AssetRetired:
    """An asset was taken out of service for good; it accepts nothing afterwards."""

    asset_id: str
    reason: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(asset_stream(self.asset_id), NodeState.RETIRED),)


@event_type("asset.setpoint_desired")
@dataclass(frozen=True)
class SetpointDesired:
    """Somebody wants a set-point at `value` (SI)."""

    asset_id: str
    setpoint: str
    value: float


@event_type("asset.setpoint_reported")
@dataclass(frozen=True)
class SetpointReported:
    """The machine says its set-point stands at `value` (SI)."""

    asset_id: str
    setpoint: str
    value: float


@event_type("asset.setpoint_declined")
@dataclass(frozen=True)
class SetpointDeclined:
    """The machine's agent did not set a set-point that was desired at `value` (SI).

    Parameters
    ----------
    code : stable, such as ``interlock.open``; ``setpoint.advisory`` where it would have, but
        is not allowed to by its own declaration
    reason : in words
    """

    asset_id: str
    setpoint: str
    value: float
    code: str
    reason: str


@event_type("asset.readings_lost")
@dataclass(frozen=True)
class ReadingsLost:
    """Readings measured between `since` and `until` are lost, and the agent says so.

    Parameters
    ----------
    source : of the agent, which the event's actor names
    reason : stable code, such as ``connection.down`` or ``outbox.full``
    reading_count : how many; None where nobody can tell
    """

    asset_id: str
    source: str
    reason: str
    since: datetime
    until: datetime
    reading_count: int | None


@event_type("asset.alert_raised")
@dataclass(frozen=True)
class AlertRaised:
    """A rule found a channel beyond its limit: `value` against `limit` (SI) since `since`."""

    asset_id: str
    alert_id: uuid.UUID
    rule: str
    severity: Severity
    channel: str
    value: float
    limit: float
    since: datetime
    message: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the alert, and the asset that raised it."""
        node = alert_node(self.alert_id)
        return (
            Standing(node, NodeState.ACTIVE),
            Link(LinkKind.RAISED, asset_stream(self.asset_id), node),
        )


@event_type("asset.alert_acknowledged")
@dataclass(frozen=True)
class AlertAcknowledged:
    """A person has seen an alert; who is the event's actor."""

    asset_id: str
    alert_id: uuid.UUID
    note: str


@event_type("asset.alert_escalated")
@dataclass(frozen=True)
class AlertEscalated:
    """An alert was passed on to `to`, a person or a team, who stand at `level` (1 and upwards)."""

    asset_id: str
    alert_id: uuid.UUID
    level: int
    to: str
    reason: str


@event_type("asset.alert_cleared")
@dataclass(frozen=True)
class AlertCleared:
    """The condition of an alert has gone: `value` (SI) is back."""

    asset_id: str
    alert_id: uuid.UUID
    value: float

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how the alert stands."""
        return (Standing(alert_node(self.alert_id), NodeState.CLOSED),)


AssetEvent = (
    AssetRegistered
    | AssetCommissioned
    | AssetPlaced
    | AssetRetired
    | SetpointDesired
    | SetpointReported
    | SetpointDeclined
    | ReadingsLost
    | AlertRaised
    | AlertAcknowledged
    | AlertEscalated
    | AlertCleared
)


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class RegisterAsset:
    """Make an asset known."""

    asset_id: str
    asset_type: str
    title: str


@dataclass(frozen=True)
class CommissionAsset:
    """Put an asset into service."""

    asset_id: str


@dataclass(frozen=True)
class PlaceAsset:
    """Say that an asset stands in a location.

    `late`: it is a fact of the past, to be recorded wherever the asset is known to stand now.
    """

    asset_id: str
    location_id: str
    late: bool = False


@dataclass(frozen=True)
class RetireAsset:
    """Take an asset out of service for good."""

    asset_id: str
    reason: str


@dataclass(frozen=True)
class DesireSetpoint:
    """Ask for a set-point at `value` (SI)."""

    asset_id: str
    setpoint: str
    value: float


@dataclass(frozen=True)
class ReportSetpoint:
    """Say where the machine's set-point stands, `value` in SI."""

    asset_id: str
    setpoint: str
    value: float


@dataclass(frozen=True)
class DeclineSetpoint:
    """Say that the machine's agent did not set a set-point; see `SetpointDeclined`."""

    asset_id: str
    setpoint: str
    value: float
    code: str
    reason: str


@dataclass(frozen=True)
class ReportReadingsLost:
    """Say that readings are lost; see `ReadingsLost`."""

    asset_id: str
    source: str
    reason: str
    since: datetime
    until: datetime
    reading_count: int | None = None


@dataclass(frozen=True)
class RaiseAlert:
    """Raise an alert of a rule; see `AlertRaised`."""

    asset_id: str
    alert_id: uuid.UUID
    rule: str
    severity: Severity
    channel: str
    value: float
    limit: float
    since: datetime
    message: str


@dataclass(frozen=True)
class AcknowledgeAlert:
    """Say that an alert was seen."""

    asset_id: str
    alert_id: uuid.UUID
    note: str = ""


@dataclass(frozen=True)
class EscalateAlert:
    """Pass an alert on to `to`, at a higher `level` than before."""

    asset_id: str
    alert_id: uuid.UUID
    level: int
    to: str
    reason: str


@dataclass(frozen=True)
class ClearAlert:
    """Say that the condition of an alert has gone."""

    asset_id: str
    alert_id: uuid.UUID
    value: float


AssetCommand = (
    RegisterAsset
    | CommissionAsset
    | PlaceAsset
    | RetireAsset
    | DesireSetpoint
    | ReportSetpoint
    | DeclineSetpoint
    | ReportReadingsLost
    | RaiseAlert
    | AcknowledgeAlert
    | EscalateAlert
    | ClearAlert
)
