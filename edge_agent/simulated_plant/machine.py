"""A simulated pump whose flow follows a set-point, on the physics of `simulators.pump_loop`.

Sample `k` depends on `k`, the seed, the faults and the set-points until then alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from domain.asset_types import asset_type
from domain.frames import Quality
from domain.units import unit
from edge_agent.simulated_plant.faults import FaultKind, FaultSchedule
from simulators.pump_loop import (
    STANDARD_GRAVITY_M_PER_S2,
    PumpLoopParameters,
    electrical_power_w,
    motor_current_a,
    operating_flow_m3_per_s,
    pump_head_m,
    shaft_power_w,
    vibration_gain,
)

ASSET_TYPE: Final = asset_type("skab-pump-loop")
CHANNELS: Final = tuple(channel.name for channel in ASSET_TYPE.channels)
UNITS: Final = {channel.name: channel.input_unit for channel in ASSET_TYPE.channels}
"""The unit in which each channel is told: that in which its sensor usually delivers."""
SPEED_RATIO_MIN: Final = 0.5
SPEED_RATIO_MAX: Final = 1.5
"""Where the affinity laws of the pump hold (`simulators.pump_loop.pump_head_m`)."""
RESPONSE_S: Final = 4.0
"""Time constant of the drive that follows its set-point."""
VALVE_RAMP_RATIO: Final = 0.25
SPIKE_FACTOR: Final = 3.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a machine.

    Parameters
    ----------
    values : by channel, in the units of `UNITS`; NaN where the sensor delivers none
    qualities : of the channels that are not GOOD
    flow_setpoint_l_per_min : the set-point that is followed
    """

    number: int
    time_ns: int
    values: Mapping[str, float]
    qualities: Mapping[str, Quality]
    flow_setpoint_l_per_min: float


class SimulatedPump:
    """One pump.

    Parameters
    ----------
    name : contains "simulated"
    seed : of its noise
    period_s : between two samples
    """

    def __init__(self, name: str, seed: int, period_s: float, faults: FaultSchedule) -> None:
        if "simulated" not in name:
            raise ValueError(f"{name!r} does not say that it is simulated")
        self.name = name
        self._seed = seed
        self._period_s = period_s
        self._faults = faults
        self._loop = PumpLoopParameters(sample_period_s=period_s)
        self._number = 0
        self._shown: dict[str, float] = {}
        self._start_anew()

    # --- the set-point --------------------------------------------------------------------

    @property
    def flow_limits_l_per_min(self) -> tuple[float, float]:
        """The flows that the drive can reach with the valve open."""
        return (
            SPEED_RATIO_MIN * self._nominal_flow_l_per_min,
            SPEED_RATIO_MAX * self._nominal_flow_l_per_min,
        )

    @property
    def flow_setpoint_l_per_min(self) -> float:
        """The flow that is wanted."""
        return self._wanted_l_per_min

    def want_flow(self, flow_l_per_min: float) -> float:
        """Follow another set-point, held within what the drive can; return the one followed."""
        low, high = self.flow_limits_l_per_min
        if math.isfinite(flow_l_per_min):
            self._wanted_l_per_min = min(max(flow_l_per_min, low), high)
        return self._wanted_l_per_min

    def restart(self) -> None:
        """Begin anew, as a controller without memory does."""
        self._start_anew()

    # --- sampling -------------------------------------------------------------------------

    def sample(self, time_ns: int) -> Sample:
        """Return the next sample, said to have been measured at `time_ns`."""
        time_s = self._number * self._period_s
        true_si = self._step(self._valve_opening(time_s))
        values = {name: unit(UNITS[name]).from_si(si) for name, si in true_si.items()}
        qualities: dict[str, Quality] = {}
        for fault in self._faults.active(time_s):
            match fault.kind:
                case FaultKind.STUCK:
                    values[fault.channel] = self._shown.get(fault.channel, values[fault.channel])
                case FaultKind.SPIKE:
                    values[fault.channel] *= SPIKE_FACTOR
                case FaultKind.NAN:
                    values[fault.channel] = math.nan
                case FaultKind.BAD:
                    qualities[fault.channel] = Quality.BAD
                case FaultKind.VALVE | FaultKind.DROP | FaultKind.RESTART:
                    pass  # seen in the physics, or not here
        self._shown = values
        self._number += 1
        return Sample(self._number - 1, time_ns, values, qualities, self._wanted_l_per_min)

    def _start_anew(self) -> None:
        opened = operating_flow_m3_per_s(np.ones(1), self._loop)
        self._nominal_flow_l_per_min = unit("l/min").from_si(float(opened[0]))
        self._wanted_l_per_min = self._nominal_flow_l_per_min
        self._speed_ratio = 1.0
        self._fluid_k = self._loop.fluid_initial_temperature_k
        self._housing_k = self._loop.housing_initial_temperature_k

    def _valve_opening(self, time_s: float) -> float:
        """Return how far the valve is open: a fault closes it in a ramp and opens it again."""
        opening = 1.0
        for fault in self._faults.active(time_s):
            if fault.kind is FaultKind.VALVE:
                ramp_s = fault.duration_s * VALVE_RAMP_RATIO
                since_s = self._faults.elapsed_s(fault, time_s)
                closing = min(1.0, since_s / ramp_s, (fault.duration_s - since_s) / ramp_s)
                opening = 1.0 - (1.0 - self._loop.valve_fault_opening_ratio) * closing
        return opening

    def _step(self, opening_ratio: float) -> dict[str, float]:
        """Return the channels in SI as the sensors show them, and move on by one period."""
        wanted_ratio = self._wanted_l_per_min / self._nominal_flow_l_per_min
        self._speed_ratio += (wanted_ratio - self._speed_ratio) * self._gain(RESPONSE_S)
        loop = replace(self._loop, speed_ratio=self._speed_ratio)
        flow = operating_flow_m3_per_s(np.array([opening_ratio]), loop)
        shaft_w = shaft_power_w(flow, loop)
        electrical_w = electrical_power_w(shaft_w, loop)
        noise = self._noise()
        voltage = np.array([loop.supply_voltage_v + loop.voltage_noise_v * noise[0]])
        current = float(motor_current_a(electrical_w, voltage, loop)[0])
        weight = loop.water_density_kg_per_m3 * STANDARD_GRAVITY_M_PER_S2
        pressure = weight * float(pump_head_m(flow, loop)[0]) + loop.pressure_noise_pa * noise[2]
        off_design = float(vibration_gain(flow, loop)[0])
        self._heat(float(shaft_w[0]), float(electrical_w[0] - shaft_w[0]), loop)
        return {
            "accelerometer_1": abs(
                loop.vibration_a_m_per_s2 * off_design + loop.vibration_a_noise_m_per_s2 * noise[6]
            ),
            "accelerometer_2": abs(
                loop.vibration_b_m_per_s2 * off_design + loop.vibration_b_noise_m_per_s2 * noise[7]
            ),
            "motor_current": max(current + loop.current_noise_a * noise[1], 0.0),
            "pressure": pressure,
            "housing_temperature": self._housing_k + loop.housing_temperature_noise_k * noise[4],
            "fluid_temperature": self._fluid_k + loop.fluid_temperature_noise_k * noise[5],
            "supply_voltage": float(voltage[0]),
            "flow": max(float(flow[0]) + loop.flow_noise_m3_per_s * noise[3], 0.0),
        }

    def _heat(self, fluid_w: float, housing_w: float, loop: PumpLoopParameters) -> None:
        """Warm fluid and housing: one lumped capacity each (Incropera 2007, chapter 5)."""
        fluid_settled_k = loop.ambient_temperature_k + fluid_w / loop.fluid_conductance_w_per_k
        self._fluid_k += (fluid_settled_k - self._fluid_k) * self._gain(loop.fluid_time_constant_s)
        housing_settled_k = (
            loop.ambient_temperature_k + housing_w / loop.housing_conductance_w_per_k
        )
        self._housing_k += (housing_settled_k - self._housing_k) * self._gain(
            loop.housing_time_constant_s
        )

    def _gain(self, time_constant_s: float) -> float:
        """Return how far a first-order lag moves towards its target within a period."""
        return 1.0 - math.exp(-self._period_s / time_constant_s)

    def _noise(self) -> list[float]:
        """Return eight standard normal numbers that depend on seed and sample alone."""
        key = np.array([self._seed, self._number], dtype=np.uint64)
        return [float(x) for x in np.random.Generator(np.random.Philox(key=key)).standard_normal(8)]
