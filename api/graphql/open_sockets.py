"""The WebSockets that are open: counted, and closed with a hint when the server goes down."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.websocket_protocol import FRAMES_EXTENSION, FrameProtocol

GOING_AWAY: Final = 1001
PAUSE_S_MAX: Final = 0.05
"""Between two sockets: a few of them are no herd that has to be spread."""

RESUME_HINT: Final = "the server goes down; connect again and resume after your last cursor"


class OpenSockets:
    """Every open socket."""

    def __init__(self) -> None:
        self._open: set[_OpenSocket] = set()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for clients to take them."""
        return sum(socket.unsent_bytes for socket in self._open)

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have `app` serve one socket, known here as long as that lasts."""
        socket = _OpenSocket(send, scope.get("extensions", {}).get(FRAMES_EXTENSION))
        self._open.add(socket)
        try:
            await app(scope, receive, socket.send)
        finally:
            self._open.discard(socket)

    async def drain(self, seconds: float) -> None:
        """Close every socket within `seconds`, one after the other.

        Spread, so that the server that takes over is not met by all of them at once. One that
        takes nothing holds the others up no longer than that.
        """
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + seconds
        waiting = list(self._open)
        closing = set()
        for socket in waiting:
            closing.add(loop.create_task(socket.close(GOING_AWAY, RESUME_HINT)))
            await asyncio.sleep(min(seconds / len(waiting), PAUSE_S_MAX))
        if closing:
            _, stuck = await asyncio.wait(closing, timeout=max(0.0, ends_s - loop.time()))
            for task in stuck:
                task.cancel()


class _OpenSocket:
    __slots__ = ("_closed", "_protocol", "_send")

    def __init__(self, send: Send, protocol: FrameProtocol | None) -> None:
        self._send = send
        self._protocol = protocol
        self._closed = False

    @property
    def unsent_bytes(self) -> int:
        return 0 if self._protocol is None else self._protocol.unsent_bytes

    async def send(self, message: Message) -> None:
        """Send on behalf of the application, which learns of a closed socket as of a lost one."""
        if self._closed:
            raise OSError("the socket was closed as the server goes down")
        await self._send(message)

    async def close(self, code: int, reason: str) -> None:
        """Close the socket, unless that is done already."""
        if not self._closed:
            self._closed = True
            try:
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
            except (RuntimeError, OSError):
                return  # it ended by itself at this moment
