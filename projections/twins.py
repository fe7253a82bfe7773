"""Twins: what each asset is and reads now.

Rows: the asset, the last GOOD reading and latest window of each channel, and the desired and
reported set-points. Age, staleness and health are judged when a twin is read, for they change
without an event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Final, assert_never

import asyncpg

from domain.asset import (
    AlertAcknowledged,
    AlertCleared,
    AlertRaised,
    AssetCommissioned,
    AssetEvent,
    AssetRegistered,
    AssetRetired,
    SetpointDesired,
    SetpointReported,
)
from domain.asset_model import Severity
from domain.asset_types import asset_type
from domain.events import FRAME_RECORDED
from domain.frames import time_from_ns
from domain.health import Health, OpenAlert, assess_health
from eventlog.database import Connection, Pool
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf
from projections.twin_channels import fold_frames

TYPES: Final = (
    FRAME_RECORDED,
    "asset.registered",
    "asset.commissioned",
    "asset.retired",
    "asset.setpoint_desired",
    "asset.setpoint_reported",
    "asset.alert_raised",
    "asset.alert_acknowledged",
    "asset.alert_cleared",
)


class Lifecycle(StrEnum):
    """How far an asset has come."""

    REGISTERED = "REGISTERED"
    IN_SERVICE = "IN_SERVICE"
    RETIRED = "RETIRED"


class Connectivity(StrEnum):
    """Whether readings arrive: NEVER_SEEN before the first one, STALE after a silence."""

    ONLINE = "ONLINE"
    STALE = "STALE"
    NEVER_SEEN = "NEVER_SEEN"


# --- fold ---------------------------------------------------------------------------------


class TwinProjection:
    """Folds facts and frames' statistics into twins."""

    name: ClassVar[str] = "twins"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = TYPES
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Change the rows by `events`."""
        for event in events:
            if not event.is_frame:
                await _fold_fact(connection, ledger.ledger_id, event, event.fact)
        await fold_frames(connection, ledger.ledger_id, [e for e in events if e.is_frame])


async def _fold_fact(
    connection: Connection, ledger_id: int, event: RecordedEvent, fact: AssetEvent
) -> None:
    match fact:
        case AssetRegistered():
            await connection.execute(
                """
                insert into twin_asset values ($1, $2, $3, $4, $5, $6, $7, $8)
                on conflict (ledger_id, asset_id) do nothing
                """,
                ledger_id,
                fact.asset_id,
                fact.asset_type,
                fact.title,
                Lifecycle.REGISTERED,
                event.version,
                event.occurred_at,
                event.position,
            )
            return
        case AssetCommissioned() | AssetRetired():
            lifecycle = (
                Lifecycle.RETIRED if isinstance(fact, AssetRetired) else Lifecycle.IN_SERVICE
            )
            await connection.execute(
                "update twin_asset set lifecycle = $3 where ledger_id = $1 and asset_id = $2",
                ledger_id,
                fact.asset_id,
                lifecycle,
            )
        case SetpointDesired():
            await connection.execute(
                """
                insert into twin_setpoint
                    (ledger_id, asset_id, setpoint, desired, desired_at, desired_by)
                values ($1, $2, $3, $4, $5, $6)
                on conflict (ledger_id, asset_id, setpoint) do update set
                    desired = excluded.desired, desired_at = excluded.desired_at,
                    desired_by = excluded.desired_by
                """,
                ledger_id,
                fact.asset_id,
                fact.setpoint,
                fact.value,
                event.occurred_at,
                event.actor,
            )
        case SetpointReported():
            await connection.execute(
                """
                insert into twin_setpoint (ledger_id, asset_id, setpoint, reported, reported_at)
                values ($1, $2, $3, $4, $5)
                on conflict (ledger_id, asset_id, setpoint) do update set
                    reported = excluded.reported, reported_at = excluded.reported_at
                """,
                ledger_id,
                fact.asset_id,
                fact.setpoint,
                fact.value,
                event.occurred_at,
            )
        case AlertRaised() | AlertAcknowledged() | AlertCleared():
            pass  # the alerts projection keeps them; here they move the asset's version
        case _:
            assert_never(fact)
    await connection.execute(
        "update twin_asset set version = $3, position = $4 "
        "where ledger_id = $1 and asset_id = $2 and version < $3",
        ledger_id,
        fact.asset_id,
        event.version,
        event.position,
    )


# --- queries ------------------------------------------------------------------------------


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
class ChannelReading:
    """The last GOOD reading of a channel, SI, and how good its latest window was.

    `value`, `read_at` and `age_s` are None while there has been no GOOD reading. A channel that
    holds text has `text` in place of `value`, cut after 255 bytes.
    `good_ratio` is the share of GOOD readings in the latest window.
    """

    channel: str
    value: float | None
    read_at: datetime | None
    age_s: float | None
    window_mean: float | None
    good_ratio: float
    text: str | None = None


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
class Twin:
    """The state of one asset, judged at `as_of`; `position` is what it reflects."""

    asset_id: str
    as_of: datetime
    position: int
    connectivity: Connectivity
    last_reading_at: datetime | None
    readings: tuple[ChannelReading, ...]
    setpoints: tuple[SetpointState, ...]
    open_alert_count: int
    health: Health


async def find_asset(ledger: Ledger, asset_id: str) -> AssetRow | None:
    """Return the asset called `asset_id`, or None."""
    return (await find_assets(ledger, [asset_id])).get(asset_id)


async def find_assets(ledger: Ledger, asset_ids: Sequence[str]) -> dict[str, AssetRow]:
    """Return those of `asset_ids` that are registered, by their id."""
    rows = await ledger.pool.fetch(
        "select * from twin_asset where ledger_id = $1 and asset_id = any($2)",
        ledger.ledger_id,
        list(asset_ids),
    )
    return {row["asset_id"]: _asset_row(row) for row in rows}


async def list_assets(
    ledger: Ledger,
    *,
    after: str = "",
    first: int,
    asset_types: Sequence[str] = (),
    lifecycles: Sequence[Lifecycle] = (),
) -> list[AssetRow]:
    """Return at most `first` assets beyond the id `after`, ordered by id."""
    rows = await ledger.pool.fetch(
        """
        select * from twin_asset where ledger_id = $1 and asset_id > $2
            and ($4::text[] is null or asset_type = any($4))
            and ($5::text[] is null or lifecycle = any($5))
        order by asset_id limit $3
        """,
        ledger.ledger_id,
        after,
        first,
        list(asset_types) or None,
        list(lifecycles) or None,
    )
    return [_asset_row(row) for row in rows]


async def twins_by_asset_id(
    ledger: Ledger, assets: Sequence[AssetRow], now: datetime
) -> dict[str, Twin]:
    """Return the twin of each of `assets`, judged at `now`, from one snapshot of the rows."""
    ids = [asset.asset_id for asset in assets]
    async with (
        ledger.pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        position = await projection_position(connection, ledger.ledger_id, TwinProjection.name)
        channels = await connection.fetch(
            "select * from twin_channel where ledger_id = $1 and asset_id = any($2) "
            "order by asset_id, channel",
            ledger.ledger_id,
            ids,
        )
        setpoints = await connection.fetch(
            "select * from twin_setpoint where ledger_id = $1 and asset_id = any($2) "
            "order by asset_id, setpoint",
            ledger.ledger_id,
            ids,
        )
        alerts = await connection.fetch(
            "select asset_id, severity, channel, value, limit_value, message from alert "
            "where ledger_id = $1 and asset_id = any($2) and cleared_at is null "
            "order by position desc",
            ledger.ledger_id,
            ids,
        )
    channels_of, setpoints_of, alerts_of = (
        _by_asset_id(rows) for rows in (channels, setpoints, alerts)
    )
    return {
        asset.asset_id: _twin(
            asset,
            now,
            position,
            channels_of.get(asset.asset_id, ()),
            setpoints_of.get(asset.asset_id, ()),
            alerts_of.get(asset.asset_id, ()),
        )
        for asset in assets
    }


def _by_asset_id(rows: Sequence[asyncpg.Record]) -> dict[str, list[asyncpg.Record]]:
    grouped: dict[str, list[asyncpg.Record]] = {}
    for row in rows:
        grouped.setdefault(row["asset_id"], []).append(row)
    return grouped


async def projection_position(source: Pool | Connection, ledger_id: int, projection: str) -> int:
    """Return the position that the rows of `projection` reflect."""
    position = await source.fetchval(
        "select max(position) from projection_checkpoint where ledger_id = $1 and projection = $2",
        ledger_id,
        projection,
    )
    return position or 0


def _asset_row(row: asyncpg.Record) -> AssetRow:
    return AssetRow(
        row["asset_id"],
        row["asset_type"],
        row["title"],
        Lifecycle(row["lifecycle"]),
        row["version"],
        row["registered_at"],
        row["position"],
    )


def _twin(
    asset: AssetRow,
    now: datetime,
    position: int,
    channels: Sequence[asyncpg.Record],
    setpoints: Sequence[asyncpg.Record],
    alerts: Sequence[asyncpg.Record],
) -> Twin:
    described = asset_type(asset.asset_type)
    readings = tuple(_channel_reading(row, now) for row in channels)
    last_reading_at = max((r.read_at for r in readings if r.read_at is not None), default=None)
    if last_reading_at is None:
        connectivity = Connectivity.NEVER_SEEN
    elif now - last_reading_at > timedelta(seconds=described.stale_after_s):
        connectivity = Connectivity.STALE
    else:
        connectivity = Connectivity.ONLINE
    health = assess_health(
        described,
        {r.channel: r.window_mean for r in readings if r.window_mean is not None},
        [
            OpenAlert(
                Severity(row["severity"]),
                row["channel"],
                row["value"],
                row["limit_value"],
                row["message"],
            )
            for row in alerts
        ],
    )
    return Twin(
        asset_id=asset.asset_id,
        as_of=now,
        position=position,
        connectivity=connectivity,
        last_reading_at=last_reading_at,
        readings=readings,
        setpoints=tuple(_setpoint_state(row) for row in setpoints),
        open_alert_count=len(alerts),
        health=health,
    )


def _channel_reading(row: asyncpg.Record, now: datetime) -> ChannelReading:
    read_at = None if row["read_at_ns"] is None else time_from_ns(row["read_at_ns"])
    return ChannelReading(
        channel=row["channel"],
        value=row["value"],
        read_at=read_at,
        age_s=None if read_at is None else (now - read_at).total_seconds(),
        window_mean=row["window_mean"],
        good_ratio=row["window_good_count"] / row["window_reading_count"],
        text=row["text"],
    )


def _setpoint_state(row: asyncpg.Record) -> SetpointState:
    return SetpointState(
        row["setpoint"],
        row["desired"],
        row["desired_at"],
        row["desired_by"],
        row["reported"],
        row["reported_at"],
    )
