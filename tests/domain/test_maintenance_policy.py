"""Which evidence opens a work order, how urgent it is, when it is to be done, how it came out."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from domain.asset import AlertRaised
from domain.asset_model import Severity
from domain.asset_types import asset_types
from domain.identifiers import check_identifier
from domain.maintenance.policy import (
    CRITICAL_S,
    HOUR_S,
    LATE_S_MAX,
    POLICIES,
    WARNING_S,
    Evidence,
    MaintenancePolicy,
    MaintenanceWindow,
    Urgency,
    Verdict,
    failure_mode_of,
    is_history,
    judge,
    outcome_of,
    plan,
    policy_of,
    source_of,
    title_of,
    urgency,
    within_s,
)
from domain.maintenance.work_order import Finding, WorkOrderCompleted
from domain.opinions.prediction import FailurePredicted, Outcome, RemainingLifePredicted

MONDAY = datetime(2026, 3, 9, 12, 0, tzinfo=UTC)
POLICY = MaintenancePolicy(
    open_probability=0.8,
    rearm_probability=0.5,
    open_remaining_s=100 * HOUR_S,
    rearm_remaining_s=200 * HOUR_S,
    alert_within_s={Severity.CRITICAL: 0.0, Severity.WARNING: CRITICAL_S},
    failure_modes={"flow_low": "flow_blocked"},
)


def probable(probability: float, horizon_s: float = 72 * HOUR_S) -> FailurePredicted:
    return FailurePredicted(
        "P-1", "loop-1", None, "bearing-wear@3", "bearing_wear", probability, horizon_s, 1, 9, ()
    )


def lasting(lower_s: float) -> RemainingLifePredicted:
    return RemainingLifePredicted(
        "P-1", "loop-1", None, "rul@1", "bearing_wear", lower_s, lower_s, lower_s * 2, 0.9, 1, 9, ()
    )


def alert(severity: Severity, rule: str = "flow_low") -> AlertRaised:
    return AlertRaised(
        "loop-1", uuid.UUID(int=1), rule, severity, "flow", 1.0, 2.0, MONDAY, "flow is low"
    )


# --- hysteresis and de-duplication --------------------------------------------------------


@pytest.mark.parametrize(
    ("evidence", "armed", "order_open", "verdict"),
    [
        (probable(0.8), True, False, Verdict(opens=True, armed=False)),
        (probable(0.8), False, False, Verdict(opens=False, armed=False)),
        (probable(0.8), True, True, Verdict(opens=False, armed=False)),
        (probable(0.79), True, False, Verdict(opens=False, armed=True)),
        (probable(0.79), False, False, Verdict(opens=False, armed=False)),
        (probable(0.5), False, False, Verdict(opens=False, armed=False)),
        (probable(0.49), False, False, Verdict(opens=False, armed=True)),
        (probable(0.49), False, True, Verdict(opens=False, armed=True)),
        (lasting(100 * HOUR_S), True, False, Verdict(opens=True, armed=False)),
        (lasting(101 * HOUR_S), True, False, Verdict(opens=False, armed=True)),
        (lasting(200 * HOUR_S), False, False, Verdict(opens=False, armed=False)),
        (lasting(201 * HOUR_S), False, False, Verdict(opens=False, armed=True)),
        (alert(Severity.CRITICAL), True, False, Verdict(opens=True, armed=True)),
        (alert(Severity.CRITICAL), True, True, Verdict(opens=False, armed=True)),
    ],
)
def test_evidence_opens_an_order_beyond_its_limit_once(
    evidence: Evidence, armed: bool, order_open: bool, verdict: Verdict
) -> None:
    assert judge(POLICY, evidence, armed=armed, order_open=order_open) == verdict


def test_an_alert_of_a_severity_that_is_not_named_opens_nothing() -> None:
    only_critical = replace(POLICY, alert_within_s={Severity.CRITICAL: 0.0})
    verdict = judge(only_critical, alert(Severity.WARNING), armed=True, order_open=False)
    assert not verdict.opens


def orders_opened(probabilities: Sequence[float], ended_after: int) -> list[int]:
    """Return after which predictions an order is opened, each ended some predictions later."""
    armed, open_until, opened = True, -1, []
    for n, probability in enumerate(probabilities):
        verdict = judge(POLICY, probable(probability), armed=armed, order_open=n < open_until)
        armed = verdict.armed
        if verdict.opens:
            opened.append(n)
            open_until = n + ended_after
    return opened


def test_a_probability_that_hovers_about_the_limit_opens_one_order() -> None:
    assert orders_opened([0.7, 0.85, 0.79, 0.81, 0.78, 0.9, 0.51, 0.95], ended_after=1) == [1]
    assert orders_opened([0.85, 0.49, 0.85], ended_after=1) == [0, 2]
    assert orders_opened([0.85, 0.49, 0.85, 0.9], ended_after=9) == [0]


@hypothesis_given(st.lists(st.floats(0, 1), max_size=30), st.integers(1, 10))
def test_between_two_orders_the_probability_fell_below_the_lower_limit(
    probabilities: list[float], ended_after: int
) -> None:
    opened = orders_opened(probabilities, ended_after)
    assert all(probabilities[n] >= POLICY.open_probability for n in opened)
    for one, next_one in itertools.pairwise(opened):
        assert min(probabilities[one:next_one]) < POLICY.rearm_probability
        assert next_one - one >= ended_after


# --- who, what, how urgent ----------------------------------------------------------------


def test_versions_of_a_model_are_one_source() -> None:
    assert source_of(probable(0.9)) == source_of(replace(probable(0.1), model="bearing-wear@4"))
    assert source_of(lasting(1.0)) == "rul"
    assert source_of(alert(Severity.CRITICAL)) == "alerts"


def test_alerts_of_a_rule_speak_of_the_failure_mode_that_is_declared() -> None:
    assert failure_mode_of(POLICY, alert(Severity.WARNING)) == "flow_blocked"
    assert failure_mode_of(POLICY, alert(Severity.WARNING, "hot")) == "hot"
    assert failure_mode_of(POLICY, probable(0.1)) == "bearing_wear"


@pytest.mark.parametrize(
    ("hours", "expected"),
    [(0, "CRITICAL"), (47.99, "CRITICAL"), (48, "WARNING"), (167.99, "WARNING"), (168, "NORMAL")],
)
def test_urgency_follows_from_the_time_that_is_left(hours: float, expected: str) -> None:
    assert urgency(hours * HOUR_S) is Urgency(expected)


def test_the_time_that_is_left_is_the_worst_that_is_said() -> None:
    assert within_s(POLICY, probable(0.9, 3600.0)) == 3600.0
    assert within_s(POLICY, lasting(50.0)) == 50.0
    assert within_s(POLICY, alert(Severity.CRITICAL)) == 0.0


def test_a_title_says_why_and_fits() -> None:
    assert title_of(probable(0.84)) == "bearing_wear: 84% within 72 h"
    assert title_of(lasting(10 * HOUR_S)) == "bearing_wear: 10 to 20 h are left"
    long = replace(alert(Severity.CRITICAL), message="x" * 500)
    assert (title_of(long)[:11], len(title_of(long))) == ("flow_low: x", 200)


def test_what_becomes_known_a_week_late_is_history() -> None:
    week = timedelta(seconds=LATE_S_MAX)
    assert not is_history(MONDAY, MONDAY + week)
    assert is_history(MONDAY, MONDAY + week + timedelta(microseconds=1))
    assert not is_history(MONDAY, MONDAY - week)  # a clock that runs ahead


# --- windows ------------------------------------------------------------------------------

SATURDAY = MaintenanceWindow(weekday=5, start=time(6), duration_s=6 * HOUR_S)


@pytest.mark.parametrize(
    ("not_before", "start"),
    [
        (MONDAY, datetime(2026, 3, 14, 6, tzinfo=UTC)),
        (datetime(2026, 3, 14, 6, tzinfo=UTC), datetime(2026, 3, 14, 6, tzinfo=UTC)),
        (datetime(2026, 3, 14, 6, 0, 1, tzinfo=UTC), datetime(2026, 3, 21, 6, tzinfo=UTC)),
        (datetime(2026, 3, 15, 0, tzinfo=UTC), datetime(2026, 3, 21, 6, tzinfo=UTC)),
        (datetime(2026, 12, 31, 0, tzinfo=UTC), datetime(2027, 1, 2, 6, tzinfo=UTC)),
    ],
)
def test_the_next_window_begins_at_the_time_or_later(not_before: datetime, start: datetime) -> None:
    assert SATURDAY.next_start(not_before) == start


def test_work_is_proposed_for_the_first_window_before_the_failure() -> None:
    wednesday = MaintenanceWindow(weekday=2, start=time(22), duration_s=2 * HOUR_S)
    policy = replace(POLICY, windows=(SATURDAY, wednesday), notice_s=8 * HOUR_S)
    start = datetime(2026, 3, 11, 22, tzinfo=UTC)
    week = probable(0.9, WARNING_S)
    assert plan(policy, week, MONDAY) == (start, start + timedelta(hours=2))
    assert plan(policy, week, start - timedelta(hours=8)) == (start, start + timedelta(hours=2))
    too_late_to_prepare = start - timedelta(hours=8) + timedelta(seconds=1)
    saturday = datetime(2026, 3, 14, 6, tzinfo=UTC)
    assert plan(policy, week, too_late_to_prepare) == (saturday, saturday + timedelta(hours=6))


def test_people_decide_where_no_window_comes_in_time() -> None:
    policy = replace(POLICY, windows=(SATURDAY,))
    hours = (datetime(2026, 3, 14, 6, tzinfo=UTC) - MONDAY).total_seconds() / HOUR_S
    assert plan(policy, probable(0.9, hours * HOUR_S), MONDAY) is not None
    assert plan(policy, probable(0.9, hours * HOUR_S - 1), MONDAY) is None
    assert plan(policy, alert(Severity.CRITICAL), MONDAY) is None
    assert plan(POLICY, probable(0.9), MONDAY) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"open_probability": 0.5, "rearm_probability": 0.5},
        {"open_probability": 1.1},
        {"rearm_probability": -0.1},
        {"open_remaining_s": 5.0, "rearm_remaining_s": 5.0},
    ],
)
def test_limits_without_hysteresis_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="re-arms"):
        replace(POLICY, **changes)


@pytest.mark.parametrize(
    "changes", [{"weekday": 7}, {"start": time(6, tzinfo=UTC)}, {"duration_s": 0.0}]
)
def test_what_is_no_window_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no maintenance window"):
        replace(SATURDAY, **changes)


def test_declared_policies_speak_of_declared_types_and_rules() -> None:
    for name, policy in POLICIES.items():
        rules = {rule.name for rule in asset_types()[name].alert_rules}
        assert policy.failure_modes.keys() <= rules
        for mode in policy.failure_modes.values():
            check_identifier("failure_mode", mode)
    for described in asset_types().values():
        for rule in described.alert_rules:
            policy = policy_of(described.name)
            mode = failure_mode_of(policy, alert(rule.severity, rule.name))
            check_identifier("failure_mode", mode)


# --- outcomes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finding", "found", "outcome"),
    [
        (Finding.FAILURE_CONFIRMED, "bearing_wear", Outcome.CONFIRMED),
        (Finding.FAILURE_CONFIRMED, "seal_leak", Outcome.REFUTED),
        (Finding.NO_FAULT_FOUND, None, Outcome.REFUTED),
        (Finding.NOT_APPLICABLE, None, None),
    ],
)
def test_what_was_found_tells_how_a_prediction_came_out(
    finding: Finding, found: str | None, outcome: Outcome | None
) -> None:
    completed = WorkOrderCompleted("WO-1", finding, found, None, (), 60.0, None, None, "")
    assert outcome_of("bearing_wear", completed) is outcome
