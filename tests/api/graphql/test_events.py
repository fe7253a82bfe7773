"""Events over GraphQL: every field of the envelope, pages of the log, and where it stands."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from api.graphql.relay import encode_cursor
from domain.asset import DesireSetpoint, RetireAsset
from domain.time_quality import TimeQuality
from eventlog.reading import PAGE_BYTES_MAX, read_page
from projections.running.runner import ProjectionRunner
from tests.api.graphql.server import LEDGER, PUMP_TYPE, Server, frame_of

pytestmark = pytest.mark.anyio

EVENTS = """
query Events($first: Int!, $after: Cursor, $filter: EventFilter) {
  events(first: $first, after: $after, filter: $filter) {
    edges { cursor node { position cursor } }
    nodes { position }
    pageInfo { hasNextPage endCursor hasPreviousPage startCursor }
    position
  }
}
"""


def positions(page: dict[str, Any]) -> list[int]:
    found = [node["position"] for node in page["nodes"]]
    assert found == [edge["node"]["position"] for edge in page["edges"]]
    assert all(edge["cursor"] == edge["node"]["cursor"] for edge in page["edges"])
    return found


async def test_fact_tells_its_whole_envelope(server: Server) -> None:
    await server.register("pump-1")
    (recorded,) = await read_page(server.ledger, 0)
    assert recorded.payload is not None

    data = await server.ask(
        """
        { events(first: 1) { nodes {
            id position cursor stream version type schemaVersion eventId occurredAt recordedAt
            actor correlationId causationId payloadSha256 leafHash fact frame { agent }
        } } }
        """
    )

    (event,) = data["events"]["nodes"]
    assert event.pop("id")
    assert event == {
        "position": 1,
        "cursor": server.cursor(1),
        "stream": "asset:pump-1",
        "version": 1,
        "type": "asset.registered",
        "schemaVersion": 1,
        "eventId": str(recorded.event_id),
        "occurredAt": "2020-03-09T12:00:00.000000Z",
        "recordedAt": recorded.recorded_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "actor": "user:test",
        "correlationId": None,
        "causationId": None,
        "payloadSha256": hashlib.sha256(recorded.payload).hexdigest(),
        "leafHash": recorded.leaf_hash.hex(),
        "fact": {"asset_id": "pump-1", "asset_type": PUMP_TYPE, "title": "Pump pump-1"},
        "frame": None,
    }


async def test_frame_is_told_in_outline(server: Server) -> None:
    await server.register("pump-1")
    frame = frame_of("pump-1", {"flow": ("l/min", [30.0, 31.0]), "pressure": ("bar", [0.5, 0.6])})
    await server.record(frame)

    data = await server.ask(
        """
        { events(first: 1, filter: {types: ["asset.frame_recorded"]}) { nodes {
            stream actor payloadSha256 fact
            frame { agent sequence windowStart windowEnd readingCount channels }
        } } }
        """
    )

    assert data["events"]["nodes"] == [
        {
            "stream": "telemetry:pump-1",
            "actor": "agent:gateway-1",
            "payloadSha256": frame.canonical_sha256.hex(),
            "fact": None,
            "frame": {
                "agent": "gateway-1",
                "sequence": frame.sequence,
                "windowStart": "2020-03-09T12:00:00.000000Z",
                "windowEnd": "2020-03-09T12:00:01.000000Z",
                "readingCount": 4,
                "channels": ["flow", "pressure"],
            },
        }
    ]


async def test_a_frame_tells_how_far_its_times_can_be_trusted(server: Server) -> None:
    await server.register("pump-1")
    silent = frame_of("pump-1", {"flow": ("l/min", [30.0])})
    header = replace(silent.header, time=TimeQuality("device", False, 5_000_000, True))
    said = replace(silent, header=header, sequence=silent.sequence + 1)
    for frame in (silent, said):
        await server.record(frame)
    data = await server.ask(
        """
        { events(first: 2, filter: {types: ["asset.frame_recorded"]}) { nodes { frame {
            timeQuality { source synchronized offsetS stepped }
        } } } }
        """
    )
    assert [node["frame"]["timeQuality"] for node in data["events"]["nodes"]] == [
        None,
        {"source": "DEVICE", "synchronized": False, "offsetS": 0.005, "stepped": True},
    ]


@pytest.mark.parametrize(
    ("selection", "payloads"),
    [
        ("position frame { readingCount }", 0),
        ("position frame { sequence }", 0),
        ("position fact", 1),
        ("position ...F", 1),
    ],
)
async def test_payloads_are_read_only_where_they_are_wanted(
    server: Server, selection: str, payloads: int
) -> None:
    await server.register("pump-1")
    await server.record(frame_of("pump-1", {"flow": ("l/min", [30.0])}))
    document = f"{{ events(first: 5) {{ nodes {{ {selection} }} }} }}"
    if "...F" in selection:
        document += " fragment F on Event { ... on Event { why: fact } }"

    async with server.statements() as statements:
        await server.ask(document)

    (page,) = [statement for statement in statements if "octet_length" in statement]
    wanted = ["null::bytea as payload", "case when window_end_ns is null"][payloads]
    assert wanted in page


async def test_empty_log_is_an_empty_page(empty_server: Server) -> None:
    page = (await empty_server.ask(EVENTS, first=5))["events"]

    assert positions(page) == []
    assert page["pageInfo"] == {
        "hasNextPage": False,
        "endCursor": None,
        "hasPreviousPage": False,
        "startCursor": None,
    }
    assert page["position"] == 0


@pytest.mark.parametrize("first", [1, 2, 3, 5, 500])
async def test_pages_hold_every_event_once_and_in_order(server: Server, first: int) -> None:
    await server.register("a", "b", "c", "d", "e")
    found: list[int] = []
    after = None
    for _ in range(6):
        page = (await server.ask(EVENTS, first=first, after=after))["events"]
        found += positions(page)
        assert page["position"] == 5
        assert page["pageInfo"]["hasPreviousPage"] is (after is not None)
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break

    assert found == [1, 2, 3, 4, 5]
    assert page["pageInfo"]["hasNextPage"] is False
    assert positions((await server.ask(EVENTS, first=1, after=after))["events"]) == []


async def all_pages(server: Server, **asked: Any) -> tuple[list[int], int]:
    """Return the positions on all pages, and how many pages they took; facts are read too."""
    document = EVENTS.replace("nodes { position }", "nodes { position fact }")
    found: list[int] = []
    after = None
    for pages in range(1, 50):
        page = (await server.ask(document, after=after, **asked))["events"]
        found += positions(page)
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            return found, pages
    raise AssertionError(f"it goes on and on: {found}")


async def test_pages_that_are_cut_by_their_bytes_go_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.register("a", "b", "c", "d", "e")
    monkeypatch.setattr("eventlog.reading.PAGE_BYTES_MAX", 100)

    found, pages = await all_pages(server, first=500)

    assert found == [1, 2, 3, 4, 5]
    assert pages > 1
    assert PAGE_BYTES_MAX > 100


@pytest.mark.parametrize("looks", [1, 3, 50])
async def test_a_filter_that_lets_little_through_finds_all_of_it(
    server: Server, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    await server.register(*"abcdefgh")
    await server.command(RetireAsset("c", "worn"))
    await server.register("i", "j")
    monkeypatch.setattr("eventlog.reading.SCANNED_EVENTS_MAX", 2)
    monkeypatch.setattr("api.graphql.events.queries.LOOKS_MAX", looks)

    found, pages = await all_pages(server, first=5, filter={"types": ["asset.retired"]})

    assert found == [9]
    assert pages == {1: 6, 3: 3, 50: 2}[looks]


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        (None, [1, 2, 3, 4, 5]),
        ({}, [1, 2, 3, 4, 5]),
        ({"types": None, "streams": [], "categories": None}, [1, 2, 3, 4, 5]),
        ({"types": ["asset.registered"]}, [1, 2]),
        ({"types": ["asset.registered", "asset.retired"]}, [1, 2, 5]),
        ({"streams": ["asset:b"]}, [2, 4]),
        ({"categories": ["telemetry"]}, [3]),
        ({"categories": ["asset"], "types": ["asset.retired"]}, [5]),
        ({"types": ["asset.polished"]}, []),
    ],
)
async def test_events_are_filtered(server: Server, filter: Any, found: list[int]) -> None:
    await server.register("a", "b")
    await server.record(frame_of("a", {"flow": ("l/min", [30.0])}))
    await server.command(DesireSetpoint("b", "flow", 0.0005))
    await server.command(RetireAsset("a", "worn"))

    assert positions((await server.ask(EVENTS, first=10, filter=filter))["events"]) == found


@pytest.mark.parametrize(
    ("after", "code"),
    [
        ("", "cursor.malformed"),
        ("42", "cursor.malformed"),
        ("not base64 ✂", "cursor.malformed"),
        ("x" * 600, "cursor.malformed"),
        (encode_cursor("events", "plant-2", 1), "cursor.malformed"),
        (encode_cursor("assets", LEDGER, "pump-1"), "cursor.malformed"),
        (encode_cursor("alerts", LEDGER, 1), "cursor.malformed"),
        (encode_cursor("events", LEDGER, "1"), "cursor.malformed"),
        (encode_cursor("events", LEDGER, -1), "cursor.malformed"),
        (encode_cursor("events", LEDGER, 2**60), "cursor.malformed"),
        (encode_cursor("events", LEDGER, 1), "cursor.beyond_log"),
    ],
)
async def test_cursor_of_another_list_is_refused(
    empty_server: Server, after: str, code: str
) -> None:
    error = await empty_server.error(EVENTS, first=1, after=after)

    assert error["extensions"]["code"] == code
    assert error["extensions"]["hint"]


async def test_asset_tells_the_facts_of_its_life(server: Server) -> None:
    await server.register("a", "b", commission=True)
    await server.record(frame_of("a", {"flow": ("l/min", [30.0])}))
    await server.command(RetireAsset("a", "worn"))
    document = """
        query($after: Cursor) { asset(assetId: "a") { events(first: 2, after: $after) {
            nodes { type fact } pageInfo { hasNextPage endCursor }
        } } }
    """

    first = (await server.ask(document))["asset"]["events"]
    rest = (await server.ask(document, after=first["pageInfo"]["endCursor"]))["asset"]["events"]

    assert [node["type"] for node in first["nodes"] + rest["nodes"]] == [
        "asset.registered",
        "asset.commissioned",
        "asset.retired",
    ]
    assert rest["nodes"][0]["fact"] == {"asset_id": "a", "reason": "worn"}
    assert rest["pageInfo"]["hasNextPage"] is False


# --- where the log stands -----------------------------------------------------------------

LOG = "{ log { ledger position start end projections { name position lag failure } } }"


async def test_log_tells_where_it_and_its_projections_stand(server: Server) -> None:
    await server.register("a", "b")

    log = (await server.ask(LOG))["log"]

    assert log == {
        "ledger": server.ledger.name,
        "position": 2,
        "start": server.cursor(0),
        "end": server.cursor(2),
        "projections": [
            {"name": "twins", "position": 2, "lag": 0, "failure": None},
            {"name": "alerts", "position": 2, "lag": 0, "failure": None},
            {"name": "thread", "position": 2, "lag": 0, "failure": None},
        ],
    }
    assert positions((await server.ask(EVENTS, first=5, after=log["start"]))["events"]) == [1, 2]
    assert positions((await server.ask(EVENTS, first=5, after=log["end"]))["events"]) == []


async def test_projection_that_stands_still_shows_lag_and_reason(server: Server) -> None:
    runner: ProjectionRunner = server.services.runners["alerts"]
    await runner.close()
    runner.failure = "TypeError: what is this"
    await server.services.runners["twins"].wait_for(0, 1)
    await server.post(
        'mutation { registerAsset(input: {idempotencyKey: "k", assetId: "a", '
        'assetType: "skab-pump-loop"}) { __typename } }'
    )

    projections = (await server.ask(LOG))["log"]["projections"]

    assert projections[1] == {
        "name": "alerts",
        "position": 0,
        "lag": 1,
        "failure": "TypeError: what is this",
    }
