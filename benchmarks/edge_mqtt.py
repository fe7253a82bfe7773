"""A Mosquitto broker, and a process that publishes what the assets of the edge benchmark measure.

``python -m benchmarks.edge_mqtt PORT BENCHES PUMPS RIGS``: publishes one message an asset ten times
a second until it is ended, and of the rigs another one with a tenth of a second of their waveforms.
"""

from __future__ import annotations

import heapq
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import orjson
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from api.demo_broker import running_broker
from benchmarks.edge_site import PERIOD_S, RIG_RATE_HZ, WAVEFORMS, Site

ROUNDS: Final = 50
"""Messages of an asset that are made beforehand; then they come round with other times."""
UNACKNOWLEDGED_MAX: Final = 10_000
DIGITS: Final = 6


@contextmanager
def broker(program: str, cores: set[int]) -> Iterator[int]:
    """Run a broker on `cores` and yield its port."""
    settings = (
        "log_type none",
        "max_queued_messages 0",
        f"max_inflight_messages {UNACKNOWLEDGED_MAX}",
    )
    with tempfile.TemporaryDirectory(prefix="heddle-bench-broker-") as folder:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        with running_broker(
            program, port, Path(folder), lambda: os.sched_setaffinity(0, cores), *settings
        ) as answers:
            if not answers:
                raise RuntimeError(f"{program} does not answer at port {port}")
            yield port


@contextmanager
def publishing(site: Site, cores: set[int]) -> Iterator[None]:
    """Run a process on `cores` that publishes what the assets of `site` measure."""
    told = (site.broker_port, site.benches, site.pumps, site.rigs)
    running = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.edge_mqtt", *map(str, told)],
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    try:
        yield
    finally:
        running.terminate()
        running.wait()


# --- the publisher ------------------------------------------------------------------------


def _messages(site: Site) -> dict[tuple[str, bool], list[bytes]]:
    """Return what each asset tells, without the brace and the time it begins with.

    By asset, and whether it is about waveforms.
    """
    random = np.random.default_rng(1)
    found: dict[tuple[str, bool], list[bytes]] = {}
    for asset, levels in site.levels().items():
        noise = 1 + 0.01 * random.standard_normal((ROUNDS, len(levels)))
        rows = (noise * np.array(list(levels.values()))).tolist()
        found[asset, False] = [
            orjson.dumps(dict(zip(levels, row, strict=True)))[1:] for row in rows
        ]
    count = round(RIG_RATE_HZ * PERIOD_S)
    for n in range(site.rigs):
        found[f"rig-{n}", True] = [
            orjson.dumps(
                {
                    name: np.round(random.normal(0, 0.1, count), DIGITS).tolist()
                    for name in WAVEFORMS
                }
            )[1:]
            for _ in range(ROUNDS)
        ]
    return found


def publish(site: Site) -> None:
    """Publish for ever, each asset at its own moment of the period."""
    client = Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(UNACKNOWLEDGED_MAX)
    client.connect("127.0.0.1", site.broker_port or 0)
    client.loop_start()
    messages = _messages(site)
    begin_s, begin_ms = time.monotonic(), time.time_ns() // 1_000_000
    due = [(PERIOD_S * n / len(messages), told, 0) for n, told in enumerate(messages)]
    heapq.heapify(due)
    while True:
        due_s, told, count = due[0]
        time.sleep(max(0.0, begin_s + due_s - time.monotonic()))
        heapq.heapreplace(due, (due_s + PERIOD_S, told, count + 1))
        asset, is_waveform = told
        at_ms = time.time_ns() // 1_000_000
        if is_waveform:  # the time of its first sample, without a gap to the one before
            at_ms = begin_ms + round(1e3 * PERIOD_S) * (count - 1)
        body = messages[told][count % ROUNDS]
        client.publish(f"bench/{asset}", b'{"ts":%d,' % at_ms + body, qos=1)


if __name__ == "__main__":
    PORT, BENCHES, PUMPS, RIGS = map(int, sys.argv[1:])
    publish(Site(BENCHES, PUMPS, RIGS, PORT))
