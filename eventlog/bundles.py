"""Bundles: events with everything that proves them, in one file that needs no database.

One JSON document a line (docs/transparency.md): a header with the checkpoint, then the events,
each with its entry, its payload and its audit path. What a bundle cannot show is that nothing
came after its last event.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import orjson

from domain.errors import HeddleError, InvalidInput, NotFound
from domain.frames import FRAME_BYTES_MAX
from eventlog.checkpoints import Checkpoint, open_checkpoint
from eventlog.envelope import RECORDED_COLUMNS, RecordedEvent
from eventlog.findings import ERASED_NAMED_MAX, Erased, Finding
from eventlog.merkle import HASH_BYTES, check_inclusion, leaf_hash
from eventlog.notes import NOTE_BYTES_MAX, Note, VerifierKey
from eventlog.payload_verification import payload_sha256
from eventlog.payloads import fill, recorded_erasures
from eventlog.tiles import ENTRY_COLUMNS, ENTRY_NAMES, LedgerTiles, entry_of

BUNDLE_FORMAT: Final = "heddle-bundle/1"
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
    """

    ledger: str
    checkpoint: Checkpoint
    vkey: str
    selection: Selection
    trusted: bool
    events: int = 0
    payloads: int = 0
    payloads_absent: int = 0
    erased: list[Erased] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def add(self, code: str, message: str, **where: Any) -> None:
        """Note a finding."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(code, message, **where))


# --- writing ------------------------------------------------------------------------------


async def select_stream(tiles: LedgerTiles, stream: str, size: int) -> Selection:
    """Return the selection of all of `stream` that a checkpoint of `size` events covers.

    Raises
    ------
    NotFound
        ``stream.unknown``
    """
    last = await tiles.pool.fetchval(
        "select max(version) from event where ledger_id = $1 and stream = $2 and position <= $3",
        tiles.ledger_id,
        stream,
        size,
    )
    if last is None:
        raise NotFound("stream.unknown", f"no event is recorded on {stream!r}", value=stream)
    return Selection(stream, 1, last)


async def export_bundle(
    tiles: LedgerTiles, note: Note, vkey: VerifierKey, selection: Selection, path: Path
) -> int:
    """Write the events of `selection`, proved against the checkpoint `note`; return how many.

    Raises
    ------
    InvalidInput
        ``bundle.selection``: the checkpoint does not cover such events
    """
    checkpoint = Checkpoint.parse(note.text)
    covered = selection.stream is not None or selection.last <= checkpoint.size
    if not 1 <= selection.first <= selection.last or not covered:
        raise InvalidInput(
            "bundle.selection",
            f"no events {selection.first} to {selection.last} are covered by a checkpoint of "
            f"{checkpoint.size}",
            value=selection.last,
            limit=checkpoint.size,
        )
    header = {
        "format": BUNDLE_FORMAT,
        "ledger": tiles.name,
        "origin": checkpoint.origin,
        "vkey": vkey.vkey,
        "selection": selection.document,
        "events": selection.last - selection.first + 1,
        "checkpoint": note.written,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    written = 0
    try:
        with temporary.open("wb") as file:
            file.write(orjson.dumps(header) + b"\n")
            async for line in _lines(tiles, selection, checkpoint.size):
                file.write(line)
                written += 1
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return written


async def _lines(tiles: LedgerTiles, selection: Selection, size: int) -> AsyncIterator[bytes]:
    first = selection.first
    erasures: dict[int, int] = {}
    while first <= selection.last:
        last = min(selection.last, first + PAGE_EVENTS - 1)
        rows = await _fetch(tiles, selection.stream, first, last, size)
        if len(rows) != last - first + 1:
            raise InvalidInput(
                "bundle.selection",
                f"events {first} to {last} are not all there: {len(rows)} are",
                value=len(rows),
                limit=last - first + 1,
            )
        proofs = await tiles.inclusion_proofs([row["position"] - 1 for row in rows], size)
        for row, proof in zip(rows, proofs, strict=True):
            event = await _with_payload(tiles, row["position"])
            line: dict[str, Any] = {
                "entry": entry_of(row).decode(),
                "payload": None if event.payload is None else _base64(event.payload),
                "proof": [_base64(sibling) for sibling in proof],
            }
            if event.erased:
                erasures = erasures or await recorded_erasures(
                    tiles.pool, tiles.ledger_id, tiles.name
                )
                line["erased_by"] = erasures.get(event.position)
            yield orjson.dumps(line) + b"\n"
        first = last + 1


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


async def _fetch(
    tiles: LedgerTiles, stream: str | None, first: int, last: int, size: int
) -> list[asyncpg.Record]:
    return await tiles.pool.fetch(
        f"""
        select {ENTRY_COLUMNS} from event where ledger_id = $1 and position <= $3
            and {"stream = $6 and version" if stream else "$6::text is null and position"}
                between $4 and $5
        order by position
        """,
        tiles.ledger_id,
        tiles.name,
        size,
        first,
        last,
        stream,
    )


# --- reading ------------------------------------------------------------------------------


def verify_bundle(path: Path, trusted: Sequence[VerifierKey] = ()) -> BundleReport:
    """Return what the bundle at `path` shows, using nothing but the file and `trusted`.

    Parameters
    ----------
    trusted : the log's keys as the reader knows them; without any, the key that the bundle
        names is used, which shows that the bundle agrees with itself and no more

    Raises
    ------
    InvalidInput
        ``bundle.malformed``, or as `open_checkpoint` says: nothing in it can be believed
    """
    with path.open("rb") as file:
        lines = _bounded_lines(file)
        header = _document(next(lines, b""), "its header")
        report = _opened(header, trusted)
        events = header.get("events")
        expected = report.selection.first
        last_position = 0
        for number, line in enumerate(lines, 2):
            try:
                envelope = _check_event(report, _document(line, f"line {number}"))
            except HeddleError as error:
                report.add("bundle.event", f"line {number}: {error}", position=None)
                continue
            _check_order(report, envelope, expected, last_position)
            last_position = envelope["position"]
            expected += 1
            report.events += 1
    wanted = report.selection.last - report.selection.first + 1
    if report.events != wanted or events != wanted:
        report.add(
            "bundle.incomplete",
            f"the bundle announces {wanted} events and holds {report.events} good ones",
            expected=wanted,
            actual=report.events,
        )
    return report


def _opened(header: dict[str, Any], trusted: Sequence[VerifierKey]) -> BundleReport:
    selection = header.get("selection")
    texts = [header.get(name) for name in ("format", "ledger", "origin", "vkey", "checkpoint")]
    if header.get("format") != BUNDLE_FORMAT or not all(isinstance(text, str) for text in texts):
        raise _malformed(f"its header is not that of {BUNDLE_FORMAT}")
    if (
        not isinstance(selection, dict)
        or not all(isinstance(selection.get(name), int) for name in ("first", "last"))
        or not isinstance(selection.get("stream"), str | None)
    ):
        raise _malformed("its header does not say which events it holds")
    named = VerifierKey.parse(header["vkey"])
    checkpoint = open_checkpoint(header["checkpoint"], list(trusted) or [named])
    if checkpoint.origin != header["origin"]:
        raise _malformed(f"its checkpoint is of {checkpoint.origin!r}, not {header['origin']!r}")
    return BundleReport(
        header["ledger"],
        checkpoint,
        named.vkey,
        Selection(selection["stream"], selection["first"], selection["last"]),
        trusted=bool(trusted),
    )


def _check_event(report: BundleReport, document: dict[str, Any]) -> dict[str, Any]:
    """Return the envelope of an event that is in the tree; note what else is wrong with it."""
    written, proof, payload = (document.get(n) for n in ("entry", "proof", "payload"))
    if not isinstance(written, str) or not isinstance(proof, list):
        raise _malformed("an event has an entry and a proof")
    entry = written.encode()
    envelope = _envelope(entry)
    path = [_from_base64(sibling) for sibling in proof]
    if any(len(sibling) != HASH_BYTES for sibling in path):
        raise _malformed(f"a hash has {HASH_BYTES} bytes")
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
        actual = payload_sha256(envelope["type"], _from_base64(payload)).hex()
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


def _check_order(
    report: BundleReport, envelope: dict[str, Any], expected: int, last_position: int
) -> None:
    stream = report.selection.stream
    number = envelope["position"] if stream is None else envelope["version"]
    if (
        number != expected
        or envelope["position"] <= last_position
        or (stream is not None and envelope["stream"] != stream)
    ):
        report.add(
            "bundle.order",
            f"event {envelope['position']} ({envelope['stream']} v{envelope['version']}) stands "
            f"where {'position' if stream is None else f'version of {stream}'} {expected} is due",
            position=envelope["position"],
            stream=envelope["stream"],
            expected=expected,
            actual=number,
        )


def _envelope(entry: bytes) -> dict[str, Any]:
    envelope = _document(entry, "an entry")
    if tuple(sorted(envelope)) != ENTRY_NAMES or (
        orjson.dumps(envelope, option=orjson.OPT_SORT_KEYS) != entry
    ):
        raise _malformed("an entry is the canonical JSON of an envelope")
    for name, kind in (("position", int), ("version", int), ("stream", str), ("type", str)):
        if not isinstance(envelope[name], kind):
            raise _malformed(f"an envelope's {name} is {envelope[name]!r:.80}")
    return envelope


def _bounded_lines(file: Any) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES_MAX):
        if not line.endswith(b"\n"):
            raise _malformed("a line has no end or is too long")
        yield line


def _document(line: bytes, what: str) -> dict[str, Any]:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _malformed(f"{what} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise _malformed(f"{what} is no JSON object")
    return document


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _from_base64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise _malformed(f"{text!r:.80} is no base64") from error


def _malformed(reason: str) -> InvalidInput:
    return InvalidInput("bundle.malformed", f"this is no bundle: {reason}")
