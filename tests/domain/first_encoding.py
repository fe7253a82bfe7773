"""A writer of encoding version 1, which the software no longer has, for tests of its reader."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt
import zstandard

from domain.frames import ByteArray, Column, Frame, IntArray, Quality, header_bytes

DECIMALS_MAX: Final = 9
EXACT_INTEGER_MAX: Final = float(2**53)
_PRELUDE = struct.Struct("<3sBQIH")
_U16 = struct.Struct("<H")
_BYTE_AND_TWO = struct.Struct("<Bqq")
_CLOCK_REGULAR, _CLOCK_DELTAS = 0, 1
_VALUES_RAW, _VALUES_SCALED, _VALUES_SCALED_DELTAS = 0, 1, 2
_QUALITY_ALL_GOOD, _QUALITY_MASK = 0, 1
_WIDTHS: Final = (np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4"), np.dtype("<u8"))
_POWERS: Final = tuple(10.0**decimals for decimals in range(DECIMALS_MAX + 1))


def encode_1(frame: Frame) -> bytes:
    """Return `frame` in encoding version 1."""
    head = header_bytes(frame.header)
    parts = [_U16.pack(len(head)), head]
    parts += [_encode_clock(clock) for clock in frame.clocks]
    for column, quality in zip(frame.values, frame.qualities, strict=True):
        parts.append(_encode_values(column, quality))
        if quality.any():
            parts += [bytes([_QUALITY_MASK]), quality.tobytes()]
        else:
            parts.append(bytes([_QUALITY_ALL_GOOD]))
    body = b"".join(parts)
    counts = struct.pack(f"<{len(frame.clocks)}I", *(len(clock) for clock in frame.clocks))
    prelude = _PRELUDE.pack(b"HDF", 1, frame.sequence, len(body), len(frame.clocks))
    compressor = zstandard.ZstdCompressor(level=3, write_content_size=False)
    return prelude + counts + compressor.compress(body)


def _encode_clock(clock: IntArray) -> bytes:
    steps = np.diff(clock)
    if len(steps) == 0 or (steps == steps[0]).all():
        step = int(steps[0]) if len(steps) else 0
        return _BYTE_AND_TWO.pack(_CLOCK_REGULAR, int(clock[0]), step)
    tick = int(np.gcd.reduce(steps))
    packed = _pack_unsigned((steps // tick).astype(np.uint64))
    return _BYTE_AND_TWO.pack(_CLOCK_DELTAS, int(clock[0]), tick) + packed


def _encode_values(column: Column, quality: ByteArray) -> bytes:
    scaled = _scaled_integers(column, quality)
    if scaled is None:
        return bytes([_VALUES_RAW]) + _shuffled(column)
    decimals, integers = scaled
    deltas = np.diff(integers)
    scheme, base, residuals = _VALUES_SCALED, int(integers.min()), integers
    # The spread of white noise grows by sqrt(2) under differences, so noisy channels stay plain.
    if len(deltas) and np.abs(deltas).sum() < np.abs(integers - integers.mean()).sum():
        scheme, base, residuals = _VALUES_SCALED_DELTAS, int(deltas.min()), deltas
    first = int(integers[0])
    packed = _pack_unsigned((residuals - base).astype(np.uint64))
    return struct.pack("<BBqq", scheme, decimals, first, base) + packed


def _scaled_integers(column: Column, quality: ByteArray) -> tuple[int, IntArray] | None:
    """Return (decimals, integers) with ``integers / 10**decimals`` equal to `column` bit by bit."""
    if column.dtype.kind == "b":
        return None
    if column.dtype.kind == "i":
        spread = float(column.max()) - float(column.min())
        return (0, column) if spread < EXACT_INTEGER_MAX else None
    if quality.any():
        column = _filled(column, quality)
    wide = column.astype(np.float64, copy=False)
    if np.abs(wide).max() * _POWERS[0] >= EXACT_INTEGER_MAX:
        return None
    bits = f"<i{column.dtype.itemsize}"
    for decimals, power in enumerate(_POWERS):
        rounded = np.rint(wide * power)
        if np.abs(rounded).max() >= EXACT_INTEGER_MAX:
            return None
        integers = rounded.astype(np.int64)
        restored = (integers / power).astype(column.dtype, copy=False)
        if np.array_equal(restored.view(bits), column.view(bits)):
            return decimals, integers
    return None


def _filled(column: Column, quality: ByteArray) -> Column:
    """Return `column` with each MISSING value replaced by the last present one (0 before any)."""
    present = np.where(quality != Quality.MISSING, np.arange(1, len(column) + 1), 0)
    latest = np.maximum.accumulate(present)
    return np.concatenate((np.zeros(1, column.dtype), column))[latest]


def _pack_unsigned(integers: npt.NDArray[np.uint64]) -> bytes:
    largest = int(integers.max()) if len(integers) else 0
    width = next(w for w in _WIDTHS if largest < 1 << (8 * w.itemsize))
    return bytes([width.itemsize]) + _shuffled(integers.astype(width))


def _shuffled(column: Column) -> bytes:
    """Return the bytes of `column` plane by plane: all first bytes, then all second ones, …"""
    itemsize = column.dtype.itemsize
    return column.view(np.uint8).reshape(len(column), itemsize).T.tobytes()
