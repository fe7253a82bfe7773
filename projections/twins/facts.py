"""What the facts of an asset come to: its life, its set-points and its open alerts.

One fold serves the live twin, which goes on from its rows, and a twin as of a position or a
moment, which begins at the asset's first event. A correction takes the place of what it corrects,
so after one the facts are folded from the beginning.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from domain.asset import (
    AlertCleared,
    AlertRaised,
    AssetCommissioned,
    AssetRegistered,
    AssetRetired,
    SetpointDesired,
    SetpointReported,
)
from domain.errors import InvalidInput
from domain.health import OpenAlert
from domain.records import RecordCorrected, RecordSigned
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf, read_stream

FACTS_MAX: Final = 50_000
"""Facts of one asset that are folded from the beginning at most."""


class Lifecycle(StrEnum):
    """How far an asset has come."""

    REGISTERED = "REGISTERED"
    IN_SERVICE = "IN_SERVICE"
    RETIRED = "RETIRED"


@dataclass(frozen=True, slots=True)
class AssetRow:
    """An asset as registered. `version` is its stream's, for `expectedVersion`."""

    asset_id: str
    asset_type: str
    title: str
    lifecycle: Lifecycle
    version: int
    registered_at: datetime
    position: int


@dataclass(frozen=True, slots=True)
class SetpointState:
    """A set-point as desired and as the machine reports it, SI."""

    setpoint: str
    desired: float | None
    desired_at: datetime | None
    desired_by: str | None
    reported: float | None
    reported_at: datetime | None


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A fact as it counts: what was true, when, and by whose word."""

    fact: Any
    occurred_at: datetime
    actor: str
    position: int


@dataclass(slots=True)
class AssetFacts:
    """What the facts of one asset have come to so far.

    `alerts` has every alert that was raised, in the order of the log; None for one that cleared.
    """

    asset_id: str
    asset_type: str
    title: str
    registered_at: datetime
    lifecycle: Lifecycle = Lifecycle.REGISTERED
    setpoints: dict[str, SetpointState] = field(default_factory=dict)
    alerts: dict[uuid.UUID, OpenAlert | None] = field(default_factory=dict)

    def row(self, version: int, position: int) -> AssetRow:
        """Return the asset after the event at `position`, its stream at `version`."""
        return AssetRow(
            self.asset_id,
            self.asset_type,
            self.title,
            self.lifecycle,
            version,
            self.registered_at,
            position,
        )

    @property
    def open_alerts(self) -> list[OpenAlert]:
        """Alerts that have not cleared, the latest raised first."""
        return [alert for alert in reversed(list(self.alerts.values())) if alert is not None]


# --- fold ---------------------------------------------------------------------------------


def occurrence(event: RecordedEvent) -> Occurrence:
    """Return the fact of `event` as it was told."""
    return Occurrence(event.fact, event.occurred_at, event.actor, event.position)


def effective_occurrences(events: Iterable[RecordedEvent]) -> list[Occurrence]:
    """Return the facts of a stream that count, in order, each corrected one where it stood.

    A correction says what was true and when; by whose word it was is as it was told.
    """
    kept: dict[uuid.UUID, Occurrence | None] = {}
    told: dict[uuid.UUID, Occurrence] = {}
    for event in events:
        match event.fact:
            case RecordCorrected() as correction:
                wrong = told.get(correction.corrected_event_id)
                if wrong is not None:
                    fact = correction.fact()
                    right = replace(wrong, fact=fact, occurred_at=event.occurred_at)
                    kept[correction.corrected_event_id] = None if fact is None else right
            case RecordSigned():
                pass
            case _:
                kept[event.event_id] = told[event.event_id] = occurrence(event)
    return [counts for counts in kept.values() if counts is not None]


def fold_facts(facts: AssetFacts | None, occurrences: Iterable[Occurrence]) -> AssetFacts | None:
    """Return `facts` after `occurrences`, which change them; None while nobody registered it."""
    for one in occurrences:
        fact = one.fact
        if facts is not None:
            _change(facts, one)
        elif isinstance(fact, AssetRegistered):
            facts = AssetFacts(fact.asset_id, fact.asset_type, fact.title, one.occurred_at)
    return facts


def _change(facts: AssetFacts, one: Occurrence) -> None:
    match one.fact:
        case AssetCommissioned():
            facts.lifecycle = Lifecycle.IN_SERVICE
        case AssetRetired():
            facts.lifecycle = Lifecycle.RETIRED
        case SetpointDesired(setpoint=name, value=value):
            facts.setpoints[name] = replace(
                _setpoint(facts, name),
                desired=value,
                desired_at=one.occurred_at,
                desired_by=one.actor,
            )
        case SetpointReported(setpoint=name, value=value):
            facts.setpoints[name] = replace(
                _setpoint(facts, name), reported=value, reported_at=one.occurred_at
            )
        case AlertRaised() as raised:
            alert = OpenAlert(
                raised.severity, raised.channel, raised.value, raised.limit, raised.message
            )
            facts.alerts.setdefault(raised.alert_id, alert)
        case AlertCleared(alert_id=alert_id):
            if alert_id in facts.alerts:
                facts.alerts[alert_id] = None
        case _:
            pass  # it moves the asset's version, and the projection that it concerns


def _setpoint(facts: AssetFacts, setpoint: str) -> SetpointState:
    return facts.setpoints.get(setpoint) or SetpointState(setpoint, None, None, None, None, None)


# --- from the log -------------------------------------------------------------------------


async def read_facts(ledger: Ledger, stream: str, version: int) -> list[RecordedEvent]:
    """Return the facts of `stream` up to `version`, but those that were erased.

    Raises
    ------
    InvalidInput
        ``twin.too_many_facts`` beyond `FACTS_MAX`
    """
    if version > FACTS_MAX:
        raise InvalidInput(
            "twin.too_many_facts",
            f"stream {stream!r} has {version} facts, more than {FACTS_MAX} to fold at once",
            value=version,
            limit=FACTS_MAX,
        )
    events: list[RecordedEvent] = []
    following = 1
    while following <= version and (
        page := await read_stream(
            ledger,
            stream,
            from_version=following,
            up_to_version=version,
            limit=2_000,
            payloads=PayloadOf.FACTS,
        )
    ):
        events += [event for event in page if not event.erased]
        following = page[-1].version + 1
    return events
