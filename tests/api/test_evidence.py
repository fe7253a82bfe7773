"""Evidence of a trace: a bundle that is verified from the file alone, and its report."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from api.evidence import catch_up, gather, write_bundle
from api.evidence_report import write_report
from api.graph_drawing import BOXES_PER_LAYER, LAYERS_EACH_WAY, lay_out
from domain.documents.document import DocumentKind, DocumentReleased
from domain.errors import InvalidInput, NotFound
from domain.events import encode_fact
from domain.material.lot import LotConsumed, LotReceived
from domain.material.part import PartAssembled, PartCreated, PartRemoved, PartShipped
from domain.material.process_run import ProcessRunStarted, SetParameter
from domain.quality.inspection import Characteristic, InspectionRecorded, Judge, Verdict
from domain.records import Meaning, RecordCorrected, RecordSigned
from eventlog.bundles.streams import verify_bundle
from eventlog.bundles.trace_reading import read_trace_bundle
from eventlog.bundles.traces import BundleEdge, BundleNode, TraceEvidence, export_trace_bundle
from eventlog.documents import ContentStore
from eventlog.envelope import new_fact
from eventlog.ledger import Ledger
from eventlog.reading import read_event
from eventlog.transparency.merkle import leaf_hash
from eventlog.transparency.notes import Note, SigningKey, sign_note
from eventlog.transparency.signing import CheckpointSigner
from projections.as_of import AsOf
from projections.thread.traced import Direction
from tests.eventlog.new_events import OCCURRED_AT
from tests.eventlog.signing import signer_for
from tests.recordings import REPOSITORY

PART = "part:SN-1042"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"
DRAWING = b"%PDF-1.7 the drawing of a shaft " * 90_000  # more than one piece
CERTIFICATE = b"EN 10204 3.1"


@dataclass
class Plant:
    """A part of a lot with a certificate: made, measured, corrected, signed, shipped."""

    ledger: Ledger
    database_url: str
    signer: CheckpointSigner
    contents: ContentStore
    folder: Path
    corrected_at: int = 0
    events: int = 0

    async def record(self, stream: str, fact: Any) -> int:
        self.events += 1
        appended = await self.ledger.append(
            [
                new_fact(
                    stream,
                    fact,
                    event_id=uuid.uuid5(uuid.NAMESPACE_OID, str(self.events)),
                    occurred_at=OCCURRED_AT + timedelta(minutes=self.events),
                    actor=f"user:{self.events % 3}",
                )
            ]
        )
        return appended.position

    async def evidence(self, **asked: Any) -> TraceEvidence:
        return await gather(self.ledger, [PART], **asked)

    async def bundle(self, *, files: bool = False, **asked: Any) -> Path:
        path = self.folder / "part.bundle"
        evidence = await self.evidence(**asked)
        exported = await write_bundle(
            self.signer, evidence, path, contents=self.contents if files else None
        )
        assert exported.events == len(evidence.positions)
        return path

    @property
    def vkey(self) -> Any:
        return self.signer.keys.current().verifier


def released(name: str, kind: DocumentKind, title: str, content: bytes) -> DocumentReleased:
    return DocumentReleased(
        name,
        "A",
        kind,
        title,
        hashlib.sha256(content).hexdigest(),
        len(content),
        "application/pdf",
        None,
        OCCURRED_AT,
        None,
    )


def measured(value: float) -> InspectionRecorded:
    return InspectionRecorded(
        "INS-1",
        PART,
        "RUN-1",
        None,
        (Characteristic("diameter", 20.0, 19.9, 20.1, value, "mm", "cmm-1"),),
        (),
        (),
        Verdict.GOOD,
        Judge.PERSON,
        None,
        (),
    )


@pytest.fixture
async def plant(ledger: Ledger, database_url: str, tmp_path: Path) -> Plant:
    contents = ContentStore(str(tmp_path / "documents"))
    signer = signer_for(ledger, tmp_path / "keys")
    made = Plant(ledger, database_url, signer, contents, tmp_path)
    for content in (DRAWING, CERTIFICATE):
        contents.put(io.BytesIO(content))
    record = made.record
    await record("document:DRW-7", released("DRW-7", DocumentKind.DESIGN, HOSTILE, DRAWING))
    await record(
        "document:CERT-1", released("CERT-1", DocumentKind.CERTIFICATE, "3.1", CERTIFICATE)
    )
    await record("lot:L-1", LotReceived("L-1", "steel", 100.0, "kg", HOSTILE, "S-9", "CERT-1@A"))
    await record(
        "process-run:RUN-1",
        ProcessRunStarted(
            "RUN-1", "lathe-1", HOSTILE, None, None, None, None, (SetParameter("f", 1.0, "N"),)
        ),
    )
    await record("lot:L-1", LotConsumed("L-1", "RUN-1", 1.25, "kg", None))
    await record(PART, PartCreated("SN-1042", HOSTILE, "DRW-7@A", "RUN-1", None))
    inspected = await record("inspection:INS-1", measured(20.5))
    wrong = await read_event(ledger, inspected)
    assert wrong is not None
    await record(
        "inspection:INS-1",
        RecordSigned(
            "inspection:INS-1",
            inspected,
            wrong.event_id,
            wrong.leaf_hash.hex(),
            None,
            "user:1",
            HOSTILE,
            Meaning.APPROVED,
            OCCURRED_AT,
            ("password", "totp"),
        ),
    )
    await record("part:SN-2", PartCreated("SN-2", "unit", None, None, None))
    await record(PART, PartAssembled("SN-1042", "SN-2", "shaft"))
    await record("part:SN-2", PartShipped("SN-2", "SHIP-1", HOSTILE))
    made.corrected_at = await record(
        "inspection:INS-1",
        RecordCorrected(
            "inspection:INS-1",
            wrong.event_id,
            inspected,
            HOSTILE,
            "inspection.recorded",
            1,
            encode_fact(measured(20.05)).decode(),
        ),
    )
    await record(PART, PartRemoved("SN-1042", "SN-2", "wrong shaft"))
    await record("part:SN-3", PartCreated("SN-3", "not of this trace", None, None, None))
    await catch_up(ledger, database_url)
    return made


Change = Callable[[list[dict[str, Any]]], None]


def changed(path: Path, change: Change, key: SigningKey | None = None) -> Path:
    """Write the bundle at `path` anew with what `change` did to its lines, but for the signature.

    `key` signs what was changed; without it, the signature is the old one.
    """
    *lines, signature = [json.loads(line) for line in path.read_bytes().splitlines()]
    change(lines)
    written = [orjson.dumps(line) + b"\n" for line in lines]
    other = path.with_name("changed.bundle")
    other.write_bytes(b"".join([*written, signature_of(written, signature, key)]))
    return other


def signature_of(written: list[bytes], old: dict[str, Any], key: SigningKey | None) -> bytes:
    """Return the last line of a bundle, made as its documentation says and not by its writer."""
    if key is not None:
        digest = base64.b64encode(hashlib.sha256(b"".join(written)).digest()).decode()
        text = f"heddle-trace-bundle/1\n{key.name}\n{len(written)}\n{digest}\n"
        old = {"signature": sign_note(text, [key]).written}
    return orjson.dumps(old) + b"\n"


def codes(path: Path, plant: Plant) -> set[str]:
    return {finding.code for finding in verify_bundle(path, [plant.vkey]).findings}


# --- what is sound --------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_part_s_evidence_is_verified_from_the_file_alone(plant: Plant) -> None:
    report = verify_bundle(await plant.bundle(files=True), [plant.vkey])
    assert report.findings == []
    assert report.trusted
    assert report.events == plant.events - 1  # one part has nothing to do with it
    assert report.signatures == 1
    assert (report.documents, report.documents_named) == (2, 2)
    assert report.edges_unshown == 0
    assert report.edges >= 7


@pytest.mark.anyio
async def test_a_second_process_verifies_it_without_database_keys_or_settings(
    plant: Plant,
) -> None:
    path = await plant.bundle(files=True)
    elsewhere = plant.folder / "elsewhere"
    elsewhere.mkdir()
    ran = await asyncio.to_thread(
        subprocess.run,
        [
            *(sys.executable, "-m", "api.cli", "verify-bundle", str(path)),
            *("--json", "--vkey", plant.vkey.vkey),
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "HOME": str(elsewhere), "HEDDLE_DATA_DIR": "/nowhere"},
    )
    shown = json.loads(ran.stdout)
    assert shown["clean"]
    assert shown["trusted"]
    assert shown["selection"]["roots"] == [PART]
    assert shown["documents"] == 2


@pytest.mark.anyio
async def test_as_of_a_position_it_holds_what_was_known_there_and_nothing_later(
    plant: Plant,
) -> None:
    before = await plant.evidence(as_of=AsOf(position=plant.corrected_at - 1))
    after = await plant.evidence()
    assert max(before.positions) < plant.corrected_at
    assert plant.corrected_at in after.positions
    path = await plant.bundle(as_of=AsOf(position=plant.corrected_at - 1))
    report, evidence, events = read_trace_bundle(path, [plant.vkey])
    assert report.clean
    assert evidence.selection.position == plant.corrected_at - 1
    assert not any(isinstance(event.fact, RecordCorrected) for event in events)


@pytest.mark.anyio
async def test_a_direction_bounds_what_is_gathered(plant: Plant) -> None:
    back = await plant.evidence(direction=Direction.BACK)
    forward = await plant.evidence(direction=Direction.FORWARD)
    assert "lot:L-1" in {node.key for node in back.nodes}
    assert "part:SN-2" not in {node.key for node in back.nodes}
    assert "shipment:SHIP-1" in {node.key for node in forward.nodes}
    assert "lot:L-1" not in {node.key for node in forward.nodes}


@pytest.mark.anyio
async def test_a_trace_that_was_cut_says_so(plant: Plant) -> None:
    report = verify_bundle(await plant.bundle(nodes_max=3), [plant.vkey])
    assert report.clean
    assert not report.selection.document["complete"]


@pytest.mark.anyio
async def test_what_nobody_has_heard_of_has_no_evidence(plant: Plant) -> None:
    with pytest.raises(NotFound) as refused:
        await gather(plant.ledger, ["part:nobody"])
    assert refused.value.code == "thread.unknown_node"


@pytest.mark.anyio
async def test_a_file_that_is_not_in_the_store_is_named_and_left_out(plant: Plant) -> None:
    for stored in (plant.folder / "documents").rglob("*"):
        if stored.is_file() and stored.read_bytes() == CERTIFICATE:
            stored.unlink()
    path = plant.folder / "b"
    exported = await write_bundle(
        plant.signer, await plant.evidence(), path, contents=plant.contents
    )
    assert exported.documents == 1
    assert exported.documents_missing == [hashlib.sha256(CERTIFICATE).hexdigest()]
    report = verify_bundle(path, [plant.vkey])
    assert report.clean
    assert (report.documents, report.documents_named) == (1, 2)


def _leave_as_it_is(lines: list[dict[str, Any]]) -> None:
    assert lines


@pytest.mark.anyio
async def test_a_bundle_signed_as_documented_is_one_whoever_wrote_it(plant: Plant) -> None:
    path = await plant.bundle(files=True)
    again = changed(path, _leave_as_it_is, plant.signer.keys.current())
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.anyio
async def test_a_link_whose_event_was_erased_stands_and_is_counted_as_not_shown(
    plant: Plant,
) -> None:
    path = await plant.bundle()
    shown = verify_bundle(path, [plant.vkey])
    erased = next(e.position for e in (await plant.evidence()).edges if e.kind == "CONSUMED_BY")
    await plant.ledger.pool.execute(
        "update event set payload = null, payload_tier = 2 where position = $1", erased
    )
    report = verify_bundle(await plant.bundle(), [plant.vkey])
    assert report.clean
    assert (report.edges, report.edges_unshown) == (shown.edges, 1)
    assert report.payloads_absent == 1
    assert write_report(path, plant.folder / "part.html", [plant.vkey]).clean


# --- what is not ----------------------------------------------------------------------------


def _drop_event(lines: list[dict[str, Any]]) -> None:
    del lines[3]


def _change_payload(lines: list[dict[str, Any]]) -> None:
    lines[3]["payload"] = base64.b64encode(b'{"lot_id":"L-2"}').decode()


def graph_of(lines: list[dict[str, Any]], what: str) -> list[list[Any]]:
    graph: list[list[Any]] = next(line[what] for line in lines[1:] if what in line)
    return graph


def _change_edge(lines: list[dict[str, Any]]) -> None:
    edges = graph_of(lines, "edges")
    edges[0][2] = "part:SN-9"


def _change_edge_time(lines: list[dict[str, Any]]) -> None:
    edges = graph_of(lines, "edges")
    edges[0][5] = "2001-01-01T00:00:00.000000Z"


def edge_with(place: int, value: Any, kind: str) -> Change:
    """Return the change of one value of the first link of `kind`."""

    def change(lines: list[dict[str, Any]]) -> None:
        edge = next(edge for edge in graph_of(lines, "edges") if edge[0] == kind)
        assert edge[place] != value
        edge[place] = value

    return change


def renamed(line: str, name: str) -> Change:
    """Return the change of a member's name, in the first line that holds `line`."""

    def change(lines: list[dict[str, Any]]) -> None:
        document = next(document for document in lines[1:] if line in document)
        document[f"{name}s"] = document.pop(name)

    return change


def with_another_member(line: str) -> Change:
    """Return the addition of a member to the first line that holds `line`."""

    def change(lines: list[dict[str, Any]]) -> None:
        next(document for document in lines[1:] if line in document)["note"] = "all is well"

    return change


def _say_that_nodes_were_erased(lines: list[dict[str, Any]]) -> None:
    next(line for line in lines[1:] if "nodes" in line)["erased_by"] = 3


def _reorder_kinds(lines: list[dict[str, Any]]) -> None:
    lines.append(lines.pop(1))


def _invent_edge(lines: list[dict[str, Any]]) -> None:
    edges = graph_of(lines, "edges")
    edges.append([*edges[0][:7], 10**6, None])
    lines[0]["edges"] += 1


def _drop_root(lines: list[dict[str, Any]]) -> None:
    nodes = graph_of(lines, "nodes")
    nodes[:] = [node for node in nodes if node[0] != PART]


def _change_file(lines: list[dict[str, Any]]) -> None:
    piece = next(line for line in lines if line.get("content"))
    piece["content"] = base64.b64encode(b"another drawing").decode()


def _add_file(lines: list[dict[str, Any]]) -> None:
    content = b"what nobody released"
    sha256 = hashlib.sha256(content).hexdigest()
    encoded = base64.b64encode(content).decode()
    lines.append({"document": sha256, "content": encoded, "end": True})


def _cut_file(lines: list[dict[str, Any]]) -> None:
    lines.pop()


def _forge_node(lines: list[dict[str, Any]]) -> None:
    graph_of(lines, "nodes").append([HOSTILE, HOSTILE, HOSTILE, "deep", None])


def _forge_correction(lines: list[dict[str, Any]]) -> None:
    line = next(line for line in lines[1:] if "record.corrected" in line.get("entry", ""))
    fact = json.loads(base64.b64decode(line["payload"])) | {"replacement": "{}"}
    line["payload"] = base64.b64encode(json.dumps(fact).encode()).decode()


def _add_nonsense(lines: list[dict[str, Any]]) -> None:
    lines.append({"anything": 1})


LATER = "2030-01-01T00:00:00.000000Z"
CHANGES: list[tuple[Change, str]] = [
    (_drop_event, "bundle.incomplete"),
    (_change_payload, "event.payload_mismatch"),
    (_change_edge, "bundle.edge"),
    (_change_edge_time, "bundle.edge"),
    (_invent_edge, "bundle.edge"),
    (edge_with(3, 2.5, "CONSUMED_BY"), "bundle.edge"),
    (edge_with(3, None, "CONSUMED_BY"), "bundle.edge"),
    (edge_with(3, 2.5, "PERFORMED"), "bundle.edge"),
    (edge_with(4, "t", "CONSUMED_BY"), "bundle.edge"),
    (edge_with(6, LATER, "ASSEMBLED_INTO"), "bundle.edge"),
    (edge_with(6, None, "ASSEMBLED_INTO"), "bundle.edge"),
    (edge_with(6, LATER, "PERFORMED"), "bundle.edge"),
    (edge_with(8, None, "ASSEMBLED_INTO"), "bundle.edge"),
    (edge_with(8, 1, "ASSEMBLED_INTO"), "bundle.edge"),
    (edge_with(8, 10**6, "ASSEMBLED_INTO"), "bundle.edge"),
    (_drop_root, "bundle.root"),
    (_change_file, "bundle.document_mismatch"),
    (_add_file, "bundle.document_unnamed"),
    (_cut_file, "bundle.document_cut"),
    (_add_nonsense, "bundle.line"),
    (_reorder_kinds, "bundle.line"),
    (_forge_node, "bundle.line"),
    (_forge_correction, "bundle.fact_unreadable"),
    (renamed("entry", "payload"), "bundle.line"),
    (renamed("document", "end"), "bundle.line"),
    (with_another_member("entry"), "bundle.line"),
    (_say_that_nodes_were_erased, "bundle.line"),
    (with_another_member("nodes"), "bundle.line"),
    (with_another_member("edges"), "bundle.line"),
    (with_another_member("document"), "bundle.line"),
]


@pytest.mark.anyio
async def test_whatever_is_changed_is_found_even_if_it_is_signed(plant: Plant) -> None:
    path = await plant.bundle(files=True)
    assert codes(path, plant) == set()
    key = plant.signer.keys.current()
    for number, (change, code) in enumerate(CHANGES):
        found = codes(changed(path, change, key), plant)
        assert code in found, (number, code)
        assert "bundle.signature" not in found, (number, code)
        assert {code, "bundle.signature"} <= codes(changed(path, change), plant), (number, code)


def _say_it_is_complete(lines: list[dict[str, Any]]) -> None:
    lines[0]["trace"]["complete"] = not lines[0]["trace"]["complete"]


def node_with(place: int, value: Any) -> Change:
    """Return the change of one value of the first thing."""

    def change(lines: list[dict[str, Any]]) -> None:
        graph_of(lines, "nodes")[0][place] = value

    return change


@pytest.mark.anyio
@pytest.mark.parametrize(
    "change",
    [
        _say_it_is_complete,
        node_with(1, "LOT"),
        node_with(2, "SCRAPPED"),
        node_with(3, 7),
        node_with(4, 1),
    ],
)
async def test_what_no_event_proves_is_bound_by_the_signature(plant: Plant, change: Change) -> None:
    path = changed(await plant.bundle(), change)
    (finding,) = verify_bundle(path, [plant.vkey]).findings
    assert finding.code == "bundle.signature"
    assert "stand before the signature" in finding.message


@pytest.mark.anyio
async def test_a_bundle_that_somebody_else_signed_or_nobody_is_refused(plant: Plant) -> None:
    path = await plant.bundle()
    *lines, signature = path.read_bytes().splitlines(keepends=True)
    checkpoint = orjson.loads(lines[0])["checkpoint"]
    key = plant.signer.keys.current()
    other_format = sign_note(f"heddle-bundle/1\n{key.name}\n{len(lines)}\nAAAA\n", [key]).written
    flipped = bytearray(signature)
    flipped[-20] ^= 1
    stranger = SigningKey.generate(key.name)
    for last, said in (
        (b"", "nobody signed it"),
        (signature_of(lines, {}, stranger), "no signature is by a known key"),
        (signature_of(lines[:-1], {}, key), "stand before the signature"),
        (signature_of([], {"signature": checkpoint}, None), "what was signed is a"),
        (signature_of([], {"signature": other_format}, None), "what was signed is a"),
        (signature_of([], {"signature": 7}, None), "is a signed note, not 7"),
        (signature_of([], {"signature": "none"}, None), "no signed note"),
        (signature_of([], {"signature": Note.parse(checkpoint).text}, None), "no signed note"),
        (bytes(flipped), ""),
        (b'{"signature":\n', "no JSON"),
        (signature[:-2] + b',"note":1}\n', "'note'"),
    ):
        path.write_bytes(b"".join([*lines, last]))
        (finding,) = verify_bundle(path, [plant.vkey]).findings
        assert finding.code == "bundle.signature", last
        assert said in finding.message, last
    path.write_bytes(b"".join([*lines, signature, signature]))
    assert codes(path, plant) == {"bundle.line"}


@pytest.mark.anyio
async def test_a_bundle_is_not_written_with_a_key_that_did_not_sign_the_checkpoint(
    plant: Plant,
) -> None:
    stranger = SigningKey.generate(plant.vkey.name)
    note, evidence = await plant.signer.sign(), await plant.evidence()
    with pytest.raises(InvalidInput) as refused:
        await export_trace_bundle(
            plant.signer.tiles, note, stranger, evidence, plant.folder / "never.bundle"
        )
    assert refused.value.code == "note.unsigned"
    assert not (plant.folder / "never.bundle").exists()


@pytest.mark.anyio
async def test_a_signature_on_another_event_than_it_names_is_found(plant: Plant) -> None:
    """The event it is on stays in the log, but the leaf it was bound to is another one."""
    stranger = leaf_hash(b"another event").hex()
    position = await plant.record(
        PART,
        RecordSigned(
            PART,
            6,
            uuid.UUID(int=1),
            stranger,
            None,
            "user:1",
            "A. Forger",
            Meaning.APPROVED,
            OCCURRED_AT,
            ("password", "totp"),
        ),
    )
    await catch_up(plant.ledger, plant.database_url)
    report = verify_bundle(await plant.bundle(), [plant.vkey])
    (finding,) = report.findings
    assert finding.code == "bundle.record_signature"
    assert finding.position == position


@pytest.mark.anyio
async def test_a_header_that_says_less_or_more_than_it_may_is_no_bundle(plant: Plant) -> None:
    def without_roots(lines: list[dict[str, Any]]) -> None:
        lines[0]["trace"]["roots"] = []

    def without_events(lines: list[dict[str, Any]]) -> None:
        del lines[0]["events"]

    def with_a_note(lines: list[dict[str, Any]]) -> None:
        lines[0]["note"] = "all is well"

    def with_a_note_on_the_trace(lines: list[dict[str, Any]]) -> None:
        lines[0]["trace"]["note"] = "all is well"

    path, key = await plant.bundle(), plant.signer.keys.current()
    for change in (without_roots, without_events, with_a_note, with_a_note_on_the_trace):
        with pytest.raises(InvalidInput) as refused:
            verify_bundle(changed(path, change, key), [plant.vkey])
        assert refused.value.code == "bundle.malformed"


# --- for people -----------------------------------------------------------------------------


class Page(HTMLParser):
    """A page as a browser takes it: its elements, their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.anyio
async def test_the_report_shows_hostile_names_as_text(plant: Plant) -> None:
    page = plant.folder / "part.html"
    assert write_report(await plant.bundle(), page, [plant.vkey]).clean
    text = page.read_text()
    read = Page(text)
    assert "script" not in read.tags
    assert "img" not in read.tags
    assert not any(name.startswith("on") for name in read.attributes)
    assert any(HOSTILE in shown for shown in read.texts)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text


@pytest.mark.anyio
async def test_the_report_of_a_forged_graph_is_text_and_findings(plant: Plant) -> None:
    def forge(lines: list[dict[str, Any]]) -> None:
        graph_of(lines, "nodes").append([HOSTILE, HOSTILE, HOSTILE, 1, 1])
        when = graph_of(lines, "edges")[0][5]
        graph_of(lines, "edges").append(
            [HOSTILE, PART, HOSTILE, 1.5, HOSTILE, when, HOSTILE, 1, None]
        )

    page = plant.folder / "part.html"
    shown = write_report(changed(await plant.bundle(), forge), page, [plant.vkey])
    assert "bundle.edge" in {finding.code for finding in shown.findings}
    read = Page(page.read_text())
    assert read.tags.isdisjoint({"script", "img"})
    assert not any(name.startswith("on") for name in read.attributes)


@pytest.mark.anyio
async def test_the_report_tells_what_was_known_when_who_signed_and_how_to_check(
    plant: Plant,
) -> None:
    page = plant.folder / "part.html"
    write_report(await plant.bundle(), page, [plant.vkey])
    text = " ".join(Page(page.read_text()).texts)
    assert "Corrections: what was known when" in text
    assert "20.5" in text
    assert "20.05" in text
    assert "approved" in text
    assert "holds" in text
    assert hashlib.sha256(DRAWING).hexdigest() in text
    assert f"--vkey {plant.vkey.vkey}" in text
    assert "part.bundle" in text
    assert "@media print" in page.read_text()


@pytest.mark.anyio
async def test_a_report_of_a_bundle_that_was_tampered_with_says_so(plant: Plant) -> None:
    page = plant.folder / "part.html"
    write_report(changed(await plant.bundle(), _change_payload), page, [plant.vkey])
    text = " ".join(Page(page.read_text()).texts)
    assert "event.payload_mismatch" in text
    assert "Every event below was checked" not in text


# --- the drawing ----------------------------------------------------------------------------


def node(key: str, kind: str = "PART") -> BundleNode:
    return BundleNode(key, kind, "ACTIVE", 0, 1)


def link(cause: str, effect: str) -> BundleEdge:
    when = "2020-01-01T00:00:00.000000Z"
    return BundleEdge("PRODUCED", cause, effect, None, None, when, None, 1, None)


def test_causes_stand_on_the_left_and_effects_on_the_right() -> None:
    nodes = [node("part:b"), node("lot:a", "LOT"), node("part:c")]
    drawing = lay_out(nodes, [link("lot:a", "part:b"), link("part:b", "part:c")], ["part:b"])
    assert {box.key: box.layer for box in drawing.boxes} == {
        "lot:a": -1,
        "part:b": 0,
        "part:c": 1,
    }
    assert drawing.summarised == 0
    assert len(drawing.lines) == 2


def test_a_drawing_is_bounded_whatever_the_graph_s_size_and_shape() -> None:
    wide = [node(f"part:{n}") for n in range(500)]
    chain = [node(f"lot:{n}", "LOT") for n in range(100)]
    edges = [link("part:0", each.key) for each in wide[1:]]
    edges += [link(a.key, b.key) for a, b in pairwise(chain)]
    edges += [link(chain[-1].key, "part:0"), link("part:3", "part:0")]  # and a cycle
    drawing = lay_out([*wide, *chain], edges, ["part:0"])
    layers = 2 * LAYERS_EACH_WAY + 1
    assert len(drawing.boxes) <= layers * (BOXES_PER_LAYER + 2)
    drawn = sum(1 for box in drawing.boxes if not box.label.startswith("+"))
    assert drawn + drawing.summarised == len(wide) + len(chain)
    assert len({(box.layer, box.row) for box in drawing.boxes}) == len(drawing.boxes)


def test_the_same_graph_is_drawn_the_same() -> None:
    nodes = [node(f"part:{n}") for n in range(60)]
    edges = [link(f"part:{n // 2}", f"part:{n}") for n in range(1, 60)]
    assert lay_out(nodes, edges, ["part:0"]) == lay_out(nodes, edges, ["part:0"])
    assert lay_out([], [], []).boxes == []
