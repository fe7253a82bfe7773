"""Single readings as a protocol delivers them, gathered into columns for a feed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from domain.frames import Column, waveform_times_ns
from edge_agent.channel_mapping import MappedChannel
from edge_agent.live import Readings


class ReadingBuffer:
    """Readings of one source's channels in the order in which they arrived.

    The caller bounds what it adds before it takes.
    """

    def __init__(self, channels: Sequence[MappedChannel[Any]]) -> None:
        self._channels = channels
        self._times: list[list[int]] = [[] for _ in channels]
        self._values: list[list[float]] = [[] for _ in channels]
        self._qualities: list[list[int]] = [[] for _ in channels]
        self._runs: list[Readings] = []

    def __bool__(self) -> bool:
        return bool(self._runs) or any(self._times)

    def add(self, channel: int, time_ns: int, raw: float, quality: int) -> None:
        """Add one reading; `raw` is NaN where there is none."""
        self._times[channel].append(time_ns)
        self._values[channel].append(raw)
        self._qualities[channel].append(quality)

    def add_run(self, channel: int, start_ns: int, raw: Column, qualities: Column) -> None:
        """Add the samples of a waveform from `start_ns` on, at its channel's rate."""
        mapped = self._channels[channel]
        rate_hz = mapped.delivered.rate_hz
        if rate_hz is None:
            raise ValueError(f"channel {mapped.delivered.name!r} is no waveform")
        self._runs.append(
            Readings(
                channel,
                waveform_times_ns(start_ns, rate_hz, len(raw)),
                mapped.scaling.apply(np.asarray(raw, np.float64)),
                np.asarray(qualities, np.uint8),
            )
        )

    def take(self) -> list[Readings]:
        """Return all that was added, scaled, and begin anew."""
        taken = self._runs
        for channel, mapped in enumerate(self._channels):
            if not self._times[channel]:
                continue
            taken.append(
                Readings(
                    channel,
                    np.array(self._times[channel], np.int64),
                    mapped.scaling.apply(np.array(self._values[channel], np.float64)),
                    np.array(self._qualities[channel], np.uint8),
                )
            )
            self._times[channel], self._values[channel], self._qualities[channel] = [], [], []
        self._runs = []
        return taken
