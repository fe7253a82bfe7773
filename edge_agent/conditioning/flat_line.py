"""Step 5, flat lines: a sensor whose value has stood still for longer than the process could.

References
----------
A. B. Sharma, L. Golubchik, R. Govindan, Sensor faults: detection methods and prevalence in
real-world datasets, ACM Transactions on Sensor Networks 6 (2010): the fault "constant".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from domain.frames import Quality
from edge_agent.conditioning.samples import Applied, Samples

FOUND: Final = "flat_line.found"


@dataclass(frozen=True)
class FlatLine:
    """Mark readings whose value has changed by no more than `tolerance`, one to the next, for long.

    Parameters
    ----------
    duration_ns : from the last change on; readings until then are as they were
    last_value, changed_ns : the last usable value, and the time since when there was no change
    """

    duration_ns: int
    tolerance: float = 0.0
    mark: Quality = Quality.UNCERTAIN
    last_value: float | None = None
    changed_ns: int = 0

    changes_values = False
    fits_waveforms = False

    def apply(self, samples: Samples) -> Applied:
        """Return the readings, marked."""
        usable = np.flatnonzero(samples.usable)
        if not len(usable):
            return Applied(samples, self)
        values, times = samples.values[usable], samples.times_ns[usable]
        before = values[0] if self.last_value is None else self.last_value
        previous = np.concatenate(([before], values[:-1]))
        changed = np.abs(values - previous) > self.tolerance
        if self.last_value is None:
            changed[0] = True  # the first reading begins
        # For each reading the index of the last change up to it, -1 where it lies in the past.
        at = np.maximum.accumulate(np.where(changed, np.arange(len(values)), -1))
        since = np.where(at >= 0, times[at], self.changed_ns)
        flat = np.zeros(len(samples), np.bool_)
        flat[usable] = times - since >= self.duration_ns
        step = replace(self, last_value=float(values[-1]), changed_ns=int(since[-1]))
        return Applied(samples.marked(flat, self.mark), step, {FOUND: int(flat.sum())})
