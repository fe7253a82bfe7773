"""Serial lines with a declared frame format; see `edge_agent.serial_line`."""

from __future__ import annotations

import re
from functools import partial
from typing import Final

from domain.errors import InvalidInput
from edge_agent.channel_mapping import MappedChannel, mapped_channels
from edge_agent.serial_line.connection import SerialLineConnection, SerialLineSource, SerialPort
from edge_agent.serial_line.contents import BYTE_ORDERS, NUMBERS, BinaryPlace, Contents, Place
from edge_agent.serial_line.framing import CHECKSUMS, Checksum, Framing
from edge_agent.sources import ConnectionContext, SourceContext
from edge_agent.yaml_section import Section

KIND: Final = "serial-line"

FRAME_BYTES_MAX: Final = 4_096
PATTERN_LENGTH_MAX: Final = 500
_PARITIES: Final = {"none": "N", "even": "E", "odd": "O"}


def configure_connection(
    section: Section,
    name: str,
    context: ConnectionContext,  # noqa: ARG001
) -> SerialLineConnection | None:
    """Return the connection that `section` declares, or None after noting what is wrong."""
    path = section.text("port")
    baud = section.whole_number("baud", 50, 12_000_000, 9_600)
    parity = section.choice("parity", list(_PARITIES), "none")
    data_bits = section.whole_number("data_bits", 7, 8, 8)
    stop_bits = section.whole_number("stop_bits", 1, 2, 1)
    frame = section.section("frame")
    framing = None if frame is None else _framing(frame)
    request, every_s = b"", 1.0
    asked = section.child("request")
    if asked is not None:
        request = _bytes(asked, "send") or b""
        every_s = asked.number("every_s", 0.01, 3_600) or 1.0
        asked.finish()
    if path is None or baud is None or parity is None or framing is None:
        return None
    if data_bits is None or stop_bits is None:
        return None
    port = SerialPort(path, baud, _PARITIES[parity], data_bits, stop_bits)
    return SerialLineConnection(name, port, framing, request, every_s)


def configure(section: Section, context: SourceContext) -> SerialLineSource | None:
    """Return the source that `section` declares, or None after noting what is wrong."""
    form = section.choice("format", ("fields", "pattern", "binary"))
    begins = (_bytes(section, "begins_with") or b"") if section.has("begins_with") else b""
    separator = pattern = None
    if form == "fields":
        separator = section.text("separator") if section.has("separator") else ","
    if form == "pattern":
        text = section.text("pattern")
        pattern = None if text is None else section.attempt("pattern", partial(_pattern, text))
        if pattern is None:
            form = None
    if form is None:
        return None

    def place(of: Section, _rate_hz: float | None) -> Place | None:
        match form:
            case "fields":
                return _field(of)
            case "pattern":
                return _group(of, pattern)
            case _:
                return _binary(of)

    channels: list[MappedChannel[Place]] = mapped_channels(section, context, place)
    if not channels:
        return None
    contents = Contents(separator=separator, pattern=pattern, begins_with=begins)
    return SerialLineSource(contents=contents, mapped=tuple(channels))


# --- frames -------------------------------------------------------------------------------


def _framing(frame: Section) -> Framing | None:
    if frame.has("delimiter") == frame.has("length"):
        told = "a frame ends with a delimiter or has a length, one of the two"
        frame.fault("delimiter", "mapping.frame", told)
        return None
    delimiter = (_bytes(frame, "delimiter") or b"") if frame.has("delimiter") else b""
    start = (_bytes(frame, "start") or b"") if frame.has("start") else b""
    bytes_max = FRAME_BYTES_MAX
    length: int | None = 0
    if frame.has("length"):
        length = frame.whole_number("length", 1, FRAME_BYTES_MAX)
    else:
        bytes_max = frame.whole_number("bytes_max", 1, FRAME_BYTES_MAX, FRAME_BYTES_MAX) or 0
    declared = frame.child("checksum")
    checksum = None if declared is None else _checksum(declared)
    frame.finish()
    if length is None or not bytes_max or (declared is not None and checksum is None):
        return None
    if not delimiter and not length:
        return None
    return Framing(delimiter, length, start, bytes_max, checksum)


def _checksum(section: Section) -> Checksum | None:
    kind = section.choice("kind", list(CHECKSUMS))
    form = section.choice("form", ("binary", "hex"), "binary")
    order = section.choice("byte_order", list(BYTE_ORDERS), "big")
    first = section.whole_number("from", 0, FRAME_BYTES_MAX, 0)
    skip = section.whole_number("skip_last", 0, 16, 0)
    section.finish()
    if kind is None or form is None or order is None or first is None or skip is None:
        return None
    return Checksum(kind, form == "hex", order == "big", first, skip)


# --- channels -----------------------------------------------------------------------------


def _field(section: Section) -> int | None:
    return section.whole_number("field", 0, 1_000)


def _group(section: Section, pattern: re.Pattern[str] | None) -> str | None:
    name = section.text("group")
    if name is not None and pattern is not None and name not in pattern.groupindex:
        known = ", ".join(pattern.groupindex) or "none"
        told = f"the pattern has no group {name!r:.80}"
        section.fault("group", "mapping.unknown_group", told, f"its groups: {known}")
        return None
    return name


def _binary(section: Section) -> BinaryPlace | None:
    offset = section.whole_number("at", 0, FRAME_BYTES_MAX)
    kind = section.choice("type", list(NUMBERS))
    order = section.choice("byte_order", list(BYTE_ORDERS), "big")
    if offset is None or kind is None or order is None:
        return None
    return BinaryPlace(offset, BYTE_ORDERS[order] + NUMBERS[kind])


def _pattern(text: str) -> re.Pattern[str]:
    if len(text) > PATTERN_LENGTH_MAX:
        raise InvalidInput("mapping.pattern", f"longer than {PATTERN_LENGTH_MAX} characters")
    try:
        return re.compile(text, re.ASCII)
    except re.error as error:
        raise InvalidInput("mapping.pattern", f"{text!r:.120}: {error}") from error


def _bytes(section: Section, key: str) -> bytes | None:
    """Return bytes as written: text with the escapes \\r \\n \\t \\xHH."""
    text = section.text(key)
    return None if text is None else section.attempt(key, lambda: unescaped(text))


def unescaped(text: str) -> bytes:
    """Return the bytes that `text` stands for.

    Raises
    ------
    InvalidInput
        ``mapping.bytes``
    """
    try:
        return text.encode("latin-1").decode("unicode_escape").encode("latin-1")
    except (UnicodeError, ValueError) as error:
        told = f"{text!r:.80} does not stand for bytes"
        raise InvalidInput("mapping.bytes", told, hint=r"such as '\r\n' or '\xaa\x55'") from error
