"""The simulated pump loop: right by literature, resumable anywhere, and honest about its fault."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.pump_loop import (
    FAULT_PERIOD_SAMPLES_MAX,
    NOISE_BLOCK_SAMPLES,
    FloatArray,
    PumpLoopParameters,
    PumpLoopSamples,
    electrical_power_w,
    hydraulic_power_w,
    motor_current_a,
    operating_flow_m3_per_s,
    pump_efficiency_ratio,
    pump_head_m,
    shaft_power_w,
    simulate_pump_loop,
    system_head_m,
    vibration_gain,
)

LOOP = PumpLoopParameters()
QUIET = replace(
    LOOP,
    flow_noise_m3_per_s=0.0,
    pressure_noise_pa=0.0,
    pressure_resolution_pa=1.0,
    current_noise_a=0.0,
    voltage_noise_v=0.0,
    fluid_temperature_noise_k=0.0,
    housing_temperature_noise_k=0.0,
    vibration_a_noise_m_per_s2=0.0,
    vibration_b_noise_m_per_s2=0.0,
)
FAULT_EVERY_S = 1200.0


def openings() -> FloatArray:
    return np.linspace(0.1, 1.0, 10)


def assert_same(left: PumpLoopSamples, right: PumpLoopSamples) -> None:
    for name, expected, actual in zip(left._fields, left, right, strict=True):
        np.testing.assert_array_equal(actual, expected, err_msg=name)


# Literature


def test_affinity_laws_scale_flow_head_and_power_with_powers_of_speed() -> None:
    half = replace(LOOP, speed_ratio=0.5)
    flow, half_flow = (operating_flow_m3_per_s(openings(), loop) for loop in (LOOP, half))
    np.testing.assert_allclose(half_flow, flow / 2, rtol=1e-12)
    np.testing.assert_allclose(pump_head_m(half_flow, half), pump_head_m(flow, LOOP) / 4)
    np.testing.assert_allclose(
        hydraulic_power_w(half_flow, half), hydraulic_power_w(flow, LOOP) / 8
    )
    np.testing.assert_allclose(shaft_power_w(half_flow, half), shaft_power_w(flow, LOOP) / 8)


def test_useful_power_agrees_with_the_engineering_formula_over_367() -> None:
    """`P[kW] = Q[m3/h] H[m] rho[kg/dm3] / 367`, as pump makers print it (367 is rounded)."""
    flow = operating_flow_m3_per_s(openings(), LOOP)
    density_kg_per_dm3 = LOOP.water_density_kg_per_m3 / 1000.0
    printed_w = flow * 3600.0 * pump_head_m(flow, LOOP) * density_kg_per_dm3 / 367.0 * 1000.0
    np.testing.assert_allclose(hydraulic_power_w(flow, LOOP), printed_w, rtol=1e-3)


def test_linear_valve_loses_sixteen_times_the_head_at_a_quarter_of_its_opening() -> None:
    valve_alone = replace(LOOP, pipe_loss_coefficient=0.0)
    flow = np.array([3.0e-4])
    wide, quarter = (system_head_m(flow, np.array([y]), valve_alone) for y in (1.0, 0.25))
    np.testing.assert_allclose(quarter, 16.0 * wide)


def test_pipe_head_is_its_loss_coefficient_times_the_velocity_head() -> None:
    loop = replace(LOOP, valve_open_loss_coefficient=0.0, pipe_loss_coefficient=2.0)
    velocity_m_per_s = 5.0e-4 / (np.pi / 4 * 0.020**2)
    head = system_head_m(np.array([5.0e-4]), np.array([1.0]), loop)
    np.testing.assert_allclose(head, 2.0 * velocity_m_per_s**2 / (2.0 * 9.80665))


def test_heating_covers_63_percent_of_its_way_in_one_time_constant() -> None:
    loop = replace(QUIET, housing_initial_temperature_k=QUIET.ambient_temperature_k)
    housing_k = simulate_pump_loop(0, 100_001, seed=0, parameters=loop).housing_temperature_k
    rise_k = housing_k - loop.ambient_temperature_k
    assert rise_k[1200] / rise_k[-1] == pytest.approx(1.0 - np.exp(-1.0), rel=1e-9)


# Energy


def test_pump_and_system_heads_meet_at_the_operating_flow() -> None:
    flow = operating_flow_m3_per_s(openings(), LOOP)
    np.testing.assert_allclose(pump_head_m(flow, LOOP), system_head_m(flow, openings(), LOOP))


def test_shaft_power_is_hydraulic_power_over_efficiency() -> None:
    flow = operating_flow_m3_per_s(openings(), LOOP)
    np.testing.assert_allclose(
        shaft_power_w(flow, LOOP) * pump_efficiency_ratio(flow, LOOP),
        hydraulic_power_w(flow, LOOP),
    )


def test_shaft_power_stays_finite_at_zero_flow() -> None:
    assert 0.0 < shaft_power_w(np.zeros(1), LOOP)[0] < 100.0


def test_settled_loop_gives_its_electrical_power_to_the_surroundings() -> None:
    loop = replace(QUIET, speed_ratio=1.2)
    settled = simulate_pump_loop(200_000, 1, seed=0, parameters=loop)
    to_surroundings_w = loop.fluid_conductance_w_per_k * (
        settled.fluid_temperature_k - loop.ambient_temperature_k
    ) + loop.housing_conductance_w_per_k * (
        settled.housing_temperature_k - loop.ambient_temperature_k
    )
    from_mains_w = settled.motor_current_a * settled.supply_voltage_v * loop.power_factor_ratio
    np.testing.assert_allclose(to_surroundings_w, from_mains_w, rtol=1e-9)


def test_current_times_voltage_and_power_factor_is_the_electrical_power() -> None:
    power_w = electrical_power_w(np.array([0.0, 12.5, 50.0]), LOOP)
    voltage_v = np.array([210.0, 230.0, 250.0])
    np.testing.assert_allclose(
        motor_current_a(power_w, voltage_v, LOOP) * voltage_v * LOOP.power_factor_ratio, power_w
    )


# Invariants


@settings(deadline=None, max_examples=40)
@given(
    first=st.integers(0, 3 * NOISE_BLOCK_SAMPLES),
    count=st.integers(1, 2 * NOISE_BLOCK_SAMPLES),
    cut=st.integers(0, 2 * NOISE_BLOCK_SAMPLES),
    seed=st.integers(0, 2**64 - 1),
    every_s=st.sampled_from([None, 840.0, FAULT_EVERY_S, 4000.0]),
)
def test_resuming_at_any_sample_equals_the_whole(
    first: int, count: int, cut: int, seed: int, every_s: float | None
) -> None:
    whole = simulate_pump_loop(0, first + count, seed=seed, valve_fault_every_s=every_s)
    begin = first + min(cut, count)
    resumed = simulate_pump_loop(
        begin, first + count - begin, seed=seed, valve_fault_every_s=every_s
    )
    assert_same(PumpLoopSamples._make(channel[begin:] for channel in whole), resumed)


def test_a_year_ahead_is_reached_without_the_year_between() -> None:
    ahead = simulate_pump_loop(365 * 86_400, 3, seed=1, valve_fault_every_s=FAULT_EVERY_S)
    assert ahead.time_s.tolist() == [31_536_000.0, 31_536_001.0, 31_536_002.0]
    assert all(np.isfinite(channel).all() for channel in ahead)


def test_temperatures_run_on_smoothly_across_the_periods_of_the_fault() -> None:
    """The state at a period's start is a closed form; it must meet the stepped state before it."""
    samples = simulate_pump_loop(
        0, 6000, seed=0, valve_fault_every_s=FAULT_EVERY_S, parameters=QUIET
    )
    for temperature_k in (samples.fluid_temperature_k, samples.housing_temperature_k):
        curvature_k = np.abs(np.diff(temperature_k, n=2))
        boundaries = np.arange(1200, 6000, 1200)
        assert curvature_k[boundaries - 1].max() < 1e-4
        assert np.abs(np.diff(temperature_k)).max() < 0.1


def test_same_seed_gives_the_same_samples_and_another_seed_other_noise() -> None:
    one, again, other = (simulate_pump_loop(0, 500, seed=seed) for seed in (3, 3, 4))
    assert_same(one, again)
    assert not np.array_equal(one.flow_m3_per_s, other.flow_m3_per_s)


def test_closing_the_valve_lowers_flow_and_raises_head_and_vibration() -> None:
    flow = operating_flow_m3_per_s(openings(), LOOP)
    assert (np.diff(flow) > 0.0).all()
    assert (np.diff(pump_head_m(flow, LOOP)) < 0.0).all()
    assert (np.diff(vibration_gain(flow, LOOP)) < 0.0).all()


def test_valve_fault_lowers_the_flow_by_about_a_tenth_and_heals() -> None:
    samples = simulate_pump_loop(0, 1200, seed=5, valve_fault_every_s=FAULT_EVERY_S)
    healthy = samples.flow_m3_per_s[:600].mean()
    assert healthy == pytest.approx(32.0 / 60_000.0, rel=0.01)
    assert 0.85 < samples.flow_m3_per_s[660:960].mean() / healthy < 0.92
    assert samples.flow_m3_per_s[1020:].mean() == pytest.approx(healthy, rel=0.01)
    assert np.flatnonzero(samples.valve_fault)[[0, -1]].tolist() == [601, 1019]


def test_loop_without_faults_has_none() -> None:
    samples = simulate_pump_loop(0, 10_000, seed=5)
    assert not samples.valve_fault.any()
    assert (samples.valve_opening_ratio == 1.0).all()


def test_channels_have_the_magnitudes_of_a_small_laboratory_loop() -> None:
    samples = simulate_pump_loop(0, 3600, seed=2)
    assert samples.motor_current_a.mean() == pytest.approx(0.97, abs=0.03)
    assert samples.supply_voltage_v.mean() == pytest.approx(230.7, abs=1.0)
    assert samples.pressure_pa.mean() == pytest.approx(5.9e3, abs=2.0e3)
    assert samples.housing_temperature_k.mean() == pytest.approx(342.0, abs=3.0)
    assert samples.fluid_temperature_k.mean() == pytest.approx(297.5, abs=1.0)
    assert samples.vibration_a_m_per_s2.mean() == pytest.approx(0.27, abs=0.01)
    assert samples.vibration_b_m_per_s2.mean() == pytest.approx(0.40, abs=0.01)


def test_no_samples_may_be_asked_for() -> None:
    assert [len(channel) for channel in simulate_pump_loop(10, 0, seed=0)] == [0] * 11


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"first_sample": -1}, "first_sample is -1"),
        ({"sample_count": -1}, "sample_count is -1"),
        ({"sample_count": 10_000_001}, "sample_count is 10000001"),
        ({"seed": -1}, "seed is -1"),
        ({"valve_fault_every_s": 839.0}, "valve_fault_every_s is 839.0"),
        ({"valve_fault_every_s": FAULT_PERIOD_SAMPLES_MAX + 1.0}, "valve_fault_every_s is"),
        ({"valve_fault_every_s": float("nan")}, "valve_fault_every_s is nan"),
    ],
)
def test_argument_outside_its_range_is_refused(arguments: dict[str, float], message: str) -> None:
    complete = {"first_sample": 0, "sample_count": 10, "seed": 0} | arguments
    with pytest.raises(ValueError, match=message):
        simulate_pump_loop(**complete)  # type: ignore[arg-type]


@pytest.mark.parametrize("opening", [0.0, -0.5, 1.01, float("nan")])
def test_impossible_valve_opening_is_refused(opening: float) -> None:
    with pytest.raises(ValueError, match="valve_opening_ratio"):
        operating_flow_m3_per_s(np.array([opening]), LOOP)


def test_flow_beyond_twice_the_best_efficiency_flow_is_refused() -> None:
    with pytest.raises(ValueError, match="twice the flow at best efficiency"):
        shaft_power_w(np.array([2.0 * LOOP.best_efficiency_flow_m3_per_s]), LOOP)


def test_motor_without_voltage_is_refused() -> None:
    with pytest.raises(ValueError, match="voltage_v"):
        motor_current_a(np.array([100.0]), np.array([0.0]), LOOP)
