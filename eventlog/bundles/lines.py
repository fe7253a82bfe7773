"""What all bundles are made of: a header, lines of events that prove themselves, and a report.

`eventlog.bundles.streams` says which events of a log a bundle holds, `eventlog.bundles.traces`
which of a trace; here is how each is written and judged.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
import orjson

from domain.errors import HeddleError, InvalidInput
from domain.frames import FRAME_BYTES_MAX
from eventlog.archive.payloads import fill, recorded_erasures
from eventlog.envelope import RECORDED_COLUMNS, RecordedEvent
from eventlog.transparency.checkpoints import Checkpoint, open_checkpoint
from eventlog.transparency.merkle import HASH_BYTES, check_inclusion, leaf_hash
from eventlog.transparency.notes import NOTE_BYTES_MAX, VerifierKey
from eventlog.transparency.tiles import ENTRY_NAMES, LedgerTiles, entry_of
from eventlog.verification.findings import ERASED_NAMED_MAX, Erased, Finding
from eventlog.verification.payloads import payload_sha256

PAGE_EVENTS: Final = 100
LINE_BYTES_MAX: Final = 2 * NOTE_BYTES_MAX + 2 * FRAME_BYTES_MAX
FINDINGS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events a bundle holds: those of `stream`, or of the positions, from first to last.

    Parameters
    ----------
    first, last : versions of the stream, or positions; both included
    """

    stream: str | None
    first: int
    last: int

    @property
    def document(self) -> dict[str, Any]:
        """The selection as the header says it."""
        return {"stream": self.stream, "first": self.first, "last": self.last}


@dataclass(frozen=True, slots=True)
class TraceSelection:
    """Which events a bundle holds: those that a trace rests on.

    Parameters
    ----------
    roots : what was traced
    direction : BACK, FORWARD or BOTH
    position : of the log; the trace is what was known there
    valid_at : the trace is what was true then, RFC 3339; None: whenever it was true
    complete : whether the trace holds all there was; else it was cut where somebody wanted it
    """

    roots: tuple[str, ...]
    direction: str
    position: int
    valid_at: str | None
    complete: bool

    @property
    def document(self) -> dict[str, Any]:
        """The selection as the header says it."""
        return {
            "roots": list(self.roots),
            "direction": self.direction,
            "position": self.position,
            "valid_at": self.valid_at,
            "complete": self.complete,
        }


@dataclass
class BundleReport:
    """What a bundle shows.

    Parameters
    ----------
    trusted : whether the checkpoint is signed by a key that the reader brought along; else it
        is only consistent with the key that the bundle itself names
    payloads_absent : events whose payload is not in the bundle
    erased : those of them that it says were erased by law, and by which event; the first
        `ERASED_NAMED_MAX`
    nodes, edges : of a trace's graph; `edges_unshown` are those whose event has no payload here
    documents_named, documents : files that events name, and those that are in the bundle
    signatures : of people, on events of the bundle
    """

    ledger: str
    checkpoint: Checkpoint
    vkey: str
    selection: Selection | TraceSelection
    trusted: bool
    events: int = 0
    payloads: int = 0
    payloads_absent: int = 0
    erased: list[Erased] = field(default_factory=list)
    nodes: int = 0
    edges: int = 0
    edges_unshown: int = 0
    documents_named: int = 0
    documents: int = 0
    signatures: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def add(self, code: str, message: str, **where: Any) -> None:
        """Note a finding."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(code, message, **where))


def open_header(
    header: dict[str, Any],
    format_name: str,
    selection: Selection | TraceSelection,
    trusted: Sequence[VerifierKey],
) -> BundleReport:
    """Return the report of a bundle that so begins, with nothing found yet.

    Raises
    ------
    InvalidInput
        ``bundle.malformed``, or as `open_checkpoint` says
    """
    texts = [header.get(name) for name in ("format", "ledger", "origin", "vkey", "checkpoint")]
    if header.get("format") != format_name or not all(isinstance(text, str) for text in texts):
        raise malformed(f"its header is not that of {format_name}")
    named = VerifierKey.parse(header["vkey"])
    checkpoint = open_checkpoint(header["checkpoint"], list(trusted) or [named])
    if checkpoint.origin != header["origin"]:
        raise malformed(f"its checkpoint is of {checkpoint.origin!r}, not {header['origin']!r}")
    return BundleReport(header["ledger"], checkpoint, named.vkey, selection, trusted=bool(trusted))


class EventLines:
    """Writes events of a log as lines that prove themselves against a checkpoint of `size`."""

    def __init__(self, tiles: LedgerTiles, size: int) -> None:
        self._tiles = tiles
        self._size = size
        self._erasures: dict[int, int] = {}

    async def of(self, rows: Sequence[asyncpg.Record]) -> AsyncIterator[bytes]:
        """Yield the line of each event whose entry's columns are a row of `rows`."""
        tiles = self._tiles
        proofs = await tiles.inclusion_proofs([row["position"] - 1 for row in rows], self._size)
        for row, proof in zip(rows, proofs, strict=True):
            event = await _with_payload(tiles, row["position"])
            line: dict[str, Any] = {
                "entry": entry_of(row).decode(),
                "payload": None if event.payload is None else to_base64(event.payload),
                "proof": [to_base64(sibling) for sibling in proof],
            }
            if event.erased:
                self._erasures = self._erasures or await recorded_erasures(
                    tiles.pool, tiles.ledger_id, tiles.name
                )
                line["erased_by"] = self._erasures.get(event.position)
            yield orjson.dumps(line) + b"\n"


async def _with_payload(tiles: LedgerTiles, position: int) -> RecordedEvent:
    """Return the event at `position`, one at a time: a payload may be large."""
    row = await tiles.pool.fetchrow(
        f"select {', '.join(RECORDED_COLUMNS)}, payload from event "
        "where ledger_id = $1 and position = $2",
        tiles.ledger_id,
        position,
    )
    assert row is not None, "its envelope was just read"
    [event] = await fill(tiles.pool, tiles.ledger_id, [RecordedEvent(tiles.name, row)])
    return event


def check_event(report: BundleReport, document: dict[str, Any]) -> dict[str, Any]:
    """Return the envelope of an event that is in the tree; note what else is wrong with it."""
    written, proof, payload = (document.get(n) for n in ("entry", "proof", "payload"))
    if not isinstance(written, str) or not isinstance(proof, list):
        raise malformed("an event has an entry and a proof")
    entry = written.encode()
    envelope = _envelope(entry)
    path = [from_base64(sibling) for sibling in proof]
    if any(len(sibling) != HASH_BYTES for sibling in path):
        raise malformed(f"a hash has {HASH_BYTES} bytes")
    checkpoint = report.checkpoint
    position: int = envelope["position"]
    check_inclusion(leaf_hash(entry), position - 1, checkpoint.size, checkpoint.root, path)
    where = {"position": position, "stream": envelope["stream"]}
    if envelope["ledger"] != report.ledger:
        report.add(
            "bundle.other_ledger",
            f"event {position} is of ledger {envelope['ledger']!r}, not {report.ledger!r}",
            **where,
        )
    if payload is None:
        report.payloads_absent += 1
        _note_erased(report, envelope, document.get("erased_by"))
        return envelope
    report.payloads += 1
    try:
        actual = payload_sha256(envelope["type"], from_base64(payload)).hex()
    except HeddleError as error:
        report.add(
            "event.payload_unreadable",
            f"event {position} ({envelope['type']}, {envelope['stream']}): its payload cannot be "
            f"read: {error}",
            **where,
        )
        return envelope
    if actual != envelope["payload_sha256"]:
        report.add(
            "event.payload_mismatch",
            f"event {position} ({envelope['type']}, {envelope['stream']} v{envelope['version']}): "
            f"its payload is not the recorded one; expected {envelope['payload_sha256']}, found "
            f"{actual}",
            **where,
            expected=envelope["payload_sha256"],
            actual=actual,
        )
    return envelope


def _note_erased(report: BundleReport, envelope: dict[str, Any], erased_by: Any) -> None:
    """Note by which event a payload was erased, as far as the bundle says so."""
    if erased_by is None:
        return
    position: int = envelope["position"]
    if not isinstance(erased_by, int) or not position < erased_by <= report.checkpoint.size:
        report.add(
            "bundle.erasure",
            f"event {position} cannot have been erased by event {erased_by!r:.40}",
            position=position,
            stream=envelope["stream"],
            actual=erased_by if isinstance(erased_by, int) else None,
        )
    elif len(report.erased) < ERASED_NAMED_MAX:
        report.erased.append(Erased(position, envelope["stream"], erased_by))


def _envelope(entry: bytes) -> dict[str, Any]:
    envelope = document_of(entry, "an entry")
    if tuple(sorted(envelope)) != ENTRY_NAMES or (
        orjson.dumps(envelope, option=orjson.OPT_SORT_KEYS) != entry
    ):
        raise malformed("an entry is the canonical JSON of an envelope")
    for name, kind in (("position", int), ("version", int), ("stream", str), ("type", str)):
        if not isinstance(envelope[name], kind):
            raise malformed(f"an envelope's {name} is {envelope[name]!r:.80}")
    return envelope


def bounded_lines(file: Any) -> Iterator[bytes]:
    """Yield the lines of a bundle, each of bounded length.

    Raises
    ------
    InvalidInput
        ``bundle.malformed``
    """
    while line := file.readline(LINE_BYTES_MAX):
        if not line.endswith(b"\n"):
            raise malformed("a line has no end or is too long")
        yield line


def document_of(line: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object that `line` is.

    Raises
    ------
    InvalidInput
        ``bundle.malformed``
    """
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise malformed(f"{what} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise malformed(f"{what} is no JSON object")
    return document


def to_base64(raw: bytes) -> str:
    """Return bytes as a bundle holds them."""
    return base64.b64encode(raw).decode()


def from_base64(text: Any) -> bytes:
    """Return the bytes that a bundle holds as `text`.

    Raises
    ------
    InvalidInput
        ``bundle.malformed``
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise malformed(f"{text!r:.80} is no base64") from error


def malformed(reason: str) -> InvalidInput:
    """Return the error for what cannot be read as a bundle at all."""
    return InvalidInput("bundle.malformed", f"this is no bundle: {reason}")
