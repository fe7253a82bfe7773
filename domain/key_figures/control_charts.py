"""Control charts for means and ranges, and the rules by which they tell that something changed.

References
----------
ISO 7870-2:2013, Control charts, part 2: Shewhart control charts. Montgomery (2013), Introduction
to Statistical Quality Control, 7th ed., section 6.2 and appendix VI (A2, D3, D4, d2).
Western Electric Company (1956), Statistical Quality Control Handbook, pages 25 to 28 (the rules).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Final

from domain.errors import InvalidInput

SUBGROUP_SIZE_MIN: Final = 2
SUBGROUP_SIZE_MAX: Final = 25


@dataclass(frozen=True, slots=True)
class ChartConstants:
    """Factors for subgroups of one size.

    Limits of means are the grand mean -+ `a2` mean ranges, those of ranges `d3` and `d4` mean
    ranges, and the standard deviation of what is measured is the mean range by `d2`.
    """

    a2: float
    d2: float
    d3: float
    d4: float


# Montgomery (2013), appendix VI; the tests integrate the distribution of the range against it.
CONSTANTS: Final[dict[int, ChartConstants]] = {
    2: ChartConstants(1.880, 1.128, 0.0, 3.267),
    3: ChartConstants(1.023, 1.693, 0.0, 2.574),
    4: ChartConstants(0.729, 2.059, 0.0, 2.282),
    5: ChartConstants(0.577, 2.326, 0.0, 2.114),
    6: ChartConstants(0.483, 2.534, 0.0, 2.004),
    7: ChartConstants(0.419, 2.704, 0.076, 1.924),
    8: ChartConstants(0.373, 2.847, 0.136, 1.864),
    9: ChartConstants(0.337, 2.970, 0.184, 1.816),
    10: ChartConstants(0.308, 3.078, 0.223, 1.777),
    11: ChartConstants(0.285, 3.173, 0.256, 1.744),
    12: ChartConstants(0.266, 3.258, 0.283, 1.717),
    13: ChartConstants(0.249, 3.336, 0.307, 1.693),
    14: ChartConstants(0.235, 3.407, 0.328, 1.672),
    15: ChartConstants(0.223, 3.472, 0.347, 1.653),
    16: ChartConstants(0.212, 3.532, 0.363, 1.637),
    17: ChartConstants(0.203, 3.588, 0.378, 1.622),
    18: ChartConstants(0.194, 3.640, 0.391, 1.608),
    19: ChartConstants(0.187, 3.689, 0.403, 1.597),
    20: ChartConstants(0.180, 3.735, 0.415, 1.585),
    21: ChartConstants(0.173, 3.778, 0.425, 1.575),
    22: ChartConstants(0.167, 3.819, 0.434, 1.566),
    23: ChartConstants(0.162, 3.858, 0.443, 1.557),
    24: ChartConstants(0.157, 3.895, 0.451, 1.548),
    25: ChartConstants(0.153, 3.931, 0.459, 1.541),
}


def chart_constants(subgroup_size: int) -> ChartConstants:
    """Return the factors for subgroups of `subgroup_size`.

    Raises
    ------
    InvalidInput
        ``figure.subgroup_size``
    """
    if subgroup_size not in CONSTANTS:
        raise InvalidInput(
            "figure.subgroup_size",
            f"a subgroup has {SUBGROUP_SIZE_MIN} to {SUBGROUP_SIZE_MAX} values, "
            f"not {subgroup_size}",
            hint="of large subgroups the range says little: use fewer values",
            value=subgroup_size,
            limit=SUBGROUP_SIZE_MAX,
        )
    return CONSTANTS[subgroup_size]


@dataclass(frozen=True, slots=True)
class ChartLimits:
    """Centre lines and limits of both charts, in the unit of what is measured.

    `mean_sigma` is the standard deviation of a subgroup's mean, a third of the way to its limits;
    `sigma` that of what is measured, within subgroups.
    """

    subgroup_size: int
    mean_centre: float
    mean_lower: float
    mean_upper: float
    range_centre: float
    range_lower: float
    range_upper: float
    mean_sigma: float
    sigma: float


def chart_limits(grand_mean: float, mean_range: float, subgroup_size: int) -> ChartLimits:
    """Return the limits that `mean_range` gives around `grand_mean`.

    Raises
    ------
    InvalidInput
        ``figure.subgroup_size``
    """
    factors = chart_constants(subgroup_size)
    reach = factors.a2 * mean_range
    return ChartLimits(
        subgroup_size=subgroup_size,
        mean_centre=grand_mean,
        mean_lower=grand_mean - reach,
        mean_upper=grand_mean + reach,
        range_centre=mean_range,
        range_lower=factors.d3 * mean_range,
        range_upper=factors.d4 * mean_range,
        mean_sigma=reach / 3,
        sigma=mean_range / factors.d2,
    )


class Rule(IntEnum):
    """The tests of the handbook, by its numbers; sigma is that of the subgroups' means."""

    BEYOND_3_SIGMA = 1  # one beyond 3 sigma
    TWO_OF_THREE_BEYOND_2_SIGMA = 2  # on one side
    FOUR_OF_FIVE_BEYOND_1_SIGMA = 3  # on one side
    EIGHT_ON_ONE_SIDE = 4


@dataclass(frozen=True, slots=True)
class Violation:
    """The point at `index`, from 0 on, completes the pattern of `rule`.

    `side` is 1 above the centre line and -1 below; of the chart of ranges only rule 1 is asked.
    """

    index: int
    rule: Rule
    side: int
    of_range: bool = False


_PATTERNS: Final = (
    # rule, so many of the last so many, beyond so many sigma
    (Rule.BEYOND_3_SIGMA, 1, 1, 3.0),
    (Rule.TWO_OF_THREE_BEYOND_2_SIGMA, 2, 3, 2.0),
    (Rule.FOUR_OF_FIVE_BEYOND_1_SIGMA, 4, 5, 1.0),
    (Rule.EIGHT_ON_ONE_SIDE, 8, 8, 0.0),
)


def western_electric_violations(
    means: Sequence[float], centre: float, sigma: float
) -> list[Violation]:
    """Return where `means`, in the order of time, break a rule, in that order.

    A pattern is told at the point that completes it, which is itself beyond the line. A point on
    a line is not beyond it.
    """
    found = []
    rounding = 1e-12 * max((abs(mean) for mean in (*means, centre)), default=0.0)
    for index in range(len(means)):
        for rule, needed, of_last, sigmas in _PATTERNS:
            last = means[max(0, index + 1 - of_last) : index + 1]
            for side in (1, -1):
                beyond = [side * (mean - centre) > sigmas * sigma + rounding for mean in last]
                if beyond[-1] and sum(beyond) >= needed:
                    found.append(Violation(index, rule, side))
    return found


def range_violations(ranges: Sequence[float], limits: ChartLimits) -> list[Violation]:
    """Return where `ranges` lie outside their limits."""
    found = []
    for index, spread in enumerate(ranges):
        if spread > limits.range_upper:
            found.append(Violation(index, Rule.BEYOND_3_SIGMA, 1, of_range=True))
        elif spread < limits.range_lower:
            found.append(Violation(index, Rule.BEYOND_3_SIGMA, -1, of_range=True))
    return found


@dataclass(frozen=True, slots=True)
class MeanRangeChart:
    """Means and ranges of subgroups in the order of time, limits, and where they are broken.

    `left_over`: values at the end that fill no subgroup and are in none.
    """

    means: tuple[float, ...]
    ranges: tuple[float, ...]
    limits: ChartLimits
    violations: tuple[Violation, ...]
    left_over: int


def mean_range_chart(
    values: Sequence[float], subgroup_size: int, limits: ChartLimits | None = None
) -> MeanRangeChart:
    """Return the chart of `values`, in the order of time, `subgroup_size` after another a group.

    Parameters
    ----------
    limits : of an earlier phase in which the process was in control (phase II of Montgomery,
        section 6.2.2); without them the values judge themselves (phase I)

    Raises
    ------
    InvalidInput
        ``figure.subgroup_size``, ``figure.too_few_values``
    """
    chart_constants(subgroup_size)
    if limits is not None and limits.subgroup_size != subgroup_size:
        raise InvalidInput(
            "figure.subgroup_size",
            f"the limits are for subgroups of {limits.subgroup_size}, not {subgroup_size}",
            value=subgroup_size,
            limit=limits.subgroup_size,
        )
    edges = range(0, len(values) + 1, subgroup_size)
    groups = [values[start:end] for start, end in pairwise(edges)]
    if not groups:
        raise InvalidInput(
            "figure.too_few_values",
            f"{len(values)} values fill no subgroup of {subgroup_size}",
            value=len(values),
            limit=subgroup_size,
        )
    means = tuple(math.fsum(group) / subgroup_size for group in groups)
    ranges = tuple(max(group) - min(group) for group in groups)
    if limits is None:
        limits = chart_limits(
            math.fsum(means) / len(means), math.fsum(ranges) / len(ranges), subgroup_size
        )
    violations = western_electric_violations(means, limits.mean_centre, limits.mean_sigma)
    violations += range_violations(ranges, limits)
    violations.sort(key=lambda violation: (violation.index, violation.of_range))
    return MeanRangeChart(
        means, ranges, limits, tuple(violations), len(values) - len(groups) * subgroup_size
    )
