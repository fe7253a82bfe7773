"""From readings in the order of their arrival to channels in the order of their times.

Late readings are sorted in among the others of their window; what was delivered twice, exactly,
is dropped; readings of one time with different values stay, in the order in which they arrived.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from domain.frames import ByteArray, Column, Quality
from edge_agent.live import DeliveredChannel, Readings
from edge_agent.live.window import ChannelWindow

BoolArray = npt.NDArray[np.bool_]
Last = tuple[int, Column, ByteArray]
"""Time, value and quality of the last reading of a channel, the latter two of shape (1,)."""


class Ordering:
    """Orders the windows of one source; remembers the last reading of each channel."""

    def __init__(self, channels: Sequence[DeliveredChannel]) -> None:
        self.repeated_count = 0
        self._channels = channels
        self._last: list[Last | None] = [None] * len(channels)

    def ordered(self, arrived: Sequence[Readings]) -> tuple[ChannelWindow, ...]:
        """Return the channels of one window, in the source's order."""
        by_channel: dict[int, list[Readings]] = {}
        for readings in arrived:
            by_channel.setdefault(readings.channel, []).append(readings)
        found: list[ChannelWindow] = []
        for index in sorted(by_channel):
            channel = self._channels[index]
            if channel.rate_hz is None:
                ordered = self._in_time(index, channel, by_channel[index])
                if ordered is not None:
                    found.append(ordered)
            else:
                found += self._runs(channel, channel.rate_hz, by_channel[index])
        return tuple(found)

    def _in_time(
        self, index: int, channel: DeliveredChannel, arrived: list[Readings]
    ) -> ChannelWindow | None:
        window = _joined(channel, arrived)
        times = window.times_ns
        if len(times) > 1 and not (times[1:] > times[:-1]).all():
            window = _chosen(window, np.argsort(times, kind="stable"))
            repeated = np.r_[False, _same_as_before(window)]
            if repeated.any():
                self.repeated_count += int(repeated.sum())
                window = _chosen(window, ~repeated)
        if _is_first(window, self._last[index]):
            self.repeated_count += 1
            if len(window) == 1:
                return None
            window = window.between(1, len(window))
        self._last[index] = _last(window)
        return window

    def _runs(
        self, channel: DeliveredChannel, rate_hz: float, arrived: list[Readings]
    ) -> list[ChannelWindow]:
        """Return the runs of a waveform without a gap: what follows within half a sample joins."""
        arrived = sorted(arrived, key=lambda run: int(run.times_ns[0]))
        runs: list[list[Readings]] = []
        next_ns = 0.0
        for run in arrived:
            start_ns = int(run.times_ns[0])
            if runs and _same_run(runs[-1][-1], run):
                self.repeated_count += len(run.times_ns)
                continue
            if runs and abs(start_ns - next_ns) <= 0.5e9 / rate_hz:
                runs[-1].append(run)
                next_ns += len(run.times_ns) * 1e9 / rate_hz
            else:
                runs.append([run])
                next_ns = start_ns + len(run.times_ns) * 1e9 / rate_hz
        return [_joined(channel, run) for run in runs]


def _joined(channel: DeliveredChannel, arrived: list[Readings]) -> ChannelWindow:
    if len(arrived) == 1:
        only = arrived[0]
        return ChannelWindow(channel, only.times_ns, only.values, only.qualities)
    return ChannelWindow(
        channel,
        np.concatenate([readings.times_ns for readings in arrived]),
        np.concatenate([readings.values for readings in arrived]),
        np.concatenate([readings.qualities for readings in arrived]),
    )


def _chosen(window: ChannelWindow, chosen: npt.NDArray[Any]) -> ChannelWindow:
    return ChannelWindow(
        window.channel, window.times_ns[chosen], window.values[chosen], window.qualities[chosen]
    )


def _same_as_before(window: ChannelWindow) -> BoolArray:
    """Return for each reading but the first whether it is the one before it once more."""
    values, qualities = window.values, window.qualities
    missing = qualities[1:] == Quality.MISSING  # NaN equals nothing, itself included
    same: BoolArray = (
        (window.times_ns[1:] == window.times_ns[:-1])
        & (qualities[1:] == qualities[:-1])
        & ((values[1:] == values[:-1]) | missing)
    )
    return same


def _same_run(first: Readings, second: Readings) -> bool:
    return (
        int(first.times_ns[0]) == int(second.times_ns[0])
        and np.array_equal(first.values, second.values)
        and np.array_equal(first.qualities, second.qualities)
    )


def _is_first(window: ChannelWindow, last: Last | None) -> bool:
    """Return whether the first reading of `window` is the one before the window once more."""
    if last is None or last[0] != window.times_ns.item(0):
        return False
    quality = window.qualities.item(0)
    # tolist makes a Python number, or leaves the text that it is.
    return quality == last[2].item() and (
        quality == Quality.MISSING or window.values[:1].tolist() == last[1].tolist()
    )


def _last(window: ChannelWindow) -> Last:
    if len(window.times_ns) == 1:
        return window.times_ns.item(), window.values, window.qualities
    # Copied, so that a whole window is not held for the sake of its last reading.
    return window.times_ns.item(-1), window.values[-1:].copy(), window.qualities[-1:].copy()
