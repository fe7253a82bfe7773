"""Roll-up: what a location makes of what stands in it."""

from __future__ import annotations

import doctest
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.health import HealthStatus
from domain.plant import roll_up
from domain.plant.location import RollUp
from domain.plant.roll_up import UNKNOWN, MemberHealth, Rule, rolled_up_grade, rolled_up_health

WORST, MEAN = Rule(RollUp.WORST), Rule(RollUp.MEAN)
good = MemberHealth(HealthStatus.GOOD, 1.0)
warned = MemberHealth(HealthStatus.WARNING, 0.6)
failing = MemberHealth(HealthStatus.CRITICAL, 0.0)
unknown = UNKNOWN


def k_of_n(required: int) -> Rule:
    return Rule(RollUp.K_OF_N, required)


@pytest.mark.parametrize(
    ("rule", "members", "expected"),
    [
        (WORST, [good, warned, good], (HealthStatus.WARNING, 0.6)),
        (WORST, [good, failing, warned], (HealthStatus.CRITICAL, 0.0)),
        (WORST, [good, good], (HealthStatus.GOOD, 1.0)),
        (k_of_n(2), [good, good, failing], (HealthStatus.GOOD, 1.0)),
        (k_of_n(2), [good, warned, failing], (HealthStatus.WARNING, 0.6)),
        (k_of_n(2), [good, failing, failing], (HealthStatus.CRITICAL, 0.0)),
        (k_of_n(3), [good, good], (HealthStatus.CRITICAL, 0.0)),
        (MEAN, [good, good, good, failing], (HealthStatus.WARNING, 0.75)),
        (MEAN, [good, good, good, warned], (HealthStatus.GOOD, 0.9)),
        (MEAN, [failing, failing, failing, warned], (HealthStatus.CRITICAL, 0.15)),
    ],
)
def test_health_follows_the_declared_rule(
    rule: Rule, members: Sequence[MemberHealth], expected: tuple[HealthStatus, float]
) -> None:
    rolled = rolled_up_health(rule, members)
    assert rolled.status is expected[0]
    assert rolled.index == pytest.approx(expected[1])


@pytest.mark.parametrize("rule", [WORST, MEAN, k_of_n(1)])
def test_of_nothing_nothing_is_known(rule: Rule) -> None:
    assert rolled_up_health(rule, []) == unknown
    assert rolled_up_health(rule, [unknown, unknown]) == unknown


@pytest.mark.parametrize(
    ("rule", "members", "status"),
    [
        (WORST, [good, unknown], HealthStatus.UNKNOWN),  # it may be the worst
        (WORST, [warned, unknown], HealthStatus.WARNING),  # at least so bad
        (k_of_n(1), [good, unknown], HealthStatus.GOOD),  # one is enough, whatever the other is
        (k_of_n(2), [good, unknown], HealthStatus.UNKNOWN),
        (k_of_n(2), [failing, unknown], HealthStatus.CRITICAL),
        (MEAN, [good, good, good, good, good, unknown], HealthStatus.GOOD),
        (MEAN, [good, unknown], HealthStatus.UNKNOWN),
    ],
)
def test_the_unknown_is_neither_assumed_good_nor_bad(
    rule: Rule, members: Sequence[MemberHealth], status: HealthStatus
) -> None:
    rolled = rolled_up_health(rule, members)
    assert rolled.status is status
    assert (rolled.index is None) == (status is HealthStatus.UNKNOWN)


def test_the_index_is_that_of_the_member_that_gives_the_status() -> None:
    rolled = rolled_up_health(k_of_n(2), [warned, failing, unknown])
    assert rolled == MemberHealth(HealthStatus.WARNING, 0.6)


rules = st.sampled_from([WORST, MEAN, *map(k_of_n, (1, 2, 3))])
grades = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@given(rules, grades)
def test_the_order_of_members_does_not_matter(rule: Rule, known: list[int]) -> None:
    shuffled = sorted(known)
    assert rolled_up_grade(rule, known, 2) == rolled_up_grade(rule, shuffled, 2)


@given(rules, grades, st.data())
def test_a_worse_member_never_makes_it_better(
    rule: Rule, known: list[int], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(known) - 1))
    worse = [*known[:at], min(2, known[at] + 1), *known[at + 1 :]]
    before, after = (rolled_up_grade(rule, each, 2) for each in (known, worse))
    assert before is not None
    assert after is not None
    assert after >= before


@given(rules, grades, st.data())
def test_what_is_said_of_the_unknown_holds_whatever_it_turns_out_to_be(
    rule: Rule, known: list[int], data: st.DataObject
) -> None:
    hidden = data.draw(st.sets(st.integers(0, len(known) - 1)))
    seen = [None if n in hidden else grade for n, grade in enumerate(known)]
    said, true = rolled_up_grade(rule, seen, 2), rolled_up_grade(rule, known, 2)
    assert true is not None
    if said == 0:
        assert true == 0
    elif said is not None:
        assert true >= said


def test_the_examples_hold() -> None:
    assert doctest.testmod(roll_up).failed == 0
