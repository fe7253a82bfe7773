"""The channels of twins: per channel the last GOOD reading and the latest window of its frames.

A batch of frames is looked at as columns, one row a frame and channel, and changes each
channel's row once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from domain.frame_statistics import (
    STATISTICS,
    TEXT_BYTES_KEPT,
    Records,
    TextStatistics,
    channel_names,
    unpack_statistics_many,
    unpack_texts,
)
from domain.frames import FloatArray, Frame, IntArray, Quality
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent

Series = tuple[str, str]
"""An asset and a channel of it."""


class ChannelState(NamedTuple):
    """What is known of a channel, SI; `position` is that of the latest of its frames.

    `value`, or `text` where the channel holds text, is the last GOOD reading, at `read_at_ns`;
    None while there has been none. What begins with ``window`` is of its latest window.
    """

    value: float | None
    text: str | None
    read_at_ns: int | None
    window_mean: float | None
    window_end_ns: int
    window_reading_count: int
    window_good_count: int
    position: int


@dataclass(frozen=True, slots=True)
class FrameSummary:
    """A frame as far as its row tells: `statistics` as they lie there, not empty."""

    asset_id: str
    position: int
    end_ns: int
    statistics: bytes


def summary_of(event: RecordedEvent) -> FrameSummary:
    """Return the summary of the frame that `event` holds."""
    window = event.window
    assert window is not None, "a frame has a window"
    asset_id = event.stream.partition(":")[2]
    return FrameSummary(asset_id, event.position, window.end_ns, window.statistics)


# --- fold ---------------------------------------------------------------------------------


async def fold_frames(
    connection: Connection, ledger_id: int, frames: Sequence[RecordedEvent]
) -> None:
    """Keep, per channel, the last GOOD reading and the latest window of `frames`."""
    rows = channel_states([summary_of(event) for event in frames])
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


def channel_states(frames: Sequence[FrameSummary]) -> dict[Series, ChannelState]:
    """Return what `frames`, in the log's order, say of each channel that they have."""
    statistics = _statistics(frames)
    return {**_numeric_states(frames, statistics), **_text_states(frames, statistics)}


def merged(
    held: Mapping[Series, ChannelState], newer: Mapping[Series, ChannelState]
) -> dict[Series, ChannelState]:
    """Return `held` after `newer`, which is of frames beyond them in the log; as `_STORE` does."""
    states = dict(held)
    for series, state in newer.items():
        before = states.get(series)
        states[series] = state if before is None else _after(before, state)
    return states


def _after(held: ChannelState, newer: ChannelState) -> ChannelState:
    read = newer.read_at_ns is not None and (
        held.read_at_ns is None or newer.read_at_ns >= held.read_at_ns
    )
    reading = newer if read else held
    window = newer if newer.window_end_ns >= held.window_end_ns else held
    return window._replace(
        value=reading.value,
        text=reading.text,
        read_at_ns=reading.read_at_ns,
        position=max(held.position, newer.position),
    )


def states_until(frame: Frame, until_ns: int, position: int) -> dict[Series, ChannelState]:
    """Return what the readings of `frame` up to `until_ns` say, as if it had ended there."""
    ends = [clock[clock <= until_ns] for clock in frame.clocks]
    end_ns = max((int(clock[-1]) for clock in ends if len(clock)), default=None)
    states: dict[Series, ChannelState] = {}
    for index, channel in enumerate(frame.header.channels):
        count = len(ends[channel.clock])
        if count and end_ns is not None:
            good = np.flatnonzero(frame.qualities[index][:count] == Quality.GOOD)
            at = int(good[-1]) if len(good) else None
            read_at_ns = None if at is None else int(frame.channel_times_ns(index)[at])
            value, text, mean = None, None, None
            if channel.is_text:
                text = None if at is None else _kept(frame.values[index][at])
            elif at is not None:
                si = frame.channel_si(index)
                value, mean = float(si[at]), float(si[good].sum() / len(good))
            states[frame.header.asset, channel.name] = ChannelState(
                value, text, read_at_ns, mean, end_ns, count, len(good), position
            )
    return states


def _kept(text: str) -> str:
    """Return as much of `text` as the statistics of a frame keep."""
    return text.encode()[:TEXT_BYTES_KEPT].decode(errors="ignore")


# --- statistics of frames -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Statistics:
    """What is known of a frame: its numeric channels with their `STATISTICS`, and its texts."""

    names: tuple[str, ...]
    records: Records
    has_text: bool


def _statistics(frames: Sequence[FrameSummary]) -> list[_Statistics]:
    """Return the statistics of each of `frames`, which lie in their rows."""
    packed = [frame.statistics for frame in frames]
    found: dict[int, _Statistics] = {}
    for stack in unpack_statistics_many(packed):
        has_text = len(channel_names(packed[stack.places[0]])) > len(stack.names)
        for place, records in zip(stack.places, stack.records, strict=True):
            found[place] = _Statistics(stack.names, records, has_text)
    return [found[place] for place in range(len(frames))]


# --- numbers ------------------------------------------------------------------------------


def _numeric_states(
    frames: Sequence[FrameSummary], statistics: Sequence[_Statistics]
) -> dict[Series, ChannelState]:
    """Return what the frames' numeric channels come to, as if merged in the log's order."""
    numbers: dict[Series, int] = {}
    series = np.array(_numbered(frames, statistics, numbers), np.int64)
    if not len(series):
        return {}
    lengths = [len(of_frame.names) for of_frame in statistics]
    # As bytes: NumPy compares the types of records field by field, for each array anew.
    records = np.frombuffer(
        b"".join([of_frame.records.tobytes() for of_frame in statistics]), STATISTICS
    )
    end_ns = np.repeat(np.array([frame.end_ns for frame in frames], np.int64), lengths)
    position = np.repeat(np.array([frame.position for frame in frames], np.int64), lengths)
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
    return dict(zip(numbers, map(ChannelState._make, columns), strict=True))


def _numbered(
    frames: Sequence[FrameSummary],
    statistics: Sequence[_Statistics],
    numbers: dict[Series, int],
) -> list[int]:
    """Return the number of each frame's channels, one after the other; new ones get the next."""
    series: list[int] = []
    of_asset: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for frame, of_frame in zip(frames, statistics, strict=True):
        key = (frame.asset_id, of_frame.names)
        if key not in of_asset:
            of_asset[key] = [
                numbers.setdefault((frame.asset_id, name), len(numbers)) for name in of_frame.names
            ]
        series += of_asset[key]
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


def _text_states(
    frames: Sequence[FrameSummary], statistics: Sequence[_Statistics]
) -> dict[Series, ChannelState]:
    states: dict[Series, ChannelState] = {}
    for frame, of_frame in zip(frames, statistics, strict=True):
        if of_frame.has_text:
            for name, text in unpack_texts(frame.statistics).items():
                series, state = (frame.asset_id, name), _text_state(text, frame)
                held = states.get(series)
                states[series] = state if held is None else _after(held, state)
    return states


def _text_state(text: TextStatistics, frame: FrameSummary) -> ChannelState:
    return ChannelState(
        value=None,
        text=text.last,
        read_at_ns=text.last_ns if text.good_count else None,
        window_mean=None,
        window_end_ns=frame.end_ns,
        window_reading_count=text.reading_count,
        window_good_count=text.good_count,
        position=frame.position,
    )
