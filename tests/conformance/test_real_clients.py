"""The npm clients graphql-ws and graphql-sse: nothing lost and nothing doubled on a bad line."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest

from eventlog.envelope import NewEvent
from eventlog.ledger import Ledger
from tests.api.graphql.server import Server
from tests.conformance.programs import run

pytestmark = pytest.mark.anyio

EVENTS = 2_000
CUTS = 40
CUTS_SEEN_MIN = 30
START_S_MAX = 60.0
PAYLOAD = b'{"asset_id":"pump-1","setpoint":"flow","value":0.001}'


class BadLine:
    """A proxy whose connections all break whenever it is told so."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._open: set[asyncio.StreamWriter] = set()
        self.was_used = asyncio.Event()
        self.port = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[BadLine]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
            self.cut()

    def cut(self) -> int:
        """Break every connection; return how many there were."""
        broken, self._open = self._open, set()
        for writer in broken:
            writer.transport.abort()
        return len(broken)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beyond, onwards = await asyncio.open_connection(*self._to)
        self._open.add(writer)
        self.was_used.set()
        ways = [
            asyncio.create_task(_forward(reader, onwards)),
            asyncio.create_task(_forward(beyond, writer)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        self._open.discard(writer)
        for end in (writer, onwards):
            end.transport.abort()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while part := await reader.read(65_536):
            writer.write(part)
            await writer.drain()
    except OSError:
        return  # it was cut


@pytest.mark.parametrize("transport", ["ws", "sse"])
async def test_client_on_a_bad_line_gets_every_event_once_and_in_order(
    node: str, own_server: Server, transport: str
) -> None:
    to = urlsplit(own_server.url)
    assert to.hostname is not None
    assert to.port is not None
    async with BadLine(to.hostname, to.port).listening() as line:
        address = f"http://127.0.0.1:{line.port}/graphql"
        client = asyncio.create_task(
            run(
                node,
                "follow_events.mjs",
                transport,
                address,
                str(EVENTS),
                own_server.cursor(0),
            )
        )
        async with asyncio.timeout(START_S_MAX):
            await line.was_used.wait()  # Node takes its time to begin
        cuts = 0
        recorded = 0
        while recorded < EVENTS:
            await _record(own_server.ledger, EVENTS // CUTS // 2)
            recorded += EVENTS // CUTS // 2
            await asyncio.sleep(0.05)
            if recorded % (EVENTS // CUTS) == 0:
                cuts += bool(line.cut())
        told = json.loads(await client)

    assert told["positions"] == list(range(1, EVENTS + 1))
    assert cuts >= CUTS_SEEN_MIN
    assert told["lost"] >= CUTS_SEEN_MIN


async def _record(ledger: Ledger, count: int) -> None:
    now = datetime.now(UTC)
    await ledger.append(
        [
            NewEvent(
                stream="asset:pump-1",
                type="asset.setpoint_desired",
                schema_version=1,
                event_id=uuid.uuid4(),
                occurred_at=now,
                actor="user:test",
                payload=PAYLOAD,
                payload_sha256=hashlib.sha256(PAYLOAD).digest(),
            )
            for _ in range(count)
        ]
    )
