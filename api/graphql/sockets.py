"""graphql-transport-ws: many operations over one WebSocket, each with a context of its own.

The protocol's states are Strawberry's; what an operation is, and how it fails, is ours: an
error ends its operation, never the socket.

References
----------
GraphQL over WebSocket Protocol (graphql-transport-ws), github.com/enisdenjo/graphql-ws.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final, Protocol, cast

from graphql import OperationType
from starlette.websockets import WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
    Operation,
)
from strawberry.subscriptions.protocols.graphql_transport_ws.types import (
    ConnectionInitMessage,
    Message,
    SubscribeMessage,
)

from api.graphql.errors import current_trace_id, masked
from api.graphql.operations import OperationRequest, Operations, Payload, refusal
from api.graphql.preparation import DocumentRefused
from api.headers import read_headers
from domain.errors import HeddleError, InvalidInput, NotAllowed

logger = logging.getLogger("heddle.graphql")

FORBIDDEN: Final = 4403
REASON_BYTES_MAX: Final = 123  # RFC 6455, section 5.5


class TextAdapter(ASGIWebSocketAdapter):
    """A socket that ends its operations once it is closed."""

    async def send_json(self, message: Mapping[str, object]) -> None:
        """Send one message, and wait until there is room for it on the way to the client."""
        if self.ws.application_state is WebSocketState.DISCONNECTED:
            raise WebSocketDisconnected
        await super().send_json(message)

    async def close(self, code: int, reason: str) -> None:
        """Close the socket; what a client wrote may be longer than a reason may be."""
        await super().close(code, reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore"))


class RunsOperations(Protocol):
    """What a socket asks of the endpoint that it was opened at."""

    operations: Operations


class OperationsHandler(BaseGraphQLTransportWSHandler[Any, None]):
    """Serves one socket.

    Who asks is said by the handshake's headers, or by ``authorization`` in the payload of
    ``connection_init``, for a page in a browser can set no header of a handshake.
    """

    _authorization: str | None = None

    async def handle_connection_init(self, message: ConnectionInitMessage) -> None:
        """Let the client in, or close with 4403."""
        payload = message.get("payload") or {}
        authorization = payload.get("authorization") if isinstance(payload, dict) else None
        if not isinstance(authorization, str | None):
            await self.handle_invalid_message("authorization is a text")
            return
        if not self.connection_init_received:
            self._authorization = authorization
            try:
                await self._operations.identify(*self._asked_by())
            except NotAllowed as error:
                await self.websocket.close(FORBIDDEN, f"{error.code}: {error.message}")
                return
            except HeddleError:
                pass  # each operation is told of it
        await super().handle_connection_init(message)

    async def handle_message(self, message: Message) -> None:
        """Deal with one message of the client."""
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            await self.handle_invalid_message("a message is an object with a type")
            return
        if message["type"] in ("subscribe", "complete") and not (
            isinstance(message.get("id"), str) and message["id"]
        ):
            await self.handle_invalid_message("the message has no id")
            return
        await super().handle_message(message)

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        """Start an operation, unless the message is none."""
        try:
            OperationRequest.of(message["payload"])
        except InvalidInput as error:
            await self.handle_invalid_message(error.message)
            return
        await super().handle_subscribe(message)

    async def run_operation(self, operation: Operation[Any, None]) -> None:
        """Run one operation to its end."""
        try:
            try:
                refused = await self._run(operation)
            except DocumentRefused as error:
                refused = refusal(*error.errors)
            except HeddleError as error:
                refused = refusal(error)
            except WebSocketDisconnected:
                raise
            except Exception:
                trace_id = current_trace_id()
                logger.exception("graphql: an operation failed, trace %s", trace_id)
                message, extensions = masked(trace_id)
                refused = {"errors": [{"message": message, "extensions": extensions}]}
            if refused is None:
                await operation.send_operation_message({"id": operation.id, "type": "complete"})
            else:
                await operation.send_operation_message(
                    {"id": operation.id, "type": "error", "payload": refused["errors"]}
                )
        except WebSocketDisconnected:
            pass  # the socket's own loop ends, and with it whatever else runs on it

    async def _run(self, operation: Operation[Any, None]) -> Payload | None:
        """Send the results of `operation`; return the one that ended it, if it did not complete."""
        operations = self._operations
        headers, peer = self._asked_by()
        identity = await operations.identify(headers, peer)
        prepared = await operations.prepare(
            OperationRequest(operation.query, operation.variables, operation.operation_name),
            identity,
            headers,
            peer,
        )
        if prepared.type is not OperationType.SUBSCRIPTION:
            return await self._send(operation, await operations.execute(prepared))
        stream = operations.stream(prepared)
        async with aclosing(operations.while_valid(stream, identity)) as payloads:
            async for payload in payloads:
                if (refused := await self._send(operation, payload)) is not None:
                    return refused
        return None

    def _asked_by(self) -> tuple[dict[str, str], str | None]:
        """Return the headers that say who asks, and where the connection comes from."""
        socket = cast("TextAdapter", self.websocket).ws
        headers = read_headers(socket.scope)
        if self._authorization is not None:
            headers["authorization"] = self._authorization
        return headers, socket.client.host if socket.client else None

    async def _send(self, operation: Operation[Any, None], payload: Payload) -> Payload | None:
        if "data" not in payload:
            return payload
        await operation.send_operation_message(
            {"id": operation.id, "type": "next", "payload": cast("Any", payload)}
        )
        return None

    @property
    def _operations(self) -> Operations:
        return cast("RunsOperations", self.view).operations
