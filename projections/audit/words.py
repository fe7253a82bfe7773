"""An event in words: one line that says what happened, made from the event's own names."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from domain.events import format_time
from domain.records import RecordCorrected, RecordSigned

WORDS_LENGTH_MAX: Final = 400
"""Characters of a line; what is cut off is in the payload."""

VALUE_LENGTH_MAX: Final = 80

_UNITS: Final = {"_s": "s", "_j": "J", "_k": "K", "_pa": "Pa", "_hz": "Hz", "_m": "m"}
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def words_of(fact: Any, stream: str) -> str:
    """Return what `fact`, of `stream`, says in one line of at most `WORDS_LENGTH_MAX`."""
    return _cut(_words(fact, stream), WORDS_LENGTH_MAX)


def _words(fact: Any, stream: str) -> str:
    match fact:
        case RecordCorrected():
            instead = fact.fact()
            was = "it did not happen" if instead is None else _words(instead, stream)
            return f"Corrected {fact.corrected_position}: {was}; because {_value(fact.reason)}"
        case RecordSigned():
            return (
                f"Signed {fact.signed_position} as {fact.meaning} by {_value(fact.signer_name)} "
                f"({fact.signer}), authenticated at {format_time(fact.authenticated_at)}"
            )
    name = _HUMP.sub(" ", type(fact).__name__).lower().capitalize()
    object_id = stream.partition(":")[2]
    said = [
        text
        for field in fields(fact)
        if (text := _field(field.name, getattr(fact, field.name), object_id))
    ]
    return f"{name}: {', '.join(said)}" if said else name


def _field(name: str, value: Any, object_id: str) -> str:
    """Return a field in words; nothing where it says nothing, or what the stream says already."""
    if value is None or value == () or value == "" or value is False:
        return ""
    if name.endswith("_id") and value == object_id:
        return ""
    label = name.removesuffix("_id").replace("_", " ")
    if value is True:
        return label
    if isinstance(value, tuple) and is_dataclass(value[0]):
        return f"{len(value)} {label}"
    if isinstance(value, float | int):
        for suffix, unit in _UNITS.items():
            if name.endswith(suffix):
                return f"{name.removesuffix(suffix).replace('_', ' ')} {_value(value)} {unit}"
    return f"{label} {_value(value)}"


def _value(value: Any) -> str:
    match value:
        case StrEnum():
            return value.value
        case datetime():
            return format_time(value)
        case float():
            return f"{value:.12g}"
        case tuple():
            return "/".join(_value(item) for item in value)
        case str():
            text = _cut(value, VALUE_LENGTH_MAX)
            return f'"{text}"' if " " in text else text
        case _:
            return _cut(str(value), VALUE_LENGTH_MAX)


def _cut(text: str, length_max: int) -> str:
    return text if len(text) <= length_max else text[: length_max - 1] + "…"
