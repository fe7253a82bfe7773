"""The thread's questions beside a live feed, and on cold pages.

The feed is a process of its own: it appends to the log and folds what it has appended, at a steady
rate, beside whoever asks.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.report import Figure, Report
from benchmarks.scratch import run_as_served, serving
from benchmarks.thread_events import moved, three_links_each
from benchmarks.thread_factory import ASSEMBLY, Factory, part_key, top_of
from eventlog.database import create_pool
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf, read_page
from projections.thread.projection import ThreadProjection
from projections.thread.trace import trace
from projections.thread.traced import Direction, Trace

LIVE_EVENTS_PER_S: Final = 5_000
FEED_S_MAX: Final = 30
STEP_S: Final = 0.1
"""How often the feed appends and folds: as often as a runner does while events pour in."""

UNDER_WAY_S: Final = 1.0
"""So long after its start the feed is under way: its rate is taken from then on."""

BATCH_EVENTS: Final = 1_000
APPENDS_AT_ONCE: Final = 16
COLD_STARTS: Final = 5

Question = Callable[[int], Awaitable[object]]
"""Asks once; the number says which of many roots is asked about."""


def p50_ms(seconds: Sequence[float]) -> float:
    """Return the median of `seconds`, ms."""
    return statistics.median(seconds) * 1e3


def p99_ms(seconds: Sequence[float]) -> float:
    """Return the 99th percentile of `seconds`, ms: of few, nearly the slowest, and never more."""
    return statistics.quantiles(seconds, n=100, method="inclusive")[98] * 1e3


async def answered(question: Question, turn: int) -> object:
    """Ask, and make objects of the answer."""
    found = await question(turn)
    return (found.nodes, found.edges) if isinstance(found, Trace) else found


# --- beside a feed ------------------------------------------------------------------------


class Live(NamedTuple):
    """What is asked beside the feed, and how often."""

    question: Question
    rounds: int


async def ask_beside_feed(
    report: Report, database_url: str, ledger: Ledger, factory: Factory, asked: Mapping[str, Live]
) -> None:
    """Ask idle, beside the feed, and idle again; report the 99th percentiles side by side."""
    idle = {name: await _times(live) for name, live in asked.items()}
    feed = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.thread_live"),
        *(database_url, ledger.name, str(factory.position), str(factory.parts)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert feed.stdin is not None, "it is a pipe"
    assert feed.stdout is not None, "it is a pipe"
    await feed.stdout.readline()  # ready
    feed.stdin.write(b"go\n")
    await feed.stdin.drain()
    await asyncio.sleep(1)
    fed = {name: await _times(live) for name, live in asked.items()}
    feed.stdin.close()
    told = json.loads(await feed.stdout.readline())
    await feed.wait()
    for name, live in asked.items():
        idle[name] += await _times(live)
    worst = 0.0
    for name in asked:
        beside = Figure(p99_ms(fed[name]), "ms", p99_ms(idle[name]), ceiling=True)
        report.figures[f"{name}_live_p99"] = beside
        worst = max(worst, beside.ratio or 0.0)
    report.figures["worst_live_p99_by_idle"] = Figure(worst, "x", goal=1.5, ceiling=True)
    report.figures["live_feed"] = Figure(told["per_s"], "events/s", goal=LIVE_EVENTS_PER_S * 0.99)
    report.notes.append(
        "live: p99 with objects beside a process that appends and folds "
        f"{LIVE_EVENTS_PER_S:,} events/s of three links each, {told['behind']:,} events behind at "
        "its end; limit: p99 of twice as many answers before and after it"
    )


async def _times(live: Live) -> list[float]:
    took = []
    for turn in range(live.rounds):
        began = time.perf_counter()
        await answered(live.question, turn)
        took.append(time.perf_counter() - began)
    return took


async def _feed(database_url: str, name: str, position: int, parts: int) -> None:
    """Append and fold at a steady rate until stdin ends; say how much that was."""
    draw = random.Random(13)
    recent = max(parts - 2_000, 0)
    count = LIVE_EVENTS_PER_S * FEED_S_MAX
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, name)
    first = await ledger.head()
    events = three_links_each("live", lambda: draw.randrange(recent, parts), first)
    told = list(itertools.islice(events, count))
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin
    )
    print("ready", flush=True)
    await stdin.readline()
    ended = asyncio.create_task(stdin.read())
    began = time.perf_counter()
    folded: list[tuple[float, int]] = []
    folding = asyncio.create_task(_fold_behind(ledger, position, first, folded))
    appended = 0
    appending: set[asyncio.Task[object]] = set()
    while not ended.done() and appended < count:
        due = int((time.perf_counter() - began) * LIVE_EVENTS_PER_S)
        due = min(due, appended + BATCH_EVENTS, count)
        # As of many who append: who comes while others wait for the disk waits with the next.
        if due > appended and len(appending) < APPENDS_AT_ONCE:
            appending.add(asyncio.create_task(ledger.append(told[appended:due])))
            appended = due
        await asyncio.sleep(STEP_S / 2)
        appending = {task for task in appending if not task.done() or task.result() is None}
    await asyncio.gather(*appending)
    if folding.done():
        folding.result()  # which says why it has ended
    folding.cancel()
    await asyncio.gather(folding, return_exceptions=True)
    # From when it has come under way: the first events have to be appended before any is folded.
    (from_s, from_events), *_, (to_s, to_events) = (
        told for told in folded if told[0] >= began + UNDER_WAY_S
    )
    per_s = (to_events - from_events) / (to_s - from_s)
    print(json.dumps({"per_s": per_s, "behind": appended - to_events}))
    await ledger.close()
    await pool.close()


async def _fold_behind(
    ledger: Ledger, position: int, first: int, folded: list[tuple[float, int]]
) -> None:
    """Fold what is appended beyond `first`, numbered on behind what was loaded.

    Parameters
    ----------
    folded : is told when how many events were folded
    """
    projection = ThreadProjection()
    after = first
    while True:
        began = time.perf_counter()
        while page := await read_page(ledger, after, limit=BATCH_EVENTS, payloads=PayloadOf.FACTS):
            after = page[-1].position
            events = [moved(event, position) for event in page]
            async with ledger.pool.acquire() as connection, connection.transaction():
                await connection.execute(
                    "update projection_checkpoint set position = $1 where projection = $2",
                    position + after,
                    projection.name,
                )
                await projection.fold(connection, ledger, events)
            folded.append((time.perf_counter(), after - first))
        await asyncio.sleep(max(0.0, began + STEP_S - time.perf_counter()))


# --- cold ---------------------------------------------------------------------------------


def ask_cold(report: Report, folder: Path, ledger_name: str, factory: Factory) -> None:
    """Ask for one trace right after each of some starts of a server whose files are not cached."""
    took = []
    for start in range(COLD_STARTS):
        dropped = drop_cached(folder)
        with serving(folder) as server:
            took.append(run_as_served(_first_trace(server.url, ledger_name, factory, start)))
    report.figures["first_back_trace_cold"] = Figure(
        max(took) * 1e3, "ms", goal=1_000, ceiling=True
    )
    report.notes.append(
        f"cold: the slowest of {COLD_STARTS} first traces, each of another part (the median took "
        f"{p50_ms(took):.0f} ms), each after the server was stopped, {dropped / 2**30:.2f} GiB "
        "of its files were dropped from the system's cache (posix_fadvise), and it was started"
    )


def drop_cached(folder: Path) -> int:
    """Have the system forget the pages of all files below `folder`; return their bytes."""
    os.sync()
    dropped = 0
    for path in folder.rglob("*"):
        if not path.is_file() or path.is_symlink():
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            dropped += os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    return dropped


async def _first_trace(database_url: str, name: str, factory: Factory, turn: int) -> float:
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, name)
    assemblies = factory.parts // ASSEMBLY
    root = part_key(top_of((turn * 2 + 1) * assemblies // (2 * COLD_STARTS)))
    began = time.perf_counter()
    found = await trace(ledger, [root], direction=Direction.BACK)
    assert min(len(found.nodes), len(found.edges)) > 100, "an assembly has many parts"
    took = time.perf_counter() - began
    await ledger.close()
    await pool.close()
    return took


if __name__ == "__main__":
    run_as_served(_feed(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
