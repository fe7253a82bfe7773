"""Train the anomaly detector of a pump loop: ``python -m ml.train_anomaly --recordings … --out …``.

Reads SKAB's recordings, chooses the settings, says how good that choice is on recordings that took
no part in it, fits the detector that serves on all of them, and writes it with its model card. The
same recordings and code give the same files.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np

from domain.units import unit
from ml.anomaly import (
    AnomalySettings,
    WatchedRecording,
    chosen_settings,
    detection_figures,
    fit_anomaly_detector,
    leave_one_out,
)
from ml.model_card import Training, model_card
from ml.onnx_export import anomaly_onnx

MODEL: Final = "skab-pump-anomaly"
ASSET_TYPE: Final = "skab-pump-loop"
SEED: Final = 0
"""Nothing is drawn at random."""
COLUMNS: Final = {
    "Accelerometer1RMS": ("accelerometer_1", "g_n"),
    "Accelerometer2RMS": ("accelerometer_2", "g_n"),
    "Current": ("motor_current", "A"),
    "Pressure": ("pressure", "bar"),
    "Temperature": ("housing_temperature", "degC"),
    "Thermocouple": ("fluid_temperature", "degC"),
    "Voltage": ("supply_voltage", "V"),
    "Volume Flow RateRMS": ("flow", "l/min"),
}
CHANNELS: Final = tuple(channel for channel, _ in COLUMNS.values())
FAULT_FREE: Final = "anomaly-free/anomaly-free"
CANDIDATES: Final = tuple(
    AnomalySettings(window_s=window_s, limit_quantile=quantile, settled_s=settled_s)
    for window_s, quantile, settled_s in product((10, 20, 30), (0.95, 0.99), (30, None))
)
SOURCES: Final = (
    "anomaly.py",
    "artefact.py",
    "deviation.py",
    "onnx_export.py",
    "train_anomaly.py",
)
"""The files that decide what a detector is; the card only tells of it."""


def read_recording(file: Path, name: str) -> WatchedRecording:
    """Return one of SKAB's recordings by its seconds, in SI; NaN where a second has no row."""
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened, delimiter=";"))
    # The recordings name no zone; only differences of times count here.
    times = [
        int(datetime.fromisoformat(row["datetime"]).replace(tzinfo=UTC).timestamp()) for row in rows
    ]
    at = np.array(times) - times[0]
    values = np.full((int(at[-1]) + 1, len(COLUMNS)), np.nan)
    for n, (column, (_, symbol)) in enumerate(COLUMNS.items()):
        found = unit(symbol)
        delivered = np.array([float(row[column]) for row in rows])
        values[at, n] = delivered * found.factor + found.offset
    faulty = np.zeros(len(values), np.bool_)
    labelled = [float(row["anomaly"]) > 0 for row in rows] if "anomaly" in rows[0] else None
    if labelled is not None:
        faulty[at] = labelled
        # A second without a row is as the one before it.
        present = np.zeros(len(values), np.bool_)
        present[at] = True
        faulty = faulty[np.maximum.accumulate(np.where(present, np.arange(len(values)), 0))]
    return WatchedRecording(name, values, faulty)


def read_recordings(folder: Path) -> tuple[list[WatchedRecording], WatchedRecording | None]:
    """Return the recordings with a fault, in the order of their names, and the run without one."""
    names = sorted(
        (file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.csv")),
        key=lambda name: (name.rpartition("/")[0], len(name), name),
    )
    faulty = [read_recording(folder / f"{name}.csv", name) for name in names if name != FAULT_FREE]
    sound = (
        read_recording(folder / f"{FAULT_FREE}.csv", FAULT_FREE) if FAULT_FREE in names else None
    )
    return faulty, sound


def train(
    recordings: Sequence[WatchedRecording],
    fault_free: WatchedRecording | None,
    candidates: Sequence[AnomalySettings] = CANDIDATES,
) -> Training:
    """Return the detector of `recordings` and its figures.

    Nested: for each recording, the settings are chosen by cross-validation over the others, the
    detector is fitted on the others, and then the recording is looked at once.
    """
    unseen = {
        left_out.name: detection_figures(
            fit_anomaly_detector(others, CHANNELS, chosen_settings(others, CHANNELS, candidates)),
            left_out,
        )
        for left_out, others in leave_one_out(recordings)
    }
    settings = chosen_settings(recordings, CHANNELS, candidates)
    detector = fit_anomaly_detector(recordings, CHANNELS, settings)
    on_sound = None if fault_free is None else detection_figures(detector, fault_free)
    return Training(
        detector, tuple(one.name for one in recordings), len(candidates), unseen, on_sound
    )


def code_version() -> str:
    """Return what identifies the code: the SHA-256 over the files that make a detector."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update(hashlib.sha256((Path(__file__).parent / name).read_bytes()).digest())
    return f"sha256:{digest.hexdigest()}"


def manifest(training: Training, version: str, artefact: bytes) -> dict[str, object]:
    """Return what an agent needs to know of the artefact, and a registry of its making."""
    detector, settings, total = training.detector, training.detector.settings, training.total
    return {
        "model": MODEL,
        "version": version,
        "purpose": "anomaly detection on a pump loop, against its own baseline",
        "artefact": "model.onnx",
        "sha256": hashlib.sha256(artefact).hexdigest(),
        "asset_types": [ASSET_TYPE],
        "channels": list(detector.channels),
        "baseline_s": settings.baseline_s,
        "window_s": settings.window_s,
        "seed": SEED,
        "code_version": code_version(),
        "trained_on": list(training.recordings),
        "settings": {
            "limit_quantile": settings.limit_quantile,
            "settled_s": settings.settled_s,
        },
        "metrics": {
            "f1": round(total.f1, 4),
            "false_alarm_ratio": round(total.false_alarm_ratio, 4),
            "miss_ratio": round(total.miss_ratio, 4),
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, and write ``model.onnx``, ``model.json`` and ``card.md`` into a folder."""
    parser = argparse.ArgumentParser(prog="python -m ml.train_anomaly", description=__doc__)
    parser.add_argument("--recordings", type=Path, required=True, help="folder of SKAB's data")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--version", default="1", help="version of the model")
    chosen = parser.parse_args(arguments)
    recordings, fault_free = read_recordings(chosen.recordings)
    if len(recordings) < 3:
        parser.error(f"{len(recordings)} recordings with a fault in {chosen.recordings}, not 3")
    training = train(recordings, fault_free)
    artefact = anomaly_onnx(training.detector, MODEL, chosen.version, [ASSET_TYPE])
    described = manifest(training, chosen.version, artefact)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "model.onnx").write_bytes(artefact)
    (chosen.out / "model.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
    (chosen.out / "card.md").write_text(model_card(training, described, len(artefact)))
    total = training.total
    sys.stdout.write(
        f"{MODEL}@{chosen.version}: F1 {total.f1:.3f} on {len(recordings)} recordings, each left "
        f"out of its own training; false alarms {total.false_alarm_ratio:.3f}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
