"""uvicorn's WebSocket protocol, which also writes frames that somebody else has made ready.

What many sockets are sent is framed once, and written to each of them without a task, a message
or a copy in between. A socket is bounded by its unsent bytes, in this process and in the kernel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

FRAMES_EXTENSION: Final = "heddle.frames"
"""The extension in a socket's scope under which applications find its `FrameProtocol`."""

UNSENT_BYTES_MAX: Final = 64 * 1024
"""Bytes that wait in this process for a client that reads slowly; one write may go beyond."""

LINGER_S: Final = 15.0
"""A socket that was closed has so long to take what is unsent; one that never reads is cut."""


class FrameProtocol(WebSocketsSansIOProtocol):
    """One WebSocket."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what may be unsent here; the HTTP protocol has bounded it in the kernel."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)

    def handle_connect(self, event: Request) -> None:
        """Let the application that is about to be started find this protocol."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            cast("dict[str, Any]", self.scope["extensions"])[FRAMES_EXTENSION] = self

    @property
    def is_open(self) -> bool:
        """Whether frames may still be written."""
        return not (self.close_sent or self.disconnected or self.transport.is_closing())

    @property
    def unsent_bytes(self) -> int:
        """Bytes that were written and wait in this process."""
        return self.transport.get_write_buffer_size()

    def write_frames(self, frames: bytes) -> bool:
        """Write whole frames; return whether there is room for more, at once.

        What is written to a closed socket is dropped.
        """
        if self.close_sent or self.transport.is_closing():
            return False
        self.transport.write(frames)
        return self.writable.is_set()

    def write_parts(self, parts: Sequence[bytes]) -> bool:
        """Write whole frames that come in parts; the parts are not copied."""
        if self.close_sent or self.transport.is_closing():
            return False
        self.transport.writelines(parts)
        return self.writable.is_set()

    def keepalive_timeout(self) -> None:
        """Part from a client that answers no pings: at once from one that takes nothing either."""
        super().keepalive_timeout()
        if self.unsent_bytes:
            self.transport.abort()

    async def run_asgi(self) -> None:
        """Run the application, and see that its connection ends after it."""
        await super().run_asgi()
        if not self.disconnected:
            self.loop.call_later(LINGER_S, self.transport.abort)
