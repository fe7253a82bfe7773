"""Every data set of numbers, replayed by an agent from its declaration into the outbox.

The declarations are those of docs/data-sets.md, as they stand there.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pyarrow import parquet
from typer.testing import CliRunner

from domain.frames import FloatArray, Frame, IntArray
from edge_agent.cli import app
from edge_agent.collector import Collector
from edge_agent.configuration import ConfiguredSource, read_configuration
from edge_agent.outbox import open_outbox
from edge_agent.readings import Block, Position, Source
from edge_agent.replay import Replay
from tests.edge_agent.configurations import adopt, frames
from tests.recordings import REPOSITORY, data_folder, read_hydraulic

DOCUMENT = (REPOSITORY / "docs" / "data-sets.md").read_text()
BLOCKS = 3
"""So much of each recording is replayed; the rest is more of the same."""


def declared() -> dict[str, dict[str, Any]]:
    """Return the sources that the document declares, by their names."""
    (block,) = re.findall(r"```yaml\n(agent: .*?)```", DOCUMENT, re.DOTALL)
    return {source["name"]: source for source in yaml.safe_load(block)["sources"]}


DECLARED = declared()


def configured(folder: Path, name: str) -> ConfiguredSource:
    file = folder / "agent.yaml"
    file.write_text(yaml.safe_dump({"agent": "replay", "sources": [DECLARED[name]]}))
    (source,) = read_configuration(file, data_folder()).sources
    return source


class Beginning:
    """The first blocks of a source."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read(self, after: Position | None) -> Iterator[Block]:
        return islice(self._source.read(after), BLOCKS)


def replayed(folder: Path, name: str) -> list[Frame]:
    """Return the frames that a part of a recording has become, in the outbox on disk."""
    source = configured(folder, name)
    beginning = Beginning(source.source)
    as_fast_as_possible = Replay(None, source.replay.times)
    source = ConfiguredSource(
        **{**vars(source), "source": beginning, "replay": as_fast_as_possible}
    )

    async def collect() -> list[Frame]:
        with open_outbox(folder / "state", 10**9) as outbox:
            outbox.adopt("replay", {source.name: source.source.parts})
            await Collector(source, outbox, asyncio.Event(), asyncio.Event()).collect()
            return frames(outbox)

    return asyncio.run(collect())


def column(found: list[Frame], name: str) -> tuple[IntArray, FloatArray]:
    """Return the times and the values of a channel, as delivered, through all of `found`."""
    held = [
        (frame.channel_times_ns(at), frame.values[at])
        for frame in found
        for at, channel in enumerate(frame.header.names)
        if channel == name
    ]
    return np.concatenate([t for t, _ in held]), np.concatenate([v for _, v in held])


def test_every_folder_of_data_is_spoken_of() -> None:
    folders = {path.name for path in data_folder().iterdir() if path.is_dir()}
    assert {name for name in folders if f"| `{name}` |" not in DOCUMENT} == set()


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_a_part_of_each_is_replayed_without_a_fault(tmp_path: Path, name: str) -> None:
    source = configured(tmp_path, name)
    found = replayed(tmp_path, name)
    rows = [block.rows for block in islice(source.source.read(None), BLOCKS)]
    assert not any(block.faults for block in islice(source.source.read(None), BLOCKS))
    delivered = sum(rows_of.values.size for rows_of in rows)
    named = {channel for channel, _ in source.source.channels}
    kept = sum(
        len(values)
        for frame in found
        for channel, values in zip(frame.header.channels, frame.values, strict=True)
        if channel.name in named
    )
    assert kept == delivered > 0
    assert all(frame.header.time is not None for frame in found)
    bad = sum(int((quality == 2).sum()) for frame in found for quality in frame.qualities)
    assert bad == 0, "a physical range does not hold what was recorded"
    for at, (channel, _) in enumerate(source.source.channels):
        _, values = column(found, channel)
        np.testing.assert_array_equal(values, np.concatenate([r.values[at] for r in rows]))


# --- against the files, read in another way -----------------------------------------------


def test_the_waveforms_of_cwru_are_those_of_the_file(tmp_path: Path) -> None:
    found = replayed(tmp_path, "cwru")
    times, values = column(found, "vibration_drive_end")
    with np.load(data_folder() / "cwru" / "cwru_12k_DE_007_014.npz") as held:
        expected = held["OR007at6_0_130"].astype(np.float64)
    np.testing.assert_array_equal(values, expected[: len(values)])
    assert {channel.rate_hz for f in found for channel in f.header.channels} == {None, 12_000.0}
    since_s = (times - times[0]) / 1e9
    np.testing.assert_allclose(since_s, np.arange(len(times)) / 12_000, atol=2e-9)


def test_the_looks_at_a_pronostia_bearing_are_apart(tmp_path: Path) -> None:
    found = replayed(tmp_path, "femto")
    times, values = column(found, "vibration_vertical")
    with np.load(data_folder() / "femto" / "raw_every10_Bearing1_1.npz") as held:
        looks, numbers = held["acc_milli_g"], held["snapshot"]
    expected = looks[..., 1].ravel()[: len(values)] / 1000
    np.testing.assert_array_equal(values, expected)
    assert all(len(frame.values[0]) <= 2_560 for frame in found)
    first = times[:: looks.shape[1]]
    assert np.diff(first).tolist() == (np.diff(numbers)[: len(first) - 1] * 10**10).tolist()


def test_the_looks_at_four_ims_bearings_are_of_one_clock(tmp_path: Path) -> None:
    found = replayed(tmp_path, "ims")
    with np.load(data_folder() / "ims" / "raw_test2_every20_plus_last9.npz") as held:
        looks = held["acc_milli_g"]
    for bearing in range(4):
        _, values = column(found, f"vibration_{bearing + 1}")
        np.testing.assert_array_equal(values, looks[..., bearing].ravel()[: len(values)] / 1000)


def test_the_cycles_of_the_hydraulic_rig_are_one_series(tmp_path: Path) -> None:
    found = replayed(tmp_path, "hydraulic")
    for sensor, name in {"TS1": "temperature_1", "CE": "cooling_efficiency"}.items():
        times, values = column(found, name)
        np.testing.assert_array_equal(values, read_hydraulic(sensor).ravel()[: len(values)])
        assert set(np.diff(times).tolist()) == {10**9}


def test_the_flights_of_one_engine_are_chosen(tmp_path: Path) -> None:
    _, values = column(replayed(tmp_path, "cmapss"), "lpc_outlet_temperature")
    file = data_folder() / "cmapss" / "train_FD001.parquet"
    held = parquet.read_table(file, columns=["unit", "s2"]).to_pydict()
    expected = [s2 for unit, s2 in zip(held["unit"], held["s2"], strict=True) if unit == 1]
    assert values.tolist() == expected


# --- shown by `heddle agent check` --------------------------------------------------------


def test_agent_check_shows_the_first_readings_of_each(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(yaml.safe_dump({"agent": "replay", "sources": list(DECLARED.values())}))
    shown = CliRunner().invoke(
        app, ["check", "--config", str(file), "--data", str(data_folder()), "--rows", "1"]
    )
    assert shown.exit_code == 0, shown.output
    assert {name for name in DECLARED if name not in shown.output} == set()


# --- where reading goes on ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["cwru", "femto", "hydraulic"])
def test_reading_goes_on_after_any_row(tmp_path: Path, name: str) -> None:
    source = configured(tmp_path, name).source
    blocks = list(islice(source.read(None), 3))
    times = np.concatenate([block.rows.times_ns for block in blocks])
    values = np.concatenate([block.rows.values for block in blocks], axis=1)
    for row in (1, 9_999, 10_000, 12_345):
        resumed = next(iter(source.read(Position(0, row, int(times[row - 1]))))).rows
        upto = min(row + len(resumed), len(times))
        np.testing.assert_array_equal(resumed.times_ns[: upto - row], times[row:upto])
        np.testing.assert_array_equal(resumed.values[:, : upto - row], values[:, row:upto])


def test_adopted_sources_are_known(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(yaml.safe_dump({"agent": "replay", "sources": list(DECLARED.values())}))
    with open_outbox(tmp_path / "state", 10**9) as outbox:
        adopt(outbox, read_configuration(file, data_folder()))
        assert {status.name for status in outbox.status().sources} == set(DECLARED)
