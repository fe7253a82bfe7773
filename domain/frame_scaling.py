"""The integers behind decimal readings: 31.75 is 3175 hundredths, and nothing is lost by it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from domain.column_choice import NARROW_SPAN_MAX, narrowed
from domain.frame_layout import DECIMALS_MAX, POWERS
from domain.frame_rows import Scaled, SharedRows
from domain.frames import Column, FloatArray, IntArray
from domain.integer_columns import SPREAD_MAX

_POWERS: Final = np.array(POWERS)
_SAMPLE: Final = 4

BoolArray = npt.NDArray[np.bool_]


def scaled_rows(rows: SharedRows) -> Scaled:
    """Return what integers `rows` are made of; remembered until `SharedRows.forget_integers`."""
    if rows.scaled is None:
        rows.scaled = (
            exact_integers(rows.values) if rows.decoded is None else _decoded(*rows.decoded)
        )
    return rows.scaled


def _decoded(decimals: IntArray, integers: IntArray) -> Scaled:
    # Proved by having been decoded; yet what was sent may lie as far apart as it likes.
    low, high = integers.min(axis=1), integers.max(axis=1)
    exact = high.astype(np.float64) - low < SPREAD_MAX
    above = integers - low[:, None]
    return Scaled(exact, decimals, low, narrowed(above, above.max(axis=1)))


def exact_integers(matrix: Column) -> Scaled:
    """Return what integers each row of `matrix` is made of.

    Parameters
    ----------
    matrix : finite values of one numeric type, shape (n_rows, n)
    """
    if matrix.dtype.kind == "f":
        return _scaled_floats(matrix)
    low, high = matrix.min(axis=1), matrix.max(axis=1)
    exact = (high.astype(np.float64) - low.astype(np.float64) < SPREAD_MAX) & (
        high.astype(np.float64) < 2.0**63
    )
    lowest = low.astype(np.int64)
    above = matrix.astype(np.int64) - lowest[:, None]
    above[~exact] = 0
    no_decimals = np.zeros(len(matrix), np.int64)
    return Scaled(exact, no_decimals, lowest, narrowed(above, above.max(axis=1)))


def _scaled_floats(matrix: Column) -> Scaled:
    count = matrix.shape[1]
    known = _decimals(matrix[:, :: max(1, count // _SAMPLE)])
    exact, scaled = _scaled(matrix, known)
    # A sample may miss the longest value; then a decimal more is tried until all are held.
    unsure = np.flatnonzero(~exact & (known < DECIMALS_MAX))
    while len(unsure):
        known[unsure] += 1
        exact[unsure], scaled[unsure] = _scaled(matrix[unsure], known[unsure])
        unsure = unsure[~exact[unsure] & (known[unsure] < DECIMALS_MAX)]
    if not exact.all():
        scaled[~exact] = 0
    low = scaled.min(axis=1)
    scaled -= low[:, None]
    narrow = scaled.max(initial=0) <= NARROW_SPAN_MAX
    above = scaled.astype(np.int32 if narrow else np.int64)
    return Scaled(exact, known, low.astype(np.int64), above)


def _decimals(sample: Column) -> IntArray:
    """Return the fewest decimals that hold each row of `sample`; `DECIMALS_MAX` if none do."""
    # The axis that is looked along comes first: NumPy costs by the row it goes along.
    tried = np.ascontiguousarray(sample.T)[:, None, :]
    same, scaled = _rounded(tried, _POWERS[:, None])
    enough = (same & (np.abs(scaled) < SPREAD_MAX / 2)).all(axis=0)
    return np.where(enough.any(axis=0), enough.argmax(axis=0), DECIMALS_MAX)


def _scaled(matrix: Column, decimals: IntArray) -> tuple[BoolArray, FloatArray]:
    """Return for each row whether that many decimals hold it bit by bit, and its integers."""
    same, scaled = _rounded(matrix, _POWERS[decimals][:, None])
    # All of them together, first: along rows it takes a multiple of that.
    exact: BoolArray = np.full(len(matrix), True)
    if not same.all():
        same.all(axis=1, out=exact)
    if not (scaled.max() < SPREAD_MAX / 2 and scaled.min() > -SPREAD_MAX / 2):
        exact &= (scaled.max(axis=1) < SPREAD_MAX / 2) & (scaled.min(axis=1) > -SPREAD_MAX / 2)
    return exact, scaled


def _rounded(matrix: Column, power: FloatArray) -> tuple[BoolArray, FloatArray]:
    """Return the integers nearest to ``matrix * power``, and which give back what they are of."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: FloatArray = matrix * power
        np.rint(scaled, out=scaled)
        scaled += 0.0  # an integer knows no negative zero
        restored = (scaled / power).astype(matrix.dtype, copy=False)
    bits = f"<i{matrix.dtype.itemsize}"
    same: BoolArray = restored.view(bits) == np.ascontiguousarray(matrix).view(bits)
    return same, scaled
