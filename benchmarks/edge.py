"""The edge agent on one core: draining an outbox, and live sources with features and a model.

The agent runs in a process of its own, bound to one core; on another core, where there is one, a
server says `accepted` to every frame and keeps none, so that the figures are the agent's: CPU time
and memory of its process alone. The outbox is a real one, fsynced, on this machine's disk. From a
reading's own time until its acknowledgement is on disk is what `source to acknowledged` tells,
the wait for the window's end included. Once without a protocol's own parsing, and once over MQTT,
from a process that publishes JSON at Mosquitto.
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
from dataclasses import replace

import httpx

from api.demo_broker import find_mosquitto
from benchmarks.edge_mqtt import broker, publishing
from benchmarks.edge_site import Site
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
        site = Site(arguments.benches, arguments.pumps, arguments.rigs)
        lived = _live(url, site, arguments.seconds)
        heard = _heard(url, site, arguments.seconds)
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
    if heard is not None:
        figures["over MQTT: readings"] = Figure(heard["readings_per_s"], "readings/s")
        figures["over MQTT: one core"] = Figure(heard["cpu_percent"], "%")
        figures["over MQTT: memory"] = Figure(heard["memory_mib"], "MiB")
        figures["over MQTT: published to acknowledged p50"] = Figure(
            heard["acknowledged_p50_ms"], "ms"
        )
        figures["over MQTT: published to acknowledged p99"] = Figure(
            heard["acknowledged_p99_ms"], "ms"
        )
    report.notes.append(
        f"{arguments.benches} assets x 17 and {arguments.pumps} x 8 channels at 10 Hz (50 x 20 "
        f"together), {2 * arguments.rigs} waveforms at 12 kHz, windows of 100 ms, features of "
        "1 s, the anomaly model on every pump each second"
    )
    return report


def _heard(url: str, site: Site, seconds: float) -> dict[str, float] | None:
    """Return what the agent takes at a broker, None where none is installed."""
    program = find_mosquitto()
    if program is None:
        return None
    with broker(program, _other_cores()) as port:
        heard_site = replace(site, broker_port=port)
        with publishing(heard_site, _other_cores()):
            return _live(url, heard_site, seconds)


def _live(url: str, site: Site, seconds: float) -> dict[str, float]:
    counts = site.benches, site.pumps, site.rigs
    return _agent("live", url, *counts, site.broker_port or 0, seconds)


def _agent(*arguments: object) -> dict[str, float]:
    """Run one agent on one core and return what it tells."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.edge_load", *map(str, arguments)],
        stdout=subprocess.PIPE,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {_agent_core()}),
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _agent_core() -> int:
    return max(os.sched_getaffinity(0))


def _other_cores() -> set[int]:
    """Return where everything but the agent runs: the agent's core where there is no other."""
    cores = os.sched_getaffinity(0)
    return cores - {_agent_core()} or cores


@contextmanager
def _accepting() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.edge_acceptor", str(port)],
        preexec_fn=lambda: os.sched_setaffinity(0, _other_cores()),
    )
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
