"""Exports through HTTP in every format, beside the same bytes copied through a socket bare.

The server runs in a process of its own on a log of skab's readings; a client counts rows and
throws them away.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import threading
import time
from pathlib import Path
from typing import Final

import httpx

from benchmarks.ingest import (
    LEDGER,
    READINGS_A_FRAME,
    _frames,
    _free_port,
    _peak_mib,
    _register,
    _serving,
)
from benchmarks.report import Figure, Report
from benchmarks.scratch import scratch_server
from domain.asset import telemetry_stream
from domain.frames import time_from_ns
from domain.identifiers import uuid7
from eventlog.database import create_pool
from eventlog.envelope import new_frame
from eventlog.ledger import Ledger

ASSETS: Final = 8
FRAMES_AN_APPEND: Final = 200
SOCKET_BYTES: Final = 256 * 1024
FORMATS: Final = {"arrow": 1_000_000, "parquet": None, "csv": None, "ndjson": None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--readings", type=int, default=8_000_000, help="readings to export")
    parser.add_argument("--slow", type=int, default=1_000_000, help="of those, as text")


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    with scratch_server() as server:
        return _measure(arguments, server.folder, server.url)


def _measure(arguments: argparse.Namespace, folder: Path, database_url: str) -> Report:
    frames = arguments.readings // READINGS_A_FRAME
    asyncio.run(_record(database_url, frames))
    report = Report("exports")
    port = _free_port()
    environment = {
        "HEDDLE_DATABASE_URL": database_url,
        "HEDDLE_DATA_DIR": str(folder),
        "HEDDLE_LEDGER": LEDGER,
        "HEDDLE_PORT": str(port),
    }
    command = ["-m", "api.cli", "serve"]
    with _serving(command, environment, port) as (_, url):
        _wait(url)  # folding takes memory of its own: what exports is a server started afresh
    with _serving(command, environment, port) as (process, url):
        before_mib = _peak_mib(process.pid)
        for form, goal in FORMATS.items():
            readings = arguments.readings if goal else min(arguments.slow, arguments.readings)
            assets = max(1, round(ASSETS * readings / arguments.readings))
            exported = frames * READINGS_A_FRAME * assets / ASSETS
            elapsed_s, size = _fetch(url, form, assets)
            report.figures[f"{form}_readings_per_s"] = Figure(
                exported / elapsed_s, "readings/s", exported / _bare_s(size), goal
            )
            report.figures[f"{form}_bytes_a_reading"] = Figure(size / exported, "bytes")
            if goal:
                peak_mib = _peak_mib(process.pid)
                report.figures["server_memory_peak"] = Figure(
                    peak_mib, "MiB", before_mib, 300, ceiling=True
                )
    report.notes = [
        f"{frames * READINGS_A_FRAME:,} readings of skab, {ASSETS} assets, all of them as Arrow, "
        f"{arguments.slow:,} in the other formats, one client; limit: the same bytes through a "
        "socket on this machine; memory: the server's peak after the Arrow export, beside its "
        "peak before"
    ]
    return report


def _fetch(url: str, form: str, assets: int) -> tuple[float, int]:
    """Return how long an export took, s, and its size in bytes."""
    names = ",".join(f"pump-{n:03d}" for n in range(assets))
    started = time.perf_counter()
    size = 0
    address = f"{url}/v1/export/readings"
    parameters = {"format": form, "assets": names}
    with httpx.stream("GET", address, params=parameters, timeout=120) as response:
        response.raise_for_status()
        for part in response.iter_raw(SOCKET_BYTES):
            size += len(part)
    return time.perf_counter() - started, size


def _bare_s(size: int) -> float:
    """Return how long `size` bytes take through a socket of this machine, s."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def give() -> None:
            connection, _ = listener.accept()
            with connection:
                block = bytes(SOCKET_BYTES)
                for at in range(0, size, SOCKET_BYTES):
                    connection.sendall(block[: size - at])

        giver = threading.Thread(target=give)
        started = time.perf_counter()
        giver.start()
        with socket.create_connection(listener.getsockname()) as taker:
            while taker.recv(SOCKET_BYTES):
                pass
        giver.join()
        return time.perf_counter() - started


def _wait(url: str) -> None:
    """Wait until everything is folded."""
    while True:
        ready = httpx.get(f"{url}/readyz").json()
        if all(p["position"] >= ready["position"] for p in ready["projections"].values()):
            return
        time.sleep(0.1)


async def _record(database_url: str, frames: int) -> None:
    await _register(database_url, ASSETS)
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, LEDGER)
    events = []
    for frame in _frames(frames, ASSETS):
        events.append(
            new_frame(
                telemetry_stream(frame.header.asset),
                frame,
                event_id=uuid7(1_700_000_000_000, os.urandom(10)),
                occurred_at=time_from_ns(frame.window_end_ns),
            )
        )
        if len(events) == FRAMES_AN_APPEND:
            await ledger.append(events)
            events = []
    if events:
        await ledger.append(events)
    await ledger.close()
    await pool.close()
