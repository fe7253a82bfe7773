"""Events: the catalogue of stored types, and the map between an event and its stored payload.

An event class is a frozen dataclass registered under a dotted type that never changes, with a
schema version and the upcasters that lead from each older version to it. Facts are stored as
canonical JSON; frames as bytes (`domain.frames`).
"""

from __future__ import annotations

import json
import math
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar, Final, Protocol, TypeVar

from domain.errors import HeddleError, InvalidInput

FACT_BYTES_MAX: Final = 256 * 1024
FRAME_RECORDED: Final = "asset.frame_recorded"
"""The one type whose payload is bytes: a window of readings, in the asset's telemetry stream."""

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


class Event(Protocol):
    """A fact that happened: a frozen dataclass registered by `event_type`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


E = TypeVar("E", bound=type)


@dataclass(frozen=True, slots=True)
class EventType:
    """A stored type: its class, its current schema version, and how older versions become it."""

    name: str
    schema_version: int
    event_class: type
    upcasters: Mapping[int, Upcaster]


_BY_NAME: dict[str, EventType] = {}
_BY_CLASS: dict[type, EventType] = {}


def event_type(
    name: str, schema_version: int = 1, upcasters: Mapping[int, Upcaster] | None = None
) -> Callable[[E], E]:
    """Register a dataclass as the event stored under `name`.

    Parameters
    ----------
    upcasters : for each older version v, the function from a payload of v to one of v + 1
    """
    steps = dict(upcasters or {})
    if set(steps) != set(range(1, schema_version)):
        raise ValueError(f"{name} needs one upcaster for each version below {schema_version}")

    def register(event_class: E) -> E:
        if name in _BY_NAME or name == FRAME_RECORDED:
            raise ValueError(f"two classes are stored as {name!r}")
        registered = EventType(name, schema_version, event_class, steps)
        _BY_NAME[name] = registered
        _BY_CLASS[event_class] = registered
        return event_class

    return register


def event_types() -> dict[str, EventType]:
    """Return every registered type of fact by its stored name."""
    return dict(_BY_NAME)


def type_of(event: Event) -> EventType:
    """Return the stored type of `event`."""
    return _BY_CLASS[type(event)]


class UnknownEventType(HeddleError):
    """A stored type or version that this software does not know; its reader must stop."""


def encode_fact(event: Event) -> bytes:
    """Return the canonical JSON of `event`: sorted keys, no spaces, finite numbers, UTC times.

    Raises
    ------
    InvalidInput
        ``event.value_not_finite``, ``event.naive_time``, ``event.text_malformed``,
        ``event.too_large``
    """
    document = {field.name: _plain(getattr(event, field.name)) for field in fields(event)}
    encoded = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
    if len(encoded) > FACT_BYTES_MAX:
        raise InvalidInput(
            "event.too_large",
            f"the payload takes {len(encoded)} bytes, more than {FACT_BYTES_MAX}",
            value=len(encoded),
            limit=FACT_BYTES_MAX,
        )
    return encoded


def decode_fact(name: str, schema_version: int, payload: bytes) -> Any:
    """Return the event stored as `payload` under `name`, brought to its current version.

    Raises
    ------
    UnknownEventType
        ``event.unknown_type`` or ``event.unknown_version``; a reader stops at it.
    """
    known = _BY_NAME.get(name)
    if known is None:
        raise UnknownEventType(
            "event.unknown_type",
            f"event type {name!r} is not known to this version",
            hint="upgrade this reader; events are never skipped",
            value=name,
        )
    if not 1 <= schema_version <= known.schema_version:
        raise UnknownEventType(
            "event.unknown_version",
            f"{name!r} is known up to version {known.schema_version}, not {schema_version}",
            hint="upgrade this reader; events are never skipped",
            value=schema_version,
            limit=known.schema_version,
        )
    document = json.loads(payload)
    for version in range(schema_version, known.schema_version):
        document = known.upcasters[version](document)
    hints = _hints(known.event_class)
    return known.event_class(
        **{name: _typed(value, hints[name]) for name, value in document.items()}
    )


def format_time(moment: datetime) -> str:
    """Return `moment` as the one RFC 3339 text used in the log: UTC, six decimals, ``Z``.

    Raises
    ------
    InvalidInput
        ``event.naive_time`` when it has no zone, ``event.time_out_of_range``
    """
    if moment.tzinfo is None:
        raise InvalidInput(
            "event.naive_time",
            f"time {moment.isoformat()} has no zone",
            hint="give an offset, such as 2020-03-09T10:34:33Z",
            value=moment.isoformat(),
        )
    try:
        utc = moment.astimezone(UTC)
    except OverflowError as error:
        raise InvalidInput(
            "event.time_out_of_range",
            f"time {moment.isoformat()} lies outside the years 1 to 9999 in UTC",
            value=moment.isoformat(),
        ) from error
    return utc.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _plain(value: Any) -> Any:
    match value:
        case bool() | int() | None:
            return value
        case StrEnum():
            return value.value
        case str():
            # A NUL has no place in PostgreSQL's jsonb, a lone surrogate none in UTF-8.
            if "\x00" in value or any("\ud800" <= c <= "\udfff" for c in value):
                raise InvalidInput(
                    "event.text_malformed",
                    f"{value!r:.80} holds a NUL or half a character",
                    value=ascii(value)[:80],
                )
            return value
        case float():
            if not math.isfinite(value):
                raise InvalidInput(
                    "event.value_not_finite", f"{value} cannot be recorded", value=str(value)
                )
            return value
        case datetime():
            return format_time(value)
        case uuid.UUID():
            return str(value)
        case tuple() | list():
            return [_plain(item) for item in value]
        case _:
            raise TypeError(f"{type(value).__name__} has no stored form")


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(event_class: type) -> dict[str, Any]:
    if event_class not in _HINTS:
        _HINTS[event_class] = typing.get_type_hints(event_class)
    return _HINTS[event_class]


def _typed(value: Any, hint: Any) -> Any:
    """Return the JSON `value` as the annotated type `hint`."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _typed(value, next(a for a in typing.get_args(hint) if a is not types.NoneType))
    if origin is tuple:
        return tuple(_typed(item, typing.get_args(hint)[0]) for item in value)
    if hint is float:
        return float(value)
    if hint is datetime:
        return datetime.fromisoformat(value)
    if isinstance(hint, type) and issubclass(hint, (StrEnum, uuid.UUID)):
        return hint(value)
    return value
