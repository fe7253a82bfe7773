"""Reading and following the log, beside asyncpg's bare fetch of the same rows in the same pages."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime

from benchmarks.report import Figure, Report
from benchmarks.scratch import run_as_served, scratch_server
from domain.asset import SetpointReported
from domain.identifiers import uuid7
from eventlog.database import create_pool
from eventlog.envelope import RECORDED_COLUMNS, NewEvent, new_fact
from eventlog.following.tail import Tail
from eventlog.ledger import Ledger
from eventlog.reading import (
    SCANNED_EVENTS_MAX,
    EventFilter,
    position_at,
    read_page,
    read_page_backwards,
    read_pages,
    read_whole_stream,
)

PAGE_EVENTS = 500
STREAMS = 128
ROUNDS = 3
APPENDED_AT_ONCE = 2_000
LIVE_EVENTS = 20_000
LIVE_AT_ONCE = 100

Round = Callable[[], Awaitable[int]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--events", type=int, default=100_000, help="length of the log")


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    with scratch_server() as server:
        return run_as_served(_measure(server.url, arguments.events))


async def _measure(database_url: str, count: int) -> Report:
    report = Report("reading")
    async with _filled(database_url, count) as ledger:
        gc.collect()
        gc.freeze()  # as `heddle serve` does
        bare = await _best(lambda: _bare(ledger))
        for name, work, goal in (
            ("read", lambda: _read(ledger, count, decoded=False), None),
            ("read_and_decoded", lambda: _read(ledger, count, decoded=True), 250_000),
            ("read_backwards", lambda: _backwards(ledger), None),
            ("read_by_type", lambda: _by_type(ledger, count), None),
            ("read_by_stream", lambda: _by_stream(ledger), None),
        ):
            rate = await _best(work)
            report.figures[f"{name}_per_s"] = Figure(rate, "events/s", bare, goal)
        report.figures["page_that_finds_nothing"] = Figure(
            await _nothing_found_ms(ledger), "ms", ceiling=True
        )
        report.figures["position_at_a_time"] = Figure(
            await _position_at_ms(ledger, count), "ms", ceiling=True
        )
        for followers in (1, 200):
            rate, alone = await _followed(ledger, database_url, followers)
            report.figures[f"appended_with_{followers}_followers_per_s"] = Figure(
                rate, "events/s", alone
            )
    report.notes = [
        f"facts of about 160 bytes on {STREAMS} streams, pages of {PAGE_EVENTS}, best of {ROUNDS}; "
        "limit of reading: asyncpg fetches the same columns of the same rows in the same pages",
        f"a page that finds nothing has looked at {SCANNED_EVENTS_MAX:,} events",
        f"followers: {LIVE_AT_ONCE} events an append until all that is wanted has arrived, of 200 "
        "each wants one stream; limit: the same appends with no follower",
    ]
    return report


@asynccontextmanager
async def _filled(database_url: str, count: int) -> AsyncIterator[Ledger]:
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, "plant-1")
    try:
        for at in range(0, count, APPENDED_AT_ONCE):
            await ledger.append([_fact(n) for n in range(at, min(at + APPENDED_AT_ONCE, count))])
        await pool.execute("analyze event")
        yield ledger
    finally:
        await ledger.close()
        await pool.close()


def _fact(number: int) -> NewEvent:
    now = datetime.now(UTC)
    return new_fact(
        f"asset:pump-{number % STREAMS}",
        SetpointReported(f"pump-{number % STREAMS}", "x" * 100, number / 8),
        event_id=uuid7(int(now.timestamp() * 1000), os.urandom(10)),
        occurred_at=now,
        actor="user:benchmark",
    )


async def _best(work: Round) -> float:
    """Return events a second of the best of some rounds."""
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        events = await work()
        rates.append(events / (time.perf_counter() - started))
    return max(rates)


async def _bare(ledger: Ledger) -> int:
    events = after = 0
    async with ledger.pool.acquire() as connection:
        statement = await connection.prepare(
            f"select {', '.join(RECORDED_COLUMNS)}, payload from event "
            f"where ledger_id = $1 and position > $2 order by position limit {PAGE_EVENTS}"
        )
        while rows := await statement.fetch(ledger.ledger_id, after):
            events += len(rows)
            after = rows[-1][0]
    return events


async def _read(ledger: Ledger, count: int, *, decoded: bool) -> int:
    events = 0
    async for page in read_pages(ledger, 0, up_to=count, limit=PAGE_EVENTS):
        events += len(page)
        if decoded:
            for event in page:
                event.fact  # noqa: B018
    return events


async def _backwards(ledger: Ledger) -> int:
    events, before = 0, None
    while page := await read_page_backwards(ledger, before, limit=PAGE_EVENTS):
        events += len(page)
        before = page.scanned_to
    return events


async def _by_type(ledger: Ledger, count: int) -> int:
    wanted = EventFilter(types=("asset.setpoint_reported",))
    events = 0
    async for page in read_pages(ledger, 0, up_to=count, limit=PAGE_EVENTS, wanted=wanted):
        events += len(page)
    return events


async def _by_stream(ledger: Ledger) -> int:
    return sum([1 async for _ in read_whole_stream(ledger, "asset:pump-7")])


async def _nothing_found_ms(ledger: Ledger) -> float:
    durations = []
    for after in range(10):
        started = time.perf_counter()
        page = await read_page(ledger, after, wanted=EventFilter(categories=("nothing",)))
        durations.append(time.perf_counter() - started)
        assert not page
    return sorted(durations)[len(durations) // 2] * 1e3


async def _position_at_ms(ledger: Ledger, count: int) -> float:
    (event,) = await read_page(ledger, count // 3, limit=1)
    durations = []
    for _ in range(20):
        started = time.perf_counter()
        assert await position_at(ledger, event.recorded_at) > count // 3
        durations.append(time.perf_counter() - started)
    return sorted(durations)[len(durations) // 2] * 1e3


async def _followed(ledger: Ledger, database_url: str, followers: int) -> tuple[float, float]:
    """Return events/s until followers have all they want, and until nobody follows."""
    alone = await _append_live(ledger)
    tail = Tail(ledger, database_url)
    head = await ledger.head()
    await tail.wait_beyond(head - 1, timeout_s=60.0)

    async def follow(number: int) -> None:
        mine = f"asset:pump-{number % STREAMS}"
        streams = () if followers == 1 else (mine,)
        left = LIVE_EVENTS
        if streams:
            left = len(range(number % STREAMS, LIVE_EVENTS, STREAMS))
        wanted = EventFilter(streams=streams)
        async with aclosing(tail.follow(head, wanted=wanted)) as events:
            async for _ in events:
                left -= 1
                if not left:
                    return

    tasks = [asyncio.create_task(follow(number)) for number in range(followers)]
    started = time.perf_counter()
    await _append_live(ledger)
    await asyncio.gather(*tasks)
    rate = LIVE_EVENTS / (time.perf_counter() - started)
    await tail.close()
    return rate, alone


async def _append_live(ledger: Ledger) -> float:
    started = time.perf_counter()
    for at in range(0, LIVE_EVENTS, LIVE_AT_ONCE):
        await ledger.append([_fact(n) for n in range(at, at + LIVE_AT_ONCE)])
    return LIVE_EVENTS / (time.perf_counter() - started)
