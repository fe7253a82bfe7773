"""Step 2, calibration: each reading is corrected by the certificate that is valid at its time.

References
----------
JCGM 200:2012 (VIM), 2.39 calibration, 2.53 correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from domain.frames import Quality
from edge_agent.conditioning.samples import Applied, Samples

CERTIFICATES_MAX: Final = 64
NOT_YET_VALID: Final = "calibration.not_yet_valid"
EXPIRED: Final = "calibration.expired"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A calibration: ``corrected = value * gain + offset``.

    Parameters
    ----------
    certificate : its number
    from_ns, until_ns : valid from a time up to, without, another; ns since 1970 UTC
    """

    certificate: str
    gain: float
    offset: float
    from_ns: int
    until_ns: int


@dataclass(frozen=True)
class Calibration:
    """Correct by `certificates`, in the order of their beginnings, none overlapping the next.

    A reading outside every validity is corrected by the last certificate before it, or by the
    first one, and marked.
    """

    certificates: tuple[Certificate, ...]
    mark: Quality = Quality.UNCERTAIN

    changes_values = True
    fits_waveforms = True

    def apply(self, samples: Samples) -> Applied:
        """Return the corrected values."""
        starts = np.array([one.from_ns for one in self.certificates])
        ends = np.array([one.until_ns for one in self.certificates])
        gains = np.array([one.gain for one in self.certificates])
        offsets = np.array([one.offset for one in self.certificates])
        which = np.searchsorted(starts, samples.times_ns, side="right") - 1
        early = which < 0
        which = np.maximum(which, 0)
        expired = ~early & (samples.times_ns >= ends[which])
        corrected = replace(samples, values=samples.values * gains[which] + offsets[which])
        counts = {NOT_YET_VALID: int(early.sum()), EXPIRED: int(expired.sum())}
        return Applied(corrected.marked(early | expired, self.mark), self, counts)


def overlap(certificates: Sequence[Certificate]) -> tuple[Certificate, Certificate] | None:
    """Return the first two of `certificates`, ordered by their beginning, that overlap."""
    for earlier, later in pairwise(certificates):
        if later.from_ns < earlier.until_ns:
            return earlier, later
    return None
