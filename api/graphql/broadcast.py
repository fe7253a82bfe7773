"""Subscriptions: executed and serialised once for all who ask the same and may see the same.

"The same" is the document, the operation in it, the variables and the permissions; not the cursor
that each client resumes from.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any, Final

import orjson
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    Node,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
)

from api.access.authentication import Authenticator
from api.access.validity import IdentityWatch
from api.graphql.groups import Group
from api.graphql.subscribers import Counts, Line, Subscriber

if TYPE_CHECKING:
    from api.graphql.operations import Operation, Payload
    from api.graphql.preparation import Prepared

CURSOR_ARGUMENT: Final = "after"
KEPT_MAX: Final = 1_000


class Subscriptions:
    """Every subscription that is open.

    Parameters
    ----------
    results : executes a subscription
    authenticator : says whether who subscribed would be let in still
    """

    def __init__(
        self,
        results: Callable[[Operation], AsyncGenerator[Payload, None]],
        authenticator: Authenticator,
    ) -> None:
        self._results = results
        self._watch = IdentityWatch(authenticator)
        self._groups: dict[Hashable, Group] = {}
        self._cursor_variables: dict[tuple[str, str | None], str | None] = {}
        self.counts = Counts()

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups that have subscribers."""
        return tuple(self._groups.values())

    async def serve(self, operation: Operation, line: Line) -> Payload | None:
        """Tell over `line` what the subscription `operation` finds, until it ends.

        Return the response without data that ended it; None where it completed.

        Raises
        ------
        HeddleError
            what broke it off: ``access.expired`` once its identity is let in no more,
            ``log.unavailable`` and ``projection.behind`` with the cursor to resume from, and what
            the subscription raises
        """
        key = self._key(operation)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(self._results, self.counts)
        subscriber = Subscriber(operation, line)
        try:
            with self._watch.watching(operation.context.identity, subscriber.end):
                return await group.serve(subscriber)
        finally:
            if not len(group) and self._groups.get(key) is group:
                del self._groups[key]

    def _key(self, operation: Operation) -> Hashable:
        """Return what operations share that are executed together."""
        prepared = operation.prepared
        cursor = self._cursor_variable(prepared)
        given = operation.request.variables or {}
        declared = [
            definition.variable.name.value
            for definition in prepared.definition.variable_definitions or ()
        ]
        variables = {name: given[name] for name in declared if name in given and name != cursor}
        try:
            text = orjson.dumps(variables, option=orjson.OPT_SORT_KEYS)
        except TypeError:  # nested deeper than anybody needs
            return object()
        permissions = operation.context.identity.permissions
        return prepared.source_sha256, prepared.name, text, permissions

    def _cursor_variable(self, prepared: Prepared) -> str | None:
        key = prepared.source_sha256, prepared.name
        if key not in self._cursor_variables:
            if len(self._cursor_variables) >= KEPT_MAX:
                self._cursor_variables.clear()
            found = cursor_variable(prepared.document, prepared.definition)
            self._cursor_variables[key] = found
        return self._cursor_variables[key]


def cursor_variable(document: DocumentNode, definition: OperationDefinitionNode) -> str | None:
    """Return the variable that says where a subscription starts, and nothing else; None: none."""
    for root in _root_fields(document, definition.selection_set, set()):
        for argument in root.arguments or ():
            if argument.name.value == CURSOR_ARGUMENT and isinstance(argument.value, VariableNode):
                name = argument.value.name.value
                uses = sum(name == used for used in _variables_used(document))
                return name if uses == 1 else None
    return None


def _root_fields(
    document: DocumentNode, selections: SelectionSetNode, spread: set[str]
) -> Iterator[FieldNode]:
    """Yield the fields of `selections`; each fragment in `spread` is done."""
    for node in selections.selections:
        match node:
            case FieldNode():
                yield node
            case InlineFragmentNode(selection_set=inside):
                yield from _root_fields(document, inside, spread)
            case FragmentSpreadNode(name=name) if name.value not in spread:
                spread.add(name.value)
                for found in document.definitions:
                    if isinstance(found, FragmentDefinitionNode) and found.name.value == name.value:
                        yield from _root_fields(document, found.selection_set, spread)


def _variables_used(node: Any) -> Iterator[str]:
    """Yield the name of each variable that stands for a value below `node`."""
    if isinstance(node, VariableNode):
        yield node.name.value
    elif isinstance(node, Node):
        for key in node.keys:
            # What declares a variable does not use it.
            if key != "variable" and (child := getattr(node, key, None)) is not None:
                yield from _variables_used(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from _variables_used(child)
