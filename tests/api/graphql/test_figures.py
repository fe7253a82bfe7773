"""Key figures over GraphQL, held against the projections' own answers on a made-up year."""

from __future__ import annotations

from typing import Any

import pytest

from api.access.sight import Sight
from api.graphql.context import OperationContext
from domain.events import format_time
from projections.figures.energy_and_cost import energy_and_cost
from projections.figures.periods import Period
from projections.figures.reliability import reliability
from projections.quality.figures import Scope, control_chart, defect_pareto, yields
from tests.api.graphql.server import Server, held_to

pytestmark = pytest.mark.anyio

PERIOD = "period: { from: $from, to: $to }"


def query(fields: str, arguments: str = "") -> str:
    """Return the document that asks for `fields` of all assets of the period."""
    return (
        "query($from: DateTime!, $to: DateTime!, $assets: AssetSetInput, $asOf: AsOf) "
        f"{{ figures({PERIOD}, assets: $assets, asOf: $asOf{arguments}) {{ {fields} }} }}"
    )


@pytest.fixture
async def year(plant: Server) -> dict[str, Any]:
    """Start and end of the made-up year, and its assets."""
    row = await plant.ledger.pool.fetchrow(
        "select min(started_at) as first, max(ended_at) as last, "
        "array_agg(distinct asset_id) as assets, array_agg(distinct operation) as operations "
        "from process_run where ledger_id = $1 and asset_id is not null",
        plant.ledger.ledger_id,
    )
    assert row is not None
    return dict(row)


def over(year: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"from": format_time(year["first"]), "to": format_time(year["last"]), **more}


async def ask(plant: Server, document: str, variables: dict[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = (await plant.ask(document, **variables))["figures"]
    return figures


async def test_reliability_is_that_of_the_projection_in_any_unit(
    plant: Server, year: dict[str, Any]
) -> None:
    expected = await reliability(
        plant.ledger, sorted(year["assets"]), Period(year["first"], year["last"])
    )
    wanted = over(year, assets={"assetIds": sorted(year["assets"])})
    document = query(
        """
        from to position assetIds
        reliability {
          total {
            failures prevented restored unrestored withoutDowntime confidence
            observed(unit: "h") down mtbf hours: mtbf(unit: "h") mtbfLower mtbfUpper mttr
            restoration availabilityRatio inherentAvailabilityRatio
          }
          byAsset { assetId asset { title } figures { failures down } }
          basis { records firstPosition lastPosition position }
        }
        """
    )

    found = await ask(plant, document, wanted)

    total, total_expected = found["reliability"]["total"], expected.total
    assert total_expected.failures > 0
    assert found["assetIds"] == sorted(year["assets"])
    assert total["failures"] == total_expected.failures
    assert total["observed"] == pytest.approx(total_expected.observed_s / 3600)
    assert total["down"] == pytest.approx(total_expected.down_s)
    assert total["mtbf"] == pytest.approx(total_expected.mtbf_s)
    assert total["hours"] == pytest.approx(total["mtbf"] / 3600)
    assert total["mtbfLower"] < total["mtbf"] < total["mtbfUpper"]
    assert total["confidence"] == 0.9
    assert total["mttr"] == pytest.approx(total_expected.mttr_s)
    assert 0 < total["availabilityRatio"] < 1
    by_asset = {each["assetId"]: each for each in found["reliability"]["byAsset"]}
    assert by_asset.keys() == expected.by_asset.keys()
    assert sum(each["figures"]["failures"] for each in by_asset.values()) == total["failures"]
    assert found["reliability"]["basis"]["records"] == expected.basis.records


async def test_a_level_of_the_plant_is_the_assets_that_stood_there(
    plant: Server, year: dict[str, Any]
) -> None:
    document = query("assetIds reliability { total { failures } }")
    everything = await ask(plant, document, over(year))
    site = await ask(plant, document, over(year, assets={"locations": ["site-3"]}))
    areas = await plant.ask(
        "{ locations(first: 50, filter: {levels: [AREA]}) { nodes { locationId } } }"
    )
    parts = []
    for node in areas["locations"]["nodes"]:
        there = await plant.ask(
            "query($id: ID!) { location(locationId: $id) { assets(first: 1) { nodes { id } } } }",
            id=node["locationId"],
        )
        if there["location"]["assets"]["nodes"]:
            wanted = over(year, assets={"locations": [node["locationId"]]})
            parts.append(await ask(plant, document, wanted))

    assert site == everything
    assert len(parts) > 1
    assert sorted(name for part in parts for name in part["assetIds"]) == site["assetIds"]
    assert (
        sum(part["reliability"]["total"]["failures"] for part in parts)
        == site["reliability"]["total"]["failures"]
    )


async def test_figures_are_those_that_were_known_then(plant: Server, year: dict[str, Any]) -> None:
    document = query("position reliability { total { failures } basis { lastPosition } }")
    head = await plant.ledger.head()
    now = await ask(plant, document, over(year))
    then = await ask(plant, document, over(year, asOf={"position": head // 2}))

    assert then["position"] == head // 2
    assert then["reliability"]["basis"]["lastPosition"] <= head // 2
    assert then["reliability"]["total"]["failures"] < now["reliability"]["total"]["failures"]


async def test_oee_adds_up_to_the_planned_time(plant: Server, year: dict[str, Any]) -> None:
    units = ("part", "kg", "g", "l", "m", "pieces")
    document = """
        query($from: DateTime!, $to: DateTime!, $cycles: [CycleTimeInput!]!) {
          figures(period: { from: $from, to: $to }) {
            oee(planned: [{ from: $from, to: $to }], cycleTimes: $cycles) {
              total {
                oeeRatio availabilityRatio effectivenessRatio qualityRatio items good runs
                plannedBusy downLoss idleLoss performanceLoss qualityLoss valuable
              }
              byAsset { assetId figures { oeeRatio runs } }
            }
          }
        }
    """
    cycles = [
        {"operation": operation, "unit": unit, "cycleS": 60.0}
        for operation in year["operations"]
        for unit in units
    ]

    found = (await plant.ask(document, **over(year, cycles=cycles)))["figures"]["oee"]

    total = found["total"]
    losses = ("downLoss", "idleLoss", "performanceLoss", "qualityLoss", "valuable")
    assert sum(total[name] for name in losses) == pytest.approx(total["plannedBusy"])
    assert total["oeeRatio"] == pytest.approx(
        total["availabilityRatio"] * total["effectivenessRatio"] * total["qualityRatio"]
    )
    assert sum(each["figures"]["runs"] for each in found["byAsset"]) == total["runs"] > 0
    missing = await plant.error(document, **over(year, cycles=[]))
    assert missing["extensions"]["code"] == "figure.cycle_time_missing"


async def test_quality_figures_are_those_of_the_projection(
    plant: Server, year: dict[str, Any]
) -> None:
    ledger = plant.ledger
    scope = Scope(Period(year["first"], year["last"]))
    name = await ledger.pool.fetchval(
        "select name from inspection_characteristic where ledger_id = $1 "
        "group by name order by count(*) desc, name limit 1",
        ledger.ledger_id,
    )
    chart = await control_chart(ledger, name, scope, subgroup_size=3)
    document = """
        query($from: DateTime!, $to: DateTime!, $name: String!) {
          figures(period: { from: $from, to: $to }) {
            yields { steps { operation units goodFirstTime goodAtLast firstPassRatio } rolledRatio }
            defectPareto(first: 3) { bars { code count share cumulativeShare } total inspections }
            measurements(characteristic: $name) { unit values times inspectionIds limitSets }
            controlChart(characteristic: $name, subgroupSize: 3) {
              subgroupSize means ranges leftOver limits { meanCentre meanUpper rangeCentre sigma }
              violations { index rule above ofRange }
            }
            phaseTwo: controlChart(
              characteristic: $name, subgroupSize: 3, centres: { mean: 0, meanRange: 0.001 }
            ) { violations { index } }
          }
        }
    """

    found = (await plant.ask(document, **over(year, name=name)))["figures"]

    expected = await yields(ledger, scope)
    assert [step["operation"] for step in found["yields"]["steps"]] == [
        step.operation for step in expected.steps
    ]
    assert found["yields"]["rolledRatio"] == pytest.approx(expected.rolled_ratio)
    defects = await defect_pareto(ledger, scope, first=3)
    assert [(bar["code"], bar["count"]) for bar in found["defectPareto"]["bars"]] == [
        (bar.cause, bar.count) for bar in defects.bars
    ]
    assert found["measurements"]["values"] == list(chart.measurements.values)
    assert len(found["measurements"]["times"]) == len(found["measurements"]["inspectionIds"])
    assert found["controlChart"]["means"] == pytest.approx(list(chart.chart.means))
    assert found["controlChart"]["limits"]["sigma"] == pytest.approx(chart.chart.limits.sigma)
    assert len(found["controlChart"]["violations"]) == len(chart.chart.violations)
    assert len(found["phaseTwo"]["violations"]) >= len(chart.chart.means)
    capability = query(f'capability(characteristic: "{name}", subgroupSize: 99) {{ violations }}')
    assert await plant.code(capability, **over(year)) == "figure.subgroup_size"
    nothing = query('measurements(characteristic: "colour") { unit }')
    assert await plant.code(nothing, **over(year)) == "figure.too_few_values"


async def test_capability_is_told_for_one_part_number(plant: Server, year: dict[str, Any]) -> None:
    row = await plant.ledger.pool.fetchrow(
        """
        select c.name, n.part_number from inspection_characteristic c
        join part_number n on n.ledger_id = c.ledger_id and n.unit_id = c.subject
        where c.ledger_id = $1 group by 1, 2
        having count(distinct (c.lower_limit, c.upper_limit)) = 1 and count(*) >= 4
        order by count(*) desc, 1 limit 1
        """,
        plant.ledger.ledger_id,
    )
    assert row is not None
    fields = f"""
        capability(
          characteristic: "{row["name"]}", subgroupSize: 2, partNumber: "{row["part_number"]}"
        ) {{
          within {{ mean sigma index nearest }} overall {{ mean sigma index nearest }}
          lowerLimit upperLimit violations measurements {{ values }}
        }}
    """

    found = (await ask(plant, query(fields), over(year)))["capability"]

    mean = sum(found["measurements"]["values"]) / len(found["measurements"]["values"])
    assert found["overall"]["mean"] == pytest.approx(mean)
    assert found["overall"]["sigma"] > 0


async def test_energy_cost_and_savings_say_what_they_assume(
    plant: Server, year: dict[str, Any]
) -> None:
    document = query(
        """
        energyAndCost(energyPrice: { amount: 0.2, currency: "EUR" }) {
          pricePerJ currency basis { records }
          byAsset { assetId energy energyKwh: energy(unit: "kWh") energyCost parts
            maintenanceCost { amount currency } }
        }
        energyByPartNumber(first: 5, energyPrice: { amount: 0.2, currency: "EUR" }) {
          partNumber parts energy energyPerPart(unit: "kWh") energyCostPerPart
        }
        preventedFailures(assumptions: {
          failureProbability: 0.5, failureDownS: 36000, failureRepairCost: 9000,
          downCostPerS: 0.1, currency: "EUR"
        }) {
          prevented avoidedCost avoidedDown(unit: "h") spentOnWork spentOnDownTime saving
          workOrderIds falseAlarmIds uncostedWorkOrders costsInOtherCurrencies { amount currency }
          assumptions { failureProbability failureDownS currency }
        }
        """
    )

    found = await ask(plant, document, over(year))

    expected = await energy_and_cost(
        plant.ledger, found_assets(found), Period(year["first"], year["last"])
    )
    costs = found["energyAndCost"]
    assert costs["pricePerJ"] == pytest.approx(0.2 / 3.6e6)
    for each in costs["byAsset"]:
        own = expected.by_asset[each["assetId"]]
        assert each["energy"] == pytest.approx(own.energy_j)
        assert each["energyCost"] == pytest.approx(each["energyKwh"] * 0.2)
    assert sum(each["energy"] for each in costs["byAsset"]) > 0
    parts = found["energyByPartNumber"]
    assert [each["energy"] for each in parts] == sorted(
        (each["energy"] for each in parts), reverse=True
    )
    assert parts[0]["energyCostPerPart"] == pytest.approx(parts[0]["energyPerPart"] * 0.2)
    saved = found["preventedFailures"]
    assert saved["prevented"] == len(saved["workOrderIds"]) > 0
    assert saved["avoidedDown"] == pytest.approx(saved["prevented"] * 0.5 * 10)
    assert saved["saving"] == pytest.approx(
        saved["avoidedCost"] - saved["spentOnWork"] - saved["spentOnDownTime"]
    )
    assert saved["assumptions"]["failureProbability"] == 0.5


def found_assets(found: dict[str, Any]) -> list[str]:
    return [each["assetId"] for each in found["energyAndCost"]["byAsset"]]


async def test_periods_and_assets_that_make_no_sense_are_refused(
    plant: Server, year: dict[str, Any]
) -> None:
    document = query("position")
    backwards = {"from": format_time(year["last"]), "to": format_time(year["first"])}
    assert await plant.code(document, **backwards) == "figure.period_empty"
    unknown = over(year, assets={"assetIds": ["nobody"]})
    assert await plant.code(document, **unknown) == "asset.unknown"
    nowhere = over(year, assets={"locations": ["nowhere"]})
    assert await plant.code(document, **nowhere) == "location.unknown"


async def test_figures_are_of_what_is_in_sight(
    plant: Server, year: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = sorted(year["assets"])[:2]
    document = query("assetIds energyAndCost { byAsset { assetId } } yields { steps { units } }")

    async def sight(_: OperationContext) -> Sight:
        return Sight(frozenset({one}), frozenset())

    everything = await ask(plant, document, over(year))
    monkeypatch.setattr(OperationContext, "sight", sight)
    found = await ask(plant, document, over(year))

    assert found["assetIds"] == [one]
    assert found_assets(found) == [one]
    assert units_of(found) < units_of(everything)
    hidden = over(year, assets={"assetIds": [other]})
    assert await plant.code(document, **hidden) == "asset.unknown"


def units_of(found: dict[str, Any]) -> int:
    return sum(step["units"] for step in found["yields"]["steps"])


async def test_figures_of_fifty_assets_take_as_many_statements_as_of_one(
    plant: Server, year: dict[str, Any]
) -> None:
    fields = query(
        "reliability { byAsset { asset { title } } } energyAndCost { byAsset { energy } }"
    )
    names = sorted(year["assets"])

    async with plant.statements() as for_one:
        await ask(plant, fields, over(year, assets={"assetIds": names[:1]}))
    async with plant.statements() as for_all:
        found = await ask(plant, fields, over(year, assets={"assetIds": names}))

    assert len(found["reliability"]["byAsset"]) == len(names) > 5
    held_to(for_one, for_all)
