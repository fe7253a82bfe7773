"""GraphQL over HTTP: one exchange, from the request's headers to the response's last byte.

Written on ASGI itself, for a framework's request, view and response cost more than most answers.

References
----------
GraphQL over HTTP, stage 2 draft; its later statuses 294 and 422 by setting. Persisted documents:
its appendix (``documentId``), and ``extensions.persistedQuery`` as clients have sent it for years.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl

from graphql import OperationType
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from api.body import BODY_S_MAX, check_media_type, receive_body
from api.graphql.broadcast import Subscriptions
from api.graphql.errors import current_trace_id, masked
from api.graphql.negotiation import GRAPHQL_RESPONSE, JSON, negotiate
from api.graphql.operations import (
    Operation,
    OperationRequest,
    Operations,
    Payload,
    decode,
    encode,
    refusal,
)
from api.graphql.preparation import DocumentRefused
from api.graphql.sse import GraphQLOverSse, accepts_event_stream
from api.headers import SECURITY_HEADERS, Headers, read_headers
from api.problem import headers_of, status_of
from api.settings import ServerSettings
from api.throttle import Places
from domain.errors import HeddleError, InvalidInput

logger = logging.getLogger("heddle.graphql")

GONE_CHECK_AFTER_S: Final = 0.25
"""How long an operation runs before somebody looks whether its client is still there."""

QUERY_STRING_BYTES_MAX: Final = 16 * 1024
PARAMETERS_MAX: Final = 20
STREAMS_MAX: Final = 2_000
"""Server-sent event streams open at once."""

REPORT_COST_HEADER: Final = "x-heddle-report-cost"

_CONTENT_TYPE: Final = {
    media_type: (b"content-type", f"{media_type}; charset=utf-8".encode())
    for media_type in (JSON, GRAPHQL_RESPONSE)
}
_EXTRA: Final[Mapping[int, tuple[tuple[bytes, bytes], ...]]] = {
    405: ((b"allow", b"GET, POST"),),
    408: ((b"connection", b"close"),),
    415: ((b"accept-post", JSON.encode()),),
}


class GraphQLOverHttp:
    """Answers HTTP requests with `operations`."""

    def __init__(
        self, operations: Operations, subscriptions: Subscriptions, settings: ServerSettings
    ) -> None:
        self._operations = operations
        self._settings = settings
        self._places = Places(settings.graphql_concurrency_max)
        self.streams = GraphQLOverSse(
            operations, subscriptions, self._prepared, Places(STREAMS_MAX)
        )

    @property
    def in_flight(self) -> int:
        """How many operations are being executed."""
        return self._places.taken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = read_headers(scope)
        if accepts_event_stream(headers):
            await self.streams(scope, headers, receive, send)
            return
        media_type = negotiate(headers.get("accept"))
        extra: Iterable[tuple[bytes, bytes]] = ()
        try:
            if media_type is None:
                raise _not_acceptable(headers["accept"])
            payload = await self._answered(scope, headers, receive)
            status = self._status(payload, media_type)
        except DocumentRefused as refused:
            payload = refusal(*refused.errors)
            status = self._status(payload, media_type or JSON, parsed=refused.parsed)
        except HeddleError as error:
            payload, status, extra = refusal(error), status_of(error), headers_of(error)
            if error.code.startswith("document."):
                status = self._status(payload, media_type or JSON)
        except (ClientDisconnect, ClientGone):
            return  # nobody is there to be answered
        except Exception:
            trace_id = current_trace_id()
            logger.exception("graphql: a request failed, trace %s", trace_id)
            message, extensions = masked(trace_id)
            payload = {"errors": [{"message": message, "extensions": extensions}]}
            status = 500
        if "data" not in payload and self._operations.metrics is not None:
            self._operations.metrics.refused(payload["errors"][0]["extensions"]["code"])
        body = encode(payload)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    _CONTENT_TYPE[media_type or JSON],
                    (b"content-length", b"%d" % len(body)),
                    *SECURITY_HEADERS,
                    *_EXTRA.get(status, ()),
                    *extra,
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})

    async def _prepared(self, scope: Scope, headers: Headers, receive: Receive) -> Operation:
        """Return the operation that a request asks for."""
        method = scope["method"]
        if method not in ("POST", "GET"):
            raise _wrong_method(f"{method:.20} is not how GraphQL is asked")
        client = scope.get("client")
        peer = client[0] if client else None
        identity = await self._operations.identify(headers, peer)
        self._operations.admit(identity, peer)
        if method == "POST":
            check_media_type(headers.get("content-type", ""), JSON)
            body = await receive_body(
                receive,
                headers.get("content-length", ""),
                self._settings.graphql_bytes_max,
                BODY_S_MAX,
            )
            request = OperationRequest.of(decode(body))
        else:
            request = OperationRequest.of(_parameters(scope["query_string"]))
        operation = await self._operations.prepare(request, identity, headers, peer)
        if operation.type is OperationType.MUTATION and method == "GET":
            raise _wrong_method("a mutation is not sent with GET")
        return operation

    async def _answered(self, scope: Scope, headers: Headers, receive: Receive) -> Payload:
        operation = await self._prepared(scope, headers, receive)
        _check_streams_not(operation)
        with self._places.place(), _ClientWatch(receive):
            payload = await self._operations.execute(operation)
        if self._settings.graphql_report_cost or REPORT_COST_HEADER in headers:
            payload["extensions"] = {"cost": self._operations.told_cost(operation)}
        return payload

    def _status(self, payload: Payload, media_type: str, *, parsed: bool = True) -> int:
        """Return the status of an answer: executed or not, in part or whole."""
        draft = self._settings.graphql_draft_statuses
        if media_type == JSON:
            return 200
        if "data" in payload:
            return 294 if draft and "errors" in payload else 200
        return 422 if draft and parsed else 400


class ClientGone(Exception):
    """The client went away while its operation was being executed."""


class _ClientWatch:
    """Ends an operation whose client has gone away.

    A short operation pays for one timer; only a longer one has somebody listen.
    """

    __slots__ = ("_executing", "_gone", "_listener", "_receive", "_timer")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._listener: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._executing = asyncio.current_task()
        self._timer = loop.call_later(GONE_CHECK_AFTER_S, self._start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()
        if self._gone and self._executing is not None:
            if isinstance(error, asyncio.CancelledError) and self._executing.uncancel() == 0:
                raise ClientGone from None
            if error is None:
                self._executing.uncancel()

    def _start(self) -> None:
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        assert self._executing is not None
        self._executing.cancel()


def _parameters(query_string: bytes) -> dict[str, Any]:
    """Return the request that a URL's query string spells."""
    try:
        pairs = parse_qsl(
            query_string[: QUERY_STRING_BYTES_MAX + 1].decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=PARAMETERS_MAX,
        )
    except ValueError as error:
        raise InvalidInput(
            "request.malformed",
            f"the query string cannot be read: {error}",
            hint="percent-encode UTF-8, or POST a JSON body",
        ) from error
    if len(query_string) > QUERY_STRING_BYTES_MAX:
        raise InvalidInput(
            "body.too_large",
            f"the query string takes more than {QUERY_STRING_BYTES_MAX} bytes",
            hint="POST a JSON body",
            value=len(query_string),
            limit=QUERY_STRING_BYTES_MAX,
        )
    given: dict[str, Any] = dict(pairs)
    for name in ("variables", "extensions"):
        if name in given:
            given[name] = decode(given[name]) if given[name] else None
    if given.get("operationName") == "":
        given["operationName"] = None
    return given


def _check_streams_not(operation: Operation) -> None:
    if operation.type is OperationType.SUBSCRIPTION:
        raise InvalidInput(
            "operation.subscription",
            "a subscription is not answered in one piece",
            hint="accept text/event-stream, or connect a WebSocket to the same path with the "
            "subprotocol graphql-transport-ws",
        )


def _wrong_method(message: str) -> InvalidInput:
    return InvalidInput("method.not_allowed", message, hint="POST a JSON body, or GET with a query")


def _not_acceptable(accept: str) -> InvalidInput:
    return InvalidInput(
        "accept.not_acceptable",
        f"{accept!r:.80} accepts nothing that is spoken here",
        hint=f"accept {GRAPHQL_RESPONSE} or {JSON}",
        value=accept[:80],
    )
