"""Documents that ask for all there is: made from the schema, so that new fields are asked too."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    get_named_type,
    is_leaf_type,
    is_required_argument,
    is_required_input_field,
)

FIELDS_MAX: Final = 1_200
SCALARS: Final[Mapping[str, Any]] = {
    "Int": 5,
    "Float": 1.0,
    "String": "x",
    "ID": "x",
    "Boolean": True,
    "UUID": "01890a5d-ac96-774b-bcce-b302099a8057",
    "Position": 1,
    "BigInt": 1,
}

Composite = GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType


@dataclass
class Walk:
    """Writes selection sets.

    Parameters
    ----------
    arguments : values of arguments by their name, as GraphQL spells them
    depth : levels below the root field
    """

    schema: GraphQLSchema
    arguments: Mapping[str, str]
    depth: int
    only: str | None = None
    fields: int = field(default=0, init=False)

    def document(self, name: str, root: GraphQLField, given: Mapping[str, str]) -> str:
        """Return a query of one root field, with `given` arguments beside those it requires."""
        passed = self._passed(root, given)
        below = self._below(get_named_type(root.type), self.depth, ())
        return f"{{ {name}{passed}{below} }}"

    def _passed(self, asked: GraphQLField, given: Mapping[str, str] | None = None) -> str:
        values = dict(given or {})
        for name, argument in asked.args.items():
            if is_required_argument(argument) or name in ("first", "direction"):
                values.setdefault(name, self.arguments.get(name) or literal(argument.type))
        told = ", ".join(f"{name}: {value}" for name, value in values.items())
        return f"({told})" if told else ""

    def _below(self, kind: Any, depth: int, path: tuple[str, ...]) -> str:
        if is_leaf_type(kind):
            return ""
        taken: dict[str, str] = {}
        told = ["__typename", *self._selected(kind, depth, (*path, kind.name), taken)]
        if isinstance(kind, GraphQLInterfaceType | GraphQLUnionType):
            for possible in self.schema.get_possible_types(kind):
                if self.only in (None, possible.name):
                    inner = " ".join(self._selected(possible, depth, (*path, possible.name), taken))
                    told += [f"... on {possible.name} {{ {inner} }}"] if inner else []
        return f" {{ {' '.join(told)} }}"

    def _selected(
        self, kind: Composite, depth: int, path: tuple[str, ...], taken: dict[str, str]
    ) -> Iterator[str]:
        if isinstance(kind, GraphQLUnionType):
            return
        for name, asked in kind.fields.items():
            named = get_named_type(asked.type)
            leaf = is_leaf_type(named)
            if name in taken and (taken[name] != str(asked.type) or not leaf or asked.args):
                continue  # two answers of one name would have to be alike
            if not leaf and (depth == 0 or self.fields > FIELDS_MAX or named.name in path[:-1]):
                continue
            if name in taken:
                continue
            taken[name] = str(asked.type)
            self.fields += 1
            yield f"{name}{self._passed(asked)}{self._below(named, depth - 1, path)}"


def literal(kind: Any) -> str:
    """Return a value of an input type, as GraphQL spells it."""
    if isinstance(kind, GraphQLNonNull):
        return literal(kind.of_type)
    if isinstance(kind, GraphQLList):
        return "[]"
    if isinstance(kind, GraphQLEnumType):
        return str(next(iter(kind.values)))
    if isinstance(kind, GraphQLInputObjectType):
        told = ", ".join(
            f"{name}: {literal(each.type)}"
            for name, each in kind.fields.items()
            if is_required_input_field(each)
        )
        return f"{{{told}}}"
    if kind.name == "DateTime":
        return '"2024-06-01T00:00:00Z"'
    return json.dumps(SCALARS[kind.name])


def texts(answer: Any) -> Iterator[str]:
    """Yield every text in an answer, and what opaque ids and cursors among them hold."""
    match answer:
        case dict():
            for name, value in answer.items():
                yield name
                yield from texts(value)
        case list():
            for value in answer:
                yield from texts(value)
        case str():
            yield answer
            opened = _opened(answer)
            if opened is not None:
                yield opened


def _opened(text: str) -> str | None:
    padded = text + "=" * (-len(text) % 4)
    try:
        return base64.urlsafe_b64decode(padded).decode("ascii")
    except (binascii.Error, ValueError):
        return None
