"""A link to a server that breaks in the middle of what is said over it, either way."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from contextlib import suppress
from typing import Final, Self
from urllib.parse import urlsplit

from tests.end_to_end.processes import PATIENCE_S

BYTES_AT_ONCE: Final = 512
BYTES_UNTIL_CUT_MAX: Final = 4_000
"""Little enough that requests and answers alike are cut."""


class FlappingLink:
    """Forwards TCP to the server at `url`; while it flaps, each connection is soon reset."""

    def __init__(self, url: str, chance: random.Random) -> None:
        self._there = urlsplit(url)
        self._chance = chance
        self._flaps = False
        self._open = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._port = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.cuts_in_requests = 0
        self.cuts_in_answers = 0

    @property
    def url(self) -> str:
        """By which the server is reached over this link."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._open.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)

    def flap(self, *, flaps: bool) -> None:
        """Begin to break, or hold from now on."""
        self._flaps = flaps

    def _run(self) -> None:
        loop = self._loop
        listening = loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self._port = listening.sockets[0].getsockname()[1]
        self._open.set()
        loop.run_forever()
        listening.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    async def _serve(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        try:
            far, far_out = await asyncio.open_connection(self._there.hostname, self._there.port)
        except OSError:
            near_out.close()
            return
        budget = [self._chance.randrange(BYTES_UNTIL_CUT_MAX)]
        ways = [
            asyncio.ensure_future(self._forward(near, far_out, budget)),
            asyncio.ensure_future(self._forward(far, near_out, budget)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if budget[0] <= 0:
                self.cuts_in_requests += ways[0].done()
                self.cuts_in_answers += ways[1].done() and not ways[0].done()
        finally:
            for way in ways:
                way.cancel()
            for writer in (near_out, far_out):
                _reset(writer)

    async def _forward(
        self, read: asyncio.StreamReader, write: asyncio.StreamWriter, budget: list[int]
    ) -> None:
        with suppress(OSError):
            while part := await read.read(BYTES_AT_ONCE):
                if self._flaps:
                    part, budget[0] = part[: budget[0]], budget[0] - len(part)
                write.write(part)
                await write.drain()
                if self._flaps and budget[0] <= 0:
                    return


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side is told at once, and nothing is delivered any more."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
