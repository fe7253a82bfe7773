"""Encoding 2: exact round trips alone and together, and no harm from hostile bytes."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.asset_types import asset_type
from domain.errors import InvalidInput, MalformedFrame
from domain.frame_checks import header_for
from domain.frame_decoding import decode, decode_many
from domain.frame_encoding import encode, encode_many
from domain.frame_layout import PRELUDE_2, peek
from domain.frames import (
    CHANNELS_MAX,
    FRAME_BYTES_MAX,
    READINGS_MAX,
    TEXT_BYTES_MAX,
    VALUE_TYPES,
    ChannelHeader,
    Frame,
    FrameHeader,
    Quality,
    build_frame,
    canonical_bytes,
    waveform_times_ns,
    with_qualities,
)
from tests.domain.frame_reference import read_frame
from tests.domain.frame_samples import assert_same_bits, flow_frame, frames, small_frame
from tests.recordings import SKAB_COLUMNS, read_skab

MEBIBYTE = 1024 * 1024
VECTORS = sorted((Path(__file__).parent / "vectors").glob("*.json"))


@given(frames())
@settings(max_examples=300)
def test_decoding_gives_back_every_bit(frame: Frame) -> None:
    decoded = decode(encode(frame))
    assert_same_bits(decoded, frame)
    assert decoded.canonical_sha256 == frame.canonical_sha256


@given(st.lists(frames(), min_size=1, max_size=5))
@settings(max_examples=60)
def test_frames_are_coded_together_as_they_are_alone(several: list[Frame]) -> None:
    encoded = encode_many(several)
    assert encoded == [encode(frame) for frame in several]
    for frame, decoded in zip(several, decode_many(encoded), strict=True):
        assert isinstance(decoded, Frame)
        assert_same_bits(decoded, frame)
        assert canonical_bytes(decoded) == canonical_bytes(frame)


@pytest.mark.parametrize("name", ["valve1/1", "valve2/0", "anomaly-free/anomaly-free"])
def test_a_real_recording_comes_back_bit_by_bit(name: str) -> None:
    recording = read_skab(name)
    pump_loop = asset_type("skab-pump-loop")
    header = header_for(pump_loop, "loop-1", "agent-1", list(SKAB_COLUMNS.values()))
    windows = []
    for sequence, start in enumerate(range(0, len(recording.times_ns), 125), start=1):
        window = slice(start, start + 125)
        times_ns = recording.times_ns[window]
        increasing = np.concatenate(([True], np.diff(np.maximum.accumulate(times_ns)) > 0))
        values = [recording.values[c.name][window][increasing] for c in header.channels]
        windows.append(build_frame(header, sequence, [times_ns[increasing]], values, [None] * 8))
    encoded = encode_many(windows)
    for frame, decoded in zip(windows, decode_many(encoded), strict=True):
        assert isinstance(decoded, Frame)
        assert_same_bits(decoded, frame)
        for index, declared in enumerate(header.channels):
            np.testing.assert_array_equal(
                decoded.channel_si(index),
                frame.values[index] * declared.factor + declared.offset,
            )
    readings = sum(frame.reading_count for frame in windows)
    assert readings > 0.99 * 8 * len(recording.times_ns)
    assert sum(map(len, encoded)) < 2.2 * readings  # of eight bytes each as they came


def test_float32_is_converted_to_si_in_float64() -> None:
    header = FrameHeader("a", "b", (ChannelHeader("t", "degC", 1.0, 273.15, "f4"),))
    values = np.array([0.1, 25.7], np.float32)
    frame = build_frame(header, 1, [np.array([1, 2])], [values], [None])
    for one in (frame, decode(encode(frame))):
        assert one.channel_si(0).dtype == np.float64
        np.testing.assert_array_equal(one.channel_si(0), values.astype(np.float64) + 273.15)


def test_values_at_the_ends_of_int64_survive() -> None:
    header = FrameHeader("a", "b", (ChannelHeader("n", "1", 1.0, 0.0, "i8"),))
    low, high = -(2**63), 2**63 - 1
    for column in (
        [low, high],
        [high, low, high],
        [high - 3, high, high - 1],
        [low, low + 2**53, low],
        [low, low + 2**53 - 1, low],
        [0, 2**53 - 1, 2**53, 2**53 + 1],
    ):
        values = np.array(column, np.int64)
        frame = build_frame(header, 1, [np.arange(len(column))], [values], [None])
        np.testing.assert_array_equal(decode(encode(frame)).values[0], values)


def test_a_clock_over_all_of_int64_survives() -> None:
    times = np.array([-(2**63), -1, 0, 2**63 - 1], np.int64)
    frame = flow_frame(clocks=[times], values=[np.zeros(4)])
    np.testing.assert_array_equal(decode(encode(frame)).clocks[0], times)


@pytest.mark.parametrize("time_ns", [2**63 - 1, 2**63 - 512, -(2**63), -1, 0, 2**55 - 1, 2**56])
def test_a_single_time_anywhere_survives(time_ns: int) -> None:
    frame = flow_frame(clocks=[np.array([time_ns])], values=[np.zeros(1)])
    assert decode(encode(frame)).clocks[0].tolist() == [time_ns]


def test_a_missing_value_has_one_form_whatever_the_sensor_left_there() -> None:
    kinds = [kind for kind in VALUE_TYPES if kind != "str"]
    header = FrameHeader(
        "a", "b", tuple(ChannelHeader(f"c-{kind}", "V", 1.0, 0.0, kind) for kind in kinds)
    )
    missing = np.array([Quality.GOOD, Quality.MISSING], np.uint8)
    left, right = (
        build_frame(
            header,
            1,
            [np.array([1, 2])],
            [np.array([1, junk], VALUE_TYPES[kind]) for kind in kinds],
            [missing] * len(kinds),
        )
        for junk in (7, 0)
    )
    assert canonical_bytes(left) == canonical_bytes(right)
    for kind, column in zip(kinds, left.values, strict=True):
        assert np.isnan(column[1]) if kind.startswith("f") else column[1] == 0
    assert_same_bits(decode(encode(left)), left)


def test_a_column_of_white_noise_is_not_coded_by_its_differences() -> None:
    noise = np.random.default_rng(3).normal(0, 50, 1000).round() + 0.0
    as_it_is, ordered = (
        len(encode(flow_frame(clocks=[np.arange(1000)], values=[column])))
        for column in (noise, np.sort(noise))
    )
    bits = np.log2(50 * np.sqrt(2 * np.pi * np.e))  # entropy of the noise
    assert as_it_is < 1.08 * 1000 * bits / 8 + 80
    assert ordered < as_it_is / 3


def test_what_frames_share_cannot_be_written_to() -> None:
    frame = decode(encode(flow_frame()))
    for array in (frame.values[0], frame.clocks[0], frame.qualities[0], frame.channel_si(0)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_other_qualities_keep_the_values() -> None:
    frame = decode(encode(small_frame()))
    marked = with_qualities(frame, [np.full(len(v), Quality.BAD, np.uint8) for v in frame.values])
    assert not marked.all_good
    for index in range(3):
        np.testing.assert_array_equal(marked.channel_si(index), frame.channel_si(index))


# --- hostile bytes ------------------------------------------------------------------------


def every_feature() -> Frame:
    """Return a small frame with a table, unary, drift, masks, text, waveforms, packed floats."""
    channel = ChannelHeader("pressure", "bar", 1e5, 0.0)
    header = FrameHeader(
        "pump-1",
        "agent-1",
        (
            channel,
            replace(channel, name="noise"),
            replace(channel, name="counter", value_type="u4"),
            replace(channel, name="pi"),
            ChannelHeader("mode", "1", 1.0, 0.0, "str", 1),
            replace(channel, name="wave", value_type="i2", clock=2, rate_hz=12_000.0),
        ),
        clock_count=3,
    )
    random = np.random.default_rng(5)
    return build_frame(
        header,
        42,
        [
            10**15 + np.cumsum(random.integers(1, 900, 16)),
            np.array([5, 9]),
            waveform_times_ns(77, 12_000.0, 5),
        ],
        [
            np.tile([0.054711, -0.273216, 0.382638, 0.054711], 4),
            random.normal(3, 2, 16).round(2),
            (100 + 7 * np.arange(16)).astype(np.uint32),
            random.normal(size=16),
            np.array(["RUN", "STÖP"], object),
            np.array([1, -2, 3, -4, 500], np.int16),
        ],
        [None, random.integers(0, 4, 16).astype(np.uint8), None, None, None, None],
    )


def decodes_or_is_refused(encoded: bytes) -> None:
    try:
        frame = decode(encoded)
    except InvalidInput:
        return
    assert_same_bits(decode(encode(frame)), frame)


def split(encoded: bytes) -> tuple[bytes, bytes, bytes]:
    """Return an encoded frame as (what stands before, the packed section unpacked, the columns)."""
    prelude = peek(encoded)
    at = prelude.body_offset + prelude.header_length
    length = int.from_bytes(encoded[at : at + 4], "little")
    packed = zstandard.ZstdDecompressor().decompress(
        encoded[at + 4 : at + 4 + length], max_output_size=prelude.packed_length
    )
    return encoded[:at], packed, encoded[at + 4 + length :]


def with_packed(encoded: bytes, packed: bytes, section: bytes | None = None) -> bytes:
    """Return `encoded` with another packed section, its lengths put right."""
    before, _, columns = split(encoded)
    if section is None:
        section = zstandard.ZstdCompressor().compress(packed)
    before = before[:16] + struct.pack("<I", len(packed)) + before[20:]
    return before + struct.pack("<I", len(section)) + section + columns


def test_every_truncation_is_refused() -> None:
    encoded = encode(every_feature())
    for length in range(len(encoded)):
        with pytest.raises(MalformedFrame):
            decode(encoded[:length])


def test_every_changed_byte_decodes_to_something_or_is_refused() -> None:
    encoded = encode(every_feature())
    for at in range(len(encoded)):
        for flipped in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            changed = bytes([encoded[at] ^ flipped])
            decodes_or_is_refused(encoded[:at] + changed + encoded[at + 1 :])


def test_every_changed_byte_of_the_packed_section_decodes_or_is_refused() -> None:
    encoded = encode(every_feature())
    _, packed, _ = split(encoded)
    assert decode(with_packed(encoded, packed)).sequence == 42
    for at in range(len(packed)):
        for flipped in (1, 128, 255):
            changed = packed[:at] + bytes([packed[at] ^ flipped]) + packed[at + 1 :]
            decodes_or_is_refused(with_packed(encoded, changed))


def test_every_truncation_of_the_packed_section_is_refused() -> None:
    encoded = encode(every_feature())
    _, packed, _ = split(encoded)
    for length in range(len(packed)):
        with pytest.raises(MalformedFrame):
            decode(with_packed(encoded, packed[:length]))


@given(st.data(), st.binary(max_size=80))
@settings(max_examples=300)
def test_random_columns_after_a_good_header_decode_or_are_refused(
    data: st.DataObject, tail: bytes
) -> None:
    encoded = encode(every_feature())
    before, _, columns = split(encoded)
    cut = len(encoded) - len(columns) + data.draw(st.integers(0, len(columns)))
    assert before
    decodes_or_is_refused(encoded[:cut] + tail)


@given(st.lists(st.binary(max_size=200), max_size=4), st.integers(0, 4))
def test_bad_frames_do_not_harm_their_neighbours(bad: list[bytes], place: int) -> None:
    good = encode(every_feature())
    broken = good[:-3]
    together = [*bad, broken]
    together.insert(min(place, len(bad)), good)
    results = decode_many(together)
    assert len(results) == len(together)
    for raw, result in zip(together, results, strict=True):
        if raw is good:
            assert isinstance(result, Frame)
            assert_same_bits(result, every_feature())
        else:
            assert isinstance(result, InvalidInput)


@pytest.mark.parametrize("junk", [b"\x00", b"\x01", b"junk"])
def test_bytes_after_the_frame_are_refused(junk: bytes) -> None:
    for frame in (flow_frame(), every_feature()):
        with pytest.raises(MalformedFrame) as refused:
            decode(encode(frame) + junk)
        assert refused.value.code in ("frame.trailing_bytes", "frame.bits")


def test_bytes_after_the_last_packed_column_are_refused() -> None:
    encoded = encode(every_feature())
    with pytest.raises(MalformedFrame) as refused:
        decode(with_packed(encoded, split(encoded)[1] + b"\x00"))
    assert refused.value.code == "frame.trailing_bytes"


def prelude(
    readings: int = 3, packed: int = 0, clocks: tuple[int, ...] = (3,), sequence: int = 1
) -> bytes:
    return PRELUDE_2.pack(b"HDF", 2, sequence, readings, packed, 0, len(clocks)) + struct.pack(
        f"<{len(clocks)}I", *clocks
    )


@pytest.mark.parametrize(
    ("encoded", "code"),
    [
        (b"HDF\x02" + b"\x00" * 15, "frame.truncated"),
        (b"HDF\x03" + b"\x00" * 30, "frame.version"),
        (prelude(clocks=()), "frame.clock"),
        (prelude(clocks=(1,) * (CHANNELS_MAX + 1)), "frame.clock"),
        (prelude(clocks=(0,)), "frame.too_many_readings"),
        (prelude(clocks=(READINGS_MAX + 1,)), "frame.too_many_readings"),
        (prelude(clocks=(2**32 - 1,) * 2), "frame.too_many_readings"),
        (prelude(readings=READINGS_MAX + 1), "frame.too_many_readings"),
        (prelude(packed=2**32 - 1), "frame.too_many_readings"),
        (b"HDF\x02" + b"\x00" * FRAME_BYTES_MAX, "frame.too_large"),
    ],
)
def test_a_prelude_out_of_bounds_is_refused(encoded: bytes, code: str) -> None:
    for reader in (peek, decode):
        with pytest.raises(MalformedFrame) as refused:
            reader(encoded)
        assert refused.value.code == code


def test_a_sequence_of_zero_is_refused() -> None:
    encoded = encode(flow_frame())
    with pytest.raises(MalformedFrame) as refused:
        decode(encoded[:4] + bytes(8) + encoded[12:])
    assert refused.value.code == "frame.sequence_out_of_range"


def test_the_prelude_tells_what_a_receipt_needs() -> None:
    seen = peek(encode(small_frame()))
    assert (seen.sequence, seen.clock_lengths, seen.readings) == (42, (4, 3), 14)
    assert seen.body_length >= 14 * 9 + 7 * 8


def zstd_header_declaring(size: int) -> bytes:
    """Return a zstd frame header with an 8-byte content size, and an empty last block."""
    return b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + b"\x01\x00\x00"


def many_channels(readings_each: int) -> bytes:
    """Return a frame whose clock is small and whose channels together are beyond the limit."""
    channels = tuple(ChannelHeader(f"c{n}", "V", 1.0, 0.0) for n in range(CHANNELS_MAX))
    header = FrameHeader("a", "b", channels).packed
    return (
        PRELUDE_2.pack(b"HDF", 2, 1, READINGS_MAX, 0, len(header), 1)
        + struct.pack("<I", readings_each)
        + header
        + bytes(3 * (CHANNELS_MAX + 1))
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: with_packed(encode(every_feature()), b"x" * 99, zstd_header_declaring(2**33)),
        lambda: with_packed(encode(every_feature()), b"x" * 99, zstd_header_declaring(2**64 - 3)),
        lambda: with_packed(
            encode(every_feature()),
            b"x" * 99,
            zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100 * MEBIBYTE)),
        ),
        lambda: many_channels(READINGS_MAX // 2),
        lambda: encode(flow_frame()) + b"\xff" * (3 * MEBIBYTE),
        lambda: encode(every_feature()) + b"\xff" * (3 * MEBIBYTE),
    ],
    ids=[
        "8 GiB declared",
        "16 EiB declared",
        "100 MiB of zeros undeclared",
        "too many channels on one clock",
        "3 MiB after the columns",
        "25 million unary codes",
    ],
)
def test_a_small_hostile_frame_costs_little_memory(make: Callable[[], bytes]) -> None:
    encoded = make()
    tracemalloc.start()
    try:
        with pytest.raises(MalformedFrame):
            decode(encoded)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 70 * MEBIBYTE


def test_the_largest_frame_is_read_within_bounded_memory() -> None:
    times = np.arange(READINGS_MAX)
    encoded = encode(flow_frame(clocks=[times], values=[np.zeros(READINGS_MAX)]))
    assert len(encoded) < 10_000
    tracemalloc.start()
    try:
        frame = decode(encoded)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert frame.reading_count == READINGS_MAX
    assert peak_bytes < 100 * MEBIBYTE


def test_texts_that_are_together_too_large_are_refused() -> None:
    header = FrameHeader("a", "b", (ChannelHeader("mode", "1", 1.0, 0.0, "str"),))
    count = TEXT_BYTES_MAX // 1024
    frame = build_frame(
        header, 1, [np.arange(count)], [np.array(["x" * 1023] * count, object)], [None]
    )
    encoded = encode(frame)
    table = struct.pack("<IH", 1, 1024) + b"x" * 1024
    assert decode(with_packed(encoded, split(encoded)[1])).reading_count == count
    larger = with_packed(encoded, table)
    assert decode(larger).reading_count == count
    with pytest.raises(MalformedFrame) as refused:
        decode(with_packed(encoded, struct.pack("<IH", 1, 1025) + b"x" * 1025))
    assert refused.value.code == "frame.text"


# --- a second reader ----------------------------------------------------------------------


def assert_read_alike(frame: Frame, encoded: bytes) -> None:
    """Fail unless the reference reader finds in `encoded` what `frame` holds."""
    read = read_frame(encoded)
    assert json.dumps(read.header, sort_keys=True) == json.dumps(
        json.loads(frame.header.canonical), sort_keys=True
    )
    assert read.sequence == frame.sequence
    assert read.clocks == [clock.tolist() for clock in frame.clocks]
    assert read.qualities == [quality.tolist() for quality in frame.qualities]
    for column, values, quality in zip(read.values, frame.values, frame.qualities, strict=True):
        expected = [
            None if q == Quality.MISSING else value
            for value, q in zip(values.tolist(), quality.tolist(), strict=True)
        ]
        assert list(map(repr, column)) == list(map(repr, expected))


@given(frames())
@settings(max_examples=150)
def test_a_reader_written_from_the_page_alone_reads_the_same(frame: Frame) -> None:
    assert_read_alike(frame, encode(frame))


def test_the_reference_reads_every_feature() -> None:
    assert_read_alike(every_feature(), encode(every_feature()))


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_the_reference_reads_the_vectors(path: Path) -> None:
    encoded = bytes.fromhex(json.loads(path.read_text())["encoded_2"])
    assert_read_alike(decode(encoded), encoded)


def test_a_plain_header_is_read_too() -> None:
    """A writer may leave the dictionary alone."""
    frame = flow_frame()
    encoded = encode(frame)
    plain = b"\x00" + frame.header.canonical
    at = 24 + 4
    other = (
        encoded[:20]
        + struct.pack("<HH", len(plain), 1)
        + encoded[24:at]
        + plain
        + encoded[at + len(frame.header.packed) :]
    )
    assert_same_bits(decode(other), frame)
    assert_read_alike(frame, other)
