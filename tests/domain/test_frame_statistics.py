"""Statistics: those of the readings, to the bit, from few bytes and in bulk."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInput, MalformedFrame
from domain.frame_decoding import decode
from domain.frame_encoding import encode
from domain.frame_statistics import (
    STATISTICS,
    TEXT_BYTES_KEPT,
    channel_names,
    channel_statistics,
    channel_statistics_many,
    pack_statistics,
    pack_statistics_many,
    unpack_statistics,
    unpack_statistics_many,
    unpack_texts,
)
from domain.frames import (
    ChannelHeader,
    Frame,
    FrameHeader,
    Quality,
    build_frame,
    with_qualities,
)
from tests.domain.frame_samples import flow_frame, frames, small_frame

EXACT = [name for name in STATISTICS.names or () if not name.startswith("sum")]


def numpy_statistics(frame: Frame, index: int) -> tuple[Any, ...]:
    """Return a `STATISTICS` record computed the plain way."""
    good = frame.qualities[index] == Quality.GOOD
    si = frame.channel_si(index)[good]
    times = frame.channel_times_ns(index)[good]
    if len(si) == 0:
        return (len(good), 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        extremes = (np.min(si), np.max(si), np.sum(si), np.sum(si * si))
    return (len(good), len(si), *extremes, si[0], si[-1], times[0], times[-1])


def assert_statistics_of(frame: Frame, records: Any) -> None:
    assert len(records) == len(frame.numeric_channels)
    for record, index in zip(records, frame.numeric_channels, strict=True):
        expected = np.array(numpy_statistics(frame, index), STATISTICS)
        for name in EXACT:
            assert record[name] == expected[name], name
        squares = float(expected["sum_of_squares"])
        if not np.isfinite(squares):
            continue
        scale = max(np.sqrt(float(expected["good_count"]) * squares), 1e-300)
        assert abs(float(record["sum"]) - float(expected["sum"])) <= 1e-10 * scale
        assert abs(float(record["sum_of_squares"]) - squares) <= 1e-10 * squares + 1e-300


@given(frames())
@settings(max_examples=200, deadline=None)
def test_statistics_are_those_of_numpy_computed_or_unpacked(frame: Frame) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        decoded = decode(encode(frame))
        for one in (frame, decoded):
            assert_statistics_of(one, channel_statistics(one))
            names, records = unpack_statistics(pack_statistics(one))
            assert names == tuple(frame.header.names[n] for n in frame.numeric_channels)
            assert_statistics_of(one, records)


@given(st.lists(frames(), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_statistics_are_the_same_in_bulk(several: list[Frame]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        packed = pack_statistics_many(several)
        assert packed == [pack_statistics(frame) for frame in several]
        together = channel_statistics_many(several)
        for frame, records in zip(several, together, strict=True):
            assert records.tobytes() == channel_statistics(frame).tobytes()
        seen: list[int] = []
        for stack in unpack_statistics_many(packed):
            for place, records in zip(stack.places, stack.records, strict=True):
                names, alone = unpack_statistics(packed[place])
                assert (names, alone.tobytes()) == (stack.names, records.tobytes())
                seen.append(place)
        assert sorted(seen) == list(range(len(several)))


def test_statistics_of_every_kind_of_channel() -> None:
    frame = small_frame()
    names, records = unpack_statistics(pack_statistics(frame))
    assert names == ("flow", "temperature", "starts", "running")
    flow, temperature, starts, running = records
    assert flow["max"] == 32.021 * 1e-3 / 60
    assert (temperature["reading_count"], temperature["good_count"]) == (4, 1)
    assert temperature["last"] == temperature["sum"] == 25.5 + 273.15
    assert (starts["sum"], starts["sum_of_squares"]) == (23.0, 177.0)
    assert (running["first"], running["last"], running["sum"]) == (0.0, 1.0, 2.0)


def test_a_channel_without_a_good_reading_has_counts_alone() -> None:
    frame = with_qualities(flow_frame(), [np.full(3, Quality.BAD, np.uint8)])
    for records in (channel_statistics(frame), unpack_statistics(pack_statistics(frame))[1]):
        assert records[0].tolist() == (3, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)


def test_eight_decimal_channels_take_few_bytes() -> None:
    channels = tuple(ChannelHeader(f"temperature_{n}", "degC", 1.0, 273.15) for n in range(8))
    random = np.random.default_rng(2)
    frame = build_frame(
        FrameHeader("press-1", "agent-1", channels),
        1,
        [np.arange(125) * 10**9],
        [random.normal(40, 1, 125).round(3) for _ in channels],
        [None] * 8,
    )
    assert len(pack_statistics(frame)) < 250


# --- text ---------------------------------------------------------------------------------


def text_frame(texts: list[str], mask: list[int] | None = None) -> Frame:
    channels = (
        ChannelHeader("mode", "1", 1.0, 0.0, "str"),
        ChannelHeader("speed", "rpm", 2.0, 0.0),
    )
    values = [np.array(texts, object), np.arange(len(texts)) * 1.0]
    quality = None if mask is None else np.array(mask, np.uint8)
    return build_frame(
        FrameHeader("a", "b", channels), 1, [np.arange(len(texts)) * 10], values, [quality, None]
    )


def test_of_text_the_first_and_the_last_good_one_are_kept() -> None:
    packed = pack_statistics(text_frame(["x", "RUN", "STOP", "y"], [1, 0, 0, 3]))
    assert unpack_statistics(packed)[0] == ("speed",)
    assert channel_names(packed) == ("mode", "speed")
    text = unpack_texts(packed)["mode"]
    assert (text.reading_count, text.good_count) == (4, 2)
    assert (text.first, text.last, text.first_ns, text.last_ns) == ("RUN", "STOP", 10, 20)


def test_text_that_is_all_good_or_not_at_all() -> None:
    text = unpack_texts(pack_statistics(text_frame(["", "STOP"])))["mode"]
    assert (text.good_count, text.first, text.last) == (2, "", "STOP")
    assert (text.first_ns, text.last_ns) == (0, 10)
    text = unpack_texts(pack_statistics(text_frame(["", "STOP"], [2, 2])))["mode"]
    assert (text.reading_count, text.good_count, text.first, text.last) == (2, 0, None, None)


def test_a_long_text_is_cut_at_a_character() -> None:
    text = unpack_texts(pack_statistics(text_frame(["é" * 400])))["mode"]
    assert text.first == "é" * (TEXT_BYTES_KEPT // 2)


# --- other versions, hostile bytes --------------------------------------------------------


def packed_1(names: list[str], records: Any) -> bytes:
    """Return statistics of version 1."""
    joined = "\n".join(names).encode()
    return struct.pack("<BH", 1, len(joined)) + joined + np.asarray(records).tobytes()


def test_statistics_of_version_1_are_read_for_ever() -> None:
    frame = small_frame()
    records = channel_statistics(frame)
    packed = packed_1(list(frame.header.names), records)
    names, unpacked = unpack_statistics(packed)
    assert names == channel_names(packed) == frame.header.names
    assert unpacked.tobytes() == records.tobytes()
    assert unpack_texts(packed) == {}
    first, second = unpack_statistics_many([packed, pack_statistics(frame)])
    assert (first.places, second.places) == ((0,), (1,))


@pytest.mark.parametrize("version", [0, 3, 255])
def test_statistics_of_an_unknown_version_are_refused(version: int) -> None:
    packed = pack_statistics(flow_frame())
    with pytest.raises(InvalidInput) as refused:
        unpack_statistics(bytes([version]) + packed[1:])
    assert refused.value.code == "frame.statistics_version"
    assert refused.value.value == version


def test_every_truncation_is_refused() -> None:
    for packed in (
        pack_statistics(small_frame()),
        pack_statistics(text_frame(["a", "b"], [0, 1])),
        packed_1(["flow"], channel_statistics(flow_frame())),
    ):
        for length in range(len(packed)):
            with pytest.raises(MalformedFrame):
                unpack_statistics(packed[:length])
        with pytest.raises(MalformedFrame):
            unpack_statistics(packed + b"\x00")


def test_every_changed_byte_is_read_or_refused() -> None:
    for packed in (
        pack_statistics(small_frame()),
        pack_statistics(text_frame(["a", "bc"], [0, 1])),
        packed_1(["flow"], channel_statistics(flow_frame())),
    ):
        for at in range(len(packed)):
            for flipped in (1, 4, 16, 64, 128, 255):
                changed = packed[:at] + bytes([packed[at] ^ flipped]) + packed[at + 1 :]
                for read in (unpack_statistics, unpack_texts):
                    try:
                        read(changed)
                    except InvalidInput:
                        continue


@given(st.binary(max_size=100))
def test_random_bytes_are_refused(raw: bytes) -> None:
    for prefix in (b"", b"\x01\x03\x00a\nb", b"\x02\x04\x00\x00{}"):
        try:
            unpack_statistics(prefix + raw)
        except InvalidInput:
            continue
