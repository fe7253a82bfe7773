"""The integers behind decimal readings: 31.75 is 3175 hundredths, and nothing is lost by it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from domain.frame_layout import DECIMALS_MAX, POWERS
from domain.frames import Column, FloatArray, IntArray
from domain.integer_columns import SPREAD_MAX

_POWERS: Final = np.array(POWERS)
_SAMPLE: Final = 4

BoolArray = npt.NDArray[np.bool_]


def exact_integers(matrix: Column) -> tuple[BoolArray, IntArray, IntArray]:
    """Return what integers each row of `matrix` is made of, as few decimals as possible.

    Parameters
    ----------
    matrix : finite values of one numeric type, shape (n_rows, n)

    Returns
    -------
    For each row whether ``integers / 10**decimals`` equals it bit by bit, with integers that lie
    within `SPREAD_MAX` of each other; its decimals; and its integers, shape as `matrix`.
    """
    if matrix.dtype.kind == "f":
        return _scaled_floats(matrix)
    low, high = matrix.min(axis=1).astype(np.float64), matrix.max(axis=1).astype(np.float64)
    exact = (high - low < SPREAD_MAX) & (high < 2.0**63)
    return exact, np.zeros(len(matrix), np.int64), matrix.astype(np.int64)


def _scaled_floats(matrix: Column) -> tuple[BoolArray, IntArray, IntArray]:
    count = matrix.shape[1]
    known = _decimals(matrix[:, :: max(1, count // _SAMPLE)])
    exact, integers = _scaled(matrix, known)
    # A sample may miss the longest value; then a decimal more is tried until all are held.
    unsure = np.flatnonzero(~exact & (known < DECIMALS_MAX))
    while len(unsure):
        known[unsure] += 1
        exact[unsure], integers[unsure] = _scaled(matrix[unsure], known[unsure])
        unsure = unsure[~exact[unsure] & (known[unsure] < DECIMALS_MAX)]
    return exact, known, integers


def _decimals(sample: Column) -> IntArray:
    """Return the fewest decimals that hold each row of `sample`; `DECIMALS_MAX` if none do."""
    rows, count = sample.shape
    tried = np.broadcast_to(sample[:, None, :], (rows, len(POWERS), count))
    exact, _ = _scaled(
        tried.reshape(rows * len(POWERS), count), np.tile(np.arange(len(POWERS)), rows)
    )
    enough = exact.reshape(rows, len(POWERS))
    return np.where(enough.any(axis=1), enough.argmax(axis=1), DECIMALS_MAX)


def _scaled(matrix: Column, decimals: IntArray) -> tuple[BoolArray, IntArray]:
    """Return for each row whether that many decimals hold it bit by bit, and its integers."""
    power = _POWERS[decimals][:, None]
    wide: FloatArray = matrix.astype(np.float64, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = wide * power
        np.rint(scaled, out=scaled)
        small = (scaled.max(axis=1) < SPREAD_MAX / 2) & (scaled.min(axis=1) > -SPREAD_MAX / 2)
        integers = scaled.astype(np.int64)
        restored = (integers / power).astype(matrix.dtype, copy=False)
    bits = f"<i{matrix.dtype.itemsize}"
    same = (restored.view(bits) == np.ascontiguousarray(matrix).view(bits)).all(axis=1)
    return same & small, integers


def coded_integers(matrix: Column, decimals: IntArray) -> tuple[BoolArray, IntArray]:
    """Return the integers of rows that are known to be made of such, without proving it again.

    False stands for a row whose integers are too large to be found by rounding.
    """
    if matrix.dtype.kind != "f":
        integers = matrix.astype(np.int64)
        return np.abs(integers).max(axis=1) < SPREAD_MAX / 8, integers
    scaled = matrix.astype(np.float64)
    scaled *= _POWERS[decimals][:, None]
    np.rint(scaled, out=scaled)
    small = (scaled.max(axis=1) < SPREAD_MAX / 8) & (scaled.min(axis=1) > -SPREAD_MAX / 8)
    with np.errstate(invalid="ignore"):
        return small, scaled.astype(np.int64)
