"""Whatever is changed in a bundle of a trace is found."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from typing import Any

import orjson
import pytest

from api.evidence import catch_up
from domain.errors import InvalidInput
from domain.records import Meaning, RecordSigned
from eventlog.bundles.streams import verify_bundle
from eventlog.bundles.traces import export_trace_bundle
from eventlog.transparency.merkle import leaf_hash
from eventlog.transparency.notes import Note, SigningKey, sign_note
from tests.api.evidence.part_plant import (
    HOSTILE,
    PART,
    Change,
    Plant,
    change_payload,
    changed,
    codes,
    graph_of,
    signature_of,
)
from tests.eventlog.new_events import OCCURRED_AT


def _drop_event(lines: list[dict[str, Any]]) -> None:
    del lines[3]


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
    (change_payload, "event.payload_mismatch"),
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
