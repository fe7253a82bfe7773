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
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar, Final, Protocol, Self, TypeVar

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


Loads = Callable[[bytes], Any]
"""A parser of JSON."""

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


class UnreadableEvent(HeddleError):
    """A stored event that this software cannot read; its reader must stop, never skip it."""

    def at(self, ledger: str, position: int) -> Self:
        """Return this error, saying where the event stands."""
        return type(self)(
            self.code,
            f"{self.message}; it stands at {ledger}/{position}",
            hint=self.hint,
            value=self.value,
            limit=self.limit,
        )


class UnknownEventType(UnreadableEvent):
    """A stored type or version that this software does not know."""


class MalformedFact(UnreadableEvent):
    """A stored payload that is no payload of its type and version."""


def encode_fact(event: Event) -> bytes:
    """Return the canonical JSON of `event`: sorted keys, no spaces, finite numbers, UTC times.

    Raises
    ------
    InvalidInput
        ``event.value_not_finite``, ``event.naive_time``, ``event.text_malformed``,
        ``event.too_large``
    """
    encoded = json.dumps(
        _plain(event), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
    if len(encoded) > FACT_BYTES_MAX:
        raise InvalidInput(
            "event.too_large",
            f"the payload takes {len(encoded)} bytes, more than {FACT_BYTES_MAX}",
            value=len(encoded),
            limit=FACT_BYTES_MAX,
        )
    return encoded


def are_types_known(names: Set[str]) -> bool:
    """Return whether this software knows all the types `names`."""
    return all(name in _BY_NAME or name == FRAME_RECORDED for name in names)


def check_type_known(name: str, schema_version: int) -> None:
    """Raise `UnknownEventType` unless this software knows the type `name`, of facts or frames.

    Raises
    ------
    UnknownEventType
        ``event.unknown_type``
    """
    if name not in _BY_NAME and name != FRAME_RECORDED:
        raise UnknownEventType(
            "event.unknown_type",
            f"event type {name!r} (version {schema_version}) is not known to this software",
            hint="upgrade this reader; events are never skipped",
            value=name,
        )


def check_version_known(name: str, schema_version: int, known: int) -> None:
    """Raise `UnknownEventType` unless `schema_version` lies between 1 and `known`.

    Raises
    ------
    UnknownEventType
        ``event.unknown_version``
    """
    if not 1 <= schema_version <= known:
        raise UnknownEventType(
            "event.unknown_version",
            f"event type {name!r} is known up to version {known}, not {schema_version}",
            hint="upgrade this reader; events are never skipped",
            value=schema_version,
            limit=known,
        )


def decode_fact(
    name: str, schema_version: int, payload: bytes, *, loads: Loads = json.loads
) -> Any:
    """Return the event stored as `payload` under `name`, brought to its current version.

    Parameters
    ----------
    loads : a faster parser of JSON with the same results, where the caller has one

    Raises
    ------
    UnreadableEvent
        ``event.unknown_type``, ``event.unknown_version`` or ``event.payload_malformed``; a
        reader stops at it
    """
    known = _BY_NAME.get(name)
    if known is None or schema_version != known.schema_version:
        check_type_known(name, schema_version)
        known = _BY_NAME[name]
        check_version_known(name, schema_version, known.schema_version)
    build = _BUILDERS.get(known.event_class) or _builder(known.event_class)
    try:
        document = loads(payload)
        for version in range(schema_version, known.schema_version):
            document = known.upcasters[version](document)
        return build(document)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MalformedFact(
            "event.payload_malformed",
            f"a payload of {name!r} version {schema_version} cannot be read: "
            f"{type(error).__name__}: {error}",
            hint="what wrote it broke the type's contract; the log keeps what it was given",
            value=name,
        ) from error


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
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        case _:
            raise TypeError(f"{type(value).__name__} has no stored form")


Conversion = Callable[[Any], Any]
Builder = Callable[[dict[str, Any]], Any]

_BUILDERS: dict[type, Builder] = {}


def _builder(event_class: type) -> Builder:
    """Return how an event is made of its document, which it takes over."""
    hints = typing.get_type_hints(event_class)
    needed = [(field.name, _conversion(hints[field.name])) for field in fields(event_class)]
    conversions = [(name, converted) for name, converted in needed if converted is not None]
    names = {name for name, _ in needed}
    plain = "__slots__" not in vars(event_class) and not hasattr(event_class, "__post_init__")
    new: Any = event_class.__new__
    set_attribute = object.__setattr__

    def build(document: dict[str, Any]) -> Any:
        for name, converted in conversions:
            document[name] = converted(document[name])
        if not plain or document.keys() != names:
            return event_class(**document)
        # A frozen dataclass sets field by field, which costs more than all the rest here.
        event = new(event_class)
        set_attribute(event, "__dict__", document)
        return event

    _BUILDERS[event_class] = build
    return build


def _conversion(hint: Any) -> Conversion | None:
    """Return how a JSON value becomes one of the annotated type `hint`; None: it is one."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        inner = _conversion(next(a for a in typing.get_args(hint) if a is not types.NoneType))
        return None if inner is None else lambda value: None if value is None else inner(value)
    if origin is tuple:
        item = _conversion(typing.get_args(hint)[0])
        return tuple if item is None else lambda values: tuple(item(value) for value in values)
    if hint is float:
        return float
    if hint is datetime:
        return datetime.fromisoformat
    if isinstance(hint, type) and issubclass(hint, (StrEnum, uuid.UUID)):
        return hint
    if is_dataclass(hint) and isinstance(hint, type):
        return _BUILDERS.get(hint) or _builder(hint)
    return None
