"""Every list takes as many statements for many objects, with all they lead to, as for few."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from graphql import (
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
    get_named_type,
    is_leaf_type,
    is_object_type,
    is_required_argument,
)

from tests.api.graphql.server import Server

pytestmark = pytest.mark.anyio

SCHEMA: Final[GraphQLSchema] = build_schema(
    (Path(__file__).parents[3] / "api" / "graphql" / "schema.graphql").read_text()
)
MANY: Final = 50
ENOUGH: Final = 6
ALONE: Final = 2
"""So many statements may be for what the second half alone leads to; of one each it would be 3."""
UNTOLD: Final = {
    "apiKeys",
    "models",
    "nonconformances",
    "plantFindings",
    "predictions",
    "scenarios",
    "setpointProposals",
    "spareParts",
    "webhooks",
}
"""Lists of which the history tells too little."""
SPANS: Final = {"readings"}
"""Fields that read telemetry: each object has a span of its own, which its cost says."""


def lists() -> list[str]:
    assert SCHEMA.query_type is not None
    return sorted(
        name
        for name, field in SCHEMA.query_type.fields.items()
        if get_named_type(field.type).name.endswith("Connection")
    )


def needs_nothing(field: GraphQLField) -> bool:
    return not any(is_required_argument(argument) for argument in field.args.values())


def selection(of: GraphQLObjectType, deeper: int) -> str:
    """Return every field of `of` that can be asked without an argument, `deeper` levels down."""
    found = []
    for name, field in of.fields.items():
        named = get_named_type(field.type)
        if name in SPANS or not needs_nothing(field):
            continue
        if is_leaf_type(named):
            found.append(name)
        elif deeper and is_object_type(named):
            inner = selection(named, deeper - 1)
            found += [f"{name} {{ {inner} }}"] if inner else []
    return " ".join(found)


def document(name: str, first: int, deeper: int) -> str:
    assert SCHEMA.query_type is not None
    connection = get_named_type(SCHEMA.query_type.fields[name].type)
    assert isinstance(connection, GraphQLObjectType)
    node = get_named_type(connection.fields["nodes"].type)
    assert isinstance(node, GraphQLObjectType), f"{name} lists {node}"
    return f"{{ {name}(first: {first}) {{ position nodes {{ {selection(node, deeper)} }} }} }}"


@pytest.mark.parametrize("name", [name for name in lists() if name not in UNTOLD])
async def test_a_list_takes_as_many_statements_for_all_as_for_half(
    plant: Server, name: str
) -> None:
    """Half, not one: what a single object does not lead to takes no statement."""
    (listed,) = (
        await plant.ask(f"{{ {name}(first: {MANY}) {{ nodes {{ __typename }} }} }}")
    ).values()
    count = len(listed["nodes"])
    assert count >= ENOUGH, f"the history has {count} of {name}: nothing is shown"
    taken = {}
    for first in (count // 2, count):
        async with plant.statements() as executed:
            await plant.ask(document(name, first, deeper=1))
        taken[first] = list(executed)
    assert len(taken[count]) <= len(taken[count // 2]) + ALONE, "\n".join(taken[count])
