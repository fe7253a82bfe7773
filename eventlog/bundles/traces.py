"""Bundles of traces: all events that a trace rests on, its graph, and its documents' files.

One JSON document a line (docs/evidence.md): a header with the checkpoint, the events as in every
bundle, then the graph, files in pieces, and the log's signature of all of it. Who verifies one
holds each link of the graph against the events that say it and its end, each person's signature
against the leaf that was signed, and each file against the hash that its release named. What a
bundle cannot show is that nothing else belongs to the trace: for that the log has to be read.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

import asyncpg
import orjson

from domain.documents.document import revision_name
from domain.errors import InvalidInput, NotFound
from eventlog.bundles.graph import BundleEdge, BundleNode
from eventlog.bundles.lines import (
    PAGE_EVENTS,
    EventLines,
    TraceSelection,
    from_base64,
    to_base64,
)
from eventlog.bundles.signature import SignedLines
from eventlog.transparency.checkpoints import Checkpoint
from eventlog.transparency.notes import Note, SigningKey
from eventlog.transparency.tiles import ENTRY_COLUMNS, LedgerTiles

if TYPE_CHECKING:
    from eventlog.documents import ContentStore

__all__ = [
    "TRACE_FORMAT",
    "BundleEdge",
    "BundleNode",
    "Exported",
    "TraceEvidence",
    "export_trace_bundle",
]

TRACE_FORMAT: Final = "heddle-trace-bundle/1"
GRAPH_LINE_ITEMS: Final = 500
EVENTS_MAX: Final = 1_000_000
GRAPH_ITEMS_MAX: Final = 2_000_000


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
    key: SigningKey,
    evidence: TraceEvidence,
    path: Path,
    *,
    contents: ContentStore | None = None,
) -> Exported:
    """Write `evidence`, proved against the checkpoint `note`, to `path`, all of it or nothing.

    Parameters
    ----------
    key : the log's own, which signed `note`, and now signs the bundle
    contents : where the files of documents are; None leaves them out, and names their hashes

    Raises
    ------
    InvalidInput
        ``bundle.selection``: the checkpoint does not cover such events, or they are too many;
        ``note.unsigned``: another key than `key` signed the checkpoint
    """
    note.verify([key.verifier])
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
        "vkey": key.verifier.vkey,
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
        with temporary.open("wb") as opened:
            file = _Lines(opened, checkpoint.origin)
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
            file.sign(key)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return exported


class _Lines:
    """The lines of a bundle, hashed while they are written."""

    def __init__(self, file: IO[bytes], origin: str) -> None:
        self._file = file
        self._signed = SignedLines(TRACE_FORMAT, origin)

    def write(self, line: bytes) -> None:
        self._signed.add(line)
        self._file.write(line)

    def sign(self, key: SigningKey) -> None:
        self._file.write(self._signed.sign(key))


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


def _write_graph(file: _Lines, evidence: TraceEvidence) -> None:
    for name, items in (("nodes", evidence.nodes), ("edges", evidence.edges)):
        left: Iterator[Sequence[Any]] = iter(cast("Sequence[Sequence[Any]]", items))
        while page := [list(item) for item in islice(left, GRAPH_LINE_ITEMS)]:
            file.write(orjson.dumps({name: page}) + b"\n")


def _write_file(file: _Lines, contents: ContentStore, sha256: str, exported: Exported) -> None:
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

    def __init__(self, file: _Lines, sha256: str) -> None:
        self._file = file
        self._sha256 = sha256

    def write(self, piece: bytes) -> int:
        line = {"document": self._sha256, "content": to_base64(piece), "end": False}
        self._file.write(orjson.dumps(line) + b"\n")
        return len(piece)

    def end(self) -> None:
        line = {"document": self._sha256, "content": "", "end": True}
        self._file.write(orjson.dumps(line) + b"\n")
