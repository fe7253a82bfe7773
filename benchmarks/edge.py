"""The edge agent on one core: draining an outbox, and live sources with features and a model.

The agent runs in a process of its own, bound to one core; beside it a server that says `accepted`
to every frame and keeps none, so that the figures are the agent's. The outbox is a real one,
fsynced, on this machine's disk. What a protocol's own parsing takes is not in here.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from benchmarks.report import Figure, Report

START_S_MAX = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--frames", type=int, default=10_000, help="of 1,000 readings, to drain")
    parser.add_argument("--benches", type=int, default=50, help="of 17 channels at 10 Hz")
    parser.add_argument("--pumps", type=int, default=19, help="of 8, which a model looks at")
    parser.add_argument("--rigs", type=int, default=4, help="of 2 waveforms at 12 kHz")
    parser.add_argument("--seconds", type=float, default=20.0, help="of live readings")


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    report = Report("edge")
    with _accepting() as url:
        drained = _agent("drain", url, arguments.frames)
        counts = arguments.benches, arguments.pumps, arguments.rigs
        lived = _agent("live", url, *counts, arguments.seconds)
    figures = report.figures
    figures["outbox drains"] = Figure(drained["readings_per_s"], "readings/s", goal=2e6)
    figures["outbox drains, of its core's time"] = Figure(
        drained["readings_per_cpu_s"], "readings/s"
    )
    figures["live readings"] = Figure(lived["readings_per_s"], "readings/s")
    figures["live: one core"] = Figure(lived["cpu_percent"], "%", goal=60, ceiling=True)
    figures["live: memory"] = Figure(lived["memory_mib"], "MiB", goal=250, ceiling=True)
    figures["source to acknowledged p50"] = Figure(lived["acknowledged_p50_ms"], "ms")
    figures["source to acknowledged p99"] = Figure(
        lived["acknowledged_p99_ms"], "ms", goal=250, ceiling=True
    )
    figures["window to prediction p99"] = Figure(
        lived["prediction_p99_ms"], "ms", goal=30, ceiling=True
    )
    report.notes.append(
        f"{arguments.benches} assets x 17 and {arguments.pumps} x 8 channels at 10 Hz (50 x 20 "
        f"together), {2 * arguments.rigs} waveforms at 12 kHz, windows of 100 ms, features of "
        "1 s, the anomaly model on every pump each second"
    )
    return report


def _agent(*arguments: object) -> dict[str, float]:
    """Run one agent on one core and return what it tells."""
    core = max(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.edge_load", *map(str, arguments)],
        stdout=subprocess.PIPE,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def _accepting() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.edge_acceptor", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        deadline_s = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline_s:
            try:
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        server.wait()
