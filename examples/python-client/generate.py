"""Write `heddle_client/operations.py`: the types of `operations.graphql`, after the schema.

::

    python generate.py            # write
    python generate.py --check    # exit with 1 where what is written is not what would be

The schema is the repository's `api/graphql/schema.graphql`; another server's is had by
`python generate.py --schema FILE`. Needs graphql-core and nothing of Heddle.
"""

from __future__ import annotations

import argparse
import json
import keyword
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLType,
    InlineFragmentNode,
    Node,
    OperationDefinitionNode,
    SelectionSetNode,
    build_schema,
    get_named_type,
    is_abstract_type,
    is_enum_type,
    is_input_object_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_required_input_field,
    parse,
    type_from_ast,
    validate,
)

FOLDER: Final = Path(__file__).parent
SCHEMA: Final = FOLDER.parents[1] / "api" / "graphql" / "schema.graphql"
DOCUMENTS: Final = FOLDER / "operations.graphql"
WRITTEN: Final = FOLDER / "heddle_client" / "operations.py"

SCALARS: Final = {
    "ID": "str",
    "String": "str",
    "Cursor": "str",
    "UUID": "str",
    "Int": "int",
    "Position": "int",
    "BigInt": "int",
    "Float": "float",
    "Boolean": "bool",
    "DateTime": "datetime",
    "Column": "list[Any]",
    "FloatColumn": "list[float | None]",
    "QualityColumn": "list[int]",
}
"""Python's types of scalars; what is not among them is `Any`."""

HEAD: Final = '''"""Written by generate.py from operations.graphql: do not edit."""

# fmt: off
# ruff: noqa: E501

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from heddle_client.client import Operation
'''


class Writer:
    """Writes the types of one document.

    Parameters
    ----------
    written : classes that stand already, by name, in their order
    """

    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self._schema = schema
        self._fragments = {
            node.name.value: node
            for node in document.definitions
            if isinstance(node, FragmentDefinitionNode)
        }
        self.written: dict[str, str] = {}

    def operation(self, definition: OperationDefinitionNode) -> str:
        """Return the lines that declare an operation; its types are in `written`."""
        assert definition.name is not None, "each operation has a name"
        name = definition.name.value
        root = self._schema.get_root_type(definition.operation)
        assert root is not None
        data = self._object(f"{name}Data", root, definition.selection_set, tagged=False)
        variables = self._variables(name, definition)
        spread = {*self._spread(definition.selection_set)}
        parts: list[Node] = [definition, *(self._fragments[each] for each in spread)]
        text = "\n\n".join(_source(node) for node in parts).replace('"""', r"\"\"\"")
        kind = definition.operation.value
        constant = "".join(f"_{c}" if c.isupper() else c for c in name).lstrip("_").upper()
        return (
            f'{constant} = Operation(\n    "{kind}",\n    """{text}""",\n'
            f"    {variables},\n    {data},\n)\n"
        )

    def _variables(self, name: str, definition: OperationDefinitionNode) -> str:
        fields = []
        for variable in definition.variable_definitions or ():
            type_ = type_from_ast(self._schema, variable.type)
            assert type_ is not None, "the document is valid"
            has_default = variable.default_value is not None
            fields.append((variable.variable.name.value, type_, has_default))
        return self._input(f"{name}Variables", fields)

    def _input(self, name: str, fields: list[tuple[str, Any, bool]]) -> str:
        """Write the class of an input, or of an operation's variables, and return its name."""
        if name not in self.written:
            self.written[name] = ""  # it may hold itself
            required, optional = [], []
            for field, type_, has_default in fields:
                python = _python_name(field)
                told = self._given(type_)
                if is_non_null_type(type_) and not has_default:
                    required.append(f"    {python}: {told}")
                else:
                    told = f"{told.removesuffix(' | None')} | UnsetType"
                    null = "" if is_non_null_type(type_) else " | None"
                    optional.append(f"    {python}: {told}{null} = UNSET")
            del self.written[name]
            self.written[name] = _class(name, [*required, *optional], "kw_only=True")
        return name

    def _given(self, type_: GraphQLType) -> str:
        """Return how Python spells the type of what is given."""
        named = get_named_type(type_)
        if is_input_object_type(named):
            assert isinstance(named, GraphQLInputObjectType)
            self._input(
                named.name,
                [
                    (name, field.type, not is_required_input_field(field))
                    for name, field in named.fields.items()
                ],
            )
        return _spelled(type_, _leaf(named) if is_leaf_type(named) else named.name)

    def _object(
        self, name: str, type_: GraphQLObjectType, selections: SelectionSetNode, *, tagged: bool
    ) -> str:
        """Write the class of what is selected of an object, and return its name."""
        lines = []
        for key, node in self._fields(type_, selections).items():
            if node.name.value == "__typename":
                continue
            field = type_.fields[node.name.value]
            told = self._told(f"{name}{key[:1].upper()}{key[1:]}", field.type, node)
            lines.append(f"    {_python_name(key)}: {told}")
        options = f'tag_field="__typename", tag="{type_.name}"' if tagged else ""
        self.written[name] = _class(name, lines, options)
        return name

    def _told(self, name: str, type_: GraphQLType, node: FieldNode) -> str:
        named = get_named_type(type_)
        if is_leaf_type(named):
            return _spelled(type_, _leaf(named))
        assert node.selection_set is not None, "the document is valid"
        if is_abstract_type(named):
            if not any(
                isinstance(each, FieldNode) and each.name.value == "__typename" and not each.alias
                for each in node.selection_set.selections
            ):
                raise SystemExit(f"{node.name.value}: select __typename, to tell its members apart")
            kinds = sorted(self._schema.get_possible_types(named), key=lambda kind: kind.name)
            members = [
                self._object(f"{name}{kind.name}", kind, node.selection_set, tagged=True)
                for kind in kinds
            ]
            return _spelled(type_, " | ".join(members))
        assert isinstance(named, GraphQLObjectType)
        return _spelled(type_, self._object(name, named, node.selection_set, tagged=False))

    def _fields(
        self, type_: GraphQLObjectType, selections: SelectionSetNode
    ) -> dict[str, FieldNode]:
        """Return the fields that are selected of an object of the type `type_`, by their key."""
        found: dict[str, FieldNode] = {}
        for node in selections.selections:
            match node:
                case FieldNode():
                    found.setdefault((node.alias or node.name).value, node)
                case InlineFragmentNode(type_condition=condition, selection_set=inside):
                    if condition is None or self._applies(condition.name.value, type_):
                        found |= self._fields(type_, inside)
                case FragmentSpreadNode(name=name):
                    fragment = self._fragments[name.value]
                    if self._applies(fragment.type_condition.name.value, type_):
                        found |= self._fields(type_, fragment.selection_set)
        return found

    def _applies(self, condition: str, type_: GraphQLObjectType) -> bool:
        named = self._schema.type_map[condition]
        if is_abstract_type(named):
            return self._schema.is_sub_type(named, type_)
        return named is type_

    def _spread(self, selections: SelectionSetNode) -> Iterator[str]:
        for node in selections.selections:
            if isinstance(node, FragmentSpreadNode):
                yield node.name.value
                yield from self._spread(self._fragments[node.name.value].selection_set)
            elif isinstance(node, FieldNode | InlineFragmentNode) and node.selection_set:
                yield from self._spread(node.selection_set)


def _leaf(type_: GraphQLType) -> str:
    if is_enum_type(type_):
        assert isinstance(type_, GraphQLEnumType)
        return f"Literal[{', '.join(map(json.dumps, type_.values))}]"
    return SCALARS.get(str(type_), "Any")


def _spelled(type_: GraphQLType, inner: str) -> str:
    """Return Python's spelling of `type_`, whose named type is spelled `inner`."""
    if is_non_null_type(type_):
        return _not_null(type_.of_type, inner)
    spelled = _not_null(type_, inner)
    return spelled if spelled == "Any" else f"{spelled} | None"


def _not_null(type_: GraphQLType, inner: str) -> str:
    return f"list[{_spelled(type_.of_type, inner)}]" if is_list_type(type_) else inner


def _source(node: Node) -> str:
    assert node.loc is not None, "it was parsed from a text"
    return node.loc.source.body[node.loc.start : node.loc.end]


def _python_name(name: str) -> str:
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
    return f"{snake}_" if keyword.iskeyword(snake) else snake


def _class(name: str, lines: list[str], options: str) -> str:
    renamed = {
        line.split(":")[0].strip() for line in lines if line.split(":")[0].strip().endswith("_")
    }
    rename = "rename=_spelled" if renamed else 'rename="camel"'
    body = "\n".join(lines) or "    pass"
    return (
        f"class {name}(Struct, frozen=True, {rename}{', ' + options if options else ''}):\n{body}\n"
    )


def written(schema: GraphQLSchema, document: DocumentNode) -> str:
    """Return the module of `document`."""
    errors = validate(schema, document)
    if errors:
        raise SystemExit("\n\n".join(str(error) for error in errors))
    writer = Writer(schema, document)
    operations = [
        writer.operation(node)
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode)
    ]
    return "\n\n".join([HEAD + SPELLED, *writer.written.values(), *operations])


SPELLED: Final = '''

def _spelled(name: str) -> str:
    """Return the schema's spelling of a name that Python has for itself, such as `from_`."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(word.capitalize() for word in rest)
'''


def main() -> None:
    """Write, or check what is written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schema", type=Path, default=SCHEMA)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    schema = build_schema(arguments.schema.read_text())
    text = written(schema, parse(DOCUMENTS.read_text()))
    if not arguments.check:
        WRITTEN.write_text(text)
    elif WRITTEN.read_text() != text:
        sys.exit(f"{WRITTEN.name} is not what generate.py writes: run it")


if __name__ == "__main__":
    main()
