"""Process runs over GraphQL: parameters set against actual, what went through, readings."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.access.sight import Sight
from api.graphql.context import OperationContext
from domain.material.part import CreatePart, ProcessPart
from domain.material.process_run import (
    AbortProcessRun,
    ActualParameter,
    CompleteProcessRun,
    SetParameter,
    StartProcessRun,
)
from projections.alerts.projection import AlertProjection
from projections.plant.projection import PlantProjection
from projections.production.projection import ProductionProjection
from projections.twins.projection import TwinProjection
from tests.api.graphql.server import Server, frame_of, held_to, serving

pytestmark = pytest.mark.anyio

RUN = """
query($id: ID!, $asOf: AsOf) { processRun(runId: $id, asOf: $asOf) {
  id runId key assetId operation state recipe design tool operator startedAt endedAt energyJ reason
  position version flags asset { assetId }
  parameters { name unit setTo mean minimum maximum kelvin: mean(unit: "K") }
  units(first: 1) { nodes { key how quantity unit } pageInfo { hasNextPage endCursor } }
  readings(channels: ["flow"], units: [{channel: "flow", unit: "l/min"}]) { count values unit }
} }
"""
RUNS = """
query($first: Int!, $after: Cursor, $filter: ProcessRunFilter, $asOf: AsOf) {
  processRuns(first: $first, after: $after, filter: $filter, asOf: $asOf) {
    nodes { runId state } pageInfo { hasNextPage endCursor }
  }
}
"""
_numbers = itertools.count(1)


@pytest.fixture
async def cell(shared_database_url: str) -> AsyncIterator[Server]:
    """Three runs on two pumps: completed, aborted, under way; a minute before each step."""
    folded = (ProductionProjection(), TwinProjection(), AlertProjection(), PlantProjection())
    async with serving(
        shared_database_url, projections=folded, ledger=f"cell-{next(_numbers)}"
    ) as server:
        await server.register("pump-1", "pump-2", commission=True)
        await server.record(frame_of("pump-1", {"flow": ("l/min", [30.0] * 300)}, step_s=1))
        for command in (
            StartProcessRun(
                "R-1",
                "pump-1",
                "rinse",
                operator="mara",
                parameters=(SetParameter("temperature", 60.0, "degC"),),
            ),
            CreatePart("SN-1", "GEAR-31", run_id="R-1"),
            CreatePart("SN-2", "GEAR-31", run_id="R-1"),
            CompleteProcessRun(
                "R-1", (ActualParameter("temperature", 61.0, 59.0, 63.0, "degC"),), 3.6e6
            ),
            StartProcessRun("R-2", "pump-2", "dry"),
            AbortProcessRun("R-2", "no air"),
            StartProcessRun("R-3", "pump-2", "rinse"),
            ProcessPart("SN-1", "R-3"),
        ):
            await server.command(command)
            server.clock.move(60)
        yield server


async def test_run_tells_what_was_set_what_was_and_what_went_through(cell: Server) -> None:
    found = (await cell.ask(RUN, id="R-1"))["processRun"]

    assert found.pop("id")
    (readings,) = found.pop("readings")
    assert readings["count"] == 181  # from its start to its end, both included
    assert readings["unit"] == "l/min"
    assert readings["values"][0] == pytest.approx(30.0)
    units = found.pop("units")
    assert units["nodes"] == [
        {"key": "part:SN-1", "how": "PRODUCED", "quantity": 1, "unit": "part"}
    ]
    assert units["pageInfo"]["hasNextPage"]
    (parameter,) = found.pop("parameters")
    assert parameter.pop("kelvin") == pytest.approx(334.15)
    assert parameter == {
        "name": "temperature",
        "unit": "degC",
        "setTo": 60.0,
        "mean": 61.0,
        "minimum": 59.0,
        "maximum": 63.0,
    }
    assert found.pop("position") > 0
    assert found == {
        "runId": "R-1",
        "key": "process-run:R-1",
        "assetId": "pump-1",
        "operation": "rinse",
        "state": "COMPLETED",
        "recipe": None,
        "design": None,
        "tool": None,
        "operator": "mara",
        "startedAt": "2020-03-09T12:00:00.000000Z",
        "endedAt": "2020-03-09T12:03:00.000000Z",
        "energyJ": 3.6e6,
        "reason": None,
        "version": 2,
        "flags": [],
        "asset": {"assetId": "pump-1"},
    }


async def test_run_is_told_as_it_was_true_while_it_ran(cell: Server) -> None:
    then = {"validAt": "2020-03-09T12:01:30Z"}
    found = (await cell.ask(RUN, id="R-1", asOf=then))["processRun"]

    assert found["state"] == "RUNNING"
    assert found["endedAt"] is found["energyJ"] is None
    assert [(p["setTo"], p["mean"]) for p in found["parameters"]] == [(60.0, None)]
    assert found["readings"][0]["count"] == 91
    assert not found["units"]["pageInfo"]["hasNextPage"]
    assert await cell.ask(RUN, id="R-2", asOf=then) == {"processRun": None}
    wrong = '{ processRun(runId: "R-1") { parameters { mean(unit: "bar") } } }'
    assert await cell.code(wrong) == "unit.quantity_mismatch"


async def test_runs_come_in_pages_and_filtered(cell: Server) -> None:
    async def listed(
        first: int = 10, after: Any = None, then: Any = None, **wanted: Any
    ) -> list[str]:
        page = await cell.ask(RUNS, first=first, after=after, filter=wanted, asOf=then)
        return [node["runId"] for node in page["processRuns"]["nodes"]]

    assert await listed() == ["R-3", "R-2", "R-1"]
    page = (await cell.ask(RUNS, first=2))["processRuns"]
    assert await listed(after=page["pageInfo"]["endCursor"]) == ["R-1"]
    assert await listed(assetIds=["pump-2"]) == ["R-3", "R-2"]
    assert await listed(operations=["rinse"]) == ["R-3", "R-1"]
    assert await listed(states=["RUNNING"]) == ["R-3"]
    assert await listed(states=["ABORTED", "COMPLETED"]) == ["R-2", "R-1"]
    assert await listed(partNumbers=["GEAR-31"]) == ["R-3", "R-1"]
    assert await listed(partNumbers=["SHAFT-9"]) == []
    assert await listed(units=["part:SN-2"]) == ["R-1"]
    assert await listed(runningFrom="2020-03-09T12:05:30Z") == ["R-3"]
    assert await listed(runningTo="2020-03-09T12:01:00Z") == ["R-1"]
    assert await listed(then={"validAt": "2020-03-09T12:04:30Z"}, states=["RUNNING"]) == ["R-2"]
    assert await cell.code(RUNS, first=1, after="nonsense") == "cursor.malformed"


async def test_runs_of_the_plant_are_those_that_began(plant: Server) -> None:
    ledger = plant.ledger
    began = await ledger.pool.fetchval(
        "select count(*) from event where ledger_id = $1 and type = 'process_run.started'",
        ledger.ledger_id,
    )
    found: list[str] = []
    after = None
    while True:
        page = (await plant.ask(RUNS, first=100, after=after))["processRuns"]
        found += [node["runId"] for node in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]

    assert began > 50
    assert len(found) == len(set(found)) == began


async def test_fifty_runs_take_as_many_statements_as_one(plant: Server) -> None:
    document = """
        query($first: Int!) { processRuns(first: $first) { nodes {
            runId version flags asset { title } parameters { name setTo mean }
            units(first: 5) { nodes { key } }
        } } }
    """

    async with plant.statements() as for_one:
        await plant.ask(document, first=1)
    async with plant.statements() as for_many:
        data = await plant.ask(document, first=50)

    assert len(data["processRuns"]["nodes"]) == 50
    held_to(for_one, for_many)


async def test_runs_of_assets_out_of_sight_are_as_if_they_were_not(
    cell: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sight(_: OperationContext) -> Sight:
        return Sight(frozenset({"pump-2"}), frozenset())

    monkeypatch.setattr(OperationContext, "sight", sight)

    assert await cell.ask(RUN, id="R-1") == {"processRun": None}
    page = (await cell.ask(RUNS, first=9))["processRuns"]
    assert [node["runId"] for node in page["nodes"]] == ["R-3", "R-2"]
