"""The thread's rows: whatever the batches and whatever the order in which facts arrive."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.material.lot import LotReceived
from domain.material.part import PartAssembled, PartCreated, PartRemoved, PartScrapped, PartStocked
from domain.thread import LinkKind, NodeState
from eventlog.database import Pool
from eventlog.ledger import Ledger
from projections.as_of import AsOf
from projections.thread.projection import NUMBER_BITS, THREADED_TYPES, ThreadProjection
from projections.thread.trace import trace
from projections.thread.traced import Direction
from tests.projections.loop_frames import fold, fresh_ledgers
from tests.projections.thread_model import (
    Step,
    assert_is,
    at,
    histories,
    known_thread,
    record,
    without_positions,
)

pytestmark = pytest.mark.anyio

ALL_KINDS = tuple(LinkKind)
EXAMPLES = settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


async def rows_of(ledger: Ledger) -> dict[str, list[Any]]:
    """Return all rows of the thread, with ids that do not depend on the ledger's number."""
    low = (1 << NUMBER_BITS) - 1
    found = {}
    for table in ThreadProjection.tables:
        rows = await ledger.pool.fetch(
            f"select * from {table} where ledger_id = $1", ledger.ledger_id
        )
        found[table] = sorted(
            repr(
                [
                    value & low if name in ("id", "src", "dst", "node") else value
                    for name, value in row.items()
                    if name != "ledger_id"
                ]
            )
            for row in rows
        )
    return found


async def assert_traces_are(
    ledger: Ledger, steps: list[Step], position: int, minutes: float | None
) -> None:
    """Assert that a trace from every node, one way or another, is what the model says."""
    valid_at = None if minutes is None else at(minutes)
    known = known_thread(steps, position, valid_at)
    for root, direction in zip(known.first_position, cycle(Direction), strict=False):
        traced = await trace(
            ledger,
            [root],
            direction=direction,
            link_kinds=ALL_KINDS,
            as_of=AsOf(position=position, valid_at=valid_at),
        )
        assert_is(traced, known, [root], direction, ALL_KINDS)


@EXAMPLES
@given(steps=histories(), batch=st.sampled_from([1, 2, 5, 1000]))
async def test_the_thread_is_what_the_events_say(pool: Pool, steps: list[Step], batch: int) -> None:
    (ledger,) = await fresh_ledgers(pool, 1)
    try:
        await record(ledger, steps)
        await fold(ledger, ThreadProjection(), batch)
        await assert_traces_are(ledger, steps, len(steps), None)
    finally:
        await ledger.close()


@EXAMPLES
@given(
    steps=histories(),
    share=st.floats(0, 1),
    minutes=st.none() | st.sampled_from([0.0, 1.0, 1.5, 3.0, 4.5, 9.0]),
)
async def test_as_of_a_position_and_a_time_the_thread_is_what_was_known_and_true(
    pool: Pool, steps: list[Step], share: float, minutes: float | None
) -> None:
    (ledger,) = await fresh_ledgers(pool, 1)
    try:
        await record(ledger, steps)
        await fold(ledger, ThreadProjection())
        await assert_traces_are(ledger, steps, 1 + int(share * (len(steps) - 1)), minutes)
    finally:
        await ledger.close()


@EXAMPLES
@given(steps=histories(), batch=st.sampled_from([1, 2, 3, 7]))
async def test_rows_do_not_depend_on_how_events_are_cut_into_batches(
    pool: Pool, steps: list[Step], batch: int
) -> None:
    one, other = await fresh_ledgers(pool, 2)
    try:
        for ledger, size in ((one, 1000), (other, batch)):
            await record(ledger, steps)
            await fold(ledger, ThreadProjection(), size)
        assert await rows_of(one) == await rows_of(other)
    finally:
        await one.close()
        await other.close()


@EXAMPLES
@given(steps=histories(), share=st.floats(0, 1))
async def test_as_of_a_position_a_trace_is_that_of_a_log_that_ended_there(
    pool: Pool, steps: list[Step], share: float
) -> None:
    position = 1 + int(share * (len(steps) - 1))
    whole, cut = await fresh_ledgers(pool, 2)
    try:
        for ledger, folded in ((whole, steps), (cut, steps[:position])):
            await record(ledger, folded)
            await fold(ledger, ThreadProjection(), 3)
        for root in known_thread(steps, position).first_position:
            then = await trace(
                whole,
                [root],
                direction=Direction.BOTH,
                link_kinds=ALL_KINDS,
                as_of=AsOf(position=position),
            )
            now = await trace(cut, [root], direction=Direction.BOTH, link_kinds=ALL_KINDS)
            assert (then.nodes, then.edges) == (now.nodes, now.edges)
            assert then.position == now.position == position
    finally:
        await whole.close()
        await cut.close()


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[Step], list[Step]]:
    """Draw facts as they happened one after the other, and as they became known."""
    steps = [Step(at(n), step.fact) for n, step in enumerate(draw(histories(corrected=False)))]
    return steps, draw(st.permutations(steps))


@EXAMPLES
@given(told=arrivals())
async def test_facts_in_any_order_of_arrival_make_the_same_thread(
    pool: Pool, told: tuple[list[Step], list[Step]]
) -> None:
    steps, shuffled = told
    one, other = await fresh_ledgers(pool, 2)
    try:
        for ledger, arrived in ((one, steps), (other, shuffled)):
            await record(ledger, arrived)
            await fold(ledger, ThreadProjection(), 4)
        for root in known_thread(steps, len(steps)).first_position:
            in_order, out_of_order = [
                without_positions(
                    await trace(ledger, [root], direction=Direction.BOTH, link_kinds=ALL_KINDS)
                )
                for ledger in (one, other)
            ]
            assert in_order == out_of_order
    finally:
        await one.close()
        await other.close()


# --- by example ---------------------------------------------------------------------------


async def folded(ledger: Ledger, *steps: Step) -> None:
    await record(ledger, steps)
    await fold(ledger, ThreadProjection())


async def state_of(ledger: Ledger, key: str, as_of: AsOf) -> NodeState:
    traced = await trace(ledger, [key], direction=Direction.BACK, depth=0, as_of=as_of)
    return traced.nodes[0].state


async def test_an_end_that_arrives_before_its_link_ends_it(ledger: Ledger) -> None:
    await folded(
        ledger,
        Step(at(5), PartRemoved("A", "B", "worn")),
        Step(at(1), PartAssembled("A", "B", "left")),
    )
    traced = await trace(ledger, ["part:A"], direction=Direction.FORWARD)
    (edge,) = traced.edges
    assert (edge.valid_from, edge.valid_to) == (at(1), at(5))
    assert (edge.position, edge.ended_position) == (2, 1)
    assert traced.nodes[0].state is NodeState.IN_STOCK


async def test_a_late_fact_does_not_overtake_what_was_true_after_it(ledger: Ledger) -> None:
    await folded(
        ledger,
        Step(at(0), PartCreated("A", "PN-1", None, None, None)),
        Step(at(9), PartScrapped("A", "bent")),
        Step(at(4), PartStocked("A")),
    )
    assert await state_of(ledger, "part:A", AsOf()) is NodeState.SCRAPPED
    assert await state_of(ledger, "part:A", AsOf(valid_at=at(5))) is NodeState.IN_STOCK
    assert await state_of(ledger, "part:A", AsOf(position=2, valid_at=at(5))) is (
        NodeState.IN_PROCESS
    )


async def test_a_correction_moves_a_link_and_nothing_of_before_is_lost(ledger: Ledger) -> None:
    await folded(
        ledger,
        Step(at(0), PartCreated("A", "PN-1", None, None, "1")),
        Step(at(0), PartCreated("A", "PN-1", None, None, "2"), corrects=0),
    )
    lots = {}
    for position in (1, 2):
        traced = await trace(
            ledger, ["part:A"], direction=Direction.BACK, as_of=AsOf(position=position)
        )
        lots[position] = [(edge.cause, edge.position) for edge in traced.edges]
    assert lots == {1: [("lot:1", 1)], 2: [("lot:2", 2)]}


async def test_a_correction_of_a_correction_counts_for_nothing(ledger: Ledger) -> None:
    await folded(
        ledger,
        Step(at(0), PartStocked("A")),
        Step(at(0), PartScrapped("A", "bent"), corrects=0),
        Step(at(0), PartStocked("A"), corrects=1),
    )
    assert await state_of(ledger, "part:A", AsOf()) is NodeState.SCRAPPED


async def test_a_lot_that_nobody_has_described_is_missing(ledger: Ledger) -> None:
    await folded(
        ledger,
        Step(at(0), PartCreated("A", "PN-1", None, None, "1")),
        Step(at(0), LotReceived("1", "steel", 5.0, "kg", "Smelt Ltd", "S-1", None)),
    )
    missing = {}
    for position in (1, 2):
        traced = await trace(
            ledger, ["part:A"], direction=Direction.BACK, as_of=AsOf(position=position)
        )
        missing[position] = [node.key for node in traced.nodes if node.missing]
    assert missing == {1: ["lot:1"], 2: []}


async def test_ledgers_do_not_see_each_other(pool: Pool) -> None:
    one, other = await fresh_ledgers(pool, 2)
    try:
        projection = ThreadProjection()
        for ledger, lot in ((one, "1"), (other, "2")):
            await record(ledger, [Step(at(0), PartCreated("A", "PN-1", None, None, lot))])
            await fold(ledger, projection)
        for ledger, lot in ((one, "1"), (other, "2")):
            traced = await trace(ledger, ["part:A"], direction=Direction.BACK)
            assert [node.key for node in traced.nodes] == ["part:A", f"lot:{lot}"]
    finally:
        await one.close()
        await other.close()


def test_every_event_that_says_something_of_the_thread_is_folded() -> None:
    assert {"part.assembled", "lot.consumed", "asset.placed", "record.corrected"} <= set(
        THREADED_TYPES
    )
    assert "asset.frame_recorded" not in THREADED_TYPES
