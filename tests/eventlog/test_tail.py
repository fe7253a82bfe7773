"""The tail: every follower sees each event once and in order, whatever happens beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from eventlog.ledger import Ledger
from eventlog.reading import EventFilter
from eventlog.tail import Tail
from tests.eventlog.new_events import cut_connections, fact, opened

pytestmark = pytest.mark.anyio

PATIENCE_S = 60.0


@pytest.fixture
async def tail(ledger: Ledger, database_url: str) -> AsyncIterator[Tail]:
    following = Tail(ledger, database_url)
    yield following
    await following.close()


async def followed(tail: Tail, count: int, after: int = 0, **options: Any) -> list[int]:
    """Return the positions of the next `count` events a follower is given."""
    seen: list[int] = []
    async with asyncio.timeout(PATIENCE_S), aclosing(tail.follow(after, **options)) as events:
        async for event in events:
            seen.append(event.position)
            if len(seen) == count:
                break
    return seen


async def write(ledger: Ledger, name: str, count: int) -> None:
    for n in range(count):
        await ledger.append([fact(f"{name}/{n}/{m}", f"asset:{name}") for m in range(n % 4 + 1)])


async def test_followers_see_every_event_once_and_in_order_beside_writers(
    tail: Tail, database_url: str
) -> None:
    writers, appends_each = 6, 20
    total = writers * 50  # 1 + 2 + 3 + 4 events, five times
    async with opened(database_url) as other:
        early = [asyncio.create_task(followed(tail, total)) for _ in range(3)]
        small = asyncio.create_task(followed(tail, total, page_events=3))
        late = asyncio.create_task(followed(tail, total - 100, after=100))
        await asyncio.gather(
            *(
                write(log, f"writer-{n}", appends_each)
                for n, log in enumerate([tail.ledger, other] * (writers // 2))
            )
        )
        for follower in (*early, small):
            assert await follower == list(range(1, total + 1))
        assert await late == list(range(101, total + 1))
        assert await followed(tail, total) == list(range(1, total + 1))


async def test_a_follower_is_woken_by_a_notification(
    tail: Tail, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tail.ledger.append([fact(0)])
    assert await followed(tail, 1) == [1]
    monkeypatch.setattr("eventlog.tail.POLL_S", 1_000.0)
    await asyncio.sleep(1.2)  # the poll in progress ends; from here on only a notification wakes
    follower = asyncio.create_task(followed(tail, 1, after=1))
    await asyncio.sleep(0.05)
    await tail.ledger.append([fact(1)])
    assert await follower == [2]


async def test_a_lost_notification_costs_one_poll(tail: Tail) -> None:
    await tail.wait_beyond(-1, timeout_s=PATIENCE_S)
    tail._notified = lambda *_: None  # type: ignore[method-assign]
    follower = asyncio.create_task(followed(tail, 5))
    await tail.ledger.append([fact(n) for n in range(5)])
    assert await follower == [1, 2, 3, 4, 5]


async def test_followers_survive_that_the_listener_s_connection_is_cut(
    tail: Tail, database_url: str
) -> None:
    follower = asyncio.create_task(followed(tail, 60))
    await tail.wait_beyond(-1, timeout_s=PATIENCE_S)
    cut = 0
    async with opened(database_url) as other:
        for turn in range(6):
            await other.append([fact(f"{turn}/{n}") for n in range(10)])
            # The pools' connections are called heddle; the listener's is not.
            cut += await other.pool.fetchval(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity "
                "where datname = current_database() and backend_type = 'client backend' "
                "and application_name <> 'heddle'"
            )
            await asyncio.sleep(0.1)
        assert await follower == list(range(1, 61))
    assert cut >= 1


async def test_a_tail_listens_again_after_all_connections_were_cut(
    tail: Tail, database_url: str
) -> None:
    await tail.ledger.append([fact(0)])
    assert await tail.wait_beyond(0, timeout_s=PATIENCE_S) == 1
    async with opened(database_url) as other:
        assert await cut_connections(other.pool) >= 2
        await other.append([fact(1)])
        assert await tail.wait_beyond(1, timeout_s=PATIENCE_S) == 2
        assert await followed(tail, 2) == [1, 2]


async def test_a_filtered_follower_sees_what_it_wants_and_moves_on(tail: Tail) -> None:
    wanted = EventFilter(streams=("asset:loop-3",))
    follower = asyncio.create_task(followed(tail, 6, wanted=wanted, page_events=2))
    for turn in range(6):
        await tail.ledger.append([fact(f"{turn}/{n}", f"asset:loop-{n}") for n in range(5)])
    assert await follower == [4, 9, 14, 19, 24, 29]


async def test_a_follower_reads_on_where_a_page_was_cut_by_its_bytes(
    tail: Tail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventlog.reading.PAGE_BYTES_MAX", 1_000)
    await tail.ledger.append([fact(n, payload=bytes(400)) for n in range(30)])
    assert await followed(tail, 30) == list(range(1, 31))


async def test_a_follower_of_an_empty_log_waits(tail: Tail) -> None:
    assert await tail.wait_beyond(0, timeout_s=0.05) == 0


async def test_ledgers_of_one_database_do_not_wake_each_other(
    tail: Tail, database_url: str
) -> None:
    async with opened(database_url, "plant-2") as other:
        await other.append([fact(n) for n in range(9)])
        await tail.ledger.append([fact(1)])
        assert await tail.wait_beyond(0, timeout_s=PATIENCE_S) == 1
