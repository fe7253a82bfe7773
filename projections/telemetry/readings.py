"""Readings over any range and zoom: raw frames where they are few, rollups where they are many.

The stored frames are the raw time series. Of readings of one channel with the same time, the one
at the highest position counts. Whatever the range, at most `points_max` points a channel come
back, chosen by MinMaxLTTB so that peaks stay visible; the lowest and the highest always stay.

Extremes by second are made from frames, piece by piece; those by minute and hour are stored.
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
from domain.frame_stacks import stacked
from domain.frames import ByteArray, Column, FloatArray, Frame, IntArray, Quality
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import read_frames
from projections.telemetry.buckets import SECOND_NS
from projections.telemetry.frame_readings import decoded_frames, decoded_together, series_key
from projections.telemetry.rollup_columns import HOUR_S, MINUTE_S, read_rollups
from projections.telemetry.texts import TextParts, Texts

POINTS_MAX: Final = 10_000
RAW_READINGS_MAX: Final = 2_000_000
"""Stored readings, of all channels, that a range may hold and still be read raw."""

SECOND_READINGS_MAX: Final = 20_000_000
"""The same for extremes by second, which are made from frames."""

PIECE_READINGS: Final = 1_000_000
"""About so many readings of a range are held at a time while seconds are made."""

ROLLUP_BUCKETS_MAX: Final = 200_000
FRAMES_PAGE: Final = 500
FRAMES_AT_ONCE: Final = 64
"""Frames decoded before others get their turn on the event loop."""

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
    texts : objects, shape (n,), in place of `values`, which are none then; only where raw frames
        are read
    """

    channel: str
    tier: Tier
    times_ns: IntArray
    values: FloatArray
    qualities: ByteArray
    reading_count: int
    texts: Column | None = None


@dataclass(frozen=True, slots=True)
class LastValues:
    """The last GOOD reading of every channel that has one, as parallel columns.

    Parameters
    ----------
    asset_ids, channels : sorted by asset, then by channel
    times_ns : int64, shape (n,), ns since 1970 UTC
    values : float64, shape (n,), SI
    """

    asset_ids: tuple[str, ...]
    channels: tuple[str, ...]
    times_ns: IntArray
    values: FloatArray


async def read_last_values(ledger: Ledger, asset_ids: Sequence[str] | None = None) -> LastValues:
    """Return the last GOOD reading of every channel of `asset_ids`; None for all assets."""
    # Arrays, made by PostgreSQL: a row each would cost more than the question.
    row = await ledger.pool.fetchrow(
        """
        select array_agg(asset_id) as asset_ids, array_agg(channel) as channels,
            array_agg(read_at_ns) as times_ns, array_agg(value) as values
        from (
            select asset_id, channel, read_at_ns, value from twin_channel
            where ledger_id = $1 and value is not null
                and ($2::text[] is null or asset_id = any($2))
            order by asset_id, channel
        ) last
        """,
        ledger.ledger_id,
        None if asset_ids is None else list(asset_ids),
    )
    assert row is not None, "an aggregate has one row"
    return LastValues(
        tuple(row["asset_ids"] or ()),
        tuple(row["channels"] or ()),
        np.array(row["times_ns"] or (), np.int64),
        np.array(row["values"] or (), np.float64),
    )


async def read_columns(
    ledger: Ledger,
    asset_id: str,
    channels: Sequence[str],
    *,
    start_ns: int,
    end_ns: int,
    points_max: int,
    with_bad: bool = False,
    known_at: int | None = None,
) -> list[ReadingColumns]:
    """Return the readings of `channels` from `start_ns` to `end_ns`, both included.

    Parameters
    ----------
    points_max : at most so many points a channel, 2 to `POINTS_MAX`
    with_bad : return BAD readings too (never MISSING ones); only where raw frames are read
    known_at : only what was known at this position; None: all. Stored rollups know but one
        present, so that a range has to be short enough to be read from frames

    Raises
    ------
    InvalidInput
        ``readings.range`` when the range is empty, ``readings.points_max``;
        ``readings.too_many``, with `known_at` alone
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
            and ($5::bigint is null or position <= $5)
        """,
        ledger.ledger_id,
        telemetry_stream(asset_id),
        start_ns,
        end_ns,
        known_at,
    )
    assert row is not None, "an aggregate has one row"
    readings = row["readings"]
    if readings <= RAW_READINGS_MAX:
        columns = await read_raw(
            ledger,
            asset_id,
            channels,
            start_ns=start_ns,
            end_ns=end_ns,
            with_bad=with_bad,
            known_at=known_at,
        )
        return [_thinned(column, points_max) for column in columns]
    start_ns, end_ns = max(start_ns, row["earliest"]), min(end_ns, row["latest"])
    seconds = (end_ns - start_ns) // SECOND_NS
    if readings <= SECOND_READINGS_MAX and seconds <= ROLLUP_BUCKETS_MAX:
        columns = await _read_seconds(
            ledger, asset_id, channels, start_ns, end_ns, readings, known_at
        )
    elif known_at is not None:
        raise _too_many(asset_id, readings, SECOND_READINGS_MAX)
    else:
        tier = Tier.MINUTE if seconds // MINUTE_S <= ROLLUP_BUCKETS_MAX else Tier.HOUR
        columns = await _read_rollups(ledger, asset_id, channels, tier, start_ns, end_ns)
    return [_thinned(column, points_max) for column in columns]


# --- raw ----------------------------------------------------------------------------------


async def read_raw(
    ledger: Ledger,
    asset_id: str,
    channels: Sequence[str],
    *,
    start_ns: int,
    end_ns: int,
    with_bad: bool = False,
    known_at: int | None = None,
) -> list[ReadingColumns]:
    """Return every reading of `channels` from `start_ns` to `end_ns`, both included.

    Parameters
    ----------
    with_bad : return BAD readings too (never MISSING ones)
    known_at : only what was known at this position; None: all

    Raises
    ------
    InvalidInput
        ``readings.too_many`` when the frames of the range hold more than `RAW_READINGS_MAX`
        readings of all channels
    """
    return await _read(
        ledger,
        asset_id,
        channels,
        start_ns,
        end_ns,
        RAW_READINGS_MAX,
        with_bad=with_bad,
        known_at=known_at,
    )


async def _read(
    ledger: Ledger,
    asset_id: str,
    channels: Sequence[str],
    start_ns: int,
    end_ns: int,
    readings_max: int,
    *,
    with_bad: bool,
    known_at: int | None,
) -> list[ReadingColumns]:
    parts: dict[str, list[_Part]] = {channel: [] for channel in channels}
    text_parts = TextParts(channels)
    stream = telemetry_stream(asset_id)
    after = (-(2**63), 0)
    readings = 0
    while frames := await read_frames(
        ledger, stream, start_ns=start_ns, end_ns=end_ns, limit=FRAMES_PAGE, after=after
    ):
        assert frames[-1].window is not None, "a frame has a window"
        after = (frames[-1].window.end_ns, frames[-1].position)
        # A long range does not push out of memory what was just recorded.
        few = readings == 0 and len(frames) < FRAMES_PAGE
        present = [
            event
            for event in frames
            if not event.erased and (known_at is None or event.position <= known_at)
        ]
        readings += sum(event.window.reading_count for event in present if event.window)
        if readings > readings_max:
            raise _too_many(asset_id, readings, readings_max)
        for at in range(0, len(present), FRAMES_AT_ONCE):
            await asyncio.sleep(0)
            some = present[at : at + FRAMES_AT_ONCE]
            decoded = decoded_frames(some, remember=few)
            _add_parts(parts, decoded, some)
            text_parts.add(decoded, some)
    columns = []
    for channel in channels:
        texts = text_parts.joined(channel, start_ns, end_ns, with_bad=with_bad)
        columns.append(
            _joined(channel, parts[channel], start_ns, end_ns, with_bad=with_bad)
            if texts is None or parts[channel]
            else _of_texts(channel, texts, len(texts))
        )
    return columns


def _of_texts(channel: str, texts: Texts, reading_count: int) -> ReadingColumns:
    return ReadingColumns(
        channel,
        Tier.RAW,
        texts.times_ns,
        np.zeros(0),
        texts.qualities,
        reading_count,
        texts.texts,
    )


def _too_many(asset_id: str, readings: int, limit: int) -> InvalidInput:
    return InvalidInput(
        "readings.too_many",
        f"the range holds more than {limit} readings of {asset_id}",
        hint="ask for a shorter range",
        value=readings,
        limit=limit,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Readings of a channel from frames of equal length: positions (n_frames,), the rest 2-D."""

    positions: IntArray
    times_ns: IntArray
    values: FloatArray
    qualities: ByteArray | None


def _add_parts(
    parts: dict[str, list[_Part]], frames: Sequence[Frame], events: Sequence[RecordedEvent]
) -> None:
    numeric = [n for n, frame in enumerate(frames) if series_key(frame.header).channels]
    positions = np.array([events[n].position for n in numeric], np.int64)
    at = 0
    for piece in decoded_together([frames[n] for n in numeric]):
        for stack in stacked(piece):
            places = at + np.array(stack.places)
            for row, channel in enumerate(stack.channels):
                if channel.name in parts:
                    qualities = None if stack.all_good else stack.quality[:, row]
                    part = _Part(positions[places], stack.times_ns, stack.si[:, row], qualities)
                    parts[channel.name].append(part)
        at += len(piece)


def _joined(
    channel: str, parts: Sequence[_Part], start_ns: int, end_ns: int, *, with_bad: bool
) -> ReadingColumns:
    if not parts:
        return _empty(channel, Tier.RAW)
    times = np.concatenate([part.times_ns.ravel() for part in parts])
    values = np.concatenate([part.values.ravel() for part in parts])
    qualities = np.zeros(len(times), np.uint8)
    if any(part.qualities is not None for part in parts):
        qualities = np.concatenate(
            [
                np.zeros(part.times_ns.size, np.uint8)
                if part.qualities is None
                else part.qualities.ravel()
                for part in parts
            ]
        )
    if (times[1:] <= times[:-1]).any():  # frames that overlap, or are of other lengths
        positions = np.concatenate(
            [np.repeat(part.positions, part.times_ns.shape[1]) for part in parts]
        )
        order = np.lexsort((positions, times))
        order = order[np.append(times[order][1:] != times[order][:-1], True)]
        times, values, qualities = times[order], values[order], qualities[order]
    worst = Quality.BAD if with_bad else Quality.UNCERTAIN
    wanted = (times >= start_ns) & (times <= end_ns) & (qualities <= worst)
    if not wanted.all():
        times, values, qualities = times[wanted], values[wanted], qualities[wanted]
    return ReadingColumns(channel, Tier.RAW, times, values, qualities, len(times))


# --- extremes -----------------------------------------------------------------------------


async def _read_seconds(
    ledger: Ledger,
    asset_id: str,
    channels: Sequence[str],
    start_ns: int,
    end_ns: int,
    readings: int,
    known_at: int | None,
) -> list[ReadingColumns]:
    """Return the extremes by second of a range that holds about `readings` readings."""
    pieces = -(-readings // PIECE_READINGS)
    # Whole seconds, so that none is in two pieces.
    step_ns = max(1, (end_ns - start_ns) // pieces // SECOND_NS) * SECOND_NS
    parts: dict[str, list[ReadingColumns]] = {channel: [] for channel in channels}
    at_ns = start_ns // SECOND_NS * SECOND_NS
    while at_ns <= end_ns:
        until_ns = at_ns + step_ns - 1
        for raw in await _read(
            ledger,
            asset_id,
            channels,
            at_ns,
            min(until_ns, end_ns),
            SECOND_READINGS_MAX,
            with_bad=False,
            known_at=known_at,
        ):
            if len(raw.values):
                parts[raw.channel].append(_second_extremes(raw))
        at_ns = until_ns + 1
    return [
        ReadingColumns(
            channel,
            Tier.SECOND,
            np.concatenate([part.times_ns for part in found]),
            np.concatenate([part.values for part in found]),
            np.concatenate([part.qualities for part in found]),
            sum(part.reading_count for part in found),
        )
        if (found := parts[channel])
        else _empty(channel, Tier.SECOND)
        for channel in channels
    ]


def _second_extremes(raw: ReadingColumns) -> ReadingColumns:
    good = raw.qualities == Quality.GOOD
    second, values = raw.times_ns[good] // SECOND_NS, raw.values[good]
    if len(second) == 0:
        return _empty(raw.channel, Tier.SECOND)
    starts = np.flatnonzero(np.diff(second, prepend=second[0] - 1))
    return _extremes(
        raw.channel,
        Tier.SECOND,
        second[starts],
        np.minimum.reduceat(values, starts),
        np.maximum.reduceat(values, starts),
        len(values),
    )


async def _read_rollups(
    ledger: Ledger,
    asset_id: str,
    channels: Sequence[str],
    tier: Tier,
    start_ns: int,
    end_ns: int,
) -> list[ReadingColumns]:
    resolution_s = _RESOLUTION_S[tier]
    width_ns = resolution_s * SECOND_NS
    columns = []
    for channel in channels:
        found = await read_rollups(
            ledger,
            resolution_s,
            asset_ids=[asset_id],
            channels=[channel],
            start_s=start_ns // width_ns * resolution_s,
            end_s=end_ns // SECOND_NS,
        )
        columns.append(
            _extremes(
                channel,
                tier,
                found[0].start_s,
                found[0].min,
                found[0].max,
                int(found[0].reading_count.sum()),
            )
            if found
            else _empty(channel, tier)
        )
    return columns


_RESOLUTION_S: Final = {Tier.SECOND: 1, Tier.MINUTE: MINUTE_S, Tier.HOUR: HOUR_S}


def _extremes(
    channel: str,
    tier: Tier,
    start_s: IntArray,
    lowest: FloatArray,
    highest: FloatArray,
    reading_count: int,
) -> ReadingColumns:
    """Return two points a bucket, its extremes, a quarter and three quarters into it."""
    starts = start_s * SECOND_NS
    quarter = _RESOLUTION_S[tier] * SECOND_NS // 4
    times = np.stack((starts + quarter, starts + 3 * quarter), axis=1).ravel()
    values = np.stack((lowest, highest), axis=1).ravel()
    return ReadingColumns(
        channel, tier, times, values, np.zeros(len(times), np.uint8), reading_count
    )


# --- thinning out -------------------------------------------------------------------------


def _thinned(columns: ReadingColumns, points_max: int) -> ReadingColumns:
    if len(columns.times_ns) <= points_max:
        return columns
    if columns.texts is not None:
        texts = Texts(columns.times_ns, columns.texts, columns.qualities).thinned(points_max)
        return _of_texts(columns.channel, texts, columns.reading_count)
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
