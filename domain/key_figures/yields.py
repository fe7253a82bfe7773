"""Yields: what came out good, the first time or at all, and what the defects were.

References
----------
ISO 22400-2:2014: first pass yield. Harry and Schroeder (2000), Six Sigma: rolled throughput
yield. Juran (1951), Quality Control Handbook: the Pareto principle.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from domain.key_figures.arguments import check_not_negative, check_order, check_ratio, ratio


def first_pass_yield(units: int, good_first_time: int) -> float | None:
    """Return the share of `units` that were good without rework; None of no units.

    Raises
    ------
    InvalidInput
        ``figure.value_invalid``, ``figure.values_contradict``
    """
    check_not_negative(units=units, good_first_time=good_first_time)
    check_order("good_first_time", good_first_time, "units", units)
    return ratio(good_first_time, units)


def rolled_throughput_yield(step_yields: Iterable[float]) -> float:
    """Return the chance that a unit goes through all steps, one after another, good at once.

    Raises
    ------
    InvalidInput
        ``figure.ratio_out_of_range``
    """
    steps = tuple(step_yields)
    for step in steps:
        check_ratio(step_yield=step)
    return math.prod(steps)


@dataclass(frozen=True, slots=True)
class ParetoBar:
    """A cause, how often it was, its share of all, and the share of it and those before it."""

    cause: str
    count: int
    share: float
    cumulative_share: float


def pareto(counts: Mapping[str, int], total: int | None = None) -> list[ParetoBar]:
    """Return the causes, the most frequent first; of two as frequent the first by name.

    Parameters
    ----------
    total : of all causes, where `counts` has but the most frequent

    Raises
    ------
    InvalidInput
        ``figure.value_invalid``, ``figure.values_contradict``
    """
    check_not_negative(**counts)
    counted = sum(counts.values())
    total = counted if total is None else total
    check_order("the sum of the counts", counted, "total", total)
    bars, running = [], 0
    for cause, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if count:
            running += count
            bars.append(ParetoBar(cause, count, count / total, running / total))
    return bars
