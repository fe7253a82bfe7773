"""Reading the log: pages by position, by stream, and frames by time, each bounded.

A page has at most so many events and so many bytes, and says how far it has looked
(`Page.scanned_to`). A filter on streams is served by the index of streams; one on types or
categories looks at a bounded number of events, so that a page of it may be short, or empty, long
before the log ends: go on from `scanned_to`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Final

import asyncpg

from domain.errors import InvalidInput
from domain.events import (
    FRAME_RECORDED,
    UnknownEventType,
    are_types_known,
    check_type_known,
    format_time,
)
from domain.frames import FRAME_BYTES_MAX
from eventlog.archive.payloads import fill
from eventlog.database import statements_sent
from eventlog.envelope import RECORDED_COLUMNS, RecordedEvent
from eventlog.ledger import Ledger

PAGE_EVENTS_MAX: Final = 2_000
PAGE_BYTES_MAX: Final = 16 * 1024 * 1024
SCANNED_EVENTS_MAX: Final = 20_000
"""Events that one page of a filter on types or categories looks at."""

STREAM_PAGE_EVENTS: Final = 500
FILTER_VALUES_MAX: Final = 1_000
ARCHIVED_READING_BYTES: Final = 4
"""What a reading in the archive counts for in a page: its size is known once it is fetched."""

POSITION_MAX: Final = 2**63 - 1

_COLUMNS: Final = ", ".join(RECORDED_COLUMNS)


class PayloadOf(Enum):
    """Of which events a reader wants the payload; the others come without."""

    ALL = "payload"
    FACTS = "case when window_end_ns is null then payload end"
    NONE = "null::bytea"

    def covers(self, other: PayloadOf) -> bool:
        """Whether whoever wants `other` is content with this."""
        return self in (PayloadOf.ALL, other) or other is PayloadOf.NONE


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are wanted; what is empty does not restrict.

    Parameters
    ----------
    types : stored types, such as ``asset.alert_raised``
    streams : whole stream names
    categories : what stands before the colon of a stream name
    """

    types: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def restricts(self) -> bool:
        """Whether there are events that it does not want."""
        return bool(self.types or self.streams or self.categories)

    @property
    def wants_frames(self) -> bool:
        """Whether frames may be among what it wants."""
        return not self.types or FRAME_RECORDED in self.types

    def wants(self, event: RecordedEvent) -> bool:
        """Whether `event` is wanted."""
        return (
            (not self.types or event.type in self.types)
            and (not self.streams or event.stream in self.streams)
            and (not self.categories or category_of(event.stream) in self.categories)
        )


ALL_EVENTS: Final = EventFilter()


class Page(list[RecordedEvent]):
    """Events in the order they were asked for, and how far the log was looked through for them.

    `scanned_to` is where to go on: the `after` of the next page, or the `before` of the next one
    backwards. It may lie beyond the last event where a filter let nothing else through.
    """

    def __init__(self, events: Iterable[RecordedEvent], scanned_to: int) -> None:
        super().__init__(events)
        self.scanned_to = scanned_to


def category_of(stream: str) -> str:
    """Return what stands before the colon of a stream's name."""
    return stream.partition(":")[0]


def before_unknown(events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
    """Return `events` up to the first whose type this software does not know.

    For whoever vouches for all up to a position, whatever it makes of each: a type it does not
    know may be one that a newer version of it would heed.

    Raises
    ------
    UnknownEventType
        ``event.unknown_type``: that is the very first of them
    """
    if are_types_known({event.type for event in events}):
        return events
    for n, event in enumerate(events):
        try:
            check_type_known(event.type, event.schema_version)
        except UnknownEventType as unknown:
            if n == 0:
                raise unknown.at(event.ledger, event.position) from None
            return events[:n]
    return events


# --- by position --------------------------------------------------------------------------


async def read_page(
    ledger: Ledger,
    after: int,
    *,
    up_to: int | None = None,
    limit: int = 500,
    wanted: EventFilter = ALL_EVENTS,
    payloads: PayloadOf = PayloadOf.ALL,
    bytes_max: int | None = None,
) -> Page:
    """Return events beyond position `after`, oldest first.

    At most `limit` events, and no more payload and statistics than `bytes_max` (at most and by
    default `PAGE_BYTES_MAX`), but at least one event. Without a filter an empty page says that
    there is nothing beyond; with one, go on until `scanned_to` has come as far as is wanted.

    Raises
    ------
    InvalidInput
        ``page.limit``, ``filter.too_many``
    """
    up_to = POSITION_MAX if up_to is None else up_to
    rows = await _page_rows(ledger, (after, up_to), limit, wanted, payloads, bytes_max)
    events = await _recorded(ledger, rows, payloads)
    if not wanted.restricts:
        return Page(events, events[-1].position if events else after)
    looked_to, found = rows[0][_LOOKED_TO], rows[0][_FOUND]
    cut = found == limit or found > len(events)
    return Page(events, events[-1].position if cut else max(looked_to, after))


async def read_page_backwards(
    ledger: Ledger,
    before: int | None = None,
    *,
    down_to: int = 1,
    limit: int = 500,
    wanted: EventFilter = ALL_EVENTS,
    payloads: PayloadOf = PayloadOf.ALL,
    bytes_max: int | None = None,
) -> Page:
    """Return events before position `before`, newest first; None begins with the last event.

    Bounded as `read_page` is; what remains lies before `scanned_to`, and all has been looked at
    once that is `down_to`.

    Raises
    ------
    InvalidInput
        ``page.limit``, ``filter.too_many``
    """
    below = POSITION_MAX if before is None else before - 1
    rows = await _page_rows(
        ledger, (down_to - 1, below), limit, wanted, payloads, bytes_max, backwards=True
    )
    events = await _recorded(ledger, rows, payloads)
    if not wanted.restricts:
        return Page(events, events[-1].position if events else down_to)
    looked_to, found = rows[0][_LOOKED_TO], rows[0][_FOUND]
    cut = found == limit or found > len(events)
    return Page(events, events[-1].position if cut else max(looked_to + 1, down_to))


async def read_pages(
    ledger: Ledger,
    after: int,
    *,
    up_to: int,
    limit: int = 500,
    wanted: EventFilter = ALL_EVENTS,
    payloads: PayloadOf = PayloadOf.ALL,
) -> AsyncGenerator[Page, None]:
    """Yield page after page from beyond `after` to `up_to`, fetching the next one meanwhile.

    So two pages are held at a time. Ends where the log does if that is before `up_to`.
    """

    def fetch(after: int) -> asyncio.Task[Page]:
        return asyncio.create_task(
            read_page(ledger, after, up_to=up_to, limit=limit, wanted=wanted, payloads=payloads)
        )

    coming = fetch(after)
    try:
        while True:
            page = await coming
            more = after < page.scanned_to < up_to
            after = page.scanned_to
            if more:
                coming = fetch(after)
                await statements_sent()
            if page:
                yield page
            if not more:
                return
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


async def read_event(ledger: Ledger, position: int) -> RecordedEvent | None:
    """Return the event at `position`, or None when the log is shorter."""
    page = await read_page(ledger, position - 1, up_to=position, limit=1)
    return page[0] if page else None


async def position_at(ledger: Ledger, moment: datetime) -> int:
    """Return the position of the last event that was recorded at or before `moment`.

    What the log was at that time is everything up to there: give it as `up_to` or `as_of`. Of a
    moment that has not passed yet, or only just, the answer may still grow.

    Raises
    ------
    InvalidInput
        ``event.naive_time``, ``event.time_out_of_range``
    """
    format_time(moment)
    position: int = await ledger.pool.fetchval(
        "select position_recorded_by($1, $2)", ledger.ledger_id, moment
    )
    return position


# --- by stream ----------------------------------------------------------------------------


async def read_stream(
    ledger: Ledger,
    stream: str,
    *,
    from_version: int = 1,
    up_to_version: int | None = None,
    as_of: int | None = None,
    limit: int = 500,
    backwards: bool = False,
    payloads: PayloadOf = PayloadOf.ALL,
) -> list[RecordedEvent]:
    """Return events of `stream` from `from_version` on, oldest first or, `backwards`, newest.

    At most `limit` events and `PAGE_BYTES_MAX`, but at least one where there is one.

    Parameters
    ----------
    as_of : position of the log; the stream as it was then

    Raises
    ------
    InvalidInput
        ``page.limit``
    """
    _check_limit(limit)
    last = POSITION_MAX if up_to_version is None else up_to_version
    if as_of is not None:
        last = min(last, await stream_version_at(ledger, stream, as_of))
    rows = await ledger.pool.fetch(
        _run_sql("version", payloads, backwards, of_stream=True),
        ledger.ledger_id,
        from_version - 1,
        last,
        limit,
        PAGE_BYTES_MAX,
        stream,
    )
    return await _recorded(ledger, rows, payloads)


async def read_whole_stream(
    ledger: Ledger, stream: str, *, as_of: int | None = None
) -> AsyncIterator[RecordedEvent]:
    """Yield every event of `stream`, oldest first, page by page; `as_of` as in `read_stream`."""
    version = 1
    last = None if as_of is None else await stream_version_at(ledger, stream, as_of)
    while page := await read_stream(
        ledger, stream, from_version=version, up_to_version=last, limit=STREAM_PAGE_EVENTS
    ):
        for event in page:
            yield event
        if _is_last(page):
            return
        version = page[-1].version + 1


def _is_last(page: Sequence[RecordedEvent]) -> bool:
    """Whether nothing but the end of its stream can have ended `page`.

    It was cut neither by the number of events nor by their bytes, however large the next one is.
    """
    if len(page) >= STREAM_PAGE_EVENTS or any(event.is_frame for event in page):
        return False
    size = sum(len(event.payload or b"") for event in page)
    return size + FRAME_BYTES_MAX <= PAGE_BYTES_MAX


async def stream_version_at(ledger: Ledger, stream: str, position: int) -> int:
    """Return the version of `stream` as of `position`, 0 before its first event."""
    version: int = await ledger.pool.fetchval(
        "select stream_version_at($1, $2, $3)", ledger.ledger_id, stream, position
    )
    return version


async def stream_versions_at(
    ledger: Ledger, streams: Sequence[str], position: int
) -> dict[str, int]:
    """Return the version of each of `streams` as of `position`, in one statement."""
    rows = await ledger.pool.fetch(
        "select stream, stream_version_at($1, stream, $3) as version "
        "from unnest($2::text[]) as wanted(stream)",
        ledger.ledger_id,
        list(dict.fromkeys(streams)),
        position,
    )
    return {row["stream"]: row["version"] for row in rows}


# --- frames by time -----------------------------------------------------------------------


async def read_frames(
    ledger: Ledger,
    stream: str,
    *,
    start_ns: int,
    end_ns: int,
    limit: int,
    after: tuple[int, int] = (-(2**63), 0),
) -> list[RecordedEvent]:
    """Return frames of `stream` with readings from `start_ns` to `end_ns`, in time order.

    At most `limit` frames and `PAGE_BYTES_MAX` of payload, but at least one where there is one.

    Parameters
    ----------
    after : (window end in ns, position) of the frame after which to go on; the frames of two
        agents may well end at the same nanosecond
    """
    _check_limit(limit)
    rows = await ledger.pool.fetch(
        f"""
        select * from (
            select {_COLUMNS}, payload,
                sum({_size(PayloadOf.ALL)}) over (order by window_end_ns, position) as running,
                row_number() over (order by window_end_ns, position) as place
            from event
            where ledger_id = $1 and stream = $2 and window_end_ns is not null
                and window_end_ns >= $3 and window_start_ns <= $4
                and (window_end_ns, position) > ($7, $8)
            order by window_end_ns, position limit $5
        ) page where running <= $6 or place = 1
        order by window_end_ns, position
        """,
        ledger.ledger_id,
        stream,
        start_ns,
        end_ns,
        limit,
        PAGE_BYTES_MAX,
        *after,
    )
    return await _recorded(ledger, rows)


# --- rows ---------------------------------------------------------------------------------


async def _recorded(
    ledger: Ledger, rows: Sequence[asyncpg.Record], payloads: PayloadOf = PayloadOf.ALL
) -> list[RecordedEvent]:
    """Return the events of `rows`: the one place where every page's events are made."""
    name = ledger.name
    events = [RecordedEvent(name, row) for row in rows if row[0] is not None]
    # Facts stay in their rows; only frames are ever archived.
    return (
        await fill(ledger.pool, ledger.ledger_id, events) if payloads is PayloadOf.ALL else events
    )


async def _page_rows(
    ledger: Ledger,
    positions: tuple[int, int],
    limit: int,
    wanted: EventFilter,
    payloads: PayloadOf,
    bytes_max: int | None,
    *,
    backwards: bool = False,
) -> list[asyncpg.Record]:
    """Return the rows of a page of what lies beyond the first of `positions`, up to the second.

    With a filter there is at least one row; where nothing was found it holds no event.
    """
    _check_limit(limit)
    bytes_max = PAGE_BYTES_MAX if bytes_max is None else min(bytes_max, PAGE_BYTES_MAX)
    run = (ledger.ledger_id, *positions, limit, bytes_max)
    if not wanted.restricts:
        return await ledger.pool.fetch(_run_sql("position", payloads, backwards), *run)
    for values in (wanted.types, wanted.streams, wanted.categories):
        _check_filter_values(values)
    streams = wanted.streams
    if streams and wanted.categories:
        streams = tuple(s for s in streams if category_of(s) in wanted.categories)
    return await ledger.pool.fetch(
        _filtered_sql(payloads, backwards, by_stream=bool(wanted.streams)),
        *run,
        max(1, SCANNED_EVENTS_MAX // max(1, len(streams))),
        list(wanted.types) or None,
        list(streams) if wanted.streams else list(wanted.categories) or None,
    )


_LOOKED_TO: Final = len(RECORDED_COLUMNS) + 1
_FOUND: Final = _LOOKED_TO + 1


_SIZES: Final = {
    # An archived payload is fetched as well; at eight bytes a reading it is not underestimated.
    PayloadOf.ALL: "coalesce(octet_length(payload), "
    "case payload_tier when 1 then 8 * reading_count end, 0) + ",
    PayloadOf.FACTS: f"coalesce(octet_length({PayloadOf.FACTS.value}), 0) + ",
    PayloadOf.NONE: "",
}


def _size(payloads: PayloadOf) -> str:
    """Return the bytes that count of a row, in SQL. Nothing is fetched or unpacked for it."""
    return f"{_SIZES[payloads]}coalesce(octet_length(statistics), 0)"


@cache
def _run_sql(key: str, payloads: PayloadOf, backwards: bool, *, of_stream: bool = False) -> str:
    """Return the statement that reads a run of consecutive `key`: positions, or versions.

    Parameters are the ledger, the key beyond which to begin, the last one, the limits in events
    and in bytes, and the stream. Few pages are cut by their bytes, so the sum is looked at first.
    """
    order, edge, inside = ("desc", "min", ">=") if backwards else ("asc", "max", "<=")
    run = f"ledger_id = $1 and {key} > $2 and {key} <= $3" + (
        " and stream = $6" if of_stream else ""
    )
    sized = f"""
        select {key} as key, {_size(payloads)} as size
        from event where {run} order by {key} {order} limit $4
    """
    return f"""
        select {_COLUMNS}, {payloads.value} as payload
        from event where {run} and {key} {inside} (
            select case when whole.bytes <= $5 then whole.edge else (
                select {edge}(key) from (
                    select key, size,
                        sum(size) over (order by key {order} rows unbounded preceding) as running
                    from ({sized}) sized
                ) summed where running <= $5 or running = size
            ) end
            from (select {edge}(key) as edge, sum(size) as bytes from ({sized}) sized) whole
        )
        order by {key} {order}
    """


@cache
def _filtered_sql(payloads: PayloadOf, backwards: bool, *, by_stream: bool) -> str:
    """Return the statement that reads what a filter wants of a range of positions.

    Parameters are as in `_run_sql`, then how many events to look at (of each stream, where there
    are streams), the types, and the streams or else the categories; null for any. Each row also
    tells how far was looked, and how many events were found before bytes were counted; a row
    without an event tells that alone.
    """
    order = "desc" if backwards else "asc"
    looked, found = (
        (_looked_in_streams(backwards), _found_in_streams(payloads, order))
        if by_stream
        else (_looked_by_position(backwards), _found_by_position(payloads))
    )
    return f"""
        with bounds as materialized (
            select $2::bigint as low, least($3, position) as high from ledger where ledger_id = $1
        ), {looked},
        found as materialized ({found} order by position {order} limit $4),
        kept as (
            select position from (
                select position, size,
                    sum(size) over (order by position {order} rows unbounded preceding) as running
                from found
            ) summed where running <= $5 or running = size
        )
        select {_COLUMNS}, {payloads.value} as payload,
            {"looked.low" if backwards else "looked.high"}, (select count(*) from found)
        from looked left join event on ledger_id = $1 and position > $2 and position <= $3
            and position = any (array(select position from kept))
        order by position {order}
    """


def _looked_by_position(backwards: bool) -> str:
    return (
        "looked as materialized (select greatest(low, high - $6) as low, high from bounds)"
        if backwards
        else "looked as materialized (select low, least(high, low + $6) as high from bounds)"
    )


def _found_by_position(payloads: PayloadOf) -> str:
    return f"""
        select position, {_size(payloads)} as size from event
        where ledger_id = $1 and position > (select low from looked)
            and position <= (select high from looked)
            and ($7::text[] is null or type = any ($7))
            and ($8::text[] is null or split_part(stream, ':', 1) = any ($8))
    """


def _looked_in_streams(backwards: bool) -> str:
    """Return the versions of each stream to look at, and the positions all of them cover.

    A stream that goes on beyond its versions bounds the range for all: up to there, nothing of
    any stream is left out.
    """
    side, first, last, covered = (
        ("high", "version - $6", "version", "greatest(low, max(beyond)) as low, high")
        if backwards
        else ("low", "version", "version + $6", "low, least(high, min(beyond)) as high")
    )
    turn = "first" if backwards else "last"
    return f"""
        stream as materialized (
            select name, {first} as first, {last} as last from (
                select name, stream_version_at($1, name, {side}) as version
                from unnest($8::text[]) name, bounds
            ) standing
        ), looked as materialized (
            select {covered} from bounds, (
                select (
                    select position from event
                    where ledger_id = $1 and event.stream = name and event.version = {turn}
                ) as beyond from stream
                union all select null
            ) turns group by low, high
        )
    """


def _found_in_streams(payloads: PayloadOf, order: str) -> str:
    return f"""
        select position, size from stream cross join lateral (
            select position, {_size(payloads)} as size from event
            where ledger_id = $1 and event.stream = name and version > first and version <= last
                and position > (select low from looked) and position <= (select high from looked)
                and ($7::text[] is null or type = any ($7))
            order by version {order} limit $4
        ) of_stream
    """


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= PAGE_EVENTS_MAX:
        raise InvalidInput(
            "page.limit",
            f"a page has 1 to {PAGE_EVENTS_MAX} events, not {limit}",
            value=limit,
            limit=PAGE_EVENTS_MAX,
        )


def _check_filter_values(values: Sequence[str]) -> None:
    if len(values) > FILTER_VALUES_MAX:
        raise InvalidInput(
            "filter.too_many",
            f"a filter names at most {FILTER_VALUES_MAX} values of a kind, not {len(values)}",
            value=len(values),
            limit=FILTER_VALUES_MAX,
        )
