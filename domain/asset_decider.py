"""An asset's decisions: which events a command causes, and what an event makes of the asset.

Both are pure.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, assert_never, get_args

from domain.asset import (
    AcknowledgeAlert,
    AlertAcknowledged,
    AlertCleared,
    AlertEscalated,
    AlertRaised,
    AssetCommand,
    AssetCommissioned,
    AssetEvent,
    AssetPlaced,
    AssetRegistered,
    AssetRetired,
    ClearAlert,
    CommissionAsset,
    DeclineSetpoint,
    DesireSetpoint,
    EscalateAlert,
    PlaceAsset,
    RaiseAlert,
    ReadingsLost,
    RegisterAsset,
    ReportReadingsLost,
    ReportSetpoint,
    RetireAsset,
    SetpointDeclined,
    SetpointDesired,
    SetpointReported,
    asset_stream,
)
from domain.asset_types import asset_type
from domain.deciders import Decider, Others
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.identifiers import check_identifier
from domain.plant.location import (
    Location,
    Undefined,
    check_stands,
    location_stream,
    unknown_location,
)
from domain.texts import NAME_LENGTH_MAX, TITLE_LENGTH_MAX, check_note, check_text

ESCALATION_LEVEL_MAX: Final = 9
CODE_LENGTH_MAX: Final = 100


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
