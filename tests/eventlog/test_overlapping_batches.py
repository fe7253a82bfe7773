"""Batches that are with the database while others are, and those that write their rows early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from eventlog.appending import flush_time
from eventlog.appending.appends import Append
from eventlog.appending.batch import Batch, Head, Known
from eventlog.appending.flush_time import FlushTime
from eventlog.appending.lookup import read_head
from eventlog.appending.pipeline import Pipeline
from eventlog.appending.statements import APPEND_BATCH, STORE_ONE, Part, storing
from eventlog.appending.storage import LOCK_LEDGER, SESSION
from eventlog.appending.wire import Value
from eventlog.database import Connection, ConnectionLost, Pool
from eventlog.ledger import IdempotencyKey, Ledger
from tests.eventlog.early import early_in_parts
from tests.eventlog.log_soundness import assert_log_is_sound
from tests.eventlog.new_events import fact, opened

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["in turn", "early"])
def overlapping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let few events be worth two batches under way; return over how many connections they go."""
    monkeypatch.setattr("eventlog.appending.writer.OVERLAP_EVENTS_MIN", 1)
    monkeypatch.setattr("eventlog.appending.writer.SHARE_EVENTS_MIN", 8)
    if request.param == "in turn":
        return 1
    early_in_parts(monkeypatch)
    return 2


@asynccontextmanager
async def _held(pool: Pool, ledger: Ledger) -> AsyncIterator[Connection]:
    """Hold the ledger as another process does that appends to it; yield that one's transaction."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(LOCK_LEDGER, ledger.ledger_id)
        yield connection


async def _under_way(ledger: Ledger, count: int) -> None:
    """Return once so many batches of `ledger` are with the database."""
    async with asyncio.timeout(30):
        while True:
            if len(ledger._writer._under_way) >= count:
                return
            await asyncio.sleep(0.01)


async def _queued(pool: Pool, count: int) -> list[int]:
    """Return the backends that wait for the ledger, in order, once there are `count`."""
    async with asyncio.timeout(30):
        while True:
            waiting: list[asyncpg.Record] = await pool.fetch(
                "select pid from pg_locks where locktype = 'advisory' and not granted "
                "and database = (select oid from pg_database where datname = current_database()) "
                "order by waitstart"
            )
            if len(waiting) >= count:
                return [row["pid"] for row in waiting]
            await asyncio.sleep(0.01)


def _callers(ledger: Ledger, turns: int = 1) -> list[asyncio.Task[None]]:
    async def caller(number: int) -> None:
        for turn in range(turns):
            await ledger.append([fact(f"{number}/{turn}", f"asset:loop-{number}")])

    return [asyncio.create_task(caller(number)) for number in range(128)]


async def test_one_batch_commits_another_stands_ready_and_a_third_is_filled(
    ledger: Ledger, pool: Pool, monkeypatch: pytest.MonkeyPatch, overlapping: int
) -> None:
    monkeypatch.setattr("eventlog.appending.writer.SHARE", 0.4)  # of the callers some are left
    await ledger.append([fact(0)])
    async with _held(pool, ledger):
        callers = _callers(ledger, turns=5)
        assert len(await _queued(pool, overlapping)) == overlapping
        await _under_way(ledger, 2)
        writer = ledger._writer
        await asyncio.sleep(0.05)
        assert writer._batch is not None
        sizes = [len(batch.events) for batch in (*writer._under_way, writer._batch)]
        assert sum(sizes) == 128
        assert max(sizes) <= 128 // 2
        assert min(sizes) >= 128 // 8
        assert not any(caller.done() for caller in callers)
        assert await ledger.head() == 1
    await asyncio.gather(*callers)
    await assert_log_is_sound(ledger, 641)


async def test_batches_on_a_head_that_was_moved_are_all_built_again(
    ledger: Ledger, pool: Pool, database_url: str, overlapping: int
) -> None:
    await ledger.append([fact(0)])
    async with opened(database_url) as other, _held(pool, ledger):
        moving = asyncio.create_task(other.append([fact("from elsewhere", "asset:loop-5")]))
        await _queued(pool, 1)
        callers = _callers(ledger)
        assert len(await _queued(pool, 1 + overlapping)) == 1 + overlapping
        await _under_way(ledger, 2)
    assert (await moving).position == 2
    await asyncio.gather(*callers)
    await assert_log_is_sound(ledger, 130)


async def test_batches_under_way_are_recorded_once_though_their_connection_ends(
    ledger: Ledger, pool: Pool, overlapping: int
) -> None:
    await ledger.append([fact(0)])
    async with _held(pool, ledger):
        callers = _callers(ledger, turns=3)
        backend, *others = await _queued(pool, overlapping)
        assert len(others) == overlapping - 1
        await _under_way(ledger, 2)
        await pool.execute("select pg_terminate_backend($1, 10000)", backend)
        await asyncio.sleep(0.05)
    async with asyncio.timeout(30):
        await asyncio.gather(*callers)
    await assert_log_is_sound(ledger, 1 + 3 * 128)


@pytest.mark.usefixtures("overlapping")
async def test_a_repetition_of_what_is_not_committed_yet_is_told_after_it_is(
    ledger: Ledger, pool: Pool
) -> None:
    await ledger.append([fact(0)])
    key = IdempotencyKey.of("key-1", b"content")
    async with _held(pool, ledger):
        first = asyncio.create_task(ledger.append([fact(1)]))
        await _queued(pool, 1)
        keyed = asyncio.create_task(ledger.append([fact(n) for n in range(2, 12)], idempotency=key))
        await _under_way(ledger, 2)
        again = [
            asyncio.create_task(ledger.append([fact(1)])),
            asyncio.create_task(ledger.append([fact("unheard of")], idempotency=key)),
        ]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in (first, keyed, *again))
    assert [(await task).duplicate for task in (first, keyed, *again)] == [False, False, True, True]
    assert again[0].result().placed == first.result().placed
    assert again[1].result().placed == keyed.result().placed
    await assert_log_is_sound(ledger, 12)


@pytest.mark.usefixtures("overlapping")
async def test_a_closing_writer_finishes_what_is_under_way(
    pool: Pool, ledger: Ledger, database_url: str
) -> None:
    async with opened(database_url) as closing:
        await closing.append([fact(0)])
        async with _held(pool, ledger):
            callers = _callers(closing)
            await _under_way(closing, 2)
            end = asyncio.create_task(closing.close())
            await asyncio.sleep(0.05)
            assert not end.done()
        await end
        assert all(caller.done() for caller in callers)
        await asyncio.gather(*callers)
    await assert_log_is_sound(ledger, 129)


# --- early batches -------------------------------------------------------------------------


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every batch behind another be early, and sent a few events at a time."""
    early_in_parts(monkeypatch)
    monkeypatch.setattr("eventlog.appending.writer.OVERLAP_EVENTS_MIN", 1)
    monkeypatch.setattr("eventlog.appending.batch.CALLERS_AT_ONCE", 4)


@pytest.mark.usefixtures("early")
async def test_processes_with_early_batches_take_turns(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Part] = []

    def noted(*of_batch: Any) -> Any:
        sent.append(of_batch[-1])
        return storing(*of_batch)

    async def callers(log: Ledger, name: str) -> None:
        async def caller(number: int) -> None:
            for turn in range(5):
                await log.append([fact(f"{name}/{number}/{turn}", f"asset:loop-{number % 56}")])

        await asyncio.gather(*(caller(number) for number in range(64)))

    monkeypatch.setattr("eventlog.appending.storage.storing", noted)
    async with opened(database_url) as other, asyncio.timeout(60):
        await callers(ledger, "alone")
        await asyncio.gather(callers(ledger, "one"), callers(other, "the other"))
    early = [part for part in sent if part.ahead is not None]
    assert any(part.after is None for part in early)
    assert any(part.first > 0 and part.after is not None for part in early)
    assert any(part.shares_streams for part in early)
    await assert_log_is_sound(ledger, 3 * 64 * 5)


@pytest.mark.usefixtures("early")
async def test_what_an_early_batch_has_written_is_undone_if_the_one_ahead_fails(
    ledger: Ledger, pool: Pool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventlog.appending.writer.SHARE_EVENTS_MIN", 1_000)
    await ledger.append([fact(0)])
    async with opened(database_url) as other, _held(pool, ledger):
        moving = asyncio.create_task(other.append([fact("from elsewhere")]))
        await _queued(pool, 1)
        appends = []
        for number in range(20):
            appends.append(
                asyncio.create_task(ledger.append([fact(f"here {number}", f"asset:{number}")]))
            )
            await asyncio.sleep(0.01)
        begun = ledger._writer._storage._begun
        assert begun is not None
        assert begun.written > 1
    await moving
    async with asyncio.timeout(30):
        await asyncio.gather(*appends)
    await assert_log_is_sound(ledger, 22)


@asynccontextmanager
async def _pipelines(pool: Pool, count: int, **settings: str) -> AsyncIterator[list[Pipeline]]:
    pipelines = [
        await Pipeline.open(await pool.connect_apart(SESSION | settings), (APPEND_BATCH, STORE_ONE))
        for _ in range(count)
    ]
    try:
        yield pipelines
    finally:
        for pipeline in pipelines:
            pipeline.terminate()


async def _batches(ledger: Ledger, sizes: Sequence[int]) -> list[tuple[Batch, Head]]:
    """Return batches behind one another on the ledger's head, and where it ends after each."""
    head = await read_head(ledger.pool, ledger.ledger_id)
    built: list[tuple[Batch, Head]] = []
    for size in sizes:
        batch = Batch(ledger.name, head, head.recorded_at, Known({}))
        events = [fact(f"{head.position}/{n}", f"asset:{head.position}/{n}") for n in range(size)]
        batch.add(Append(events, {}, None, 0, asyncio.get_running_loop().create_future()))
        head = batch.sealed()
        built.append((batch, head))
    return built


def _sent(
    pipeline: Pipeline, ledger: Ledger, batch: tuple[Batch, Head], ahead: Batch | None
) -> asyncio.Future[Value]:
    whole = Part(batch[0], 0, len(batch[0].events), batch[1], ahead)
    return pipeline.call(*storing(ledger.ledger_id, ledger.name, whole))


async def test_an_early_batch_waits_for_the_one_ahead_though_it_comes_first(
    ledger: Ledger, pool: Pool
) -> None:
    first, second = await _batches(ledger, [3, 4])
    async with _pipelines(pool, 2) as (one, other):
        async with _held(pool, ledger):
            overtaking = _sent(other, ledger, second, first[0])
            await _queued(pool, 1)
            ahead = _sent(one, ledger, first, None)
            await _queued(pool, 2)
        assert int.from_bytes(await ahead or b"") > 0
        assert int.from_bytes(await overtaking or b"") > 0
    await assert_log_is_sound(ledger, 7)


async def test_an_early_batch_whose_one_ahead_never_comes_is_not_stored(
    ledger: Ledger, pool: Pool
) -> None:
    first, second = await _batches(ledger, [3, 4])
    async with _pipelines(pool, 1) as (pipeline,):
        with pytest.raises(
            asyncpg.SerializationError, match=r"position 0 of ledger \d+ does not come"
        ):
            await _sent(pipeline, ledger, second, first[0])
        assert int.from_bytes(await _sent(pipeline, ledger, first, None) or b"") > 0
    await assert_log_is_sound(ledger, 3)


@pytest.mark.usefixtures("early")
async def test_an_early_batch_that_the_database_refuses_holds_nobody_up(
    ledger: Ledger, pool: Pool, database_url: str
) -> None:
    storage = ledger._writer._storage
    await ledger.append([fact("4/1", "asset:elsewhere")])  # an id of the second batch
    first, second = await _batches(ledger, [3, 4])
    await storage.open()
    async with _held(pool, ledger):
        ahead = asyncio.create_task(storage.store(*first))
        await _queued(pool, 1)
        refused = asyncio.create_task(storage.store(*second))
        await _queued(pool, 2)
    assert await ahead
    with pytest.raises(asyncpg.UniqueViolationError):
        await refused
    async with opened(database_url) as other, asyncio.timeout(30):
        await other.append([fact("by another")])
    await assert_log_is_sound(ledger, 5)


async def test_a_process_that_stops_amid_an_early_batch_holds_others_up_for_a_bounded_time(
    ledger: Ledger, pool: Pool
) -> None:
    await ledger.append([fact(0)])
    first, second = await _batches(ledger, [3, 4])
    part = Part(second[0], 0, 2, None, first[0])
    async with _pipelines(pool, 2, idle_in_transaction_session_timeout="300ms") as (one, other):
        assert int.from_bytes(await _sent(one, ledger, first, None) or b"") > 0
        await other.run("begin")
        await other.call(*storing(ledger.ledger_id, ledger.name, part))
        async with asyncio.timeout(30):
            await ledger.append([fact("by another")])
            with pytest.raises((ConnectionLost, asyncpg.IdleInTransactionSessionTimeoutError)):
                await other.run("select")
    await assert_log_is_sound(ledger, 5)


# --- how long a flush takes ----------------------------------------------------------------


def _told(flush_s: Sequence[float], nbytes: int = 1_000) -> FlushTime:
    """Return what is known after batches that came one behind the other and worked 1 ms each."""
    known, answered_at = FlushTime(), 100.0
    for seconds in flush_s:
        sent_at, answered_at = answered_at - 0.5e-3, answered_at + seconds + 1e-3
        known.take(sent_at, answered_at, 1e-3, nbytes)
    return known


def test_a_flush_is_slow_if_most_are() -> None:
    assert not FlushTime().is_slow
    assert not _told([0.3e-3] * 40).is_slow
    assert not _told([0.3e-3] * 40 + [30e-3] * 4).is_slow  # some happen to take long
    assert _told([0.3e-3] * 40 + [2.4e-3] * 6).is_slow
    assert _told([2.4e-3] * 40 + [1.0e-3] * 40).is_slow  # not now this and now that
    assert not _told([2.4e-3] * 40 + [0.3e-3] * 6).is_slow
    assert not _told([2.4e-3] * 40, nbytes=flush_time.TIMED_BYTES_MAX + 1).is_slow


def test_a_batch_that_came_after_the_answer_says_nothing_of_the_flush() -> None:
    known = FlushTime()
    for number in range(40):
        known.take(number + 0.5, number + 0.6, 0.0, 1_000)
    assert not known.is_slow
