"""Windows for tests of stages: made of arrays, and cut as the agent's clock might cut them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from domain.asset_model import AssetType
from domain.asset_types import asset_type
from domain.frames import ByteArray, Column, FloatArray, IntArray, waveform_times_ns
from edge_agent.live import DeliveredChannel
from edge_agent.live.window import ChannelWindow, Stage, Window

SECOND_NS = 1_000_000_000
PUMP_LOOP = asset_type("skab-pump-loop")


Columns = tuple[IntArray, FloatArray, ByteArray]


def channel_window(
    name: str,
    unit: str,
    times_ns: IntArray,
    values: Column,
    qualities: ByteArray | None = None,
    *,
    value_type: str = "f8",
    rate_hz: float | None = None,
) -> ChannelWindow:
    """Return readings of one channel, GOOD unless told otherwise."""
    if qualities is None:
        qualities = np.zeros(len(times_ns), np.uint8)
    channel = DeliveredChannel(name, unit, value_type, rate_hz)
    return ChannelWindow(channel, times_ns, values, qualities)


def waveform(name: str, unit: str, start_ns: int, rate_hz: float, values: Column) -> ChannelWindow:
    """Return one run of samples."""
    times = waveform_times_ns(start_ns, rate_hz, len(values))
    return channel_window(name, unit, times, values, rate_hz=rate_hz)


def window_of(*channels: ChannelWindow, described: AssetType = PUMP_LOOP) -> Window:
    """Return a window of the source ``loop``."""
    return Window("loop", "loop-1", described, tuple(c for c in channels if len(c)))


def cut(window: Window, at_ns: Sequence[int]) -> list[Window]:
    """Return `window` cut before each of the times `at_ns`, which ascend."""
    edges = [-(2**63), *at_ns, 2**63 - 1]
    parts = []
    for low, high in pairwise(edges):
        channels = []
        for channel in window.channels:
            first = int(np.searchsorted(channel.times_ns, low, side="left"))
            last = int(np.searchsorted(channel.times_ns, high, side="left"))
            channels.append(channel.between(first, last))
        parts.append(window_of(*channels, described=window.asset_type))
    return parts


def through(stage: Stage, windows: Sequence[Window]) -> dict[str, Columns]:
    """Return what comes out of `stage` for all of `windows`: columns by channel."""
    out: dict[str, list[ChannelWindow]] = {}
    for window in windows:
        for channel in stage.apply(window).channels:
            out.setdefault(channel.channel.name, []).append(channel)
    return {
        name: (
            np.concatenate([part.times_ns for part in parts]),
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.qualities for part in parts]),
        )
        for name, parts in out.items()
    }
