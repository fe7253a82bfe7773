"""Step 3, the range: what lies beyond the instrument's measuring range is marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from domain.frames import Quality
from edge_agent.conditioning.samples import Applied, Samples

BELOW: Final = "range.below"
ABOVE: Final = "range.above"


@dataclass(frozen=True)
class MeasuringRange:
    """Mark values below `low` or above `high`; the limits themselves are within."""

    low: float
    high: float
    mark: Quality = Quality.BAD

    changes_values = False
    fits_waveforms = True

    def apply(self, samples: Samples) -> Applied:
        """Return the readings, marked."""
        # NaN compares false on both sides: it is MISSING already.
        below, above = samples.values < self.low, samples.values > self.high
        counts = {BELOW: int(below.sum()), ABOVE: int(above.sum())}
        return Applied(samples.marked(below | above, self.mark), self, counts)
