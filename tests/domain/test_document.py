"""Documents: what is released never changes, and gives way to the next revision alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.documents.document import (
    DECIDER,
    REVISIONS_MAX,
    Document,
    DocumentEvent,
    DocumentKind,
    DocumentReleased,
    DocumentSuperseded,
    DocumentWithdrawn,
    ReleaseDocument,
    Revision,
    SupersedeDocument,
    WithdrawDocument,
    check_revision_name,
    decide,
    document_stream,
    revision_in_effect,
    revision_name,
)
from domain.errors import CommandRejected, HeddleError, InvalidInput, NotFound
from domain.texts import NAME_LENGTH_MAX, NOTE_LENGTH_MAX, TITLE_LENGTH_MAX
from domain.thread import Link, LinkKind, NodeState, Standing
from tests.domain.specification import given_of

DRAWING = "DRW-7"
APRIL, MAY, JUNE, JULY = (datetime(2025, month, 1, tzinfo=UTC) for month in (4, 5, 6, 7))
CONTENT, OTHER_CONTENT = "ab" * 32, "cd" * 32


def release(revision: str = "A", effective_from: datetime = APRIL, **changes: Any) -> Any:
    command = ReleaseDocument(
        DRAWING, revision, DocumentKind.DESIGN, "Bearing housing", CONTENT, 183_422,
        "application/step", "HSG-100", effective_from,
    )  # fmt: skip
    return replace(command, **changes)


def released(revision: str = "A", effective_from: datetime = APRIL, **changes: Any) -> Any:
    return DocumentReleased(**vars(release(revision, effective_from, **changes)))


A, B, C = released("A"), released("B", MAY), released("C", JUNE)
A_BY_B = DocumentSuperseded(DRAWING, "A", "B")
B_BY_C = DocumentSuperseded(DRAWING, "B", "C")
A_WITHDRAWN = DocumentWithdrawn(DRAWING, "A", "wrong fit")
B_WITHDRAWN = DocumentWithdrawn(DRAWING, "B", "wrong fit")


# --- releasing ----------------------------------------------------------------------------


def test_a_revision_is_released() -> None:
    given_of(DECIDER).when(release()).then(A)


def test_a_second_revision_is_released_beside_the_first() -> None:
    given_of(DECIDER, A).when(release("B", MAY)).then(B)


def test_a_document_without_a_title_is_called_by_its_name() -> None:
    given_of(DECIDER).when(release(title="  ")).then(released(title=DRAWING))


def test_the_same_revision_released_again_is_nothing_new() -> None:
    given_of(DECIDER, A).when(release()).then()
    given_of(DECIDER, A, B, A_BY_B).when(release()).then()


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": OTHER_CONTENT},
        {"size_bytes": 1},
        {"title": "Housing"},
        {"effective_from": MAY},
        {"part_number": None},
    ],
)
def test_a_released_revision_never_changes(changes: dict[str, Any]) -> None:
    command = release(**changes)
    given_of(DECIDER, A).when(command).then_rejected(
        CommandRejected, "document.revision_exists", command.sha256
    )


def test_a_withdrawn_revision_is_not_released_again() -> None:
    given_of(DECIDER, A, A_WITHDRAWN).when(release()).then_rejected(
        CommandRejected, "document.withdrawn", "A"
    )


def test_all_revisions_of_a_document_are_of_one_kind() -> None:
    given_of(DECIDER, A).when(release("B", kind=DocumentKind.RECIPE)).then_rejected(
        CommandRejected, "document.kind_differs", "RECIPE"
    )


def test_a_document_has_a_bounded_number_of_revisions() -> None:
    document = Document({str(n): Revision(released(str(n))) for n in range(REVISIONS_MAX)})
    with pytest.raises(CommandRejected) as refused:
        decide(release("one-more"), document)
    assert refused.value.code == "document.too_many_revisions"
    assert (refused.value.value, refused.value.limit) == (REVISIONS_MAX + 1, REVISIONS_MAX)
    assert decide(release("0"), document) == ()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"document_id": "DRW 7"}, "document.malformed_name"),
        ({"revision": "A@1"}, "revision.malformed_name"),
        ({"sha256": CONTENT.upper()}, "sha256.malformed"),
        ({"sha256": CONTENT[:-1]}, "sha256.malformed"),
        ({"sha256": CONTENT + "\n"}, "sha256.malformed"),
        ({"media_type": "step"}, "media_type.malformed"),
        ({"media_type": "text/plain; charset=utf-8"}, "media_type.malformed"),
        ({"size_bytes": -1}, "document.size"),
        ({"size_bytes": 2**53}, "document.size"),
        ({"title": "x" * (TITLE_LENGTH_MAX + 1)}, "text.too_long"),
        ({"part_number": " "}, "text.empty"),
        ({"part_number": "x" * (NAME_LENGTH_MAX + 1)}, "text.too_long"),
        ({"effective_to": APRIL}, "document.effectivity"),
        ({"effective_to": APRIL - timedelta(seconds=1)}, "document.effectivity"),
        ({"effective_from": datetime(2025, 4, 1)}, "event.naive_time"),  # noqa: DTZ001
        ({"effective_to": datetime(2025, 4, 2)}, "event.naive_time"),  # noqa: DTZ001
    ],
)
def test_a_malformed_release_is_refused(changes: dict[str, Any], code: str) -> None:
    given_of(DECIDER).when(release(**changes)).then_rejected(InvalidInput, code)


# --- superseding and withdrawing ----------------------------------------------------------


def test_a_revision_gives_way_to_a_released_one() -> None:
    given_of(DECIDER, A, B).when(SupersedeDocument(DRAWING, "A", "B")).then(A_BY_B)


def test_superseding_again_by_the_same_is_nothing_new() -> None:
    given_of(DECIDER, A, B, A_BY_B).when(SupersedeDocument(DRAWING, "A", "B")).then()


@pytest.mark.parametrize(
    ("past", "old", "new", "error", "code", "value"),
    [
        ((A,), "A", "B", NotFound, "document.revision_unknown", "B"),
        ((B,), "A", "B", NotFound, "document.revision_unknown", "A"),
        ((), "A", "B", NotFound, "document.revision_unknown", "A"),
        ((A,), "A", "A", CommandRejected, "document.superseded_by_itself", "A"),
        ((A, B, C, A_BY_B), "A", "C", CommandRejected, "document.superseded", "A"),
        ((A, B, A_BY_B), "B", "A", CommandRejected, "document.superseded", "A"),
        ((A, B, C, A_BY_B, B_BY_C), "C", "A", CommandRejected, "document.superseded", "A"),
        ((A, B, A_WITHDRAWN), "A", "B", CommandRejected, "document.withdrawn", "A"),
        ((A, B, B_WITHDRAWN), "A", "B", CommandRejected, "document.withdrawn", "B"),
    ],
)
def test_what_cannot_be_superseded(
    past: tuple[DocumentEvent, ...],
    old: str,
    new: str,
    error: type[HeddleError],
    code: str,
    value: str,
) -> None:
    command = SupersedeDocument(DRAWING, old, new)
    given_of(DECIDER, *past).when(command).then_rejected(error, code, value)


def test_a_revision_is_withdrawn_once_and_with_a_reason() -> None:
    withdraw = WithdrawDocument(DRAWING, "A", " wrong fit ")
    given_of(DECIDER, A).when(withdraw).then(A_WITHDRAWN)
    given_of(DECIDER, A, B, A_BY_B).when(withdraw).then(A_WITHDRAWN)
    given_of(DECIDER, A, A_WITHDRAWN).when(withdraw).then_rejected(
        CommandRejected, "document.withdrawn", "A"
    )
    given_of(DECIDER).when(withdraw).then_rejected(NotFound, "document.revision_unknown", "A")
    given_of(DECIDER, A).when(replace(withdraw, reason=" ")).then_rejected(
        InvalidInput, "text.empty"
    )
    given_of(DECIDER, A).when(replace(withdraw, reason="x" * (NOTE_LENGTH_MAX + 1))).then_rejected(
        InvalidInput, "text.too_long", NOTE_LENGTH_MAX + 1
    )


# --- effectivity --------------------------------------------------------------------------


def in_effect(at: datetime, *events: DocumentEvent) -> str | None:
    found = revision_in_effect(DECIDER.fold(events), at)
    return None if found is None else found.released.revision


BEFORE_MAY = MAY - timedelta(microseconds=1)


def test_a_revision_is_in_effect_from_its_first_moment_to_before_its_last() -> None:
    bounded = released("A", APRIL, effective_to=MAY)
    assert in_effect(APRIL - timedelta(microseconds=1), bounded) is None
    assert in_effect(APRIL, bounded) == "A"
    assert in_effect(BEFORE_MAY, bounded) == "A"
    assert in_effect(MAY, bounded) is None


def test_a_superseded_revision_is_in_effect_until_its_successor_is() -> None:
    past = (A, B, A_BY_B)
    assert in_effect(BEFORE_MAY, *past) == "A"
    assert in_effect(MAY, *past) == "B"


def test_of_two_revisions_in_effect_the_later_one_counts() -> None:
    assert in_effect(BEFORE_MAY, B, A) == "A"
    assert in_effect(MAY, B, A) == "B"


def test_a_withdrawn_revision_is_never_in_effect() -> None:
    assert in_effect(APRIL, A, A_WITHDRAWN) is None
    # What was superseded does not come back when its successor is withdrawn.
    assert in_effect(JUNE, A, B, A_BY_B, B_WITHDRAWN) is None
    assert in_effect(JUNE, A, B, B_WITHDRAWN) == "A"


@given(st.lists(st.sampled_from([A, B, C, A_BY_B, B_BY_C, A_WITHDRAWN, B_WITHDRAWN]), max_size=9))
def test_any_history_that_corrections_leave_folds(events: list[DocumentEvent]) -> None:
    document = DECIDER.fold(events)
    for revision in document.revisions.values():
        assert revision.superseded_by is None or revision.superseded_by in document.revisions
    found = revision_in_effect(document, JULY)
    assert found is None or not found.withdrawn


# --- names and the thread -----------------------------------------------------------------


def test_a_revision_is_named_by_document_and_revision() -> None:
    assert check_revision_name(revision_name(DRAWING, "B")) == "DRW-7@B"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("DRW-7", "document.malformed_revision_name"),
        ("", "document.malformed_revision_name"),
        ("DRW 7@B", "document.malformed_name"),
        ("DRW-7@", "revision.malformed_name"),
        ("DRW-7@B@C", "revision.malformed_name"),
    ],
)
def test_what_names_no_revision_is_refused(name: str, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_revision_name(name)
    assert refused.value.code == code


def test_what_a_document_says_of_the_thread() -> None:
    assert A.thread() == (Standing("document:DRW-7@A", NodeState.ACTIVE),)
    assert A_BY_B.thread() == (
        Link(LinkKind.SUPERSEDED_BY, "document:DRW-7@A", "document:DRW-7@B"),
        Standing("document:DRW-7@A", NodeState.SUPERSEDED),
    )
    assert A_WITHDRAWN.thread() == (Standing("document:DRW-7@A", NodeState.RETIRED),)


def test_a_document_has_one_stream_for_all_its_revisions() -> None:
    assert DECIDER.subject(release("B")) == DECIDER.stream_of(A) == document_stream(DRAWING)
