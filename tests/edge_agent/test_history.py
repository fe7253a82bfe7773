"""History in Parquet files, in databases, and in tables whose rows tell no time."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from domain.errors import InvalidInput
from edge_agent.history.sql import QueryPart
from edge_agent.readings import Position, Source
from edge_agent.yaml_section import ConfigurationFaults
from tests.edge_agent.configurations import configuration, csv_source
from tests.recordings import data_folder

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
NOON_NS = int(NOON.timestamp()) * 10**9
CHANNELS = {
    "flow": {"column": "q", "unit": "l/min"},
    "pressure": {"column": "p", "unit": "bar"},
}


def read(source: Source, after: Position | None = None) -> tuple[list[int], list[list[float]]]:
    """Return the times and the values of each channel that follow `after`."""
    blocks = list(source.read(after))
    times = [int(time) for block in blocks for time in block.rows.times_ns]
    values = np.concatenate([block.rows.values for block in blocks], axis=1)
    return times, values.tolist()


def codes(source: Source) -> list[tuple[int, str, str]]:
    return [(f.row, f.channel, f.code) for block in source.read(None) for f in block.faults]


def table(folder: Path, **columns: Any) -> None:
    parquet.write_table(pyarrow.table(columns), folder / "pump.parquet", row_group_size=3)


def parquet_source(**changes: Any) -> dict[str, Any]:
    declared = csv_source(
        kind="parquet",
        path="pump.parquet",
        time={"column": "t", "format": "iso8601"},
        channels=CHANNELS,
    )
    return declared | changes


def sql_source(**changes: Any) -> dict[str, Any]:
    declared = csv_source(
        kind="sql",
        database="plant.db",
        query="SELECT t, q, p FROM readings ORDER BY t",
        time={"column": "t", "format": "unix_s"},
        channels=CHANNELS,
    )
    del declared["path"]
    return declared | changes


def database(folder: Path, rows: list[tuple[Any, ...]]) -> None:
    connection = sqlite3.connect(folder / "plant.db")
    connection.execute("CREATE TABLE readings (t, q, p)")
    connection.executemany("INSERT INTO readings VALUES (?, ?, ?)", rows)
    connection.commit()
    connection.close()


def test_a_parquet_file_is_read_to_the_nanosecond_and_resumed(tmp_path: Path) -> None:
    times = [NOON_NS + n * 1_000_000_001 for n in range(7)]
    table(
        tmp_path,
        t=pyarrow.array(times, pyarrow.timestamp("ns", "UTC")),
        q=[float(n) for n in range(7)],
        p=pyarrow.array([1, 2, None, 4, 5, 6, 7], pyarrow.int32()),
    )
    source = configuration(tmp_path, parquet_source()).sources[0].source
    found, (flow, pressure) = read(source)
    assert found == times
    assert flow == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert np.isnan(pressure[2])
    assert codes(source) == [(3, "pressure", "cell.empty")]
    resumed, (flow, _) = read(source, Position(0, 4, times[3]))
    assert (resumed, flow) == (times[4:], [4.0, 5.0, 6.0])
    with pytest.raises(InvalidInput) as shorter:
        read(source, Position(0, 8, times[3]))
    assert shorter.value.code == "source.file_shorter"


def test_rows_of_a_parquet_file_may_be_chosen_and_counted(tmp_path: Path) -> None:
    table(
        tmp_path,
        b=["one", "two", "one", "two", "one"],
        q=[1.0, 2.0, 3.0, float("nan"), 5.0],
        p=["1", "x", "3", "4", "5"],
    )
    declared = parquet_source(
        where={"b": "one"}, time={"start": "2024-05-01T12:00:00Z", "period_s": 10}
    )
    source = configuration(tmp_path, declared).sources[0].source
    found, (flow, _) = read(source)
    assert found == [NOON_NS, NOON_NS + 10**10, NOON_NS + 2 * 10**10]
    assert flow == [1.0, 3.0, 5.0]
    other = configuration(tmp_path, declared | {"where": {"b": "two"}}).sources[0].source
    assert codes(other) == [(2, "flow", "cell.not_finite"), (1, "pressure", "cell.not_numeric")]


def test_a_query_is_read_and_resumed(tmp_path: Path) -> None:
    rows: list[tuple[Any, ...]] = [(NOON.timestamp() + n, n, n / 10) for n in range(2_500)]
    database(tmp_path, [*rows, ("when?", 1, 1)])
    source = configuration(tmp_path, sql_source()).sources[0].source
    found, (flow, pressure) = read(source)
    assert found == [NOON_NS + n * 10**9 for n in range(2_500)]
    assert flow == [float(n) for n in range(2_500)]
    assert pressure == [n / 10 for n in range(2_500)]
    assert codes(source) == [(2_501, "", "row.time_unreadable")]
    resumed, _ = read(source, Position(0, 2_499, found[2_498]))
    assert resumed == found[2_499:]


def test_a_query_only_reads(tmp_path: Path) -> None:
    database(tmp_path, [(1, 2, 3)])
    for query in ("DELETE FROM readings", "DROP TABLE readings", "SELECT nothing"):
        with pytest.raises(InvalidInput) as refused:
            QueryPart("sqlite3", str(tmp_path / "plant.db"), query).column_names()
        assert refused.value.code == "source.unreadable"
    assert len(read(configuration(tmp_path, sql_source()).sources[0].source)[0]) == 1


def test_a_csv_whose_rows_tell_no_time_is_counted(tmp_path: Path) -> None:
    (tmp_path / "pump.csv").write_text("q,p\n1,2\n3\n5,6\n")
    declared = csv_source(
        time={"start": "2024-05-01T12:00:00Z", "period_s": 3_600}, channels=CHANNELS
    )
    source = configuration(tmp_path, declared).sources[0].source
    found, (flow, _) = read(source)
    # A row that is refused still takes its hour.
    assert found == [NOON_NS, NOON_NS + 7_200 * 10**9]
    assert flow == [1.0, 5.0]


def test_what_is_wrong_with_a_declaration_is_told_all_at_once(tmp_path: Path) -> None:
    table(tmp_path, t=["2024-05-01T12:00:00Z"], q=[1.0])
    (tmp_path / "other.parquet").write_bytes(b"PAR1 but not really")
    database(tmp_path, [])
    with pytest.raises(ConfigurationFaults) as refused:
        configuration(
            tmp_path,
            parquet_source(name="a"),
            parquet_source(name="b", path="other.parquet"),
            parquet_source(name="c", path="none.parquet"),
            parquet_source(
                name="d",
                path=["pump.parquet", "pump.parquet"],
                time={"start": "2024-05-01T12:00:00Z", "period_s": 1},
            ),
            sql_source(name="e", query="SELECT x FROM readings"),
            sql_source(name="f", driver="no_such_driver", database="x"),
            sql_source(name="g", driver="os; import x"),
        )
    told = {fault.code for fault in refused.value.faults}
    assert told == {
        "mapping.unknown_column",
        "source.unreadable",
        "source.file_missing",
        "mapping.several_files",
        "mapping.driver",
    }


def test_the_lives_of_the_pronostia_bearings_are_read(tmp_path: Path) -> None:
    folder = data_folder()
    declared = parquet_source(
        asset_type="bearing-test-rig",
        path=str(folder / "femto" / "features_dev12.parquet"),
        where={"bearing": "Bearing1_2"},
        time={"start": "2012-01-01T00:00:00Z", "period_s": 10},
        channels={f"{_bearing_channels()[0]}.rms": {"column": "h_rms", "unit": "g_n"}},
    )
    source = configuration(tmp_path, declared).sources[0].source
    times, (rms,) = read(source)
    reference = parquet.read_table(
        folder / "femto" / "features_dev12.parquet", columns=["bearing", "h_rms"]
    ).to_pydict()
    expected = [
        value
        for bearing, value in zip(reference["bearing"], reference["h_rms"], strict=True)
        if bearing == "Bearing1_2"
    ]
    assert rms == expected
    assert times[-1] - times[0] == (len(expected) - 1) * 10**10


def _bearing_channels() -> list[str]:
    from domain.asset_types import asset_type

    return [channel.name for channel in asset_type("bearing-test-rig").channels if channel.rate_hz]


def replayed(folder: Path, **declared: Any) -> tuple[list[int], list[list[float]]]:
    """Return all that a recording says, after checking that nothing of it was refused."""
    source = configuration(folder, csv_source(**declared)).sources[0].source
    assert not codes(source)
    return read(source)


def test_the_recorded_year_of_the_wind_turbine_is_read(tmp_path: Path) -> None:
    file = data_folder() / "wind_scada" / "T1.csv"
    times, (power, speed) = replayed(
        tmp_path,
        asset_type="wind-turbine",
        path=str(file),
        time={"column": "Date/Time", "format": "%d %m %Y %H:%M", "zone": "UTC"},
        channels={
            "active_power": {"column": "ActivePower", "unit": "kW"},
            "wind_speed": {"column": "Wind Speed (m/s)", "unit": "m/s"},
        },
    )
    lines = file.read_bytes().splitlines()[1:]
    assert len(times) == len(lines)
    assert [power[0], speed[0]] == [float(cell) for cell in lines[0].split(b",")[1:3]]
    assert times[0] == int(datetime(2018, 1, 1, tzinfo=UTC).timestamp()) * 10**9


def test_the_recorded_year_of_the_steel_plants_meter_is_read(tmp_path: Path) -> None:
    file = data_folder() / "steel_energy" / "Steel_industry_data.csv"
    times, (used,) = replayed(
        tmp_path,
        asset_type="electricity-meter",
        path=str(file),
        time={"column": "date", "format": "%d/%m/%Y %H:%M", "zone": "Asia/Seoul"},
        channels={"energy_used": {"column": "Usage_kWh", "unit": "kWh"}},
    )
    assert used[0] == 3.17
    assert times[0] == int(datetime(2017, 12, 31, 15, 15, tzinfo=UTC).timestamp()) * 10**9


def test_the_hours_of_the_gas_turbine_are_counted(tmp_path: Path) -> None:
    file = data_folder() / "gas_turbine" / "gt_2011.csv"
    times, (energy, inlet) = replayed(
        tmp_path,
        asset_type="gas-turbine",
        path=str(file),
        time={"start": "2011-01-01T00:00:00Z", "period_s": 3_600},
        channels={
            "energy_yield": {"column": "TEY", "unit": "MWh"},
            "inlet_temperature": {"column": "TIT", "unit": "degC"},
        },
    )
    assert (energy[0], inlet[0]) == (134.67, 1086.2)
    assert {b - a for a, b in pairwise(times)} == {3_600 * 10**9}


def test_the_cycles_of_the_hydraulic_rig_are_counted(tmp_path: Path) -> None:
    file = data_folder() / "hydraulic" / "cycle_means_stable.csv"
    times, (pressure, flow) = replayed(
        tmp_path,
        asset_type="hydraulic-test-rig",
        path=str(file),
        time={"start": "2015-01-01T00:00:00Z", "period_s": 60},
        channels={
            "pressure_1": {"column": "psa_bar", "unit": "bar"},
            "flow_1": {"column": "fsa_vol_flow", "unit": "l/min"},
        },
    )
    assert (pressure[0], flow[0]) == (160.67349166666665, 6.709815)
    assert times[-1] - times[0] == (len(times) - 1) * 60 * 10**9


def test_the_looks_at_the_ims_bearings_are_read(tmp_path: Path) -> None:
    channel = f"{_bearing_channels()[0]}.rms"
    times, (rms,) = replayed(
        tmp_path,
        kind="parquet",
        asset_type="bearing-test-rig",
        path=str(data_folder() / "ims" / "features_test2_all984.parquet"),
        time={"column": "timestamp", "format": "iso8601", "zone": "UTC"},
        channels={channel: {"column": "b1_rms", "unit": "g_n"}},
    )
    assert len(times) == 984
    assert all(value > 0 for value in rms)
