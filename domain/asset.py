"""An asset's life: its events, its commands, and the decisions between them.

`decide` says which events a command causes, `evolve` what an event makes of the asset. Both are
pure. Readings are not here: frames live in the asset's telemetry stream, so that the versions
of this stream count decisions and not samples.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final, assert_never, get_args

from domain.asset_model import Severity
from domain.asset_types import asset_type
from domain.deciders import Decider, Others
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.events import event_type
from domain.identifiers import check_identifier
from domain.plant.location import (
    Location,
    Undefined,
    check_stands,
    location_stream,
    unknown_location,
)
from domain.texts import NAME_LENGTH_MAX, TITLE_LENGTH_MAX, check_note, check_text
from domain.thread import Link, LinkEnd, LinkKind, NodeState, Standing, ThreadItem

ESCALATION_LEVEL_MAX = 9
CODE_LENGTH_MAX: Final = 100


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


# --- states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unregistered:
    """Nobody has named this asset yet."""


@dataclass(frozen=True)
class Registered:
    """Known, and not retired; `in_service` once commissioned.

    `open_alerts` maps each alert that has not cleared to whether it was acknowledged,
    `escalations` those of them that were escalated to their level.
    """

    asset_id: str
    asset_type: str
    title: str
    in_service: bool = False
    location_id: str | None = None
    desired: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    reported: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    open_alerts: Mapping[uuid.UUID, bool] = field(default_factory=lambda: MappingProxyType({}))
    escalations: Mapping[uuid.UUID, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Retired:
    """Out of service for good."""

    asset_id: str
    asset_type: str
    title: str


Asset = Unregistered | Registered | Retired


# --- decisions ----------------------------------------------------------------------------


def decide(
    command: AssetCommand, asset: Asset, others: Others = MappingProxyType({})
) -> tuple[AssetEvent, ...]:
    """Return the events `command` causes on `asset`; none when it already is so.

    Parameters
    ----------
    others : the location that `looks_at` names

    Raises
    ------
    CommandRejected
        ``asset.already_registered``, ``asset.retired``, ``asset.already_commissioned``,
        ``location.retired``
    NotFound
        ``asset.unknown``, ``asset_type.unknown``, ``setpoint.unknown``, ``alert.unknown``,
        ``location.unknown``
    InvalidInput
        ``asset.malformed_name``, ``setpoint.out_of_bounds``, ``alert.level_out_of_range``,
        ``loss.ends_before_it_begins``, ``loss.negative_count``, ``text.empty``,
        ``text.too_long``
    """
    if isinstance(command, RegisterAsset):
        return _register(command, asset)
    match asset:
        case Unregistered():
            raise unknown_asset(command.asset_id)
        case Retired():
            raise retired_asset(command.asset_id)
        case Registered():
            return _decide_registered(command, asset, others)
        case _:
            assert_never(asset)


def unknown_asset(asset_id: str) -> NotFound:
    """Return the error for an asset that nobody registered."""
    return NotFound(
        "asset.unknown",
        f"asset {asset_id!r} is not registered",
        hint="register it first, or check the name",
        value=asset_id,
    )


def registered_asset(asset_id: str, others: Others) -> Registered:
    """Return the asset `asset_id` of those that a decision looks at; it is known, and not retired.

    Raises
    ------
    NotFound
        ``asset.unknown``
    CommandRejected
        ``asset.retired``
    """
    match others.get(asset_stream(asset_id)):
        case Registered() as asset:
            return asset
        case Retired():
            raise retired_asset(asset_id)
        case _:
            raise unknown_asset(asset_id)


def retired_asset(asset_id: str) -> CommandRejected:
    """Return the error for whatever is asked of a retired asset."""
    return CommandRejected(
        "asset.retired", f"asset {asset_id!r} is retired and accepts nothing", value=asset_id
    )


def _register(command: RegisterAsset, asset: Asset) -> tuple[AssetEvent, ...]:
    check_identifier("asset", command.asset_id)
    described = asset_type(command.asset_type)
    title = command.title.strip() or command.asset_id
    check_note("title", title, TITLE_LENGTH_MAX)
    if not isinstance(asset, Unregistered):
        raise CommandRejected(
            "asset.already_registered",
            f"asset {command.asset_id!r} is registered as {asset.asset_type!r}",
            hint="choose another name; an asset is registered once",
            value=command.asset_id,
        )
    return (AssetRegistered(command.asset_id, described.name, title),)


def _decide_registered(
    command: CommissionAsset
    | PlaceAsset
    | RetireAsset
    | DesireSetpoint
    | ReportSetpoint
    | DeclineSetpoint
    | ReportReadingsLost
    | RaiseAlert
    | AcknowledgeAlert
    | EscalateAlert
    | ClearAlert,
    asset: Registered,
    others: Others,
) -> tuple[AssetEvent, ...]:
    match command:
        case CommissionAsset():
            if asset.in_service:
                raise CommandRejected(
                    "asset.already_commissioned",
                    f"asset {asset.asset_id!r} is in service already",
                    value=asset.asset_id,
                )
            return (AssetCommissioned(asset.asset_id),)
        case PlaceAsset():
            return _place(command, asset, others)
        case RetireAsset(reason=reason):
            check_note("reason", reason)
            return (AssetRetired(asset.asset_id, reason),)
        case DesireSetpoint(setpoint=name, value=value):
            check_setpoint(asset, name, value)
            return (SetpointDesired(asset.asset_id, name, value),)
        case ReportSetpoint(setpoint=name, value=value):
            asset_type(asset.asset_type).setpoint(name)
            return (SetpointReported(asset.asset_id, name, value),)
        case DeclineSetpoint(setpoint=name):
            asset_type(asset.asset_type).setpoint(name)
            check_text("code", command.code, CODE_LENGTH_MAX)
            check_text("reason", command.reason)
            return (SetpointDeclined(**vars(command)),)
        case ReportReadingsLost():
            return (_lost(command),)
        case RaiseAlert():
            if command.alert_id in asset.open_alerts:
                return ()
            return (AlertRaised(**vars(command)),)
        case AcknowledgeAlert(alert_id=alert_id, note=note):
            check_note("note", note)
            if _open_alert(asset, alert_id):
                return ()
            return (AlertAcknowledged(asset.asset_id, alert_id, note),)
        case EscalateAlert():
            return _escalate(command, asset)
        case ClearAlert(alert_id=alert_id, value=value):
            _open_alert(asset, alert_id)
            return (AlertCleared(asset.asset_id, alert_id, value),)
        case _:
            assert_never(command)


def _lost(command: ReportReadingsLost) -> ReadingsLost:
    check_text("source", command.source, NAME_LENGTH_MAX)
    check_text("reason", command.reason, CODE_LENGTH_MAX)
    if command.until < command.since:
        raise InvalidInput(
            "loss.ends_before_it_begins",
            f"readings cannot be lost from {command.since} until {command.until}",
            value=command.until.isoformat(),
            limit=command.since.isoformat(),
        )
    if command.reading_count is not None and command.reading_count < 0:
        raise InvalidInput(
            "loss.negative_count",
            f"{command.reading_count} readings cannot be lost",
            value=command.reading_count,
            limit=0,
        )
    return ReadingsLost(**vars(command))


def _escalate(command: EscalateAlert, asset: Registered) -> tuple[AssetEvent, ...]:
    _open_alert(asset, command.alert_id)
    to = check_text("to", command.to, TITLE_LENGTH_MAX)
    reason = check_text("reason", command.reason)
    before = asset.escalations.get(command.alert_id, 0)
    if not before < command.level <= ESCALATION_LEVEL_MAX:
        raise InvalidInput(
            "alert.level_out_of_range",
            f"alert {command.alert_id} stands at level {before} and cannot go to {command.level}",
            hint=f"escalate to a level from {before + 1} to {ESCALATION_LEVEL_MAX}",
            value=command.level,
            limit=[before + 1, ESCALATION_LEVEL_MAX],
        )
    return (AlertEscalated(asset.asset_id, command.alert_id, command.level, to, reason),)


def _place(command: PlaceAsset, asset: Registered, others: Others) -> tuple[AssetEvent, ...]:
    location: Location = others.get(location_stream(command.location_id), Undefined())
    if command.late:
        if isinstance(location, Undefined):
            raise unknown_location(command.location_id)
        return (AssetPlaced(asset.asset_id, command.location_id, None, late=True),)
    check_stands(command.location_id, location)
    if command.location_id == asset.location_id:
        return ()
    return (AssetPlaced(asset.asset_id, command.location_id, asset.location_id),)


def looks_at(command: AssetCommand, _asset: Asset, _others: Others) -> tuple[str, ...]:
    """Return the stream of the location that an asset is to stand in."""
    return (location_stream(command.location_id),) if isinstance(command, PlaceAsset) else ()


def check_setpoint(asset: Registered, name: str, value: float) -> None:
    """Refuse a set-point outside the safe bounds that the asset's type declares.

    Raises
    ------
    NotFound
        ``setpoint.unknown``
    InvalidInput
        ``setpoint.out_of_bounds``
    """
    described = asset_type(asset.asset_type).setpoint(name)
    # Written so that NaN fails too.
    if not described.safe_min <= value <= described.safe_max:
        raise InvalidInput(
            "setpoint.out_of_bounds",
            f"set-point {name!r} at {value} {described.si_unit} is outside its safe bounds",
            hint=f"between {described.safe_min} and {described.safe_max} {described.si_unit}",
            value=value,
            limit=[described.safe_min, described.safe_max],
        )


def _open_alert(asset: Registered, alert_id: uuid.UUID) -> bool:
    """Return whether the open alert `alert_id` was acknowledged; raise when it is not open."""
    acknowledged = asset.open_alerts.get(alert_id)
    if acknowledged is None:
        raise NotFound(
            "alert.unknown",
            f"asset {asset.asset_id!r} has no open alert {alert_id}",
            hint="it may have cleared",
            value=str(alert_id),
        )
    return acknowledged


# --- fold ---------------------------------------------------------------------------------


def evolve(asset: Asset, event: AssetEvent) -> Asset:
    """Return what `event` makes of `asset`."""
    if isinstance(event, AssetRegistered):
        return Registered(event.asset_id, event.asset_type, event.title)
    if not isinstance(asset, Registered):
        raise ValueError(f"{type(event).__name__} cannot happen to {type(asset).__name__}")
    match event:
        case AssetCommissioned():
            return replace(asset, in_service=True)
        case AssetPlaced():
            return asset if event.late else replace(asset, location_id=event.location_id)
        case AssetRetired():
            return Retired(asset.asset_id, asset.asset_type, asset.title)
        case SetpointDesired():
            return replace(asset, desired={**asset.desired, event.setpoint: event.value})
        case SetpointDeclined() | ReadingsLost():
            return asset
        case SetpointReported():
            return replace(asset, reported={**asset.reported, event.setpoint: event.value})
        case AlertRaised():
            return replace(asset, open_alerts={**asset.open_alerts, event.alert_id: False})
        case AlertAcknowledged():
            return replace(asset, open_alerts={**asset.open_alerts, event.alert_id: True})
        case AlertEscalated():
            return replace(asset, escalations={**asset.escalations, event.alert_id: event.level})
        case AlertCleared():
            still_open = {k: v for k, v in asset.open_alerts.items() if k != event.alert_id}
            escalations = {k: v for k, v in asset.escalations.items() if k != event.alert_id}
            return replace(asset, open_alerts=still_open, escalations=escalations)
        case _:
            assert_never(event)


def fold(events: Iterable[AssetEvent]) -> Asset:
    """Return the asset that `events`, in order, make."""
    asset: Asset = Unregistered()
    for event in events:
        asset = evolve(asset, event)
    return asset


DECIDER: Final[Decider[AssetCommand, Asset, AssetEvent]] = Decider(
    category="asset",
    command_types=get_args(AssetCommand),
    initial=Unregistered(),
    decide=decide,
    evolve=evolve,
    subject=lambda command: asset_stream(command.asset_id),
    stream_of=lambda event: asset_stream(event.asset_id),
    looks_at=looks_at,
    passes_over_erased=True,  # it has alerts to raise, whatever note was erased
)
