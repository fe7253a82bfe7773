"""When a prediction says something new: hysteresis in value and in time, and a bounded rate.

Pure. One verdict follows one source under one model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

HEALTH_STEP: Final = 0.1
CLEAR_RATIO: Final = 0.8
"""An anomaly is over once the ratio has been below this, not merely below 1."""


@dataclass(frozen=True, slots=True)
class VerdictRule:
    """When something is told.

    Parameters
    ----------
    hold_s : so long the ratio has to be beyond its limit, or below the clearing one
    pause_s : so long nothing more is told after something was
    """

    hold_s: int
    pause_s: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was told of a source, and what has been seen since; times in s since 1970 UTC."""

    is_anomalous: bool = False
    other_since_s: int | None = None
    told_s: int | None = None
    told_health: float | None = None


def judged(
    verdict: Verdict, rule: VerdictRule, second: int, ratio: float, health: float
) -> tuple[Verdict, bool]:
    """Return the verdict after an answer of a `second`, and whether it is to be told.

    Told are: the first answer of all, an anomaly that has held, its end that has held, and while
    it lasts a health that has moved by `HEALTH_STEP`. Nothing is told twice within the pause; what
    holds until its end is told then.
    """
    other = ratio < CLEAR_RATIO if verdict.is_anomalous else ratio > 1
    since = verdict.other_since_s if other else None
    # A clock that was set back begins anew; otherwise nothing would hold for a long time.
    if other and (since is None or second < since):
        since = second
    told_s = verdict.told_s
    if told_s is not None and second < told_s:
        told_s = None
    verdict = replace(verdict, other_since_s=since, told_s=told_s)
    if told_s is not None and second - told_s < rule.pause_s:
        return verdict, False
    turned = since is not None and second - since >= rule.hold_s
    moved = (
        verdict.is_anomalous
        and ratio > 1
        and verdict.told_health is not None
        and abs(health - verdict.told_health) >= HEALTH_STEP
    )
    first = verdict.told_health is None and not other
    if not (turned or moved or first):
        return verdict, False
    return (
        Verdict(
            is_anomalous=verdict.is_anomalous != turned,
            other_since_s=None if turned else since,
            told_s=second,
            told_health=health,
        ),
        True,
    )
