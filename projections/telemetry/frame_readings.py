"""Frames as rollups see them: the series they belong to, and the minutes of theirs that count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np

from domain.errors import InvalidInput
from domain.frame_decoding import decode_many
from domain.frame_stacks import FrameStack, stacked
from domain.frames import Frame, FrameHeader, IntArray, Quality
from eventlog.decoded import DECODED
from eventlog.envelope import RecordedEvent
from projections.telemetry.buckets import MINUTE_NS, BoolArray, Buckets, Readings, partials

HEADERS_REMEMBERED_MAX: Final = 512
PIECE_FRAMES_MIN: Final = 12

Superseded = Sequence[Sequence[BoolArray | None]]
"""For each frame and channel of its header, which readings a later frame has replaced, if any."""


@dataclass(frozen=True)
class SeriesKey:
    """What a series is known by: an asset and the numeric channels that come together, sorted."""

    asset_id: str
    channels: tuple[str, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # looked up several times a frame
        return hash((self.asset_id, self.channels))


@lru_cache(maxsize=HEADERS_REMEMBERED_MAX)
def series_key(header: FrameHeader) -> SeriesKey:
    """Return the series of frames with `header`; it may have no channel at all."""
    names = (channel.name for channel in header.channels if not channel.is_text)
    return SeriesKey(header.asset, tuple(sorted(names)))


@lru_cache(maxsize=HEADERS_REMEMBERED_MAX)
def _columns(header: FrameHeader, indexes: tuple[int, ...]) -> tuple[int, ...]:
    place = {name: n for n, name in enumerate(series_key(header).channels)}
    return tuple(place[header.channels[index].name] for index in indexes)


def decoded_frames(events: Sequence[RecordedEvent], *, remember: bool) -> list[Frame]:
    """Return the frames of `events`; those the process does not remember are decoded together."""
    frames = {event.payload_sha256: DECODED.find(event.payload_sha256) for event in events}
    missing: dict[bytes, bytes] = {}
    for event in events:
        if frames[event.payload_sha256] is None:
            assert event.payload is not None, "frames are read with their payload"
            missing[event.payload_sha256] = event.payload
    if remember:
        DECODED.decode_all(missing)
        return [event.frame for event in events]
    for sha256, decoded in zip(missing, decode_many(list(missing.values())), strict=True):
        if isinstance(decoded, InvalidInput):
            raise decoded
        frames[sha256] = decoded
    return [frame for event in events if (frame := frames[event.payload_sha256]) is not None]


def decoded_together(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    """Yield `frames` with numeric channels, cut where they do not share one matrix of values.

    Such a matrix is used as it is; small pieces stay together, for each costs by the call.
    """
    piece: list[Frame] = []
    for frame in frames:
        if not series_key(frame.header).channels:
            continue
        if len(piece) >= PIECE_FRAMES_MIN and not _share_rows(piece[-1], frame):
            yield piece
            piece = []
        piece.append(frame)
    if piece:
        yield piece


def _share_rows(one: Frame, other: Frame) -> bool:
    return one.rows is not None and other.rows is not None and one.rows[0] is other.rows[0]


def minutes_of(
    frames: Sequence[Frame], series: Sequence[int], superseded: Superseded | None = None
) -> dict[int, Buckets]:
    """Return what each of `frames` holds of each minute, by the number of channels of its series.

    Parameters
    ----------
    frames : in the order of the log, in which their rows come too
    series : the number of each frame's series
    """
    parts: dict[int, list[tuple[IntArray, Buckets]]] = {}
    for stack in stacked(frames):
        header = stack.frames[0].header
        channel_count = len(series_key(header).channels)
        frame_count, _, length = stack.si.shape
        places = np.array(stack.places, np.int64)
        readings = Readings(
            np.array([series[place] for place in stack.places], np.int64),
            _columns(header, stack.indexes),
            stack.times_ns,
            stack.si.transpose(1, 0, 2).reshape(-1, frame_count * length),
            _counted(stack, superseded),
        )
        frame, minutes = partials(readings, channel_count, MINUTE_NS)
        parts.setdefault(channel_count, []).append((places[frame], minutes))
    return {channel_count: _in_order(found) for channel_count, found in parts.items()}


def _counted(stack: FrameStack, superseded: Superseded | None) -> BoolArray | None:
    """Return which readings of `stack` count, shape (n_channels, n_readings); None for all."""
    masks = {
        (n, row): mask
        for n, place in enumerate(stack.places if superseded is not None else ())
        for row, index in enumerate(stack.indexes)
        if (mask := superseded[place][index]) is not None  # type: ignore[index]
    }
    if stack.all_good and not masks:
        return None
    counted = np.ones(stack.si.shape, np.bool_) if stack.all_good else stack.quality == Quality.GOOD
    for at, mask in masks.items():
        counted[at] &= ~mask
    frame_count, _, length = stack.si.shape
    return counted.transpose(1, 0, 2).reshape(-1, frame_count * length)


def _in_order(parts: Sequence[tuple[IntArray, Buckets]]) -> Buckets:
    joined = Buckets.joined([buckets for _, buckets in parts])
    if len(parts) == 1:
        return joined
    places = np.concatenate([places for places, _ in parts])
    return joined.take(np.argsort(places, kind="stable"))


def superseded_readings(frames: Sequence[Frame]) -> list[list[BoolArray | None]]:
    """Return, for each of `frames` and channel, which readings a later one of `frames` replaces.

    Parameters
    ----------
    frames : of one asset, in the order of the log
    """
    result: list[list[BoolArray | None]] = [[None] * len(f.header.channels) for f in frames]
    bearers: dict[str, list[tuple[int, int]]] = {}
    for number, frame in enumerate(frames):
        for index, channel in enumerate(frame.header.channels):
            if not channel.is_text:
                bearers.setdefault(channel.name, []).append((number, index))
    found: dict[tuple[tuple[int, int], ...], list[BoolArray]] = {}
    for places in bearers.values():
        # Channels that come on the same clocks are replaced at the same times.
        clocks = tuple((n, frames[n].header.channels[index].clock) for n, index in places)
        if clocks not in found:
            found[clocks] = _repeated([frames[n].clocks[clock] for n, clock in clocks])
        for (number, index), mask in zip(places, found[clocks], strict=True):
            if mask.any():
                result[number][index] = mask
    return result


def _repeated(clocks: Sequence[IntArray]) -> list[BoolArray]:
    """Return, for each of `clocks`, which of its times occur in a later one."""
    times = np.concatenate(clocks)
    lengths = [len(clock) for clock in clocks]
    # A stable sort: equal times stay in the order of the log, and the last of them counts.
    order = np.argsort(times, kind="stable")
    equal = times[order][1:] == times[order][:-1]
    repeated = np.zeros(len(times), np.bool_)
    repeated[order[:-1][equal]] = True
    return np.split(repeated, np.cumsum(lengths)[:-1])
