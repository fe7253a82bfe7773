"""Control charts and capability against published tables and examples."""

from __future__ import annotations

import math

import pytest

from domain.errors import InvalidInput
from domain.key_figures.capability import capability, overall_sigma
from domain.key_figures.control_charts import (
    CONSTANTS,
    Rule,
    Violation,
    chart_limits,
    mean_range_chart,
    western_electric_violations,
)

# --- constants ----------------------------------------------------------------------------


def normal_below(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def range_moments(size: int) -> tuple[float, float]:
    """Return mean and standard deviation of the range of `size` standard normal values.

    Tippett (1925), Biometrika 17: both from the joint distribution of the extremes, here summed
    by the trapezoidal rule, which converges at once for functions that vanish so fast.
    """
    step = 0.05
    grid = [-8 + step * n for n in range(321)]
    below = [normal_below(x) for x in grid]
    mean = step * math.fsum(1 - p**size - (1 - p) ** size for p in below)
    square = 0.0
    for i, low in enumerate(below):
        for high in below[i:]:
            square += 1 - high**size - (1 - low) ** size + (high - low) ** size
        square -= 0.5 * (1 - low**size - (1 - low) ** size)  # the diagonal counts half
    return mean, math.sqrt(2 * step * step * square - mean * mean)


@pytest.mark.parametrize("size", sorted(CONSTANTS))
def test_constants_follow_from_the_distribution_of_the_range(size: int) -> None:
    d2, d3 = range_moments(size)
    constants = CONSTANTS[size]
    assert constants.d2 == pytest.approx(d2, abs=6e-4)
    assert constants.a2 == pytest.approx(3 / (d2 * math.sqrt(size)), abs=6e-4)
    assert constants.d3 == pytest.approx(max(0.0, 1 - 3 * d3 / d2), abs=1.1e-3)
    assert constants.d4 == pytest.approx(1 + 3 * d3 / d2, abs=1.1e-3)


def test_there_are_constants_for_every_size_from_2_to_25() -> None:
    assert sorted(CONSTANTS) == list(range(2, 26))
    for size in (1, 26, 0):
        with pytest.raises(InvalidInput) as refused:
            chart_limits(0, 1, size)
        assert (refused.value.code, refused.value.value) == ("figure.subgroup_size", size)


# --- limits -------------------------------------------------------------------------------


def test_the_limits_of_a_published_chart() -> None:
    """Montgomery (2013), example 6.1: flow width of a hard-bake process, 25 samples of 5.

    Grand mean 1.5056, mean range 0.32521 microns.
    """
    limits = chart_limits(1.5056, 0.32521, 5)
    assert limits.range_lower == 0
    assert limits.range_upper == pytest.approx(0.68749, abs=1e-5)
    assert limits.mean_upper == pytest.approx(1.69325, abs=1e-5)
    assert limits.mean_lower == pytest.approx(1.31795, abs=1e-5)
    assert limits.sigma == pytest.approx(0.1398, abs=5e-5)


def test_the_capability_of_the_same_process() -> None:
    """Montgomery (2013), example 6.1, continued: 1.50 +- 0.50 microns gives Cp = 1.192."""
    found = capability(1.5056, chart_limits(1.5056, 0.32521, 5).sigma, 1.00, 2.00)
    assert found.index == pytest.approx(1.192, abs=1e-3)
    assert found.nearest == pytest.approx((2.00 - 1.5056) / (3 * 0.1398), abs=1e-3)


@pytest.mark.parametrize(
    ("mean", "nearest"), [(50, 2.0), (53, 1.5), (56, 1.0), (62, 0.0), (65, -0.5)]
)
def test_the_nearer_limit_counts(mean: float, nearest: float) -> None:
    """Montgomery (2013), figure 8.8: limits 38 and 62, sigma 2; Cp is 2.0 wherever the mean is."""
    found = capability(mean, 2.0, 38, 62)
    assert found.index == pytest.approx(2.0)
    assert found.nearest == pytest.approx(nearest)


def test_a_published_capability_off_centre() -> None:
    """NIST/SEMATECH e-Handbook, 6.1.6: limits 8 and 20, mean 16, sigma 2: 1.0 and 0.6667."""
    found = capability(16, 2, 8, 20)
    assert found.index == pytest.approx(1.0)
    assert found.nearest == pytest.approx(0.6667, abs=5e-5)


def test_an_open_limit_leaves_the_other() -> None:
    above = capability(16, 2, None, 20)
    assert above.index is None
    assert above.nearest == pytest.approx(4 / 6)
    below = capability(16, 2, 8, None)
    assert below.nearest == pytest.approx(8 / 6)
    assert capability(16, 0, 8, 20).nearest is None
    with pytest.raises(InvalidInput) as refused:
        capability(16, 2, None, None)
    assert refused.value.code == "figure.no_limits"


def test_the_overall_deviation_has_n_minus_1() -> None:
    assert overall_sigma([2, 4, 4, 4, 5, 5, 7, 9]) == pytest.approx(math.sqrt(32 / 7))
    with pytest.raises(InvalidInput):
        overall_sigma([1.0])


# --- rules --------------------------------------------------------------------------------


def found(*means: float) -> list[tuple[int, int, int]]:
    """Return (index, rule, side) of what `means`, in sigma from the centre, break."""
    return [(v.index, v.rule, v.side) for v in western_electric_violations(means, 0.0, 1.0)]


def test_rule_1_is_one_point_beyond_3_sigma() -> None:
    assert found(0, 3.1, 0) == [(1, 1, 1)]
    assert found(0, -3.1) == [(1, 1, -1)]
    assert found(0, 3.0, -3.0) == []


def test_rule_2_is_two_of_three_beyond_2_sigma_on_one_side() -> None:
    assert found(2.1, 2.1) == [(1, 2, 1)]
    assert found(2.1, 0, 2.1) == [(2, 2, 1)]
    assert found(2.1, 0, 0, 2.1) == []
    assert found(2.1, -2.1) == []
    assert found(-2.1, 0, -2.1, 0) == [(2, 2, -1)]


def test_rule_3_is_four_of_five_beyond_1_sigma_on_one_side() -> None:
    assert found(1.1, 1.1, 0, 1.1, 1.1) == [(4, 3, 1)]
    assert found(1.1, 1.1, 1.1, 1.1) == [(3, 3, 1)]
    assert found(1.1, 1.1, 0, 0, 1.1, 1.1) == []
    assert found(1.1, -1.1, 1.1, -1.1, 1.1) == []


def test_rule_4_is_eight_points_on_one_side() -> None:
    assert found(*[0.5] * 7) == []
    assert found(*[0.5] * 8) == [(7, 4, 1)]
    assert found(*[-0.5] * 9) == [(7, 4, -1), (8, 4, -1)]
    assert found(*[0.5] * 4, 0.0, *[0.5] * 4) == []


def test_the_point_that_completes_a_pattern_is_itself_beyond_the_line() -> None:
    # The fourth and fifth are harmless, though two of the last three were beyond 2 sigma.
    assert [index for index, rule, _ in found(2.1, 2.1, 0) if rule == 2] == [1]


# --- charts -------------------------------------------------------------------------------


def test_a_chart_is_made_of_subgroups_in_order() -> None:
    chart = mean_range_chart([1, 3, 2, 4, 3, 5, 9], 2)
    assert list(chart.means) == [2, 3, 4]
    assert list(chart.ranges) == [2, 2, 2]
    assert chart.left_over == 1
    assert chart.limits.mean_centre == 3
    assert chart.limits.mean_upper == pytest.approx(3 + 1.880 * 2)
    assert chart.violations == ()


def test_values_that_are_all_the_same_break_no_rule() -> None:
    chart = mean_range_chart([0.1] * 27, 3)
    assert chart.limits.sigma == 0
    assert chart.violations == ()


def test_limits_of_an_earlier_phase_judge_later_values() -> None:
    calm = chart_limits(10.0, 1.0, 2)
    chart = mean_range_chart([10, 10.5, 13, 13.1, 10, 14], 2, calm)
    assert chart.limits is calm
    assert chart.violations == (
        Violation(1, Rule.BEYOND_3_SIGMA, 1),
        Violation(2, Rule.BEYOND_3_SIGMA, 1),
        Violation(2, Rule.TWO_OF_THREE_BEYOND_2_SIGMA, 1),
        Violation(2, Rule.BEYOND_3_SIGMA, 1, of_range=True),
    )
    with pytest.raises(InvalidInput):
        mean_range_chart([1, 2, 3], 3, calm)


def test_too_few_values_make_no_chart() -> None:
    with pytest.raises(InvalidInput) as refused:
        mean_range_chart([1, 2, 3, 4], 5)
    assert (refused.value.code, refused.value.value, refused.value.limit) == (
        "figure.too_few_values",
        4,
        5,
    )
