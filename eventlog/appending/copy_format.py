"""Events as PostgreSQL takes them in: rows of binary COPY, and columns.

Layout: the manual of PostgreSQL, "COPY", "Binary Format". Times are microseconds since 2000.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from eventlog.envelope import POSTGRES_EPOCH, NewEvent

EVENT_COLUMNS: Final = (
    "ledger_id",
    "position",
    "version",
    "occurred_at",
    "recorded_at",
    "schema_version",
    "event_id",
    "payload_sha256",
    "leaf_hash",
    "stream",
    "type",
    "actor",
    "payload",
    "correlation_id",
    "causation_id",
    "traceparent",
    "source",
    "sequence",
    "window_start_ns",
    "window_end_ns",
    "reading_count",
    "statistics",
)
TEXTS_REMEMBERED_MAX: Final = 16_384
ROWS_AT_ONCE: Final = 200

_HEAD: Final = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
_END: Final = struct.pack(">h", -1)
_FIXED: Final = struct.Struct(">hihiqiqiqiqihi16si32si32s").pack
_NULL: Final = struct.pack(">i", -1)
_NO_OTHERS: Final = 9 * _NULL
_DAY_US: Final = 86_400_000_000


COPY_EVENTS: Final = f"copy event ({', '.join(EVENT_COLUMNS)}) from stdin (format binary)"


def copy_block(rows: Sequence[bytes]) -> bytes:
    """Return `rows` of `copy_row` as what follows `COPY_EVENTS`."""
    return b"".join((_HEAD, *rows, _END))


async def copy_stream(rows: Sequence[bytes]) -> AsyncIterator[bytes]:
    """Yield `rows` of `copy_row` as what follows `COPY_EVENTS`, in blocks."""
    yield _HEAD
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield b"".join(rows[start : start + ROWS_AT_ONCE])
    yield _END


def copy_row(
    ledger_id: int, event: NewEvent, position: int, version: int, recorded_us: int, leaf: bytes
) -> bytes:
    """Return a row of `EVENT_COLUMNS`."""
    payload = event.payload
    fixed = _FIXED(
        22, 2, ledger_id, 8, position, 8, version,
        8, microseconds(event.occurred_at), 8, recorded_us, 2, event.schema_version,
        16, event.event_id.bytes, 32, event.payload_sha256, 32, leaf,
    )  # fmt: skip
    is_plain = (
        event.source is None
        and event.window is None
        and event.correlation_id is None
        and event.causation_id is None
        and event.traceparent is None
    )
    return b"".join(
        (
            fixed,
            _text(event.stream),
            _text(event.type),
            _text(event.actor),
            len(payload).to_bytes(4, "big"),
            payload,
            _NO_OTHERS if is_plain else _others(event),
        )
    )


def microseconds(moment: datetime) -> int:
    """Return `moment` as PostgreSQL's ``timestamptz`` holds it."""
    since: timedelta = moment - POSTGRES_EPOCH
    return since.days * _DAY_US + since.seconds * 1_000_000 + since.microseconds


Column = Sequence[Any] | bytes | None
"""A column of some events: an array, values of one width end to end, or None where all are NULL."""


def key_columns(events: Sequence[NewEvent], versions: Sequence[int]) -> tuple[Column, ...]:
    """Return the columns of `events` as the SQL function ``store_keys`` takes them."""
    streams = [event.stream for event in events]
    last = dict(zip(streams, versions, strict=True))
    ends: tuple[Column, ...] = (None, None, None)
    if len(last) < len(streams):
        first = dict(zip(reversed(streams), reversed(versions), strict=True))
        ends = (list(last), [first[stream] for stream in last], list(last.values()))
    return (
        b"".join([event.event_id.bytes for event in events]),
        streams,
        versions,
        *ends,
        _column([event.source for event in events]),
        _column([event.sequence for event in events]),
    )


def other_columns(events: Sequence[NewEvent], leaves: Sequence[bytes]) -> tuple[Column, ...]:
    """Return the columns that the SQL function ``store_events`` takes beyond `key_columns`."""
    columns: tuple[Column, ...] = (
        _one_for_all([event.type for event in events]),
        _one_for_all([event.schema_version for event in events]),
        [microseconds(event.occurred_at) for event in events],
        _one_for_all([event.actor for event in events]),
        [event.payload for event in events],
        b"".join([event.payload_sha256 for event in events]),
        b"".join(leaves),
        _column([event.correlation_id for event in events]),
        _column([event.causation_id for event in events]),
        _column([event.traceparent for event in events]),
    )
    windows = [event.window for event in events]
    if _column(windows) is None:
        return (*columns, None, None, None, None)
    return (
        *columns,
        [None if w is None else w.start_ns for w in windows],
        [None if w is None else w.end_ns for w in windows],
        [None if w is None else w.reading_count for w in windows],
        [None if w is None else w.statistics for w in windows],
    )


def _one_for_all(values: list[Any]) -> Column:
    return values[:1] if values.count(values[0]) == len(values) else values


def _column(values: list[Any]) -> Column:
    return None if values.count(None) == len(values) else values


def _others(event: NewEvent) -> bytes:
    window = event.window
    parts = [
        _NULL if identifier is None else _field(identifier.bytes)
        for identifier in (event.correlation_id, event.causation_id)
    ]
    parts += [_NULL if text is None else _text(text) for text in (event.traceparent, event.source)]
    parts.append(_NULL if event.sequence is None else struct.pack(">iq", 8, event.sequence))
    if window is None:
        parts.append(4 * _NULL)
    else:
        numbers = (8, window.start_ns, 8, window.end_ns, 4, window.reading_count)
        parts += [struct.pack(">iqiqii", *numbers), _field(window.statistics)]
    return b"".join(parts)


@lru_cache(maxsize=TEXTS_REMEMBERED_MAX)
def _text(text: str) -> bytes:
    return _field(text.encode())


def _field(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value
