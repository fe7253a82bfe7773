"""The archive's layout: any windows come back bit for bit, and no file is believed unread."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.frames import ChannelHeader, Frame, FrameHeader, Quality, build_frame, header_bytes
from eventlog.archive import layout as archive_layout
from eventlog.archive.layout import (
    ArchiveDamaged,
    Block,
    SegmentFile,
    Window,
    write_segment,
)
from tests.domain.frame_samples import frames
from tests.eventlog.new_events import frame_of

VERSION_1 = Path(__file__).parent / "archive_version_1.parquet"


def written(windows: list[Window]) -> bytes:
    return write_segment("plant-1", "telemetry:loop-1", windows).content


def blocks_of(content: bytes) -> list[Block]:
    return list(SegmentFile(io.BytesIO(content), "a.parquet").blocks())


def read_back(content: bytes) -> list[Window]:
    return [window for block in blocks_of(content) for window in block.windows]


def assert_same(windows: list[Window], again: list[Window]) -> None:
    for window, other in zip(windows, again, strict=True):
        assert window.position == other.position
        assert window.frame.canonical_sha256 == other.frame.canonical_sha256
        for column, same in zip(window.frame.values, other.frame.values, strict=True):
            assert column.dtype == same.dtype


@st.composite
def windows_of_a_header(draw: st.DrawFn) -> list[Window]:
    """Frames of one header: the first as drawn, the others cut from it."""
    frame = draw(frames())
    windows = [Window(7, frame)]
    for n in range(draw(st.integers(0, 4))):
        lengths = [draw(st.integers(1, len(clock))) for clock in frame.clocks]
        cuts = [slice(0, lengths[channel.clock]) for channel in frame.header.channels]
        cut = build_frame(
            frame.header,
            n + 1,
            [clock[:length] for clock, length in zip(frame.clocks, lengths, strict=True)],
            [column[cut] for column, cut in zip(frame.values, cuts, strict=True)],
            [mask[cut] for mask, cut in zip(frame.qualities, cuts, strict=True)],
        )
        windows.append(Window(8 + n, cut))
    return windows


@given(windows_of_a_header())
@settings(max_examples=300)
def test_any_windows_come_back_bit_for_bit(windows: list[Window]) -> None:
    assert_same(windows, read_back(written(windows)))


@pytest.mark.parametrize(("windows_max", "readings_max"), [(1, 10**6), (3, 10**6), (100, 12)])
def test_blocks_are_bounded_and_a_long_window_stands_alone(
    monkeypatch: pytest.MonkeyPatch, windows_max: int, readings_max: int
) -> None:
    monkeypatch.setattr(archive_layout, "BLOCK_WINDOWS_MAX", windows_max)
    monkeypatch.setattr(archive_layout, "BLOCK_READINGS_MAX", readings_max)
    windows = [Window(n, frame_of(n, length=40 if n == 4 else 5)) for n in range(1, 10)]
    segment = write_segment("plant-1", "telemetry:loop-1", windows)
    assert [position for block in segment.blocks for position in block] == list(range(1, 10))
    for block, positions in zip(blocks_of(segment.content), segment.blocks, strict=True):
        assert tuple(window.position for window in block.windows) == positions
        assert len(positions) <= windows_max
        assert len(positions) == 1 or sum(w.frame.reading_count for w in block.windows) <= (
            readings_max
        )
    assert_same(windows, read_back(segment.content))


def test_a_reading_that_is_missing_is_null_and_every_decimal_is_exact() -> None:
    channels = (
        ChannelHeader("flow", "l/min", 1 / 60_000, 0.0),
        ChannelHeader("a.b", "V", 1.0, 0.0, "f4"),
        ChannelHeader("count", "1", 1.0, 0.0, "i8"),
        ChannelHeader("on", "1", 1.0, 0.0, "b1"),
        ChannelHeader("noise", "g_n", 1.0, 0.0),
    )
    missing = np.array([0, int(Quality.MISSING), int(Quality.BAD)], np.uint8)
    frame = build_frame(
        FrameHeader("loop-1", "agent-1", channels),
        1,
        [np.array([0, 1_000_000, 5_000_000], np.int64)],
        [
            np.array([0.1, np.nan, 27.3000]),
            np.array([0.5, 0.25, -1.125], np.float32),
            np.array([-(2**63), 0, 2**63 - 1]),
            np.array([True, False, True]),
            np.array([0.1, 0.2, 1 / 3]),
        ],
        [missing, None, missing, missing, missing],
    )
    content = written([Window(1, frame)])
    assert_same([Window(1, frame)], read_back(content))
    table = pq.read_table(io.BytesIO(content))
    assert [str(v) for v in table["flow"][0].as_py() if v is not None] == ["0.1", "27.3"]
    assert table["flow"][0].as_py()[1] is None
    assert table["on"][0].as_py() == [True, None, True]
    assert table.schema.field("flow").type.value_type == pa.decimal32(9, 1)
    assert table.schema.field("noise").type.value_type == pa.float64()
    assert table.schema.field("_time").type.value_type == pa.timestamp("ms", "UTC")
    assert table["_quality_flow"][0].as_py() == [0, 3, 2]
    assert "_quality_a.b" not in table.column_names


def test_a_file_written_long_ago_is_read_for_ever() -> None:
    windows = [Window(n, frame_of(n, start_ns=n * 10**9)) for n in range(1, 4)]
    assert_same(windows, read_back(VERSION_1.read_bytes()))


def with_metadata(content: bytes, **changes: bytes) -> bytes:
    table = pq.read_table(io.BytesIO(content))
    metadata = dict(table.schema.metadata) | {
        f"heddle.{name}".encode(): value for name, value in changes.items()
    }
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    return sink.getvalue()


def without(content: bytes, column: str) -> bytes:
    table = pq.read_table(io.BytesIO(content)).drop_columns([column])
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def bomb() -> bytes:
    """A small file whose one row group unpacks to more than a block may take."""
    header = written([Window(1, frame_of(1))])
    metadata = pq.read_table(io.BytesIO(header)).schema.metadata
    rows = 50
    lists = [np.zeros(400_000)] * rows
    table = pa.table(
        {
            "_position": range(rows),
            "_sequence": range(rows),
            "_time": [[1]] * rows,
            "supply_voltage": lists,
        }
    ).replace_schema_metadata(metadata)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    assert len(sink.getvalue()) < 100_000
    return sink.getvalue()


def test_what_is_no_file_of_this_layout_is_refused() -> None:
    good = written([Window(n, frame_of(n)) for n in range(1, 5)])
    header = FrameHeader("loop-1", "agent-1", (ChannelHeader("flow", "V", 1.0, 0.0),))
    plain = io.BytesIO()
    pq.write_table(pa.table({"x": [1]}), plain)
    for content in (
        b"",
        good[:100],
        plain.getvalue(),
        with_metadata(good, archive_version=b"2"),
        with_metadata(good, frame_header=b"{}"),
        with_metadata(good, frame_header=header_bytes(header)),
        *(without(good, name) for name in ("_time", "_position", "_sequence", "supply_voltage")),
        bomb(),
    ):
        with pytest.raises(ArchiveDamaged) as refused:
            read_back(content)
        assert refused.value.code == "archive.damaged"
        assert "a.parquet" in refused.value.message
    with pytest.raises(ArchiveDamaged):
        SegmentFile(io.BytesIO(good), "a.parquet").block(1)


def test_damage_anywhere_is_refused_or_changes_no_hash_unnoticed() -> None:
    windows = [Window(n, frame_of(n)) for n in range(1, 5)]
    good, dice = written(windows), random.Random(5)
    hashes = [window.frame.canonical_sha256 for window in windows]
    found = 0
    for _ in range(400):
        spoilt = bytearray(good)
        spoilt[dice.randrange(len(good))] ^= 1 << dice.randrange(8)
        try:
            again = read_back(bytes(spoilt))
        except ArchiveDamaged:
            found += 1
        else:
            found += hashes != [frame_hash(window.frame) for window in again]
    assert found > 100


def frame_hash(frame: Frame) -> bytes:
    """Return what a reader compares; windows that cannot be hashed are found out by that."""
    return frame.canonical_sha256
