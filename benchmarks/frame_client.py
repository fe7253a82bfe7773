"""A client that posts ready-made batches of frames as fast as answers come, in its own process.

It costs as little as a client can, for it shares the machine with what it measures: requests are
bytes made beforehand, and an answer is only looked at for frames that were not accepted.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import cast
from urllib.parse import urlsplit

import uvloop

ANSWER_WAIT_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Sent:
    """What sending took: seconds on the clock, and seconds of the client's own processor time."""

    started: float
    elapsed_s: float
    cpu_s: float


def send_all(
    url: str, bodies: Sequence[bytes], *, content_type: str, connections: int, wanted: bytes
) -> Sent:
    """Post every body to `url` over so many kept connections.

    Parameters
    ----------
    wanted : what has to stand in each answer once for each frame of its request; empty to take
        any answer of status 200
    """
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(
        target=_client, args=(theirs, url, bodies, content_type, connections, wanted)
    )
    process.start()
    theirs.close()
    try:
        outcome = ours.recv()
    except EOFError:
        raise SystemExit("the client ended without a word") from None
    finally:
        process.join()
    if not isinstance(outcome, Sent):
        raise SystemExit(f"the client failed: {outcome}")
    return outcome


def _client(
    told: Connection,
    url: str,
    bodies: Sequence[bytes],
    content_type: str,
    connections: int,
    wanted: bytes,
) -> None:
    address = urlsplit(url)
    assert address.hostname, "a whole URL"
    assert address.port, "a whole URL"
    head = (
        f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: "
    ).encode()
    requests = [head + b"%d\r\n\r\n" % len(body) + body for body in bodies]
    frames = [int.from_bytes(body[4:8], "little") for body in bodies]
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            told.send(
                runner.run(
                    _send(
                        (address.hostname, address.port),
                        iter(zip(requests, frames, strict=True)),
                        connections,
                        wanted,
                    )
                )
            )
    except Exception as error:
        told.send(f"{type(error).__name__}: {error}")


async def _send(
    address: tuple[str, int],
    requests: Iterator[tuple[bytes, int]],
    connections: int,
    wanted: bytes,
) -> Sent:
    loop = asyncio.get_running_loop()
    posts = [
        (await loop.create_connection(lambda: _Post(requests, wanted), *address))[1]
        for _ in range(connections)
    ]
    started, cpu_s = time.perf_counter(), time.process_time()
    for post in posts:
        post.next()
    await asyncio.gather(*(post.done for post in posts))
    return Sent(started, time.perf_counter() - started, time.process_time() - cpu_s)


class _Post(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self, requests: Iterator[tuple[bytes, int]], wanted: bytes) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._wanted = wanted
        self._answer = b""
        self._frames = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed a connection"))

    def next(self) -> None:
        """Send the next request that waits, or be done."""
        assert self._transport is not None, "connected"
        request = next(self._requests, None)
        if request is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._answer, self._frames = b"", request[1]
        self._transport.write(request[0])

    def data_received(self, received: bytes) -> None:
        self._answer += received
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found or len(body) < _content_length(head):
            return
        accepted = body.count(self._wanted) if self._wanted else self._frames
        if not head.startswith(b"HTTP/1.1 200") or accepted != self._frames:
            self.done.set_exception(RuntimeError(f"not every frame was accepted: {body[:500]!r}"))
            return
        self.next()


def _content_length(head: bytes) -> int:
    at = head.lower().index(b"content-length:")
    return int(head[at + 15 :].partition(b"\r\n")[0])
