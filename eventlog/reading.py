"""Reading the log: pages by position, by stream, and frames by time. Every page is bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import asyncpg

from domain.errors import InvalidInput
from eventlog.database import Pool
from eventlog.envelope import FrameWindow, RecordedEvent
from eventlog.ledger import Ledger

PAGE_EVENTS_MAX: Final = 2_000
PAGE_BYTES_MAX: Final = 16 * 1024 * 1024

_COLUMNS: Final = """
    position, stream, version, type, schema_version, event_id, occurred_at, recorded_at, actor,
    correlation_id, causation_id, traceparent, source, sequence, payload_sha256, leaf_hash,
    window_start_ns, window_end_ns, reading_count, statistics
"""


class PayloadOf(Enum):
    """Of which events a reader wants the payload; the others come without."""

    ALL = "true"
    FACTS = "window_end_ns is null"
    NONE = "false"


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


ALL_EVENTS: Final = EventFilter()

_PAGE_SQL: Final = {
    payloads: f"""
        select * from (
            select *, sum(octet_length(payload)) over (order by position) as running,
                row_number() over (order by position) as place
            from (
                select {_COLUMNS}, case when {payloads.value} then payload end as payload
                from event
                where ledger_id = $1 and position > $2 and position <= $3
                    and ($4::text[] is null or type = any($4))
                    and ($5::text[] is null or stream = any($5))
                    and ($6::text[] is null or split_part(stream, ':', 1) = any($6))
                order by position limit $7
            ) event
        ) page where coalesce(running, 0) <= $8 or place = 1
        order by position
    """
    for payloads in PayloadOf
}


async def read_page(
    ledger: Ledger,
    after: int,
    *,
    up_to: int | None = None,
    limit: int = 500,
    wanted: EventFilter = ALL_EVENTS,
    payloads: PayloadOf = PayloadOf.ALL,
) -> list[RecordedEvent]:
    """Return events beyond position `after` in order; empty when there are none.

    At most `limit` events, and no more payload than `PAGE_BYTES_MAX` (but at least one event).

    Raises
    ------
    InvalidInput
        ``page.limit``
    """
    _check_limit(limit)
    rows = await ledger.pool.fetch(
        _PAGE_SQL[payloads],
        ledger.ledger_id,
        after,
        2**63 - 1 if up_to is None else up_to,
        list(wanted.types) or None,
        list(wanted.streams) or None,
        list(wanted.categories) or None,
        limit,
        PAGE_BYTES_MAX,
    )
    return [_recorded(ledger.name, row) for row in rows]


async def read_stream(
    ledger: Ledger,
    stream: str,
    *,
    from_version: int = 1,
    up_to_version: int | None = None,
    limit: int = 500,
    backwards: bool = False,
) -> list[RecordedEvent]:
    """Return events of `stream` from `from_version` on, oldest first or, `backwards`, newest."""
    _check_limit(limit)
    rows = await ledger.pool.fetch(
        f"""
        select {_COLUMNS}, payload from event
        where ledger_id = $1 and stream = $2 and version between $3 and $4
        order by version {"desc" if backwards else "asc"} limit $5
        """,
        ledger.ledger_id,
        stream,
        from_version,
        2**63 - 1 if up_to_version is None else up_to_version,
        limit,
    )
    return [_recorded(ledger.name, row) for row in rows]


async def read_whole_stream(ledger: Ledger, stream: str) -> AsyncIterator[RecordedEvent]:
    """Yield every event of `stream`, oldest first, page by page."""
    version = 1
    while page := await read_stream(ledger, stream, from_version=version):
        for event in page:
            yield event
        version = page[-1].version + 1


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
                sum(octet_length(payload)) over (order by window_end_ns, position) as running,
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
    return [_recorded(ledger.name, row) for row in rows]


async def read_event(ledger: Ledger, position: int) -> RecordedEvent | None:
    """Return the event at `position`, or None when the log is shorter."""
    page = await read_page(ledger, position - 1, up_to=position, limit=1)
    return page[0] if page else None


async def stream_versions(pool: Pool, ledger_id: int, streams: Sequence[str]) -> dict[str, int]:
    """Return the version of each of `streams` that exists."""
    rows = await pool.fetch(
        "select stream, version from stream_head where ledger_id = $1 and stream = any($2)",
        ledger_id,
        list(streams),
    )
    return {row["stream"]: row["version"] for row in rows}


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= PAGE_EVENTS_MAX:
        raise InvalidInput(
            "page.limit",
            f"a page has 1 to {PAGE_EVENTS_MAX} events, not {limit}",
            value=limit,
            limit=PAGE_EVENTS_MAX,
        )


def _recorded(ledger: str, row: asyncpg.Record) -> RecordedEvent:
    window = None
    if row["window_end_ns"] is not None:
        window = FrameWindow(
            row["window_start_ns"], row["window_end_ns"], row["reading_count"], row["statistics"]
        )
    return RecordedEvent(
        ledger=ledger,
        position=row["position"],
        stream=row["stream"],
        version=row["version"],
        type=row["type"],
        schema_version=row["schema_version"],
        event_id=row["event_id"],
        occurred_at=row["occurred_at"],
        recorded_at=row["recorded_at"],
        actor=row["actor"],
        correlation_id=row["correlation_id"],
        causation_id=row["causation_id"],
        traceparent=row["traceparent"],
        source=row["source"],
        sequence=row["sequence"],
        payload=row["payload"],
        payload_sha256=row["payload_sha256"],
        leaf_hash=row["leaf_hash"],
        window=window,
    )
