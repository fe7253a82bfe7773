"""The latest good value of the live channels on which set-points depend, and how old it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from domain.frames import Quality
from domain.units import unit
from edge_agent.live.window import ChannelWindow, Window
from edge_agent.outbox.records import AgentCommand


@dataclass(frozen=True, slots=True)
class Known:
    """A value (SI), whether it was the newest and good, and when it was true on our own clock."""

    value: float
    is_good: bool
    true_s: float


class LatestValues:
    """Watches windows go by; an observer that never says anything.

    Parameters
    ----------
    now_s, now_ns : the clock that nobody sets, and the wall clock
    """

    def __init__(
        self,
        now_s: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._now_s = now_s
        self._now_ns = now_ns
        self._wanted: frozenset[tuple[str, str]] = frozenset()
        self._known: dict[tuple[str, str], Known] = {}

    def watch(self, wanted: frozenset[tuple[str, str]]) -> None:
        """Keep the values of `wanted`, each (asset, channel), and of nothing else."""
        self._wanted = wanted
        self._known = {key: known for key, known in self._known.items() if key in wanted}

    def observe(self, windows: Sequence[Window]) -> Sequence[Sequence[AgentCommand]]:
        """Take note of `windows`."""
        for window in windows:
            for channel in window.channels:
                key = (window.asset, channel.channel.name)
                if key in self._wanted and len(channel):
                    self._known[key] = self._latest(channel)
        return [()] * len(windows)

    def _latest(self, channel: ChannelWindow) -> Known:
        """Return the last value; one that is not good makes what is known doubtful."""
        at = len(channel) - 1
        quality, value = int(channel.qualities[at]), channel.values[at]
        number = float(value) if np.issubdtype(channel.values.dtype, np.number) else float("nan")
        if channel.values.dtype == np.bool_:
            number = float(value)
        # A reading that took long to get here is as old as it is; a device's clock that is ahead
        # makes none younger than it arrived.
        behind_s = max(0.0, (self._now_ns() - int(channel.times_ns[at])) / 1e9)
        si = unit(channel.channel.unit).to_si(number)
        return Known(
            si, quality == Quality.GOOD and np.isfinite(si).item(), self._now_s() - behind_s
        )

    def age_s(self, asset: str, channel: str) -> float | None:
        """Return how old the latest value of a channel is; None where there is none."""
        known = self._known.get((asset, channel))
        return None if known is None else max(0.0, self._now_s() - known.true_s)

    def good_value(self, asset: str, channel: str, age_s_max: float) -> float | None:
        """Return the latest value, SI, if it is good and no older than `age_s_max`."""
        known = self._known.get((asset, channel))
        if known is None or not known.is_good or self._now_s() - known.true_s > age_s_max:
            return None
        return known.value
