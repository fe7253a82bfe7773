"""From windows to frames: all windows of a pass together, since NumPy costs by the call.

Most windows are plain: numbers of one type, all GOOD, that every channel brought at the same
times. Those of one layout become frames as one matrix, whatever their assets. The others are made
one by one, from as many layers and parts as they need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from domain.errors import HeddleError
from domain.frame_header import VALUE_TYPES
from domain.frame_stacks import build_frames
from domain.frames import (
    CHANNELS_MAX,
    ChannelHeader,
    Column,
    Frame,
    FrameHeader,
    IntArray,
    build_frame,
    waveform_times_ns,
)
from domain.time_quality import TimeQuality
from domain.units import unit
from edge_agent.live import DeliveredChannel
from edge_agent.live.window import ChannelWindow, Window

FRAME_VALUE_BYTES_MAX: Final = 3 * 1024 * 1024
"""Uncompressed times, values and masks of one frame; their encoded form is no larger than this
by more than its header and so stays below `domain.frames.FRAME_BYTES_MAX`.
"""
HEADERS_REMEMBERED_MAX: Final = 4_096
LAYOUTS_REMEMBERED_MAX: Final = 4_096

BoolArray = npt.NDArray[np.bool_]


def frames_of(window: Window, agent: str, sequence: int) -> list[Frame]:
    """Return the frames that carry `window`, numbered from `sequence` on.

    Usually one. Waveforms, readings with an equal time, and what would make a frame too large go
    into frames of their own, which follow. Nothing is marked out of range yet.

    Raises
    ------
    InvalidInput
        ``frame.*``, ``unit.*``: a stage or a source made columns that do not belong together
    """
    (made,) = frames_of_all([window], agent, sequence)
    if isinstance(made, HeddleError):
        raise made
    return made


def frames_of_all(
    windows: Sequence[Window], agent: str, sequence: int
) -> list[list[Frame] | HeddleError]:
    """Return `frames_of` of each of `windows`, numbered on through all of them in their order.

    In the place of a window that cannot be frames stands the error that tells why; it takes no
    number.
    """
    plain = _plain_groups(windows)
    layouts = {place: group.layout for group in plain for place in group.places}
    made: list[list[Frame] | HeddleError] = []
    numbered: dict[int, tuple[FrameHeader, int]] = {}
    for place, window in enumerate(windows):
        frames: list[Frame] = []
        try:
            layout = layouts.get(place)
            if layout is not None:
                header = _plain_header(window.asset, agent, layout, window.time)
                numbered[place] = header, sequence
                sequence += 1
            else:
                frames = _built(window, agent, sequence)
                sequence += len(frames)
        except HeddleError as error:
            made.append(error)
            continue
        made.append(frames)
    for group in plain:
        _build_together(group, numbered, made)
    return made


# --- windows of one layout ----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Layout:
    """Channels that come together; one object for all windows that have them.

    Parameters
    ----------
    dtype : of all their values; None where they cannot be one matrix
    """

    channels: tuple[DeliveredChannel, ...]
    dtype: np.dtype[np.generic] | None


@dataclass(frozen=True, eq=False)
class _PlainGroup:
    """Windows of one layout and length, as matrices.

    Parameters
    ----------
    layout : what the windows have in common
    places : of the windows among all
    clocks : shape (n_windows, n)
    values : shape (n_windows, n_channels, n)
    """

    layout: _Layout
    places: list[int]
    clocks: IntArray
    values: Column


def _plain_groups(windows: Sequence[Window]) -> list[_PlainGroup]:
    """Return those of `windows` that can be one row of a matrix for each channel, by layout."""
    alike: dict[tuple[_Layout, int], list[int]] = {}
    for place, window in enumerate(windows):
        if not window.channels:
            continue
        layout = _layout(tuple([channel.channel for channel in window.channels]))
        count = len(window.channels[0].times_ns)
        if layout.dtype is not None and _fits(window.channels, layout.dtype, count):
            alike.setdefault((layout, count), []).append(place)
    groups = (
        _plain_group(layout, places, [windows[place] for place in places], count)
        for (layout, count), places in alike.items()
    )
    return [group for group in groups if group.places]


def _fits(channels: Sequence[ChannelWindow], dtype: np.dtype[np.generic], count: int) -> bool:
    """Whether each of `channels` has `count` readings of that type."""
    for channel in channels:
        if not (
            channel.values.dtype is dtype
            and channel.times_ns.shape
            == channel.values.shape
            == channel.qualities.shape
            == (count,)
        ):
            return False
    size = len(channels) * count * (dtype.itemsize + 9)
    return 0 < size <= FRAME_VALUE_BYTES_MAX


def _plain_group(
    layout: _Layout, places: list[int], windows: Sequence[Window], count: int
) -> _PlainGroup:
    """Return those of `windows` that are plain indeed; only their values can tell."""
    channels = [channel for window in windows for channel in window.channels]
    shape = len(windows), len(channels) // len(windows), count
    times = np.concatenate([channel.times_ns for channel in channels]).reshape(shape)
    values = np.concatenate([channel.values for channel in channels]).reshape(shape)
    qualities = np.concatenate([channel.qualities for channel in channels]).reshape(shape)
    clocks = times[:, 0]
    plain: BoolArray = (times == clocks[:, None]).all(axis=(1, 2)) & ~qualities.any(axis=(1, 2))
    if count > 1:
        plain &= (clocks[:, 1:] > clocks[:, :-1]).all(axis=1)
    if values.dtype.kind == "f":
        plain &= np.isfinite(values).all(axis=(1, 2))
    if plain.all():
        return _PlainGroup(layout, places, clocks, values)
    chosen = np.flatnonzero(plain)
    kept = [places[n] for n in chosen.tolist()]
    return _PlainGroup(layout, kept, clocks[chosen], values[chosen])


def _build_together(
    group: _PlainGroup,
    numbered: dict[int, tuple[FrameHeader, int]],
    made: list[list[Frame] | HeddleError],
) -> None:
    """Put the frames of `group` into `made`, but for windows whose header was refused."""
    sound = [row for row, place in enumerate(group.places) if place in numbered]
    if not sound:
        return
    clocks, values = group.clocks, group.values
    if len(sound) < len(group.places):
        clocks, values = clocks[sound], values[sound]
    places = [group.places[row] for row in sound]
    headers, sequences = zip(*(numbered[place] for place in places), strict=True)
    for place, frame in zip(places, build_frames(headers, sequences, clocks, values), strict=True):
        made[place] = [frame]


@lru_cache(maxsize=LAYOUTS_REMEMBERED_MAX)
def _layout(channels: tuple[DeliveredChannel, ...]) -> _Layout:
    types = {channel.value_type for channel in channels}
    is_matrix = (
        len(types) == 1
        and "str" not in types
        and all(channel.rate_hz is None for channel in channels)
        and len({channel.name for channel in channels}) == len(channels) <= CHANNELS_MAX
    )
    return _Layout(channels, VALUE_TYPES[types.pop()] if is_matrix else None)


@lru_cache(maxsize=HEADERS_REMEMBERED_MAX)
def _plain_header(asset: str, agent: str, layout: _Layout, time: TimeQuality | None) -> FrameHeader:
    return _header(asset, agent, tuple((channel, 0) for channel in layout.channels), 1, time)


# --- one window ---------------------------------------------------------------------------


def _built(window: Window, agent: str, sequence: int) -> list[Frame]:
    """Return the frames of a window of any form, as `frames_of` says."""
    frames: list[Frame] = []
    # Waveforms apart: where not everything can be kept, they are what goes first.
    waveforms = [channel for channel in window.channels if channel.channel.rate_hz is not None]
    others = [channel for channel in window.channels if channel.channel.rate_hz is None]
    for layer in (*_layers(others), *_layers(waveforms)):
        for part in _within_size(layer):
            frames.append(_frame(window, part, agent, sequence + len(frames)))
    return frames


def _layers(channels: Sequence[ChannelWindow]) -> list[list[ChannelWindow]]:
    """Return groups of channels of which each has increasing times and stands in its group once."""
    layers: list[list[ChannelWindow]] = []
    used: dict[str, int] = {}
    for channel in channels:
        for increasing in _increasing(channel):
            at = used.get(channel.channel.name, 0)
            used[channel.channel.name] = at + 1
            if at == len(layers):
                layers.append([])
            layers[at].append(increasing)
    return layers


def _increasing(channel: ChannelWindow) -> list[ChannelWindow]:
    """Return `channel` cut so that times increase: first readings of each time, second, …"""
    times = channel.times_ns
    if not len(times):
        return []
    if (
        channel.channel.rate_hz is not None
        or len(times) == 1
        or bool((times[1:] > times[:-1]).all())
    ):
        return [channel]
    starts = np.r_[True, times[1:] != times[:-1]]
    first_of_time = np.flatnonzero(starts)[np.cumsum(starts) - 1]
    repeat = np.arange(len(times)) - first_of_time
    return [
        replace(
            channel,
            times_ns=times[chosen],
            values=channel.values[chosen],
            qualities=channel.qualities[chosen],
        )
        for chosen in (repeat == number for number in range(int(repeat.max()) + 1))
    ]


def _within_size(channels: list[ChannelWindow]) -> list[list[ChannelWindow]]:
    """Return `channels` in one piece, or in several where one would be too large for a frame."""
    if len(channels) > CHANNELS_MAX:
        return [
            part
            for start in range(0, len(channels), CHANNELS_MAX)
            for part in _within_size(channels[start : start + CHANNELS_MAX])
        ]
    if sum(_byte_count(channel) for channel in channels) <= FRAME_VALUE_BYTES_MAX:
        return [channels]
    # Each channel is halved on its own, because their clocks differ.
    halves = [
        [half for channel in channels if len(half := channel.between(*ends(len(channel))))]
        for ends in (lambda count: (0, count // 2), lambda count: (count // 2, count))
    ]
    return [part for half in halves for part in _within_size(half)]


def _byte_count(channel: ChannelWindow) -> int:
    if channel.channel.value_type == "str":
        return sum(len(text.encode()) + 4 for text in channel.values) + 9 * len(channel)
    return len(channel) * (VALUE_TYPES[channel.channel.value_type].itemsize + 9)


def _frame(window: Window, channels: list[ChannelWindow], agent: str, sequence: int) -> Frame:
    clocks: list[IntArray] = []
    places: dict[tuple[float | None, bytes], int] = {}
    declared: list[tuple[DeliveredChannel, int]] = []
    for channel in channels:
        rate_hz, times = channel.channel.rate_hz, channel.times_ns
        if rate_hz is not None:
            times = waveform_times_ns(int(times[0]), rate_hz, len(times))
        # Equal clocks share one: the same bytes and the same rate.
        clock = places.setdefault((rate_hz, times.tobytes()), len(clocks))
        if clock == len(clocks):
            clocks.append(times)
        declared.append((channel.channel, clock))
    header = _header(window.asset, agent, tuple(declared), len(clocks), window.time)
    return build_frame(
        header,
        sequence,
        clocks,
        [channel.values for channel in channels],
        [channel.qualities if channel.qualities.any() else None for channel in channels],
    )


@lru_cache(maxsize=HEADERS_REMEMBERED_MAX)
def _header(
    asset: str,
    agent: str,
    declared: tuple[tuple[DeliveredChannel, int], ...],
    clock_count: int,
    time: TimeQuality | None,
) -> FrameHeader:
    return FrameHeader(
        asset,
        agent,
        tuple(_channel_header(channel, clock) for channel, clock in declared),
        clock_count,
        time,
    ).checked()


def _channel_header(channel: DeliveredChannel, clock: int) -> ChannelHeader:
    found = unit(channel.unit)
    is_text = channel.value_type == "str"
    return ChannelHeader(
        name=channel.name,
        unit=channel.unit,
        factor=1.0 if is_text else found.factor,
        offset=0.0 if is_text else found.offset,
        value_type=channel.value_type,
        clock=clock,
        rate_hz=channel.rate_hz,
    )
