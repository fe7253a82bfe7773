"""GraphQL over HTTP and WebSocket at ``/graphql``, and GraphiQL for whoever comes by browser.

Strawberry's view is kept for its WebSocket half alone; `api.graphql.http` is the other one.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from api.graphql.broadcast import Subscriptions
from api.graphql.http import GraphQLOverHttp
from api.graphql.open_sockets import OpenSockets
from api.graphql.operations import Operations, encode
from api.graphql.sockets import OperationsHandler, TextAdapter
from api.headers import SECURITY_HEADERS
from api.services import Services

PATH: Final = "/graphql"
GRAPHIQL_FOLDER: Final = Path(__file__).parent.parent / "graphiql"
GRAPHIQL_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
OPERATIONS_PER_SOCKET_MAX: Final = 100
INIT_WAIT: Final = timedelta(seconds=10)


def graphql_routes(services: Services, endpoint: GraphQLEndpoint | None = None) -> list[BaseRoute]:
    """Return the routes of the GraphQL API on `services`: the endpoint, and GraphiQL's files."""
    endpoint = endpoint or GraphQLEndpoint(services)
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
        self.sockets = OpenSockets()
        self.subscriptions = Subscriptions(self.operations.stream, services.authenticator)
        self.http = GraphQLOverHttp(self.operations, self.subscriptions, services.settings)
        self._shows_graphiql = services.settings.graphiql
        super().__init__(
            self.operations.schema,
            graphql_ide=None,
            subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
            connection_init_wait_timeout=INIT_WAIT,
            max_subscriptions_per_connection=OPERATIONS_PER_SOCKET_MAX,
            allowed_origins=("*",),  # `api.gateway` has turned away whom it should
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or serve one WebSocket."""
        if scope["type"] == "websocket":
            await self.sockets.serve(super().__call__, scope, receive, send)
        elif self._wants_graphiql(scope):
            await _graphiql()(scope, receive, send)
        else:
            await self.http(scope, receive, send)

    def unsent_bytes(self) -> int:
        """Return how many bytes wait for clients of subscriptions to take them."""
        return self.sockets.unsent_bytes + self.http.streams.unsent_bytes

    def decode_json(self, data: str | bytes) -> object:
        """Return the JSON value of a WebSocket message."""
        return orjson.loads(data)

    def encode_json(self, data: object) -> str:
        """Return a WebSocket message: text, for bytes would make binary frames."""
        return encode(data).decode()

    async def get_context(self, request: Request | WebSocket, response: Any) -> Any:  # noqa: ARG002
        """Return nothing: each operation of a socket has a context of its own."""
        return {}

    def _wants_graphiql(self, scope: Scope) -> bool:
        if scope["method"] != "GET" or not self._shows_graphiql:
            return False
        request = Request(scope)
        asks = request.query_params.keys() & {"query", "documentId", "extensions"}
        return not asks and "text/html" in request.headers.get("accept", "")


def _graphiql() -> Response:
    headers = {name.decode(): value.decode() for name, value in SECURITY_HEADERS}
    return FileResponse(
        GRAPHIQL_FOLDER / "index.html",
        headers={**headers, "content-security-policy": GRAPHIQL_POLICY},
    )
