"""A batch as one message to PostgreSQL: its head, its events by COPY, and their keys.

Statements that come in one message are one transaction, and one round trip. Nothing in them is
quoted: what is not a number is written in hexadecimal digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from eventlog.batch import Batch, Head
from eventlog.copy_format import COPY_EVENTS, microseconds
from eventlog.envelope import NewEvent

HEAD_MOVED: Final = "LE001"
"""SQLSTATE: the ledger does not end where the batch begins, and nothing is written."""

LOCK_LEDGER: Final = "select pg_advisory_xact_lock(x'68656465'::integer, $1)"
"""Where batches of a ledger queue, before anyone locks its row."""

APPEND_ONE: Final = f"select append_one({', '.join(f'${n}' for n in range(1, 26))})"


def append_script(
    ledger_id: int, batch: Batch, after: Head, *, partitioned_to: int | None = None
) -> str:
    """Return the statements that store `batch`, one of which is `COPY_EVENTS`.

    Parameters
    ----------
    after : where the ledger ends after the batch
    partitioned_to : position up to which there have to be partitions, where some are lacking
    """
    before, events = batch.head, batch.events
    statements = [
        f"select append_begin({ledger_id}::smallint, {before.position}, {_bytes(before.root)}, "
        f"{after.position}, {_time(after.recorded_at)}, {_bytes(after.frontier)}, "
        f"{_bytes(after.root)})"
    ]
    if partitioned_to is not None:
        statements.append(f"select ensure_event_partitions({partitioned_to})")
    statements.append(COPY_EVENTS)
    streams = len({event.stream for event in events})
    is_numbered = any(event.source is not None for event in events)
    statements.append(
        f"select append_end({ledger_id}::smallint, {before.position}, {after.position}, "
        f"{streams}, {is_numbered})"
    )
    if batch.new_keys:
        statements.append(_insert_keys(ledger_id, batch.new_keys))
    return "; ".join(statements)


def one_event(
    ledger_id: int, batch: Batch, after: Head
) -> tuple[int | str | bytes | datetime | object | None, ...]:
    """Return the only event of `batch` as the arguments of `APPEND_ONE`."""
    before, event = batch.head, batch.events[0]
    window = event.window
    return (
        *(ledger_id, before.position, before.root),
        *(after.recorded_at, after.frontier, after.root),
        *_envelope(event, batch.versions[0], batch.leaves[0]),
        *((None,) * 4 if window is None else (
            window.start_ns, window.end_ns, window.reading_count, window.statistics,
        )),
    )  # fmt: skip


def _envelope(event: NewEvent, version: int, leaf: bytes) -> tuple[object, ...]:
    return (
        *(event.event_id, event.stream, version, event.type, event.schema_version),
        *(microseconds(event.occurred_at), event.actor, event.payload, event.payload_sha256),
        *(leaf, event.correlation_id, event.causation_id, event.traceparent),
        *(event.source, event.sequence),
    )


def _insert_keys(ledger_id: int, keys: Sequence[tuple[str, bytes, int, int]]) -> str:
    rows = ", ".join(
        f"({ledger_id}, {_text(key)}, {_bytes(content_sha256)}, {first}, {last})"
        for key, content_sha256, first, last in keys
    )
    return (
        "insert into idempotency_key "
        f"(ledger_id, key, content_sha256, first_position, last_position) values {rows}"
    )


def _bytes(value: bytes) -> str:
    return f"'\\x{value.hex()}'::bytea"


def _text(value: str) -> str:
    return f"convert_from({_bytes(value.encode())}, 'UTF8')"


def _time(moment: datetime) -> str:
    return f"timestamptz '{moment.isoformat()}'"
