"""`heddle archive`, `compact` and `erase`."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from domain.errors import InvalidInput

if TYPE_CHECKING:
    from api.settings import ServerSettings
    from eventlog.archive.compaction import CompactionReport
    from eventlog.archive.moving import ArchiveReport
    from eventlog.archive.store import ArchiveStore
    from eventlog.erasure import ErasureReport

FOUND_SOMETHING: Final = 1
DURATION_DAYS_MAX: Final = 36_500

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
To = Annotated[
    str | None,
    typer.Option(
        "--to", help="A directory, or a URL such as s3://bucket/heddle; else HEDDLE_ARCHIVE_URL."
    ),
]

_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command("archive")(archive)
    app.command("compact")(compact)
    app.command("erase")(erase)


def archive(
    older_than: Annotated[
        str, typer.Option("--older-than", help="Retention, such as 30d, 12h, 90m or 45s.")
    ] = "30d",
    to: To = None,
    remove_strays: Annotated[
        bool,
        typer.Option(
            "--remove-strays",
            help="Delete files there that this database does not know; never where another "
            "database archives a ledger of the same name.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Move payloads of frames recorded longer ago to Parquet files; reads go on as before.

    It may be killed at any moment and run again. Exit 1 when a frame is not as it was recorded:
    it stays where it is, see `heddle verify`.
    """
    asyncio.run(_archive(duration(older_than), to, remove_strays=remove_strays, as_json=as_json))


def compact(to: To = None, as_json: AsJson = False) -> None:
    """Merge short files of the archive that hold the same day of a stream into long ones."""
    asyncio.run(_compact(to, as_json=as_json))


def erase(
    reason: Annotated[str, typer.Option("--reason", help="Why, for the log.")] = "",
    actor: Annotated[str, typer.Option("--actor", help="Who answers for it.")] = "",
    positions: Annotated[
        list[int] | None, typer.Argument(metavar="[POSITION]...", help="Positions of events.")
    ] = None,
    stream: Annotated[
        str | None, typer.Option("--stream", help="Every event of a stream, such as part:SN-1042.")
    ] = None,
    legal_basis: Annotated[
        str, typer.Option("--legal-basis", help="The provision that demands it, for the log.")
    ] = "",
    finish: Annotated[
        bool, typer.Option("--finish", help="Only carry out what is recorded and not finished.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Erase payloads by law, for ever: the log records by whom and why, its proofs stand.

    What projections have made of them, backups, and rows until the database is vacuumed:
    see docs/archive.md.
    """
    asyncio.run(
        _erase(positions or [], stream, reason, actor, legal_basis, finish=finish, as_json=as_json)
    )


def duration(text: str) -> timedelta:
    """Return the time that `text`, such as ``30d``, stands for.

    Raises
    ------
    InvalidInput
        ``archive.retention``
    """
    found = re.fullmatch(r"([0-9]{1,9})([dhms]?)", text)
    if found is None or (not found[2] and found[1] != "0"):
        raise _bad_duration(text)
    parsed = timedelta(**{_UNITS[found[2] or "s"]: int(found[1])})
    if parsed > timedelta(days=DURATION_DAYS_MAX):
        raise _bad_duration(text)
    return parsed


def _bad_duration(text: str) -> InvalidInput:
    return InvalidInput(
        "archive.retention",
        f"{text!r:.40} is no time of up to {DURATION_DAYS_MAX} days",
        hint="a number and d, h, m or s, such as 30d",
        value=text[:40],
        limit=DURATION_DAYS_MAX,
    )


def _store(settings: ServerSettings, to: str | None) -> ArchiveStore:
    from eventlog.archive.store import ArchiveStore

    return ArchiveStore(to or settings.archive_url or str(settings.data_dir / "archive"))


async def _archive(
    older_than: timedelta, to: str | None, *, remove_strays: bool, as_json: bool
) -> None:
    from api.database import open_pool
    from api.services import utc_now
    from api.settings import ServerSettings
    from eventlog.archive.moving import archive as move
    from eventlog.archive.segments import ArchivedLedger, remove_strays_in

    settings = ServerSettings.from_environment()
    store = _store(settings, to)
    async with open_pool(settings) as (pool, _url):
        ledger = await ArchivedLedger.find(pool, settings.ledger)
        report = await move(ledger, store, older_than=older_than, now=utc_now())
        strays = await remove_strays_in(ledger, store) if remove_strays else []
    document, lines = _told(report, store.url, strays)
    _say(document, lines, as_json=as_json)
    if report.unsound_count:
        raise typer.Exit(FOUND_SOMETHING)


def _told(
    report: ArchiveReport, url: str, strays: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    document = {
        "windows": report.windows,
        "readings": report.readings,
        "files": report.segments,
        "row_bytes": report.row_bytes,
        "file_bytes": report.file_bytes,
        "archive": url,
        "unsound": report.unsound,
        "unsound_count": report.unsound_count,
        "left_behind": report.left_behind,
        "strays_removed": list(strays),
    }
    lines = [
        f"{report.windows} frames of {report.readings} readings moved to {report.segments} files "
        f"below {url}: {report.row_bytes} bytes in rows, {report.file_bytes} in files",
        *(f"not as recorded, so left in its row: event {position}" for position in report.unsound),
        *(f"to be deleted, and out of reach now: {file}" for file in report.left_behind),
        *(f"deleted, known to no row: {file}" for file in strays),
    ]
    return document, lines


async def _compact(to: str | None, *, as_json: bool) -> None:
    from api.database import open_pool
    from api.settings import ServerSettings
    from eventlog.archive.compaction import compact as merge
    from eventlog.archive.segments import ArchivedLedger

    settings = ServerSettings.from_environment()
    store = _store(settings, to)
    async with open_pool(settings) as (pool, _url):
        report: CompactionReport = await merge(
            await ArchivedLedger.find(pool, settings.ledger), store
        )
    _say(
        {
            "files_before": report.files,
            "files_after": report.segments,
            "windows": report.windows,
            "bytes_before": report.bytes_before,
            "bytes_after": report.bytes_after,
        },
        [
            f"{report.files} short files became {report.segments}: {report.bytes_before} bytes "
            f"before, {report.bytes_after} after"
        ],
        as_json=as_json,
    )


async def _erase(
    positions: Sequence[int],
    stream: str | None,
    reason: str,
    actor: str,
    legal_basis: str,
    *,
    finish: bool,
    as_json: bool,
) -> None:
    if finish:
        await _finish(as_json=as_json)
        return
    if not reason or not actor:
        raise InvalidInput(
            "erasure.text", "an erasure has a reason and an actor", hint="--reason, --actor"
        )
    if bool(positions) == (stream is not None):
        raise InvalidInput(
            "erasure.nothing", "say what is to be erased", hint="positions, or --stream"
        )
    report = await _erased(positions, stream, reason, actor, legal_basis)
    _say(
        {
            "erased": report.erased,
            "erased_before": report.erased_before,
            "recorded_at": list(report.recorded_at),
        },
        [
            f"{report.erased} payloads are erased ({report.erased_before} were before), recorded "
            f"at {', '.join(map(str, report.recorded_at)) or 'no new event'}",
            "what projections made of them stays until they are rebuilt: see docs/archive.md",
        ],
        as_json=as_json,
    )


async def _erased(
    positions: Sequence[int], stream: str | None, reason: str, actor: str, legal_basis: str
) -> ErasureReport:
    from api.database import open_pool
    from api.services import new_event_id, utc_now
    from api.settings import ServerSettings
    from eventlog.archive.segments import ArchivedLedger
    from eventlog.erasure import erase as carry_out
    from eventlog.erasure import positions_of_stream
    from eventlog.ledger import Ledger

    settings = ServerSettings.from_environment()
    async with open_pool(settings) as (pool, _url):
        await ArchivedLedger.find(pool, settings.ledger)  # a misspelt name makes no ledger
        ledger = await Ledger.open(pool, settings.ledger)
        try:
            wanted = positions if stream is None else await positions_of_stream(ledger, stream)
            return await carry_out(
                ledger,
                wanted,
                reason=reason,
                actor=actor,
                legal_basis=legal_basis,
                now=utc_now(),
                new_event_id=new_event_id,
            )
        finally:
            await ledger.close()


async def _finish(*, as_json: bool) -> None:
    from api.database import open_pool
    from api.settings import ServerSettings
    from eventlog.archive.segments import ArchivedLedger
    from eventlog.erasure import finish_erasures

    settings = ServerSettings.from_environment()
    async with open_pool(settings) as (pool, _url):
        finished = await finish_erasures(await ArchivedLedger.find(pool, settings.ledger))
    _say({"finished": finished}, [f"{finished} recorded erasures carried out"], as_json=as_json)


def _say(document: dict[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    sys.stdout.write((json.dumps(document) if as_json else "\n".join(lines)) + "\n")
