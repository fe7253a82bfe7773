"""Key figures against published examples; each test says where its numbers come from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidInput
from domain.key_figures.costs import (
    EnergyPrice,
    PreventionAssumptions,
    per_unit,
    prevention_savings,
)
from domain.key_figures.effectiveness import overall_equipment_effectiveness
from domain.key_figures.reliability import (
    inherent_availability,
    mean_operating_time_between_failures_s,
    mean_time_to_restoration_s,
    mtbf_bounds,
    operational_availability,
)
from domain.key_figures.yields import first_pass_yield, pareto, rolled_throughput_yield

HOUR_S = 3_600.0
MINUTE_S = 60.0

# --- effectiveness ------------------------------------------------------------------------


def test_the_effectiveness_of_a_published_shift() -> None:
    """Vorne Industries, oee.com, "Calculating OEE": a shift of 480 minutes.

    60 minutes of breaks, 47 of stops, an ideal cycle of 1.0 s, 19,271 pieces, 423 of them
    rejected. Published to four figures.
    """
    shift = overall_equipment_effectiveness(
        planned_busy_s=420 * MINUTE_S,
        production_s=373 * MINUTE_S,
        down_s=47 * MINUTE_S,
        ideal_s=19_271 * 1.0,
        ideal_good_s=(19_271 - 423) * 1.0,
    )
    assert shift.availability_ratio == pytest.approx(0.8881, abs=5e-5)
    assert shift.effectiveness_ratio == pytest.approx(0.8611, abs=5e-5)
    assert shift.quality_ratio == pytest.approx(0.9780, abs=5e-5)
    assert shift.oee_ratio == pytest.approx(0.7479, abs=5e-5)
    assert (shift.down_loss_s, shift.idle_loss_s) == (2_820, 0)
    assert (shift.performance_loss_s, shift.quality_loss_s) == (3_109, 423)


amounts = st.integers(0, 10**13).map(lambda microseconds: microseconds / 1e6)
"""Times, s, as the log has them: whole microseconds."""


@given(amounts, amounts, amounts, amounts, st.floats(min_value=0, max_value=1))
def test_losses_and_valuable_time_make_up_the_planned_time(
    production: float, down: float, idle: float, ideal: float, good: float
) -> None:
    planned = production + down + idle
    figure = overall_equipment_effectiveness(
        planned_busy_s=planned,
        production_s=production,
        down_s=down,
        ideal_s=ideal,
        ideal_good_s=ideal * good,
    )
    losses = (
        figure.down_loss_s + figure.idle_loss_s + figure.performance_loss_s + figure.quality_loss_s
    )
    assert losses + figure.valuable_s == pytest.approx(planned, abs=1e-6 * (planned + ideal))
    factors = (figure.availability_ratio, figure.effectiveness_ratio, figure.quality_ratio)
    if all(factors):
        product = 1.0
        for factor in factors:
            assert factor is not None
            product *= factor
        assert figure.oee_ratio == pytest.approx(product)


def test_factors_of_nothing_are_none() -> None:
    nothing = overall_equipment_effectiveness(
        planned_busy_s=0, production_s=0, down_s=0, ideal_s=0, ideal_good_s=0
    )
    assert nothing.oee_ratio is None
    assert nothing.availability_ratio is None
    assert nothing.quality_ratio is None


def test_a_rounding_of_sums_is_no_contradiction() -> None:
    figure = overall_equipment_effectiveness(
        planned_busy_s=0.3, production_s=0.1 + 0.2, down_s=0, ideal_s=0.3, ideal_good_s=0.3
    )
    assert figure.idle_loss_s == 0
    assert figure.availability_ratio == pytest.approx(1)


def test_more_production_than_was_planned_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        overall_equipment_effectiveness(
            planned_busy_s=100, production_s=90, down_s=20, ideal_s=1, ideal_good_s=1
        )
    assert (refused.value.code, refused.value.value, refused.value.limit) == (
        "figure.values_contradict",
        110,
        100,
    )


# --- reliability --------------------------------------------------------------------------


def test_the_time_between_failures_of_a_published_system() -> None:
    """NIST/SEMATECH e-Handbook, 8.4.5.1: 800 hours of operation, 2 failures.

    The estimate is 400 hours, its interval of 90 % 127 to 2,251 hours, from the factors 0.3177
    and 5.6281 of the same section.
    """
    mtbf_s = mean_operating_time_between_failures_s(800 * HOUR_S, 2)
    assert mtbf_s == 400 * HOUR_S
    bounds = mtbf_bounds(800 * HOUR_S, 2, 0.90)
    assert bounds.upper_s is not None
    assert bounds.lower_s / mtbf_s == pytest.approx(0.3177, abs=5e-5)
    assert bounds.upper_s / mtbf_s == pytest.approx(5.6281, abs=5e-5)
    assert round(bounds.lower_s / HOUR_S) == 127
    assert round(bounds.upper_s / HOUR_S) == 2_251


@pytest.mark.parametrize(
    ("failures", "lower", "upper"),
    # Halved quantiles of chi-square (Abramowitz and Stegun 1964, table 26.8), 5 % and 95 %:
    # 2.5 % and 97.5 % of 2, 4 and 20, 22 degrees of freedom.
    [(1, 11.1433 / 2, 0.0506356 / 2), (10, 36.7807 / 2, 9.59083 / 2)],
)
def test_bounds_agree_with_tables_of_chi_square(failures: int, lower: float, upper: float) -> None:
    bounds = mtbf_bounds(1.0, failures, 0.95)
    assert bounds.upper_s is not None
    assert 1 / bounds.lower_s == pytest.approx(lower, rel=1e-5)
    assert 1 / bounds.upper_s == pytest.approx(upper, rel=1e-5)


def test_without_a_failure_there_is_a_lower_bound_alone() -> None:
    """NIST/SEMATECH e-Handbook, 8.4.5.1: T / -ln(alpha); 0.4343 T at 90 %."""
    assert mean_operating_time_between_failures_s(1_000, 0) is None
    bounds = mtbf_bounds(1_000, 0, 0.90)
    assert bounds.lower_s == pytest.approx(434.3, abs=0.05)
    assert bounds.upper_s is None


@given(st.integers(1, 100_000), st.floats(0.01, 0.999))
def test_the_bounds_lie_around_the_estimate(failures: int, confidence: float) -> None:
    bounds = mtbf_bounds(1e6, failures, confidence)
    assert bounds.upper_s is not None
    assert 0 < bounds.lower_s < bounds.upper_s
    # Of very little confidence the interval may lie beside the estimate, as of any skewed law.
    if confidence > 0.5:
        assert bounds.lower_s < 1e6 / failures < bounds.upper_s


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.1, 1.5])
def test_a_confidence_lies_between_0_and_1(confidence: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        mtbf_bounds(1e6, 3, confidence)
    assert refused.value.code == "figure.confidence_out_of_range"


def test_availability_follows_from_times_of_both_kinds() -> None:
    """ISO 14224:2016 and IEC 60050-192 by their definitions, on round numbers."""
    assert operational_availability(950, 50) == 0.95
    assert operational_availability(0, 0) is None
    mttr_s = mean_time_to_restoration_s(12 * HOUR_S, 3)
    assert mttr_s == 4 * HOUR_S
    assert inherent_availability(396 * HOUR_S, mttr_s) == pytest.approx(0.99)
    assert mean_time_to_restoration_s(0, 0) is None


def test_times_below_zero_are_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        operational_availability(-1, 5)
    assert (refused.value.code, refused.value.value) == ("figure.value_invalid", -1)
    with pytest.raises(InvalidInput):
        operational_availability(float("nan"), 5)


# --- yields -------------------------------------------------------------------------------


def test_the_yield_of_published_steps() -> None:
    """Minitab support, "What are throughput yield and rolled throughput yield?": labels.

    1,000 labels printed, 950 good; of those 800 laminated good, and of those 700 cut good.
    """
    steps = [first_pass_yield(1_000, 950), first_pass_yield(950, 800), first_pass_yield(800, 700)]
    known = [step for step in steps if step is not None]
    assert known == pytest.approx([0.95, 0.84, 0.88], abs=0.00501)  # two figures
    assert rolled_throughput_yield(known) == pytest.approx(0.70)


def test_rework_counts_against_the_first_pass() -> None:
    """iSSSP, "First time yield and rolled throughput yield": 100 in, 10 scrapped, 5 reworked."""
    assert first_pass_yield(100, 100 - 10 - 5) == 0.85
    assert first_pass_yield(0, 0) is None


def test_a_yield_above_one_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        first_pass_yield(10, 11)
    assert refused.value.code == "figure.values_contradict"
    with pytest.raises(InvalidInput) as refused:
        rolled_throughput_yield([0.9, 1.1])
    assert refused.value.code == "figure.ratio_out_of_range"


def test_the_few_causes_of_most_defects_come_first() -> None:
    bars = pareto({"burr": 10, "crack": 60, "scratch": 10, "pore": 20, "dent": 0})
    assert [bar.cause for bar in bars] == ["crack", "pore", "burr", "scratch"]
    assert [bar.share for bar in bars] == pytest.approx([0.6, 0.2, 0.1, 0.1])
    assert [bar.cumulative_share for bar in bars] == pytest.approx([0.6, 0.8, 0.9, 1.0])
    assert pareto({"crack": 60}, total=120)[0].share == 0.5
    assert pareto({}) == []


# --- costs --------------------------------------------------------------------------------


def test_energy_costs_what_its_price_says() -> None:
    price = EnergyPrice(0.30 / 3.6e6, "EUR")  # 0.30 EUR a kWh
    assert price.cost(10 * 3.6e6) == pytest.approx(3.0)
    assert per_unit(3.0, 4) == 0.75
    assert per_unit(3.0, 0) is None
    with pytest.raises(InvalidInput):
        price.cost(-1)


def test_savings_are_what_was_avoided_less_what_was_spent() -> None:
    assumptions = PreventionAssumptions(
        failure_probability=0.5,
        failure_down_s=8 * HOUR_S,
        failure_repair_cost=4_000,
        down_cost_per_s=0.1,
        currency="EUR",
    )
    found = prevention_savings(4, work_cost=1_500, down_s=2 * HOUR_S, assumptions=assumptions)
    # Two failures expected: 2 x 4,000, and 16 hours of standstill at 360 an hour.
    assert found.avoided_down_s == 16 * HOUR_S
    assert found.avoided_cost == pytest.approx(8_000 + 16 * 360)
    assert found.spent_on_down_time == pytest.approx(720)
    assert found.saving == pytest.approx(13_760 - 1_500 - 720)
    assert found.assumptions is assumptions


def test_prevention_may_have_cost_more_than_it_saved() -> None:
    assumptions = PreventionAssumptions(0.0, HOUR_S, 4_000, 0.1, "EUR")
    found = prevention_savings(3, work_cost=100, down_s=0, assumptions=assumptions)
    assert found.saving == -100
    with pytest.raises(InvalidInput) as refused:
        prevention_savings(
            1,
            work_cost=0,
            down_s=0,
            assumptions=PreventionAssumptions(1.5, HOUR_S, 4_000, 0.1, "EUR"),
        )
    assert (refused.value.code, refused.value.value) == ("figure.ratio_out_of_range", 1.5)
