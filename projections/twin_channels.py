"""The channels of twins: per channel the last GOOD reading and the latest window of its frames.

A batch of frames is looked at as columns, one row a frame and channel, and changes each
channel's row once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from domain.frame_statistics import (
    Records,
    TextStatistics,
    channel_names,
    unpack_statistics_many,
    unpack_texts,
)
from domain.frames import FloatArray, IntArray
from eventlog.database import Connection
from eventlog.envelope import FrameWindow, RecordedEvent

Series = tuple[str, str]
"""An asset and a channel of it."""


async def fold_frames(
    connection: Connection, ledger_id: int, frames: Sequence[RecordedEvent]
) -> None:
    """Keep, per channel, the last GOOD reading and the latest window of `frames`."""
    statistics = _statistics(frames)
    rows = {**_numeric_rows(frames, statistics), **_text_rows(frames, statistics)}
    if not rows:
        return
    # Sorted, so that two processes that fold at once lock rows in one order.
    keys = sorted(rows)
    await connection.execute(
        _STORE,
        ledger_id,
        [asset_id for asset_id, _ in keys],
        [channel for _, channel in keys],
        *map(list, zip(*(rows[key] for key in keys), strict=True)),
    )


_STORE: Final = """
    insert into twin_channel as held (ledger_id, asset_id, channel, value, text, read_at_ns,
        window_mean, window_end_ns, window_reading_count, window_good_count, position)
    select $1, * from unnest($2::text[], $3::text[], $4::float8[], $5::text[], $6::bigint[],
        $7::float8[], $8::bigint[], $9::integer[], $10::integer[], $11::bigint[])
    on conflict (ledger_id, asset_id, channel) do update set
        value = case when excluded.read_at_ns >= coalesce(held.read_at_ns, excluded.read_at_ns)
            then excluded.value else held.value end,
        text = case when excluded.read_at_ns >= coalesce(held.read_at_ns, excluded.read_at_ns)
            then excluded.text else held.text end,
        read_at_ns = greatest(excluded.read_at_ns, held.read_at_ns),
        window_mean = case when excluded.window_end_ns >= held.window_end_ns
            then excluded.window_mean else held.window_mean end,
        window_reading_count = case when excluded.window_end_ns >= held.window_end_ns
            then excluded.window_reading_count else held.window_reading_count end,
        window_good_count = case when excluded.window_end_ns >= held.window_end_ns
            then excluded.window_good_count else held.window_good_count end,
        window_end_ns = greatest(excluded.window_end_ns, held.window_end_ns),
        position = greatest(excluded.position, held.position)
"""

_Row = tuple[
    float | None, str | None, int | None, float | None, int, int, int, int
]  # value, text, read_at_ns, window_mean, window_end_ns, reading_count, good_count, position


# --- statistics of frames -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Statistics:
    """What is known of a frame: its numeric channels with their `STATISTICS`, and its texts."""

    names: tuple[str, ...]
    records: Records
    has_text: bool


def _statistics(frames: Sequence[RecordedEvent]) -> list[_Statistics]:
    """Return the statistics of each of `frames`, which lie in their rows."""
    packed = [_window(event).statistics for event in frames]
    found: dict[int, _Statistics] = {}
    for stack in unpack_statistics_many(packed):
        has_text = len(channel_names(packed[stack.places[0]])) > len(stack.names)
        for place, records in zip(stack.places, stack.records, strict=True):
            found[place] = _Statistics(stack.names, records, has_text)
    return [found[place] for place in range(len(frames))]


def _window(event: RecordedEvent) -> FrameWindow:
    window = event.window
    assert window is not None, "a frame has a window"
    return window


# --- numbers ------------------------------------------------------------------------------


def _numeric_rows(
    frames: Sequence[RecordedEvent], statistics: Sequence[_Statistics]
) -> dict[Series, _Row]:
    """Return what the frames' numeric channels come to, as if merged in the log's order."""
    numbers: dict[Series, int] = {}
    series = np.array(_numbered(frames, statistics, numbers), np.int64)
    if not len(series):
        return {}
    lengths = [len(of_frame.names) for of_frame in statistics]
    records = np.concatenate([of_frame.records for of_frame in statistics])
    end_ns = np.repeat(np.array([_window(event).end_ns for event in frames], np.int64), lengths)
    position = np.repeat(np.array([event.position for event in frames], np.int64), lengths)
    good_count = records["good_count"].astype(np.int64)
    good = np.flatnonzero(good_count)
    read = np.full(len(numbers), -1)
    latest = good[_latest(series[good], records["last_ns"][good])]
    read[series[latest]] = latest
    window = _latest(series, end_ns)
    window_good = good_count[window]
    newest = position[_latest(series, position)]
    columns = zip(
        _or_none(records["last"][read], read >= 0),
        [None] * len(numbers),
        _or_none(records["last_ns"][read], read >= 0),
        _or_none(records["sum"][window] / np.maximum(window_good, 1), window_good > 0),
        end_ns[window].tolist(),
        records["reading_count"][window].tolist(),
        window_good.tolist(),
        newest.tolist(),
        strict=True,
    )
    return dict(zip(numbers, columns, strict=True))


def _numbered(
    frames: Sequence[RecordedEvent],
    statistics: Sequence[_Statistics],
    numbers: dict[Series, int],
) -> list[int]:
    """Return the number of each frame's channels, one after the other; new ones get the next."""
    series: list[int] = []
    of_stream: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for event, of_frame in zip(frames, statistics, strict=True):
        key = (event.stream, of_frame.names)
        if key not in of_stream:
            asset_id = event.stream.partition(":")[2]
            of_stream[key] = [
                numbers.setdefault((asset_id, name), len(numbers)) for name in of_frame.names
            ]
        series += of_stream[key]
    return series


def _latest(series: IntArray, times_ns: IntArray) -> IntArray:
    """Return for each series, ascending, the row of its latest time; the last one of several."""
    order = np.lexsort((times_ns, series))  # stable: rows of one time stay in the log's order
    rows: IntArray = order[np.diff(series[order], append=-1) != 0]
    return rows


def _or_none(
    values: FloatArray | IntArray, known: npt.NDArray[np.bool_]
) -> list[float | int | None]:
    return [
        value if here else None for value, here in zip(values.tolist(), known.tolist(), strict=True)
    ]


# --- texts --------------------------------------------------------------------------------


def _text_rows(
    frames: Sequence[RecordedEvent], statistics: Sequence[_Statistics]
) -> dict[Series, _Row]:
    rows: dict[Series, _Row] = {}
    for event, of_frame in zip(frames, statistics, strict=True):
        if of_frame.has_text:
            asset_id = event.stream.partition(":")[2]
            for name, text in unpack_texts(_window(event).statistics).items():
                key = (asset_id, name)
                rows[key] = _with_text(rows.get(key), text, event)
    return rows


def _with_text(held: _Row | None, text: TextStatistics, event: RecordedEvent) -> _Row:
    """Return the row `held` after one more frame of a channel that holds text."""
    end_ns, last, last_ns = _window(event).end_ns, text.last, text.last_ns
    counts = (text.reading_count, text.good_count)
    if held is None:
        read = (last, last_ns) if text.good_count else (None, None)
        return (None, *read, None, end_ns, *counts, event.position)
    _, held_text, held_ns, _, held_end_ns, *held_counts, _ = held
    newer = bool(text.good_count) and (held_ns is None or last_ns >= held_ns)
    later = end_ns >= held_end_ns
    return (
        None,
        last if newer else held_text,
        last_ns if newer else held_ns,
        None,
        max(end_ns, held_end_ns),
        counts[0] if later else held_counts[0],
        counts[1] if later else held_counts[1],
        event.position,
    )
