"""A relay between a client and PostgreSQL that cuts their connections at a chosen moment.

The server's last words and the end of its connection usually come together; the relay can keep the
end back, so that a test stands in the moment between them for as long as it wants.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

PIECE_BYTES: Final = 65_536


class Relay:
    """Passes bytes on, until it is told otherwise.

    Attributes
    ----------
    refusing : new connections are closed at once
    requests_left, answers_left : how many pieces of what is said still pass, over all connections;
        the one after them ends its connection unheard, and then everything passes again
    bytes_left : how many bytes clients may still say; who says more is heard no longer
    stalled : set once somebody is heard no longer
    end_passes : while this is not set, a client is not told that the server has closed
    farewell : set once the server has said its last words on some connection
    """

    def __init__(self, url: str, server_socket: Path) -> None:
        self.url = url
        self.refusing = False
        self.requests_left: int | None = None
        self.answers_left: int | None = None
        self.bytes_left: int | None = None
        self.end_passes = asyncio.Event()
        self.end_passes.set()
        self.farewell = asyncio.Event()
        self.stalled = asyncio.Event()
        self._server_socket = server_socket
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until either side ends."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                if not self.refusing:
                    await self._pass_between(reader, writer)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def close(self) -> None:
        """End every connection."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pass_between(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._server_socket)
        directions = [
            asyncio.create_task(self._pass_requests(reader, server_writer)),
            asyncio.create_task(self._pass_answers(server_reader, writer)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server_writer.close()
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _pass_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while said := await reader.read(PIECE_BYTES):
            if self.requests_left == 0:
                self.requests_left = None
                return
            if self.requests_left is not None:
                self.requests_left -= 1
            if self.bytes_left is not None:
                self.bytes_left -= len(said)
                if self.bytes_left < 0:
                    self.bytes_left = None
                    self.stalled.set()
                    await asyncio.Event().wait()
            writer.write(said)
            await writer.drain()

    async def _pass_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while said := await reader.read(PIECE_BYTES):
            if self.answers_left == 0:
                self.answers_left = None
                return
            if self.answers_left is not None:
                self.answers_left -= 1
            writer.write(said)
            await writer.drain()
        self.farewell.set()
        await self.end_passes.wait()


@asynccontextmanager
async def relayed(database_url: str) -> AsyncIterator[Relay]:
    """Open a relay to the server of `database_url`; clients use the URL it has."""
    address = parse_qs(urlsplit(database_url).query)
    (folder,), (port,) = address["host"], address["port"]
    name = f".s.PGSQL.{port}"
    with tempfile.TemporaryDirectory(prefix="heddle-relay-") as ours:
        url = database_url.replace(quote(folder, safe=""), quote(ours, safe=""))
        relay = Relay(url, Path(folder, name))
        listening = await asyncio.start_unix_server(relay.accept, Path(ours, name))
        try:
            yield relay
        finally:
            listening.close()
            await relay.close()
