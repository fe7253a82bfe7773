"""A batch: the appends of one transaction, each with its outcome, numbered, hashed and encoded.

Pure: what the log held before comes in, what is to be stored comes out. All work on an event is
done when its append is taken in, while the batch before is being committed.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Protocol

from domain.errors import Conflict, HeddleError
from domain.events import format_time
from eventlog.appends import NO_STREAM, Append, Appended, IdempotencyKey, Placed
from eventlog.envelope import NewEvent, leaf_entry
from eventlog.merkle import Frontier, leaf_hash

BATCH_EVENTS_MAX: Final = 4_000
BATCH_BYTES_MAX: Final = 32 * 1024 * 1024

Content = tuple[str, str, int, bytes]
"""What has to be equal for a repetition to be the same event; see `NewEvent.content`."""


class Existing(Protocol):
    """An event that the log holds already, as far as a repetition is compared with it."""

    @property
    def content(self) -> Content:
        """What it says."""

    @property
    def placed(self) -> Placed:
        """Where it stands."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An event read from the log."""

    content: Content
    placed: Placed


@dataclass(slots=True)
class Row:
    """An event that the batch adds. `copied` is its row in binary COPY format."""

    event: NewEvent
    position: int
    version: int
    recorded_at: datetime
    leaf: bytes
    copied: bytes

    @property
    def content(self) -> Content:
        """What it says."""
        return self.event.content

    @property
    def placed(self) -> Placed:
        """Where it stands."""
        return Placed(self.position, self.version, self.recorded_at)


@dataclass(slots=True)
class Known:
    """What the log holds under the keys of a batch, and what was added since.

    `versions` names every stream the batch writes to or has expectations of; a stream that does
    not exist has version 0.
    """

    versions: dict[str, int] = field(default_factory=dict)
    identities: dict[uuid.UUID, Existing] = field(default_factory=dict)
    sequences: dict[tuple[str, int | None], Existing] = field(default_factory=dict)
    keys: dict[str, tuple[bytes, Sequence[Placed]]] = field(default_factory=dict)


NOTHING: Final = Known()


@dataclass(frozen=True, slots=True)
class Head:
    """Where a ledger ends."""

    position: int
    recorded_at: datetime
    frontier: bytes
    root: bytes


class Batch:
    """Gives appends their outcomes, positions, versions and leaves, beyond a head.

    Parameters
    ----------
    recorded_at : of every event of the batch, not before the head's
    previous : the batch that is being committed meanwhile; its events count as recorded
    """

    def __init__(
        self,
        ledger: str,
        ledger_id: int,
        head: Head,
        recorded_at: datetime,
        known: Known,
        previous: Batch | None = None,
    ) -> None:
        self.head = head
        self.recorded_at = recorded_at
        self.known = known
        self.position = head.position
        self.requests: list[Append] = []
        self.outcomes: list[Appended | HeddleError] = []
        self.rows: list[Row] = []
        self.new_keys: list[tuple[str, bytes, int, int]] = []
        self._ledger = ledger
        self._ledger_id = ledger_id
        self._frontier = Frontier(head.position, head.frontier)
        self._recorded_us = _microseconds(recorded_at)
        self._recorded_at_text = format_time(recorded_at)
        self._payload_bytes = 0
        self._previous = NOTHING if previous is None else previous.known

    def forget_previous(self) -> None:
        """Let go of the batch before this one: it is committed."""
        self._previous = NOTHING

    @property
    def is_full(self) -> bool:
        """Whether another append should wait for the next batch."""
        return len(self.rows) >= BATCH_EVENTS_MAX or self._payload_bytes >= BATCH_BYTES_MAX

    def add(self, request: Append) -> None:
        """Take `request` in and note its outcome, which holds once the batch is committed."""
        self.requests.append(request)
        self.outcomes.append(self._outcome(request))

    def sealed(self) -> Head:
        """Return where the ledger ends after this batch."""
        if not self.rows:
            return self.head
        frontier = self._frontier
        return Head(self.position, self.recorded_at, frontier.packed(), frontier.root())

    def settle(self) -> None:
        """Hand every caller his outcome: the batch is committed."""
        for request, outcome in zip(self.requests, self.outcomes, strict=True):
            request.settle(outcome)

    def _outcome(self, request: Append) -> Appended | HeddleError:
        try:
            earlier = self._earlier(request)
            if earlier is not None:
                return Appended(tuple(earlier), duplicate=True)
            if request.expected:
                self._check_expected(request.expected)
        except Conflict as conflict:
            return conflict
        placed = tuple([self._place(event) for event in request.events])
        if request.idempotency is not None:
            key, content = request.idempotency.key, request.idempotency.content_sha256
            self.new_keys.append((key, content, placed[0].position, placed[-1].position))
            self.known.keys[key] = (content, placed)
        return Appended(placed, duplicate=False)

    def _earlier(self, request: Append) -> Sequence[Placed] | None:
        """Return where `request` was recorded before, or None when it is new."""
        if request.idempotency is not None:
            key = request.idempotency.key
            stored = self.known.keys.get(key) or self._previous.keys.get(key)
            if stored is not None:
                check_same_content(request.idempotency, stored[0])
                return stored[1]
        earlier = [e.placed for e in map(self._existing, request.events) if e is not None]
        if not earlier and (
            len(request.events) == 1
            or len({event.event_id for event in request.events}) == len(request.events)
        ):
            return None
        if len(earlier) == len(request.events):
            return earlier
        raise Conflict(
            "append.partly_recorded",
            f"{len(earlier)} of the {len(request.events)} events of the append are recorded "
            "already",
            hint="append what belongs together in one append, each event once",
            value=len(earlier),
            limit=len(request.events),
        )

    def _existing(self, event: NewEvent) -> Existing | None:
        by_id = self.known.identities.get(event.event_id) or self._previous.identities.get(
            event.event_id
        )
        if by_id is not None and by_id.content != event.content:
            raise Conflict(
                "event.id_reused",
                f"event id {event.event_id} is recorded with other content at position "
                f"{by_id.placed.position}",
                value=str(event.event_id),
                limit=by_id.placed.position,
            )
        if event.source is None:
            return by_id
        number = (event.source, event.sequence)
        by_sequence = self.known.sequences.get(number) or self._previous.sequences.get(number)
        if by_sequence is not None and by_sequence.content != event.content:
            raise Conflict(
                "source.sequence_reused",
                f"sequence {event.sequence} of {event.source!r} is recorded with other content "
                f"at position {by_sequence.placed.position}",
                hint="give every frame its own sequence number",
                value=event.sequence,
                limit=by_sequence.placed.position,
            )
        return by_id or by_sequence

    def _check_expected(self, expectations: Mapping[str, int]) -> None:
        for stream, expected in expectations.items():
            actual = self.known.versions.get(stream, NO_STREAM)
            if actual != expected:
                raise Conflict(
                    "stream.version_conflict",
                    f"stream {stream!r} is at version {actual}, not {expected}",
                    hint="read it again and decide anew",
                    value=expected,
                    limit=actual,
                )

    def _place(self, event: NewEvent) -> Placed:
        known = self.known
        self.position = position = self.position + 1
        version = known.versions.get(event.stream, NO_STREAM) + 1
        known.versions[event.stream] = version
        entry = leaf_entry(self._ledger, position, version, self._recorded_at_text, event)
        leaf = leaf_hash(entry)
        self._frontier.add(leaf)
        copied = _copy_row(self._ledger_id, event, position, version, self._recorded_us, leaf)
        row = Row(event, position, version, self.recorded_at, leaf, copied)
        self.rows.append(row)
        self._payload_bytes += len(event.payload)
        known.identities[event.event_id] = row
        if event.source is not None:
            known.sequences[event.source, event.sequence] = row
        return Placed(position, version, self.recorded_at)


def check_same_content(idempotency: IdempotencyKey, stored_sha256: bytes) -> None:
    """Raise `Conflict` (``idempotency_key.reused``) unless the key named the same request."""
    if stored_sha256 != idempotency.content_sha256:
        raise Conflict(
            "idempotency_key.reused",
            f"idempotency key {idempotency.key!r} was used for another request",
            hint="use a new key for a new request",
            value=idempotency.key,
        )


# --- as the database takes it -------------------------------------------------------------

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

# The binary COPY format of PostgreSQL (its manual, "COPY", "Binary Format"): the number of
# columns, then each with its length. Times are microseconds since 2000.
_COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
_COPY_END: Final = struct.pack(">h", -1)
_FIXED: Final = struct.Struct(">hihiqiqiqiqihi16si32si32s")
_NULL: Final = struct.pack(">i", -1)
_NO_OTHERS: Final = 9 * _NULL
_POSTGRES_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_COPY_ROWS_AT_ONCE: Final = 200


async def event_copy(rows: Sequence[Row]) -> AsyncIterator[bytes]:
    """Yield `rows` in binary COPY format, piece by piece, in the order of `EVENT_COLUMNS`."""
    yield _COPY_HEAD
    for start in range(0, len(rows), _COPY_ROWS_AT_ONCE):
        yield b"".join([row.copied for row in rows[start : start + _COPY_ROWS_AT_ONCE]])
    yield _COPY_END


def _copy_row(
    ledger_id: int, event: NewEvent, position: int, version: int, recorded_us: int, leaf: bytes
) -> bytes:
    payload = event.payload
    fixed = _FIXED.pack(
        *(len(EVENT_COLUMNS), 2, ledger_id, 8, position, 8, version),
        *(8, _microseconds(event.occurred_at), 8, recorded_us, 2, event.schema_version),
        *(16, event.event_id.bytes, 32, event.payload_sha256, 32, leaf),
    )
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


@lru_cache(maxsize=16_384)
def _text(text: str) -> bytes:
    return _field(text.encode())


def _field(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _microseconds(moment: datetime) -> int:
    return (moment - _POSTGRES_EPOCH) // _MICROSECOND


def head_arguments(ledger_id: int, name: str, batch: Batch, after: Head) -> tuple[Any, ...]:
    """Return the arguments of the SQL function ``append_head`` for `batch`."""
    rows = batch.rows
    streams = {row.event.stream: row.version for row in rows}
    numbered = [row for row in rows if row.event.source is not None]
    return (
        ledger_id,
        name,
        batch.head.position,
        batch.head.root,
        after.position,
        after.recorded_at,
        after.frontier,
        after.root,
        [row.event.event_id for row in rows],
        list(streams),
        list(streams.values()),
        [row.event.source for row in numbered],
        [row.event.sequence for row in numbered],
        [row.position for row in numbered],
        *([entry[n] for entry in batch.new_keys] for n in range(4)),
    )


def event_arrays(rows: Sequence[Row]) -> tuple[list[Any], ...]:
    """Return the columns of `rows` as the SQL function ``append_events`` takes them."""
    events = [row.event for row in rows]
    windows = [event.window for event in events]
    return (
        [event.stream for event in events],
        [row.version for row in rows],
        [event.type for event in events],
        [event.schema_version for event in events],
        [event.occurred_at for event in events],
        [event.actor for event in events],
        [event.correlation_id for event in events],
        [event.causation_id for event in events],
        [event.traceparent for event in events],
        [event.source for event in events],
        [event.sequence for event in events],
        [event.payload for event in events],
        [event.payload_sha256 for event in events],
        [row.leaf for row in rows],
        [None if w is None else w.start_ns for w in windows],
        [None if w is None else w.end_ns for w in windows],
        [None if w is None else w.reading_count for w in windows],
        [None if w is None else w.statistics for w in windows],
    )
