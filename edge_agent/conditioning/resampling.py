"""Step 8, resampling: one value for each period of a fixed grid.

A period ``[k p, (k + 1) p)`` counts from 1970 UTC. Its value stands at its end and comes out once
a reading of a later period has come: nothing looks ahead.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from domain.frames import Quality
from edge_agent.conditioning.samples import Applied, Samples, no_samples

PENDING_MAX: Final = 200_000
MEAN: Final = "mean"
LAST: Final = "last"
METHODS: Final = (MEAN, LAST)
LATE: Final = "resample.late"
OVERFLOW: Final = "resample.overflow"


@dataclass(frozen=True, eq=False)
class Resampling:
    """Give one value for each `period_ns`: the mean of its readings, or the last of them.

    GOOD readings count where there are any, UNCERTAIN ones where there are none. The value is
    GOOD when every reading was, UNCERTAIN when only some could be used, else as the last one.

    Parameters
    ----------
    pending : readings of the period that is still open
    """

    period_ns: int
    method: str = MEAN
    pending: Samples = field(default_factory=no_samples)

    changes_values = True
    fits_waveforms = False

    def apply(self, samples: Samples) -> Applied:
        """Return the values of the periods that are over."""
        if not len(samples):
            return Applied(samples, self)
        counts: dict[str, int] = {}
        if len(self.pending):
            timely = samples.times_ns // self.period_ns >= (
                int(self.pending.times_ns[-1]) // self.period_ns
            )
            if not timely.all():
                counts[LATE] = int((~timely).sum())
                samples = samples.chosen(timely)
        held = self.pending.followed_by(samples)
        periods = held.times_ns // self.period_ns
        if not len(held):
            return Applied(held, self, counts)
        is_open = periods == periods[-1]
        pending = held.chosen(is_open)
        if len(pending) > PENDING_MAX:
            counts[OVERFLOW] = len(pending) - PENDING_MAX
            pending = pending.chosen(np.arange(len(pending)) < PENDING_MAX)
        step = replace(self, pending=pending)
        return Applied(self._over(held.chosen(~is_open)), step, counts)

    def _over(self, held: Samples) -> Samples:
        """Return one value for each period of `held`, which are all over."""
        if not len(held):
            return held
        periods = held.times_ns // self.period_ns
        starts = np.flatnonzero(np.diff(periods, prepend=periods[0] - 1))
        lengths = np.diff(starts, append=len(held))
        good = held.usable & (held.qualities == Quality.GOOD)
        counted = np.where(np.repeat(np.add.reduceat(good, starts) > 0, lengths), good, held.usable)
        counts = np.add.reduceat(counted.astype(np.int64), starts)
        last = starts + lengths - 1
        if self.method == MEAN:
            sums = np.add.reduceat(np.where(counted, held.values, 0.0), starts)
            values = np.divide(sums, counts, out=held.values[last].copy(), where=counts > 0)
        else:
            place = np.where(counted, np.arange(len(held)), -1)
            at = np.maximum.reduceat(place, starts)
            values = held.values[np.where(at >= 0, at, last)]
        every_good = np.add.reduceat(good.astype(np.int64), starts) == lengths
        qualities = np.where(every_good, np.uint8(Quality.GOOD), np.uint8(Quality.UNCERTAIN))
        qualities = np.where(counts > 0, qualities, held.qualities[last])
        return Samples((periods[starts] + 1) * self.period_ns, values, qualities)
