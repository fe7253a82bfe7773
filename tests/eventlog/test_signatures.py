"""Signatures in the log: put once on the very event, and worth what they are held against."""

from __future__ import annotations

import asyncio
import hashlib
import io
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.documents.document import DocumentKind, ReleaseDocument, WithdrawDocument
from domain.errors import CommandRejected, Conflict, HeddleError, NotFound
from domain.events import encode_fact
from domain.quality.instrument import CalibrateInstrument, InstrumentCalibrated, RegisterInstrument
from domain.quality.nonconformance import (
    CloseNonconformance,
    Disposition,
    DispositionNonconformance,
    NonconformanceDispositioned,
    OpenNonconformance,
)
from domain.records import CorrectRecord, Meaning, RecordCorrected, RecordSigned
from domain.signatures import Authentication, SignRecord
from eventlog.commands import Handled, handle, load
from eventlog.corrections import handle_correction
from eventlog.documents import ContentStore, add_document, content_path
from eventlog.envelope import new_fact
from eventlog.ledger import IdempotencyKey, Ledger
from eventlog.reading import read_event, read_page, read_whole_stream
from eventlog.signatures import (
    KEY_BYTES_MIN,
    KeyedVerifier,
    SignatureStanding,
    sign_record,
    signatures_among,
    signatures_of,
)
from tests.database import as_superuser, execute
from tests.eventlog.archived import erase_positions
from tests.eventlog.new_events import frame_event, frame_of

pytestmark = pytest.mark.anyio

NOW = datetime(2025, 4, 28, 9, 14, 7, tzinfo=UTC)
NEXT_YEAR = NOW.replace(year=2026)
MARA, JON = "user:mara", "user:jon"
GATEWAY = KeyedVerifier(bytes(range(KEY_BYTES_MIN)))
INSTRUMENT, DOCUMENT = "instrument:CMM-2", "document:DRW-7"


async def told(ledger: Ledger, command: Any) -> Handled:
    return await handle(
        ledger, command, actor=JON, occurred_at=NOW, event_id=lambda _: uuid.uuid4()
    )


@pytest.fixture
async def calibrated(ledger: Ledger) -> int:
    """Position of the calibration of an instrument."""
    await told(ledger, RegisterInstrument("CMM-2", "Measuring machine"))
    return (await told(ledger, CalibrateInstrument("CMM-2", NOW, NEXT_YEAR))).position


@pytest.fixture
def contents(tmp_path: Path) -> ContentStore:
    return ContentStore(str(tmp_path / "documents"))


@pytest.fixture
async def released(ledger: Ledger, contents: ContentStore) -> int:
    """Position of the release of a document whose content is stored."""
    command = ReleaseDocument(
        "DRW-7", "B", DocumentKind.DESIGN, "Housing", "", 0, "model/step", None, NOW
    )
    handled, _ = await add_document(
        ledger, contents, io.BytesIO(b"drawing"), command,
        actor=JON, occurred_at=NOW, event_id=lambda _: uuid.uuid4(),
    )  # fmt: skip
    return handled.position


def asked(position: int, stream: str = INSTRUMENT, **changes: Any) -> SignRecord:
    """Return what Mara asks, freshly authenticated at the gateway."""
    signer = changes.pop("signer", MARA)
    command = SignRecord(
        stream,
        position,
        "Mara Lindqvist",
        Meaning.APPROVED,
        Authentication(signer, ("password", "totp"), NOW - timedelta(minutes=1)),
    )
    return GATEWAY.vouch(replace(command, **changes))


async def signed(
    ledger: Ledger, command: SignRecord, *, actor: str = MARA, now: datetime = NOW, **options: Any
) -> Handled:
    return await sign_record(
        ledger, command, GATEWAY, actor=actor, now=now, event_id=uuid.uuid4, **options
    )


async def refused(ledger: Ledger, command: SignRecord, **options: Any) -> HeddleError:
    head = await ledger.head()
    with pytest.raises(HeddleError) as refusal:
        await signed(ledger, command, **options)
    assert await ledger.head() == head
    return refusal.value


async def correct(ledger: Ledger, stream: str, position: int, replacement: Any = None) -> int:
    """Record that the event at `position` was wrong; return where."""
    wrong = await read_event(ledger, position)
    assert wrong is not None
    correction = RecordCorrected(
        stream,
        wrong.event_id,
        position,
        "misread",
        None if replacement is None else wrong.type,
        None if replacement is None else wrong.schema_version,
        None if replacement is None else encode_fact(replacement).decode(),
    )
    event = new_fact(
        stream, correction, event_id=uuid.uuid4(), occurred_at=wrong.occurred_at, actor=JON
    )
    return (await ledger.append([event])).position


async def standing(ledger: Ledger, stream: str, **options: Any) -> SignatureStanding:
    (only,) = await signatures_of(ledger, stream, **options)
    as_of = options.get("as_of")
    recorded = [event async for event in read_whole_stream(ledger, stream, as_of=as_of)]
    (among,) = signatures_among(recorded)  # which looks at no file
    files = ("signature.document_missing", "signature.document_changed")
    assert among == replace(only, faults=tuple(f for f in only.faults if f not in files))
    return only


async def tamper(ledger: Ledger, database_url: str, change: str, position: int) -> None:
    """Change a row of the log as somebody who may do anything, triggers or not."""
    await asyncio.to_thread(
        execute,
        as_superuser(database_url),
        "set session_replication_role = replica; "
        f"update event set {change} where ledger_id = {ledger.ledger_id} "
        f"and position = {position}",
    )


# --- signing ------------------------------------------------------------------------------


async def test_a_signature_binds_the_event_by_its_leaf(ledger: Ledger, calibrated: int) -> None:
    handled = await signed(ledger, asked(calibrated))
    event = await read_event(ledger, calibrated)
    assert event is not None
    assert handled.events == (
        RecordSigned(
            stream=INSTRUMENT,
            signed_position=calibrated,
            signed_event_id=event.event_id,
            signed_sha256=event.leaf_hash.hex(),
            document_sha256=None,
            signer=MARA,
            signer_name="Mara Lindqvist",
            meaning=Meaning.APPROVED,
            authenticated_at=NOW - timedelta(minutes=1),
            components=("password", "totp"),
        ),
    )
    signature = await read_event(ledger, handled.position)
    assert signature is not None
    assert (signature.stream, signature.actor, signature.occurred_at) == (INSTRUMENT, MARA, NOW)
    assert signature.fact == handled.events[0]
    found = await standing(ledger, INSTRUMENT)
    assert (found.position, found.signed_at, found.holds) == (handled.position, NOW, True)


async def test_a_signature_changes_nothing_of_what_it_stands_on(
    ledger: Ledger, calibrated: int
) -> None:
    before, _ = await load(ledger, INSTRUMENT)
    await signed(ledger, asked(calibrated))
    assert (await load(ledger, INSTRUMENT))[0] == before


async def test_the_same_signature_again_is_nothing_new(ledger: Ledger, calibrated: int) -> None:
    first = await signed(ledger, asked(calibrated))
    again = await signed(ledger, asked(calibrated))
    assert (again.events, again.position) == ((), first.position)
    other = await signed(ledger, asked(calibrated, meaning=Meaning.RESPONSIBLE))
    assert len(other.events) == 1
    theirs = await signed(ledger, asked(calibrated, signer=JON), actor=JON)
    assert len(theirs.events) == 1
    assert [one.signature.signer for one in await signatures_of(ledger, INSTRUMENT)] == [
        MARA,
        MARA,
        JON,
    ]


async def test_a_repeated_request_gets_its_first_answer(ledger: Ledger, calibrated: int) -> None:
    key = IdempotencyKey.of("sign-1", b"approve")
    first = await signed(ledger, asked(calibrated), idempotency=key)
    again = await signed(ledger, asked(calibrated), idempotency=key)
    assert (again.duplicate, again.position) == (True, first.position)
    with pytest.raises(Conflict) as reused:
        await signed(ledger, asked(calibrated), idempotency=IdempotencyKey.of("sign-1", b"review"))
    assert reused.value.code == "idempotency_key.reused"


async def test_many_signers_at_once_sign_once_each(ledger: Ledger, calibrated: int) -> None:
    actors = [f"user:{n}" for n in range(4)]
    await asyncio.gather(
        *(signed(ledger, asked(calibrated, signer=actor), actor=actor) for actor in actors * 2)
    )
    found = await signatures_of(ledger, INSTRUMENT)
    assert sorted(one.signature.signer for one in found) == actors
    assert all(one.holds for one in found)


async def test_what_the_stream_does_not_hold_is_not_signed(ledger: Ledger, calibrated: int) -> None:
    for command in (asked(calibrated + 1), asked(0), asked(calibrated, "instrument:CMM-3")):
        error = await refused(ledger, command)
        assert (type(error), error.code) == (NotFound, "record.unknown")


async def test_a_stale_authentication_signs_nothing(ledger: Ledger, calibrated: int) -> None:
    error = await refused(ledger, asked(calibrated), now=NOW + timedelta(minutes=5))
    assert (error.code, error.value, error.limit) == (
        "signature.stale_authentication",
        360.0,
        300.0,
    )


async def test_a_signature_is_not_signed(ledger: Ledger, calibrated: int) -> None:
    signature = await signed(ledger, asked(calibrated))
    error = await refused(ledger, asked(signature.position, signer=JON), actor=JON)
    assert (error.code, error.value) == ("signature.not_signable", "record.signed")


async def test_a_frame_is_not_signed(ledger: Ledger) -> None:
    placed = await ledger.append([frame_event(frame_of(1))])
    error = await refused(ledger, asked(placed.position, "telemetry:loop-1"))
    assert (error.code, error.value) == ("signature.not_signable", "asset.frame_recorded")


async def test_what_was_erased_is_not_signed(ledger: Ledger, calibrated: int) -> None:
    await erase_positions(ledger, calibrated)
    assert (await refused(ledger, asked(calibrated))).code == "signature.record_erased"


async def test_what_was_corrected_is_not_signed_but_its_last_correction_is(
    ledger: Ledger, calibrated: int
) -> None:
    truth = InstrumentCalibrated("CMM-2", NOW, NOW + timedelta(days=180), None)
    first = await correct(ledger, INSTRUMENT, calibrated)
    second = await correct(ledger, INSTRUMENT, calibrated, truth)
    for position in (calibrated, first):
        error = await refused(ledger, asked(position))
        assert (error.code, error.value, error.limit) == (
            "signature.record_corrected",
            position,
            second,
        )
    await signed(ledger, asked(second))
    assert (await standing(ledger, INSTRUMENT)).holds


async def test_what_was_tampered_with_is_not_signed(
    ledger: Ledger, calibrated: int, database_url: str
) -> None:
    await tamper(ledger, database_url, "actor = 'user:nobody'", calibrated)
    error = await refused(ledger, asked(calibrated))
    assert (type(error), error.code) == (CommandRejected, "signature.record_damaged")


# --- who vouches --------------------------------------------------------------------------


async def test_evidence_is_good_for_one_record_and_one_authentication(
    ledger: Ledger, calibrated: int
) -> None:
    genuine = asked(calibrated)
    later = replace(genuine.authentication, authenticated_at=NOW)
    stronger = replace(genuine.authentication, components=("password", "fingerprint"))
    forged = [
        replace(genuine, position=calibrated - 1),
        replace(genuine, stream="instrument:CMM-3"),
        replace(genuine, meaning=Meaning.AUTHORED),
        replace(genuine, authentication=later),
        replace(genuine, authentication=stronger),
        replace(genuine, authentication=replace(genuine.authentication, evidence="")),
        replace(genuine, authentication=replace(genuine.authentication, evidence="é\ud800")),
        KeyedVerifier(bytes(KEY_BYTES_MIN)).vouch(genuine),
    ]
    for command in forged:
        error = await refused(ledger, command)
        assert (type(error), error.code) == (
            CommandRejected,
            "signature.authentication_refused",
        )
    assert len((await signed(ledger, genuine)).events) == 1


async def test_another_persons_evidence_is_good_for_nothing(
    ledger: Ledger, calibrated: int
) -> None:
    theirs = asked(calibrated, signer=JON)
    assert (await refused(ledger, theirs)).code == "signature.signer_mismatch"
    claimed = replace(theirs, authentication=replace(theirs.authentication, signer=MARA))
    assert (await refused(ledger, claimed)).code == "signature.authentication_refused"


async def test_evidence_is_not_recorded(ledger: Ledger, calibrated: int) -> None:
    command = asked(calibrated)
    await signed(ledger, command)
    for event in await read_page(ledger, 0):
        assert event.payload is not None
        assert command.authentication.evidence.encode() not in event.payload


def test_a_short_key_vouches_for_nobody() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes, not 31"):
        KeyedVerifier(bytes(KEY_BYTES_MIN - 1))


# --- what a signature is worth ------------------------------------------------------------


async def test_a_stream_without_signatures_has_none(ledger: Ledger, calibrated: int) -> None:
    assert await signatures_of(ledger, INSTRUMENT) == []
    assert await signatures_of(ledger, "instrument:nobody") == []


async def test_a_signature_holds_until_its_record_is_corrected(
    ledger: Ledger, calibrated: int
) -> None:
    handled = await signed(ledger, asked(calibrated))
    correction = await correct(ledger, INSTRUMENT, calibrated)
    assert (await standing(ledger, INSTRUMENT)).faults == ("signature.record_corrected",)
    # What was known before is still known.
    assert (await standing(ledger, INSTRUMENT, as_of=correction - 1)).holds
    assert await signatures_of(ledger, INSTRUMENT, as_of=handled.position - 1) == []


@pytest.mark.parametrize(
    "change",
    [
        "actor = 'user:nobody'",
        "occurred_at = occurred_at - interval '1 day'",
        "payload = convert_to(replace(convert_from(payload, 'UTF8'), '2026', '2036'), 'UTF8')",
        "leaf_hash = sha256('another')",
    ],
)
async def test_a_signature_does_not_hold_on_what_was_changed(
    ledger: Ledger, calibrated: int, database_url: str, change: str
) -> None:
    await signed(ledger, asked(calibrated))
    await tamper(ledger, database_url, change, calibrated)
    assert (await standing(ledger, INSTRUMENT)).faults == ("signature.record_changed",)


async def test_a_signature_does_not_hold_on_what_was_changed_hash_and_all(
    ledger: Ledger, released: int, contents: ContentStore, database_url: str
) -> None:
    await signed(ledger, asked(released, DOCUMENT))
    other = hashlib.sha256(b"redrawn").hexdigest()
    payload = (
        "convert_to(regexp_replace(convert_from(payload, 'UTF8'), "
        f'\'"sha256":"[0-9a-f]+"\', \'"sha256":"{other}"\'), \'UTF8\')'
    )
    await tamper(
        ledger, database_url, f"payload = {payload}, payload_sha256 = sha256({payload})", released
    )
    assert (await standing(ledger, DOCUMENT)).faults == (
        "signature.record_changed",
        "signature.document_mismatch",
    )


async def test_a_signature_on_what_was_erased_cannot_be_held_against_it(
    ledger: Ledger, calibrated: int
) -> None:
    await signed(ledger, asked(calibrated))
    await erase_positions(ledger, calibrated)
    assert (await standing(ledger, INSTRUMENT)).faults == ("signature.record_erased",)


@pytest.mark.parametrize(
    ("changes", "actor", "at", "fault"),
    [
        ({}, JON, NOW, "signature.signer_mismatch"),
        ({"components": ("password",)}, MARA, NOW, "signature.components_missing"),
        ({}, MARA, NOW + timedelta(hours=1), "signature.stale_authentication"),
        ({"signed_event_id": uuid.uuid4()}, MARA, NOW, "signature.record_missing"),
        ({"signed_position": 99}, MARA, NOW, "signature.record_missing"),
        ({"signed_position": 1}, MARA, NOW, "signature.record_missing"),
        ({"signed_sha256": "ab" * 32}, MARA, NOW, "signature.record_changed"),
        ({"document_sha256": "ab" * 32}, MARA, NOW, "signature.document_mismatch"),
    ],
)
async def test_a_signature_that_was_appended_past_the_rules_does_not_hold(
    ledger: Ledger, calibrated: int, changes: dict[str, Any], actor: str, at: datetime, fault: str
) -> None:
    event = await read_event(ledger, calibrated)
    assert event is not None
    forged = RecordSigned(
        INSTRUMENT, calibrated, event.event_id, event.leaf_hash.hex(), None, MARA,
        "Mara Lindqvist", Meaning.APPROVED, NOW, ("password", "totp"),
    )  # fmt: skip
    await ledger.append(
        [
            new_fact(
                INSTRUMENT,
                replace(forged, **changes),
                event_id=uuid.uuid4(),
                occurred_at=at,
                actor=actor,
            )
        ]
    )
    assert (await standing(ledger, INSTRUMENT)).faults == (fault,)


async def test_a_disposition_is_decided_anew_by_correction_alone_and_signed_anew(
    ledger: Ledger,
) -> None:
    stream = "nonconformance:NC-318"
    rework = DispositionNonconformance("NC-318", Disposition.REWORK, "sleeve it")
    scrap = NonconformanceDispositioned("NC-318", Disposition.SCRAP, "the wall is too thin")
    await told(ledger, OpenNonconformance("NC-318", "part:SN-1042", "BORE-WIDE", ""))
    decided = (await told(ledger, rework)).position
    await signed(ledger, asked(decided, stream))
    with pytest.raises(CommandRejected) as refusal:
        await told(ledger, replace(rework, disposition=Disposition.SCRAP))
    assert refusal.value.code == "nonconformance.already_dispositioned"
    wrong = await read_event(ledger, decided)
    assert wrong is not None
    corrected = await handle_correction(
        ledger,
        CorrectRecord(stream, wrong.event_id, "measured again", scrap),
        actor=JON,
        event_id=uuid.uuid4(),
    )
    state, _ = await load(ledger, stream)
    assert state.disposition is Disposition.SCRAP
    await signed(ledger, asked(corrected.position, stream))
    assert [one.faults for one in await signatures_of(ledger, stream)] == [
        ("signature.record_corrected",),
        (),
    ]
    await told(ledger, CloseNonconformance("NC-318"))


async def test_a_signature_on_what_came_after_it_does_not_hold(
    ledger: Ledger, calibrated: int
) -> None:
    event_id = uuid.uuid4()
    forged = RecordSigned(
        INSTRUMENT, calibrated + 2, event_id, "ab" * 32, None, MARA,
        "Mara Lindqvist", Meaning.APPROVED, NOW, ("password", "totp"),
    )  # fmt: skip
    for fact, fact_id in (
        (forged, uuid.uuid4()),
        (InstrumentCalibrated("CMM-2", NEXT_YEAR, NEXT_YEAR.replace(year=2027), None), event_id),
    ):
        event = new_fact(INSTRUMENT, fact, event_id=fact_id, occurred_at=NOW, actor=MARA)
        await ledger.append([event])
    assert (await standing(ledger, INSTRUMENT)).faults == ("signature.record_missing",)


# --- documents ----------------------------------------------------------------------------


async def test_a_signature_on_a_release_binds_the_file(
    ledger: Ledger, released: int, contents: ContentStore
) -> None:
    sha256 = hashlib.sha256(b"drawing").hexdigest()
    seen = asked(released, DOCUMENT, document_sha256=sha256)
    handled = await signed(ledger, seen)
    assert handled.events[0].document_sha256 == sha256
    assert (await standing(ledger, DOCUMENT, contents=contents)).holds


async def test_a_signer_who_saw_another_file_does_not_sign(ledger: Ledger, released: int) -> None:
    other = hashlib.sha256(b"redrawn").hexdigest()
    error = await refused(ledger, asked(released, DOCUMENT, document_sha256=other))
    assert error.code == "signature.document_mismatch"


async def test_a_signature_does_not_hold_on_a_file_that_is_gone_or_changed(
    ledger: Ledger, released: int, contents: ContentStore, tmp_path: Path
) -> None:
    handled = await signed(ledger, asked(released, DOCUMENT))
    file = tmp_path / "documents" / content_path(handled.events[0].document_sha256)
    file.write_bytes(b"drawinG")
    found = await standing(ledger, DOCUMENT, contents=contents)
    assert found.faults == ("signature.document_changed",)
    file.unlink()
    found = await standing(ledger, DOCUMENT, contents=contents)
    assert found.faults == ("signature.document_missing",)
    assert (await standing(ledger, DOCUMENT)).holds  # files were not asked for


async def test_a_signature_on_a_revision_outlives_its_withdrawal(
    ledger: Ledger, released: int, contents: ContentStore
) -> None:
    await signed(ledger, asked(released, DOCUMENT))
    await told(ledger, WithdrawDocument("DRW-7", "B", "wrong fit"))
    assert (await standing(ledger, DOCUMENT, contents=contents)).holds
