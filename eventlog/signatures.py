"""Signing an event of the log, and whether the signatures on a stream still hold.

`domain.signatures` says what may be signed. Here the signed event is read, its leaf taken, the
signer's authentication vouched for, and the signature appended; and later each is held against
the log again: the leaf recomputed, the document read, corrections looked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol

from domain.documents.document import DocumentReleased
from domain.errors import CommandRejected, HeddleError, NotFound
from domain.events import format_time
from domain.records import CORRECTED, SIGNED, RecordCorrected, RecordSigned
from domain.signatures import Authentication, Signable, SignRecord, check_authentication, sign
from eventlog.commands import Decision, Handled, check_version, decide_once
from eventlog.documents import ContentStore
from eventlog.envelope import RecordedEvent, leaf_entry, new_fact
from eventlog.ledger import IdempotencyKey, Ledger
from eventlog.reading import EventFilter, PayloadOf, read_page, read_pages
from eventlog.transparency.merkle import leaf_hash
from eventlog.transparency.tiles import LedgerTiles

KEY_BYTES_MIN: Final = 32


class AuthenticationVerifier(Protocol):
    """Who vouches that a signer has proved who he is."""

    async def verify(self, command: SignRecord) -> None:
        """Return when the authentication of `command` is genuine and was given for it.

        Raises
        ------
        CommandRejected
            ``signature.authentication_refused``
        """


class KeyedVerifier:
    """Vouches for what an authenticator says that shares a key with it (HMAC-SHA256).

    The authenticator, such as the gateway at which people log in, asks the signer for both
    components and then calls `vouch`. Its evidence is good for one record, one meaning and one
    authentication: who overhears it can sign nothing else with it.

    Parameters
    ----------
    key : at least `KEY_BYTES_MIN` random bytes

    Raises
    ------
    ValueError
        the key is shorter
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES_MIN:
            raise ValueError(f"a key has at least {KEY_BYTES_MIN} bytes, not {len(key)}")
        self._key = key

    def vouch(self, command: SignRecord) -> SignRecord:
        """Return `command` with evidence for its authentication."""
        authentication = replace(command.authentication, evidence=self._evidence(command))
        return replace(command, authentication=authentication)

    async def verify(self, command: SignRecord) -> None:
        """Return when the evidence of `command` was made with the key, for it.

        Raises
        ------
        CommandRejected
            ``signature.authentication_refused``
        """
        given = command.authentication.evidence.encode(errors="replace")
        if not hmac.compare_digest(given, self._evidence(command).encode()):
            raise CommandRejected(
                "signature.authentication_refused",
                f"nobody vouches for the authentication of {command.authentication.signer!r}",
                hint="authenticate for this very record and meaning",
                value=command.authentication.signer,
            )

    def _evidence(self, command: SignRecord) -> str:
        told = [
            command.stream,
            command.position,
            command.meaning.value,
            command.authentication.signer,
            list(command.authentication.components),
            format_time(command.authentication.authenticated_at),
        ]
        return hmac.new(self._key, json.dumps(told).encode(), hashlib.sha256).hexdigest()


# --- signing ------------------------------------------------------------------------------


async def sign_record(
    ledger: Ledger,
    command: SignRecord,
    verifier: AuthenticationVerifier,
    *,
    actor: str,
    now: datetime,
    event_id: Callable[[], uuid.UUID],
    idempotency: IdempotencyKey | None = None,
    expected_version: int | None = None,
    traceparent: str | None = None,
    dry_run: bool = False,
) -> Handled:
    """Sign an event as it stands; what corrects it meanwhile prevents the signature.

    Parameters
    ----------
    actor : who asks; nobody signs for another
    now : the time of the signature (11.50(a)(2))
    expected_version, dry_run : as in `eventlog.commands.handle`

    Raises
    ------
    NotFound
        ``record.unknown``: the stream has no event there
    CommandRejected
        ``signature.authentication_refused``, ``signature.record_damaged``
    HeddleError
        as `domain.signatures.sign` and `Ledger.append`
    """
    check_authentication(command.authentication, actor=actor, now=now)
    await verifier.verify(command)

    async def decide() -> Decision:
        version = await ledger.stream_version(command.stream)
        check_version(command.stream, version, expected_version)
        events = sign(command, await _signable(ledger, command), actor=actor, now=now)
        facts = [
            new_fact(
                command.stream,
                event,
                event_id=event_id(),
                occurred_at=now,
                actor=actor,
                traceparent=traceparent,
            )
            for event in events
        ]
        return Decision(events, facts, {command.stream: version})

    return await decide_once(
        ledger,
        command.stream,
        decide,
        idempotency=idempotency,
        expected_version=expected_version,
        dry_run=dry_run,
    )


def unknown_record(command: SignRecord) -> NotFound:
    """Return the error for an event that its stream does not have."""
    return NotFound(
        "record.unknown",
        f"stream {command.stream!r} has no event at position {command.position}",
        value=command.position,
    )


async def _signable(ledger: Ledger, command: SignRecord) -> Signable:
    event = await _find_event(ledger, command.position)
    if event is None or event.stream != command.stream:
        raise unknown_record(command)
    fault = await _fault_of(ledger, event)
    if fault is not None:
        raise CommandRejected(
            "signature.record_damaged",
            f"event {event.position} is not as it was recorded: {fault}",
            hint="`heddle verify` says what is wrong with the log",
            value=event.position,
        )
    later = await _read_about(ledger, event.stream, after=event.position)
    return Signable(
        stream=event.stream,
        position=event.position,
        event_id=event.event_id,
        type=event.type,
        leaf_sha256=event.leaf_hash.hex(),
        fact=None if event.payload is None else event.fact,
        corrected_by=_corrected_by(event, later),
        signatures=tuple(
            one.fact
            for one in later
            if one.type == SIGNED and one.fact.signed_event_id == event.event_id
        ),
    )


# --- what signatures are worth ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignatureStanding:
    """A signature, and whether it still holds.

    Parameters
    ----------
    position, signed_at : of the signature's own event
    faults : codes of what is wrong with it, empty where it holds: ``signature.record_missing``,
        ``signature.record_changed``, ``signature.record_erased``, ``signature.record_corrected``,
        ``signature.document_mismatch``, ``signature.document_missing``,
        ``signature.document_changed``, and what `sign` would have refused it for
    """

    signature: RecordSigned
    position: int
    signed_at: datetime
    faults: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the signature is on the very content that is in the log and in the store."""
        return not self.faults


async def signatures_of(
    ledger: Ledger,
    stream: str,
    *,
    contents: ContentStore | None = None,
    as_of: int | None = None,
) -> list[SignatureStanding]:
    """Return every signature on events of `stream`, oldest first, each held against the log.

    Parameters
    ----------
    contents : where documents' files lie; without it they are not looked at
    as_of : position of the log; what was known then
    """
    about = await _read_about(ledger, stream, up_to=as_of)
    return [
        SignatureStanding(
            signature=event.fact,
            position=event.position,
            signed_at=event.occurred_at,
            faults=await _faults(ledger, event, about, contents),
        )
        for event in about
        if event.type == SIGNED
    ]


def signatures_among(events: Sequence[RecordedEvent]) -> list[SignatureStanding]:
    """Return every signature among the `events` of a stream, each held against them.

    As `signatures_of`, of events that are read already, whole streams from the first event on;
    documents' files are not looked at.
    """
    about = [event for event in events if event.type in (CORRECTED, SIGNED) and not event.erased]
    by_position = {event.position: event for event in events}
    standings = []
    for event in about:
        if event.type != SIGNED:
            continue
        signed = by_position.get(event.fact.signed_position)
        damaged = signed is not None and _fault_in(signed, _entry_of(signed)) is not None
        faults = _faults_of(event, signed, about, damaged=damaged)
        standings.append(SignatureStanding(event.fact, event.position, event.occurred_at, faults))
    return standings


def _entry_of(event: RecordedEvent) -> bytes:
    recorded_at = format_time(event.recorded_at)
    return leaf_entry(event.ledger, event.position, event.version, recorded_at, event)


async def _faults(
    ledger: Ledger,
    event: RecordedEvent,
    about: list[RecordedEvent],
    contents: ContentStore | None,
) -> tuple[str, ...]:
    signed = await _find_event(ledger, event.fact.signed_position)
    damaged = signed is not None and await _fault_of(ledger, signed) is not None
    faults = _faults_of(event, signed, about, damaged=damaged)
    if signed is None or "signature.record_missing" in faults:
        return faults
    return (*faults, *await _missing_file(event.fact, contents))


def _faults_of(
    event: RecordedEvent,
    signed: RecordedEvent | None,
    about: Sequence[RecordedEvent],
    *,
    damaged: bool,
) -> tuple[str, ...]:
    """Return what is wrong with the signature `event`, the file of a document aside."""
    signature: RecordSigned = event.fact
    faults = []
    try:
        check_authentication(
            Authentication(signature.signer, signature.components, signature.authenticated_at),
            actor=event.actor,
            now=event.occurred_at,
        )
    except HeddleError as refused:
        faults.append(refused.code)
    if (
        signed is None
        or signed.position >= event.position
        or (signed.stream, signed.event_id) != (event.stream, signature.signed_event_id)
    ):
        return (*faults, "signature.record_missing")
    if signed.leaf_hash.hex() != signature.signed_sha256 or damaged:
        faults.append("signature.record_changed")
    if signed.erased:
        faults.append("signature.record_erased")
    if _corrected_by(signed, about) is not None:
        faults.append("signature.record_corrected")
    if not signed.erased and _content_of(signed.fact) != signature.document_sha256:
        faults.append("signature.document_mismatch")
    return tuple(faults)


async def _missing_file(signature: RecordSigned, contents: ContentStore | None) -> list[str]:
    """Return what is wrong with the file that was signed."""
    if signature.document_sha256 is None or contents is None:
        return []
    if not await asyncio.to_thread(contents.has, signature.document_sha256):
        return ["signature.document_missing"]
    if not await asyncio.to_thread(contents.is_intact, signature.document_sha256):
        return ["signature.document_changed"]
    return []


def _content_of(fact: Any) -> str | None:
    """Return the hash of the document whose release `fact` is, or corrects."""
    if isinstance(fact, RecordCorrected):
        fact = fact.fact()
    return fact.sha256 if isinstance(fact, DocumentReleased) else None


# --- reading ------------------------------------------------------------------------------


async def _find_event(ledger: Ledger, position: int) -> RecordedEvent | None:
    page = await read_page(ledger, position - 1, up_to=position, limit=1, payloads=PayloadOf.FACTS)
    return page[0] if page else None


async def _read_about(
    ledger: Ledger, stream: str, *, after: int = 0, up_to: int | None = None
) -> list[RecordedEvent]:
    """Return the corrections and signatures in `stream`."""
    wanted = EventFilter(types=(CORRECTED, SIGNED), streams=(stream,))
    last = await ledger.head() if up_to is None else up_to
    return [
        event
        async for page in read_pages(ledger, after, up_to=last, wanted=wanted)
        for event in page
    ]


def _corrected_by(event: RecordedEvent, about: Sequence[RecordedEvent]) -> int | None:
    """Return the position of the latest correction in `about` that takes the word from `event`."""
    corrected = event.event_id
    if event.type == CORRECTED and not event.erased:
        corrected = event.fact.corrected_event_id
    latest = [
        one.position
        for one in about
        if one.type == CORRECTED
        and one.position > event.position
        and one.fact.corrected_event_id == corrected
    ]
    return latest[-1] if latest else None


async def _fault_of(ledger: Ledger, event: RecordedEvent) -> str | None:
    """Return what keeps `event` from being the one that its leaf was made of, or None."""
    tiles = LedgerTiles(ledger.pool, ledger.ledger_id, ledger.name)
    (entry,) = await tiles.entries(event.position - 1, 1)
    return _fault_in(event, entry)


def _fault_in(event: RecordedEvent, entry: bytes) -> str | None:
    if leaf_hash(entry) != event.leaf_hash:
        return "its columns do not hash to its leaf"
    if event.is_frame or event.payload is None:
        return None
    if hashlib.sha256(event.payload).digest() != event.payload_sha256:
        return "its payload is not the recorded one"
    return None
