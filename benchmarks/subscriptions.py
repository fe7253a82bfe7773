"""Subscriptions: one document, many sockets; deliveries, latency, processor time, memory.

`heddle serve` as it is, with tokens and limits, in one process; the subscribers on plain sockets in
another; a third appends events. Beside it the limit: one ready frame written to every socket by the
same protocol, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import uvloop

from api.access.development import make_token
from api.access.rights import Role
from api.graphql.relay import encode_cursor
from benchmarks.report import Figure, Report
from benchmarks.scratch import Scratch, scratch_server
from domain.asset import RegisterAsset, SetpointDesired, asset_stream
from eventlog.commands import handle
from eventlog.database import create_pool
from eventlog.envelope import NewEvent, new_fact
from eventlog.ledger import Ledger

LEDGER: Final = "plant-1"
ASSET: Final = "pump-000"
START_S_MAX: Final = 60.0
ACTOR: Final = "user:bench"
DOCUMENT: Final = (
    "subscription Follow($after: Cursor) { events(after: $after) "
    "{ cursor lag event { position stream type version occurredAt actor fact } } }"
)
DELIVERIES_GOAL: Final = 100_000
DELIVERY_CPU_US_GOAL: Final = 9.0
P99_MS_GOAL: Final = 250.0
HALF_P99_MS_GOAL: Final = 100.0
SOCKET_KB_GOAL: Final = 60.0
SETTLE_S: Final = 1.0
BARE_S: Final = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--sockets", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each rate")
    parser.add_argument("--rate", type=int, default=120_000, help="deliveries a second, offered")
    parser.add_argument("--commits", type=float, default=25.0, help="commits a second at that rate")


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    report = Report("subscriptions")
    with scratch_server() as scratch:
        asyncio.run(_register(scratch.url))
        token = make_token(
            scratch.folder,
            LEDGER,
            actor=ACTOR,
            roles=[Role.VIEWER],
            locations=None,
            life=timedelta(hours=1),
            now=datetime.now(UTC),
        )
        with ExitStack() as stack:
            _measure(arguments, scratch, token, report, stack)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return report


def _measure(
    arguments: argparse.Namespace, scratch: Scratch, token: str, report: Report, stack: ExitStack
) -> None:
    sockets = arguments.sockets
    server = stack.enter_context(_heddle(scratch))
    with _subscribers(server, 50, token) as few:
        few.wait_for("subscribed")
        time.sleep(SETTLE_S)
        before_kb = server.memory_kb()
    subscribers = stack.enter_context(_subscribers(server, sockets, token))
    subscribers.wait_for("subscribed")
    time.sleep(3 * SETTLE_S)
    socket_kb = (server.memory_kb() - before_kb) / sockets
    _append(scratch.url, 1, 1.0, 1)
    subscribers.wait_for("live")

    per_s = arguments.rate / sockets
    half = _deliver(
        arguments,
        scratch,
        server,
        subscribers,
        commits_per_s=min(per_s, DELIVERIES_GOAL / sockets) / 2,
        events_a_commit=1,
    )
    full = _deliver(
        arguments,
        scratch,
        server,
        subscribers,
        commits_per_s=arguments.commits,
        events_a_commit=max(1, round(per_s / arguments.commits)),
    )
    stack.close()

    bare_us, _ = _bare(sockets, full.frame_bytes, per_s, token)
    _, bare_per_s = _bare(sockets, full.frame_bytes, 0, token)
    report.figures["deliveries_per_s"] = Figure(full.per_s, "1/s", bare_per_s, DELIVERIES_GOAL)
    report.figures["delivery_cpu"] = Figure(
        full.cpu_us, "us CPU", bare_us, DELIVERY_CPU_US_GOAL, ceiling=True
    )
    report.figures["p99"] = Figure(full.p99_ms, "ms", None, P99_MS_GOAL, ceiling=True)
    report.figures["half_deliveries_per_s"] = Figure(half.per_s, "1/s", None, None)
    report.figures["half_delivery_cpu"] = Figure(half.cpu_us, "us CPU", bare_us, None)
    report.figures["half_p50"] = Figure(half.p50_ms, "ms", None, None)
    report.figures["half_p99"] = Figure(half.p99_ms, "ms", None, HALF_P99_MS_GOAL, ceiling=True)
    report.figures["idle_socket"] = Figure(socket_kb, "kB", None, SOCKET_KB_GOAL, ceiling=True)
    report.notes = [
        f"{sockets} graphql-transport-ws sockets on one document, frames of {full.frame_bytes} "
        f"bytes; full: {arguments.commits:g} commits a second, half: each event a commit of its "
        "own; from before the commit is asked for until the client has read the message",
        f"every socket got every event once and in order; client {full.client_cpu:.2f} and "
        f"{half.client_cpu:.2f} cores; server {full.server_cpu:.2f} and {half.server_cpu:.2f}",
        "limit: one ready frame written to all sockets by the same protocol, CPU a delivery, and "
        "deliveries a second that the same clients take of it",
    ]


# --- processes ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Server:
    port: int
    process: subprocess.Popen[bytes]

    def cpu_s(self) -> float:
        """Return the processor time it has taken, seconds."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def memory_kb(self) -> float:
        """Return its resident memory, kB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return float(line.split()[1])
        raise SystemExit("the server has no memory")


@contextmanager
def _started(command: list[str], port: int, environment: dict[str, str]) -> Iterator[_Server]:
    process = subprocess.Popen(command, env=os.environ | environment)
    try:
        ends = time.monotonic() + START_S_MAX
        while True:
            with socket.socket() as asking:
                if asking.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None or time.monotonic() > ends:
                raise SystemExit(f"{command} did not start")
            time.sleep(0.05)
        yield _Server(port, process)
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _heddle(scratch: Scratch) -> AbstractContextManager[_Server]:
    port = _free_port()
    environment = {
        "HEDDLE_DATABASE_URL": scratch.url,
        "HEDDLE_DATA_DIR": str(scratch.folder),
        "HEDDLE_LEDGER": LEDGER,
        "HEDDLE_DEV_TOKENS": "yes",
    }
    command = [sys.executable, "-m", "api.cli", "serve", "--port", str(port)]
    return _started(command, port, environment)


def _bare(sockets: int, frame_bytes: int, rate: float, token: str) -> tuple[float, float]:
    """Return processor time a delivery, us, and deliveries a second, of nothing but frames."""
    port = _free_port()
    command = [sys.executable, "-m", "benchmarks.subscription_server"]
    options = [str(port), str(sockets), str(frame_bytes), str(rate)]
    with (
        _started([*command, *options], port, {}) as server,
        _subscribers(server, sockets, token) as subscribers,
    ):
        subscribers.wait_for("subscribed")
        subscribers.wait_for("live")
        cpu_s, began_s = server.cpu_s(), time.monotonic()
        subscribers.tell("record")
        subscribers.wait_for("recording")
        time.sleep(BARE_S)
        subscribers.tell("stop")
        told = json.loads(subscribers.line())
        cpu_s, took_s = server.cpu_s() - cpu_s, time.monotonic() - began_s
        return cpu_s / told["messages"] * 1e6, told["messages"] / took_s


class _Subscribers:
    """The process of the sockets."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def wait_for(self, word: str) -> None:
        """Return once it says `word`."""
        said = self.line()
        if said != word:
            raise SystemExit(f"the subscribers said {said!r}, not {word!r}")

    def tell(self, command: str) -> None:
        """Give it a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def line(self) -> str:
        """Return what it says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def _subscribers(server: _Server, sockets: int, token: str) -> Iterator[_Subscribers]:
    after = encode_cursor("events", LEDGER, 1)
    command = [sys.executable, "-m", "benchmarks.subscription_client"]
    process = subprocess.Popen(
        [*command, str(server.port), str(sockets), token, DOCUMENT, after],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield _Subscribers(process)
    finally:
        process.kill()
        process.communicate()


# --- what happens -------------------------------------------------------------------------


async def _register(database_url: str) -> None:
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, LEDGER)
    try:
        await handle(
            ledger,
            RegisterAsset(ASSET, "skab-pump-loop", "Pump"),
            actor=ACTOR,
            occurred_at=datetime.now(UTC),
            event_id=lambda _: uuid.uuid4(),
        )
    finally:
        await ledger.close()
        await pool.close()


def _happening(number: int) -> NewEvent:
    return new_fact(
        asset_stream(ASSET),
        SetpointDesired(ASSET, "flow", 1e-4 + number * 1e-9),
        event_id=uuid.uuid4(),
        occurred_at=datetime.now(UTC),
        actor=ACTOR,
    )


async def _appended(
    database_url: str, commits: int, per_s: float, events: int
) -> tuple[list[float], int]:
    """Commit at a steady rate; return when each event's commit was asked for, and the last one."""
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, LEDGER)
    asked_s: list[float] = []
    try:
        due_s = time.monotonic()
        position = 0
        for number in range(commits):
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            due_s += 1 / per_s
            asked_s += [time.monotonic()] * events
            appended = await ledger.append([_happening(number * events + n) for n in range(events)])
            position = appended.position
    finally:
        await ledger.close()
        await pool.close()
    return asked_s, position


def _append(database_url: str, commits: int, per_s: float, events: int) -> tuple[list[float], int]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_appended(database_url, commits, per_s, events))


@dataclass(frozen=True, slots=True)
class _Delivered:
    per_s: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    frame_bytes: int
    client_cpu: float
    server_cpu: float


def _deliver(
    arguments: argparse.Namespace,
    scratch: Scratch,
    server: _Server,
    subscribers: _Subscribers,
    *,
    commits_per_s: float,
    events_a_commit: int,
) -> _Delivered:
    """Append for a while; return what came of it at the subscribers."""
    subscribers.tell("record")
    subscribers.wait_for("recording")
    path = scratch.folder / "delivered.npz"
    commits = max(1, round(arguments.seconds * commits_per_s))
    cpu_s = server.cpu_s()
    asked_s, last = _append(scratch.url, commits, commits_per_s, events_a_commit)
    subscribers.tell(f"until {last} {path}")
    said = subscribers.line()
    cpu_s = server.cpu_s() - cpu_s
    if not said.startswith("{"):
        raise SystemExit("not everything was delivered")
    told = json.loads(said)
    with np.load(path) as noted:
        at_s = np.repeat(noted["at_s"], noted["counts"])
        positions = noted["positions"]
    first = last - len(asked_s) + 1
    deliveries = len(asked_s) * arguments.sockets
    if told["wrong"] or len(positions) != deliveries or positions.min() != first:
        raise SystemExit(f"{told['wrong']} sockets were told otherwise than in order")
    waited_ms = (at_s - np.array(asked_s)[positions - first]) * 1e3
    took_s = float(at_s.max() - asked_s[0])
    return _Delivered(
        deliveries / took_s,
        cpu_s / deliveries * 1e6,
        float(np.percentile(waited_ms, 50)),
        float(np.percentile(waited_ms, 99)),
        told["frame_bytes"],
        told["cpu_s"] / took_s,
        cpu_s / took_s,
    )
