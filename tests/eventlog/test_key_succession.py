"""Keys that follow one another: by rotation, and under another origin after a loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from domain.errors import CommandRejected, InvalidInput
from domain.ledger_events import HistoryLost, SigningKeyRotated
from eventlog.ledger import Ledger
from eventlog.reading import read_stream
from eventlog.transparency.key_succession import trusted_keys
from eventlog.transparency.notes import Note, SigningKey
from eventlog.transparency.signing import CheckpointSigner, SigningRefused
from eventlog.transparency.signing_keys import SigningKeys
from eventlog.verification.findings import Verification
from eventlog.verification.whole_log import verify_ledger
from tests.eventlog.new_events import fact
from tests.eventlog.signing import ORIGIN, cut, grow, opened_note, signer_for, unstopped

pytestmark = pytest.mark.anyio

NEXT_ORIGIN = "heddle.example/plant-1/2"


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


# --- after a loss -------------------------------------------------------------------------


async def lose(ledger: Ledger, database_url: str, signer: CheckpointSigner) -> Note:
    """Sign 520 events, go back to 300 of which 290 are signed, and on another way to 310."""
    await grow(ledger, 290)
    await signer.sign()
    await grow(ledger, 520)
    last = await signer.sign()
    async with unstopped(database_url) as superuser:
        await cut(superuser, 300, ledger.pool)
    await ledger.append([fact(("another way", n)) for n in range(10)])
    return last


async def verified(ledger: Ledger, keys: SigningKeys, *kept: Note) -> Verification:
    own, published = keys.verifier(), keys.published()
    assert own is not None
    assert published is not None
    return await verify_ledger(ledger.pool, ledger.name, trusted=[own], held=[published, *kept])


async def test_a_log_that_lost_signed_events_goes_on_under_another_origin(
    ledger: Ledger, database_url: str, tmp_path: Path
) -> None:
    signer = signer_for(ledger, tmp_path)
    last = await lose(ledger, database_url, signer)
    old = signer.keys.current().verifier
    new = await signer.acknowledge_loss(
        ledger, origin=NEXT_ORIGIN, actor="user:mara", reason="the disk died; backup of Monday"
    )
    (event,) = await read_stream(ledger, "ledger:plant-1")
    lost: HistoryLost = event.fact
    assert (event.position, event.actor, event.type) == (311, "user:mara", "ledger.history_lost")
    assert (lost.previous_origin, lost.origin, lost.kept_size) == (ORIGIN, NEXT_ORIGIN, 290)
    assert lost.lost_checkpoint == last.written
    assert (tmp_path / "plant-1.checkpoint-lost-520").read_text() == last.written
    assert trusted_keys([old], [lost]) == [old, new]
    assert trusted_keys([old], [replace(lost, endorsement=None)]) == [old]

    anew = replace(signer, keys=replace(signer.keys, origin=NEXT_ORIGIN))
    await grow(ledger, 320)
    assert opened_note(await anew.sign(), new).size == 320
    report = await verified(ledger, anew.keys)
    assert (report.findings, report.checkpoints, report.signatures) == ([], 4, 4)
    # Whoever kept the old log's word still finds out.
    report = await verified(ledger, anew.keys, last)
    assert [finding.code for finding in report.findings] == ["checkpoint.beyond_log"]


async def test_nothing_is_signed_for_the_old_origin_again(
    ledger: Ledger, database_url: str, tmp_path: Path
) -> None:
    signer = signer_for(ledger, tmp_path)
    await lose(ledger, database_url, signer)
    await signer.acknowledge_loss(ledger, origin=NEXT_ORIGIN, actor="user:mara", reason="")
    with pytest.raises(InvalidInput) as other:
        await signer.sign()
    assert (other.value.code, other.value.value) == ("key.other_origin", NEXT_ORIGIN)
    given = replace(signer.keys, given=SigningKey.generate(ORIGIN))
    with pytest.raises(SigningRefused) as refused:
        await replace(signer, keys=given).sign()
    assert refused.value.code == "checkpoint.other_origin"


@pytest.mark.parametrize("step", ["keep_as_lost", "publish", "promote_next"])
async def test_an_acknowledgement_cut_short_is_finished_by_a_repeat(
    ledger: Ledger, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    signer = signer_for(ledger, tmp_path)
    await lose(ledger, database_url, signer)

    def crash(*_: object) -> None:
        raise OSError("killed")

    async def acknowledge() -> object:
        return await signer.acknowledge_loss(
            ledger, origin=NEXT_ORIGIN, actor="user:mara", reason=""
        )

    with monkeypatch.context() as patched:
        patched.setattr(SigningKeys, step, crash)
        with pytest.raises(OSError, match="killed"):
            await acknowledge()
    new = await acknowledge()
    assert await acknowledge() == new
    assert await ledger.head() == 311
    keys = replace(signer.keys, origin=NEXT_ORIGIN)
    assert keys.current().verifier == new
    assert opened_note(await replace(signer, keys=keys).sign(), keys.current().verifier).size == 311


async def test_there_is_nothing_to_acknowledge_where_nothing_is_lost(
    ledger: Ledger, tmp_path: Path
) -> None:
    signer = signer_for(ledger, tmp_path)
    for size in (0, 5):
        await grow(ledger, size)
        with pytest.raises(CommandRejected) as refused:
            await signer.acknowledge_loss(ledger, origin=NEXT_ORIGIN, actor="user:m", reason="")
        assert refused.value.code == "checkpoint.nothing_lost"
        await signer.sign()
    with pytest.raises(InvalidInput) as unchanged:
        await signer.acknowledge_loss(ledger, origin=ORIGIN, actor="user:m", reason="")
    assert unchanged.value.code == "origin.unchanged"
    signer.keys = replace(signer.keys, given=SigningKey.generate(ORIGIN))
    with pytest.raises(CommandRejected) as given:
        await signer.acknowledge_loss(ledger, origin=NEXT_ORIGIN, actor="user:m", reason="")
    assert given.value.code == "key.given_by_setting"
    assert await ledger.head() == 5


async def test_a_log_that_contradicts_its_own_table_was_changed_and_not_restored(
    ledger: Ledger, database_url: str, tmp_path: Path
) -> None:
    signer = signer_for(ledger, tmp_path)
    await lose(ledger, database_url, signer)
    async with unstopped(database_url) as superuser:
        await superuser.execute("update event set leaf_hash = sha256('forged') where position = 5")
        await superuser.execute("delete from tile")
    with pytest.raises(SigningRefused) as refused:
        await signer.acknowledge_loss(ledger, origin=NEXT_ORIGIN, actor="user:m", reason="")
    assert refused.value.code == "checkpoint.inconsistent"
