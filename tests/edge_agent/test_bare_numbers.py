"""Recordings without headings: CSV by column number, packed files, and bare arrays of numbers."""

from __future__ import annotations

import asyncio
import gzip
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import HeddleError, InvalidInput
from domain.frames import Frame
from edge_agent.collector import Collector
from edge_agent.history.arrays import ArrayFile
from edge_agent.outbox import open_outbox
from edge_agent.readings import Position, Source
from edge_agent.yaml_section import ConfigurationFaults
from tests.edge_agent.configurations import configuration, csv_source, frames
from tests.recordings import data_folder

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
NOON_NS = int(NOON.timestamp()) * 10**9
S = 10**9
COUNTED = {"start": "2024-05-01T12:00:00Z", "period_s": 1}


def read(source: Source, after: Position | None = None) -> tuple[list[int], list[list[float]]]:
    blocks = list(source.read(after))
    times = [int(time) for block in blocks for time in block.rows.times_ns]
    return times, np.concatenate([block.rows.values for block in blocks], axis=1).tolist()


def faults(source: Source) -> list[tuple[int, int, str, str]]:
    return [(f.part, f.row, f.channel, f.code) for b in source.read(None) for f in b.faults]


def source_of(folder: Path, **declared: Any) -> Source:
    return configuration(folder, csv_source(**declared)).sources[0].source


def refused(folder: Path, **declared: Any) -> set[str]:
    with pytest.raises(ConfigurationFaults) as told:
        source_of(folder, **declared)
    return {fault.code for fault in told.value.faults}


# --- CSV ----------------------------------------------------------------------------------

BY_NUMBER = {"flow": {"column": 2, "unit": "l/min"}, "pressure": {"column": 3, "unit": "bar"}}


def test_columns_are_numbered_where_there_is_no_heading(tmp_path: Path) -> None:
    (tmp_path / "pump.csv").write_text("1714564800,1.5,2\n1714564801,3,4\n")
    source = source_of(
        tmp_path, heading=False, time={"column": 1, "format": "unix_s"}, channels=BY_NUMBER
    )
    assert read(source) == ([NOON_NS, NOON_NS + S], [[1.5, 3.0], [2.0, 4.0]])
    assert read(source, Position(0, 1, NOON_NS)) == ([NOON_NS + S], [[3.0], [4.0]])


def test_blanks_of_any_number_are_a_delimiter(tmp_path: Path) -> None:
    (tmp_path / "pump.csv").write_text("  1\t 2   3 \n4 5  6\n7 8\n")
    source = source_of(
        tmp_path, heading=False, delimiter="blanks", time=COUNTED, channels=BY_NUMBER
    )
    assert read(source) == ([NOON_NS, NOON_NS + S], [[2.0, 5.0], [3.0, 6.0]])
    assert faults(source) == [(0, 3, "", "row.cell_count")]


def test_the_conditions_of_the_hydraulic_rig_are_read_without_a_heading(tmp_path: Path) -> None:
    file = data_folder() / "hydraulic" / "profile.txt"
    source = source_of(
        tmp_path,
        path=str(file),
        heading=False,
        delimiter="blanks",
        time=COUNTED,
        channels={"pressure": {"column": 4, "unit": "bar"}},
    )
    assert read(source)[1][0] == np.loadtxt(file)[:, 3].tolist()


def test_packed_files_are_read_as_they_were(tmp_path: Path) -> None:
    plain = "time,flow,pressure\n2024-05-01T12:00:00,1,2\n2024-05-01T12:00:01,3,4\n"
    with gzip.open(tmp_path / "a.csv.gz", "wt") as packed:
        packed.write(plain)
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner/b.csv", plain.replace("12:00", "13:00"))
    source = source_of(tmp_path, path=["a.csv.gz", "b.zip"])
    times, (flow, _) = read(source)
    assert flow == [1.0, 3.0, 1.0, 3.0]
    assert times[2] - times[0] == 3600 * S


def test_what_is_packed_wrong_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(b"no gzip at all")
    (tmp_path / "b.zip").write_bytes(b"no zip either")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("1.csv", "x")
        archive.writestr("2.csv", "x")
    whole = gzip.compress(b"time,flow,pressure\n" + b"2024-05-01T12:00:00,1,2\n" * 9_999)
    (tmp_path / "half.csv.gz").write_bytes(whole[:20])
    for name in ("a.csv.gz", "b.zip", "two.zip", "half.csv.gz"):
        assert refused(tmp_path, path=name) == {"source.unreadable"}, name


def test_files_are_counted_on_from_one_start_wherever_reading_begins(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("q,p\n1,1\n2\n")  # its last row is refused
    (tmp_path / "2.csv").write_text("q,p\n3\n4,4\n")
    (tmp_path / "3.csv").write_text("q,p\n5,5\n6,6\n")
    source = source_of(
        tmp_path,
        path=["1.csv", "2.csv", "3.csv"],
        time=COUNTED,
        channels={"flow": {"column": "q", "unit": "l/min"}},
    )
    times, (flow,) = read(source)
    assert flow == [1.0, 4.0, 5.0, 6.0]
    assert times == [NOON_NS + n * S for n in (0, 3, 4, 5)]
    rows = [(0, 2), (1, 3), (2, 2), (2, 3)]
    for at, (part, row) in enumerate(rows[:-1]):
        resumed, _ = read(source, Position(part, row, times[at]))
        assert resumed == times[at + 1 :]


def test_a_heading_is_there_or_not(tmp_path: Path) -> None:
    (tmp_path / "pump.csv").write_text("1,2\n")
    assert refused(tmp_path, heading="perhaps", time=COUNTED) >= {"configuration.wrong_type"}
    assert refused(tmp_path, heading=False, time=COUNTED) == {"mapping.unknown_column"}


# --- arrays -------------------------------------------------------------------------------


def arrays_source(**changes: Any) -> dict[str, Any]:
    declared = csv_source(
        kind="arrays",
        path="pump.npz",
        arrays=["a"],
        time=COUNTED,
        channels={"flow": {"unit": "l/min"}},
    )
    return declared | changes


def arrays_of(folder: Path, **declared: Any) -> Source:
    return configuration(folder, arrays_source(**declared)).sources[0].source


def wrong(folder: Path, **declared: Any) -> set[str]:
    with pytest.raises(ConfigurationFaults) as told:
        arrays_of(folder, **declared)
    return {fault.code for fault in told.value.faults}


def test_arrays_follow_each_other_with_their_gap(tmp_path: Path) -> None:
    np.savez(tmp_path / "pump.npz", a=np.arange(3, dtype=np.int16), b=np.array([9.0, np.nan]))
    source = arrays_of(tmp_path, arrays=["a", "b"], time=COUNTED | {"gap_s": 60})
    times, (flow,) = read(source)
    assert times == [NOON_NS + n * S for n in (0, 1, 2, 63, 64)]
    assert flow[:4] == [0.0, 1.0, 2.0, 9.0]
    assert faults(source) == [(1, 2, "flow", "cell.not_finite")]
    assert read(source, Position(1, 1, times[3]))[0] == times[4:]
    with pytest.raises(InvalidInput) as shorter:
        read(source, Position(1, 7, times[3]))
    assert shorter.value.code == "source.file_shorter"


def test_looks_begin_at_their_numbers(tmp_path: Path) -> None:
    looks = np.arange(12).reshape(2, 3, 2)
    np.savez(tmp_path / "pump.npz", a=looks, n=np.array([5, 7]))
    clock = COUNTED | {"look_numbers": "n", "look_period_s": 100}
    flow = {"flow": {"unit": "l/min", "column": 1, "scale": 0.1}}
    times, (values,) = read(arrays_of(tmp_path, time=clock, channels=flow))
    assert [(time - NOON_NS) // S for time in times] == [500, 501, 502, 700, 701, 702]
    assert values == [0.1, 0.3, 0.5, 0.7, 0.9, 1.1]


def test_text_without_a_heading_is_one_series(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("1\t2\n3\t4\n")
    with gzip.open(tmp_path / "p.txt.gz", "wt") as packed:
        packed.write("5, x\n1_0;8\n")
    channels = {
        "flow": {"path": "q.txt", "unit": "l/min"},
        "pressure": {"path": "p.txt.gz", "unit": "bar"},
    }
    declared = arrays_source(channels=channels)
    del declared["path"], declared["arrays"]
    source = configuration(tmp_path, declared).sources[0].source
    times, (flow, pressure) = read(source)
    assert (flow, times) == ([1.0, 2.0, 3.0, 4.0], [NOON_NS + n * S for n in range(4)])
    assert np.isnan(pressure).tolist() == [False, True, True, False]
    assert [fault[1:] for fault in faults(source)] == [
        (2, "pressure", "cell.not_finite"),
        (3, "pressure", "cell.not_finite"),
    ]


def test_waveforms_need_a_channel_that_is_one_nowhere_else(tmp_path: Path) -> None:
    np.save(tmp_path / "pump.npy", np.linspace(0, 1, 5_000, dtype=np.float32))
    (source,) = configuration(
        tmp_path,
        arrays_source(path="pump.npy", time={"start": "2024-05-01T12:00:00Z", "rate_hz": 1000.0}),
    ).sources
    assert source.header.channels[0].rate_hz == 1000.0


def test_a_waveform_with_gaps_is_the_same_frames_at_any_speed(tmp_path: Path) -> None:
    noise = np.random.default_rng(3).standard_normal((3, 700))
    np.savez(tmp_path / "pump.npz", a=noise)

    async def collected(speed: float | str) -> list[Frame]:
        folder = tmp_path / str(speed)
        declared = arrays_source(
            asset_type="bearing-test-rig",
            time={"start": "2024-05-01T12:00:00Z", "rate_hz": 1_000.0, "look_period_s": 2},
            channels={"vibration_drive_end": {"unit": "g_n"}},
            window={"seconds": 3, "readings": 1_000},
            replay={"speed": speed},
        )
        (source,) = configuration(tmp_path, declared).sources
        with open_outbox(folder, 10**9) as outbox:
            outbox.adopt("test-agent", {source.name: source.source.parts})
            await Collector(source, outbox, asyncio.Event(), asyncio.Event()).collect()
            return frames(outbox)

    as_fast_as_possible, slower = (asyncio.run(collected(speed)) for speed in ("max", 40))
    assert [f.canonical_sha256 for f in slower] == [f.canonical_sha256 for f in as_fast_as_possible]
    samples = np.concatenate([frame.values[0] for frame in as_fast_as_possible])
    np.testing.assert_array_equal(samples, noise.ravel())
    # No frame reaches over a gap, though windows do.
    assert [len(frame.values[0]) for frame in as_fast_as_possible] == [700, 300, 400, 600, 100]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"path": "none.npz"}, "source.file_missing"),
        ({"arrays": ["z"]}, "mapping.unknown_array"),
        ({"arrays": ["text"]}, "mapping.array_type"),
        ({"arrays": ["objects"]}, "source.unreadable"),
        ({"arrays": ["empty"]}, "mapping.array_shape"),
        ({"arrays": ["cube"]}, "mapping.array_shape"),
        ({"path": "torn.npz"}, "source.unreadable"),
        ({"channels": {"flow": {"unit": "bar"}}}, "unit.quantity_mismatch"),
        ({"channels": {"colour": {"unit": "1"}}}, "channel.unknown"),
        ({"channels": {"flow": {"unit": "l/min", "column": 0}}}, "mapping.array_shape"),
        ({"channels": {}}, "configuration.empty"),
        ({"time": {"start": "soon", "period_s": 1}}, "row.time_unreadable"),
        ({"time": {"start": "2024-05-01T12:00:00Z"}}, "configuration.key_missing"),
        ({"time": COUNTED | {"look_numbers": "a"}}, "configuration.key_missing"),
        (
            {"path": "x.txt", "time": COUNTED | {"look_numbers": "a", "look_period_s": 1}},
            "mapping.look_numbers",
        ),
        (
            {"time": COUNTED | {"look_numbers": "a", "look_period_s": 1}},
            "mapping.array_shape",
        ),
        ({"time": {"start": "2262-01-01T00:00:00Z", "period_s": 1e7}}, "row.time_out_of_range"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    np.savez(
        tmp_path / "pump.npz",
        a=np.arange(5),
        text=np.array(["x"]),
        objects=np.array([{}], object),
        empty=np.array([]),
        cube=np.zeros((2, 2, 2)),
    )
    (tmp_path / "x.txt").write_text("1 2 3")
    (tmp_path / "torn.npz").write_bytes((tmp_path / "pump.npz").read_bytes()[:100])
    assert code in wrong(tmp_path, **changes)


def test_an_array_that_unpacks_beyond_bounds_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.history.arrays.BYTES_MAX", 1_000_000)
    np.savez_compressed(tmp_path / "pump.npz", a=np.zeros(200_000))
    (tmp_path / "long.txt").write_text("0 " * 200_000)
    assert wrong(tmp_path) == {"source.too_large"}
    assert wrong(tmp_path, path="long.txt") == {"source.too_large"}


def test_a_shape_that_is_larger_than_its_file_is_not_allocated(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(10))
    raw = (tmp_path / "x.npy").read_bytes().replace(b"(10,), }", b"(9999999999999,), }"[:19])
    (tmp_path / "x.npy").write_bytes(raw[:128] + raw[-80:])
    with pytest.raises(InvalidInput) as refused:
        ArrayFile(tmp_path / "x.npy").read()
    assert refused.value.code == "source.unreadable"
    (tmp_path / "y.npy").write_bytes(b"PK\x03\x04")
    with pytest.raises(InvalidInput):
        ArrayFile(tmp_path / "y.npy").read()


@settings(max_examples=150, deadline=None)
@given(raw=st.binary(max_size=300), kind=st.sampled_from(["x.npz", "x.npy", "x.txt", "x.txt.gz"]))
def test_hostile_files_are_refused_or_are_numbers(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / kind
    path.write_bytes(raw if raw[:1] != b"N" else b"\x93NUMPY" + raw)
    try:
        found = ArrayFile(path, "a").read()
    except (HeddleError, OSError):
        return
    assert found.dtype.kind in "biuf"
