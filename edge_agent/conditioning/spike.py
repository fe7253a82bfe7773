"""Step 4, spikes: the Hampel identifier over the readings before, and with, each reading.

Causal: the window ends with the reading that is judged. After a true step up to half a window of
readings is therefore taken for spikes, until the new level has the majority.

References
----------
F. R. Hampel, The influence curve and its role in robust estimation, JASA 69 (1974) 383-393.
R. K. Pearson, Outliers in process modeling and identification, IEEE Transactions on Control
Systems Technology 10 (2002) 55-63.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from domain.frames import FloatArray, Quality
from edge_agent.conditioning.samples import Applied, BoolArray, Samples

READINGS_MIN: Final = 3
READINGS_MAX: Final = 201
NORMAL_MAD: Final = 1.4826
"""Standard deviation over median absolute deviation of a normal distribution (Hampel)."""
ROWS_AT_ONCE: Final = 8_192

FOUND: Final = "spike.found"
REPLACED: Final = "spike.replaced"


def _nothing() -> FloatArray:
    return np.empty(0)


@dataclass(frozen=True, eq=False)
class SpikeFilter:
    """Mark, or replace by the median, what departs from the median of its window.

    Parameters
    ----------
    readings : of a window; until so many have come nothing is judged
    deviations : so many standard deviations, told by the median absolute deviation
    least : no smaller departure is a spike, however quiet the window; in the channel's unit
    replace_value : put the median in the place of a spike, and mark it UNCERTAIN
    before : the last usable values, as they came, oldest first
    """

    readings: int
    deviations: float
    least: float
    replace_value: bool = False
    mark: Quality = Quality.UNCERTAIN
    before: FloatArray = field(default_factory=_nothing)

    fits_waveforms = False

    @property
    def changes_values(self) -> bool:
        """Whether spikes are replaced."""
        return self.replace_value

    def apply(self, samples: Samples) -> Applied:
        """Return the readings without, or with marked, spikes."""
        usable = np.flatnonzero(samples.usable)
        known = np.concatenate((self.before, samples.values[usable]))
        remembering = replace(self, before=known[-(self.readings - 1) :])
        if len(known) < self.readings:
            return Applied(samples, remembering)
        # Each judged value ends a window of as many usable ones.
        count = len(known) - self.readings + 1
        judged = usable[len(usable) - count :]
        back = np.arange(self.readings)
        found = np.zeros(len(samples), np.bool_)
        values = samples.values
        for start in range(0, len(judged), ROWS_AT_ONCE):
            rows = judged[start : start + ROWS_AT_ONCE]
            windows = known[np.arange(start, start + len(rows))[:, None] + back]
            medians, spikes = self._judged(windows)
            found[rows] = spikes
            if self.replace_value and spikes.any():
                values = values.copy() if values is samples.values else values
                values[rows[spikes]] = medians[spikes]
        spike_count = int(found.sum())
        if not spike_count:
            return Applied(samples, remembering)
        mark = Quality.UNCERTAIN if self.replace_value else self.mark
        code = REPLACED if self.replace_value else FOUND
        marked = replace(samples, values=values).marked(found, mark)
        return Applied(marked, remembering, {code: spike_count})

    def _judged(self, windows: FloatArray) -> tuple[FloatArray, BoolArray]:
        medians = _medians(windows)
        deviations = _medians(np.abs(windows - medians[:, None])) * NORMAL_MAD
        limits = np.maximum(self.deviations * deviations, self.least)
        # Where most values are equal and no least departure is declared, nothing can be judged.
        return medians, (limits > 0) & (np.abs(windows[:, -1] - medians) > limits)


def _medians(rows: FloatArray) -> FloatArray:
    """Return each row's median; of a few rows several times faster than ``np.median``."""
    ranked = np.sort(rows, axis=1)
    half = ranked.shape[1] // 2
    if ranked.shape[1] % 2:
        return ranked[:, half]
    middle: FloatArray = (ranked[:, half - 1] + ranked[:, half]) / 2
    return middle
