"""Alert rules: what begins and ends an alert, on made-up readings and on labelled recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.asset_model import (
    AlertRule,
    Channel,
    DeviationRule,
    Direction,
    LimitRule,
    Severity,
)
from domain.frames import FloatArray, IntArray
from projections.alerts.policy import pack_state
from projections.alerts.rule_states import INITIAL, Cleared, Raised, RuleState, Transition
from projections.alerts.rules import advance, advance_all
from tests.projections.loop_frames import PUMP_LOOP, SECOND_NS, si
from tests.recordings import read_labels, read_skab

VALVES = [f"valve1/{n}" for n in range(16)] + [f"valve2/{n}" for n in range(4)]
FLOW_LOW = {f"valve1/{n}" for n in (5, 7, *range(9, 16))} | {"valve2/1", "valve2/3"}
RULES = {rule.name: rule for rule in PUMP_LOOP.alert_rules}

LEVEL = Channel(
    name="level",
    title="Level",
    quantity="ratio",
    input_unit="1",
    physical_min=0.0,
    physical_max=128.0,
)
HIGH = LimitRule(
    name="level_high",
    channel="level",
    severity=Severity.WARNING,
    direction=Direction.ABOVE,
    message="level is high",
    limit=100.0,
    clear=90.0,
    hold_s=3,
    clear_hold_s=2,
    gap_s_max=10,
)
LOW = replace(HIGH, name="level_low", direction=Direction.BELOW, limit=10.0, clear=20.0)
DROP = DeviationRule(
    name="level_drops",
    channel="level",
    severity=Severity.WARNING,
    direction=Direction.BELOW,
    message="level drops",
    deviation_ratio=0.1,
    clear_ratio=0.05,
    window_s=5,
    baseline_s=20,
    lag_s=5,
    hold_s=3,
    clear_hold_s=2,
    relearn_s=60,
    gap_s_max=10,
)


def run(
    rule: AlertRule,
    values: Sequence[float],
    seconds: Sequence[float] | None = None,
    state: RuleState = INITIAL,
) -> tuple[RuleState, tuple[Transition, ...]]:
    """Return what `values`, one a second unless `seconds` says otherwise, make of `rule`."""
    moments = range(len(values)) if seconds is None else seconds
    times = np.array([round(s * SECOND_NS) for s in moments], np.int64)
    return advance(rule, LEVEL, state, times, np.array(values, np.float64))


def told(rule: AlertRule, *args: Any) -> list[Transition]:
    return list(run(rule, *args)[1])


# --- limits -------------------------------------------------------------------------------


def test_an_alert_is_raised_once_the_value_was_beyond_its_limit_for_hold_s() -> None:
    # The second of a reading is complete, and judged, when a later second begins.
    assert told(HIGH, [50, 101, 102, 103, 104]) == []
    assert told(HIGH, [50, 101, 102, 103, 104, 50]) == [Raised(4, 1, 104.0, 100.0)]


def test_the_limit_itself_is_not_beyond_the_limit() -> None:
    assert told(HIGH, [100.0] * 9) == []
    assert told(LOW, [10.0] * 9) == []


def test_a_rule_below_looks_the_other_way() -> None:
    assert told(LOW, [9.0] * 5) == [Raised(3, 0, 9.0, 10.0)]
    assert told(LOW, [101.0] * 9) == []


def test_one_second_within_the_limit_starts_the_hold_anew() -> None:
    assert told(HIGH, [101, 101, 101, 99, 101, 101, 101, 50]) == []


def test_an_alert_clears_once_the_value_was_back_for_clear_hold_s() -> None:
    raised = [101.0] * 4
    assert told(HIGH, [*raised, 90, 90, 90]) == [Raised(3, 0, 101.0, 100.0)]
    assert told(HIGH, [*raised, 90, 90, 90, 50])[1:] == [Cleared(6, 90.0)]


def test_between_limit_and_clear_nothing_changes() -> None:
    assert told(HIGH, [*[101.0] * 4, *[95.0] * 50]) == [Raised(3, 0, 101.0, 100.0)]
    assert told(HIGH, [95.0] * 50) == []
    again = [*[101.0] * 4, 90, 90, 95, 90, 90, 95, 101, 101, 101, 101, 101]
    assert told(HIGH, again) == [Raised(3, 0, 101.0, 100.0)]


def test_a_cleared_alert_is_raised_again() -> None:
    found = told(HIGH, [*[101.0] * 4, *[50.0] * 3, *[102.0] * 4, 50])
    assert found == [
        Raised(3, 0, 101.0, 100.0),
        Cleared(6, 50.0),
        Raised(10, 7, 102.0, 100.0),
    ]


def test_a_second_is_judged_by_the_mean_of_its_readings() -> None:
    quarters = [n / 4 for n in range(40)]
    assert told(HIGH, [80.0, 119.0] * 20, quarters) == []
    assert told(HIGH, [80.0, 121.0] * 20, quarters) == [Raised(3, 0, 100.5, 100.0)]


def test_the_hold_does_not_outlast_a_gap() -> None:
    seconds = [0, 1, 2, 20, 21, 22, 23, 24]
    assert told(HIGH, [101.0] * 8, seconds) == [Raised(23, 20, 101.0, 100.0)]
    within = [0, 1, 11, 12]
    assert told(HIGH, [101.0] * 4, within) == [Raised(11, 0, 101.0, 100.0)]


def test_the_way_back_does_not_outlast_a_gap() -> None:
    values = [101.0] * 4 + [50.0] * 4
    found = told(HIGH, values, [0, 1, 2, 3, 4, 20, 21, 30])
    assert found == [Raised(3, 0, 101.0, 100.0)]
    assert told(HIGH, values, [0, 1, 2, 3, 4, 20, 22, 30])[1:] == [Cleared(22, 50.0)]


def test_late_readings_do_not_change_the_past() -> None:
    state, transitions = run(HIGH, [50.0] * 10)
    assert transitions == ()
    later, transitions = run(HIGH, [101.0] * 9, range(9), state)
    assert transitions == ()
    assert pack_state(later) == pack_state(state)


def test_a_frame_that_overlaps_counts_only_from_the_open_second_on() -> None:
    state, _ = run(HIGH, [101.0] * 3)
    _, transitions = run(HIGH, [0.0, 0.0, 101.0, 101.0, 101.0], range(5), state)
    assert transitions == (Raised(3, 0, 101.0, 100.0),)


def test_no_readings_change_nothing() -> None:
    state, _ = run(HIGH, [101.0] * 3)
    assert run(HIGH, [], [], state) == (state, ())


# --- deviations ---------------------------------------------------------------------------


def test_a_steady_value_and_a_slow_drift_raise_nothing() -> None:
    assert told(DROP, [100.0] * 200) == []
    assert told(DROP, [100.0 - 0.01 * n for n in range(1000)]) == []


def test_a_drop_is_raised_against_the_value_s_own_past_and_clears_with_it() -> None:
    found = told(DROP, [100.0] * 60 + [80.0] * 20 + [100.0] * 20)
    assert len(found) == 2
    raised, cleared = found
    assert isinstance(raised, Raised)
    assert isinstance(cleared, Cleared)
    # Three of the five newest seconds make 88, more than a tenth under 100.
    assert (raised.since_s, raised.at_s) == (62, 65)
    assert (raised.value, raised.limit) == (80.0, 90.0)
    # At 83 four of five seconds are back: 96, closer than a twentieth.
    assert cleared == Cleared(85, 100.0)


def test_a_rise_is_no_drop() -> None:
    assert told(DROP, [100.0] * 60 + [127.0] * 60) == []


def test_without_enough_past_nothing_is_raised() -> None:
    assert told(DROP, [100.0] * 15 + [50.0] * 5) == []
    assert told(DROP, [50.0] * 200) == []


def test_the_level_reached_becomes_the_new_normal() -> None:
    found = told(DROP, [100.0] * 60 + [80.0] * 200)
    assert [type(transition) for transition in found] == [Raised, Cleared]
    assert found[1] == Cleared(65 + DROP.relearn_s + DROP.clear_hold_s, 80.0)


def test_while_the_alert_stands_its_baseline_stands_still() -> None:
    # Thirty seconds in, the last twenty seconds' mean is 80 itself; the drop still stands.
    assert len(told(DROP, [100.0] * 60 + [80.0] * 40)) == 1


# --- cut anywhere -------------------------------------------------------------------------


def flow_of(name: str) -> tuple[IntArray, FloatArray]:
    recording = read_skab(name)
    return recording.times_ns, si("flow", recording.values["flow"])


flow = cache(flow_of)


@settings(max_examples=60)
@given(
    name=st.sampled_from(["valve1/2", "valve1/7", "valve1/12", "valve2/1"]),
    rule=st.sampled_from(sorted(RULES)),
    cuts=st.lists(st.integers(0, 1200), max_size=30),
    readings_a_second=st.sampled_from([1, 3]),
)
def test_the_outcome_does_not_depend_on_how_readings_are_cut_into_frames(
    name: str, rule: str, cuts: list[int], readings_a_second: int
) -> None:
    times, values = flow(name)
    steps = np.arange(readings_a_second) * (SECOND_NS // readings_a_second)
    times = (times[:, None] + steps).ravel()
    values = (values[:, None] * (1 + 1e-3 * np.arange(readings_a_second))).ravel()
    channel = PUMP_LOOP.channel("flow")
    whole, expected = advance(RULES[rule], channel, INITIAL, times, values)
    state, found = INITIAL, list[Transition]()
    places = sorted({cut * readings_a_second + cut % readings_a_second for cut in cuts})
    for some_times, some_values in zip(
        np.split(times, places), np.split(values, places), strict=True
    ):
        state, transitions = advance(RULES[rule], channel, state, some_times, some_values)
        found += transitions
    assert tuple(found) == expected
    assert pack_state(state) == pack_state(whole)


@settings(max_examples=60)
@given(data=st.data(), rule=st.sampled_from([HIGH, LOW, DROP]))
def test_many_assets_and_frames_at_once_are_as_each_frame_alone(
    data: st.DataObject, rule: AlertRule
) -> None:
    frames = [
        [data.draw(level_frames()) for _ in range(data.draw(st.integers(0, 5)))]
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    together = [INITIAL] * len(frames)
    for cut in (slice(None, 2), slice(2, None)):
        advanced = advance_all(rule, LEVEL, together, [some[cut] for some in frames])
        for asset, some in enumerate(frames):
            state, expected = together[asset], []
            for place, readings in enumerate(some[cut]):
                state, transitions = advance(rule, LEVEL, state, *readings)
                expected += [(place, transition) for transition in transitions]
            found = advanced[asset]
            assert list(zip(found.told_by, found.transitions, strict=True)) == expected
            assert pack_state(found.state) == pack_state(state)
        together = [found.state for found in advanced]


@st.composite
def level_frames(draw: st.DrawFn) -> tuple[IntArray, FloatArray]:
    """Return one to forty readings, late ones and gaps among them."""
    count, start = draw(st.integers(1, 40)), draw(st.integers(0, 150))
    step_s = draw(st.sampled_from([0.5, 1, 1, 3]))
    levels = draw(st.lists(st.sampled_from([5.0, 50.0, 90.0, 101.0]), min_size=1, max_size=4))
    times_s = start + np.arange(count) * step_s
    return (times_s * SECOND_NS).astype(np.int64), np.resize(np.repeat(levels, 7), count)


@settings(max_examples=60)
@given(
    rule=st.sampled_from([HIGH, LOW, DROP]),
    stretches=st.lists(
        st.tuples(
            st.sampled_from([5.0, 50.0, 78.0, 82.0, 90.0, 95.0, 100.0, 101.0]),
            st.integers(1, 90),
            st.sampled_from([1, 1, 1, 2, 40]),
        ),
        min_size=1,
        max_size=12,
    ),
)
def test_seconds_of_a_standing_alert_are_looked_at_together_as_each_alone(
    rule: AlertRule, stretches: list[tuple[float, int, int]]
) -> None:
    values = np.repeat([level for level, _, _ in stretches], [n for _, n, _ in stretches])
    steps_s = np.repeat([step_s for _, _, step_s in stretches], [n for _, n, _ in stretches])
    times = np.cumsum(steps_s, dtype=np.int64) * SECOND_NS
    outcomes = []
    for uneventful_steps in (0, 3, 10**9):
        with pytest.MonkeyPatch.context() as changed:
            changed.setattr("projections.alerts.rule_machine._UNEVENTFUL_STEPS", uneventful_steps)
            changed.setattr("projections.alerts.rule_machine._LOOKED_AHEAD", 16)
            state, found = advance(rule, LEVEL, INITIAL, times, values)
        outcomes.append((found, pack_state(state)))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_frame_of_one_second_has_nothing_to_judge_yet() -> None:
    (found,) = advance_all(HIGH, LEVEL, [INITIAL], [[(np.array([5]), np.array([101.0]))]])
    assert (found.transitions, len(found.state.history), found.state.newest_s) == ((), 0, 0)


# --- labelled recordings ------------------------------------------------------------------


def raised_s(rule: str, name: str) -> list[int]:
    """Return the times at which `rule` raises its alert on the recording `name`."""
    _, transitions = advance(RULES[rule], PUMP_LOOP.channel("flow"), INITIAL, *flow(name))
    return [told.at_s for told in transitions if isinstance(told, Raised)]


@pytest.mark.parametrize("name", VALVES)
def test_every_labelled_valve_fault_raises_flow_restricted_once_and_in_time(name: str) -> None:
    labels = read_labels(name)
    raised = raised_s("flow_restricted", name)
    assert len(raised) == 1
    assert labels[0] <= raised[0] <= labels[-1] + 120


@pytest.mark.parametrize("name", VALVES)
def test_a_valve_that_closes_far_raises_flow_low_within_its_label(name: str) -> None:
    labels = read_labels(name)
    raised = raised_s("flow_low", name)
    assert len(raised) == (name in FLOW_LOW)
    assert all(labels[0] <= at <= labels[-1] + 120 for at in raised)


def test_the_run_without_a_fault_raises_no_more_than_is_documented() -> None:
    name = "anomaly-free/anomaly-free"
    assert len(raised_s("flow_low", name)) == 0
    # 2.8 hours; docs/projections.md says so.
    assert len(raised_s("flow_restricted", name)) == 2
