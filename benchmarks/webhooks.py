"""Webhooks: deliveries a second and their delay, beside the same requests sent bare.

The server runs in a process of its own; the receiver, a bare HTTP server, takes what it is sent and
answers 204. What is measured is the whole way: log, subscription, the database's delivery rows (one
transaction a hundred), signature, request, and the row of each that is settled.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpcore
import httpx
import numpy as np

from benchmarks.ingest import LEDGER, _free_port, _register, _serving
from benchmarks.report import Figure, Report
from benchmarks.scratch import scratch_server
from domain.asset import SetpointDesired, asset_stream
from eventlog.database import create_pool
from eventlog.envelope import new_fact
from eventlog.ledger import Ledger

ASSETS: Final = 50
APPEND_EVENTS: Final = 500
PARALLEL: Final = 8
PACED_S: Final = 0.02
ANSWER: Final = b"HTTP/1.1 204 No Content\r\n\r\n"
DOCUMENT: Final = (
    'subscription { events(filter: {types: ["asset.setpoint_desired"]}) '
    "{ event { position type stream occurredAt actor fact } } }"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--events", type=int, default=5_000, help="events to deliver at once")
    parser.add_argument("--paced", type=int, default=300, help="events to deliver one by one")


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    with scratch_server() as server:
        asyncio.run(_register(server.url, ASSETS))
        port = _free_port()
        environment = {
            "HEDDLE_DATABASE_URL": server.url,
            "HEDDLE_DATA_DIR": str(server.folder),
            "HEDDLE_LEDGER": LEDGER,
            "HEDDLE_PORT": str(port),
            "HEDDLE_WEBHOOK_HTTP": "yes",
            "HEDDLE_WEBHOOK_NETWORKS": "127.0.0.0/8",
            "HEDDLE_WEBHOOK_PORTS": "1024-65535",
            "HEDDLE_WEBHOOK_PARALLEL_MAX": str(PARALLEL),
        }
        with _serving(["-m", "api.cli", "serve"], environment, port) as (process, url):
            return asyncio.run(_measure(arguments, server.url, url, process.pid))


@dataclass
class Receiver:
    """What arrived, and when: seconds of this process's clock, by position in the log."""

    port: int = 0
    arrived_s: dict[int, float] = field(default_factory=dict)
    bodies: list[tuple[bytes, bytes]] = field(default_factory=list)
    requests: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take requests of one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                writer.write(ANSWER)
                self.requests += 1
                _, found, sequence = body.partition(b'"sequence":"')
                if found:
                    self.arrived_s.setdefault(int(sequence[:20]), time.perf_counter())
                if len(self.bodies) < 1:
                    self.bodies.append((head, body))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()  # the server, or the measurement, has ended


@asynccontextmanager
async def _receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver


async def _measure(arguments: argparse.Namespace, database_url: str, url: str, pid: int) -> Report:
    report = Report("webhooks")
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, LEDGER)
    try:
        async with _receiving() as receiver:
            await _create(url, receiver.port)
            delays_s = await _paced(ledger, receiver, arguments.paced)
            cpu_s, began_s = _cpu_s(pid), time.perf_counter()
            wanted = len(receiver.arrived_s) + arguments.events
            await _append(ledger, arguments.events)
            await _until(receiver, wanted)
            took_s, cpu_s = time.perf_counter() - began_s, _cpu_s(pid) - cpu_s
            bare_s = await _bare_s(receiver, arguments.events)
    finally:
        await ledger.close()
        await pool.close()
    report.figures = {
        "deliveries": Figure(
            arguments.events / took_s, "deliveries/s", arguments.events / bare_s, None
        ),
        "server_cpu": Figure(cpu_s / arguments.events * 1e6, "us CPU a delivery"),
        "commit_to_receiver_p50": Figure(float(np.percentile(delays_s, 50)) * 1e3, "ms"),
        "commit_to_receiver_p99": Figure(float(np.percentile(delays_s, 99)) * 1e3, "ms"),
    }
    report.notes = [
        f"{arguments.events:,} events of {ASSETS} streams, recorded at once; {PARALLEL} calls at "
        "once; each arrived; limit: the same request by the same client library on loopback, as "
        f"many at once, without a database; delay: {arguments.paced} events, one every "
        f"{PACED_S * 1e3:.0f} ms"
    ]
    return report


async def _create(url: str, port: int) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        given = {
            "idempotencyKey": uuid.uuid4().hex,
            "title": "Benchmark",
            "url": f"http://127.0.0.1:{port}/",
            "document": DOCUMENT,
        }
        document = (
            "mutation($input: CreateWebhookInput!) { createWebhook(input: $input) "
            "{ __typename ... on Error { message } } }"
        )
        answer = await http.post(
            f"{url}/graphql", json={"query": document, "variables": {"input": given}}
        )
        result: dict[str, Any] = answer.json()["data"]["createWebhook"]
        if result["__typename"] != "CreateWebhookSuccess":
            raise SystemExit(str(result))
    await asyncio.sleep(1.5)


async def _append(ledger: Ledger, events: int) -> int:
    """Append facts of many streams; return the last position."""
    position = 0
    for first in range(0, events, APPEND_EVENTS):
        facts = [
            new_fact(
                asset_stream(f"pump-{n % ASSETS:03d}"),
                SetpointDesired(f"pump-{n % ASSETS:03d}", "flow", 0.0004),
                event_id=uuid.uuid4(),
                occurred_at=datetime.now(UTC),
                actor="benchmark",
            )
            for n in range(first, min(first + APPEND_EVENTS, events))
        ]
        position = (await ledger.append(facts)).position
    return position


async def _paced(ledger: Ledger, receiver: Receiver, events: int) -> Sequence[float]:
    """Append events one by one; return by how much later each arrived, s."""
    committed_s = {}
    for _ in range(events):
        position = await _append(ledger, 1)
        committed_s[position] = time.perf_counter()
        await asyncio.sleep(PACED_S)
    await _until(receiver, events)
    return [receiver.arrived_s[position] - at_s for position, at_s in committed_s.items()]


async def _until(receiver: Receiver, wanted: int) -> None:
    async with asyncio.timeout(50):
        while len(receiver.arrived_s) < wanted:  # noqa: ASYNC110 (it counts what others send)
            await asyncio.sleep(0.005)


async def _bare_s(receiver: Receiver, requests: int) -> float:
    """Return how long as many requests take without all that a webhook does, s."""
    head, body = receiver.bodies[0]
    lines = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line]
    headers = [(name, value) for name, value in lines if name.lower() != b"content-length"]
    left = iter(range(requests))
    async with httpcore.AsyncConnectionPool(max_connections=PARALLEL) as pool:

        async def send() -> None:
            for _ in left:
                await pool.request(
                    "POST", f"http://127.0.0.1:{receiver.port}/", headers=headers, content=body
                )

        began_s = time.perf_counter()
        await asyncio.gather(*(send() for _ in range(PARALLEL)))
        return time.perf_counter() - began_s


def _cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used, s."""
    told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")
