"""What a frame says: fields of a text, groups of a pattern, or numbers at places of bytes."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from domain.errors import InvalidInput
from edge_agent.delivered_values import Value, value_of
from edge_agent.live import DeliveredChannel

NUMBERS: Final = {
    "u1": "B",
    "i1": "b",
    "u2": "H",
    "i2": "h",
    "u4": "I",
    "i4": "i",
    "u8": "Q",
    "i8": "q",
    "f4": "f",
    "f8": "d",
}
BYTE_ORDERS: Final = {"big": ">", "little": "<"}


@dataclass(frozen=True, slots=True)
class BinaryPlace:
    """A number in a frame of bytes: its offset, and its `struct` format."""

    offset: int
    form: str


Place = int | str | BinaryPlace
"""A field's index, a group's name, or a place among bytes."""


@dataclass(frozen=True, slots=True)
class Contents:
    """How the frames of one source are read.

    Parameters
    ----------
    separator, pattern : of texts; neither of the two where frames are binary
    begins_with : frames that begin otherwise are another source's
    """

    separator: str | None = None
    pattern: re.Pattern[str] | None = None
    begins_with: bytes = b""

    def values(self, frame: bytes) -> list[str] | dict[str, str] | bytes | None:
        """Return what `frame` holds, None where it is another source's.

        Raises
        ------
        InvalidInput
            ``message.not_text``, ``message.no_match``
        """
        if not frame.startswith(self.begins_with):
            return None
        if self.separator is None and self.pattern is None:
            return frame
        try:
            text = frame.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput("message.not_text", f"the frame is no text: {error}") from error
        if self.pattern is not None:
            found = self.pattern.search(text)
            if found is None:
                raise InvalidInput("message.no_match", f"{text!r:.120} is not of the pattern")
            return {name: value or "" for name, value in found.groupdict().items()}
        return [field.strip() for field in text.split(self.separator)]


def value_at(
    values: list[str] | dict[str, str] | bytes, place: Place, channel: DeliveredChannel
) -> tuple[Value, int, str, str]:
    """Return the value of `channel` at `place`, its quality, a fault's code, what stood there.

    A field that is empty holds no number; a text may be empty.
    """
    found: object = None
    if isinstance(values, bytes) and isinstance(place, BinaryPlace):
        end = place.offset + struct.calcsize(place.form)
        if end <= len(values):
            (found,) = struct.unpack(place.form, values[place.offset : end])
    elif isinstance(values, list) and isinstance(place, int):
        found = values[place] if place < len(values) else None
    elif isinstance(values, dict) and isinstance(place, str):
        found = values.get(place)
    if found is None:
        return *value_of(None, channel)[:2], "value.absent", ""
    is_empty = found == "" and channel.value_type != "str"
    value, quality, code = value_of(None if is_empty else found, channel)
    return value, quality, code, str(found)
