"""Documents: parsed within limits, validated, and kept for the next time they are sent.

Every limit is counted in one walk over the document that visits each fragment once, whatever
spreads it: nothing a document says can make the walk, or the validation that follows, take more
than time linear in a small number.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    parse,
    validate,
)

TOKENS_MAX: Final = 4_000
COMMENTS_MAX: Final = 400
DEPTH_MAX: Final = 16
FIELDS_MAX: Final = 2_000
ALIASES_MAX: Final = 100
REPEATS_MAX: Final = 50
"""Fields that repeat a name beside them; validation compares each pair of them."""

ERRORS_MAX: Final = 20
KEPT_MAX: Final = 500
KEPT_LENGTH_MAX: Final = 20_000


class DocumentRefused(Exception):
    """A document that will not be executed, and every reason why."""

    def __init__(self, *errors: GraphQLError) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = errors


class Documents:
    """Prepares the documents of one schema."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._schema = schema
        self._kept: OrderedDict[str, DocumentNode] = OrderedDict()

    def prepare(self, source: str) -> DocumentNode:
        """Return the document that `source` spells.

        Raises
        ------
        DocumentRefused
            a syntax error, a limit, or a document that does not fit the schema
        """
        document = self._kept.get(source)
        if document is not None:
            self._kept.move_to_end(source)
            return document
        try:
            document = parse(source, max_lexical_tokens=TOKENS_MAX, max_comments=COMMENTS_MAX)
            _check_limits(document)
            errors = validate(self._schema, document, max_errors=ERRORS_MAX)
        except GraphQLError as error:
            raise DocumentRefused(error) from error
        except RecursionError:
            raise DocumentRefused(_beyond("depth", "nested levels", None, DEPTH_MAX)) from None
        if errors:
            raise DocumentRefused(*errors)
        if len(source) <= KEPT_LENGTH_MAX:
            self._kept[source] = document
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        return document


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
                    f"the document has no operation {name!r}" if name else "there is no operation",
                )
            )
    raise DocumentRefused(
        _refusal(
            "operation.ambiguous",
            f"the document has {len(operations)} operations and operationName is missing",
            hint="say with operationName which one to execute",
        )
    )


# --- limits -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Extent:
    """What a selection set comes to, all fragments spread.

    `names` counts the response names of its own level.
    """

    depth: int
    fields: int
    aliases: int
    names: Counter[str]


_NOTHING: Final = _Extent(0, 0, 0, Counter())


def _check_limits(document: DocumentNode) -> None:
    walk = _Walk(document)
    for node in document.definitions:
        if isinstance(node, OperationDefinitionNode):
            extent = walk.measure_level(node.selection_set)
            for kind, what, count, limit in (
                ("depth", "nested levels", extent.depth, DEPTH_MAX),
                ("fields", "fields", extent.fields, FIELDS_MAX),
                ("aliases", "aliases", extent.aliases, ALIASES_MAX),
            ):
                if count > limit:
                    raise _beyond(kind, what, count, limit)
    if walk.repeats > REPEATS_MAX:
        raise _beyond("repeats", "repeated fields", walk.repeats, REPEATS_MAX)


class _Walk:
    """Measures selection sets; a fragment is measured once."""

    def __init__(self, document: DocumentNode) -> None:
        self.repeats = 0
        self._fragments = {
            node.name.value: node
            for node in document.definitions
            if isinstance(node, FragmentDefinitionNode)
        }
        self._measured: dict[str, _Extent] = {}

    def measure_level(self, selections: SelectionSetNode) -> _Extent:
        """Return the extent of a whole level: of an operation, or below a field."""
        extent = self._measure(selections)
        self.repeats += extent.names.total() - len(extent.names)
        return extent

    def _measure(self, selections: SelectionSetNode) -> _Extent:
        depth = fields = aliases = 0
        names: Counter[str] = Counter()
        for node in selections.selections:
            match node:
                case FieldNode():
                    names[(node.alias or node.name).value] += 1
                    below = _NOTHING
                    if node.selection_set is not None:
                        below = self.measure_level(node.selection_set)
                    depth = max(depth, 1 + below.depth)
                    fields += 1 + below.fields
                    aliases += (node.alias is not None) + below.aliases
                    continue
                case InlineFragmentNode():
                    beside = self._measure(node.selection_set)
                case FragmentSpreadNode():
                    beside = self._fragment(node.name.value)
                case _:
                    raise TypeError(f"{type(node).__name__} is no selection")
            if fields + beside.fields > FIELDS_MAX:
                raise _beyond("fields", "fields", None, FIELDS_MAX)
            depth = max(depth, beside.depth)
            fields += beside.fields
            aliases += beside.aliases
            names.update(beside.names)
        return _Extent(depth, fields, aliases, names)

    def _fragment(self, name: str) -> _Extent:
        extent = self._measured.get(name)
        if extent is None:
            # A fragment that spreads itself, or that does not exist, is validation's to refuse.
            self._measured[name] = _NOTHING
            fragment = self._fragments.get(name)
            extent = _NOTHING if fragment is None else self._measure(fragment.selection_set)
            self._measured[name] = extent
        return extent


def _beyond(kind: str, what: str, count: int | None, limit: int) -> GraphQLError:
    found = "too many" if count is None else str(count)
    return _refusal(
        f"document.{kind}",
        f"the document has {found} {what}, more than {limit}",
        hint="ask for less at once",
        value=count,
        limit=limit,
    )


def _refusal(code: str, message: str, hint: str = "", **what: Any) -> GraphQLError:
    return GraphQLError(message, extensions={"code": code, "hint": hint, **what})
