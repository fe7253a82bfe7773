"""Twins: what each asset is and reads now.

Rows: the asset, the last GOOD reading and latest window of each channel, and the desired and
reported set-points. Age, staleness and health are judged when a twin is read, for they change
without an event.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Final, TypeVar

import asyncpg

from domain.asset_model import Severity
from domain.asset_types import asset_type
from domain.events import FRAME_RECORDED
from domain.frames import time_from_ns
from domain.health import Health, OpenAlert, assess_health
from domain.records import CORRECTED, SIGNED
from eventlog.database import Connection, Pool
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf
from projections.twins.channels import ChannelState, fold_frames
from projections.twins.facts import (
    AssetFacts,
    AssetRow,
    Lifecycle,
    SetpointState,
    effective_occurrences,
    fold_facts,
    occurrence,
    read_facts,
)

__all__ = [
    "AssetRow",
    "ChannelReading",
    "Connectivity",
    "Lifecycle",
    "SetpointState",
    "Twin",
    "TwinProjection",
    "find_asset",
    "find_assets",
    "judged_twin",
    "list_assets",
    "projection_position",
    "projection_positions",
    "twins_by_asset_id",
]

TYPES: Final = (
    FRAME_RECORDED,
    "asset.alert_acknowledged",
    "asset.alert_cleared",
    "asset.alert_escalated",
    "asset.alert_raised",
    "asset.commissioned",
    "asset.placed",
    "asset.registered",
    "asset.retired",
    "asset.readings_lost",
    "asset.setpoint_declined",
    "asset.setpoint_desired",
    "asset.setpoint_reported",
    CORRECTED,
    SIGNED,
)


Row = TypeVar("Row", bound="asyncpg.Record | tuple[Any, ...]")


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
    tables: ClassVar[tuple[str, ...]] = ("twin_asset", "twin_channel", "twin_setpoint")

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Change the rows by `events`."""
        told: dict[str, list[RecordedEvent]] = {}
        for event in events:
            if event.stream.startswith("asset:"):
                told.setdefault(event.stream.partition(":")[2], []).append(event)
        if told:
            await _fold_facts(connection, ledger, told)
        await fold_frames(connection, ledger.ledger_id, [e for e in events if e.is_frame])


async def _fold_facts(
    connection: Connection, ledger: Ledger, told: Mapping[str, Sequence[RecordedEvent]]
) -> None:
    """Change the rows by what each asset's stream was told, after a correction by all of it."""
    held = await _held_facts(connection, ledger.ledger_id, list(told))
    folded: list[tuple[AssetFacts, RecordedEvent]] = []
    withdrawn: list[str] = []
    for asset_id, events in told.items():
        last = events[-1]
        if any(event.type == CORRECTED for event in events):
            everything = await read_facts(ledger, last.stream, last.version)
            facts = fold_facts(None, effective_occurrences(everything))
        else:
            plain = [occurrence(event) for event in events if event.type != SIGNED]
            facts = fold_facts(held.get(asset_id), plain)
        if facts is not None:
            folded.append((facts, last))
        elif asset_id in held:
            withdrawn.append(asset_id)
    if withdrawn:
        for table in ("twin_asset", "twin_setpoint"):
            await connection.execute(
                f"delete from {table} where ledger_id = $1 and asset_id = any($2)",
                ledger.ledger_id,
                withdrawn,
            )
    await _store_facts(connection, ledger.ledger_id, folded)


async def _held_facts(
    connection: Connection, ledger_id: int, asset_ids: Sequence[str]
) -> dict[str, AssetFacts]:
    """Return what the rows say of each of `asset_ids`. Alerts have a projection of their own."""
    assets = await connection.fetch(
        "select * from twin_asset where ledger_id = $1 and asset_id = any($2)", ledger_id, asset_ids
    )
    setpoints = await connection.fetch(
        f"select asset_id, {', '.join(_SETPOINT_FIELDS)} from twin_setpoint "
        "where ledger_id = $1 and asset_id = any($2)",
        ledger_id,
        asset_ids,
    )
    setpoints_of = _by_asset_id(setpoints)
    return {
        row["asset_id"]: AssetFacts(
            row["asset_id"],
            row["asset_type"],
            row["title"],
            row["registered_at"],
            Lifecycle(row["lifecycle"]),
            {
                setpoint["setpoint"]: _setpoint_state(setpoint)
                for setpoint in setpoints_of.get(row["asset_id"], ())
            },
        )
        for row in assets
    }


async def _store_facts(
    connection: Connection, ledger_id: int, folded: Sequence[tuple[AssetFacts, RecordedEvent]]
) -> None:
    # Sorted, so that two processes that fold at once lock rows in one order.
    ordered = sorted(folded, key=lambda each: each[0].asset_id)
    rows = [facts.row(last.version, last.position) for facts, last in ordered]
    if not rows:
        return
    await connection.execute(
        """
        insert into twin_asset (ledger_id, asset_id, asset_type, title, lifecycle, version,
            registered_at, position)
        select $1, * from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[],
            $7::timestamptz[], $8::bigint[])
        on conflict (ledger_id, asset_id) do update set
            asset_type = excluded.asset_type, title = excluded.title,
            lifecycle = excluded.lifecycle, version = excluded.version,
            registered_at = excluded.registered_at, position = excluded.position
        """,
        ledger_id,
        *(
            [getattr(row, name) for row in rows]
            for name in (
                "asset_id",
                "asset_type",
                "title",
                "lifecycle",
                "version",
                "registered_at",
                "position",
            )
        ),
    )
    await connection.execute(
        """
        with told as (
            select * from unnest($3::text[], $4::text[], $5::float8[], $6::timestamptz[],
                $7::text[], $8::float8[], $9::timestamptz[])
                as s(asset_id, setpoint, desired, desired_at, desired_by, reported, reported_at)
        ), withdrawn as (
            delete from twin_setpoint held where ledger_id = $1 and asset_id = any($2)
                and not exists (select from told where told.asset_id = held.asset_id
                    and told.setpoint = held.setpoint)
        )
        insert into twin_setpoint (ledger_id, asset_id, setpoint, desired, desired_at, desired_by,
            reported, reported_at)
        select $1, * from told
        on conflict (ledger_id, asset_id, setpoint) do update set
            desired = excluded.desired, desired_at = excluded.desired_at,
            desired_by = excluded.desired_by, reported = excluded.reported,
            reported_at = excluded.reported_at
        """,
        ledger_id,
        [row.asset_id for row in rows],
        *_setpoint_columns([facts for facts, _ in ordered]),
    )


def _setpoint_columns(assets: Sequence[AssetFacts]) -> list[list[Any]]:
    """Return the set-points of `assets` as columns: asset, set-point, and what is known of it."""
    states = [
        (facts.asset_id, *(getattr(facts.setpoints[name], field) for field in _SETPOINT_FIELDS))
        for facts in assets
        for name in sorted(facts.setpoints)
    ]
    return [[state[n] for state in states] for n in range(len(_SETPOINT_FIELDS) + 1)]


_SETPOINT_FIELDS: Final = (
    "setpoint",
    "desired",
    "desired_at",
    "desired_by",
    "reported",
    "reported_at",
)


# --- queries ------------------------------------------------------------------------------


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


_ASSET_COLUMNS: Final = "asset_id, asset_type, title, lifecycle, version, registered_at, position"
_LIFECYCLES: Final = {each.value: each for each in Lifecycle}


async def find_asset(ledger: Ledger, asset_id: str) -> AssetRow | None:
    """Return the asset called `asset_id`, or None."""
    return (await find_assets(ledger, [asset_id])).get(asset_id)


async def find_assets(ledger: Ledger, asset_ids: Sequence[str]) -> dict[str, AssetRow]:
    """Return those of `asset_ids` that are registered, by their id."""
    rows = await ledger.pool.fetch(
        f"select {_ASSET_COLUMNS} from twin_asset where ledger_id = $1 and asset_id = any($2)",
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
    seen: Collection[str] | None = None,
) -> list[AssetRow]:
    """Return at most `first` assets beyond the id `after`, ordered by id.

    Parameters
    ----------
    seen : ids of the only assets that there are for whoever asks; None: all
    """
    rows = await ledger.pool.fetch(
        f"""
        select {_ASSET_COLUMNS} from twin_asset where ledger_id = $1 and asset_id > $2
            and ($4::text[] is null or asset_type = any($4))
            and ($5::text[] is null or lifecycle = any($5))
            and ($6::text[] is null or asset_id = any($6))
        order by asset_id limit $3
        """,
        ledger.ledger_id,
        after,
        first,
        list(asset_types) or None,
        list(lifecycles) or None,
        None if seen is None else list(seen),
    )
    return [_asset_row(row) for row in rows]


async def twins_by_asset_id(
    ledger: Ledger, assets: Sequence[AssetRow], now: datetime
) -> dict[str, Twin]:
    """Return the twin of each of `assets`, judged at `now`, from one snapshot of the rows."""
    found = await ledger.pool.fetchrow(
        _TWIN_ROWS,
        ledger.ledger_id,
        [asset.asset_id for asset in assets],
        TwinProjection.name,
    )
    assert found is not None, "arrays and a position are one row, also of nothing"
    position, channels, setpoints, alerts = found
    channels_of, setpoints_of, alerts_of = (
        _by_asset_id(rows or ()) for rows in (channels, setpoints, alerts)
    )
    return {
        asset.asset_id: judged_twin(
            asset,
            now,
            position or 0,
            {row[1]: ChannelState(*row[2:]) for row in channels_of.get(asset.asset_id, ())},
            [SetpointState(*row[1:]) for row in setpoints_of.get(asset.asset_id, ())],
            [_open_alert(*row[1:]) for row in alerts_of.get(asset.asset_id, ())],
        )
        for asset in assets
    }


_TWIN_ROWS: Final = f"""
    select
        (select max(position) from projection_checkpoint
            where ledger_id = $1 and projection = $3),
        (select array_agg(row(asset_id, channel, {", ".join(ChannelState._fields)})
                order by asset_id, channel)
            from twin_channel where ledger_id = $1 and asset_id = any($2)),
        (select array_agg(row(asset_id, setpoint, desired, desired_at, desired_by, reported,
                reported_at) order by asset_id, setpoint)
            from twin_setpoint where ledger_id = $1 and asset_id = any($2)),
        (select array_agg(row(asset_id, severity, channel, value, limit_value, message)
                order by position desc)
            from alert where ledger_id = $1 and asset_id = any($2) and cleared_at is null)
"""
"""One statement, which is one snapshot in one round trip."""


def _by_asset_id(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return `rows` by the asset's id, which stands first in each."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row[0], []).append(row)
    return grouped


async def projection_position(source: Pool | Connection, ledger_id: int, projection: str) -> int:
    """Return the position that the rows of `projection` reflect."""
    position = await source.fetchval(
        "select max(position) from projection_checkpoint where ledger_id = $1 and projection = $2",
        ledger_id,
        projection,
    )
    return position or 0


async def projection_positions(
    source: Pool | Connection, ledger_id: int, projections: Sequence[str]
) -> list[int]:
    """Return the position that the rows of each of `projections` reflect, in one statement."""
    rows = await source.fetch(
        "select projection, max(position) as position from projection_checkpoint "
        "where ledger_id = $1 and projection = any($2) group by projection",
        ledger_id,
        list(projections),
    )
    found = {row["projection"]: row["position"] or 0 for row in rows}
    return [found.get(name, 0) for name in projections]


def _asset_row(row: asyncpg.Record) -> AssetRow:
    asset_id, asset_type, title, lifecycle, version, registered_at, position = row
    return AssetRow(
        asset_id, asset_type, title, _LIFECYCLES[lifecycle], version, registered_at, position
    )


def judged_twin(
    asset: AssetRow,
    now: datetime,
    position: int,
    channels: Mapping[str, ChannelState],
    setpoints: Sequence[SetpointState],
    alerts: Sequence[OpenAlert],
) -> Twin:
    """Return the twin of `asset`, judged at `now`.

    Parameters
    ----------
    channels : by name, in the order in which the twin shows them; so are `setpoints`
    alerts : those that are open, the latest raised first
    """
    described = asset_type(asset.asset_type)
    readings = tuple(_channel_reading(name, state, now) for name, state in channels.items())
    last_reading_at = max((r.read_at for r in readings if r.read_at is not None), default=None)
    if last_reading_at is None:
        connectivity = Connectivity.NEVER_SEEN
    elif now - last_reading_at > timedelta(seconds=described.stale_after_s):
        connectivity = Connectivity.STALE
    else:
        connectivity = Connectivity.ONLINE
    means = {r.channel: r.window_mean for r in readings if r.window_mean is not None}
    return Twin(
        asset_id=asset.asset_id,
        as_of=now,
        position=position,
        connectivity=connectivity,
        last_reading_at=last_reading_at,
        readings=readings,
        setpoints=tuple(setpoints),
        open_alert_count=len(alerts),
        health=assess_health(described, means, alerts),
    )


def _channel_reading(channel: str, state: ChannelState, now: datetime) -> ChannelReading:
    read_at = None if state.read_at_ns is None else time_from_ns(state.read_at_ns)
    return ChannelReading(
        channel=channel,
        value=state.value,
        read_at=read_at,
        age_s=None if read_at is None else (now - read_at).total_seconds(),
        window_mean=state.window_mean,
        good_ratio=state.window_good_count / state.window_reading_count,
        text=state.text,
    )


def _open_alert(severity: str, channel: str, value: float, limit: float, message: str) -> OpenAlert:
    return OpenAlert(Severity(severity), channel, value, limit, message)


def _setpoint_state(row: asyncpg.Record) -> SetpointState:
    return SetpointState(*(row[name] for name in _SETPOINT_FIELDS))
