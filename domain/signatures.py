"""Signatures after 21 CFR Part 11: what may be signed, by whom, and what a signature binds.

A signature is an event in the stream of what it signs. It names the signed event by its leaf in
the log's Merkle tree, so that it can be lifted from nothing and put on nothing else (11.70), and
carries who signed, when, and what that means (11.50). The signer proves at each signing, by two
distinct components, who he is (11.200(a)(1)): here even the second signing of one session takes
both, and never less for being biometric, which is stricter than the rule.

How somebody proves it is not decided here: `Authentication` says what was proved, and whoever
handles the command has it vouched for.

References
----------
21 CFR Part 11 (1997), 11.10(e), 11.50, 11.70, 11.100, 11.200.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from domain.documents.document import DocumentReleased
from domain.errors import CommandRejected, InvalidInput
from domain.events import FRAME_RECORDED, format_time
from domain.identifiers import check_identifier
from domain.records import SIGNED, Meaning, RecordCorrected, RecordSigned
from domain.texts import TITLE_LENGTH_MAX, check_sha256, check_text

AUTHENTICATION_AGE_MAX: Final = timedelta(minutes=5)
CLOCK_SKEW_MAX: Final = timedelta(seconds=5)
"""By so much the clock of who authenticates may be ahead."""
COMPONENTS_MIN: Final = 2
COMPONENTS_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Authentication:
    """That `signer` has proved who he is.

    Parameters
    ----------
    signer : who, as an actor
    components : what he proved it by, each a distinct kind, such as ``password`` and ``totp``
    authenticated_at : when
    evidence : what lets a verifier see that it is so, such as a token; it is never recorded
    """

    signer: str
    components: tuple[str, ...]
    authenticated_at: datetime
    evidence: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class SignRecord:
    """Sign the event at `position`, which belongs to `stream`.

    Parameters
    ----------
    signer_name : printed name (11.50(a)(1))
    document_sha256 : hex of the content that the signer has seen, where the event is a
        document's release and he wants to be held to it
    """

    stream: str
    position: int
    signer_name: str
    meaning: Meaning
    authentication: Authentication
    document_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Signable:
    """An event as it stands in the log, and what has happened to it since.

    Parameters
    ----------
    leaf_sha256 : hex of its leaf hash
    fact : what it says; None for a frame and for what was erased
    corrected_by : position of the latest correction of it, or, where it is itself a correction,
        of a later one of the same event; None while it counts
    signatures : those that it bears
    """

    stream: str
    position: int
    event_id: uuid.UUID
    type: str
    leaf_sha256: str
    fact: Any
    corrected_by: int | None = None
    signatures: tuple[RecordSigned, ...] = ()


def sign(
    command: SignRecord, record: Signable, *, actor: str, now: datetime
) -> tuple[RecordSigned, ...]:
    """Return the signature that `command` puts on `record`; none when `actor` has put it already.

    Raises
    ------
    CommandRejected
        ``signature.signer_mismatch``, ``signature.stale_authentication``,
        ``signature.authentication_in_future``, ``signature.components_missing``,
        ``signature.not_signable``, ``signature.record_erased``, ``signature.record_corrected``,
        ``signature.document_mismatch``
    InvalidInput
        ``signature.too_many_components``, ``component.malformed_name``, ``event.naive_time``,
        ``sha256.malformed``, ``text.empty``, ``text.too_long``
    """
    signer_name = check_text("the signer's name", command.signer_name, TITLE_LENGTH_MAX)
    check_authentication(command.authentication, actor=actor, now=now)
    _check_record(record)
    document_sha256 = _document(command, record)
    for earlier in record.signatures:
        if earlier.signer == actor and earlier.meaning is command.meaning:
            return ()
    return (
        RecordSigned(
            stream=record.stream,
            signed_position=record.position,
            signed_event_id=record.event_id,
            signed_sha256=record.leaf_sha256,
            document_sha256=document_sha256,
            signer=actor,
            signer_name=signer_name,
            meaning=command.meaning,
            authenticated_at=command.authentication.authenticated_at,
            components=command.authentication.components,
        ),
    )


def check_authentication(authentication: Authentication, *, actor: str, now: datetime) -> None:
    """Refuse what is not the fresh authentication of `actor` by two distinct components.

    Raises
    ------
    CommandRejected, InvalidInput
        as `sign`, which begins with it
    """
    if authentication.signer != actor:
        raise CommandRejected(
            "signature.signer_mismatch",
            f"{actor!r} cannot sign with the authentication of {authentication.signer!r}",
            hint="nobody signs for another (21 CFR 11.100(a))",
            value=authentication.signer,
            limit=actor,
        )
    _check_components(authentication.components)
    format_time(authentication.authenticated_at)
    age = now - authentication.authenticated_at
    if age > AUTHENTICATION_AGE_MAX:
        raise CommandRejected(
            "signature.stale_authentication",
            f"{actor!r} proved who he is {age.total_seconds():.0f} s ago",
            hint="authenticate again, then sign",
            value=age.total_seconds(),
            limit=AUTHENTICATION_AGE_MAX.total_seconds(),
        )
    if age < -CLOCK_SKEW_MAX:
        raise CommandRejected(
            "signature.authentication_in_future",
            f"{actor!r} is said to have proved who he is {-age.total_seconds():.0f} s from now",
            hint="set the clocks right",
            value=-age.total_seconds(),
            limit=CLOCK_SKEW_MAX.total_seconds(),
        )


def _check_components(components: Sequence[str]) -> None:
    if len(components) > COMPONENTS_MAX:
        raise InvalidInput(
            "signature.too_many_components",
            f"an authentication names at most {COMPONENTS_MAX} components, not {len(components)}",
            value=len(components),
            limit=COMPONENTS_MAX,
        )
    for component in components:
        check_identifier("component", component)
    distinct = {component.lower() for component in components}
    if len(distinct) < COMPONENTS_MIN:
        raise CommandRejected(
            "signature.components_missing",
            f"{len(distinct)} distinct components prove who signs, not {COMPONENTS_MIN}",
            hint="such as a password and a one-time code (21 CFR 11.200(a)(1))",
            value=list(components),
            limit=COMPONENTS_MIN,
        )


def _check_record(record: Signable) -> None:
    if record.type in (SIGNED, FRAME_RECORDED):
        raise CommandRejected(
            "signature.not_signable",
            f"event {record.position} is a {record.type}, which nobody signs",
            hint="sign the fact that a signature stands on, or one that states what was measured",
            value=record.type,
        )
    if record.fact is None:
        raise CommandRejected(
            "signature.record_erased",
            f"what event {record.position} says was erased: nobody can know what he signs",
            value=record.position,
        )
    if record.corrected_by is not None:
        raise CommandRejected(
            "signature.record_corrected",
            f"event {record.position} was corrected at {record.corrected_by}",
            hint="sign the correction",
            value=record.position,
            limit=record.corrected_by,
        )


def _document(command: SignRecord, record: Signable) -> str | None:
    """Return the content that the signature binds, of the release that is signed."""
    released = record.fact
    if isinstance(released, RecordCorrected):
        released = released.fact()
    content = released.sha256 if isinstance(released, DocumentReleased) else None
    seen = command.document_sha256
    if seen is not None and check_sha256("the document's hash", seen) != content:
        raise CommandRejected(
            "signature.document_mismatch",
            f"the signer has seen {seen}, and event {record.position} is of {content or 'no file'}",
            hint="get the document anew and read what is released",
            value=seen,
            limit=content,
        )
    return content
