"""GraphQL over HTTP and WebSocket at ``/graphql``, and GraphiQL for whoever comes by browser.

Strawberry's view is kept for its WebSocket half alone. Its HTTP half has no bound on bodies,
answers ``null`` with 500 and runs the first of several operations; this one refuses them.

References
----------
GraphQL over HTTP, stage 2 draft.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import orjson
from graphql import OperationType
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from api.body import check_content_type, read_body
from api.graphql.documents import DocumentRefused
from api.graphql.operations import (
    Operation,
    OperationRequest,
    Operations,
    Payload,
    decode,
    encode,
    refusal,
)
from api.graphql.sockets import OperationsHandler, TextAdapter
from api.problem import status_of
from api.services import Services
from domain.errors import HeddleError, InvalidInput

PATH: Final = "/graphql"
JSON: Final = "application/json"
GRAPHQL_RESPONSE: Final = "application/graphql-response+json"
GRAPHIQL_FOLDER: Final = Path(__file__).parent.parent / "graphiql"
GRAPHIQL_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
OPERATIONS_PER_SOCKET_MAX: Final = 100
INIT_WAIT: Final = timedelta(seconds=10)


def graphql_routes(services: Services) -> list[BaseRoute]:
    """Return the routes of the GraphQL API on `services`: the endpoint, and GraphiQL's files."""
    endpoint = GraphQLEndpoint(services)
    routes: list[BaseRoute] = [Route(PATH, endpoint), WebSocketRoute(PATH, endpoint)]
    if services.settings.graphiql:
        routes.append(Mount("/graphiql", StaticFiles(directory=GRAPHIQL_FOLDER)))
    return routes


class GraphQLEndpoint(GraphQL[Any, None]):
    """An ASGI application."""

    websocket_adapter_class = TextAdapter
    graphql_transport_ws_handler_class = OperationsHandler

    def __init__(self, services: Services) -> None:
        self.operations = Operations(services)
        self._settings = services.settings
        super().__init__(
            self.operations.schema,
            graphql_ide=None,
            subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
            connection_init_wait_timeout=INIT_WAIT,
            max_subscriptions_per_connection=OPERATIONS_PER_SOCKET_MAX,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or serve one WebSocket."""
        if scope["type"] == "websocket":
            await super().__call__(scope, receive, send)
            return
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    def decode_json(self, data: str | bytes) -> object:
        """Return the JSON value of a WebSocket message."""
        return orjson.loads(data)

    def encode_json(self, data: object) -> str:
        """Return a WebSocket message: text, for bytes would make binary frames."""
        return encode(data).decode()

    async def get_context(self, request: Request | WebSocket, response: Any) -> Any:  # noqa: ARG002
        """Return nothing: each operation of a socket has a context of its own."""
        return {}

    # --- HTTP -----------------------------------------------------------------------------

    async def _answer(self, request: Request) -> Response:
        if self._wants_graphiql(request):
            return FileResponse(
                GRAPHIQL_FOLDER / "index.html",
                headers={
                    "Content-Security-Policy": GRAPHIQL_POLICY,
                    "X-Content-Type-Options": "nosniff",
                    "Referrer-Policy": "no-referrer",
                },
            )
        media_type = GRAPHQL_RESPONSE if _prefers_graphql_response(request) else JSON
        try:
            operation = self.operations.prepare(await self._asked(request), request.headers)
            _check_transport(request, operation)
            payload = await self.operations.execute(operation)
        except DocumentRefused as refused:
            payload = refusal(*refused.errors)
        except HeddleError as error:
            status = status_of(error)
            return _response(refusal(error), status, media_type, _HEADERS.get(status, {}))
        executed = "data" in payload
        return _response(payload, 200 if executed or media_type == JSON else 400, media_type)

    async def _asked(self, request: Request) -> OperationRequest:
        match request.method:
            case "POST":
                check_content_type(request, JSON)
                body = await read_body(request, self._settings.graphql_bytes_max)
                return OperationRequest.of(decode(body))
            case "GET":
                given: dict[str, Any] = dict(request.query_params)
                for name in ("variables", "extensions"):
                    if name in given:
                        given[name] = decode(given[name])
                return OperationRequest.of(given)
        raise _wrong_method(f"{request.method} is not how GraphQL is asked")

    def _wants_graphiql(self, request: Request) -> bool:
        return (
            self._settings.graphiql
            and request.method == "GET"
            and "query" not in request.query_params
            and "text/html" in request.headers.get("accept", "")
        )


_HEADERS: Final[Mapping[int, Mapping[str, str]]] = {
    405: {"Allow": "GET, POST"},
    415: {"Accept-Post": JSON},
    503: {"Retry-After": "2"},
}


def _check_transport(request: Request, operation: Operation) -> None:
    if operation.type is OperationType.SUBSCRIPTION:
        raise InvalidInput(
            "operation.subscription",
            "a subscription is not answered over plain HTTP",
            hint="connect a WebSocket to the same path with the subprotocol graphql-transport-ws",
        )
    if operation.type is OperationType.MUTATION and request.method == "GET":
        raise _wrong_method("a mutation is not sent with GET")


def _wrong_method(message: str) -> InvalidInput:
    return InvalidInput("method.not_allowed", message, hint="POST a JSON body, or GET with a query")


def _prefers_graphql_response(request: Request) -> bool:
    return GRAPHQL_RESPONSE in request.headers.get("accept", "")


def _response(
    payload: Payload, status: int, media_type: str, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(
        encode(payload),
        status,
        {**(headers or {}), "Content-Type": f"{media_type}; charset=utf-8"},
    )
