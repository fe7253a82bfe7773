"""What another channel said last: the value that was known when a reading was taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.frames import ByteArray, FloatArray, IntArray, Quality
from edge_agent.conditioning.samples import Samples


@dataclass(frozen=True, slots=True)
class Held:
    """The latest reading of a channel, if there was one; `value` is NaN where it is not usable."""

    time_ns: int = 0
    value: float = float("nan")
    quality: int = Quality.MISSING

    def at(
        self, times_ns: IntArray, samples: Samples | None, age_ns_max: int
    ) -> tuple[FloatArray, ByteArray]:
        """Return the value known at each of `times_ns`, and its quality.

        Parameters
        ----------
        samples : the channel's own readings in this window; None where it has none
        age_ns_max : what is older counts as MISSING

        Returns
        -------
        values : float64, shape (n,); NaN where nothing usable is known
        qualities : uint8, shape (n,)
        """
        times, values, qualities = self._with(samples)
        # A reading of the very time counts: of equal times, the last.
        at = np.searchsorted(times, times_ns, side="right") - 1
        unknown = at < 0
        at = np.maximum(at, 0)
        unknown |= times_ns - times[at] > age_ns_max
        return (
            np.where(unknown, np.nan, values[at]),
            np.where(unknown, np.uint8(Quality.MISSING), qualities[at]),
        )

    def after(self, samples: Samples | None) -> Held:
        """Return what is held once `samples` have come."""
        times, values, qualities = self._with(samples)
        return Held(int(times[-1]), float(values[-1]), int(qualities[-1]))

    def _with(self, samples: Samples | None) -> tuple[IntArray, FloatArray, ByteArray]:
        times = np.array([self.time_ns], np.int64)
        values, qualities = np.array([self.value]), np.array([self.quality], np.uint8)
        if samples is None:
            return times, values, qualities
        # What came late would go back in time: what is known stands.
        timely = samples.times_ns >= self.time_ns
        usable = np.where(samples.usable, samples.values, np.nan)
        return (
            np.concatenate((times, samples.times_ns[timely])),
            np.concatenate((values, usable[timely])),
            np.concatenate((qualities, samples.qualities[timely])),
        )
