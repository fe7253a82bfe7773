"""A small water pump loop with a valve that closes: eight channels for when no recording is there.

A centrifugal pump drives water from an open tank through a pipe and a control valve back into the
same tank. Head, flow, power, heat and vibration follow from textbook relations; the magnitudes are
chosen so that the channels look like those of a small laboratory loop (about 32 litres per minute,
one ampere at 230 V). It is a stand-in for a real loop, not a model calibrated to one.

Sample `k` depends on `k`, the seed and the parameters alone, never on where a run began. So a
stopped run resumes without a trace, and two machines with one seed agree.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]

STANDARD_GRAVITY_M_PER_S2: Final = 9.80665
SAMPLES_PER_CALL_MAX: Final = 10_000_000
FAULT_PERIOD_SAMPLES_MAX: Final = 100_000
SEED_MAX: Final = 2**64 - 1
NOISE_BLOCK_SAMPLES: Final = 1024
STEADY_BLOCK_SAMPLES: Final = 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class PumpLoopParameters:
    """What the loop is made of; every value is an assumption about a small laboratory loop."""

    sample_period_s: float = 1.0

    water_density_kg_per_m3: float = 997.0
    """Water at 25 degC; it changes by 0.3 % from 20 to 30 degC and is held constant."""
    pipe_inner_diameter_m: float = 0.020
    pipe_loss_coefficient: float = 3.4
    """Sum of friction and fittings, referred to the velocity head in the pipe."""
    valve_open_loss_coefficient: float = 0.68

    shutoff_head_m: float = 1.0
    head_curve_s2_per_m5: float = 1.406e6
    """The `a` of `H = H0 - a Q^2` at nominal speed."""
    best_efficiency_flow_m3_per_s: float = 5.5e-4
    best_efficiency_ratio: float = 0.25
    speed_ratio: float = 1.0
    """Shaft speed over nominal speed."""

    motor_efficiency_ratio: float = 0.60
    """Shaft power over the load-dependent part of the motor's electrical power."""
    motor_fixed_loss_w: float = 158.0
    """Magnetising, windage and bearing losses of the running motor, independent of load."""
    power_factor_ratio: float = 0.80
    supply_voltage_v: float = 230.7

    ambient_temperature_k: float = 295.0
    fluid_conductance_w_per_k: float = 4.0
    fluid_time_constant_s: float = 3600.0
    fluid_initial_temperature_k: float = 297.0
    housing_conductance_w_per_k: float = 3.45
    housing_time_constant_s: float = 1200.0
    housing_initial_temperature_k: float = 338.0

    vibration_a_m_per_s2: float = 0.268
    """RMS acceleration of the pump housing at best efficiency flow and nominal speed."""
    vibration_b_m_per_s2: float = 0.397
    """The same at the second place of measurement."""
    vibration_off_design_gain: float = 2.0

    valve_fault_opening_ratio: float = 0.5
    valve_fault_duration_s: float = 420.0
    valve_fault_ramp_s: float = 60.0
    """Time in which the valve closes at the fault's start and opens again at its end."""

    flow_noise_m3_per_s: float = 4.0e-6
    pressure_noise_pa: float = 2.4e4
    pressure_resolution_pa: float = 3.27927e4
    """Step of the pressure sensor; its noise, not its resolution, lets a mean see small changes."""
    current_noise_a: float = 0.22
    voltage_noise_v: float = 10.8
    fluid_temperature_noise_k: float = 0.02
    housing_temperature_noise_k: float = 0.10
    vibration_a_noise_m_per_s2: float = 0.003
    vibration_b_noise_m_per_s2: float = 0.008


class PumpLoopSamples(NamedTuple):
    """The eight channels and what is true behind them; every array has shape (n_samples,)."""

    time_s: FloatArray
    """Since sample zero."""
    vibration_a_m_per_s2: FloatArray
    vibration_b_m_per_s2: FloatArray
    motor_current_a: FloatArray
    pressure_pa: FloatArray
    """Gauge pressure after the pump; noise makes single readings negative."""
    housing_temperature_k: FloatArray
    fluid_temperature_k: FloatArray
    supply_voltage_v: FloatArray
    flow_m3_per_s: FloatArray
    valve_opening_ratio: FloatArray
    """What the valve really does; no sensor shows it."""
    valve_fault: NDArray[np.bool_]
    """True from the first movement of the faulty valve until it is open again."""


def simulate_pump_loop(
    first_sample: int,
    sample_count: int,
    *,
    seed: int,
    valve_fault_every_s: float | None = None,
    parameters: PumpLoopParameters | None = None,
) -> PumpLoopSamples:
    """Return `sample_count` samples of the loop, beginning with sample `first_sample`.

    Parameters
    ----------
    first_sample
        Index of the first sample, 0 or more; sample `k` lies `k * sample_period_s` after the start.
    sample_count
        Number of samples, 0 to `SAMPLES_PER_CALL_MAX`.
    seed
        Selects the noise, 0 to `SEED_MAX`; the physics beneath is the same for every seed.
    valve_fault_every_s
        Period of the valve fault, which begins in the middle of each period; at least twice the
        fault's duration, at most `FAULT_PERIOD_SAMPLES_MAX` samples, and rounded to whole samples.
        `None` leaves the valve open for ever.
    parameters
        The loop; `None` is `PumpLoopParameters()`.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    Hydraulics and electricity are quasi-steady: they settle in far less than a sample's second.
    Heating sees the power without noise and follows exactly between samples.

    Examples
    --------
    >>> whole = simulate_pump_loop(0, 100, seed=7)
    >>> tail = simulate_pump_loop(60, 40, seed=7)
    >>> bool((whole.flow_m3_per_s[60:] == tail.flow_m3_per_s).all())
    True
    """
    loop = PumpLoopParameters() if parameters is None else parameters
    _check_range("first_sample", first_sample, 0, 2**53 - sample_count)
    _check_range("sample_count", sample_count, 0, SAMPLES_PER_CALL_MAX)
    _check_range("seed", seed, 0, SEED_MAX)
    period_samples = _fault_period_samples(valve_fault_every_s, loop)

    opening_in_period = _valve_opening_in_period(period_samples, valve_fault_every_s, loop)
    fluid_in_w, housing_in_w = _heat_inputs_w(opening_in_period, loop)
    fluid_k = _periodic_response(
        first_sample,
        sample_count,
        loop.ambient_temperature_k + fluid_in_w / loop.fluid_conductance_w_per_k,
        loop.fluid_initial_temperature_k,
        loop.sample_period_s / loop.fluid_time_constant_s,
    )
    housing_k = _periodic_response(
        first_sample,
        sample_count,
        loop.ambient_temperature_k + housing_in_w / loop.housing_conductance_w_per_k,
        loop.housing_initial_temperature_k,
        loop.sample_period_s / loop.housing_time_constant_s,
    )

    index = np.arange(first_sample, first_sample + sample_count, dtype=np.int64)
    opening = opening_in_period[index % period_samples]
    flow = operating_flow_m3_per_s(opening, loop)
    head = pump_head_m(flow, loop)
    noise = _standard_noise(first_sample, sample_count, seed)
    voltage = loop.supply_voltage_v + loop.voltage_noise_v * noise[:, 0]
    current = motor_current_a(electrical_power_w(shaft_power_w(flow, loop), loop), voltage, loop)
    pressure = (
        loop.water_density_kg_per_m3 * STANDARD_GRAVITY_M_PER_S2 * head
        + loop.pressure_noise_pa * noise[:, 2]
    )
    off_design = vibration_gain(flow, loop)
    return PumpLoopSamples(
        time_s=index.astype(np.float64) * loop.sample_period_s,
        vibration_a_m_per_s2=np.abs(
            loop.vibration_a_m_per_s2 * off_design + loop.vibration_a_noise_m_per_s2 * noise[:, 6]
        ),
        vibration_b_m_per_s2=np.abs(
            loop.vibration_b_m_per_s2 * off_design + loop.vibration_b_noise_m_per_s2 * noise[:, 7]
        ),
        motor_current_a=np.maximum(current + loop.current_noise_a * noise[:, 1], 0.0),
        pressure_pa=np.round(pressure / loop.pressure_resolution_pa) * loop.pressure_resolution_pa,
        housing_temperature_k=housing_k + loop.housing_temperature_noise_k * noise[:, 4],
        fluid_temperature_k=fluid_k + loop.fluid_temperature_noise_k * noise[:, 5],
        supply_voltage_v=voltage,
        flow_m3_per_s=np.maximum(flow + loop.flow_noise_m3_per_s * noise[:, 3], 0.0),
        valve_opening_ratio=opening,
        valve_fault=opening < 1.0,
    )


def pump_head_m(flow_m3_per_s: FloatArray, loop: PumpLoopParameters) -> FloatArray:
    r"""Return the pump's head at a flow and at the loop's speed.

    .. math:: H = s^2 H_0 - a Q^2

    Parameters
    ----------
    flow_m3_per_s
        Any shape, 0 to the flow at zero head.
    loop
        `s` is `speed_ratio`, `H_0` `shutoff_head_m`, `a` `head_curve_s2_per_m5`.

    Notes
    -----
    With this parabola the affinity laws (`Q ~ s`, `H ~ s^2`) hold exactly: `H / s^2` is a function
    of `Q / s` alone. Real pumps follow them while the Reynolds number changes little, roughly for
    speed ratios from 0.5 to 1.5; the parabola describes radial pumps of low specific speed with a
    head curve that falls steadily.

    References
    ----------
    Guelich, J. F. (2014), Centrifugal Pumps, 3rd ed., Springer: performance characteristics and
    model laws. Karassik, I. J. et al. (2008), Pump Handbook, 4th ed., McGraw-Hill: affinity laws.
    """
    return loop.shutoff_head_m * loop.speed_ratio**2 - loop.head_curve_s2_per_m5 * flow_m3_per_s**2


def system_head_m(
    flow_m3_per_s: FloatArray, valve_opening_ratio: FloatArray, loop: PumpLoopParameters
) -> FloatArray:
    r"""Return the head that pipe and valve consume at a flow.

    .. math:: H = \left(K_p + \frac{K_v}{y^2}\right) \frac{Q^2}{2 g A^2}

    Parameters
    ----------
    flow_m3_per_s
        Any shape, 0 or more.
    valve_opening_ratio
        `y`, broadcastable, above 0 (closed) to 1 (open).
    loop
        `K_p` is `pipe_loss_coefficient`, `K_v` `valve_open_loss_coefficient`.

    Notes
    -----
    No static head: the water returns to the tank it came from. Loss coefficients are constant, as
    they are in fully turbulent flow (here Re is about 35,000). The valve has a linear inherent
    characteristic: its flow coefficient is proportional to its opening, its loss to 1 / y^2.

    References
    ----------
    Crane Co., Technical Paper 410, Flow of Fluids: resistance coefficient K. IEC 60534-2-4:
    inherent flow characteristics of control valves.
    """
    return _system_curve_s2_per_m5(valve_opening_ratio, loop) * flow_m3_per_s**2


def operating_flow_m3_per_s(
    valve_opening_ratio: FloatArray, loop: PumpLoopParameters
) -> FloatArray:
    r"""Return the flow at which the pump's head equals the system's.

    .. math:: Q = s \sqrt{\frac{H_0}{a + R(y)}}

    Parameters
    ----------
    valve_opening_ratio
        Any shape, above 0 to 1.
    loop
        `R(y)` is the system curve of `system_head_m`.

    Raises
    ------
    ValueError
        If an opening lies outside its range.

    Examples
    --------
    >>> flow = operating_flow_m3_per_s(np.array([1.0]), PumpLoopParameters())
    >>> round(float(flow[0]) * 60_000, 1)
    32.0
    """
    if not bool(np.all((valve_opening_ratio > 0.0) & (valve_opening_ratio <= 1.0))):
        raise ValueError("valve_opening_ratio must lie above 0 and at most at 1")
    resistance = loop.head_curve_s2_per_m5 + _system_curve_s2_per_m5(valve_opening_ratio, loop)
    return loop.speed_ratio * np.sqrt(loop.shutoff_head_m / resistance)


def hydraulic_power_w(flow_m3_per_s: FloatArray, loop: PumpLoopParameters) -> FloatArray:
    r"""Return the power that the pump gives to the water.

    .. math:: P = \rho g Q H(Q)

    Parameters
    ----------
    flow_m3_per_s
        Any shape, 0 to the flow at zero head.
    loop
        The pump and the water.

    Notes
    -----
    An identity for an incompressible fluid.

    References
    ----------
    Guelich (2014), performance data of pumps: useful power.
    """
    weight_n_per_m3 = loop.water_density_kg_per_m3 * STANDARD_GRAVITY_M_PER_S2
    return weight_n_per_m3 * flow_m3_per_s * pump_head_m(flow_m3_per_s, loop)


def pump_efficiency_ratio(flow_m3_per_s: FloatArray, loop: PumpLoopParameters) -> FloatArray:
    r"""Return hydraulic power over shaft power.

    .. math:: \eta = \eta_{opt} \left(2 q - q^2\right), \quad q = \frac{Q}{s Q_{opt}}

    Parameters
    ----------
    flow_m3_per_s
        Any shape; `q` from 0 up to, but not including, 2.
    loop
        `Q_opt` is `best_efficiency_flow_m3_per_s`, `eta_opt` `best_efficiency_ratio`.

    Raises
    ------
    ValueError
        If `q` lies outside its range.

    Notes
    -----
    The parabola through zero flow and the best efficiency point: a common approximation from about
    q = 0.4 to 1.3, too kind below. Efficiency is kept at the speed-scaled point (affinity laws).

    References
    ----------
    Guelich (2014): efficiency curve and best efficiency point.
    """
    load = _load_ratio(flow_m3_per_s, loop)
    return loop.best_efficiency_ratio * load * (2.0 - load)


def shaft_power_w(flow_m3_per_s: FloatArray, loop: PumpLoopParameters) -> FloatArray:
    r"""Return the mechanical power the pump takes from its shaft.

    .. math:: P = \frac{\rho g H(Q)\, s Q_{opt}}{\eta_{opt} (2 - q)}

    Parameters
    ----------
    flow_m3_per_s
        Any shape, as for `pump_efficiency_ratio`.
    loop
        The pump and the water.

    Raises
    ------
    ValueError
        If `q` lies outside its range.

    Notes
    -----
    Hydraulic power over efficiency with the common factor `Q` cancelled, so that it stays finite at
    zero flow, where the pump churns its own water.

    References
    ----------
    Karassik et al. (2008): brake horsepower.
    """
    load = _load_ratio(flow_m3_per_s, loop)
    weight_n_per_m3 = loop.water_density_kg_per_m3 * STANDARD_GRAVITY_M_PER_S2
    design_flow_m3_per_s = loop.speed_ratio * loop.best_efficiency_flow_m3_per_s
    return (
        weight_n_per_m3
        * pump_head_m(flow_m3_per_s, loop)
        * design_flow_m3_per_s
        / (loop.best_efficiency_ratio * (2.0 - load))
    )


def electrical_power_w(shaft_w: FloatArray, loop: PumpLoopParameters) -> FloatArray:
    r"""Return the active power the running motor takes from the mains.

    .. math:: P_{el} = P_{fixed} + P_{shaft} / \eta_m

    Parameters
    ----------
    shaft_w
        Any shape, 0 or more.
    loop
        The motor.

    Notes
    -----
    Fixed plus proportional losses: holds from no load to rated load at constant voltage and speed.

    References
    ----------
    Fitzgerald, A. E., Kingsley, C., Umans, S. D. (2003), Electric Machinery, 6th ed., McGraw-Hill:
    losses of rotating machines.
    """
    return loop.motor_fixed_loss_w + shaft_w / loop.motor_efficiency_ratio


def motor_current_a(
    electrical_w: FloatArray, voltage_v: FloatArray, loop: PumpLoopParameters
) -> FloatArray:
    r"""Return the RMS current of a single-phase motor.

    .. math:: I = \frac{P_{el}}{U \cos\varphi}

    Parameters
    ----------
    electrical_w
        Active power, any shape, 0 or more.
    voltage_v
        RMS voltage, broadcastable, above 0.
    loop
        `cos(phi)` is `power_factor_ratio`, held constant.

    Raises
    ------
    ValueError
        If a voltage is not above 0.

    Notes
    -----
    An identity; that the power factor and the power stay constant while the voltage moves is an
    assumption, fair within about 10 % of the rated voltage.

    References
    ----------
    Fitzgerald et al. (2003): power in single-phase alternating current circuits.
    """
    if not bool(np.all(voltage_v > 0.0)):
        raise ValueError("voltage_v must lie above 0")
    return electrical_w / (voltage_v * loop.power_factor_ratio)


def vibration_gain(flow_m3_per_s: FloatArray, loop: PumpLoopParameters) -> FloatArray:
    r"""Return the factor by which vibration exceeds that at best efficiency and nominal speed.

    .. math:: f = s^2 \left(1 + c (1 - q)^2\right)

    Parameters
    ----------
    flow_m3_per_s
        Any shape, as for `pump_efficiency_ratio`.
    loop
        `c` is `vibration_off_design_gain`.

    Raises
    ------
    ValueError
        If `q` lies outside its range.

    Notes
    -----
    The literature gives the direction (least near best efficiency, growing under throttling as the
    flow separates and recirculates) and the scaling of hydraulic pressure pulsation with the square
    of speed; the parabola and its `c` are assumptions. No resonance, no cavitation.

    References
    ----------
    Guelich (2014), chapter 10, Noise and Vibrations.
    """
    return loop.speed_ratio**2 * (
        1.0 + loop.vibration_off_design_gain * (1.0 - _load_ratio(flow_m3_per_s, loop)) ** 2
    )


def _system_curve_s2_per_m5(
    valve_opening_ratio: FloatArray, loop: PumpLoopParameters
) -> FloatArray:
    area_m2 = np.pi * loop.pipe_inner_diameter_m**2 / 4.0
    coefficient = loop.pipe_loss_coefficient + (
        loop.valve_open_loss_coefficient / valve_opening_ratio**2
    )
    return coefficient / (2.0 * STANDARD_GRAVITY_M_PER_S2 * area_m2**2)


def _load_ratio(flow_m3_per_s: FloatArray, loop: PumpLoopParameters) -> FloatArray:
    load = flow_m3_per_s / (loop.speed_ratio * loop.best_efficiency_flow_m3_per_s)
    if not bool(np.all((load >= 0.0) & (load < 2.0))):
        raise ValueError("flow must lie between 0 and twice the flow at best efficiency")
    return load


def _fault_period_samples(valve_fault_every_s: float | None, loop: PumpLoopParameters) -> int:
    if valve_fault_every_s is None:
        return STEADY_BLOCK_SAMPLES
    _check_range(
        "valve_fault_ramp_s", loop.valve_fault_ramp_s, 0.0, loop.valve_fault_duration_s / 2.0
    )
    every_s_min = 2.0 * loop.valve_fault_duration_s
    every_s_max = FAULT_PERIOD_SAMPLES_MAX * loop.sample_period_s
    _check_range("valve_fault_every_s", valve_fault_every_s, every_s_min, every_s_max)
    return round(valve_fault_every_s / loop.sample_period_s)


def _valve_opening_in_period(
    period_samples: int, valve_fault_every_s: float | None, loop: PumpLoopParameters
) -> FloatArray:
    """Return the valve's opening over one period, shape (period_samples,)."""
    if valve_fault_every_s is None:
        return np.ones(period_samples)
    since_fault_s = (np.arange(period_samples) - period_samples // 2) * loop.sample_period_s
    ramp_s = loop.valve_fault_ramp_s
    fault_end_s = loop.valve_fault_duration_s
    opening: FloatArray = np.interp(
        since_fault_s,
        [0.0, ramp_s, fault_end_s - ramp_s, fault_end_s],
        [1.0, loop.valve_fault_opening_ratio, loop.valve_fault_opening_ratio, 1.0],
    )
    return opening


def _heat_inputs_w(
    valve_opening_ratio: FloatArray, loop: PumpLoopParameters
) -> tuple[FloatArray, FloatArray]:
    """Return the heat given to the fluid and to the housing; their sum is the electrical power.

    In a closed loop all shaft power ends as heat in the water: lost in the pump, the pipe and the
    valve alike. What the motor loses heats its housing.
    """
    shaft_w = shaft_power_w(operating_flow_m3_per_s(valve_opening_ratio, loop), loop)
    return shaft_w, electrical_power_w(shaft_w, loop) - shaft_w


def _periodic_response(
    first_sample: int,
    sample_count: int,
    target_in_period: FloatArray,
    initial: float,
    step_ratio: float,
) -> FloatArray:
    r"""Return a first-order lag that follows a periodic target, shape (sample_count,).

    .. math:: x_{k+1} = u_k + (x_k - u_k) e^{-\Delta t / \tau}

    Notes
    -----
    The exact solution of one lumped heat capacity while its input is held over a sample. Valid when
    the body is near one temperature inside (Biot number below 0.1). The state at each period's
    start is a geometric series in closed form, and samples are stepped from their own period's
    start: sample `k` costs at most one period and comes out the same, bit for bit, from any start.

    References
    ----------
    Incropera, F. P. et al. (2007), Fundamentals of Heat and Mass Transfer, 6th ed., Wiley, chapter
    5: the lumped capacitance method.
    """
    period_samples = len(target_in_period)
    decay = float(np.exp(-step_ratio))
    period_decay = float(np.exp(-step_ratio * period_samples))
    from_zero = _step_through(target_in_period, 0.0, decay)
    period_end = target_in_period[-1] + (from_zero[-1] - target_in_period[-1]) * decay
    settled = float(period_end / (1.0 - period_decay))

    response = np.empty(sample_count)
    filled = 0
    while filled < sample_count:
        period, offset = divmod(first_sample + filled, period_samples)
        taken = min(period_samples - offset, sample_count - filled)
        start = settled + (initial - settled) * float(np.exp(-step_ratio * period_samples * period))
        states = _step_through(target_in_period[: offset + taken], start, decay)
        response[filled : filled + taken] = states[offset:]
        filled += taken
    return response


def _step_through(target: FloatArray, start: float, decay: float) -> FloatArray:
    states = np.empty(len(target))
    state = start
    for index, wanted in enumerate(target.tolist()):
        states[index] = state
        state = wanted + (state - wanted) * decay
    return states


def _standard_noise(first_sample: int, sample_count: int, seed: int) -> FloatArray:
    """Return standard normal noise of shape (sample_count, 8) that depends on the absolute index.

    Each block of samples has its own Philox key (seed, block number), so any block is drawn without
    the ones before it (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3).
    """
    noise = np.empty((sample_count, 8))
    filled = 0
    while filled < sample_count:
        block, offset = divmod(first_sample + filled, NOISE_BLOCK_SAMPLES)
        taken = min(NOISE_BLOCK_SAMPLES - offset, sample_count - filled)
        key = np.array([seed, block], dtype=np.uint64)
        drawn = np.random.Generator(np.random.Philox(key=key)).standard_normal(
            (NOISE_BLOCK_SAMPLES, 8)
        )
        noise[filled : filled + taken] = drawn[offset : offset + taken]
        filled += taken
    return noise


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}, outside {least} to {most}")
