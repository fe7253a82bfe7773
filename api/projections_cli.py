"""`heddle rebuild` and `heddle check`: projections made anew from the log, and held against it.

Exit status: 0 when all is done and equal, 1 when a check found a difference, 2 for a failure told
on stderr.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from domain.errors import NotFound

if TYPE_CHECKING:
    from eventlog.database import Pool
    from projections.running.beside import Told
    from projections.running.content import ProjectionCheck
    from projections.running.projection import Projection
    from projections.running.rebuild import Rebuilt

COLLECTED_AFTER: Final = (50_000, 20, 100)
"""Thresholds of the garbage collector for a process that folds and does nothing else."""

TOLD_EVERY_S: Final = 2.0
DIFFERENT: Final = 1

Name = Annotated[str, typer.Argument(help="A projection, such as twins.")]
LedgerName = Annotated[str | None, typer.Option("--ledger", help="HEDDLE_LEDGER without it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one document a line.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("rebuild")(rebuild)
    app.command("check")(check)


def rebuild(name: Name, as_json: AsJson = False) -> None:
    """Fold a projection anew from the log and put it in place at once, while all is served.

    The rows of every ledger of the database. Policies are refused: they would command anew.
    """
    asyncio.run(_rebuild(name, as_json=as_json))


def check(
    name: Annotated[
        str | None, typer.Argument(help="A projection, such as twins; all without it.")
    ] = None,
    ledger: LedgerName = None,
    as_json: AsJson = False,
) -> None:
    """Fold projections anew beside the live ones, and say which rows are not as the log says."""
    if not asyncio.run(_check(name, ledger, as_json=as_json)):
        raise typer.Exit(DIFFERENT)


# --- rebuild ------------------------------------------------------------------------------


async def _rebuild(name: str, *, as_json: bool) -> None:
    from projections.running.rebuild import rebuild

    projection = _projection(name)
    began = time.monotonic()
    async with _opened() as (pool, _):
        done = await rebuild(pool, projection, told=_progress(as_json=as_json))
    _say(_rebuilt_document(done, time.monotonic() - began), _rebuilt_text, as_json=as_json)


def _rebuilt_document(done: Rebuilt, seconds: float) -> dict[str, Any]:
    return {
        "projection": done.projection,
        "version": done.version,
        "events": done.events,
        "seconds": round(seconds, 3),
        "ledgers": {
            name: {
                "position": after.position,
                "version_before": done.before[name].version,
                "position_before": done.before[name].position,
            }
            for name, after in done.after.items()
        },
    }


def _rebuilt_text(document: dict[str, Any]) -> str:
    places = ", ".join(
        f"{name} at {ledger['position']:,}" for name, ledger in document["ledgers"].items()
    )
    return (
        f"{document['projection']}: version {document['version']} is in place "
        f"({places or 'no ledger has rows of it'}), {document['events']:,} events in "
        f"{document['seconds']:.1f} s"
    )


# --- check --------------------------------------------------------------------------------


async def _check(name: str | None, ledger_name: str | None, *, as_json: bool) -> bool:
    from api.database import existing_ledger
    from projections.running.content import check

    equal = True
    chosen = _rebuildable() if name is None else [_projection(name)]
    async with (
        _opened() as (pool, default),
        existing_ledger(pool, ledger_name or default) as ledger,
    ):
        for projection in chosen:
            found = await check(pool, ledger, projection, told=_progress(as_json=as_json))
            _say(_checked_document(found, ledger.name), _checked_text, as_json=as_json)
            equal &= found.equal
    return equal


def _checked_document(found: ProjectionCheck, ledger: str) -> dict[str, Any]:
    return {
        "projection": found.projection,
        "version": found.version,
        "ledger": ledger,
        "position": found.position,
        "equal": found.equal,
        "tables": [
            {
                "table": table.table,
                "equal": table.equal,
                "live": {"rows": table.live.rows, "digest": table.live.digest},
                "rebuilt": {"rows": table.rebuilt.rows, "digest": table.rebuilt.digest},
                "differences": [
                    {"key": d.key, "live": d.live, "rebuilt": d.rebuilt} for d in table.differences
                ],
            }
            for table in found.tables
        ],
    }


def _checked_text(document: dict[str, Any]) -> str:
    verdict = "is as the log says" if document["equal"] else "DIFFERS from what the log says"
    lines = [
        f"{document['projection']} version {document['version']} of {document['ledger']} "
        f"{verdict}, at {document['position']:,}"
    ]
    for table in document["tables"]:
        live, rebuilt = table["live"], table["rebuilt"]
        if table["equal"]:
            lines.append(f"  {table['table']}: {live['rows']:,} rows, {live['digest']}")
            continue
        lines.append(
            f"  {table['table']}: {live['rows']:,} rows, {live['digest']}; "
            f"the log says {rebuilt['rows']:,} rows, {rebuilt['digest']}"
        )
        for difference in table["differences"]:
            lines += [
                f"    {difference['key']}",
                f"      live:    {difference['live'] or 'no such row'}",
                f"      rebuilt: {difference['rebuilt'] or 'no such row'}",
            ]
    return "\n".join(lines)


# --- both ---------------------------------------------------------------------------------


def _projection(name: str) -> Projection:
    from api.app import projections

    known = {projection.name: projection for projection in projections()}
    if name not in known:
        raise NotFound(
            "projection.unknown",
            f"no projection is called {name!r:.80}",
            hint=f"there are {', '.join(sorted(known))}",
            value=name[:80],
        )
    return known[name]


def _rebuildable() -> list[Projection]:
    from api.app import projections
    from projections.running.projection import Policy

    return [projection for projection in projections() if not isinstance(projection, Policy)]


@asynccontextmanager
async def _opened() -> AsyncIterator[tuple[Pool, str]]:
    """Yield connections to the database, and the name of the ledger that the settings name."""
    from api.database import open_pool
    from api.settings import ServerSettings

    settings = ServerSettings.from_environment()
    async with open_pool(settings) as (pool, _):
        # What lives from here on lives long: the collector need not look at it with every page.
        # Pages come and go without cycles: to look through them every 700 objects, as it would
        # by itself, takes a fifth of all the time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTED_AFTER)
        yield pool, settings.ledger


def _progress(*, as_json: bool) -> Told:
    """Return what tells a person on stderr, now and then, how far the fold has come."""
    from projections.running.beside import silent

    if as_json or not sys.stderr.isatty():
        return silent
    last_s = time.monotonic()
    last_position = 0

    def tell(ledger: str, position: int) -> None:
        nonlocal last_s, last_position
        now_s = time.monotonic()
        if now_s - last_s >= TOLD_EVERY_S:
            rate = max(0, position - last_position) / (now_s - last_s)
            sys.stderr.write(f"{ledger}: {position:,}, {rate:,.0f} events/s\n")
            last_s, last_position = now_s, position

    return tell


def _say(document: dict[str, Any], text: Callable[[dict[str, Any]], str], *, as_json: bool) -> None:
    sys.stdout.write((json.dumps(document) if as_json else text(document)) + "\n")
    sys.stdout.flush()
