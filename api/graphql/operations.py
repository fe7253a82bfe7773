"""Operations: one request from its text to its result, however it travelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import orjson
from graphql import GraphQLError, OperationDefinitionNode, OperationType
from opentelemetry import propagate, trace
from strawberry.extensions import SchemaExtension
from strawberry.types.execution import ExecutionResult, PreExecutionError

from api.access.identity import LOCAL_ADMIN
from api.graphql.context import OperationContext, actor_of
from api.graphql.documents import Documents, operation_of
from api.graphql.errors import extensions_of, told
from api.graphql.schema import create_schema
from api.services import Services
from domain.errors import HeddleError, InvalidInput, Unavailable

EXECUTION_S_MAX: Final = 30.0

tracer = trace.get_tracer("heddle.graphql")

Payload = dict[str, Any]


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """What a client asks for: a document, the operation of it that is meant, its variables."""

    query: str
    variables: dict[str, Any] | None = None
    operation_name: str | None = None

    @classmethod
    def of(cls, given: object) -> OperationRequest:
        """Return the request that the JSON value `given` spells.

        Raises
        ------
        InvalidInput
            ``request.batched`` or ``request.malformed``
        """
        if isinstance(given, list):
            raise InvalidInput(
                "request.batched",
                "several requests came in one body",
                hint="send one request a body; one document may hold many fields",
            )
        if not isinstance(given, dict):
            raise _malformed("the request", "an object with a query", given)
        query = given.get("query")
        if not isinstance(query, str) or not query:
            raise _malformed("query", "a text that is not empty", query)
        variables = given.get("variables")
        if not isinstance(variables, dict | None):
            raise _malformed("variables", "an object or null", variables)
        operation_name = given.get("operationName")
        if not isinstance(operation_name, str | None):
            raise _malformed("operationName", "a text or null", operation_name)
        if not isinstance(given.get("extensions"), dict | None):
            raise _malformed("extensions", "an object or null", given["extensions"])
        return cls(query, variables, operation_name)


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that may be executed: parsed, within limits, valid."""

    request: OperationRequest
    definition: OperationDefinitionNode
    context: OperationContext
    headers: Mapping[str, str]

    @property
    def type(self) -> OperationType:
        """Whether it is a query, a mutation or a subscription."""
        return self.definition.operation

    @property
    def name(self) -> str | None:
        """Its name in the document."""
        return self.definition.name.value if self.definition.name else None


class Operations:
    """Prepares and executes operations on `services`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.schema = create_schema([_PreparedDocument])
        self._documents = Documents(self.schema.core)

    def prepare(self, request: OperationRequest, headers: Mapping[str, str]) -> Operation:
        """Return the operation that `request` asks for.

        Parameters
        ----------
        headers : of the HTTP request, or of the handshake of the WebSocket

        Raises
        ------
        DocumentRefused
            as `Documents.prepare` and `operation_of`
        InvalidInput
            ``actor.malformed_name``
        """
        identity = replace(LOCAL_ADMIN, actor=actor_of(headers))
        document = self._documents.prepare(request.query)
        definition = operation_of(document, request.operation_name)
        context = OperationContext(self._services, identity, document)
        return Operation(request, definition, context, headers)

    async def execute(self, operation: Operation) -> Payload:
        """Return the response to a query or a mutation; without ``data`` where none was executed.

        Raises
        ------
        Unavailable
            ``operation.timeout``
        """
        with tracer.start_as_current_span(
            f"graphql {operation.type.value} {operation.name or 'anonymous'}",
            context=propagate.extract(operation.headers),
        ):
            try:
                async with asyncio.timeout(EXECUTION_S_MAX):
                    result = await self.schema.execute(
                        operation.request.query,
                        variable_values=operation.request.variables,
                        context_value=operation.context,
                        operation_name=operation.name,
                    )
            except TimeoutError:
                raise Unavailable(
                    "operation.timeout",
                    f"the operation took longer than {EXECUTION_S_MAX:g} s",
                    hint="ask for less; repeat a mutation with the same idempotency key",
                    limit=EXECUTION_S_MAX,
                ) from None
            return _payload(result)

    async def stream(self, operation: Operation) -> AsyncGenerator[Payload, None]:
        """Yield the responses of a subscription; the last one has no ``data`` if it broke off."""
        source = await self.schema.stream(
            operation.request.query,
            variable_values=operation.request.variables,
            context_value=operation.context,
            operation_name=operation.name,
        )
        async with aclosing(source):
            async for result in source:
                assert isinstance(result, ExecutionResult), "nothing is delivered in parts"
                yield _payload(result)


class _PreparedDocument(SchemaExtension):
    """Hands the executor the document that was checked before."""

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context
        context.graphql_document = context.context.document
        context.pre_execution_errors = []
        yield


def _payload(result: ExecutionResult) -> Payload:
    """Return `result` as a response. One without ``data`` was never executed, or broke off."""
    if not result.errors:
        return {"data": result.data}
    errors = [told(error).formatted for error in result.errors]
    executed = not isinstance(result, PreExecutionError) and (
        result.data is not None or all(error.path for error in result.errors)
    )
    return {"errors": errors, "data": result.data} if executed else {"errors": errors}


def refusal(*errors: GraphQLError | HeddleError) -> Payload:
    """Return the response to what is not executed for `errors`."""
    return {
        "errors": [
            {"message": error.message, "extensions": extensions_of(error)}
            if isinstance(error, HeddleError)
            else told(error).formatted
            for error in errors
        ]
    }


def encode(payload: object) -> bytes:
    """Return `payload` as JSON; columns are written as they lie in memory."""
    return orjson.dumps(payload, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)


def decode(body: bytes | str) -> Any:
    """Return the JSON value in `body`: UTF-8, finite numbers, no lone surrogates.

    Raises
    ------
    InvalidInput
        ``body.malformed``
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(
            "body.malformed",
            f"the body is no JSON: {error}",
            hint='send UTF-8 JSON such as {"query": "{ log { position } }"}',
        ) from error


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) else str(value)


def _malformed(name: str, wanted: str, given: object) -> InvalidInput:
    return InvalidInput(
        "request.malformed",
        f"{name} is {type(given).__name__ if given is not None else 'null or missing'}, "
        f"not {wanted}",
        hint='send an object such as {"query": "{ log { position } }", "variables": {}}',
    )
