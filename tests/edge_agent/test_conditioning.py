"""Conditioning as declared: on real recordings, and wherever windows are cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.asset_model import AssetType
from domain.asset_types import asset_type
from domain.frames import FloatArray, Quality
from edge_agent.conditioning import ConditioningStage, configure
from edge_agent.live import DeliveredChannel
from edge_agent.live.framing import frames_of
from edge_agent.live.window import Window
from edge_agent.yaml_section import ConfigurationFaults, read_document
from tests.edge_agent.windows import (
    PUMP_LOOP,
    SECOND_NS,
    Columns,
    channel_window,
    cut,
    through,
    waveform,
    window_of,
)
from tests.recordings import SKAB_COLUMNS, read_hydraulic, read_skab

RIG = asset_type("hydraulic-test-rig")
START_NS = 1_600_000_000 * SECOND_NS


def skab_window(name: str) -> Window:
    recording = read_skab(name)
    return window_of(
        *(
            channel_window(channel, unit, recording.times_ns, recording.values[channel])
            for channel, unit in SKAB_COLUMNS.values()
        )
    )


def configured(
    folder: Path,
    declared: Mapping[str, object],
    channels: Sequence[DeliveredChannel],
    described: AssetType = PUMP_LOOP,
) -> tuple[ConditioningStage | None, tuple[DeliveredChannel, ...], list[str]]:
    """Return the stage of a declaration, the channels after it, and the codes of its faults."""
    file = folder / "source.yaml"
    file.write_text(yaml.safe_dump({"conditioning": declared}, sort_keys=False))
    document = read_document(file)
    stage, after = configure(document, channels, described)
    document.finish()
    if document.faults:
        return stage, after, [fault.code for fault in ConfigurationFaults(document.faults).faults]
    return stage, after, []


def stage_of(folder: Path, declared: Mapping[str, object], window: Window) -> ConditioningStage:
    channels = tuple(channel.channel for channel in window.channels)
    stage, _, faults = configured(folder, declared, channels, window.asset_type)
    assert faults == []
    assert stage is not None
    return stage


SKAB_DECLARED: dict[str, object] = {
    "flow": {
        "keep_raw": True,
        "unit": "m3/h",
        "calibration": [
            {
                "certificate": "DKD-2019-117",
                "gain": 1.002,
                "offset": -0.01,
                "valid_from": "2019-04-01T00:00:00Z",
                "valid_until": "2020-03-09T12:20:00Z",
            }
        ],
        "range": {"low": 0, "high": 6},
        "spike": {"readings": 11, "deviations": 5, "least": 0.05, "replace": True},
        "flat_line": {"seconds": 10},
    },
    "pressure": {"flat_line": {"seconds": 10, "mark": "bad"}, "range": {"low": -0.5, "high": 0.5}},
    "motor_current": {"resample": {"seconds": 5}},
    "housing_temperature": {"dead_band": {"band": 0.5, "silence_seconds": 60}},
    "fluid_temperature": {
        "drift": {"reference": "housing_temperature", "limit": 45.0, "seconds": 60}
    },
}


# Golden: what this declaration has made of the recording valve1/6 since it was written. Where a
# step is changed on purpose, print them anew and look at every difference.
GOLDEN_COUNTS = {
    ("flow", "calibration.expired"): 843,
    ("flow", "spike.replaced"): 304,
    ("flow", "flat_line.found"): 35,
    ("pressure", "range.below"): 29,
    ("pressure", "range.above"): 30,
    ("pressure", "flat_line.found"): 2,
    ("fluid_temperature", "drift.found"): 303,
    ("housing_temperature", "dead_band.suppressed"): 1127,
}
GOLDEN_CHANNELS = {
    # readings, mean in the unit after conditioning, readings that are not GOOD
    "flow": (1154, 1.904081273670711, 924),
    "pressure": (1154, 0.06494095927209705, 61),
    "motor_current": (240, 0.9714772045833333, 0),
    "housing_temperature": (27, 69.8733148148148, 0),
    "fluid_temperature": (1154, 25.01322279029463, 303),
}


def test_a_recorded_pump_is_conditioned_as_it_always_was(tmp_path: Path) -> None:
    window = skab_window("valve1/6")
    stage = stage_of(tmp_path, SKAB_DECLARED, window)
    out = through(stage, [window])
    assert stage.take_counts() == GOLDEN_COUNTS
    for name, (count, mean, doubtful) in GOLDEN_CHANNELS.items():
        times, values, qualities = out[name]
        assert len(times) == count, name
        assert float(values.mean()) == pytest.approx(mean, rel=1e-12), name
        assert int((qualities > 0).sum()) == doubtful, name
    # What the sensor said stays beside what was made of it; what nobody declared anything for is
    # untouched.
    delivered = read_skab("valve1/6")
    np.testing.assert_array_equal(out["flow.raw"][1], delivered.values["flow"])
    assert not out["flow.raw"][2].any()
    np.testing.assert_array_equal(out["supply_voltage"][1], delivered.values["supply_voltage"])
    assert stage.take_counts() == {}


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 1_200), max_size=8, unique=True))
def test_a_recorded_pump_gives_the_same_wherever_windows_are_cut(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    window = skab_window("valve1/6")
    start_ns = int(window.channels[0].times_ns[0])
    folder = tmp_path_factory.mktemp("cut")
    at_once, in_parts = (stage_of(folder, SKAB_DECLARED, window) for _ in range(2))
    whole = through(at_once, [window])
    parts = through(in_parts, cut(window, [start_ns + at * SECOND_NS for at in sorted(cuts)]))
    assert_alike(parts, whole)
    assert in_parts.take_counts() == at_once.take_counts()


def assert_alike(found: Mapping[str, Columns], expected: Mapping[str, Columns]) -> None:
    assert found.keys() == expected.keys()
    for name, columns in expected.items():
        for one, other in zip(columns, found[name], strict=True):
            np.testing.assert_array_equal(other, one, err_msg=name)


def rig_window() -> tuple[Window, FloatArray]:
    """Return an hour of one recorded oil temperature as three sensors tell it, and the truth.

    The first is right, the second has noise of its own, the third begins to drift, spikes and
    sticks: faults that were put into the recording, so that it is known what is right.
    """
    truth = read_hydraulic("TS1")[100:160].ravel()
    random = np.random.default_rng(7)
    noisy = truth + random.normal(0, 0.05, len(truth))
    faulty = truth + np.maximum(np.arange(len(truth)) - 600, 0) * 0.005
    faulty[300] += 30.0
    faulty[2_000:2_300] = faulty[2_000]
    times = START_NS + np.arange(len(truth)) * SECOND_NS
    channels = [
        channel_window(f"temperature_{n}", "degC", times, values)
        for n, values in enumerate((truth, noisy, faulty), 1)
    ]
    return window_of(*channels, described=RIG), truth


def test_two_sound_sensors_outvote_a_third_that_drifts_spikes_and_sticks(tmp_path: Path) -> None:
    window, truth = rig_window()
    declared: dict[str, object] = {
        "temperature_3": {
            "flat_line": {"seconds": 30, "mark": "bad"},
            "drift": {"reference": "temperature_1", "limit": 1.0, "seconds": 60},
        },
        "temperature_4": {
            "redundancy": {
                "sensors": ["temperature_1", "temperature_2", "temperature_3"],
                "tolerance": 0.5,
            }
        },
    }
    stage = stage_of(tmp_path, declared, window)
    out = through(stage, [window])
    times, fused, qualities = out["temperature_4"]
    assert len(times) == len(truth)
    assert not qualities.any(), "a majority agrees all the time"
    assert float(np.abs(fused - truth).max()) < 0.35
    assert float(np.sqrt(np.mean((fused - truth) ** 2))) < 0.08
    counts = stage.take_counts()
    # From 700 s on the third lies more than 0.5 K away, or is marked and does not vote.
    assert counts["temperature_3", "flat_line.found"] == pytest.approx(300 - 30, abs=3)
    drifted = out["temperature_3"][2] > 0
    first = int(np.flatnonzero(drifted)[0])
    assert 800 < first < 900, "1 K after 200 s, seen a minute later"
    assert drifted[first:].all()
    assert counts["temperature_4", "redundancy.outvoted"] > 50


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 3_600), max_size=6, unique=True))
def test_drift_and_voting_are_the_same_wherever_windows_are_cut(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    window, _ = rig_window()
    # The sensors are not read at the same instants.
    shifted = window_of(
        *(
            replace(channel, times_ns=channel.times_ns + n * 300_000_000)
            for n, channel in enumerate(window.channels)
        ),
        described=RIG,
    )
    declared: dict[str, object] = {
        "temperature_1": {
            "redundancy": {
                "sensors": ["temperature_1", "temperature_2", "temperature_3"],
                "tolerance": 0.5,
                "weights": {"temperature_2": 0.5},
            },
            "resample": {"seconds": 10},
            "dead_band": {"band": 0.1},
        },
        "temperature_3": {
            "spike": {"readings": 7, "least": 1},
            "drift": {
                "estimate": {
                    "constant": 0.5,
                    "of": {"temperature_1": 0.5, "temperature_2": 0.5},
                },
                "limit": 1.0,
                "seconds": 60,
            },
        },
    }
    folder = tmp_path_factory.mktemp("cut")
    at_once, in_parts = (stage_of(folder, declared, shifted) for _ in range(2))
    whole = through(at_once, [shifted])
    parts = through(in_parts, cut(shifted, [START_NS + at * SECOND_NS for at in sorted(cuts)]))
    assert_alike(parts, whole)
    assert in_parts.take_counts() == at_once.take_counts()


# --- what goes on ---------------------------------------------------------------------------


def test_conditioned_windows_become_frames(tmp_path: Path) -> None:
    window = skab_window("valve1/6")
    stage = stage_of(tmp_path, SKAB_DECLARED, window)
    (frame,) = frames_of(stage.apply(window), "edge-1", 1)
    units = {channel.name: channel.unit for channel in frame.header.channels}
    assert (units["flow"], units["flow.raw"]) == ("m3/h", "l/min")
    raw = frame.channel_si(frame.header.names.index("flow.raw"))
    np.testing.assert_allclose(raw, read_skab("valve1/6").values["flow"] / 60_000, rtol=1e-12)


def test_integers_stay_integers_where_no_value_is_changed(tmp_path: Path) -> None:
    times = START_NS + np.arange(5) * SECOND_NS
    counts = np.array([1, 2, 500, 3, 4], np.int16)
    window = window_of(channel_window("flow", "l/min", times, counts, value_type="i2"))
    stage = stage_of(tmp_path, {"flow": {"range": {"low": 0, "high": 100}}}, window)
    (channel,) = stage.apply(window).channels
    assert (channel.channel.value_type, channel.values.dtype) == ("i2", np.dtype("<i2"))
    assert channel.values.tolist() == counts.tolist()
    assert channel.qualities.tolist() == [0, 0, Quality.BAD, 0, 0]
    stage = stage_of(tmp_path, {"flow": {"unit": "l/s"}}, window)
    assert stage.apply(window).channels[0].values.dtype == np.dtype("<f8")


def test_no_value_breaks_a_stage(tmp_path: Path) -> None:
    times = START_NS + np.arange(6) * SECOND_NS
    values = np.array([np.inf, -np.inf, np.nan, 1e308, -1e308, 5e-324])
    declared: dict[str, object] = {
        "flow": SKAB_DECLARED["flow"],
        "pressure": {
            "calibration": [{"certificate": "X", "gain": 1e10}],
            "spike": {},
            "resample": {"seconds": 2},
            "dead_band": {"band": 0},
            "drift": {"reference": "flow", "limit": 1, "seconds": 1},
        },
        "motor_current": {"spike": {"readings": 3}, "flat_line": {"seconds": 1}},
        "supply_voltage": {"spike": {"replace": True}},
    }
    names = {"flow": "l/min", "pressure": "bar", "motor_current": "A", "supply_voltage": "V"}
    window = window_of(*(channel_window(name, unit, times, values) for name, unit in names.items()))
    stage = stage_of(tmp_path, declared, window)
    for _ in range(3):
        after = stage.apply(window)
        frames = frames_of(after, "edge-1", 1)
        found = {name for frame in frames for name in frame.header.names}
        assert found >= {"flow", "flow.raw", "motor_current", "supply_voltage"}


def test_a_waveform_may_be_calibrated_but_not_thinned(tmp_path: Path) -> None:
    rig = asset_type("bearing-test-rig")
    run = waveform("vibration_drive_end", "g_n", START_NS, 12_000.0, np.linspace(-1, 1, 1_200))
    window = window_of(run, described=rig)
    declared = {"vibration_drive_end": {"calibration": [{"certificate": "C", "gain": 2.0}]}}
    after = stage_of(tmp_path, declared, window).apply(window)
    assert after.channels[0].channel.rate_hz == 12_000.0
    np.testing.assert_allclose(after.channels[0].values, run.values * 2)
    thinning: tuple[dict[str, object], ...] = (
        {"dead_band": {"band": 1}},
        {"spike": {}},
        {"resample": {"seconds": 1}},
    )
    for step in thinning:
        _, _, codes = configured(tmp_path, {"vibration_drive_end": step}, (run.channel,), rig)
        assert codes == ["conditioning.waveform"]


# --- what is declared wrong -------------------------------------------------------------------

CHANNELS = tuple(DeliveredChannel(name, unit) for name, unit in SKAB_COLUMNS.values())


@pytest.mark.parametrize(
    ("declared", "codes"),
    [
        ({"colour": {}}, ["conditioning.channel_unknown"]),
        ({"flow": {"unit": "bar"}}, ["unit.quantity_mismatch"]),
        ({"flow": {"unit": "furlong"}}, ["unit.unknown"]),
        ({"flow": {"speed": 1}}, ["configuration.unknown_key"]),
        ({"flow": {"range": 5}}, ["configuration.wrong_type"]),
        ({"flow": {"range": {"low": 2, "high": 1}}}, ["range.empty"]),
        ({"flow": {"spike": {"readings": 2}}}, ["configuration.out_of_range"]),
        ({"flow": {"keep_raw": "yes please"}}, ["configuration.wrong_type"]),
        ({"flow": {"flat_line": {"seconds": 1, "mark": "good"}}}, ["configuration.unknown_choice"]),
        ({"flow": {"calibration": [{"gain": 1}]}}, ["configuration.key_missing"]),
        ({"flow": {"calibration": [{"certificate": "A", "gain": 0}]}}, ["calibration.gain"]),
        (
            {"flow": {"calibration": [{"certificate": "A", "valid_from": "yesterday"}]}},
            ["calibration.time"],
        ),
        (
            {"flow": {"calibration": [{"certificate": "A"}, {"certificate": "B"}]}},
            ["calibration.overlap"],
        ),
        (
            {"flow": {"drift": {"reference": "flow", "limit": 1, "seconds": 1}}},
            ["conditioning.channel_unknown"],
        ),
        (
            {"flow": {"redundancy": {"sensors": ["flow"], "tolerance": 1}}},
            ["redundancy.sensors"],
        ),
        (
            {"flow": {"redundancy": {"sensors": ["flow", "pressure"], "tolerance": 1}}},
            ["redundancy.units"],
        ),
        (
            {"flow": {"resample": {"seconds": 0}}, "pressure": {"dead_band": {}}},
            ["configuration.out_of_range", "configuration.key_missing"],
        ),
    ],
)
def test_every_fault_of_a_declaration_is_told(
    tmp_path: Path, declared: Mapping[str, object], codes: list[str]
) -> None:
    _, _, found = configured(tmp_path, declared, CHANNELS)
    assert found == codes


def test_the_channels_after_conditioning_are_told(tmp_path: Path) -> None:
    stage, after, faults = configured(tmp_path, SKAB_DECLARED, CHANNELS)
    assert faults == []
    assert stage is not None
    assert [channel.name for channel in after] == [channel.name for channel in CHANNELS]
    assert {channel.name: channel.unit for channel in after}["flow"] == "m3/h"
