"""GraphQL: processor time of the server a request, beside a bare Starlette of the same bytes.

Both servers run one process each; they are asked in turn over kept connections, each question in
several rounds, so that what a noisy machine adds meets both.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import orjson

from api.access.development import make_token
from api.access.rights import Role
from benchmarks.graphql_server import (
    ASSETS,
    LEDGER,
    READ_ASSET,
    READ_CHANNEL,
    READ_FROM,
    READ_TO,
    THREAD_LOT,
    THREAD_NODES,
)
from benchmarks.ingest import ROWS_A_FRAME, _frames, _register
from benchmarks.report import Figure, Report
from benchmarks.scratch import run_as_served, scratch_server
from domain.asset import telemetry_stream
from domain.frames import time_from_ns
from domain.material.lot import ReceiveLot
from domain.material.part import CreatePart
from eventlog.commands import handle
from eventlog.database import create_pool
from eventlog.envelope import new_frame
from eventlog.ledger import Ledger
from projections.telemetry.readings import POINTS_MAX

START_S_MAX: Final = 60.0
WARM_UP: Final = 160

TRIVIAL: Final = "query Trivial { __typename }"
SIX_FIELDS: Final = (
    "query Assets { assets(first: 100) { nodes "
    "{ id assetId title lifecycle version registeredAt } } }"
)
TWINS: Final = (
    "query Twins { assets(first: 100) { nodes { assetId twin { connectivity lastReadingAt "
    "openAlertCount position health { status index } } } } }"
)
READINGS: Final = (
    f'query Readings {{ asset(assetId: "{READ_ASSET}") {{ readings(from: "{READ_FROM}", '
    f'to: "{READ_TO}", channels: ["{READ_CHANNEL}"], maxPoints: {POINTS_MAX}) '
    "{ channel timesMs values } } }"
)


THREAD: Final = (
    f'query Thread {{ trace(roots: ["lot:{THREAD_LOT}"], direction: FORWARD, '
    f"first: {THREAD_NODES}) {{ nodes {{ key kind state depth firstPosition }} "
    "links { kind cause effect position } } }"
)


@dataclass(frozen=True, slots=True)
class Question:
    """A document, where its bare answer is, and at most how many times its cost is the goal."""

    document: str
    path: str
    source: str
    goal: float | None


QUESTIONS: Final = {
    "trivial": Question(TRIVIAL, "/trivial", "database", 4.0),
    "100_assets_from_memory": Question(SIX_FIELDS, "/assets", "memory", 3.0),
    "100_assets_from_database": Question(SIX_FIELDS, "/assets", "database", 1.5),
    "100_judged_twins_from_database": Question(TWINS, "/twins", "database", 1.5),
    "1000_thread_nodes": Question(THREAD, "/thread", "database", 2.0),
    "10000_readings": Question(READINGS, "/readings", "database", 2.0),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--requests", type=int, default=300, help="a round and question")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--only", choices=sorted(QUESTIONS), action="append")


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    with scratch_server() as scratch, ExitStack() as stack:
        asyncio.run(_register(scratch.url, ASSETS))
        asyncio.run(_record(scratch.url))
        servers = {
            (kind, source): stack.enter_context(_server(kind, source, scratch.url, scratch.folder))
            for kind in ("heddle", "bare")
            for source in ("database", "memory")
        }
        token = make_token(
            scratch.folder,
            LEDGER,
            actor="user:bench",
            roles=[Role.VIEWER],
            locations=None,
            life=timedelta(hours=1),
            now=datetime.now(UTC),
        )
        return run_as_served(_measure(arguments, servers, token))


async def _record(database_url: str) -> None:
    """Put the readings and the thread that are asked for into the log."""
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, LEDGER)
    received = ReceiveLot(THREAD_LOT, "steel", 1e6, "kg", "Nordstahl", "N-1")
    made = [
        CreatePart(f"SN-{n:05d}", "GEAR-31", lot_id=THREAD_LOT) for n in range(THREAD_NODES - 1)
    ]
    for command in (received, *made):
        await handle(
            ledger,
            command,
            actor="benchmark",
            occurred_at=datetime.now(UTC),
            event_id=lambda _: uuid.uuid4(),
        )
    frames = _frames(POINTS_MAX // ROWS_A_FRAME, 1)
    try:
        await ledger.append(
            [
                new_frame(
                    telemetry_stream(frame.header.asset),
                    frame,
                    event_id=uuid.uuid4(),
                    occurred_at=time_from_ns(frame.window_end_ns),
                )
                for frame in frames
            ]
        )
    finally:
        await ledger.close()
        await pool.close()


@dataclass(frozen=True, slots=True)
class _Server:
    port: int
    pid: int

    def cpu_s(self) -> float:
        """Return the processor time it has taken, seconds."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


@contextmanager
def _server(kind: str, source: str, database_url: str, folder: Path) -> Iterator[_Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.graphql_server", kind, str(port)]
    process = subprocess.Popen([*command, database_url, str(folder), source])
    try:
        ends = time.monotonic() + START_S_MAX
        while True:
            with socket.socket() as asking:
                if asking.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None or time.monotonic() > ends:
                raise SystemExit(f"the server {kind} did not start")
            time.sleep(0.05)
        yield _Server(port, process.pid)
    finally:
        process.terminate()
        process.wait()


@dataclass(slots=True)
class _Taken:
    """What requests took: processor time each, a round; and latencies."""

    cpu_us: list[float] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)

    def percentile_ms(self, share: float) -> float:
        """Return the latency that `share` of the requests stayed under, ms."""
        return sorted(self.latency_s)[int(share * (len(self.latency_s) - 1))] * 1e3


async def _measure(
    arguments: argparse.Namespace, servers: dict[tuple[str, str], _Server], token: str
) -> Report:
    report = Report("graphql")
    notes = []
    for name, question in QUESTIONS.items():
        if arguments.only and name not in arguments.only:
            continue
        requests = {
            "heddle": _request("/graphql", {"query": question.document}, token),
            "bare": _request(question.path, {"query": question.document}, None),
        }
        taken = {kind: _Taken() for kind in requests}
        bodies = set()
        async with AsyncExitStack() as stack:
            kept = {}
            for kind, request in requests.items():
                port = servers[kind, question.source].port
                kept[kind] = [
                    await stack.enter_async_context(_connection(port))
                    for _ in range(arguments.connections)
                ]
                bodies |= set(await _ask(kept[kind], request, WARM_UP, _Taken()))
            if len(bodies) != 1:
                raise SystemExit(f"{name}: the answers differ: {[body[:300] for body in bodies]}")
            for _ in range(arguments.rounds):
                for kind, request in requests.items():
                    server = servers[kind, question.source]
                    asked = len(taken[kind].latency_s)
                    before_s = server.cpu_s()
                    await _ask(kept[kind], request, arguments.requests, taken[kind])
                    spent_s = server.cpu_s() - before_s
                    asked = len(taken[kind].latency_s) - asked
                    taken[kind].cpu_us.append(spent_s / asked * 1e6)
        ours, bare = (statistics.median(taken[kind].cpu_us) for kind in ("heddle", "bare"))
        goal = None if question.goal is None else question.goal * bare
        report.figures[name] = Figure(ours, "us CPU", bare, goal, ceiling=True)
        p50, p99 = (taken["heddle"].percentile_ms(share) for share in (0.5, 0.99))
        report.figures[f"{name}_p99"] = Figure(p99, "ms", p50, 4 * p50, ceiling=True)
        notes.append(f"{name} {len(next(iter(bodies))):,} bytes")
    report.notes = [
        f"limit: bare Starlette and orjson (and asyncpg) answering the same bytes, CPU us a "
        f"request; of p99: p50. {arguments.connections} connections, {arguments.rounds} rounds of "
        f"{arguments.requests}; authenticated by a token, limits on, spans recorded and dropped",
        "; ".join(notes),
    ]
    return report


def _request(path: str, body: object, token: str | None) -> bytes:
    content = orjson.dumps(body)
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Accept: application/json\r\n{authorization}Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def _connection(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def _ask(
    connections: Sequence[Connection], request: bytes, requests: int, taken: _Taken
) -> list[bytes]:
    """Send `request` so often over all of `connections`; return the last body of each."""

    async def keep_asking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        body = b""
        for _ in range(max(1, requests // len(connections))):
            started_s = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise SystemExit(f"answered {head!r}")
            _, _, rest = head.lower().partition(b"content-length: ")
            body = await reader.readexactly(int(rest.partition(b"\r\n")[0]))
            taken.latency_s.append(time.perf_counter() - started_s)
        return body

    return await asyncio.gather(*(keep_asking(*connection) for connection in connections))
