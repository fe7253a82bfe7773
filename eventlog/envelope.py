"""The envelope of an event: what is asked of the log, what the log answers, and its leaf.

The leaf of the Merkle tree is the RFC 8785 canonical JSON of the envelope with the payload's
SHA-256 in place of the payload, so that a payload may be archived or erased and the proof
still stands.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, cast

import asyncpg
import msgspec
import orjson

from domain.catalogue import EVENT_MODULES
from domain.errors import HeddleError, InvalidInput, PayloadErased
from domain.events import (
    FRAME_RECORDED,
    Event,
    UnreadableEvent,
    check_version_known,
    decode_fact,
    encode_fact,
    format_time,
    type_of,
)
from domain.frame_encoding import encode
from domain.frame_statistics import pack_statistics, pack_statistics_many
from domain.frames import FRAME_BYTES_MAX, SEQUENCE_MAX, Frame
from eventlog.decoded import DECODED
from eventlog.transparency.merkle import HASH_BYTES

EVENTS_DECLARED_IN: Final = EVENT_MODULES
"""Whoever reads the log has every stored type registered by importing these."""

STREAM_LENGTH_MAX: Final = 128
TYPE_LENGTH_MAX: Final = 128
ACTOR_LENGTH_MAX: Final = 200
SOURCE_LENGTH_MAX: Final = 128
TEXTS_REMEMBERED_MAX: Final = 16_384
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
    """What the log keeps of a frame beside its payload, so that questions need no decoding.

    `statistics` is empty once the payload was erased.
    """

    start_ns: int
    end_ns: int
    reading_count: int
    statistics: bytes


class PayloadTier(IntEnum):
    """Where the payload of an event is."""

    ROW = 0
    ARCHIVE = 1
    ERASED = 2


_ERASED: Final = int(PayloadTier.ERASED)

RECORDED_COLUMNS: Final = (
    "position",
    "stream",
    "version",
    "type",
    "schema_version",
    # As bytes: most readers never ask for these, and to make objects of them takes three times
    # as long as all the rest.
    "timestamptz_send(occurred_at) as occurred_at",
    "timestamptz_send(recorded_at) as recorded_at",
    "uuid_send(event_id) as event_id",
    "uuid_send(correlation_id) as correlation_id",
    "uuid_send(causation_id) as causation_id",
    "actor",
    "traceparent",
    "source",
    "sequence",
    "payload_sha256",
    "leaf_hash",
    "window_start_ns",
    "window_end_ns",
    "reading_count",
    "statistics",
    "payload_tier",
)
"""What a `RecordedEvent` is made of, in SQL and in this order; its payload comes after them."""


class RecordedEvent:
    """An event as the log holds it. Read-only; what costs is made when it is first asked for.

    `source` and `sequence` are its sender's own number for it, where it has one; `payload` is
    None where the reader did not ask for it, and for ever once it was erased.

    Parameters
    ----------
    ledger : name of the log
    row : its values of `RECORDED_COLUMNS`, and then its payload
    """

    __slots__ = (
        "_fact",
        "_row",
        "ledger",
        "payload",
        "position",
        "schema_version",
        "stream",
        "type",
        "version",
    )

    ledger: str
    position: int
    stream: str
    version: int
    type: str
    schema_version: int
    payload: bytes | None

    def __init__(self, ledger: str, row: asyncpg.Record) -> None:
        self.ledger = ledger
        self.position, self.stream, self.version, self.type, self.schema_version = row[:5]
        self.payload = row[len(RECORDED_COLUMNS)]
        self._row = row
        self._fact: Any = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RecordedEvent):
            return NotImplemented
        return self.identity == other.identity and self.payload == other.payload

    def __hash__(self) -> int:
        return hash(self.identity)

    def __repr__(self) -> str:
        return (
            f"<{self.ledger}/{self.position}: {self.type} v{self.schema_version} "
            f"on {self.stream}@{self.version}>"
        )

    @property
    def identity(self) -> tuple[str, int, bytes]:
        """Ledger, position and leaf: no two events share them."""
        return self.ledger, self.position, self.leaf_hash

    @property
    def occurred_at(self) -> datetime:
        """When it was true, UTC."""
        return _time(self._row[5])

    @property
    def occurred_us(self) -> int:
        """The same as PostgreSQL holds it: microseconds since 2000."""
        microseconds = int.from_bytes(self._row[5], "big", signed=True)
        return min(max(microseconds, _FIRST_US), _LAST_US)

    @property
    def recorded_at(self) -> datetime:
        """When the log learnt of it, UTC."""
        return _time(self._row[6])

    @property
    def event_id(self) -> uuid.UUID:
        """Its identifier, recorded once."""
        return uuid.UUID(bytes=self._row[7])

    @property
    def correlation_id(self) -> uuid.UUID | None:
        """What it belongs to, across streams."""
        return None if self._row[8] is None else uuid.UUID(bytes=self._row[8])

    @property
    def causation_id(self) -> uuid.UUID | None:
        """The event that caused it."""
        return None if self._row[9] is None else uuid.UUID(bytes=self._row[9])

    @property
    def actor(self) -> str:
        """Who caused it."""
        return cast("str", self._row[10])

    @property
    def traceparent(self) -> str | None:
        """The trace it was recorded in."""
        return cast("str | None", self._row[11])

    @property
    def source(self) -> str | None:
        """Who numbered it."""
        return cast("str | None", self._row[12])

    @property
    def sequence(self) -> int | None:
        """Its number within `source`."""
        return cast("int | None", self._row[13])

    @property
    def payload_sha256(self) -> bytes:
        """SHA-256 of a fact's JSON, or of a frame's canonical form."""
        return cast("bytes", self._row[14])

    @property
    def leaf_hash(self) -> bytes:
        """Its leaf in the Merkle tree."""
        return cast("bytes", self._row[15])

    @property
    def window(self) -> FrameWindow | None:
        """What the log keeps of a frame beside its payload; None for a fact."""
        start_ns, end_ns, reading_count, statistics = self._row[16:20]
        if end_ns is None:
            return None
        return FrameWindow(start_ns, end_ns, reading_count, statistics or b"")

    @property
    def payload_tier(self) -> int:
        """Where the payload is, a `PayloadTier`."""
        return cast("int", self._row[20])

    @property
    def erased(self) -> bool:
        """Whether the payload, and a frame's statistics, were erased by law."""
        return bool(self._row[20] == _ERASED)

    @property
    def is_frame(self) -> bool:
        """Whether the payload is a frame and not a fact."""
        return self.type == FRAME_RECORDED

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory while nothing of it is decoded."""
        statistics = self._row[19]
        return (
            EVENT_OVERHEAD_BYTES
            + (0 if self.payload is None else len(self.payload))
            + (0 if statistics is None else len(statistics))
        )

    @property
    def fact(self) -> Any:
        """The event object of a fact, brought to its current schema version.

        Raises
        ------
        UnreadableEvent
            ``event.unknown_type``, ``event.unknown_version`` or ``event.payload_malformed``
        PayloadErased, InvalidInput
            ``payload.erased``, ``payload.not_in_log``
        """
        if self._fact is None:
            if self.payload is None:
                raise self._absent()
            try:
                self._fact = decode_fact(self.type, self.schema_version, self.payload, loads=_loads)
            except UnreadableEvent as error:
                raise error.at(self.ledger, self.position) from error
        return self._fact

    @property
    def frame(self) -> Frame:
        """The decoded frame, remembered for a while by the process and not by the event.

        Raises
        ------
        UnknownEventType
            ``event.unknown_version``
        PayloadErased, InvalidInput
            ``payload.erased``, ``payload.not_in_log``
        """
        try:
            check_version_known(self.type, self.schema_version, FRAME_SCHEMA_VERSION)
        except UnreadableEvent as error:
            raise error.at(self.ledger, self.position) from error
        if self.payload is None:
            raise self._absent()
        return DECODED.get(self.payload_sha256, self.payload)

    def _absent(self) -> HeddleError:
        if self.erased:
            return PayloadErased(
                "payload.erased",
                f"the payload of {self.ledger}/{self.position} was erased; the log says by whom "
                "and why",
                hint="skip events that are `erased` where that is right",
                value=self.position,
            )
        return InvalidInput(
            "payload.not_in_log",
            f"the payload of {self.ledger}/{self.position} is no longer in the log",
            value=self.position,
        )


EVENT_OVERHEAD_BYTES: Final = 1_500
"""Measured: an event's objects without its payload and statistics."""

_loads: Final = msgspec.json.decode  # ten times as fast as `json`, exact for large integers too
POSTGRES_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)

# The driver stores the first and the last moment there is as -infinity and infinity.
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_FIRST_US: Final = (_FIRST - POSTGRES_EPOCH) // timedelta(microseconds=1)
_LAST_US: Final = (_LAST - POSTGRES_EPOCH) // timedelta(microseconds=1)


def _time(sent: bytes) -> datetime:
    """Return the time that PostgreSQL sent: microseconds since 2000."""
    microseconds = int.from_bytes(sent, "big", signed=True)
    try:
        return POSTGRES_EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return _FIRST if microseconds < 0 else _LAST


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
    window: FrameWindow | None = None,
    traceparent: str | None = None,
) -> NewEvent:
    """Return the envelope for `frame` on `stream`, recorded once per agent and sequence.

    Parameters
    ----------
    encoded : the frame's encoded form where the caller has it already
    window : what `frame_windows` made of it where the caller has many frames
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
        window=_window(frame, pack_statistics(frame)) if window is None else window,
    )


def frame_windows(frames: Sequence[Frame]) -> list[FrameWindow]:
    """Return what the log keeps of each of `frames` in its row; together they cost less."""
    return [
        _window(frame, statistics)
        for frame, statistics in zip(frames, pack_statistics_many(frames), strict=True)
    ]


def _window(frame: Frame, statistics: bytes) -> FrameWindow:
    return FrameWindow(frame.window_start_ns, frame.window_end_ns, frame.reading_count, statistics)


def leaf_entry(
    ledger: str, position: int, version: int, recorded_at: str, event: NewEvent | RecordedEvent
) -> bytes:
    """Return the canonical JSON of an envelope: the entry of its leaf.

    Strings, integers below 2**53 and ASCII keys, which stand here in their order: `orjson` gives
    the bytes of RFC 8785, which the tests hold against the `rfc8785` library.
    """
    occurred_at: datetime | str = event.occurred_at
    # `orjson` writes a UTC time as `format_time` does, unless its fraction is zero.
    if event.occurred_at.tzinfo is not UTC or not event.occurred_at.microsecond:
        occurred_at = format_time(event.occurred_at)
    return orjson.dumps(
        {
            "actor": event.actor,
            "causation_id": event.causation_id,
            "correlation_id": event.correlation_id,
            "event_id": event.event_id,
            "ledger": ledger,
            "occurred_at": occurred_at,
            "payload_sha256": event.payload_sha256.hex(),
            "position": position,
            "recorded_at": recorded_at,
            "schema_version": event.schema_version,
            "stream": event.stream,
            "traceparent": event.traceparent,
            "type": event.type,
            "version": version,
        },
        default=str,  # a driver's own kind of UUID
        option=orjson.OPT_UTC_Z,
    )


def check_event(event: NewEvent) -> None:
    """Raise `InvalidInput` (``event.*``) unless `event` can be recorded."""
    _check_texts(event.stream, event.type, event.actor, event.source)
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
    if event.occurred_at.tzinfo is not UTC:
        format_time(event.occurred_at)


@lru_cache(maxsize=TEXTS_REMEMBERED_MAX)
def _check_texts(stream: str, type_name: str, actor: str, source: str | None) -> None:
    """Check the texts of an envelope; what was good once is not looked at again."""
    _check_text("stream", stream, STREAM_LENGTH_MAX, _STREAM)
    _check_text("type", type_name, TYPE_LENGTH_MAX, _TYPE)
    _check_text("actor", actor, ACTOR_LENGTH_MAX)
    if source is not None:
        _check_text("source", source, SOURCE_LENGTH_MAX)


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
