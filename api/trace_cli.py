"""`heddle trace`: what happened to a thing, what it came from and what it led to.

Through a server it tells a stream's events and sums up the thread; with ``--bundle``, ``--report``
or ``--summary`` it reads the database itself, as whoever keeps the log's signing keys does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from domain.errors import InvalidInput

if TYPE_CHECKING:
    from api.settings import ServerSettings
    from eventlog.bundles.traces import Exported, TraceEvidence
    from eventlog.database import Pool
    from projections.as_of import AsOf
    from projections.thread.traced import Direction

DEFAULT_SERVER: Final = "http://127.0.0.1:8000"
WAYS: Final = ("back", "forward", "both")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("trace")(trace)


def trace(
    name: Annotated[
        str,
        typer.Argument(
            metavar="STREAM",
            help="Such as part:SN-1042, lot:L-7, document:DRW-7@B, or the name of an asset.",
        ),
    ],
    first: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many events.")] = 200,
    server: Annotated[
        str, typer.Option("--server", envvar="HEDDLE_SERVER_URL", help="URL of a Heddle server.")
    ] = DEFAULT_SERVER,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", dir_okay=False, help="Write all that proves the trace here."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", dir_okay=False, help="Write the trace as an HTML page here."),
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Sum the trace up from the database, no files.")
    ] = False,
    documents: Annotated[
        bool, typer.Option("--documents", help="Put the files of documents into the bundle.")
    ] = False,
    as_of: Annotated[
        str | None,
        typer.Option(help="As known then: a position, 2026-03-09T10:34:00Z, or 15m ago."),
    ] = None,
    valid_at: Annotated[
        str | None, typer.Option(help="As true then: a time as for --as-of.")
    ] = None,
    direction: Annotated[
        str, typer.Option(help="back to causes, forward to effects, or both.")
    ] = "both",
    depth: Annotated[
        int | None, typer.Option(min=0, max=10_000, help="Links from it at most.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, one document a line.")
    ] = False,
) -> None:
    """Show what happened to something, what it came from and what it led to.

    Without files the events of its stream are asked of a server. A bundle holds every event of
    the trace with its proof, and `heddle verify-bundle` checks it anywhere; a report is the same
    for people to read and print.
    """
    if bundle is None and report is None and not summary:
        for option, given in (
            ("--as-of", as_of),
            ("--valid-at", valid_at),
            ("--documents", documents),
            ("--depth", depth),
        ):
            if given not in (None, False):
                raise InvalidInput(
                    "trace.no_output",
                    f"{option} belongs to --bundle, --report or --summary",
                    hint="say where the trace is to go",
                    value=option,
                )
        from api.trace import trace_stream

        trace_stream(server, name, first=first, as_json=as_json)
        return
    if direction not in WAYS:
        raise InvalidInput(
            "trace.direction", f"{direction!r:.40} is none of {', '.join(WAYS)}", value=direction
        )
    asked = Asked(name, direction, depth, as_of, valid_at, bundle, report, documents)
    document, lines = asyncio.run(_trace(asked))
    sys.stdout.write((json.dumps(document) if as_json else "\n".join(lines)) + "\n")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be traced, and where it goes."""

    root: str
    direction: str
    depth: int | None
    as_of: str | None
    valid_at: str | None
    bundle: Path | None
    report: Path | None
    documents: bool


async def _trace(asked: Asked) -> tuple[dict[str, Any], list[str]]:
    from api.evidence import catch_up, gather, write_bundle
    from api.evidence_report import write_report
    from api.transparency import open_signer
    from eventlog.documents import ContentStore
    from eventlog.ledger import Ledger

    now = datetime.now(UTC)
    async with _opened() as (pool, database_url, settings):
        signer = await open_signer(pool, settings)
        ledger = await Ledger.open(pool, settings.ledger)
        try:
            await catch_up(ledger, database_url)
            evidence = await gather(
                ledger,
                [asked.root],
                direction=_direction(asked.direction),
                depth=asked.depth,
                as_of=_as_of(asked, now),
            )
            document, lines = _summary(evidence)
            if asked.bundle is None and asked.report is None:
                return document, lines
            contents = None
            if asked.documents:
                url = settings.documents_url or str(settings.data_dir / "documents")
                contents = ContentStore(url)
            with tempfile.TemporaryDirectory(prefix="heddle-trace-") as folder:
                path = asked.bundle or Path(folder) / "trace.bundle"
                exported = await write_bundle(signer, evidence, path, contents=contents)
                key = await asyncio.to_thread(signer.keys.current)
                if asked.report is not None:
                    await asyncio.to_thread(write_report, path, asked.report, [key.verifier])
        finally:
            await ledger.close()
    document |= {
        "bundle": None if asked.bundle is None else str(asked.bundle),
        "report": None if asked.report is None else str(asked.report),
        "documents": exported.documents,
        "documents_missing": exported.documents_missing,
        "vkey": key.verifier.vkey,
    }
    return document, [*lines, *_written(asked, exported, key.verifier.vkey)]


@asynccontextmanager
async def _opened() -> AsyncIterator[tuple[Pool, str, ServerSettings]]:
    from api.database import open_pool
    from api.settings import ServerSettings

    settings = ServerSettings.from_environment()
    async with open_pool(settings) as (pool, database_url):
        yield pool, database_url, settings


def _direction(text: str) -> Direction:
    from projections.thread.traced import Direction

    return Direction[text.upper()]


def _as_of(asked: Asked, now: datetime) -> AsOf:
    from api.log_cli import moment_of
    from projections.as_of import AsOf

    valid_at = None if asked.valid_at is None else moment_of(asked.valid_at, now)
    if asked.as_of is None:
        return AsOf(valid_at=valid_at)
    if asked.as_of.isascii() and asked.as_of.isdigit():
        return AsOf(position=int(asked.as_of), valid_at=valid_at)
    return AsOf(recorded_at=moment_of(asked.as_of, now), valid_at=valid_at)


# --- what is printed ----------------------------------------------------------------------


def _summary(evidence: TraceEvidence) -> tuple[dict[str, Any], list[str]]:
    counts: dict[str, Counter[str]] = {}
    for node in evidence.nodes:
        counts.setdefault(node.kind, Counter())[node.state] += 1
    selection = evidence.selection
    document = {
        **selection.document,
        "events": len(evidence.positions),
        "nodes": len(evidence.nodes),
        "edges": len(evidence.edges),
        "counts": {kind: dict(states) for kind, states in sorted(counts.items())},
    }
    way = {"BACK": "came from", "FORWARD": "led to", "BOTH": "came from and led to"}
    lines = [
        f"what {', '.join(selection.roots)} {way[selection.direction]}, as known at position "
        f"{selection.position:,}:",
        *(
            f"  {states.total():>7,}  {kind.lower().replace('_', ' ')}: "
            + ", ".join(
                f"{count:,} {state.lower().replace('_', ' ')}"
                for state, count in states.most_common()
            )
            for kind, states in sorted(counts.items())
        ),
        f"{len(evidence.edges):,} links, said by {len(evidence.positions):,} events",
    ]
    if not selection.complete:
        lines.append("the trace was cut there: more belongs to it")
    return document, lines


def _written(asked: Asked, exported: Exported, vkey: str) -> list[str]:
    lines = []
    if asked.bundle is not None:
        lines += [
            f"{exported.events:,} events with their proofs: {asked.bundle}",
            f"  check it anywhere: heddle verify-bundle {asked.bundle} --vkey {vkey}",
        ]
        if asked.documents:
            lines.append(f"  {exported.documents} files of documents are in it")
    if exported.documents_missing:
        lines.append(f"  {len(exported.documents_missing)} files are not in the document store")
    if asked.report is not None:
        lines.append(f"for people: {asked.report}")
    return lines
