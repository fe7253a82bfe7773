"""Traces: bounded, cut with a word, gone on with, and refused when they are asked wrongly."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInput, NotFound
from domain.material.lot import LotConsumed, LotMerged, LotReceived, LotSplit
from domain.material.part import (
    PartAssembled,
    PartCreated,
    PartProcessed,
    PartRemoved,
    PartShipped,
    PartStocked,
)
from domain.material.process_run import ProcessRunStarted
from domain.thread import LinkKind, NodeKind, NodeState
from eventlog.database import Pool
from eventlog.envelope import new_fact
from eventlog.ledger import Ledger
from projections.as_of import AsOf
from projections.thread.projection import ThreadProjection
from projections.thread.trace import NODES_MAX, events_of, recall, trace
from projections.thread.trace_rows import MANY_LINKS, depths_of
from projections.thread.traced import CutReason, Direction, Trace, TraceEdge, TraceNode
from tests.eventlog.new_events import fact
from tests.projections.loop_frames import fold, fresh_ledgers
from tests.projections.thread_model import Step, assert_is, at, histories, known_thread, record

pytestmark = pytest.mark.anyio

ALL_KINDS = tuple(LinkKind)
EXAMPLES = settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


async def folded(ledger: Ledger, *steps: Step) -> None:
    await record(ledger, steps)
    await fold(ledger, ThreadProjection())


async def all_pages(ledger: Ledger, nodes_max: int, **asked: Any) -> tuple[list[Trace], Trace]:
    """Return the answers of a trace, one after the other, and all of them together."""
    pages = [await trace(ledger, nodes_max=nodes_max, **asked)]
    while pages[-1].cursor is not None:
        assert pages[-1].cut is CutReason.NODES
        pages.append(await trace(ledger, nodes_max=nodes_max, after=pages[-1].cursor, **asked))
    nodes: list[TraceNode] = [node for page in pages for node in page.nodes]
    edges: list[TraceEdge] = [edge for page in pages for edge in page.edges]
    last = pages[-1]
    return pages, replace(last, node_count=len(nodes), graph=lambda: (nodes, edges))


@EXAMPLES
@given(
    steps=histories(),
    nodes_max=st.integers(1, 5),
    direction=st.sampled_from(Direction),
    depth=st.none() | st.integers(0, 4),
)
async def test_answers_one_after_the_other_make_the_whole_trace_each_thing_once(
    pool: Pool, steps: list[Step], nodes_max: int, direction: Direction, depth: int | None
) -> None:
    (ledger,) = await fresh_ledgers(pool, 1)
    try:
        await folded(ledger, *steps)
        known = known_thread(steps, len(steps))
        for root in list(known.first_position)[:3]:
            asked = {"roots": [root], "direction": direction, "link_kinds": ALL_KINDS}
            pages, whole = await all_pages(ledger, nodes_max, depth=depth, **asked)
            assert_is(whole, known, [root], direction, ALL_KINDS, depth)
            assert all(len(page.nodes) <= nodes_max for page in pages)
            deepest = max(known.reached([root], direction, ALL_KINDS).values())
            deeper = depth is not None and deepest > depth
            assert whole.cut is (CutReason.DEPTH if deeper else None)
            depths = [node.depth for node in whole.nodes]
            assert depths == sorted(depths)
    finally:
        await ledger.close()


@EXAMPLES
@given(steps=histories(), depth=st.integers(9, 12))
async def test_far_depths_cut_as_near_ones_do(pool: Pool, steps: list[Step], depth: int) -> None:
    (ledger,) = await fresh_ledgers(pool, 1)
    try:
        chain = [Step(at(0), LotSplit(f"G{n}", f"G{n + 1}", 1.0, "kg")) for n in range(14)]
        await folded(ledger, *steps, *chain)
        known = known_thread([*steps, *chain], len(steps) + len(chain))
        traced = await trace(
            ledger, ["lot:G0"], direction=Direction.FORWARD, depth=depth, link_kinds=ALL_KINDS
        )
        assert_is(traced, known, ["lot:G0"], Direction.FORWARD, ALL_KINDS, depth)
        assert (traced.cut, traced.cursor) == (CutReason.DEPTH, None)
    finally:
        await ledger.close()


@EXAMPLES
@given(steps=histories(), share=st.floats(0, 1))
async def test_a_recall_counts_what_its_trace_holds(
    pool: Pool, steps: list[Step], share: float
) -> None:
    (ledger,) = await fresh_ledgers(pool, 1)
    try:
        await folded(ledger, *steps)
        as_of = AsOf(position=1 + int(share * (len(steps) - 1)))
        for root in known_thread(steps, as_of.position or 0).first_position:
            counted = await recall(ledger, [root], as_of=as_of)
            told = await recall(ledger, [root], as_of=as_of, nodes=True)
            assert dict(counted.counts) == dict(told.counts)
            assert counted.total == told.total == len(told.trace.nodes if told.trace else ())
    finally:
        await ledger.close()


# --- by example ---------------------------------------------------------------------------


def a_bad_lot() -> list[Step]:
    """Return a lot that a coating run used on two parts; one is shipped, one is in a third part."""
    return [
        Step(at(0), LotReceived("L", "paint", 5.0, "kg", "Smelt Ltd", "S-1", "CERT@A")),
        Step(at(1), LotConsumed("L", "R", 2.5, "kg", None)),
        *(Step(at(2), PartProcessed(name, "R")) for name in "AB"),
        Step(at(3), PartShipped("A", "SHIP-1", "Acme")),
        Step(at(3), PartAssembled("B", "C", "left")),
        Step(at(4), PartCreated("D", "PN-2", "DRW@A", None, None)),
    ]


async def test_a_recall_tells_parts_by_state(ledger: Ledger) -> None:
    await folded(ledger, *a_bad_lot())
    found = await recall(ledger, ["lot:L"])
    assert found.parts == {
        NodeState.SHIPPED: 1,
        NodeState.ASSEMBLED: 1,
        NodeState.MENTIONED: 1,  # C: nobody has said that it exists
    }
    assert found.lots == {NodeState.IN_STOCK: 1}
    assert (found.total, found.cut, found.position) == (6, None, 7)


async def test_back_from_a_part_leads_through_its_runs_to_lots_and_certificates(
    ledger: Ledger,
) -> None:
    await folded(ledger, *a_bad_lot())
    traced = await trace(ledger, ["part:C"], direction=Direction.BACK)
    assert [(node.key, node.depth, node.missing) for node in traced.nodes] == [
        ("part:C", 0, True),
        ("part:B", 1, False),
        ("process-run:R", 2, True),
        ("lot:L", 3, False),
        ("document:CERT@A", 4, True),
    ]
    consumed = traced.edges[1]
    assert consumed == TraceEdge(
        LinkKind.CONSUMED_BY, "lot:L", "process-run:R", 2.5, "kg", at(1), None, 2, None
    )


async def test_only_the_wanted_kinds_of_things_are_told(ledger: Ledger) -> None:
    await folded(ledger, *a_bad_lot())
    traced = await trace(
        ledger,
        ["lot:L"],
        direction=Direction.FORWARD,
        node_kinds=[NodeKind.PART],
    )
    assert {node.key for node in traced.nodes} == {"part:A", "part:B", "part:C"}
    assert [(edge.cause, edge.effect) for edge in traced.edges] == [("part:B", "part:C")]


async def test_a_trace_from_a_part_does_not_go_through_a_machine_to_all_it_made(
    ledger: Ledger,
) -> None:
    runs = [
        Step(at(n), ProcessRunStarted(run, "M", "turning", None, None, None, None, ()))
        for n, run in enumerate(("R1", "R2"))
    ]
    steps = [
        Step(step.occurred_at, PartProcessed(f"P{n}", step.fact.run_id))
        for n, step in enumerate(runs)
    ]
    await record_runs(ledger, runs, steps)
    back = await trace(ledger, ["part:P0"], direction=Direction.BACK)
    assert [node.key for node in back.nodes] == ["part:P0", "process-run:R1", "asset:M"]
    made = await recall(ledger, ["asset:M"], nodes=True)
    assert made.trace is not None
    assert {node.key for node in made.trace.nodes if node.kind is NodeKind.PART} == {
        "part:P0",
        "part:P1",
    }


async def record_runs(ledger: Ledger, runs: list[Step], parts: list[Step]) -> None:
    """Append runs, in their own streams, and what went through them."""
    await ledger.append(
        [
            new_fact(
                f"process-run:{step.fact.run_id}" if step in runs else f"part:{step.fact.part_id}",
                step.fact,
                event_id=uuid.uuid4(),
                occurred_at=step.occurred_at,
                actor="user:mara",
            )
            for step in (*runs, *parts)
        ]
    )
    await fold(ledger, ThreadProjection())


async def test_a_cycle_ends_and_each_thing_is_told_once(ledger: Ledger) -> None:
    await folded(
        ledger,
        Step(at(0), LotMerged("1", "2", 1.0, "kg")),
        Step(at(1), LotMerged("2", "3", 1.0, "kg")),
        Step(at(2), LotMerged("3", "1", 1.0, "kg")),
        Step(at(3), LotMerged("1", "1", 1.0, "kg")),
    )
    for direction in Direction:
        traced = await trace(ledger, ["lot:1"], direction=direction)
        assert sorted(node.key for node in traced.nodes) == ["lot:1", "lot:2", "lot:3"]
        assert len(traced.edges) == 4


async def test_a_cursor_goes_on_as_of_the_position_it_began_at(ledger: Ledger) -> None:
    await folded(ledger, *a_bad_lot())
    first = await trace(ledger, ["lot:L"], direction=Direction.FORWARD, nodes_max=3)
    await ledger.append([fact("later")])
    second = await trace(
        ledger, ["lot:L"], direction=Direction.FORWARD, nodes_max=3, after=first.cursor
    )
    assert first.position == second.position == 7
    assert (first.cut, second.cut, second.cursor) == (CutReason.NODES, None, None)
    keys = [node.key for node in (*first.nodes, *second.nodes)]
    assert len(keys) == len(set(keys)) == 6


async def test_a_trace_rests_on_what_said_its_links_and_on_its_things_own_events(
    ledger: Ledger,
) -> None:
    await folded(
        ledger,
        Step(at(0), PartCreated("A", "PN-1", None, None, "1")),
        Step(at(1), PartStocked("B")),
        Step(at(2), PartAssembled("A", "C", "left")),
        Step(at(3), PartRemoved("A", "C", "worn")),
        Step(at(0), PartCreated("A", "PN-1", None, None, "2"), corrects=0),
        Step(at(5), LotReceived("2", "steel", 1.0, "kg", "Smelt Ltd", "S-1", None)),
        Step(at(6), LotReceived("3", "steel", 1.0, "kg", "Smelt Ltd", "S-2", None)),
    )
    traced = await trace(ledger, ["part:C"], direction=Direction.BACK)
    assert await events_of(ledger, traced) == [1, 3, 4, 5, 6]
    before = await trace(ledger, ["part:C"], direction=Direction.BACK, as_of=AsOf(position=3))
    assert await events_of(ledger, before) == [1, 3]


async def test_as_of_a_moment_is_as_of_what_was_recorded_by_then(ledger: Ledger) -> None:
    await folded(ledger, Step(at(0), PartStocked("A")))
    recorded = await ledger.pool.fetchval("select max(recorded_at) from event")
    traced = await trace(
        ledger, ["part:A"], direction=Direction.BACK, as_of=AsOf(recorded_at=recorded)
    )
    assert traced.position == 1
    with pytest.raises(NotFound) as refused:
        await trace(ledger, ["part:A"], direction=Direction.BACK, as_of=AsOf(recorded_at=at(-9)))
    assert refused.value.code == "thread.unknown_node"


async def test_roots_that_nobody_knows_are_said(ledger: Ledger) -> None:
    await folded(ledger, Step(at(0), PartStocked("A")))
    traced = await trace(ledger, ["part:A", "part:Z"], direction=Direction.BACK)
    assert traced.unknown_roots == ("part:Z",)
    with pytest.raises(NotFound) as refused:
        await recall(ledger, ["part:Z"])
    assert (refused.value.code, refused.value.value) == ("thread.unknown_node", "part:Z")


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"roots": []}, "trace.roots"),
        ({"roots": ["part:A"] * 1001}, "trace.roots"),
        ({"roots": ["part:" + "A" * 600]}, "trace.roots"),
        ({"depth": -1}, "trace.depth"),
        ({"nodes_max": 0}, "trace.nodes_max"),
        ({"nodes_max": NODES_MAX + 1}, "trace.nodes_max"),
        ({"as_of": AsOf(position=1, recorded_at=at(0))}, "trace.as_of"),
        ({"as_of": AsOf(position=-1)}, "trace.as_of"),
        ({"as_of": AsOf(valid_at=at(0).replace(tzinfo=None))}, "trace.as_of"),
        ({"after": "nonsense"}, "trace.cursor"),
        ({"after": "WzEsIDEsICJ4Il0="}, "trace.cursor"),
    ],
)
async def test_what_cannot_be_answered_is_refused_by_its_code(
    ledger: Ledger, asked: dict[str, Any], code: str
) -> None:
    await folded(ledger, Step(at(0), PartStocked("A")))
    with pytest.raises(InvalidInput) as refused:
        await trace(ledger, **{"roots": ["part:A"], "direction": Direction.BACK, **asked})
    assert refused.value.code == code


@given(
    links=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), max_size=40),
    roots=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    back=st.booleans(),
)
def test_depths_found_in_arrays_are_those_found_node_by_node(
    links: list[tuple[int, int]], roots: list[int], back: bool
) -> None:
    src, dst = [link[0] for link in links], [link[1] for link in links]
    # Links among others: what they add is out of reach, and so many are done in arrays.
    far = range(100, 100 + MANY_LINKS)
    many = depths_of(roots, back, np.array([*src, *far]), np.array([*dst, *far]))
    assert many == depths_of(roots, back, np.array(src, int), np.array(dst, int))
