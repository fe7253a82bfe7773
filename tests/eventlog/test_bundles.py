"""Bundles and proof files: verified offline, by a process that has no database."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from domain.errors import HeddleError, InvalidInput, NotFound
from eventlog.bundles.streams import (
    BundleReport,
    Selection,
    export_bundle,
    select_stream,
    verify_bundle,
)
from eventlog.ledger import Ledger
from eventlog.transparency.checkpoints import Checkpoint
from eventlog.transparency.merkle import leaf_hash
from eventlog.transparency.notes import Note, SigningKey, VerifierKey
from eventlog.transparency.proofs import TlogProof, prove
from eventlog.transparency.tiles import LedgerTiles
from tests.eventlog.new_events import fact, frame_event, frame_of
from tests.eventlog.signing import grow, signer_for
from tests.recordings import REPOSITORY

pytestmark = pytest.mark.anyio

PART = "part:SN-1042"
SIZE = 600


@dataclass
class Signed:
    tiles: LedgerTiles
    note: Note
    key: VerifierKey

    async def export(self, path: Path, selection: Selection) -> Path:
        count = await export_bundle(self.tiles, self.note, self.key, selection, path)
        assert count == selection.last - selection.first + 1
        return path

    async def export_part(self, path: Path) -> Path:
        return await self.export(path, await select_stream(self.tiles, PART, SIZE))


@pytest.fixture
async def signed(ledger: Ledger, tmp_path: Path) -> Signed:
    """A signed log in which one part has a history between others'."""
    for n in range(5):
        await ledger.append([fact(("part", n), stream=PART), frame_event(frame_of(n + 1))])
        await grow(ledger, 100 * (n + 1))
    await grow(ledger, SIZE)
    signer = signer_for(ledger, tmp_path / "keys")
    note = await signer.sign()
    return Signed(signer.tiles, note, signer.keys.current().verifier)


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file()]


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


# --- what is sound ------------------------------------------------------------------------


async def test_a_part_s_whole_history_is_verified_from_the_file_alone(
    signed: Signed, tmp_path: Path
) -> None:
    path = await signed.export_part(tmp_path / "part.bundle")
    report = verify_bundle(path, [signed.key])
    assert report.findings == []
    assert report.clean
    assert report.trusted
    assert (report.ledger, report.events, report.payloads) == ("plant-1", 5, 5)
    assert report.selection == Selection(PART, 1, 5)
    assert report.checkpoint == Checkpoint.parse(signed.note.text)
    assert files_in(tmp_path) == ["part.bundle"]


async def test_a_range_of_positions_with_frames_is_verified(signed: Signed, tmp_path: Path) -> None:
    path = await signed.export(tmp_path / "range.bundle", Selection(None, 90, 310))
    report = verify_bundle(path, [signed.key])
    assert report.clean
    assert (report.events, report.payloads) == (221, 221)


async def test_without_a_key_of_one_s_own_a_bundle_only_agrees_with_itself(
    signed: Signed, tmp_path: Path
) -> None:
    report = verify_bundle(await signed.export_part(tmp_path / "b"))
    assert report.clean
    assert not report.trusted
    assert report.vkey == signed.key.vkey


async def test_a_payload_that_is_no_longer_there_leaves_the_proof_standing(
    signed: Signed, tmp_path: Path
) -> None:
    await signed.tiles.pool.execute(
        "update event set payload = null, payload_tier = 2 where position = 101"
    )
    report = verify_bundle(await signed.export_part(tmp_path / "b"), [signed.key])
    assert report.clean
    assert (report.payloads, report.payloads_absent) == (4, 1)


@pytest.mark.slow
async def test_a_process_without_a_database_verifies_bundle_and_proof(
    signed: Signed, tmp_path: Path
) -> None:
    bundle = await signed.export_part(tmp_path / "b")
    proof = tmp_path / "event.tlog-proof"
    proof.write_text((await prove(signed.tiles, 101, signed.note)).text)
    program = (
        "import sys, pathlib\n"
        "from eventlog.bundles.streams import verify_bundle\n"
        "from eventlog.transparency.notes import VerifierKey\n"
        "from eventlog.transparency.proofs import TlogProof\n"
        "key = VerifierKey.parse(sys.argv[1])\n"
        "report = verify_bundle(pathlib.Path(sys.argv[2]), [key])\n"
        "proof = TlogProof.parse(pathlib.Path(sys.argv[3]).read_text())\n"
        "print(report.clean, report.events, proof.verify([key]).size)\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, signed.key.vkey, str(bundle), str(proof)],
        cwd=REPOSITORY,
        env={"PATH": "/nowhere", "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stderr, done.stdout) == ("", f"True 5 {SIZE}\n")


# --- what cannot be exported --------------------------------------------------------------


async def test_an_unknown_stream_is_said(signed: Signed) -> None:
    with pytest.raises(NotFound) as refused:
        await select_stream(signed.tiles, "part:SN-0", SIZE)
    assert refused.value.code == "stream.unknown"


async def test_what_the_checkpoint_does_not_cover_is_not_exported(
    signed: Signed, tmp_path: Path
) -> None:
    selections = [Selection(None, *cut) for cut in ((0, 5), (5, 4), (SIZE, SIZE + 1))]
    for selection in (*selections, Selection(PART, 4, 6)):
        with pytest.raises(InvalidInput) as refused:
            await signed.export(tmp_path / "b", selection)
        assert refused.value.code == "bundle.selection"
    assert files_in(tmp_path) == []


# --- what was tampered with ---------------------------------------------------------------

Change = Callable[[list[dict[str, Any]]], None]


def swap_payloads(lines: list[dict[str, Any]]) -> None:
    lines[1]["payload"], lines[2]["payload"] = lines[2]["payload"], lines[1]["payload"]


def alter_entry(lines: list[dict[str, Any]]) -> None:
    lines[2]["entry"] = lines[2]["entry"].replace("user:mara", "user:mallory")


def respace_entry(lines: list[dict[str, Any]]) -> None:
    lines[2]["entry"] = lines[2]["entry"].replace(":", ": ", 1)


def forge_payload(lines: list[dict[str, Any]]) -> None:
    lines[3]["payload"] = base64.b64encode(b"{}").decode()


def break_payload(lines: list[dict[str, Any]]) -> None:
    lines[3]["payload"] = "*"


def leave_one_out(lines: list[dict[str, Any]]) -> None:
    del lines[2]


def leave_the_last_out(lines: list[dict[str, Any]]) -> None:
    del lines[-1]


def leave_the_last_out_and_say_so(lines: list[dict[str, Any]]) -> None:
    del lines[-1]
    lines[0]["selection"]["last"] -= 1


def reorder(lines: list[dict[str, Any]]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


def repeat(lines: list[dict[str, Any]]) -> None:
    lines[3] = lines[2]


def break_proof(lines: list[dict[str, Any]]) -> None:
    lines[2]["proof"][1] = base64.b64encode(bytes(32)).decode()


def shorten_proof(lines: list[dict[str, Any]]) -> None:
    lines[2]["proof"].pop()


def odd_proof(lines: list[dict[str, Any]]) -> None:
    lines[2]["proof"] = [7]


def rename_stream(lines: list[dict[str, Any]]) -> None:
    lines[0]["selection"]["stream"] = "part:SN-7"


def rename_ledger(lines: list[dict[str, Any]]) -> None:
    lines[0]["ledger"] = "plant-7"


def lie_about_the_count(lines: list[dict[str, Any]]) -> None:
    lines[0]["events"] = 4


FOUND = {
    swap_payloads: {"event.payload_mismatch"},
    forge_payload: {"event.payload_mismatch"},
    break_payload: {"event.payload_unreadable"},
    alter_entry: {"bundle.event", "bundle.order", "bundle.incomplete"},
    respace_entry: {"bundle.event", "bundle.order", "bundle.incomplete"},
    break_proof: {"bundle.event", "bundle.order", "bundle.incomplete"},
    shorten_proof: {"bundle.event", "bundle.order", "bundle.incomplete"},
    odd_proof: {"bundle.event", "bundle.order", "bundle.incomplete"},
    leave_one_out: {"bundle.order", "bundle.incomplete"},
    leave_the_last_out: {"bundle.incomplete"},
    leave_the_last_out_and_say_so: {"bundle.incomplete"},
    reorder: {"bundle.order"},
    repeat: {"bundle.order"},
    rename_stream: {"bundle.order"},
    rename_ledger: {"bundle.other_ledger"},
    lie_about_the_count: {"bundle.incomplete"},
}


def changed(path: Path, change: Change) -> Path:
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return path


@pytest.fixture
async def bundle(signed: Signed, tmp_path: Path) -> Path:
    return await signed.export_part(tmp_path / "part.bundle")


async def test_whatever_is_changed_in_a_bundle_is_found(signed: Signed, tmp_path: Path) -> None:
    sound = (await signed.export_part(tmp_path / "sound")).read_bytes()
    for change, codes in FOUND.items():
        path = tmp_path / "changed"
        path.write_bytes(sound)
        report = verify_bundle(changed(path, change), [signed.key])
        assert {finding.code for finding in report.findings} == codes, change.__name__


async def test_a_finding_says_what_and_where(signed: Signed, bundle: Path) -> None:
    report: BundleReport = verify_bundle(changed(bundle, forge_payload), [signed.key])
    (finding,) = report.findings
    assert (finding.position, finding.stream) == (201, PART)
    assert "event 201 (asset.setpoint_reported, part:SN-1042 v3)" in finding.message
    assert finding.actual == hashlib.sha256(b"{}").hexdigest()


async def test_a_checkpoint_by_another_key_is_not_believed(signed: Signed, bundle: Path) -> None:
    stranger = SigningKey.generate(signed.key.name)
    with pytest.raises(InvalidInput) as refused:
        verify_bundle(bundle, [stranger.verifier])
    assert refused.value.code == "note.unsigned"

    def resign(lines: list[dict[str, Any]]) -> None:
        text = Checkpoint("heddle.example/plant-1", SIZE, bytes(32)).text
        lines[0]["checkpoint"] = Note(text, (stranger.sign(text),)).written

    with pytest.raises(InvalidInput) as refused:
        verify_bundle(changed(bundle, resign), [signed.key])
    assert refused.value.code == "note.unsigned"


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"{}\n", b"[]\n", b'{"format":"heddle-bundle/1"}\n', b"{", b"\xff\xfe\n",
     b'{"format":"heddle-bundle/1","ledger":"a","origin":"a","vkey":"a","checkpoint":"a",'
     b'"selection":{"stream":1,"first":1,"last":1}}\n'],
)  # fmt: skip
def test_what_is_no_bundle_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(InvalidInput) as refused:
        verify_bundle(tmp_path / "b")
    assert refused.value.code == "bundle.malformed"


async def test_a_cut_off_file_is_refused(bundle: Path) -> None:
    put(bundle, content_of(bundle)[:-10])
    with pytest.raises(InvalidInput) as refused:
        verify_bundle(bundle)
    assert refused.value.code == "bundle.malformed"


async def test_any_flipped_byte_is_found(signed: Signed, bundle: Path) -> None:
    sound = content_of(bundle)
    for at in range(3, len(sound), 97):
        put(bundle, sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        try:
            report = verify_bundle(bundle, [signed.key])
        except HeddleError:
            continue
        assert not report.clean or _names_only_itself(sound, content_of(bundle)), at


def _names_only_itself(sound: bytes, altered: bytes) -> bool:
    """Whether the flip lies in the vkey that the bundle names, which is not what is trusted."""
    before, after = (json.loads(x.splitlines()[0]) for x in (sound, altered))
    return {k: v for k, v in before.items() if k != "vkey"} == {
        k: v for k, v in after.items() if k != "vkey"
    } and sound.splitlines()[1:] == altered.splitlines()[1:]


# --- proof files --------------------------------------------------------------------------


async def test_a_proof_file_is_read_back_and_brings_its_entry(signed: Signed) -> None:
    proof = await prove(signed.tiles, 101, signed.note)
    lines = proof.text.split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1].startswith("extra ")
    assert lines[2] == "index 100"
    assert proof.text.endswith("\n\n" + signed.note.written)
    assert TlogProof.parse(proof.text) == proof
    assert proof.verify([signed.key]).size == SIZE
    assert proof.extra is not None
    assert json.loads(proof.extra)["position"] == 101
    bare = TlogProof.parse(TlogProof(proof.index, proof.path, proof.checkpoint).text)
    assert bare.extra is None
    assert bare.verify([signed.key], proof.extra).size == SIZE
    with pytest.raises(InvalidInput) as refused:
        bare.verify([signed.key])
    assert refused.value.code == "proof.without_entry"


async def test_a_proof_of_something_else_fails(signed: Signed) -> None:
    proof = await prove(signed.tiles, 101, signed.note)
    assert proof.extra is not None
    for forged in (
        TlogProof(proof.index + 1, proof.path, proof.checkpoint, proof.extra),
        TlogProof(proof.index, proof.path[::-1], proof.checkpoint, proof.extra),
        TlogProof(proof.index, proof.path, proof.checkpoint, proof.extra + b" "),
        TlogProof(proof.index, proof.path[1:], proof.checkpoint, proof.extra),
    ):
        with pytest.raises(InvalidInput) as refused:
            forged.verify([signed.key])
        assert refused.value.code in ("proof.inclusion_failed", "proof.malformed")
    with pytest.raises(InvalidInput) as refused:
        proof.verify([SigningKey.generate(signed.key.name).verifier])
    assert refused.value.code == "note.unsigned"
    with pytest.raises(InvalidInput) as beyond:
        await prove(signed.tiles, SIZE + 1, signed.note)
    assert beyond.value.code == "proof.index_out_of_range"


@pytest.mark.parametrize(
    "text",
    ["", "c2sp.org/tlog-proof@v1\n", "c2sp.org/tlog-proof@v2\nindex 0\n\nx\n",
     "c2sp.org/tlog-proof@v1\n\nx\n", "c2sp.org/tlog-proof@v1\nindex 01\n\nx\n",
     "c2sp.org/tlog-proof@v1\nindex -1\n\nx\n", "c2sp.org/tlog-proof@v1\nindex 1\nAAAA\n\nx\n",
     "c2sp.org/tlog-proof@v1\nindex 1\n*\n\nx\n", "c2sp.org/tlog-proof@v1\nextra *\nindex 1\n\nx\n",
     "c2sp.org/tlog-proof@v1\nextra AAAA\n\nx\n"],
)  # fmt: skip
def test_what_is_no_proof_file_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        TlogProof.parse(text)
    assert refused.value.code == "proof.malformed"


def test_a_log_of_one_event_has_a_proof_without_hashes() -> None:
    log = SigningKey.generate("heddle.example/plant-1")
    text = Checkpoint(log.name, 1, leaf_hash(b"only")).text
    written = Note(text, (log.sign(text),)).written
    proof = TlogProof.parse(f"c2sp.org/tlog-proof@v1\nindex 0\n\n{written}")
    assert proof.verify([log.verifier], b"only").size == 1


# --- for ever -----------------------------------------------------------------------------

STORED = Path(__file__).parent / "stored_bundles"


@pytest.mark.parametrize(
    ("name", "key", "events", "documents"),
    [("stream_1.bundle", "log.vkey", 3, 0), ("trace_1.bundle", "trace_1.vkey", 13, 1)],
)
def test_bundles_that_left_the_house_are_verified_for_ever(
    name: str, key: str, events: int, documents: int
) -> None:
    trusted = VerifierKey.parse((STORED / key).read_text().strip())
    report = verify_bundle(STORED / name, [trusted])
    assert report.findings == []
    assert report.trusted
    assert (report.events, report.documents) == (events, documents)
