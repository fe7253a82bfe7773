"""graphql-sse, distinct connections: one operation, its results as server-sent events.

A browser's EventSource resumes by itself: each result goes out under the cursor that it carries,
and what comes back as ``Last-Event-ID`` takes the place of the subscription's ``after``.

References
----------
GraphQL over Server-Sent Events Protocol, "distinct connections mode",
github.com/enisdenjo/graphql-sse.
HTML Living Standard, section 9.2, "Server-sent events".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from graphql import OperationType
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from api.graphql.broadcast import Subscriptions
from api.graphql.errors import current_trace_id, masked
from api.graphql.messages import Batch, message_of
from api.graphql.operations import Operation, Operations, Payload, refusal
from api.graphql.preparation import DocumentRefused
from api.graphql.scalars import Cursor
from api.headers import SECURITY_HEADERS, Headers
from api.problem import problem
from api.throttle import Places
from domain.errors import HeddleError

logger = logging.getLogger("heddle.graphql")

EVENT_STREAM: Final = "text/event-stream"
LAST_EVENT_ID: Final = "last-event-id"
KEEP_ALIVE_S: Final = 12.0
SEND_S_MAX: Final = 60.0
"""Whoever takes nothing for so long has gone; he resumes after the last result that he took."""

UNSENT_BYTES_MAX: Final = 64 * 1024
"""Bytes that wait for a client beside those in the connection; one write may go beyond."""

RETRY_MS: Final = 2_000
"""How long an EventSource waits before it connects again."""

Prepare = Callable[[Scope, Headers, Receive], Awaitable[Operation]]


def accepts_event_stream(headers: Headers) -> bool:
    """Return whether the client asks for server-sent events."""
    accepted = headers.get("accept", "")
    return any(part.partition(";")[0].strip() == EVENT_STREAM for part in accepted.split(","))


class GraphQLOverSse:
    """Answers HTTP requests with server-sent events.

    Parameters
    ----------
    prepare : reads a request's operation, as over plain HTTP
    places : how many streams may be open
    """

    def __init__(
        self,
        operations: Operations,
        subscriptions: Subscriptions,
        prepare: Prepare,
        places: Places,
    ) -> None:
        self._operations = operations
        self._subscriptions = subscriptions
        self._prepare = prepare
        self._places = places
        self._open: set[EventLine] = set()

    def __len__(self) -> int:
        """Return how many streams are open."""
        return self._places.taken

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for the connections of streams to take them."""
        return sum(line.unsent_bytes for line in self._open)

    def close(self) -> None:
        """End every stream: clients connect again and resume."""
        for line in tuple(self._open):
            line.close()

    async def __call__(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            with self._places.place():
                line = EventLine(send)
                answering = self._answering(scope, headers, receive, line)
                await self._stream(await answering, receive, line)
        except (ClientDisconnect, TimeoutError):
            return  # nobody is there to be answered
        except HeddleError as error:
            await problem(error)(scope, receive, send)

    async def _answering(
        self, scope: Scope, headers: Headers, receive: Receive, line: EventLine
    ) -> Coroutine[Any, Any, Payload | None]:
        """Return what answers a request; what is wrong with a document is an answer too."""
        try:
            operation = await self._prepare(scope, headers, receive)
        except DocumentRefused as error:
            return _one(refusal(*error.errors))
        last = headers.get(LAST_EVENT_ID)
        operation.context.resume_after = Cursor(last) if last else None
        if operation.type is not OperationType.SUBSCRIPTION:
            return _one(await self._operations.execute(operation))
        return self._subscriptions.serve(operation, line)

    async def _stream(
        self, answering: Coroutine[Any, Any, Payload | None], receive: Receive, line: EventLine
    ) -> None:
        """Send what comes over `line` until it ends, the client goes, or the server does."""
        self._open.add(line)
        tasks = (asyncio.create_task(answering), asyncio.create_task(_gone(receive, line)))
        tasks[0].add_done_callback(lambda _: line.wake())
        try:
            await line.start()
            await line.pump(tasks[0])
        finally:
            self._open.discard(line)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _one(payload: Payload) -> Payload | None:
    return payload


class EventLine:
    """The way of one stream: holds what was written until the connection takes it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._unsent: list[bytes] = []
        self.unsent_bytes = 0
        self._is_closed = False
        self._is_gone = False
        self._woken = asyncio.Event()
        self._roomy = asyncio.Event()
        self._roomy.set()

    @property
    def is_open(self) -> bool:
        """Whether the client still listens."""
        return not (self._is_closed or self._is_gone)

    def write(self, batch: Batch) -> bool:
        """Take events on; return whether there is room for more, at once."""
        self._unsent.append(batch.events)
        self.unsent_bytes += len(batch.events)
        self._woken.set()
        if self.unsent_bytes >= UNSENT_BYTES_MAX:
            self._roomy.clear()
            return False
        return True

    async def room(self) -> None:
        """Return once the connection has taken enough."""
        await self._roomy.wait()

    def close(self) -> None:
        """End it in the middle: its client resumes elsewhere."""
        self._is_closed = True
        self._woken.set()

    def gone(self) -> None:
        """Note that nobody listens any more."""
        self._is_gone = True
        self._woken.set()

    def wake(self) -> None:
        """Have it look whether its subscription has ended."""
        self._woken.set()

    async def start(self) -> None:
        """Begin the response."""
        await self._sent(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"text/event-stream; charset=utf-8"),
                    (b"x-accel-buffering", b"no"),
                    *SECURITY_HEADERS,
                ],
            }
        )
        await self._write(b"retry: %d\n\n" % RETRY_MS)

    async def pump(self, answering: asyncio.Task[Payload | None]) -> None:
        """Send events as they come, a comment where none comes for long, and how it ended."""
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await self._woken.wait()
            except TimeoutError:
                await self._write(b":\n\n")
                continue
            self._woken.clear()
            while self._unsent and self.is_open:
                await self._send_unsent()
            if self._is_gone:
                return
            if self._is_closed:
                break
            if answering.done():
                await self._write(_ending(answering))
                break
        await self._sent({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_unsent(self) -> None:
        events, self._unsent = b"".join(self._unsent), []
        await self._write(events)
        self.unsent_bytes = sum([len(part) for part in self._unsent])
        if self.unsent_bytes < UNSENT_BYTES_MAX:
            self._roomy.set()

    async def _write(self, part: bytes) -> None:
        await self._sent({"type": "http.response.body", "body": part, "more_body": True})

    async def _sent(self, message: dict[str, object]) -> None:
        async with asyncio.timeout(SEND_S_MAX):
            await self._send(message)


def _ending(answering: asyncio.Task[Payload | None]) -> bytes:
    """Return the events that end a stream: a last result, if any, and that it is complete."""
    try:
        payload = answering.result()
    except Exception as error:
        payload = _told(error)
    complete = b"event: complete\ndata:\n\n"
    if payload is None:
        return complete
    return message_of(payload, first=0, last=0, lasts=False).event + complete


def _told(error: Exception) -> Payload:
    """Return the result that ends a stream for `error`."""
    if isinstance(error, HeddleError):
        return refusal(error)
    trace_id = current_trace_id()
    logger.error("graphql: a stream failed, trace %s", trace_id, exc_info=error)
    message, extensions = masked(trace_id)
    return {"errors": [{"message": message, "extensions": extensions}]}


async def _gone(receive: Receive, line: EventLine) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    line.gone()
