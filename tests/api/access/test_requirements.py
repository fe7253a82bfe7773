"""What an operation takes: the rights of all its fields, wherever they hide in the document."""

from __future__ import annotations

import pytest
import strawberry
from graphql import OperationDefinitionNode, parse, validate

from api.access.identity import Identity
from api.access.requirements import Requirements, check
from api.access.rights import RIGHTS_OF, Right, Role
from api.graphql.fields import field, mutation
from api.graphql.schema import create_schema
from domain.errors import NotAllowed


@strawberry.interface(description="A thing.")
class Thing:
    @field(description="Its name.")
    def name(self) -> str:
        return "thing"

    @field(description="Who did what to it.")
    def history(self) -> str:
        return "nothing"


@strawberry.type(description="A thing that keeps its history to itself.")
class Machine(Thing):
    @field(description="Who did what to it.", right=Right.AUDIT)
    def history(self) -> str:
        return "everything"

    @field(description="What it costs.", right=Right.ENGINEER)
    def price(self) -> float:
        return 1.0

    @field(description="Itself.")
    def itself(self) -> Machine:
        return self


@strawberry.type
class Query:
    @field(description="A thing.", right=Right.READ)
    def thing(self) -> Thing:
        return Machine()

    @field(description="A machine.", right=Right.READ)
    def machine(self) -> Machine:
        return Machine()


@strawberry.type
class Mutation:
    @mutation(description="Stop it.", right=Right.OPERATE)
    def stop(self) -> Machine:
        return Machine()


SCHEMA = strawberry.Schema(query=Query, mutation=Mutation)._schema
REQUIREMENTS = Requirements(SCHEMA)


def needs(source: str) -> set[tuple[str, Right]]:
    """Return what the first operation of `source` takes."""
    document = parse(source)
    assert validate(SCHEMA, document) == []
    operation = document.definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    return set(REQUIREMENTS.of(document, operation))


READ = {("Query.machine", Right.READ)}
PRICE = ("Machine.price", Right.ENGINEER)
HISTORY = ("Machine.history", Right.AUDIT)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{ machine { name } }", READ),
        ("{ __typename __schema { types { name } } }", set()),
        ("{ machine { price } }", READ | {PRICE}),
        ("{ innocent: machine { name: price } }", READ | {PRICE}),
        ("{ machine { itself { itself { price } } } }", READ | {PRICE}),
        ("{ machine { ... { price } } }", READ | {PRICE}),
        ("{ machine { ... on Machine { price } } }", READ | {PRICE}),
        ("{ machine { ... on Thing { ... on Machine { price } } } }", READ | {PRICE}),
        ("{ ...A } fragment A on Query { machine { ...B } } fragment B on Machine { price }",
         READ | {PRICE}),
        ("{ machine { name @skip(if: true) price @include(if: false) } }", READ | {PRICE}),
        ("{ thing { history } }", {("Query.thing", Right.READ), HISTORY}),
        ("{ thing { ... on Machine { name } } }", {("Query.thing", Right.READ)}),
        ("mutation { stop { price } }", {("Mutation.stop", Right.OPERATE), PRICE}),
        ("query A { machine { name } } query B { machine { price } }", READ),
    ],
)  # fmt: skip
def test_every_field_of_an_operation_counts_wherever_it_stands(
    source: str, expected: set[tuple[str, Right]]
) -> None:
    assert needs(source) == expected


def test_fragments_that_spread_one_another_are_read_once_each() -> None:
    spread = " ".join(
        f"fragment F{n} on Machine {{ itself {{ ...F{n + 1} ...F{n + 1} }} ...F{n + 1} }}"
        for n in range(60)
    )
    document = parse(f"{{ machine {{ ...F0 }} }} {spread} fragment F60 on Machine {{ price }}")
    operation = document.definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    assert set(REQUIREMENTS.of(document, operation)) == READ | {PRICE}


def test_a_root_field_that_names_no_right_is_a_fault_of_the_schema() -> None:
    @strawberry.type
    class Open:
        @field(description="Something that anybody could ask for.")
        def anything(self) -> str:
            return "anything"

        @strawberry.field(description="The same, past our own decorator.")  # type: ignore[untyped-decorator]
        def something(self) -> str:
            return "something"

    with pytest.raises(TypeError, match=r"Open\.anything"):
        Requirements(strawberry.Schema(query=Open)._schema)


def test_a_refusal_names_the_field_and_the_right() -> None:
    viewer = Identity("user:jane", frozenset({Role.VIEWER}))
    with pytest.raises(NotAllowed) as refused:
        check(frozenset({("Query.machine", Right.READ), PRICE, HISTORY}), viewer)
    error = refused.value
    assert error.code == "access.denied"
    assert (error.value, error.limit) == ("Machine.history", "audit")
    assert "user:jane" in error.message
    check(frozenset({("Query.machine", Right.READ)}), viewer)


def test_whoever_has_no_role_may_do_nothing() -> None:
    for right in Right:
        with pytest.raises(NotAllowed):
            check(frozenset({("Query.x", right)}), Identity("user:jane", frozenset()))


# --- the schema that is served --------------------------------------------------------------

SERVED = Requirements(create_schema().core)
ROOTS = {
    root: {field: right for (kind, field), right in SERVED.rights.items() if kind == root}
    for root in ("Query", "Mutation", "Subscription")
}


def test_nobody_who_only_reads_may_write() -> None:
    for role in (Role.VIEWER, Role.AUDITOR):
        assert not RIGHTS_OF[role] & set(ROOTS["Mutation"].values())


def test_whoever_writes_has_the_right_to_command() -> None:
    writing = set(ROOTS["Mutation"].values()) - {Right.COMMAND, Right.ADMINISTER, Right.INTEGRATE}
    for role, rights in RIGHTS_OF.items():
        assert not rights & writing or Right.COMMAND in rights, role


def test_reading_takes_a_right_that_reads() -> None:
    reading = {Right.READ, Right.AUDIT, Right.INTEGRATE, Right.ADMINISTER}
    assert set(ROOTS["Query"].values()) <= reading
    assert set(ROOTS["Subscription"].values()) <= reading


def test_every_right_that_a_field_takes_is_somebodys_who_is_no_administrator() -> None:
    given = set[Right]().union(*(RIGHTS_OF[role] for role in Role if role is not Role.ADMIN))
    assert set(SERVED.rights.values()) - given <= {Right.ADMINISTER}
    assert RIGHTS_OF[Role.ADMIN] == frozenset(Right)
