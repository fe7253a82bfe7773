"""Readings over any range and zoom: raw frames where they are few, rollups where they are many.

The stored frames are the raw time series. Of readings of one channel with the same time, the one
at the highest position counts. Whatever the range, at most `points_max` points a channel come
back, chosen by MinMaxLTTB so that peaks stay visible; the lowest and the highest always stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
from tsdownsample import MinMaxLTTBDownsampler

from domain.asset import telemetry_stream
from domain.errors import InvalidInput
from domain.frames import ByteArray, FloatArray, IntArray, Quality
from eventlog.ledger import Ledger
from eventlog.reading import read_frames
from projections.rollups import read_extremes

POINTS_MAX: Final = 10_000
RAW_READINGS_MAX: Final = 2_000_000
ROLLUP_BUCKETS_MAX: Final = 200_000
FRAMES_PAGE: Final = 500
FRAMES_AT_ONCE: Final = 16
"""Frames decoded before others get their turn on the event loop."""

SECOND_NS: Final = 1_000_000_000

_DOWNSAMPLER = MinMaxLTTBDownsampler()  # type: ignore[no-untyped-call]


class Tier(StrEnum):
    """Where readings were read from: the sensor's own, or extremes of 1 s, 1 min or 1 h."""

    RAW = "RAW"
    SECOND = "SECOND"
    MINUTE = "MINUTE"
    HOUR = "HOUR"


@dataclass(frozen=True, slots=True)
class ReadingColumns:
    """Readings of one channel as parallel columns, in time order.

    Parameters
    ----------
    times_ns : int64, shape (n,), ns since 1970 UTC
    values : float64, shape (n,), SI
    qualities : uint8, shape (n,), `Quality`; GOOD throughout where a rollup was read
    reading_count : how many readings the range holds before thinning out
    """

    channel: str
    tier: Tier
    times_ns: IntArray
    values: FloatArray
    qualities: ByteArray
    reading_count: int


async def read_columns(
    ledger: Ledger,
    asset_id: str,
    channels: Sequence[str],
    *,
    start_ns: int,
    end_ns: int,
    points_max: int,
    with_bad: bool = False,
) -> list[ReadingColumns]:
    """Return the readings of `channels` from `start_ns` to `end_ns`, both included.

    Parameters
    ----------
    points_max : at most so many points a channel, 2 to `POINTS_MAX`
    with_bad : return BAD readings too (never MISSING ones); only where raw frames are read

    Raises
    ------
    InvalidInput
        ``readings.range`` when the range is empty, ``readings.points_max``
    """
    if start_ns > end_ns:
        raise InvalidInput(
            "readings.range",
            f"the range ends at {end_ns} ns, before it starts at {start_ns} ns",
            value=end_ns,
            limit=start_ns,
        )
    if not 2 <= points_max <= POINTS_MAX:
        raise InvalidInput(
            "readings.points_max",
            f"maxPoints is 2 to {POINTS_MAX}, not {points_max}",
            value=points_max,
            limit=POINTS_MAX,
        )
    row = await ledger.pool.fetchrow(
        """
        select coalesce(sum(reading_count), 0)::bigint as readings,
            min(window_start_ns) as earliest, max(window_end_ns) as latest
        from event
        where ledger_id = $1 and stream = $2 and window_end_ns is not null
            and window_end_ns >= $3 and window_start_ns <= $4
        """,
        ledger.ledger_id,
        telemetry_stream(asset_id),
        start_ns,
        end_ns,
    )
    assert row is not None, "an aggregate has one row"
    if row["readings"] <= RAW_READINGS_MAX:
        columns = await _read_raw(ledger, asset_id, channels, start_ns, end_ns, with_bad=with_bad)
    else:
        start_ns, end_ns = max(start_ns, row["earliest"]), min(end_ns, row["latest"])
        columns = await _read_rollup(ledger, asset_id, channels, start_ns, end_ns)
    return [_thinned(column, points_max) for column in columns]


# --- raw ----------------------------------------------------------------------------------


async def _read_raw(
    ledger: Ledger,
    asset_id: str,
    channels: Sequence[str],
    start_ns: int,
    end_ns: int,
    *,
    with_bad: bool,
) -> list[ReadingColumns]:
    parts: dict[str, list[_Part]] = {channel: [] for channel in channels}
    stream = telemetry_stream(asset_id)
    after = (-(2**63), 0)
    while frames := await read_frames(
        ledger, stream, start_ns=start_ns, end_ns=end_ns, limit=FRAMES_PAGE, after=after
    ):
        after = (frames[-1].frame.window_end_ns, frames[-1].position)
        for number, event in enumerate(frames):
            if number % FRAMES_AT_ONCE == 0:
                await asyncio.sleep(0)
            for index, header in enumerate(event.frame.header.channels):
                if header.name in parts:
                    parts[header.name].append(
                        _Part(
                            event.position,
                            event.frame.channel_times_ns(index),
                            event.frame.channel_si(index),
                            event.frame.qualities[index],
                        )
                    )
    return [
        _joined(channel, parts[channel], start_ns, end_ns, with_bad=with_bad)
        for channel in channels
    ]


@dataclass(frozen=True, slots=True)
class _Part:
    position: int
    times_ns: IntArray
    values: FloatArray
    qualities: ByteArray


def _joined(
    channel: str, parts: Sequence[_Part], start_ns: int, end_ns: int, *, with_bad: bool
) -> ReadingColumns:
    if not parts:
        return _empty(channel, Tier.RAW)
    times = np.concatenate([part.times_ns for part in parts])
    values = np.concatenate([part.values for part in parts])
    qualities = np.concatenate([part.qualities for part in parts])
    positions = np.repeat([part.position for part in parts], [len(p.times_ns) for p in parts])
    order = np.lexsort((positions, times))
    times, values, qualities = times[order], values[order], qualities[order]
    latest = np.append(times[1:] != times[:-1], True)
    worst = Quality.BAD if with_bad else Quality.UNCERTAIN
    wanted = latest & (times >= start_ns) & (times <= end_ns) & (qualities <= worst)
    times, values, qualities = times[wanted], values[wanted], qualities[wanted]
    return ReadingColumns(channel, Tier.RAW, times, values, qualities, len(times))


# --- rollups ------------------------------------------------------------------------------


async def _read_rollup(
    ledger: Ledger, asset_id: str, channels: Sequence[str], start_ns: int, end_ns: int
) -> list[ReadingColumns]:
    span_s = (end_ns - start_ns) // SECOND_NS
    tier, resolution_s = next(
        (
            (tier, resolution_s)
            for tier, resolution_s in ((Tier.SECOND, 1), (Tier.MINUTE, 60))
            if span_s / resolution_s <= ROLLUP_BUCKETS_MAX
        ),
        (Tier.HOUR, 3600),
    )
    columns = []
    for channel in channels:
        found = await read_extremes(
            ledger,
            asset_id,
            channel,
            resolution_s,
            start_ns // SECOND_NS // resolution_s * resolution_s,
            end_ns // SECOND_NS,
        )
        starts = found.start_s * SECOND_NS
        # Two points a bucket, its extremes, a quarter and three quarters into it.
        quarter = resolution_s * SECOND_NS // 4
        times = np.stack((starts + quarter, starts + 3 * quarter), axis=1).ravel()
        extremes = np.stack((found.min, found.max), axis=1).ravel()
        readings = int(found.reading_count.sum())
        qualities = np.zeros(len(times), np.uint8)
        columns.append(ReadingColumns(channel, tier, times, extremes, qualities, readings))
    return columns


# --- thinning out -------------------------------------------------------------------------


def _thinned(columns: ReadingColumns, points_max: int) -> ReadingColumns:
    if len(columns.times_ns) <= points_max:
        return columns
    values = np.ascontiguousarray(columns.values)
    # LTTB passes over single peaks; the extremes of the whole range are kept whatever it says.
    chosen = np.array([values.argmin(), values.argmax(), 0, len(values) - 1][:points_max])
    if points_max > len(chosen):
        picked: npt.NDArray[np.uint64] = _DOWNSAMPLER.downsample(
            columns.times_ns, values, n_out=points_max - 2
        )
        chosen = np.append(picked.astype(np.int64), chosen[:2])
    chosen = np.unique(chosen)
    return ReadingColumns(
        columns.channel,
        columns.tier,
        columns.times_ns[chosen],
        columns.values[chosen],
        columns.qualities[chosen],
        columns.reading_count,
    )


def _empty(channel: str, tier: Tier) -> ReadingColumns:
    return ReadingColumns(
        channel, tier, np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.uint8), 0
    )
