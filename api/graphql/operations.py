"""Operations: one request from its text to its result, however it travelled."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from graphql import (
    ExecutionResult,
    GraphQLError,
    OperationType,
    execute,
    subscribe,
)
from opentelemetry import propagate

from api.access.identity import Identity
from api.access.requirements import Requirements, check
from api.graphql.compiled import COMPILE_AFTER_HITS, CompiledExecutor, Plan
from api.graphql.context import OperationContext
from api.graphql.direct import DirectResolvers
from api.graphql.errors import extensions_of, told
from api.graphql.kept_text import KeptTexts
from api.graphql.limits import too_costly
from api.graphql.preparation import (
    Document,
    DocumentRefused,
    Documents,
    Prepared,
)
from api.graphql.schema import create_schema
from api.graphql.trusted import TrustedDocuments, check_hash, hash_of
from api.metrics import OperationMetrics
from api.services import Services
from api.throttle import TokenBuckets
from api.tracing import TRACEPARENT_HEADER, RecordedSpan, is_tracing
from domain.errors import HeddleError, InvalidInput, NotAllowed, Unavailable

CHECKED_AT_ONCE_CHARACTERS: Final = 2_000
"""Longer documents are checked in a thread, so that everybody else gets their turn meanwhile."""

CHECKS_AT_ONCE_MAX: Final = 2
REQUEST_COST: Final = 1
FAILED_IDENTITY_COST: Final = 1_000
CHARACTERS_A_COST: Final = 10
"""A document that was not kept from before is charged by its length: checking it takes longest."""

logger = logging.getLogger("heddle.graphql")

Payload = dict[str, Any]


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """What a client asks for: a document, the operation of it that is meant, its variables.

    Parameters
    ----------
    query : the document; None where `document_sha256` names one that the server has
    """

    query: str | None
    variables: dict[str, Any] | None = None
    operation_name: str | None = None
    document_sha256: str | None = None

    @classmethod
    def of(cls, given: object) -> OperationRequest:
        """Return the request that the JSON value `given` spells.

        Raises
        ------
        InvalidInput
            ``request.batched``, ``request.malformed`` or ``document.malformed_id``
        """
        if isinstance(given, list):
            raise InvalidInput(
                "request.batched",
                "several requests came in one body",
                hint="send one request a body; one document may hold many fields",
            )
        if not isinstance(given, dict):
            raise _malformed("the request", "an object with a query", given)
        variables = given.get("variables")
        if not isinstance(variables, dict | None):
            raise _malformed("variables", "an object or null", variables)
        operation_name = given.get("operationName")
        if not isinstance(operation_name, str | None):
            raise _malformed("operationName", "a text or null", operation_name)
        extensions = given.get("extensions")
        if not isinstance(extensions, dict | None):
            raise _malformed("extensions", "an object or null", extensions)
        document_sha256 = hash_of(given.get("documentId"), extensions)
        query = given.get("query")
        if query is None and document_sha256 is not None:
            return cls(None, variables, operation_name, document_sha256)
        if not isinstance(query, str) or not query:
            raise _malformed("query", "a text that is not empty", query)
        return cls(query, variables, operation_name, document_sha256)


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that may be executed: parsed, within limits, valid, allowed."""

    request: OperationRequest
    prepared: Prepared
    context: OperationContext
    headers: Mapping[str, str]
    cost: int

    @property
    def type(self) -> OperationType:
        """Whether it is a query, a mutation or a subscription."""
        return self.prepared.definition.operation

    @property
    def name(self) -> str | None:
        """Its name in the document."""
        return self.prepared.name


class Operations:
    """Prepares and executes operations on `services`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._settings = services.settings
        self.schema = create_schema()
        self._core = self.schema.core
        self._requirements = Requirements(self._core)
        self.documents = Documents(self._core, introspection=self._settings.introspection)
        self._trusted = TrustedDocuments.of(self._settings.trusted_documents)
        self._buckets = TokenBuckets(self._settings.graphql_rate, self._settings.graphql_burst)
        self._checks = asyncio.Semaphore(CHECKS_AT_ONCE_MAX)
        self.texts = KeptTexts(encode)
        self._resolvers = DirectResolvers(self._core)
        self.metrics: OperationMetrics | None = None
        self.compile_after = COMPILE_AFTER_HITS

    async def identify(self, headers: Mapping[str, str], peer: str | None) -> Identity:
        """Return who asks.

        Parameters
        ----------
        headers : of the HTTP request, or of the handshake of the WebSocket, names in lower case
        peer : the address that the connection comes from

        Raises
        ------
        NotAllowed, InvalidInput, Unavailable
            as `Authenticator.identify`
        RateExceeded
            ``client.throttled`` where too many attempts failed
        """
        try:
            return await self._services.authenticator.identify(headers, peer)
        except NotAllowed:
            # Whoever tries keys is soon told to wait, whatever he tries next.
            self._buckets.take(f"address:{peer}", FAILED_IDENTITY_COST)
            raise

    def admit(self, identity: Identity, peer: str | None) -> None:
        """Count a request of a client; it may turn out to be none.

        Raises
        ------
        RateExceeded
            ``client.throttled``
        """
        self._buckets.take(_client(identity, peer), REQUEST_COST)

    async def prepare(
        self,
        request: OperationRequest,
        identity: Identity,
        headers: Mapping[str, str],
        peer: str | None = None,
    ) -> Operation:
        """Return the operation that `request` asks for, and charge the client with its cost.

        Raises
        ------
        DocumentRefused
            as `Documents.prepare` and `Document.operation`, and ``document.cost``
        InvalidInput
            as `TrustedDocuments.find`
        NotAllowed
            ``access.denied``
        RateExceeded
            ``client.throttled``
        """
        client = _client(identity, peer)
        document = await self._document(request, client)
        prepared = document.operation(request.operation_name or None)
        self._check_rights(prepared, identity)
        cost, limit = prepared.cost(request.variables), self._settings.graphql_cost_max
        if cost > limit:
            raise DocumentRefused(too_costly(cost, limit), parsed=True)
        self._buckets.take(client, cost)
        context = OperationContext(self._services, identity, prepared.document, peer)
        context.operations = self
        return Operation(request, prepared, context, headers, cost)

    def told_cost(self, operation: Operation) -> dict[str, int]:
        """Return what a client is told about the cost of `operation`."""
        return {"requested": operation.cost, "limit": self._settings.graphql_cost_max}

    def _check_rights(self, prepared: Prepared, identity: Identity) -> None:
        """Raise `NotAllowed` unless `identity` may ask for every field of `prepared`."""
        required = prepared.required
        if required is None:
            needs = self._requirements.of(prepared.document, prepared.definition)
            required = prepared.required = frozenset(right for _, right in needs)
        if not required <= identity.rights:
            check(self._requirements.of(prepared.document, prepared.definition), identity)

    async def _document(self, request: OperationRequest, client: str) -> Document:
        source = request.query
        if source is None or self._settings.trusted_documents_only:
            source = self._trusted.find(request, self.documents.kept_source)
        elif request.document_sha256 is not None:
            check_hash(source, request.document_sha256)
        found = self.documents.find(source)
        if found is not None:
            return found
        self._buckets.take(client, len(source) / CHARACTERS_A_COST)
        if len(source) <= CHECKED_AT_ONCE_CHARACTERS:
            return self.documents.prepare(source)
        async with self._checks:
            document = await asyncio.to_thread(self.documents.check, source)
        self.documents.keep(source, document)
        return document

    async def execute(self, operation: Operation) -> Payload:
        """Return the response to a query or a mutation; without ``data`` where none was executed.

        Raises
        ------
        Unavailable
            ``operation.timeout``
        """
        started_s = time.perf_counter()
        try:
            with _traced(operation):
                if operation.prepared.answer is not None:
                    return dict(operation.prepared.answer)
                return await self._within_time(operation)
        finally:
            self._account(operation, time.perf_counter() - started_s)

    async def _within_time(self, operation: Operation) -> Payload:
        seconds_max = self._settings.graphql_s_max
        try:
            async with asyncio.timeout(seconds_max):
                return await self._executed(operation)
        except TimeoutError:
            raise Unavailable(
                "operation.timeout",
                f"the operation took longer than {seconds_max:g} s",
                hint="ask for less; repeat a mutation with the same idempotency key",
                limit=seconds_max,
            ) from None

    def _account(self, operation: Operation, seconds: float) -> None:
        """Count an operation, and log a slow one: by its document's hash, without its variables."""
        prepared = operation.prepared
        if self.metrics is not None:
            self.metrics.executed(operation.type.value, prepared.name, operation.cost, seconds)
        if seconds > self._settings.slow_operation_s:
            logger.warning(
                "graphql: slow %s %s, document sha256:%s, %.3f s, cost %d, by %s",
                operation.type.value,
                prepared.name or "(anonymous)",
                prepared.source_sha256,
                seconds,
                operation.cost,
                operation.context.actor,
            )

    async def _introspected(self, operation: Operation) -> Payload:
        """Return what `operation` asks of the schema: read in a thread, and kept.

        A client's tool asks for all of the schema at once, which takes longer than others may wait.
        """
        prepared = operation.prepared
        variables = operation.request.variables
        async with self._checks:
            result = await asyncio.to_thread(
                execute,
                self._core,
                prepared.document,
                variable_values=variables,
                operation_name=prepared.name,
            )
            assert isinstance(result, ExecutionResult), "the schema is read at once"
            payload = _payload(result)
            if "errors" in payload:
                return payload
            answer = {"data": orjson.Fragment(await asyncio.to_thread(encode, payload["data"]))}
        if not prepared.definition.variable_definitions:
            prepared.answer = answer
        return dict(answer)

    async def _executed(self, operation: Operation) -> Payload:
        prepared = operation.prepared
        if prepared.only_introspects:
            return await self._introspected(operation)
        prepared.hits += 1
        if prepared.hits <= self.compile_after:
            result = execute(
                self._core,
                prepared.document,
                context_value=operation.context,
                variable_values=operation.request.variables,
                operation_name=prepared.name,
            )
        else:
            result = self._with_plan(operation)
        payload = _payload(await result if inspect.isawaitable(result) else result)
        if prepared.is_constant:
            prepared.answer = payload
        return payload

    def _with_plan(self, operation: Operation) -> Any:
        """Execute an operation that is asked for often with generated functions."""
        prepared = operation.prepared
        if prepared.plan is None:
            prepared.plan = Plan(self._core, prepared.document, self.texts, self._resolvers)
        executor = CompiledExecutor.of(
            prepared.plan,
            self._core,
            prepared.definition,
            operation.context,
            operation.request.variables,
        )
        if isinstance(executor, list):
            return ExecutionResult(None, executor)
        return executor.execute_operation()

    async def stream(self, operation: Operation) -> AsyncGenerator[Payload, None]:
        """Yield the responses of a subscription; the last one has no ``data`` if it broke off."""
        source = subscribe(
            self._core,
            operation.prepared.document,
            context_value=operation.context,
            variable_values=operation.request.variables,
            operation_name=operation.name,
        )
        results = await source if inspect.isawaitable(source) else source
        if isinstance(results, ExecutionResult):
            yield _payload(results)
            return
        async with aclosing(results):  # type: ignore[type-var]
            async for result in results:
                yield _payload(result)


def _client(identity: Identity, peer: str | None) -> str:
    """Return whose bucket a request is taken from: of who is known, else of where he comes from."""
    return f"address:{peer}" if identity.method == "open" else identity.actor


def _traced(operation: Operation) -> AbstractContextManager[object]:
    """Return the span of `operation`, in the trace of who asked; none where nobody traces."""
    if TRACEPARENT_HEADER not in operation.headers and not is_tracing():
        return nullcontext()
    prepared = operation.prepared
    kind = prepared.definition.operation.value
    return RecordedSpan(
        f"graphql {kind} {prepared.name or 'anonymous'}",
        {
            "graphql.operation.type": kind,
            "graphql.operation.name": prepared.name or "",
            "graphql.document.sha256": prepared.source_sha256,
            "heddle.cost": operation.cost,
        },
        propagate.extract(operation.headers) if TRACEPARENT_HEADER in operation.headers else None,
    )


def _payload(result: ExecutionResult) -> Payload:
    """Return `result` as a response. One without ``data`` was never executed, or broke off."""
    if not result.errors:
        return {"data": result.data}
    errors = [told(error).formatted for error in result.errors]
    executed = result.data is not None or all(error.path for error in result.errors)
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
