"""What a configuration says wrong is told at once, with file, line, key and code."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from edge_agent.configuration import read_configuration
from edge_agent.replay import Replay
from edge_agent.window import WindowBounds
from edge_agent.yaml_section import ConfigurationFaults
from tests.edge_agent.configurations import (
    configuration,
    csv_source,
    second,
    write_configuration,
    write_rows,
)


def faults_of(folder: Path, *sources: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (key, code) of what is wrong with `sources`."""
    if not (folder / "pump.csv").exists():
        write_rows(folder, [f"{second(0)},1,2"])
    with pytest.raises(ConfigurationFaults) as refused:
        configuration(folder, *sources)
    assert refused.value.code == "configuration.invalid"
    return [(fault.key, fault.code) for fault in refused.value.faults]


def test_configuration_is_read_whole(tmp_path: Path) -> None:
    write_rows(tmp_path, [f"{second(0)},1,2"])
    replay = {"speed": "max", "times": "recorded"}
    read = configuration(tmp_path, csv_source(replay=replay), csv_source(name="again"))
    assert read.agent == "test-agent"
    assert [source.name for source in read.sources] == ["pump-1", "again"]
    source = read.sources[0]
    assert source.window == WindowBounds(duration_ns=60 * 10**9, rows_max=10)
    assert source.replay == Replay(speed=None, times="recorded")
    assert [channel.name for channel in source.header.channels] == ["flow", "pressure"]
    assert (source.header.asset, source.header.agent) == ("pump-1", "test-agent")


def test_all_faults_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    write_rows(tmp_path, [f"{second(0)},1,2"])
    file = tmp_path / "agent.yaml"
    file.write_text(
        dedent("""\
        agent: bad name
        sources:
          - kind: csv
            asset: pump-1
            asset_type: skab-pump-loop
            path: pump.csv
            colour: blue
            time: {column: when, format: "%Y-%m-%d %H:%M:%S"}
            channels:
              flow: {column: flow, unit: furlong}
              pressure: {column: Druck, unit: bar}
              speed: {column: flow, unit: rpm}
            window:
              seconds: -1
              readings: 20
          - kind: csv
            asset: pump-2
            asset_type: skab-pump-loop
            path: [missing.csv, pump.csv]
            time: {column: time, format: iso8601, zone: Mars/Olympus}
            channels:
              flow: {column: flow, unit: bar}
            window: {seconds: 1, readings: 20}
        """)
    )
    with pytest.raises(ConfigurationFaults) as refused:
        read_configuration(file, tmp_path)
    told = [(fault.line, fault.key, fault.code) for fault in refused.value.faults]
    assert told == [
        (1, "agent", "agent.malformed_name"),
        (7, "sources[0].colour", "configuration.unknown_key"),
        (8, "sources[0].time.zone", "mapping.zone_missing"),
        (8, "sources[0].time.column", "mapping.unknown_column"),
        (10, "sources[0].channels.flow.unit", "unit.unknown"),
        (11, "sources[0].channels.pressure.column", "mapping.unknown_column"),
        (12, "sources[0].channels.speed", "channel.unknown"),
        (14, "sources[0].window.seconds", "configuration.out_of_range"),
        (19, "sources[1].path", "source.file_missing"),
        (20, "sources[1].time.zone", "mapping.zone_unknown"),
        (22, "sources[1].channels.flow.unit", "unit.quantity_mismatch"),
    ]
    text = str(refused.value)
    assert f"{file}:8: sources[0].time.zone: mapping.zone_missing: " in text
    assert len(text.splitlines()) == len(told)


@pytest.mark.parametrize(
    ("changes", "key", "code"),
    [
        ({"kind": "modbus"}, "kind", "configuration.unknown_choice"),
        ({"asset_type": "rocket"}, "asset_type", "asset_type.unknown"),
        ({"asset": "pump 1"}, "asset", "asset.malformed_name"),
        ({"asset": 7}, "asset", "configuration.wrong_type"),
        ({"path": []}, "path", "configuration.empty"),
        ({"path": ["pump.csv", "pump.csv"]}, "path", "source.file_repeated"),
        ({"path": "*.dat"}, "path", "source.file_missing"),
        ({"delimiter": ";;"}, "delimiter", "mapping.delimiter"),
        ({"channels": {}}, "channels", "configuration.empty"),
        (
            {"window": {"seconds": 1, "readings": 1}},
            "window.readings",
            "configuration.out_of_range",
        ),
        ({"window": {"seconds": 1}}, "window.readings", "configuration.key_missing"),
        ({"window": 5}, "window", "configuration.wrong_type"),
        ({"replay": {"speed": "fast"}}, "replay.speed", "configuration.wrong_type"),
        ({"replay": {"speed": 0}}, "replay.speed", "configuration.out_of_range"),
        ({"replay": {"times": "now", "speed": "max"}}, "replay.speed", "replay.speed"),
        ({"replay": {"times": "then"}}, "replay.times", "configuration.unknown_choice"),
        (
            {"time": {"column": "time", "format": "unix_s", "zone": "UTC"}},
            "time.zone",
            "mapping.zone_conflict",
        ),
        (
            {"time": {"column": "time", "format": "iso8601"}},
            "time.zone",
            "mapping.zone_missing",
        ),
        (
            {"time": {"column": "time", "format": "ISO", "zone": "UTC"}},
            "time.format",
            "mapping.time_format",
        ),
    ],
)
def test_fault_has_its_code(tmp_path: Path, changes: dict[str, Any], key: str, code: str) -> None:
    assert faults_of(tmp_path, csv_source(**changes)) == [(f"sources[0].{key}", code)]


def test_column_that_stands_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pump.csv").write_text(f"time,flow,flow,pressure\n{second(0)},1,2,3\n")
    key = "sources[0].channels.flow.column"
    assert faults_of(tmp_path, csv_source()) == [(key, "mapping.column_repeated")]


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, csv_source(), csv_source())
    assert faults == [("sources[1].asset", "source.name_repeated")]


def test_key_that_stands_twice_is_refused_once(tmp_path: Path) -> None:
    write_rows(tmp_path, [f"{second(0)},1,2"])
    file = write_configuration(tmp_path, csv_source())
    file.write_text(file.read_text() + "agent: other\n")
    with pytest.raises(ConfigurationFaults) as refused:
        read_configuration(file, tmp_path)
    assert [fault.code for fault in refused.value.faults] == ["configuration.key_repeated"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("agent: [", "configuration.malformed"),
        ("- a\n- b\n", "configuration.malformed"),
        ("", "configuration.malformed"),
        ("a: !!python/object:os.system x", "configuration.unknown_key"),
        ("x: " + "a" * 1024 * 1024, "configuration.too_large"),
    ],
)
def test_document_that_is_no_configuration_is_refused(tmp_path: Path, text: str, code: str) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationFaults) as refused:
        read_configuration(file, tmp_path)
    assert code in [fault.code for fault in refused.value.faults]


def test_missing_document_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationFaults) as refused:
        read_configuration(tmp_path / "none.yaml", tmp_path)
    assert refused.value.faults[0].code == "configuration.file_missing"
