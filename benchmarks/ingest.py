"""Frames through HTTP into log, twins, alerts and rollups, beside bare COPY of the same rows.

A load generator of its own sends ready-made batches of real skab windows to `heddle serve`; both
share the machine with the embedded PostgreSQL, fsync on.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import numpy as np

from benchmarks.report import Figure, Report
from domain.asset import CommissionAsset, RegisterAsset, telemetry_stream
from domain.asset_types import asset_type
from domain.frame_batches import BATCH_MEDIA_TYPE, BatchItem, encode_batch
from domain.frame_checks import header_for, mark_out_of_range
from domain.frames import Frame, build_frame, decode, encode, time_from_ns
from domain.identifiers import uuid7
from eventlog.commands import handle
from eventlog.database import create_pool
from eventlog.embedded import EmbeddedPostgres
from eventlog.envelope import new_frame
from eventlog.ledger import Ledger
from migrations.run import upgrade

TYPE = asset_type("skab-pump-loop")
COLUMNS = (
    ("Accelerometer1RMS", "accelerometer_1", "g_n"),
    ("Accelerometer2RMS", "accelerometer_2", "g_n"),
    ("Current", "motor_current", "A"),
    ("Pressure", "pressure", "bar"),
    ("Temperature", "housing_temperature", "degC"),
    ("Thermocouple", "fluid_temperature", "degC"),
    ("Voltage", "supply_voltage", "V"),
    ("Volume Flow RateRMS", "flow", "l/min"),
)
ROWS_A_FRAME = 125
LEDGER = "plant-1"
START_NS = 1_700_000_000_000_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--readings", type=int, default=8_000_000, help="readings to send")
    parser.add_argument("--assets", type=int, default=40)
    parser.add_argument("--frames-a-request", type=int, default=20)
    parser.add_argument("--connections", type=int, default=4)


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    folder = Path(tempfile.mkdtemp(prefix="heddle-bench-"))
    folder.chmod(0o711)
    try:
        with EmbeddedPostgres.start(folder) as server:
            upgrade(server.url)
            return _measure(arguments, folder, server.url)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(arguments: argparse.Namespace, folder: Path, database_url: str) -> Report:
    frame_count = arguments.readings // (ROWS_A_FRAME * len(COLUMNS))
    asyncio.run(_register(database_url, arguments.assets))
    frames = list(_frames(frame_count, arguments.assets))
    bodies = _bodies(frames, arguments.frames_a_request)
    readings = sum(frame.reading_count for frame in frames)
    report = Report("ingest")
    copy_rate = asyncio.run(_bare_copy(database_url, frames, arguments.frames_a_request))
    with _heddle_serve(folder, database_url) as (process, url):
        before = _cpu_by_kind(process.pid)
        started = time.perf_counter()
        context = multiprocessing.get_context("spawn")
        sender = context.Process(target=_send_all, args=(url, bodies, arguments.connections))
        sender.start()
        sender.join()
        acknowledged_s = time.perf_counter() - started
        if sender.exitcode != 0:
            raise SystemExit("the load generator failed")
        _wait_until_folded(url)
        folded_s = time.perf_counter() - started
        after = _cpu_by_kind(process.pid)
        peak_mib = _peak_mib(process.pid)
    stored = asyncio.run(_stored_bytes(database_url))
    report.figures = {
        "log_and_projections_readings_per_s": Figure(
            readings / folded_s, "readings/s", copy_rate, 300_000
        ),
        "acknowledged_readings_per_s": Figure(readings / acknowledged_s, "readings/s", copy_rate),
        "server_memory_peak": Figure(peak_mib, "MiB", None, 600, ceiling=True),
        "log_bytes_a_reading": Figure(stored / readings, "bytes"),
    }
    report.notes = [
        f"{readings:,} readings of skab in frames of {ROWS_A_FRAME * len(COLUMNS):,}, "
        f"{arguments.assets} assets, {arguments.frames_a_request} frames a request, "
        f"{arguments.connections} connections; fsync on; limit: COPY of the same event rows, "
        f"{arguments.frames_a_request} frames a transaction",
        "CPU seconds while sending and folding: "
        + ", ".join(f"{kind} {after[kind] - before[kind]:.1f}" for kind in before)
        + f" of {folded_s:.1f} s on {len(os.sched_getaffinity(0))} cores",
        "where a frame's time goes in the server, alone, microseconds: "
        + ", ".join(f"{stage} {cost:.0f}" for stage, cost in _stages(frames[0]).items()),
    ]
    return report


# --- what is sent -------------------------------------------------------------------------


def _recordings() -> Path:
    return Path(os.environ.get("HEDDLE_DATA", "../shared/data")) / "skab" / "data"


def _frames(count: int, assets: int) -> Iterator[Frame]:
    """Yield `count` frames of real values, each asset's windows following one another."""
    file = _recordings() / "anomaly-free" / "anomaly-free.csv"
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter=";"))
    columns = [np.array([float(row[column]) for row in rows]) for column, _, _ in COLUMNS]
    headers = [
        header_for(TYPE, f"pump-{n:03d}", f"agent-{n:03d}", [(c, u) for _, c, u in COLUMNS])
        for n in range(assets)
    ]
    windows = len(rows) // ROWS_A_FRAME
    steps = np.arange(ROWS_A_FRAME, dtype=np.int64) * 1_000_000_000
    for n in range(count):
        turn, asset = divmod(n, assets)
        cut = slice((turn % windows) * ROWS_A_FRAME, (turn % windows + 1) * ROWS_A_FRAME)
        clock = START_NS + turn * ROWS_A_FRAME * 1_000_000_000 + steps
        values = [column[cut] for column in columns]
        yield build_frame(headers[asset], turn + 1, [clock], values, [None] * len(values))


def _bodies(frames: list[Frame], frames_a_request: int) -> list[bytes]:
    bodies = []
    for start in range(0, len(frames), frames_a_request):
        items = [
            BatchItem(uuid7(1_700_000_000_000, os.urandom(10)), encode(frame))
            for frame in frames[start : start + frames_a_request]
        ]
        bodies.append(encode_batch(items))
    return bodies


def _send_all(url: str, bodies: list[bytes], connections: int) -> None:
    async def send() -> None:
        waiting = iter(bodies)

        async def connection(client: httpx.AsyncClient) -> None:
            for body in waiting:
                response = await client.post(
                    "/v1/frames", content=body, headers={"content-type": BATCH_MEDIA_TYPE}
                )
                response.raise_for_status()
                for result in response.json()["results"]:
                    if result["status"] != "accepted":
                        raise SystemExit(f"a frame was not accepted: {result}")

        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            await asyncio.gather(*(connection(client) for _ in range(connections)))

    asyncio.run(send())


# --- the server ---------------------------------------------------------------------------


async def _register(database_url: str, assets: int) -> None:
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, LEDGER)
    for n in range(assets):
        name = f"pump-{n:03d}"
        for command in (RegisterAsset(name, TYPE.name, name), CommissionAsset(name)):
            await handle(
                ledger,
                command,
                actor="benchmark",
                occurred_at=datetime.now(UTC),
                event_id=lambda _n: uuid.uuid4(),
            )
    await ledger.close()
    await pool.close()


@contextmanager
def _heddle_serve(folder: Path, database_url: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "HEDDLE_DATABASE_URL": database_url,
        "HEDDLE_DATA_DIR": str(folder),
        "HEDDLE_LEDGER": LEDGER,
        "HEDDLE_PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "api.cli", "serve"], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        else:
            raise SystemExit("the server did not become ready")
        yield process, url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait_until_folded(url: str) -> None:
    while True:
        ready = httpx.get(f"{url}/readyz").json()
        if ready["reasons"]:
            raise SystemExit(f"a projection failed: {ready['reasons']}")
        if all(p["position"] >= ready["position"] for p in ready["projections"].values()):
            return
        time.sleep(0.02)


def _peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise LookupError("VmHWM")


def _cpu_by_kind(server_pid: int) -> dict[str, float]:
    """Return CPU seconds of the server and of all PostgreSQL processes so far."""
    ticks = os.sysconf("SC_CLK_TCK")
    spent = {"server": 0.0, "postgresql": 0.0}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        name = stat[stat.index("(") + 1 : stat.rindex(")")]
        numbers = stat[stat.rindex(")") + 2 :].split()
        seconds = (int(numbers[11]) + int(numbers[12])) / ticks
        if int(entry.name) == server_pid:
            spent["server"] += seconds
        elif name.startswith("postgres"):
            spent["postgresql"] += seconds
    return spent


async def _stored_bytes(database_url: str) -> float:
    connection = await asyncpg.connect(database_url)
    size: int = await connection.fetchval(
        "select sum(pg_total_relation_size(relid)) from pg_partition_tree('event')"
    )
    await connection.close()
    return float(size)


# --- limits and stages --------------------------------------------------------------------


async def _bare_copy(database_url: str, frames: list[Frame], frames_a_copy: int) -> float:
    """Return readings/s of COPY of the frames' rows into a bare table, ready-made."""
    sample = frames[: min(len(frames), 4_000)]
    records = []
    for position, frame in enumerate(sample, 1):
        event = _event(frame)
        window = event.window
        assert window is not None, "a frame has a window"
        records.append(
            (
                position,
                event.stream,
                frame.sequence,
                event.event_id,
                event.occurred_at,
                event.payload_sha256,
                event.payload_sha256,
                window.start_ns,
                window.end_ns,
                window.statistics,
                event.payload,
            )
        )
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "create table bare (position bigint primary key, stream text, version bigint, "
        "event_id uuid, occurred_at timestamptz, payload_sha256 bytea, leaf_hash bytea, "
        "window_start_ns bigint, window_end_ns bigint, statistics bytea, payload bytea)"
    )
    await connection.execute("alter table bare alter column payload set storage external")
    started = time.perf_counter()
    for at in range(0, len(records), frames_a_copy):
        await connection.copy_records_to_table("bare", records=records[at : at + frames_a_copy])
    elapsed_s = time.perf_counter() - started
    await connection.execute("drop table bare")
    await connection.close()
    return sum(frame.reading_count for frame in sample) / elapsed_s


def _event(frame: Frame) -> Any:
    return new_frame(
        telemetry_stream(frame.header.asset),
        frame,
        event_id=uuid.uuid4(),
        occurred_at=time_from_ns(frame.window_end_ns),
    )


@dataclass(frozen=True, slots=True)
class _Timed:
    name: str
    work: Callable[[], object]


def _stages(frame: Frame) -> dict[str, float]:
    """Return microseconds per frame of each step the server takes, alone on one core."""
    from projections.alert_rules import INITIAL, advance
    from projections.rollups import coarser, frame_seconds

    encoded = encode(frame)
    rule = TYPE.alert_rules[0]
    channel = TYPE.channel(rule.channel)
    index = next(n for n, c in enumerate(frame.header.channels) if c.name == rule.channel)
    steps = [
        _Timed("decode", lambda: decode(encoded)),
        _Timed("check", lambda: mark_out_of_range(frame, TYPE)),
        _Timed(
            "hash and statistics",
            lambda: new_frame(
                telemetry_stream("pump-000"),
                decode(encoded),
                event_id=uuid.uuid4(),
                occurred_at=datetime.now(UTC),
                encoded=encoded,
            ),
        ),
        _Timed("rollup", lambda: [coarser(g, 60) for g in frame_seconds(frame)]),
        _Timed(
            "alert rule",
            lambda: advance(
                rule, channel, INITIAL, frame.channel_times_ns(index), frame.channel_si(index)
            ),
        ),
    ]
    costs = {}
    for step in steps:
        step.work()
        started = time.perf_counter()
        for _ in range(200):
            step.work()
        costs[step.name] = (time.perf_counter() - started) / 200 * 1e6
    costs["hash and statistics"] -= costs["decode"]
    return costs
