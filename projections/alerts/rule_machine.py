"""An alert rule stepped through the seconds of one asset: pending, raised, clearing, gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from domain.asset_model import AlertRule, DeviationRule, Direction, LimitRule
from domain.frames import FloatArray, IntArray
from projections.alerts.rule_states import Cleared, Raised, RuleState, Transition

_UNEVENTFUL_STEPS: Final = 8
"""After so many seconds that say nothing new of a standing alert, many are looked at together."""

_LOOKED_AHEAD: Final = 512


def sign(rule: AlertRule) -> float:
    """Return 1 where what is above the limit is wrong, and -1 where what is below it."""
    return 1.0 if rule.direction is Direction.ABOVE else -1.0


class Machine:
    """Steps one asset's state of a rule from second to second where there is something to see."""

    def __init__(self, rule: AlertRule, state: RuleState) -> None:
        self.pending_since_s = state.pending_since_s
        self.raised_at_s = state.raised_at_s
        self.clearing_since_s = state.clearing_since_s
        self.frozen_baseline = state.frozen_baseline
        self.transitions: list[Transition] = []
        self._rule = rule
        self._sign = sign(rule)
        self._last_s = int(state.history.second[-1]) if len(state.history) else None

    @property
    def quiet(self) -> bool:
        """Whether nothing is raised and nothing is about to be."""
        return self.raised_at_s is None and self.pending_since_s is None

    @property
    def _standing(self) -> bool:
        """Whether an alert stands, and nothing speaks for its end yet."""
        return self.raised_at_s is not None and self.clearing_since_s is None

    def run(
        self, seconds: IntArray, values: FloatArray, usual: FloatArray, wrong: Sequence[int]
    ) -> None:
        """Step over `seconds`; `wrong` are the places that may end a quiet stretch, ascending."""
        second_at, value_at, usual_at = seconds.tolist(), values.tolist(), usual.tolist()
        ahead = iter(wrong)
        next_wrong = next(ahead, len(second_at))
        place = uneventful = 0
        while place < len(second_at):
            if self.quiet:
                while next_wrong < place:
                    next_wrong = next(ahead, len(second_at))
                if next_wrong > place:
                    place = next_wrong
                    self._last_s = second_at[place - 1]
                    continue
            elif self._standing and uneventful >= _UNEVENTFUL_STEPS:
                part = slice(place, place + _LOOKED_AHEAD)
                unchanged = self._unchanged(seconds[part], values[part], usual[part])
                uneventful = 0
                if unchanged:
                    place += unchanged
                    self._last_s = second_at[place - 1]
                    continue
            match self._rule:
                case LimitRule() as rule:
                    self._step_limit(rule, second_at[place], value_at[place])
                case DeviationRule() as rule:
                    self._step_deviation(rule, second_at[place], value_at[place], usual_at[place])
            place += 1
            uneventful = uneventful + 1 if self._standing else 0

    def _unchanged(self, seconds: IntArray, values: FloatArray, usual: FloatArray) -> int:
        """Return over how many of `seconds` an alert that stands goes on standing unchanged.

        None of them speaks for its end, and none follows a gap; so stepping over them would
        change nothing but the latest second.
        """
        raised_at_s, held = self.raised_at_s, self.frozen_baseline
        assert raised_at_s is not None, "an alert stands"
        match self._rule:
            case LimitRule() as rule:
                told = self._sign * (values - rule.clear) <= 0
            case DeviationRule() as rule:
                if held is not None:
                    usual = np.where(seconds - raised_at_s < rule.relearn_s, held, usual)
                told = ~(self._sign * (values - usual) / np.abs(usual) >= rule.clear_ratio)
        before_s = seconds[0] if self._last_s is None else self._last_s
        told |= np.diff(seconds, prepend=before_s) > self._rule.gap_s_max
        return int(told.argmax()) if told.any() else len(told)

    def _step_limit(self, rule: LimitRule, now_s: int, value: float) -> None:
        wrong = self._sign * (value - rule.limit) > 0
        back = self._sign * (value - rule.clear) <= 0
        self._step(now_s, value, rule.limit, wrong=wrong, back=back)

    def _step_deviation(self, rule: DeviationRule, now_s: int, value: float, usual: float) -> None:
        """Judge one second's `value` against its baseline, `usual` (NaN where there is none)."""
        held, raised_at_s = self.frozen_baseline, self.raised_at_s
        if raised_at_s is not None and held is not None and now_s - raised_at_s < rule.relearn_s:
            usual = held
        ratio = self._sign * (value - usual) / abs(usual)
        wrong = ratio > rule.deviation_ratio
        if wrong and held is None:
            held = self.frozen_baseline = usual
        limit = (usual if held is None else held) * (1 + self._sign * rule.deviation_ratio)
        # Without a baseline the ratio is NaN: neither wrong, nor a reason to go on.
        back = not ratio >= rule.clear_ratio
        self._step(now_s, value, limit, wrong=wrong, back=back)

    def _step(self, now_s: int, value: float, limit: float, *, wrong: bool, back: bool) -> None:
        rule = self._rule
        if self._last_s is not None and now_s - self._last_s > rule.gap_s_max:
            self.pending_since_s = self.clearing_since_s = None
        self._last_s = now_s
        if self.raised_at_s is None:
            if not wrong:
                self.pending_since_s = None
            elif self.pending_since_s is None:
                self.pending_since_s = now_s
            if self.pending_since_s is not None and now_s - self.pending_since_s >= rule.hold_s:
                self.raised_at_s = now_s
                self.transitions.append(Raised(now_s, self.pending_since_s, value, limit))
        else:
            if not back:
                self.clearing_since_s = None
            elif self.clearing_since_s is None:
                self.clearing_since_s = now_s
            if (
                self.clearing_since_s is not None
                and now_s - self.clearing_since_s >= rule.clear_hold_s
            ):
                self.pending_since_s = self.raised_at_s = self.clearing_since_s = None
                self.transitions.append(Cleared(now_s, value))
        if self.pending_since_s is None:
            self.frozen_baseline = None
