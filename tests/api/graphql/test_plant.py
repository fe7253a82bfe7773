"""The plant over GraphQL: locations, trees, twins, components, findings; as of when."""

from __future__ import annotations

from typing import Any

import pytest

from api.access.sight import Sight
from api.graphql.context import OperationContext
from domain.asset import PlaceAsset
from domain.plant.component import InstallComponent, RegisterComponent, RemoveComponent
from domain.plant.location import (
    DeclareRollUp,
    DefineLocation,
    Level,
    MoveLocation,
    RetireLocation,
    RollUp,
)
from projections.alerts.projection import AlertProjection
from projections.plant.projection import PlantProjection
from projections.twins.history import TwinHistoryProjection
from projections.twins.projection import TwinProjection
from tests.api.graphql.server import Server, frame_of, held_to, serving

pytestmark = pytest.mark.anyio

LOCATION = """
query($id: ID!, $asOf: AsOf) { location(locationId: $id, asOf: $asOf) {
  id locationId level title rollUp required since retired version
  parent { locationId } path { locationId }
  children(first: 10) { nodes { locationId } position }
  assets(first: 10) { nodes { assetId } }
  tree { key kind itemId itemType title parent slot depth ended }
  twin {
    kind position status index connectivity memberCount concerns { key title status index }
    assetsByHealth { good warning critical unknown }
    assetsByConnectivity { online stale neverSeen } openAlertCount
  }
} }
"""
COMPONENT = """
query($id: ID!, $asOf: AsOf) { component(componentId: $id, asOf: $asOf) {
  id kind componentId componentType title partId slot installedAt scrapped version installedS
  asset { assetId }
  stays { assetId slot beganAt endedAt position asset { assetId } }
} }
"""


@pytest.fixture
async def line(shared_database_url: str, request: pytest.FixtureRequest) -> Any:
    """A site with a line of two pumps, one of which has a bearing."""
    folded = (PlantProjection(), TwinProjection(), AlertProjection(), TwinHistoryProjection())
    name = f"line-{abs(hash(request.node.nodeid))}"
    async with serving(shared_database_url, projections=folded, ledger=name) as server:
        for location_id, level, parent in (
            ("works", Level.ENTERPRISE, None),
            ("site-1", Level.SITE, "works"),
            ("line-1", Level.LINE, "site-1"),
        ):
            await server.command(DefineLocation(location_id, level, location_id.title(), parent))
        await server.register("pump-1", "pump-2")
        for asset_id in ("pump-1", "pump-2"):
            await server.command(PlaceAsset(asset_id, "line-1"))
        await server.command(RegisterComponent("bearing-1", "rolling-bearing", "Bearing", "SN-1"))
        await server.command(InstallComponent("bearing-1", "pump-1", "drive-end"))
        yield server


async def test_location_tells_where_it_stands_and_what_stands_in_it(line: Server) -> None:
    await line.record(frame_of("pump-1", {"flow": ("l/min", [32.0])}))

    found = (await line.ask(LOCATION, id="line-1"))["location"]

    assert found.pop("id")
    assert found.pop("since") == "2020-03-09T12:00:00.000000Z"
    tree = found.pop("tree")
    assert [(item["key"], item["parent"], item["depth"]) for item in tree] == [
        ("asset:pump-1", "location:line-1", 1),
        ("asset:pump-2", "location:line-1", 1),
    ]
    twin = found.pop("twin")
    assert twin.pop("position") == await line.ledger.head()
    assert twin == {
        "kind": "PROCESS",
        "status": "UNKNOWN",
        "index": None,
        "connectivity": "NEVER_SEEN",
        "memberCount": 2,
        "concerns": [
            {"key": "asset:pump-2", "title": "Pump pump-2", "status": "UNKNOWN", "index": None}
        ],
        "assetsByHealth": {"good": 1, "warning": 0, "critical": 0, "unknown": 1},
        "assetsByConnectivity": {"online": 1, "stale": 0, "neverSeen": 1},
        "openAlertCount": 0,
    }
    assert found == {
        "locationId": "line-1",
        "level": "LINE",
        "title": "Line-1",
        "rollUp": "WORST",
        "required": None,
        "retired": False,
        "version": 1,
        "parent": {"locationId": "site-1"},
        "path": [{"locationId": "works"}, {"locationId": "site-1"}, {"locationId": "line-1"}],
        "children": {"nodes": [], "position": await line.ledger.head()},
        "assets": {"nodes": [{"assetId": "pump-1"}, {"assetId": "pump-2"}]},
    }


async def test_roll_up_is_told_and_judged_as_declared(line: Server) -> None:
    await line.command(DeclareRollUp("line-1", RollUp.K_OF_N, 1))
    await line.record(frame_of("pump-2", {"flow": ("l/min", [32.0])}))

    found = (await line.ask(LOCATION, id="line-1"))["location"]

    assert (found["rollUp"], found["required"], found["version"]) == ("K_OF_N", 1, 2)
    assert found["twin"]["status"] == "GOOD"
    assert (await line.ask(LOCATION, id="works"))["location"]["twin"]["kind"] == "SYSTEM"


async def test_location_is_told_as_of_a_position_and_as_of_a_moment(line: Server) -> None:
    before = await line.ledger.head()
    await line.command(DefineLocation("line-2", Level.LINE, "Line 2", "site-1"))
    line.clock.move(3600)
    await line.command(PlaceAsset("pump-2", "line-2"))
    now = await line.ledger.head()

    def assets(answer: dict[str, Any]) -> list[str]:
        return [node["assetId"] for node in answer["location"]["assets"]["nodes"]]

    assert assets(await line.ask(LOCATION, id="line-1")) == ["pump-1"]
    known = await line.ask(LOCATION, id="line-1", asOf={"position": before})
    assert assets(known) == ["pump-1", "pump-2"]
    assert known["location"]["twin"]["position"] == before
    true = await line.ask(LOCATION, id="line-1", asOf={"validAt": "2020-03-09T12:30:00Z"})
    assert assets(true) == ["pump-1", "pump-2"]
    assert true["location"]["twin"]["memberCount"] == 2
    assert await line.ask(LOCATION, id="line-2", asOf={"position": before}) == {"location": None}
    assert await line.code(LOCATION, id="line-1", asOf={"position": now + 1}) == "as_of.beyond_log"
    both = {"position": now, "recordedAt": "2020-03-09T12:30:00Z"}
    assert await line.code(LOCATION, id="line-1", asOf=both) == "as_of.ambiguous"


LOCATIONS = """
query($first: Int!, $after: Cursor, $filter: LocationFilter) {
  locations(first: $first, after: $after, filter: $filter) {
    nodes { locationId } pageInfo { hasNextPage endCursor } position
  }
}
"""


async def test_locations_come_in_pages_and_by_level_parent_and_retirement(line: Server) -> None:
    await line.command(DefineLocation("cell-9", Level.CELL, "Cell 9", "site-1"))
    await line.command(MoveLocation("cell-9", "line-1"))
    await line.command(RetireLocation("cell-9", "torn down"))

    async def listed(**variables: Any) -> list[str]:
        page = (await line.ask(LOCATIONS, **{"first": 10, **variables}))["locations"]
        return [node["locationId"] for node in page["nodes"]]

    assert await listed() == ["line-1", "site-1", "works"]
    assert await listed(filter={"retired": True}) == ["cell-9", "line-1", "site-1", "works"]
    assert await listed(filter={"levels": ["SITE", "LINE"]}) == ["line-1", "site-1"]
    assert await listed(filter={"parents": ["works"]}) == ["site-1"]
    page = (await line.ask(LOCATIONS, first=2))["locations"]
    assert page["pageInfo"]["hasNextPage"]
    assert await listed(after=page["pageInfo"]["endCursor"]) == ["works"]
    assert await line.code(LOCATIONS, first=0) == "page.first"


async def test_component_tells_where_it_is_and_where_it_has_been(line: Server) -> None:
    line.clock.move(600)
    await line.command(RemoveComponent("bearing-1", "pump-1", "drive-end", "worn"))
    line.clock.move(60)
    await line.command(InstallComponent("bearing-1", "pump-2", "drive-end"))
    line.clock.move(40)

    found = (await line.ask(COMPONENT, id="bearing-1"))["component"]

    assert found.pop("id")
    stays = found.pop("stays")
    assert [(s["assetId"], s["slot"], s["beganAt"], s["endedAt"]) for s in stays] == [
        ("pump-1", "drive-end", "2020-03-09T12:00:00.000000Z", "2020-03-09T12:10:00.000000Z"),
        ("pump-2", "drive-end", "2020-03-09T12:11:00.000000Z", None),
    ]
    assert found == {
        "kind": "COMPONENT",
        "componentId": "bearing-1",
        "componentType": "rolling-bearing",
        "title": "Bearing",
        "partId": "SN-1",
        "slot": "drive-end",
        "installedAt": "2020-03-09T12:11:00.000000Z",
        "scrapped": False,
        "version": 4,
        "installedS": 640.0,
        "asset": {"assetId": "pump-2"},
    }
    then = await line.ask(COMPONENT, id="bearing-1", asOf={"validAt": "2020-03-09T12:05:00Z"})
    assert then["component"]["asset"] == {"assetId": "pump-1"}
    assert then["component"]["installedS"] == 300.0
    listed = await line.ask(
        '{ components(first: 9, filter: {assetIds: ["pump-2"]}) { nodes { componentId } }'
        '  none: components(first: 9, filter: {assetIds: ["pump-1"]}) { nodes { componentId } } }'
    )
    assert [node["componentId"] for node in listed["components"]["nodes"]] == ["bearing-1"]
    assert listed["none"]["nodes"] == []


async def test_what_does_not_fit_is_listed(line: Server) -> None:
    await line.command(RegisterComponent("bearing-2", "rolling-bearing", "Bearing", None))
    await line.command(InstallComponent("bearing-2", "pump-1", "drive-end"))

    data = await line.ask(
        "{ plantFindings(first: 10) { nodes { kind subject place slot other position } } }"
    )

    assert data["plantFindings"]["nodes"] == [
        {
            "kind": "SLOT_TAKEN",
            "subject": "component:bearing-2",
            "place": "asset:pump-1",
            "slot": "drive-end",
            "other": "component:bearing-1",
            "position": await line.ledger.head(),
        }
    ]


async def test_fifty_locations_take_as_many_statements_as_one(plant: Server) -> None:
    document = """
        query($first: Int!) { locations(first: $first) { nodes {
            locationId version parent { title } path { title } children(first: 5) { nodes { id } }
            assets(first: 5) { nodes { assetId } } twin { status memberCount }
        } } }
    """

    async with plant.statements() as for_one:
        await plant.ask(document, first=1)
    async with plant.statements() as for_many:
        data = await plant.ask(document, first=50)

    assert len(data["locations"]["nodes"]) > 20
    held_to(for_one, for_many)


async def test_fifty_components_take_as_many_statements_as_one(plant: Server) -> None:
    document = """
        query($first: Int!) { components(first: $first, filter: { scrapped: true }) { nodes {
            componentId version installedS asset { title } stays { slot asset { title } }
        } } }
    """

    async with plant.statements() as for_one:
        await plant.ask(document, first=1)
    async with plant.statements() as for_many:
        data = await plant.ask(document, first=50)

    assert len(data["components"]["nodes"]) > 10
    held_to(for_one, for_many)


async def test_what_is_out_of_sight_is_as_if_it_were_not(
    line: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OfPump1(Sight):
        async def visible(self, streams: Any) -> frozenset[str]:
            return frozenset(streams) & {"asset:pump-1", "location:line-1"}

    async def sight(_: OperationContext) -> Sight:
        return OfPump1(frozenset({"pump-1"}), frozenset({"line-1"}), frozenset({"site-1"}))

    monkeypatch.setattr(OperationContext, "sight", sight)

    assert await line.ask(LOCATION, id="site-1") == {"location": None}
    found = (await line.ask(LOCATION, id="line-1"))["location"]
    assert found["parent"] is None
    assert found["path"] == [{"locationId": "site-1"}, {"locationId": "line-1"}]
    assert [item["key"] for item in found["tree"]] == ["asset:pump-1"]
    assert found["assets"]["nodes"] == [{"assetId": "pump-1"}]
    assert found["twin"]["memberCount"] == 1
    assert (await line.ask(LOCATIONS, first=9))["locations"]["nodes"] == [{"locationId": "line-1"}]
    assert await line.ask(COMPONENT, id="bearing-1") == {"component": None}
    data = await line.ask('{ asset(assetId: "pump-1") { location { title } path { title } } }')
    assert data["asset"]["location"] == {"title": "Line-1"}
    assert [name["title"] for name in data["asset"]["path"]] == ["Site-1", "Line-1"]
