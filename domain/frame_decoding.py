"""Decodes frames: many together, since NumPy costs by the call and not by the reading.

What the frames of a call hold in columns of one length and type becomes one matrix, of which
each frame keeps its rows. Whatever does not follow ``docs/frame-format.md`` is refused, before
anything larger than the bounds allow is allocated, and without harm to its neighbours.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from domain.errors import InvalidInput, MalformedFrame
from domain.frame_columns import read_alike, shape_of
from domain.frame_decoding_1 import decode_1
from domain.frame_header import VALUE_TYPES, FrameHeader
from domain.frame_layout import (
    DECIMALS_MAX,
    FIRST_VERSION,
    POWERS,
    TICK_EXPONENT_MAX,
    XOR_SHUFFLED,
    ByteReader,
    peek,
)
from domain.frame_outline import Outline, outlined, with_columns
from domain.frame_stacks import frames_of_rows
from domain.frames import (
    TEXT_LENGTH_MAX,
    ByteArray,
    Frame,
    IntArray,
    Quality,
    SharedRows,
    check_text,
    check_text_bytes,
    checked_clock,
    good_mask,
    no_value,
    not_finite,
    waveform_times_ns,
)
from domain.frames import Column as Values
from domain.integer_columns import (
    PLAIN,
    BitReader,
    Column,
)

READINGS_AT_ONCE: Final = 65_536
"""What is decoded as one matrix: more would leave the processor's caches."""

_POWERS: Final = np.array(POWERS)
_TICKS: Final = 10 ** np.arange(TICK_EXPONENT_MAX + 1, dtype=np.int64)
_U32: Final = struct.Struct("<I")

_CLOCK: Final = "clock"
_MASK: Final = "mask"


def decode(encoded: bytes) -> Frame:
    """Return the frame that `encoded` holds.

    Raises
    ------
    MalformedFrame
        when the bytes are not a frame of a known version, contradict themselves or are larger
        than a frame may be. Nothing larger than the declared and bounded size is allocated.
    """
    prelude = peek(encoded)
    if prelude.version == FIRST_VERSION:
        return decode_1(encoded, prelude)
    (frame,) = _decoded_together([with_columns(outlined(encoded, prelude))])
    return frame


def decode_many(encoded: Sequence[bytes]) -> list[Frame | InvalidInput]:
    """Return for each of `encoded` its frame, or the error that `decode` would raise.

    Frames that are decoded in one call are decoded several times faster than one by one.
    """
    results: list[Frame | InvalidInput | None] = [None] * len(encoded)
    waiting: list[tuple[int, Outline]] = []
    readings = 0
    for index, one in enumerate(encoded):
        try:
            prelude = peek(one)
            if prelude.version == FIRST_VERSION:
                results[index] = decode_1(one, prelude)
                continue
            outline = outlined(one, prelude)
        except InvalidInput as error:
            results[index] = error
            continue
        if waiting and readings + prelude.readings > READINGS_AT_ONCE:
            _settle(waiting, results)
            waiting, readings = [], 0
        waiting.append((index, outline))
        readings += prelude.readings
    if waiting:
        _settle(waiting, results)
    return [result for result in results if result is not None]


def _settle(waiting: list[tuple[int, Outline]], results: list[Frame | InvalidInput | None]) -> None:
    """Put the frames of `waiting`, or what is wrong with them, where they belong."""
    shapes: dict[tuple[str, int, int] | None, list[tuple[int, Outline]]] = {}
    for one in waiting:
        shapes.setdefault(shape_of(one[1]), []).append(one)
    for shape, some in shapes.items():
        decoded = _decoded_each if shape is None else _decoded_alike
        try:
            frames = decoded([outline for _, outline in some])
        except InvalidInput:
            # One of them is at fault; each is looked at alone.
            for index, outline in some:
                results[index] = _decoded_alone(outline)
            continue
        for (index, _), frame in zip(some, frames, strict=True):
            results[index] = frame


def _decoded_each(outlines: Sequence[Outline]) -> list[Frame]:
    return _decoded_together([with_columns(outline) for outline in outlines])


def _decoded_alone(outline: Outline) -> Frame | InvalidInput:
    try:
        (frame,) = _decoded_each([outline.begun()])
    except InvalidInput as error:
        return error
    return frame


def _decoded_alike(outlines: Sequence[Outline]) -> list[Frame]:
    """Return the frames of `outlines`, which have one shape."""
    read = read_alike(outlines)
    clocks = _typed(_CLOCK, read.clocks, read.clock_exponents)
    headers = [outline.header for outline in outlines]
    uniform_type = headers[0].uniform_type
    assert uniform_type is not None, "frames of one shape are of one type"
    values = _typed(uniform_type, read.integers, read.exponents)
    clocks.flags.writeable = values.flags.writeable = False
    shared = SharedRows(
        values,
        np.concatenate([header.factors for header in headers]),
        np.concatenate([header.offsets for header in headers]),
        (read.exponents, read.integers),
    )
    return frames_of_rows(headers, [outline.sequence for outline in outlines], clocks, shared)


# --- the columns of many frames together --------------------------------------------------


@dataclass(slots=True)
class _Pool:
    """The columns of one length and type, of all frames.

    Parameters
    ----------
    columns : their places among the columns of all frames
    headers : where whole frames share the pool, the header of each
    matrix : once they are decoded, their values, shape (len(columns), n)
    """

    columns: list[int] = field(default_factory=list)
    exponents: list[int] = field(default_factory=list)
    headers: list[FrameHeader] = field(default_factory=list)
    matrix: Any = None
    shared: SharedRows | None = None

    def add(self, columns: Sequence[int], exponents: Sequence[int]) -> int:
        """Take in `columns` and return the row of the first."""
        row = len(self.columns)
        self.columns.extend(columns)
        self.exponents.extend(exponents)
        return row

    def decode(self, reader: BitReader, kind: str) -> None:
        """Fill in `matrix` and, for whole frames, `shared`."""
        integers = reader.integers(self.columns)
        exponents = np.array(self.exponents)
        self.matrix = _typed(kind, integers, exponents)
        if self.headers:
            factors = np.concatenate([header.factors for header in self.headers])
            offsets = np.concatenate([header.offsets for header in self.headers])
            self.shared = SharedRows(self.matrix, factors, offsets, (exponents, integers))


@dataclass(slots=True)
class _Place:
    """Where the columns of one frame lie in the pools; None for one that is not pooled.

    Parameters
    ----------
    whole : whether all values lie in adjacent rows, and nobody else's between them
    """

    clocks: list[tuple[_Pool, int] | None] = field(default_factory=list)
    values: list[tuple[_Pool, int] | None] = field(default_factory=list)
    masks: dict[int, tuple[_Pool, int]] = field(default_factory=dict)
    whole: bool = False


class _Pools:
    """All pools, by type, length and whether whole frames share them."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, int, bool], _Pool] = {}

    def of(self, kind: str, count: int, *, whole: bool = False) -> _Pool:
        """Return the pool of such columns."""
        pool = self._pools.get((kind, count, whole))
        if pool is None:
            pool = self._pools[kind, count, whole] = _Pool()
        return pool

    def decode(self, reader: BitReader) -> None:
        """Decode every pool."""
        for (kind, _, _), pool in self._pools.items():
            pool.decode(reader, kind)

    def close(self) -> None:
        """Let nobody write to what frames share from now on."""
        for pool in self._pools.values():
            pool.matrix.flags.writeable = False


def _decoded_together(outlines: Sequence[Outline]) -> list[Frame]:
    pools = _Pools()
    places = []
    first_column = 0
    for outline in outlines:
        places.append(_placed(outline, pools, first_column))
        first_column += len(outline.kinds)
    pools.decode(_bit_reader(outlines))
    masks = [
        _masks(outline, place) if place.masks else {}
        for outline, place in zip(outlines, places, strict=True)
    ]
    pools.close()
    return [
        _assembled(outline, place, mask)
        for outline, place, mask in zip(outlines, places, masks, strict=True)
    ]


def _bit_reader(outlines: Sequence[Outline]) -> BitReader:
    columns: list[int] = []
    for outline in outlines:
        columns += outline.columns
    counts = [len(outline.kinds) for outline in outlines]
    starts = np.cumsum([0] + [len(outline.encoded) for outline in outlines[:-1]])
    first_bits = 8 * starts + np.array([outline.first_bit for outline in outlines])
    return BitReader(
        b"".join([outline.encoded for outline in outlines]),
        columns,
        np.repeat(first_bits, counts),
        [outline.unary for outline in outlines],
        [outline.unary_count for outline in outlines],
    )


def _placed(outline: Outline, pools: _Pools, first_column: int) -> _Place:
    """Put the columns of a frame into `pools`."""
    header, exponents, place = outline.header, outline.exponents, _Place()
    for n, (count, rate_hz) in enumerate(zip(outline.lengths, header.rates_hz, strict=True)):
        if n in outline.packings or rate_hz is not None:
            place.clocks.append(None)
            continue
        pool = pools.of(_CLOCK, count)
        place.clocks.append((pool, pool.add((first_column + n,), exponents[n : n + 1])))
    own, channels = len(outline.lengths), len(header.channels)
    if header.uniform_type is not None and not outline.packings:
        pool = pools.of(header.uniform_type, outline.lengths[0], whole=True)
        first = first_column + own
        row = pool.add(range(first, first + channels), exponents[own : own + channels])
        pool.headers.append(header)
        place.values = [(pool, row)]
        place.whole = True
    else:
        for n, channel in enumerate(header.channels, own):
            if n in outline.packings:
                place.values.append(None)
                continue
            pool = pools.of(channel.value_type, outline.lengths[channel.clock])
            place.values.append((pool, pool.add((first_column + n,), exponents[n : n + 1])))
    for n, index in enumerate(outline.masked, own + channels):
        pool = pools.of(_MASK, outline.lengths[header.channels[index].clock])
        place.masks[index] = pool, pool.add((first_column + n,), exponents[n : n + 1])
    return place


def _typed(kind: str, integers: IntArray, exponents: IntArray) -> Any:
    """Return what `integers` of a pool stand for, shape as they.

    Raises
    ------
    MalformedFrame
        when they cannot stand for times, qualities or values of the type
    """
    if kind == _CLOCK:
        if exponents.any():
            integers *= _TICKS[exponents][:, None]
        late = integers[:, 1:] <= integers[:, :-1]
        if late.any():
            row = int(np.flatnonzero(late.any(axis=1))[0])
            checked_clock(integers[row], None)
        return integers
    if kind in ("f8", "f4"):
        if exponents.max() > DECIMALS_MAX:
            raise _exponent_too_large(int(exponents.max()), DECIMALS_MAX)
        floats = integers / _POWERS[exponents][:, None]
        return floats if kind == "f8" else floats.astype(np.float32)
    if exponents.any():
        raise _exponent_too_large(int(exponents.max()), 0)
    if kind == "str":
        return integers
    low, high, dtype = _RANGES[kind]
    if integers.min() < low or integers.max() > high:
        code = "frame.quality_unknown" if kind == _MASK else "frame.value_type"
        raise MalformedFrame(
            code, f"an integer lies outside {low} to {high}", value=int(integers.max()), limit=high
        )
    return integers.astype(dtype, copy=False)


_RANGES: Final[dict[str, tuple[int, int, np.dtype[Any]]]] = {
    **{
        name: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max), dtype)
        for name, dtype in VALUE_TYPES.items()
        if dtype.kind in "iu"
    },
    "b1": (0, 1, np.dtype("?")),
    _MASK: (0, int(Quality.MISSING), np.dtype(np.uint8)),
}


def _exponent_too_large(exponent: int, limit: int) -> MalformedFrame:
    return MalformedFrame(
        "frame.scheme", f"{exponent} decimals are too many", value=exponent, limit=limit
    )


# --- frames again -------------------------------------------------------------------------


def _masks(outline: Outline, place: _Place) -> dict[int, ByteArray]:
    """Return the masks of a frame by channel, the values of MISSING readings put right."""
    masks: dict[int, ByteArray] = {}
    for index, (pool, row) in place.masks.items():
        mask = masks[index] = pool.matrix[row]
        missing = mask == Quality.MISSING
        channel = outline.header.channels[index]
        where = place.values[0 if place.whole else index]
        # What is packed and what is text is put right where it is unpacked.
        if where is not None and not channel.is_text and missing.any():
            values, first = where
            values.matrix[first + index if place.whole else first][missing] = no_value(channel)
    return masks


def _assembled(outline: Outline, place: _Place, masks: dict[int, ByteArray]) -> Frame:
    header = outline.header
    packed = ByteReader(outline.packed)
    clocks = tuple(
        pool_row[0].matrix[pool_row[1]]
        if pool_row is not None
        else _own_clock(outline, n, packed, header.rates_hz[n])
        for n, pool_row in enumerate(place.clocks)
    )
    rows = None
    if place.whole:
        ((pool, first),) = (where for where in place.values if where is not None)
        values = tuple(pool.matrix[first : first + len(header.channels)])
        assert pool.shared is not None, "a pool of whole frames is shared"
        rows = pool.shared, first
    else:
        values = tuple(
            _own_values(outline, n, where, packed, masks.get(n))
            for n, where in enumerate(place.values)
        )
    packed.finish()
    if masks:
        qualities = tuple(
            masks[n] if n in masks else good_mask(len(column)) for n, column in enumerate(values)
        )
    elif len(clocks) == 1:
        qualities = (good_mask(outline.lengths[0]),) * len(values)
    else:
        qualities = tuple(good_mask(len(column)) for column in values)
    frame = Frame(header, outline.sequence, clocks, values, qualities, rows)
    if frame.text_channels:
        check_text_bytes(frame)
    return frame


def _own_clock(outline: Outline, index: int, packed: ByteReader, rate_hz: float | None) -> IntArray:
    """Return a clock that follows from a start, or lies in the packed section."""
    count = outline.lengths[index]
    if rate_hz is None:
        return checked_clock(
            _unpacked(packed, np.dtype("<i8"), count, outline.packings[index]), None
        )
    fields = outline.columns[index * len(Column._fields) : (index + 1) * len(Column._fields)]
    column = Column(*fields)
    if column.kind != PLAIN or column.width:
        raise MalformedFrame("frame.rate", "of a waveform's clock only the start is kept")
    start_ns = column.base * 10 ** outline.exponents[index]
    last_ns = start_ns + math.ceil((count - 1) * 1e9 / rate_hz)
    if not -(2**63) <= start_ns <= last_ns < 2**63:
        raise MalformedFrame(
            "frame.clock", f"a waveform from {start_ns} ns on leaves the times that int64 holds"
        )
    return checked_clock(waveform_times_ns(start_ns, rate_hz, count), None)


def _own_values(
    outline: Outline,
    index: int,
    where: tuple[_Pool, int] | None,
    packed: ByteReader,
    mask: ByteArray | None,
) -> Values:
    """Return the values of a channel that shares no rows with the others of its frame."""
    channel = outline.header.channels[index]
    if where is None:
        if channel.value_type in ("str", "b1"):
            raise MalformedFrame("frame.scheme", f"channel {channel.name!r} cannot be packed")
        values = _unpacked(
            packed,
            VALUE_TYPES[channel.value_type],
            outline.lengths[channel.clock],
            outline.packings[len(outline.lengths) + index],
        )
        if mask is not None:
            values[mask == Quality.MISSING] = no_value(channel)
        if values.dtype.kind == "f":
            bad = ~np.isfinite(values)
            if mask is not None:
                bad &= mask != Quality.MISSING
            if bad.any():
                raise not_finite(channel, values, int(np.flatnonzero(bad)[0]))
        return values
    pool, row = where
    if not channel.is_text:
        pooled: Values = pool.matrix[row]
        return pooled
    table = _text_table(channel.name, packed)
    places = pool.matrix[row]
    if places.min() < 0 or places.max() >= len(table):
        raise MalformedFrame("frame.bits", "a text lies beyond the texts of its channel")
    texts: Values = np.array(table, dtype=object)[places]
    if mask is not None:
        texts[mask == Quality.MISSING] = ""
    return texts


def _unpacked(packed: ByteReader, dtype: np.dtype[Any], count: int, packing: int) -> Values:
    """Return `count` values of the packed section, which lie there as `packing` says."""
    itemsize = dtype.itemsize
    planes = np.frombuffer(packed.take(count * itemsize), np.uint8).reshape(itemsize, count)
    # A copy even of a single value: what `frombuffer` returns cannot be written to.
    values = planes.T.copy(order="C").view(f"<u{itemsize}").reshape(count)
    if packing == XOR_SHUFFLED:
        np.bitwise_xor.accumulate(values, out=values)
    return values.view(dtype)


def _text_table(channel: str, packed: ByteReader) -> list[str]:
    (count,) = packed.unpack(_U32)
    if 2 * count > packed.left:
        raise MalformedFrame("frame.truncated", f"{count} texts in {packed.left} bytes")
    lengths = struct.unpack(f"<{count}H", packed.take(2 * count))
    texts = []
    for length in lengths:
        try:
            texts.append(packed.take(length).decode())
        except UnicodeDecodeError as error:
            raise MalformedFrame(
                "frame.text", f"a text of channel {channel!r} is not UTF-8: {error}"
            ) from error
        if length > TEXT_LENGTH_MAX:
            check_text(channel, texts[-1])
    return texts
