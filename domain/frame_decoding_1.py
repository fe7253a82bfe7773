"""Reads frames of encoding version 1, which nobody writes any more and the log holds for ever."""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from domain.errors import MalformedFrame
from domain.frame_header import FIRST_VALUE_TYPES, VALUE_TYPES, FrameHeader, parse_header
from domain.frame_layout import (
    DECIMALS_MAX,
    POWERS,
    ByteReader,
    Prelude,
    decompressed,
)
from domain.frames import (
    ByteArray,
    Column,
    Frame,
    IntArray,
    Quality,
    build_frame,
    check_reading_count,
    good_mask,
)

_U16 = struct.Struct("<H")
_BYTE_AND_TWO = struct.Struct("<Bqq")  # a scheme or decimals, then two int64

_CLOCK_REGULAR: Final = 0
_CLOCK_DELTAS: Final = 1
_VALUES_RAW: Final = 0
_VALUES_SCALED: Final = 1
_VALUES_SCALED_DELTAS: Final = 2
_QUALITY_ALL_GOOD: Final = 0
_QUALITY_MASK: Final = 1

_WIDTHS: Final = (np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4"), np.dtype("<u8"))


def decode_1(encoded: bytes, prelude: Prelude) -> Frame:
    """Return the frame of version 1 that starts with `prelude`.

    Raises
    ------
    MalformedFrame
        as `domain.frame_decoding.decode`
    """
    reader = ByteReader(decompressed(encoded[prelude.body_offset :], prelude.body_length))
    (header_length,) = reader.unpack(_U16)
    header = parse_header(reader.take(header_length))
    _check_header_1(header)
    if header.clock_count != len(prelude.clock_lengths):
        raise MalformedFrame("frame.clock", "header and prelude disagree on the clocks")
    lengths = prelude.clock_lengths
    check_reading_count(sum(lengths[channel.clock] for channel in header.channels))
    clocks = [_clock(reader, length) for length in lengths]
    values: list[Column] = []
    qualities: list[ByteArray] = []
    for channel in header.channels:
        length = lengths[channel.clock]
        column = _values(reader, VALUE_TYPES[channel.value_type], length)
        quality = _quality(reader, length)
        if column.dtype.kind == "f" and quality.any():
            column[quality == Quality.MISSING] = np.nan
        values.append(column)
        qualities.append(quality)
    reader.finish()
    return build_frame(header, prelude.sequence, clocks, values, qualities)


def _check_header_1(header: FrameHeader) -> None:
    for channel in header.channels:
        if channel.value_type not in FIRST_VALUE_TYPES or channel.rate_hz is not None:
            raise MalformedFrame(
                "frame.value_type",
                f"channel {channel.name!r} holds what encoding version 1 cannot",
                hint=f"version 1 has {', '.join(sorted(FIRST_VALUE_TYPES))} and no waveforms",
                value=channel.value_type,
            )


def _clock(reader: ByteReader, length: int) -> IntArray:
    scheme, start, tick = reader.unpack(_BYTE_AND_TWO)
    if scheme == _CLOCK_REGULAR:
        steps = np.full(length - 1, tick, np.int64)
    elif scheme == _CLOCK_DELTAS:
        steps = _unsigned(reader, length - 1).astype(np.int64) * tick
    else:
        raise MalformedFrame("frame.scheme", f"clock scheme {scheme} is not known", value=scheme)
    clock = np.empty(length, np.int64)
    clock[0] = start
    np.cumsum(steps, out=clock[1:])
    clock[1:] += start
    return clock


def _values(reader: ByteReader, dtype: np.dtype[Any], length: int) -> Column:
    scheme = reader.byte()
    if scheme == _VALUES_RAW:
        raw = reader.take(length * dtype.itemsize)
        if dtype.kind == "b" and raw.strip(b"\x00\x01"):
            raise MalformedFrame("frame.value_type", "a boolean is neither 0 nor 1")
        return _unshuffled(raw, dtype, length)
    if scheme not in (_VALUES_SCALED, _VALUES_SCALED_DELTAS) or dtype.kind not in "fi":
        raise MalformedFrame("frame.scheme", f"value scheme {scheme} is not known", value=scheme)
    decimals, first, base = reader.unpack(_BYTE_AND_TWO)
    if decimals > (DECIMALS_MAX if dtype.kind == "f" else 0):
        raise MalformedFrame("frame.scheme", f"{decimals} decimals are too many", value=decimals)
    if scheme == _VALUES_SCALED:
        integers = _unsigned(reader, length).astype(np.int64) + base
    else:
        integers = np.empty(length, np.int64)
        integers[0] = first
        np.cumsum(_unsigned(reader, length - 1).astype(np.int64) + base, out=integers[1:])
        integers[1:] += first
    if dtype.kind == "i":
        return integers
    return (integers / POWERS[decimals]).astype(dtype, copy=False)


def _unsigned(reader: ByteReader, length: int) -> npt.NDArray[np.uint64]:
    itemsize = reader.byte()
    width = next((w for w in _WIDTHS if w.itemsize == itemsize), None)
    if width is None:
        raise MalformedFrame("frame.scheme", f"integers of {itemsize} bytes", value=itemsize)
    return _unshuffled(reader.take(length * itemsize), width, length).astype(np.uint64)


def _unshuffled(raw: bytes, dtype: np.dtype[Any], length: int) -> Column:
    planes = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, length)
    # A copy even of a single value: what `frombuffer` returns cannot be written to.
    return planes.T.copy(order="C").view(dtype).reshape(length)


def _quality(reader: ByteReader, length: int) -> ByteArray:
    scheme = reader.byte()
    if scheme == _QUALITY_ALL_GOOD:
        return good_mask(length)
    if scheme != _QUALITY_MASK:
        raise MalformedFrame("frame.scheme", f"quality scheme {scheme} is not known", value=scheme)
    return np.frombuffer(reader.take(length), np.uint8)
