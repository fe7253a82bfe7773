"""Step 9, the dead-band: a value that has hardly moved since the last one told is left out.

References
----------
OPC UA Part 8 (1.05), 7.2: the absolute dead-band of a data change filter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from domain.frames import Quality
from edge_agent.conditioning.samples import Applied, Samples

SUPPRESSED: Final = "dead_band.suppressed"


@dataclass(frozen=True)
class DeadBand:
    """Leave out a reading within `band` of the last one told, unless its quality is another.

    Parameters
    ----------
    silence_ns_max : after so long a reading is told whatever it says
    told_value, told_quality, told_ns : the last reading told, None before the first
    """

    band: float
    silence_ns_max: int
    told_value: float | None = None
    told_quality: int = Quality.MISSING
    told_ns: int = 0

    changes_values = False
    fits_waveforms = False

    def apply(self, samples: Samples) -> Applied:
        """Return the readings that are told."""
        told_value, told_quality, told_ns = self.told_value, self.told_quality, self.told_ns
        kept: list[int] = []
        columns = (samples.times_ns, samples.values, samples.qualities)
        for n, (time_ns, value, quality) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        ):
            if (
                told_value is not None
                and quality == told_quality
                and time_ns - told_ns < self.silence_ns_max
                # Two readings without a value are alike.
                and (abs(value - told_value) <= self.band or math.isnan(value))
            ):
                continue
            told_value, told_quality, told_ns = value, quality, time_ns
            kept.append(n)
        step = replace(self, told_value=told_value, told_quality=told_quality, told_ns=told_ns)
        if len(kept) == len(samples):
            return Applied(samples, step)
        counts = {SUPPRESSED: len(samples) - len(kept)}
        return Applied(samples.chosen(np.array(kept, np.int64)), step, counts)
