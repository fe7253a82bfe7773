"""Frames through HTTP into log, twins, alerts and rollups, and where the time goes.

A client in its own process sends ready-made batches of real skab windows to `heddle serve`; both
share the machine with the embedded PostgreSQL, fsync on. A second, shorter run under a sampling
profiler says what the server's processor time is spent on.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import httpx
import numpy as np

from benchmarks.frame_client import Sent, send_all
from benchmarks.frame_copy import copy_frames
from benchmarks.report import Figure, Report
from benchmarks.scratch import scratch_server
from domain.asset import CommissionAsset, RegisterAsset, telemetry_stream
from domain.asset_types import asset_type
from domain.frame_batches import BATCH_MEDIA_TYPE, BatchItem, encode_batch
from domain.frame_checks import header_for
from domain.frame_encoding import encode_many
from domain.frames import Frame, build_frame, time_from_ns
from domain.identifiers import uuid7
from eventlog.commands import handle
from eventlog.database import connected, create_pool
from eventlog.envelope import NewEvent, new_frame
from eventlog.ledger import Ledger

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
READINGS_A_FRAME = ROWS_A_FRAME * len(COLUMNS)
LEDGER = "plant-1"
START_NS = 1_700_000_000_000_000_000
BARE_FRAMES_MAX = 4_000
PROFILED_FRAMES_MAX = 4_000
STAGE_SHARE_MIN = 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--readings", type=int, default=8_000_000, help="readings to send")
    parser.add_argument("--assets", type=int, default=40)
    parser.add_argument("--frames-a-request", type=int, default=20)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--profile", type=Path, help="keep the profile as JSON in this file")


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    with scratch_server() as server:
        return _measure(arguments, server.folder, server.url)


@dataclass(frozen=True, slots=True)
class _Load:
    """What one run of the server took, from the first request until all was folded."""

    frames: int
    sent: Sent
    folded_s: float
    cpu_s: dict[str, float]
    peak_mib: float

    @property
    def readings(self) -> int:
        return self.frames * READINGS_A_FRAME

    def cpu_us(self, process: str) -> float:
        """Return processor time a frame, microseconds."""
        return self.cpu_s[process] / self.frames * 1e6


def _measure(arguments: argparse.Namespace, folder: Path, database_url: str) -> Report:
    count = arguments.readings // READINGS_A_FRAME
    profiled = min(count, PROFILED_FRAMES_MAX)
    asyncio.run(_register(database_url, arguments.assets))
    frames = list(_frames(count + profiled, arguments.assets))
    bodies = _bodies(frames, arguments.frames_a_request)
    whole = -(-count // arguments.frames_a_request)
    sample = frames[:BARE_FRAMES_MAX]
    copy_rate = asyncio.run(_bare_copy(database_url, sample, arguments.frames_a_request))
    http_rate = _bare_http(bodies[:whole], count, arguments.connections)
    stored = asyncio.run(_log_bytes(database_url))
    load = _load(folder, database_url, bodies[:whole], count, arguments.connections)
    stored = asyncio.run(_log_bytes(database_url)) - stored
    traced_to = arguments.profile or folder / "profile.json"
    traced = _load(folder, database_url, bodies[whole:], profiled, arguments.connections, traced_to)
    report = Report("ingest")
    total_us = sum(load.cpu_us(process) for process in load.cpu_s)
    report.figures = {
        "log_and_projections_readings_per_s": Figure(
            load.readings / load.folded_s, "readings/s", copy_rate, 2_000_000
        ),
        "acknowledged_readings_per_s": Figure(
            load.readings / load.sent.elapsed_s, "readings/s", http_rate
        ),
        "processor_time_a_frame": Figure(total_us, "us", None, 1_000, ceiling=True),
        "readings_per_s_of_processor": Figure(READINGS_A_FRAME / total_us * 1e6, "readings/s"),
        "server_memory_peak": Figure(load.peak_mib, "MiB", None, 600, ceiling=True),
        "log_bytes_a_reading": Figure(stored / load.readings, "bytes"),
    }
    report.notes = [
        f"{load.readings:,} readings of skab in frames of {READINGS_A_FRAME:,}, "
        f"{arguments.assets} assets, {arguments.frames_a_request} frames a request, "
        f"{arguments.connections} connections; fsync on. Limits: COPY of the same event rows, "
        f"{arguments.frames_a_request} frames a transaction; Starlette answering the same bodies "
        "without work",
        "processor time, us a frame: "
        + ", ".join(f"{process} {load.cpu_us(process):.0f}" for process in load.cpu_s)
        + f"; {sum(load.cpu_s.values()):.1f} s in {load.folded_s:.1f} s on "
        f"{len(os.sched_getaffinity(0))} cores",
        "where the server's goes (sampled in a run of its own), us a frame: "
        + _stages(json.loads(traced_to.read_text()), traced.cpu_us("server")),
    ]
    return report


def _stages(profile: dict[str, dict[str, int]], server_us: float) -> str:
    stages = profile["stages"]
    samples = sum(stages.values())
    return ", ".join(
        f"{stage} {count / samples * server_us:.0f}"
        for stage, count in sorted(stages.items(), key=lambda item: -item[1])
        if count / samples >= STAGE_SHARE_MIN
    )


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


def _bodies(frames: Sequence[Frame], frames_a_request: int) -> list[bytes]:
    bodies = []
    for start in range(0, len(frames), frames_a_request):
        items = [
            BatchItem(uuid7(1_700_000_000_000, os.urandom(10)), encoded)
            for encoded in encode_many(frames[start : start + frames_a_request])
        ]
        bodies.append(encode_batch(items))
    return bodies


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


# --- the server under load ----------------------------------------------------------------


def _load(
    folder: Path,
    database_url: str,
    bodies: Sequence[bytes],
    frames: int,
    connections: int,
    profile: Path | None = None,
) -> _Load:
    """Send `bodies` to a server of its own and wait until every projection has folded them."""
    environment = {
        "HEDDLE_DATABASE_URL": database_url,
        "HEDDLE_DATA_DIR": str(folder),
        "HEDDLE_LEDGER": LEDGER,
    }
    command = ["-m", "api.cli", "serve"]
    if profile is not None:
        environment["HEDDLE_PROFILE"] = str(profile)
        command = ["-m", "benchmarks.profiled_server", "serve"]
    port = _free_port()
    environment["HEDDLE_PORT"] = str(port)
    with _serving(command, environment, port) as (process, url):
        before = _cpu_s(process.pid, folder)
        sent = send_all(
            f"{url}/v1/frames",
            bodies,
            content_type=BATCH_MEDIA_TYPE,
            connections=connections,
            wanted=b'"accepted"',
        )
        _wait_until_folded(url)
        folded_s = time.perf_counter() - sent.started
        cpu_s = {name: after - before[name] for name, after in _cpu_s(process.pid, folder).items()}
        peak_mib = _peak_mib(process.pid)
    return _Load(frames, sent, folded_s, {**cpu_s, "client": sent.cpu_s}, peak_mib)


@contextmanager
def _serving(
    command: Sequence[str], environment: dict[str, str], port: int
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    process = subprocess.Popen([sys.executable, *command], env=os.environ | environment)
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


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


def _cpu_s(server_pid: int, folder: Path) -> dict[str, float]:
    """Return seconds of processor time of the server, and of its PostgreSQL's processes, so far."""
    postmaster = int(next(folder.rglob("postmaster.pid")).read_text().split()[0])
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    spent = {"server": 0.0, "postgresql": 0.0}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        pid, parent = int(entry.name), int(fields[1])
        user, system, childrens_user, childrens_system = map(int, fields[11:15])
        if pid == server_pid:
            spent["server"] += (user + system) * tick_s
        elif pid == postmaster:  # with the backends that have ended
            spent["postgresql"] += (user + system + childrens_user + childrens_system) * tick_s
        elif parent == postmaster:
            spent["postgresql"] += (user + system) * tick_s
    return spent


async def _log_bytes(database_url: str) -> float:
    connection = await asyncpg.connect(database_url)
    size: int = await connection.fetchval(
        "select sum(pg_total_relation_size(relid)) from pg_partition_tree('event')"
    )
    await connection.close()
    return float(size)


# --- limits -------------------------------------------------------------------------------


async def _bare_copy(database_url: str, frames: Sequence[Frame], frames_a_copy: int) -> float:
    async with connected(database_url) as connection:
        return await copy_frames(connection, [_event(frame) for frame in frames], frames_a_copy)


def _event(frame: Frame) -> NewEvent:
    return new_frame(
        telemetry_stream(frame.header.asset),
        frame,
        event_id=uuid.uuid4(),
        occurred_at=time_from_ns(frame.window_end_ns),
    )


def _bare_http(bodies: Sequence[bytes], frames: int, connections: int) -> float:
    """Return readings/s of a server that takes the same bodies and does nothing with them."""
    port = _free_port()
    with _serving(["-m", "benchmarks.bare_server", str(port)], {}, port) as (_, url):
        sent = send_all(
            f"{url}/v1/frames",
            bodies,
            content_type=BATCH_MEDIA_TYPE,
            connections=connections,
            wanted=b"",
        )
    return frames * READINGS_A_FRAME / sent.elapsed_s
