"""A receiver of webhooks on a loopback port: it keeps what it was sent, and answers as told."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

WAIT_S: Final = 20.0


@dataclass(frozen=True)
class Received:
    """One request."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def message_id(self) -> str:
        """What receivers tell repeats by."""
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        """The CloudEvent of a structured request."""
        event: dict[str, Any] = orjson.loads(self.body)
        return event

    @property
    def position(self) -> int:
        """Place in the log."""
        return int(self.event["sequence"])

    def signed_with(self, secret: str) -> bool:
        """Whether one of its signatures is that of `secret`, as Standard Webhooks has it."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = b".".join(
            (self.message_id.encode(), self.headers["webhook-timestamp"].encode(), self.body)
        )
        wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        told = (part.split(",", 1) for part in self.headers["webhook-signature"].split(" "))
        return any(version == "v1" and value == wanted for version, value in told)


Answer = Callable[[Received], Awaitable[Response]]


async def taken(_received: Received) -> Response:
    """Answer that it was taken."""
    return Response(status_code=204)


@dataclass
class Receiver:
    """Where deliveries go."""

    url: str
    port: int
    answer: Answer = taken
    received: list[Received] = field(default_factory=list)
    taken: list[Received] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: Request) -> Response:
        """Take one request."""
        received = Received(dict(request.headers), await request.body())
        self.received.append(received)
        response = await self.answer(received)
        if response.status_code < 300:
            self.taken.append(received)
        self._news.set()
        return response

    async def until(self, is_enough: Callable[[], bool]) -> None:
        """Wait until what was received is enough."""
        async with asyncio.timeout(WAIT_S):
            while not is_enough():
                self._news.clear()
                await self._news.wait()

    async def until_taken(self, count: int) -> list[Received]:
        """Wait for so many deliveries that were taken, and return them all."""
        await self.until(lambda: len(self.taken) >= count)
        return self.taken


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    """Receive on a loopback port for the length of the block."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    port = listener.getsockname()[1]
    receiver = Receiver(f"http://127.0.0.1:{port}/hooks", port)
    app = Starlette(routes=[Route("/{path:path}", receiver.take, methods=["GET", "POST"])])
    server = _QuietServer(
        uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(WAIT_S):
            await server.listening.wait()
        yield receiver
    finally:
        server.should_exit = True
        await task
        listener.close()


class _QuietServer(uvicorn.Server):
    """uvicorn's server, which says when it listens and leaves signals to pytest."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
