"""Bundles of traces: all events that a trace rests on, its graph, and its documents' files.

One JSON document a line (docs/evidence.md): a header with the checkpoint, the events as in every
bundle, then the graph, and files in pieces. Who verifies one holds each link of the graph against
the event that says it, each signature against the leaf that was signed, and each file against
the hash that its release named. What a bundle cannot show is that nothing else belongs to the
trace: for that the log has to be read.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, cast

import asyncpg
import orjson

from domain.documents.document import DocumentReleased, revision_name
from domain.errors import HeddleError, InvalidInput, NotFound
from domain.events import FRAME_RECORDED, UnreadableEvent, decode_fact
from domain.records import RecordCorrected, RecordSigned
from domain.thread import Link, Threaded
from eventlog.bundle_events import (
    PAGE_EVENTS,
    BundleReport,
    EventLines,
    TraceSelection,
    bounded_lines,
    check_event,
    document_of,
    from_base64,
    malformed,
    open_header,
    to_base64,
)
from eventlog.checkpoints import Checkpoint
from eventlog.merkle import leaf_hash
from eventlog.notes import Note, VerifierKey
from eventlog.tiles import ENTRY_COLUMNS, LedgerTiles

if TYPE_CHECKING:
    from eventlog.documents import ContentStore

TRACE_FORMAT: Final = "heddle-trace-bundle/1"
GRAPH_LINE_ITEMS: Final = 500
EVENTS_MAX: Final = 1_000_000
GRAPH_ITEMS_MAX: Final = 2_000_000


class BundleNode(NamedTuple):
    """A thing in a bundle's graph: how it stood, and how many links from the nearest root."""

    key: str
    kind: str
    state: str
    depth: int
    first_position: int


class BundleEdge(NamedTuple):
    """A link in a bundle's graph; times are RFC 3339, positions those of its events."""

    kind: str
    cause: str
    effect: str
    quantity: float | None
    unit: str | None
    valid_from: str
    valid_to: str | None
    position: int
    ended_position: int | None


@dataclass(frozen=True)
class TraceEvidence:
    """What a bundle of a trace is to hold.

    Parameters
    ----------
    positions : of all events, ascending
    """

    selection: TraceSelection
    nodes: Sequence[BundleNode]
    edges: Sequence[BundleEdge]
    positions: Sequence[int]


@dataclass
class Exported:
    """What was written: how many events and files; `documents_missing` are hashes not found."""

    events: int = 0
    documents: int = 0
    documents_missing: list[str] = field(default_factory=list)


# --- writing ------------------------------------------------------------------------------


async def export_trace_bundle(
    tiles: LedgerTiles,
    note: Note,
    vkey: VerifierKey,
    evidence: TraceEvidence,
    path: Path,
    *,
    contents: ContentStore | None = None,
) -> Exported:
    """Write `evidence`, proved against the checkpoint `note`, to `path`, all of it or nothing.

    Parameters
    ----------
    contents : where the files of documents are; None leaves them out, and names their hashes

    Raises
    ------
    InvalidInput
        ``bundle.selection``: the checkpoint does not cover such events, or they are too many
    """
    checkpoint = Checkpoint.parse(note.text)
    positions = evidence.positions
    if not positions or positions[-1] > checkpoint.size or len(positions) > EVENTS_MAX:
        raise InvalidInput(
            "bundle.selection",
            f"no {len(positions)} events up to {positions[-1] if positions else 0} are covered "
            f"by a checkpoint of {checkpoint.size}",
            hint=f"a bundle holds 1 to {EVENTS_MAX} events",
            value=len(positions),
            limit=EVENTS_MAX,
        )
    header = {
        "format": TRACE_FORMAT,
        "ledger": tiles.name,
        "origin": checkpoint.origin,
        "vkey": vkey.vkey,
        "trace": evidence.selection.document,
        "events": len(positions),
        "nodes": len(evidence.nodes),
        "edges": len(evidence.edges),
        "checkpoint": note.written,
    }
    wanted = {node.key.partition(":")[2] for node in evidence.nodes if "@" in node.key}
    exported = Exported()
    files: dict[str, None] = {}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(orjson.dumps(header) + b"\n")
            async for line, row in _event_lines(tiles, positions, checkpoint.size):
                file.write(line)
                exported.events += 1
                if row["type"] == "document.released":
                    files.update(dict.fromkeys(_named_file(line, wanted)))
            _write_graph(file, evidence)
            if contents is not None:
                for sha256 in files:
                    await asyncio.to_thread(_write_file, file, contents, sha256, exported)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return exported


async def _event_lines(
    tiles: LedgerTiles, positions: Sequence[int], size: int
) -> AsyncIterator[tuple[bytes, asyncpg.Record]]:
    events = EventLines(tiles, size)
    for first in range(0, len(positions), PAGE_EVENTS):
        wanted = positions[first : first + PAGE_EVENTS]
        rows = await tiles.pool.fetch(
            f"""
            select {ENTRY_COLUMNS} from event
            where ledger_id = $1 and position = any($3::bigint[]) order by position
            """,
            tiles.ledger_id,
            tiles.name,
            list(wanted),
        )
        if [row["position"] for row in rows] != list(wanted):
            raise InvalidInput(
                "bundle.selection",
                f"of {len(wanted)} events from position {wanted[0]} on, {len(rows)} are there",
                value=len(rows),
                limit=len(wanted),
            )
        numbered = iter(rows)
        async for line in events.of(rows):
            yield line, next(numbered)


def _named_file(line: bytes, wanted: set[str]) -> list[str]:
    """Return the hash of the file that a release names, where its revision is in the trace."""
    document = orjson.loads(line)
    if document["payload"] is None:
        return []
    released = orjson.loads(from_base64(document["payload"]))
    name = revision_name(str(released.get("document_id")), str(released.get("revision")))
    return [str(released["sha256"])] if name in wanted else []


def _write_graph(file: IO[bytes], evidence: TraceEvidence) -> None:
    for name, items in (("nodes", evidence.nodes), ("edges", evidence.edges)):
        left: Iterator[Sequence[Any]] = iter(cast("Sequence[Sequence[Any]]", items))
        while page := [list(item) for item in islice(left, GRAPH_LINE_ITEMS)]:
            file.write(orjson.dumps({name: page}) + b"\n")


def _write_file(file: IO[bytes], contents: ContentStore, sha256: str, exported: Exported) -> None:
    pieces = _Pieces(file, sha256)
    try:
        contents.get(sha256, cast("IO[bytes]", pieces))
    except NotFound:
        exported.documents_missing.append(sha256)
        return
    pieces.end()
    exported.documents += 1


class _Pieces:
    """A file's content as lines of a bundle, in the pieces in which it comes."""

    def __init__(self, file: IO[bytes], sha256: str) -> None:
        self._file = file
        self._sha256 = sha256

    def write(self, piece: bytes) -> int:
        line = {"document": self._sha256, "content": to_base64(piece), "end": False}
        self._file.write(orjson.dumps(line) + b"\n")
        return len(piece)

    def end(self) -> None:
        line = {"document": self._sha256, "content": "", "end": True}
        self._file.write(orjson.dumps(line) + b"\n")


# --- reading ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BundledEvent:
    """An event of a bundle: its envelope, what proves it, and what it says.

    Parameters
    ----------
    leaf : hash of its entry, which is in the tree
    payload : its bytes; None where the bundle does not hold it
    fact : what it says; None for a frame, and for what cannot be read here
    """

    envelope: Mapping[str, Any]
    leaf: bytes
    payload: bytes | None
    fact: Any


def verify_trace(
    header: dict[str, Any], lines: Iterator[bytes], trusted: Sequence[VerifierKey]
) -> BundleReport:
    """Return what a bundle of a trace shows, of its `header` and the `lines` after it.

    Raises
    ------
    InvalidInput
        ``bundle.malformed``, or as `open_checkpoint` says
    """
    return _Reading(header, trusted).read(lines)


def read_trace_bundle(
    path: Path, trusted: Sequence[VerifierKey] = ()
) -> tuple[BundleReport, TraceEvidence, list[BundledEvent]]:
    """Return what the bundle of a trace at `path` shows, and what it holds.

    Raises
    ------
    InvalidInput
        as `verify_trace`
    """
    with path.open("rb") as file:
        lines = bounded_lines(file)
        reading = _Reading(document_of(next(lines, b""), "its header"), trusted, keep=True)
        report = reading.read(lines)
    evidence = TraceEvidence(
        reading.selection,
        reading.nodes,
        reading.edges,
        [event.envelope["position"] for event in reading.events],
    )
    return report, evidence, reading.events


class _Reading:
    """A bundle of a trace while it is read, line by line."""

    def __init__(
        self, header: dict[str, Any], trusted: Sequence[VerifierKey], *, keep: bool = False
    ) -> None:
        self.selection = _selection(header)
        self.report = open_header(header, TRACE_FORMAT, self.selection, trusted)
        self.nodes: list[BundleNode] = []
        self.edges: list[BundleEdge] = []
        self.events: list[BundledEvent] = []
        self._announced = tuple(header.get(name) for name in ("events", "nodes", "edges"))
        self._keep = keep
        self._last_position = 0
        # What each event says of the thread; None where its payload is not in the bundle.
        self._links: dict[int, set[tuple[str, str, str]] | None] = {}
        self._occurred: dict[int, str] = {}
        self._leaves: dict[int, str] = {}
        self._signed: list[tuple[int, RecordSigned]] = []
        self._named: set[str] = set()
        self._hashers: dict[str, Any] = defaultdict(hashlib.sha256)

    def read(self, lines: Iterator[bytes]) -> BundleReport:
        """Judge each of `lines`, and then what they come to together."""
        for number, line in enumerate(lines, 2):
            try:
                self._take(document_of(line, f"line {number}"))
            except HeddleError as error:
                self.report.add("bundle.line", f"line {number}: {error}", position=None)
        self._check_signatures()
        self._check_graph()
        for sha256 in self._hashers:
            self.report.add("bundle.document_cut", f"the file {sha256} has no end")
        self.report.documents_named = len(self._named)
        held = (self.report.events, len(self.nodes), len(self.edges))
        if held != self._announced:
            self.report.add(
                "bundle.incomplete",
                f"the bundle announces {self._announced} events, nodes and edges and holds "
                f"{held} good ones",
                expected=list(self._announced),
                actual=list(held),
            )
        return self.report

    def _take(self, document: dict[str, Any]) -> None:
        if "entry" in document:
            self._take_event(document)
        elif "nodes" in document:
            self.nodes += [BundleNode(*item) for item in _items(document["nodes"], NODE_VALUES)]
        elif "edges" in document:
            self.edges += [BundleEdge(*item) for item in _items(document["edges"], EDGE_VALUES)]
        elif "document" in document:
            self._take_piece(document)
        else:
            raise malformed(f"nobody knows what {sorted(document)!r:.80} is")
        if len(self.nodes) + len(self.edges) > GRAPH_ITEMS_MAX:
            raise malformed(f"its graph has more than {GRAPH_ITEMS_MAX} nodes and edges")

    # --- events ---------------------------------------------------------------------------

    def _take_event(self, document: dict[str, Any]) -> None:
        report = self.report
        envelope = check_event(report, document)
        position: int = envelope["position"]
        if not self._last_position < position <= self.selection.position:
            report.add(
                "bundle.order",
                f"event {position} ({envelope['stream']}) does not belong after "
                f"{self._last_position} in a trace as of {self.selection.position}",
                position=position,
                stream=envelope["stream"],
            )
        self._last_position = position
        report.events += 1
        leaf = leaf_hash(document["entry"].encode())
        payload = document.get("payload")
        raw = None if payload is None else from_base64(payload)
        fact, links = (None, None) if raw is None else self._read(envelope, raw)
        self._leaves[position] = leaf.hex()
        self._occurred[position] = envelope["occurred_at"]
        self._links[position] = links
        match fact:
            case RecordSigned():
                self._signed.append((position, fact))
            case DocumentReleased():
                self._named.add(fact.sha256)
        if self._keep:
            self.events.append(BundledEvent(envelope, leaf, raw, fact))

    def _read(
        self, envelope: Mapping[str, Any], payload: bytes
    ) -> tuple[Any, set[tuple[str, str, str]]]:
        """Return what an event says, and the links that it says; of a frame nothing."""
        if envelope["type"] == FRAME_RECORDED:
            return None, set()
        try:
            fact = decode_fact(envelope["type"], envelope["schema_version"], payload)
            return fact, _links_of(fact)
        except UnreadableEvent as error:
            self.report.add(
                "bundle.fact_unreadable",
                f"event {envelope['position']}: {error}",
                position=envelope["position"],
                stream=envelope["stream"],
            )
            return None, set()

    def _check_signatures(self) -> None:
        for position, signed in self._signed:
            self.report.signatures += 1
            leaf = self._leaves.get(signed.signed_position)
            if leaf != signed.signed_sha256:
                self.report.add(
                    "bundle.signature",
                    f"the signature of {signed.signer_name!r:.80} at {position} is on an event "
                    f"{signed.signed_position} with the leaf {signed.signed_sha256:.64}; "
                    + ("the bundle has no such event" if leaf is None else f"it has {leaf}"),
                    position=position,
                    stream=signed.stream,
                    expected=signed.signed_sha256,
                    actual=leaf,
                )

    # --- graph ----------------------------------------------------------------------------

    def _check_graph(self) -> None:
        report = self.report
        report.nodes, report.edges = len(self.nodes), len(self.edges)
        keys = {node.key for node in self.nodes}
        if not keys.issuperset(self.selection.roots):
            report.add("bundle.root", "its graph does not hold what was traced")
        for edge in self.edges:
            said = self._links.get(edge.position, set())
            if said is None:
                report.edges_unshown += 1
            elif (
                edge[:3] not in said
                or edge.valid_from != self._occurred[edge.position]
                or not keys.issuperset((edge.cause, edge.effect))
                or (edge.ended_position is not None and edge.ended_position not in self._links)
            ):
                report.add(
                    "bundle.edge",
                    f"event {edge.position} does not say that {edge.cause} {edge.kind} "
                    f"{edge.effect} since {edge.valid_from}",
                    position=edge.position,
                )

    # --- files ----------------------------------------------------------------------------

    def _take_piece(self, document: dict[str, Any]) -> None:
        sha256 = document["document"]
        if not isinstance(sha256, str):
            raise malformed("a file goes by its hash")
        hasher = self._hashers[sha256]
        hasher.update(from_base64(document.get("content")))
        if document.get("end") is not True:
            return
        del self._hashers[sha256]
        self.report.documents += 1
        if hasher.hexdigest() != sha256:
            self.report.add(
                "bundle.document_mismatch",
                f"a file is not what its release named: expected {sha256:.64}, found "
                f"{hasher.hexdigest()}",
                expected=sha256,
                actual=hasher.hexdigest(),
            )
        if sha256 not in self._named:
            self.report.add("bundle.document_unnamed", f"no event names the file {sha256:.64}")


def _links_of(fact: Any) -> set[tuple[str, str, str]]:
    """Return the links that an event says, as the graph writes them."""
    if isinstance(fact, RecordCorrected):
        fact = fact.fact()
    if not isinstance(fact, Threaded):
        return set()
    return {
        (item.kind.name, item.cause, item.effect)
        for item in fact.thread()
        if isinstance(item, Link)
    }


NODE_VALUES: Final = (str, str, str, int, int)
EDGE_VALUES: Final = (
    *(str, str, str),
    *(int | float | None, str | None),
    *(str, str | None),
    *(int, int | None),
)


def _items(items: Any, values: Sequence[Any]) -> list[list[Any]]:
    """Return rows of a graph, each of such values."""
    if not isinstance(items, list) or not all(
        isinstance(item, list) and len(item) == len(values) and all(map(isinstance, item, values))
        for item in items
    ):
        raise malformed("its graph has rows of values that it cannot have")
    return items


def _selection(header: dict[str, Any]) -> TraceSelection:
    asked = header.get("trace")
    if not isinstance(asked, dict):
        raise malformed("its header does not say what was traced")
    roots, valid_at = asked.get("roots"), asked.get("valid_at")
    if (
        not isinstance(roots, list)
        or not roots
        or not all(isinstance(root, str) for root in roots)
        or not isinstance(asked.get("direction"), str)
        or not isinstance(asked.get("position"), int)
        or not isinstance(valid_at, str | None)
        or not isinstance(asked.get("complete"), bool)
    ):
        raise malformed("its header does not say what was traced")
    return TraceSelection(
        tuple(roots), asked["direction"], asked["position"], valid_at, asked["complete"]
    )
