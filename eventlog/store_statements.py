"""The statements by which batches are stored, and what they take besides columns and rows."""

from __future__ import annotations

from typing import Any, Final

from eventlog.batch import Batch, Head
from eventlog.copy_format import microseconds

LOCK_LEDGER: Final = "select pg_advisory_xact_lock(x'68656465'::integer, $1)"
"""Where batches of a ledger queue, before anyone locks its row."""

STORE_ONE: Final = f"select store_one({', '.join(f'${n}' for n in range(1, 26))})"
STORE_KEYS: Final = f"select store_keys({', '.join(f'${n}' for n in range(1, 16))})"
STORE_EVENTS: Final = f"select store_events({', '.join(f'${n}' for n in range(1, 30))})"

INSERT_KEYS: Final = """
    insert into idempotency_key (ledger_id, key, content_sha256, first_position, last_position)
    select $1, * from unnest($2::text[], $3::bytea[], $4::bigint[], $5::bigint[])
"""


def heads(ledger_id: int, ledger: str, batch: Batch, after: Head) -> tuple[Any, ...]:
    """Return where the ledger has to end and where it will, as `STORE_KEYS` begins."""
    before = batch.head
    return (
        *(ledger_id, ledger, before.position, before.root),
        *(after.recorded_at, after.frontier, after.root),
    )


def one_event(ledger_id: int, batch: Batch, after: Head) -> tuple[Any, ...]:
    """Return the only event of `batch` as `STORE_ONE` takes it."""
    before, event, window = batch.head, batch.events[0], batch.events[0].window
    ends = (ledger_id, before.position, before.root, after.recorded_at, after.frontier, after.root)
    envelope = (
        *(event.event_id, event.stream, batch.versions[0], event.type, event.schema_version),
        *(microseconds(event.occurred_at), event.actor, event.payload, event.payload_sha256),
        *(batch.leaves[0], event.correlation_id, event.causation_id, event.traceparent),
        *(event.source, event.sequence),
    )
    if window is None:
        return (*ends, *envelope, None, None, None, None)
    return (
        *(*ends, *envelope),
        *(window.start_ns, window.end_ns, window.reading_count, window.statistics),
    )
