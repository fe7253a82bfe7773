"""A simulated pump loop, for when there is no recording; never to be taken for a real one.

Its asset must be called something with "simulated", so that nobody reads its values as a
machine's. Sample `k` is the same whenever it is computed; a position is its index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from domain.frame_checks import header_for
from domain.frames import FloatArray
from edge_agent.readings import Block, Position, Rows
from edge_agent.sources import SourceContext
from edge_agent.timestamps import ISO8601, NS_PER_S, TimeReader
from edge_agent.yaml_section import Section
from simulators.pump_loop import PumpLoopParameters, PumpLoopSamples, simulate_pump_loop

KIND: Final = "simulated-pump"

SAMPLES_PER_BLOCK: Final = 1_024
SAMPLES_MAX: Final = 10**12
SAMPLE_PERIOD_S_MIN: Final = 0.001
SAMPLE_PERIOD_S_MAX: Final = 3600
LABEL: Final = "simulated"

CHANNELS: Final = (
    ("accelerometer_1", "m/s2"),
    ("accelerometer_2", "m/s2"),
    ("motor_current", "A"),
    ("pressure", "Pa"),
    ("housing_temperature", "K"),
    ("fluid_temperature", "K"),
    ("supply_voltage", "V"),
    ("flow", "m3/s"),
)
"""The channels in the order of `_values`, each with the SI unit the simulation delivers."""


# --- configuration ------------------------------------------------------------------------


def configure(section: Section, context: SourceContext) -> SimulatedPump | None:
    """Return the simulation that `section` declares, or None after noting what is wrong."""
    if LABEL not in context.asset.lower():
        told = f"asset {context.asset!r} does not say that it is simulated"
        hint = f"name it simulated-{context.asset or 'pump'}"
        section.fault("asset", "source.simulated_unlabelled", told, hint)
    fits = section.attempt(
        "asset_type", lambda: header_for(context.asset_type, context.asset, "any", CHANNELS)
    )
    seed = section.whole_number("seed", 0, 2**53, 1)
    period_s = section.number("sample_period_s", SAMPLE_PERIOD_S_MIN, SAMPLE_PERIOD_S_MAX, 1.0)
    samples = section.whole_number("samples", 1, SAMPLES_MAX) if section.has("samples") else None
    fault_s = None
    if section.has("valve_fault_every_s"):
        fault_s = section.number("valve_fault_every_s", 1, 1e9)
    start_ns = _start_ns(section)
    if not fits or seed is None or period_s is None or start_ns is None:
        return None
    pump = SimulatedPump(
        seed=seed,
        sample_period_s=period_s,
        valve_fault_every_s=fault_s,
        start_ns=start_ns,
        samples_max=samples,
    )
    try:
        pump.samples(0, 1)
    except ValueError as error:
        section.fault("valve_fault_every_s", "configuration.out_of_range", str(error))
    return pump


def _start_ns(section: Section) -> int | None:
    if not section.has("start"):
        return int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()) * NS_PER_S
    text = section.text("start")
    reader = TimeReader(ISO8601, None)
    return None if text is None else section.attempt("start", lambda: reader.read(text, None))


# --- reading ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SimulatedPump:
    """The samples of `simulators.pump_loop`, `samples_max` of them or without end.

    Parameters
    ----------
    start_ns : time of sample zero, ns since 1970 UTC; a replay with ``times: now`` moves it
    """

    seed: int
    sample_period_s: float
    valve_fault_every_s: float | None
    start_ns: int
    samples_max: int | None

    @property
    def channels(self) -> tuple[tuple[str, str], ...]:
        """The channels of the simulation, each as (channel name, unit symbol)."""
        return CHANNELS

    @property
    def parts(self) -> tuple[str, ...]:
        """The one thing it reads: itself, under everything that decides its values."""
        fault = self.valve_fault_every_s
        return (f"simulated pump, seed {self.seed}, {self.sample_period_s:g} s, fault {fault}",)

    @property
    def endless(self) -> bool:
        """Whether no number of samples was declared."""
        return self.samples_max is None

    def read(self, after: Position | None) -> Iterator[Block]:
        """Yield the samples that follow `after`, in blocks of `SAMPLES_PER_BLOCK`."""
        first = after.row + 1 if after else 0
        while (count := self._left(first)) > 0:
            samples = self.samples(first, count)
            numbers = np.arange(first, first + count, dtype=np.int64)
            times_ns = self.start_ns + np.rint(samples.time_s * 1e9).astype(np.int64)
            parts = np.zeros(count, np.int64)
            first += count
            yield Block(Rows(parts, numbers, times_ns, _values(samples)), 0, first - 1)

    def samples(self, first: int, count: int) -> PumpLoopSamples:
        """Return `count` samples from index `first` on."""
        return simulate_pump_loop(
            first,
            count,
            seed=self.seed,
            valve_fault_every_s=self.valve_fault_every_s,
            parameters=PumpLoopParameters(sample_period_s=self.sample_period_s),
        )

    def _left(self, first: int) -> int:
        if self.samples_max is None:
            return SAMPLES_PER_BLOCK
        return min(SAMPLES_PER_BLOCK, self.samples_max - first)


def _values(samples: PumpLoopSamples) -> FloatArray:
    return np.stack(
        (
            samples.vibration_a_m_per_s2,
            samples.vibration_b_m_per_s2,
            samples.motor_current_a,
            samples.pressure_pa,
            samples.housing_temperature_k,
            samples.fluid_temperature_k,
            samples.supply_voltage_v,
            samples.flow_m3_per_s,
        )
    )
