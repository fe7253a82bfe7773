"""Chooses how columns of integers are coded: each by what makes it smallest.

All columns of one length, of however many frames, are tried as one matrix, since NumPy costs by
the call. What is tried lies above the smallest integer of its column, so that four bytes hold it
nearly always. `domain.integer_columns` reads it back, ``docs/frame-format.md`` specifies it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from domain.integer_columns import (
    CENTRED,
    DELTA,
    DRIFT,
    PLAIN,
    TABLE,
    TABLE_ENTRIES_MAX,
    UNARY,
    IntArray,
    bit_length,
    byte_length,
    zigzag,
)

NARROW_SPAN_MAX: Final = 2**28
"""What lies that far apart at the most is tried in four bytes: zigzag codes of steps, less their
drift, take two bits more."""

_KEY_BITS: Final = 62
_KINDS: Final = np.array([PLAIN, CENTRED | UNARY, DELTA | UNARY, DELTA])
"""The kind of what is tried, in the order in which it is."""

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
Above = npt.NDArray[Any]
"""int32 or int64: how far integers lie above the smallest of their column."""


@dataclass(frozen=True)
class Coded:
    """Columns of one length with the predictor that costs least, before they are bits.

    Parameters
    ----------
    low : the smallest integer of each column; where it has a table, its first entry
    base : what the residuals are added to; with a table, of the indexes into it
    residuals : shape (n_columns, n), none negative
    table_count, table_width : entries of the table and bits of a gap; 0 for a column without
    gaps : of all tables, one after the other, each less one
    bits : estimated size, which the tests hold against the coded one
    """

    kind: IntArray
    width: IntArray
    low: IntArray
    base: IntArray
    drift: IntArray
    residuals: Above
    table_count: IntArray
    table_width: IntArray
    gaps: IntArray
    bits: IntArray


def narrowed(above: Above, span: IntArray) -> Above:
    """Return `above`, whose columns reach up to `span`, in four bytes where they suffice."""
    return above.astype(np.int32) if span.max(initial=0) <= NARROW_SPAN_MAX else above


def choose(integers: IntArray) -> Coded:
    """Return `integers`, shape (n_columns, n), each column by what makes it smallest.

    The integers of a column must lie within `SPREAD_MAX` of each other.
    """
    low = integers.min(axis=1)
    above = integers - low[:, None]
    return choose_above(low, narrowed(above, above.max(axis=1)))


def choose_above(low: IntArray, above: Above) -> Coded:
    """Return as `choose` the integers that lie `above` the smallest of their columns, `low`."""
    best, top = _predicted(low, above, drifting=True)
    ordered, order = _ordered(above)
    gaps = ordered[:, 1:] - ordered[:, :-1]
    begins = gaps != 0
    distinct = np.add.reduce(begins, axis=1, dtype=np.int32) + 1
    widest = gaps.max(axis=1, initial=1)
    table_width = bit_length(widest - 1)
    table_bits = (distinct - 1) * table_width + 24
    few = (distinct > 1) & (distinct <= min(TABLE_ENTRIES_MAX, above.shape[1] // 2))
    # Indexes lie closer together than what they stand for by so many bits; of neighbours, by none.
    saved = np.log2(top / np.maximum(distinct - 1, 1), out=np.zeros(len(top)), where=top > 0)
    rows = np.flatnonzero(few & (table_bits < np.minimum(best.bits, above.shape[1] * saved)))
    if len(rows) == 0:
        return best
    begins, gaps = begins[rows], gaps[rows]
    indexed, _ = _predicted(np.zeros(len(rows), np.int64), _indexes(begins, order[rows]))
    bits = indexed.bits + table_bits[rows]
    better = np.flatnonzero(bits < best.bits[rows])
    rows = rows[better]
    best.kind[rows] = indexed.kind[better] | TABLE
    best.width[rows] = indexed.width[better]
    best.base[rows] = indexed.base[better]
    best.drift[rows] = 0
    best.residuals[rows] = indexed.residuals[better]
    best.bits[rows] = bits[better]
    best.table_count[rows] = distinct[rows]
    best.table_width[rows] = table_width[rows]
    if len(better) < len(bits):
        begins, gaps = begins[better], gaps[better]
    return replace(best, gaps=gaps[begins].astype(np.int64) - 1)


def _ordered(above: Above) -> tuple[Above, Above]:
    """Return each row of `above` in order, and the place that each of it had."""
    count = above.shape[1]
    bits = max(count - 1, 1).bit_length()
    highest = int(above.max(initial=0))
    if highest >> (_KEY_BITS - bits):
        order = above.argsort(axis=1)
        return np.take_along_axis(above, order, axis=1), order
    # A number and its place as one key: sorting numbers takes a fraction of sorting places.
    narrow = highest >> (30 - bits) == 0 if bits < 30 else False
    keys: Above = above.astype(np.int32 if narrow else np.int64) << bits
    np.bitwise_or(keys, np.arange(count, dtype=keys.dtype), out=keys)
    keys.sort(axis=1)
    return keys >> bits, keys & ((1 << bits) - 1)


def _indexes(begins: BoolArray, order: Above) -> Above:
    """Return each row as indexes into its distinct numbers.

    Parameters
    ----------
    begins : whether the next number, in order, is another; shape (n_columns, n - 1)
    order : the place of each number, in order
    """
    rows, count = order.shape
    indexes = np.empty((rows, count), np.int32)
    places = np.zeros((rows, count), np.int32)
    np.cumsum(begins, axis=1, dtype=np.int32, out=places[:, 1:])
    indexes.reshape(-1)[(np.arange(rows) * count)[:, None] + order] = places
    return indexes


def _predicted(low: IntArray, above: Above, *, drifting: bool = False) -> tuple[Coded, Above]:
    """Return as `choose_above`, without tables, and the largest of each column."""
    rows, count = above.shape
    top = above.max(axis=1)
    # Zigzag codes of steps take two bits more than what they lead to.
    narrow = 4 * int(top.max(initial=0)) * count < 2**31
    totals = _Totals(count, np.dtype(np.int32 if narrow else np.int64))
    centre = np.rint(totals.of(above) / count).astype(above.dtype)
    centred = zigzag(above - centre[:, None])
    steps = np.empty_like(above)
    steps[:, 0] = 0
    np.subtract(above[:, 1:], above[:, :-1], out=steps[:, 1:])
    stepped = zigzag(steps)
    of_steps = totals.of(stepped)
    drift = np.zeros(rows, np.int64)
    if drifting and count > 2:
        # Worth its bytes where a column runs one way: a counter, a clock.
        way = (above[:, -1] - above[:, 0]).astype(np.float64)
        running = np.flatnonzero(4 * np.abs(way) > of_steps)
        drift[running] = np.rint(way[running] / (count - 1)).astype(np.int64)
        drifted = np.flatnonzero(drift)
        if len(drifted):
            rest = steps[drifted]
            rest[:, 1:] -= drift[drifted, None].astype(above.dtype)
            stepped[drifted] = rest = zigzag(rest)
            of_steps[drifted] = totals.of(rest)
    unary_widths, unary_bits = totals.rice(np.stack((totals.of(centred), of_steps)))
    widths = np.empty((4, rows), np.int64)
    widths[0], widths[3] = bit_length(top), bit_length(stepped.max(axis=1))
    widths[1:3] = unary_widths
    bases = np.empty((3, rows), np.int64)
    bases[0] = low
    np.add(low, centre, out=bases[1])
    np.add(low, above[:, 0], out=bases[2])
    sizes = 8 * byte_length(bases)
    if drift.any():
        sizes[2] += np.where(drift != 0, sizes[0], 0)
    bits = count * widths
    bits[1:3] = unary_bits
    bits[:3] += sizes
    bits[3] += sizes[2]
    choice = bits.argmin(axis=0)
    at = np.arange(rows)
    predictor = np.minimum(choice, DELTA)
    residuals = stepped
    for other, numbers in ((PLAIN, above), (CENTRED, centred)):
        chosen = np.flatnonzero(predictor == other)
        residuals[chosen] = numbers[chosen]
    drift[predictor != DELTA] = 0
    coded = Coded(
        kind=_KINDS[choice] | np.where(drift != 0, DRIFT, 0),
        width=widths[choice, at],
        low=low,
        base=bases[predictor, at],
        drift=drift,
        residuals=residuals,
        table_count=np.zeros(rows, np.int64),
        table_width=np.zeros(rows, np.int64),
        gaps=np.empty(0, np.int64),
        bits=bits[choice, at],
    )
    return coded, top


@dataclass(frozen=True, slots=True)
class _Totals:
    """Sums of columns of `count` numbers each, in a type that holds them."""

    count: int
    dtype: np.dtype[Any]

    def of(self, numbers: Above) -> FloatArray:
        """Return the sum of each row, as floats: what int64 may not hold is of wide columns."""
        narrow = self.dtype.itemsize == 4
        total = np.add.reduce(numbers, axis=1, dtype=self.dtype if narrow else np.float64)
        floats: FloatArray = total.astype(np.float64)
        return floats

    def rice(self, totals: FloatArray) -> tuple[IntArray, FloatArray]:
        """Return the width of the low bits that makes numbers of these sums smallest, and the
        size in bits.

        What the low bits hold is taken for half of what they can hold, on average.
        """
        half = self.count / 2
        lifted = totals + half
        width = np.maximum(np.frexp(lifted / self.count)[1].astype(np.int64) - 1, 0)
        return width, self.count * (width + 1) - half + np.ldexp(lifted, -width)
