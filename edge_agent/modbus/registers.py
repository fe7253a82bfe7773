"""What registers hold: numbers of several types and orders, bits, and patterns that mean nothing.

Pure. A device sends 16-bit registers, each with its high byte first; what a number of several
registers means is the manufacturer's, as is a pattern that stands for "no value".

References
----------
Modbus Application Protocol Specification V1.1b3 (2012), 4.2 and 4.3: data encoding, data model.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from domain.frames import Quality
from edge_agent.delivered_numbers import exactness
from edge_agent.delivered_values import is_exact
from edge_agent.delivered_values import value_of as delivered_value
from edge_agent.live import DeliveredChannel

WORD_BITS: Final = 16


class Table(StrEnum):
    """Which of the four tables of a device."""

    COIL = "coil"
    DISCRETE = "discrete"
    INPUT = "input"
    HOLDING = "holding"

    @property
    def has_bits(self) -> bool:
        """Whether an address holds one bit, not a register."""
        return self in (Table.COIL, Table.DISCRETE)


FORMATS: Final = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "int64": ">q",
    "uint64": ">Q",
    "float32": ">f",
    "float64": ">d",
}
"""The types of numbers, as they are once bytes and words lie with the highest first."""
ORDERS: Final = ("big", "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Where a number lies and how it is written.

    Parameters
    ----------
    address : from 0, as it goes over the line
    number_type : a key of `FORMATS`; of a table of bits, ``bool``
    word_order, byte_order : which word comes first, which byte within a word
    first_bit, bit_count : of a bit field within an integer, from the lowest bit 0; 0 bits for all
    absent : bit patterns, as whole numbers from 0, that stand for no value
    """

    table: Table
    address: int
    number_type: str = "uint16"
    word_order: str = "big"
    byte_order: str = "big"
    first_bit: int = 0
    bit_count: int = 0
    absent: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many addresses it takes."""
        return 1 if self.table.has_bits else struct.calcsize(FORMATS[self.number_type]) // 2

    @property
    def is_float(self) -> bool:
        """Whether it is a binary fraction."""
        return self.number_type.startswith("float")


@dataclass(frozen=True, slots=True)
class Value:
    """A value as it was read; of a number NaN with `Quality.MISSING` where there is none."""

    raw: float | int | bool | str
    quality: int
    code: str = ""
    message: str = ""


NOTHING: Final = Value(math.nan, Quality.MISSING)


def value_of(field: Field, registers: Sequence[int]) -> Value:
    """Return what `registers`, ``field.size`` of them, say; a table of bits gives 0 or 1 each."""
    number = number_in(field, registers)
    if number is None:
        return NOTHING
    if isinstance(number, float) and not math.isfinite(number):
        return Value(math.nan, Quality.MISSING, "value.not_finite", f"the device sends {number}")
    quality, code = exactness(number)
    told = f"{number} is beyond 2^53 and was rounded" if code else ""
    return Value(float(number), quality, code, told)


def value_as(field: Field, registers: Sequence[int], channel: DeliveredChannel) -> Value:
    """Return what `registers` say as a value of `channel`: 64 bits are not rounded by a float."""
    if not is_exact(channel):
        return value_of(field, registers)
    number = number_in(field, registers)
    found, quality, code = delivered_value(number, channel)
    return Value(found, quality, code, f"{number!r} gives no good reading" if code else "")


def number_in(field: Field, registers: Sequence[int]) -> float | int | None:
    """Return the number in `registers` as it stands there; None for a pattern that means none."""
    if field.table.has_bits:
        return int(bool(registers[0]))
    raw = _bytes_of(field, registers)
    pattern = int.from_bytes(raw, "big")
    if pattern in field.absent:
        return None
    if field.bit_count:
        return (pattern >> field.first_bit) & ((1 << field.bit_count) - 1)
    number: float | int = struct.unpack(FORMATS[field.number_type], raw)[0]
    return number


def registers_of(field: Field, number: float) -> list[int] | None:
    """Return the registers that hold `number`, or None where its type cannot hold it."""
    if field.table.has_bits:
        return [int(number)] if number in (0.0, 1.0) else None
    try:
        raw = struct.pack(FORMATS[field.number_type], number if field.is_float else round(number))
    except (struct.error, OverflowError, ValueError):
        return None
    words = [raw[at : at + 2] for at in range(0, len(raw), 2)]
    if field.byte_order == "little":
        words = [word[::-1] for word in words]
    if field.word_order == "little":
        words.reverse()
    return [int.from_bytes(word, "big") for word in words]


def _bytes_of(field: Field, registers: Sequence[int]) -> bytes:
    """Return the bytes of the number, highest first."""
    order = "little" if field.byte_order == "little" else "big"
    words = [register.to_bytes(2, order) for register in registers[: field.size]]  # type: ignore[arg-type]
    if field.word_order == "little":
        words.reverse()
    return b"".join(words)
