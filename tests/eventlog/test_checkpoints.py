"""Checkpoints: one key, one signer at a time, and never two that contradict one another."""

from __future__ import annotations

import asyncio
import base64
import itertools
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.ledger_events import SigningKeyRotated
from eventlog.checkpoints import (
    Checkpoint,
    CheckpointPublisher,
    SigningKeys,
    SigningRefused,
    open_checkpoint,
    trusted_keys,
)
from eventlog.database import Pool
from eventlog.ledger import Ledger
from eventlog.merkle import EMPTY_ROOT, check_consistency
from eventlog.notes import Note, SignatureKind, SigningKey, VerifierKey, sign_note
from eventlog.reading import read_stream
from tests.database import as_superuser
from tests.eventlog.new_events import fact, opened
from tests.eventlog.signing import grow, signer_for, tiles_of_ledger
from tests.recordings import REPOSITORY

pytestmark = pytest.mark.anyio

ORIGIN = "heddle.example/plant-1"
PATIENCE_TURNS = 3_000
WITNESS = SigningKey.generate("witness.example/w1", SignatureKind.COSIGNATURE)


def opened_note(note: Note, *keys: VerifierKey) -> Checkpoint:
    return open_checkpoint(note.written, keys)


@pytest.fixture
async def superuser(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection that triggers and privileges do not stop."""
    connection = await asyncpg.connect(as_superuser(database_url))
    await connection.execute("set session_replication_role = replica")
    yield connection
    await connection.close()


# --- the text -----------------------------------------------------------------------------


def test_the_example_of_the_specification_is_read_and_written() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    checkpoint = Checkpoint.parse(text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert checkpoint.text == text


def test_extension_lines_of_other_logs_are_passed_over() -> None:
    root = base64.b64encode(bytes(32)).decode()
    assert Checkpoint.parse(f"o\n3\n{root}\nmore\n") == Checkpoint("o", 3, bytes(32))


@pytest.mark.parametrize(
    "text",
    ["", "o\n", "o\n3\n", "o\n3\nAAAA\n", "o\n03\n{}\n", "o\n-3\n{}\n", "o\n3\n{}", "o\n\n3\n{}\n",
     "o\n3 \n{}\n", "o\n3\n{}\n\nx\n", "\n3\n{}\n", "o\n٣\n{}\n", "o\n3\n*\n"],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Checkpoint.parse(text.replace("{}", base64.b64encode(bytes(32)).decode()))
    assert refused.value.code == "checkpoint.malformed"


def test_a_checkpoint_is_opened_only_with_the_key_called_as_its_origin() -> None:
    log, other = SigningKey.generate(ORIGIN), SigningKey.generate("heddle.example/plant-2")
    text = Checkpoint(ORIGIN, 3, bytes(32)).text
    assert open_checkpoint(sign_note(text, [log]).written, [log.verifier]).size == 3
    with pytest.raises(InvalidInput) as refused:
        open_checkpoint(sign_note(text, [other]).written, [log.verifier, other.verifier])
    assert refused.value.code == "note.unsigned"


def test_witnesses_are_counted_once_each_where_they_are_asked_for() -> None:
    log = SigningKey.generate(ORIGIN)
    text = Checkpoint(ORIGIN, 3, bytes(32)).text
    keys = [log.verifier, WITNESS.verifier]
    twice = (WITNESS.sign(text, time_s=1), WITNESS.sign(text, time_s=2))
    note = Note(text, (log.sign(text), *twice))
    assert open_checkpoint(note.written, keys, witnesses_min=1).size == 3
    for short, wanted in ((note, 2), (sign_note(text, [log]), 1)):
        with pytest.raises(InvalidInput) as refused:
            open_checkpoint(short.written, keys, witnesses_min=wanted)
        assert (refused.value.code, refused.value.limit) == ("checkpoint.unwitnessed", wanted)


# --- the key ------------------------------------------------------------------------------


def test_a_key_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    keys = SigningKeys(tmp_path / "keys", "plant-1", ORIGIN)
    assert keys.verifier() is None
    first = keys.current()
    assert keys.current() == first
    assert keys.verifier() == first.verifier
    mode = (tmp_path / "keys" / "plant-1.key").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert sorted(p.name for p in (tmp_path / "keys").iterdir()) == [
        "plant-1.key",
        "plant-1.vkey",
    ]


@pytest.mark.slow
def test_processes_that_start_at_once_make_one_key(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from eventlog.checkpoints import SigningKeys\n"
        f"keys = SigningKeys(pathlib.Path(sys.argv[1]), 'plant-1', '{ORIGIN}')\n"
        "print(keys.current().verifier.vkey)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    assert len({process.communicate(timeout=60)[0] for process in running}) == 1


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    keys = SigningKeys(tmp_path, "plant-1", ORIGIN)
    keys.current()
    (tmp_path / "plant-1.key").chmod(0o640)
    with pytest.raises(InvalidInput) as refused:
        keys.current()
    assert (refused.value.code, refused.value.value) == ("key.open_to_others", "0640")


def test_a_key_belongs_to_one_origin(tmp_path: Path) -> None:
    SigningKeys(tmp_path, "plant-1", ORIGIN).current()
    with pytest.raises(InvalidInput) as refused:
        SigningKeys(tmp_path, "plant-1", "elsewhere.example/plant-1").current()
    assert (refused.value.code, refused.value.value) == ("key.other_origin", ORIGIN)


def test_a_given_key_needs_no_file(tmp_path: Path) -> None:
    given = SigningKey.generate(ORIGIN)
    keys = SigningKeys(tmp_path / "keys", "plant-1", ORIGIN, given)
    assert keys.current() == given
    assert keys.verifier() == given.verifier
    assert not (tmp_path / "keys").exists()


# --- signing ------------------------------------------------------------------------------


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


async def cut(connection: asyncpg.Connection[asyncpg.Record], size: int, pool: Pool) -> None:
    """Take the database back to the moment when it had `size` events, as a restore would."""
    from eventlog.merkle import Frontier

    tree = Frontier()
    rows = await pool.fetch("select * from event where position <= $1 order by position", size)
    tree.append(row["leaf_hash"] for row in rows)
    for table in ("event", "event_identity", "source_sequence"):
        await connection.execute(f"delete from {table} where position > {size}")
    await connection.execute("delete from tile where (number + 1) << 8 > $1 and level = 0", size)
    await connection.execute("delete from checkpoint where size > $1", size)
    await connection.execute("delete from stream_head")
    await connection.execute(
        "insert into stream_head select ledger_id, stream, max(version) from event group by 1, 2"
    )
    await connection.execute(
        "update ledger set position = $1, frontier = $2, root = $3, recorded_at = $4",
        size,
        tree.packed(),
        tree.root(),
        rows[-1]["recorded_at"],
    )


async def test_after_a_restore_to_an_earlier_point_signing_is_refused(
    ledger: Ledger, superuser: asyncpg.Connection[asyncpg.Record], tmp_path: Path
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
    ledger: Ledger, superuser: asyncpg.Connection[asyncpg.Record], tmp_path: Path
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


# --- rotation -----------------------------------------------------------------------------


async def test_a_rotation_is_recorded_endorsed_and_signed_by_both_keys(
    ledger: Ledger, tmp_path: Path
) -> None:
    signer = signer_for(ledger, tmp_path)
    await grow(ledger, 5)
    await signer.sign()
    old = signer.keys.current().verifier
    new = await signer.rotate(ledger, actor="user:mara", reason="yearly")
    assert new != old
    assert signer.keys.current().verifier == new == signer.keys.verifier()
    (event,) = await read_stream(ledger, "ledger:plant-1")
    assert (event.position, event.actor, event.type) == (
        6,
        "user:mara",
        "ledger.signing_key_rotated",
    )
    rotation: SigningKeyRotated = event.fact
    assert (rotation.previous_vkey, rotation.vkey) == (old.vkey, new.vkey)
    bridge = await signer.latest()
    assert bridge is not None
    assert opened_note(bridge, old) == opened_note(bridge, new)
    assert opened_note(bridge, new).size == 6
    await grow(ledger, 9)
    later = await signer.sign()
    assert opened_note(later, new).size == 9
    with pytest.raises(InvalidInput):
        opened_note(later, old)
    assert trusted_keys([old], [rotation]) == [old, new]
    assert trusted_keys([new], [rotation]) == [new, old]
    forged = replace(rotation, endorsement=None)
    assert trusted_keys([old], [forged]) == [old]
    swapped = replace(rotation, vkey=SigningKey.generate(ORIGIN).verifier.vkey)
    assert trusted_keys([old], [swapped]) == [old]


async def test_a_rotation_cut_short_is_finished_by_a_repeat(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = signer_for(ledger, tmp_path)

    def crash(_keys: SigningKeys, _key: SigningKey) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(SigningKeys, "promote_next", crash)
        with pytest.raises(OSError, match="killed"):
            await signer.rotate(ledger, actor="user:mara", reason="yearly")
    before = signer.keys.current().verifier
    new = await signer.rotate(ledger, actor="user:mara", reason="yearly")
    assert await ledger.head() == 1
    assert signer.keys.current().verifier == new != before
    await grow(ledger, 3)
    assert opened_note(await signer.sign(), new).size == 3


async def test_a_given_key_is_rotated_to_a_given_successor(ledger: Ledger, tmp_path: Path) -> None:
    signer = signer_for(ledger, tmp_path)
    given = SigningKey.generate(ORIGIN)
    signer.keys = replace(signer.keys, given=given)
    with pytest.raises(CommandRejected) as refused:
        await signer.rotate(ledger, actor="user:mara", reason="")
    assert refused.value.code == "key.given_by_setting"
    successor = SigningKey.generate(ORIGIN)
    await signer.rotate(ledger, actor="user:mara", reason="", successor=successor)
    assert not (tmp_path / "plant-1.key").exists()
    signer.keys = replace(signer.keys, given=successor)
    await grow(ledger, 4)
    assert opened_note(await signer.sign(), successor.verifier).size == 4


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


# --- publishing ---------------------------------------------------------------------------


async def test_the_publisher_signs_what_is_appended_and_says_when_it_cannot(
    ledger: Ledger, superuser: asyncpg.Connection[asyncpg.Record], tmp_path: Path
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
