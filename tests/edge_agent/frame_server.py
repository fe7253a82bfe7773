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
    commands: list[dict[str, Any]] = field(default_factory=list)
    command_batches: list[int] = field(default_factory=list)
    judge_command: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _item: None

    async def take_commands(self, request: Request) -> Response:
        """Answer one batch of mutations as `batch` does.

        `judge_command` returns why one is not carried out, or ``{"spoils": code}``, which refuses
        the request as a whole, as what no schema knows does.
        """
        asked: list[dict[str, Any]] = (await request.json())["variables"]["items"]
        self.request_count += 1
        self.command_batches.append(len(asked))
        if self.next_answers:
            answer = self.next_answers.popleft()(b"")
            if answer is not None:
                return answer
        verdicts = [self.judge_command(item) for item in asked]
        for verdict in verdicts:
            if verdict is not None and "spoils" in verdict:
                extensions = {"code": verdict["spoils"]}
                return JSONResponse({"errors": [{"message": "no", "extensions": extensions}]})
        items = []
        for index, (item, verdict) in enumerate(zip(asked, verdicts, strict=True)):
            if verdict is None:
                self.commands.append(item)
                verdict = {"__typename": "BatchItemSuccess"}
            items.append({"index": index, "outcome": verdict})
        return JSONResponse({"data": {"batch": {"items": items}}})

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
def serving(server: FrameServer, port: int = 0, **tls: Any) -> Iterator[FrameServer]:
    """Serve `server` on a loopback port, a free one unless given.

    Parameters
    ----------
    tls : uvicorn's settings for https
    """
    app = Starlette(
        routes=[
            Route("/v1/frames", server.take, methods=["POST"]),
            Route("/graphql", server.take_commands, methods=["POST"]),
        ]
    )
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{listening.getsockname()[1]}"
    # websockets' own deprecation warnings are none of this server's business: it has none.
    config = uvicorn.Config(
        app, log_level="critical", ws="none", lifespan="off", loop="asyncio", **tls
    )
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
