"""Appending facts to the ledger, all checks on, beside bare COPY of the same rows.

Callers append in a closed loop, each to a stream of its own. Events and the rows of the limit are
made beforehand. The slow disk is PostgreSQL's own: it waits 2 ms before every flush of its log.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import os
import statistics
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from benchmarks.report import Figure, Report
from benchmarks.scratch import run_as_served, scratch_server
from domain.identifiers import uuid7
from eventlog.database import Pool, create_pool
from eventlog.embedded.cluster import BOOTSTRAP_ROLE
from eventlog.envelope import NewEvent
from eventlog.ledger import Ledger
from eventlog.transparency.merkle import Frontier

PAYLOAD = b'{"asset_id":"pump-1","note":"' + b"x" * 180 + b'","reason":"a reason","value":12.5}'
PAYLOAD_SHA256 = hashlib.sha256(PAYLOAD).digest()
COPY_ROWS = 200_000
COPY_ROWS_AT_ONCE = 2_000
EVENTS_MADE_PER_S = {(128, 1): 90_000, (16, 100): 220_000, (16, 1): 60_000, (1, 1): 8_000}
SLOW_FLUSH_US = 2_000
SLOW_ROUNDS = 5
ROWS_A_STATEMENT = 250_000
FILLERS = 2
STATEMENT_TIMEOUT_S = 900.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each figure runs")
    parser.add_argument(
        "--grown",
        type=int,
        default=1_000_000,
        metavar="ROWS",
        help="length of the log at which the rate is compared with that of a short one",
    )


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    with scratch_server() as server:
        return run_as_served(_measure(arguments, server.url))


@dataclass(frozen=True, slots=True)
class Rate:
    """What a number of callers reached together, and how long an append took them."""

    per_s: float
    p50_ms: float
    p99_ms: float


async def _measure(arguments: argparse.Namespace, database_url: str) -> Report:
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, "plant-1")
    report = Report("log")
    figures, seconds = report.figures, arguments.seconds
    try:
        limit = await _bare_copy(pool)
        many = await _append(ledger, 128, 1, seconds)
        figures["128_callers_per_s"] = Figure(many.per_s, "events/s", limit, 45_000)
        figures["128_callers_of_copy"] = Figure(many.per_s / limit, "ratio", None, 0.27)
        figures["128_callers_p99"] = Figure(many.p99_ms, "ms", None, 15, ceiling=True)
        hundreds = await _append(ledger, 16, 100, seconds)
        figures["16_callers_100_events_per_s"] = Figure(hundreds.per_s, "events/s", limit, 100_000)
        figures["16_callers_100_events_of_copy"] = Figure(
            hundreds.per_s / limit, "ratio", None, 0.60
        )
        few = await _append(ledger, 16, 1, seconds)
        figures["16_callers_of_copy"] = Figure(few.per_s / limit, "ratio", None, 0.13)
        one = await _append(ledger, 1, 1, seconds)
        figures["1_caller_p50"] = Figure(one.p50_ms, "ms", None, 0.45, ceiling=True)
        slow_per_s, kept = await _on_slow_disk(ledger, database_url, seconds)
        figures["128_callers_slow_disk_per_s"] = Figure(slow_per_s, "events/s", None, 22_500)
        figures["128_callers_slow_disk_kept"] = Figure(kept, "ratio", None, 0.5)
        if arguments.grown:
            short = await _append_to(pool, "short", seconds)
            await _grow(pool, "grown", arguments.grown)
            long = await _append_to(pool, "grown", seconds)
            figures[f"128_callers_at_{arguments.grown}_rows_kept"] = Figure(
                long.per_s / short.per_s, "ratio", None, 0.8
            )
    finally:
        await ledger.close()
        await pool.close()
    report.notes = [
        f"facts of {len(PAYLOAD)} bytes, fsync on; limit: COPY of the same rows, "
        f"{COPY_ROWS_AT_ONCE:,} a transaction, into a table with a key on the position"
    ]
    return report


async def _append_to(pool: Pool, name: str, seconds: float) -> Rate:
    ledger = await Ledger.open(pool, name)
    try:
        return await _append(ledger, 128, 1, seconds)
    finally:
        await ledger.close()


async def _append(ledger: Ledger, callers: int, events: int, seconds: float) -> Rate:
    made = int(EVENTS_MADE_PER_S[callers, events] * seconds / callers / events) + 1
    appends = [
        [[_fact(f"asset:pump-{number}") for _ in range(events)] for _ in range(made)]
        for number in range(callers)
    ]
    gc.collect()
    gc.freeze()  # as the server does
    latencies_s: list[float] = []
    started = time.perf_counter()

    async def caller(number: int) -> None:
        for append in appends[number]:
            begun = time.perf_counter()
            if begun - started > seconds:
                return
            await ledger.append(append)
            latencies_s.append(time.perf_counter() - begun)

    await asyncio.gather(*(caller(number) for number in range(callers)))
    rate = len(latencies_s) * events / (time.perf_counter() - started)
    gc.unfreeze()
    latencies_s.sort()
    p50_s, p99_s = (latencies_s[int(len(latencies_s) * part)] for part in (0.5, 0.99))
    return Rate(rate, p50_s * 1e3, p99_s * 1e3)


def _fact(stream: str) -> NewEvent:
    now = datetime.now(UTC)
    return NewEvent(
        stream=stream,
        type="asset.setpoint_desired",
        schema_version=1,
        event_id=uuid7(int(now.timestamp() * 1000), os.urandom(10)),
        occurred_at=now,
        actor="user:benchmark",
        payload=PAYLOAD,
        payload_sha256=PAYLOAD_SHA256,
    )


async def _on_slow_disk(ledger: Ledger, database_url: str, seconds: float) -> tuple[float, float]:
    """Return the rate on a slow disk, and what it is of the rate on this one, medians of rounds.

    Each round measures both, for a machine that others share may be twice as fast a minute later.
    """
    rates, kept = [], []
    for _ in range(SLOW_ROUNDS):
        quick = await _append(ledger, 128, 1, seconds)
        async with SlowDisk(database_url):
            slow = await _append(ledger, 128, 1, seconds)
        rates.append(slow.per_s)
        kept.append(slow.per_s / quick.per_s)
    return statistics.median(rates), statistics.median(kept)


class SlowDisk:
    """Let the server wait before every flush of its log."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url.replace("//heddle@", f"//{BOOTSTRAP_ROLE}@", 1)

    async def __aenter__(self) -> None:
        await self._set(f"commit_delay = {SLOW_FLUSH_US}", "commit_siblings = 0")

    async def __aexit__(self, *_: object) -> None:
        await self._set("commit_delay = 0", "commit_siblings = 5")

    async def _set(self, *settings: str) -> None:
        connection = await asyncpg.connect(self._url)
        for setting in settings:
            await connection.execute(f"alter system set {setting}")
        await connection.execute("select pg_reload_conf()")
        await connection.close()
        await asyncio.sleep(0.5)


async def _grow(pool: Pool, name: str, rows: int) -> None:
    """Make a ledger of `rows` events of 10,000 streams, their keys and indexes; no proofs.

    Indexes are taken away meanwhile and made anew from all rows, sorted, at a tenth of what it
    costs to put one row after the other into them.
    """
    ledger = await Ledger.open(pool, name)
    await ledger.close()
    frontier = Frontier(rows, os.urandom(32 * rows.bit_count()))
    await pool.execute("select ensure_event_partitions($1)", rows + 5_000_000)
    indexes = await _drop_indexes(pool)
    waiting = iter(range(1, rows + 1, ROWS_A_STATEMENT))

    async def fill() -> None:
        for start in waiting:
            last = min(rows, start + ROWS_A_STATEMENT - 1)
            await pool.execute(_GROW, ledger.ledger_id, start, last, PAYLOAD_SHA256, PAYLOAD,
                timeout=STATEMENT_TIMEOUT_S)  # fmt: skip

    await asyncio.gather(*(fill() for _ in range(FILLERS)))
    for statement in indexes:
        await pool.execute(statement, timeout=STATEMENT_TIMEOUT_S)
    await pool.execute(_GROW_HEADS, ledger.ledger_id, rows)
    await pool.execute("analyze event, event_identity, stream_head", timeout=STATEMENT_TIMEOUT_S)
    await pool.execute(
        "update ledger set position = $2, recorded_at = now(), frontier = $3, root = $4 "
        "where ledger_id = $1",
        *(ledger.ledger_id, rows, frontier.packed(), frontier.root()),
    )


async def _drop_indexes(pool: Pool) -> list[str]:
    """Take the indexes of events and their keys away; return the statements that make them."""
    found = await pool.fetch(
        """
        select i.indexrelid::regclass::text as name, i.indrelid::regclass::text as of_table,
            c.conname, coalesce(pg_get_constraintdef(c.oid), pg_get_indexdef(i.indexrelid)) as made
        from pg_index i left join pg_constraint c on c.conindid = i.indexrelid
        where i.indrelid in ('event'::regclass, 'event_identity'::regclass)
        """
    )
    made = []
    for index in found:
        if index["conname"] is None:
            await pool.execute(f"drop index {index['name']}")
            made.append(index["made"].replace(" ON ONLY ", " ON "))
        else:
            alter = f"alter table {index['of_table']}"
            await pool.execute(f"{alter} drop constraint {index['conname']}")
            made.append(f"{alter} add constraint {index['conname']} {index['made']}")
    return made


_GROW = """
    with filled as (
        insert into event (ledger_id, position, version, occurred_at, recorded_at, schema_version,
            event_id, payload_sha256, leaf_hash, stream, type, actor, payload)
        select $1, n, 1 + (n - 1) / 10000, now(), now(), 1, uuidv7(), $4, sha256(n::text::bytea),
            'asset:old-' || n % 10000, 'asset.setpoint_desired', 'user:benchmark', $5
        from generate_series($2::bigint, $3::bigint) n
        returning event_id, position, ledger_id
    )
    insert into event_identity (event_id, position, ledger_id) select * from filled
"""
_GROW_HEADS = """
    insert into stream_head (ledger_id, stream, version)
    select $1, 'asset:old-' || first % 10000, 1 + ($2 - first) / 10000
    from generate_series(1, least(10000, $2::bigint)) first
"""


async def _bare_copy(pool: Pool) -> float:
    columns = (
        *("ledger_id", "position", "version", "occurred_at", "recorded_at", "schema_version"),
        *("event_id", "payload_sha256", "leaf_hash", "stream", "type", "actor", "payload"),
    )
    now = datetime.now(UTC)
    rows = []
    for position in range(COPY_ROWS):
        event = _fact("asset:pump-1")
        rows.append(
            (
                *(1, position, position, now, now, 1, event.event_id),
                *(PAYLOAD_SHA256, PAYLOAD_SHA256, event.stream, event.type, event.actor, PAYLOAD),
            )
        )
    async with pool.acquire() as connection:
        await connection.execute(
            "create table bare (ledger_id smallint, position bigint primary key, version bigint, "
            "occurred_at timestamptz, recorded_at timestamptz, schema_version smallint, "
            "event_id uuid, payload_sha256 bytea, leaf_hash bytea, stream text, type text, "
            "actor text, payload bytea)"
        )
        started = time.perf_counter()
        for at in range(0, COPY_ROWS, COPY_ROWS_AT_ONCE):
            await connection.copy_records_to_table(
                "bare", columns=columns, records=rows[at : at + COPY_ROWS_AT_ONCE]
            )
        elapsed_s = time.perf_counter() - started
        await connection.execute("drop table bare")
    return COPY_ROWS / elapsed_s
