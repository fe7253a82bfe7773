"""Features beside the machine: the same as in training, wherever a waveform is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.asset_types import asset_type
from domain.asset_types.bearing_test_rig import DRIVE_END_6205
from domain.frames import FloatArray, Quality, waveform_times_ns
from edge_agent.features import FeatureStage, configure
from edge_agent.live import DeliveredChannel
from edge_agent.live.framing import frames_of
from edge_agent.live.window import ChannelWindow, Window
from edge_agent.yaml_section import ConfigurationFaults, read_document
from ml.vibration import defect_orders, waveform_features
from tests.edge_agent.windows import SECOND_NS, channel_window, through, waveform, window_of
from tests.recordings import read_cwru

RIG = asset_type("bearing-test-rig")
RATE_HZ = 12_000.0
START_NS = 1_600_000_000 * SECOND_NS
NAME = "vibration_drive_end"
CHANNELS = (
    DeliveredChannel(NAME, "g_n", "f8", RATE_HZ),
    DeliveredChannel("shaft_speed", "rpm"),
)
FEATURES = ["rms", "kurtosis", "velocity_rms", "band_10_1000", "bpfo_prominence", "bpfi"]
DECLARED: dict[str, object] = {
    "seconds": 1,
    "names": FEATURES,
    "envelope_band": {"low_hz": 1_000, "high_hz": 5_000},
}


def configured(
    folder: Path, declared: Mapping[str, object], channels: Sequence[DeliveredChannel] = CHANNELS
) -> tuple[FeatureStage | None, list[str]]:
    file = folder / "source.yaml"
    file.write_text(yaml.safe_dump({"features": {NAME: dict(declared)}}, sort_keys=False))
    document = read_document(file)
    stage = configure(document, channels, RIG)
    document.finish()
    if document.faults:
        return stage, [fault.code for fault in ConfigurationFaults(document.faults).faults]
    return stage, []


def stage_of(folder: Path, **changes: object) -> FeatureStage:
    # What names its features says all that belongs to them.
    stage, faults = configured(folder, changes if "names" in changes else DECLARED | changes)
    assert faults == []
    assert stage is not None
    return stage


def recorded(name: str) -> tuple[FloatArray, float]:
    found = next(one for one in read_cwru() if one.name == name)
    return found.acceleration_g, found.speed_rpm


def speed(rpm: float, start_ns: int = START_NS) -> ChannelWindow:
    return channel_window("shaft_speed", "rpm", np.array([start_ns]), np.array([rpm]))


def pieces(samples: FloatArray, lengths: Sequence[int], rpm: float) -> list[Window]:
    """Return windows of the samples, cut after so many each; the rest is one more."""
    edges = np.unique(np.clip([0, *np.cumsum(lengths), len(samples)], 0, len(samples)))
    times = waveform_times_ns(START_NS, RATE_HZ, len(samples))
    windows = []
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        run = waveform(NAME, "g_n", int(times[low]), RATE_HZ, samples[low:high])
        windows.append(window_of(speed(rpm), run, described=RIG))
    return windows


def test_the_features_of_a_recording_are_those_of_training(tmp_path: Path) -> None:
    samples, rpm = recorded("OR007at6_0_130")
    samples = samples[:60_500]
    out = through(stage_of(tmp_path), pieces(samples, [1_200] * 60, rpm))
    geometry = DRIVE_END_6205
    expected = waveform_features(
        samples[:60_000].reshape(5, 12_000) * 9.80665,
        RATE_HZ,
        [name for name in FEATURES if not name.startswith("band")],
        bands_hz=[(10, 1_000)],
        envelope_band_hz=(1_000, 5_000),
        orders=defect_orders(
            element_count=geometry.element_count,
            element_diameter_m=geometry.element_diameter_m,
            pitch_diameter_m=geometry.pitch_diameter_m,
            contact_angle_rad=geometry.contact_angle_rad,
        ),
        speed_rad_per_s=np.full(5, rpm * 2 * np.pi / 60),
    )
    assert {f"{NAME}.{name}" for name in expected} <= out.keys()
    for name, values in expected.items():
        times, found, qualities = out[f"{NAME}.{name}"]
        np.testing.assert_allclose(found, values, rtol=1e-9, err_msg=name)
        assert not qualities.any()
        # Each stands at its piece's last sample: nothing was known before.
        assert (
            times.tolist() == waveform_times_ns(START_NS, RATE_HZ, 60_000)[11_999::12_000].tolist()
        )
    assert out[f"{NAME}.bpfo_prominence"][1].min() > 6, "the outer ring is damaged"
    np.testing.assert_array_equal(out[NAME][1], samples)


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 9_000), max_size=12))
def test_features_and_kept_samples_are_the_same_wherever_a_waveform_is_cut(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int]
) -> None:
    samples = _with_a_change()
    folder = tmp_path_factory.mktemp("cut")
    declared = _on_change()
    at_once = through(stage_of(folder, **declared), pieces(samples, [], 1_797.0))
    in_parts = through(stage_of(folder, **declared), pieces(samples, lengths, 1_797.0))
    assert in_parts.keys() == at_once.keys()
    for name in at_once.keys() - {"shaft_speed"}:  # told once a window
        expected = at_once[name]
        # Times of a waveform follow from the start of each run, rounded to the nanosecond.
        np.testing.assert_allclose(in_parts[name][0] - START_NS, expected[0] - START_NS, atol=2)
        np.testing.assert_allclose(in_parts[name][1], expected[1], rtol=1e-9, err_msg=name)
        np.testing.assert_array_equal(in_parts[name][2], expected[2], err_msg=name)


def _with_a_change() -> FloatArray:
    """Return 20 pieces of 0.1 s of noise, of which the eleventh is three times as loud."""
    noise = np.random.default_rng(5).normal(0, 1, 24_000)
    noise[12_000:13_200] *= 3
    return noise


def _on_change(**changes: object) -> dict[str, object]:
    return {
        "seconds": 0.1,
        "names": ["rms", "kurtosis"],
        "waveform": "on_change",
        "change": {"of": ["rms"], "ratio": 0.5, "memory_seconds": 10},
        "before_seconds": 0.15,
        "after_seconds": 0.25,
    } | changes


def test_a_waveform_goes_on_around_a_change_from_before_it(tmp_path: Path) -> None:
    samples = _with_a_change()
    stage = stage_of(tmp_path, **_on_change())
    windows = pieces(samples, [1_200] * 20, 1_797.0)
    out = through(stage, windows)
    times, values, _ = out[NAME]
    first, last = 12_000 - 1_800, 13_200 + 3_000
    np.testing.assert_array_equal(values, samples[first:last])
    assert abs(int(times[0]) - (START_NS + round(first * 1e9 / RATE_HZ))) <= 2
    assert len(out[f"{NAME}.rms"][0]) == 20, "features always"
    assert stage.take_counts() == {(NAME, "waveform.kept_back"): 24_000 - (last - first)}
    # Every run of samples that went on is one frame's waveform.
    again = stage_of(tmp_path, **_on_change())
    for window in windows:
        for frame in frames_of(again.apply(window), "edge-1", 1):
            assert frame.reading_count


def test_a_waveform_may_be_kept_back_altogether_or_asked_for(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).normal(0, 1, 24_000)
    never = through(stage_of(tmp_path, waveform="never"), pieces(samples, [6_000] * 4, 1_797.0))
    assert NAME not in never
    stage = stage_of(tmp_path, **_on_change(at_most_every_seconds=0))
    windows = pieces(samples, [1_200] * 20, 1_797.0)
    quiet = through(stage, windows[:10])
    assert NAME not in quiet
    stage.request_waveforms()
    asked = through(stage, windows[10:])
    np.testing.assert_array_equal(asked[NAME][1], samples[12_000 - 1_800 : 13_200 + 3_000])


def test_changes_that_follow_each_other_count_once_in_a_while(tmp_path: Path) -> None:
    noise = np.random.default_rng(5).normal(0, 1, 120_000)
    for start in (12_000, 60_000, 108_000):
        noise[start : start + 1_200] *= 3
    rare = stage_of(tmp_path, **_on_change(at_most_every_seconds=3_600))
    out = through(rare, pieces(noise, [12_000] * 10, 1_797.0))
    assert len(out[NAME][1]) == 1_200 + 1_800 + 3_000
    often = stage_of(tmp_path, **_on_change(at_most_every_seconds=1))
    out = through(often, pieces(noise, [12_000] * 10, 1_797.0))
    assert len(out[NAME][1]) == 3 * (1_200 + 1_800 + 3_000)


def test_a_gap_ends_a_piece_and_is_counted(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, seconds=1, names=["rms"])
    samples = np.random.default_rng(1).normal(0, 1, 30_000)
    before = waveform(NAME, "g_n", START_NS, RATE_HZ, samples[:18_000])
    after = waveform(NAME, "g_n", START_NS + 2 * SECOND_NS, RATE_HZ, samples[18_000:])
    out = through(stage, [window_of(before, after, described=RIG)])
    assert len(out[f"{NAME}.rms"][0]) == 2
    assert out[f"{NAME}.rms"][1] == pytest.approx(
        [samples[:12_000].std() * 9.80665, samples[18_000:].std() * 9.80665]
    )
    assert stage.take_counts()[NAME, "waveform.gap"] == 6_000


def test_a_bad_sample_harms_its_piece_and_no_other(tmp_path: Path) -> None:
    stage, _ = configured(tmp_path, {"seconds": 0.1, "names": ["rms", "kurtosis"]})
    assert stage is not None
    samples = np.random.default_rng(1).normal(0, 1, 4_800)
    samples[2_500] = np.nan
    qualities = np.zeros(4_800, np.uint8)
    qualities[1_300], qualities[2_500], qualities[100] = Quality.BAD, Quality.MISSING, 1
    times = waveform_times_ns(START_NS, RATE_HZ, 4_800)
    run = channel_window(NAME, "g_n", times, samples, qualities, rate_hz=RATE_HZ)
    _, values, found = through(stage, [window_of(run, described=RIG)])[f"{NAME}.rms"]
    assert found.tolist() == [Quality.UNCERTAIN, Quality.BAD, Quality.MISSING, Quality.GOOD]
    assert np.isnan(values).tolist() == [False, False, True, False]


def test_without_a_speed_a_bearing_s_lines_are_missing(tmp_path: Path) -> None:
    samples, rpm = recorded("OR007at6_0_130")
    run = waveform(NAME, "g_n", START_NS, RATE_HZ, samples[:24_000])
    stale = speed(rpm, START_NS - 100 * SECOND_NS)
    out = through(stage_of(tmp_path), [window_of(stale, run, described=RIG)])
    assert out[f"{NAME}.bpfi"][2].tolist() == [Quality.MISSING] * 2
    assert out[f"{NAME}.rms"][2].tolist() == [Quality.GOOD] * 2
    fixed = stage_of(tmp_path, speed={"value": rpm, "unit": "rpm"})
    assert not through(fixed, [window_of(run, described=RIG)])[f"{NAME}.bpfi"][2].any()


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"names": ["colour"]}, ["channel.unknown"]),
        ({"names": ["raw"]}, ["features.unknown"]),
        ({"names": ["band_10_7000"]}, ["features.band"]),
        ({"seconds": 0.0001}, ["configuration.out_of_range"]),
        ({"envelope_band": {"low_hz": 5_000, "high_hz": 1_000}}, ["features.band"]),
        ({"envelope_band": {"low_hz": 1_000, "high_hz": 7_000}}, ["configuration.out_of_range"]),
        ({"waveform": "sometimes"}, ["configuration.unknown_choice"]),
        ({"waveform": "on_change"}, ["configuration.key_missing"]),
        ({"speed": {"value": 10, "unit": "bar"}}, ["unit.quantity_mismatch"]),
        ({"speedy": 1}, ["configuration.unknown_key"]),
    ],
)
def test_every_fault_of_a_declaration_is_told(
    tmp_path: Path, changes: Mapping[str, object], codes: list[str]
) -> None:
    _, found = configured(tmp_path, DECLARED | dict(changes))
    assert [code for code in found if code != "configuration.unknown_key" or code in codes] == codes


def test_a_waveform_that_is_not_delivered_has_no_features(tmp_path: Path) -> None:
    _, found = configured(tmp_path, DECLARED, (DeliveredChannel("shaft_speed", "rpm"),))
    assert found == ["features.no_waveform"]
    _, found = configured(tmp_path, DECLARED, CHANNELS[:1])
    assert found == ["features.no_speed"]
