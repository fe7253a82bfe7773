"""Signatures after 21 CFR Part 11: who may sign what, freshly proved, and what it binds."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.documents.document import DocumentKind, DocumentReleased
from domain.errors import CommandRejected, HeddleError, InvalidInput
from domain.events import encode_fact
from domain.quality.nonconformance import Disposition, NonconformanceDispositioned
from domain.records import Meaning, RecordCorrected, RecordSigned
from domain.signatures import (
    AUTHENTICATION_AGE_MAX,
    CLOCK_SKEW_MAX,
    COMPONENTS_MAX,
    COMPONENTS_MIN,
    Authentication,
    Signable,
    SignRecord,
    sign,
)
from domain.texts import TITLE_LENGTH_MAX

NOW = datetime(2025, 4, 28, 9, 14, 7, tzinfo=UTC)
MARA, JON = "user:mara", "user:jon"
EVENT_ID = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")
LEAF, CONTENT = "ab" * 32, "cd" * 32
INSTANT = timedelta(microseconds=1)

dispositioned = NonconformanceDispositioned("NC-318", Disposition.USE_AS_IS, "cosmetic")
released = DocumentReleased(
    "DRW-7", "B", DocumentKind.DESIGN, "Housing", CONTENT, 10, "application/step", None, NOW, None
)


def correction(replacement: Any) -> RecordCorrected:
    """Return the correction of an event into `replacement`, or into nothing."""
    return RecordCorrected(
        "document:DRW-7", uuid.UUID(int=1), 3, "misread",
        None if replacement is None else "document.released",
        None if replacement is None else 1,
        None if replacement is None else encode_fact(replacement).decode(),
    )  # fmt: skip


def record(fact: Any = dispositioned, **changes: Any) -> Signable:
    found = Signable(
        "nonconformance:NC-318", 7, EVENT_ID, "nonconformance.dispositioned", LEAF, fact
    )
    return replace(found, **changes)


def authentication(**changes: Any) -> Authentication:
    return replace(Authentication(MARA, ("password", "totp"), NOW), **changes)


def command(**changes: Any) -> SignRecord:
    asked = SignRecord(
        "nonconformance:NC-318", 7, "Mara Lindqvist", Meaning.APPROVED, authentication()
    )
    return replace(asked, **changes)


def signature(**changes: Any) -> RecordSigned:
    put = RecordSigned(
        "nonconformance:NC-318", 7, EVENT_ID, LEAF, None, MARA, "Mara Lindqvist",
        Meaning.APPROVED, NOW, ("password", "totp"),
    )  # fmt: skip
    return replace(put, **changes)


def signed(
    asked: SignRecord, on: Signable, *, actor: str = MARA, now: datetime = NOW
) -> tuple[RecordSigned, ...]:
    return sign(asked, on, actor=actor, now=now)


def refused(asked: SignRecord, on: Signable, *, now: datetime = NOW) -> HeddleError:
    with pytest.raises(HeddleError) as refusal:
        signed(asked, on, now=now)
    return refusal.value


# --- what a signature says ----------------------------------------------------------------


@pytest.mark.parametrize("meaning", Meaning)
def test_a_signature_names_signer_meaning_and_the_very_event(meaning: Meaning) -> None:
    asked = command(meaning=meaning, signer_name=" Mara Lindqvist ")
    assert signed(asked, record()) == (signature(meaning=meaning),)


def test_a_signature_on_a_release_binds_the_document() -> None:
    assert signed(command(), record(released))[0].document_sha256 == CONTENT
    seen = command(document_sha256=CONTENT)
    assert signed(seen, record(released))[0].document_sha256 == CONTENT


def test_a_signature_on_a_correction_binds_the_document_it_names() -> None:
    assert signed(command(), record(correction(released)))[0].document_sha256 == CONTENT
    assert signed(command(), record(correction(None)))[0].document_sha256 is None


@pytest.mark.parametrize("fact", [released, dispositioned])
def test_a_signer_who_saw_other_content_does_not_sign(fact: Any) -> None:
    error = refused(command(document_sha256="ef" * 32), record(fact))
    assert (type(error), error.code) == (CommandRejected, "signature.document_mismatch")
    assert error.value == "ef" * 32
    assert error.limit == (CONTENT if fact is released else None)


def test_the_same_signature_again_is_nothing_new() -> None:
    again = record(signatures=(signature(authenticated_at=NOW - timedelta(days=1)),))
    assert signed(command(), again) == ()


def test_others_and_other_meanings_sign_beside_it() -> None:
    borne = record(signatures=(signature(),))
    assert len(signed(command(meaning=Meaning.RESPONSIBLE), borne)) == 1
    asked = command(authentication=authentication(signer=JON))
    assert [one.signer for one in signed(asked, borne, actor=JON)] == [JON]


# --- who signs ----------------------------------------------------------------------------


def test_nobody_signs_for_another() -> None:
    error = refused(command(authentication=authentication(signer=JON)), record())
    assert (type(error), error.code) == (CommandRejected, "signature.signer_mismatch")
    assert (error.value, error.limit) == (JON, MARA)


def test_an_authentication_is_fresh_for_five_minutes() -> None:
    on_the_edge = command(
        authentication=authentication(authenticated_at=NOW - AUTHENTICATION_AGE_MAX)
    )
    assert len(signed(on_the_edge, record())) == 1
    error = refused(on_the_edge, record(), now=NOW + INSTANT)
    assert (type(error), error.code) == (CommandRejected, "signature.stale_authentication")
    assert (error.value, error.limit) == (300.000001, 300.0)


def test_even_the_same_signature_again_takes_a_fresh_authentication() -> None:
    stale = command(authentication=authentication(authenticated_at=NOW - timedelta(hours=1)))
    error = refused(stale, record(signatures=(signature(),)))
    assert (error.code, error.value) == ("signature.stale_authentication", 3600.0)


def test_an_authentication_does_not_come_from_the_future() -> None:
    ahead = command(authentication=authentication(authenticated_at=NOW + CLOCK_SKEW_MAX))
    assert len(signed(ahead, record())) == 1
    error = refused(ahead, record(), now=NOW - INSTANT)
    assert (type(error), error.code) == (CommandRejected, "signature.authentication_in_future")
    assert (error.value, error.limit) == (5.000001, 5.0)


@pytest.mark.parametrize(
    "components", [(), ("password",), ("password", "password"), ("password", "Password")]
)
def test_two_distinct_components_prove_who_signs(components: tuple[str, ...]) -> None:
    error = refused(command(authentication=authentication(components=components)), record())
    assert (type(error), error.code) == (CommandRejected, "signature.components_missing")
    assert (error.value, error.limit) == (list(components), COMPONENTS_MIN)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"signer_name": " "}, "text.empty"),
        ({"signer_name": "x" * (TITLE_LENGTH_MAX + 1)}, "text.too_long"),
        ({"document_sha256": "AB"}, "sha256.malformed"),
        (
            {"authentication": authentication(components=("a b", "totp"))},
            "component.malformed_name",
        ),
        (
            {"authentication": authentication(components=("x",) * (COMPONENTS_MAX + 1))},
            "signature.too_many_components",
        ),
        (
            {"authentication": authentication(authenticated_at=datetime(2025, 4, 28))},  # noqa: DTZ001
            "event.naive_time",
        ),
    ],
)
def test_what_is_malformed_is_refused(changes: dict[str, Any], code: str) -> None:
    error = refused(command(**changes), record())
    assert (type(error), error.code) == (InvalidInput, code)


def test_what_proves_an_authentication_is_not_printed() -> None:
    assert "s3cret" not in repr(command(authentication=authentication(evidence="s3cret")))


# --- what is signed -----------------------------------------------------------------------


@pytest.mark.parametrize("type_name", ["record.signed", "asset.frame_recorded"])
def test_signatures_and_frames_are_not_signed(type_name: str) -> None:
    error = refused(command(), record(type=type_name))
    assert (type(error), error.code, error.value) == (
        CommandRejected,
        "signature.not_signable",
        type_name,
    )


def test_what_was_erased_is_not_signed() -> None:
    error = refused(command(), record(None))
    assert (type(error), error.code, error.value) == (
        CommandRejected,
        "signature.record_erased",
        7,
    )


def test_what_was_corrected_is_not_signed() -> None:
    error = refused(command(), record(corrected_by=9))
    assert (type(error), error.code) == (CommandRejected, "signature.record_corrected")
    assert (error.value, error.limit) == (7, 9)
