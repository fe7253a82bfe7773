"""Bundles: events with everything that proves them, in one file that needs no database.

One JSON document a line (docs/transparency.md): a header with the checkpoint, then the events,
each with its entry, its payload and its audit path. What a bundle cannot show is that nothing
came after its last event. A bundle of a trace has a format of its own (`eventlog.bundles.traces`);
`verify_bundle` reads both.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg
import orjson

from domain.errors import HeddleError, InvalidInput, NotFound
from eventlog.bundles.lines import (
    PAGE_EVENTS,
    BundleReport,
    EventLines,
    Selection,
    bounded_lines,
    check_event,
    document_of,
    malformed,
    open_header,
)
from eventlog.bundles.trace_reading import verify_trace
from eventlog.bundles.traces import TRACE_FORMAT
from eventlog.transparency.checkpoints import Checkpoint
from eventlog.transparency.notes import Note, VerifierKey
from eventlog.transparency.tiles import ENTRY_COLUMNS, LedgerTiles

__all__ = ["BundleReport", "Selection", "export_bundle", "select_stream", "verify_bundle"]

BUNDLE_FORMAT: Final = "heddle-bundle/1"


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
    events = EventLines(tiles, size)
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
        async for line in events.of(rows):
            yield line
        first = last + 1


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
        lines = bounded_lines(file)
        first_line = next(lines, b"")
        header = document_of(first_line, "its header")
        if header.get("format") == TRACE_FORMAT:
            return verify_trace(first_line, lines, trusted)
        selection = _selection(header)
        report = open_header(header, BUNDLE_FORMAT, selection, trusted)
        events = header.get("events")
        expected = selection.first
        last_position = 0
        for number, line in enumerate(lines, 2):
            try:
                envelope = check_event(report, document_of(line, f"line {number}"))
            except HeddleError as error:
                report.add("bundle.event", f"line {number}: {error}", position=None)
                continue
            _check_order(report, selection, envelope, expected, last_position)
            last_position = envelope["position"]
            expected += 1
            report.events += 1
    wanted = selection.last - selection.first + 1
    if report.events != wanted or events != wanted:
        report.add(
            "bundle.incomplete",
            f"the bundle announces {wanted} events and holds {report.events} good ones",
            expected=wanted,
            actual=report.events,
        )
    return report


def _selection(header: dict[str, Any]) -> Selection:
    selection = header.get("selection")
    if (
        not isinstance(selection, dict)
        or not all(isinstance(selection.get(name), int) for name in ("first", "last"))
        or not isinstance(selection.get("stream"), str | None)
    ):
        raise malformed("its header does not say which events it holds")
    return Selection(selection["stream"], selection["first"], selection["last"])


def _check_order(
    report: BundleReport,
    selection: Selection,
    envelope: dict[str, Any],
    expected: int,
    last_position: int,
) -> None:
    stream = selection.stream
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
