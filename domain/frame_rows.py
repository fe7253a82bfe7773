"""Values of many frames as one matrix, and the integers that they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False, slots=True)
class Scaled:
    """What integers the rows of a matrix are made of.

    Parameters
    ----------
    exact : for each row whether ``(low + above) / 10**decimals`` equals it bit by bit, with
        integers that lie within `integer_columns.SPREAD_MAX` of each other; of a row of which
        this is not so the rest means nothing
    decimals : the fewest, unless the frame was decoded: then those it was coded with
    low : the smallest integer of each row
    above : how far above it each lies, int32 or int64, shape as the matrix
    """

    exact: npt.NDArray[np.bool_]
    decimals: npt.NDArray[np.int64]
    low: npt.NDArray[np.int64]
    above: npt.NDArray[Any]

    def rows(self, at: slice) -> Scaled:
        """Return the rows `at` alone."""
        return Scaled(self.exact[at], self.decimals[at], self.low[at], self.above[at])


@dataclass(eq=False)
class SharedRows:
    """Values of frames that were built or decoded together, as one matrix.

    Parameters
    ----------
    values : shape (n_rows, n), of one numeric type; a frame's channels lie in adjacent rows
    factors, offsets : float64, shape (n_rows,), each row's map to SI
    decoded : decimals and integers, int64, that the values were decoded from
    scaled : what `frame_scaling.scaled_rows` found, while it is needed
    """

    values: npt.NDArray[Any]
    factors: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.float64]
    decoded: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None
    scaled: Scaled | None = None

    @cached_property
    def si(self) -> npt.NDArray[np.float64]:
        """The values in SI: float64, shape (n_rows, n), not to be written to."""
        si = in_si(self.values, self.factors, self.offsets)
        si.flags.writeable = False
        return si

    def forget_integers(self) -> None:
        """Keep the values alone: the integers are found again where somebody asks for them."""
        self.decoded = self.scaled = None


def in_si(
    values: npt.NDArray[Any], factors: npt.NDArray[np.float64], offsets: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return `values`, shape (n_rows, n), in SI: float64; ``values * factors + offsets``."""
    # Widened first: a float32 times a Python float would stay a float32. What no SI number can
    # hold becomes infinite, and so out of every range.
    with np.errstate(over="ignore", invalid="ignore"):
        si: npt.NDArray[np.float64] = values.astype(np.float64)
        si *= factors[:, None]
        si += offsets[:, None]
    return si
