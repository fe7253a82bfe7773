"""Alert rules as they run: from a channel's readings to the moments an alert begins and ends.

Readings are first made into means of whole seconds, over GOOD readings alone, and a rule is
evaluated as each second completes, that is when a reading of a later second arrives. Sums are
kept as integers of `QUANTUM` times the channel's range, so that the outcome depends on the
readings alone and never on how they were cut into frames. Late readings, older than what a rule
has seen, do not change the past: an alert speaks of now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from domain.asset_model import AlertRule, Channel, DeviationRule, Direction, LimitRule
from domain.frames import FloatArray, IntArray

QUANTUM: Final = 2.0**-32
SECOND_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Raised:
    """The rule's condition holds: `value` against `limit` (SI) since `since_s`, told at `at_s`."""

    at_s: int
    since_s: int
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class Cleared:
    """The rule's condition has gone at `at_s`; the value stands at `value` (SI)."""

    at_s: int
    value: float


Transition = Raised | Cleared


@dataclass(frozen=True, slots=True)
class Seconds:
    """Sums of readings by whole second: parallel columns, shape (n,), in time order.

    `second` is seconds since 1970 UTC, `total` the sum of the readings in quanta of the
    channel's range above its physical minimum, `count` how many there were.
    """

    second: IntArray
    total: IntArray
    count: IntArray

    def __len__(self) -> int:
        return len(self.second)


NO_SECONDS: Final = Seconds(*(np.zeros(0, np.int64) for _ in range(3)))


@dataclass(frozen=True, slots=True)
class RuleState:
    """What a rule remembers between frames; all times in seconds since 1970 UTC.

    `history` are completed seconds and the `open` one that later readings may still join.
    """

    history: Seconds = NO_SECONDS
    open: Seconds = NO_SECONDS
    pending_since_s: int | None = None
    raised_at_s: int | None = None
    clearing_since_s: int | None = None
    frozen_baseline: float | None = None


INITIAL: Final = RuleState()


def advance(
    rule: AlertRule, channel: Channel, state: RuleState, times_ns: IntArray, values: FloatArray
) -> tuple[RuleState, tuple[Transition, ...]]:
    """Return the state after GOOD readings, and the alerts that began and ended by them.

    Parameters
    ----------
    times_ns, values : shape (n,), increasing times and SI values
    """
    newest = state.open.second if len(state.open) else state.history.second[-1:]
    if len(newest):
        fresh = times_ns >= int(newest[-1]) * SECOND_NS
        times_ns, values = times_ns[fresh], values[fresh]
    if len(times_ns) == 0:
        return state, ()
    arrived = _concatenated(state.open, _seconds(channel, times_ns, values))
    arrived = _merged(arrived)
    completed, still_open = _split(arrived, len(arrived) - 1)
    window = _concatenated(state.history, completed)
    machine = _Machine(rule, state)
    match rule:
        case LimitRule():
            transitions = tuple(machine.run_limit(rule, channel, completed))
            kept_s = 0
        case DeviationRule():
            first = len(state.history)
            transitions = tuple(machine.run_deviation(rule, channel, window, first))
            kept_s = rule.lag_s + rule.baseline_s
    history = window
    if len(window):
        oldest = int(window.second[-1]) - kept_s
        _, history = _split(window, int(np.searchsorted(window.second, oldest)))
    return replace(machine.state, history=history, open=still_open), transitions


# --- seconds ------------------------------------------------------------------------------


def _seconds(channel: Channel, times_ns: IntArray, values: FloatArray) -> Seconds:
    step = (channel.physical_max - channel.physical_min) * QUANTUM
    quanta = np.rint((values - channel.physical_min) / step).astype(np.int64)
    return Seconds(times_ns // SECOND_NS, quanta, np.ones(len(quanta), np.int64))


def _merged(seconds: Seconds) -> Seconds:
    starts = np.flatnonzero(np.diff(seconds.second, prepend=seconds.second[0] - 1))
    return Seconds(
        seconds.second[starts],
        np.add.reduceat(seconds.total, starts),
        np.add.reduceat(seconds.count, starts),
    )


def _concatenated(earlier: Seconds, later: Seconds) -> Seconds:
    return Seconds(
        np.concatenate((earlier.second, later.second)),
        np.concatenate((earlier.total, later.total)),
        np.concatenate((earlier.count, later.count)),
    )


def _split(seconds: Seconds, at: int) -> tuple[Seconds, Seconds]:
    columns = (seconds.second, seconds.total, seconds.count)
    return Seconds(*(c[:at] for c in columns)), Seconds(*(c[at:] for c in columns))


# --- the two machines ---------------------------------------------------------------------


class _Machine:
    """Steps a rule's state second by second."""

    def __init__(self, rule: AlertRule, state: RuleState) -> None:
        self.state = state
        self._rule = rule
        self._last_s = int(state.history.second[-1]) if len(state.history) else None

    @property
    def _quiet(self) -> bool:
        """Whether nothing is raised and nothing is about to be."""
        return self.state.raised_at_s is None and self.state.pending_since_s is None

    def run_limit(
        self, rule: LimitRule, channel: Channel, seconds: Seconds
    ) -> Iterator[Transition]:
        """Step over `seconds` and yield what begins and ends."""
        if len(seconds) == 0:
            return
        sign = 1.0 if rule.direction is Direction.ABOVE else -1.0
        values = _means(channel, seconds.total, seconds.count)
        wrong = sign * (values - rule.limit) > 0
        back = sign * (values - rule.clear) <= 0
        if self._quiet and not wrong.any():
            self._last_s = int(seconds.second[-1])
            return
        for now_s, value, is_wrong, is_back in zip(
            *(column.tolist() for column in (seconds.second, values, wrong, back)), strict=True
        ):
            yield from self._step(now_s, value, rule.limit, wrong=is_wrong, back=is_back)

    def run_deviation(
        self, rule: DeviationRule, channel: Channel, window: Seconds, first: int
    ) -> Iterator[Transition]:
        """Step over the seconds of `window` from index `first` on."""
        second = window.second
        now = second[first:]
        if len(now) == 0:
            return
        sign = 1.0 if rule.direction is Direction.ABOVE else -1.0
        recent_from = np.searchsorted(second, now - rule.window_s, side="right")
        base_from = np.searchsorted(second, now - rule.lag_s - rule.baseline_s, side="right")
        base_to = np.searchsorted(second, now - rule.lag_s, side="right")
        recent = _window_means(channel, window, recent_from, np.arange(first, len(second)) + 1)
        baseline = _window_means(channel, window, base_from, base_to)
        known = (
            (base_to > base_from)
            & (now - rule.lag_s - second[base_from] >= rule.coverage_ratio * rule.baseline_s)
            & (now - second[recent_from] >= rule.coverage_ratio * rule.window_s)
            & (baseline != 0)
        )
        baseline[~known] = np.nan
        wrong = sign * (recent - baseline) / np.abs(baseline) > rule.deviation_ratio
        if self._quiet and not wrong.any():
            self._last_s = int(now[-1])
            return
        for now_s, value, usual in zip(
            now.tolist(), recent.tolist(), baseline.tolist(), strict=True
        ):
            yield from self._step_deviation(rule, sign, now_s, value, usual)

    def _step_deviation(
        self, rule: DeviationRule, sign: float, now_s: int, value: float, usual: float
    ) -> Iterator[Transition]:
        """Judge one second's `value` against its baseline, `usual` (NaN where there is none)."""
        held, raised_at_s = self.state.frozen_baseline, self.state.raised_at_s
        if raised_at_s is not None and held is not None and now_s - raised_at_s < rule.relearn_s:
            usual = held
        ratio = sign * (value - usual) / abs(usual)
        wrong = ratio > rule.deviation_ratio
        if wrong and held is None:
            held = usual
            self.state = replace(self.state, frozen_baseline=held)
        limit = (usual if held is None else held) * (1 + sign * rule.deviation_ratio)
        # Without a baseline the ratio is NaN: neither wrong, nor a reason to go on.
        back = not ratio >= rule.clear_ratio
        yield from self._step(now_s, value, limit, wrong=wrong, back=back)

    def _step(
        self, now_s: int, value: float, limit: float, *, wrong: bool, back: bool
    ) -> Iterator[Transition]:
        rule, state = self._rule, self.state
        pending, raised, clearing = (
            state.pending_since_s,
            state.raised_at_s,
            state.clearing_since_s,
        )
        if self._last_s is not None and now_s - self._last_s > rule.gap_s_max:
            pending = clearing = None
        self._last_s = now_s
        if raised is None:
            pending = (now_s if pending is None else pending) if wrong else None
            if pending is not None and now_s - pending >= rule.hold_s:
                raised = now_s
                yield Raised(now_s, pending, value, limit)
        else:
            clearing = (now_s if clearing is None else clearing) if back else None
            if clearing is not None and now_s - clearing >= rule.clear_hold_s:
                pending = raised = clearing = None
                yield Cleared(now_s, value)
        self.state = replace(
            self.state,
            pending_since_s=pending,
            raised_at_s=raised,
            clearing_since_s=clearing,
            frozen_baseline=None if pending is None else self.state.frozen_baseline,
        )


def _means(channel: Channel, total: IntArray, count: IntArray) -> FloatArray:
    step = (channel.physical_max - channel.physical_min) * QUANTUM
    means: FloatArray = channel.physical_min + total / np.maximum(count, 1) * step
    return means


def _window_means(
    channel: Channel, seconds: Seconds, start: npt.NDArray[np.intp], end: npt.NDArray[np.intp]
) -> FloatArray:
    """Return the means of ``seconds[start[i]:end[i]]``, exact integer sums divided once."""
    totals, counts = (
        np.concatenate((np.zeros(1, np.int64), np.cumsum(column)))
        for column in (seconds.total, seconds.count)
    )
    return _means(channel, totals[end] - totals[start], counts[end] - counts[start])
