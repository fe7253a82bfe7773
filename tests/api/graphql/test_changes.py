"""Subscriptions to the state of things: twins, alerts, work orders, readings, threads."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from api.app import projections
from domain.asset import CommissionAsset, DesireSetpoint
from domain.maintenance.work_order import ApproveWorkOrder, Priority, RequestWorkOrder
from domain.material.part import AssemblePart, ReceivePart
from eventlog.commands import handle
from projections.running.projection import Policy
from tests.api.graphql.server import START, Server, Socket, frame_of, serving
from tests.api.graphql.test_alerts import raise_alert
from tests.api.graphql.test_subscriptions import started

pytestmark = pytest.mark.anyio

TWIN = """
subscription($asset: ID!, $after: Cursor, $every: Float! = 0.05) {
  twin(assetId: $asset, after: $after, everyS: $every) {
    cursor events lag
    asset { lifecycle twin { readings(channels: ["flow"]) { value } setpoints { desired } } }
  }
}
"""
ALERTS = """
subscription($after: Cursor, $filter: AlertFilter) {
  alerts(after: $after, filter: $filter, everyS: 0.05) { cursor alerts { alertId state } }
}
"""
WORK_ORDERS = """
subscription($after: Cursor, $assets: [String!]) {
  workOrders(after: $after, assetIds: $assets, everyS: 0.05) {
    cursor events workOrders { workOrderId state assetId }
  }
}
"""
READINGS = """
subscription($after: Cursor, $points: Int! = 500) {
  readings(assetId: "pump-1", channels: ["flow"], maxPoints: $points, after: $after, everyS: 0.05,
    units: [{channel: "flow", unit: "l/min"}]) {
    cursor events start end readings { channel unit values }
  }
}
"""
THREAD = """
subscription($of: String!, $after: Cursor) {
  thread(of: $of, after: $after, everyS: 0.05) {
    cursor happened { type stream } graph { nodes { key } }
  }
}
"""


@pytest.fixture
async def whole(shared_database_url: str) -> AsyncIterator[Server]:
    """A server that folds everything but policies, on a ledger of its own."""
    folded = [each for each in projections() if not isinstance(each, Policy)]
    ledger = f"changes-{uuid.uuid4().hex[:8]}"
    async with serving(shared_database_url, projections=folded, ledger=ledger) as running:
        yield running


@asynccontextmanager
async def listening(server: Server, document: str, **variables: Any) -> AsyncIterator[Socket]:
    """Subscribe; a subscription without a cursor is known to have begun when this is entered."""
    async with server.socket() as socket:
        await socket.subscribe(document, **variables)
        await started(server)
        yield socket


async def command(server: Server, command: Any) -> None:
    await handle(
        server.ledger,
        command,
        actor="user:test",
        occurred_at=server.clock.now,
        event_id=lambda _: uuid.uuid4(),
    )
    await server.settle()


# --- twin ---------------------------------------------------------------------------------


async def test_twin_is_told_as_it_is_and_then_whenever_it_changes(whole: Server) -> None:
    await whole.register("pump-1", "pump-2")
    async with whole.socket() as socket:
        await socket.subscribe(TWIN, asset="pump-1")
        first = (await socket.next())["twin"]
        await whole.command(CommissionAsset("pump-2"))
        await whole.command(CommissionAsset("pump-1"))
        second = (await socket.next())["twin"]
        await whole.record(frame_of("pump-1", {"flow": ("l/min", [30.0, 60.0])}))
        third = (await socket.next())["twin"]

    assert (first["events"], first["asset"]["lifecycle"]) == (0, "REGISTERED")
    assert (second["events"], second["asset"]["lifecycle"]) == (1, "IN_SERVICE")
    assert third["asset"]["twin"]["readings"][0]["value"] == pytest.approx(0.001)
    assert third["cursor"] == whole.cursor(await whole.ledger.head())


async def test_twin_resumes_with_what_happened_since(whole: Server) -> None:
    await whole.register("pump-1", commission=True)
    cursor = whole.cursor(await whole.ledger.head())
    for value in (2e-4, 3e-4, 4e-4):
        await whole.command(DesireSetpoint("pump-1", "flow", value))

    async with whole.socket() as socket:
        await socket.subscribe(TWIN, asset="pump-1", after=cursor, every=0.5)
        told, events = [], 0
        while events < 3:
            told.append((await socket.next())["twin"])
            events += told[-1]["events"]

    assert events == 3
    assert told[-1]["asset"]["twin"]["setpoints"][0]["desired"] == pytest.approx(4e-4)
    assert told[-1]["cursor"] == whole.cursor(await whole.ledger.head())


async def test_many_events_come_in_few_messages(whole: Server) -> None:
    await whole.register("pump-1", commission=True)
    async with whole.socket() as socket:
        await socket.subscribe(TWIN, asset="pump-1", every=0.4)
        await socket.next()
        for n in range(1, 41):
            await whole.command(DesireSetpoint("pump-1", "flow", 2e-4 + n * 1e-6))
        messages, events = 0, 0
        while events < 40:
            told = (await socket.next())["twin"]
            messages, events = messages + 1, events + told["events"]

    assert events == 40
    assert messages < 40
    assert told["asset"]["twin"]["setpoints"][0]["desired"] == pytest.approx(2.4e-4)


async def test_twin_of_an_unknown_asset_is_refused(whole: Server) -> None:
    async with whole.socket() as socket:
        await socket.subscribe(TWIN, asset="nobody")
        error = await socket.error()

    assert error["extensions"]["code"] == "asset.unknown"


@pytest.mark.parametrize("every", [0.0, -1.0, 3601.0])
async def test_pace_has_bounds(whole: Server, every: float) -> None:
    await whole.register("pump-1")
    async with whole.socket() as socket:
        await socket.subscribe(TWIN, asset="pump-1", after=whole.cursor(0), every=every)
        error = await socket.error()

    assert error["extensions"]["code"] == "subscription.every"


# --- the others ---------------------------------------------------------------------------


async def test_alerts_are_told_as_they_stand(whole: Server) -> None:
    await whole.register("pump-1", commission=True)
    async with listening(whole, ALERTS) as socket:
        alert_id = await raise_alert(whole, "pump-1")
        raised = (await socket.next())["alerts"]
    await whole.ask(
        f'mutation {{ acknowledgeAlert(input: {{idempotencyKey: "a", alertId: "{alert_id}"}}) '
        "{ __typename } }"
    )
    async with whole.socket() as socket:
        await socket.subscribe(ALERTS, after=raised["cursor"])
        acknowledged = (await socket.next())["alerts"]
        await socket.subscribe(ALERTS, "2", after=raised["cursor"], filter={"states": ["CLEARED"]})
        unwanted = (await socket.next("2"))["alerts"]

    assert raised["alerts"] == [{"alertId": str(alert_id), "state": "RAISED"}]
    assert acknowledged["alerts"] == [{"alertId": str(alert_id), "state": "ACKNOWLEDGED"}]
    assert unwanted["alerts"] == []


async def test_work_orders_are_told_as_they_stand(whole: Server) -> None:
    await whole.register("pump-1", "pump-2", commission=True)
    for n, asset in ((1, "pump-1"), (2, "pump-2")):
        await command(
            whole,
            RequestWorkOrder(f"WO-{n}", asset, None, "Look at it", None, Priority.NORMAL),
        )
    await command(whole, ApproveWorkOrder("WO-1"))

    async with whole.socket() as socket:
        await socket.subscribe(WORK_ORDERS, after=whole.cursor(0))
        both: dict[str, str] = {}
        while len(both) < 2:
            message = (await socket.next())["workOrders"]
            both |= {order["workOrderId"]: order["state"] for order in message["workOrders"]}
        await socket.subscribe(WORK_ORDERS, "2", after=whole.cursor(0), assets=["pump-2"])
        one: list[str] = []
        cursor = ""
        while cursor != message["cursor"]:
            told = (await socket.next("2"))["workOrders"]
            cursor = told["cursor"]
            one += [order["workOrderId"] for order in told["workOrders"]]

    assert both == {"WO-1": "APPROVED", "WO-2": "REQUESTED"}
    assert set(one) == {"WO-2"}


async def test_readings_come_as_they_are_recorded(whole: Server) -> None:
    await whole.register("pump-1", commission=True)
    async with listening(whole, READINGS, points=50) as socket:
        await whole.record(frame_of("pump-1", {"flow": ("l/min", [10.0, 20.0, 30.0])}))
        message = (await socket.next())["readings"]
        later = START + timedelta(minutes=1)
        await whole.record(
            frame_of("pump-1", {"flow": ("l/min", [float(n) for n in range(1, 201)])}, start=later)
        )
        many = (await socket.next())["readings"]

    (column,) = message["readings"]
    assert column["values"] == pytest.approx([10.0, 20.0, 30.0])
    assert (column["unit"], message["start"]) == ("l/min", "2020-03-09T12:00:00.000000Z")
    (thinned,) = many["readings"]
    assert len(thinned["values"]) <= 50
    assert (min(thinned["values"]), max(thinned["values"])) == pytest.approx((1.0, 200.0))


async def test_thread_tells_of_what_it_leads_to(whole: Server) -> None:
    for part in ("SN-1", "SN-2", "SN-9"):
        await command(whole, ReceivePart(part, "BOLT", "Bolts Ltd"))
    async with listening(whole, THREAD, of="part:SN-1") as socket:
        await command(whole, ReceivePart("SN-10", "BOLT", "Bolts Ltd"))
        await command(whole, AssemblePart("SN-1", "SN-2", "left"))
        assembled = (await socket.next())["thread"]
        await command(whole, AssemblePart("SN-2", "SN-9", "top"))
        further = (await socket.next())["thread"]

    assert [event["type"] for event in assembled["happened"]] == ["part.assembled"]
    assert {node["key"] for node in assembled["graph"]["nodes"]} == {"part:SN-1", "part:SN-2"}
    assert "part:SN-9" in {node["key"] for node in further["graph"]["nodes"]}


async def test_thread_of_an_unknown_thing_is_refused(whole: Server) -> None:
    async with whole.socket() as socket:
        await socket.subscribe(THREAD, of="part:nobody")
        error = await socket.error()

    assert error["extensions"]["code"] == "thread.unknown_node"
