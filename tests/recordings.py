"""Real recordings for tests. They are never part of the repository.

They are looked for under `HEDDLE_DATA`, else in `../shared/data` beside the repository. Where
they are missing a test is skipped, but fails in CI: there it would be silently untested.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from pyarrow import parquet

from domain.frames import FloatArray, IntArray

REPOSITORY: Final = Path(__file__).resolve().parent.parent

SKAB_COLUMNS: Final = {
    "Accelerometer1RMS": ("accelerometer_1", "g_n"),
    "Accelerometer2RMS": ("accelerometer_2", "g_n"),
    "Current": ("motor_current", "A"),
    "Pressure": ("pressure", "bar"),
    "Temperature": ("housing_temperature", "degC"),
    "Thermocouple": ("fluid_temperature", "degC"),
    "Voltage": ("supply_voltage", "V"),
    "Volume Flow RateRMS": ("flow", "l/min"),
}
"""Column of a SKAB recording: (channel of the asset type, unit as delivered)."""


@dataclass(frozen=True)
class SkabRecording:
    """A recording read with nothing but the standard library: the reference for every reader.

    Parameters
    ----------
    times_ns : int64, shape (n,), as written and taken for UTC
    values : per channel, float64, shape (n,), as written
    """

    times_ns: IntArray
    values: dict[str, FloatArray]


def data_folder() -> Path:
    """Return the folder of the recordings; skip the test, or fail it in CI, if there is none."""
    folder = Path(os.environ.get("HEDDLE_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        _refuse(folder)
    return folder


def skab_recording(name: str) -> Path:
    """Return the file of the SKAB recording `name`, such as ``"valve1/1"``."""
    path = data_folder() / "skab" / "data" / f"{name}.csv"
    if not path.is_file():
        _refuse(path)
    return path


def read_skab(name: str) -> SkabRecording:
    """Return the SKAB recording `name` as columns."""
    with skab_recording(name).open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    moments = [datetime.fromisoformat(row["datetime"]).replace(tzinfo=UTC) for row in rows]
    return SkabRecording(
        np.array([int(moment.timestamp()) * 1_000_000_000 for moment in moments], np.int64),
        {
            channel: np.array([float(row[column]) for row in rows])
            for column, (channel, _) in SKAB_COLUMNS.items()
        },
    )


def read_labels(name: str) -> list[int]:
    """Return the seconds since 1970 UTC that the recording `name` labels as anomalous."""
    with skab_recording(name).open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    return [
        int(datetime.fromisoformat(row["datetime"]).replace(tzinfo=UTC).timestamp())
        for row in rows
        if float(row["anomaly"]) > 0
    ]


@dataclass(frozen=True)
class FemtoLife:
    """The vibration of a PRONOSTIA bearing until it failed: the RMS of a look every 10 s.

    Parameters
    ----------
    horizontal_g, vertical_g : float64, shape (n,), g
    """

    horizontal_g: FloatArray
    vertical_g: FloatArray


def read_femto(bearing: str) -> FemtoLife:
    """Return the life of the PRONOSTIA bearing named so, such as ``"Bearing1_2"``."""
    path = data_folder() / "femto" / "features_dev12.parquet"
    if not path.is_file():
        _refuse(path)
    columns = ["bearing", "snapshot", "h_rms", "v_rms"]
    found = parquet.read_table(path, columns=columns).to_pydict()
    rows = sorted(
        row[1:]
        for row in zip(*(found[column] for column in columns), strict=True)
        if row[0] == bearing
    )
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1)), "a look is missing"
    return FemtoLife(np.array([row[1] for row in rows]), np.array([row[2] for row in rows]))


@dataclass(frozen=True)
class CwruRecording:
    """The vibration of the drive end of CWRU's rig.

    Parameters
    ----------
    name : such as ``OR007at6_0_130``: fault, size, where, load in hp, number
    acceleration_g : float64, shape (n,), at 12 kHz
    """

    name: str
    acceleration_g: FloatArray
    speed_rpm: float


def read_cwru() -> list[CwruRecording]:
    """Return every recording of CWRU's drive end at 12 kHz."""
    path = data_folder() / "cwru" / "cwru_12k_DE_007_014.npz"
    if not path.is_file():
        _refuse(path)
    with np.load(path) as held:
        return [
            CwruRecording(name, held[name].astype(np.float64), float(held[f"{name}__rpm"][0]))
            for name in held.files
            if not name.endswith("__rpm")
        ]


def read_hydraulic(sensor: str) -> FloatArray:
    """Return what a 1 Hz sensor of the hydraulic rig read, such as ``TS1``: shape (cycles, 60)."""
    path = data_folder() / "hydraulic" / f"{sensor}.txt"
    if not path.is_file():
        _refuse(path)
    return np.loadtxt(path, dtype=np.float64)


def _refuse(path: Path) -> None:
    reason = f"no recordings at {path}: set HEDDLE_DATA to the folder that holds skab/, femto/"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
