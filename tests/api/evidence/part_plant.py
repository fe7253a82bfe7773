"""A part with all that an auditor asks for, and its bundle written anew with changes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

from api.evidence import catch_up, gather, write_bundle
from domain.documents.document import DocumentKind, DocumentReleased
from domain.events import encode_fact
from domain.material.lot import LotConsumed, LotReceived
from domain.material.part import PartAssembled, PartCreated, PartRemoved, PartShipped
from domain.material.process_run import ProcessRunStarted, SetParameter
from domain.quality.inspection import Characteristic, InspectionRecorded, Judge, Verdict
from domain.records import Meaning, RecordCorrected, RecordSigned
from eventlog.bundles.streams import verify_bundle
from eventlog.bundles.traces import TraceEvidence
from eventlog.documents import ContentStore
from eventlog.envelope import new_fact
from eventlog.ledger import Ledger
from eventlog.reading import read_event
from eventlog.transparency.notes import SigningKey, sign_note
from eventlog.transparency.signing import CheckpointSigner
from tests.eventlog.new_events import OCCURRED_AT
from tests.eventlog.signing import signer_for

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


async def prepared(ledger: Ledger, database_url: str, tmp_path: Path) -> Plant:
    """Return the plant with all that is told of its part."""
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


def change_payload(lines: list[dict[str, Any]]) -> None:
    lines[3]["payload"] = base64.b64encode(b'{"lot_id":"L-2"}').decode()


def graph_of(lines: list[dict[str, Any]], what: str) -> list[list[Any]]:
    graph: list[list[Any]] = next(line[what] for line in lines[1:] if what in line)
    return graph
