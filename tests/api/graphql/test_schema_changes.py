"""The schema does not break its clients unawares."""

from __future__ import annotations

import pytest

from api.graphql.schema import SDL_FILE
from api.graphql.schema_changes import (
    DECLARED_FILE,
    RELEASED_FILE,
    declared_breaking,
    list_breaking,
    main,
)


def test_what_breaks_clients_of_the_released_schema_is_declared_with_its_reason() -> None:
    found = list_breaking(RELEASED_FILE.read_text(), SDL_FILE.read_text())

    assert set(found) == set(declared_breaking(DECLARED_FILE.read_text()))
    assert main([]) == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("type Query { a: Int b: Int }", "type Query { a: Int }"),
        ("type Query { a: Int! }", "type Query { a: Int }"),
        ("type Query { a(x: Int): Int }", "type Query { a(x: Int!): Int }"),
        ("type Query { a: E } enum E { A B }", "type Query { a: E } enum E { A }"),
    ],
)
def test_removal_and_tightening_break_clients(before: str, after: str) -> None:
    assert len(list_breaking(before, after)) == 1
    assert list_breaking(after, after) == []


def test_addition_breaks_nobody() -> None:
    assert list_breaking("type Query { a: Int }", "type Query { a: Int b(x: Int): Int! }") == []


def test_declaration_needs_a_reason() -> None:
    assert declared_breaking("# why\na.b was removed.\tnobody asked for it\n") == {
        "a.b was removed.": "nobody asked for it"
    }
    with pytest.raises(ValueError, match="gives no reason"):
        declared_breaking("a.b was removed.\n")
