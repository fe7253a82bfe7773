"""Single readings as a protocol delivers them, gathered into columns for a feed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from domain.frame_header import VALUE_TYPES
from domain.frames import Column, Quality, waveform_times_ns
from domain.time_quality import AGENT, MIXED
from edge_agent.channel_mapping import MappedChannel
from edge_agent.delivered_values import NO_VALUE, Value
from edge_agent.live import Readings


class ReadingBuffer:
    """Readings of one source's channels in the order in which they arrived.

    The caller bounds what it adds before it takes.

    Parameters
    ----------
    clock : who tells the times, of `domain.time_quality.TIME_SOURCES`, where always the same does
    """

    def __init__(self, channels: Sequence[MappedChannel[Any]], clock: str = AGENT) -> None:
        self._channels = channels
        self._clock = clock
        self._told_by: str | None = None
        self._times: list[list[int]] = [[] for _ in channels]
        self._values: list[list[Value]] = [[] for _ in channels]
        self._qualities: list[list[int]] = [[] for _ in channels]
        self._runs: list[Readings] = []

    def __bool__(self) -> bool:
        return bool(self._runs) or any(self._times)

    def told_by(self, clock: str) -> None:
        """Note that `clock` told the time of what is added next."""
        if self._told_by != clock:
            self._told_by = clock if self._told_by is None else MIXED

    def add(self, channel: int, time_ns: int, raw: Value, quality: int) -> None:
        """Add one reading, of the channel's type; of a number `raw` is NaN where there is none."""
        self._times[channel].append(time_ns)
        self._values[channel].append(raw)
        self._qualities[channel].append(quality)

    def add_missing(self, channel: int, time_ns: int) -> None:
        """Add that there is no reading."""
        value_type = self._channels[channel].delivered.value_type
        self.add(channel, time_ns, NO_VALUE[value_type], Quality.MISSING)

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
                self._told_by or self._clock,
            )
        )

    def take(self) -> list[Readings]:
        """Return all that was added, scaled, and begin anew."""
        taken = self._runs
        clock = self._told_by or self._clock
        self._told_by = None
        for channel, mapped in enumerate(self._channels):
            if not self._times[channel]:
                continue
            taken.append(
                Readings(
                    channel,
                    np.array(self._times[channel], np.int64),
                    _column(mapped, self._values[channel]),
                    np.array(self._qualities[channel], np.uint8),
                    clock,
                )
            )
            self._times[channel], self._values[channel], self._qualities[channel] = [], [], []
        self._runs = []
        return taken


def _column(mapped: MappedChannel[Any], values: list[Value]) -> Column:
    """Return `values` as the column of their channel; what is exact has no scaling."""
    value_type = mapped.delivered.value_type
    column: Column = np.array(values, VALUE_TYPES[value_type])
    return mapped.scaling.apply(column) if value_type == "f8" else column
