"""Which samples of a waveform go on: those around a change, from some time before it.

What is kept for the time before is bounded; samples that have gone on never go on twice. The same
samples go on however windows are cut, as long as nobody asks from outside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from domain.frames import FloatArray, IntArray, waveform_times_ns
from edge_agent.live.window import ChannelWindow

LEARNING_PIECES: Final = 5
"""So many pieces make the first idea of what is usual; before that nothing counts as a change."""
PARTS_MAX: Final = 4_096


@dataclass(frozen=True, slots=True)
class Change:
    """A change is a feature further than `ratio` times its usual value from that value.

    Parameters
    ----------
    features : which of them are looked at
    memory_ns : time constant with which the usual value follows
    """

    features: tuple[str, ...]
    ratio: float
    memory_ns: int


@dataclass
class _Usual:
    """The usual value of a feature, and how many pieces it was learnt from."""

    value: float = math.nan
    pieces: int = 0


class WaveformGate:
    """Lets samples of one waveform through.

    Parameters
    ----------
    piece_ns : length of a piece whose features are judged
    before_ns, after_ns : so much goes on from before the piece that changed, and from after it
    pause_ns : a change within so long of the last one that counted does not count
    """

    def __init__(
        self, change: Change, *, piece_ns: int, before_ns: int, after_ns: int, pause_ns: int
    ) -> None:
        self._change = change
        self._piece_ns = piece_ns
        self._before_ns = before_ns
        self._after_ns = after_ns
        self._pause_ns = pause_ns
        self._usual = {name: _Usual() for name in change.features}
        self._held: list[ChannelWindow] = []
        self._from_ns = 0
        self._until_ns = -(2**63)
        self._counted_ns: int | None = None
        self._requested = False
        self._half_sample_ns = 0

    def request(self) -> None:
        """Let the samples around the next piece through, as if it had changed."""
        self._requested = True

    def passed(
        self, run: ChannelWindow, ends_ns: IntArray, features: Mapping[str, FloatArray]
    ) -> list[ChannelWindow]:
        """Return what goes on, oldest first, now that `run` has come.

        Parameters
        ----------
        ends_ns, features : of the pieces that `run` has filled, in order
        """
        rate_hz = run.channel.rate_hz or 1.0
        self._half_sample_ns = round(0.5e9 / rate_hz)
        times = waveform_times_ns(int(run.times_ns[0]), rate_hz, len(run))
        self._held.append(ChannelWindow(run.channel, times, run.values, run.qualities))
        out: list[ChannelWindow] = []
        for n, end_ns in enumerate(ends_ns.tolist()):
            changed = self._changed({name: float(features[name][n]) for name in self._usual})
            if changed or self._requested:
                out += self._opened(end_ns)
        out += self._released()
        self._forget(int(times[-1]))
        return out

    def _changed(self, features: Mapping[str, float]) -> bool:
        changed = False
        weight = -math.expm1(-self._piece_ns / self._change.memory_ns)
        for name, value in features.items():
            if not math.isfinite(value):
                continue
            usual = self._usual[name]
            if usual.pieces >= LEARNING_PIECES:
                limit = self._change.ratio * abs(usual.value)
                changed |= abs(value - usual.value) > limit
            usual.pieces = min(usual.pieces + 1, LEARNING_PIECES)
            # The first pieces count alike, whatever the memory.
            share = max(weight, 1.0 / usual.pieces) if usual.pieces < LEARNING_PIECES else weight
            usual.value = (
                value if math.isnan(usual.value) else usual.value + share * (value - usual.value)
            )
        return changed

    def _opened(self, end_ns: int) -> list[ChannelWindow]:
        """Open around the piece that ended at `end_ns`, unless one did not long ago."""
        requested, self._requested = self._requested, False
        recent = self._counted_ns is not None and end_ns - self._counted_ns < self._pause_ns
        if recent and not requested:
            return []
        self._counted_ns = end_ns
        released = self._released()
        # Times are rounded: the limits lie half a sample beside, where there is none.
        start_ns = end_ns - self._piece_ns - self._before_ns + self._half_sample_ns
        if start_ns > self._until_ns:
            self._from_ns = start_ns
        self._until_ns = max(self._until_ns, end_ns + self._after_ns + self._half_sample_ns)
        return released

    def _released(self) -> list[ChannelWindow]:
        """Return what is held within the open time, and hold it no more."""
        out: list[ChannelWindow] = []
        held: list[ChannelWindow] = []
        for part in self._held:
            first = int(np.searchsorted(part.times_ns, self._from_ns, side="left"))
            last = int(np.searchsorted(part.times_ns, self._until_ns, side="right"))
            if first >= last:
                held.append(part)
                continue
            out.append(part.between(first, last))
            # What lies before it is older than anybody will ask for.
            if last < len(part):
                held.append(part.between(last, len(part)))
        self._held = held
        return out

    def _forget(self, newest_ns: int) -> None:
        """Forget what is too old to go on with a piece that may still change."""
        # The piece that is being filled may be as long as another one.
        oldest_ns = newest_ns - self._before_ns - 2 * self._piece_ns
        kept = [part for part in self._held if int(part.times_ns[-1]) >= oldest_ns]
        self._held = kept[-PARTS_MAX:]
