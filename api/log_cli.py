"""`heddle log`: the log as lines, backwards from its end or onwards from a point, and following.

Exit status: 0 when all was shown, 2 for a failure told on stderr, 130 after Ctrl-C, 141 when
whoever read the output went away.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from domain.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from eventlog.envelope import RecordedEvent
    from eventlog.following.tail import Tail
    from eventlog.ledger import Ledger
    from eventlog.reading import EventFilter, PayloadOf

LAST_DEFAULT: Final = 20
LAST_MAX: Final = 10_000
"""Events from the end are collected before the first is shown."""

PAGE_EVENTS: Final = 500
INTERRUPTED: Final = 130
READER_GONE: Final = 141

_AGO: Final = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("log")(log)


def log(
    type_: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only this type, such as asset.alert_raised; repeatable."),
    ] = None,
    stream: Annotated[
        list[str] | None,
        typer.Option("--stream", help="Only this stream, such as asset:press-07; repeatable."),
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option("--category", help="Only streams such as asset:…; repeatable."),
    ] = None,
    from_: Annotated[
        int | None, typer.Option("--from", min=1, help="Start with the event at this position.")
    ] = None,
    after: Annotated[
        int | None, typer.Option(min=0, help="Start after the event at this position.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Start with what was recorded then: 2026-03-09T10:34:00Z, or 15m ago."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="End with what was recorded by then; as --since.")
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(
            "--last",
            "-n",
            min=0,
            max=LAST_MAX,
            help=f"Only the last so many. {LAST_DEFAULT} where nothing says where to start.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with each event as it is recorded.")
    ] = False,
    ledger: Annotated[
        str | None, typer.Option(help="Which ledger; HEDDLE_LEDGER without it.")
    ] = None,
    payloads: Annotated[
        bool, typer.Option("--payloads", help="With --json: each payload's bytes too, base64.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one event a line.")] = False,
) -> None:
    """Show events of the log, oldest first."""
    now = datetime.now(UTC)
    asked = Asked(
        types=tuple(type_ or ()),
        streams=tuple(stream or ()),
        categories=tuple(category or ()),
        after=max(after or 0, (from_ or 1) - 1),
        since=None if since is None else moment_of(since, now),
        until=None if until is None else moment_of(until, now),
        last=last,
        follow=follow,
        payloads=payloads and as_json,
    )
    if last is None and after is None and from_ is None and since is None:
        asked.last = LAST_DEFAULT
    if follow and until is not None:
        raise InvalidInput(
            "log.follow_until",
            "--follow does not end, and --until says where to",
            hint="leave one of them out",
            value=until,
        )
    try:
        asyncio.run(_show(asked, ledger, _writer(as_json=as_json, payloads=payloads)))
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # What is still buffered has nobody to read it, and the interpreter would say so at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(READER_GONE) from None


@dataclass
class Asked:
    """What is to be shown. Positions and times count alike: what lies beyond all of them."""

    types: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    after: int = 0
    since: datetime | None = None
    until: datetime | None = None
    last: int | None = None
    follow: bool = False
    payloads: bool = False

    @property
    def wanted(self) -> EventFilter:
        """The filter that the log understands."""
        from eventlog.reading import EventFilter

        return EventFilter(self.types, self.streams, self.categories)

    @property
    def payload_of(self) -> PayloadOf:
        """Of which events the payload is shown."""
        from eventlog.reading import PayloadOf

        return PayloadOf.ALL if self.payloads else PayloadOf.FACTS


def moment_of(text: str, now: datetime) -> datetime:
    """Return the time that `text` spells: RFC 3339 with a zone, or how long before `now`.

    Raises
    ------
    InvalidInput
        ``time.malformed``, ``event.naive_time``
    """
    from domain.events import format_time

    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            "time.malformed",
            f"{text!r:.80} is no time",
            hint="give 2026-03-09T10:34:00Z, or how long ago: 90s, 15m, 6h, 2d",
            value=text[:80],
        ) from error
    format_time(moment)
    return moment


def _writer(*, as_json: bool, payloads: bool) -> Callable[[RecordedEvent], str]:
    import orjson

    from api.event_text import Lines, document_of

    if as_json:
        return lambda event: orjson.dumps(document_of(event, with_payload=payloads)).decode()
    if not sys.stdout.isatty():
        return Lines().of
    return Lines("NO_COLOR" not in os.environ, shutil.get_terminal_size().columns).of


# --- reading ------------------------------------------------------------------------------


async def _show(asked: Asked, name: str | None, text: Callable[[RecordedEvent], str]) -> None:
    async with aclosing(_available(_events(asked, name))) as pages:
        async for page in pages:
            for event in page:
                sys.stdout.write(text(event) + "\n")
            sys.stdout.flush()


async def _available(
    pages: AsyncGenerator[Sequence[RecordedEvent], None],
) -> AsyncGenerator[Sequence[RecordedEvent], None]:
    """Yield `pages`, and tell that the database was lost as any other failure is told."""
    from eventlog.database import CONNECTION_LOST

    try:
        async with aclosing(pages):
            async for page in pages:
                yield page
    except CONNECTION_LOST as error:
        raise Unavailable("log.unavailable", f"the log cannot be read now: {error}") from error


async def _events(asked: Asked, name: str | None) -> AsyncGenerator[Sequence[RecordedEvent], None]:
    from eventlog.reading import read_pages

    async with _opened(name, following=asked.follow) as (ledger, tail):
        after, head = await _bounds(asked, ledger)
        if asked.last is None:
            async for page in read_pages(
                ledger,
                after,
                up_to=head,
                limit=PAGE_EVENTS,
                wanted=asked.wanted,
                payloads=asked.payload_of,
            ):
                yield page
        else:
            yield await _last(asked, ledger, after, head)
        if tail is not None:
            # It never gives up: once the database is back, it goes on where it was.
            following = tail.follow(
                max(after, head), wanted=asked.wanted, payloads=asked.payload_of
            )
            async with aclosing(following) as events:
                async for event in events:
                    yield [event]


async def _bounds(asked: Asked, ledger: Ledger) -> tuple[int, int]:
    """Return the position after which to begin, and the last one there is to show."""
    from eventlog.reading import position_at

    after, head = asked.after, await ledger.head()
    if asked.since is not None:
        just_before = asked.since - timedelta(microseconds=1)
        after = max(after, await position_at(ledger, just_before))
    if asked.until is not None:
        head = min(head, await position_at(ledger, asked.until))
    return after, head


async def _last(asked: Asked, ledger: Ledger, after: int, head: int) -> list[RecordedEvent]:
    """Return the last events that are wanted of those after `after` and up to `head`."""
    from eventlog.reading import read_page_backwards

    found: list[RecordedEvent] = []
    before = head + 1
    while before > after + 1 and (missing := (asked.last or 0) - len(found)) > 0:
        page = await read_page_backwards(
            ledger,
            before,
            down_to=after + 1,
            limit=min(missing, PAGE_EVENTS),
            wanted=asked.wanted,
            payloads=asked.payload_of,
        )
        found += page
        before = page.scanned_to
    return found[::-1]


@asynccontextmanager
async def _opened(
    name: str | None, *, following: bool
) -> AsyncIterator[tuple[Ledger, Tail | None]]:
    from api.database import existing_ledger, open_pool
    from api.settings import ServerSettings
    from eventlog.following.tail import Tail

    settings = ServerSettings.from_environment()
    async with (
        open_pool(settings) as (pool, database_url),
        existing_ledger(pool, name or settings.ledger) as ledger,
    ):
        tail = Tail(ledger, database_url) if following else None
        try:
            yield ledger, tail
        finally:
            if tail is not None:
                await tail.close()
