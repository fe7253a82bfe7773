"""A webhook's document: a subscription that its owner could open over a socket as well.

It is checked when the webhook is created or changed, and again whenever it is executed: rights,
limits and the schema count as they are then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from graphql import FieldNode, OperationDefinitionNode, OperationType, value_from_ast_untyped

from api.access.identity import Identity
from api.graphql.changes import EVERY_S_DEFAULT, EVERY_S_MAX
from api.graphql.context import PreparesOperations
from api.graphql.preparation import DocumentRefused
from domain.errors import InvalidInput
from domain.webhooks import WebhookSettings

PIECE_INTERVAL_S: Final = 0.02
"""Between the beginnings of two pieces, so that what comes together goes together."""


class DocumentFails(InvalidInput):
    """A webhook's document that cannot be executed (any more), and will not by itself."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a webhook asks for, as `api.graphql.operations.OperationRequest` has it."""

    query: str
    variables: dict[str, Any]
    operation_name: str | None
    document_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """How a webhook's document is executed.

    Parameters
    ----------
    root : name of its root field, such as ``workOrders``
    interval_s : at least so long between two messages
    """

    root: str
    interval_s: float


def request_of(settings: WebhookSettings) -> Request:
    """Return what a webhook asks for.

    Raises
    ------
    InvalidInput
        ``webhook.malformed_variables``
    """
    try:
        variables = orjson.loads(settings.variables or "{}")
        if not isinstance(variables, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        raise InvalidInput(
            "webhook.malformed_variables",
            f"the variables are no JSON object: {error}",
            hint='such as {"types": ["work_order.completed"]}',
        ) from error
    return Request(settings.document, variables, settings.operation_name)


async def prepared(
    operations: PreparesOperations, settings: WebhookSettings, identity: Identity
) -> Any:
    """Return a webhook's operation (`api.graphql.operations.Operation`), to be executed as
    `identity`.

    Raises
    ------
    DocumentFails
        ``webhook.document_refused``: the schema, a limit or a trusted-documents rule is against it;
        ``webhook.no_subscription``
    NotAllowed
        ``access.denied``: it asks for what `identity` has no right to
    HeddleError
        as `Operations.prepare`
    """
    try:
        operation = await operations.prepare(request_of(settings), identity, {})
    except DocumentRefused as error:
        raise DocumentFails(
            "webhook.document_refused",
            f"the document cannot be executed: {error.errors[0].message:.300}",
            hint="try it over a socket first",
        ) from error
    if operation.type is not OperationType.SUBSCRIPTION:
        raise DocumentFails(
            "webhook.no_subscription",
            f"the document's operation is a {operation.type.value}, not a subscription",
            hint="such as subscription { events { event { position type } } }",
            value=operation.type.value,
        )
    return operation


def planned(operation: Any) -> Planned:
    """Return how `operation` is executed: at its own pace, where it names one."""
    definition: OperationDefinitionNode = operation.prepared.definition
    # A valid subscription has one root field, and a webhook's stands there itself.
    field = next((n for n in definition.selection_set.selections if isinstance(n, FieldNode)), None)
    if field is None:
        raise DocumentFails(
            "webhook.no_root_field",
            "the subscription's root field stands in a fragment",
            hint="write it into the operation itself",
        )
    name = field.name.value
    if name == "events":
        return Planned(name, PIECE_INTERVAL_S)
    given = operation.request.variables or {}
    argument = next((a for a in field.arguments or () if a.name.value == "everyS"), None)
    every_s = EVERY_S_DEFAULT if argument is None else _number(argument.value, given)
    return Planned(name, min(max(every_s, PIECE_INTERVAL_S), EVERY_S_MAX))


def _number(node: Any, variables: Mapping[str, Any]) -> float:
    value = value_from_ast_untyped(node, dict(variables))
    return float(value) if isinstance(value, int | float) else EVERY_S_DEFAULT
