"""The table of events: the log itself, in its order."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import pyarrow as pa

from api.exports.table import Asked, Export, Table
from api.graphql.scalars import POSITION_MAX
from eventlog.envelope import RecordedEvent
from eventlog.reading import EventFilter, Page, PayloadOf, read_pages

EVENTS_AT_ONCE: Final = 2_000
_UTC_US: Final = pa.timestamp("us", tz="UTC")
_SCHEMA: Final = pa.schema(
    [
        ("position", pa.int64()),
        ("stream", pa.string()),
        ("version", pa.int64()),
        ("type", pa.string()),
        ("schema_version", pa.int16()),
        ("event_id", pa.string()),
        ("occurred_at", _UTC_US),
        ("recorded_at", _UTC_US),
        ("actor", pa.string()),
        ("correlation_id", pa.string()),
        ("causation_id", pa.string()),
        ("fact", pa.string()),
    ]
)


async def open_events(asked: Asked) -> Export:
    """Return the events that are asked for, a row each; `fact` is JSON, null of a frame."""
    parameters = asked.parameters
    wanted = EventFilter(
        types=parameters.names("types"),
        streams=parameters.names("streams"),
        categories=parameters.names("categories"),
    )
    after = parameters.whole("after", low=0, high=POSITION_MAX) or 0
    schema = _SCHEMA.with_metadata({"heddle.position": str(asked.position)})

    async def batches() -> AsyncGenerator[pa.RecordBatch, None]:
        pages = read_pages(
            asked.ledger,
            after,
            up_to=asked.position,
            limit=EVENTS_AT_ONCE,
            wanted=wanted,
            payloads=PayloadOf.FACTS,
        )
        async with aclosing(pages):
            async for page in pages:
                seen = await asked.sight.visible({event.stream for event in page})
                events = [event for event in page if event.stream in seen]
                if events:
                    yield _batch(schema, events)

    return Export(schema, batches())


def _batch(schema: pa.Schema, events: list[RecordedEvent] | Page) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [
            pa.array([event.position for event in events], pa.int64()),
            pa.array([event.stream for event in events], pa.string()),
            pa.array([event.version for event in events], pa.int64()),
            pa.array([event.type for event in events], pa.string()),
            pa.array([event.schema_version for event in events], pa.int16()),
            pa.array([str(event.event_id) for event in events], pa.string()),
            pa.array([event.occurred_at for event in events], _UTC_US),
            pa.array([event.recorded_at for event in events], _UTC_US),
            pa.array([event.actor for event in events], pa.string()),
            pa.array([_text(event.correlation_id) for event in events], pa.string()),
            pa.array([_text(event.causation_id) for event in events], pa.string()),
            pa.array([_fact(event) for event in events], pa.string()),
        ],
        schema=schema,
    )


def _text(identifier: object) -> str | None:
    return None if identifier is None else str(identifier)


def _fact(event: RecordedEvent) -> str | None:
    """Return the very JSON that was recorded; None of a frame, and of what was erased."""
    if event.is_frame or event.payload is None:
        return None
    return event.payload.decode()


EVENTS: Final = Table("events", frozenset({"types", "streams", "categories", "after"}), open_events)
