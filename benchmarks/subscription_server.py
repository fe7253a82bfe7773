"""The limit of `benchmarks.subscriptions`: one ready frame written to every socket, nothing else.

The same loop, HTTP protocol and WebSocket protocol as the server's, and one frame for all.

::

    python -m benchmarks.subscription_server PORT SOCKETS FRAME_BYTES RATE

Once SOCKETS have subscribed it writes RATE frames a second to each; 0: as many as they take.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys

import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from api.graphql.messages import frame_header
from api.http_protocol import BoundedHttpProtocol
from api.serve import COLLECTOR_THRESHOLDS
from api.websocket_protocol import FRAMES_EXTENSION, FrameProtocol


class Bare:
    """Accepts sockets, acknowledges what they say, and writes."""

    def __init__(self, sockets: int, frame_bytes: int, rate: float) -> None:
        self._sockets = sockets
        self._frame_bytes = frame_bytes
        self._rate = rate
        self._open: list[FrameProtocol] = []
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket."""
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "graphql-transport-ws"})
        await receive()
        await send({"type": "websocket.send", "text": '{"type":"connection_ack"}'})
        await receive()
        self._open.append(scope["extensions"][FRAMES_EXTENSION])
        if len(self._open) == self._sockets:
            self._writing = asyncio.create_task(self._write())
        await receive()

    def frame(self, number: int) -> bytes:
        """Return a frame that carries `number`."""
        start = b'{"data":{"events":{"event":{"position":%d,"padding":"' % number
        text = start + b"x" * (self._frame_bytes - len(start) - 5) + b'"}}}}'
        return frame_header(len(text)) + text

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        number, due_s = 0, loop.time()
        while True:
            number += 1
            frame = self.frame(number)
            for protocol in self._open:
                protocol.write_frames(frame)
            if self._rate:
                due_s += 1 / self._rate
                await asyncio.sleep(max(0.0, due_s - loop.time()))
            else:
                await asyncio.sleep(0)
                for protocol in self._open:
                    await protocol.writable.wait()


async def _serve(port: int, bare: Bare) -> None:
    config = uvicorn.Config(
        bare,
        log_level="warning",
        access_log=False,
        lifespan="off",
        http=BoundedHttpProtocol,
        ws=FrameProtocol,
        ws_per_message_deflate=False,
        server_header=False,
    )
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    at, count, length, pace = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(at), Bare(int(count), int(length), float(pace))))
