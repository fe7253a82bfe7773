"""Reliability, effectiveness, energy, cost and savings, held against a plain reckoning."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from domain.asset import AssetPlaced, AssetRegistered
from domain.errors import InvalidInput
from domain.key_figures.costs import EnergyPrice, PreventionAssumptions
from domain.maintenance.work_order import Finding, WorkOrderCancelled
from domain.material.lot import LotCreated
from domain.material.part import PartCreated, PartProcessed, PartScrapped
from domain.material.process_run import ProcessRunAborted
from domain.plant.location import Level, LocationDefined
from domain.quality.inspection import Verdict
from eventlog.ledger import Ledger
from projections.figures.asset_sets import ASSETS_MAX, assets_below
from projections.figures.effectiveness import PlannedTime, oee
from projections.figures.energy_and_cost import energy_and_cost, energy_by_part_number
from projections.figures.periods import Period
from projections.figures.reliability import prevented_failures, reliability
from projections.maintenance.projection import MaintenanceProjection
from projections.plant.projection import PlantProjection
from projections.production.projection import ProductionProjection
from projections.quality.projection import QualityProjection
from tests.projections.factory_facts import (
    HOUR_S,
    completed,
    correct,
    fold_wanted,
    hour,
    inspected,
    requested,
    run_completed,
    run_started,
    started,
    tell,
    tell_all,
)

pytestmark = pytest.mark.anyio

DAY = Period(hour(0), hour(24))
MILLS = ("mill-1", "mill-2")


async def fold(ledger: Ledger, *, after: int = 0) -> None:
    await fold_wanted(
        ledger,
        [MaintenanceProjection(), ProductionProjection(), QualityProjection()],
        after=after,
    )


@dataclass(frozen=True)
class Repair:
    """A work order in a plain reckoning."""

    asset: str
    begun: datetime
    ended: datetime
    failed: datetime | None = None
    finding: Finding = Finding.FAILURE_CONFIRMED
    down: bool = True
    cause: str | None = None


async def repair(ledger: Ledger, name: str, what: Repair, **cost: Any) -> list[int]:
    return await tell_all(
        ledger,
        (*requested(name, what.asset, cause=what.cause), what.failed or what.begun),
        (*started(name, down=what.down), what.begun),
        (*completed(name, what.finding, what.failed, **cost), what.ended),
    )


# --- periods and sets of assets -----------------------------------------------------------


def test_a_period_holds_time() -> None:
    assert DAY.length_s == 24 * HOUR_S
    for end in (hour(0), hour(-1)):
        with pytest.raises(InvalidInput) as refused:
            Period(hour(0), end)
        assert refused.value.code == "figure.period_empty"
    with pytest.raises(InvalidInput) as refused:
        Period(datetime(2026, 1, 1), hour(1))  # noqa: DTZ001
    assert refused.value.code == "event.naive_time"


async def test_a_set_of_assets_is_bounded(ledger: Ledger) -> None:
    for assets in ([], [f"mill-{n}" for n in range(ASSETS_MAX + 1)]):
        with pytest.raises(InvalidInput) as refused:
            await reliability(ledger, assets, DAY)
        assert (refused.value.code, refused.value.value) == ("figure.assets", len(assets))


async def test_the_assets_of_a_level_are_those_that_stood_there(ledger: Ledger) -> None:
    await tell_all(
        ledger,
        ("location:plant", LocationDefined("plant", Level.SITE, "Plant", None), hour(0)),
        ("location:hall", LocationDefined("hall", Level.AREA, "Hall", "plant"), hour(0)),
        *(
            (f"asset:{name}", AssetRegistered(name, "production-machine", name), hour(0))
            for name in ("mill-1", "mill-2", "press-1")
        ),
        ("asset:mill-2", AssetPlaced("mill-2", "hall", None), hour(1)),
        ("asset:mill-1", AssetPlaced("mill-1", "hall", None), hour(1)),
        ("asset:press-1", AssetPlaced("press-1", "plant", None), hour(1)),
        ("asset:mill-1", AssetPlaced("mill-1", "plant", "hall"), hour(5)),
    )
    await fold_wanted(ledger, [PlantProjection()])
    assert await assets_below(ledger, "plant") == ("mill-1", "mill-2", "press-1")
    assert await assets_below(ledger, "hall", at=hour(2)) == ("mill-1", "mill-2")
    assert await assets_below(ledger, "hall", at=hour(6)) == ("mill-2",)
    assert await assets_below(ledger, "hall", at=hour(6), as_of=8) == ("mill-1", "mill-2")


# --- reliability --------------------------------------------------------------------------


async def test_the_reliability_of_two_mills(ledger: Ledger) -> None:
    await repair(ledger, "WO-1", Repair("mill-1", hour(4), hour(6), failed=hour(3)))
    await repair(ledger, "WO-2", Repair("mill-1", hour(10), hour(11)))
    preventive = Repair("mill-2", hour(1), hour(3), finding=Finding.NOT_APPLICABLE)
    await repair(ledger, "WO-3", preventive)
    await fold(ledger)
    found = await reliability(ledger, MILLS, DAY)
    one, two = found.by_asset["mill-1"], found.by_asset["mill-2"]
    assert (one.failures, one.down_s, one.restored) == (2, 4 * HOUR_S, 2)
    assert one.mtbf_s == 20 / 2 * HOUR_S
    assert one.mttr_s == 2 * HOUR_S
    assert one.availability_ratio == 20 / 24
    assert one.inherent_availability_ratio == pytest.approx(10 / 12)
    assert (two.failures, two.down_s, two.mtbf_s, two.mttr_s) == (0, 2 * HOUR_S, None, None)
    assert two.mtbf_bounds is not None
    assert two.mtbf_bounds.upper_s is None
    assert found.total.observed_s == 48 * HOUR_S
    assert found.total.mtbf_s == 42 / 2 * HOUR_S
    assert found.total.availability_ratio == 42 / 48
    assert (found.basis.records, found.basis.first_position, found.basis.last_position) == (
        3,
        3,
        9,
    )


async def test_standstills_that_overlap_are_one(ledger: Ledger) -> None:
    await repair(ledger, "WO-1", Repair("mill-1", hour(4), hour(8)))
    await repair(ledger, "WO-2", Repair("mill-1", hour(6), hour(9), finding=Finding.NO_FAULT_FOUND))
    await fold(ledger)
    found = (await reliability(ledger, ["mill-1"], DAY)).total
    assert (found.down_s, found.failures) == (5 * HOUR_S, 1)


async def test_a_standstill_counts_in_a_period_only_as_far_as_it_reaches(ledger: Ledger) -> None:
    await repair(ledger, "WO-1", Repair("mill-1", hour(-2), hour(1)))
    await tell_all(ledger, (*requested("WO-2"), hour(22)), (*started("WO-2"), hour(23)))
    await fold(ledger)
    found = (await reliability(ledger, ["mill-1"], DAY)).total
    assert found.down_s == 2 * HOUR_S
    assert found.failures == 0  # the one was before, of the other nobody knows yet
    earlier = (await reliability(ledger, ["mill-1"], Period(hour(-24), hour(0)))).total
    assert (earlier.failures, earlier.down_s, earlier.mttr_s) == (1, 2 * HOUR_S, 3 * HOUR_S)


async def test_failures_without_standstill_or_prevented_are_told_apart(ledger: Ledger) -> None:
    await repair(ledger, "WO-1", Repair("mill-1", hour(2), hour(3), down=False))
    await repair(ledger, "WO-2", Repair("mill-1", hour(4), hour(5), cause="prediction:P-1"))
    await repair(ledger, "WO-3", Repair("mill-1", hour(6), hour(7), cause="alert:A-1"))
    await tell_all(
        ledger,
        (*requested("WO-4"), hour(8)),
        (*started("WO-4"), hour(8)),
        ("work-order:WO-4", WorkOrderCancelled("WO-4", "nothing there"), hour(9)),
    )
    await fold(ledger)
    found = (await reliability(ledger, ["mill-1"], DAY)).total
    assert (found.failures, found.prevented) == (2, 1)
    assert (found.restored, found.without_downtime, found.unrestored) == (1, 1, 0)
    assert found.mttr_s == HOUR_S
    assert found.down_s == 3 * HOUR_S


async def test_reliability_as_of_a_position_is_what_was_known(ledger: Ledger) -> None:
    *_, first = await repair(ledger, "WO-1", Repair("mill-1", hour(4), hour(6)))
    *_, late = await repair(ledger, "WO-2", Repair("mill-1", hour(1), hour(2)))
    corrected = await correct(ledger, late, completed("WO-2", Finding.NO_FAULT_FOUND)[1])
    await fold(ledger)
    known = [
        (await reliability(ledger, ["mill-1"], DAY, as_of=as_of)).total
        for as_of in (0, first, late, corrected, None)
    ]
    assert [k.failures for k in known] == [0, 1, 2, 1, 1]
    assert [k.down_s / HOUR_S for k in known] == [0, 2, 3, 3, 3]


def reckon(repairs: Sequence[Repair], asset: str, period: Period) -> tuple[int, float, float]:
    """Return failures, down time and restoration time, s, minute by minute."""
    minutes = set()
    failures, restoration = 0, 0.0
    for what in repairs:
        if what.asset != asset:
            continue
        down_from = what.begun
        if what.finding is Finding.FAILURE_CONFIRMED:
            failed = what.failed or what.begun
            down_from = min(down_from, failed)
            if period.start <= failed < period.end:
                failures += 1
                if what.down:
                    restoration += (what.ended - failed).total_seconds()
        if what.down:
            moment = down_from
            while moment < what.ended:
                if period.start <= moment < period.end:
                    minutes.add(moment)
                moment += timedelta(minutes=1)
    return failures, 60.0 * len(minutes), restoration


@pytest.mark.parametrize("seed", range(3))
async def test_reliability_agrees_with_a_plain_reckoning(ledger: Ledger, seed: int) -> None:
    draw = random.Random(seed)
    repairs = []
    for n in range(40):
        begun = hour(draw.randrange(-600, 3_000) / 60)
        what = Repair(
            asset=draw.choice(MILLS),
            begun=begun,
            ended=begun + timedelta(minutes=draw.randrange(1, 400)),
            failed=begun - timedelta(minutes=draw.randrange(90)) if draw.random() < 0.5 else None,
            finding=draw.choice(list(Finding)),
            down=draw.random() < 0.7,
        )
        repairs.append(what)
        await repair(ledger, f"WO-{n}", what)
    await fold(ledger)
    found = await reliability(ledger, MILLS, DAY)
    for mill in MILLS:
        figure = found.by_asset[mill]
        failures, down_s, restoration_s = reckon(repairs, mill, DAY)
        assert figure.failures == failures
        assert figure.down_s == pytest.approx(down_s)
        assert figure.restoration_s == pytest.approx(restoration_s)
    assert found.total.failures == sum(f.failures for f in found.by_asset.values())


# --- effectiveness ------------------------------------------------------------------------

SHIFT = Period(hour(6), hour(14))
PLAN = [PlannedTime("mill-1", SHIFT)]
CYCLES = {("milling", "part"): 600.0}


async def milled(ledger: Ledger, name: str, parts: Sequence[str], start: float, end: float) -> None:
    await tell_all(
        ledger,
        (*run_started(name), hour(start)),
        *((f"part:{part}", PartProcessed(part, name), hour(end)) for part in parts),
        (*run_completed(name), hour(end)),
    )


async def test_the_effectiveness_of_a_shift(ledger: Ledger) -> None:
    """Eight hours planned, five of production, one down: 18 parts of ten minutes, 3 not good."""
    await milled(ledger, "R-1", [f"A-{n}" for n in range(10)], 6, 8)
    await milled(ledger, "R-2", [f"B-{n}" for n in range(8)], 10, 12)
    await tell_all(
        ledger,
        (*run_started("R-3"), hour(12)),
        ("process-run:R-3", ProcessRunAborted("R-3", "tool broke"), hour(13)),
        (*inspected("I-1", "part:A-1", Verdict.DEFECTIVE, "R-1"), hour(9)),
        (*inspected("I-2", "part:A-1", Verdict.GOOD, "R-9"), hour(15)),
        (*inspected("I-3", "part:A-2", Verdict.GOOD, "R-1"), hour(9)),
        (*inspected("I-4", "part:A-3", Verdict.CRITICAL, None), hour(9)),
        ("part:A-4", PartScrapped("A-4", "dropped"), hour(9)),
        ("part:A-5", PartProcessed("A-5", "R-8"), hour(16)),
        ("part:A-5", PartScrapped("A-5", "in assembly"), hour(17)),
        (*inspected("I-5", "part:B-1", Verdict.CRITICAL, "R-2"), hour(13)),
    )
    await repair(ledger, "WO-1", Repair("mill-1", hour(8.5), hour(9.5)))
    await fold(ledger)
    found = await oee(ledger, PLAN, CYCLES)
    total = found.total
    assert (total.items, total.good, total.runs, total.aborted_runs) == (18, 15, 2, 1)
    figure = total.figure
    assert (figure.planned_busy_s, figure.production_s) == (8 * HOUR_S, 5 * HOUR_S)
    assert figure.availability_ratio == 5 / 8
    assert figure.effectiveness_ratio == 18 * 600 / (5 * HOUR_S)
    assert figure.quality_ratio == 15 / 18
    assert figure.oee_ratio == 15 * 600 / (8 * HOUR_S)
    assert (figure.down_loss_s, figure.idle_loss_s) == (HOUR_S, 2 * HOUR_S)
    assert (figure.performance_loss_s, figure.quality_loss_s) == (5 * HOUR_S - 10_800, 1_800)
    assert found.by_asset == {"mill-1": total}
    assert found.basis.records == 3


async def test_what_is_outside_the_plan_does_not_count(ledger: Ledger) -> None:
    await milled(ledger, "R-1", ["A"], 5, 7)  # half of it before the shift; its part is of it
    await milled(ledger, "R-2", ["B"], 13, 14)  # ends with the shift
    await milled(ledger, "R-3", ["C"], 13.5, 15)  # beside R-2, and ends after the shift
    await milled(ledger, "R-4", ["D"], 2, 3)
    await tell(ledger, *run_started("R-5"), hour(12))  # goes on
    await repair(ledger, "WO-1", Repair("mill-1", hour(6.5), hour(8)))
    await fold(ledger)
    total = (await oee(ledger, PLAN, CYCLES)).total
    assert (total.items, total.runs) == (2, 2)
    # Up to 6:30, for then it stood still, and from 12:00 to 14:00.
    assert total.figure.production_s == 2.5 * HOUR_S
    assert total.figure.down_loss_s == 1.5 * HOUR_S
    in_two = [
        PlannedTime("mill-1", Period(hour(6), hour(7))),
        PlannedTime("mill-1", Period(hour(6.5), hour(7.5))),
    ]
    figure = (await oee(ledger, in_two, CYCLES)).total.figure
    assert (figure.planned_busy_s, figure.production_s) == (1.5 * HOUR_S, 0.5 * HOUR_S)


async def test_operations_and_lots_have_cycle_times_of_their_own(ledger: Ledger) -> None:
    await milled(ledger, "R-1", ["A", "B"], 6, 7)
    await tell_all(
        ledger,
        (*run_started("R-2", "mixer-1", "mixing"), hour(6)),
        ("lot:L-1", LotCreated("L-1", "resin", 40.0, "kg", "R-2"), hour(8)),
        (*run_completed("R-2"), hour(8)),
    )
    await fold(ledger)
    plan = [*PLAN, PlannedTime("mixer-1", SHIFT)]
    with pytest.raises(InvalidInput) as refused:
        await oee(ledger, plan, CYCLES)
    assert (refused.value.code, refused.value.value) == (
        "figure.cycle_time_missing",
        "mixing in kg",
    )
    found = await oee(ledger, plan, CYCLES | {("mixing", "kg"): 90.0})
    assert found.by_asset["mixer-1"].figure.effectiveness_ratio == 40 * 90 / (2 * HOUR_S)
    assert found.total.figure.oee_ratio == (2 * 600 + 40 * 90) / (16 * HOUR_S)


async def test_an_asset_that_did_nothing_was_idle(ledger: Ledger) -> None:
    found = await oee(ledger, [PlannedTime("mill-7", SHIFT)], {})
    assert found.total.figure.oee_ratio == 0
    assert found.total.figure.idle_loss_s == 8 * HOUR_S
    assert found.total.figure.quality_ratio is None
    assert (found.basis.records, found.basis.first_position) == (0, None)
    with pytest.raises(InvalidInput) as refused:
        await oee(ledger, [], {})
    assert refused.value.code == "figure.planned_times"


async def test_effectiveness_as_of_a_position_is_what_was_known(ledger: Ledger) -> None:
    await milled(ledger, "R-1", ["A", "B"], 6, 8)
    verdict = await tell(ledger, *inspected("I-1", "part:A", Verdict.DEFECTIVE, "R-1"), hour(9))
    fixed = await correct(ledger, verdict, inspected("I-1", "part:A", run="R-1")[1])
    await fold(ledger)
    known = [
        (await oee(ledger, PLAN, CYCLES, as_of=as_of)).total
        for as_of in (0, 1, verdict - 1, verdict, fixed, None)
    ]
    assert [(k.items, k.good) for k in known] == [
        (0, 0),
        (0, 0),
        (2, 2),
        (2, 1),
        (2, 2),
        (2, 2),
    ]
    # While nobody knew of its end, the run went on to the end of the shift.
    assert [k.figure.production_s / HOUR_S for k in known] == [0, 8, 2, 2, 2, 2]


# --- energy and cost ----------------------------------------------------------------------


async def test_energy_and_cost_of_assets(ledger: Ledger) -> None:
    await tell_all(
        ledger,
        (*run_started("R-1"), hour(1)),
        ("part:A", PartProcessed("A", "R-1"), hour(2)),
        ("part:B", PartProcessed("B", "R-1"), hour(2)),
        (*run_completed("R-1", 7.2e6), hour(2)),
        (*run_started("R-2"), hour(2)),
        ("part:B", PartProcessed("B", "R-2"), hour(3)),
        ("part:C", PartProcessed("C", "R-2"), hour(3)),
        (*run_completed("R-2"), hour(3)),
        (*run_started("R-3"), hour(23)),
        (*run_completed("R-3", 1.0), hour(24)),
    )
    for n, (cost, currency) in enumerate(((100.0, "EUR"), (50.0, "EUR"), (7.0, "USD"))):
        name = f"WO-{n}"
        await repair(ledger, name, Repair("mill-1", hour(4), hour(5)), cost=cost, currency=currency)
    await repair(ledger, "WO-3", Repair("mill-2", hour(4), hour(5)))
    await fold(ledger)
    price = EnergyPrice(0.25 / 3.6e6, "EUR")
    found = await energy_and_cost(ledger, [*MILLS, "mill-3"], DAY, price=price)
    mill = found.by_asset["mill-1"]
    assert (mill.runs, mill.unmeasured_runs, mill.energy_j, mill.parts) == (2, 1, 7.2e6, 3)
    assert mill.energy_cost == pytest.approx(0.5)
    assert mill.energy_j_per_part == 3.6e6  # of the two parts whose run was measured
    assert mill.maintenance_cost == {"EUR": 150.0, "USD": 7.0}
    assert mill.cost_per_part == pytest.approx(150.5 / 3)
    other = found.by_asset["mill-2"]
    assert (other.maintenance_cost, other.uncosted_work_orders) == ({}, 1)
    assert found.by_asset["mill-3"].runs == 0
    assert found.price is price
    assert found.basis.records == 6
    without = await energy_and_cost(ledger, ["mill-1"], DAY, as_of=3)
    assert without.by_asset["mill-1"].energy_cost is None
    assert without.by_asset["mill-1"].runs == 0


async def test_energy_of_a_run_is_shared_by_its_parts(ledger: Ledger) -> None:
    await tell_all(
        ledger,
        *(
            (f"part:{part}", PartCreated(part, number, None, None, None), hour(0))
            for part, number in (("A", "PN-1"), ("B", "PN-1"), ("C", "PN-2"))
        ),
        (*run_started("R-1"), hour(1)),
        *((f"part:{part}", PartProcessed(part, "R-1"), hour(2)) for part in "ABC"),
        (*run_completed("R-1", 900.0), hour(2)),
        (*run_started("R-2", "mill-2"), hour(2)),
        ("part:A", PartProcessed("A", "R-2"), hour(3)),
        (*run_completed("R-2", 50.0), hour(3)),
        (*run_started("R-3", "mill-2"), hour(3)),
        ("part:C", PartProcessed("C", "R-3"), hour(4)),
        (*run_completed("R-3"), hour(4)),
    )
    await fold(ledger)
    found = await energy_by_part_number(ledger, DAY)
    assert [(e.part_number, e.parts, e.energy_j, e.unmeasured_runs) for e in found] == [
        ("PN-1", 2, 650.0, 0),
        ("PN-2", 1, 300.0, 1),
    ]
    assert (found[0].energy_j_per_part, found[0].energy_cost_per_part) == (325.0, None)
    (priced, _) = await energy_by_part_number(ledger, DAY, price=EnergyPrice(0.01, "EUR"))
    assert priced.energy_cost_per_part == pytest.approx(3.25)
    (of_one,) = await energy_by_part_number(ledger, DAY, part_ids=["A"])
    assert (of_one.parts, of_one.energy_j) == (1, 350.0)
    (of_mill,) = await energy_by_part_number(ledger, DAY, assets=["mill-2"], first=1)
    assert (of_mill.part_number, of_mill.energy_j) == ("PN-1", 50.0)
    assert await energy_by_part_number(ledger, Period(hour(5), hour(6))) == []


# --- prevented failures -------------------------------------------------------------------

ASSUMED = PreventionAssumptions(
    failure_probability=0.8,
    failure_down_s=10 * HOUR_S,
    failure_repair_cost=5_000.0,
    down_cost_per_s=0.05,
    currency="EUR",
)


async def test_savings_come_with_their_assumptions(ledger: Ledger) -> None:
    found_early = Repair("mill-1", hour(4), hour(6), cause="prediction:P-1")
    await repair(ledger, "WO-1", found_early, cost=300.0, currency="EUR")
    await repair(ledger, "WO-2", found_early, cost=80.0, currency="USD")
    await repair(ledger, "WO-3", found_early)
    too_late = Repair("mill-1", hour(4), hour(6), failed=hour(3), cause="prediction:P-1")
    await repair(ledger, "WO-4", too_late, cost=9_000.0, currency="EUR")
    false_alarm = Repair(
        "mill-1", hour(4), hour(6), finding=Finding.NO_FAULT_FOUND, cause="prediction:P-1"
    )
    await repair(ledger, "WO-5", false_alarm, cost=70.0, currency="EUR")
    await fold(ledger)
    found = await prevented_failures(ledger, MILLS, DAY, ASSUMED)
    assert found.work_order_ids == ("WO-1", "WO-2", "WO-3")
    savings = found.savings
    assert savings.assumptions is ASSUMED
    assert savings.avoided_cost == pytest.approx(3 * 0.8 * (5_000 + 10 * HOUR_S * 0.05))
    # What was spent on the false alarm too; the failure that came all the same saved nothing.
    assert found.false_alarm_ids == ("WO-5",)
    assert savings.spent_on_work == 370.0
    assert savings.spent_on_down_time == pytest.approx(8 * HOUR_S * 0.05)
    assert savings.saving == pytest.approx(
        savings.avoided_cost - savings.spent_on_work - savings.spent_on_down_time
    )
    assert (found.costs_in_other_currencies, found.uncosted_work_orders) == ({"USD": 80.0}, 1)
    assert (await prevented_failures(ledger, ["mill-2"], DAY, ASSUMED)).savings.saving == 0
    assert (await prevented_failures(ledger, MILLS, DAY, ASSUMED, as_of=2)).work_order_ids == ()
