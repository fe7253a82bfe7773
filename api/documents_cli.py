"""`heddle document`: files in by revision, and out again as they were released."""

from __future__ import annotations

import asyncio
import json
import mimetypes
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from domain.documents.document import DocumentKind, ReleaseDocument
from domain.errors import InvalidInput

if TYPE_CHECKING:
    from eventlog.documents import ContentStore
    from eventlog.ledger import Ledger

UNKNOWN_MEDIA_TYPE: Final = "application/octet-stream"
_MEDIA_TYPES: Final = {".step": "model/step", ".stp": "model/step", ".stl": "model/stl"}
"""Of designs, which not every system's table has."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

app = typer.Typer(no_args_is_help=True, help="Documents by revision: add and get their files.")


def register(parent: typer.Typer) -> None:
    """Add these commands to `parent`."""
    parent.add_typer(app, name="document")


@app.command()
def add(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The file.")],
    document_id: Annotated[str, typer.Option("--id", help="Name of the document, such as DRW-7.")],
    revision: Annotated[str, typer.Option("--revision", help="Name of the revision, such as B.")],
    kind: Annotated[DocumentKind, typer.Option("--kind", help="What it is.")],
    actor: Annotated[str, typer.Option("--actor", help="Who releases it, such as user:mara.")],
    title: Annotated[str, typer.Option("--title", help="What people call it.")] = "",
    part_number: Annotated[
        str | None, typer.Option("--part-number", help="What a design is of.")
    ] = None,
    media_type: Annotated[
        str | None, typer.Option("--media-type", help="Else it follows from the file's name.")
    ] = None,
    effective_from: Annotated[
        str | None, typer.Option("--effective-from", help="ISO 8601 with a zone; else now.")
    ] = None,
    effective_to: Annotated[
        str | None, typer.Option("--effective-to", help="ISO 8601 with a zone; else for ever.")
    ] = None,
    supersedes: Annotated[
        str | None, typer.Option("--supersedes", help="The revision that gives way to it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Store a file by its hash and release it as a revision; the same again changes nothing."""
    from api.services import utc_now

    now = utc_now()
    release = ReleaseDocument(
        document_id=document_id,
        revision=revision,
        kind=kind,
        title=title,
        sha256="",
        size_bytes=0,
        media_type=media_type or _media_type(file),
        part_number=part_number,
        effective_from=now if effective_from is None else _time(effective_from),
        effective_to=None if effective_to is None else _time(effective_to),
    )
    document, lines = asyncio.run(
        _add(file, release, actor, now, supersedes, effective_since_release=effective_from is None)
    )
    _say(document, lines, as_json=as_json)


@app.command()
def get(
    name: Annotated[str, typer.Argument(metavar="NAME@REV", help="Such as DRW-7@B.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", dir_okay=False, help="Where to write the file.")
    ],
    as_json: AsJson = False,
) -> None:
    """Write a revision's file, once it is known to be what was released."""
    document, lines = asyncio.run(_get(name, output))
    _say(document, lines, as_json=as_json)


def _media_type(file: Path) -> str:
    known = _MEDIA_TYPES.get(file.suffix.lower()) or mimetypes.guess_type(file.name)[0]
    return known or UNKNOWN_MEDIA_TYPE


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise _bad_time(text) from error
    if moment.tzinfo is None:
        raise _bad_time(text)
    return moment.astimezone(UTC)


def _bad_time(text: str) -> InvalidInput:
    return InvalidInput(
        "document.time",
        f"{text!r:.40} is no time with a zone",
        hint="such as 2025-04-01T06:00:00Z",
        value=text[:40],
    )


@asynccontextmanager
async def _opened() -> AsyncIterator[tuple[Ledger, ContentStore]]:
    from api.database import open_pool
    from api.settings import ServerSettings
    from eventlog.documents import ContentStore
    from eventlog.ledger import Ledger

    settings = ServerSettings.from_environment()
    contents = ContentStore(settings.documents_url or str(settings.data_dir / "documents"))
    async with open_pool(settings) as (pool, _url):
        ledger = await Ledger.open(pool, settings.ledger)
        try:
            yield ledger, contents
        finally:
            await ledger.close()


async def _add(
    file: Path,
    release: ReleaseDocument,
    actor: str,
    now: datetime,
    supersedes: str | None,
    *,
    effective_since_release: bool,
) -> tuple[dict[str, Any], list[str]]:
    from dataclasses import replace

    from api.services import new_event_id
    from domain.documents.document import SupersedeDocument, revision_name
    from eventlog.commands import handle
    from eventlog.documents import add_document, read_document

    recording: Any = {
        "actor": actor,
        "occurred_at": now,
        "event_id": lambda _: new_event_id(),
    }
    async with _opened() as (ledger, contents):
        known = (await read_document(ledger, release.document_id)).revisions.get(release.revision)
        if known is not None and effective_since_release:
            # Nobody asked for another time: the same file again is no other release.
            release = replace(release, effective_from=known.released.effective_from)
        with file.open("rb") as source:
            released, content = await add_document(ledger, contents, source, release, **recording)
        superseded = None
        if supersedes is not None:
            command = SupersedeDocument(release.document_id, supersedes, release.revision)
            superseded = await handle(ledger, command, **recording)
    name = revision_name(release.document_id, release.revision)
    document = {
        "revision": name,
        "sha256": content.sha256,
        "size_bytes": content.size_bytes,
        "media_type": release.media_type,
        "documents": contents.url,
        "released": bool(released.events),
        "superseded": supersedes if superseded is not None and superseded.events else None,
        "position": (superseded or released).position,
    }
    lines = [
        f"{name} is {content.sha256}, {content.size_bytes} bytes below {contents.url}; "
        + ("released" if released.events else "it was released before"),
    ]
    if superseded is not None:
        told = "gave way to it" if superseded.events else "had given way to it before"
        lines.append(f"{revision_name(release.document_id, str(supersedes))} {told}")
    return document, lines


async def _get(name: str, output: Path) -> tuple[dict[str, Any], list[str]]:
    from domain.documents.document import check_revision_name, get_revision
    from eventlog.documents import read_document

    document_id, _, wanted = check_revision_name(name).partition("@")
    async with _opened() as (ledger, contents):
        revision = get_revision(document_id, wanted, await read_document(ledger, document_id))
        content = await asyncio.to_thread(contents.save, revision.released.sha256, output)
    document = {
        "revision": name,
        "sha256": content.sha256,
        "size_bytes": content.size_bytes,
        "media_type": revision.released.media_type,
        "output": str(output),
        "superseded_by": revision.superseded_by,
        "withdrawn": revision.withdrawn,
    }
    lines = [f"{output} is {name}: {content.sha256}, {content.size_bytes} bytes"]
    if revision.withdrawn:
        lines.append(f"{name} is withdrawn: it must not be used any more")
    elif revision.superseded_by is not None:
        lines.append(f"{name} is superseded by {revision.superseded_by}")
    return document, lines


def _say(document: dict[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    sys.stdout.write((json.dumps(document) if as_json else "\n".join(lines)) + "\n")
