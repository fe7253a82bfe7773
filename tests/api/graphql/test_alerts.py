"""Alerts over GraphQL: every field, lists newest first, filters, an asset's own alerts."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from domain.asset import AcknowledgeAlert, ClearAlert, EscalateAlert, RaiseAlert
from domain.asset_model import EVERY_CHANNEL, Severity
from tests.api.graphql.server import START, Server, held_to

pytestmark = pytest.mark.anyio

LITRE_PER_MINUTE = 1e-3 / 60

ALERTS = """
query Alerts($first: Int!, $after: Cursor, $filter: AlertFilter) {
  alerts(first: $first, after: $after, filter: $filter) {
    nodes { alertId }
    pageInfo { hasNextPage endCursor hasPreviousPage }
    position
  }
}
"""


async def raise_alert(
    server: Server, asset_id: str, severity: Severity = Severity.WARNING
) -> uuid.UUID:
    """Raise an alert of `asset_id` and return its id."""
    alert_id = uuid.uuid4()
    await server.command(
        RaiseAlert(
            asset_id,
            alert_id,
            "flow_low",
            severity,
            "flow",
            30 * LITRE_PER_MINUTE,
            31 * LITRE_PER_MINUTE,
            START - timedelta(seconds=30),
            "flow is low",
        )
    )
    return alert_id


def ids(page: dict[str, Any]) -> list[uuid.UUID]:
    return [uuid.UUID(node["alertId"]) for node in page["nodes"]]


async def test_alert_tells_its_life(server: Server) -> None:
    await server.register("pump-1")
    alert_id = await raise_alert(server, "pump-1", Severity.CRITICAL)
    document = """
        query($id: UUID!) { alert(alertId: $id) {
            id alertId assetId rule severity state channel message since raisedAt
            acknowledgedAt acknowledgedBy note clearedAt position siUnit
            value(unit: "l/min") limit(unit: "l/min") valueSi: value limitSi: limit
            asset { assetId title }
        } }
    """

    alert = (await server.ask(document, id=str(alert_id)))["alert"]
    assert alert.pop("id")
    assert alert == {
        "alertId": str(alert_id),
        "assetId": "pump-1",
        "rule": "flow_low",
        "severity": "CRITICAL",
        "state": "RAISED",
        "channel": "flow",
        "message": "flow is low",
        "since": "2020-03-09T11:59:30.000000Z",
        "raisedAt": "2020-03-09T12:00:00.000000Z",
        "acknowledgedAt": None,
        "acknowledgedBy": None,
        "note": None,
        "clearedAt": None,
        "position": 2,
        "siUnit": "m3/s",
        "value": pytest.approx(30),
        "limit": pytest.approx(31),
        "valueSi": pytest.approx(30 * LITRE_PER_MINUTE),
        "limitSi": pytest.approx(31 * LITRE_PER_MINUTE),
        "asset": {"assetId": "pump-1", "title": "Pump pump-1"},
    }

    server.clock.move(60)
    await server.command(AcknowledgeAlert("pump-1", alert_id, "on my way"), actor="user:jane")
    alert = (await server.ask(document, id=str(alert_id)))["alert"]
    assert alert["state"] == "ACKNOWLEDGED"
    assert alert["acknowledgedAt"] == "2020-03-09T12:01:00.000000Z"
    assert (alert["acknowledgedBy"], alert["note"]) == ("user:jane", "on my way")

    server.clock.move(60)
    await server.command(ClearAlert("pump-1", alert_id, 32 * LITRE_PER_MINUTE))
    alert = (await server.ask(document, id=str(alert_id)))["alert"]
    assert (alert["state"], alert["clearedAt"]) == ("CLEARED", "2020-03-09T12:02:00.000000Z")


async def test_alert_tells_its_last_escalation(server: Server) -> None:
    await server.register("pump-1")
    alert_id = await raise_alert(server, "pump-1")
    document = """
        query($id: UUID!) { alert(alertId: $id) {
            state escalationLevel escalatedAt escalatedTo escalationReason
        } }
    """

    assert (await server.ask(document, id=str(alert_id)))["alert"] == {
        "state": "RAISED",
        "escalationLevel": None,
        "escalatedAt": None,
        "escalatedTo": None,
        "escalationReason": None,
    }

    for level, to in ((1, "shift lead"), (3, "plant manager")):
        server.clock.move(60)
        reason = f"nobody came: {level}"
        await server.command(EscalateAlert("pump-1", alert_id, level, to, reason))

    assert (await server.ask(document, id=str(alert_id)))["alert"] == {
        "state": "RAISED",
        "escalationLevel": 3,
        "escalatedAt": "2020-03-09T12:02:00.000000Z",
        "escalatedTo": "plant manager",
        "escalationReason": "nobody came: 3",
    }


async def test_unknown_alert_is_null(empty_server: Server) -> None:
    document = "query($id: UUID!) { alert(alertId: $id) { alertId } }"

    assert await empty_server.ask(document, id=str(uuid.uuid4())) == {"alert": None}


async def test_alert_id_that_is_none_is_refused(empty_server: Server) -> None:
    document = "query($id: UUID!) { alert(alertId: $id) { alertId } }"

    assert await empty_server.code(document, id="the red one") == "uuid.malformed"


async def test_value_of_an_alert_in_a_unit_of_another_quantity_is_refused(server: Server) -> None:
    await server.register("pump-1")
    await raise_alert(server, "pump-1")

    document = '{ alerts(first: 1) { nodes { value(unit: "bar") } } }'

    assert await server.code(document) == "unit.quantity_mismatch"


async def test_no_alerts_are_an_empty_page(empty_server: Server) -> None:
    page = (await empty_server.ask(ALERTS, first=5))["alerts"]

    assert page == {
        "nodes": [],
        "pageInfo": {"hasNextPage": False, "endCursor": None, "hasPreviousPage": False},
        "position": 0,
    }


async def test_alerts_come_newest_first_in_pages(server: Server) -> None:
    await server.register("pump-1", "pump-2")
    raised = [await raise_alert(server, f"pump-{1 + number % 2}") for number in range(5)]

    first = (await server.ask(ALERTS, first=2))["alerts"]
    late = await raise_alert(server, "pump-1")
    after = first["pageInfo"]["endCursor"]
    second = (await server.ask(ALERTS, first=2, after=after))["alerts"]
    after = second["pageInfo"]["endCursor"]
    third = (await server.ask(ALERTS, first=2, after=after))["alerts"]

    assert ids(first) + ids(second) + ids(third) == raised[::-1]
    assert [p["pageInfo"]["hasNextPage"] for p in (first, second, third)] == [True, True, False]
    assert ids((await server.ask(ALERTS, first=1))["alerts"]) == [late]


async def test_alerts_are_filtered(server: Server) -> None:
    await server.register("pump-1", "pump-2")
    open_warning = await raise_alert(server, "pump-1")
    acknowledged = await raise_alert(server, "pump-2", Severity.CRITICAL)
    cleared = await raise_alert(server, "pump-2")
    await server.command(AcknowledgeAlert("pump-2", acknowledged))
    await server.command(ClearAlert("pump-2", cleared, 1.0))

    async def found(filter: dict[str, Any] | None) -> list[uuid.UUID]:
        return ids((await server.ask(ALERTS, first=10, filter=filter))["alerts"])

    assert await found(None) == [cleared, acknowledged, open_warning]
    assert await found({"assetIds": None, "severities": [], "states": None}) == await found({})
    assert await found({"assetIds": ["pump-1"]}) == [open_warning]
    assert await found({"severities": ["CRITICAL"]}) == [acknowledged]
    assert await found({"states": ["RAISED", "ACKNOWLEDGED"]}) == [acknowledged, open_warning]
    assert await found({"states": ["CLEARED"], "assetIds": ["pump-1"]}) == []
    assert await server.code(ALERTS, first=1, filter={"assetIds": ["\0"]}) == "filter.malformed"


async def test_asset_lists_its_own_alerts(server: Server) -> None:
    await server.register("pump-1", "pump-2")
    mine = [await raise_alert(server, "pump-1") for _ in range(3)]
    await raise_alert(server, "pump-2")
    document = """
        query($first: Int!, $after: Cursor, $filter: AssetAlertFilter) {
          asset(assetId: "pump-1") {
            alerts(first: $first, after: $after, filter: $filter) {
              nodes { alertId } pageInfo { endCursor hasNextPage }
            }
          }
        }
    """

    first = (await server.ask(document, first=2))["asset"]["alerts"]
    rest = (await server.ask(document, first=2, after=first["pageInfo"]["endCursor"]))["asset"][
        "alerts"
    ]
    critical = (await server.ask(document, first=2, filter={"severities": ["CRITICAL"]}))["asset"]

    assert ids(first) + ids(rest) == mine[::-1]
    assert critical["alerts"]["nodes"] == []


async def test_assets_of_many_alerts_take_one_statement(server: Server) -> None:
    names = [f"pump-{number}" for number in range(10)]
    await server.register(*names)
    for name in names:
        await raise_alert(server, name)
    document = """
        query($first: Int!) {
          alerts(first: $first) { nodes { siUnit value(unit: "l/min") asset { assetId } } }
        }
    """

    async with server.statements() as for_one:
        await server.ask(document, first=1)
    async with server.statements() as for_ten:
        await server.ask(document, first=10)

    held_to(for_one, for_ten)


async def test_alerts_of_many_assets_take_as_many_statements_as_of_one(server: Server) -> None:
    names = [f"pump-{number:03d}" for number in range(30)]
    await server.register(*names)
    raised = {name: [await raise_alert(server, name) for _ in range(3)] for name in names[:20]}
    document = """
        query($first: Int!) {
          assets(first: $first) {
            nodes {
              assetId
              alerts(first: 2) { nodes { alertId } pageInfo { hasNextPage } position }
              critical: alerts(first: 1, filter: {severities: [CRITICAL]}) { nodes { alertId } }
            }
          }
        }
    """

    async with server.statements() as for_one:
        await server.ask(document, first=1)
    async with server.statements() as for_thirty:
        nodes = (await server.ask(document, first=30))["assets"]["nodes"]

    held_to(for_one, for_thirty)
    assert sum("alert" in statement for statement in for_thirty) == 2
    assert [node["assetId"] for node in nodes] == names
    for node in nodes:
        newest = raised.get(node["assetId"], [])[:0:-1]
        assert ids(node["alerts"]) == newest
        assert node["alerts"]["pageInfo"]["hasNextPage"] is bool(newest)
        assert int(node["alerts"]["position"]) == await server.ledger.head()
        assert ids(node["critical"]) == []


async def test_alerts_of_assets_go_on_after_a_cursor_of_any_of_them(server: Server) -> None:
    await server.register("pump-1", "pump-2")
    raised = [await raise_alert(server, name) for name in ("pump-1", "pump-2") * 2]
    document = """
        query($after: Cursor) {
          assets(first: 2) {
            nodes { alerts(first: 5, after: $after) { nodes { alertId } pageInfo { endCursor } } }
          }
        }
    """
    await server.settle()
    pages = (await server.ask(document, after=None))["assets"]["nodes"]
    assert [ids(page["alerts"]) for page in pages] == [raised[2::-2], raised[3::-2]]
    cursor = (await server.ask("{ alerts(first: 2) { pageInfo { endCursor } } }"))["alerts"]
    after = cursor["pageInfo"]["endCursor"]
    pages = (await server.ask(document, after=after))["assets"]["nodes"]
    assert [ids(page["alerts"]) for page in pages] == [[raised[0]], [raised[1]]]


async def test_an_alert_for_missing_data_is_measured_in_time(server: Server) -> None:
    await server.register("pump-1")
    alert_id = uuid.uuid4()
    since = START - timedelta(seconds=180)
    await server.command(
        RaiseAlert(
            "pump-1",
            alert_id,
            "data_missing",
            Severity.WARNING,
            EVERY_CHANNEL.name,
            180.0,
            180.0,
            since,
            "nothing was heard",
        )
    )
    document = """
        query($id: UUID!) {
          alert(alertId: $id) { channel siUnit value limit(unit: "min") }
          asset(assetId: "pump-1") { twin { health {
            status reasons { channel message value limit(unit: "min") }
          } } }
        }
    """
    answer = await server.ask(document, id=str(alert_id))
    assert answer["alert"] == {"channel": "*", "siUnit": "s", "value": 180.0, "limit": 3.0}
    assert answer["asset"]["twin"]["health"] == {
        "status": "WARNING",
        "reasons": [{"channel": "*", "message": "nothing was heard", "value": 180.0, "limit": 3.0}],
    }
