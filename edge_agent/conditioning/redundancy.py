"""Step 7, redundancy: two or three sensors of one quantity are voted on and fused.

At each time at which any of them reads, the latest values of all are compared. Of three the
median judges: who departs from it by more than the tolerance is outvoted, the others are
averaged. Two that disagree have no majority.

References
----------
IEC 61508-7:2010, A.1.4 (majority voter).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from domain.frames import ByteArray, FloatArray, Quality
from edge_agent.conditioning.alignment import Held
from edge_agent.conditioning.samples import BoolArray, Samples, no_samples

SENSORS_MIN: Final = 2
SENSORS_MAX: Final = 3
OUTVOTED: Final = "redundancy.outvoted"
DISAGREEMENT: Final = "redundancy.disagreement"
SINGLE: Final = "redundancy.single"
NONE: Final = "redundancy.none"


@dataclass(frozen=True, eq=False)
class Redundancy:
    """Fuse `sensors` into one value.

    Parameters
    ----------
    sensors : names of two or three channels, in one unit
    tolerance : by so much they may differ, in that unit
    weights : of each sensor in the mean of those that agree, such as the inverse of its variance
    age_ns_max : an older reading does not vote
    """

    sensors: tuple[str, ...]
    tolerance: float
    weights: tuple[float, ...]
    age_ns_max: int
    held: Mapping[str, Held] = field(default_factory=lambda: MappingProxyType({}))

    def apply(
        self, readings: Mapping[str, Samples]
    ) -> tuple[Samples, Redundancy, Mapping[str, int]]:
        """Return the fused readings, the step as it goes on, and what it counted.

        A fused value is GOOD when a majority of all sensors agrees; UNCERTAIN when two disagree
        (their mean), three do (their median), only one is left, or none of those that agree is
        GOOD; MISSING when none is left.
        """
        here = [found for name in self.sensors if (found := readings.get(name)) is not None]
        step = replace(
            self,
            held={
                name: self.held.get(name, Held()).after(readings.get(name)) for name in self.sensors
            },
        )
        if not here:
            return no_samples(), step, {}
        times = np.unique(np.concatenate([samples.times_ns for samples in here]))
        known = [
            self.held.get(name, Held()).at(times, readings.get(name), self.age_ns_max)
            for name in self.sensors
        ]
        values = np.stack([value for value, _ in known])
        qualities = np.stack([quality for _, quality in known])
        # Those that are not GOOD vote only where no GOOD one is left.
        good = (qualities == Quality.GOOD) & np.isfinite(values)
        voting = np.where(good.any(axis=0), good, np.isfinite(values))
        fused, fused_qualities, counts = self._voted(values, qualities, voting)
        return Samples(times, fused, fused_qualities), step, counts

    def _voted(
        self, values: FloatArray, qualities: ByteArray, voting: BoolArray
    ) -> tuple[FloatArray, ByteArray, Mapping[str, int]]:
        votes = voting.sum(axis=0)
        # NaN sorts last: of one or two votes the lower half stands first.
        ranked = np.sort(np.where(voting, values, np.nan), axis=0)
        middle = np.take_along_axis(ranked, np.maximum(votes - 1, 0)[None] // 2, axis=0)[0]
        two = votes == 2
        middle[two] = (ranked[0, two] + ranked[1, two]) / 2
        departures = np.abs(values - middle)
        # Two lie half their difference from their mean.
        agreeing = voting & (departures <= np.where(two, self.tolerance / 2, self.tolerance))
        agreed = agreeing.sum(axis=0)
        lonely = (votes >= 2) & (agreed < 2)
        weights = np.array(self.weights)[:, None] * agreeing
        total = weights.sum(axis=0)
        weighted = (weights * np.where(agreeing, values, 0.0)).sum(axis=0)
        usual = np.divide(weighted, total, out=np.full(len(votes), np.nan), where=total > 0)
        fused = np.where(lonely, middle, usual)
        sound = (agreed >= 2) & ((qualities == Quality.GOOD) & agreeing).any(axis=0)
        marks = np.where(sound, np.uint8(Quality.GOOD), np.uint8(Quality.UNCERTAIN))
        marks[votes == 0] = Quality.MISSING
        counts = {
            OUTVOTED: int((voting & ~agreeing)[:, ~lonely].sum()),
            DISAGREEMENT: int(lonely.sum()),
            SINGLE: int((votes == 1).sum()),
            NONE: int((votes == 0).sum()),
        }
        return fused, marks, counts
