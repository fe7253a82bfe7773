"""Objects in lists: the rows of a generated plant, held against objects folded one by one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from api.history_recording import record_history
from api.plant_history import HistoryName
from domain.documents.document import DocumentKind, DocumentReleased, DocumentWithdrawn
from domain.material.lot import LotConsumed, LotQuarantined, LotReceived, LotReleased, LotScrapped
from domain.material.part import PartAssembled, PartCreated, PartRemoved, PartStocked
from domain.quality.instrument import InstrumentCalibrated, InstrumentRegistered
from eventlog.ledger import Ledger
from eventlog.objects import load_objects
from eventlog.reading import category_of
from projections.object_kinds import KINDS
from projections.objects import (
    ObjectFilter,
    ObjectOrder,
    ObjectPlace,
    ObjectProjection,
    Standing,
    list_objects,
    standing_of,
)
from projections.running.content import check
from projections.running.rebuild import rebuild
from tests.eventlog.new_events import opened
from tests.projections.factory_facts import correct, fold_wanted, hour, rows_of, tell, tell_all
from tests.projections.loop_frames import PATIENCE_S, running

pytestmark = pytest.mark.anyio

ROWS = "stream, known_from"


async def fold(ledger: Ledger, batch: int = 1000, *, after: int = 0) -> None:
    await fold_wanted(ledger, [ObjectProjection()], batch, after=after)
    await mark_folded(ledger)


async def mark_folded(ledger: Ledger) -> None:
    """Say that the rows reflect the whole log, as a runner does with each batch."""
    await ledger.pool.execute(
        "insert into projection_checkpoint (ledger_id, projection, version, position) "
        "select ledger_id, 'objects', 1, position from ledger where ledger_id = $1 "
        "on conflict (ledger_id, projection, version) do update set position = excluded.position",
        ledger.ledger_id,
    )


def received(lot_id: str, material: str = "steel", supplier: str = "ACME") -> LotReceived:
    return LotReceived(lot_id, material, 100.0, "kg", supplier, f"S-{lot_id}", None)


async def listed(
    ledger: Ledger,
    category: str,
    order: ObjectOrder = ObjectOrder.KEY,
    as_of: int | None = None,
    **wanted: Any,
) -> list[str]:
    page = await list_objects(
        ledger,
        category,
        first=500,
        order=order,
        wanted=ObjectFilter(**wanted),
        as_of=as_of,
    )
    return [place.stream.partition(":")[2] for place in page.places]


# --- rows ---------------------------------------------------------------------------------


async def lots_with_late_facts_and_corrections(log: Ledger, batch: int) -> None:
    positions = await tell_all(
        log,
        ("lot:L-1", received("L-1"), hour(1)),
        ("lot:L-1", LotConsumed("L-1", "R-1", 10.0, "kg", None), hour(2)),
        ("lot:L-1", LotQuarantined("L-1", "smells", None), hour(5)),
        ("lot:L-2", received("L-2", "copper"), hour(3)),
        ("lot:L-1", LotConsumed("L-1", "R-2", 10.0, "kg", None), hour(6)),
        ("lot:L-1", LotReleased("L-1", "aired"), hour(4)),  # late: before the quarantine
        ("lot:L-2", LotScrapped("L-2", "rusty"), hour(7)),
    )
    await correct(log, positions[3], received("L-2", "brass"), hour(2))
    await correct(log, positions[6], None)
    await correct(log, positions[2], None)
    await fold(log, batch)


async def test_rows_are_the_same_whatever_the_batch(ledger: Ledger, database_url: str) -> None:
    async with opened(database_url, "plant-2") as other, opened(database_url, "plant-3") as third:
        for log, batch in ((ledger, 1), (other, 3), (third, 1000)):
            await lots_with_late_facts_and_corrections(log, batch)
        rows = await rows_of(ledger, "object_version", ROWS)
        assert rows
        assert rows == await rows_of(other, "object_version", ROWS)
        assert rows == await rows_of(third, "object_version", ROWS)


async def test_a_row_is_written_where_something_changes_and_not_for_every_event(
    ledger: Ledger,
) -> None:
    await tell(ledger, "lot:L-1", received("L-1"), hour(0))
    for n in range(1, 30):
        await tell(ledger, "lot:L-1", LotConsumed("L-1", f"R-{n}", 1.0, "kg", None), hour(n))
    await fold(ledger, 7)
    assert len(await rows_of(ledger, "object_version", ROWS)) == 1


async def test_what_was_known_then_is_listed_as_of_then(ledger: Ledger) -> None:
    await lots_with_late_facts_and_corrections(ledger, 2)
    quarantined: dict[str, Any] = {"states": ("QUARANTINED",)}
    assert await listed(ledger, "lot", **quarantined) == []
    assert await listed(ledger, "lot", as_of=3, **quarantined) == ["L-1"]
    # A release that is told late, of before the quarantine, releases nothing.
    assert await listed(ledger, "lot", as_of=6, **quarantined) == ["L-1"]
    assert await listed(ledger, "lot", as_of=9, **quarantined) == ["L-1"]
    assert await listed(ledger, "lot", as_of=10, **quarantined) == []
    assert await listed(ledger, "lot", as_of=7, states=("SCRAPPED",)) == ["L-2"]
    assert await listed(ledger, "lot", attributes={"material": ("copper",)}) == []
    assert await listed(ledger, "lot", as_of=7, attributes={"material": ("copper",)}) == ["L-2"]
    assert await listed(ledger, "lot", ObjectOrder.NEWEST) == ["L-2", "L-1"]
    assert await listed(ledger, "lot", as_of=1) == ["L-1"]
    assert await listed(ledger, "lot", as_of=0) == []


async def test_a_part_that_is_taken_out_again_is_inside_nothing(ledger: Ledger) -> None:
    await tell_all(
        ledger,
        ("part:P-1", PartCreated("P-1", "PN-7", "DRW-7@B", None, None), hour(0)),
        ("part:P-1", PartStocked("P-1"), hour(1)),
        ("part:P-1", PartAssembled("P-1", "P-2", "left"), hour(2)),
        ("part:P-1", PartRemoved("P-1", "P-2", "worn"), hour(3)),
    )
    await fold(ledger, 2)
    inside: dict[str, Any] = {"attributes": {"inside": ("P-2",)}}
    assert await listed(ledger, "part", as_of=3, **inside) == ["P-1"]
    assert await listed(ledger, "part", **inside) == []
    numbered: dict[str, Any] = {
        "attributes": {"part_number": ("PN-6", "PN-7"), "design": ("DRW-7@B",)}
    }
    assert await listed(ledger, "part", **numbered) == ["P-1"]


async def test_calibrations_that_run_out_are_found_by_when(ledger: Ledger) -> None:
    for name, until in (("GAUGE-1", 30), ("GAUGE-2", 10), ("GAUGE-3", None)):
        stream = f"instrument:{name}"
        await tell(ledger, stream, InstrumentRegistered(name, name), hour(0))
        if until is not None:
            await tell(
                ledger, stream, InstrumentCalibrated(name, hour(1), hour(until), None), hour(1)
            )
    await fold(ledger)
    assert await listed(ledger, "instrument", ObjectOrder.DUE) == ["GAUGE-2", "GAUGE-1"]
    assert await listed(ledger, "instrument", due_before=hour(20)) == ["GAUGE-2"]
    assert await listed(ledger, "instrument", as_of=2, due_before=hour(90)) == ["GAUGE-1"]


async def test_a_document_is_found_by_its_files_and_stands_by_its_revisions(
    ledger: Ledger,
) -> None:
    def released(revision: str) -> DocumentReleased:
        return DocumentReleased(
            "DRW-7", revision, DocumentKind.DESIGN, "Shaft", revision.lower() * 64, 1,
            "application/pdf", "PN-7", hour(0), None,
        )  # fmt: skip

    await tell(ledger, "document:DRW-7", released("A"), hour(0))
    await tell(ledger, "document:DRW-7", DocumentWithdrawn("DRW-7", "A", "wrong"), hour(1))
    await tell(ledger, "document:DRW-7", released("B"), hour(2))
    await fold(ledger, 1)
    for sha256 in ("a" * 64, "b" * 64):
        assert await listed(ledger, "document", attributes={"sha256": (sha256,)}) == ["DRW-7"]
    assert await listed(ledger, "document", states=("WITHDRAWN",), as_of=2) == ["DRW-7"]
    assert await listed(ledger, "document", states=("RELEASED",)) == ["DRW-7"]


async def test_keys_are_found_by_how_they_begin(ledger: Ledger) -> None:
    names = ("A-1", "AB", "B.1", "a-1")
    await tell_all(ledger, *((f"lot:{n}", received(n), hour(i)) for i, n in enumerate(names)))
    await fold(ledger)
    assert await listed(ledger, "lot", starts_with="A") == ["A-1", "AB"]
    assert await listed(ledger, "lot", starts_with="A-") == ["A-1"]
    assert await listed(ledger, "lot", starts_with="%") == []
    assert await listed(ledger, "lot", created_from=hour(1), created_to=hour(3)) == ["AB", "B.1"]


# --- against objects folded one by one ------------------------------------------------------


@pytest.mark.slow
async def test_lists_of_a_plant_are_what_its_objects_say_at_any_time(
    ledger: Ledger, database_url: str
) -> None:
    history = await record_history(ledger, HistoryName(parts=100, seed=5, months=12))
    async with running(ledger, database_url, ObjectProjection()) as (runner,):
        await runner.wait_for(history.position, PATIENCE_S)
    live = await rows_of(ledger, "object_version", ROWS)
    assert (await check(ledger.pool, ledger, ObjectProjection())).equal
    await rebuild(ledger.pool, ObjectProjection())
    assert await rows_of(ledger, "object_version", ROWS) == live

    streams = [
        row["stream"]
        for row in await ledger.pool.fetch(
            "select distinct stream from event where ledger_id = $1 order by stream",
            ledger.ledger_id,
        )
        if category_of(row["stream"]) in KINDS
    ]
    assert {category_of(stream) for stream in streams} == set(KINDS)
    drawn = random.Random(5)
    for position in (*drawn.sample(range(1, history.position), 4), None):
        standing = await _standing(ledger, streams, position)
        for category in KINDS:
            await _check_lists(ledger, category, standing, position, drawn)


async def _standing(
    ledger: Ledger, streams: Sequence[str], position: int | None
) -> dict[str, Standing]:
    found = {}
    for first in range(0, len(streams), 400):
        loaded = await load_objects(ledger, streams[first : first + 400], position=position)
        for stream, one in loaded.items():
            told = standing_of(one)
            if told is not None:
                found[stream] = told
    return found


async def _check_lists(
    ledger: Ledger,
    category: str,
    standing: dict[str, Standing],
    position: int | None,
    drawn: random.Random,
) -> None:
    """Hold a page after page of each order, and a filter, against what the objects say."""
    of_kind = {stream: one for stream, one in standing.items() if category_of(stream) == category}
    expected = {
        ObjectOrder.KEY: sorted(of_kind),
        ObjectOrder.OLDEST: sorted(of_kind, key=lambda s: (of_kind[s].created_at, s)),
        ObjectOrder.NEWEST: sorted(of_kind, key=lambda s: (of_kind[s].created_at, s), reverse=True),
        ObjectOrder.CHANGED: sorted(of_kind, key=lambda s: (of_kind[s].since, s), reverse=True),
        ObjectOrder.DUE: sorted(
            (s for s, one in of_kind.items() if one.due_at is not None),
            key=lambda s: (str(of_kind[s].due_at), s),
        ),
    }
    for order, streams in expected.items():
        found: list[str] = []
        after: ObjectPlace | None = None
        while True:
            page = await list_objects(
                ledger, category, first=50, order=order, after=after, as_of=position
            )
            found += [place.stream for place in page.places]
            if len(page.places) < 50:
                break
            after = page.places[-1]
        assert found == streams, (category, order, position)
    if not of_kind:
        return
    like = of_kind[drawn.choice(sorted(of_kind))]
    attributes = [held.partition("=") for held in sorted(like.attributes)[:1]]
    wanted = ObjectFilter(
        states=(like.state,),
        attributes={name: (value,) for name, _, value in attributes},
        created_to=like.created_at + timedelta(days=60),
    )
    page = await list_objects(ledger, category, first=10_000, wanted=wanted, as_of=position)
    assert [place.stream for place in page.places] == sorted(
        stream for stream, one in of_kind.items() if wanted.wants(one)
    )
    assert page.places
