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
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Final

from graphql import OperationType
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from api.graphql.errors import current_trace_id, masked
from api.graphql.operations import Operation, Operations, Payload, encode, refusal
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

    def __init__(self, operations: Operations, prepare: Prepare, places: Places) -> None:
        self._operations = operations
        self._prepare = prepare
        self._places = places
        self._closing = asyncio.Event()

    def __len__(self) -> int:
        """Return how many streams are open."""
        return self._places.taken

    def close(self) -> None:
        """End every stream: clients connect again and resume."""
        self._closing.set()

    async def __call__(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            with self._places.place():
                results = await self._results(scope, headers, receive)
                await _stream(results, receive, send, self._closing)
        except (ClientDisconnect, TimeoutError):
            return  # nobody is there to be answered
        except HeddleError as error:
            await problem(error)(scope, receive, send)

    async def _results(
        self, scope: Scope, headers: Headers, receive: Receive
    ) -> AsyncGenerator[Payload, None]:
        """Return the results of what is asked; what is wrong with a document is one of them."""
        try:
            operation = await self._prepare(scope, headers, receive)
        except DocumentRefused as error:
            return _one(refusal(*error.errors))
        last = headers.get(LAST_EVENT_ID)
        operation.context.resume_after = Cursor(last) if last else None
        if operation.type is not OperationType.SUBSCRIPTION:
            return _one(await self._operations.execute(operation))
        stream = self._operations.stream(operation)
        return self._operations.while_valid(stream, operation.context.identity)


async def _one(payload: Payload) -> AsyncGenerator[Payload, None]:
    yield payload


async def _stream(
    results: AsyncGenerator[Payload, None], receive: Receive, send: Send, closing: asyncio.Event
) -> None:
    """Send `results` until they end, the client goes, or the server does."""
    await _sent(
        send,
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"x-accel-buffering", b"no"),
                *SECURITY_HEADERS,
            ],
        },
    )
    await _write(send, b"retry: %d\n\n" % RETRY_MS)
    told = asyncio.create_task(_tell(results, send))
    others = (asyncio.create_task(_gone(receive)), asyncio.create_task(closing.wait()))
    try:
        await asyncio.wait((told, *others), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (told, *others):
            task.cancel()
        ended = await asyncio.gather(told, *others, return_exceptions=True)
    if isinstance(ended[0], Exception):
        raise ended[0]
    if not others[0].done() or others[0].cancelled():
        await _sent(send, {"type": "http.response.body", "body": b"", "more_body": False})


async def _tell(results: AsyncGenerator[Payload, None], send: Send) -> None:
    """Send each result as it comes, and a comment where none comes for long."""
    async with aclosing(results) as payloads:
        coming = asyncio.ensure_future(anext(payloads))
        try:
            while True:
                done, _ = await asyncio.wait((coming,), timeout=KEEP_ALIVE_S)
                if not done:
                    await _write(send, b":\n\n")
                    continue
                try:
                    payload = coming.result()
                except StopAsyncIteration:
                    break
                except Exception as error:
                    await _write(send, _event(_told(error)))
                    break
                await _write(send, _event(payload))
                coming = asyncio.ensure_future(anext(payloads))
        finally:
            coming.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
                await coming
    await _write(send, b"event: complete\ndata:\n\n")


def _told(error: Exception) -> Payload:
    """Return the result that ends a stream for `error`."""
    if isinstance(error, HeddleError):
        return refusal(error)
    trace_id = current_trace_id()
    logger.error("graphql: a stream failed, trace %s", trace_id, exc_info=error)
    message, extensions = masked(trace_id)
    return {"errors": [{"message": message, "extensions": extensions}]}


def _event(payload: Payload) -> bytes:
    """Return one result as an event, under the cursor that it carries."""
    cursor = _cursor(payload)
    told = b"event: next\ndata: " + encode(payload) + b"\n\n"
    return told if cursor is None else b"id: " + cursor.encode() + b"\n" + told


def _cursor(payload: Payload) -> str | None:
    """Return the cursor in the root field of a subscription's result, where it was asked for."""
    data = payload.get("data")
    if isinstance(data, dict):
        for message in data.values():
            if isinstance(message, dict) and isinstance(message.get("cursor"), str):
                cursor: str = message["cursor"]
                return cursor
    return None


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write(send: Send, part: bytes) -> None:
    await _sent(send, {"type": "http.response.body", "body": part, "more_body": True})


async def _sent(send: Send, message: dict[str, object]) -> None:
    async with asyncio.timeout(SEND_S_MAX):
        await send(message)
