"""Columns of integers as bits: the numeric part of an encoded frame, version 2.

A column is a predictor and its residuals. Each residual leaves its `width` low bits in the
frame's bits; where the column says so, what is above them follows in unary (a Rice code). All
columns of one length, of however many frames, are coded and decoded as one matrix, since NumPy
costs by the call. ``docs/frame-format.md`` specifies the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        columns: Sequence[int] | IntArray,
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
            position: IntArray = np.arange(count) * width
            position += columns[:, _START, None]
            residuals = self._bits(position, width)
            if len(unary):
                quotients = self._quotient_rows(self._quotient_start[at[unary]], count)
                quotients = quotients << width[unary]
                if len(unary) == len(residuals):
                    residuals += quotients
                else:
                    residuals[unary] += quotients
            predictor = kind & PREDICTOR
            residuals = _changed(residuals, np.flatnonzero(predictor != PLAIN), unzigzag)
            residuals = _changed(residuals, np.flatnonzero(predictor == DELTA), _accumulated)
        else:
            residuals = np.zeros((len(at), count), np.int64)
        residuals += columns[:, _BASE, None]
        if columns[:, _DRIFT].any():
            residuals += columns[:, _DRIFT, None] * np.arange(count)
        tables = np.flatnonzero(kind & TABLE)
        if len(tables):
            of_tables = columns[tables]
            residuals = _changed(
                residuals, tables, lambda indexes: self._looked_up(of_tables, indexes)
            )
        return residuals

    def _bits(self, position: IntArray, width: IntArray) -> IntArray:
        """Return `width` bits from bit `position` on, as non-negative integers.

        `position` is used up by it.
        """
        at = position >> 3
        words: IntArray = self._words.take(at) if self._words.flags.aligned else self._words[at]
        position &= 7
        words >>= position
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
        # What is negative is large without its sign.
        if (indexes.view(np.uint64) >= counts[:, None].view(np.uint64)).any():
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
        picked: IntArray = entries.take(starts[:, None] + indexes)
        return picked


def _changed(matrix: IntArray, rows: IntArray, change: Callable[[IntArray], IntArray]) -> IntArray:
    """Return `matrix` with ``change(matrix[rows])`` in place of those rows."""
    if len(rows) == len(matrix):
        return change(matrix)
    if len(rows):
        matrix[rows] = change(matrix[rows])
    return matrix


def unzigzag(numbers: IntArray) -> IntArray:
    """Return 0, -1, 1, -2, 2 … for 0, 1, 2, 3, 4 …"""
    sign = numbers & 1
    np.negative(sign, out=sign)
    sign ^= numbers >> 1
    return sign


def zigzag(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return 0, 1, 2, 3, 4 … for 0, -1, 1, -2, 2 …"""
    return (numbers << 1) ^ (numbers >> (8 * numbers.itemsize - 1))


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
    quotients = ones.copy()
    quotients[1:] -= ones[:-1] + 1
    first = last - np.asarray(counts)
    begun = np.flatnonzero(counts)
    starts = section_bits - 8 * np.array([len(section) for section in sections])
    quotients[first[begun]] = ones[first[begun]] - starts[begun]
    return quotients


# --- sizes ------------------------------------------------------------------------------


def bit_length(numbers: IntArray) -> IntArray:
    """Return how many bits each of the non-negative `numbers` takes, one more at the most."""
    return np.frexp(numbers.astype(np.float64))[1].astype(np.int64)


def byte_length(numbers: IntArray) -> IntArray:
    """Return how many bytes each of `numbers` takes in two's complement; 0 for a zero."""
    magnitude = numbers ^ (numbers >> 63)
    sizes: IntArray = _BYTE_LIMITS.searchsorted(magnitude, side="right") + (numbers != 0)
    return sizes


_BYTE_LIMITS: Final = np.int64(1) << np.arange(7, 63, 8)
"""What takes a byte more in two's complement."""
