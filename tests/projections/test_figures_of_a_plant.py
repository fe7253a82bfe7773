"""A generated plant: live rows are rebuilt rows, and figures of its halves add up."""

from __future__ import annotations

import pytest

from api.history_recording import record_history
from api.plant_history import HistoryName
from eventlog.ledger import Ledger
from projections.figures.effectiveness import PlannedTime, oee
from projections.figures.energy_and_cost import energy_and_cost, energy_by_part_number
from projections.figures.periods import Period
from projections.figures.reliability import reliability
from projections.maintenance.projection import MaintenanceProjection
from projections.production.projection import ProductionProjection
from projections.quality.figures import Scope, defect_pareto, yields
from projections.quality.projection import QualityProjection
from projections.running.content import check
from projections.running.rebuild import rebuild
from tests.projections.loop_frames import PATIENCE_S, running

pytestmark = pytest.mark.anyio

UNITS = ("part", "kg", "g", "l", "m", "pieces")


@pytest.mark.slow
async def test_live_rows_are_rebuilt_rows_and_figures_add_up(
    ledger: Ledger, database_url: str
) -> None:
    history = await record_history(ledger, HistoryName(parts=60, seed=3, months=12))
    projections = (MaintenanceProjection(), ProductionProjection(), QualityProjection())
    async with running(ledger, database_url, *projections) as runners:
        for runner in runners:
            await runner.wait_for(history.position, PATIENCE_S)
    for projection in projections:
        checked = await check(ledger.pool, ledger, projection)
        assert checked.equal
        await rebuild(ledger.pool, projection)
        assert (await check(ledger.pool, ledger, projection)).equal
    await _add_up(ledger)


async def _add_up(ledger: Ledger) -> None:
    span = await ledger.pool.fetchrow(
        "select min(started_at) as first, max(ended_at) as last, "
        "array_agg(distinct asset_id) as assets, array_agg(distinct operation) as operations "
        "from process_run where ledger_id = $1 and asset_id is not null",
        ledger.ledger_id,
    )
    assert span is not None
    whole = Period(span["first"], span["last"])
    middle = whole.start + (whole.end - whole.start) / 2
    halves = [Period(whole.start, middle), Period(middle, whole.end)]
    assets = span["assets"]
    assert len(assets) > 3

    down = [(await reliability(ledger, assets, period)).total for period in (whole, *halves)]
    assert down[0].failures == down[1].failures + down[2].failures
    assert down[0].down_s == pytest.approx(down[1].down_s + down[2].down_s)

    cycles = {(operation, unit): 1.0 for operation in span["operations"] for unit in UNITS}
    made = [
        (await oee(ledger, [PlannedTime(asset, period) for asset in assets], cycles)).total
        for period in (whole, *halves)
    ]
    assert made[0].items == pytest.approx(made[1].items + made[2].items)
    assert made[0].figure.production_s == pytest.approx(
        made[1].figure.production_s + made[2].figure.production_s
    )
    assert 0 < made[0].good <= made[0].items

    energy = (await energy_and_cost(ledger, assets, whole)).by_asset.values()
    of_runs = await ledger.pool.fetchval(
        "select sum(energy_j) from process_run where ledger_id = $1 and known_to = $2 "
        "and ended_at < $3",
        ledger.ledger_id,
        2**63 - 1,
        whole.end,
    )
    assert sum(asset.energy_j for asset in energy) == pytest.approx(of_runs)
    by_number = await energy_by_part_number(ledger, whole, first=500)
    assert 0 < sum(number.energy_j for number in by_number) <= of_runs * (1 + 1e-9)

    # Figures over all that was inspected, whenever.
    everything = Scope(Period(whole.start.replace(year=2000), whole.end.replace(year=2100)))
    found = await yields(ledger, everything)
    assert all(0 <= step.good_first_time <= step.units for step in found.steps)
    assert (await defect_pareto(ledger, everything)).inspections == found.basis.records
