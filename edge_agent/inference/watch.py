"""One source under a model's watch: its second means, its baseline, its latest deviations.

Everything is bounded: the seconds of one window, those of the baseline, and the few that are open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from domain.frames import FloatArray, Quality
from domain.units import Unit, unit
from edge_agent.inference.model_file import ModelDescription
from edge_agent.live.window import ChannelWindow, Window
from ml.deviation import Baseline, baseline_of, latest_deviation

SECOND_NS: Final = 1_000_000_000
GRACE_S: Final = 1
"""A second stays open for so long after a later reading: channels do not come at the same time."""
USABLE: Final = int(Quality.UNCERTAIN)
FEW_READINGS: Final = 16
OPEN_S_MAX: Final = 60
"""Seconds that are looked at together."""
SPAN_S_MAX: Final = 2 * 3600
"""Seconds that a window may span; of a longer one, the last count."""


class Watch:
    """Follows the channels of one source that a model looks at.

    Parameters
    ----------
    every_s : so often an answer is due
    """

    def __init__(self, description: ModelDescription, every_s: int) -> None:
        self._description = description
        self._places = {name: n for n, name in enumerate(description.channels)}
        self._every_s = every_s
        self._baseline: Baseline | None = None
        self._learnt: list[FloatArray] = []
        self._recent: list[FloatArray] = []
        self._open_s: int | None = None
        self._sums = np.zeros((0, len(self._places)))
        self._counts = np.zeros((0, len(self._places)))
        self._asked_s: int | None = None
        self._latest_s = 0

    @property
    def learning_s_left(self) -> int:
        """Seconds until the baseline is known; 0 from then on."""
        left = self._description.baseline_s - len(self._learnt)
        return left if self._baseline is None else 0

    @property
    def latest_s(self) -> int:
        """The last second that counts, s since 1970 UTC."""
        return self._latest_s

    def relearn(self) -> None:
        """Forget the baseline and learn it anew from the next second on."""
        self._baseline = None
        self._learnt = []

    def take(self, window: Window) -> None:
        """Take what a window brings of the channels that count."""
        of_interest = [
            channel
            for channel in window.channels
            if channel.channel.name in self._places
            and channel.channel.rate_hz is None
            and channel.channel.value_type != "str"
            and len(channel)
        ]
        if not of_interest:
            return
        newest_s = max(int(channel.times_ns[-1]) for channel in of_interest) // SECOND_NS
        oldest_s = min(int(channel.times_ns[0]) for channel in of_interest) // SECOND_NS
        oldest_s = max(oldest_s, newest_s - SPAN_S_MAX)
        if self._open_s is None or newest_s < self._open_s - OPEN_S_MAX:
            # The first window, or the clock was set back: what is open is of another time.
            self._begin(oldest_s)
        for first_s in range(oldest_s, newest_s + 1, OPEN_S_MAX):
            last_s = min(first_s + OPEN_S_MAX - 1, newest_s)
            self._take_seconds(of_interest, first_s, last_s)

    def _take_seconds(self, channels: Sequence[ChannelWindow], first_s: int, last_s: int) -> None:
        """Take the readings of some seconds, at most `OPEN_S_MAX` of them."""
        assert self._open_s is not None
        if last_s - self._open_s >= 2 * OPEN_S_MAX:
            self._close(last_s - OPEN_S_MAX + 1)
        self._reach(last_s)
        first_ns, end_ns = first_s * SECOND_NS, (last_s + 1) * SECOND_NS
        for channel in channels:
            times = channel.times_ns
            if first_ns <= times[0] and times[-1] < end_ns:
                self._add(channel)
                continue
            start, stop = np.searchsorted(times, [first_ns, end_ns]).tolist()
            if start < stop:
                self._add(channel.between(start, stop))
        self._close(last_s - GRACE_S)

    def due(self) -> FloatArray | None:
        """Return the deviations, shape (n_channels,), if an answer is due and all are known."""
        if self._baseline is None or len(self._recent) < self._description.window_s:
            return None
        if self._asked_s is not None and 0 <= self._latest_s - self._asked_s < self._every_s:
            return None
        recent = np.stack(self._recent[-self._description.window_s :])
        found = latest_deviation(recent, self._baseline)
        self._asked_s = self._latest_s
        return found if bool(np.isfinite(found).all()) else None

    # --- seconds --------------------------------------------------------------------------

    def _begin(self, open_s: int) -> None:
        self._open_s = open_s
        self._sums = np.zeros((0, len(self._places)))
        self._counts = np.zeros((0, len(self._places)))
        self._recent = []
        self._asked_s = None

    def _reach(self, newest_s: int) -> None:
        """Have a row of sums for every second up to `newest_s`."""
        assert self._open_s is not None
        missing = newest_s - self._open_s + 1 - len(self._sums)
        if missing > 0:
            more = np.zeros((missing, len(self._places)))
            self._sums = np.concatenate((self._sums, more))
            self._counts = np.concatenate((self._counts, more))

    def _add(self, channel: ChannelWindow) -> None:
        assert self._open_s is not None
        known = unit(channel.channel.unit)
        if len(channel) <= FEW_READINGS:
            self._add_few(channel, known)
            return
        values = np.asarray(channel.values, np.float64)
        usable = (channel.qualities <= USABLE) & np.isfinite(values)
        rows = channel.times_ns // SECOND_NS - self._open_s
        # What came after its second was closed counts no more.
        usable &= rows >= 0
        place = self._places[channel.channel.name]
        si = values[usable] * known.factor + known.offset
        np.add.at(self._sums[:, place], rows[usable], si)
        np.add.at(self._counts[:, place], rows[usable], 1)

    def _add_few(self, channel: ChannelWindow, known: Unit) -> None:
        """Add readings one by one: of a few, arrays would cost more than they save."""
        assert self._open_s is not None
        place = self._places[channel.channel.name]
        columns = (channel.times_ns, channel.values, channel.qualities)
        for time_ns, value, quality in zip(*(one.tolist() for one in columns), strict=True):
            row = time_ns // SECOND_NS - self._open_s
            if row >= 0 and quality <= USABLE and math.isfinite(value):
                self._sums[row, place] += value * known.factor + known.offset
                self._counts[row, place] += 1

    def _close(self, until_s: int) -> None:
        """Close the seconds before `until_s`: their means count from now on."""
        assert self._open_s is not None
        over = until_s - self._open_s
        if over <= 0:
            return
        count = min(over, len(self._sums))
        rows = np.full((count, len(self._places)), np.nan)
        known = self._counts[:count] > 0
        np.divide(self._sums[:count], self._counts[:count], out=rows, where=known)
        # Seconds in which nothing came are seconds, too; more of them than a window tell nothing.
        silent = min(over - count, self._description.window_s)
        self._keep([*rows, *(np.full(len(self._places), np.nan) for _ in range(silent))])
        self._sums, self._counts = self._sums[count:], self._counts[count:]
        self._open_s = until_s
        self._latest_s = until_s - 1

    def _keep(self, rows: Sequence[FloatArray]) -> None:
        self._recent = [*self._recent, *rows][-self._description.window_s :]
        if self._baseline is not None:
            return
        self._learnt += rows[: self._description.baseline_s - len(self._learnt)]
        if len(self._learnt) == self._description.baseline_s:
            self._baseline = baseline_of(np.stack(self._learnt))
            self._learnt = []
