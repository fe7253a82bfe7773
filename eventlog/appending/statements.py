"""The statements that store a batch, and a batch as their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from eventlog.appending import wire
from eventlog.appending.batch import Batch, Head
from eventlog.appending.pipeline import Statement
from eventlog.appending.wire import Type, Value
from eventlog.envelope import NewEvent


def _calling(function: str, types: Sequence[Type]) -> Statement:
    arguments = ", ".join(f"${number}" for number in range(1, len(types) + 1))
    return Statement(function, f"select {function}({arguments})", tuple(types))


APPEND_BATCH: Final = _calling(
    "append_batch",
    (
        *(Type.SMALLINT, Type.TEXT, Type.BIGINT, Type.BYTEA, Type.TIMESTAMPTZ),
        *(Type.BYTEA, Type.BYTEA),
        *(Type.UUIDS, Type.TEXTS, Type.BIGINTS, Type.TEXTS, Type.BIGINTS, Type.BIGINTS),
        *(Type.TEXTS, Type.BIGINTS, Type.TIMESTAMPTZS, Type.BYTEAS, Type.BYTEAS, Type.BYTEAS),
        *(Type.UUIDS, Type.UUIDS, Type.TEXTS, Type.BIGINTS, Type.BIGINTS, Type.INTEGERS),
        *(Type.BYTEAS, Type.TEXTS, Type.SMALLINTS, Type.TEXTS),
        *(Type.TEXTS, Type.BYTEAS, Type.BIGINTS, Type.BIGINTS),
        *(Type.BIGINT, Type.INTEGER, Type.BOOLEAN, Type.BOOLEAN),
    ),
)
"""All of a batch."""

STORE_ONE: Final = _calling(
    "store_one",
    (
        *(Type.SMALLINT, Type.BIGINT, Type.BYTEA, Type.TIMESTAMPTZ, Type.BYTEA, Type.BYTEA),
        *(Type.UUID, Type.TEXT, Type.BIGINT, Type.TEXT, Type.SMALLINT, Type.BIGINT, Type.TEXT),
        *(Type.BYTEA, Type.BYTEA, Type.BYTEA, Type.UUID, Type.UUID, Type.TEXT, Type.TEXT),
        *(Type.BIGINT, Type.BIGINT, Type.BIGINT, Type.INTEGER, Type.BYTEA),
    ),
)
"""A batch of one event, without a key: what it costs whatever a batch's size is half."""


@dataclass(frozen=True)
class Part:
    """Events of a batch that one statement writes.

    Parameters
    ----------
    batch : a batch
    first, end : from which of its events on, and up to which
    after : where the ledger ends when the batch is committed; None where more of it is to come
    ahead : the batch that is flushed while this one writes its rows, over another connection;
        None where it writes them when it is its turn
    """

    batch: Batch
    first: int
    end: int
    after: Head | None
    ahead: Batch | None

    @cached_property
    def shares_streams(self) -> bool:
        """Whether events of the batch ahead are in streams that these go on with."""
        if self.ahead is None:
            return False
        streams = {event.stream for event in self.ahead.events}
        return any(event.stream in streams for event in self.events)

    @cached_property
    def events(self) -> Sequence[NewEvent]:
        """The events."""
        return self.batch.events[self.first : self.end]


def storing(ledger_id: int, ledger: str, part: Part) -> tuple[Statement, Sequence[Value]]:
    """Return the statement that stores `part`.

    It answers a number, or none or 0 where the ledger does not end where the batch begins. That of
    many says how many microseconds it has taken while no other could be committed.
    """
    batch = part.batch
    if len(batch.events) == 1 and not batch.new_keys and part.ahead is None:
        return STORE_ONE, _one_event(ledger_id, part)
    parameters = (
        *(wire.smallint(ledger_id), ledger.encode(), *_ends(part)),
        *_keys(part),
        *_contents(part),
        *(_idempotency(batch) if part.after is not None else (None, None, None, None)),
        None if part.ahead is None else wire.bigint(part.ahead.head.position),
        *(wire.integer(part.first), wire.boolean(part.after is not None)),
        wire.boolean(part.shares_streams),
    )
    return APPEND_BATCH, parameters


def _ends(part: Part) -> tuple[Value, ...]:
    before, after = part.batch.head, part.after
    return (
        *(wire.bigint(before.position), before.root),
        wire.bigint(wire.microseconds(part.batch.recorded_at)),
        *((None, None) if after is None else (after.frontier, after.root)),
    )


def _keys(part: Part) -> tuple[Value, ...]:
    events, versions = part.events, part.batch.versions[part.first : part.end]
    streams = [event.stream for event in events]
    last = dict(zip(streams, versions, strict=True))
    ends: tuple[Value, Value, Value] = (None, None, None)
    if len(last) < len(streams):
        first = dict(zip(reversed(streams), reversed(versions), strict=True))
        ends = (
            *(wire.texts([*last]), wire.bigints([first[stream] for stream in last])),
            wire.bigints([*last.values()]),
        )
    return (
        wire.alike(Type.UUID, 16, [event.event_id.bytes for event in events]),
        wire.texts(streams),
        wire.bigints(versions),
        *ends,
        wire.texts([event.source for event in events]),
        wire.bigints([event.sequence for event in events]),
    )


def _contents(part: Part) -> tuple[Value, ...]:
    events = part.events
    windows = [event.window for event in events]
    of_frames: tuple[Value, ...] = (None, None, None, None)
    if windows.count(None) < len(windows):
        of_frames = (
            wire.bigints([None if w is None else w.start_ns for w in windows]),
            wire.bigints([None if w is None else w.end_ns for w in windows]),
            wire.integers([None if w is None else w.reading_count for w in windows]),
            wire.byteas([None if w is None else w.statistics for w in windows]),
        )
    return (
        wire.timestamps([event.occurred_at for event in events]),
        wire.byteas([event.payload for event in events]),
        wire.alike(Type.BYTEA, 32, [event.payload_sha256 for event in events]),
        wire.alike(Type.BYTEA, 32, part.batch.leaves[part.first : part.end]),
        wire.uuids([event.correlation_id for event in events]),
        wire.uuids([event.causation_id for event in events]),
        wire.texts([event.traceparent for event in events]),
        *of_frames,
        wire.texts(_one_for_all([event.type for event in events])),
        wire.smallints(_one_for_all([event.schema_version for event in events])),
        wire.texts(_one_for_all([event.actor for event in events])),
    )


def _idempotency(batch: Batch) -> tuple[Value, ...]:
    if not batch.new_keys:
        return None, None, None, None
    keys, contents, firsts, lasts = zip(*batch.new_keys, strict=True)
    return wire.texts(keys), wire.byteas(contents), wire.bigints(firsts), wire.bigints(lasts)


def _one_event(ledger_id: int, part: Part) -> tuple[Value, ...]:
    batch = part.batch
    event, window = batch.events[0], batch.events[0].window
    of_frame: tuple[Value, ...] = (None, None, None, None)
    if window is not None:
        of_frame = (
            *(wire.bigint(window.start_ns), wire.bigint(window.end_ns)),
            *(wire.integer(window.reading_count), window.statistics),
        )
    return (
        *(wire.smallint(ledger_id), *_ends(part)),
        *(event.event_id.bytes, event.stream.encode(), wire.bigint(batch.versions[0])),
        *(event.type.encode(), wire.smallint(event.schema_version)),
        *(wire.bigint(wire.microseconds(event.occurred_at)), event.actor.encode()),
        *(event.payload, event.payload_sha256, batch.leaves[0]),
        *(_uuid(event.correlation_id), _uuid(event.causation_id)),
        *(_text(event.traceparent), _text(event.source)),
        None if event.sequence is None else wire.bigint(event.sequence),
        *of_frame,
    )


def _uuid(value: UUID | None) -> Value:
    return None if value is None else value.bytes


def _text(value: str | None) -> Value:
    return None if value is None else value.encode()


def _one_for_all(values: list[Any]) -> list[Any]:
    return values[:1] if values.count(values[0]) == len(values) else values
