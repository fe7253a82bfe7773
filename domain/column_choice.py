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
    best = _predicted(low, above, drifting=True)
    ordered, order = _ordered(above)
    gaps = ordered[:, 1:] - ordered[:, :-1]
    begins = gaps != 0
    distinct = np.count_nonzero(begins, axis=1) + 1
    widest = gaps.max(axis=1, initial=1).astype(np.int64)
    table_width = bit_length(widest - 1)
    table_bits = (distinct - 1) * table_width + 24
    few = distinct <= min(TABLE_ENTRIES_MAX, above.shape[1] // 2)
    rows = np.flatnonzero(few & (distinct > 1) & (table_bits < best.bits))
    if len(rows) == 0:
        return best
    indexed = _predicted(np.zeros(len(rows), np.int64), _indexes(begins[rows], order[rows]))
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
    between = gaps[rows].reshape(-1).take(np.flatnonzero(begins[rows])).astype(np.int64) - 1
    return replace(best, gaps=between)


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


def _predicted(low: IntArray, above: Above, *, drifting: bool = False) -> Coded:
    """Return as `choose_above`, without tables."""
    rows, count = above.shape
    centre = np.rint(_means(above)).astype(above.dtype)
    first = above[:, 0]
    steps = np.zeros_like(above)
    np.subtract(above[:, 1:], above[:, :-1], out=steps[:, 1:])
    drift = np.zeros(rows, np.int64)
    if drifting and count > 2:
        # Worth its bytes where a column runs one way: a counter, a clock.
        way = above[:, -1].astype(np.float64) - first
        running = 2 * np.abs(way) > np.abs(steps).sum(axis=1, dtype=np.float64)
        drift = np.where(running, np.rint(way / (count - 1)), 0).astype(np.int64)
        drifted = np.flatnonzero(drift)
        steps[drifted, 1:] -= drift[drifted, None].astype(above.dtype)
    centred, stepped = zigzag(above - centre[:, None]), zigzag(steps)
    centred_width, centred_bits = _rice(centred)
    stepped_width, stepped_bits = _rice(stepped)
    plain_width = bit_length(above.max(axis=1))
    delta_width = bit_length(stepped.max(axis=1))
    bases = np.stack((low, low + centre, low + first))
    plain_size, centre_size, first_size = 8 * byte_length(bases)
    first_size = first_size + np.where(drift != 0, plain_size, 0)
    bits = np.stack(
        (
            count * plain_width + plain_size,
            centred_bits + centre_size,
            stepped_bits + first_size,
            count * delta_width + first_size,
        )
    )
    choice = bits.argmin(axis=0)
    at = np.arange(rows)
    predictor = np.minimum(choice, DELTA)
    unary = (choice == 1) | (choice == 2)
    widths = np.stack((plain_width, centred_width, stepped_width, delta_width))
    drift = np.where(predictor == DELTA, drift, 0)
    residuals = stepped
    for other, numbers in ((PLAIN, above), (PLAIN + 1, centred)):
        chosen = np.flatnonzero(predictor == other)
        residuals[chosen] = numbers[chosen]
    return Coded(
        kind=predictor | np.where(unary, UNARY, 0) | np.where(drift != 0, DRIFT, 0),
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


def _means(numbers: Above) -> FloatArray:
    """Return the mean of each row."""
    means: FloatArray
    if numbers.dtype.itemsize == 4:
        means = np.add.reduce(numbers, axis=-1, dtype=np.int64) / numbers.shape[-1]
    else:  # in floats: the sum of many that lie far apart is beyond what int64 holds
        means = numbers.mean(axis=-1)
    return means


def _rice(numbers: Above) -> tuple[IntArray, IntArray]:
    """Return the width of the low bits that makes each column smallest, and the size in bits.

    The best width lies at log2 of the mean times ln 2, or just above.
    """
    count = numbers.shape[-1]
    below = np.maximum(bit_length((_means(numbers) * np.log(2)).astype(np.int64)) - 1, 0)
    shifted = numbers >> below.astype(numbers.dtype)[:, None]
    bits = np.add.reduce(shifted, axis=-1, dtype=np.int64) + count * (below + 1)
    shifted >>= 1
    wider_bits = np.add.reduce(shifted, axis=-1, dtype=np.int64) + count * (below + 2)
    wider = wider_bits < bits
    return below + wider, np.where(wider, wider_bits, bits)
