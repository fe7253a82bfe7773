"""A way to a server that breaks off: after a request was carried out, or amid a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass
class BreakingProxy:
    """Where it listens, and how it treats connections.

    Parameters
    ----------
    swallowed : answers that are still to be lost, with their connection
    bytes_max : of answers on one connection, before it is cut; None: any number
    cut : connections that were broken off
    """

    url: str = ""
    swallowed: int = 0
    bytes_max: int | None = None
    cut: int = 0

    async def serve(
        self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry one connection on to `target`."""
        address = urlsplit(target)
        there, onward = await asyncio.open_connection(address.hostname, address.port)
        tasks = (
            asyncio.create_task(self._requests(reader, onward)),
            asyncio.create_task(self._answers(there, writer)),
        )
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in (onward, writer):
            each.close()
            with suppress(ConnectionError):
                await each.wait_closed()

    async def _requests(self, reader: asyncio.StreamReader, onward: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            onward.write(data)
            await onward.drain()

    async def _answers(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self.bytes_max
        while data := await there.read(65_536):
            if self.swallowed > 0:
                self.swallowed -= 1
                self.cut += 1
                return
            if left is not None and len(data) >= left:
                writer.write(data[:left])
                await writer.drain()
                self.cut += 1
                return
            left = None if left is None else left - len(data)
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def breaking_proxy(target: str) -> AsyncIterator[BreakingProxy]:
    """Yield a proxy before the server at `target`."""
    proxy = BreakingProxy()
    server = await asyncio.start_server(
        lambda reader, writer: proxy.serve(target, reader, writer), "127.0.0.1", 0
    )
    async with server:
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield proxy
