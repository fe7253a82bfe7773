"""Folding and rebuilding projections, beside what reading and writing the same costs alone."""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import ClassVar

from api.plant_history import plant_history
from api.projections_cli import COLLECTED_AFTER
from benchmarks.report import Figure, Report
from benchmarks.runner_memory import peaks_mib
from benchmarks.scratch import run_as_served, scratch_server
from benchmarks.thread_events import three_links_each
from domain.asset import SetpointReported
from domain.identifiers import uuid7
from eventlog.database import Connection, create_pool
from eventlog.envelope import NewEvent, RecordedEvent, new_fact
from eventlog.following.tail import Tail
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf, read_pages
from projections.production.projection import ProductionProjection
from projections.running.content import check
from projections.running.projection import Projection
from projections.running.rebuild import rebuild
from projections.running.runner import ProjectionRunner

STREAMS = 1_024
APPENDED_AT_ONCE = 2_000
PATIENCE_S = 600.0
PAGE_EVENTS = 2_000


class Passing:
    """Wants every event and does nothing with it: what the runner itself costs."""

    name: ClassVar[str] = "passing"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = None
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS
    tables: ClassVar[tuple[str, ...]] = ("plain_row",)

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Look at each event's content."""
        del connection, ledger
        for event in events:
            _ = event.fact


class Plain:
    """One new row an event, from its content, by COPY: as plain as a projection gets."""

    name: ClassVar[str] = "plain"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = ("asset.setpoint_reported",)
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS
    tables: ClassVar[tuple[str, ...]] = ("plain_row",)

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Add a row for each event."""
        await connection.copy_records_to_table("plain_row", records=_rows(ledger, events))


class Upserting:
    """One row a stream, changed by every event: an upsert a batch."""

    name: ClassVar[str] = "upserting"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = ("asset.setpoint_reported",)
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS
    tables: ClassVar[tuple[str, ...]] = ("stream_row",)

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Have the row of each stream say its last event."""
        last = {event.stream: event for event in events}
        await connection.execute(
            """
            insert into stream_row
            select $1, * from unnest($2::text[], $3::bigint[], $4::float8[])
            on conflict (ledger_id, stream) do update set
                position = excluded.position, value = excluded.value
            """,
            ledger.ledger_id,
            list(last),
            [event.position for event in last.values()],
            [event.fact.value for event in last.values()],
        )


TABLES = """
    create table plain_row (ledger_id smallint not null, position bigint not null,
        asset_id text not null, value float8 not null, primary key (ledger_id, position));
    create table stream_row (ledger_id smallint not null, stream text not null,
        position bigint not null, value float8 not null, primary key (ledger_id, stream))
        with (fillfactor = 50);
"""


def _rows(ledger: Ledger, events: Sequence[RecordedEvent]) -> list[tuple[int, int, str, float]]:
    number = ledger.ledger_id
    rows = []
    for event in events:
        fact = event.fact
        rows.append((number, event.position, fact.asset_id, fact.value))
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--events", type=int, default=200_000, help="length of the plain log")
    parser.add_argument("--parts", type=int, default=2_000, help="parts of the generated plant")
    parser.add_argument(
        "--history", type=int, default=100_000, help="events, and twice as many, for the memory"
    )


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    with scratch_server() as server:
        return run_as_served(_measure(server.url, arguments))


async def _measure(database_url: str, arguments: argparse.Namespace) -> Report:
    report = Report("projections")
    count, parts = arguments.events, arguments.parts
    async with _opened(database_url, "plant-1") as ledger:
        await ledger.pool.execute(TABLES)
        await _append(ledger, [_fact(n) for n in range(count)])
        read = await _rate(count, lambda: _read(ledger, count))
        report.figures["read_and_decoded_per_s"] = Figure(read, "events/s")
        for projection, goal in ((Passing(), None), (Plain(), 100_000), (Upserting(), None)):
            rate = await _rate(count, partial(_folded, ledger, database_url, projection))
            report.figures[f"{projection.name}_folded_per_s"] = Figure(rate, "events/s", read, goal)
        for projection, goal in ((Plain(), 60_000), (Upserting(), 60_000)):
            rate = await _rate_alone(count, partial(rebuild, ledger.pool, projection))
            report.figures[f"{projection.name}_rebuilt_per_s"] = Figure(
                rate, "events/s", read, goal
            )
        rate = await _rate_alone(count, lambda: check(ledger.pool, ledger, Plain()))
        report.figures["plain_checked_per_s"] = Figure(rate, "events/s", read)
    async with _opened(database_url, "plant-2") as ledger:
        history = [
            new_fact(
                event.stream,
                event.fact,
                event_id=event.event_id,
                occurred_at=event.occurred_at,
                actor=event.actor,
            )
            for event in plant_history(parts, 1)
        ]
        await _append(ledger, history)
        await _folded(ledger, database_url, ProductionProjection())
        rebuilding = partial(rebuild, ledger.pool, ProductionProjection())
        rate = await _rate_alone(len(history), rebuilding)
        report.figures["production_rebuilt_per_s"] = Figure(rate, "events/s", None, 60_000)
    if arguments.history:
        await _remember(report, database_url, arguments.history)
    report.notes += [
        f"{count:,} facts of about 160 bytes on {STREAMS:,} streams, and a generated plant of "
        f"{parts:,} parts with {len(history):,} events; one process, fsync on",
        "limit: the same events read and decoded, two pages held; a rebuild reads, folds, vacuums, "
        "analyses and exchanges the tables",
    ]
    return report


async def _remember(report: Report, database_url: str, length: int) -> None:
    """Compare what runners hold in memory after a history and after one twice as long."""
    async with _opened(database_url, "plant-3") as ledger:
        draw = random.Random(5)
        told = three_links_each("hist", lambda: draw.randrange(1_000_000))
        for _ in range(0, 2 * length, APPENDED_AT_ONCE):
            await ledger.append(list(itertools.islice(told, APPENDED_AT_ONCE)))
        head = await ledger.head()
        once, twice = await peaks_mib(database_url, ledger.name, [head // 2, head])
    report.figures["runner_peak_memory"] = Figure(twice, "MiB", once, ceiling=True)
    report.figures["runner_peak_memory_by_half"] = Figure(twice / once, "x", goal=1.1, ceiling=True)
    report.notes.append(
        f"memory: peak of a process with the runners of thread, production and quality, of {head:,}"
        f" events of three links each, nearly each of a thing of its own; limit: after half of them"
    )


@asynccontextmanager
async def _opened(database_url: str, name: str) -> AsyncIterator[Ledger]:
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, name)
    try:
        yield ledger
    finally:
        await ledger.close()
        await pool.close()


async def _append(ledger: Ledger, events: Sequence[NewEvent]) -> None:
    for at in range(0, len(events), APPENDED_AT_ONCE):
        await ledger.append(events[at : at + APPENDED_AT_ONCE])
    await ledger.pool.execute("analyze event")


def _fact(number: int) -> NewEvent:
    now = datetime.now(UTC)
    return new_fact(
        f"asset:pump-{number % STREAMS}",
        SetpointReported(f"pump-{number % STREAMS}", "x" * 100, number / 8),
        event_id=uuid7(int(now.timestamp() * 1000), os.urandom(10)),
        occurred_at=now,
        actor="user:benchmark",
    )


async def _rate(count: int, work: Callable[[], Awaitable[object]]) -> float:
    gc.collect()
    gc.freeze()  # as `heddle serve` and `heddle rebuild` do
    began = time.perf_counter()
    await work()
    return count / (time.perf_counter() - began)


async def _rate_alone(count: int, work: Callable[[], Awaitable[object]]) -> float:
    """Return the rate of `work` in a process that does nothing else, as `heddle rebuild`."""
    served = gc.get_threshold()
    gc.set_threshold(*COLLECTED_AFTER)
    try:
        return await _rate(count, work)
    finally:
        gc.set_threshold(*served)


async def _read(ledger: Ledger, count: int) -> None:
    async for page in read_pages(
        ledger, 0, up_to=count, limit=PAGE_EVENTS, payloads=PayloadOf.FACTS
    ):
        for event in page:
            _ = event.fact


async def _folded(ledger: Ledger, database_url: str, projection: Projection) -> None:
    """Have a runner come from nothing to the head."""
    tail = Tail(ledger, database_url)
    runner = ProjectionRunner(projection, tail)
    try:
        await runner.wait_for(await ledger.head(), PATIENCE_S)
    finally:
        await runner.close()
        await tail.close()
