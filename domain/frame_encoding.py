"""Encodes frames: exact integers where values are such, each column by what makes it smallest.

Columns of one length, of however many frames, are tried and coded as one matrix. What has no
exact integers lies in the bytes of its type, shuffled and compressed. `domain.frame_decoding`
reads it back; ``docs/frame-format.md`` specifies the bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from domain.errors import InvalidInput
from domain.frame_layout import (
    FRAME_MAGIC,
    MASKED,
    PACKED,
    PRELUDE_2,
    SECOND_VERSION,
    SHUFFLED,
    TICK_EXPONENT_MAX,
    XOR_SHUFFLED,
    compressed,
)
from domain.frame_scaling import exact_integers
from domain.frames import FRAME_BYTES_MAX, Frame, IntArray, Quality, good_mask
from domain.frames import Column as Values
from domain.integer_columns import (
    DRIFT,
    SPREAD_MAX,
    TABLE,
    UNARY,
    Coded,
    choose,
    pack_low_bits,
    pack_unary,
)

READINGS_AT_ONCE: Final = 32_768


def encode(frame: Frame) -> bytes:
    """Return the encoded form of `frame`.

    Raises
    ------
    InvalidInput
        ``frame.too_large`` or ``frame.header`` when it would take more bytes than a frame may
    """
    return _encoded_together([frame])[0]


def encode_many(frames: Sequence[Frame]) -> list[bytes]:
    """Return the encoded form of each of `frames`; together they are encoded faster."""
    encoded: list[bytes] = []
    together: list[Frame] = []
    readings = 0
    for frame in frames:
        if together and readings + frame.reading_count > READINGS_AT_ONCE:
            encoded += _encoded_together(together)
            together, readings = [], 0
        together.append(frame)
        readings += frame.reading_count
    return encoded + _encoded_together(together) if together else encoded


# --- which integers a frame is made of ----------------------------------------------------


@dataclass(slots=True)
class _Column:
    """One column of a frame: integers times a power of ten, or bytes of its type.

    Parameters
    ----------
    integers : int64, shape (n,); None where the values have no exact integers
    packed : what of it lies in the packed section
    flags : of its kind, besides how the integers are coded
    """

    integers: IntArray | None
    exponent: int = 0
    packed: bytes = b""
    packing: int = SHUFFLED
    flags: int = 0
    row: tuple[Coded, int] | None = None


@dataclass(slots=True)
class _Parts:
    frame: Frame
    columns: list[_Column] = field(default_factory=list)


def _encoded_together(frames: Sequence[Frame]) -> list[bytes]:
    scaled = _scaled_columns(frames)
    parts = [_Parts(frame, list(_columns(frame, scaled))) for frame in frames]
    _choose(parts)
    bits = _Bits()
    described = [_described(part, index, bits) for index, part in enumerate(parts)]
    low_bits = pack_low_bits(bits.low, bits.widths, bits.low_frames, len(parts))
    unary = pack_unary(bits.above, bits.above_frames, len(parts))
    return [
        _joined(part, description + low + above)
        for part, description, low, above in zip(parts, described, low_bits, unary, strict=True)
    ]


_Scaled = Iterator[tuple[int, IntArray] | None]


def _columns(frame: Frame, scaled: _Scaled) -> Iterator[_Column]:
    """Yield the columns of `frame`: of its clocks, its channels, and then their masks."""
    for clock, rate_hz in zip(frame.clocks, frame.header.rates_hz, strict=True):
        yield _clock_column(clock if rate_hz is None else clock[:1], len(clock))
    masks = []
    for channel, values, quality in zip(
        frame.header.channels, frame.values, frame.qualities, strict=True
    ):
        masked = quality is not good_mask(len(quality)) and bool(quality.any())
        if channel.is_text:
            column = _text_column(values)
        else:
            found = next(scaled)
            column = _packed_column(values) if found is None else _Column(found[1], found[0])
        if masked:
            column.flags |= MASKED
            masks.append(quality)
        yield column
    for quality in masks:
        yield _Column(quality.astype(np.int64))


def _clock_column(clock: IntArray, length: int) -> _Column:
    """Return a clock as ticks of the largest power of ten that divides all its times."""
    start, steps = int(clock[0]), np.diff(clock)
    if len(steps) == 0:
        divisor = start
    elif (steps == steps[0]).all():
        divisor = math.gcd(start, int(steps[0]))
    else:
        divisor = math.gcd(start, int(np.gcd.reduce(steps)))
    exponent = 0
    while divisor and divisor % 10 == 0 and exponent < TICK_EXPONENT_MAX:
        divisor //= 10
        exponent += 1
    ticks = clock // 10**exponent
    if float(ticks[-1]) - float(ticks[0]) >= SPREAD_MAX:
        return _packed_column(clock)
    return _Column(np.broadcast_to(ticks, length) if len(clock) < length else ticks, exponent)


def _text_column(values: Values) -> _Column:
    """Return texts as indexes into their distinct ones, in the order of first use."""
    places: dict[str, int] = {}
    integers = np.array([places.setdefault(text, len(places)) for text in values.tolist()])
    texts = [text.encode() for text in places]
    table = struct.pack(f"<I{len(texts)}H", len(texts), *map(len, texts)) + b"".join(texts)
    return _Column(integers, packed=table)


def _packed_column(values: Values) -> _Column:
    """Return values in the bytes of their type, by what compresses better."""
    itemsize = values.dtype.itemsize
    bits = np.ascontiguousarray(values).view(f"<u{itemsize}")
    differing = bits.copy()
    differing[1:] ^= bits[:-1]
    candidates = [
        column.view(np.uint8).reshape(len(column), itemsize).T.tobytes()
        for column in (bits, differing)
    ]
    sizes = [len(compressed(candidate)) for candidate in candidates]
    packing = XOR_SHUFFLED if sizes[1] < sizes[0] else SHUFFLED
    return _Column(None, packed=candidates[packing], packing=packing, flags=PACKED)


def _scaled_columns(frames: Sequence[Frame]) -> _Scaled:
    """Return, for each numeric channel of `frames`, its decimals and integers.

    None stands for a channel whose values are no integers by a power of ten, or too far apart.
    """
    columns: list[Values] = []
    masks: list[npt.NDArray[np.uint8] | None] = []
    alike: dict[tuple[str, int], list[int]] = {}
    for frame in frames:
        for channel, values, quality in zip(
            frame.header.channels, frame.values, frame.qualities, strict=True
        ):
            if channel.is_text:
                continue
            alike.setdefault((channel.value_type, len(values)), []).append(len(columns))
            columns.append(values)
            masks.append(None if quality is good_mask(len(quality)) else quality)
    found: list[tuple[int, IntArray] | None] = [None] * len(columns)
    for places in alike.values():
        matrix = np.concatenate([columns[place] for place in places]).reshape(len(places), -1)
        for row, place in enumerate(places):
            mask = masks[place]
            if mask is not None and mask.any():
                matrix[row] = _filled(matrix[row], mask)
        exact, decimals, integers = exact_integers(matrix)
        for row, place in enumerate(places):
            if exact[row]:
                found[place] = int(decimals[row]), integers[row]
    return iter(found)


def _filled(column: Values, quality: npt.NDArray[np.uint8]) -> Values:
    """Return `column` with each MISSING value replaced by the last present one (0 before any)."""
    present = np.where(quality != Quality.MISSING, np.arange(1, len(column) + 1), 0)
    latest = np.maximum.accumulate(present)
    return np.concatenate((np.zeros(1, column.dtype), column))[latest]


# --- from integers to bytes ---------------------------------------------------------------


def _choose(parts: Sequence[_Parts]) -> None:
    """Give every column of integers its predictor, those of one length together."""
    alike: dict[int, list[_Column]] = {}
    for part in parts:
        for column in part.columns:
            if column.integers is not None:
                alike.setdefault(len(column.integers), []).append(column)
    for columns in alike.values():
        matrix = np.concatenate([c.integers for c in columns if c.integers is not None])
        coded = choose(matrix.reshape(len(columns), -1))
        for row, column in enumerate(columns):
            column.row = coded, row


@dataclass(slots=True)
class _Bits:
    """The numbers of all frames that are to be packed, each with its frame."""

    low: list[IntArray] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    low_frames: list[int] = field(default_factory=list)
    above: list[IntArray] = field(default_factory=list)
    above_frames: list[int] = field(default_factory=list)


def _described(part: _Parts, frame: int, bits: _Bits) -> bytes:
    """Return descriptors and parameters of a frame's columns, and put its numbers into `bits`."""
    descriptors: list[int] = []
    parameters: list[bytes] = []
    for column in part.columns:
        if column.row is None:
            descriptors += (column.flags, column.packing, 0)
            continue
        coded, row = column.row
        kind, width, base, size = (
            coded.kinds[row],
            coded.widths[row],
            coded.bases[row],
            coded.sizes[row],
        )
        if kind & TABLE:
            table = coded.tables[row]
            first, gap_width = int(table[0]), _table_width(table)
            size = _byte_length(first)
            parameters.append(first.to_bytes(size, "little", signed=True))
            parameters.append(bytes((len(table) - 1, gap_width, base)))
            if gap_width:
                bits.low.append(np.diff(table) - 1)
                bits.widths.append(gap_width)
                bits.low_frames.append(frame)
        else:
            parameters.append(base.to_bytes(size, "little", signed=True))
            if kind & DRIFT:
                parameters.append(coded.drifts[row].to_bytes(size, "little", signed=True))
        descriptors += (kind | column.flags, width, column.exponent << 4 | size)
        if width:
            bits.low.append(coded.low[row])
            bits.widths.append(width)
            bits.low_frames.append(frame)
        if kind & UNARY:
            bits.above.append(coded.above[row])
            bits.above_frames.append(frame)
    return bytes(descriptors) + b"".join(parameters)


def _table_width(table: IntArray) -> int:
    return int(np.diff(table).max(initial=1) - 1).bit_length()


def _joined(part: _Parts, columns: bytes) -> bytes:
    """Return the bytes of a frame, `columns` being what describes its columns, and their bits."""
    frame = part.frame
    packed = [column.packed for column in part.columns if column.packed]
    header, raw = frame.header.packed, b"".join(packed)
    lengths = [len(clock) for clock in frame.clocks]
    section = b""
    if raw:
        section = compressed(raw)
        section = len(section).to_bytes(4, "little") + section
    prelude = PRELUDE_2.pack(
        FRAME_MAGIC,
        SECOND_VERSION,
        frame.sequence,
        frame.reading_count,
        len(raw),
        len(header),
        len(lengths),
    )
    encoded = b"".join(
        (
            prelude,
            struct.pack(f"<{len(lengths)}I", *lengths),
            header,
            section,
            columns,
        )
    )
    if len(encoded) > FRAME_BYTES_MAX:
        raise InvalidInput(
            "frame.too_large",
            f"the frame takes {len(encoded)} bytes, more than {FRAME_BYTES_MAX}",
            hint="send shorter windows",
            value=len(encoded),
            limit=FRAME_BYTES_MAX,
        )
    return encoded


def _byte_length(number: int) -> int:
    return 0 if number == 0 else ((~number if number < 0 else number).bit_length() + 8) // 8
