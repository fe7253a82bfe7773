"""Columns of integers as bits: the numeric part of an encoded frame, version 2.

A column is a predictor and its residuals. Each residual leaves its `width` low bits in the
frame's bits; where the column says so, what is above them follows in unary (a Rice code). All
columns of one length, of however many frames, are coded and decoded as one matrix, since NumPy
costs by the call. ``docs/frame-format.md`` specifies the bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from domain.errors import MalformedFrame

IntArray = npt.NDArray[np.int64]

WIDTH_MAX: Final = 56
"""Bits of a residual below the unary part: any eight bytes hold one, wherever it starts."""

SPREAD_MAX: Final = 2.0**53
"""Integers whose largest and smallest are this far apart are not coded here."""

TABLE_ENTRIES_MAX: Final = 256

PLAIN: Final = 0
CENTRED: Final = 1
DELTA: Final = 2
PREDICTOR: Final = 3
"""Mask of the predictor within a column's kind."""

UNARY: Final = 4
TABLE: Final = 8
DRIFT: Final = 16

_ALIGNED_BYTES_MAX: Final = 1 << 18


class Column(NamedTuple):
    """How one column lies in the bits.

    Parameters
    ----------
    length : how many integers
    kind : predictor and flags
    base, drift : what the residuals are added to; with a table, of the indexes into it
    start_bit : where the low bits begin
    table_count, table_width, table_base : the sorted table of distinct values, if any
    table_bit : where the table's gaps begin
    """

    length: int
    kind: int
    width: int
    base: int
    drift: int
    start_bit: int
    table_count: int
    table_width: int
    table_base: int
    table_bit: int


(
    _COUNT,
    _KIND,
    _WIDTH,
    _BASE,
    _DRIFT,
    _START,
    _TABLE_COUNT,
    _TABLE_WIDTH,
    _TABLE_BASE,
    _TABLE_BIT,
) = range(10)


# --- reading ------------------------------------------------------------------------------


class BitReader:
    """Reads columns of one or more frames out of their joined bytes.

    Parameters
    ----------
    joined : the frames' bytes; every column's bits lie within
    columns : of all frames, in their order, the fields of a `Column` one after the other
    first_bits : for each column, the bit of `joined` from which its own are counted
    unary : each frame's unary section
    unary_columns : for each frame, how many integers its unary columns have together
    """

    def __init__(
        self,
        joined: bytes,
        columns: Sequence[int],
        first_bits: IntArray,
        unary: Sequence[bytes],
        unary_counts: Sequence[int],
    ) -> None:
        self._columns = np.array(columns, np.int64).reshape(-1, len(Column._fields))
        self._columns[:, _START] += first_bits
        self._columns[:, _TABLE_BIT] += first_bits
        padded = joined + bytes(8)
        words: npt.NDArray[np.int64] = np.ndarray((len(joined) + 1,), "<i8", padded, 0, (1,))
        # One word for each byte; gathering from it is fast only where it is aligned.
        self._words = np.ascontiguousarray(words) if len(joined) < _ALIGNED_BYTES_MAX else words
        self._quotients = _read_unary(unary, unary_counts)
        has_unary = self._columns[:, _KIND] & UNARY != 0
        counts = np.where(has_unary, self._columns[:, _COUNT], 0)
        self._quotient_start = np.cumsum(counts) - counts

    def integers(self, rows: Sequence[int] | IntArray) -> IntArray:
        """Return the integers of columns `rows`, all of one length: int64, shape (rows, n).

        Raises
        ------
        MalformedFrame
            ``frame.bits``: an index beyond its table
        """
        at = np.asarray(rows, np.int64)
        columns = self._columns[at]
        count = int(columns[0, _COUNT])
        kind, width = columns[:, _KIND], columns[:, _WIDTH, None]
        unary = np.flatnonzero(kind & UNARY)
        if width.any() or len(unary):
            residuals = self._bits(columns[:, _START, None] + np.arange(count) * width, width)
            if len(unary):
                quotients = self._quotient_rows(self._quotient_start[at[unary]], count)
                _at_rows(residuals, unary, lambda part: part + (quotients << width[unary]))
            predictor = kind & PREDICTOR
            _at_rows(residuals, np.flatnonzero(predictor != PLAIN), unzigzag)
            _at_rows(residuals, np.flatnonzero(predictor == DELTA), _accumulated)
        else:
            residuals = np.zeros((len(at), count), np.int64)
        residuals += columns[:, _BASE, None]
        if columns[:, _DRIFT].any():
            residuals += columns[:, _DRIFT, None] * np.arange(count)
        tables = np.flatnonzero(kind & TABLE)
        if len(tables):
            picked = self._looked_up(columns[tables], residuals[tables])
            _at_rows(residuals, tables, lambda _: picked)
        return residuals

    def _bits(self, position: IntArray, width: IntArray) -> IntArray:
        """Return `width` bits from bit `position` on, as non-negative integers."""
        at = position >> 3
        words: IntArray = self._words.take(at) if self._words.flags.aligned else self._words[at]
        words >>= position & 7
        words &= (np.int64(1) << width) - 1
        return words

    def _quotient_rows(self, start: IntArray, count: int) -> IntArray:
        if (np.diff(start) == count).all():
            first = int(start[0])
            return self._quotients[first : first + len(start) * count].reshape(len(start), count)
        rows: IntArray = self._quotients[start[:, None] + np.arange(count)]
        return rows

    def _looked_up(self, columns: IntArray, indexes: IntArray) -> IntArray:
        """Return the entries at `indexes` of the columns' tables."""
        counts = columns[:, _TABLE_COUNT]
        if (indexes < 0).any() or (indexes >= counts[:, None]).any():
            raise MalformedFrame("frame.bits", "an index lies beyond the table of its column")
        ends = np.cumsum(counts)
        starts = ends - counts
        begins: IntArray = np.repeat(starts, counts)
        place: IntArray = np.arange(int(ends[-1])) - begins
        width: IntArray = np.repeat(columns[:, _TABLE_WIDTH], counts)
        gap: IntArray = np.maximum(place - 1, 0)
        bit: IntArray = np.repeat(columns[:, _TABLE_BIT], counts)
        gaps = self._bits(bit + gap * width, width) + 1
        gaps[starts] = 0  # the first entry is the base itself
        entries = np.cumsum(gaps)
        entries += np.repeat(columns[:, _TABLE_BASE] - entries[starts], counts)
        picked: IntArray = entries[starts[:, None] + indexes]
        return picked


def _at_rows(matrix: IntArray, rows: IntArray, change: Any) -> None:
    """Put ``change(matrix[rows])`` in place of those rows, without a copy where they are all."""
    if len(rows) == len(matrix):
        matrix[...] = change(matrix)
    elif len(rows):
        matrix[rows] = change(matrix[rows])


def unzigzag(numbers: IntArray) -> IntArray:
    """Return 0, -1, 1, -2, 2 … for 0, 1, 2, 3, 4 …"""
    return (numbers >> 1) ^ -(numbers & 1)


def zigzag(numbers: IntArray) -> IntArray:
    """Return 0, 1, 2, 3, 4 … for 0, -1, 1, -2, 2 …"""
    return (numbers << 1) ^ (numbers >> 63)


def _accumulated(residuals: IntArray) -> IntArray:
    return np.cumsum(residuals, axis=1)


def _read_unary(sections: Sequence[bytes], counts: Sequence[int]) -> IntArray:
    """Return the number of zeros before each one, section after section."""
    if not any(sections):
        if any(counts):
            raise MalformedFrame("frame.truncated", "the unary part of a frame is missing")
        return np.empty(0, np.int64)
    bits = np.unpackbits(np.frombuffer(b"".join(sections), np.uint8), bitorder="little")
    # Counted before they are placed: each of them takes eight bytes then.
    if np.count_nonzero(bits) != sum(counts):
        raise MalformedFrame("frame.bits", "the unary part has too many or too few codes")
    ones = np.flatnonzero(bits.view(np.bool_))
    section_bits = 8 * np.cumsum([len(section) for section in sections])
    last = np.cumsum(counts)
    if not np.array_equal(np.searchsorted(ones, section_bits), last):
        raise MalformedFrame("frame.bits", "the unary part has too many or too few codes")
    # A section ends with the byte of its last one: nothing may hide behind it.
    used = np.flatnonzero(section_bits - np.concatenate(([0], section_bits[:-1])))
    if len(used) and (section_bits[used] - ones[last[used] - 1] > 8).any():
        raise MalformedFrame("frame.trailing_bytes", "bytes follow the unary part")
    quotients = np.diff(ones, prepend=-1) - 1
    first = last - np.asarray(counts)
    begun = np.flatnonzero(counts)
    starts = section_bits - 8 * np.array([len(section) for section in sections])
    quotients[first[begun]] = ones[first[begun]] - starts[begun]
    return quotients


# --- choosing -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Coded:
    """Columns of one length with the predictor that costs least, before they are bits.

    Parameters
    ----------
    residuals : int64, shape (n_columns, n), none negative
    tables : for the columns with a table, its distinct integers, ascending
    bits : estimated size, which the tests hold against the coded one
    """

    kind: IntArray
    width: IntArray
    base: IntArray
    drift: IntArray
    residuals: IntArray
    tables: dict[int, IntArray]
    bits: IntArray

    @cached_property
    def low(self) -> IntArray:
        """What of the residuals lies in `width` bits."""
        return self.residuals & ((np.int64(1) << self.width[:, None]) - 1)

    @cached_property
    def above(self) -> IntArray:
        """What of the residuals is written in unary."""
        return self.residuals >> self.width[:, None]

    @cached_property
    def kinds(self) -> list[int]:
        """`kind` as plain numbers."""
        numbers: list[int] = self.kind.tolist()
        return numbers

    @cached_property
    def widths(self) -> list[int]:
        """`width` as plain numbers."""
        numbers: list[int] = self.width.tolist()
        return numbers

    @cached_property
    def bases(self) -> list[int]:
        """`base` as plain numbers."""
        numbers: list[int] = self.base.tolist()
        return numbers

    @cached_property
    def sizes(self) -> list[int]:
        """How many bytes base and drift take each."""
        numbers: list[int] = np.maximum(byte_length(self.base), byte_length(self.drift)).tolist()
        return numbers

    @cached_property
    def drifts(self) -> list[int]:
        """`drift` as plain numbers."""
        numbers: list[int] = self.drift.tolist()
        return numbers


def choose(integers: IntArray) -> Coded:
    """Return `integers`, shape (n_columns, n), each column by what makes it smallest.

    The integers of a column must lie within `SPREAD_MAX` of each other.
    """
    best = _without_table(integers, drifting=True)
    ordered = np.sort(integers, axis=1)
    gaps = np.diff(ordered, axis=1)
    distinct = np.count_nonzero(gaps, axis=1) + 1
    widest = gaps.max(axis=1, initial=1)
    table_bits = (distinct - 1) * bit_length(widest - 1) + 24
    few = distinct <= min(TABLE_ENTRIES_MAX, integers.shape[1] // 2)
    candidates = np.flatnonzero(few & (distinct > 1) & (table_bits < best.bits))
    if len(candidates) == 0:
        return best
    indexes, tables = _indexed(integers[candidates])
    indexed = _without_table(indexes, drifting=False)
    bits = indexed.bits + table_bits[candidates]
    better = bits < best.bits[candidates]
    rows = candidates[better]
    best.kind[rows] = indexed.kind[better] | TABLE
    best.width[rows] = indexed.width[better]
    best.base[rows] = indexed.base[better]
    best.drift[rows] = 0
    best.residuals[rows] = indexed.residuals[better]
    best.bits[rows] = bits[better]
    best.tables.update(
        {int(candidates[place]): tables[place] for place in np.flatnonzero(better).tolist()}
    )
    return best


def _indexed(integers: IntArray) -> tuple[IntArray, list[IntArray]]:
    """Return `integers` as indexes into each row's distinct ones, and these, ascending."""
    order = integers.argsort(axis=1)
    ordered = np.take_along_axis(integers, order, axis=1)
    begins = np.ones(ordered.shape, np.bool_)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=begins[:, 1:])
    places = begins.cumsum(axis=1)
    indexes = np.empty_like(integers)
    np.put_along_axis(indexes, order, places - 1, axis=1)
    ends = np.cumsum(places[:, -1]).tolist()
    distinct = ordered[begins]
    return indexes, [distinct[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def _without_table(integers: IntArray, *, drifting: bool) -> Coded:
    rows, count = integers.shape
    low, high = integers.min(axis=1), integers.max(axis=1)
    centre = low + np.rint((integers - low[:, None]).mean(axis=1)).astype(np.int64)
    first = integers[:, 0].copy()
    steps = np.empty_like(integers)
    steps[:, 0] = 0
    np.subtract(integers[:, 1:], integers[:, :-1], out=steps[:, 1:])
    drift = np.zeros(rows, np.int64)
    if drifting and count > 2:
        # Worth its bytes where a column runs one way: a counter, a clock.
        way = (integers[:, -1] - first).astype(np.float64)
        mean = np.rint(way / (count - 1)).astype(np.int64)
        drift = np.where(2 * np.abs(way) > np.abs(steps).sum(axis=1, dtype=np.float64), mean, 0)
        steps -= drift[:, None]
    residuals = np.empty((3, rows, count), np.int64)
    np.subtract(integers, low[:, None], out=residuals[0])
    np.subtract(integers, centre[:, None], out=residuals[1])
    residuals[2] = steps
    residuals[2, :, 0] = 0
    residuals[1:] = zigzag(residuals[1:])
    rice_width, rice_bits = _rice(residuals[1:])
    plain_width = bit_length(high - low)
    delta_width = bit_length(residuals[2].max(axis=1))
    base_bits = 8 * byte_length(low)
    drift_bits = np.where(drift != 0, base_bits, 0)
    bits = np.stack(
        (
            count * plain_width + base_bits,
            rice_bits[0] + 8 * byte_length(centre),
            rice_bits[1] + 8 * byte_length(first) + drift_bits,
            count * delta_width + 8 * byte_length(first) + drift_bits,
        )
    )
    choice = bits.argmin(axis=0)
    at = np.arange(rows)
    predictor = np.minimum(choice, DELTA)
    unary = (choice == 1) | (choice == 2)
    widths = np.stack((plain_width, rice_width[0], rice_width[1], delta_width))
    bases = np.stack((low, centre, first))
    drift = np.where(predictor == DELTA, drift, 0)
    return Coded(
        kind=predictor | np.where(unary, UNARY, 0) | np.where(drift != 0, DRIFT, 0),
        width=widths[choice, at],
        base=bases[predictor, at],
        drift=drift,
        residuals=residuals[predictor, at],
        tables={},
        bits=bits[choice, at],
    )


def _rice(numbers: IntArray) -> tuple[IntArray, IntArray]:
    """Return the width of the low bits that makes each column smallest, and the size in bits.

    The best width lies at log2 of the mean times ln 2, or just above.
    """
    count = numbers.shape[-1]
    mean = numbers.mean(axis=-1)
    below = np.maximum(bit_length((mean * np.log(2)).astype(np.int64)) - 1, 0)
    widths = np.stack((below, below + 1))
    bits = np.stack(
        [(numbers >> width[..., None]).sum(axis=-1) + count * (width + 1) for width in widths]
    )
    above = bits[1] < bits[0]
    return np.where(above, widths[1], widths[0]), np.where(above, bits[1], bits[0])


def bit_length(numbers: IntArray) -> IntArray:
    """Return how many bits each of the non-negative `numbers` takes, one more at the most."""
    return np.frexp(numbers.astype(np.float64))[1].astype(np.int64)


def byte_length(numbers: IntArray) -> IntArray:
    """Return how many bytes each of `numbers` takes in two's complement; 0 for a zero."""
    magnitude = np.where(numbers < 0, ~numbers, numbers)
    return np.where(numbers == 0, 0, np.minimum(bit_length(magnitude) // 8 + 1, 8))


# --- writing ------------------------------------------------------------------------------


def pack_low_bits(
    parts: Sequence[IntArray], widths: Sequence[int], frame_of: Sequence[int], frame_count: int
) -> list[bytes]:
    """Return each frame's bits: the numbers of its parts, `widths` bits each, end to end.

    Parameters
    ----------
    parts : non-negative integers below ``2 ** width``
    frame_of : for each part the index of its frame, ascending
    """
    lengths = np.array([len(part) for part in parts], np.int64)
    part_bits = lengths * np.array(widths, np.int64)
    frame_bits = np.zeros(frame_count, np.int64)
    np.add.at(frame_bits, np.asarray(frame_of, np.int64), part_bits)
    frame_ends = np.cumsum((frame_bits + 7) // 8)
    if frame_ends[-1] == 0:
        return [b""] * frame_count
    frame_starts = np.concatenate(([0], frame_ends[:-1]))
    # Where a frame's bits end within a byte, the next frame's begin with the next byte.
    slack = 8 * frame_starts - (np.cumsum(frame_bits) - frame_bits)
    part_start = np.cumsum(part_bits) - part_bits + slack[np.asarray(frame_of, np.int64)]
    numbers = np.concatenate(parts)
    width = np.repeat(np.array(widths, np.int64), lengths)
    within = np.arange(len(numbers)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    position = np.repeat(part_start, lengths) + within * width
    words = np.zeros(int(frame_ends[-1]) // 8 + 2, np.int64)
    word, shift = position >> 6, position & 63
    begins = np.flatnonzero(np.diff(word, prepend=-1))
    words[word[begins]] = np.bitwise_or.reduceat(numbers << shift, begins)
    spilled = np.flatnonzero(shift + width > 64)
    words[word[spilled] + 1] |= numbers[spilled] >> (64 - shift[spilled])
    packed = words.tobytes()
    return [
        packed[start:end]
        for start, end in zip(frame_starts.tolist(), frame_ends.tolist(), strict=True)
    ]


def pack_unary(parts: Sequence[IntArray], frame_of: Sequence[int], frame_count: int) -> list[bytes]:
    """Return each frame's unary section: for each number that many zeros and a one."""
    if not parts:
        return [b""] * frame_count
    steps = np.concatenate(parts) + 1
    lengths = np.array([len(part) for part in parts], np.int64)
    frame = np.repeat(np.asarray(frame_of, np.int64), lengths)
    frame_bits = np.zeros(frame_count, np.int64)
    np.add.at(
        frame_bits,
        np.asarray(frame_of, np.int64),
        np.add.reduceat(steps, np.cumsum(lengths) - lengths),
    )
    frame_ends = np.cumsum((frame_bits + 7) // 8)
    slack = 8 * np.concatenate(([0], frame_ends[:-1])) - (np.cumsum(frame_bits) - frame_bits)
    bits = np.zeros(8 * int(frame_ends[-1]), np.uint8)
    bits[np.cumsum(steps) - 1 + slack[frame]] = 1
    packed = np.packbits(bits, bitorder="little").tobytes()
    starts = np.concatenate(([0], frame_ends[:-1]))
    return [
        packed[start:end] for start, end in zip(starts.tolist(), frame_ends.tolist(), strict=True)
    ]
