"""Roll-up: how the health and state of what stands in a location become the location's own.

Grades are counted from 0, the best. WORST takes the worst member; K_OF_N the k-th best, for that
many are enough; MEAN the mean grade, rounded to the nearest and a half to the worse. Of a member
whose grade is unknown the best is assumed: what comes out is at least so bad. Where that says all
is well although it would not be with the worst assumed, nobody can know, and the answer is None.

References
----------
Barlow and Proschan (1975), Statistical Theory of Reliability and Life Testing, chapter 1: a
k-out-of-n system is as good as its k-th best component.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from domain.health import HealthStatus
from domain.plant.location import RollUp

_STATUSES: Final = (HealthStatus.GOOD, HealthStatus.WARNING, HealthStatus.CRITICAL)


@dataclass(frozen=True, slots=True)
class Rule:
    """How a location judges; `required` is the k of K_OF_N."""

    roll_up: RollUp = RollUp.WORST
    required: int | None = None


@dataclass(frozen=True, slots=True)
class MemberHealth:
    """Health of what stands in a location: `index` from 0 to 1, None when it is unknown."""

    status: HealthStatus
    index: float | None


UNKNOWN: Final = MemberHealth(HealthStatus.UNKNOWN, None)


def rolled_up_grade(rule: Rule, grades: Sequence[int | None], worst: int) -> int | None:
    """Return the grade that `rule` makes of its members' `grades`, None where it is unknown.

    Parameters
    ----------
    grades : from 0, the best, to `worst`; None for a member of which it is unknown
    worst : what a K_OF_N with fewer than k members comes to

    Examples
    --------
    >>> rolled_up_grade(Rule(RollUp.K_OF_N, 2), [0, 0, 2], worst=2)
    0
    >>> rolled_up_grade(Rule(RollUp.MEAN), [0, 1, 2, 2], worst=2)
    1
    """
    if not grades:
        return None
    at_best = _grade(rule, [0 if grade is None else grade for grade in grades], worst)
    at_worst = _grade(rule, [worst if grade is None else grade for grade in grades], worst)
    return None if at_best == 0 < at_worst else at_best


def _grade(rule: Rule, grades: Sequence[int], worst: int) -> int:
    match rule.roll_up:
        case RollUp.WORST:
            return max(grades)
        case RollUp.MEAN:
            return math.floor(sum(grades) / len(grades) + 0.5)
        case RollUp.K_OF_N:
            required = rule.required or 1
            return worst if required > len(grades) else sorted(grades)[required - 1]


def rolled_up_health(rule: Rule, members: Sequence[MemberHealth]) -> MemberHealth:
    """Return the health that `rule` makes of that of `members`.

    Its index is the worst, the k-th best or, of those that are known, the mean; 0 where there are
    fewer than k, and None where the status is unknown.

    Examples
    --------
    >>> pumps = [MemberHealth(HealthStatus.GOOD, 1.0), MemberHealth(HealthStatus.WARNING, 0.5)]
    >>> rolled_up_health(Rule(RollUp.WORST), pumps)
    MemberHealth(status=<HealthStatus.WARNING: 'WARNING'>, index=0.5)
    """
    grades = [
        None if member.status is HealthStatus.UNKNOWN else _STATUSES.index(member.status)
        for member in members
    ]
    grade = rolled_up_grade(rule, grades, worst=len(_STATUSES) - 1)
    if grade is None:
        return UNKNOWN
    return MemberHealth(_STATUSES[grade], _index(rule, [member.index for member in members]))


def _index(rule: Rule, indexes: Sequence[float | None]) -> float:
    at_best = sorted((1.0 if index is None else index for index in indexes), reverse=True)
    match rule.roll_up:
        case RollUp.WORST:
            return at_best[-1]
        case RollUp.MEAN:
            known = [index for index in indexes if index is not None]
            return math.fsum(known) / len(known) if known else 0.0
        case RollUp.K_OF_N:
            required = rule.required or 1
            return at_best[required - 1] if required <= len(at_best) else 0.0
