"""`heddle audit`: who did what to which object, when, and what it was before.

Exit status: 0 when all was shown, 2 for a failure told on stderr, 130 after Ctrl-C, 141 when
whoever read the output went away.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from api.log_cli import INTERRUPTED, READER_GONE, moment_of
from domain.errors import Unavailable

if TYPE_CHECKING:
    from eventlog.ledger import Ledger
    from projections.audit.trail import AuditEntry, AuditFilter

LAST_DEFAULT: Final = 20
LAST_MAX: Final = 100_000
PAGE_ENTRIES: Final = 500

WIDTHS: Final = {"position": 8, "actor": 16, "stream": 28}


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("audit")(audit)


def audit(
    actor: Annotated[
        list[str] | None,
        typer.Option("--actor", help="Only by him, such as user:mara; repeatable."),
    ] = None,
    object_: Annotated[
        list[str] | None,
        typer.Option("--object", help="Only to this, such as work-order:WO-7; repeatable."),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", help="Only of this kind: work_order.completed; repeatable."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Only recorded from then on: 2026-03-09T10:34:00Z, or 15m ago."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only recorded up to then; as --since.")] = None,
    as_of: Annotated[
        int | None, typer.Option("--as-of", min=0, help="As it was at this position of the log.")
    ] = None,
    last: Annotated[
        int, typer.Option("--last", "-n", min=1, max=LAST_MAX, help="Only the last so many.")
    ] = LAST_DEFAULT,
    ledger: Annotated[
        str | None, typer.Option(help="Which ledger; HEDDLE_LEDGER without it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one entry a line.")] = False,
) -> None:
    """Show who did what, newest first, with what it was before where it was corrected."""
    from projections.audit.trail import AuditFilter

    now = datetime.now(UTC)
    wanted = AuditFilter(
        tuple(actor or ()),
        tuple(object_ or ()),
        tuple(kind or ()),
        None if since is None else moment_of(since, now),
        None if until is None else moment_of(until, now),
    )
    text = _json_of if as_json else _lines_of
    try:
        asyncio.run(_show(wanted, ledger, as_of, last, text))
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # What is still buffered has nobody to read it, and the interpreter would say so at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(READER_GONE) from None


async def _show(
    wanted: AuditFilter,
    name: str | None,
    as_of: int | None,
    last: int,
    text: Callable[[AuditEntry], str],
) -> None:
    from eventlog.database import CONNECTION_LOST
    from projections.audit.trail import audit_trail

    before: int | None = None
    missing = last
    try:
        async with _opened(name) as ledger:
            while missing:
                page = await audit_trail(
                    ledger, wanted, first=min(missing, PAGE_ENTRIES), before=before, as_of=as_of
                )
                for entry in page.entries:
                    sys.stdout.write(text(entry) + "\n")
                sys.stdout.flush()
                if not page.more:
                    return
                # All pages are of one state of the log.
                as_of, before = page.as_of, page.entries[-1].position
                missing -= len(page.entries)
    except CONNECTION_LOST as error:
        raise Unavailable("log.unavailable", f"the log cannot be read now: {error}") from error


@asynccontextmanager
async def _opened(name: str | None) -> AsyncIterator[Ledger]:
    from api.database import existing_ledger, open_pool
    from api.settings import ServerSettings

    settings = ServerSettings.from_environment()
    async with (
        open_pool(settings) as (pool, _),
        existing_ledger(pool, name or settings.ledger) as ledger,
    ):
        yield ledger


# --- text ---------------------------------------------------------------------------------


def document_of(entry: AuditEntry) -> dict[str, Any]:
    """Return `entry` as a JSON document."""
    from domain.events import format_time

    change = entry.change
    return {
        "position": entry.position,
        "event_id": str(entry.event_id),
        "recorded_at": format_time(entry.recorded_at),
        "occurred_at": format_time(entry.occurred_at),
        "actor": entry.actor,
        "object": entry.stream,
        "kind": entry.type,
        "words": entry.words,
        "corrected_by": list(entry.corrected_by),
        "signatures": [
            {
                "position": signature.position,
                "signer": signature.signer,
                "signer_name": signature.signer_name,
                "meaning": signature.meaning,
                "signed_at": format_time(signature.signed_at),
            }
            for signature in entry.signatures
        ],
        "change": None
        if change is None
        else {
            "corrected_position": change.corrected_position,
            "previous_position": change.previous_position,
            "previous_erased": change.previous_erased,
            "reason": change.reason,
            "fields": {
                field.field: {"previous": field.previous, "now": field.now}
                for field in change.fields
            },
        },
    }


def _json_of(entry: AuditEntry) -> str:
    import orjson

    return orjson.dumps(document_of(entry)).decode()


def _lines_of(entry: AuditEntry) -> str:
    from domain.events import format_time

    when = format_time(entry.recorded_at)[:-4].replace("T", " ") + "Z"
    marks = [f"[corrected by {', '.join(map(str, entry.corrected_by))}]"] * bool(entry.corrected_by)
    marks += [
        f"[signed {signature.meaning} by {signature.signer_name} at {signature.position}]"
        for signature in entry.signatures
    ]
    lines = [
        "  ".join(
            (
                f"{entry.position:>{WIDTHS['position']}}",
                when,
                f"{entry.actor:<{WIDTHS['actor']}}",
                f"{entry.stream:<{WIDTHS['stream']}}",
                " ".join((entry.words, *marks)),
            )
        )
    ]
    if entry.change is not None:
        margin = " " * (WIDTHS["position"] + 4)
        if entry.change.previous_erased:
            lines.append(f"{margin}what was there before was erased")
        lines += [
            f"{margin}{field.field}: {_value(field.previous)} -> {_value(field.now)}"
            for field in entry.change.fields
        ]
    return "\n".join(_printable(line) for line in lines)


def _value(value: Any) -> str:
    import orjson

    return "nothing" if value is None else orjson.dumps(value).decode()


def _printable(text: str) -> str:
    """Return `text` without what could move a terminal's cursor or change its colours."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
