"""Step 1, the unit: values in another unit of the same quantity."""

from __future__ import annotations

from dataclasses import dataclass, replace

from domain.units import Unit
from edge_agent.conditioning.samples import Applied, Samples


@dataclass(frozen=True)
class UnitChange:
    """Convert from the unit that is `delivered` to the one that is `wanted`."""

    delivered: Unit
    wanted: Unit

    changes_values = True
    fits_waveforms = True

    def apply(self, samples: Samples) -> Applied:
        """Return the values in the wanted unit: the SI value by one map, back by the other."""
        # One factor and one offset, so that 0 degC is 32 degF and not nearly so.
        factor = self.delivered.factor / self.wanted.factor
        offset = (self.delivered.offset - self.wanted.offset) / self.wanted.factor
        return Applied(replace(samples, values=samples.values * factor + offset), self)
