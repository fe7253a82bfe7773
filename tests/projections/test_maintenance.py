"""Work orders as they stood, and the board: by valid time, and as of what was known."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInput
from domain.events import event_types
from domain.maintenance.work_order import (
    Finding,
    Priority,
    WorkOrderApproved,
    WorkOrderCancelled,
    WorkOrderEvent,
    WorkOrderPaused,
    WorkOrderResumed,
    WorkOrderScheduled,
)
from domain.records import CORRECTED
from eventlog.ledger import Ledger
from projections.histories import STILL_KNOWN, History, Stated
from projections.maintenance.projection import (
    URGENCY,
    BoardCursor,
    BoardEntry,
    MaintenanceProjection,
    WorkOrderState,
    maintenance_board,
    work_order_of,
)
from tests.eventlog.new_events import opened
from tests.projections.factory_facts import (
    completed,
    correct,
    fold_wanted,
    hour,
    requested,
    rows_of,
    started,
    tell,
    tell_all,
)

pytestmark = pytest.mark.anyio


async def fold(ledger: Ledger, batch: int = 1000, *, after: int = 0) -> None:
    await fold_wanted(ledger, [MaintenanceProjection()], batch, after=after)


def scheduled(name: str, start: float, end: float) -> tuple[str, WorkOrderScheduled]:
    return f"work-order:{name}", WorkOrderScheduled(name, hour(start), hour(end), "user:ada")


async def story(ledger: Ledger) -> None:
    """Have one work order go all the way, one rest, one wait, and one called off."""
    await tell_all(
        ledger,
        (*requested("WO-1", "mill-1", Priority.HIGH), hour(1)),
        ("work-order:WO-1", WorkOrderApproved("WO-1", ""), hour(2)),
        (*scheduled("WO-1", 4, 8), hour(3)),
        (*requested("WO-2", "mill-2", Priority.EMERGENCY), hour(3)),
        (*started("WO-1"), hour(4)),
        (*started("WO-2", down=False), hour(5)),
        ("work-order:WO-1", WorkOrderPaused("WO-1", "spare part missing"), hour(5)),
        ("work-order:WO-2", WorkOrderPaused("WO-2", "lunch"), hour(6)),
        ("work-order:WO-1", WorkOrderResumed("WO-1"), hour(7)),
        (*completed("WO-1", failed_at=hour(0.5), cost=120.0, currency="EUR"), hour(8)),
        (*requested("WO-3", "mill-1", Priority.LOW), hour(9)),
        (*requested("WO-4", "mill-1", Priority.LOW), hour(9)),
        ("work-order:WO-4", WorkOrderCancelled("WO-4", "a mistake"), hour(10)),
    )
    await fold(ledger)


async def last_version(ledger: Ledger, name: str) -> dict[str, Any]:
    row = await ledger.pool.fetchrow(
        "select * from work_order where ledger_id = $1 and work_order_id = $2 and known_to = $3",
        ledger.ledger_id,
        name,
        STILL_KNOWN,
    )
    assert row is not None
    return dict(row)


async def test_a_work_order_keeps_its_whole_story(ledger: Ledger) -> None:
    await story(ledger)
    row = await last_version(ledger, "WO-1")
    assert list(zip(row["states"], row["state_times"], strict=True)) == [
        ("REQUESTED", hour(1)),
        ("APPROVED", hour(2)),
        ("SCHEDULED", hour(3)),
        ("IN_PROGRESS", hour(4)),
        ("PAUSED", hour(5)),
        ("IN_PROGRESS", hour(7)),
        ("COMPLETED", hour(8)),
    ]
    assert row["worked_s"] == 2 * 3_600
    assert (row["down_from"], row["down_to"]) == (hour(0.5), hour(8))
    assert (row["failure_at"], row["prevented"]) == (hour(0.5), False)
    assert (row["cost"], row["currency"], row["labour_s"]) == (120.0, "EUR", 1_800.0)
    assert (row["requested_by"], row["approved_by"]) == ("user:mara", "user:mara")
    assert (row["assignee"], row["planned_start"]) == ("user:ada", hour(4))
    cancelled = await last_version(ledger, "WO-4")
    assert (cancelled["note"], cancelled["down_from"], cancelled["failure_at"]) == (
        "a mistake",
        None,
        None,
    )


async def test_the_board_shows_what_is_open_the_most_urgent_first(ledger: Ledger) -> None:
    await story(ledger)
    board = await maintenance_board(ledger, at=hour(12))
    assert [(e.work_order_id, e.state, e.age_s) for e in board.entries] == [
        ("WO-2", WorkOrderState.PAUSED, 9 * 3_600),
        ("WO-3", WorkOrderState.REQUESTED, 3 * 3_600),
    ]
    assert (board.open, board.overdue, board.assets_down) == (2, 0, 0)
    assert board.by_state == {WorkOrderState.REQUESTED: 1, WorkOrderState.PAUSED: 1}
    assert board.by_priority == {Priority.EMERGENCY: 1, Priority.LOW: 1}
    assert [(a.asset_id, a.open, a.oldest_requested_at) for a in board.by_asset] == [
        ("mill-1", 1, hour(9)),
        ("mill-2", 1, hour(3)),
    ]
    assert (board.basis.records, board.basis.first_position, board.basis.last_position) == (
        2,
        8,
        11,
    )


async def test_the_board_of_a_past_moment_shows_what_was_open_then(ledger: Ledger) -> None:
    await story(ledger)
    board = await maintenance_board(ledger, at=hour(5.5))
    assert [(e.work_order_id, e.state) for e in board.entries] == [
        ("WO-2", WorkOrderState.IN_PROGRESS),
        ("WO-1", WorkOrderState.PAUSED),
    ]
    assert board.assets_down == 1
    assert board.entries[1].asset_down_since == hour(0.5)
    before_the_start = await maintenance_board(ledger, at=hour(3.5))
    assert before_the_start.entries[1].started_at is None
    assert before_the_start.entries[1].state is WorkOrderState.SCHEDULED
    assert (await maintenance_board(ledger, at=hour(0.9))).open == 0


async def test_the_board_as_of_a_position_shows_what_was_known_then(ledger: Ledger) -> None:
    await story(ledger)
    known = await maintenance_board(ledger, at=hour(12), as_of=7)
    assert [(e.work_order_id, e.state) for e in known.entries] == [
        ("WO-2", WorkOrderState.IN_PROGRESS),
        ("WO-1", WorkOrderState.PAUSED),
    ]
    assert known.basis.as_of == 7
    assert (await maintenance_board(ledger, at=hour(12), as_of=0)).open == 0


async def test_work_that_should_have_begun_is_overdue(ledger: Ledger) -> None:
    await tell_all(
        ledger,
        (*requested("WO-1"), hour(1)),
        (*scheduled("WO-1", 4, 8), hour(2)),
        (*requested("WO-2"), hour(1)),
        (*scheduled("WO-2", 4, 8), hour(2)),
        (*started("WO-2"), hour(6)),
    )
    await fold(ledger)
    assert (await maintenance_board(ledger, at=hour(3))).overdue == 0
    assert (await maintenance_board(ledger, at=hour(5))).overdue == 2
    assert (await maintenance_board(ledger, at=hour(7))).overdue == 1


async def test_the_board_is_filtered_and_counts_what_it_shows(ledger: Ledger) -> None:
    await story(ledger)

    async def names(**wanted: Any) -> list[str]:
        board = await maintenance_board(ledger, at=hour(5.5), **wanted)
        assert board.open == len(board.entries) == sum(board.by_state.values())
        assert board.open == sum(count for _, count in board.by_age)
        return [entry.work_order_id for entry in board.entries]

    assert await names(assets=["mill-1"]) == ["WO-1"]
    assert await names(assets=[]) == []
    assert await names(priorities=[Priority.EMERGENCY]) == ["WO-2"]
    assert await names(states=[WorkOrderState.PAUSED]) == ["WO-1"]
    assert await names(states=[WorkOrderState.COMPLETED]) == []


async def test_ages_are_counted_between_their_bounds(ledger: Ledger) -> None:
    for n, days in enumerate((0.5, 1, 1.5, 40, 400)):
        await tell(ledger, *requested(f"WO-{n}"), hour(0) - timedelta(days=days))
    await fold(ledger)
    board = await maintenance_board(ledger, at=hour(0))
    assert [count for _, count in board.by_age] == [2, 1, 0, 1, 1]


async def test_pages_of_the_board_join_without_gap_or_overlap(ledger: Ledger) -> None:
    for n in range(7):
        await tell(ledger, *requested(f"WO-{n}", priority=list(Priority)[n % 3]), hour(n // 2))
    await fold(ledger)
    whole = await maintenance_board(ledger, at=hour(24))
    after: BoardCursor | None = None
    seen: list[BoardEntry] = []
    while page := (await maintenance_board(ledger, at=hour(24), first=2, after=after)).entries:
        after = page[-1].cursor
        seen += page
    assert tuple(seen) == whole.entries
    order = [(URGENCY.index(e.priority), e.requested_at, e.work_order_id) for e in seen]
    assert order == sorted(order)
    for first in (0, 501):
        with pytest.raises(InvalidInput) as refused:
            await maintenance_board(ledger, at=hour(24), first=first)
        assert (refused.value.code, refused.value.value) == ("page.limit", first)


async def test_a_late_start_is_placed_by_when_it_was(ledger: Ledger) -> None:
    await tell_all(
        ledger,
        (*requested("WO-1"), hour(1)),
        (*completed("WO-1"), hour(8)),
    )
    late = await tell(ledger, *started("WO-1"), hour(3))
    await fold(ledger)
    row = await last_version(ledger, "WO-1")
    assert (row["down_from"], row["down_to"], row["worked_s"]) == (hour(3), hour(8), 5 * 3_600)
    assert row["failure_at"] == hour(3)
    assert row["known_from"] == late
    # Before it was known, the work had no beginning.
    (earlier,) = await ledger.pool.fetch(
        "select * from work_order where ledger_id = $1 and known_to = $2", ledger.ledger_id, late
    )
    assert (earlier["down_from"], earlier["failure_at"]) == (None, hour(8))


async def test_a_correction_counts_from_when_it_was_known(ledger: Ledger) -> None:
    await tell(ledger, *requested("WO-1"), hour(1))
    start = await tell(ledger, *started("WO-1"), hour(3))
    end = await tell(ledger, *completed("WO-1"), hour(8))
    later = await correct(ledger, start, started("WO-1")[1], hour(4))
    no_fault = completed("WO-1", Finding.NO_FAULT_FOUND)[1]
    last = await correct(ledger, end, no_fault)
    again = await correct(ledger, end, None)
    await fold(ledger, 2)
    versions = await ledger.pool.fetch(
        "select * from work_order where ledger_id = $1 order by known_from", ledger.ledger_id
    )
    assert [(v["known_from"], v["known_to"]) for v in versions] == [
        *itertools.pairwise((1, start, end, later, last, again)),
        (again, STILL_KNOWN),
    ]
    assert [v["down_from"] for v in versions] == [None, hour(3), hour(3), *[hour(4)] * 3]
    assert [v["finding"] for v in versions] == [
        None,
        None,
        "FAILURE_CONFIRMED",
        "FAILURE_CONFIRMED",
        "NO_FAULT_FOUND",
        None,
    ]
    assert [v["failure_at"] for v in versions] == [None, None, hour(3), hour(4), None, None]
    # It was not completed at all, so it is open again; as of before it was not.
    assert (await maintenance_board(ledger, at=hour(9))).open == 1
    assert (await maintenance_board(ledger, at=hour(9), as_of=last)).open == 0


async def test_a_prediction_that_was_right_in_time_prevented_the_failure(ledger: Ledger) -> None:
    for n, (cause, failed) in enumerate(
        [
            ("prediction:P-1", None),
            ("prediction:P-1", hour(2)),
            ("alert:A-1", None),
            (None, None),
        ]
    ):
        name = f"WO-{n}"
        await tell_all(
            ledger,
            (*requested(name, cause=cause), hour(1)),
            (*started(name), hour(3)),
            (*completed(name, failed_at=failed), hour(4)),
        )
    await fold(ledger)
    rows = [await last_version(ledger, f"WO-{n}") for n in range(4)]
    assert [row["prevented"] for row in rows] == [True, False, False, False]
    assert [row["failure_at"] for row in rows] == [None, hour(2), hour(3), hour(3)]


async def test_batch_sizes_do_not_matter(ledger: Ledger, database_url: str) -> None:
    async with opened(database_url, "plant-2") as other, opened(database_url, "plant-3") as third:
        tables = []
        for log, batch in ((ledger, 1), (other, 3), (third, 1000)):
            start = 0
            for n in range(3):
                name = f"WO-{n}"
                await tell_all(
                    log,
                    (*requested(name), hour(n)),
                    (*completed(name), hour(8)),
                )
                start = await tell(log, *started(name), hour(3))
            await correct(log, start, started("WO-2", down=False)[1])
            await correct(log, start, None)
            await fold(log, batch)
            tables.append(await rows_of(log, "work_order", "work_order_id, known_from"))
        assert len(tables[0]) == 11
        assert tables[0] == tables[1] == tables[2]


async def test_an_empty_log_has_an_empty_board(ledger: Ledger) -> None:
    await fold(ledger)
    board = await maintenance_board(ledger, at=hour(0))
    assert (board.entries, board.open, board.by_asset, board.by_state) == ((), 0, (), {})
    assert (board.basis.records, board.basis.first_position) == (0, None)


# --- any order ----------------------------------------------------------------------------

LIFE = [
    (hour(1), requested("WO-1")[1]),
    (hour(2), WorkOrderApproved("WO-1", "")),
    (hour(3), started("WO-1")[1]),
    (hour(4), WorkOrderPaused("WO-1", "")),
    (hour(6), WorkOrderResumed("WO-1")),
    (hour(7), completed("WO-1", failed_at=hour(0))[1]),
]


@settings(max_examples=60)
@given(st.permutations(range(len(LIFE))))
def test_the_order_in_which_facts_arrive_does_not_matter(order: list[int]) -> None:
    history = History()
    for position, n in enumerate(order, 1):
        at, fact = LIFE[n]
        history.add(Stated(position, position, at, "user:mara", "work-order:WO-1", fact))
    order_found = work_order_of(history)
    assert order_found.worked_s == 2 * 3_600
    assert (order_found.down_from, order_found.down_to) == (hour(0), hour(7))
    assert Counter(order_found.states) == Counter(
        ["REQUESTED", "APPROVED", "IN_PROGRESS", "PAUSED", "IN_PROGRESS", "COMPLETED"]
    )
    assert order_found.state_times == tuple(sorted(order_found.state_times))


def test_every_event_of_a_work_order_is_folded() -> None:
    names = {
        name
        for name, known in event_types().items()
        if known.event_class in get_args(WorkOrderEvent)
    }
    assert len(names) == len(get_args(WorkOrderEvent))
    assert set(MaintenanceProjection.types or ()) == {*names, CORRECTED}
