"""Acknowledged means stored once, whatever was killed, cut, restarted or repeated.

`pytest --faults 2000` does more than CI does; `--fault-seed` repeats the order of faults of a run.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from domain.errors import HeddleError
from domain.frames import FRAME_BYTES_MAX
from eventlog.database import connected
from eventlog.embedded.server import EmbeddedPostgres
from eventlog.envelope import NewEvent
from eventlog.following.tail import Tail
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf, read_page
from migrations.run import upgrade
from tests.distribution import TOLD
from tests.end_to_end.durable_lines import read_lines
from tests.end_to_end.fault_follower import FOLLOWED, notes_of
from tests.end_to_end.fault_writer import STOP_FILE
from tests.end_to_end.faults import Injector, Worker, schedule
from tests.end_to_end.operations import LEDGERS, Kind, Operation, operation
from tests.end_to_end.patient_opening import open_ledgers
from tests.end_to_end.processes import PATIENCE_S, Process, Server
from tests.eventlog.log_soundness import assert_log_is_sound
from tests.eventlog.new_events import fact, frame_event, frame_of, opened

WRITERS: Final = (("w1", "w2", "w3"), ("w4", "w5", "w6"), ("w7", "w8"))
"""The writers of each process."""

Content = tuple[str, str, bytes]
"""Stream, type, and SHA-256 of the payload."""


@pytest.mark.slow
@pytest.mark.timeout(0)  # as long as the faults asked for take; every wait within has its own bound
def test_every_append_is_recorded_once_whatever_is_killed_or_cut(
    folder: Path, pytestconfig: pytest.Config, record_property: Callable[[str, object], None]
) -> None:
    count, seed = pytestconfig.getoption("faults"), pytestconfig.getoption("fault_seed")
    chance = random.Random(seed)
    with ExitStack() as stack:
        server = stack.enter_context(Server(folder))
        database = stack.enter_context(EmbeddedPostgres.start(server.data_dir))
        upgrade(database.url)
        writers = [
            stack.enter_context(
                Worker("tests.end_to_end.fault_writer", folder, database.url, names)
            )
            for names in WRITERS
        ]
        follower = stack.enter_context(
            Worker("tests.end_to_end.fault_follower", folder, database.url, ())
        )
        for process in (*writers, follower, server):
            process.start()
        injector = Injector(database, server.data_dir, writers, follower, server, chance)
        try:
            asyncio.run(injector.run(schedule(count, chance)))
        finally:
            told = ", ".join(f"{number} {fault}" for fault, number in injector.injected.items())
            record_property(TOLD, f"faults with seed {seed}: {told}")
        assert injector.injected.total() >= count

        (folder / STOP_FILE).touch()
        for process in writers:
            assert process.wait() == 0, process.log[-4_000:]
        logs = {name: asyncio.run(_read(database.url, name)) for name in LEDGERS}
        for name, log in logs.items():
            _assert_numbered_without_gaps(log)
            _assert_followers_saw_all(folder, name, log)
        record_property(TOLD, _assert_notes_agree(folder, logs))
        assert server.wait_until_folded() == len(logs[LEDGERS[0]])
        _assert_rollups_count_every_reading(database.url, logs[LEDGERS[0]])
        for name in LEDGERS:
            _assert_verified(server, folder, name, len(logs[name]))


@dataclass(frozen=True, slots=True)
class Stored:
    """An event of the log, as far as it is judged here."""

    position: int
    version: int
    event_id: str
    content: Content
    reading_count: int


async def _read(url: str, name: str) -> list[Stored]:
    pool, ledgers = await open_ledgers(url, [name])
    log: list[Stored] = []
    while page := await read_page(
        ledgers[name], log[-1].position if log else 0, limit=2_000, payloads=PayloadOf.NONE
    ):
        log += [
            Stored(
                event.position,
                event.version,
                str(event.event_id),
                (event.stream, event.type, event.payload_sha256),
                0 if event.window is None else event.window.reading_count,
            )
            for event in page
        ]
    await ledgers[name].close()
    await pool.close()
    return log


def _assert_numbered_without_gaps(log: list[Stored]) -> None:
    assert [stored.position for stored in log] == list(range(1, len(log) + 1))
    assert len({stored.event_id for stored in log}) == len(log)
    versions: defaultdict[str, int] = defaultdict(int)
    for stored in log:
        versions[stored.content[0]] += 1
        assert stored.version == versions[stored.content[0]], stored


def _assert_followers_saw_all(folder: Path, ledger: str, log: list[Stored]) -> None:
    """Each follower was given what it wants once and in order, over all lives of its process."""
    for follower, (wanted, _) in FOLLOWED.items():
        due = [
            {"position": stored.position, "event_id": stored.event_id}
            for stored in log
            if (not wanted.streams or stored.content[0] in wanted.streams)
            and (not wanted.types or stored.content[1] in wanted.types)
        ]
        notes = notes_of(folder, ledger, follower)
        deadline = time.monotonic() + PATIENCE_S
        while len(seen := read_lines(notes)) < len(due) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert len(due) > 0
        assert seen == due, f"{ledger}, follower {follower!r}"


@dataclass
class Notes:
    """What a writer noted of one operation."""

    wanted: Operation
    tries: int = 0
    placed: list[list[list[int]]] = field(default_factory=list)
    refusals: list[dict[str, Any]] = field(default_factory=list)
    abandoned: bool = False


def _notes_of(folder: Path, writer: str) -> dict[int, Notes]:
    notes: dict[int, Notes] = {}
    for line in read_lines(folder / f"{writer}.writer"):
        match line:
            case {"try": number}:
                notes.setdefault(number, Notes(operation(writer, number))).tries += 1
            case {"recorded": number, "placed": placed}:
                notes[number].placed.append(placed)
            case {"refused": number}:
                notes[number].refusals.append(line)
            case {"abandoned": number}:
                notes[number].abandoned = True
            case {"unavailable": number}:
                assert line["code"] == "ledger.unavailable", line
            case _:
                raise AssertionError(line)
    return notes


def _assert_notes_agree(folder: Path, logs: dict[str, list[Stored]]) -> str:
    """What writers were told is what the log holds, and the log holds nothing else."""
    counts = {name: Counter(stored.content for stored in log) for name, log in logs.items()}
    tried: dict[str, set[Content]] = {name: set() for name in LEDGERS}
    done: Counter[str] = Counter()
    kinds: set[Kind] = set()
    for writer in (name for names in WRITERS for name in names):
        notes = _notes_of(folder, writer)
        assert sorted(notes) == list(range(1, len(notes) + 1))
        for note in notes.values():
            wanted = note.wanted
            tried[wanted.ledger].update(wanted.content)
            found = [counts[wanted.ledger][content] for content in wanted.content]
            kinds.add(wanted.kind)
            done["tried again"] += note.tries > 1
            if note.abandoned:
                done["never acknowledged"] += 1
                _assert_at_most_once(note, found)
            elif wanted.refusal is None:
                done["acknowledged"] += 1
                _assert_as_acknowledged(note, found, logs[wanted.ledger])
            else:
                done["refused"] += 1
                _assert_refused(note, found)
    for name in LEDGERS:
        assert set(counts[name]) <= tried[name], "an event that nobody appended"
    assert kinds == set(Kind)
    assert done["never acknowledged"] > 0
    events = sum(len(log) for log in logs.values())
    return f"{events} events; appends " + ", ".join(f"{n} {how}" for how, n in done.items())


def _assert_at_most_once(note: Notes, found: list[int]) -> None:
    """Nobody knows whether it was recorded: as a whole and once, or not at all."""
    assert not note.refusals or note.wanted.refusal, note
    expected = ([0],) if note.wanted.refusal else ([0], [1])
    assert [*set(found)] in expected, (note, found)


def _assert_as_acknowledged(note: Notes, found: list[int], log: list[Stored]) -> None:
    """Every answer named the same places, and there, and nowhere else, the content stands."""
    wanted = note.wanted
    assert not note.refusals, note
    assert note.placed, note
    assert all(placed == note.placed[0] for placed in note.placed), note
    for (position, version), content in zip(note.placed[0], wanted.content, strict=True):
        stored = log[position - 1]
        assert (stored.version, stored.content) == (version, content), note
    assert set(found) == {1}, (note, found)
    for stream, version in wanted.expected.items():
        assert log[note.placed[0][0][0] - 1].version == version + 1, (stream, note)
    if wanted.idempotency is None and wanted.kind not in (Kind.FRAME, Kind.FRAMES, Kind.LARGE):
        ids = [log[position - 1].event_id for position, _ in note.placed[0]]
        assert ids == [str(event.event_id) for event in wanted.events], note


def _assert_refused(note: Notes, found: list[int]) -> None:
    assert not note.placed, note
    assert {line["code"] for line in note.refusals} == {note.wanted.refusal}, note
    assert set(found) == {0}, (note, found)


def _assert_rollups_count_every_reading(database_url: str, log: list[Stored]) -> None:
    async def counted() -> int:
        async with connected(database_url) as connection:
            readings: int = await connection.fetchval(
                "select sum(reading_count)::bigint from telemetry_rollup where resolution_s = 3600"
            )
            return readings

    assert asyncio.run(counted()) == sum(stored.reading_count for stored in log)


def _assert_verified(server: Server, folder: Path, ledger: str, size: int) -> None:
    """`heddle verify` finds nothing; the served ledger is compared with what was signed."""
    environment = {"HEDDLE_DATA_DIR": str(server.data_dir), "HEDDLE_LEDGER": ledger}
    with Process(["verify", "--json"], environment, folder / f"verify-{ledger}.log") as verify:
        verify.start()
        assert verify.wait() == 0, verify.log
        report = json.loads(verify.log)
    assert report["clean"] is True
    assert report["events"] == size
    if ledger == LEDGERS[0]:
        assert report["signatures"] > 0


# --- without faults -----------------------------------------------------------------------


def _bad_appends() -> dict[str, tuple[list[NewEvent], dict[str, int]]]:
    """Return appends that are refused, by the code of their refusal; `fact(0)` is recorded."""
    twice = [fact(f"twice/{n}", source="agent:twice", sequence=1) for n in (1, 2)]
    return {
        "event.id_reused": ([fact("other", event_id=fact(0).event_id)], {}),
        "event.type_malformed": ([fact("long", type="asset." + "x" * 300)], {}),
        "event.too_large": ([fact("large", payload=bytes(FRAME_BYTES_MAX + 1))], {}),
        "stream.version_conflict": ([fact("stale")], {"asset:loop-1": 7_000}),
        "append.partly_recorded": ([fact(0), fact("new")], {}),
        "source.sequence_reused": ([frame_event(frame_of(1, length=6), label="again")], {}),
        "append.refused": (twice, {}),
    }


@pytest.mark.anyio
async def test_a_bad_append_among_good_ones_fails_alone_and_nobody_waits(ledger: Ledger) -> None:
    await ledger.append([fact(0), frame_event(frame_of(1))])
    bad = _bad_appends()
    for turn in range(3):
        appends = [
            asyncio.create_task(ledger.append([fact(f"{turn}/{n}", f"asset:loop-{n % 5}")]))
            for n in range(60)
        ]
        refused = {}
        for at, (code, (events, expected)) in enumerate(bad.items()):
            refused[code] = asyncio.create_task(ledger.append(events, expected=expected))
            appends += [asyncio.create_task(ledger.append([fact(f"{turn}/after/{at}")]))]
        async with asyncio.timeout(PATIENCE_S):
            outcomes = await asyncio.gather(*appends)
            errors = await asyncio.gather(*refused.values(), return_exceptions=True)
        assert not any(outcome.duplicate for outcome in outcomes)
        assert [e.code for e in errors if isinstance(e, HeddleError)] == list(bad)
        recorded = 2 + (turn + 1) * (60 + len(bad))
        assert await ledger.head() == recorded
        await assert_log_is_sound(ledger, recorded)


@pytest.mark.anyio
async def test_a_transaction_held_open_elsewhere_hides_nothing_from_a_follower(
    database_url: str, postgres_url: str
) -> None:
    writers, appends_each = 16, 12
    total = writers * appends_each * 2
    seen: list[int] = []

    async def write(ledger: Ledger, name: str) -> None:
        for n in range(appends_each):
            await ledger.append([fact(f"{name}/{n}/{part}", f"asset:{name}") for part in (1, 2)])

    async def follow(tail: Tail) -> None:
        async with aclosing(tail.follow(0, page_events=5)) as events:
            async for event in events:
                seen.append(event.position)
                if event.position == total:
                    return

    async with (
        connected(postgres_url) as elsewhere,
        opened(database_url) as one,
        opened(database_url) as other,
    ):
        await elsewhere.execute("begin; select pg_current_xact_id()")
        tail = Tail(one, database_url)
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            group.create_task(follow(tail))
            for n in range(writers):
                group.create_task(write((one, other)[n % 2], f"writer-{n}"))
        assert await elsewhere.fetchval("select pg_current_xact_id_if_assigned()") is not None
        assert seen == list(range(1, total + 1))
        await tail.close()
