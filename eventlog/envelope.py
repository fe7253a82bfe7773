"""The envelope of an event: what is asked of the log, what the log answers, and its leaf.

The leaf of the Merkle tree is the RFC 8785 canonical JSON of the envelope with the payload's
SHA-256 in place of the payload, so that a payload may be archived or erased and the proof
still stands.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import orjson

from domain import application_events, asset, ledger_events
from domain.errors import InvalidInput
from domain.events import (
    FRAME_RECORDED,
    Event,
    decode_fact,
    encode_fact,
    format_time,
    type_of,
)
from domain.frames import (
    FRAME_BYTES_MAX,
    SEQUENCE_MAX,
    Frame,
    channel_statistics,
    encode,
    pack_statistics,
)
from eventlog.decoded import DECODED
from eventlog.merkle import HASH_BYTES

EVENTS_DECLARED_IN: Final = (application_events, asset, ledger_events)
"""Whoever reads the log has every stored type registered by importing these."""

STREAM_LENGTH_MAX: Final = 128
TYPE_LENGTH_MAX: Final = 128
ACTOR_LENGTH_MAX: Final = 200
SOURCE_LENGTH_MAX: Final = 128
SCHEMA_VERSION_MAX: Final = 2**15 - 1
TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
FRAME_SCHEMA_VERSION: Final = 1

_STREAM = re.compile(r"[a-z][a-z0-9-]*:[A-Za-z0-9._-]+")
_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event that is to be appended.

    Parameters
    ----------
    occurred_at : when it was true, with a zone
    source, sequence : who numbered it and how; an event of the same pair is recorded once
    window : for a frame, its packed row beside the payload
    """

    stream: str
    type: str
    schema_version: int
    event_id: uuid.UUID
    occurred_at: datetime
    actor: str
    payload: bytes
    payload_sha256: bytes
    correlation_id: uuid.UUID | None = None
    causation_id: uuid.UUID | None = None
    traceparent: str | None = None
    source: str | None = None
    sequence: int | None = None
    window: FrameWindow | None = None

    @property
    def content(self) -> tuple[str, str, int, bytes]:
        """What has to be equal for a repetition to be the same event."""
        return self.stream, self.type, self.schema_version, self.payload_sha256


@dataclass(frozen=True, slots=True)
class FrameWindow:
    """What the log keeps of a frame beside its payload, so that questions need no decoding."""

    start_ns: int
    end_ns: int
    reading_count: int
    statistics: bytes


@dataclass(frozen=True)
class RecordedEvent:
    """An event as the log holds it.

    `source` and `sequence` are its sender's own number for it, where it has one; `payload` is
    None where the reader did not ask for it, and once it was archived or erased.
    """

    ledger: str
    position: int
    stream: str
    version: int
    type: str
    schema_version: int
    event_id: uuid.UUID
    occurred_at: datetime
    recorded_at: datetime
    actor: str
    correlation_id: uuid.UUID | None
    causation_id: uuid.UUID | None
    traceparent: str | None
    source: str | None
    sequence: int | None
    payload: bytes | None
    payload_sha256: bytes
    leaf_hash: bytes
    window: FrameWindow | None

    @property
    def is_frame(self) -> bool:
        """Whether the payload is a frame and not a fact."""
        return self.type == FRAME_RECORDED

    @cached_property
    def fact(self) -> Any:
        """The event object of a fact, brought to its current schema version."""
        return decode_fact(self.type, self.schema_version, self._present())

    @cached_property
    def frame(self) -> Frame:
        """The decoded frame."""
        return DECODED.get(self.payload_sha256, self._present())

    def _present(self) -> bytes:
        if self.payload is None:
            raise InvalidInput(
                "payload.not_in_log",
                f"the payload of {self.ledger}/{self.position} is no longer in the log",
                value=self.position,
            )
        return self.payload


def new_fact(
    stream: str,
    event: Event,
    *,
    event_id: uuid.UUID,
    occurred_at: datetime,
    actor: str,
    correlation_id: uuid.UUID | None = None,
    causation_id: uuid.UUID | None = None,
    traceparent: str | None = None,
) -> NewEvent:
    """Return the envelope for `event` on `stream`."""
    stored = type_of(event)
    payload = encode_fact(event)
    return NewEvent(
        stream=stream,
        type=stored.name,
        schema_version=stored.schema_version,
        event_id=event_id,
        occurred_at=occurred_at,
        actor=actor,
        payload=payload,
        payload_sha256=hashlib.sha256(payload).digest(),
        correlation_id=correlation_id,
        causation_id=causation_id,
        traceparent=traceparent,
    )


def new_frame(
    stream: str,
    frame: Frame,
    *,
    event_id: uuid.UUID,
    occurred_at: datetime,
    encoded: bytes | None = None,
    traceparent: str | None = None,
) -> NewEvent:
    """Return the envelope for `frame` on `stream`, recorded once per agent and sequence.

    Parameters
    ----------
    encoded : the frame's encoded form where the caller has it already
    """
    source = f"agent:{frame.header.agent}"
    DECODED.put(frame)
    return NewEvent(
        stream=stream,
        type=FRAME_RECORDED,
        schema_version=FRAME_SCHEMA_VERSION,
        event_id=event_id,
        occurred_at=occurred_at,
        actor=source,
        payload=encode(frame) if encoded is None else encoded,
        payload_sha256=frame.canonical_sha256,
        traceparent=traceparent,
        source=source,
        sequence=frame.sequence,
        window=FrameWindow(
            frame.window_start_ns,
            frame.window_end_ns,
            frame.reading_count,
            pack_statistics(frame.header, channel_statistics(frame)),
        ),
    )


def leaf_entry(
    ledger: str, position: int, version: int, recorded_at: str, event: NewEvent
) -> bytes:
    """Return the canonical JSON of an envelope: the entry of its leaf.

    Strings, integers below 2**53 and ASCII keys: here `orjson` with sorted keys gives the bytes
    of RFC 8785, which the tests hold against the `rfc8785` library.
    """
    return orjson.dumps(
        {
            "actor": event.actor,
            "causation_id": _text(event.causation_id),
            "correlation_id": _text(event.correlation_id),
            "event_id": str(event.event_id),
            "ledger": ledger,
            "occurred_at": format_time(event.occurred_at),
            "payload_sha256": event.payload_sha256.hex(),
            "position": position,
            "recorded_at": recorded_at,
            "schema_version": event.schema_version,
            "stream": event.stream,
            "traceparent": event.traceparent,
            "type": event.type,
            "version": version,
        },
        option=orjson.OPT_SORT_KEYS,
    )


def _text(identifier: uuid.UUID | None) -> str | None:
    return None if identifier is None else str(identifier)


def check_event(event: NewEvent) -> None:
    """Raise `InvalidInput` (``event.*``) unless `event` can be recorded."""
    _check_text("stream", event.stream, STREAM_LENGTH_MAX, _STREAM)
    _check_text("type", event.type, TYPE_LENGTH_MAX, _TYPE)
    _check_text("actor", event.actor, ACTOR_LENGTH_MAX)
    if event.source is not None:
        _check_text("source", event.source, SOURCE_LENGTH_MAX)
    if event.traceparent is not None and not TRACEPARENT.fullmatch(event.traceparent):
        raise InvalidInput(
            "event.traceparent_malformed",
            f"{event.traceparent!r:.80} is not a W3C traceparent of version 00",
            value=event.traceparent[:80],
        )
    if not 1 <= event.schema_version <= SCHEMA_VERSION_MAX:
        raise InvalidInput(
            "event.schema_version_out_of_range",
            f"schema version {event.schema_version} is not between 1 and {SCHEMA_VERSION_MAX}",
            value=event.schema_version,
            limit=SCHEMA_VERSION_MAX,
        )
    if (event.source is None) != (event.sequence is None):
        raise InvalidInput(
            "event.sequence_without_source",
            "an event has a source and a sequence, or neither",
            value=event.source if event.sequence is None else event.sequence,
        )
    if event.sequence is not None and not 0 <= event.sequence <= SEQUENCE_MAX:
        raise InvalidInput(
            "event.sequence_out_of_range",
            f"sequence {event.sequence} is not between 0 and {SEQUENCE_MAX}",
            value=event.sequence,
            limit=SEQUENCE_MAX,
        )
    if len(event.payload_sha256) != HASH_BYTES:
        raise InvalidInput(
            "event.payload_sha256_malformed",
            f"a SHA-256 has {HASH_BYTES} bytes, not {len(event.payload_sha256)}",
            value=len(event.payload_sha256),
            limit=HASH_BYTES,
        )
    if len(event.payload) > FRAME_BYTES_MAX:
        raise InvalidInput(
            "event.too_large",
            f"the payload takes {len(event.payload)} bytes, more than {FRAME_BYTES_MAX}",
            value=len(event.payload),
            limit=FRAME_BYTES_MAX,
        )
    format_time(event.occurred_at)


def _check_text(
    name: str, value: str, length_max: int, pattern: re.Pattern[str] | None = None
) -> None:
    # A NUL has no place in a PostgreSQL text; a lone surrogate has no UTF-8 form.
    printable = value.isprintable() and not any("\ud800" <= c <= "\udfff" for c in value)
    if (
        not 1 <= len(value) <= length_max
        or not printable
        or (pattern is not None and not pattern.fullmatch(value))
    ):
        raise InvalidInput(
            f"event.{name}_malformed",
            f"{name} {value!r:.160} cannot be recorded",
            hint=f"1 to {length_max} printable characters"
            + (f" of the form {pattern.pattern}" if pattern else ""),
            value=value[:160],
            limit=length_max,
        )
