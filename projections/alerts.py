"""Alerts: each from its raising to its clearing, with who acknowledged it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final

import asyncpg

from domain.asset import AlertAcknowledged, AlertCleared, AlertRaised
from domain.asset_model import Severity
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf


class AlertState(StrEnum):
    """RAISED until somebody acknowledges it or its condition goes."""

    RAISED = "RAISED"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    CLEARED = "CLEARED"


# --- fold ---------------------------------------------------------------------------------


class AlertProjection:
    """Folds an asset's alert events into one row an alert."""

    name: ClassVar[str] = "alerts"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = (
        "asset.alert_raised",
        "asset.alert_acknowledged",
        "asset.alert_cleared",
    )
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Change the rows by `events`."""
        for event in events:
            match event.fact:
                case AlertRaised() as raised:
                    await connection.execute(
                        """
                        insert into alert (ledger_id, position, alert_id, asset_id, rule, severity,
                            channel, value, limit_value, message, since, raised_at)
                        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
                        on conflict (ledger_id, alert_id) do nothing
                        """,
                        ledger.ledger_id,
                        event.position,
                        raised.alert_id,
                        raised.asset_id,
                        raised.rule,
                        raised.severity,
                        raised.channel,
                        raised.value,
                        raised.limit,
                        raised.message,
                        raised.since,
                        event.occurred_at,
                    )
                case AlertAcknowledged() as acknowledged:
                    await connection.execute(
                        "update alert set acknowledged_at = $3, acknowledged_by = $4, note = $5 "
                        "where ledger_id = $1 and alert_id = $2",
                        ledger.ledger_id,
                        acknowledged.alert_id,
                        event.occurred_at,
                        event.actor,
                        acknowledged.note,
                    )
                case AlertCleared() as cleared:
                    await connection.execute(
                        "update alert set cleared_at = $3 where ledger_id = $1 and alert_id = $2",
                        ledger.ledger_id,
                        cleared.alert_id,
                        event.occurred_at,
                    )
                case other:
                    raise TypeError(f"{type(other).__name__} is no event of an alert")


# --- queries ------------------------------------------------------------------------------

_POSITION_MAX: Final = 2**63 - 1
_WANTED: Final = """
    ($4::text[] is null or severity = any($4))
    and ($5::text[] is null or case
        when cleared_at is not null then 'CLEARED'
        when acknowledged_at is not null then 'ACKNOWLEDGED'
        else 'RAISED' end = any($5))
"""


@dataclass(frozen=True, slots=True)
class AlertRow:
    """An alert; `value` and `limit` in SI, `position` that of its raising."""

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

    @property
    def state(self) -> AlertState:
        """Where the alert stands."""
        if self.cleared_at is not None:
            return AlertState.CLEARED
        return AlertState.RAISED if self.acknowledged_at is None else AlertState.ACKNOWLEDGED


async def find_alert(ledger: Ledger, alert_id: uuid.UUID) -> AlertRow | None:
    """Return the alert `alert_id`, or None."""
    row = await ledger.pool.fetchrow(
        "select * from alert where ledger_id = $1 and alert_id = $2", ledger.ledger_id, alert_id
    )
    return None if row is None else _alert_row(row)


async def list_alerts(
    ledger: Ledger,
    *,
    before: int | None = None,
    first: int,
    asset_ids: Sequence[str] = (),
    severities: Sequence[Severity] = (),
    states: Sequence[AlertState] = (),
) -> list[AlertRow]:
    """Return at most `first` alerts raised before position `before`, newest first."""
    rows = await ledger.pool.fetch(
        f"""
        select * from alert where ledger_id = $1 and position < $2
            and ($6::text[] is null or asset_id = any($6)) and {_WANTED}
        order by position desc limit $3
        """,
        ledger.ledger_id,
        _POSITION_MAX if before is None else before,
        first,
        list(severities) or None,
        list(states) or None,
        list(asset_ids) or None,
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
    )
