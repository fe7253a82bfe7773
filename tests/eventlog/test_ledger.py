"""The ledger on a real PostgreSQL: numbering, idempotency, isolation, proof and permanence."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from domain.errors import Conflict, InvalidInput, Unavailable
from eventlog.database import Pool
from eventlog.envelope import NewEvent
from eventlog.ledger import (
    APPEND_EVENTS_MAX,
    KEY_LENGTH_MAX,
    NO_STREAM,
    Appended,
    IdempotencyKey,
    Ledger,
)
from eventlog.reading import read_event, read_page, read_stream
from eventlog.transparency.merkle import EMPTY_ROOT
from tests.database import as_superuser, with_database
from tests.eventlog.log_soundness import assert_log_is_sound
from tests.eventlog.new_events import fact, frame_event, frame_of, opened

pytestmark = pytest.mark.anyio


async def refusal_of(ledger: Ledger, *events: NewEvent, **options: Any) -> Conflict:
    with pytest.raises(Conflict) as refused:
        await ledger.append(events, **options)
    return refused.value


# --- numbering ----------------------------------------------------------------------------


async def test_an_empty_ledger_has_the_root_of_the_empty_tree(ledger: Ledger) -> None:
    assert await ledger.head() == 0
    root = await ledger.pool.fetchval(
        "select root from ledger where ledger_id = $1", ledger.ledger_id
    )
    assert root == EMPTY_ROOT
    assert await ledger.stream_version("asset:loop-1") == NO_STREAM


async def test_an_append_says_where_its_events_stand(ledger: Ledger) -> None:
    first = await ledger.append([fact(1), fact(2, stream="asset:loop-2"), fact(3)])
    second = await ledger.append([fact(4)])
    assert [(p.position, p.version) for p in first.placed] == [(1, 1), (2, 1), (3, 2)]
    assert (second.position, second.placed[0].version, second.duplicate) == (4, 3, False)
    assert await ledger.head() == 4
    assert await ledger.stream_version("asset:loop-1") == 3


async def test_concurrent_appenders_of_two_processes_leave_no_gap(database_url: str) -> None:
    appenders, appends_each = 12, 15

    async def run(ledger: Ledger, name: str) -> list[Appended]:
        outcomes = []
        for turn in range(appends_each):
            events = [
                fact(f"{name}/{turn}/{part}", f"asset:loop-{part}") for part in range(turn % 3 + 1)
            ]
            outcomes.append(await ledger.append(events))
        return outcomes

    async with opened(database_url) as one, opened(database_url) as other:
        runs = [run(one, f"one/{n}") for n in range(appenders)]
        runs += [run(other, f"other/{n}") for n in range(appenders)]
        outcomes = [outcome for done in await asyncio.gather(*runs) for outcome in done]
        placed = [p.position for outcome in outcomes for p in outcome.placed]
        assert not any(outcome.duplicate for outcome in outcomes)
        assert sorted(placed) == list(range(1, 2 * appenders * appends_each * 2 + 1))
        for outcome in outcomes:  # the events of an append stand together
            positions = [p.position for p in outcome.placed]
            assert positions == list(range(positions[0], positions[0] + len(positions)))
        await assert_log_is_sound(one, len(placed))


async def test_ledgers_of_one_database_are_numbered_apart(database_url: str) -> None:
    async with opened(database_url, "plant-1") as one, opened(database_url, "plant-2") as other:
        await asyncio.gather(*(log.append([fact(n)]) for n in range(20) for log in (one, other)))
        await assert_log_is_sound(one, 20)
        await assert_log_is_sound(other, 20)


async def test_recorded_times_never_go_back_though_the_clock_does(pool: Pool) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    times = iter([start, start - timedelta(hours=1), start + timedelta(seconds=1)])
    ledger = await Ledger.open(pool, "plant-1", clock=lambda: next(times))
    recorded = [(await ledger.append([fact(n)])).placed[0].recorded_at for n in range(3)]
    await ledger.close()
    assert recorded == [start, start, start + timedelta(seconds=1)]


async def test_a_large_batch_of_facts_and_frames_is_sound(ledger: Ledger) -> None:
    appends = [[fact(f"{n}/{m}", f"asset:loop-{m % 7}") for m in range(400)] for n in range(12)]
    appends += [[frame_event(frame_of(n + 1, start_ns=n * 10_000))] for n in range(100)]
    await asyncio.gather(*(ledger.append(events) for events in appends))
    await assert_log_is_sound(ledger, 4_900)


# --- expected versions --------------------------------------------------------------------


async def test_a_version_conflict_tells_all_and_harms_no_neighbour(ledger: Ledger) -> None:
    await ledger.append([fact("first")])
    appends = [
        ledger.append([fact("a")], expected={"asset:loop-1": 1}),
        ledger.append([fact("b")], expected={"asset:loop-1": 1}),
        ledger.append([fact("c", "asset:loop-2")], expected={"asset:loop-2": NO_STREAM}),
        ledger.append([fact("d")], expected={"asset:loop-1": 2, "asset:loop-9": NO_STREAM}),
    ]
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    conflict = outcomes.pop(1)
    assert isinstance(conflict, Conflict)
    assert conflict.code == "stream.version_conflict"
    assert conflict.value == 1
    assert conflict.limit in (2, 3)  # as the stream stood when the refusal was certain
    assert f"'asset:loop-1' is at version {conflict.limit}, not 1" in conflict.message
    assert [o.position for o in outcomes if isinstance(o, Appended)] == [2, 3, 4]
    await assert_log_is_sound(ledger, 4)


async def test_a_stream_that_must_be_new_is_refused_when_it_is_not(ledger: Ledger) -> None:
    await ledger.append([fact(1)], expected={"asset:loop-1": NO_STREAM})
    conflict = await refusal_of(ledger, fact(2), expected={"asset:loop-1": NO_STREAM})
    assert (conflict.code, conflict.value, conflict.limit) == ("stream.version_conflict", 0, 1)


async def test_one_of_two_processes_wins_a_race_for_a_version(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as other:
        for turn in range(10):
            outcomes = await asyncio.gather(
                one.append([fact(f"one/{turn}")], expected={"asset:loop-1": turn}),
                other.append([fact(f"other/{turn}")], expected={"asset:loop-1": turn}),
                return_exceptions=True,
            )
            assert sorted(type(outcome).__name__ for outcome in outcomes) == [
                "Appended",
                "Conflict",
            ]
        await assert_log_is_sound(one, 10)


# --- once ---------------------------------------------------------------------------------


async def test_a_repeated_event_returns_its_first_position_whatever_is_expected(
    ledger: Ledger,
) -> None:
    first = await ledger.append([fact(1)], expected={"asset:loop-1": NO_STREAM})
    await ledger.append([fact(2)])
    again = await ledger.append([fact(1)], expected={"asset:loop-1": 77})
    assert again.duplicate
    assert again.placed == first.placed
    await assert_log_is_sound(ledger, 2)


async def test_an_event_repeated_within_a_group_is_recorded_once(ledger: Ledger) -> None:
    outcomes = await asyncio.gather(*(ledger.append([fact(1), fact(2)]) for _ in range(8)))
    assert sorted(outcome.duplicate for outcome in outcomes) == [False] + [True] * 7
    assert {outcome.placed for outcome in outcomes} == {outcomes[0].placed}
    await assert_log_is_sound(ledger, 2)


async def test_an_event_id_with_other_content_is_refused(ledger: Ledger) -> None:
    await ledger.append([fact(1)])
    other = fact("other", event_id=fact(1).event_id)
    conflict = await refusal_of(ledger, other)
    assert (conflict.code, conflict.limit) == ("event.id_reused", 1)
    assert conflict.value == str(fact(1).event_id)


async def test_a_source_s_sequence_is_recorded_once(ledger: Ledger) -> None:
    first = await ledger.append([frame_event(frame_of(7))])
    again = await ledger.append([frame_event(frame_of(7), label="sent again under a new id")])
    assert again.duplicate
    assert again.placed == first.placed
    other = frame_event(frame_of(7, length=6), label="other readings")
    conflict = await refusal_of(ledger, other)
    assert (conflict.code, conflict.value, conflict.limit) == ("source.sequence_reused", 7, 1)
    elsewhere = await ledger.append([frame_event(frame_of(7, agent="agent-2"))])
    assert not elsewhere.duplicate
    await assert_log_is_sound(ledger, 2)


async def test_a_source_s_sequence_is_recorded_once_by_two_processes(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as other:
        outcomes = await asyncio.gather(
            *(
                log.append([frame_event(frame_of(n + 1), label=f"{n}/{copy}")])
                for n in range(20)
                for copy, log in enumerate((one, other))
            )
        )
        assert sum(outcome.duplicate for outcome in outcomes) == 20
        await assert_log_is_sound(one, 20)


async def test_an_append_recorded_in_part_is_refused(ledger: Ledger) -> None:
    await ledger.append([fact(1)])
    conflict = await refusal_of(ledger, fact(1), fact(2))
    assert (conflict.code, conflict.value, conflict.limit) == ("append.partly_recorded", 1, 2)
    conflict = await refusal_of(ledger, fact(3), fact(3))
    assert conflict.code == "append.partly_recorded"
    await assert_log_is_sound(ledger, 1)


async def test_an_idempotency_key_returns_the_first_outcome(ledger: Ledger) -> None:
    key = IdempotencyKey.of("order-17", b"two set-points")
    assert await ledger.recall(key) is None
    first = await ledger.append([fact(1), fact(2)], idempotency=key)
    again = await ledger.append(
        [fact("new ids"), fact("each time")], idempotency=key, expected={"asset:loop-1": 9}
    )
    assert (first.duplicate, again.duplicate) == (False, True)
    assert first.placed == again.placed
    assert await ledger.recall(key) == again
    await assert_log_is_sound(ledger, 2)


async def test_an_idempotency_key_for_another_request_is_refused(ledger: Ledger) -> None:
    await ledger.append([fact(1)], idempotency=IdempotencyKey.of("order-17", b"this"))
    other = IdempotencyKey.of("order-17", b"that")
    conflict = await refusal_of(ledger, fact(2), idempotency=other)
    assert (conflict.code, conflict.value) == ("idempotency_key.reused", "order-17")
    with pytest.raises(Conflict) as refused:
        await ledger.recall(other)
    assert refused.value.code == "idempotency_key.reused"


async def test_an_idempotency_key_works_within_a_group_and_apart_by_ledger(
    database_url: str,
) -> None:
    key = IdempotencyKey.of("order-17", b"this")
    async with opened(database_url, "plant-1") as one, opened(database_url, "plant-2") as other:
        outcomes = await asyncio.gather(*(one.append([fact(n)], idempotency=key) for n in range(5)))
        assert sorted(outcome.duplicate for outcome in outcomes) == [False] + [True] * 4
        assert not (await other.append([fact(1)], idempotency=key)).duplicate
        await assert_log_is_sound(one, 1)


async def test_a_refused_append_leaves_its_idempotency_key_free(ledger: Ledger) -> None:
    key = IdempotencyKey.of("order-17", b"this")
    await refusal_of(ledger, fact(1), idempotency=key, expected={"asset:loop-1": 5})
    assert await ledger.recall(key) is None
    assert not (await ledger.append([fact(1)], idempotency=key)).duplicate


@pytest.mark.parametrize("key", ["", "x" * (KEY_LENGTH_MAX + 1), "a\nb", "a\x00", "\ud800"])
async def test_a_malformed_idempotency_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        IdempotencyKey.of(key, b"")
    assert refused.value.code == "idempotency_key.malformed"


# --- one bad append, many good ones -------------------------------------------------------


@pytest.mark.parametrize("count", [0, APPEND_EVENTS_MAX + 1])
async def test_an_append_has_a_bounded_number_of_events(ledger: Ledger, count: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        await ledger.append([fact(1)] * count)
    assert (refused.value.code, refused.value.value) == ("append.event_count", count)


@pytest.mark.parametrize("culprit", [0, 7, 30])
async def test_what_the_database_refuses_fails_alone(ledger: Ledger, culprit: int) -> None:
    # One sequence twice in one append: only the unique key of the numbers sees it.
    bad = ledger.append([fact(f"bad/{n}", source="agent:a", sequence=1) for n in (1, 2)])
    appends = [ledger.append([fact(n, f"asset:loop-{n % 3}")]) for n in range(30)]
    appends.insert(culprit, bad)
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    refused = outcomes.pop(culprit)
    assert isinstance(refused, InvalidInput)
    assert refused.code == "append.refused"
    assert all(isinstance(outcome, Appended) for outcome in outcomes)
    await assert_log_is_sound(ledger, 30)


async def test_what_the_driver_cannot_send_fails_alone(ledger: Ledger) -> None:
    outcomes = await asyncio.gather(
        ledger.append([fact(1)]),
        ledger.append([fact(2)], expected={"asset:\x00": 0}),  # no text of PostgreSQL
        ledger.append([fact(3)], expected={"asset:\ud800": 0}),  # no UTF-8
        ledger.append([fact(4)], expected={"asset:loop-9": 0}),
        return_exceptions=True,
    )
    codes = [o.code if isinstance(o, InvalidInput) else o for o in outcomes]
    assert codes[1:3] == ["append.refused", "append.refused"]
    assert isinstance(codes[0], Appended)
    assert isinstance(codes[3], Appended)
    await assert_log_is_sound(ledger, 2)


async def test_an_event_that_is_refused_early_reaches_no_queue(ledger: Ledger) -> None:
    with pytest.raises(InvalidInput) as refused:
        await ledger.append([fact(1), fact(2, actor="")])
    assert refused.value.code == "event.actor_malformed"
    assert await ledger.head() == 0


async def test_a_caller_that_goes_away_harms_nobody(ledger: Ledger) -> None:
    appends = [asyncio.create_task(ledger.append([fact(n)])) for n in range(20)]
    await asyncio.sleep(0)
    appends[3].cancel()
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert isinstance(outcomes.pop(3), asyncio.CancelledError)
    assert all(isinstance(outcome, Appended) for outcome in outcomes)
    length = await ledger.head()
    assert length in (19, 20)
    await assert_log_is_sound(ledger, length)


async def test_closing_finishes_what_was_accepted(pool: Pool) -> None:
    ledger = await Ledger.open(pool, "plant-1")
    appends = [asyncio.create_task(ledger.append([fact(n)])) for n in range(50)]
    await asyncio.sleep(0)
    await ledger.close()
    assert len({(await append).position for append in appends}) == 50
    with pytest.raises(Unavailable) as refused:
        await ledger.append([fact("late")])
    assert refused.value.code == "ledger.closed"


# --- partitions ---------------------------------------------------------------------------


async def move_head(database_url: str, position: int) -> None:
    """Let a ledger stand at `position` without its events, as a superuser can."""
    superuser = await asyncpg.connect(as_superuser(database_url))
    await superuser.execute(
        "update ledger set position = $1, frontier = $2",
        position,
        random.Random(1).randbytes(32 * position.bit_count()),
    )
    await superuser.close()


async def partitions(pool: Pool) -> dict[int, str]:
    rows = await pool.fetch("select position, tableoid::regclass::text as name from event")
    return {row["position"]: row["name"] for row in rows}


async def test_partitions_are_there_before_they_are_needed(
    ledger: Ledger, database_url: str
) -> None:
    await move_head(database_url, 4_999_990)
    await ledger.append([fact(n) for n in range(20)])
    found = await partitions(ledger.pool)
    assert found[4_999_999] == "event_p000000"
    assert found[5_000_000] == "event_p000001"
    assert len(found) == 20
    for statement in ("truncate event_p000001", "delete from event_p000001"):
        with pytest.raises(asyncpg.PostgresError):
            await ledger.pool.execute(statement)


async def test_partitions_lost_with_a_refused_append_are_made_again(
    ledger: Ledger, database_url: str
) -> None:
    await move_head(database_url, 4_999_990)
    with pytest.raises(InvalidInput):
        await ledger.append([fact(f"bad/{n}", source="agent:a", sequence=1) for n in (1, 2)])
    placed = await ledger.append([fact(n) for n in range(20)])
    assert placed.position == 5_000_010


async def test_partitions_may_be_asked_for_by_many_at_once(ledger: Ledger) -> None:
    await asyncio.gather(
        *(
            ledger.pool.execute("select ensure_event_partitions($1)", 5_000_000 * (n % 3 + 1))
            for n in range(9)
        )
    )
    names = await ledger.pool.fetch(
        "select inhrelid::regclass::text as name from pg_inherits "
        "where inhparent = 'event'::regclass order by 1"
    )
    assert [row["name"] for row in names] == [f"event_p{n:06}" for n in range(4)]


# --- cut connections ----------------------------------------------------------------------


async def test_every_acknowledged_event_is_there_once_though_connections_are_cut(
    ledger: Ledger, database_url: str
) -> None:
    acknowledged: dict[str, Appended] = {}
    stop, enough = asyncio.Event(), asyncio.Event()

    async def appender(log: Ledger, name: str) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            label = f"{name}/{turn}"
            events = [fact(label, f"asset:{name}"), fact(f"{label}/b", "asset:shared")]
            try:
                acknowledged[label] = await log.append(events)
            except Unavailable:
                turn -= 1  # told to append again, so that is what it does
            if len(acknowledged) > 8:
                enough.set()

    async def cutter() -> None:
        connection = await asyncpg.connect(database_url)
        for _ in range(12):
            await asyncio.sleep(0.05)
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where pid <> $1 "
                "and datname = current_database() and backend_type = 'client backend'",
                connection.get_server_pid(),
            )
        await connection.close()

    async with opened(database_url) as other:
        appenders = [
            asyncio.create_task(appender(log, f"{name}-{n}"))
            for n in range(4)
            for name, log in (("one", ledger), ("other", other))
        ]
        await cutter()
        await enough.wait()
        stop.set()
        await asyncio.gather(*appenders)
    length = await ledger.head()
    await assert_log_is_sound(ledger, length)
    assert length == 2 * len(acknowledged)
    for label, outcome in acknowledged.items():
        stored = await read_event(ledger, outcome.placed[0].position)
        assert stored is not None
        assert stored.event_id == fact(label).event_id


async def test_a_database_that_stays_away_is_told_and_comes_back(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventlog.appending.writer.RETRY_DELAY_S", 0.001)
    await ledger.append([fact(1)])
    superuser = await asyncpg.connect(with_database(as_superuser(database_url), "postgres"))
    name = urlsplit(database_url).path[1:]
    await superuser.execute(f"alter database {name} connection limit 0")
    await superuser.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name
    )
    with pytest.raises(Unavailable) as refused:
        await ledger.append([fact(2)])
    assert refused.value.code == "ledger.unavailable"
    await superuser.execute(f"alter database {name} connection limit -1")
    await superuser.close()
    assert (await ledger.append([fact(2)])).position == 2


# --- reading ------------------------------------------------------------------------------


async def test_a_stream_is_read_forwards_and_backwards(ledger: Ledger) -> None:
    await ledger.append([fact(n, f"asset:loop-{n % 2}") for n in range(10)])
    forwards = await read_stream(ledger, "asset:loop-1", from_version=2, up_to_version=4)
    assert [(e.version, e.position) for e in forwards] == [(2, 4), (3, 6), (4, 8)]
    backwards = await read_stream(ledger, "asset:loop-1", backwards=True, limit=2)
    assert [e.version for e in backwards] == [5, 4]


async def test_what_is_read_is_what_was_appended(ledger: Ledger) -> None:
    frame = frame_of(3)
    await ledger.append([fact("flow", correlation_id=fact(1).event_id), frame_event(frame)])
    recorded_fact, recorded_frame = await read_page(ledger, 0)
    assert recorded_fact.fact.setpoint == "flow"
    assert recorded_fact.correlation_id == fact(1).event_id
    assert recorded_fact.occurred_at == fact(1).occurred_at
    assert recorded_fact.window is None
    assert recorded_frame.is_frame
    assert recorded_frame.frame.canonical_sha256 == frame.canonical_sha256
    assert recorded_frame.window == frame_event(frame).window


async def test_the_view_shows_facts_as_json(ledger: Ledger) -> None:
    await ledger.append([fact(1), frame_event(frame_of(1))])
    rows = await ledger.pool.fetch("select * from event_log order by position")
    assert [row["ledger"] for row in rows] == ["plant-1", "plant-1"]
    assert rows[0]["fact"] is not None
    assert rows[1]["fact"] is None
    assert rows[1]["reading_count"] == 5
