"""Values as protocols deliver them, as the type that a channel declares holds them: exactly.

A number is `edge_agent.delivered_numbers`'. A whole number, a truth value or a text is what was
delivered or it is MISSING: none is rounded, cut or guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from domain.asset_model import ValueKind
from domain.frames import TEXT_LENGTH_MAX, Quality
from edge_agent.delivered_numbers import EXACT_INTEGER_MAX, number_of
from edge_agent.live import DeliveredChannel

Value = float | int | bool | str
Judged = tuple[Value, Quality, str]
"""A value, its quality, and a fault's code or nothing."""

VALUE_TYPE_OF_KIND: Final[Mapping[ValueKind, str]] = {
    ValueKind.NUMBER: "f8",
    ValueKind.INTEGER: "i8",
    ValueKind.BOOLEAN: "b1",
    ValueKind.TEXT: "str",
}
"""How a live source delivers the channels of each kind: types of `domain.frames.VALUE_TYPES`."""

NO_VALUE: Final[Mapping[str, Value]] = {"f8": math.nan, "i8": 0, "b1": False, "str": ""}
"""What stands in a column where a reading is MISSING."""

INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**63 - 1
_DIGITS: Final = re.compile(r"[-+]?[0-9]{1,19}")
_WORDS: Final = {"true": True, "false": False, "1": True, "0": False}


def value_of(value: Any, channel: DeliveredChannel) -> Judged:
    """Return what a delivered value is in `channel`."""
    value_type = channel.value_type
    if value_type == "f8" and type(value) is float and math.isfinite(value):
        return value, Quality.GOOD, ""  # nearly all are
    read = _EXACT.get(value_type)
    if read is None:
        return number_of(value, of_unity=channel.unit == "1")
    if value is None:
        return NO_VALUE[value_type], Quality.MISSING, ""
    found, code = read(value)
    if code:
        return NO_VALUE[value_type], Quality.MISSING, code
    return found, Quality.GOOD, ""


def is_exact(channel: DeliveredChannel) -> bool:
    """Return whether a channel holds what nothing may round: anything but measured numbers."""
    return channel.value_type in _EXACT


def _integer(value: Any) -> tuple[Value, str]:
    """Return a whole number of at most 64 bits with a sign, and a fault's code or nothing."""
    if isinstance(value, str):
        text = value.strip(" ")
        if not _DIGITS.fullmatch(text):
            return 0, "value.not_integer"
        value = int(text)
    if isinstance(value, float | np.floating):
        # A float is a whole number only as far as every neighbour of it is one, too.
        told = float(value)
        if not told.is_integer() or abs(told) > EXACT_INTEGER_MAX:
            return 0, "value.not_integer"
        return int(told), ""
    if not isinstance(value, int | np.integer):  # a truth value is the number 1 or 0
        return 0, "value.not_integer"
    number = int(value)
    return (number, "") if INTEGER_MIN <= number <= INTEGER_MAX else (0, "value.out_of_range")


def _boolean(value: Any) -> tuple[Value, str]:
    """Return a truth value, also where it is told as 1 or 0, and a fault's code or nothing."""
    if isinstance(value, str):
        found = _WORDS.get(value.strip(" ").lower())
        return (False, "value.not_boolean") if found is None else (found, "")
    if isinstance(value, bool | int | float | np.number | np.bool_) and value in (0, 1):
        return bool(value), ""
    return False, "value.not_boolean"


def _text(value: Any) -> tuple[Value, str]:
    """Return a text as it was delivered, and a fault's code or nothing."""
    if not isinstance(value, str):
        return "", "value.not_text"
    try:
        length = len(value.encode())
    except UnicodeEncodeError:  # half of a pair of surrogates is no character
        return "", "value.not_text"
    return (value, "") if length <= TEXT_LENGTH_MAX else ("", "value.text_too_long")


_EXACT: Final[Mapping[str, Callable[[Any], tuple[Value, str]]]] = {
    "i8": _integer,
    "b1": _boolean,
    "str": _text,
}
