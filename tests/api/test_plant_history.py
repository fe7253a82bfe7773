"""The made-up plant: the same every time, legal event by event, and recorded once."""

from __future__ import annotations

import collections
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from typing import Any

import pytest

from api.history_recording import record_history
from api.plant_history import HistoryEvent, HistoryName, plant_history
from api.plant_history.recalls import lot_to_recall
from domain.catalogue import decider_of_stream
from domain.errors import Conflict, InvalidInput
from domain.events import event_types
from domain.identifiers import check_identifier
from domain.material.lot import (
    LotConsumed,
    LotCreated,
    LotEvent,
    LotIncreased,
    LotMerged,
    LotReceived,
    LotScrapped,
    LotSplit,
)
from domain.material.part import PartCreated, PartFailureReported, PartReceived
from domain.material.process_run import ProcessRunStarted
from domain.records import Entry, RecordCorrected, effective_entries
from domain.thread import Link
from eventlog.envelope import check_event, new_fact
from eventlog.ledger import Ledger
from eventlog.reading import read_pages
from tests.api.decided_history import COMMAND_OF, Decided
from tests.eventlog.new_events import fact
from tests.recordings import REPOSITORY

NAME = HistoryName(parts=700, seed=3, months=12)


@pytest.fixture(scope="module")
def history() -> list[HistoryEvent]:
    return list(plant_history(NAME.parts, NAME.seed, months=NAME.months))


def made(history: list[HistoryEvent]) -> set[str]:
    return {e.fact.part_id for e in history if isinstance(e.fact, PartCreated | PartReceived)}


# --- the same, and of the size asked for ----------------------------------------------------

DIGEST = """
import hashlib
from api.plant_history import plant_history
digest = hashlib.sha256()
for event in plant_history(150, 5, months=3):
    digest.update(repr(event).encode())
print(digest.hexdigest())
"""


def test_the_same_arguments_give_the_same_history_in_every_process() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            check=True,
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_another_seed_is_another_plant_and_shares_no_name_with_it() -> None:
    one, other = ({e.stream for e in plant_history(40, seed)} for seed in (1, 2))
    assert one.isdisjoint(other)


@pytest.mark.parametrize("parts", [1, 5, 22, 23, 180, 700])
def test_so_many_parts_are_made_as_were_asked_for(parts: int) -> None:
    assert len(made(list(plant_history(parts, 1)))) == parts


def test_events_are_numbered_and_identified(history: list[HistoryEvent]) -> None:
    assert [event.number for event in history] == list(range(1, len(history) + 1))
    assert len({event.event_id for event in history}) == len(history)
    assert all(event.event_id.version == 7 for event in history)


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("parts", {"parts": 0}),
        ("parts", {"parts": 100_000_001}),
        ("seed", {"seed": -1}),
        ("months", {"months": 0}),
        ("first_position", {"first_position": 0}),
    ],
)
def test_what_is_no_size_is_refused(argument: str, given: dict[str, int]) -> None:
    with pytest.raises(InvalidInput) as refused:
        plant_history(**({"parts": 1, "seed": 1} | given))
    assert refused.value.code == f"history.{argument}"
    assert refused.value.value == given[argument]


def test_memory_holds_what_is_under_way_and_not_the_history() -> None:
    """Half a megabyte at once, of what would take fifty as a list."""
    tracemalloc.start()
    events = sum(1 for _ in plant_history(3_000, 1, months=1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert events > 60_000
    assert peak < 1_000_000


# --- legal ----------------------------------------------------------------------------------


def test_every_event_is_what_its_decider_answers_to_a_command(history: list[HistoryEvent]) -> None:
    decided = Decided()
    decided.decide_all(history)
    assert decided.decisions > len(history) * 0.9
    assert decided.told_late > 0
    assert decided.corrections > 0


def test_every_event_can_be_recorded(history: list[HistoryEvent]) -> None:
    for event in history[::7]:
        check_event(
            new_fact(
                event.stream,
                event.fact,
                event_id=event.event_id,
                occurred_at=event.occurred_at,
                actor=event.actor,
            )
        )
        check_identifier("object", event.stream.partition(":")[2])


def test_with_its_corrections_every_stream_still_folds(history: list[HistoryEvent]) -> None:
    streams: dict[str, list[Entry]] = {}
    corrected = set()
    for event in history:
        entry = Entry(event.event_id, event.number, event.occurred_at, event.fact)
        streams.setdefault(event.stream, []).append(entry)
        if isinstance(event.fact, RecordCorrected):
            corrected.add(event.stream)
            assert history[event.fact.corrected_position - 1].event_id == (
                event.fact.corrected_event_id
            )
            assert event.number > event.fact.corrected_position
    for stream in corrected:
        decider = decider_of_stream(stream)
        assert decider is not None
        entries = effective_entries(streams[stream], by_valid_time=decider.by_valid_time)
        assert decider.fold(entry.fact for entry in entries) != decider.initial


def test_the_quantities_of_lots_balance(history: list[HistoryEvent]) -> None:
    """Counted here anew: what came into all lots is what went out of them and what is left."""
    left: dict[str, Fraction] = collections.defaultdict(Fraction)
    exceeded = Fraction(0)
    into_and_out_of = collections.Counter[str]()
    for event in history:
        lot_event: Any = event.fact
        if not isinstance(lot_event, LotEvent):
            continue
        lot = lot_event.lot_id
        quantity = Fraction(repr(getattr(lot_event, "quantity", 0.0)))
        match lot_event:
            case LotReceived() | LotCreated():
                assert left[lot] == 0
                left[lot] += quantity
            case LotIncreased():
                left[lot] += quantity
                into_and_out_of[lot_event.from_lot_id, lot] -= 1  # type: ignore[index]
            case LotMerged():
                assert left[lot] == quantity
                left[lot] = Fraction(0)
                into_and_out_of[lot, lot_event.into_lot_id] += 1  # type: ignore[index]
            case LotConsumed() | LotSplit():
                left[lot] -= quantity
                if left[lot] < 0:
                    assert lot_event.excess_reason
                    assert lot_event.flags == ("lot.exceeded",)
                    exceeded -= left[lot]
                    left[lot] = Fraction(0)
            case LotScrapped():
                left[lot] = Fraction(0)
    assert not any(into_and_out_of.values())
    assert len(left) > 20


# --- realistic ------------------------------------------------------------------------------


def test_it_has_all_that_a_factory_has() -> None:
    kinds = {type(event.fact).__name__ for event in plant_history(9_000, 3)}
    assert kinds >= set(COMMAND_OF) | {"RecordCorrected"}


def test_its_genealogy_is_as_wide_and_as_deep_as_a_factory_s() -> None:
    runs: collections.Counter[str] = collections.Counter()
    made_of: dict[str, set[str]] = collections.defaultdict(set)
    parts = processed = 0
    for event in plant_history(20_000, 1):
        if isinstance(event.fact, ProcessRunStarted):
            runs[event.fact.asset_id] += 1
        parts += isinstance(event.fact, PartCreated | PartReceived)
        for item in getattr(event.fact, "thread", tuple)():
            if isinstance(item, Link):
                processed += item.kind.name in ("PROCESSED_BY", "PRODUCED")
                if item.effect.startswith(("lot:", "process-run:")):
                    made_of[item.effect].add(item.cause)
    assert 11 < processed / parts < 15
    assert 0.01 < runs["washer-1-1"] / runs.total() < 0.04
    regrinds = [lot for lot in made_of if lot.startswith("lot:")]
    assert max(_depth(lot, made_of) for lot in regrinds) >= 50


def _depth(node: str, made_of: dict[str, set[str]]) -> int:
    depth, reached, frontier = 0, {node}, {node}
    while frontier:
        frontier = {
            cause
            for effect in frontier
            for cause in made_of.get(effect, ())
            if cause.startswith(("lot:", "process-run:")) and cause not in reached
        }
        reached |= frontier
        depth += bool(frontier)
    return depth


def test_a_recall_is_of_the_delivery_behind_most_failures(history: list[HistoryEvent]) -> None:
    failed = {e.stream for e in history if isinstance(e.fact, PartFailureReported)}
    bad = lot_to_recall(history)
    assert bad is not None
    assert bad.failed
    assert failed.issuperset(bad.failed)
    assert len(bad.failed) < bad.parts < len(made(history))
    assert any(isinstance(e.fact, LotReceived) for e in history if e.stream == bad.stream)
    assert lot_to_recall(history[:5]) is None


def test_it_knows_only_registered_types(history: list[HistoryEvent]) -> None:
    known = {registered.event_class for registered in event_types().values()}
    assert {type(event.fact) for event in history} <= known


# --- recorded -------------------------------------------------------------------------------

SMALL = HistoryName(parts=60, seed=8, months=6)


async def recorded(ledger: Ledger) -> list[Any]:
    head = await ledger.head()
    return [event async for page in read_pages(ledger, 0, up_to=head) for event in page]


class Killed(Exception):
    """The process ended here."""


@pytest.mark.anyio
async def test_a_history_is_recorded_once_however_often_it_is_begun(ledger: Ledger) -> None:
    expected = list(plant_history(*SMALL[:2], months=SMALL.months))
    first = await record_history(ledger, SMALL)
    assert (first.events, first.new) == (len(expected), len(expected))
    again = await record_history(ledger, SMALL)
    assert again.complete_before
    assert again.position == first.position == await ledger.head()
    stored = await recorded(ledger)
    assert [(e.stream, e.fact, e.occurred_at, e.actor, e.event_id) for e in stored] == [
        tuple(event[:5]) for event in expected
    ]


@pytest.mark.anyio
async def test_a_history_that_was_cut_off_goes_on_beside_other_writers(ledger: Ledger) -> None:
    def killed(events: int) -> None:
        if events > 1_500:
            raise Killed

    await ledger.append([fact("somebody else's")])
    with pytest.raises(Killed):
        await record_history(ledger, SMALL, told=killed)
    await ledger.append([fact("somebody else's, too")])
    finished = await record_history(ledger, SMALL)
    assert 0 < finished.new < finished.events
    stored = await recorded(ledger)
    position_of = {event.event_id: event.position for event in stored}
    corrections = [e.fact for e in stored if isinstance(e.fact, RecordCorrected)]
    assert corrections
    for correction in corrections:
        assert position_of[correction.corrected_event_id] == correction.corrected_position
    assert len(stored) == finished.events + 2
    assert (await record_history(ledger, SMALL)).complete_before


@pytest.mark.anyio
async def test_a_history_of_another_size_does_not_mix_with_one_that_is_there(
    ledger: Ledger,
) -> None:
    await record_history(ledger, SMALL)
    with pytest.raises(Conflict) as refused:
        await record_history(ledger, SMALL._replace(parts=61))
    assert refused.value.code == "history.other"
