"""Twins' channels as they were: a row after every so many frames, and the frames since.

What channels read as of a position is the row before it and the frames from there on, by their
statistics. As of a moment it is the last row all of whose windows had ended by then, and, of all
frames since, those that had begun; a window that the moment falls into is decoded and cut there.
Late frames are found by the earliest start that each row keeps of its own stretch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import asyncpg

from domain.asset import telemetry_stream
from domain.errors import Unavailable
from domain.events import FRAME_RECORDED
from eventlog.database import Connection, Pool
from eventlog.envelope import PayloadTier, RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf, read_stream, stream_version_at
from projections.twins.channels import (
    ChannelState,
    FrameSummary,
    Series,
    channel_states,
    merged,
    states_until,
)

ROW_FRAMES: Final = 256
"""Frames of an asset from one row to the next."""

ROWS_AT_ONCE: Final = 16
"""Rows that are made of one reading of the log."""

PAGE_FRAMES: Final = 2_000

UNFOLDED_FRAMES_MAX: Final = 20_000
"""Frames beyond an asset's last row that a question reads at most; there are more only while
the projection has not caught up."""


# --- fold ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """The channels of an asset after all frames up to `version` of its telemetry stream.

    Parameters
    ----------
    max_end_ns : latest end of a window so far
    segment_start_ns : earliest start of a window since the row before
    """

    asset_id: str
    version: int
    position: int
    max_end_ns: int
    segment_start_ns: int
    states: Mapping[Series, ChannelState]


class TwinHistoryProjection:
    """Writes a row at every `ROW_FRAMES`-th frame of an asset, wherever batches begin and end."""

    name: ClassVar[str] = "twin-history"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = (FRAME_RECORDED,)
    payloads: ClassVar[PayloadOf] = PayloadOf.NONE
    tables: ClassVar[tuple[str, ...]] = ("twin_history",)

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Add the rows that are due within `events`."""
        due = [event for event in events if event.version % ROW_FRAMES == 0]
        if not due:
            return
        asset_ids = list({event.stream.partition(":")[2] for event in due})
        last = await _last_rows(connection, ledger.ledger_id, asset_ids)
        due = [event for event in due if not _has_row(last, event)]
        for at in range(0, len(due), ROWS_AT_ONCE):
            rows = await _rows_due(connection, ledger.ledger_id, due[at : at + ROWS_AT_ONCE], last)
            await _store(connection, ledger.ledger_id, rows)


def _has_row(last: Mapping[str, HistoryRow], event: RecordedEvent) -> bool:
    row = last.get(event.stream.partition(":")[2])
    return row is not None and row.version >= event.version


async def _last_rows(
    connection: Connection, ledger_id: int, asset_ids: Sequence[str]
) -> dict[str, HistoryRow]:
    rows = await connection.fetch(
        """
        select held.* from unnest($2::text[]) wanted(asset_id) cross join lateral (
            select * from twin_history where ledger_id = $1 and asset_id = wanted.asset_id
            order by version desc limit 1
        ) held
        """,
        ledger_id,
        asset_ids,
    )
    return {row["asset_id"]: _history_row(row) for row in rows}


async def _rows_due(
    connection: Connection,
    ledger_id: int,
    due: Sequence[RecordedEvent],
    last: dict[str, HistoryRow],
) -> list[HistoryRow]:
    """Return the rows at the frames `due`, and let `last` hold the newest of each asset."""
    begun = {event.stream: 0 for event in due}
    begun |= {telemetry_stream(a): row.version for a, row in last.items()}
    after = []
    for event in due:
        after.append(begun[event.stream])
        begun[event.stream] = event.version
    records = await connection.fetch(
        f"""
        select wanted.number, {_FRAME_COLUMNS}
        from unnest($2::text[], $3::bigint[], $4::bigint[]) with ordinality
            as wanted(stream, after, up_to, number)
        join event on ledger_id = $1 and event.stream = wanted.stream
            and version > wanted.after and version <= wanted.up_to
        where {_HAS_STATISTICS}
        order by wanted.number, version
        """,
        ledger_id,
        [event.stream for event in due],
        after,
        [event.version for event in due],
    )
    frames: dict[int, list[asyncpg.Record]] = {}
    for record in records:
        frames.setdefault(record["number"], []).append(record)
    rows = []
    for number, event in enumerate(due, 1):
        asset_id = event.stream.partition(":")[2]
        row = _next_row(last.get(asset_id), asset_id, event, frames.get(number, []))
        if row is not None:
            last[asset_id] = row
            rows.append(row)
    return rows


def _next_row(
    before: HistoryRow | None,
    asset_id: str,
    event: RecordedEvent,
    frames: Sequence[asyncpg.Record],
) -> HistoryRow | None:
    if not frames:
        return None  # all of them were erased since
    states = channel_states([_summary(asset_id, frame) for frame in frames])
    ends = max(frame["window_end_ns"] for frame in frames)
    return HistoryRow(
        asset_id,
        event.version,
        event.position,
        ends if before is None else max(before.max_end_ns, ends),
        min(frame["window_start_ns"] for frame in frames),
        merged({} if before is None else before.states, states),
    )


async def _store(connection: Connection, ledger_id: int, rows: Sequence[HistoryRow]) -> None:
    await connection.copy_records_to_table(
        "twin_history",
        columns=(
            "ledger_id",
            "asset_id",
            "version",
            "position",
            "max_end_ns",
            "segment_start_ns",
            "channel",
            *_STATE_COLUMNS,
        ),
        records=[(ledger_id, *_record(row)) for row in rows],
    )


_STATE_COLUMNS: Final = ChannelState._fields[:-1]
"""Columns of a row, each an array over its channels; the position is the row's own."""

_FRAME_COLUMNS: Final = (
    "version, position, window_start_ns, window_end_ns, statistics, payload_tier"
)
_HAS_STATISTICS: Final = f"""
    window_end_ns is not null and statistics is not null
    and payload_tier <> {PayloadTier.ERASED:d}
"""


def _record(row: HistoryRow) -> tuple[object, ...]:
    channels = sorted(row.states)
    columns = [
        [getattr(row.states[series], name) for series in channels] for name in _STATE_COLUMNS
    ]
    return (
        row.asset_id,
        row.version,
        row.position,
        row.max_end_ns,
        row.segment_start_ns,
        [channel for _, channel in channels],
        *columns,
    )


def _history_row(row: asyncpg.Record) -> HistoryRow:
    asset_id, position = row["asset_id"], row["position"]
    columns = zip(*(row[name] for name in _STATE_COLUMNS), strict=True)
    states = {
        (asset_id, channel): ChannelState._make((*state, position))
        for channel, state in zip(row["channel"], columns, strict=True)
    }
    return HistoryRow(
        asset_id, row["version"], position, row["max_end_ns"], row["segment_start_ns"], states
    )


def _summary(asset_id: str, frame: asyncpg.Record) -> FrameSummary:
    return FrameSummary(asset_id, frame["position"], frame["window_end_ns"], frame["statistics"])


# --- queries ------------------------------------------------------------------------------


async def channels_at(ledger: Ledger, asset_id: str, position: int) -> dict[str, ChannelState]:
    """Return what the channels of an asset read as of `position`, by name.

    Raises
    ------
    Unavailable
        ``twin.history_behind`` while the projection has not caught up
    """
    stream = telemetry_stream(asset_id)
    version = await stream_version_at(ledger, stream, position)
    row = await _row_before(ledger, asset_id, version)
    after = 0 if row is None else row.version
    _check_unfolded(asset_id, version - after)
    states = {} if row is None else dict(row.states)
    async for frames in _frames(ledger.pool, ledger.ledger_id, stream, after, version):
        states = merged(states, channel_states([_summary(asset_id, frame) for frame in frames]))
    return _by_name(states)


async def channels_by(
    ledger: Ledger, asset_id: str, position: int, until_ns: int
) -> dict[str, ChannelState]:
    """Return what the channels of an asset read at `until_ns`, by all that `position` knew.

    Readings after that moment count as little as frames after that position.

    Raises
    ------
    Unavailable
        ``twin.history_behind`` while the projection has not caught up
    """
    stream = telemetry_stream(asset_id)
    version = await stream_version_at(ledger, stream, position)
    row = await _row_before(ledger, asset_id, version)
    _check_unfolded(asset_id, version - (0 if row is None else row.version))
    if row is not None and row.max_end_ns > until_ns:
        row = await _row_by(ledger, asset_id, until_ns)
    states = {} if row is None else dict(row.states)
    for after, up_to in await _stretches(ledger, asset_id, row, version, until_ns):
        pages = _frames(ledger.pool, ledger.ledger_id, stream, after, up_to, until_ns)
        async for frames in pages:
            states = await _with_frames(ledger, asset_id, states, frames, until_ns)
    return _by_name(states)


async def _with_frames(
    ledger: Ledger,
    asset_id: str,
    states: Mapping[Series, ChannelState],
    frames: Sequence[asyncpg.Record],
    until_ns: int,
) -> dict[Series, ChannelState]:
    """Return `states` after `frames`, of which some may go beyond `until_ns`."""
    states = dict(states)
    whole: list[FrameSummary] = []
    for frame in frames:
        if frame["window_end_ns"] <= until_ns:
            whole.append(_summary(asset_id, frame))
            continue
        states = merged(states, channel_states(whole))
        whole = []
        (event,) = await read_stream(
            ledger,
            telemetry_stream(asset_id),
            from_version=frame["version"],
            up_to_version=frame["version"],
        )
        if not event.erased:
            states = merged(states, states_until(event.frame, until_ns, event.position))
    return merged(states, channel_states(whole))


async def _row_before(ledger: Ledger, asset_id: str, version: int) -> HistoryRow | None:
    row = await ledger.pool.fetchrow(
        "select * from twin_history where ledger_id = $1 and asset_id = $2 and version <= $3 "
        "order by version desc limit 1",
        ledger.ledger_id,
        asset_id,
        version,
    )
    return None if row is None else _history_row(row)


async def _row_by(ledger: Ledger, asset_id: str, until_ns: int) -> HistoryRow | None:
    """Return the last row all of whose windows had ended by `until_ns`."""
    row = await ledger.pool.fetchrow(
        "select * from twin_history where ledger_id = $1 and asset_id = $2 and max_end_ns <= $3 "
        "order by max_end_ns desc, version desc limit 1",
        ledger.ledger_id,
        asset_id,
        until_ns,
    )
    return None if row is None else _history_row(row)


async def _stretches(
    ledger: Ledger, asset_id: str, row: HistoryRow | None, version: int, until_ns: int
) -> list[tuple[int, int]]:
    """Return the stretches (after, up to) of versions beyond `row` that may have begun in time."""
    rows = await ledger.pool.fetch(
        """
        select coalesce(before.version, 0) as after, held.version as up_to
        from twin_history held left join lateral (
            select version from twin_history earlier
            where earlier.ledger_id = $1 and earlier.asset_id = $2
                and earlier.version < held.version
            order by version desc limit 1
        ) before on true
        where held.ledger_id = $1 and held.asset_id = $2 and held.version > $3
            and held.version <= $4 and held.segment_start_ns <= $5
        order by held.version
        """,
        ledger.ledger_id,
        asset_id,
        0 if row is None else row.version,
        version,
        until_ns,
    )
    last = await ledger.pool.fetchval(
        "select max(version) from twin_history "
        "where ledger_id = $1 and asset_id = $2 and version <= $3",
        ledger.ledger_id,
        asset_id,
        version,
    )
    return [*((each["after"], each["up_to"]) for each in rows), (last or 0, version)]


async def _frames(
    pool: Pool, ledger_id: int, stream: str, after: int, up_to: int, begun_ns: int = 2**63 - 1
) -> AsyncIterator[list[asyncpg.Record]]:
    """Yield pages of the frames of `stream` beyond version `after`, begun by `begun_ns`."""
    while after < up_to:
        reached = min(up_to, after + PAGE_FRAMES)
        frames = await pool.fetch(
            f"""
            select {_FRAME_COLUMNS} from event
            where ledger_id = $1 and stream = $2 and version > $3 and version <= $4
                and window_start_ns <= $5 and {_HAS_STATISTICS}
            order by version
            """,
            ledger_id,
            stream,
            after,
            reached,
            begun_ns,
        )
        if frames:
            yield frames
        after = reached


def _check_unfolded(asset_id: str, frames: int) -> None:
    if frames > UNFOLDED_FRAMES_MAX:
        raise Unavailable(
            "twin.history_behind",
            f"{frames} frames of asset {asset_id!r} are not folded into its history yet",
            hint="ask again when the projection 'twin-history' has caught up",
            value=frames,
            limit=UNFOLDED_FRAMES_MAX,
        )


def _by_name(states: Mapping[Series, ChannelState]) -> dict[str, ChannelState]:
    return {channel: states[asset_id, channel] for asset_id, channel in sorted(states)}
