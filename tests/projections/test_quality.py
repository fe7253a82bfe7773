"""Inspections as rows, and yields, defects, charts and capability made of them."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from domain.errors import InvalidInput
from domain.key_figures.control_charts import Rule
from domain.material.part import PartCreated
from domain.quality.inspection import Verdict
from eventlog.ledger import Ledger
from projections.figures.periods import Period
from projections.production.projection import ProductionProjection
from projections.quality.figures import (
    Scope,
    characteristic_capability,
    control_chart,
    defect_pareto,
    measurements,
    yields,
)
from projections.quality.projection import QualityProjection
from tests.eventlog.new_events import opened
from tests.projections.factory_facts import (
    correct,
    fold_wanted,
    hour,
    inspected,
    rows_of,
    run_started,
    tell,
    tell_all,
)

pytestmark = pytest.mark.anyio

DAY = Scope(Period(hour(0), hour(24)))
GOOD, DEFECTIVE, CRITICAL = Verdict.GOOD, Verdict.DEFECTIVE, Verdict.CRITICAL


async def fold(ledger: Ledger, batch: int = 1000, *, after: int = 0) -> None:
    await fold_wanted(ledger, [ProductionProjection(), QualityProjection()], batch, after=after)


def scope(**restricted: Any) -> Scope:
    return Scope(DAY.period, **restricted)


# --- fold ---------------------------------------------------------------------------------


async def inspections_with_corrections(log: Ledger, batch: int) -> None:
    first = await tell(log, *inspected("I-1", measured=[10.0, 10.2]), hour(1))
    await tell(log, *inspected("I-2", verdict=DEFECTIVE, defects=("burr", "burr")), hour(2))
    await correct(log, first, inspected("I-1", measured=[10.01])[1])
    await correct(log, first, inspected("I-1", measured=[10.02, 10.03])[1], hour(1.5))
    await fold(log, batch)


async def test_corrections_close_rows_whatever_the_batch(ledger: Ledger, database_url: str) -> None:
    async with opened(database_url, "plant-2") as other, opened(database_url, "plant-3") as third:
        for log, batch in ((ledger, 1), (other, 3), (third, 1000)):
            await inspections_with_corrections(log, batch)
        for name, order in (
            ("inspection", "origin, known_from"),
            ("inspection_characteristic", "origin, known_from, ordinal"),
        ):
            rows = await rows_of(ledger, name, order)
            assert rows
            assert rows == await rows_of(other, name, order)
            assert rows == await rows_of(third, name, order)
    for as_of, values in ((1, [10.0, 10.2]), (3, [10.01]), (4, [10.02, 10.03]), (None, None)):
        found = await measurements(ledger, "bore", DAY, as_of=as_of)
        assert list(found.values) == (values or [10.02, 10.03])
    assert found.times == (hour(1.5), hour(1.5))
    assert (found.basis.records, found.basis.first_position, found.basis.last_position) == (2, 4, 4)


# --- yields -------------------------------------------------------------------------------


async def two_operations(ledger: Ledger) -> None:
    """Mill ten parts of which two need rework, and grind nine of which three do not pass."""
    await tell_all(
        ledger,
        (*run_started("M", "mill-1", "milling"), hour(0)),
        (*run_started("N", "mill-2", "milling"), hour(0)),
        (*run_started("G", "grinder-1", "grinding"), hour(0)),
        *(
            (f"part:SN-{n}", PartCreated(f"SN-{n}", f"PN-{n % 2}", None, None, None), hour(0))
            for n in range(10)
        ),
    )
    for n in range(10):
        part = f"part:SN-{n}"
        run = "M" if n < 6 else "N"
        first = DEFECTIVE if n in (0, 1) else GOOD
        await tell(ledger, *inspected(f"M-{n}", part, first, run), hour(1 + n / 10))
        if n == 0:  # reworked on the other mill, and good then
            await tell(ledger, *inspected("M-0-again", part, GOOD, "N"), hour(3))
        if n != 1:
            verdict = CRITICAL if n in (3, 4, 5) else GOOD
            await tell(ledger, *inspected(f"G-{n}", part, verdict, "G"), hour(4 + n / 10))
    await fold(ledger)


async def test_yields_of_operations_multiply(ledger: Ledger) -> None:
    await two_operations(ledger)
    found = await yields(ledger, DAY)
    assert [
        (s.operation, s.units, s.good_first_time, s.good_at_last, s.first_pass_ratio)
        for s in found.steps
    ] == [
        ("grinding", 9, 6, 6, 6 / 9),
        ("milling", 10, 8, 9, 0.8),
    ]
    assert found.rolled_ratio == pytest.approx(0.8 * 6 / 9)
    assert found.basis.records == 20


async def test_a_unit_belongs_to_the_asset_and_time_of_its_first_inspection(
    ledger: Ledger,
) -> None:
    await two_operations(ledger)

    async def units(wanted: Scope) -> list[tuple[str | None, int, int]]:
        found = await yields(ledger, wanted)
        return [(s.operation, s.units, s.good_first_time) for s in found.steps]

    assert await units(scope(assets=("mill-1",))) == [("milling", 6, 4)]
    # SN-0 came to the second mill for rework: it is no first pass there.
    assert await units(scope(assets=("mill-2",))) == [("milling", 4, 4)]
    assert await units(scope(operation="grinding")) == [("grinding", 9, 6)]
    assert await units(scope(part_number="PN-1", operation="milling")) == [("milling", 5, 4)]
    assert await units(Scope(Period(hour(2), hour(3.5)))) == []
    assert await units(Scope(Period(hour(1.5), hour(3.5)))) == [("milling", 5, 5)]
    assert await units(scope(part_number="PN-9")) == []
    assert (await yields(ledger, scope(part_number="PN-9"))).rolled_ratio is None


async def test_yields_as_of_a_position_are_those_that_were_known(ledger: Ledger) -> None:
    await tell(ledger, *run_started("M"), hour(0))
    first = await tell(ledger, *inspected("I-1", run="M"), hour(1))
    # Found later on paper: it had been inspected before, and had failed.
    late = await tell(ledger, *inspected("I-0", verdict=DEFECTIVE, run="M"), hour(0.5))
    fixed = await correct(ledger, late, inspected("I-0", verdict=GOOD, run="M")[1])
    await fold(ledger)
    known = [
        (await yields(ledger, DAY, as_of=as_of)).steps[0].good_first_time
        for as_of in (first, late, fixed, None)
    ]
    assert known == [1, 0, 1, 1]
    assert (await yields(ledger, DAY, as_of=1)).steps == ()


async def test_inspections_without_a_run_are_a_step_of_their_own(ledger: Ledger) -> None:
    await tell(ledger, *inspected("I-1", verdict=DEFECTIVE), hour(1))
    await fold(ledger)
    (step,) = (await yields(ledger, DAY)).steps
    assert (step.operation, step.units, step.first_pass_ratio) == (None, 1, 0.0)


# --- defects ------------------------------------------------------------------------------


async def test_defects_are_counted_the_most_frequent_first(ledger: Ledger) -> None:
    await tell_all(
        ledger,
        (*run_started("M", "mill-1"), hour(0)),
        (*inspected("I-1", "part:A", DEFECTIVE, "M", defects=("burr", "crack")), hour(1)),
        (*inspected("I-2", "part:B", DEFECTIVE, defects=("burr",)), hour(2)),
        (*inspected("I-3", "part:C", GOOD), hour(2)),
        (*inspected("I-4", "part:D", CRITICAL, defects=("pore", "burr")), hour(30)),
    )
    await fold(ledger)
    found = await defect_pareto(ledger, DAY)
    assert [(b.cause, b.count) for b in found.bars] == [("burr", 2), ("crack", 1)]
    assert [b.cumulative_share for b in found.bars] == pytest.approx([2 / 3, 1])
    assert (found.total, found.inspections, found.defective_inspections) == (3, 3, 2)
    assert (found.basis.first_position, found.basis.last_position) == (2, 4)
    most = await defect_pareto(ledger, DAY, first=1)
    assert [(b.cause, b.share) for b in most.bars] == [("burr", 2 / 3)]
    of_mill = await defect_pareto(ledger, scope(assets=("mill-1",)))
    assert {b.cause for b in of_mill.bars} == {"burr", "crack"}
    nothing = await defect_pareto(ledger, scope(assets=()))
    assert (nothing.bars, nothing.total, nothing.inspections) == ((), 0, 0)
    with pytest.raises(InvalidInput) as refused:
        await defect_pareto(ledger, DAY, first=0)
    assert refused.value.code == "page.limit"


# --- characteristics ----------------------------------------------------------------------


async def bores(ledger: Ledger, values: list[float], **changes: Any) -> None:
    await tell_all(
        ledger,
        *(
            (*inspected(f"I-{n}", measured=[value], **changes), hour(n / 100))
            for n, value in enumerate(values)
        ),
    )
    await fold(ledger)


async def test_a_chart_tells_when_a_process_has_shifted(ledger: Ledger) -> None:
    draw = random.Random(7)
    calm = [round(draw.gauss(10.0, 0.01), 4) for _ in range(100)]
    shifted = [round(draw.gauss(10.02, 0.01), 4) for _ in range(50)]
    await bores(ledger, calm + shifted)
    quiet = Scope(Period(hour(0), hour(1)))
    phase_one = await control_chart(ledger, "bore", quiet, subgroup_size=5)
    assert phase_one.measurements.values == tuple(calm)
    assert phase_one.chart.violations == ()
    assert phase_one.chart.limits.sigma == pytest.approx(0.01, rel=0.25)
    # By hand: the mean range of twenty groups.
    groups = [calm[n : n + 5] for n in range(0, 100, 5)]
    spread = math.fsum(max(g) - min(g) for g in groups) / 20
    limits = phase_one.chart.limits
    assert limits.mean_centre == pytest.approx(math.fsum(calm) / 100)
    assert limits.mean_upper == pytest.approx(math.fsum(calm) / 100 + 0.577 * spread)
    assert limits.range_upper == pytest.approx(2.114 * spread)
    loud = Scope(Period(hour(1), hour(24)))
    later = await control_chart(ledger, "bore", loud, subgroup_size=5, limits=limits)
    assert {Rule.BEYOND_3_SIGMA, Rule.EIGHT_ON_ONE_SIDE} <= {
        violation.rule for violation in later.chart.violations
    }
    assert all(v.side == 1 for v in later.chart.violations if not v.of_range)


async def test_capability_is_of_one_tolerance(ledger: Ledger) -> None:
    draw = random.Random(11)
    values = [draw.gauss(10.0, 0.02) for _ in range(200)]
    await bores(ledger, values)
    found = await characteristic_capability(ledger, "bore", DAY, subgroup_size=4)
    # True: 0.2 / (6 x 0.02) = 1.667, from 200 values to about a tenth.
    assert found.within.index == pytest.approx(1.667, rel=0.15)
    assert found.overall.index == pytest.approx(1.667, rel=0.15)
    assert found.within.nearest is not None
    assert found.within.index is not None
    assert found.within.nearest <= found.within.index
    assert (found.lower_limit, found.upper_limit) == (9.9, 10.1)
    await tell(ledger, *inspected("I-x", measured=[10], limits=(9.8, 10.2)), hour(20))
    await fold(ledger, after=200)
    with pytest.raises(InvalidInput) as refused:
        await characteristic_capability(ledger, "bore", DAY, subgroup_size=4)
    assert (refused.value.code, refused.value.value) == ("figure.limits_mixed", 2)


async def test_measurements_in_different_units_are_not_mixed(ledger: Ledger) -> None:
    await tell(ledger, *inspected("I-1", measured=[10]), hour(1))
    await tell(ledger, *inspected("I-2", measured=[0.01], unit="m"), hour(2))
    await fold(ledger)
    with pytest.raises(InvalidInput) as refused:
        await control_chart(ledger, "bore", DAY, subgroup_size=2)
    assert (refused.value.code, refused.value.value) == ("figure.units_mixed", ["m", "mm"])
    with pytest.raises(InvalidInput) as refused:
        await measurements(ledger, "colour", DAY)
    assert refused.value.code == "figure.too_few_values"


async def test_an_answer_is_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.quality.figures.MEASUREMENTS_MAX", 3)
    await bores(ledger, [10.0] * 4)
    with pytest.raises(InvalidInput) as refused:
        await measurements(ledger, "bore", DAY)
    assert (refused.value.code, refused.value.limit) == ("figure.too_many_values", 3)


async def test_measurements_are_found_by_what_they_were_made_on(ledger: Ledger) -> None:
    await tell_all(
        ledger,
        (*inspected("I-1", "part:A", run="M", measured=[1.0]), hour(1)),
        (*inspected("I-2", "part:B", run="N", measured=[2.0]), hour(2)),
        (*inspected("I-3", "part:C", measured=[3.0]), hour(3)),
        # What they belong to is told only afterwards.
        (*run_started("M", "mill-1"), hour(0)),
        (*run_started("N", "mill-2", "turning"), hour(0)),
        ("part:B", PartCreated("B", "PN-2", None, None, None), hour(0)),
    )
    await fold(ledger)

    async def values(**restricted: Any) -> list[float]:
        return list((await measurements(ledger, "bore", scope(**restricted))).values)

    assert await values() == [1.0, 2.0, 3.0]
    assert await values(assets=("mill-1",)) == [1.0]
    assert await values(assets=("mill-1", "mill-2")) == [1.0, 2.0]
    assert await values(operation="turning") == [2.0]
    assert await values(part_number="PN-2") == [2.0]
