"""Readings of one channel on their way through conditioning, and what every step shares.

A step is a frozen description together with what it remembers. Applying it returns the readings
as they go on and the step as it goes on, so that nothing is changed in place and the same
readings give the same result however windows are cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from domain.frames import ByteArray, FloatArray, IntArray, Quality

UNCERTAIN: Final = int(Quality.UNCERTAIN)
"""As a plain number: NumPy asks an enumeration many questions before it compares with it."""
BoolArray = npt.NDArray[np.bool_]

MARKS = {"uncertain": Quality.UNCERTAIN, "bad": Quality.BAD}
"""How a step may mark what it finds, by the word in a configuration."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Readings of one channel.

    Parameters
    ----------
    times_ns : int64, shape (n,), ns since 1970 UTC
    values : float64, shape (n,), in the unit the channel has at this step; NaN where MISSING
    qualities : uint8, shape (n,), `domain.frames.Quality`
    """

    times_ns: IntArray
    values: FloatArray
    qualities: ByteArray

    def __len__(self) -> int:
        return len(self.times_ns)

    def chosen(self, which: BoolArray | IntArray) -> Samples:
        """Return the readings that `which` chooses."""
        return Samples(self.times_ns[which], self.values[which], self.qualities[which])

    def followed_by(self, later: Samples) -> Samples:
        """Return these readings and the `later` ones as one."""
        return Samples(
            np.concatenate((self.times_ns, later.times_ns)),
            np.concatenate((self.values, later.values)),
            np.concatenate((self.qualities, later.qualities)),
        )

    @property
    def usable(self) -> BoolArray:
        """Which readings have a value that is not BAD."""
        return (self.qualities <= UNCERTAIN) & np.isfinite(self.values)

    def marked(self, which: BoolArray, mark: Quality) -> Samples:
        """Return the readings with those of `which` at least as bad as `mark`."""
        if not which.any():
            return self
        worse = which & (self.qualities < int(mark))
        return replace(self, qualities=np.where(worse, np.uint8(mark), self.qualities))


def no_samples() -> Samples:
    """Return no readings at all."""
    return Samples(np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8))


@dataclass(frozen=True, eq=False)
class Applied:
    """What a step made of readings.

    Parameters
    ----------
    step : the step as it goes on
    counts : how often it found something, by a stable code; zeros may stand in it
    """

    samples: Samples
    step: Step
    counts: Mapping[str, int] = field(default_factory=dict)


class Step(Protocol):
    """One step of conditioning a channel."""

    @property
    def changes_values(self) -> bool:
        """Whether a value may come out that was not delivered."""

    @property
    def fits_waveforms(self) -> bool:
        """Whether it looks at each reading alone and leaves none out."""

    def apply(self, samples: Samples) -> Applied:
        """Return what becomes of `samples`; it never raises for a value."""
