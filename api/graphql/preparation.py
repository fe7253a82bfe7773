"""Documents: parsed within limits, validated, and kept for the next time they are sent."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    InlineFragmentNode,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    SelectionSetNode,
    parse,
    specified_rules,
    validate,
)

from api.access.rights import Right
from api.graphql.limits import DEPTH_MAX, beyond, check_limits, measure_cost

TOKENS_MAX: Final = 4_000
COMMENTS_MAX: Final = 400
ERRORS_MAX: Final = 20
KEPT_MAX: Final = 500
KEPT_LENGTH_MAX: Final = 20_000
COSTS_KEPT_MAX: Final = 64
INTROSPECTION_FIELDS: Final = frozenset({"__schema", "__type"})

_WITHOUT_INTROSPECTION: Final = (*specified_rules, NoSchemaIntrospectionCustomRule)


class DocumentRefused(Exception):
    """A document that will not be executed, and every reason why.

    Parameters
    ----------
    parsed : whether it is a document at all
    """

    def __init__(self, *errors: GraphQLError, parsed: bool = False) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = errors
        self.parsed = parsed


@dataclass(eq=False, slots=True)
class Prepared:
    """One operation of a document that is within limits and valid.

    Parameters
    ----------
    required : the rights that all its fields take together; None until somebody counted them
    hits : how often it was asked for
    only_introspects : whether all that it asks for is the schema
    plan : functions generated for it, once it was asked for often (`compiled.Plan`)
    is_constant : whether it asks for nothing but the name of its root type
    answer : of an operation whose answer is the same each time, once it was executed
    """

    schema: GraphQLSchema
    document: DocumentNode
    definition: OperationDefinitionNode
    source_sha256: str
    required: frozenset[Right] | None = None
    hits: int = 0
    only_introspects: bool = False
    is_constant: bool = False
    plan: Any = None
    answer: Mapping[str, Any] | None = None
    _size_variables: tuple[str, ...] | None = None
    _costs: dict[tuple[object, ...], int] = field(default_factory=dict)

    @property
    def name(self) -> str | None:
        """The operation's name in the document."""
        return self.definition.name.value if self.definition.name else None

    def cost(self, variables: Mapping[str, Any] | None) -> int:
        """Return what it costs with `variables`."""
        given = variables or {}
        if self._size_variables is not None:
            key = tuple([_hashable(given.get(name)) for name in self._size_variables])
            kept = self._costs.get(key)
            if kept is not None:
                return kept
        extent = measure_cost(self.schema, self.document, self.definition, given)
        self._size_variables = extent.size_variables
        if len(self._costs) >= COSTS_KEPT_MAX:
            self._costs.clear()
        key = tuple([_hashable(given.get(name)) for name in extent.size_variables])
        self._costs[key] = extent.cost
        return extent.cost


@dataclass(eq=False)
class Document:
    """A document that is within limits and valid."""

    schema: GraphQLSchema
    node: DocumentNode
    source_sha256: str
    _operations: dict[str | None, Prepared] = field(default_factory=dict)

    def operation(self, name: str | None) -> Prepared:
        """Return the operation that is meant.

        Raises
        ------
        DocumentRefused
            ``operation.unknown``, or ``operation.ambiguous`` when there are several and no name
        """
        found = self._operations.get(name)
        if found is None:
            definition = operation_of(self.node, name)
            found = self._operations[name] = Prepared(
                self.schema,
                self.node,
                definition,
                self.source_sha256,
                only_introspects=self._only_introspects(definition),
                is_constant=_is_constant(definition),
            )
        return found

    def _only_introspects(self, definition: OperationDefinitionNode) -> bool:
        """Return whether `definition` asks for the schema; it does so alone, or is refused."""
        names = set(_root_names(self.node, definition.selection_set, set()))
        if not names & INTROSPECTION_FIELDS:
            return False
        if names - INTROSPECTION_FIELDS - {"__typename"}:
            raise DocumentRefused(
                _refusal(
                    "document.introspection_beside",
                    "the operation asks for the schema, and for something else beside it",
                    hint="ask for __schema and __type in an operation of their own",
                ),
                parsed=True,
            )
        return True


class Documents:
    """Prepares the documents of one schema."""

    def __init__(self, schema: GraphQLSchema, *, introspection: bool = True) -> None:
        self._schema = schema
        self._rules = specified_rules if introspection else _WITHOUT_INTROSPECTION
        self._hides_names = not introspection
        self._kept: OrderedDict[str, Document] = OrderedDict()
        self._source_by_sha256: dict[str, str] = {}

    def kept_source(self, sha256: str) -> str | None:
        """Return the kept document with this SHA-256, in hexadecimal."""
        return self._source_by_sha256.get(sha256)

    def find(self, source: str) -> Document | None:
        """Return the document that `source` spells, if it was prepared before and kept."""
        document = self._kept.get(source)
        if document is not None:
            self._kept.move_to_end(source)
        return document

    def prepare(self, source: str) -> Document:
        """Return the document that `source` spells.

        Raises
        ------
        DocumentRefused
            a syntax error, a limit, or a document that does not fit the schema
        """
        document = self.find(source)
        if document is None:
            document = self.check(source)
            self.keep(source, document)
        return document

    def check(self, source: str) -> Document:
        """Return the document that `source` spells, and keep nothing; any thread may call it.

        Raises
        ------
        DocumentRefused
            as `prepare`
        """
        try:
            node = parse(source, max_lexical_tokens=TOKENS_MAX, max_comments=COMMENTS_MAX)
            check_limits(self._schema, node)
            errors = validate(
                self._schema,
                node,
                self._rules,
                max_errors=ERRORS_MAX,
                hide_suggestions=self._hides_names,
            )
        except GraphQLError as error:
            is_syntax = isinstance(error, GraphQLSyntaxError)
            raise DocumentRefused(error, parsed=not is_syntax) from error
        except RecursionError:
            raise DocumentRefused(beyond("depth", "nested levels", None, DEPTH_MAX)) from None
        if errors:
            raise DocumentRefused(*errors, parsed=True)
        return Document(self._schema, node, hashlib.sha256(source.encode()).hexdigest())

    def keep(self, source: str, document: Document) -> None:
        """Keep `document` for the next time that `source` is sent; the one longest unused goes."""
        if len(source) <= KEPT_LENGTH_MAX:
            self._kept[source] = document
            self._source_by_sha256[document.source_sha256] = source
            if len(self._kept) > KEPT_MAX:
                _, oldest = self._kept.popitem(last=False)
                self._source_by_sha256.pop(oldest.source_sha256, None)


def operation_of(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    """Return the operation of `document` that is meant.

    Raises
    ------
    DocumentRefused
        ``operation.unknown``, or ``operation.ambiguous`` when there are several and no name
    """
    operations = [
        node for node in document.definitions if isinstance(node, OperationDefinitionNode)
    ]
    if name:
        operations = [node for node in operations if node.name and node.name.value == name]
    match operations:
        case [operation]:
            return operation
        case []:
            raise DocumentRefused(
                _refusal(
                    "operation.unknown",
                    f"the document has no operation {name!r:.80}"
                    if name
                    else "there is no operation",
                ),
                parsed=True,
            )
    raise DocumentRefused(
        _refusal(
            "operation.ambiguous",
            f"the document has {len(operations)} operations and operationName is missing",
            hint="say with operationName which one to execute",
        ),
        parsed=True,
    )


def _is_constant(definition: OperationDefinitionNode) -> bool:
    return not (definition.directives or definition.variable_definitions) and all(
        isinstance(node, FieldNode) and node.name.value == "__typename" and not node.directives
        for node in definition.selection_set.selections
    )


def _root_names(
    document: DocumentNode, selections: SelectionSetNode, spread: set[str]
) -> Iterator[str]:
    """Yield the names of the fields of `selections`; each fragment in `spread` is done."""
    for node in selections.selections:
        match node:
            case FieldNode(name=name):
                yield name.value
            case InlineFragmentNode(selection_set=inside):
                yield from _root_names(document, inside, spread)
            case FragmentSpreadNode(name=name) if name.value not in spread:
                spread.add(name.value)
                for definition in document.definitions:
                    if (
                        isinstance(definition, FragmentDefinitionNode)
                        and definition.name.value == name.value
                    ):
                        yield from _root_names(document, definition.selection_set, spread)


def _hashable(value: object) -> object:
    """Return `value` where it can be a page's size, and None for all that cannot."""
    return value if type(value) is int else None


def _refusal(code: str, message: str, hint: str = "", **what: Any) -> GraphQLError:
    return GraphQLError(message, extensions={"code": code, "hint": hint, **what})
