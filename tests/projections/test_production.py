"""Process runs and what went through them, as they were known."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.events import event_types
from domain.material.lot import LotCreated
from domain.material.part import (
    PartCreated,
    PartProcessed,
    PartReceived,
    PartReworked,
    PartScrapped,
)
from domain.material.process_run import ProcessRunAborted, ProcessRunEvent
from domain.records import CORRECTED
from eventlog.ledger import Ledger
from projections.histories import STILL_KNOWN, History, Stated
from projections.production.projection import RUN_TYPES, ProductionProjection, run_of
from tests.eventlog.new_events import opened
from tests.projections.factory_facts import (
    correct,
    fold_wanted,
    hour,
    rows_of,
    run_completed,
    run_started,
    tell,
    tell_all,
)

pytestmark = pytest.mark.anyio

TABLES = (
    ("process_run", "run_id, known_from"),
    ("run_unit", "origin, known_from"),
    ("part_number", "origin, known_from"),
    ("part_scrapped", "origin, known_from"),
)


async def fold(ledger: Ledger, batch: int = 1000, *, after: int = 0) -> None:
    await fold_wanted(ledger, [ProductionProjection()], batch, after=after)


async def runs(ledger: Ledger) -> list[dict[str, Any]]:
    rows = await ledger.pool.fetch(
        "select * from process_run where ledger_id = $1 order by run_id, known_from",
        ledger.ledger_id,
    )
    return [dict(row) for row in rows]


async def test_a_run_has_its_times_outcome_and_energy(ledger: Ledger) -> None:
    await tell_all(
        ledger,
        (*run_started("R-1"), hour(1)),
        (*run_completed("R-1", 3.6e6), hour(2)),
        (*run_started("R-2", "lathe-1", "turning"), hour(1)),
        ("process-run:R-2", ProcessRunAborted("R-2", "tool broke"), hour(1.5)),
        (*run_started("R-3"), hour(3)),
    )
    await fold(ledger)
    last = {run["run_id"]: run for run in await runs(ledger) if run["known_to"] == STILL_KNOWN}
    assert [
        (run["asset_id"], run["operation"], run["started_at"], run["ended_at"], run["outcome"])
        for run in last.values()
    ] == [
        ("mill-1", "milling", hour(1), hour(2), "COMPLETED"),
        ("lathe-1", "turning", hour(1), hour(1.5), "ABORTED"),
        ("mill-1", "milling", hour(3), None, None),
    ]
    assert [run["energy_j"] for run in last.values()] == [3.6e6, None, None]
    assert last["R-2"]["reason"] == "tool broke"


async def test_an_end_that_is_known_before_the_start_is_kept(ledger: Ledger) -> None:
    await tell(ledger, *run_completed("R-1", 5.0), hour(2))
    await fold(ledger)
    start = await tell(ledger, *run_started("R-1"), hour(1))
    await fold(ledger, after=1)
    first, second = await runs(ledger)
    assert (first["asset_id"], first["ended_at"], first["known_to"]) == (None, hour(2), start)
    assert (second["asset_id"], second["started_at"], second["ended_at"]) == (
        "mill-1",
        hour(1),
        hour(2),
    )


async def test_what_went_through_a_run_is_kept_with_its_unit(ledger: Ledger) -> None:
    await tell_all(
        ledger,
        ("part:SN-1", PartCreated("SN-1", "PN-7", None, "R-1", None), hour(1)),
        ("part:SN-2", PartReceived("SN-2", "PN-8", "Acme", None), hour(1)),
        ("part:SN-2", PartProcessed("SN-2", "R-1"), hour(2)),
        ("part:SN-2", PartReworked("SN-2", "R-2", None), hour(3)),
        ("part:SN-1", PartScrapped("SN-1", "cracked"), hour(4)),
        ("lot:L-1", LotCreated("L-1", "resin", 12.5, "kg", "R-1"), hour(4)),
        ("lot:L-2", LotCreated("L-2", "resin", 12.5, "kg", None), hour(4)),
        ("part:SN-3", PartCreated("SN-3", "PN-7", None, None, "L-1"), hour(5)),
    )
    await fold(ledger)
    units = await ledger.pool.fetch("select * from run_unit order by origin")
    assert [(u["unit_id"], u["run_id"], u["how"], u["quantity"], u["unit"]) for u in units] == [
        ("part:SN-1", "R-1", 1, 1.0, "part"),
        ("part:SN-2", "R-1", 2, 1.0, "part"),
        ("part:SN-2", "R-2", 3, 1.0, "part"),
        ("lot:L-1", "R-1", 1, 12.5, "kg"),
    ]
    numbers = await ledger.pool.fetch("select * from part_number order by origin")
    assert [(n["unit_id"], n["part_number"]) for n in numbers] == [
        ("part:SN-1", "PN-7"),
        ("part:SN-2", "PN-8"),
        ("part:SN-3", "PN-7"),
    ]
    (gone,) = await ledger.pool.fetch("select * from part_scrapped")
    assert (gone["unit_id"], gone["occurred_at"]) == ("part:SN-1", hour(4))


async def corrected_story(ledger: Ledger, batch: int) -> None:
    """Have a run and what it processed corrected, once and again, in one batch or in several."""
    start = await tell(ledger, *run_started("R-1"), hour(1))
    await tell(ledger, *run_completed("R-1", 5.0), hour(2))
    through = await tell(ledger, "part:SN-1", PartProcessed("SN-1", "R-1"), hour(2))
    await correct(ledger, start, run_started("R-1", "mill-2")[1], hour(0.5))
    await correct(ledger, through, PartProcessed("SN-1", "R-9"))
    await correct(ledger, through, PartScrapped("SN-1", "it was thrown away"), hour(3))
    await correct(ledger, through, None)
    await fold(ledger, batch)


async def test_corrections_close_rows_and_add_their_own(ledger: Ledger) -> None:
    await corrected_story(ledger, 1000)
    units = await ledger.pool.fetch("select * from run_unit order by known_from")
    assert [(u["run_id"], u["origin"], u["known_from"], u["known_to"]) for u in units] == [
        ("R-1", 3, 3, 5),
        ("R-9", 3, 5, 6),
    ]
    (gone,) = await ledger.pool.fetch("select * from part_scrapped")
    assert (gone["known_from"], gone["known_to"], gone["occurred_at"]) == (6, 7, hour(3))
    last = (await runs(ledger))[-1]
    assert (last["asset_id"], last["started_at"], last["known_from"]) == ("mill-2", hour(0.5), 4)


async def test_batch_sizes_do_not_matter(ledger: Ledger, database_url: str) -> None:
    async with opened(database_url, "plant-2") as other, opened(database_url, "plant-3") as third:
        for log, batch in ((ledger, 1), (other, 3), (third, 1000)):
            await corrected_story(log, batch)
        for name, order in TABLES:
            rows = await rows_of(ledger, name, order)
            assert rows == await rows_of(other, name, order)
            assert rows == await rows_of(third, name, order)
            assert bool(rows) is (name != "part_number")


FACTS = [
    (hour(1), run_started("R-1")[1]),
    (hour(2), run_completed("R-1", 7.0)[1]),
    (hour(3), run_started("R-1", "mill-9")[1]),
    (hour(4), ProcessRunAborted("R-1", "twice")),
]


@given(st.permutations(range(len(FACTS))))
def test_the_order_in_which_facts_arrive_does_not_matter(order: list[int]) -> None:
    history = History()
    for position, n in enumerate(order, 1):
        at, fact = FACTS[n]
        history.add(Stated(position, position, at, "user:mara", "process-run:R-1", fact))
    run = run_of(history)
    assert (run.asset_id, run.started_at, run.ended_at) == ("mill-1", hour(1), hour(2))
    assert (run.outcome, run.energy_j, run.reason) == ("COMPLETED", 7.0, None)


async def test_what_was_erased_is_closed_by_what_comes_after_it(ledger: Ledger) -> None:
    start = await tell(ledger, *run_started("R-1"), hour(1))
    await fold(ledger)
    await ledger.pool.execute(
        "update event set payload = null, payload_tier = 2 where ledger_id = $1 and position = $2",
        ledger.ledger_id,
        start,
    )
    end = await tell(ledger, *run_completed("R-1"), hour(2))
    await fold(ledger, after=start)
    assert [
        (run["known_from"], run["known_to"], run["asset_id"], run["outcome"])
        for run in await runs(ledger)
    ] == [(start, end, "mill-1", None), (end, STILL_KNOWN, None, "COMPLETED")]
    # Folded anew, what was erased is not there at all.
    await ledger.pool.execute("delete from process_run")
    await fold(ledger)
    (run,) = await runs(ledger)
    assert (run["known_from"], run["known_to"], run["outcome"]) == (end, STILL_KNOWN, "COMPLETED")


def test_every_event_of_a_run_is_folded() -> None:
    assert {type_of_class(known) for known in get_args(ProcessRunEvent)} == {*RUN_TYPES} - {
        CORRECTED
    }


def type_of_class(event_class: type) -> str:
    (name,) = (n for n, known in event_types().items() if known.event_class is event_class)
    return name
