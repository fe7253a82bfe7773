"""The audit trail against a plain search of the whole log, and what it tells of each entry."""

from __future__ import annotations

import hashlib
import itertools
import random
import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest

from domain.asset import SetpointDesired
from domain.errors import InvalidInput
from domain.maintenance.work_order import Finding, WorkOrderApproved, WorkOrderPaused
from domain.material.process_run import ProcessRunStarted, SetParameter
from domain.quality.inspection import Verdict
from domain.records import Meaning, RecordSigned
from eventlog.database import Pool
from eventlog.envelope import NewEvent
from eventlog.ledger import Ledger
from eventlog.reading import read_event, read_page
from projections.audit.trail import AuditEntry, AuditFilter, AuditPage, FieldChange, audit_trail
from projections.audit.words import WORDS_LENGTH_MAX, words_of
from tests.eventlog.new_events import frame_event, frame_of
from tests.projections.audit_rows import fold_up_to, short_blocks
from tests.projections.factory_facts import (
    MONDAY,
    completed,
    correct,
    hour,
    inspected,
    requested,
    started,
    tell,
)

pytestmark = pytest.mark.anyio

EVERYTHING = AuditFilter()


async def trail(ledger: Ledger, wanted: AuditFilter = EVERYTHING, **asked: Any) -> list[AuditEntry]:
    page = await audit_trail(ledger, wanted, first=asked.pop("first", 100), **asked)
    return list(page.entries)


async def signed(
    ledger: Ledger, position: int, meaning: Meaning = Meaning.APPROVED, actor: str = "user:vera"
) -> int:
    event = await read_event(ledger, position)
    assert event is not None
    signature = RecordSigned(
        stream=event.stream,
        signed_position=position,
        signed_event_id=event.event_id,
        signed_sha256=event.leaf_hash.hex(),
        document_sha256=None,
        signer=actor,
        signer_name="Vera Vogt",
        meaning=meaning,
        authenticated_at=hour(1),
        components=("password", "token"),
    )
    return await tell(ledger, event.stream, signature, hour(2), actor)


# --- which entries ------------------------------------------------------------------------

ACTORS = ("user:mara", "user:otto", "agent:line", "policy:alerts")
NAMES = ("WO-1", "WO-2", "WO-3")


async def random_log(pool: Pool, seed: int) -> tuple[Ledger, list[datetime]]:
    """Return a log of facts and frames by several actors, one a minute, and those minutes."""
    draw = random.Random(seed)
    now = MONDAY
    ledger = await Ledger.open(pool, f"plant-{seed}", clock=lambda: now)
    times = []
    for n in range(150):
        now = MONDAY + (n + 1) * timedelta(minutes=1)
        times.append(now)
        if draw.random() < 0.4:
            await ledger.append([frame_event(frame_of(n + 1))])
            continue
        name = draw.choice(NAMES)
        stream, fact = draw.choice(
            [
                requested(name),
                started(name),
                completed(name),
                (f"work-order:{name}", WorkOrderApproved(name, "")),
            ]
        )
        await tell(ledger, stream, fact, MONDAY, draw.choice(ACTORS))
    return ledger, times


@pytest.mark.parametrize(
    ("seed", "near", "size", "folded"),
    [(0, 4, 7, 150), (1, 1, 7, 150), (2, 1, 3, 75), (3, 4, 7, 0)],
)
async def test_every_filter_finds_what_a_search_of_the_whole_log_finds(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, seed: int, near: int, size: int, folded: int
) -> None:
    short_blocks(monkeypatch, near)
    ledger, times = await random_log(pool, seed)
    await fold_up_to(ledger, folded)
    facts = [event for event in await read_page(ledger, 0, limit=1000) if not event.is_frame]
    choices = itertools.product(
        ((), ("user:mara",), ("user:otto", "agent:line"), ("user:nobody",)),
        ((), ("work-order:WO-1",), ("work-order:WO-2", "work-order:WO-3", "asset:none")),
        ((), ("work_order.started",), ("work_order.requested", "work_order.approved")),
        ((None, None), (times[30], times[100]), (times[140], None)),
        (None, 90),
    )
    for actors, streams, types, (start, end), as_of in choices:
        expected = [
            event.position
            for event in reversed(facts)
            if (not actors or event.actor in actors)
            and (not streams or event.stream in streams)
            and (not types or event.type in types)
            and (start is None or event.recorded_at >= start)
            and (end is None or event.recorded_at <= end)
            and (as_of is None or event.position <= as_of)
        ]
        wanted = AuditFilter(actors, streams, types, start, end)
        page = await audit_trail(ledger, wanted, first=200, as_of=as_of)
        assert [entry.position for entry in page.entries] == expected
        assert not page.more
        assert page.as_of == (as_of or 150)
        joined, before = [], None
        for _ in range(200):
            part = await audit_trail(ledger, wanted, first=size, before=before, as_of=as_of)
            joined += [entry.position for entry in part.entries]
            if not part.more:
                break
            before = part.entries[-1].position
        assert joined == expected
    await ledger.close()


async def texts_of_one_hash(pool: Pool, prefix: str) -> tuple[str, str]:
    """Return two texts that begin with `prefix` and that the index cannot tell apart."""
    first, second = await pool.fetchval(
        "select (array_agg(text order by text))[:2] from ("
        "select $1 || n as text from generate_series(1, 300000) n) texts "
        "group by hashtext(text) having count(*) > 1 order by min(text) limit 1",
        prefix,
    )
    return first, second


@pytest.mark.parametrize(("near", "folded"), [(4, 10), (1, 10), (1, 8), (1, 0)])
async def test_actors_and_kinds_of_one_hash_are_told_apart(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, near: int, folded: int
) -> None:
    short_blocks(monkeypatch, near)
    actors = await texts_of_one_hash(ledger.pool, "user:")
    types = await texts_of_one_hash(ledger.pool, "made_up.kind_")
    done = [
        # A kind that its actor did long ago, and whose twins did the last things of all.
        *itertools.product(actors, types),
        *[("user:mara", "made_up.other")] * 3,
        *[(actors[1], types[1])] * 3,
    ]
    for n, (actor, of_type) in enumerate(done):
        event = NewEvent(
            stream=f"thing:{n}",
            type=of_type,
            schema_version=1,
            event_id=uuid.UUID(int=n + 1),
            occurred_at=MONDAY,
            actor=actor,
            payload=b"{}",
            payload_sha256=hashlib.sha256(b"{}").digest(),
        )
        await ledger.append([event])
    await fold_up_to(ledger, folded)
    for by, of in itertools.product(
        ((), (actors[0],), (actors[1],), actors), ((), (types[0],), (types[1],), types)
    ):
        expected = [
            n
            for n, (actor, of_type) in reversed(list(enumerate(done, 1)))
            if (not by or actor in by) and (not of or of_type in of)
        ]
        for first in (1, 2, 100):
            page = await audit_trail(ledger, AuditFilter(by, types=of), first=first)
            assert [entry.position for entry in page.entries] == expected[:first]
            assert page.more == (len(expected) > first)


async def test_an_empty_log_has_no_trail(ledger: Ledger) -> None:
    assert await audit_trail(ledger, EVERYTHING, first=10) == AuditPage((), more=False, as_of=0)


async def test_other_ledgers_are_not_seen(ledger: Ledger, pool: Pool) -> None:
    other = await Ledger.open(pool, "plant-2")
    await tell(other, *requested(), hour(1))
    assert await trail(ledger) == []
    assert await trail(ledger, AuditFilter(actors=("user:mara",))) == []
    assert len(await trail(other)) == 1
    await other.close()


@pytest.mark.parametrize(
    ("wanted", "first", "code"),
    [
        (EVERYTHING, 0, "page.limit"),
        (EVERYTHING, 501, "page.limit"),
        (AuditFilter(actors=tuple(f"user:{n}" for n in range(51))), 10, "filter.too_many"),
        (AuditFilter(recorded_from=datetime(2026, 3, 1)), 10, "event.naive_time"),  # noqa: DTZ001
    ],
)
async def test_what_has_no_bound_is_refused(
    ledger: Ledger, wanted: AuditFilter, first: int, code: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await audit_trail(ledger, wanted, first=first)
    assert refused.value.code == code


# --- what is told of them -----------------------------------------------------------------


async def test_an_entry_says_who_did_what_and_when(ledger: Ledger) -> None:
    await tell(ledger, *requested("WO-1", "mill-1", cause="alert:A-1"), hour(1), "user:otto")
    event = await read_event(ledger, 1)
    assert event is not None
    (entry,) = await trail(ledger)
    assert entry == AuditEntry(
        position=1,
        event_id=event.event_id,
        recorded_at=event.recorded_at,
        occurred_at=hour(1),
        actor="user:otto",
        stream="work-order:WO-1",
        type="work_order.requested",
        words=(
            'Work order requested: asset mill-1, title "Look at mill-1", '
            "failure mode bearing_wear, priority NORMAL, cause alert:A-1"
        ),
        corrected_by=(),
        signatures=(),
        change=None,
    )


async def test_a_correction_tells_what_was_there_before(ledger: Ledger) -> None:
    wrong = await tell(ledger, *completed("WO-1"), hour(3))
    once = await correct(ledger, wrong, completed("WO-1", Finding.NO_FAULT_FOUND)[1], hour(4))
    again = await correct(
        ledger,
        wrong,
        completed("WO-1", Finding.NO_FAULT_FOUND, cost=5.0, currency="EUR")[1],
        hour(4),
    )
    never = await correct(ledger, wrong, None, hour(4))
    found = {entry.position: entry for entry in await trail(ledger)}
    assert found[wrong].corrected_by == (once, again, never)
    assert found[wrong].change is None
    first, second, third = (found[n].change for n in (once, again, never))
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.fields == (
        FieldChange("(occurred_at)", "2026-03-02T03:00:00.000000Z", "2026-03-02T04:00:00.000000Z"),
        FieldChange("failure_mode", "bearing_wear", None),
        FieldChange("finding", "FAILURE_CONFIRMED", "NO_FAULT_FOUND"),
    )
    assert (first.corrected_position, first.previous_position) == (wrong, wrong)
    assert first.reason == "it was written down wrong"
    # The second one changed what the first had made of it.
    assert second.fields == (FieldChange("cost", None, 5.0), FieldChange("currency", None, "EUR"))
    assert (second.corrected_position, second.previous_position) == (wrong, once)
    assert third.previous_position == again
    assert {change.field: change.now for change in third.fields}["finding"] is None
    assert found[once].words == (
        "Corrected 1: Work order completed: finding NO_FAULT_FOUND, labour 1800 s, note done; "
        'because "it was written down wrong"'
    )
    assert "it did not happen" in found[never].words
    as_known = {entry.position: entry for entry in await trail(ledger, as_of=once)}
    assert as_known[wrong].corrected_by == (once,)


async def test_an_entry_shows_its_signatures(ledger: Ledger) -> None:
    done = await tell(ledger, *completed("WO-1"), hour(3))
    await tell(ledger, *completed("WO-2"), hour(3))
    reviewed = await signed(ledger, done, Meaning.REVIEWED)
    approved = await signed(ledger, done)
    found = {entry.position: entry for entry in await trail(ledger)}
    assert [(s.position, s.signer_name, s.meaning) for s in found[done].signatures] == [
        (reviewed, "Vera Vogt", Meaning.REVIEWED),
        (approved, "Vera Vogt", Meaning.APPROVED),
    ]
    assert found[2].signatures == ()
    assert found[approved].words == (
        'Signed 1 as APPROVED by "Vera Vogt" (user:vera), '
        "authenticated at 2026-03-02T01:00:00.000000Z"
    )
    (alone,) = await trail(ledger, AuditFilter(actors=("user:mara",)), as_of=reviewed, before=2)
    assert [s.position for s in alone.signatures] == [reviewed]


async def test_what_was_erased_or_cannot_be_read_is_shown_all_the_same(ledger: Ledger) -> None:
    erased = await tell(ledger, *completed("WO-1"), hour(3))
    corrected = await correct(ledger, erased, completed("WO-1", Finding.NO_FAULT_FOUND)[1])
    await ledger.pool.execute(
        "update event set payload = null, payload_tier = 2 where ledger_id = $1 and position = $2",
        ledger.ledger_id,
        erased,
    )
    correction, entry = await trail(ledger)
    assert (entry.words, entry.actor, entry.corrected_by) == (
        "(payload.erased)",
        "user:mara",
        (corrected,),
    )
    assert correction.change is not None
    assert correction.change.previous_erased
    assert correction.change.fields == ()


# --- in words -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "fact", "words"),
    [
        ("work-order:WO-1", WorkOrderApproved("WO-1", ""), "Work order approved"),
        (
            "work-order:WO-1",
            WorkOrderPaused("WO-1", "spare part missing"),
            'Work order paused: reason "spare part missing"',
        ),
        (*started("WO-1"), "Work order started: asset down"),
        (*started("WO-1", down=False), "Work order started"),
        (
            "asset:loop-1",
            SetpointDesired("loop-1", "pump_speed", 150.25),
            "Setpoint desired: setpoint pump_speed, value 150.25",
        ),
        (
            "process-run:R-1",
            ProcessRunStarted(
                "R-1", "mill-1", "milling", None, "DRW-7@B", None, None,
                (SetParameter("speed", 1.0, "rpm"), SetParameter("feed", 2.0, "m/s")),
            ),
            "Process run started: asset mill-1, operation milling, design DRW-7@B, 2 parameters",
        ),
        (
            *inspected("I-1", "part:SN-1", Verdict.DEFECTIVE, defects=("burr", "crack")),
            "Inspection recorded: subject part:SN-1, defect codes burr/crack, "
            "verdict DEFECTIVE, judge PERSON",
        ),
    ],
)  # fmt: skip
def test_an_event_is_told_in_words(stream: str, fact: Any, words: str) -> None:
    assert words_of(fact, stream) == words


def test_words_are_short() -> None:
    long = WorkOrderPaused("WO-1", "because " * 100)
    assert len(words_of(long, "work-order:WO-1")) < 130
    correction = RecordSigned(
        "work-order:WO-1", 1, uuid.UUID(int=1), "", None, "u" * 500, "n", Meaning.AUTHORED,
        MONDAY, (),
    )  # fmt: skip
    assert len(words_of(correction, "work-order:WO-1")) == WORDS_LENGTH_MAX
