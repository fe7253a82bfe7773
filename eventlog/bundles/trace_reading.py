"""Reading of bundles of traces: whether all in one is in the log, and what it holds.

Everything is taken line by line; kept are what events say of links, leaves, and the graph, each
within the bounds of a bundle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from domain.documents.document import DocumentReleased
from domain.errors import HeddleError
from domain.events import FRAME_RECORDED, UnreadableEvent, decode_fact
from domain.records import RecordSigned
from eventlog.bundles.graph import (
    SAYS_NOTHING,
    BundleEdge,
    BundleNode,
    Said,
    SaidLinks,
    edges_of,
    nodes_of,
    said_by,
)
from eventlog.bundles.lines import (
    BundleReport,
    TraceSelection,
    bounded_lines,
    check_event,
    document_of,
    from_base64,
    malformed,
    open_header,
)
from eventlog.bundles.signature import SIGNATURE, SIGNATURE_LINE, SignedLines
from eventlog.bundles.traces import EVENTS_MAX, GRAPH_ITEMS_MAX, TRACE_FORMAT, TraceEvidence
from eventlog.transparency.merkle import leaf_hash
from eventlog.transparency.notes import VerifierKey


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
    header: bytes, lines: Iterator[bytes], trusted: Sequence[VerifierKey]
) -> BundleReport:
    """Return what a bundle of a trace shows, of its first line and the `lines` after it.

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
        reading = _Reading(next(lines, b""), trusted, keep=True)
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
        self, first_line: bytes, trusted: Sequence[VerifierKey], *, keep: bool = False
    ) -> None:
        header = document_of(first_line, "its header")
        self.selection = _selection(header)
        self.report = open_header(header, TRACE_FORMAT, self.selection, trusted)
        _check_members(header, HEADER_MEMBERS, "its header")
        self.nodes: list[BundleNode] = []
        self.edges: list[BundleEdge] = []
        self.events: list[BundledEvent] = []
        self._announced = tuple(header[name] for name in ("events", "nodes", "edges"))
        self._keep = keep
        self._keys = list(trusted) or [VerifierKey.parse(header["vkey"])]
        self._lines = SignedLines(TRACE_FORMAT, self.report.checkpoint.origin)
        self._lines.add(first_line)
        self._signature_seen = False
        self._kinds_seen = 0
        self._last_position = 0
        self._said = SaidLinks()
        self._leaves: dict[int, str] = {}
        self._signed: list[tuple[int, RecordSigned]] = []
        self._named: set[str] = set()
        self._file: tuple[str, Any] | None = None

    def read(self, lines: Iterator[bytes]) -> BundleReport:
        """Judge each of `lines`, and then what they come to together."""
        for number, line in enumerate(lines, 2):
            try:
                self._take(line, f"line {number}")
            except HeddleError as error:
                self.report.add("bundle.line", f"line {number}: {error}", position=None)
        if not self._signature_seen:
            self.report.add(
                "bundle.signature", "its last line is no signature: it is cut, or nobody signed it"
            )
        self._check_record_signatures()
        self._check_graph()
        self._end_file()
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

    def _take(self, line: bytes, what: str) -> None:
        if self._signature_seen:
            raise malformed("nothing stands after the signature")
        if line.startswith(SIGNATURE_LINE):
            self._signature_seen = True
            self._take_signature(line)
            return
        self._lines.add(line)
        document = document_of(line, what)
        kind = next((name for name in LINE_MEMBERS if name in document), None)
        if kind is None:
            raise malformed(f"nobody knows what {sorted(document)!r:.80} is")
        self._check_order_of_kinds(kind)
        optional = ERASED_MEMBERS if kind == "entry" else frozenset()
        _check_members(document, LINE_MEMBERS[kind], what, optional=optional)
        if kind == "entry":
            self._take_event(document)
        elif kind == "nodes":
            nodes = nodes_of(document["nodes"])
            self._check_room(len(nodes))
            self.nodes += nodes
        elif kind == "edges":
            edges = edges_of(document["edges"])
            self._check_room(len(edges))
            self.edges += edges
        else:
            self._take_piece(document)

    def _check_order_of_kinds(self, kind: str) -> None:
        place = list(LINE_MEMBERS).index(kind)
        if place < self._kinds_seen:
            raise malformed(f"a line of {kind!r} stands too late")
        self._kinds_seen = place

    def _check_room(self, count: int) -> None:
        if len(self.nodes) + len(self.edges) + count > GRAPH_ITEMS_MAX:
            raise malformed(f"its graph has more than {GRAPH_ITEMS_MAX} nodes and edges")

    def _take_signature(self, line: bytes) -> None:
        """Hold the log's signature against all lines before it."""
        try:
            document = document_of(line, "the signature")
            _check_members(document, frozenset((SIGNATURE,)), "the signature")
            self._lines.check(document[SIGNATURE], self._keys)
        except HeddleError as error:
            self.report.add("bundle.signature", f"it is not signed as it stands: {error}")

    # --- events ---------------------------------------------------------------------------

    def _take_event(self, document: dict[str, Any]) -> None:
        report = self.report
        if report.events >= EVENTS_MAX:
            raise malformed(f"it has more than {EVENTS_MAX} events")
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
        fact, said = (None, None) if raw is None else self._read(envelope, raw)
        self._leaves[position] = leaf.hex()
        self._said.add(position, envelope["occurred_at"], said)
        match fact:
            case RecordSigned():
                self._signed.append((position, fact))
            case DocumentReleased():
                self._named.add(fact.sha256)
        if self._keep:
            self.events.append(BundledEvent(envelope, leaf, raw, fact))

    def _read(self, envelope: Mapping[str, Any], payload: bytes) -> tuple[Any, Said]:
        """Return what an event says, and what of links; of a frame nothing."""
        if envelope["type"] == FRAME_RECORDED:
            return None, SAYS_NOTHING
        try:
            fact = decode_fact(envelope["type"], envelope["schema_version"], payload)
            return fact, said_by(fact)
        except UnreadableEvent as error:
            self.report.add(
                "bundle.fact_unreadable",
                f"event {envelope['position']}: {error}",
                position=envelope["position"],
                stream=envelope["stream"],
            )
            return None, SAYS_NOTHING

    def _check_record_signatures(self) -> None:
        for position, signed in self._signed:
            self.report.signatures += 1
            leaf = self._leaves.get(signed.signed_position)
            if leaf != signed.signed_sha256:
                self.report.add(
                    "bundle.record_signature",
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
            if not self._said.shows(edge):
                report.edges_unshown += 1
            fault = self._said.fault_of(edge)
            if fault is None and not keys.issuperset((edge.cause, edge.effect)):
                fault = f"{edge.cause} {edge.kind} {edge.effect} is between things not in the graph"
            if fault is not None:
                report.add("bundle.edge", fault, position=edge.position)

    # --- files ----------------------------------------------------------------------------

    def _take_piece(self, document: dict[str, Any]) -> None:
        sha256, end = document["document"], document["end"]
        if not isinstance(sha256, str) or not isinstance(end, bool):
            raise malformed("a piece of a file has the file's hash, and says whether it is the end")
        content = from_base64(document["content"])
        if self._file is None or self._file[0] != sha256:
            self._end_file()
            self._file = sha256, hashlib.sha256()
        hasher = self._file[1]
        hasher.update(content)
        if not end:
            return
        self._file = None
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

    def _end_file(self) -> None:
        """Note that the file of the last pieces, if it had not ended, has no end."""
        if self._file is not None:
            self.report.add("bundle.document_cut", f"the file {self._file[0]:.64} has no end")


HEADER_MEMBERS: Final = frozenset(
    ("format", "ledger", "origin", "vkey", "trace", "events", "nodes", "edges", "checkpoint")
)
TRACE_MEMBERS: Final = frozenset(("roots", "direction", "position", "valid_at", "complete"))
LINE_MEMBERS: Final = {
    "entry": frozenset(("entry", "payload", "proof")),
    "nodes": frozenset(("nodes",)),
    "edges": frozenset(("edges",)),
    "document": frozenset(("document", "content", "end")),
}
"""What a line of each kind holds, in the order in which the kinds follow each other."""

ERASED_MEMBERS: Final = frozenset(("erased_by",))
"""What the line of an event holds besides where its payload was erased."""


def _check_members(
    document: Mapping[str, Any],
    members: Set[str],
    what: str,
    *,
    optional: Set[str] = frozenset(),
) -> None:
    missing, unknown = members - document.keys(), document.keys() - members - optional
    if missing or unknown:
        raise malformed(
            f"{what} lacks {sorted(missing)!r:.80} and holds {sorted(unknown)!r:.80} besides"
        )


def _selection(header: dict[str, Any]) -> TraceSelection:
    asked = header.get("trace")
    if not isinstance(asked, dict):
        raise malformed("its header does not say what was traced")
    _check_members(asked, TRACE_MEMBERS, "what was traced")
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
