"""Rollups: count, extremes, sums, first and last of GOOD readings by minute and by hour.

Of readings of one channel with the same time, the one at the highest position counts, as in the
raw series; where it is not GOOD, that time has no reading. A row says the same however events
were cut into batches, bit by bit:

* a minute is merged from the frames that reach into it, in the order of the log, each without
  the readings that a later frame has replaced. A frame that overlaps none before it is added to
  what is stored; where frames overlap, the minutes concerned are made anew from the log;
* an hour is its minutes added up in the order of time.

Seconds are not stored: at one reading a second they would be the readings once more, at three
times the bytes of the log. `projections.telemetry.readings` makes them from frames when they are
asked for. The view ``telemetry_rollup`` shows minutes and hours; docs/projections.md documents it.

Beside this file: `buckets` computes, `frame_readings` says what of a frame counts, `overlaps` finds
frames that meet, `rollup_rows` writes and reads rows, `rollup_columns` answers questions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

import numpy as np

from domain.asset import telemetry_stream
from domain.events import FRAME_RECORDED
from domain.frames import Frame, IntArray
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf, read_frames
from projections.telemetry.buckets import (
    HOUR_NS,
    MINUTE_NS,
    MINUTES_AN_HOUR,
    Buckets,
    Hours,
    hours_of,
    later_hours,
    merged,
)
from projections.telemetry.frame_readings import (
    SeriesKey,
    decoded_frames,
    decoded_together,
    minutes_of,
    series_key,
    superseded_readings,
)
from projections.telemetry.overlaps import Range, Span, Window, find_overlaps, joined_ranges
from projections.telemetry.rollup_rows import (
    CONTENTS,
    delete_hours,
    delete_minutes,
    insert_hours,
    insert_minutes,
    minutes_of_hours,
    stored_hours,
    stored_minutes,
    update_hours,
    update_minutes,
)

FRAMES_AT_ONCE: Final = 64
"""Frames that are rolled up before others get their turn on the event loop."""

READINGS_AT_ONCE: Final = 1_000_000
"""Readings, at most, of the frames from which minutes are made anew, unless it is one minute."""

FRAMES_PAGE: Final = 500


class RollupProjection:
    """Folds frames into the rollup tables."""

    name: ClassVar[str] = "rollups"
    version: ClassVar[int] = 2
    types: ClassVar[tuple[str, ...] | None] = (FRAME_RECORDED,)
    payloads: ClassVar[PayloadOf] = PayloadOf.ALL
    tables: ClassVar[tuple[str, ...]] = ("rollup_series", "rollup_minute", "rollup_hour")
    contents: ClassVar[Mapping[str, str]] = CONTENTS

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Merge the frames of `events` into the rows."""
        if not events:
            return
        batch = await _Batch.of(events)
        series = await _load_series(connection, ledger.ledger_id, batch.keys)
        overlaps = await find_overlaps(
            connection,
            ledger.ledger_id,
            {key: known.span for key, known in series.items()},
            batch.windows,
            events[0].position,
        )
        dirty = {
            asset_id: joined_ranges([(a // MINUTE_NS, b // MINUTE_NS) for a, b in ranges])
            for asset_id, ranges in overlaps.items()
        }
        stale: list[tuple[int, int]] = []
        for channel_count, parts in batch.parts.items():
            minutes = _clean(batch.numbered(parts, series), series, dirty)
            stale += await _fold_minutes(connection, series, minutes, channel_count)
        await _store_series(connection, series, batch.windows)
        for asset_id, ranges in dirty.items():
            known = {key: held.number for key, held in series.items() if key.asset_id == asset_id}
            for first, last in ranges:
                await _remake_minutes(connection, ledger, known, first, last, events[-1].position)
                stale += [
                    (number, hour)
                    for number in known.values()
                    for hour in range(first // MINUTES_AN_HOUR, last // MINUTES_AN_HOUR + 1)
                ]
        await _remake_hours(connection, series, stale)


# --- a batch ------------------------------------------------------------------------------


@dataclass(slots=True)
class _Batch:
    """The frames of a batch: their windows, and their minutes by the number of channels.

    Series are numbered as they come; `keys` gives what each number stands for.
    """

    keys: list[SeriesKey] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    parts: dict[int, list[Buckets]] = field(default_factory=dict)

    @classmethod
    async def of(cls, events: Sequence[RecordedEvent]) -> _Batch:
        batch = cls()
        numbers: dict[SeriesKey, int] = {}
        for at in range(0, len(events), FRAMES_AT_ONCE):
            await asyncio.sleep(0)
            some = events[at : at + FRAMES_AT_ONCE]
            decoded = [event.frame for event in some if not event.erased]
            for frames in decoded_together(decoded):
                keys = [series_key(frame.header) for frame in frames]
                series = [numbers.setdefault(key, len(numbers)) for key in keys]
                batch.windows += [
                    Window(key, frame.window_start_ns, frame.window_end_ns)
                    for key, frame in zip(keys, frames, strict=True)
                ]
                for channel_count, minutes in minutes_of(frames, series).items():
                    batch.parts.setdefault(channel_count, []).append(minutes)
        batch.keys = list(numbers)
        return batch

    def numbered(self, parts: Sequence[Buckets], series: Mapping[SeriesKey, _Series]) -> Buckets:
        """Return all of `parts` with the series numbered as they are stored."""
        joined = Buckets.joined(parts)
        numbers = np.array([series[key].number for key in self.keys], np.int64)
        joined.series[:] = numbers[joined.series]
        return joined


def _clean(
    minutes: Buckets, series: Mapping[SeriesKey, _Series], dirty: Mapping[str, Sequence[Range]]
) -> Buckets:
    """Return `minutes` without those that are to be made anew."""
    kept = np.ones(len(minutes), np.bool_)
    for key, known in series.items():
        for first, last in dirty.get(key.asset_id, ()):
            kept &= (
                (minutes.series != known.number)
                | (minutes.bucket < first)
                | (minutes.bucket > last)
            )
    return minutes if kept.all() else minutes.take(kept)


# --- series -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Series:
    """A series as stored, and what is known of its frames before this batch."""

    number: int
    span: Span


async def _load_series(
    connection: Connection, ledger_id: int, keys: Sequence[SeriesKey]
) -> dict[SeriesKey, _Series]:
    """Return every series of the assets of `keys`; those that are new are stored now."""
    rows = await connection.fetch(
        """
        select series_id, asset_id, channels, start_ns, end_ns, longest_ns from rollup_series
        where ledger_id = $1 and asset_id = any($2) order by series_id
        """,
        ledger_id,
        list(dict.fromkeys(key.asset_id for key in keys)),
    )
    series = {
        SeriesKey(row["asset_id"], tuple(row["channels"])): _Series(
            row["series_id"], Span(row["start_ns"], row["end_ns"], row["longest_ns"])
        )
        for row in rows
    }
    for key in keys:
        if key not in series:
            span = Span()
            number = await connection.fetchval(
                """
                insert into rollup_series
                    (ledger_id, asset_id, channels, start_ns, end_ns, longest_ns)
                values ($1, $2, $3, $4, $5, $6) returning series_id
                """,
                ledger_id,
                key.asset_id,
                list(key.channels),
                span.start_ns,
                span.end_ns,
                span.longest_ns,
            )
            series[key] = _Series(number, span)
    return series


async def _store_series(
    connection: Connection, series: Mapping[SeriesKey, _Series], windows: Sequence[Window]
) -> None:
    for window in windows:
        series[window.key].span.extend(window)
    changed = [series[key] for key in dict.fromkeys(window.key for window in windows)]
    await connection.execute(
        """
        update rollup_series held set start_ns = now.start_ns, end_ns = now.end_ns,
            longest_ns = now.longest_ns
        from unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[])
            as now(series_id, start_ns, end_ns, longest_ns)
        where held.series_id = now.series_id
        """,
        [known.number for known in changed],
        [known.span.start_ns for known in changed],
        [known.span.end_ns for known in changed],
        [known.span.longest_ns for known in changed],
    )


# --- frames that overlap none ---------------------------------------------------------------


async def _fold_minutes(
    connection: Connection,
    series: Mapping[SeriesKey, _Series],
    parts: Buckets,
    channel_count: int,
) -> list[tuple[int, int]]:
    """Merge `parts` into minutes and hours; return the hours that have to be made anew."""
    added = merged(parts)
    if len(added) == 0:
        return []
    # Beyond the latest reading of its series nothing is stored yet.
    latest = {known.number: known.span.end_ns for known in series.values()}
    ends_ns = np.array([latest[number] for number in added.series.tolist()], np.int64)
    maybe = added.bucket <= ends_ns // MINUTE_NS
    held = await stored_minutes(connection, added.series[maybe], added.bucket[maybe], channel_count)
    # What is stored comes first: it was merged from earlier positions.
    minutes = merged(Buckets.joined([held, parts])) if len(held) else added
    known = _is_among(minutes, held)
    await update_minutes(connection, minutes.take(known))
    await insert_minutes(connection, [minutes.take(~known)])
    hour = minutes.bucket // MINUTES_AN_HOUR
    maybe_hours = hour <= ends_ns // HOUR_NS
    asked = np.unique(np.stack((minutes.series[maybe_hours], hour[maybe_hours])), axis=1)
    before = await stored_hours(connection, asked[0], asked[1], channel_count)
    hours, late = later_hours(before, minutes, added.reading_count)
    known = _is_among(hours.buckets, before.buckets)
    await update_hours(connection, hours.take(known & ~late))
    await insert_hours(connection, [hours.take(~known)])
    stale = hours.buckets.take(late)
    return list(zip(stale.series.tolist(), stale.bucket.tolist(), strict=True))


def _is_among(buckets: Buckets, others: Buckets) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    keys = set(zip(others.series.tolist(), others.bucket.tolist(), strict=True))
    return np.array(
        [key in keys for key in zip(buckets.series.tolist(), buckets.bucket.tolist(), strict=True)],
        np.bool_,
    )


# --- frames that do -------------------------------------------------------------------------


async def _remake_minutes(
    connection: Connection,
    ledger: Ledger,
    series: Mapping[SeriesKey, int],
    first: int,
    last: int,
    up_to: int,
) -> None:
    """Make the minutes `first` to `last` of an asset from its frames up to position `up_to`."""
    asset_id = next(iter(series)).asset_id
    readings = await connection.fetchval(
        """
        select coalesce(sum(reading_count), 0)::bigint from event
        where ledger_id = $1 and stream = $2 and window_end_ns is not null
            and window_end_ns >= $3 and window_start_ns < $4 and position <= $5
        """,
        ledger.ledger_id,
        telemetry_stream(asset_id),
        first * MINUTE_NS,
        (last + 1) * MINUTE_NS,
        up_to,
    )
    if readings > READINGS_AT_ONCE and first < last:
        middle = (first + last) // 2
        await _remake_minutes(connection, ledger, series, first, middle, up_to)
        await _remake_minutes(connection, ledger, series, middle + 1, last, up_to)
        return
    events = await _frames_between(
        ledger, asset_id, first * MINUTE_NS, (last + 1) * MINUTE_NS - 1, up_to
    )
    present = [event for event in events if not event.erased]
    decoded: list[Frame] = []
    for at in range(0, len(present), FRAMES_AT_ONCE):
        await asyncio.sleep(0)
        decoded += decoded_frames(present[at : at + FRAMES_AT_ONCE], remember=False)
    frames = [frame for frame in decoded if series_key(frame.header).channels]
    superseded = superseded_readings(frames)
    parts: dict[int, list[Buckets]] = {}
    for at in range(0, len(frames), FRAMES_AT_ONCE):
        await asyncio.sleep(0)
        some = frames[at : at + FRAMES_AT_ONCE]
        numbers = [series[series_key(frame.header)] for frame in some]
        found = minutes_of(some, numbers, superseded[at : at + FRAMES_AT_ONCE])
        for channel_count, minutes in found.items():
            wanted = (minutes.bucket >= first) & (minutes.bucket <= last)
            parts.setdefault(channel_count, []).append(minutes.take(wanted))
    await delete_minutes(connection, list(series.values()), first, last)
    await insert_minutes(connection, [merged(Buckets.joined(part)) for part in parts.values()])


async def _frames_between(
    ledger: Ledger, asset_id: str, start_ns: int, end_ns: int, up_to: int
) -> list[RecordedEvent]:
    """Return the asset's frames with readings in the range, in the order of the log."""
    found: list[RecordedEvent] = []
    after = (-(2**63), 0)
    while page := await read_frames(
        ledger,
        telemetry_stream(asset_id),
        start_ns=start_ns,
        end_ns=end_ns,
        limit=FRAMES_PAGE,
        after=after,
    ):
        found += [event for event in page if event.position <= up_to]
        assert page[-1].window is not None, "a frame has a window"
        after = (page[-1].window.end_ns, page[-1].position)
    return sorted(found, key=lambda event: event.position)


async def _remake_hours(
    connection: Connection, series: Mapping[SeriesKey, _Series], stale: Sequence[tuple[int, int]]
) -> None:
    """Make hours, as (series, hour), from the minutes that are stored."""
    widths = {known.number: len(key.channels) for key, known in series.items()}
    by_width: dict[int, list[tuple[int, int]]] = {}
    for number, hour in sorted(set(stale)):
        by_width.setdefault(widths[number], []).append((number, hour))
    for channel_count, hours in by_width.items():
        keys: IntArray = np.array(hours, np.int64)
        minutes = await minutes_of_hours(connection, keys[:, 0], keys[:, 1], channel_count)
        await delete_hours(connection, keys[:, 0], keys[:, 1])
        made: list[Hours] = [hours_of(minutes)] if len(minutes) else []
        await insert_hours(connection, made)
