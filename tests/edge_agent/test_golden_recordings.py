"""Golden: what an agent makes of real recordings, from their files to the frames in its outbox.

What is stored in ``golden/`` was made of the recordings by::

    HEDDLE_DATA=... python -m tests.edge_agent.test_golden_recordings

Where a step is changed on purpose, write it anew and look at every difference. Counts, times and
qualities are compared exactly, by the SHA-256 of their bytes. Values are compared by count, mean,
spread and extremes within one part in 10^9; features of waveforms, which a Fourier transform of
another build rounds otherwise, each within one part in 10^6.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from domain.frames import Frame
from edge_agent.collector import Collector
from edge_agent.configuration import ConfiguredSource, read_configuration
from edge_agent.outbox import open_outbox
from ml.vibration import KURTOSIS_LIMIT, PROMINENCE_LIMIT
from tests.edge_agent.configurations import frames
from tests.recordings import data_folder, read_cwru

GOLDEN = Path(__file__).parent / "golden"
VALUES_RTOL = 1e-9
FEATURES_RTOL = 1e-6
FEATURES_SHOWN = 6
"""Pieces of a waveform whose features are stored one by one."""

SKAB: dict[str, Any] = {
    "kind": "csv",
    "asset": "pump-loop-1",
    "asset_type": "skab-pump-loop",
    "path": ["skab/data/valve1/1.csv", "skab/data/valve1/2.csv"],
    "delimiter": ";",
    "time": {"column": "datetime", "format": "%Y-%m-%d %H:%M:%S", "zone": "UTC"},
    "channels": {
        "flow": {"column": "Volume Flow RateRMS", "unit": "l/min"},
        "pressure": {"column": "Pressure", "unit": "bar"},
        "motor_current": {"column": "Current", "unit": "A"},
        "housing_temperature": {"column": "Temperature", "unit": "degC"},
        "fluid_temperature": {"column": "Thermocouple", "unit": "degC"},
    },
    "window": {"seconds": 300, "readings": 5_000},
    "conditioning": {
        "flow": {
            "keep_raw": True,
            "unit": "m3/h",
            "calibration": [
                {
                    "certificate": "DKD-2019-117",
                    "gain": 1.002,
                    "offset": -0.01,
                    "valid_from": "2019-04-01T00:00:00Z",
                    "valid_until": "2020-03-09T10:40:00Z",
                }
            ],
            "range": {"low": 0, "high": 6},
            "spike": {"readings": 11, "deviations": 5, "least": 0.05, "replace": True},
            "flat_line": {"seconds": 10},
        },
        "pressure": {"range": {"low": -0.5, "high": 0.5}, "resample": {"seconds": 10}},
        "motor_current": {"resample": {"seconds": 5}},
        "housing_temperature": {"dead_band": {"band": 0.5, "silence_seconds": 60}},
        "fluid_temperature": {
            "drift": {"reference": "housing_temperature", "limit": 45.0, "seconds": 60}
        },
    },
}
HYDRAULIC: dict[str, Any] = {
    "kind": "arrays",
    "asset": "rig-1",
    "asset_type": "hydraulic-test-rig",
    "time": {"start": "2015-01-01T00:00:00Z", "period_s": 1},
    "channels": {
        "temperature_1": {"path": "hydraulic/TS1.txt", "unit": "degC"},
        "temperature_2": {"path": "hydraulic/TS2.txt", "unit": "degC"},
        "temperature_3": {"path": "hydraulic/TS3.txt", "unit": "degC"},
        "vibration": {"path": "hydraulic/VS1.txt", "unit": "mm/s"},
        "cooling_efficiency": {"path": "hydraulic/CE.txt", "unit": "%"},
        "efficiency_factor": {"path": "hydraulic/SE.txt", "unit": "%"},
    },
    "window": {"seconds": 3_600, "readings": 30_000},
    "conditioning": {
        "temperature_1": {"resample": {"seconds": 60}},
        "temperature_2": {
            "drift": {
                "estimate": {"constant": 5.0, "of": {"temperature_1": 1.0}},
                "limit": 1.5,
                "seconds": 120,
            },
            "dead_band": {"band": 0.2},
        },
        "temperature_4": {
            "redundancy": {
                "sensors": ["temperature_1", "temperature_2", "temperature_3"],
                "tolerance": 3.5,
            }
        },
        "vibration": {"spike": {"readings": 9, "deviations": 5, "least": 0.01}},
        "cooling_efficiency": {"unit": "1", "resample": {"seconds": 60, "method": "last"}},
        "efficiency_factor": {"flat_line": {"seconds": 5}, "range": {"low": 1, "high": 90}},
    },
}
FEATURES = (
    "rms",
    "kurtosis",
    "velocity_rms",
    "band_1000_5000",
    "bpfo",
    "bpfo_prominence",
    "bpfi",
    "bpfi_prominence",
)
CONDITIONED = {"skab": SKAB, "hydraulic": HYDRAULIC}


def cwru(names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a source for each recording of CWRU's rig, with features and without waveforms."""
    speeds = {one.name: one.speed_rpm for one in read_cwru()}
    return [
        {
            "kind": "arrays",
            "name": name,
            "asset": name,
            "asset_type": "bearing-test-rig",
            "path": "cwru/cwru_12k_DE_007_014.npz",
            "arrays": [name],
            "time": {"start": "2024-05-01T12:00:00Z", "rate_hz": 12_000},
            "channels": {"vibration_drive_end": {"unit": "g_n"}},
            "window": {"seconds": 5, "readings": 60_000},
            "features": {
                "vibration_drive_end": {
                    "seconds": 1,
                    "names": list(FEATURES),
                    "envelope_band": {"low_hz": 1_000, "high_hz": 5_000},
                    "speed": {"value": speeds[name], "unit": "rpm"},
                    "waveform": "never",
                }
            },
        }
        for name in names
    ]


def made_of(folder: Path, *sources: dict[str, Any]) -> tuple[list[Frame], dict[str, int]]:
    """Return the frames that an agent makes of `sources`, and what was counted by code."""
    file = folder / "agent.yaml"
    file.write_text(yaml.safe_dump({"agent": "golden", "sources": list(sources)}))
    configured = read_configuration(file, data_folder()).sources
    return asyncio.run(_collected(folder, configured))


async def _collected(
    folder: Path, configured: Sequence[ConfiguredSource]
) -> tuple[list[Frame], dict[str, int]]:
    with open_outbox(folder / "state", 10**9) as outbox:
        outbox.adopt("golden", {one.name: one.source.parts for one in configured})
        for one in configured:
            await Collector(one, outbox, asyncio.Event(), asyncio.Event()).collect()
        counts: dict[str, int] = {}
        for status in outbox.status().sources:
            for code, count in status.fault_counts.items():
                counts[code] = counts.get(code, 0) + count
        return frames(outbox), dict(sorted(counts.items()))


def columns(found: Sequence[Frame], asset: str) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    """Return times, values and qualities of each channel of `asset`, through all frames."""
    held: dict[str, list[tuple[Any, Any, Any]]] = {}
    for frame in found:
        for at, channel in enumerate(frame.header.channels):
            if frame.header.asset == asset:
                column = frame.channel_times_ns(at), frame.values[at], frame.qualities[at]
                held.setdefault(channel.name, []).append(column)
    return {
        name: dict(
            zip(
                ("times", "values", "qualities"),
                map(np.concatenate, zip(*parts, strict=True)),
                strict=True,
            )
        )
        for name, parts in sorted(held.items())
    }


def conditioned(folder: Path, name: str) -> dict[str, Any]:
    """Return the figures of a conditioned recording, as they are stored."""
    source = CONDITIONED[name]
    found, counts = made_of(folder, source)
    told: dict[str, Any] = {"counts": counts, "channels": {}}
    for channel, column in columns(found, source["asset"]).items():
        present = column["values"][column["qualities"] < 3]
        exact = column["times"].astype("<i8").tobytes() + column["qualities"].tobytes()
        told["channels"][channel] = {
            "readings": len(column["values"]),
            "qualities": np.bincount(column["qualities"], minlength=4).tolist(),
            "times_and_qualities_sha256": hashlib.sha256(exact).hexdigest(),
            "mean": float(present.mean()),
            "spread": float(present.std()),
            "least": float(present.min()),
            "greatest": float(present.max()),
        }
    return told


SHOWN = ("normal_0_97", "IR007_0_105", "B007_0_118", "OR007at6_0_130")


def features(folder: Path, names: Sequence[str] = SHOWN) -> dict[str, dict[str, list[float]]]:
    """Return the features of recordings of CWRU's rig, by recording and feature."""
    found, _ = made_of(folder, *cwru(names))
    return {
        name: {
            channel.removeprefix("vibration_drive_end."): column["values"].tolist()
            for channel, column in columns(found, name).items()
        }
        for name in names
    }


def shown(of: Mapping[str, Mapping[str, list[float]]]) -> dict[str, dict[str, list[float]]]:
    return {
        name: {feature: values[:FEATURES_SHOWN] for feature, values in told.items()}
        for name, told in of.items()
    }


def golden(name: str) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return stored


@pytest.mark.parametrize("name", sorted(CONDITIONED))
def test_a_recording_is_conditioned_as_it_always_was(tmp_path: Path, name: str) -> None:
    found, stored = conditioned(tmp_path, name), golden(name)
    assert found["counts"] == stored["counts"]
    assert found["channels"].keys() == stored["channels"].keys()
    for channel, expected in stored["channels"].items():
        told = found["channels"][channel]
        for key, value in expected.items():
            if isinstance(value, float):
                value = pytest.approx(value, rel=VALUES_RTOL, abs=1e-12)
            assert told[key] == value, (channel, key)


def test_every_step_that_is_declared_left_its_mark() -> None:
    codes = {
        code.partition(": ")[2] or code for name in CONDITIONED for code in golden(name)["counts"]
    }
    steps = {code.partition(".")[0] for code in codes}
    assert steps >= {
        "calibration",
        "spike",
        "flat_line",
        "drift",
        "dead_band",
        "redundancy",
        "range",
    }


def test_the_features_of_a_recording_are_what_they_always_were(tmp_path: Path) -> None:
    found, stored = shown(features(tmp_path)), golden("cwru")
    assert found.keys() == stored.keys()
    for name, expected in stored.items():
        for feature, values in expected.items():
            np.testing.assert_allclose(
                found[name][feature], values, rtol=FEATURES_RTOL, err_msg=f"{name} {feature}"
            )


def test_the_lines_of_a_damaged_ring_stand_where_its_geometry_says(tmp_path: Path) -> None:
    """Two windows of three are told right by a rule that was trained on nothing."""
    recordings = read_cwru()
    found = features(tmp_path, [one.name for one in recordings])
    right = total = 0
    for name, told in found.items():
        rings = np.array([told["bpfo_prominence"], told["bpfi_prominence"]])
        strikes = np.where(np.array(told["kurtosis"]) >= KURTOSIS_LIMIT, "B", "N")
        ring = np.array(["O", "I"])[rings.argmax(axis=0)]
        said = np.where(rings.max(axis=0) >= PROMINENCE_LIMIT, ring, strikes)
        right += int((said == name[0].upper()).sum())
        total += len(said)
        if name.startswith(("OR007", "IR007")):
            assert (said == name[0].upper()).all(), name
            line = {"O": "bpfo", "I": "bpfi"}[name[0]]
            other = {"O": "bpfi", "I": "bpfo"}[name[0]]
            assert np.median(told[line]) > np.median(told[other]), name
    assert total >= 245
    assert right / total >= 0.66


if __name__ == "__main__":
    for written in CONDITIONED:
        with tempfile.TemporaryDirectory() as folder:
            text = json.dumps(conditioned(Path(folder), written), indent=1)
        (GOLDEN / f"{written}.json").write_text(text + "\n")
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(shown(features(Path(folder))), indent=1)
    (GOLDEN / "cwru.json").write_text(text + "\n")
