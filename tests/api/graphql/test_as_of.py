"""Assets, twins, alerts, readings and events as of earlier: as they were told then."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.access.sight import Sight
from api.graphql.context import OperationContext
from api.graphql.relay import encode_id
from domain.asset import (
    AcknowledgeAlert,
    ClearAlert,
    CommissionAsset,
    DesireSetpoint,
    RaiseAlert,
    RegisterAsset,
    RetireAsset,
)
from domain.asset_model import Severity
from projections.alerts.projection import AlertProjection
from projections.maintenance.projection import MaintenanceProjection
from projections.plant.projection import PlantProjection
from projections.production.projection import ProductionProjection
from projections.telemetry import readings
from projections.twins.history import TwinHistoryProjection
from projections.twins.projection import TwinProjection
from tests.api.graphql.server import PUMP_TYPE, START, Server, frame_of, held_to, serving

pytestmark = pytest.mark.anyio

ALERT = uuid.UUID("0198c5a6-7e10-7000-8000-000000000001")
ASSET = """
query($id: ID!, $asOf: AsOf) { asset(assetId: $id, asOf: $asOf) {
  assetId lifecycle version
  twin {
    asOf position connectivity openAlertCount health { status }
    readings(channels: ["flow"]) { value(unit: "l/min") ageS } setpoints { desired(unit: "l/min") }
  }
  alerts(first: 5) { nodes { alertId state } position }
  events(first: 9) { nodes { type } position }
  readings(from: "2020-03-09T12:00:00Z", to: "2020-03-09T13:00:00Z", channels: ["flow"]) {
    count tier values
  }
} }
"""
ASSETS = """
query($first: Int!, $after: Cursor, $filter: AssetFilter, $asOf: AsOf) {
  assets(first: $first, after: $after, filter: $filter, asOf: $asOf) {
    nodes { assetId lifecycle version twin { connectivity } }
    pageInfo { hasNextPage endCursor } position
  }
}
"""
ALERTS = """
query($first: Int!, $after: Cursor, $filter: AlertFilter, $asOf: AsOf) {
  alerts(first: $first, after: $after, filter: $filter, asOf: $asOf) {
    nodes { alertId assetId state acknowledgedBy clearedAt } pageInfo { hasNextPage endCursor }
    position
  }
}
"""
RECORDED = "2099-01-01T00:00:00.000000Z"
_numbers = itertools.count(1)


def alert(number: int, asset_id: str) -> RaiseAlert:
    return RaiseAlert(
        asset_id,
        uuid.UUID(int=ALERT.int + number),
        "flow_low",
        Severity.CRITICAL,
        "flow",
        1e-4,
        5e-4,
        START,
        "flow is low",
    )


@pytest.fixture
async def loops(shared_database_url: str) -> AsyncIterator[Server]:
    """A server that folds all that answers as of earlier."""
    folded = (
        TwinProjection(),
        TwinHistoryProjection(),
        AlertProjection(),
        PlantProjection(),
        MaintenanceProjection(),
        ProductionProjection(),
    )
    async with serving(
        shared_database_url, projections=folded, ledger=f"then-{next(_numbers)}"
    ) as server:
        yield server


async def test_asset_is_told_at_every_position_as_it_was_told_then(loops: Server) -> None:
    await loops.register("pump-1", commission=True)
    steps: list[Any] = [
        frame_of("pump-1", {"flow": ("l/min", [30.0, 31.0])}),
        DesireSetpoint("pump-1", "flow", 32.0 * 1e-3 / 60),
        alert(0, "pump-1"),
        frame_of("pump-1", {"flow": ("l/min", [20.0])}),
        AcknowledgeAlert("pump-1", alert(0, "pump-1").alert_id, "seen"),
        ClearAlert("pump-1", alert(0, "pump-1").alert_id, 6e-4),
        RetireAsset("pump-1", "worn"),
    ]
    told: dict[int, Any] = {}
    for step in steps:
        if hasattr(step, "header"):
            await loops.record(step)
        else:
            await loops.command(step)
        told[await loops.ledger.head()] = (await loops.ask(ASSET, id="pump-1"))["asset"]

    judged = {node.pop("asOf") for node in (each["twin"] for each in told.values())}
    assert judged == {"2020-03-09T12:00:00.000000Z"}
    for position, then in told.items():
        found = (await loops.ask(ASSET, id="pump-1", asOf={"position": position}))["asset"]
        found["twin"].pop("asOf")
        # Ages are judged when the position was recorded, by the log's own clock.
        for each in (found, then):
            each["twin"].pop("connectivity")
            for reading in each["twin"]["readings"]:
                reading.pop("ageS")
        assert found == then, position


async def test_node_tells_assets_and_alerts_as_of_earlier(loops: Server) -> None:
    document = """
      query($asset: ID!, $alert: ID!, $asOf: AsOf) {
        asset: node(id: $asset, asOf: $asOf) { id ... on Asset { lifecycle version } }
        nodes(ids: [$asset, $alert], asOf: $asOf) {
          id ... on Asset { twin { openAlertCount } } ... on Alert { state acknowledgedBy }
        }
      }
    """
    ids = {
        "asset": encode_id("Asset", "pump-1"),
        "alert": encode_id("Alert", str(alert(0, "pump-1").alert_id)),
    }
    before = await loops.ledger.head()
    await loops.register("pump-1")
    told: dict[int, Any] = {before: None, await loops.ledger.head(): ("REGISTERED", 1, 0, None)}
    await loops.command(CommissionAsset("pump-1"))
    told[await loops.ledger.head()] = ("IN_SERVICE", 2, 0, None)
    await loops.command(alert(0, "pump-1"))
    told[await loops.ledger.head()] = ("IN_SERVICE", 3, 1, "RAISED")
    await loops.command(AcknowledgeAlert("pump-1", alert(0, "pump-1").alert_id, "seen"))
    told[await loops.ledger.head()] = ("IN_SERVICE", 4, 1, "ACKNOWLEDGED")
    await loops.command(ClearAlert("pump-1", alert(0, "pump-1").alert_id, 6e-4))
    await loops.command(RetireAsset("pump-1", "worn"))

    now = await loops.ask(document, **ids)
    assert now["asset"]["lifecycle"] == "RETIRED"
    assert now["nodes"][1]["state"] == "CLEARED"
    for position, expected in told.items():
        found = await loops.ask(document, **ids, asOf={"position": position})
        if expected is None:
            assert found == {"asset": None, "nodes": [None, None]}
            continue
        lifecycle, version, open_alerts, state = expected
        assert found["asset"] == {"id": ids["asset"], "lifecycle": lifecycle, "version": version}
        assert found["nodes"][0]["twin"] == {"openAlertCount": open_alerts}
        assert (found["nodes"][1] or {"state": None})["state"] == state, position


async def test_asset_is_told_as_it_was_true_at_a_moment(loops: Server) -> None:
    await loops.register("pump-1")
    await loops.record(frame_of("pump-1", {"flow": ("l/min", [30.0] * 120)}))
    loops.clock.move(600)
    await loops.command(CommissionAsset("pump-1"))
    moment = {"validAt": "2020-03-09T12:00:59Z"}

    found = (await loops.ask(ASSET, id="pump-1", asOf=moment))["asset"]

    assert found["lifecycle"] == "REGISTERED"
    assert found["twin"]["asOf"] == "2020-03-09T12:00:59.000000Z"
    assert found["twin"]["connectivity"] == "ONLINE"
    assert found["twin"]["readings"] == [{"value": pytest.approx(30.0), "ageS": 0.0}]
    assert found["readings"][0]["count"] == 60
    assert (await loops.ask(ASSET, id="pump-1"))["asset"]["readings"][0]["count"] == 120
    recorded = (await loops.ask(ASSET, id="pump-1", asOf={"recordedAt": RECORDED}))["asset"]
    assert recorded["twin"]["asOf"] == RECORDED


async def test_readings_as_of_earlier_are_never_those_of_rollups(
    loops: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await loops.register("pump-1")
    await loops.record(frame_of("pump-1", {"flow": ("l/min", [30.0] * 120)}))
    then = {"position": await loops.ledger.head()}
    await loops.record(frame_of("pump-1", {"flow": ("l/min", [10.0] * 120)}))
    (known,) = (await loops.ask(ASSET, id="pump-1", asOf=then))["asset"]["readings"]
    (now,) = (await loops.ask(ASSET, id="pump-1"))["asset"]["readings"]

    assert (known["count"], now["count"]) == (120, 120)
    assert (known["values"][0], now["values"][0]) == (
        pytest.approx(30.0e-3 / 60),
        pytest.approx(10.0e-3 / 60),
    )
    monkeypatch.setattr(readings, "RAW_READINGS_MAX", 100)
    (seconds,) = (await loops.ask(ASSET, id="pump-1", asOf=then))["asset"]["readings"]
    assert (seconds["tier"], seconds["values"][0]) == ("SECOND", pytest.approx(30.0e-3 / 60))
    monkeypatch.setattr(readings, "SECOND_READINGS_MAX", 100)
    assert await loops.code(ASSET, id="pump-1", asOf=then) == "readings.too_many"


async def test_assets_are_listed_as_of_a_position(loops: Server) -> None:
    for name in ("pump-1", "pump-2", "pump-3"):
        await loops.command(RegisterAsset(name, PUMP_TYPE, name))
    before = await loops.ledger.head()
    await loops.command(RetireAsset("pump-1", "sold"))
    await loops.command(RegisterAsset("pump-0", PUMP_TYPE, "late"))
    then = {"position": before}

    async def listed(**variables: Any) -> list[tuple[str, str]]:
        page = (await loops.ask(ASSETS, **{"first": 9, **variables}))["assets"]
        return [(node["assetId"], node["lifecycle"]) for node in page["nodes"]]

    assert await listed() == [
        ("pump-0", "REGISTERED"),
        ("pump-1", "RETIRED"),
        ("pump-2", "REGISTERED"),
        ("pump-3", "REGISTERED"),
    ]
    assert await listed(asOf=then) == [(f"pump-{n}", "REGISTERED") for n in (1, 2, 3)]
    assert await listed(asOf=then, filter={"lifecycles": ["RETIRED"]}) == []
    page = (await loops.ask(ASSETS, first=2, asOf=then))["assets"]
    assert page["position"] == before
    assert page["pageInfo"]["hasNextPage"]
    rest = await listed(asOf=then, after=page["pageInfo"]["endCursor"])
    assert rest == [("pump-3", "REGISTERED")]


async def test_alerts_are_told_as_they_stood(loops: Server) -> None:
    await loops.register("pump-1", "pump-2", commission=True)
    told: dict[int, Any] = {}
    first, second = alert(0, "pump-1"), alert(1, "pump-2")
    for command in (
        first,
        second,
        AcknowledgeAlert("pump-1", first.alert_id, "seen"),
        ClearAlert("pump-1", first.alert_id, 6e-4),
        alert(2, "pump-1"),
    ):
        await loops.command(command)
        loops.clock.move(60)
        head = await loops.ledger.head()
        told[head] = (await loops.ask(ALERTS, first=9))["alerts"]

    for position, then in told.items():
        found = (await loops.ask(ALERTS, first=9, asOf={"position": position}))["alerts"]
        assert found["nodes"] == then["nodes"], position
        assert found["position"] == then["position"] == position
    third = sorted(told)[2]
    open_then = {"asOf": {"position": third}, "filter": {"states": ["ACKNOWLEDGED"]}}
    nodes = (await loops.ask(ALERTS, first=9, **open_then))["alerts"]["nodes"]
    assert [node["alertId"] for node in nodes] == [str(first.alert_id)]
    true = {"validAt": "2020-03-09T12:01:30Z"}
    nodes = (await loops.ask(ALERTS, first=9, asOf=true))["alerts"]["nodes"]
    assert [node["state"] for node in nodes] == ["RAISED", "RAISED"]
    one = "query($id: UUID!, $asOf: AsOf) { alert(alertId: $id, asOf: $asOf) { state } }"
    key = str(first.alert_id)
    assert (await loops.ask(one, id=key))["alert"] == {"state": "CLEARED"}
    then = await loops.ask(one, id=key, asOf={"position": third})
    assert then["alert"] == {"state": "ACKNOWLEDGED"}
    page = (await loops.ask(ALERTS, first=1, asOf={"position": third}))["alerts"]
    assert [node["assetId"] for node in page["nodes"]] == ["pump-2"]
    assert page["pageInfo"]["hasNextPage"]
    rest = {"asOf": {"position": third}, "after": page["pageInfo"]["endCursor"]}
    nodes = (await loops.ask(ALERTS, first=1, **rest))["alerts"]["nodes"]
    assert [node["assetId"] for node in nodes] == ["pump-1"]


async def test_events_are_those_recorded_by_then(loops: Server) -> None:
    await loops.register("pump-1", "pump-2", "pump-3")
    document = """
        query($asOf: AsOf, $first: Int!, $after: Cursor) {
          events(first: $first, after: $after, asOf: $asOf) {
            nodes { position } pageInfo { hasNextPage endCursor } position
          }
        }
    """

    page = (await loops.ask(document, first=9, asOf={"position": 2}))["events"]

    assert [node["position"] for node in page["nodes"]] == [1, 2]
    assert not page["pageInfo"]["hasNextPage"]
    assert page["position"] == 2
    begun = (await loops.ask(document, first=1, asOf={"position": 2}))["events"]
    assert begun["pageInfo"]["hasNextPage"]
    rest = {"asOf": {"position": 2}, "after": begun["pageInfo"]["endCursor"]}
    assert len((await loops.ask(document, first=9, **rest))["events"]["nodes"]) == 1
    valid = {"validAt": "2020-03-09T12:00:00Z"}
    assert await loops.code(document, first=1, asOf=valid) == "as_of.not_by_valid_time"


async def test_alerts_of_many_assets_as_of_earlier_are_read_together(loops: Server) -> None:
    names = [f"pump-{n:02}" for n in range(12)]
    for n, name in enumerate(names):
        await loops.command(RegisterAsset(name, PUMP_TYPE, name))
        await loops.command(alert(n, name))
    document = """
        query($first: Int!, $at: Position!) { assets(first: $first, asOf: { position: $at }) {
          nodes { assetId lifecycle alerts(first: 2) { nodes { state } } }
        } }
    """
    head = await loops.ledger.head()

    async with loops.statements() as for_one:
        await loops.ask(document, first=1, at=head)
    async with loops.statements() as for_all:
        data = await loops.ask(document, first=12, at=head)

    assert all(len(node["alerts"]["nodes"]) == 1 for node in data["assets"]["nodes"])
    assert len(data["assets"]["nodes"]) == 12
    held_to(for_one, for_all)


async def test_what_is_out_of_sight_was_never_there(
    loops: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await loops.register("pump-1", "pump-2", commission=True)
    await loops.command(alert(0, "pump-1"))
    await loops.command(alert(1, "pump-2"))

    async def sight(_: OperationContext) -> Sight:
        return Sight(frozenset({"pump-2"}), frozenset())

    monkeypatch.setattr(OperationContext, "sight", sight)
    then = {"position": await loops.ledger.head()}

    for as_of in (None, then):
        answer = await loops.ask(
            'query($asOf: AsOf) { asset(assetId: "pump-1", asOf: $asOf) { title } }', asOf=as_of
        )
        assert answer == {"asset": None}
        nodes = (await loops.ask(ASSETS, first=9, asOf=as_of))["assets"]["nodes"]
        assert [node["assetId"] for node in nodes] == ["pump-2"]
        nodes = (await loops.ask(ALERTS, first=9, asOf=as_of))["alerts"]["nodes"]
        assert [node["assetId"] for node in nodes] == ["pump-2"]


async def test_projections_say_how_they_fare(loops: Server) -> None:
    await loops.register("pump-1")
    data = await loops.ask(
        "{ log { projections { name version active eventsPerS rebuildable failure repair } } }"
    )

    found = {each.pop("name"): each for each in data["log"]["projections"]}
    assert found["plant"].pop("eventsPerS") >= 0
    assert found["plant"] == {
        "version": 1,
        "active": True,
        "rebuildable": True,
        "failure": None,
        "repair": None,
    }
