"""Signing: one signer at a time, and never two checkpoints that contradict one another."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from domain.errors import InvalidInput, NotFound
from eventlog.database import Connection
from eventlog.ledger import Ledger
from eventlog.transparency.checkpoints import Checkpoint, open_checkpoint
from eventlog.transparency.merkle import EMPTY_ROOT, check_consistency
from eventlog.transparency.notes import Note, SignatureKind, SigningKey
from eventlog.transparency.signing import CheckpointPublisher, CheckpointSigner, SigningRefused
from tests.eventlog.new_events import fact, opened
from tests.eventlog.signing import (
    NOW,
    ORIGIN,
    cut,
    grow,
    opened_note,
    signer_for,
    tiles_of_ledger,
    unstopped,
)

pytestmark = pytest.mark.anyio

PATIENCE_TURNS = 3_000
WITNESS = SigningKey.generate("witness.example/w1", SignatureKind.COSIGNATURE)


@pytest.fixture
async def superuser(database_url: str) -> AsyncIterator[Connection]:
    """A connection that triggers and privileges do not stop."""
    async with unstopped(database_url) as connection:
        yield connection


async def test_the_committed_head_is_signed_once_per_size(ledger: Ledger, tmp_path: Path) -> None:
    signer = signer_for(ledger, tmp_path)
    assert await signer.latest() is None
    empty = await signer.sign()
    key = signer.keys.current().verifier
    assert opened_note(empty, key) == Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    await grow(ledger, 300)
    note = await signer.sign()
    head = await signer.tiles.head()
    assert opened_note(note, key) == Checkpoint(ORIGIN, 300, head.root)
    assert await signer.sign() == note == await signer.latest()
    assert await signer_for(ledger, tmp_path).sign() == note
    assert signer.keys.published() == note
    assert await signer.signed_size() == 300
    assert await ledger.pool.fetchval("select count(*) from checkpoint") == 2


async def test_all_checkpoints_of_many_signers_beside_a_writer_are_consistent(
    ledger: Ledger, database_url: str, tmp_path: Path
) -> None:
    async with opened(database_url) as other:
        signers = [signer_for(log, tmp_path) for log in (ledger, other, ledger)]
        for n in range(12):
            await asyncio.gather(
                ledger.append([fact((n, m)) for m in range(23)]),
                *(signer.sign() for signer in signers),
            )
    key = signers[0].keys.current().verifier
    rows = await ledger.pool.fetch("select size, note from checkpoint order by size")
    signed = [opened_note(Note.parse(row["note"]), key) for row in rows]
    assert [c.size for c in signed] == [row["size"] for row in rows]
    assert len(signed) > 3
    tiles = tiles_of_ledger(ledger)
    for older, newer in itertools.pairwise(signed):
        proof = await tiles.consistency_proof(older.size, newer.size)
        check_consistency(older.size, older.root, newer.size, newer.root, proof)


async def test_after_a_restore_to_an_earlier_point_signing_is_refused(
    ledger: Ledger, superuser: Connection, tmp_path: Path
) -> None:
    signer = signer_for(ledger, tmp_path)
    await grow(ledger, 520)
    last = await signer.sign()
    await cut(superuser, 300, ledger.pool)
    with pytest.raises(SigningRefused) as refused:
        await signer.sign()
    assert (refused.value.code, refused.value.value, refused.value.limit) == (
        "checkpoint.log_shorter",
        300,
        520,
    )
    assert "events 301 to 520 are gone" in refused.value.message
    await ledger.append([fact(("another way", n)) for n in range(220)])
    with pytest.raises(SigningRefused) as refused:
        await signer.sign()
    assert refused.value.code == "checkpoint.inconsistent"
    assert signer.keys.published() == last
    assert await signer.latest() is None


async def test_a_log_whose_head_does_not_follow_from_its_events_is_not_signed(
    ledger: Ledger, superuser: Connection, tmp_path: Path
) -> None:
    signer = signer_for(ledger, tmp_path)
    await grow(ledger, 10)
    await signer.sign()
    await grow(ledger, 20)
    await superuser.execute("update event set leaf_hash = sha256('forged') where position = 15")
    with pytest.raises(SigningRefused) as refused:
        await signer.sign()
    assert (refused.value.code, refused.value.value) == ("checkpoint.head_damaged", 20)
    await superuser.execute("update event set leaf_hash = sha256('forged') where position = 5")
    with pytest.raises(SigningRefused) as refused:
        await signer.sign()
    assert refused.value.code == "checkpoint.inconsistent"


async def test_an_origin_stays_with_its_log(ledger: Ledger, tmp_path: Path) -> None:
    signer = signer_for(ledger, tmp_path)
    await signer.sign()
    moved = replace(
        signer.keys, origin="else.example/x", given=SigningKey.generate("else.example/x")
    )
    with pytest.raises(SigningRefused) as refused:
        await replace(signer, keys=moved).sign()
    assert (refused.value.code, refused.value.limit) == ("checkpoint.other_origin", ORIGIN)


# --- witnesses ----------------------------------------------------------------------------


async def test_cosignatures_of_known_witnesses_are_checked_and_served(
    ledger: Ledger, tmp_path: Path
) -> None:
    signer = signer_for(ledger, tmp_path, (WITNESS.verifier,))
    await grow(ledger, 3)
    note = await signer.sign()
    stranger = SigningKey.generate("witness.example/w2", SignatureKind.COSIGNATURE)
    cosigned = Note(
        note.text,
        (*note.signatures, WITNESS.sign(note.text, time_s=7), stranger.sign(note.text, time_s=7)),
    )
    assert await signer.accept(cosigned.written) == 1
    assert await signer.accept(cosigned.written) == 1
    latest = await signer.latest()
    assert latest is not None
    assert latest.signatures == cosigned.signatures[:2]
    keys = [signer.keys.current().verifier, WITNESS.verifier]
    assert open_checkpoint(latest.written, keys, witnesses_min=1).size == 3
    assert await signer.sign() == latest


async def test_a_cosignature_of_something_else_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    signer = signer_for(ledger, tmp_path, (WITNESS.verifier,))
    await grow(ledger, 3)
    note = await signer.sign()
    other = Checkpoint(ORIGIN, 3, bytes(32)).text
    with pytest.raises(NotFound) as unknown:
        await signer.accept(Note(other, (WITNESS.sign(other),)).written)
    assert unknown.value.code == "checkpoint.unknown"
    wrong = Note(note.text, (WITNESS.sign(other, time_s=1),))
    with pytest.raises(InvalidInput) as bad:
        await signer.accept(wrong.written)
    assert bad.value.code == "note.signature_bad"
    with pytest.raises(InvalidInput) as unsigned:
        await signer.accept(note.written)
    assert unsigned.value.code == "note.unsigned"


# --- keeping ------------------------------------------------------------------------------


async def signed_at(signer: CheckpointSigner, ledger: Ledger, *times: datetime) -> None:
    """Let the log grow by an event and be signed at each of `times`."""
    for time in times:
        signer.now = lambda time=time: time  # type: ignore[misc]
        await grow(ledger, await ledger.head() + 1)
        await signer.sign()


async def sizes(ledger: Ledger) -> list[int]:
    return [
        row["size"] for row in await ledger.pool.fetch("select size from checkpoint order by 1")
    ]


async def test_of_old_checkpoints_the_last_of_each_hour_and_all_evidence_stays(
    ledger: Ledger, tmp_path: Path
) -> None:
    signer = signer_for(ledger, tmp_path, (WITNESS.verifier,))
    minute = timedelta(minutes=1)
    await signed_at(signer, ledger, *(NOW + 10 * n * minute for n in range(4)))
    cosigned = await signer.latest()
    assert cosigned is not None
    await signer.accept(Note(cosigned.text, (WITNESS.sign(cosigned.text, time_s=7),)).written)
    await signed_at(signer, ledger, NOW + 40 * minute, NOW + 59 * minute)
    await signed_at(signer, ledger, NOW + 60 * minute)
    await signer.rotate(ledger, actor="user:mara", reason="yearly")
    await signed_at(signer, ledger, NOW + 90 * minute, NOW + 100 * minute)
    await signed_at(signer, ledger, *[datetime.now(UTC)] * 3)
    assert await sizes(ledger) == list(range(1, 14))
    assert await signer.prune() == 6
    #  4: cosigned, 6: the last of its hour, 8: signed by two keys, 10: the last; 11 on: of today
    assert await sizes(ledger) == [4, 6, 8, 10, 11, 12, 13]
    assert await signer.prune() == 0
    tiles = tiles_of_ledger(ledger)
    key = signer.keys.current().verifier
    last = opened_note(await signer.sign(), key)
    for size in range(1, 14):
        proof = await tiles.consistency_proof(size, last.size)
        check_consistency(size, await tiles.root_at(size), last.size, last.root, proof)


async def test_the_database_lets_no_other_checkpoint_go(ledger: Ledger, tmp_path: Path) -> None:
    signer = signer_for(ledger, tmp_path)
    await signed_at(signer, ledger, NOW, NOW, NOW + timedelta(hours=1))
    await signed_at(signer, ledger, *[datetime.now(UTC)] * 2)
    for size in (2, 3, 4, 5):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await ledger.pool.execute("delete from checkpoint where size = $1", size)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ledger.pool.execute("update checkpoint set note = ''")
    await ledger.pool.execute("delete from checkpoint where size = 1")
    assert await sizes(ledger) == [2, 3, 4, 5]


# --- publishing ---------------------------------------------------------------------------


async def test_the_publisher_signs_what_is_appended_and_says_when_it_cannot(
    ledger: Ledger, superuser: Connection, tmp_path: Path
) -> None:
    publisher = CheckpointPublisher(signer_for(ledger, tmp_path), interval_s=0.01)
    try:
        await grow(ledger, 4)
        assert Checkpoint.parse((await publisher.current(covering=4)).text).size == 4
        await grow(ledger, 6)
        for _ in range(PATIENCE_TURNS):
            if Checkpoint.parse((await publisher.current()).text).size == 6:
                break
            await asyncio.sleep(0.01)
        await cut(superuser, 3, ledger.pool)
        for _ in range(PATIENCE_TURNS):
            if publisher.failure is not None:
                break
            await asyncio.sleep(0.01)
        assert publisher.failure is not None
        assert "checkpoint.log_shorter" in publisher.failure
        with pytest.raises(SigningRefused):
            await publisher.current()
    finally:
        await publisher.close()


async def test_signing_goes_on_where_old_checkpoints_cannot_be_thinned_out(
    ledger: Ledger, superuser: Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await superuser.execute("revoke delete on checkpoint from heddle")
    publisher = CheckpointPublisher(signer_for(ledger, tmp_path), interval_s=0.01)
    try:
        for size in (3, 5):
            await grow(ledger, size)
            for _ in range(PATIENCE_TURNS):
                if await publisher.signer.signed_size() == size:
                    break
                await asyncio.sleep(0.01)
            assert await publisher.signer.signed_size() == size
        assert publisher.failure is None
    finally:
        await publisher.close()
    (warning,) = [r.getMessage() for r in caplog.records if "thinned out" in r.getMessage()]
    assert "permission denied for table checkpoint" in warning
