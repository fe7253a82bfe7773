"""Alerts: each from its raising to its clearing, who acknowledged it, whom it was passed on to."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any, ClassVar, Final, assert_never

import asyncpg

from domain.asset import AlertAcknowledged, AlertCleared, AlertEscalated, AlertRaised
from domain.asset_model import Severity
from domain.errors import InvalidInput
from domain.records import CORRECTED
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import (
    FILTER_VALUES_MAX,
    PAGE_EVENTS_MAX,
    SCANNED_EVENTS_MAX,
    EventFilter,
    PayloadOf,
    category_of,
    read_pages,
)
from projections.twins.facts import FACTS_MAX, Occurrence, effective_occurrences

AlertEvent = AlertRaised | AlertAcknowledged | AlertEscalated | AlertCleared


class AlertState(StrEnum):
    """RAISED until somebody acknowledges it or its condition goes."""

    RAISED = "RAISED"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    CLEARED = "CLEARED"


@dataclass(frozen=True, slots=True)
class AlertRow:
    """An alert; `value` and `limit` in SI, `position` that of its raising.

    `escalation_level`, `escalated_to`, … are of its last escalation, None without one.
    """

    alert_id: uuid.UUID
    position: int
    asset_id: str
    rule: str
    severity: Severity
    channel: str
    value: float
    limit: float
    message: str
    since: datetime
    raised_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    note: str | None
    cleared_at: datetime | None
    escalation_level: int | None = None
    escalated_at: datetime | None = None
    escalated_to: str | None = None
    escalation_reason: str | None = None

    @property
    def state(self) -> AlertState:
        """Where the alert stands."""
        if self.cleared_at is not None:
            return AlertState.CLEARED
        return AlertState.RAISED if self.acknowledged_at is None else AlertState.ACKNOWLEDGED


# --- fold ---------------------------------------------------------------------------------


class AlertProjection:
    """Folds an asset's alert events and their corrections into one row an alert."""

    name: ClassVar[str] = "alerts"
    version: ClassVar[int] = 2
    types: ClassVar[tuple[str, ...] | None] = (
        "asset.alert_raised",
        "asset.alert_acknowledged",
        "asset.alert_escalated",
        "asset.alert_cleared",
        CORRECTED,
    )
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS
    tables: ClassVar[tuple[str, ...]] = ("alert",)

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Change the rows by `events`.

        A correction takes the place of what it corrects, so the rows of an asset whose stream has
        one are written anew from the whole of it.

        Raises
        ------
        InvalidInput
            ``alert.too_many_facts``: beyond `FACTS_MAX` in a stream with a correction
        """
        corrected: dict[str, int] = {
            event.stream: event.version
            for event in events
            if event.type == CORRECTED and category_of(event.stream) == "asset"
        }
        told = [event for event in events if event.type != CORRECTED]
        if corrected:
            _check_lengths(corrected)
            for streams in _read_together(corrected):
                await _write_anew(connection, ledger, streams, events[-1].position)
            told = [event for event in told if event.stream not in corrected]
        await _fold_told(connection, ledger.ledger_id, told)


async def _fold_told(connection: Connection, ledger_id: int, told: Iterable[RecordedEvent]) -> None:
    """Change the rows by what was told, as `stories` would."""
    raised: list[tuple[Any, ...]] = []
    acknowledged: dict[tuple[str, uuid.UUID], tuple[Any, ...]] = {}
    escalated: dict[tuple[str, uuid.UUID], tuple[Any, ...]] = {}
    cleared: dict[tuple[str, uuid.UUID], tuple[Any, ...]] = {}
    for one in told:
        fact: AlertEvent = one.fact
        key = (fact.asset_id, fact.alert_id)
        at = (*key, one.position, one.occurred_at)
        match fact:
            case AlertRaised():
                raised.append((one.position, one.occurred_at, *_RAISED_FIELDS(fact)))
            case AlertAcknowledged(note=note):
                acknowledged[key] = (*at, one.actor, note)
            case AlertEscalated():
                escalated[key] = (*at, fact.level, fact.to, fact.reason)
            case AlertCleared():
                cleared[key] = at
            case _:
                assert_never(fact)
    # What each of them changes is no other's, and none counts before its alert was raised, so
    # their order does not matter.
    for statement, rows in (
        (_RAISE, raised),
        (_ACKNOWLEDGE, list(acknowledged.values())),
        (_ESCALATE, list(escalated.values())),
        (_CLEAR, list(cleared.values())),
    ):
        if rows:
            await connection.execute(statement, ledger_id, *_columns(rows))


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


_RAISED_FIELDS: Final = attrgetter(*(field.name for field in fields(AlertRaised)))
_RAISE: Final = """
    insert into alert (ledger_id, position, raised_at, asset_id, alert_id, rule, severity,
        channel, value, limit_value, since, message)
    select $1, * from unnest($2::bigint[], $3::timestamptz[], $4::text[], $5::uuid[], $6::text[],
        $7::text[], $8::text[], $9::float8[], $10::float8[], $11::timestamptz[], $12::text[])
    on conflict (ledger_id, alert_id) do nothing
"""
_OF_ALERT: Final = """
    ledger_id = $1 and alert.alert_id = by.alert_id and alert.asset_id = by.asset_id
        and alert.position < by.position
"""
_ACKNOWLEDGE: Final = f"""
    update alert set acknowledged_at = by.at, acknowledged_by = by.actor, note = by.note
    from unnest($2::text[], $3::uuid[], $4::bigint[], $5::timestamptz[], $6::text[], $7::text[])
        as by(asset_id, alert_id, position, at, actor, note)
    where {_OF_ALERT}
"""
_ESCALATE: Final = f"""
    update alert set escalated_at = by.at, escalation_level = by.level, escalated_to = by."to",
        escalation_reason = by.reason
    from unnest($2::text[], $3::uuid[], $4::bigint[], $5::timestamptz[], $6::integer[],
        $7::text[], $8::text[]) as by(asset_id, alert_id, position, at, level, "to", reason)
    where {_OF_ALERT}
"""
_CLEAR: Final = f"""
    update alert set cleared_at = by.at
    from unnest($2::text[], $3::uuid[], $4::bigint[], $5::timestamptz[])
        as by(asset_id, alert_id, position, at)
    where {_OF_ALERT}
"""


# --- after a correction -------------------------------------------------------------------


def _check_lengths(versions: Mapping[str, int]) -> None:
    stream = max(versions, key=versions.__getitem__)
    if versions[stream] > FACTS_MAX:
        raise InvalidInput(
            "alert.too_many_facts",
            f"stream {stream!r} has {versions[stream]} facts, more than {FACTS_MAX} to fold anew",
            value=versions[stream],
            limit=FACTS_MAX,
        )


def _read_together(versions: Mapping[str, int]) -> Iterator[list[str]]:
    """Yield streams to be read at once: few and long, or many and short.

    A page looks at as many events of each of its streams, `SCANNED_EVENTS_MAX` together; so all
    of each is looked at once, and what is held at a time is bounded by that or by one stream.
    """
    waiting = sorted(versions, key=versions.__getitem__, reverse=True)
    while waiting:
        longest = versions[waiting[0]]
        count = min(FILTER_VALUES_MAX, max(1, SCANNED_EVENTS_MAX // longest))
        yield waiting[:count]
        waiting = waiting[count:]


async def _write_anew(
    connection: Connection, ledger: Ledger, streams: Sequence[str], up_to: int
) -> None:
    """Write the rows of the assets of `streams` by all that counts of them up to a position."""
    told: dict[str, list[RecordedEvent]] = {stream: [] for stream in streams}
    async for page in read_pages(
        ledger,
        0,
        up_to=up_to,
        limit=PAGE_EVENTS_MAX,
        wanted=EventFilter(streams=tuple(streams)),
        payloads=PayloadOf.FACTS,
    ):
        for event in page:
            if not event.erased:
                told[event.stream].append(event)
    rows = [
        _VALUES(row)
        for events in told.values()
        for row in stories(effective_occurrences(events)).values()
    ]
    await connection.execute(
        "delete from alert where ledger_id = $1 and asset_id = any($2)",
        ledger.ledger_id,
        [stream.partition(":")[2] for stream in streams],
    )
    if rows:
        await connection.execute(_INSERT, ledger.ledger_id, *_columns(rows))


def stories(occurrences: Iterable[Occurrence]) -> dict[uuid.UUID, AlertRow]:
    """Return the alerts of an asset after `occurrences`; what speaks of none of them is let go."""
    alerts: dict[uuid.UUID, AlertRow] = {}
    for one in occurrences:
        fact, at = one.fact, one.occurred_at
        change: dict[str, Any]
        match fact:
            case AlertRaised():
                alerts.setdefault(fact.alert_id, _raised(one, fact))
                continue
            case AlertAcknowledged(note=note):
                change = {"acknowledged_at": at, "acknowledged_by": one.actor, "note": note}
            case AlertEscalated():
                change = {
                    "escalated_at": at,
                    "escalation_level": fact.level,
                    "escalated_to": fact.to,
                    "escalation_reason": fact.reason,
                }
            case AlertCleared():
                change = {"cleared_at": at}
            case _:
                continue  # of the asset, and of no alert
        if fact.alert_id in alerts:
            alerts[fact.alert_id] = replace(alerts[fact.alert_id], **change)
    return alerts


def _raised(one: Occurrence, fact: AlertRaised) -> AlertRow:
    return AlertRow(
        alert_id=fact.alert_id,
        position=one.position,
        asset_id=fact.asset_id,
        rule=fact.rule,
        severity=fact.severity,
        channel=fact.channel,
        value=fact.value,
        limit=fact.limit,
        message=fact.message,
        since=fact.since,
        raised_at=one.occurred_at,
        acknowledged_at=None,
        acknowledged_by=None,
        note=None,
        cleared_at=None,
    )


_TYPES: Final = {
    "alert_id": "uuid",
    "position": "bigint",
    "asset_id": "text",
    "rule": "text",
    "severity": "text",
    "channel": "text",
    "value": "float8",
    "limit": "float8",
    "message": "text",
    "since": "timestamptz",
    "raised_at": "timestamptz",
    "acknowledged_at": "timestamptz",
    "acknowledged_by": "text",
    "note": "text",
    "cleared_at": "timestamptz",
    "escalation_level": "integer",
    "escalated_at": "timestamptz",
    "escalated_to": "text",
    "escalation_reason": "text",
}
_VALUES: Final = attrgetter(*_TYPES)
_INSERT: Final = f"""
    insert into alert (
        ledger_id, {", ".join("limit_value" if name == "limit" else name for name in _TYPES)}
    )
    select $1, * from unnest(
        {", ".join(f"${n}::{sql_type}[]" for n, sql_type in enumerate(_TYPES.values(), 2))}
    )
    on conflict (ledger_id, alert_id) do nothing
"""


# --- queries ------------------------------------------------------------------------------

_POSITION_MAX: Final = 2**63 - 1
_WANTED: Final = """
    ($4::text[] is null or severity = any($4))
    and ($5::text[] is null or case
        when cleared_at is not null then 'CLEARED'
        when acknowledged_at is not null then 'ACKNOWLEDGED'
        else 'RAISED' end = any($5))
"""


async def find_alert(ledger: Ledger, alert_id: uuid.UUID) -> AlertRow | None:
    """Return the alert `alert_id`, or None."""
    row = await ledger.pool.fetchrow(
        "select * from alert where ledger_id = $1 and alert_id = $2", ledger.ledger_id, alert_id
    )
    return None if row is None else _alert_row(row)


async def find_alerts(ledger: Ledger, alert_ids: Sequence[uuid.UUID]) -> list[AlertRow]:
    """Return those of the alerts `alert_ids` that there are, in that order."""
    rows = await ledger.pool.fetch(
        "select alert.* from unnest($2::uuid[]) with ordinality as wanted(alert_id, n) "
        "join alert on alert.ledger_id = $1 and alert.alert_id = wanted.alert_id order by n",
        ledger.ledger_id,
        list(alert_ids),
    )
    return [_alert_row(row) for row in rows]


async def list_alerts(
    ledger: Ledger,
    *,
    before: int | None = None,
    first: int,
    asset_ids: Sequence[str] = (),
    severities: Sequence[Severity] = (),
    states: Sequence[AlertState] = (),
    seen: Collection[str] | None = None,
) -> list[AlertRow]:
    """Return at most `first` alerts raised before position `before`, newest first.

    Parameters
    ----------
    seen : ids of the only assets that there are for whoever asks; None: all
    """
    rows = await ledger.pool.fetch(
        f"""
        select * from alert where ledger_id = $1 and position < $2
            and ($6::text[] is null or asset_id = any($6))
            and ($7::text[] is null or asset_id = any($7)) and {_WANTED}
        order by position desc limit $3
        """,
        ledger.ledger_id,
        _POSITION_MAX if before is None else before,
        first,
        list(severities) or None,
        list(states) or None,
        list(asset_ids) or None,
        None if seen is None else list(seen),
    )
    return [_alert_row(row) for row in rows]


async def alerts_of(
    ledger: Ledger,
    asset_ids: Sequence[str],
    *,
    before: int | None = None,
    first: int,
    severities: Sequence[Severity] = (),
    states: Sequence[AlertState] = (),
) -> dict[str, list[AlertRow]]:
    """Return what `list_alerts` would for each of `asset_ids` alone, by its id, in one statement.

    An asset without an alert has an empty list.
    """
    rows = await ledger.pool.fetch(
        f"""
        select found.* from unnest($6::text[]) as wanted(asset_id) cross join lateral (
            select * from alert where ledger_id = $1 and position < $2
                and asset_id = wanted.asset_id and {_WANTED}
            order by position desc limit $3
        ) found
        order by found.position desc
        """,
        ledger.ledger_id,
        _POSITION_MAX if before is None else before,
        first,
        list(severities) or None,
        list(states) or None,
        list(dict.fromkeys(asset_ids)),
    )
    found: dict[str, list[AlertRow]] = {asset_id: [] for asset_id in asset_ids}
    for row in rows:
        found[row["asset_id"]].append(_alert_row(row))
    return found


def _alert_row(row: asyncpg.Record) -> AlertRow:
    return AlertRow(
        alert_id=row["alert_id"],
        position=row["position"],
        asset_id=row["asset_id"],
        rule=row["rule"],
        severity=Severity(row["severity"]),
        channel=row["channel"],
        value=row["value"],
        limit=row["limit_value"],
        message=row["message"],
        since=row["since"],
        raised_at=row["raised_at"],
        acknowledged_at=row["acknowledged_at"],
        acknowledged_by=row["acknowledged_by"],
        note=row["note"],
        cleared_at=row["cleared_at"],
        escalation_level=row["escalation_level"],
        escalated_at=row["escalated_at"],
        escalated_to=row["escalated_to"],
        escalation_reason=row["escalation_reason"],
    )
