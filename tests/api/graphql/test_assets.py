"""Assets over GraphQL: every field of the asset, its twin and its type; lists, filters, pages."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest

from domain.asset import (
    CommissionAsset,
    DesireSetpoint,
    RaiseAlert,
    RegisterAsset,
    ReportSetpoint,
    RetireAsset,
)
from domain.asset_model import Severity
from domain.frames import Quality
from tests.api.graphql.server import PUMP_TYPE, START, Server, frame_of, held_to

pytestmark = pytest.mark.anyio

TWIN = """
query Twin($id: ID!) {
  asset(assetId: $id) {
    twin {
      asOf position connectivity lastReadingAt openAlertCount
      health { status index reasons { severity channel value limit message bar: value } }
      readings {
        channel title siUnit value readAt ageS windowMean goodRatio status
      }
      setpoints {
        setpoint title siUnit desired litres: desired(unit: "l/min") desiredAt desiredBy
        reported reportedAt
      }
    }
  }
}
"""


async def test_asset_is_found_by_its_natural_key(server: Server) -> None:
    await server.register("pump-1", commission=True)

    data = await server.ask(
        '{ asset(assetId: "pump-1") '
        "{ id assetId title lifecycle version registeredAt type { name } } }"
    )

    asset = data["asset"]
    assert asset.pop("id")
    assert asset == {
        "assetId": "pump-1",
        "title": "Pump pump-1",
        "lifecycle": "IN_SERVICE",
        "version": 2,
        "registeredAt": "2020-03-09T12:00:00.000000Z",
        "type": {"name": PUMP_TYPE},
    }


async def test_unknown_asset_is_null(server: Server) -> None:
    assert await server.ask('{ asset(assetId: "nobody") { assetId } }') == {"asset": None}


@pytest.mark.parametrize("asset_id", ["", "a b", "a\0", "é", "x" * 65])
async def test_name_that_no_asset_can_have_is_refused(server: Server, asset_id: str) -> None:
    document = "query($id: ID!) { asset(assetId: $id) { assetId } }"

    assert await server.code(document, id=asset_id) == "asset.malformed_name"


async def test_asset_type_tells_all_that_it_declares(server: Server) -> None:
    data = await server.ask(
        """
        { assetTypes {
            id name title description staleAfterS
            channels { name title quantity siUnit inputUnit physicalMin physicalMax(unit: "degC") }
        } }
        """.replace('physicalMax(unit: "degC")', "physicalMax")
    )

    (pump,) = [found for found in data["assetTypes"] if found["name"] == PUMP_TYPE]
    assert pump.pop("id")
    channels = pump.pop("channels")
    assert pump == {
        "name": PUMP_TYPE,
        "title": "Water pump loop (SKAB)",
        "description": "Centrifugal pump circulating water through two motorised valves.",
        "staleAfterS": 180.0,
    }
    assert channels[3] == {
        "name": "pressure",
        "title": "Loop pressure",
        "quantity": "pressure",
        "siUnit": "Pa",
        "inputUnit": "bar",
        "physicalMin": -150_000.0,
        "physicalMax": 600_000.0,
    }


async def test_bounds_of_a_type_come_in_any_unit_of_their_quantity(server: Server) -> None:
    data = await server.ask(
        """
        { assetType(name: "skab-pump-loop") { setpoints {
            name title quantity siUnit inputUnit
            safeMin(unit: "l/min") safeMax(unit: "m3/h") si: safeMax
        } } }
        """
    )

    (flow,) = data["assetType"]["setpoints"]
    assert flow["safeMin"] == pytest.approx(10)
    assert flow["safeMax"] == pytest.approx(9)
    assert flow["si"] == pytest.approx(0.0025)
    assert (flow["name"], flow["title"]) == ("flow", "Circulation flow")
    assert (flow["quantity"], flow["siUnit"], flow["inputUnit"]) == ("volume_flow", "m3/s", "l/min")


async def test_a_type_that_nobody_declared_is_null(server: Server) -> None:
    assert await server.ask('{ assetType(name: "toaster") { name } }') == {"assetType": None}


async def test_type_tells_its_alert_rules_in_outline(server: Server) -> None:
    data = await server.ask(
        """
        { assetType(name: "skab-pump-loop") { alertRules {
            name channel severity direction message holdS clearHoldS limit deviationRatio
        } } }
        """
    )

    deviation, limit = data["assetType"]["alertRules"]
    assert deviation["name"] == "flow_restricted"
    assert deviation["limit"] is None
    assert deviation["deviationRatio"] == 0.0175
    assert limit == {
        "name": "flow_low",
        "channel": "flow",
        "severity": "CRITICAL",
        "direction": "BELOW",
        "message": "flow is below what the loop needs",
        "holdS": 30,
        "clearHoldS": 10,
        "limit": pytest.approx(30.25e-3 / 60),
        "deviationRatio": None,
    }


# --- the twin -----------------------------------------------------------------------------


async def test_twin_of_an_asset_that_was_never_seen(server: Server) -> None:
    await server.register("pump-1")

    twin = (await server.ask(TWIN, id="pump-1"))["asset"]["twin"]

    assert twin["connectivity"] == "NEVER_SEEN"
    assert twin["lastReadingAt"] is None
    assert twin["openAlertCount"] == 0
    assert twin["position"] == 1
    assert twin["health"] == {"status": "UNKNOWN", "index": None, "reasons": []}
    assert len(twin["readings"]) == 8
    assert twin["readings"][0] == {
        "channel": "accelerometer_1",
        "title": "Vibration 1",
        "siUnit": "m/s2",
        "value": None,
        "readAt": None,
        "ageS": None,
        "windowMean": None,
        "goodRatio": None,
        "status": "UNKNOWN",
    }
    assert twin["setpoints"] == [
        {
            "setpoint": "flow",
            "title": "Circulation flow",
            "siUnit": "m3/s",
            "desired": None,
            "litres": None,
            "desiredAt": None,
            "desiredBy": None,
            "reported": None,
            "reportedAt": None,
        }
    ]


async def test_twin_tells_what_each_channel_reads(server: Server) -> None:
    await server.register("pump-1")
    await server.record(
        frame_of(
            "pump-1",
            {"pressure": ("bar", [0.5, 99.0, 0.7, 0.6]), "fluid_temperature": ("degC", [20.0] * 4)},
        )
    )
    server.clock.move(10)

    twin = (await server.ask(TWIN, id="pump-1"))["asset"]["twin"]

    assert twin["connectivity"] == "ONLINE"
    assert twin["asOf"] == "2020-03-09T12:00:10.000000Z"
    assert twin["lastReadingAt"] == "2020-03-09T12:00:03.000000Z"
    readings = {reading["channel"]: reading for reading in twin["readings"]}
    assert readings["pressure"] == {
        "channel": "pressure",
        "title": "Loop pressure",
        "siUnit": "Pa",
        "value": pytest.approx(60_000),
        "readAt": "2020-03-09T12:00:03.000000Z",
        "ageS": 7.0,
        "windowMean": pytest.approx(60_000),
        "goodRatio": 0.75,
        "status": "GOOD",
    }
    assert readings["fluid_temperature"]["value"] == pytest.approx(293.15)
    assert readings["flow"]["status"] == "UNKNOWN"


async def test_twin_that_is_silent_for_too_long_is_stale(server: Server) -> None:
    await server.register("pump-1")
    await server.record(frame_of("pump-1", {"flow": ("l/min", [32.0])}))
    document = '{ asset(assetId: "pump-1") { twin { connectivity } } }'

    server.clock.move(180)
    assert (await server.ask(document))["asset"]["twin"]["connectivity"] == "ONLINE"
    server.clock.move(0.001)
    assert (await server.ask(document))["asset"]["twin"]["connectivity"] == "STALE"


async def test_health_names_the_channel_that_is_beyond_its_limit(server: Server) -> None:
    await server.register("pump-1")
    await server.record(
        frame_of("pump-1", {"pressure": ("bar", [1.5]), "supply_voltage": ("V", [260.0])})
    )

    data = await server.ask(
        """
        { asset(assetId: "pump-1") { twin {
            health { status index reasons { severity channel value limit message } }
            readings(channels: ["pressure", "supply_voltage"]) { channel status }
        } } }
        """
    )

    twin = data["asset"]["twin"]
    health = twin["health"]
    assert (health["status"], health["index"]) == ("CRITICAL", 0.0)
    assert [(r["severity"], r["channel"]) for r in health["reasons"]] == [
        ("CRITICAL", "supply_voltage"),
        ("WARNING", "pressure"),
    ]
    assert (health["reasons"][0]["value"], health["reasons"][0]["limit"]) == (260.0, 253.0)
    assert "Loop pressure" in health["reasons"][1]["message"]
    assert twin["readings"] == [
        {"channel": "pressure", "status": "WARNING"},
        {"channel": "supply_voltage", "status": "CRITICAL"},
    ]


async def test_values_of_a_twin_come_in_any_unit_of_their_quantity(server: Server) -> None:
    await server.register("pump-1")
    await server.record(
        frame_of("pump-1", {"pressure": ("bar", [1.5]), "fluid_temperature": ("degC", [20.0])})
    )

    data = await server.ask(
        """
        { asset(assetId: "pump-1") { twin {
            pressure: readings(channels: ["pressure"]) {
              value(unit: "bar") windowMean(unit: "kPa")
            }
            temperature: readings(channels: ["fluid_temperature"]) { value(unit: "degF") }
            health { reasons { value(unit: "bar") limit(unit: "mbar") } }
        } } }
        """
    )

    twin = data["asset"]["twin"]
    assert twin["pressure"] == [{"value": pytest.approx(1.5), "windowMean": pytest.approx(150)}]
    assert twin["temperature"] == [{"value": pytest.approx(68)}]
    assert twin["health"]["reasons"] == [
        {"value": pytest.approx(1.5), "limit": pytest.approx(1000)}
    ]


@pytest.mark.parametrize(
    ("unit", "code"), [("furlong", "unit.unknown"), ("degC", "unit.quantity_mismatch")]
)
async def test_unit_of_another_quantity_is_refused(server: Server, unit: str, code: str) -> None:
    await server.register("pump-1")
    await server.record(frame_of("pump-1", {"pressure": ("bar", [0.5])}))

    error = await server.error(
        """
        query($unit: String) { asset(assetId: "pump-1") { twin {
            readings(channels: ["pressure"]) { value(unit: $unit) }
        } } }
        """,
        unit=unit,
    )

    assert error["extensions"]["code"] == code
    assert error["extensions"]["value"] == unit
    assert "bar" in error["extensions"]["hint"]
    assert error["path"] == ["asset", "twin", "readings", 0, "value"]


async def test_unknown_channel_of_a_twin_is_refused(server: Server) -> None:
    await server.register("pump-1")

    document = '{ asset(assetId: "pump-1") { twin { readings(channels: ["x"]) { channel } } } }'

    assert await server.code(document) == "channel.unknown"


async def test_setpoint_as_desired_and_as_reported(server: Server) -> None:
    await server.register("pump-1")
    await server.command(DesireSetpoint("pump-1", "flow", 30e-3 / 60), actor="user:jane")
    server.clock.move(5)
    await server.command(ReportSetpoint("pump-1", "flow", 29e-3 / 60))

    (setpoint,) = (await server.ask(TWIN, id="pump-1"))["asset"]["twin"]["setpoints"]

    assert setpoint == {
        "setpoint": "flow",
        "title": "Circulation flow",
        "siUnit": "m3/s",
        "desired": pytest.approx(30e-3 / 60),
        "litres": pytest.approx(30),
        "desiredAt": "2020-03-09T12:00:00.000000Z",
        "desiredBy": "user:jane",
        "reported": pytest.approx(29e-3 / 60),
        "reportedAt": "2020-03-09T12:00:05.000000Z",
    }


async def test_twin_counts_open_alerts_and_lets_them_speak_of_health(server: Server) -> None:
    await server.register("pump-1")
    await server.command(
        RaiseAlert(
            "pump-1", uuid.uuid4(), "flow_low", Severity.CRITICAL, "flow", 4e-4, 5e-4, START, "low"
        )
    )

    twin = (await server.ask(TWIN, id="pump-1"))["asset"]["twin"]

    assert twin["openAlertCount"] == 1
    assert twin["health"]["status"] == "CRITICAL"
    assert twin["health"]["reasons"][0]["message"] == "low"


async def test_bad_readings_are_not_what_a_twin_reads(server: Server) -> None:
    await server.register("pump-1")
    bad = np.array([Quality.GOOD, Quality.MISSING], np.uint8)
    frame = frame_of("pump-1", {"flow": ("l/min", [30.0, 0.0])}, qualities={"flow": bad})
    await server.record(frame)

    data = await server.ask(
        '{ asset(assetId: "pump-1") { twin { readings(channels: ["flow"]) '
        '{ value(unit: "l/min") readAt goodRatio } } } }'
    )

    assert data["asset"]["twin"]["readings"] == [
        {
            "value": pytest.approx(30),
            "readAt": "2020-03-09T12:00:00.000000Z",
            "goodRatio": 0.5,
        }
    ]


# --- lists --------------------------------------------------------------------------------

ASSETS = """
query Assets($first: Int!, $after: Cursor, $filter: AssetFilter) {
  assets(first: $first, after: $after, filter: $filter) {
    edges { cursor node { assetId } }
    nodes { assetId }
    pageInfo { hasNextPage endCursor hasPreviousPage startCursor }
    position
  }
}
"""


def ids(connection: dict[str, Any]) -> list[str]:
    found = [node["assetId"] for node in connection["nodes"]]
    assert found == [edge["node"]["assetId"] for edge in connection["edges"]]
    return found


async def test_no_assets_are_an_empty_page(server: Server) -> None:
    page = (await server.ask(ASSETS, first=1))["assets"]

    assert page == {
        "edges": [],
        "nodes": [],
        "pageInfo": {
            "hasNextPage": False,
            "endCursor": None,
            "hasPreviousPage": False,
            "startCursor": None,
        },
        "position": 0,
    }


async def test_one_asset_is_a_page_that_ends(server: Server) -> None:
    await server.register("pump-1")

    page = (await server.ask(ASSETS, first=1))["assets"]

    assert ids(page) == ["pump-1"]
    assert page["pageInfo"]["hasNextPage"] is False
    assert page["pageInfo"]["endCursor"] == page["edges"][0]["cursor"]
    assert page["pageInfo"]["startCursor"] == page["edges"][0]["cursor"]
    assert page["position"] == 1


async def test_pages_hold_every_asset_once_although_some_are_added_meanwhile(
    server: Server,
) -> None:
    await server.register("p-1", "p-3", "p-5", "p-7", "p-9")
    first = (await server.ask(ASSETS, first=2))["assets"]
    await server.register("p-0", "p-4")
    second = (await server.ask(ASSETS, first=2, after=first["pageInfo"]["endCursor"]))["assets"]
    third = (await server.ask(ASSETS, first=2, after=second["pageInfo"]["endCursor"]))["assets"]

    assert ids(first) + ids(second) + ids(third) == ["p-1", "p-3", "p-4", "p-5", "p-7", "p-9"]
    assert [page["pageInfo"]["hasNextPage"] for page in (first, second, third)] == [
        True,
        True,
        False,
    ]
    assert second["pageInfo"]["hasPreviousPage"] is True


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        (None, ["a", "b", "c"]),
        ({}, ["a", "b", "c"]),
        ({"assetTypes": None, "lifecycles": None}, ["a", "b", "c"]),
        ({"assetTypes": [], "lifecycles": []}, ["a", "b", "c"]),
        ({"assetTypes": [PUMP_TYPE]}, ["a", "b", "c"]),
        ({"lifecycles": ["RETIRED"]}, ["c"]),
        ({"lifecycles": ["IN_SERVICE", "REGISTERED"]}, ["a", "b"]),
        ({"assetTypes": [PUMP_TYPE], "lifecycles": ["IN_SERVICE"]}, ["b"]),
    ],
)
async def test_assets_are_filtered(server: Server, filter: Any, found: list[str]) -> None:
    await server.register("a", "b", "c")
    await server.command(CommissionAsset("b"))
    await server.command(RetireAsset("c", "worn"))

    assert ids((await server.ask(ASSETS, first=10, filter=filter))["assets"]) == found


@pytest.mark.parametrize(
    ("filter", "code"),
    [
        ({"assetTypes": ["toaster"]}, "asset_type.unknown"),
        ({"assetTypes": ["a\0b"]}, "filter.malformed"),
        ({"assetTypes": ["x" * 201]}, "filter.malformed"),
        ({"assetTypes": [PUMP_TYPE] * 101}, "filter.too_many"),
        ({"lifecycles": ["SLEEPING"]}, "graphql.invalid"),
    ],
)
async def test_filter_that_makes_no_sense_is_refused(
    server: Server, filter: Any, code: str
) -> None:
    assert await server.code(ASSETS, first=10, filter=filter) == code


@pytest.mark.parametrize("first", [0, -1, 501])
async def test_page_is_bounded(server: Server, first: int) -> None:
    error = await server.error(ASSETS, first=first)

    assert error["extensions"]["code"] == "page.first"
    assert (error["extensions"]["value"], error["extensions"]["limit"]) == (first, 500)


async def test_first_is_required(server: Server) -> None:
    assert await server.code("{ assets { nodes { assetId } } }") == "graphql.invalid"


async def test_largest_page_is_served(server: Server) -> None:
    await server.register("pump-1")

    assert ids((await server.ask(ASSETS, first=500))["assets"]) == ["pump-1"]


# --- statements ---------------------------------------------------------------------------


async def test_twins_of_fifty_assets_take_as_many_statements_as_one(server: Server) -> None:
    names = [f"pump-{number:02}" for number in range(50)]
    for name in names:
        await server.command(RegisterAsset(name, PUMP_TYPE, name))
    await server.record(*(frame_of(name, {"flow": ("l/min", [30.0])}) for name in names))
    document = """
        query($first: Int!) { assets(first: $first) { nodes {
            assetId type { name }
            twin {
              connectivity openAlertCount health { index } readings { value } setpoints { desired }
            }
        } } }
    """

    async with server.statements() as for_one:
        await server.ask(document, first=1)
    async with server.statements() as for_fifty:
        data = await server.ask(document, first=50)

    assert len(data["assets"]["nodes"]) == 50
    assert all(len(node["twin"]["readings"]) == 8 for node in data["assets"]["nodes"])
    held_to(for_one, for_fifty)
    assert len([statement for statement in for_fifty if "twin_channel" in statement]) == 1
