"""Encodes frames: exact integers where values are such, each column by what makes it smallest.

Columns of one length, of however many frames, are tried and coded as one matrix. What has no
exact integers lies in the bytes of its type, shuffled and compressed. `domain.frame_decoding`
reads it back; ``docs/frame-format.md`` specifies the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from domain.bit_packing import LowBits, Sections, packed_ones, unary_ends
from domain.column_choice import Above, Coded, choose_above, narrowed
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
from domain.frame_scaling import exact_integers, scaled_rows
from domain.frame_stacks import shared_rows
from domain.frames import FRAME_BYTES_MAX, Frame, IntArray, Quality, good_mask
from domain.frames import Column as Values
from domain.integer_columns import DRIFT, SPREAD_MAX, TABLE, UNARY, byte_length

READINGS_AT_ONCE: Final = 65_536

BoolArray = npt.NDArray[np.bool_]


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
    low, above : the smallest integer and how far above it each lies; None where the values have
        no exact integers
    packed : what of it lies in the packed section
    flags : of its kind, besides how the integers are coded
    """

    low: int = 0
    above: Above | None = None
    exponent: int = 0
    packed: bytes = b""
    packing: int = SHUFFLED
    flags: int = 0


@dataclass(slots=True)
class _Alike:
    """The columns of one length: which they are, and their integers, some rows at a time."""

    columns: list[IntArray] = field(default_factory=list)
    low: list[IntArray] = field(default_factory=list)
    above: list[Above] = field(default_factory=list)


class _Columns:
    """The columns of all frames, numbered frame after frame.

    Parameters
    ----------
    frame_columns : how many columns each frame has
    """

    def __init__(self, frame_columns: Sequence[int]) -> None:
        self.frame_columns = np.array(frame_columns)
        self.first: IntArray = np.cumsum(self.frame_columns) - self.frame_columns
        self.flags, self.packings, self.exponents = np.zeros(
            (3, int(self.frame_columns.sum())), np.int64
        )
        self.packed: list[list[bytes]] = [[] for _ in frame_columns]
        self.alike: dict[int, _Alike] = {}

    def put_each(self, places: Sequence[int], each: Sequence[Sequence[_Column]]) -> None:
        """Take in the columns of `each` of the frames at `places`."""
        numbers: list[int] = []
        alike: dict[int, list[tuple[int, _Column]]] = {}
        for place, columns in zip(places, each, strict=True):
            begin = int(self.first[place])
            numbers += range(begin, begin + len(columns))
            for number, column in enumerate(columns, begin):
                if column.above is not None:
                    alike.setdefault(len(column.above), []).append((number, column))
            self.packed[place] = [column.packed for column in columns if column.packed]
        every = [column for columns in each for column in columns]
        self.flags[numbers] = [column.flags for column in every]
        self.packings[numbers] = [column.packing for column in every]
        self.exponents[numbers] = [column.exponent for column in every]
        for members in alike.values():
            low = np.array([column.low for _, column in members], np.int64)
            above = [column.above for _, column in members if column.above is not None]
            self._put(
                np.array([number for number, _ in members]),
                low,
                np.concatenate(above).reshape(len(members), -1),
            )

    def put_matrix(
        self, places: IntArray, clocks: _Integers, values: _Integers, raw: Values
    ) -> None:
        """Take in the frames at `places`, of one clock and the same number of channels each.

        Parameters
        ----------
        raw : what `values` were made of, shape (n_rows, n)
        """
        numbers = self.first[places, None] + np.arange(self.frame_columns[places[0]])
        of_values = numbers[:, 1:].reshape(-1)
        self._put(numbers[:, 0], clocks.low, clocks.above)
        self.exponents[numbers[:, 0]] = clocks.exponents
        exact = values.sound
        if not exact.all():
            self._put_packed(places, numbers[:, 1:], exact, raw)
            of_values, values = of_values[exact], values.rows(exact)
        if len(of_values):
            self._put(of_values, values.low, values.above)
            self.exponents[of_values] = values.exponents

    def _put_packed(
        self, places: IntArray, numbers: IntArray, exact: BoolArray, raw: Values
    ) -> None:
        """Take in those rows of `raw` that are not `exact`; `numbers` has a row for each frame."""
        by_frame = raw.reshape(*numbers.shape, raw.shape[1])
        for place, row, number, kept in zip(
            places.tolist(), by_frame, numbers, exact.reshape(numbers.shape), strict=True
        ):
            at, columns = number[~kept], row[~kept]
            self.flags[at] = PACKED
            if raw.shape[1] == 1:  # bytes one after the other, as `_packed_column` has them
                self.packings[at] = SHUFFLED
                self.packed[place] = [columns.tobytes()] if len(at) else []
                continue
            packed = [_packed_column(column) for column in columns]
            self.packings[at] = [column.packing for column in packed]
            self.packed[place] = [column.packed for column in packed]

    def _put(self, numbers: IntArray, low: IntArray, above: Above) -> None:
        alike = self.alike.setdefault(above.shape[1], _Alike())
        alike.columns.append(numbers)
        alike.low.append(low)
        alike.above.append(above)


@dataclass(frozen=True, slots=True)
class _Integers:
    """Rows of integers times powers of ten.

    Parameters
    ----------
    low : the smallest of each row
    above : how far above it they lie, shape (n_rows, n)
    sound : whether they are such at all
    """

    exponents: IntArray
    low: IntArray
    above: Above
    sound: BoolArray

    def rows(self, kept: BoolArray) -> _Integers:
        """Return the rows that are `kept`."""
        if kept.all():
            return self
        return _Integers(self.exponents[kept], self.low[kept], self.above[kept], self.sound[kept])


def _encoded_together(frames: Sequence[Frame]) -> list[bytes]:
    alike: dict[tuple[str, int, int] | None, list[int]] = {}
    for place, frame in enumerate(frames):
        alike.setdefault(_matrix_shape(frame), []).append(place)
    others = alike.pop(None, [])
    matrices: list[tuple[IntArray, _Integers, _Integers, Values]] = []
    frame_columns = [1 + len(frame.values) for frame in frames]
    for members in alike.values():
        clocks, values, raw = _matrix([frames[place] for place in members])
        sound = clocks.sound
        places = np.array(members)
        others += places[~sound].tolist()
        if sound.all():
            matrices.append((places, clocks, values, raw))
        elif sound.any():
            rows = np.repeat(sound, len(raw) // len(members))
            matrices.append((places[sound], clocks.rows(sound), values.rows(rows), raw[rows]))
    each = _each([frames[place] for place in others])
    for place, of_frame in zip(others, each, strict=True):
        frame_columns[place] = len(of_frame)
    columns = _Columns(frame_columns)
    for matrix in matrices:
        columns.put_matrix(*matrix)
    if others:
        columns.put_each(others, each)
    return [
        _joined(frame, packed, described)
        for frame, packed, described in zip(
            frames, columns.packed, _described(columns), strict=True
        )
    ]


def _matrix_shape(frame: Frame) -> tuple[str, int, int] | None:
    """Return type, channels and length of what is one matrix of GOOD numbers; else None."""
    header = frame.header
    if header.uniform_type is None or header.rates_hz[0] is not None or not frame.all_good:
        return None
    return header.uniform_type, len(frame.values), len(frame.clocks[0])


def _matrix(frames: Sequence[Frame]) -> tuple[_Integers, _Integers, Values]:
    """Return clocks and values of `frames`, which have one `_matrix_shape`, and the values raw."""
    count = len(frames) * len(frames[0].values)
    rows = shared_rows(frames)
    if rows is None:
        together = np.concatenate([column for frame in frames for column in frame.values])
        raw = together.reshape(count, -1)
        scaled = exact_integers(raw)
    else:
        shared, first = rows
        raw = shared.values[first : first + count]
        scaled = scaled_rows(shared).rows(slice(first, first + count))
    values = _Integers(scaled.decimals, scaled.low, scaled.above, scaled.exact)
    return _clock_rows(np.array([frame.clocks[0] for frame in frames])), values, raw


def _each(frames: Sequence[Frame]) -> list[list[_Column]]:
    """Return the columns of each of `frames`, one by one."""
    clocks, scaled = _clock_columns(frames), _scaled_columns(frames)
    return [list(_columns(frame, clocks, scaled)) for frame in frames]


_Scaled = Iterator[_Column | None]


def _columns(frame: Frame, clocks: Iterator[_Column], scaled: _Scaled) -> Iterator[_Column]:
    """Yield the columns of `frame`: of its clocks, its channels, and then their masks."""
    yield from islice(clocks, len(frame.clocks))
    masks = []
    for channel, values, quality in zip(
        frame.header.channels, frame.values, frame.qualities, strict=True
    ):
        masked = quality is not good_mask(len(quality)) and bool(quality.any())
        column = _text_column(values) if channel.is_text else next(scaled)
        if column is None:
            column = _packed_column(values)
        if masked:
            column.flags |= MASKED
            masks.append(quality)
        yield column
    for quality in masks:
        low = int(quality.min())
        yield _Column(low, quality.astype(np.int32) - low)


def _clock_columns(frames: Sequence[Frame]) -> Iterator[_Column]:
    """Return the clocks of `frames` as ticks of the largest power of ten that divides their times.

    Those of one length together: frames of channels that were asked one by one have many.
    """
    clocks: list[IntArray] = []
    lengths: list[int] = []
    alike: dict[int, list[int]] = {}
    for frame in frames:
        for clock, rate_hz in zip(frame.clocks, frame.header.rates_hz, strict=True):
            # The other times of a waveform follow from its rate.
            told = clock if rate_hz is None else clock[:1]
            alike.setdefault(len(told), []).append(len(clocks))
            clocks.append(told)
            lengths.append(len(clock))
    found = [_Column()] * len(clocks)
    for places in alike.values():
        rows = _clock_rows(np.array([clocks[place] for place in places]))
        for place, sound, low, above, exponent in zip(
            places,
            rows.sound.tolist(),
            rows.low.tolist(),
            rows.above,
            rows.exponents.tolist(),
            strict=True,
        ):
            if len(above) != lengths[place]:
                above = np.broadcast_to(above, lengths[place])
            found[place] = _Column(low, above, exponent) if sound else _packed_column(clocks[place])
    return iter(found)


def _clock_rows(clocks: IntArray) -> _Integers:
    """Return clocks, shape (n_frames, n), as ticks of the largest power of ten for each."""
    start = clocks[:, 0]
    divisor = np.gcd(start, 0)
    if clocks.shape[1] > 1:
        steps = clocks[:, 1:] - clocks[:, :-1]
        divisor = np.gcd(start, steps[:, 0])
        uneven = np.flatnonzero((steps != steps[:, :1]).any(axis=1))
        divisor[uneven] = np.gcd(divisor[uneven], np.gcd.reduce(steps[uneven], axis=1))
    exponents = (divisor[:, None] % _TICKS[1:] == 0).sum(axis=1)
    exponents[divisor == 0] = 0
    tick = _TICKS[exponents]
    low, high = start, clocks[:, -1]  # times increase
    # As floats, because two times may lie further apart than int64 can tell.
    span = high.astype(np.float64) - low
    sound = span < np.minimum(SPREAD_MAX * tick, 2.0**62)
    above = (clocks - low[:, None]) // tick[:, None]
    above[~sound] = 0
    return _Integers(exponents, low // tick, narrowed(above, above[:, -1]), sound)


_TICKS: Final = 10 ** np.arange(TICK_EXPONENT_MAX + 1, dtype=np.int64)


def _text_column(values: Values) -> _Column:
    """Return texts as indexes into their distinct ones, in the order of first use."""
    places: dict[str, int] = {}
    indexes = np.array([places.setdefault(text, len(places)) for text in values.tolist()], np.int32)
    texts = [text.encode() for text in places]
    table = struct.pack(f"<I{len(texts)}H", len(texts), *map(len, texts)) + b"".join(texts)
    return _Column(0, indexes, packed=table)


def _packed_column(values: Values) -> _Column:
    """Return values in the bytes of their type, by what compresses better."""
    if len(values) == 1:  # nothing to shuffle, and nothing before it to differ from
        return _Column(packed=values.tobytes(), flags=PACKED)
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
    return _Column(packed=candidates[packing], packing=packing, flags=PACKED)


def _scaled_columns(frames: Sequence[Frame]) -> _Scaled:
    """Return, for each numeric channel of `frames`, its integers.

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
    found: list[_Column | None] = [None] * len(columns)
    for places in alike.values():
        matrix = np.concatenate([columns[place] for place in places]).reshape(len(places), -1)
        for row, place in enumerate(places):
            mask = masks[place]
            if mask is not None and mask.any():
                matrix[row] = _filled(matrix[row], mask)
        scaled = exact_integers(matrix)
        for row, place in enumerate(places):
            if scaled.exact[row]:
                found[place] = _Column(
                    int(scaled.low[row]), scaled.above[row], int(scaled.decimals[row])
                )
    return iter(found)


def _filled(column: Values, quality: npt.NDArray[np.uint8]) -> Values:
    """Return `column` with each MISSING value replaced by the last present one (0 before any)."""
    present = np.where(quality != Quality.MISSING, np.arange(1, len(column) + 1), 0)
    latest = np.maximum.accumulate(present)
    return np.concatenate((np.zeros(1, column.dtype), column))[latest]


# --- from integers to bytes ---------------------------------------------------------------


def _described(columns: _Columns) -> list[bytes]:
    """Return for each frame the descriptors and parameters of its columns, and their bits."""
    frame_columns = columns.frame_columns
    # Of packed columns all is zero, besides what they say of themselves.
    count = len(columns.flags)
    kind, width = columns.flags, columns.packings
    low, base, drift, table_count, table_width, low_bits, unary_bits = np.zeros(
        (7, count), np.int64
    )
    groups: list[tuple[IntArray, Coded]] = []
    above: list[tuple[IntArray, Above]] = []
    for alike in columns.alike.values():
        at = np.concatenate(alike.columns)
        coded = choose_above(np.concatenate(alike.low), np.concatenate(alike.above))
        groups.append((at, coded))
        kind[at] |= coded.kind
        width[at] = coded.width
        low[at], base[at], drift[at] = coded.low, coded.base, coded.drift
        table_count[at], table_width[at] = coded.table_count, coded.table_width
        low_bits[at] = coded.residuals.shape[1] * coded.width
        unary = np.flatnonzero(coded.kind & UNARY)
        quotients = coded.residuals[unary]
        quotients >>= coded.width[unary, None].astype(quotients.dtype)
        ends = unary_ends(quotients)
        unary_bits[at[unary]] = ends[:, -1]
        above.append((at[unary], ends))
    gap_bits = np.maximum(table_count - 1, 0) * table_width
    section = Sections(gap_bits + low_bits, frame_columns)
    bits = LowBits(section.byte_count)
    for at, coded in groups:
        _put(bits, coded, section.starts[at], gap_bits[at])
    unary_section = Sections(unary_bits, frame_columns)
    ones = packed_ones(
        [(unary_section.starts[at, None] - 1 + ends).reshape(-1) for at, ends in above],
        unary_section.byte_count,
    )
    described = np.empty((count, 3), np.uint8)
    first = np.where(kind & TABLE != 0, low, base)
    size = np.maximum(byte_length(first), byte_length(drift))
    described[:, 0], described[:, 1] = kind, width
    described[:, 2] = columns.exponents << 4 | size
    descriptors = described.tobytes()
    tables = np.stack((table_count - 1, table_width, base), axis=1).astype(np.uint8)
    raw, raw_ends = _parameters(kind, size, np.stack((first, drift), axis=1), tables)
    ends = np.concatenate(([0], np.cumsum(frame_columns)))
    cuts = raw_ends[ends].tolist()
    return [
        b"".join((descriptors[3 * begin : 3 * end], raw[raw_begin:raw_end], numbers, unary))
        for begin, end, raw_begin, raw_end, numbers, unary in zip(
            ends[:-1].tolist(),
            ends[1:].tolist(),
            cuts[:-1],
            cuts[1:],
            section.cut(bits.packed()),
            unary_section.cut(ones),
            strict=True,
        )
    ]


def _parameters(
    kind: IntArray, size: IntArray, numbers: IntArray, tables: npt.NDArray[np.uint8]
) -> tuple[bytes, IntArray]:
    """Return base, drift and table of each column, as far as it has them, and where each ends.

    Parameters
    ----------
    size : bytes of base and drift
    numbers : base and drift of each
    tables : the three bytes of a table of each
    """
    fields, given = np.empty((2, len(kind), 19), np.uint8)
    written = given.view(np.bool_)
    fields[:, :16] = numbers.astype("<i8", copy=False).view(np.uint8)
    fields[:, 16:] = tables
    np.less(_BYTES, size[:, None], out=written[:, :8])
    np.logical_and(written[:, :8], (kind & DRIFT != 0)[:, None], out=written[:, 8:16])
    written[:, 16:] = (kind & TABLE != 0)[:, None]
    ends = np.zeros(len(kind) + 1, np.int64)
    np.cumsum(np.add.reduce(given, axis=1, dtype=np.int64), out=ends[1:])
    return fields[written].tobytes(), ends


_BYTES: Final = np.arange(8)


def _put(bits: LowBits, coded: Coded, starts: IntArray, gap_bits: IntArray) -> None:
    """Put gaps of tables and low bits of residuals where their columns begin."""
    tables = np.flatnonzero(coded.table_count)
    if len(tables):
        counts = coded.table_count[tables] - 1
        gap_width = np.repeat(coded.table_width[tables], counts)
        within = np.arange(len(coded.gaps)) - np.repeat(np.cumsum(counts) - counts, counts)
        position = np.repeat(starts[tables], counts) + within * gap_width
        bits.put(position, coded.gaps.astype(np.uint64))
    rows = np.flatnonzero(coded.width)
    if len(rows):
        bits.put_rows(starts[rows] + gap_bits[rows], coded.width[rows], coded.residuals[rows])


def _joined(frame: Frame, packed: Sequence[bytes], columns: bytes) -> bytes:
    """Return the bytes of a frame, `columns` being what describes its columns, and their bits."""
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
        (prelude, struct.pack(f"<{len(lengths)}I", *lengths), header, section, columns)
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
