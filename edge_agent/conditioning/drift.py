"""Step 6, drift: a sensor that slowly leaves what other channels say it should read.

What it should read is a redundant sensor's value, or a linear estimate from other channels, such
as a flow from a pump's current around its working point. The difference is smoothed exponentially
over time, and marked while its smoothed value is beyond the limit.

References
----------
S. W. Roberts, Control chart tests based on geometric moving averages, Technometrics 1 (1959)
239-250; for irregular times the weight of the past is exp(-dt / tau).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from domain.frames import FloatArray, IntArray, Quality
from edge_agent.conditioning.alignment import Held
from edge_agent.conditioning.samples import Samples

TERMS_MAX: Final = 8
FOUND: Final = "drift.found"
NO_REFERENCE: Final = "drift.no_reference"


@dataclass(frozen=True, eq=False)
class Drift:
    """Mark a channel while it has drifted from ``constant + sum(coefficient * channel)``.

    Parameters
    ----------
    terms : coefficient of each other channel, in the units they have after their own steps
    limit : of the smoothed difference, in the channel's unit
    time_constant_ns : of the smoothing; nothing is judged before so long
    age_ns_max : an older reading of another channel tells nothing
    held : the latest readings of the other channels
    smoothed, begun_ns, last_ns : of the difference, None before the first
    """

    constant: float
    terms: Mapping[str, float]
    limit: float
    time_constant_ns: int
    age_ns_max: int
    mark: Quality = Quality.UNCERTAIN
    held: Mapping[str, Held] = field(default_factory=lambda: MappingProxyType({}))
    smoothed: float | None = None
    begun_ns: int = 0
    last_ns: int = 0

    def apply(
        self, samples: Samples, others: Mapping[str, Samples]
    ) -> tuple[Samples, Drift, Mapping[str, int]]:
        """Return `samples` marked, the step as it goes on, and what it counted.

        Parameters
        ----------
        others : the other channels' readings in the same window, where they have any
        """
        expected = self._expected(samples, others)
        differences = np.where(samples.usable, samples.values - expected, np.nan)
        judged = np.flatnonzero(np.isfinite(differences))
        unknown = int((np.isnan(expected) & samples.usable).sum())
        held = {name: self.held.get(name, Held()).after(others.get(name)) for name in self.terms}
        step = replace(self, held=held)
        if not len(judged):
            return samples, step, {NO_REFERENCE: unknown}
        times = samples.times_ns[judged]
        step, averages = step._smoothed_over(times, differences[judged])
        drifted = np.zeros(len(samples), np.bool_)
        known_long = times - step.begun_ns >= self.time_constant_ns
        drifted[judged] = known_long & (np.abs(averages) > self.limit)
        counts = {NO_REFERENCE: unknown, FOUND: int(drifted.sum())}
        return samples.marked(drifted, self.mark), step, counts

    def _expected(self, samples: Samples, others: Mapping[str, Samples]) -> FloatArray:
        expected = np.full(len(samples), self.constant)
        for name, coefficient in self.terms.items():
            held = self.held.get(name, Held())
            values, _ = held.at(samples.times_ns, others.get(name), self.age_ns_max)
            expected += coefficient * values
        return expected

    def _smoothed_over(self, times: IntArray, differences: FloatArray) -> tuple[Drift, FloatArray]:
        first = self.smoothed is None
        begun_ns = int(times[0]) if first else self.begun_ns
        elapsed = np.diff(times, prepend=times[0] if first else self.last_ns)
        # A reading that came late has no weight of its own.
        weights = -np.expm1(-np.maximum(elapsed, 0) / self.time_constant_ns)
        smoothed = float(differences[0]) if self.smoothed is None else self.smoothed
        averages = []
        for difference, weight in zip(differences.tolist(), weights.tolist(), strict=True):
            smoothed += weight * (difference - smoothed)
            averages.append(smoothed)
        last_ns = int(times[-1]) if first else max(int(times[-1]), self.last_ns)
        step = replace(self, smoothed=smoothed, begun_ns=begun_ns, last_ns=last_ns)
        return step, np.array(averages)
