"""Maintenance over GraphQL: work orders one by one and in pages, the board; as of when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.access.sight import Sight
from api.graphql.context import OperationContext
from domain.maintenance.work_order import (
    ApproveWorkOrder,
    CancelWorkOrder,
    CompleteWorkOrder,
    Finding,
    Priority,
    RequestWorkOrder,
    ScheduleWorkOrder,
    StartWorkOrder,
)
from projections.maintenance.projection import MaintenanceProjection
from projections.plant.projection import PlantProjection
from projections.twins.projection import TwinProjection
from tests.api.graphql.server import Server, held_to, serving

pytestmark = pytest.mark.anyio

ORDER = """
query($id: ID!, $asOf: AsOf) { workOrder(workOrderId: $id, asOf: $asOf) {
  id workOrderId key assetId componentId title failureMode priority state cause requestedAt
  requestedBy approvedBy plannedStart plannedEnd assignee startedAt closedAt assetDownFrom
  assetDownTo failureAt prevented finding foundFailureMode workedS labourS cost currency
  replacementCount note steps { state at } position version asset { assetId } component { title }
} }
"""
ORDERS = """
query($first: Int!, $after: Cursor, $filter: WorkOrderFilter, $by: WorkOrderOrder! = NEWEST,
  $asOf: AsOf) {
  workOrders(first: $first, after: $after, filter: $filter, orderBy: $by, asOf: $asOf) {
    nodes { workOrderId state } pageInfo { hasNextPage endCursor } position
  }
}
"""
_numbers = iter(range(1, 1_000))


def later(hours: float) -> datetime:
    return datetime(2020, 3, 9, 12, tzinfo=UTC) + timedelta(hours=hours)


@pytest.fixture
async def shop(shared_database_url: str) -> AsyncIterator[Server]:
    """Two pumps, with work orders in all states; an hour passes before each step."""
    folded = (MaintenanceProjection(), TwinProjection(), PlantProjection())
    async with serving(
        shared_database_url, projections=folded, ledger=f"shop-{next(_numbers)}"
    ) as server:
        await server.register("pump-1", "pump-2", commission=True)
        for command in (
            RequestWorkOrder("WO-1", "pump-1", None, "Bearing", "bearing", Priority.HIGH, None),
            ApproveWorkOrder("WO-1", "do it"),
            ScheduleWorkOrder("WO-1", later(4), later(6), "mara"),
            StartWorkOrder("WO-1", asset_down=True),
            CompleteWorkOrder(
                "WO-1",
                completed_at=later(4),
                finding=Finding.FAILURE_CONFIRMED,
                failure_mode="bearing",
                failed_at=None,
                replacements=(),
                labour_s=1800.0,
                cost=412.5,
                currency="EUR",
                note="was worn",
            ),
            RequestWorkOrder("WO-2", "pump-2", None, "Look", None, Priority.LOW, None),
            RequestWorkOrder("WO-3", "pump-2", None, "Leak", "leak", Priority.EMERGENCY, None),
            ScheduleWorkOrder("WO-2", later(7), later(8), None),
            RequestWorkOrder("WO-4", "pump-1", None, "Wish", None, Priority.NORMAL, None),
            CancelWorkOrder("WO-4", "not wanted"),
        ):
            await server.command(command)
            server.clock.move(3600)
        yield server


async def test_work_order_tells_all_that_became_of_it(shop: Server) -> None:
    found = (await shop.ask(ORDER, id="WO-1"))["workOrder"]

    assert found.pop("id")
    assert [step["state"] for step in found.pop("steps")] == [
        "REQUESTED",
        "APPROVED",
        "SCHEDULED",
        "IN_PROGRESS",
        "COMPLETED",
    ]
    assert found.pop("position") == 9
    assert found == {
        "workOrderId": "WO-1",
        "key": "work-order:WO-1",
        "assetId": "pump-1",
        "componentId": None,
        "title": "Bearing",
        "failureMode": "bearing",
        "priority": "HIGH",
        "state": "COMPLETED",
        "cause": None,
        "requestedAt": "2020-03-09T12:00:00.000000Z",
        "requestedBy": "user:test",
        "approvedBy": "user:test",
        "plannedStart": "2020-03-09T16:00:00.000000Z",
        "plannedEnd": "2020-03-09T18:00:00.000000Z",
        "assignee": "mara",
        "startedAt": "2020-03-09T15:00:00.000000Z",
        "closedAt": "2020-03-09T16:00:00.000000Z",
        "assetDownFrom": "2020-03-09T15:00:00.000000Z",
        "assetDownTo": "2020-03-09T16:00:00.000000Z",
        "failureAt": "2020-03-09T15:00:00.000000Z",
        "prevented": False,
        "finding": "FAILURE_CONFIRMED",
        "foundFailureMode": "bearing",
        "workedS": 3600.0,
        "labourS": 1800.0,
        "cost": 412.5,
        "currency": "EUR",
        "replacementCount": 0,
        "note": "was worn",
        "version": 5,
        "asset": {"assetId": "pump-1"},
        "component": None,
    }
    assert await shop.ask(ORDER, id="WO-9") == {"workOrder": None}
    assert await shop.code(ORDER, id="a b") == "work_order.malformed_name"


async def test_work_order_is_told_as_it_was_known_and_as_it_was_true(shop: Server) -> None:
    known = (await shop.ask(ORDER, id="WO-1", asOf={"position": 8}))["workOrder"]
    true = (await shop.ask(ORDER, id="WO-1", asOf={"validAt": "2020-03-09T15:30:00Z"}))["workOrder"]

    for then in (known, true):
        assert then["state"] == "IN_PROGRESS"
        assert then["closedAt"] is then["finding"] is then["cost"] is then["note"] is None
        assert then["assetDownFrom"] == "2020-03-09T15:00:00.000000Z"
        assert then["assetDownTo"] is None
        assert [step["state"] for step in then["steps"]][-1] == "IN_PROGRESS"
    assert (known["version"], known["position"]) == (4, 8)
    before = {"validAt": "2020-03-09T11:59:00Z"}
    assert await shop.ask(ORDER, id="WO-1", asOf=before) == {"workOrder": None}


async def test_work_orders_come_in_the_order_that_is_asked_for(shop: Server) -> None:
    async def listed(**variables: Any) -> list[str]:
        page = (await shop.ask(ORDERS, **{"first": 10, **variables}))["workOrders"]
        return [node["workOrderId"] for node in page["nodes"]]

    assert await listed() == ["WO-4", "WO-3", "WO-2", "WO-1"]
    assert await listed(by="PRIORITY") == ["WO-3", "WO-1", "WO-4", "WO-2"]
    assert await listed(by="DUE") == ["WO-1", "WO-2", "WO-3", "WO-4"]
    for by in ("NEWEST", "PRIORITY", "DUE"):
        whole, paged, after = await listed(by=by), [], None
        while True:
            page = (await shop.ask(ORDERS, first=1, after=after, by=by))["workOrders"]
            paged += [node["workOrderId"] for node in page["nodes"]]
            if not page["pageInfo"]["hasNextPage"]:
                break
            after = page["pageInfo"]["endCursor"]
        assert paged == whole
    cursor = (await shop.ask(ORDERS, first=1))["workOrders"]["pageInfo"]["endCursor"]
    assert await shop.code(ORDERS, first=1, after=cursor, by="DUE") == "cursor.malformed"


async def test_work_orders_are_filtered(shop: Server) -> None:
    async def listed(then: Any = None, **wanted: Any) -> list[str]:
        page = (await shop.ask(ORDERS, first=10, filter=wanted, asOf=then))["workOrders"]
        return [node["workOrderId"] for node in page["nodes"]]

    assert await listed(states=["SCHEDULED", "REQUESTED"]) == ["WO-3", "WO-2"]
    assert await listed(assetIds=["pump-2"]) == ["WO-3", "WO-2"]
    assert await listed(priorities=["LOW", "HIGH"]) == ["WO-2", "WO-1"]
    assert await listed(failureModes=["leak"]) == ["WO-3"]
    assert await listed(requestedBy=["user:test"], assignees=["mara"]) == ["WO-1"]
    assert await listed(requestedFrom="2020-03-09T18:00:00Z") == ["WO-4", "WO-3"]
    assert await listed(requestedTo="2020-03-09T18:00:00Z") == ["WO-2", "WO-1"]
    then = {"validAt": "2020-03-09T15:30:00Z"}
    assert await listed(states=["IN_PROGRESS"], then=then) == ["WO-1"]
    wanted = {"locations": ["nowhere"]}
    assert await shop.code(ORDERS, first=1, filter=wanted) == "location.unknown"


async def test_board_counts_what_is_open_and_lists_the_most_urgent_first(shop: Server) -> None:
    document = """
        query($first: Int!, $after: Cursor, $asOf: AsOf) {
          maintenanceBoard(first: $first, after: $after, asOf: $asOf) {
            at open overdue assetsDown byState { state count } byPriority { priority count }
            byAge { upToS count } byAsset { assetId open oldestRequestedAt asset { title } }
            backlog {
              nodes { workOrderId state ageS assetDownSince asset { assetId } }
              pageInfo { hasNextPage endCursor }
            }
            basis { records firstPosition lastPosition position }
          }
        }
    """
    board = (await shop.ask(document, first=1))["maintenanceBoard"]

    assert (board["open"], board["overdue"], board["assetsDown"]) == (2, 1, 0)
    assert board["byState"] == [
        {"state": "REQUESTED", "count": 1},
        {"state": "SCHEDULED", "count": 1},
    ]
    assert [each["priority"] for each in board["byPriority"]] == ["EMERGENCY", "LOW"]
    assert sum(each["count"] for each in board["byAge"]) == 2
    assert board["byAsset"] == [
        {
            "assetId": "pump-2",
            "open": 2,
            "oldestRequestedAt": "2020-03-09T17:00:00.000000Z",
            "asset": {"title": "Pump pump-2"},
        }
    ]
    assert [node["workOrderId"] for node in board["backlog"]["nodes"]] == ["WO-3"]
    assert board["basis"]["records"] == 2
    rest = await shop.ask(document, first=5, after=board["backlog"]["pageInfo"]["endCursor"])
    backlog = rest["maintenanceBoard"]["backlog"]
    assert [node["workOrderId"] for node in backlog["nodes"]] == ["WO-2"]
    assert not backlog["pageInfo"]["hasNextPage"]
    then = await shop.ask(document, first=5, asOf={"validAt": "2020-03-09T15:30:00Z"})
    assert then["maintenanceBoard"]["open"] == then["maintenanceBoard"]["assetsDown"] == 1
    assert then["maintenanceBoard"]["at"] == "2020-03-09T15:30:00.000000Z"


async def test_orders_of_fifty_assets_take_as_many_statements_as_one(plant: Server) -> None:
    document = """
        query($first: Int!) { assets(first: $first) { nodes {
            assetId path { title } components { title slot } location { locationId }
            workOrders(first: 3, orderBy: PRIORITY) {
              nodes { workOrderId version asset { title } component { title } }
            }
            processRuns(first: 3) {
              nodes { runId version parameters { name mean } units(first: 2) { nodes { key } } }
            }
        } } }
    """

    async with plant.statements() as for_one:
        await plant.ask(document, first=1)
    async with plant.statements() as for_many:
        data = await plant.ask(document, first=50)

    nodes = data["assets"]["nodes"]
    assert len(nodes) > 5
    assert any(node["workOrders"]["nodes"] for node in nodes)
    assert any(node["processRuns"]["nodes"] for node in nodes)
    assert all(node["components"] and node["location"] for node in nodes)
    held_to(for_one, for_many)


async def test_every_order_that_was_requested_is_listed_once(plant: Server) -> None:
    ledger = plant.ledger
    requested = await ledger.pool.fetch(
        "select stream from event where ledger_id = $1 and type = 'work_order.requested'",
        ledger.ledger_id,
    )
    found, after = [], None
    while True:
        page = (await plant.ask(ORDERS, first=7, after=after, by="PRIORITY"))["workOrders"]
        found += [f"work-order:{node['workOrderId']}" for node in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]

    assert len(found) > 10
    assert sorted(found) == sorted(row["stream"] for row in requested)


async def test_orders_of_assets_out_of_sight_are_as_if_they_were_not(
    shop: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sight(_: OperationContext) -> Sight:
        return Sight(frozenset({"pump-2"}), frozenset())

    monkeypatch.setattr(OperationContext, "sight", sight)

    assert await shop.ask(ORDER, id="WO-1") == {"workOrder": None}
    page = (await shop.ask(ORDERS, first=9))["workOrders"]
    assert [node["workOrderId"] for node in page["nodes"]] == ["WO-3", "WO-2"]
    page = (await shop.ask(ORDERS, first=9, filter={"assetIds": ["pump-1"]}))["workOrders"]
    assert page["nodes"] == []
    board = await shop.ask("{ maintenanceBoard(first: 9) { open byAsset { assetId } } }")
    assert board["maintenanceBoard"]["byAsset"] == [{"assetId": "pump-2"}]
