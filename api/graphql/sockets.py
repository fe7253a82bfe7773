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

from api.graphql.broadcast import Subscriptions
from api.graphql.errors import current_trace_id, masked
from api.graphql.messages import Batch
from api.graphql.operations import OperationRequest, Operations, Payload, encode, refusal
from api.graphql.preparation import DocumentRefused
from api.headers import read_headers
from api.websocket_protocol import FRAMES_EXTENSION, FrameProtocol
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
    subscriptions: Subscriptions


class FrameLine:
    """The way of one operation over a socket that others may share."""

    __slots__ = ("_id", "_is_closed", "protocol")

    def __init__(self, protocol: FrameProtocol, operation_id: str) -> None:
        self.protocol = protocol
        self._id = encode(operation_id)
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether the client still listens."""
        return not self._is_closed and self.protocol.is_open

    def write(self, batch: Batch) -> bool:
        """Write frames; return whether there is room for more, at once."""
        if self._is_closed:
            return False
        if batch.is_copied:
            return self.protocol.write_frames(batch.frames(self._id))
        return self.protocol.write_parts(batch.parts(self._id))

    async def room(self) -> None:
        """Return once the client has taken enough.

        Raises
        ------
        WebSocketDisconnected
        """
        await self.protocol.writable.wait()
        if not self.is_open:
            raise WebSocketDisconnected

    def close(self) -> None:
        """Write nothing more: the operation was completed by its client."""
        self._is_closed = True


class OperationsHandler(BaseGraphQLTransportWSHandler[Any, None]):
    """Serves one socket.

    Who asks is said by the handshake's headers, or by ``authorization`` in the payload of
    ``connection_init``, for a page in a browser can set no header of a handshake.
    """

    _authorization: str | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._lines: dict[str, FrameLine] = {}

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

    async def cleanup_operation(self, operation_id: str) -> None:
        """End an operation: nothing is told under its id from here on."""
        line = self._lines.pop(operation_id, None)
        if line is not None:
            line.close()
        await super().cleanup_operation(operation_id)

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
        line = self._lines[operation.id] = FrameLine(self._protocol, operation.id)
        try:
            return await cast("RunsOperations", self.view).subscriptions.serve(prepared, line)
        finally:
            if self._lines.get(operation.id) is line:
                del self._lines[operation.id]

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
    def _protocol(self) -> FrameProtocol:
        extensions = cast("TextAdapter", self.websocket).ws.scope["extensions"]
        return cast("FrameProtocol", extensions[FRAMES_EXTENSION])

    @property
    def _operations(self) -> Operations:
        return cast("RunsOperations", self.view).operations
