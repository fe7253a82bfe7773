"""A real HTTP server that takes batches of frames as Heddle does, and fails when told to."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from domain.errors import HeddleError
from domain.frame_batches import BATCH_MEDIA_TYPE, BatchItem, decode_batch
from domain.frame_decoding import decode

Answer = Callable[[bytes], Response | None]
Verdict = dict[str, str]


@dataclass
class FrameServer:
    """What the server has stored and what it is told to do next.

    Parameters
    ----------
    stored : for each (agent, sequence) the canonical hash, in the order of arrival
    next_answers : each is used for one request; None from it means: go on as usual
    judge : returns why a frame (asset, sequence) is rejected, or None
    body_bytes_max : larger bodies are answered 413
    """

    url: str = ""
    stored: dict[tuple[str, int], bytes] = field(default_factory=dict)
    batch_sizes: list[int] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    request_count: int = 0
    next_answers: deque[Answer] = field(default_factory=deque)
    judge: Callable[[str, int], Verdict | None] = lambda _asset, _sequence: None
    body_bytes_max: int = 16 * 1024 * 1024
    frame_bytes: dict[tuple[str, int], bytes] = field(default_factory=dict)

    async def take(self, request: Request) -> Response:
        """Answer one batch."""
        body = await request.body()
        self.request_count += 1
        self.headers.append(dict(request.headers))
        if request.headers["content-type"] != BATCH_MEDIA_TYPE:
            return JSONResponse({"code": "body.content_type"}, 415)
        if len(body) > self.body_bytes_max:
            return JSONResponse({"code": "body.too_large"}, 413)
        if self.next_answers:
            answer = self.next_answers.popleft()(body)
            if answer is not None:
                return answer
        return JSONResponse({"results": self.record(body)})

    def record(self, body: bytes) -> list[dict[str, Any]]:
        """Store the frames of `body` and return one result each."""
        results = [
            {"index": index} | self._judged(item) for index, item in enumerate(decode_batch(body))
        ]
        self.batch_sizes.append(len(results))
        return results

    def _judged(self, item: BatchItem | HeddleError) -> dict[str, Any]:
        if isinstance(item, HeddleError):
            return {"status": "rejected", "code": item.code, "message": item.message}
        frame = decode(item.encoded)
        verdict = self.judge(frame.header.asset, frame.sequence)
        if verdict is not None:
            return {"sequence": frame.sequence, "status": "rejected", "message": "", **verdict}
        key = (frame.header.agent, frame.sequence)
        known = self.stored.get(key)
        assert known in (None, frame.canonical_sha256), f"{key} arrived with other content"
        self.stored[key] = frame.canonical_sha256
        self.frame_bytes[key] = item.encoded
        position = list(self.stored).index(key) + 1
        status = "accepted" if known is None else "duplicate"
        return {"sequence": frame.sequence, "status": status, "position": position}


def status(code: int, **headers: str) -> Answer:
    """Return an answer of the HTTP status `code`."""
    return lambda _body: Response(status_code=code, headers=headers)


@contextmanager
def serving(server: FrameServer, port: int = 0) -> Iterator[FrameServer]:
    """Serve `server` on a loopback port, a free one unless given."""
    app = Starlette(routes=[Route("/v1/frames", server.take, methods=["POST"])])
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    server.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    # websockets' own deprecation warnings are none of this server's business: it has none.
    config = uvicorn.Config(app, log_level="critical", ws="none", lifespan="off", loop="asyncio")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
    thread.start()
    try:
        while not running.started:
            time.sleep(0.01)
        yield server
    finally:
        running.should_exit = True
        thread.join()
        listening.close()
