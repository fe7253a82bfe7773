"""Alert rules as they run: from a channel's readings to the moments an alert begins and ends.

Readings are first made into means of whole seconds, over GOOD readings alone, and a rule is
evaluated as each second completes, that is when a reading of a later second arrives. Sums are
kept as integers of `QUANTUM` times the channel's range, so that the outcome depends on the
readings alone and never on how they were cut into frames. Late readings, older than what a rule
has seen, do not change the past: an alert speaks of now.

Many assets advance at once: their seconds stand one behind the other in common columns, and only
where a condition holds, or an alert stands, is an asset stepped through second by second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from domain.asset_model import AlertRule, Channel, DeviationRule, Direction, LimitRule
from domain.frames import FloatArray, IntArray
from projections.alerts.rule_machine import Machine, sign
from projections.alerts.rule_states import NO_SECONDS, RuleState, Seconds, Transition

QUANTUM: Final = 2.0**-32
SECOND_NS: Final = 1_000_000_000

ROWS_AT_ONCE: Final = 4_000
"""Seconds and readings judged in one go: columns that stay in the processor's cache."""

_SECOND_BITS: Final = 36
_SECOND_ZERO: Final = 1 << 35  # int64 nanoseconds reach no further than 2**34 s either way


Readings = tuple[IntArray, FloatArray]
"""GOOD readings of a frame: increasing times in ns and SI values, both of shape (n,)."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """A rule's state after some frames, and the alerts that began and ended by them.

    `told_by` names for each transition the frame, by its place, that completed its second.
    """

    state: RuleState
    transitions: tuple[Transition, ...] = ()
    told_by: tuple[int, ...] = ()


def advance(
    rule: AlertRule, channel: Channel, state: RuleState, times_ns: IntArray, values: FloatArray
) -> tuple[RuleState, tuple[Transition, ...]]:
    """Return the state after the GOOD readings of one frame, and what began and ended by them.

    Parameters
    ----------
    times_ns, values : shape (n,), increasing times and SI values
    """
    (advanced,) = advance_all(rule, channel, [state], [[(times_ns, values)]])
    return advanced.state, advanced.transitions


def advance_all(
    rule: AlertRule,
    channel: Channel,
    states: Sequence[RuleState],
    frames: Sequence[Sequence[Readings]],
) -> list[Advanced]:
    """Return for each asset what its frames, in the log's order, make of its state of `rule`."""
    results: list[Advanced] = []
    start = rows = 0
    for end, (state, some) in enumerate(zip(states, frames, strict=True), 1):
        rows += len(state.history) + sum(len(times_ns) for times_ns, _ in some)
        if rows >= ROWS_AT_ONCE or end == len(states):
            results += _advance_some(rule, channel, states[start:end], frames[start:end])
            start, rows = end, 0
    return results


def _advance_some(
    rule: AlertRule,
    channel: Channel,
    states: Sequence[RuleState],
    frames: Sequence[Sequence[Readings]],
) -> list[Advanced]:
    results = [Advanced(state) for state in states]
    arrivals = [_in_time(state.newest_s, some) for state, some in zip(states, frames, strict=True)]
    places = [n for n, arrived in enumerate(arrivals) if arrived.readings]
    if not places:
        return results
    looked_at = [_without_past(rule, channel, states[n], arrivals[n].readings) for n in places]
    before = [state for state, _ in looked_at]
    arrived = _arrived(channel, before, [readings for _, readings in looked_at])
    newest = np.append(np.flatnonzero(np.diff(arrived.key >> _SECOND_BITS)), len(arrived.key) - 1)
    still_open = arrived.at(newest)
    completed = np.ones(len(arrived.key), np.bool_)
    completed[newest] = False
    window = _joined([_of_states([state.history for state in before]), arrived.at(completed)])
    judged = _judged(rule, channel, before, window)
    ends = np.searchsorted(window.key, _keys(np.arange(1, len(places) + 1), -_SECOND_ZERO))
    kept = _kept_from(rule, window, ends)
    for n, (place, start, end) in enumerate(zip(places, kept.tolist(), ends.tolist(), strict=True)):
        machine = judged[n]
        results[place] = Advanced(
            RuleState(
                window.seconds(start, end),
                still_open.seconds(n, n + 1),
                machine.pending_since_s,
                machine.raised_at_s,
                machine.clearing_since_s,
                machine.frozen_baseline,
            ),
            tuple(machine.transitions),
            tuple(arrivals[place].completing(told.at_s) for told in machine.transitions),
        )
    return results


def _kept_from(rule: AlertRule, window: _Columns, ends: IntArray) -> IntArray:
    """Return for each asset the first row of `window` that later seconds are compared with."""
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    kept_s = rule.lag_s + rule.baseline_s if isinstance(rule, DeviationRule) else 0
    held = ends > starts
    kept = starts.copy()
    kept[held] = np.searchsorted(window.key, window.key[ends[held] - 1] - kept_s)
    return np.maximum(kept, starts)


# --- arrival ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Arrivals:
    """The readings of an asset's frames that are not late, and how far each frame took time."""

    readings: list[Readings]
    newest_s: list[int | None]

    def completing(self, second: int) -> int:
        """Return the place of the frame that brought the first reading after `second`."""
        return next(
            n
            for n, newest_s in enumerate(self.newest_s)
            if newest_s is not None and newest_s > second
        )


def _in_time(newest_s: int | None, frames: Sequence[Readings]) -> _Arrivals:
    arrivals = _Arrivals([], [])
    for times_ns, values in frames:
        if newest_s is not None and len(times_ns) and times_ns[0] < newest_s * SECOND_NS:
            start = int(np.searchsorted(times_ns, newest_s * SECOND_NS))
            times_ns, values = times_ns[start:], values[start:]
        if len(times_ns):
            newest_s = int(times_ns[-1]) // SECOND_NS
            arrivals.readings.append((times_ns, values))
        arrivals.newest_s.append(newest_s)
    return arrivals


def _without_past(
    rule: AlertRule, channel: Channel, state: RuleState, readings: list[Readings]
) -> tuple[RuleState, list[Readings]]:
    """Return what of `readings` still matters to `rule`.

    A limit that no reading comes near changes nothing but the two newest seconds: no mean of
    readings on one side of it lies on the other.
    """
    if not isinstance(rule, LimitRule) or not (
        state.raised_at_s is None and state.pending_since_s is None
    ):
        return state, readings
    times_ns, values = readings[-1]
    newest_at = int(np.searchsorted(times_ns, times_ns[-1] // SECOND_NS * SECOND_NS))
    if newest_at == 0:
        return state, readings
    start = int(np.searchsorted(times_ns, times_ns[newest_at - 1] // SECOND_NS * SECOND_NS))
    means = _means(channel, state.open.total, state.open.count)
    columns = [means, *(some for _, some in readings)]
    if rule.direction is Direction.ABOVE:
        margin = rule.limit - max(column.max(initial=-np.inf) for column in columns)
    else:
        margin = min(column.min(initial=np.inf) for column in columns) - rule.limit
    # Quanta round a mean by half of one at most.
    if start == 0 or not margin > (channel.physical_max - channel.physical_min) * QUANTUM:
        return state, readings
    return replace(state, open=NO_SECONDS), [(times_ns[start:], values[start:])]


# --- seconds of many assets ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Columns:
    """Seconds of several assets, one asset after the other: `key` holds asset and second."""

    key: IntArray
    total: IntArray
    count: IntArray

    @property
    def second(self) -> IntArray:
        return (self.key & ((1 << _SECOND_BITS) - 1)) - _SECOND_ZERO

    def at(self, rows: IntArray | npt.NDArray[np.bool_]) -> _Columns:
        return _Columns(self.key[rows], self.total[rows], self.count[rows])

    def seconds(self, start: int, end: int) -> Seconds:
        key = self.key[start:end]
        second = (key & ((1 << _SECOND_BITS) - 1)) - _SECOND_ZERO
        return Seconds(second, self.total[start:end].copy(), self.count[start:end].copy())


def _keys(asset: IntArray, second: IntArray | int) -> IntArray:
    return (asset << _SECOND_BITS) + (second + _SECOND_ZERO)


def _of_states(parts: Sequence[Seconds]) -> _Columns:
    asset = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return _Columns(
        _keys(asset, np.concatenate([part.second for part in parts])),
        np.concatenate([part.total for part in parts]),
        np.concatenate([part.count for part in parts]),
    )


def _joined(parts: Sequence[_Columns]) -> _Columns:
    """Return the rows of all `parts` by asset and second."""
    joined = _Columns(
        np.concatenate([part.key for part in parts]),
        np.concatenate([part.total for part in parts]),
        np.concatenate([part.count for part in parts]),
    )
    return joined.at(np.argsort(joined.key, kind="stable"))


def _arrived(
    channel: Channel, states: Sequence[RuleState], readings: Sequence[Sequence[Readings]]
) -> _Columns:
    """Return the seconds that readings fell into, the open ones of `states` among them."""
    times_ns = np.concatenate([times for some in readings for times, _ in some])
    values = np.concatenate([values for some in readings for _, values in some])
    lengths = [sum(len(times) for times, _ in some) for some in readings]
    step = (channel.physical_max - channel.physical_min) * QUANTUM
    arrived = _joined(
        [
            _of_states([state.open for state in states]),
            _Columns(
                _keys(np.repeat(np.arange(len(states)), lengths), times_ns // SECOND_NS),
                np.rint((values - channel.physical_min) / step).astype(np.int64),
                np.ones(len(values), np.int64),
            ),
        ]
    )
    starts = np.flatnonzero(np.diff(arrived.key, prepend=-1))
    return _Columns(
        arrived.key[starts],
        np.add.reduceat(arrived.total, starts),
        np.add.reduceat(arrived.count, starts),
    )


# --- judgement ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Levels:
    """What is held against a rule's limit in each new second, shape (n,); SI.

    `usual` is what `value` is compared with, NaN where nothing is known to compare with; `wrong`
    says whether it is beyond the limit while no alert stands or is about to.
    """

    value: FloatArray
    usual: FloatArray
    wrong: npt.NDArray[np.bool_]


def _judged(
    rule: AlertRule, channel: Channel, states: Sequence[RuleState], window: _Columns
) -> list[Machine]:
    """Return the machine of each asset after the seconds of `window` beyond its history."""
    asset, place = window.key >> _SECOND_BITS, np.arange(len(window.key))
    starts = np.searchsorted(asset, np.arange(len(states)))
    new_from = starts + np.array([len(state.history) for state in states])
    new = np.flatnonzero(place >= new_from[asset])
    match rule:
        case LimitRule():
            levels = _limit_levels(rule, channel, window.at(new))
        case DeviationRule():
            levels = _deviation_levels(rule, channel, window, new)
    machines = [Machine(rule, state) for state in states]
    bounds = np.searchsorted(asset[new], np.arange(len(states) + 1))
    wrong = np.flatnonzero(levels.wrong)
    wrong_bounds = np.searchsorted(wrong, bounds).tolist()
    second = window.second[new]
    for n, (machine, start, end) in enumerate(
        zip(machines, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ):
        wrong_at = wrong[wrong_bounds[n] : wrong_bounds[n + 1]] - start
        if len(wrong_at) or not machine.quiet:
            machine.run(
                second[start:end],
                levels.value[start:end],
                levels.usual[start:end],
                wrong_at.tolist(),
            )
    return machines


def _limit_levels(rule: LimitRule, channel: Channel, seconds: _Columns) -> _Levels:
    value = _means(channel, seconds.total, seconds.count)
    wrong = sign(rule) * (value - rule.limit) > 0
    return _Levels(value, np.full(len(value), rule.limit), wrong)


def _deviation_levels(
    rule: DeviationRule, channel: Channel, window: _Columns, new: IntArray
) -> _Levels:
    # Keys of an asset's seconds differ as the seconds do, and no window reaches another asset's.
    key = window.key
    now = key[new]
    recent_from = np.searchsorted(key, now - rule.window_s, side="right")
    base_from = np.searchsorted(key, now - rule.lag_s - rule.baseline_s, side="right")
    base_to = np.searchsorted(key, now - rule.lag_s, side="right")
    recent = _window_means(channel, window, recent_from, new + 1)
    baseline = _window_means(channel, window, base_from, base_to)
    known = (
        (base_to > base_from)
        & (now - rule.lag_s - key[base_from] >= rule.coverage_ratio * rule.baseline_s)
        & (now - key[recent_from] >= rule.coverage_ratio * rule.window_s)
        & (baseline != 0)
    )
    baseline[~known] = np.nan
    wrong = sign(rule) * (recent - baseline) / np.abs(baseline) > rule.deviation_ratio
    return _Levels(recent, baseline, wrong)


def _means(channel: Channel, total: IntArray, count: IntArray) -> FloatArray:
    step = (channel.physical_max - channel.physical_min) * QUANTUM
    means: FloatArray = channel.physical_min + total / np.maximum(count, 1) * step
    return means


def _window_means(
    channel: Channel, seconds: _Columns, start: npt.NDArray[np.intp], end: npt.NDArray[np.intp]
) -> FloatArray:
    """Return the means of ``seconds[start[i]:end[i]]``, exact integer sums divided once."""
    totals, counts = (
        np.concatenate((np.zeros(1, np.int64), np.cumsum(column)))
        for column in (seconds.total, seconds.count)
    )
    return _means(channel, totals[end] - totals[start], counts[end] - counts[start])
