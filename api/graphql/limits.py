"""What a document may come to: its limits and its cost, all counted in one walk.

The walk visits each fragment once, whatever spreads it: nothing a document says can make it take
more than time linear in the number of tokens.

**Cost.** A field costs what `fields.field(cost=...)` says; otherwise 1 where it has a resolver or
fields below it, and nothing where it only reads an attribute. What is below a list counts once an
item: `first` items where the field takes that argument (of a connection, for its `nodes` and
`edges`), else `ITEMS_ASSUMED`. A fragment's cost is linear in the size of the connection that it is
spread in, so it is kept as two numbers and needs no second visit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLField,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    is_composite_type,
    is_list_type,
    is_non_null_type,
)
from strawberry.schema.schema_converter import GraphQLCoreConverter

from api.graphql.fields import COST
from api.graphql.relay import PAGE_FIRST_MAX

DEPTH_MAX: Final = 16
FIELDS_MAX: Final = 2_000
ALIASES_MAX: Final = 100
ROOT_FIELDS_MAX: Final = 50
SPREADS_MAX: Final = 500
DIRECTIVES_MAX: Final = 100
REPEATS_MAX: Final = 50
"""Fields that repeat a name beside them; validation compares each pair of them."""

ITEMS_ASSUMED: Final = 10
SIZE_ARGUMENT: Final = "first"
MUTATION_COST: Final = 10
"""What a mutation costs beside what it returns: an append, with its fsync."""

COST_MAX: Final = 10**12
"""Where counting stops: a product of page sizes has no end."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What a selection set comes to, all fragments spread.

    `names` counts the response names of its own level. Its cost is `cost` + `cost_an_item` for each
    item of the connection that it belongs to.
    """

    depth: int
    fields: int
    aliases: int
    names: Counter[str]
    cost: int
    cost_an_item: int


_NOTHING: Final = Extent(0, 0, 0, Counter(), 0, 0)


@dataclass(frozen=True, slots=True)
class OperationExtent:
    """What an operation comes to.

    Parameters
    ----------
    size_variables : names of the variables that its cost depends on
    """

    cost: int
    size_variables: tuple[str, ...]


def check_limits(schema: GraphQLSchema, document: DocumentNode) -> None:
    """Raise `GraphQLError` (``document.<kind>``) unless `document` keeps to every limit."""
    walk = _Walk(schema, document, None)
    for node in document.definitions:
        if isinstance(node, OperationDefinitionNode):
            root = schema.get_root_type(node.operation)
            extent = walk.measure_level(node.selection_set, root)
            for kind, what, count, limit in (
                ("depth", "nested levels", extent.depth, DEPTH_MAX),
                ("fields", "fields", extent.fields, FIELDS_MAX),
                ("aliases", "aliases", extent.aliases, ALIASES_MAX),
                ("roots", "root fields", extent.names.total(), ROOT_FIELDS_MAX),
            ):
                if count > limit:
                    raise beyond(kind, what, count, limit)
    for kind, what, count, limit in (
        ("repeats", "repeated fields", walk.repeats, REPEATS_MAX),
        ("spreads", "fragment spreads", walk.spreads, SPREADS_MAX),
        ("directives", "directives", walk.directives, DIRECTIVES_MAX),
    ):
        if count > limit:
            raise beyond(kind, what, count, limit)


def measure_cost(
    schema: GraphQLSchema,
    document: DocumentNode,
    operation: OperationDefinitionNode,
    variables: Mapping[str, Any],
) -> OperationExtent:
    """Return what `operation` of the valid `document` costs with `variables`."""
    defaults = {
        definition.variable.name.value: int(definition.default_value.value)
        for definition in operation.variable_definitions or ()
        if isinstance(definition.default_value, IntValueNode)
    }
    walk = _Walk(schema, document, {**defaults, **variables})
    extent = walk.measure_level(operation.selection_set, schema.get_root_type(operation.operation))
    cost = extent.cost + extent.cost_an_item
    if operation.operation is OperationType.MUTATION:
        cost += MUTATION_COST * extent.names.total()
    return OperationExtent(max(cost, 1), tuple(sorted(walk.size_variables)))


class _Walk:
    """Measures selection sets; a fragment is measured once."""

    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        variables: Mapping[str, Any] | None,
    ) -> None:
        self.repeats = 0
        self.spreads = 0
        self.directives = 0
        self.size_variables: set[str] = set()
        self._schema = schema
        self._variables = variables or {}
        self._fragments = {
            node.name.value: node
            for node in document.definitions
            if isinstance(node, FragmentDefinitionNode)
        }
        self._measured: dict[str, Extent] = {}

    def measure_level(self, selections: SelectionSetNode, type_: GraphQLNamedType | None) -> Extent:
        """Return the extent of a whole level, on `type_`: of an operation, or below a field."""
        extent = self._measure(selections, type_)
        self.repeats += extent.names.total() - len(extent.names)
        return extent

    def _measure(self, selections: SelectionSetNode, type_: GraphQLNamedType | None) -> Extent:
        depth = fields = aliases = cost = cost_an_item = 0
        names: Counter[str] = Counter()
        for node in selections.selections:
            self.directives += len(node.directives or ())
            match node:
                case FieldNode():
                    names[(node.alias or node.name).value] += 1
                    below, own, multiplied = self._field(node, type_)
                    depth = max(depth, 1 + below.depth)
                    fields += 1 + below.fields
                    aliases += (node.alias is not None) + below.aliases
                    cost = min(cost + own, COST_MAX)
                    cost_an_item = min(cost_an_item + multiplied, COST_MAX)
                    continue
                case InlineFragmentNode():
                    beside = self._measure(
                        node.selection_set,
                        self._schema.get_type(node.type_condition.name.value)
                        if node.type_condition
                        else type_,
                    )
                case FragmentSpreadNode():
                    self.spreads += 1
                    beside = self._fragment(node.name.value)
                case _:
                    raise TypeError(f"{type(node).__name__} is no selection")
            if fields + beside.fields > FIELDS_MAX:
                raise beyond("fields", "fields", None, FIELDS_MAX)
            depth = max(depth, beside.depth)
            fields += beside.fields
            aliases += beside.aliases
            cost = min(cost + beside.cost, COST_MAX)
            cost_an_item = min(cost_an_item + beside.cost_an_item, COST_MAX)
            names.update(beside.names)
        return Extent(depth, fields, aliases, names, cost, cost_an_item)

    def _field(self, node: FieldNode, type_: GraphQLNamedType | None) -> tuple[Extent, int, int]:
        """Return what is below a field, its cost, and its cost for each item around it."""
        field = None if type_ is None else self._schema.get_field(type_, node.name.value)  # type: ignore[arg-type]
        below = _NOTHING
        if node.selection_set is not None:
            below = self.measure_level(
                node.selection_set, None if field is None else get_named_type(field.type)
            )
        if field is None:
            return below, below.cost, 0
        own = cost_of(field)
        size = self._size(node, field)
        if size is not None:
            return below, own + below.cost + size * below.cost_an_item, 0
        inside = below.cost + ITEMS_ASSUMED * below.cost_an_item
        if not _is_list(field):
            return below, own + inside, 0
        if _is_connection(type_):
            return below, own, max(inside, 1)
        return below, own + ITEMS_ASSUMED * inside, 0

    def _size(self, node: FieldNode, field: GraphQLField) -> int | None:
        """Return how many items `first` asks for; None where the field does not take it."""
        if SIZE_ARGUMENT not in field.args:
            return None
        for argument in node.arguments or ():
            if argument.name.value == SIZE_ARGUMENT:
                match argument.value:
                    case IntValueNode(value=text) if len(text) < 10:
                        return _page(int(text))
                    case VariableNode(name=name):
                        self.size_variables.add(name.value)
                        return _page(self._variables.get(name.value))
        return PAGE_FIRST_MAX

    def _fragment(self, name: str) -> Extent:
        extent = self._measured.get(name)
        if extent is None:
            # A fragment that spreads itself, or that does not exist, is validation's to refuse.
            self._measured[name] = _NOTHING
            fragment = self._fragments.get(name)
            extent = (
                _NOTHING
                if fragment is None
                else self._measure(
                    fragment.selection_set,
                    self._schema.get_type(fragment.type_condition.name.value),
                )
            )
            self._measured[name] = extent
        return extent


def cost_of(field: GraphQLField) -> int:
    """Return what a field costs by itself."""
    definition = (field.extensions or {}).get(GraphQLCoreConverter.DEFINITION_BACKREF)
    declared = None if definition is None else definition.metadata.get(COST)
    if declared is not None:
        return int(declared)
    has_resolver = definition is not None and definition.base_resolver is not None
    return int(has_resolver or is_composite_type(get_named_type(field.type)))


def _page(size: object) -> int:
    """Return how many items a page of `size` costs; what is no size is refused when executed."""
    return min(size, PAGE_FIRST_MAX) if type(size) is int and size > 0 else PAGE_FIRST_MAX


def _is_list(field: GraphQLField) -> bool:
    type_ = field.type.of_type if is_non_null_type(field.type) else field.type
    return is_list_type(type_)


def _is_connection(type_: GraphQLNamedType | None) -> bool:
    return type_ is not None and type_.name.endswith("Connection")


def beyond(kind: str, what: str, count: int | None, limit: int) -> GraphQLError:
    """Return the refusal of a document for its `count` of `what`."""
    found = "too many" if count is None else str(count)
    return GraphQLError(
        f"the document has {found} {what}, more than {limit}",
        extensions={
            "code": f"document.{kind}",
            "hint": "ask for less at once",
            "value": count,
            "limit": limit,
        },
    )


def too_costly(cost: int, limit: int) -> GraphQLError:
    """Return the refusal of an operation for its `cost`."""
    return GraphQLError(
        f"the operation costs {cost}, more than {limit}",
        extensions={
            "code": "document.cost",
            "hint": "ask for shorter pages, or for fewer fields of each item",
            "value": cost,
            "limit": limit,
        },
    )
