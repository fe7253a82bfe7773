"""Real recordings as the windows an agent sends: 125 readings a channel."""

from __future__ import annotations

import csv
from typing import Final

import numpy as np

from domain.frames import ChannelHeader, Frame, FrameHeader, build_frame
from tests.projections.loop_frames import loop_frame
from tests.recordings import data_folder, read_skab

READINGS_A_WINDOW: Final = 125
HYDRAULIC_UNITS: Final = {
    "CE": "%",
    "CP": "kW",
    "SE": "%",
    "TS1": "degC",
    "TS2": "degC",
    "TS3": "degC",
    "TS4": "degC",
    "VS1": "mm/s",
}
_SECOND_NS = 1_000_000_000


def skab_windows() -> list[Frame]:
    """Return every SKAB recording, in the order of time."""
    folder = data_folder() / "skab" / "data"
    names = [str(path.relative_to(folder))[:-4] for path in folder.glob("*/*.csv")]
    recordings = sorted((read_skab(name) for name in names), key=lambda r: int(r.times_ns[0]))
    frames: list[Frame] = []
    for recording in recordings:
        # One recording repeats a second; a frame's clock does not.
        kept = np.concatenate(([True], np.diff(recording.times_ns) > 0))
        times = recording.times_ns[kept]
        for at in range(0, len(times) - READINGS_A_WINDOW + 1, READINGS_A_WINDOW):
            cut = slice(at, at + READINGS_A_WINDOW)
            columns = {name: values[kept][cut] for name, values in recording.values.items()}
            frames.append(loop_frame(len(frames) + 1, times[cut], columns))
    return frames


def hydraulic_windows(cycles: int = 1_000) -> list[Frame]:
    """Return the eight sensors of the hydraulic rig that were read once a second."""
    columns = []
    for name in HYDRAULIC_UNITS:
        with (data_folder() / "hydraulic" / f"{name}.txt").open(newline="") as file:
            rows = csv.reader(file, delimiter="\t")
            columns.append(
                np.array([row for _, row in zip(range(cycles), rows, strict=False)], float).ravel()
            )
    channels = tuple(ChannelHeader(name, unit, 1.0, 0.0) for name, unit in HYDRAULIC_UNITS.items())
    header = FrameHeader("rig-1", "agent-1", channels)
    times = np.arange(len(columns[0]), dtype=np.int64) * _SECOND_NS
    return [
        build_frame(
            header,
            at // READINGS_A_WINDOW + 1,
            [times[at : at + READINGS_A_WINDOW]],
            [column[at : at + READINGS_A_WINDOW] for column in columns],
            [None] * len(columns),
        )
        for at in range(0, len(times) - READINGS_A_WINDOW + 1, READINGS_A_WINDOW)
    ]
