"""The writer's own order of things: what it assumes, and what becomes of it when it was wrong."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import Conflict, HeddleError, InvalidInput, Unavailable
from eventlog.appending.appends import Append
from eventlog.appending.batch import Batch, Head
from eventlog.appending.lookup import read_known
from eventlog.appending.storage import SESSION
from eventlog.appending.wire import microseconds
from eventlog.appending.writer import Writer
from eventlog.database import Pool
from eventlog.envelope import NewEvent
from eventlog.ledger import Appended, IdempotencyKey, Ledger
from eventlog.reading import read_page
from tests.eventlog.early import early_in_parts
from tests.eventlog.log_soundness import assert_log_is_sound
from tests.eventlog.new_events import fact, frame_event, frame_of, opened

pytestmark = pytest.mark.anyio
_names = (f"ledger-{n}" for n in itertools.count(1))


@pytest.fixture(params=["in turn", "early"])
def in_small_steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let others have their turn after every event and every caller, and commit what there is."""
    if request.param == "early":
        early_in_parts(monkeypatch)
    monkeypatch.setattr("eventlog.appending.writer.OVERLAP_EVENTS_MIN", 1)
    monkeypatch.setattr("eventlog.appending.writer.SHARE_EVENTS_MIN", 1)
    monkeypatch.setattr("eventlog.appending.writer.EVENTS_AT_ONCE", 1)
    monkeypatch.setattr("eventlog.appending.batch.CALLERS_AT_ONCE", 1)


# --- any interleaving ---------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """An append that a caller asks for, drawn from few labels so that they meet again."""

    log: int
    facts: tuple[tuple[int, int, int], ...]  # label, stream, content
    frame: int | None
    expected: tuple[int, int] | None  # stream, version
    key: int | None
    pause: int

    def events(self) -> list[NewEvent]:
        """Return what is to be recorded."""
        events = [
            fact(f"label-{label}", f"asset:loop-{stream}", actor=f"user:{content}")
            if content == 0
            else fact(f"label-{label}", f"asset:other-{stream}")
            for label, stream, content in self.facts
        ]
        if self.frame is not None:
            events.append(frame_event(frame_of(self.frame)))
        return events


wishes = st.builds(
    Wish,
    log=st.integers(0, 1),
    facts=st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 2), st.integers(0, 4).map(lambda n: n // 4)),
        min_size=1,
        max_size=3,
    ).map(tuple),
    frame=st.none() | st.integers(1, 4),
    expected=st.none() | st.tuples(st.integers(0, 2), st.integers(0, 3)),
    key=st.none() | st.none() | st.integers(0, 3),
    pause=st.integers(0, 2),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(wishes, min_size=1, max_size=24))
async def test_any_interleaving_of_appends_is_sound(
    pool: Pool, in_small_steps: None, asked: list[Wish]
) -> None:
    name = next(_names)
    logs = [await Ledger.open(pool, name), await Ledger.open(pool, name)]
    try:
        outcomes = await asyncio.gather(*(_ask(logs[wish.log], wish) for wish in asked))
        recorded = {e.position: e for e in await read_page(logs[0], 0, limit=200)}
        accepted: set[int] = set()
        for wish, outcome in zip(asked, outcomes, strict=True):
            if isinstance(outcome, HeddleError):
                assert isinstance(outcome, Conflict)
                assert outcome.code in {
                    "stream.version_conflict",
                    "idempotency_key.reused",
                    "event.id_reused",
                    "append.partly_recorded",
                }
                continue
            assert len(outcome.placed) == len(wish.events())
            for event, placed in zip(wish.events(), outcome.placed, strict=True):
                found = recorded[placed.position]
                assert found.event_id == event.event_id
                assert (found.stream, found.payload) == (event.stream, event.payload)
                assert found.version == placed.version
            if not outcome.duplicate:
                positions = {placed.position for placed in outcome.placed}
                assert accepted.isdisjoint(positions)
                accepted |= positions
        assert accepted == recorded.keys()
        await assert_log_is_sound(logs[0], len(recorded))
        await _assert_repetitions_are_recognised(logs, asked, outcomes)
        await assert_log_is_sound(logs[0], len(recorded) + 1)
    finally:
        for log in logs:
            await log.close()


async def _assert_repetitions_are_recognised(
    logs: list[Ledger], asked: list[Wish], outcomes: list[Appended | HeddleError]
) -> None:
    """Ask everything that was accepted again, expecting what cannot be, beside something new."""
    accepted = [
        (wish, outcome)
        for wish, outcome in zip(asked, outcomes, strict=True)
        if isinstance(outcome, Appended)
    ]
    new, *again = await asyncio.gather(
        logs[0].append([fact("something new")]),
        *(
            _ask(logs[1 - wish.log], replace(wish, expected=(0, 99), key=None))
            for wish, _ in accepted
        ),
    )
    assert isinstance(new, Appended)
    for (_, first), repeated in zip(accepted, again, strict=True):
        assert isinstance(repeated, Appended)
        assert repeated.duplicate
        assert repeated.placed == first.placed


async def _ask(log: Ledger, wish: Wish) -> Appended | HeddleError:
    for _ in range(wish.pause):
        await asyncio.sleep(0)
    events = wish.events()
    expected = {f"asset:loop-{wish.expected[0]}": wish.expected[1]} if wish.expected else None
    key = None if wish.key is None else IdempotencyKey.of(f"key-{wish.key}", repr(events).encode())
    try:
        return await log.append(events, expected=expected, idempotency=key)
    except HeddleError as error:
        return error


# --- what is assumed ----------------------------------------------------------------------


async def test_streams_named_while_a_batch_is_filled_go_on_where_they_ended(
    ledger: Ledger, database_url: str, in_small_steps: None
) -> None:
    streams = [f"asset:loop-{n}" for n in range(40)]
    for turn in range(2):
        await ledger.append([fact(f"{stream}/{turn}", stream) for stream in streams])
    async with opened(database_url) as fresh:  # knows no stream yet

        async def late(number: int) -> Appended:
            for _ in range(number):
                await asyncio.sleep(0)
            return await fresh.append([fact(f"late-{number}", streams[number])])

        outcomes = await asyncio.gather(*(late(number) for number in range(len(streams))))
    assert [outcome.placed[0].version for outcome in outcomes] == [3] * len(streams)
    await assert_log_is_sound(ledger, 3 * len(streams))


async def test_a_batch_that_goes_on_elsewhere_than_its_stream_is_refused_by_the_database(
    ledger: Ledger,
) -> None:
    await ledger.append([fact(1)])
    ledger._writer._versions["asset:loop-1"] = 7  # as a fault of the writer would have it
    assert (await ledger.append([fact(2)])).placed[0].version == 2
    await assert_log_is_sound(ledger, 2)


async def test_a_refusal_rests_on_what_the_log_holds_now(ledger: Ledger, database_url: str) -> None:
    await ledger.append([fact(1)])
    async with opened(database_url) as other:
        await other.append([fact(2)])
    # This process believes that the stream is at version 1.
    assert (await ledger.append([fact(3)], expected={"asset:loop-1": 2})).position == 3
    with pytest.raises(Conflict) as refused:
        await ledger.append([fact(4)], expected={"asset:loop-1": 2})
    assert refused.value.limit == 3


async def test_streams_known_are_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventlog.appending.writer.STREAMS_KNOWN_MAX", 5)
    for number in range(30):
        await ledger.append([fact(number, f"asset:loop-{number % 12}")])
        assert len(ledger._writer._versions) <= 6
    await assert_log_is_sound(ledger, 30)


# --- one bad append -----------------------------------------------------------------------


async def test_bad_appends_among_good_ones_fail_alone_and_nobody_waits(
    ledger: Ledger, in_small_steps: None
) -> None:
    await ledger.append([fact("taken")])
    chance = random.Random(7)

    async def one(number: int) -> None:
        kind = chance.randrange(5)
        good = fact(f"good-{number}", f"asset:loop-{number % 7}")
        if kind == 0:
            with pytest.raises(Conflict, match="other content"):
                await ledger.append([fact("taken", "asset:elsewhere")])
        elif kind == 1:
            with pytest.raises(Conflict, match="is at version"):
                await ledger.append([good], expected={"asset:loop-1": 10_000})
        elif kind == 2:
            assert (await ledger.append([fact("taken")])).position == 1
        else:
            placed = (await ledger.append([good])).placed[0]
            good_ones.append(placed.position)

    good_ones: list[int] = []
    async with asyncio.timeout(60):
        for start in range(0, 400, 100):
            await asyncio.gather(*(one(number) for number in range(start, start + 100)))
    assert sorted(good_ones) == list(range(2, len(good_ones) + 2))
    await assert_log_is_sound(ledger, len(good_ones) + 1)


async def test_a_failed_batch_is_told_though_the_one_before_is_still_being_told(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventlog.appending.batch.CALLERS_AT_ONCE", 1)
    await ledger.append([fact(0)])
    store, stored = Writer._store_fenced, []

    async def failing(self: Writer, batch: Batch, after: Head) -> bool:
        stored.append(batch)
        if len(stored) == 2:
            raise ConnectionResetError("cut")
        return await store(self, batch, after)

    monkeypatch.setattr(Writer, "_store_fenced", failing)
    async with asyncio.timeout(30):
        await asyncio.gather(*(ledger.append([fact(n)]) for n in range(1, 101)))
    assert len(stored) >= 2
    await assert_log_is_sound(ledger, 101)


async def test_a_writer_whose_every_batch_fails_goes_on_and_rests_when_nothing_waits(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.append([fact(0)])
    turns = 0

    async def broken(self: Writer, *_: object) -> None:
        nonlocal turns
        turns += 1
        raise TypeError("a fault of ours")

    with monkeypatch.context() as faulty:
        faulty.setattr(Writer, "_store_fenced", broken)
        faulty.setattr(Writer, "_transact", broken)
        for number in range(3):
            with pytest.raises(InvalidInput, match="a fault of ours"):
                await ledger.append([fact(number + 1)])
        seen = turns
        await asyncio.sleep(0.05)
        assert turns == seen
    assert (await ledger.append([fact(1)])).position == 2


@pytest.mark.parametrize("careful", [False, True])
async def test_a_cancellation_that_nobody_meant_ends_no_writer(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, careful: bool
) -> None:
    await ledger.append([fact(0)])
    strays = iter(range(3))

    async def cancelled(self: Writer, *_: object) -> None:
        if next(strays, None) is not None:
            raise asyncio.CancelledError
        raise ConnectionResetError("cut")

    with monkeypatch.context() as faulty:
        faulty.setattr("eventlog.appending.writer.RETRY_DELAY_S", 0.001)
        faulty.setattr(Writer, "_store_fenced", cancelled)
        if careful:
            faulty.setattr(Writer, "_transact", cancelled)
            with pytest.raises(Unavailable):
                await ledger.append([fact(1)])
        else:
            assert (await ledger.append([fact(1)])).position == 2
    assert (await ledger.append([fact(1)])).position == 2


async def test_one_large_append_is_stored_while_the_next_one_is_made(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("batch", "writer"):
        monkeypatch.setattr(f"eventlog.appending.{module}.LARGE_APPEND_BYTES", 1)
    storage = ledger._writer._storage
    store = storage.store
    order: list[tuple[str, str]] = []

    async def noted(batch: Batch, after: Head) -> bool:
        streams = {event.stream for event in batch.events}
        order.append(("stored", " and ".join(sorted(streams))))
        return await store(batch, after)

    async def caller(number: int) -> None:
        for turn in range(6):
            # Frames are encoded here, and the event loop stands still.
            order.append(("made", f"asset:loop-{number}"))
            await ledger.append([fact(f"{number}/{turn}", f"asset:loop-{number}")])

    monkeypatch.setattr(storage, "store", noted)
    await asyncio.gather(caller(1), caller(2))
    # Both begin at once, and the last ones have nobody beside them; between, they take turns.
    both, *turns = order[2:]
    assert both == ("stored", "asset:loop-1 and asset:loop-2")
    for made, stored in zip(turns[:-1:2], turns[1::2], strict=True):
        assert (made[0], stored[0]) == ("made", "stored")
    assert [stored[1] for stored in turns[1::2]] == ["asset:loop-1", "asset:loop-2"] * 5
    await assert_log_is_sound(ledger, 12)


# --- what it costs ------------------------------------------------------------------------


async def test_an_append_reads_no_more_of_the_log_the_more_there_is(
    pool: Pool, database_url: str
) -> None:
    async with opened(database_url) as ledger:
        for start in range(0, 3_000, 1_000):
            await ledger.append([fact(n, f"asset:loop-{n}") for n in range(start, start + 1_000)])
        for turn in range(20):  # on plans that were made while the tables were empty
            await ledger.append([fact(f"{turn}/{n}", f"asset:loop-{n}") for n in range(10)])
            await ledger.append([fact(f"{turn}/one")])
    written, read = 0, 0
    async with asyncio.timeout(30):
        while written < 3_220:  # told when the writer's connections have ended
            (told,) = await pool.fetch(
                "select sum(n_tup_ins) filter (where relname like 'event_p%'), "
                "sum(coalesce(idx_tup_fetch, 0) + seq_tup_read) from pg_stat_user_tables "
                "where relname like 'event_p%' or relname = 'stream_head'"
            )
            written, read = told
    assert read < 8 * written


async def test_what_is_known_of_an_append_is_looked_up_by_its_keys_alone(
    ledger: Ledger, pool: Pool
) -> None:
    def append_of(numbers: range) -> Append:
        events = [frame_event(frame_of(n)) for n in numbers]
        key = IdempotencyKey.of(f"frames {numbers.start}", b"")
        return Append(events, {"telemetry:loop-1": 0}, key, 0, loop.create_future())

    loop = asyncio.get_running_loop()
    connection = await pool.connect_apart(SESSION)
    last = append_of(range(1_981, 2_001))
    # The plans are made while the tables are empty.
    assert not (await read_known(connection, ledger.ledger_id, [last])).identities
    for start in range(1, 2_001, 20):
        append = append_of(range(start, start + 20))
        await ledger.append(append.events, idempotency=append.idempotency)
    async with connection.transaction():
        known = await read_known(connection, ledger.ledger_id, [last, last])
        read = await connection.fetchval(
            "select sum(idx_tup_fetch + seq_tup_read) from pg_stat_xact_user_tables"
        )
    await connection.close()
    assert known.versions == {"telemetry:loop-1": 2_000}
    positions = list(range(1_981, 2_001))
    assert [placed.position for _, placed in known.identities.values()] == positions
    assert [placed.position for _, placed in known.sequences.values()] == positions
    assert [placed.position for placed in known.keys["frames 1981"][1]] == positions
    assert read <= 2 * (20 + 2 * 20 + 2 * 20 + 21 + 2)


# --- as the database takes it -------------------------------------------------------------


@pytest.mark.parametrize("together", [False, True])
async def test_every_time_is_stored_to_the_microsecond(ledger: Ledger, together: bool) -> None:
    moments = [
        datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1999, 12, 31, 22, 59, 59, 123_457, tzinfo=UTC),
        datetime(2000, 1, 1, tzinfo=UTC),
        datetime(2100, 2, 28, 12, 30, 0, 3, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ]
    events = [fact(n, occurred_at=moment) for n, moment in enumerate(moments)]
    for append in [events] if together else [[event] for event in events]:
        await ledger.append(append)
    stored = await read_page(ledger, 0, limit=len(moments))
    assert [event.occurred_at for event in stored] == moments
    assert [event.occurred_us for event in stored] == [microseconds(moment) for moment in moments]


@pytest.mark.parametrize("together", [False, True])
async def test_rows_hold_what_the_event_says_whichever_way_they_are_stored(
    ledger: Ledger, pool: Pool, together: bool
) -> None:
    events = _diverse_events()
    if together:
        placed = [*(await ledger.append(events)).placed]
    else:
        placed = [(await ledger.append([event])).placed[0] for event in events]
    rows = await pool.fetch(
        "select * from event where position <= $1 order by position", len(events)
    )
    for event, place, row in zip(events, placed, rows, strict=True):
        assert_row(row, event)
        assert (row["position"], row["version"], row["recorded_at"]) == place
    source = await pool.fetch(
        "select position, source, sequence from event_identity where source is not null order by 1"
    )
    assert [tuple(row) for row in source] == [(2, "user:ü", 9), (3, "agent:agent-1", 4)]


def _diverse_events() -> list[NewEvent]:
    return [
        fact("plain"),
        fact("full", correlation_id=fact(1).event_id, causation_id=fact(2).event_id,
             traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01", source="user:ü", sequence=9),
        frame_event(frame_of(4)),
    ]  # fmt: skip


def assert_row(row: asyncpg.Record, event: NewEvent) -> None:
    """Compare every column that comes from the event itself."""
    for name in (
        *("stream", "type", "schema_version", "event_id", "occurred_at", "actor", "payload"),
        *("payload_sha256", "correlation_id", "causation_id", "traceparent", "source", "sequence"),
    ):
        assert row[name] == getattr(event, name)
    window = event.window
    assert row["window_start_ns"] == (window and window.start_ns)
    assert row["window_end_ns"] == (window and window.end_ns)
    assert row["reading_count"] == (window and window.reading_count)
    assert row["statistics"] == (window and window.statistics)
