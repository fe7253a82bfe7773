"""Appending facts to the ledger, all checks on, beside bare COPY of the same rows.

Callers append in a closed loop, each to a stream of its own; making the events is part of it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from benchmarks.report import Figure, Report
from domain.identifiers import uuid7
from eventlog.database import Pool, create_pool
from eventlog.embedded import EmbeddedPostgres
from eventlog.envelope import NewEvent
from eventlog.ledger import Ledger
from migrations.run import upgrade

PAYLOAD = b'{"asset_id":"pump-1","note":"' + b"x" * 180 + b'","reason":"a reason","value":12.5}'
PAYLOAD_SHA256 = hashlib.sha256(PAYLOAD).digest()
COPY_ROWS = 200_000
COPY_ROWS_AT_ONCE = 2_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each figure runs")


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    folder = Path(tempfile.mkdtemp(prefix="heddle-bench-"))
    folder.chmod(0o711)
    try:
        with EmbeddedPostgres.start(folder) as server:
            upgrade(server.url)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_measure(arguments, server.url))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _measure(arguments: argparse.Namespace, database_url: str) -> Report:
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, "plant-1")
    report = Report("log")
    try:
        limit = await _bare_copy(pool)
        for callers, events, goal in ((128, 1, 45_000), (16, 100, 100_000), (16, 1, None)):
            rate, latencies_s = await _append(ledger, callers, events, arguments.seconds)
            name = f"facts_{callers}_callers_{events}_events"
            report.figures[f"{name}_per_s"] = Figure(rate, "events/s", limit, goal)
            p99_ms = latencies_s[int(len(latencies_s) * 0.99)] * 1e3
            report.figures[f"{name}_p99"] = Figure(
                p99_ms, "ms", None, 15 if callers == 128 else None, ceiling=True
            )
        _, latencies_s = await _append(ledger, 1, 1, arguments.seconds)
        report.figures["facts_1_caller_p50"] = Figure(
            latencies_s[len(latencies_s) // 2] * 1e3, "ms", None, 0.45, ceiling=True
        )
    finally:
        await ledger.close()
        await pool.close()
    report.notes = [
        f"facts of {len(PAYLOAD)} bytes, fsync on; limit: COPY of the same rows, "
        f"{COPY_ROWS_AT_ONCE:,} a transaction, into a table with a key on the position"
    ]
    return report


async def _append(
    ledger: Ledger, callers: int, events: int, seconds: float
) -> tuple[float, Sequence[float]]:
    """Return events/s, and the sorted seconds that each append took."""
    latencies_s: list[float] = []
    started = time.perf_counter()

    async def caller(number: int) -> None:
        while time.perf_counter() - started < seconds:
            begun = time.perf_counter()
            await ledger.append([_fact(f"asset:pump-{number}") for _ in range(events)])
            latencies_s.append(time.perf_counter() - begun)

    await asyncio.gather(*(caller(number) for number in range(callers)))
    rate = len(latencies_s) * events / (time.perf_counter() - started)
    return rate, sorted(latencies_s)


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
