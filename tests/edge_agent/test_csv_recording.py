"""Recordings as CSV: what a file says is what is read."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from domain.errors import InvalidInput
from edge_agent.readings import Position, RowFault, Rows, Source
from edge_agent.sources import csv_recording
from tests.edge_agent.configurations import (
    configuration,
    csv_source,
    second,
    skab_source,
    write_rows,
)
from tests.recordings import SKAB_COLUMNS, read_skab, skab_recording


def read_all(source: Source, after: Position | None = None) -> tuple[Rows, list[RowFault]]:
    """Return everything that follows `after`."""
    blocks = list(source.read(after))
    rows = blocks[0].rows
    for block in blocks[1:]:
        rows = rows.followed_by(block.rows)
    return rows, [fault for block in blocks for fault in block.faults]


def recording(folder: Path, *lines: str) -> Source:
    write_rows(folder, lines)
    return configuration(folder, csv_source()).sources[0].source


def told(faults: list[RowFault]) -> list[tuple[int, str, str]]:
    return [(fault.row, fault.channel, fault.code) for fault in faults]


@pytest.mark.parametrize("name", ["anomaly-free/anomaly-free", "valve1/0", "valve2/3"])
def test_real_recording_is_read_bit_for_bit(tmp_path: Path, name: str) -> None:
    expected = read_skab(name)
    configured = configuration(tmp_path, skab_source([skab_recording(name)])).sources[0]
    rows, faults = read_all(configured.source)
    assert faults == []
    assert rows.times_ns.tolist() == expected.times_ns.tolist()
    for index, (channel, unit) in enumerate(SKAB_COLUMNS.values()):
        assert configured.source.channels[index] == (channel, unit)
        assert rows.values[index].tobytes() == expected.values[channel].tobytes()


def test_position_of_a_row_is_its_file_and_line(tmp_path: Path) -> None:
    rows, _ = read_all(recording(tmp_path, f"{second(0)},1,2", "", f"{second(1)},3,4"))
    assert rows.numbers.tolist() == [2, 4]
    assert rows.end == Position(0, 4, int(rows.times_ns[1]))


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("", "cell.empty"),
        ("  ", "cell.empty"),
        ("n/a", "cell.not_numeric"),
        ("1;5", "cell.not_numeric"),
        ("1_000", "cell.not_numeric"),
        ("0x10", "cell.not_numeric"),
        ("nan", "cell.not_finite"),
        ("-inf", "cell.not_finite"),
        ("1e999", "cell.not_finite"),
    ],
)
def test_cell_without_a_finite_number_gives_no_reading_and_harms_no_other(
    tmp_path: Path, cell: str, code: str
) -> None:
    lines = [f"{second(0)},1.5,2.5", f"{second(1)},{cell},3.5", f"{second(2)},4.5,5.5"]
    rows, faults = read_all(recording(tmp_path, *lines))
    np.testing.assert_array_equal(rows.values, [[1.5, np.nan, 4.5], [2.5, 3.5, 5.5]])
    assert told(faults) == [(3, "flow", code)]
    assert faults[0].text == cell


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("yesterday,1,2", "row.time_unreadable"),
        (f"{second(1)},1", "row.cell_count"),
        (f"{second(1)},1,2,3", "row.cell_count"),
        (f'{second(1)},"1,2', "row.unreadable"),
        (f"{second(1)},1,{'9' * csv_recording.LINE_LENGTH_MAX}", "row.too_long"),
    ],
)
def test_row_that_cannot_be_told_is_refused_and_harms_no_other(
    tmp_path: Path, line: str, code: str
) -> None:
    rows, faults = read_all(recording(tmp_path, f"{second(0)},1,2", line, f"{second(2)},3,4"))
    assert rows.values.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert told(faults)[0] == (3, "", code)
    assert line.startswith(faults[0].text[:100])


def test_number_is_taken_exactly_as_python_reads_the_text(tmp_path: Path) -> None:
    texts = ["0.1", "1e-320", "-0.0", "1.7976931348623157e308", " 7 ", "0.30000000000000004", "+5"]
    lines = [f"{second(at)},{text},0" for at, text in enumerate(texts)]
    rows, faults = read_all(recording(tmp_path, *lines))
    assert faults == []
    assert rows.values[0].tobytes() == np.array([float(text) for text in texts]).tobytes()


def test_quoted_cells_bom_and_crlf_are_read(tmp_path: Path) -> None:
    lines = ['"time","flow, in","p"', f'"{second(0)}","1.5","2"', ""]
    (tmp_path / "pump.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    channels = {"flow": {"column": "flow, in", "unit": "l/min"}}
    source = configuration(tmp_path, csv_source(channels=channels)).sources[0].source
    rows, faults = read_all(source)
    assert faults == []
    assert rows.values.tolist() == [[1.5]]


def test_files_are_read_one_after_the_other_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write_rows(tmp_path, [f"{second(number)},{number},0"], f"run-{number}.csv")
    source = configuration(tmp_path, csv_source(path="run-*.csv")).sources[0].source
    rows, _ = read_all(source)
    assert source.parts == ("run-1.csv", "run-2.csv", "run-10.csv")
    assert rows.values[0].tolist() == [1.0, 2.0, 10.0]
    assert rows.parts.tolist() == [0, 1, 2]


def test_columns_are_found_by_name_in_each_file(tmp_path: Path) -> None:
    write_rows(tmp_path, [f"{second(0)},1,2"], "a.csv")
    (tmp_path / "b.csv").write_text(f"pressure,more,time,flow\n4,x,{second(1)},3\n")
    source = configuration(tmp_path, csv_source(path=["a.csv", "b.csv"])).sources[0].source
    assert read_all(source)[0].values.tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_reading_resumes_after_any_row_with_the_same_rows(tmp_path: Path) -> None:
    for name, start in (("a.csv", 0), ("b.csv", 20)):
        lines = [f"{second(start + at)},{at},0" for at in range(6)]
        write_rows(tmp_path, [*lines[:3], "broken", *lines[3:]], name)
    source = configuration(tmp_path, csv_source(path=["a.csv", "b.csv"])).sources[0].source
    whole, _ = read_all(source)
    for done in range(1, len(whole)):
        rest, _ = read_all(source, whole.between(0, done).end)
        assert rest.times_ns.tolist() == whole.times_ns[done:].tolist()
        assert rest.values.tolist() == whole.values[:, done:].tolist()


def test_repeated_hour_is_read_right_across_a_resume(tmp_path: Path) -> None:
    minutes = [("01", 50), ("02", 10), ("02", 30), ("02", 50), ("02", 10), ("02", 30), ("03", 10)]
    write_rows(tmp_path, [f"2024-10-27T{hour}:{minute}:00,1,2" for hour, minute in minutes])
    time = {"column": "time", "format": "iso8601", "zone": "Europe/Berlin"}
    source = configuration(tmp_path, csv_source(time=time)).sources[0].source
    whole, _ = read_all(source)
    assert set(np.diff(whole.times_ns) // 60_000_000_000) <= {20, 40}
    rest, _ = read_all(source, whole.between(0, 5).end)
    assert rest.times_ns.tolist() == whole.times_ns[5:].tolist()


def test_file_that_lost_what_was_read_is_told(tmp_path: Path) -> None:
    source = recording(tmp_path, *[f"{second(at)},1,2" for at in range(5)])
    end = read_all(source)[0].end
    write_rows(tmp_path, [f"{second(0)},1,2"])
    with pytest.raises(InvalidInput) as shorter:
        list(source.read(end))
    assert shorter.value.code == "source.file_shorter"


def test_rows_appended_to_the_last_file_are_read_on(tmp_path: Path) -> None:
    lines = [f"{second(at)},{at},2" for at in range(4)]
    source = recording(tmp_path, *lines[:2])
    end = read_all(source)[0].end
    write_rows(tmp_path, lines)
    assert read_all(source, end)[0].values[0].tolist() == [2.0, 3.0]


def test_reader_agrees_with_the_csv_module_on_a_real_recording(tmp_path: Path) -> None:
    file = skab_recording("valve1/1")
    with file.open(newline="") as lines:
        cells = [row["Pressure"] for row in csv.DictReader(lines, delimiter=";")]
    configured = configuration(tmp_path, skab_source([file])).sources[0]
    rows, _ = read_all(configured.source)
    index = [channel for channel, _ in configured.source.channels].index("pressure")
    assert rows.values[index].tolist() == [float(cell) for cell in cells]
