"""What an operation takes: the rights of all its fields, as the schema declares them.

Denied by default: a root field that names no right is a fault of the schema, found when the
server is made. An operation is read once, whatever it is asked with, and then costs a comparison
of two sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    get_named_type,
)
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.field import StrawberryField

from api.access.identity import Identity
from api.access.rights import Right
from api.graphql.fields import RIGHT
from domain.errors import NotAllowed

Needs = frozenset[tuple[str, Right]]
"""Fields, as ``Query.auditTrail``, each with the right that it takes."""

Composite = GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType

_NOTHING: Final[Needs] = frozenset()


class Requirements:
    """The rights that the fields of a schema take.

    Raises
    ------
    TypeError
        a root field names no right
    """

    def __init__(self, schema: GraphQLSchema) -> None:
        self._schema = schema
        self._rights = {
            (name, field): right
            for name, kind in schema.type_map.items()
            if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)
            for field in kind.fields
            if (right := declared_right(kind, field)) is not None
        }
        for root in (schema.query_type, schema.mutation_type, schema.subscription_type):
            if root is None:
                continue
            for field in root.fields:
                if (root.name, field) not in self._rights:
                    raise TypeError(f"{root.name}.{field} says not what right it takes")

    @property
    def rights(self) -> Mapping[tuple[str, str], Right]:
        """The right of each field that names one, by type and field."""
        return self._rights

    def of(self, document: DocumentNode, operation: OperationDefinitionNode) -> Needs:
        """Return what the fields of `operation` take; `document` is valid."""
        root = self._schema.get_root_type(operation.operation)
        if root is None:
            return _NOTHING
        return _Walk(self._schema, self._rights, document).needs(root, operation.selection_set)


class _Walk:
    """Reads selection sets; a fragment is read once, whatever spreads it."""

    def __init__(
        self,
        schema: GraphQLSchema,
        rights: Mapping[tuple[str, str], Right],
        document: DocumentNode,
    ) -> None:
        self._schema = schema
        self._rights = rights
        self._fragments = {
            node.name.value: node
            for node in document.definitions
            if isinstance(node, FragmentDefinitionNode)
        }
        self._read: dict[str, Needs] = {}

    def needs(self, parent: Composite, selections: SelectionSetNode) -> Needs:
        """Return what `selections` on `parent` take."""
        found: set[tuple[str, Right]] = set()
        for node in selections.selections:
            match node:
                case FieldNode():
                    found.update(self._field(parent, node))
                case InlineFragmentNode(type_condition=condition):
                    narrowed = parent if condition is None else self._named(condition.name.value)
                    found |= self.needs(narrowed, node.selection_set)
                case FragmentSpreadNode():
                    found |= self._fragment(node.name.value)
                case _:
                    raise TypeError(f"{type(node).__name__} is no selection")
        return frozenset(found)

    def _field(self, parent: Composite, node: FieldNode) -> Iterator[tuple[str, Right]]:
        name = node.name.value
        if name.startswith("__"):  # the schema itself, which is no secret to who may ask at all
            return
        for kind in self._kinds(parent):
            right = self._rights.get((kind.name, name))
            if right is not None:
                yield f"{kind.name}.{name}", right
        if node.selection_set is not None:
            assert not isinstance(parent, GraphQLUnionType), "a union has no fields"
            below = get_named_type(parent.fields[name].type)
            yield from self.needs(self._named(below.name), node.selection_set)

    def _kinds(self, parent: Composite) -> Iterable[Composite]:
        """Return `parent`, and of an interface whatever may stand in its place."""
        if isinstance(parent, GraphQLInterfaceType):
            return (parent, *self._schema.get_possible_types(parent))
        return (parent,)

    def _fragment(self, name: str) -> Needs:
        found = self._read.get(name)
        if found is None:
            fragment = self._fragments[name]
            parent = self._named(fragment.type_condition.name.value)
            found = self._read[name] = self.needs(parent, fragment.selection_set)
        return found

    def _named(self, name: str) -> Composite:
        found = self._schema.type_map[name]
        assert isinstance(found, GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType), (
            f"{name} has no fields"
        )
        return found


def declared_right(kind: GraphQLObjectType | GraphQLInterfaceType, field: str) -> Right | None:
    """Return the right that a field of `kind` names, None where it takes what leads to it."""
    extensions = kind.fields[field].extensions
    definition = extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    if not isinstance(definition, StrawberryField):
        return None
    right = definition.metadata.get(RIGHT)
    return right if isinstance(right, Right) else None


def check(needs: Needs, identity: Identity) -> None:
    """Raise unless `identity` has every right in `needs`.

    Raises
    ------
    NotAllowed
        ``access.denied``, naming a field and its right
    """
    lacking = sorted((field, right) for field, right in needs if right not in identity.rights)
    if lacking:
        field, right = lacking[0]
        others = f", and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise denied(f"the field {field}", right, identity, others)


def denied(what: str, right: Right, identity: Identity, others: str = "") -> NotAllowed:
    """Return the refusal of `what`, which takes `right`."""
    roles = ", ".join(sorted(identity.roles)) or "no role"
    return NotAllowed(
        "access.denied",
        f"{what} takes the right {right.value!r}{others}; {identity.actor} has it not ({roles})",
        hint="ask whoever gives out roles for one that has the right",
        value=what.removeprefix("the field "),
        limit=right.value,
    )
