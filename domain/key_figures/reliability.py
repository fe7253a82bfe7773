"""Reliability of what is repaired: time between failures, time to restoration, availability.

References
----------
IEC 60050-192:2015: 192-05-13 mean operating time between failures, 192-07-23 mean time to
restoration, 192-08-03 instantaneous and 192-08-05 mean availability. ISO 14224:2016, annex E, for
the estimates. NIST/SEMATECH e-Handbook of Statistical Methods, section 8.4.5.1, for the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from domain.errors import InvalidInput
from domain.key_figures.arguments import check_not_negative, check_order, ratio

FAILURES_MAX: Final = 1_000_000
_BISECTIONS: Final = 200


@dataclass(frozen=True, slots=True)
class Bounds:
    """An interval of `confidence`; `upper_s` is None where there is no upper bound."""

    lower_s: float
    upper_s: float | None
    confidence: float


def mean_operating_time_between_failures_s(operating_s: float, failures: int) -> float | None:
    """Return operating time by failures, s; None without a failure: then only bounds exist."""
    check_not_negative(operating_s=operating_s, failures=failures)
    return ratio(operating_s, failures)


def mean_time_to_restoration_s(restoration_s: float, restorations: int) -> float | None:
    """Return the mean of the times from a failure to its restoration, s; None without one."""
    check_not_negative(restoration_s=restoration_s, restorations=restorations)
    return ratio(restoration_s, restorations)


def operational_availability(up_s: float, down_s: float) -> float | None:
    """Return the share of up time: what was, with every recorded down time; None of no time."""
    check_not_negative(up_s=up_s, down_s=down_s)
    return ratio(up_s, up_s + down_s)


def inherent_availability(mtbf_s: float, mttr_s: float) -> float | None:
    """Return MTBF / (MTBF + MTTR): what it would be with failures alone, and no planned work."""
    check_not_negative(mtbf_s=mtbf_s, mttr_s=mttr_s)
    return ratio(mtbf_s, mtbf_s + mttr_s)


def mtbf_bounds(operating_s: float, failures: int, confidence: float) -> Bounds:
    """Return the interval that covers the true MTBF, for failures at a constant rate.

    Parameters
    ----------
    operating_s : operating time of a fixed length, s
    confidence : two-sided, between 0 and 1; without a failure the lower bound alone has it

    Raises
    ------
    InvalidInput
        ``figure.value_invalid``, ``figure.values_contradict``, ``figure.confidence_out_of_range``

    Notes
    -----
    2T / chi2(1 - a/2; 2r + 2) and 2T / chi2(a/2; 2r), exact for a time-terminated observation.
    A machine that wears out fails at no constant rate; then these bounds say too little.
    """
    check_not_negative(operating_s=operating_s, failures=failures)
    check_order("failures", failures, "FAILURES_MAX", FAILURES_MAX)
    if not 0 < confidence < 1:
        raise InvalidInput(
            "figure.confidence_out_of_range",
            f"a confidence of {confidence:g} does not lie between 0 and 1",
            value=confidence,
            limit=1,
        )
    outside = 1 - confidence
    if failures == 0:
        return Bounds(operating_s / -math.log(outside), None, confidence)
    upper_rate, lower_rate = _count_bounds(failures, outside)
    return Bounds(operating_s / upper_rate, operating_s / lower_rate, confidence)


@lru_cache(maxsize=4_096)
def _count_bounds(failures: int, outside: float) -> tuple[float, float]:
    """Return the most and the fewest failures expected that `failures` are compatible with.

    chi2 of 2k degrees of freedom is twice a sum of k exponentials, so Poisson says its quantiles.
    """
    most = _expected_count(lambda mean: _at_most(failures, mean) - outside / 2, failures)
    fewest = _expected_count(
        lambda mean: _at_most(failures - 1, mean) - (1 - outside / 2), failures
    )
    return most, fewest


def _at_most(count: int, mean: float) -> float:
    """Return the probability of at most `count` events where `mean` are expected."""
    log_mean = math.log(mean)
    # From the largest term down, and no further than terms that still count.
    peak = min(count, int(mean))
    largest = peak * log_mean - mean - math.lgamma(peak + 1)
    total, term = 1.0, 1.0
    for n in range(peak, 0, -1):
        term *= n / mean
        total += term
        if term < 1e-18 * total:
            break
    term = 1.0
    for n in range(peak + 1, count + 1):
        term *= mean / n
        total += term
        if term < 1e-18 * total:
            break
    return min(1.0, math.exp(largest + math.log(total)))


def _expected_count(falling: Callable[[float], float], failures: int) -> float:
    """Return where `falling`, which falls as more is expected, is zero."""
    low, high = 1e-12, failures + 40 * math.sqrt(failures + 1) + 100
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
