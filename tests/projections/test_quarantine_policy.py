"""The quarantine policy: what is judged CRITICAL is quarantined once, in whatever order it is told.

Facts are appended as they come; what the policy commands is decided like anybody's command.
"""

from __future__ import annotations

import contextlib
import itertools
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import CommandRejected
from domain.events import encode_fact, type_of
from domain.material.lot import LotCreated, LotQuarantined, LotReceived, LotScrapped, lot_stream
from domain.material.part import (
    PartCreated,
    PartProcessed,
    PartQuarantined,
    PartReceived,
    PartReleased,
    PartReworked,
    PartScrapped,
    PartShipped,
    ShipPart,
    part_stream,
)
from domain.quality.inspection import InspectionRecorded, Judge, Verdict, inspection_stream
from domain.records import RecordCorrected
from eventlog.commands import handle
from eventlog.database import Pool
from eventlog.envelope import RecordedEvent, new_fact
from eventlog.ledger import Ledger
from eventlog.reading import EventFilter, read_page
from projections.quality import quarantine_policy
from projections.quality.quarantine_policy import ACTOR, QuarantinePolicy
from tests.eventlog.new_events import opened
from tests.projections.loop_frames import PATIENCE_S, fold, fresh_ledgers, running, table

pytestmark = pytest.mark.anyio

MONDAY = datetime(2025, 4, 28, 6, tzinfo=UTC)
RUN, OTHER_RUN = "process-run:RUN-1", "process-run:RUN-2"
_STREAMS = {"part_id": "part", "lot_id": "lot", "inspection_id": "inspection"}


async def tell(ledger: Ledger, fact: Any, *, hours: float = 0, stream: str | None = None) -> int:
    """Append `fact` in the stream of what it speaks of; return its position."""
    if stream is None:
        field = next(name for name in _STREAMS if hasattr(fact, name))
        stream = f"{_STREAMS[field]}:{getattr(fact, field)}"
    event = new_fact(
        stream,
        fact,
        event_id=uuid.uuid4(),
        occurred_at=MONDAY + timedelta(hours=hours),
        actor="user:mara",
    )
    return (await ledger.append([event])).position


def made(part_id: str, run_id: str | None = "RUN-1") -> PartCreated:
    return PartCreated(part_id, "HSG-100", None, run_id, None)


def cast(lot_id: str, run_id: str | None = "RUN-1") -> LotCreated:
    return LotCreated(lot_id, "AlSi10Mg", 40.0, "kg", run_id)


def judged(
    subject: str, verdict: Verdict = Verdict.CRITICAL, inspection_id: str = "INS-1"
) -> InspectionRecorded:
    return InspectionRecorded(
        inspection_id, subject, None, None, (), (), (), verdict, Judge.PERSON, None, ()
    )


async def correct(ledger: Ledger, position: int, replacement: Any = None) -> int:
    """Record that the event at `position` was wrong."""
    (wrong,) = await read_page(ledger, position - 1, up_to=position)
    stored = None if replacement is None else type_of(replacement)
    correction = RecordCorrected(
        wrong.stream,
        wrong.event_id,
        position,
        "misread",
        None if stored is None else stored.name,
        None if stored is None else stored.schema_version,
        None if replacement is None else encode_fact(replacement).decode(),
    )
    return await tell(ledger, correction, stream=wrong.stream)


async def commanded(ledger: Ledger) -> list[RecordedEvent]:
    """Return the events that the policy has caused, in the order of their streams."""
    wanted = EventFilter(types=("part.quarantined", "lot.quarantined"))
    found = [e for e in await read_page(ledger, 0, limit=2000, wanted=wanted) if e.actor == ACTOR]
    return sorted(found, key=lambda event: (event.stream, event.version))


async def quarantined(ledger: Ledger) -> list[str]:
    return [event.stream for event in await commanded(ledger)]


# --- the rule -----------------------------------------------------------------------------


async def test_a_critical_part_is_quarantined_and_says_why(ledger: Ledger) -> None:
    await tell(ledger, made("SN-1"))
    await tell(ledger, made("SN-2"))
    verdict = await tell(ledger, judged(part_stream("SN-1")), hours=1)
    await fold(ledger, QuarantinePolicy())
    (event,) = await commanded(ledger)
    (cause,) = await read_page(ledger, verdict - 1, up_to=verdict)
    assert event.stream == "part:SN-1"
    assert event.fact == PartQuarantined(
        "SN-1",
        "inspection INS-1 of part:SN-1 came to the verdict CRITICAL",
        inspection_stream("INS-1"),
    )
    assert event.causation_id == cause.event_id
    # From when it was decided: until then the part was used as if nothing were wrong.
    assert event.occurred_at == cause.recorded_at


async def test_a_critical_lot_is_quarantined(ledger: Ledger) -> None:
    await tell(ledger, LotReceived("L-1", "42CrMo4", 100.0, "kg", "ACME", "H-77", None))
    await tell(ledger, judged(lot_stream("L-1")))
    await fold(ledger, QuarantinePolicy())
    (event,) = await commanded(ledger)
    assert (event.stream, event.fact.cause) == ("lot:L-1", "inspection:INS-1")
    assert isinstance(event.fact, LotQuarantined)


async def test_all_that_came_out_of_a_critical_run_is_quarantined(ledger: Ledger) -> None:
    await tell(ledger, made("SN-1"))
    await tell(ledger, made("SN-2", None))
    await tell(ledger, PartProcessed("SN-2", "RUN-1"))
    await tell(ledger, PartReceived("SN-3", "HSG-100", "ACME", None))
    await tell(ledger, PartReworked("SN-3", "RUN-1", None))
    await tell(ledger, cast("L-1"))
    await tell(ledger, made("SN-4", "RUN-2"))
    await tell(ledger, cast("L-2", None))
    await tell(ledger, judged(RUN))
    await fold(ledger, QuarantinePolicy())
    assert await quarantined(ledger) == ["lot:L-1", "part:SN-1", "part:SN-2", "part:SN-3"]


@pytest.mark.parametrize("verdict", [Verdict.GOOD, Verdict.DEFECTIVE])
async def test_other_verdicts_quarantine_nothing(ledger: Ledger, verdict: Verdict) -> None:
    await tell(ledger, made("SN-1"))
    await tell(ledger, judged(part_stream("SN-1"), verdict, "INS-1"))
    await tell(ledger, judged(RUN, verdict, "INS-2"))
    head = await ledger.head()
    await fold(ledger, QuarantinePolicy())
    assert await ledger.head() == head


async def told_and_folded(ledger: Ledger, facts: list[Any], batch: int) -> None:
    """Tell `facts`, and fold the log whenever `batch` of them were told."""
    folded = 0
    for n in range(0, len(facts), batch):
        for fact in facts[n : n + batch]:
            await tell(ledger, fact)
        head = await ledger.head()
        await fold(ledger, QuarantinePolicy(), after=folded)
        folded = head


@pytest.mark.parametrize("batch", [1, 2, 1000])
async def test_what_becomes_known_after_the_verdict_is_quarantined_too(
    ledger: Ledger, batch: int
) -> None:
    facts = [
        judged(RUN),
        judged(part_stream("SN-9"), inspection_id="INS-2"),
        judged(lot_stream("L-9"), inspection_id="INS-3"),
        made("SN-1"),
        cast("L-1"),
        made("SN-9", None),
        LotReceived("L-9", "42CrMo4", 100.0, "kg", "ACME", "H-77", None),
    ]
    await told_and_folded(ledger, facts, batch)
    assert await quarantined(ledger) == ["lot:L-1", "lot:L-9", "part:SN-1", "part:SN-9"]


async def test_a_part_that_two_verdicts_concern_is_quarantined_once(ledger: Ledger) -> None:
    await tell(ledger, made("SN-1"))
    await tell(ledger, judged(part_stream("SN-1")))
    await tell(ledger, judged(RUN, inspection_id="INS-2"))
    await fold(ledger, QuarantinePolicy(), 1)
    assert await quarantined(ledger) == ["part:SN-1"]


async def test_a_part_known_beyond_the_clock_is_quarantined_after_that(ledger: Ledger) -> None:
    tomorrow = (datetime.now(UTC) - MONDAY + timedelta(days=1)) / timedelta(hours=1)
    await tell(ledger, made("SN-1"), hours=tomorrow)
    await tell(ledger, judged(part_stream("SN-1")))
    await fold(ledger, QuarantinePolicy())
    (event,) = await commanded(ledger)
    assert event.occurred_at == MONDAY + timedelta(hours=tomorrow)


# --- what it leaves alone -----------------------------------------------------------------


async def test_what_has_left_is_not_quarantined_and_stops_nobody(ledger: Ledger) -> None:
    for part_id in ("SN-1", "SN-2", "SN-3"):
        await tell(ledger, made(part_id))
    await tell(ledger, cast("L-1"))
    await tell(ledger, PartShipped("SN-1", "SHIP-1", "ACME"))
    await tell(ledger, PartScrapped("SN-2", "cut"))
    await tell(ledger, LotScrapped("L-1", "porous"))
    await tell(ledger, judged(RUN))
    await fold(ledger, QuarantinePolicy())
    assert await quarantined(ledger) == ["part:SN-3"]


async def test_what_a_person_released_knowing_of_the_verdict_stays_released(
    ledger: Ledger,
) -> None:
    await tell(ledger, made("SN-1"))
    verdict = await tell(ledger, judged(part_stream("SN-1")), hours=1)
    # A history that is told at once, and folded when all of it is there.
    await tell(ledger, PartQuarantined("SN-1", "bore", None), hours=2)
    await tell(ledger, PartReleased("SN-1", "measured again"), hours=3)
    head = await ledger.head()
    await fold(ledger, QuarantinePolicy())
    assert await ledger.head() == head
    assert verdict < head


async def test_what_was_released_before_the_verdict_was_known_is_quarantined(
    ledger: Ledger,
) -> None:
    await tell(ledger, made("SN-1"))
    await tell(ledger, PartQuarantined("SN-1", "label", None), hours=2)
    await tell(ledger, PartReleased("SN-1", "label found"), hours=3)
    await tell(ledger, judged(part_stream("SN-1")), hours=1)  # the laboratory was slow
    await fold(ledger, QuarantinePolicy())
    assert await quarantined(ledger) == ["part:SN-1"]


async def test_a_quarantined_part_is_not_shipped(ledger: Ledger) -> None:
    await tell(ledger, made("SN-1"))
    await tell(ledger, judged(part_stream("SN-1")))
    await fold(ledger, QuarantinePolicy())
    with pytest.raises(CommandRejected) as refused:
        await handle(
            ledger,
            ShipPart("SN-1", "SHIP-1", "ACME"),
            actor="user:mara",
            occurred_at=datetime.now(UTC) + timedelta(days=1),
            event_id=lambda _: uuid.uuid4(),
        )
    assert refused.value.code == "part.quarantined"


# --- corrections --------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 1000])
async def test_a_verdict_that_is_corrected_to_critical_quarantines(
    ledger: Ledger, batch: int
) -> None:
    await tell(ledger, made("SN-1"))
    verdict = await tell(ledger, judged(part_stream("SN-1"), Verdict.GOOD))
    correction = await correct(ledger, verdict, judged(part_stream("SN-1")))
    await fold(ledger, QuarantinePolicy(), batch)
    (event,) = await commanded(ledger)
    (cause,) = await read_page(ledger, correction - 1, up_to=correction)
    assert event.causation_id == cause.event_id


async def test_a_verdict_that_is_corrected_quarantines_no_more_and_releases_nothing(
    ledger: Ledger,
) -> None:
    await tell(ledger, made("SN-1"))
    verdict = await tell(ledger, judged(RUN))
    await fold(ledger, QuarantinePolicy())
    folded = await ledger.head()
    await correct(ledger, verdict, judged(RUN, Verdict.GOOD))
    await tell(ledger, made("SN-2"))
    await fold(ledger, QuarantinePolicy(), after=folded)
    assert await quarantined(ledger) == ["part:SN-1"]


async def test_a_verdict_that_never_was_quarantines_nothing(ledger: Ledger) -> None:
    await tell(ledger, made("SN-1"))
    await correct(ledger, await tell(ledger, judged(RUN)))
    await fold(ledger, QuarantinePolicy())
    assert await quarantined(ledger) == []


async def test_a_part_that_came_out_of_another_run_is_found_there(ledger: Ledger) -> None:
    first = await tell(ledger, made("SN-1", "RUN-2"))
    second = await tell(ledger, made("SN-2", "RUN-1"))
    await correct(ledger, first, made("SN-1", "RUN-1"))
    await correct(ledger, second, made("SN-2", "RUN-2"))
    await tell(ledger, judged(RUN))
    await fold(ledger, QuarantinePolicy())
    assert await quarantined(ledger) == ["part:SN-1"]


# --- exactly once -------------------------------------------------------------------------


class PowerCut(Exception):
    """What ends a transaction in these tests."""


async def fold_and_lose(ledger: Ledger) -> None:
    """Fold the whole log and roll back, as a crash before the commit does."""
    types = QuarantinePolicy.types
    assert types is not None
    page = [e for e in await read_page(ledger, 0, limit=2000) if e.type in types]
    with contextlib.suppress(PowerCut):
        async with ledger.pool.acquire() as connection, connection.transaction():
            await QuarantinePolicy().fold(connection, ledger, page)
            raise PowerCut


async def test_a_crash_between_command_and_checkpoint_quarantines_nothing_twice(
    ledger: Ledger,
) -> None:
    await tell(ledger, made("SN-1"))
    await tell(ledger, made("SN-2"))
    await tell(ledger, judged(RUN))
    await fold_and_lose(ledger)
    assert await quarantined(ledger) == ["part:SN-1", "part:SN-2"]
    assert await table(ledger, "quarantine_verdict", "position") == []
    # A person is quick; what is folded again must not undo it.
    await tell(ledger, PartReleased("SN-1", "measured again"), hours=99_999)
    head = await ledger.head()
    await fold_and_lose(ledger)
    await fold(ledger, QuarantinePolicy(), 1)
    assert await ledger.head() == head
    assert len(await table(ledger, "quarantine_verdict", "position")) == 1


async def test_two_policies_at_once_command_once(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.running.runner.BATCH_EVENTS_MAX", 3)
    async with (
        opened(database_url) as other,
        running(ledger, database_url, QuarantinePolicy()) as (one,),
        running(other, database_url, QuarantinePolicy()) as (two,),
    ):
        for n in range(8):
            await tell(ledger, made(f"SN-{n}", f"RUN-{n % 2}"))
            await tell(ledger, judged(f"process-run:RUN-{n % 2}", inspection_id=f"INS-{n}"))
        head = await ledger.head()
        await one.wait_for(head, PATIENCE_S)
        await two.wait_for(head, PATIENCE_S)
        assert (one.failure, two.failure) == (None, None)
    assert await quarantined(ledger) == [f"part:SN-{n}" for n in range(8)]


async def test_a_run_with_many_parts_is_worked_through_in_pieces(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine_policy, "NODES_FETCHED_MAX", 4)
    for n in range(11):
        await tell(ledger, made(f"SN-{n:02}"))
    await tell(ledger, judged(RUN))
    await tell(ledger, judged(RUN, inspection_id="INS-2"))
    await fold(ledger, QuarantinePolicy())
    assert await quarantined(ledger) == [f"part:SN-{n:02}" for n in range(11)]


# --- any order ----------------------------------------------------------------------------

_FACTS: list[Any] = [
    made("SN-1"),
    made("SN-2", "RUN-2"),
    PartReceived("SN-3", "HSG-100", "ACME", None),
    PartProcessed("SN-3", "RUN-1", ("part.unknown",)),  # as if told late
    cast("L-1", "RUN-2"),
    judged(RUN, inspection_id="INS-1"),
    judged(OTHER_RUN, Verdict.DEFECTIVE, "INS-2"),
    judged(lot_stream("L-1"), inspection_id="INS-3"),
]
_numbers = itertools.count()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(_FACTS), st.integers(1, 9))
async def test_the_order_in_which_things_become_known_changes_nothing(
    pool: Pool, facts: list[Any], batch: int
) -> None:
    (ledger,) = await fresh_ledgers(pool, 1)
    try:
        await told_and_folded(ledger, facts, batch)
        assert await quarantined(ledger) == ["lot:L-1", "part:SN-1", "part:SN-3"]
    finally:
        await ledger.close()
