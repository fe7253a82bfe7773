"""Limits on documents: each refused with its reason, and none of them costly to check."""

from __future__ import annotations

import pytest
from graphql import get_introspection_query

from api.graphql.limits import (
    ALIASES_MAX,
    DEPTH_MAX,
    DIRECTIVES_MAX,
    FIELDS_MAX,
    REPEATS_MAX,
    ROOT_FIELDS_MAX,
    SPREADS_MAX,
)
from api.graphql.preparation import (
    KEPT_MAX,
    TOKENS_MAX,
    DocumentRefused,
    Documents,
)
from api.graphql.schema import create_schema

SCHEMA = create_schema().core


@pytest.fixture
def documents() -> Documents:
    return Documents(SCHEMA)


def refusal_of(documents: Documents, source: str) -> str:
    """Return the code, or else the message, of why `source` is refused."""
    with pytest.raises(DocumentRefused) as caught:
        documents.prepare(source)
    error = caught.value.errors[0]
    return str((error.extensions or {}).get("code") or error.message)


def fragments(count: int, body: str, last: str) -> str:
    """Return fragments F0 … of `body`, in which NEXT names the following one."""
    chain = [
        f"fragment F{n} on Query {{ {body.replace('NEXT', f'F{n + 1}')} }}" for n in range(count)
    ]
    return " ".join([*chain, f"fragment F{count} on Query {{ {last} }}"])


def test_introspection_is_within_the_limits(documents: Documents) -> None:
    for everything in (False, True):
        documents.prepare(
            get_introspection_query(
                descriptions=everything,
                specified_by_url=everything,
                directive_is_repeatable=everything,
                schema_description=everything,
                input_value_deprecation=everything,
            )
        )


def test_depth_counts_through_fragments(documents: Documents) -> None:
    inner = "... on Asset { twin { health { reasons { value } } } }"
    documents.prepare(f'{{ asset(assetId: "a") {{ {inner} }} }}')

    def nested(levels: int) -> str:
        text = "name"
        for _ in range(levels - 3):
            text = f"ofType {{ {text} }}"
        return f"{{ __schema {{ types {{ {text} }} }} }}"

    documents.prepare(nested(DEPTH_MAX))
    assert refusal_of(documents, nested(DEPTH_MAX + 1)) == "document.depth"


@pytest.mark.parametrize("spread", ["...NEXT ...NEXT", "... { ...NEXT } ...NEXT"])
def test_spreads_that_double_are_counted_and_not_walked(documents: Documents, spread: str) -> None:
    source = "{ ...F0 } " + fragments(200, spread, "log { position }")

    assert refusal_of(documents, source) in ("document.fields", "document.repeats")


def test_spread_of_a_fragment_within_itself_is_refused(documents: Documents) -> None:
    source = "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }"

    assert "within itself" in refusal_of(documents, source)


def test_fields_are_bounded(documents: Documents) -> None:
    names = "id assetId title lifecycle version registeredAt"
    spread = " ".join(f"a{n}: asset(assetId: {n}) {{ ...F }}" for n in range(ROOT_FIELDS_MAX))
    body = " ".join(f"... on Asset {{ twin {{ asOf position }} {names} }}" for _ in range(6))

    source = f"{{ {spread} }} fragment F on Asset {{ {body} }}"

    assert FIELDS_MAX < ROOT_FIELDS_MAX * 54
    assert refusal_of(documents, source) == "document.fields"


def test_aliases_are_bounded(documents: Documents) -> None:
    def aliased(count: int) -> str:
        return "{ log { " + " ".join(f"a{n}: position" for n in range(count)) + " } }"

    documents.prepare(aliased(ALIASES_MAX))
    assert refusal_of(documents, aliased(ALIASES_MAX + 1)) == "document.aliases"


def test_root_fields_are_bounded(documents: Documents) -> None:
    def roots(count: int) -> str:
        return "{ " + " ".join(f"a{n}: log {{ position }}" for n in range(count)) + " }"

    documents.prepare(roots(ROOT_FIELDS_MAX))
    assert refusal_of(documents, roots(ROOT_FIELDS_MAX + 1)) == "document.roots"


def test_fragment_spreads_and_directives_are_bounded(documents: Documents) -> None:
    spreads = "{ log { position } " + "...F " * (SPREADS_MAX + 1) + "} fragment F on Query { ...F }"
    directives = "{ log { position " + "@include(if: true) " * (DIRECTIVES_MAX + 1) + "} }"

    assert refusal_of(documents, spreads) == "document.spreads"
    assert refusal_of(documents, directives) == "document.directives"


def test_repeated_fields_are_bounded(documents: Documents) -> None:
    def repeated(count: int) -> str:
        return "{ log { " + "position " * (count + 1) + "} }"

    documents.prepare(repeated(REPEATS_MAX))
    assert refusal_of(documents, repeated(REPEATS_MAX + 1)) == "document.repeats"


def test_tokens_are_bounded(documents: Documents) -> None:
    assert "tokens" in refusal_of(documents, "{ " + "log " * TOKENS_MAX + "}")


@pytest.mark.parametrize(
    "source",
    [
        "{" * 3000,
        "{ log " * 900,
        "{ asset(assetId: " + "[" * 3000,
        "[" * 100_000,
        "query(" + "$a: [" * 800,
        "#\n" * 50_000 + "{ log { position } }",
        "",
        " ",
        "nonsense",
        "{ log { position }",
        '{ asset(assetId: "\\uD800") { id } }',
        "{ log { position } } \0",
    ],
)
def test_text_that_is_no_document_is_refused(documents: Documents, source: str) -> None:
    assert refusal_of(documents, source)


def test_document_that_does_not_fit_the_schema_is_refused_with_every_reason(
    documents: Documents,
) -> None:
    with pytest.raises(DocumentRefused) as caught:
        documents.prepare("{ colour log { quux } }")

    assert [error.message for error in caught.value.errors] == [
        "Cannot query field 'colour' on type 'Query'.",
        "Cannot query field 'quux' on type 'LogState'.",
    ]
    assert "colour" in str(caught.value)


def test_valid_documents_are_kept_and_invalid_ones_are_not(documents: Documents) -> None:
    source = "{ log { position } }"

    assert documents.prepare(source) is documents.prepare(source)
    with pytest.raises(DocumentRefused):
        documents.prepare("{ colour }")
    for number in range(KEPT_MAX + 5):
        documents.prepare(f"query Q{number} {{ log {{ position }} }}")
    assert len(documents._kept) == KEPT_MAX
    assert source not in documents._kept


def test_operation_is_the_one_that_is_named(documents: Documents) -> None:
    document = documents.prepare("query A { log { position } } query B { log { ledger } }")

    for name in ("A", "B"):
        assert document.operation(name).name == name
        assert document.operation(name) is document.operation(name)
    for missing, code in ((None, "operation.ambiguous"), ("C", "operation.unknown")):
        with pytest.raises(DocumentRefused) as caught:
            document.operation(missing)
        assert (caught.value.errors[0].extensions or {})["code"] == code


def test_document_of_fragments_alone_has_no_operation(documents: Documents) -> None:
    with pytest.raises(DocumentRefused):
        documents.prepare("fragment F on Query { log { position } }").operation(None)
