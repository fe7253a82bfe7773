"""Vibration: against published figures, closed forms and the recordings of real bearings."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.asset_model import WAVEFORM_FEATURES, BearingGeometry
from domain.asset_types.bearing_test_rig import DRIVE_END_6205, FAN_END_6203
from ml.vibration import (
    SAMPLES_MIN,
    BearingCondition,
    DefectOrders,
    FloatArray,
    amplitude_spectrum,
    band_rms,
    bearing_conditions,
    crest_factor,
    defect_orders,
    envelope,
    envelope_spectrum,
    kurtosis,
    line_amplitudes,
    line_prominences,
    peak,
    rms,
    velocity_rms,
    waveform_features,
)
from tests.recordings import CwruRecording, read_cwru

RATE_HZ = 12_000.0


def orders_of(geometry: BearingGeometry) -> DefectOrders:
    return defect_orders(
        element_count=geometry.element_count,
        element_diameter_m=geometry.element_diameter_m,
        pitch_diameter_m=geometry.pitch_diameter_m,
        contact_angle_rad=geometry.contact_angle_rad,
    )


def times_s(count: int = 12_000) -> FloatArray:
    return np.arange(count) / RATE_HZ


def sine(frequency_hz: float, amplitude: float, count: int = 12_000) -> FloatArray:
    return amplitude * np.sin(2 * np.pi * frequency_hz * times_s(count))[None]


# --- literature ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("geometry", "outer", "inner", "element", "cage"),
    [
        # Case Western Reserve University Bearing Data Center, bearing information.
        (DRIVE_END_6205, 3.5848, 5.4152, 4.7135, 0.39828),
        (FAN_END_6203, 3.0530, 4.9469, 3.9874, 0.3817),
    ],
)
def test_the_orders_of_a_bearing_are_the_published_ones(
    geometry: BearingGeometry, outer: float, inner: float, element: float, cage: float
) -> None:
    found = orders_of(geometry)
    # The table is rounded, and its own dimensions give its last digit or the one beside it.
    assert found.outer_ring == pytest.approx(outer, abs=6e-4)
    assert found.inner_ring == pytest.approx(inner, abs=6e-4)
    assert found.rolling_element == pytest.approx(element, abs=6e-4)
    assert found.cage == pytest.approx(cage, abs=1e-4)
    assert found.outer_ring + found.inner_ring == pytest.approx(geometry.element_count)
    assert found.outer_ring == pytest.approx(geometry.element_count * found.cage)


def test_statistics_of_a_sine_and_of_noise_are_those_of_the_textbook() -> None:
    wave = sine(100, 2.0) + 5.0  # the mean does not count
    assert rms(wave)[0] == pytest.approx(math.sqrt(2))
    assert peak(wave)[0] == pytest.approx(2.0)
    assert crest_factor(wave)[0] == pytest.approx(math.sqrt(2))
    assert kurtosis(wave)[0] == pytest.approx(1.5)
    noise = np.random.default_rng(1).standard_normal((4, 100_000))
    assert kurtosis(noise) == pytest.approx(3.0, abs=4 * math.sqrt(24 / 100_000))


def test_a_sine_s_spectrum_shows_its_amplitude_and_its_place() -> None:
    frequencies, amplitudes = amplitude_spectrum(sine(250, 3.0), RATE_HZ)
    assert frequencies[amplitudes[0].argmax()] == 250.0
    assert amplitudes[0].max() == pytest.approx(3.0)


def test_a_sine_s_velocity_is_its_acceleration_over_its_angular_frequency() -> None:
    wave = sine(50, 1.0) + sine(5_000, 100.0) + sine(3, 1.0)  # two outside 10 Hz to 1 kHz
    expected = 1.0 / math.sqrt(2) / (2 * np.pi * 50)
    assert velocity_rms(wave, RATE_HZ)[0] == pytest.approx(expected, rel=1e-3)


def test_the_envelope_of_a_modulated_carrier_is_its_modulation() -> None:
    modulation = 1.0 + 0.5 * np.cos(2 * np.pi * 107 * times_s())
    carried = (modulation * np.sin(2 * np.pi * 3_000 * times_s()))[None] + sine(60, 20.0)
    found = envelope(carried, RATE_HZ, (2_000, 4_000))
    assert found[0] == pytest.approx(modulation, abs=1e-9)
    frequencies, amplitudes = envelope_spectrum(carried, RATE_HZ, (2_000, 4_000))
    assert frequencies[amplitudes[0].argmax()] == 107.0
    assert amplitudes[0].max() == pytest.approx(0.5)


# --- properties ---------------------------------------------------------------------------


@given(st.integers(SAMPLES_MIN, 3_000), st.integers(0, 2**32 - 1))
def test_bands_that_adjoin_hold_the_whole_power(count: int, seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal((2, count))
    edges = [0.0, 700.0, 3_000.0, 6_000.0]
    squares = band_rms(noise, RATE_HZ, list(pairwise(edges))) ** 2
    centred = noise - noise.mean(axis=1, keepdims=True)
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(count) / count)
    tapered = ((centred * taper) ** 2).sum(axis=1) / (taper**2).sum()
    # The last bin stands at half the rate, which the last band ends before.
    assert (squares.sum(axis=1) <= tapered * (1 + 1e-9)).all()
    if count % 2:
        assert squares.sum(axis=1) == pytest.approx(tapered)


@given(st.floats(0.1, 100), st.integers(0, 2**32 - 1))
def test_features_scale_with_the_unit_or_not_at_all(scale: float, seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal((1, 6_000))
    speed = np.array([150.0])
    names = [*WAVEFORM_FEATURES]
    once, scaled = (
        waveform_features(
            windows,
            RATE_HZ,
            names,
            bands_hz=[(10, 1_000)],
            envelope_band_hz=(500, 5_900),
            orders=orders_of(DRIVE_END_6205),
            speed_rad_per_s=speed,
        )
        for windows in (noise, noise * scale)
    )
    assert set(once) == {*names, "band_10_1000"}
    for name, value in once.items():
        ratio = 1.0 if WAVEFORM_FEATURES.get(name, ("", ""))[1] == "ratio" else scale
        assert scaled[name] == pytest.approx(value * ratio, nan_ok=True)


def test_a_window_alone_gives_what_it_gives_among_others() -> None:
    noise = np.random.default_rng(3).standard_normal((5, 12_000))
    speeds = np.linspace(100, 200, 5)
    batch = bearing_features(noise, speeds)
    for n in range(5):
        alone = bearing_features(noise[n : n + 1], speeds[n : n + 1])
        for name, value in alone.items():
            assert value[0] == pytest.approx(batch[name][n], rel=1e-12, nan_ok=True)


def bearing_features(windows: FloatArray, speeds: FloatArray) -> dict[str, FloatArray]:
    return waveform_features(
        windows,
        RATE_HZ,
        [*WAVEFORM_FEATURES],
        envelope_band_hz=(500, 5_900),
        orders=orders_of(DRIVE_END_6205),
        speed_rad_per_s=speeds,
    )


# --- what has no answer, and what is refused ----------------------------------------------


def test_silence_and_a_shaft_at_rest_have_no_answer() -> None:
    silent = np.zeros((1, 12_000))
    assert np.isnan(kurtosis(silent)[0])
    assert np.isnan(crest_factor(silent)[0])
    noise = np.random.default_rng(1).standard_normal((3, 12_000))
    found = bearing_features(noise, np.array([0.0, np.nan, 180.0]))
    assert np.isnan(found["bpfo"]).tolist() == [True, True, False]
    assert np.isnan(found["bpfo_prominence"]).tolist() == [True, True, False]
    assert np.isnan(bearing_features(silent, np.array([180.0]))["bpfo_prominence"][0])


def test_a_line_beyond_the_spectrum_or_between_two_bins_has_no_answer() -> None:
    frequencies = np.arange(101.0)
    amplitudes = np.ones((4, 101))
    lines = np.array([7.9, 8.0, 99.0, 100.5])
    found = line_amplitudes(frequencies, amplitudes, lines)
    assert np.isnan(found).tolist() == [True, False, False, True]
    assert line_prominences(frequencies, amplitudes[1:3], lines[1:3]).tolist() == [1.0, 1.0]


def test_a_band_beyond_half_the_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="no band from 100 to 7000 Hz"):
        band_rms(sine(10, 1), RATE_HZ, [(100, 7_000)])
    with pytest.raises(ValueError, match="no band"):
        envelope(sine(10, 1), RATE_HZ, (2_000, 2_000))
    with pytest.raises(ValueError, match="no velocity"):
        velocity_rms(sine(10, 1), RATE_HZ, (0, 100))


def test_too_few_samples_and_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="not \\(n_windows, 16"):
        rms(np.zeros((1, 15)))
    with pytest.raises(ValueError, match="no feature is called 'colour'"):
        waveform_features(sine(1, 1), RATE_HZ, ["colour"], envelope_band_hz=(1, 2))
    with pytest.raises(ValueError, match="no band of the envelope"):
        waveform_features(sine(1, 1), RATE_HZ, ["bpfo"])
    with pytest.raises(ValueError, match="no bearing or no speed"):
        waveform_features(sine(1, 1), RATE_HZ, ["bpfo"], envelope_band_hz=(100, 200))


# --- recordings ---------------------------------------------------------------------------


def windows_of(recording: CwruRecording) -> tuple[FloatArray, FloatArray]:
    """Return windows of one second and the shaft's speed in each."""
    count = len(recording.acceleration_g) // 12_000
    windows = recording.acceleration_g[: count * 12_000].reshape(count, 12_000)
    return windows, np.full(count, recording.speed_rpm * 2 * np.pi / 60)


TRUE_CONDITIONS = {
    "B": BearingCondition.ROLLING_ELEMENT,
    "I": BearingCondition.INNER_RING,
    "O": BearingCondition.OUTER_RING,
    "n": BearingCondition.SOUND,
}


def test_a_damaged_ring_s_lines_stand_where_its_geometry_says() -> None:
    orders = orders_of(DRIVE_END_6205)
    seen = 0
    for recording in read_cwru():
        if not recording.name.startswith(("IR", "OR007")):
            continue
        windows, _ = windows_of(recording)
        frequencies, amplitudes = envelope_spectrum(windows, RATE_HZ, (1_000, 5_000))
        order = orders.inner_ring if recording.name.startswith("IR") else orders.outer_ring
        expected_hz = order * recording.speed_rpm / 60
        # Above the shaft's own lines nothing is as high as the defect's or one of its harmonics.
        searched = (frequencies > 80) & (frequencies < 400)
        strongest = frequencies[searched][amplitudes.mean(axis=0)[searched].argmax()]
        harmonic = round(strongest / expected_hz)
        assert harmonic >= 1
        assert strongest == pytest.approx(harmonic * expected_hz, rel=0.01), recording.name
        seen += 1
    assert seen == 12


def test_the_untrained_envelope_rule_tells_two_windows_of_three() -> None:
    orders = orders_of(DRIVE_END_6205)
    right: dict[str, list[bool]] = {}
    for recording in read_cwru():
        windows, speeds = windows_of(recording)
        found = bearing_conditions(windows, RATE_HZ, orders, speeds, (1_000, 5_000))
        true = TRUE_CONDITIONS[recording.name[0]]
        right.setdefault(recording.name[0], []).extend(one is true for one in found)
    counted = [hit for hits in right.values() for hit in hits]
    assert len(counted) == 250
    assert sum(counted) / len(counted) >= 0.66
    assert all(right["n"]), "a sound bearing is not called damaged"
    assert sum(right["I"]) / len(right["I"]) >= 0.98
