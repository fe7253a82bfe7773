"""The thread over GraphQL: graphs as objects and as columns, counts, time travel, refusals."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from domain.material.lot import LotConsumed, LotReceived
from domain.material.part import PartAssembled, PartCreated, PartProcessed, PartRemoved, PartShipped
from eventlog.envelope import new_fact
from tests.api.graphql.server import Server
from tests.projections.thread_model import at, stream_of

pytestmark = pytest.mark.anyio

TRACE = """
query Trace($roots: [String!]!, $direction: TraceDirection!, $depth: Int, $kinds: [LinkKind!],
    $things: [NodeKind!], $asOf: AsOf, $first: Int = 500, $after: Cursor) {
  trace(roots: $roots, direction: $direction, depth: $depth, linkKinds: $kinds,
      nodeKinds: $things, asOf: $asOf, first: $first, after: $after) {
    position cut cursor unknownRoots nodeCount linkCount
    nodes { key kind state depth firstPosition missing }
    links { kind cause effect quantity unit validFrom validTo position endedPosition }
  }
}
"""


async def tell(server: Server, *facts: tuple[float, Any]) -> None:
    """Record facts, each with the minute at which it was true, and wait until they show."""
    await server.ledger.append(
        [
            new_fact(
                stream_of(fact),
                fact,
                event_id=uuid.uuid4(),
                occurred_at=at(minute),
                actor="user:mara",
            )
            for minute, fact in facts
        ]
    )
    await server.settle()


async def a_bad_lot(server: Server) -> None:
    """Have a lot painted onto two parts: one was shipped, the other was for a while in a third."""
    await tell(
        server,
        (0, LotReceived("L", "paint", 5.0, "kg", "Smelt Ltd", "S-1", None)),
        (1, LotConsumed("L", "R", 2.5, "kg", None)),
        (2, PartProcessed("A", "R")),
        (2, PartProcessed("B", "R")),
        (3, PartShipped("A", "SHIP-1", "Acme")),
        (3, PartAssembled("B", "C", "left")),
        (9, PartRemoved("B", "C", "worn")),
    )


async def test_a_trace_tells_things_and_links(server: Server) -> None:
    await a_bad_lot(server)
    found = (await server.ask(TRACE, roots=["part:C", "part:Z"], direction="BACK"))["trace"]
    assert found == {
        "position": 7,
        "cut": None,
        "cursor": None,
        "unknownRoots": ["part:Z"],
        "nodeCount": 4,
        "linkCount": 3,
        "nodes": [
            node("part:C", "PART", "MENTIONED", 0, 6),
            node("part:B", "PART", "IN_STOCK", 1, 4),
            node("process-run:R", "PROCESS_RUN", "MENTIONED", 2, 2),
            node("lot:L", "LOT", "IN_STOCK", 3, 1),
        ],
        "links": [
            link("CONSUMED_BY", "lot:L", "process-run:R", 1, 2, quantity=2.5, unit="kg"),
            link("PROCESSED_BY", "part:B", "process-run:R", 2, 4),
            link(
                "ASSEMBLED_INTO",
                "part:B",
                "part:C",
                3,
                6,
                validTo="2020-03-09T12:09:00.000000Z",
                endedPosition=7,
            ),
        ],
    }


def node(key: str, kind: str, state: str, depth: int, first: int) -> dict[str, Any]:
    return {
        "key": key,
        "kind": kind,
        "state": state,
        "depth": depth,
        "firstPosition": first,
        "missing": state == "MENTIONED",
    }


def link(
    kind: str, cause: str, effect: str, minute: int, position: int, **more: Any
) -> dict[str, Any]:
    return {
        "kind": kind,
        "cause": cause,
        "effect": effect,
        "quantity": None,
        "unit": None,
        "validFrom": f"2020-03-09T12:{minute:02d}:00.000000Z",
        "validTo": None,
        "position": position,
        "endedPosition": None,
        **more,
    }


async def test_columns_tell_what_objects_tell(server: Server) -> None:
    await a_bad_lot(server)
    found = (
        await server.ask(
            """
            query { trace(roots: ["lot:L"], direction: FORWARD) {
                nodes { key kind state depth firstPosition }
                links { kind cause effect quantity unit validFrom validTo position }
                nodeColumns { key: keys kind: kinds state: states depth: depths
                    firstPosition: firstPositions }
                linkColumns { kind: kinds cause: causes effect: effects quantity: quantities
                    unit: units validFrom validTo position: positions }
            } }
            """
        )
    )["trace"]
    for rows, columns in (("nodes", "nodeColumns"), ("links", "linkColumns")):
        assert found[rows]
        names = found[columns].keys()
        told = [
            dict(zip(names, row, strict=True)) for row in zip(*found[columns].values(), strict=True)
        ]
        assert told == found[rows]


async def test_a_trace_goes_on_after_its_cursor(server: Server) -> None:
    await a_bad_lot(server)
    asked = {"roots": ["lot:L"], "direction": "FORWARD", "first": 3}
    first = (await server.ask(TRACE, **asked))["trace"]
    second = (await server.ask(TRACE, **asked, after=first["cursor"]))["trace"]
    assert (first["cut"], second["cut"], second["cursor"]) == ("NODES", None, None)
    keys = [thing["key"] for page in (first, second) for thing in page["nodes"]]
    assert keys == [
        "lot:L", "process-run:R", "part:A", "part:B", "shipment:SHIP-1", "part:C",
    ]  # fmt: skip
    assert first["linkCount"] + second["linkCount"] == 5
    code = await server.code(TRACE, **{**asked, "roots": ["part:A"]}, after=first["cursor"])
    assert code == "trace.cursor"


async def test_depth_kinds_and_times_restrict_a_trace(server: Server) -> None:
    await a_bad_lot(server)

    async def keys(**asked: Any) -> set[str]:
        found = await server.ask(TRACE, **{"roots": ["lot:L"], "direction": "FORWARD", **asked})
        return {thing["key"] for thing in found["trace"]["nodes"]}

    assert await keys(depth=1) == {"lot:L", "process-run:R"}
    assert await keys(kinds=["CONSUMED_BY"]) == {"lot:L", "process-run:R"}
    assert await keys(things=["SHIPMENT"]) == {"shipment:SHIP-1"}
    assert await keys(asOf={"position": 3}) == {"lot:L", "process-run:R", "part:A"}
    removed = {"validAt": "2020-03-09T12:30:00Z"}
    assert await keys(roots=["part:B"], asOf=removed) == {"part:B"}
    assert await keys(roots=["part:B"]) == {"part:B", "part:C"}


async def test_a_recall_counts_and_tells_the_graph_where_it_is_asked_for(server: Server) -> None:
    await a_bad_lot(server)
    found = (
        await server.ask(
            """
            query { recall(roots: ["lot:L"]) {
                total cut position unknownRoots
                parts { state count } lots { kind state count } counts { kind state count }
                graph(first: 2) { cut cursor nodes { key } }
            } }
            """
        )
    )["recall"]
    assert found["parts"] == [
        {"state": "MENTIONED", "count": 1},
        {"state": "IN_STOCK", "count": 1},
        {"state": "SHIPPED", "count": 1},
    ]
    assert found["lots"] == [{"kind": "LOT", "state": "IN_STOCK", "count": 1}]
    assert sum(count["count"] for count in found["counts"]) == found["total"] == 6
    assert (found["cut"], found["position"], found["unknownRoots"]) == (None, 7, [])
    assert found["graph"]["cut"] == "NODES"
    assert [thing["key"] for thing in found["graph"]["nodes"]] == ["lot:L", "process-run:R"]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"roots": ["part:Z"]}, "thread.unknown_node"),
        ({"roots": []}, "trace.roots"),
        ({"depth": -1}, "trace.depth"),
        ({"first": 0}, "trace.nodes_max"),
        ({"first": 100_001}, "trace.nodes_max"),
        ({"after": "nonsense"}, "trace.cursor"),
        ({"asOf": {"position": 1, "recordedAt": "2020-03-09T12:00:00Z"}}, "trace.as_of"),
        ({"asOf": {"validAt": "2020-03-09T12:00:00"}}, "event.naive_time"),
    ],
)
async def test_what_cannot_be_answered_has_its_code(
    server: Server, asked: dict[str, Any], code: str
) -> None:
    await tell(server, (0, PartCreated("A", "PN-1", None, None, None)))
    assert await server.code(TRACE, **{"roots": ["part:A"], "direction": "BACK", **asked}) == code


async def test_more_things_than_objects_can_tell_are_told_as_columns(server: Server) -> None:
    for first in (0, 1_000):
        parts = range(first, first + 1_000)
        await tell(server, *((n, PartProcessed(f"P{n}", "R")) for n in parts))
    asked = {"roots": ["process-run:R"], "direction": "FORWARD", "first": 5_000}
    assert await server.code(TRACE, **asked) == "trace.too_many_objects"
    columns = """
        query { trace(roots: ["process-run:R"], direction: FORWARD, first: 5000) {
            nodeCount nodeColumns { keys } } }
    """
    found = (await server.ask(columns))["trace"]
    assert found["nodeCount"] == len(set(found["nodeColumns"]["keys"])) == 2_001
