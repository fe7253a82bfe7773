"""A window of live readings, what is done with it on its way, and the frames it becomes.

The agent's clock cuts the windows of live sources, so a window knows no rows: each channel brings
its own times. Stages (conditioning, features) turn a window into a window; observers (models) say
what a window means. Pure but for what a stage remembers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import numpy as np

from domain.asset_model import AssetType
from domain.frame_header import VALUE_TYPES
from domain.frames import (
    CHANNELS_MAX,
    ByteArray,
    ChannelHeader,
    Column,
    Frame,
    FrameHeader,
    IntArray,
    build_frame,
    waveform_times_ns,
)
from domain.units import unit
from edge_agent.live import DeliveredChannel

if TYPE_CHECKING:
    from edge_agent.outbox.records import AgentCommand

FRAME_VALUE_BYTES_MAX: Final = 3 * 1024 * 1024
"""Uncompressed times, values and masks of one frame; their encoded form is no larger than this
by more than its header and so stays below `domain.frames.FRAME_BYTES_MAX`.
"""
HEADERS_REMEMBERED_MAX: Final = 4_096


@dataclass(frozen=True, eq=False)
class ChannelWindow:
    """Readings of one channel within a window.

    Parameters
    ----------
    times_ns : int64, shape (n,), ns since 1970 UTC, not decreasing; readings of an equal time have
        other values, and the last of them counts. Of a waveform the times are those of
        `domain.frames.waveform_times_ns`, whatever they say here but for the first.
    values : as delivered, shape (n,), of the channel's type
    qualities : uint8, shape (n,), `domain.frames.Quality`
    """

    channel: DeliveredChannel
    times_ns: IntArray
    values: Column
    qualities: ByteArray

    def __len__(self) -> int:
        return len(self.times_ns)

    def between(self, start: int, stop: int) -> ChannelWindow:
        """Return the readings from index `start` up to, without, `stop`."""
        return replace(
            self,
            times_ns=self.times_ns[start:stop],
            values=self.values[start:stop],
            qualities=self.qualities[start:stop],
        )


@dataclass(frozen=True, eq=False)
class Window:
    """Readings of one source between two cuts.

    Parameters
    ----------
    channels : those with a reading, in the source's order; a waveform stands here once for every
        run of samples without a gap, any other channel once
    """

    source: str
    asset: str
    asset_type: AssetType
    channels: tuple[ChannelWindow, ...]

    @property
    def reading_count(self) -> int:
        """Readings of all channels together."""
        return sum(len(channel) for channel in self.channels)


class Stage(Protocol):
    """One step that turns a window into a window; it may remember earlier ones, within bounds.

    It never raises for a value: it marks qualities.
    """

    def apply(self, window: Window) -> Window:
        """Return `window` as it goes on; windows of a source come in their order."""


@runtime_checkable
class CountingStage(Stage, Protocol):
    """A stage that counts what it marked, by channel and stable code."""

    def take_counts(self) -> Mapping[tuple[str, str], int]:
        """Return what was marked since the last call."""


class Observer(Protocol):
    """Something that says what windows mean, such as a model."""

    def observe(self, windows: Sequence[Window]) -> Sequence[Sequence[AgentCommand]]:
        """Return for each of `windows`, all that are due together, what it gives rise to.

        Called in a thread of its own, one call at a time. The commands are kept in the same
        commit as their window's frames.
        """


# --- frames -------------------------------------------------------------------------------


def frames_of(window: Window, agent: str, sequence: int) -> list[Frame]:
    """Return the frames that carry `window`, numbered from `sequence` on.

    Usually one. Waveforms, readings with an equal time, and what would make a frame too large go
    into frames of their own, which follow. Nothing is marked out of range yet.

    Raises
    ------
    InvalidInput
        ``frame.*``, ``unit.*``: a stage or a source made columns that do not belong together
    """
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
    header = _header(window.asset, agent, tuple(declared), len(clocks))
    return build_frame(
        header,
        sequence,
        clocks,
        [channel.values for channel in channels],
        [channel.qualities if channel.qualities.any() else None for channel in channels],
    )


@lru_cache(maxsize=HEADERS_REMEMBERED_MAX)
def _header(
    asset: str, agent: str, declared: tuple[tuple[DeliveredChannel, int], ...], clock_count: int
) -> FrameHeader:
    return FrameHeader(
        asset,
        agent,
        tuple(_channel_header(channel, clock) for channel, clock in declared),
        clock_count,
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
