"""Frames: exact round trips, one hash whatever the encoding, and no harm from hostile bytes."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.asset_types import asset_type
from domain.errors import InvalidInput, MalformedFrame
from domain.frame_checks import header_for
from domain.frames import (
    CHANNELS_MAX,
    FRAME_BYTES_MAX,
    READINGS_MAX,
    SEQUENCE_MAX,
    STATISTICS,
    VALUE_TYPES,
    ChannelHeader,
    Frame,
    FrameHeader,
    Quality,
    build_frame,
    canonical_bytes,
    channel_statistics,
    decode,
    encode,
    header_bytes,
    pack_statistics,
    parse_header,
    peek,
    unpack_statistics,
    with_qualities,
)
from tests.domain.frame_samples import PRELUDE, body_of, frames, recoded, small_frame, with_body
from tests.recordings import SKAB_COLUMNS, read_skab

MEBIBYTE = 1024 * 1024
VECTORS = sorted((Path(__file__).parent / "vectors").glob("*.json"))


def assert_same_bits(left: Frame, right: Frame) -> None:
    assert left.header == right.header
    assert left.sequence == right.sequence
    for mine, its in zip(left.clocks, right.clocks, strict=True):
        np.testing.assert_array_equal(mine, its)
    for mine, its in zip(left.values, right.values, strict=True):
        assert mine.dtype == its.dtype
        assert mine.tobytes() == its.tobytes()
    for left_mask, right_mask in zip(left.qualities, right.qualities, strict=True):
        np.testing.assert_array_equal(left_mask, right_mask)


def flow_frame(**changes: Any) -> Frame:
    parts: dict[str, Any] = {
        "header": FrameHeader("pump-1", "agent-1", (ChannelHeader("flow", "V", 1.0, 0.0),)),
        "sequence": 1,
        "clocks": [np.array([10, 20, 30])],
        "values": [np.array([1.0, 2.0, 3.0])],
        "qualities": [None],
    }
    return build_frame(**{**parts, **changes})


# --- round trips --------------------------------------------------------------------------


@given(frames())
@settings(max_examples=300)
def test_decoding_gives_back_every_bit(frame: Frame) -> None:
    decoded = decode(encode(frame))
    assert_same_bits(decoded, frame)
    assert decoded.canonical_sha256 == frame.canonical_sha256


@pytest.mark.parametrize("name", ["valve1/1", "valve2/0", "anomaly-free/anomaly-free"])
def test_a_real_recording_comes_back_bit_by_bit(name: str) -> None:
    recording = read_skab(name)
    pump_loop = asset_type("skab-pump-loop")
    header = header_for(pump_loop, "loop-1", "agent-1", list(SKAB_COLUMNS.values()))
    readings = encoded_bytes = 0
    for sequence, start in enumerate(range(0, len(recording.times_ns), 125), start=1):
        window = slice(start, start + 125)
        times_ns = recording.times_ns[window]
        increasing = np.concatenate(([True], np.diff(np.maximum.accumulate(times_ns)) > 0))
        values = [recording.values[c.name][window][increasing] for c in header.channels]
        frame = build_frame(header, sequence, [times_ns[increasing]], values, [None] * 8)
        encoded = encode(frame)
        decoded = decode(encoded)
        assert_same_bits(decoded, frame)
        for index, (declared, delivered) in enumerate(zip(header.channels, values, strict=True)):
            np.testing.assert_array_equal(
                decoded.channel_si(index), delivered * declared.factor + declared.offset
            )
        readings += frame.reading_count
        encoded_bytes += len(encoded)
    assert readings > 0.99 * 8 * len(recording.times_ns)
    assert encoded_bytes < 4 * readings  # of eight bytes each as they came


def test_float32_is_converted_to_si_in_float64() -> None:
    header = FrameHeader("a", "b", (ChannelHeader("t", "degC", 1.0, 273.15, "f4"),))
    values = np.array([0.1, 25.7], np.float32)
    frame = build_frame(header, 1, [np.array([1, 2])], [values], [None])
    assert frame.channel_si(0).dtype == np.float64
    np.testing.assert_array_equal(frame.channel_si(0), values.astype(np.float64) + 273.15)


def test_values_at_the_ends_of_int64_survive() -> None:
    header = FrameHeader("a", "b", (ChannelHeader("n", "1", 1.0, 0.0, "i8"),))
    low, high = -(2**63), 2**63 - 1
    for column in (
        [low, high],
        [high, low, high],
        [high - 3, high, high - 1],
        [low, low + 2**53, low],
        [0, 2**53 - 1, 2**53, 2**53 + 1],
    ):
        values = np.array(column, np.int64)
        frame = build_frame(header, 1, [np.arange(len(column))], [values], [None])
        np.testing.assert_array_equal(decode(encode(frame)).values[0], values)


def test_a_clock_over_all_of_int64_survives() -> None:
    times = np.array([-(2**63), -1, 0, 2**63 - 1], np.int64)
    frame = flow_frame(clocks=[times], values=[np.zeros(4)])
    np.testing.assert_array_equal(decode(encode(frame)).clocks[0], times)


def test_a_missing_value_has_one_form_whatever_the_sensor_left_there() -> None:
    header = FrameHeader(
        "a",
        "b",
        tuple(ChannelHeader(f"c-{kind}", "V", 1.0, 0.0, kind) for kind in VALUE_TYPES),
    )
    missing = np.array([Quality.GOOD, Quality.MISSING], np.uint8)
    left, right = (
        build_frame(
            header,
            1,
            [np.array([1, 2])],
            [
                np.array([1.5, junk], np.float64),
                np.array([1.5, junk], np.float32),
                np.array([1, int(junk)]),
                np.array([True, bool(junk)]),
            ],
            [missing] * 4,
        )
        for junk in (7.0, 0.0)
    )
    assert canonical_bytes(left) == canonical_bytes(right)
    assert np.isnan(left.values[0][1])
    assert left.values[2].tolist() == [1, 0]
    assert left.values[3].tolist() == [True, False]
    assert_same_bits(decode(encode(left)), left)


def test_a_single_missing_value_decodes_from_the_raw_scheme_too() -> None:
    frame = flow_frame(clocks=[np.array([10])], values=[np.array([1.5])])
    _, body = body_of(encode(frame))
    head = body[: 2 + int.from_bytes(body[:2], "little")]
    clock = struct.pack("<Bqq", 0, 10, 0)
    raw = head + clock + b"\x00" + struct.pack("<d", 1.5) + b"\x01\x03"
    decoded = decode(with_body(encode(frame), raw))
    assert np.isnan(decoded.values[0]).all()
    assert decoded.qualities[0].tolist() == [Quality.MISSING]


# --- the hash -----------------------------------------------------------------------------


@given(frames(), st.integers(1, 19), st.booleans(), st.booleans())
@settings(max_examples=30)
def test_the_hash_does_not_depend_on_the_encoding(
    frame: Frame, level: int, with_size: bool, with_checksum: bool
) -> None:
    other = recoded(
        encode(frame), level=level, write_content_size=with_size, write_checksum=with_checksum
    )
    assert decode(other).canonical_sha256 == frame.canonical_sha256


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence": 2},
        {"clocks": [np.array([10, 20, 31])]},
        {"values": [np.array([1.0, 2.0, 3.0000000000000004])]},
        {"values": [np.array([1.0, 2.0, -3.0])]},
        {"qualities": [np.array([0, 0, 1], np.uint8)]},
        {"header": FrameHeader("pump-2", "agent-1", (ChannelHeader("flow", "V", 1.0, 0.0),))},
        {"header": FrameHeader("pump-1", "agent-2", (ChannelHeader("flow", "V", 1.0, 0.0),))},
        {"header": FrameHeader("pump-1", "agent-1", (ChannelHeader("flow", "mV", 1.0, 0.0),))},
        {"header": FrameHeader("pump-1", "agent-1", (ChannelHeader("flow", "V", 1.0, 1.0),))},
    ],
)
def test_the_hash_covers_everything(changes: dict[str, Any]) -> None:
    assert flow_frame(**changes).canonical_sha256 != flow_frame().canonical_sha256


def test_a_mask_of_good_readings_alone_is_no_mask() -> None:
    masked = flow_frame(qualities=[np.zeros(3, np.uint8)])
    assert canonical_bytes(masked) == canonical_bytes(flow_frame())


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_stored_vector_decodes_for_ever(path: Path) -> None:
    vector = json.loads(path.read_text())
    built = build_frame(
        parse_header(vector["header"].encode()),
        vector["sequence"],
        [np.array(clock, np.int64) for clock in vector["clocks"]],
        [
            np.array([np.nan if value is None else value for value in column], VALUE_TYPES[kind])
            for kind, column in zip(vector["types"], vector["values"], strict=True)
        ],
        [None if mask is None else np.array(mask, np.uint8) for mask in vector["qualities"]],
    )
    assert canonical_bytes(built).hex() == vector["canonical"]
    assert built.canonical_sha256.hex() == vector["sha256"]
    decoded = decode(bytes.fromhex(vector["encoded"]))
    assert_same_bits(decoded, built)
    assert canonical_bytes(decoded).hex() == vector["canonical"]


def test_there_are_vectors() -> None:
    assert len(VECTORS) >= 6


# --- what is not a frame ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "code"),
    [
        ({"sequence": 0}, MalformedFrame, "frame.sequence_out_of_range"),
        ({"sequence": SEQUENCE_MAX + 1}, MalformedFrame, "frame.sequence_out_of_range"),
        ({"clocks": []}, MalformedFrame, "frame.column_count"),
        ({"values": []}, MalformedFrame, "frame.column_count"),
        ({"clocks": [np.array([], np.int64)]}, MalformedFrame, "frame.clock"),
        ({"clocks": [np.array([1.0, 2.0, 3.0])]}, MalformedFrame, "frame.clock"),
        ({"clocks": [np.array([1, 1, 2])]}, MalformedFrame, "frame.time_not_increasing"),
        ({"clocks": [np.array([1, 3, 2])]}, MalformedFrame, "frame.time_not_increasing"),
        ({"values": [np.array([1.0])]}, MalformedFrame, "frame.column_length"),
        ({"values": [np.array([1, 2, 3])]}, MalformedFrame, "frame.value_type"),
        ({"values": [np.array([1.0, np.nan, 3.0])]}, InvalidInput, "frame.value_not_finite"),
        ({"values": [np.array([1.0, np.inf, 3.0])]}, InvalidInput, "frame.value_not_finite"),
        ({"qualities": [np.array([0, 4, 0], np.uint8)]}, MalformedFrame, "frame.quality_unknown"),
        ({"qualities": [np.array([0], np.uint8)]}, MalformedFrame, "frame.column_length"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    changes: dict[str, Any], error: type[InvalidInput], code: str
) -> None:
    with pytest.raises(error) as refused:
        flow_frame(**changes)
    assert refused.value.code == code


def test_a_frame_of_too_many_readings_is_refused() -> None:
    length = READINGS_MAX + 1
    with pytest.raises(MalformedFrame) as refused:
        flow_frame(clocks=[np.arange(length)], values=[np.zeros(length)])
    assert refused.value.code == "frame.too_many_readings"
    assert (refused.value.value, refused.value.limit) == (length, READINGS_MAX)


def test_a_frame_that_takes_too_many_bytes_is_refused() -> None:
    noise = np.random.default_rng(1).standard_normal(FRAME_BYTES_MAX // 7)
    frame = flow_frame(clocks=[np.arange(len(noise))], values=[noise])
    with pytest.raises(InvalidInput) as refused:
        encode(frame)
    assert refused.value.code == "frame.too_large"


CHANNEL = ChannelHeader("flow", "V", 1.0, 0.0)


@pytest.mark.parametrize(
    ("channels", "clock_count", "code"),
    [
        ((), 1, "frame.channel_count"),
        (
            tuple(replace(CHANNEL, name=f"c{n}") for n in range(CHANNELS_MAX + 1)),
            1,
            "frame.channel_count",
        ),
        ((CHANNEL, CHANNEL), 1, "frame.channel_repeated"),
        ((replace(CHANNEL, name="naïve"),), 1, "channel.malformed_name"),
        ((replace(CHANNEL, unit=""),), 1, "frame.header"),
        ((replace(CHANNEL, unit="x" * 65),), 1, "frame.header"),
        ((replace(CHANNEL, factor=float("inf")),), 1, "frame.header"),
        ((replace(CHANNEL, offset=float("nan")),), 1, "frame.header"),
        ((replace(CHANNEL, offset=-0.0),), 1, "frame.header"),
        ((replace(CHANNEL, value_type="f2"),), 1, "frame.value_type"),
        ((replace(CHANNEL, clock=1),), 1, "frame.clock"),
        ((replace(CHANNEL, clock=-1),), 1, "frame.clock"),
        ((CHANNEL,), 2, "frame.clock"),
        ((CHANNEL,), 0, "frame.clock"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused_built_or_received(
    channels: tuple[ChannelHeader, ...], clock_count: int, code: str
) -> None:
    header = FrameHeader("pump-1", "agent-1", channels, clock_count)
    times, column = np.array([10, 20]), np.array([1.0, 2.0])
    with pytest.raises(InvalidInput) as refused:
        build_frame(
            header, 1, [times] * clock_count, [column] * len(channels), [None] * len(channels)
        )
    assert refused.value.code == code
    if all(np.isfinite((c.factor, c.offset)).all() for c in channels):
        with pytest.raises(InvalidInput) as refused:
            parse_header(header_bytes.__wrapped__(header))
        assert refused.value.code == code


def test_a_header_too_long_for_its_length_field_is_refused() -> None:
    channels = tuple(
        ChannelHeader(f"c{n:063}", "°" * 64, 1 / 3, -1 / 3) for n in range(CHANNELS_MAX)
    )
    header = FrameHeader("a", "b", channels)
    one = np.array([1.0])
    frame = build_frame(header, 1, [np.array([1])], [one] * 256, [None] * 256)
    with pytest.raises(InvalidInput) as refused:
        encode(frame)
    assert refused.value.code == "frame.header"


CANONICAL_HEADER = (
    '{"agent":"agent-1","asset":"pump-1","channels":[{"clock":0,"factor":1.0,"name":"flow",'
    '"offset":0.0,"type":"f8","unit":"°C"}],"clocks":1}'
)


def test_the_canonical_header_is_accepted() -> None:
    header = parse_header(CANONICAL_HEADER.encode())
    assert header.channels == (ChannelHeader("flow", "°C", 1.0, 0.0),)
    assert header_bytes(header) == CANONICAL_HEADER.encode()


@pytest.mark.parametrize(
    "text",
    [
        CANONICAL_HEADER + " ",
        CANONICAL_HEADER.replace(",", ", "),
        CANONICAL_HEADER.replace("°", "\\u00b0"),
        CANONICAL_HEADER.replace('"factor":1.0', '"factor":1.00'),
        CANONICAL_HEADER.replace('"factor":1.0', '"factor":1e0'),
        CANONICAL_HEADER.replace('"factor":1.0', '"factor":1'),
        CANONICAL_HEADER.replace('"factor":1.0', '"factor":true'),
        CANONICAL_HEADER.replace('"factor":1.0', '"factor":1e999'),
        CANONICAL_HEADER.replace('"factor":1.0', '"factor":NaN'),
        CANONICAL_HEADER.replace('"offset":0.0', '"offset":-0.0'),
        CANONICAL_HEADER.replace('"clocks":1', '"clocks":true'),
        CANONICAL_HEADER.replace('"clocks":1', '"clocks":1000000000000'),
        CANONICAL_HEADER.replace('"clocks":1', '"clocks":[1]'),
        CANONICAL_HEADER.replace('"clock":0', '"clock":[]'),
        CANONICAL_HEADER.replace('"clock":0', '"clock":false'),
        CANONICAL_HEADER.replace('"type":"f8"', '"type":[]'),
        CANONICAL_HEADER.replace('"type":"f8"', '"type":"f2"'),
        CANONICAL_HEADER.replace('"unit":"°C"', '"unit":"\\ud800"'),
        CANONICAL_HEADER.replace('"unit":"°C"', '"unit":null'),
        CANONICAL_HEADER.replace('"agent":"agent-1",', ""),
        CANONICAL_HEADER.replace('"agent":"agent-1",', '"agent":"agent-1","agent":"agent-1",'),
        CANONICAL_HEADER.replace('"agent":"agent-1",', '"about":1,"agent":"agent-1",'),
        CANONICAL_HEADER.replace("agent-1", "agent 1"),
        '{"asset":"pump-1","agent":"agent-1",'
        + CANONICAL_HEADER.partition(',"asset":"pump-1",')[2],
        "",
        "[]",
        "null",
        "[" * 60_000,
        '{"channels":' + "9" * 5_000,
    ],
    ids=lambda text: text[:70].replace(CANONICAL_HEADER[:40], "…"),
)
def test_a_header_that_is_not_canonical_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_header(text.encode())


def test_a_header_in_another_encoding_of_json_is_refused() -> None:
    with pytest.raises(MalformedFrame):
        parse_header(CANONICAL_HEADER.encode("utf-16"))


def test_a_negative_zero_from_one_agent_does_not_spoil_the_header_of_another() -> None:
    clean = CANONICAL_HEADER.replace("pump-1", "pump-zero")
    with pytest.raises(MalformedFrame):
        parse_header(clean.replace('"offset":0.0', '"offset":-0.0').encode())
    assert parse_header(clean.encode()).asset == "pump-zero"


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_json_in_place_of_any_member_is_refused_or_read(value: Any) -> None:
    document = json.loads(CANONICAL_HEADER)
    places = [(document, key) for key in document]
    places += [(document["channels"][0], key) for key in document["channels"][0]]
    for holder, key in places:
        kept, holder[key] = holder[key], value
        raw = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        with suppress(InvalidInput):
            parse_header(raw.encode(errors="surrogatepass"))
        holder[key] = kept


# --- hostile bytes ------------------------------------------------------------------------


def decodes_or_is_refused(encoded: bytes) -> None:
    try:
        frame = decode(encoded)
    except InvalidInput:
        return
    assert_same_bits(decode(encode(frame)), frame)


def test_every_truncation_is_refused() -> None:
    encoded = encode(small_frame())
    for length in range(len(encoded)):
        with pytest.raises(MalformedFrame):
            decode(encoded[:length])


def test_every_changed_byte_decodes_to_something_or_is_refused() -> None:
    encoded = encode(small_frame())
    for at in range(len(encoded)):
        for flipped in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            changed = bytes([encoded[at] ^ flipped])
            decodes_or_is_refused(encoded[:at] + changed + encoded[at + 1 :])


def test_every_changed_byte_of_the_body_decodes_to_something_or_is_refused() -> None:
    encoded = encode(small_frame())
    _, body = body_of(encoded)
    for at in range(len(body)):
        for flipped in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            changed = body[:at] + bytes([body[at] ^ flipped]) + body[at + 1 :]
            decodes_or_is_refused(with_body(encoded, changed))


def test_every_truncation_of_the_body_is_refused() -> None:
    encoded = encode(small_frame())
    _, body = body_of(encoded)
    for length in range(len(body)):
        with pytest.raises(MalformedFrame):
            decode(with_body(encoded, body[:length]))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode(raw)


@given(st.data(), st.binary(max_size=80))
@settings(max_examples=300)
def test_random_columns_after_a_good_header_decode_or_are_refused(
    data: st.DataObject, tail: bytes
) -> None:
    frame = small_frame()
    head = header_bytes(frame.header)
    cut = data.draw(st.integers(0, 120))
    decodes_or_is_refused(recoded(encode(frame), lambda body: body[: 2 + len(head) + cut] + tail))


@pytest.mark.parametrize("junk", [b"\x00", b"junk", zstandard.ZstdCompressor().compress(b"x")])
def test_bytes_after_the_frame_are_refused(junk: bytes) -> None:
    with pytest.raises(MalformedFrame) as refused:
        decode(encode(flow_frame()) + junk)
    assert refused.value.code == "frame.compression"


def test_bytes_after_the_last_column_are_refused() -> None:
    with pytest.raises(MalformedFrame) as refused:
        decode(recoded(encode(flow_frame()), lambda body: body + b"\x00"))
    assert refused.value.code == "frame.trailing_bytes"


def prelude(
    body_length: int = 100, clocks: tuple[int, ...] = (3,), magic: bytes = b"HDF", version: int = 1
) -> bytes:
    return PRELUDE.pack(magic, version, 1, body_length, len(clocks)) + struct.pack(
        f"<{len(clocks)}I", *clocks
    )


@pytest.mark.parametrize(
    ("encoded", "code"),
    [
        (b"", "frame.truncated"),
        (b"HDF\x01", "frame.truncated"),
        (prelude(magic=b"HDX"), "frame.magic"),
        (prelude(version=2), "frame.version"),
        (prelude(clocks=()), "frame.clock"),
        (prelude(clocks=(1,) * (CHANNELS_MAX + 1)), "frame.clock"),
        (prelude(clocks=(0,)), "frame.too_many_readings"),
        (prelude(clocks=(READINGS_MAX + 1,)), "frame.too_many_readings"),
        (prelude(clocks=(2**32 - 1,) * 2), "frame.too_many_readings"),
        (prelude(body_length=2**32 - 1), "frame.too_many_readings"),
        (b"HDF\x01" + b"\x00" * FRAME_BYTES_MAX, "frame.too_large"),
    ],
)
def test_a_prelude_out_of_bounds_is_refused(encoded: bytes, code: str) -> None:
    for reader in (peek, decode):
        with pytest.raises(MalformedFrame) as refused:
            reader(encoded)
        assert refused.value.code == code


def test_the_prelude_tells_what_a_receipt_needs() -> None:
    seen = peek(encode(small_frame()))
    assert (seen.sequence, seen.clock_lengths) == (42, (4, 3))


def zstd_header_declaring(size: int) -> bytes:
    """Return a zstd frame header with an 8-byte content size, and an empty last block."""
    return b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + b"\x01\x00\x00"


def many_channels(readings_each: int) -> bytes:
    """Return a frame whose clock is small and whose channels together are beyond the limit."""
    channels = tuple(replace(CHANNEL, name=f"c{n}") for n in range(CHANNELS_MAX))
    head = header_bytes(FrameHeader("a", "b", channels))
    body = struct.pack("<H", len(head)) + head + b"\x00" * 64
    return prelude(len(body), (readings_each,)) + zstandard.ZstdCompressor().compress(body)


@pytest.mark.parametrize(
    "make",
    [
        lambda: prelude(100) + zstd_header_declaring(2**33),
        lambda: prelude(100) + zstd_header_declaring(2**40),
        lambda: prelude(100) + zstd_header_declaring(2**64 - 3),
        lambda: prelude(100) + zstandard.ZstdCompressor().compress(bytes(100 * MEBIBYTE)),
        lambda: (
            prelude(100)
            + zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100 * MEBIBYTE))
        ),
        lambda: prelude(17_000_000) + zstandard.ZstdCompressor().compress(bytes(16_999_999)),
        lambda: many_channels(READINGS_MAX // 2),
        lambda: recoded(
            encode(flow_frame()), lambda body: body.replace(b'"clocks":1', b'"clocks":99999999999')
        ),
    ],
    ids=[
        "8 GiB declared",
        "1 TiB declared",
        "16 EiB declared",
        "100 MiB of zeros",
        "100 MiB of zeros undeclared",
        "a body shorter than declared",
        "too many channels on one clock",
        "a header of many clocks",
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
    assert peak_bytes < 40 * MEBIBYTE


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


# --- statistics ---------------------------------------------------------------------------


def numpy_statistics(frame: Frame, index: int) -> tuple[Any, ...]:
    """Return a `STATISTICS` record computed the plain way."""
    good = frame.qualities[index] == Quality.GOOD
    si = frame.channel_si(index)[good]
    times = frame.channel_times_ns(index)[good]
    if len(si) == 0:
        return (len(good), 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
    extremes = (np.min(si), np.max(si), np.sum(si), np.sum(si * si))
    return (len(good), len(si), *extremes, si[0], si[-1], times[0], times[-1])


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.sampled_from(Quality)), min_size=1, max_size=50))
def test_statistics_are_those_of_numpy_over_good_readings_in_si(
    readings: list[tuple[float, Quality]],
) -> None:
    header = FrameHeader("a", "b", (ChannelHeader("t", "degC", 5 / 9, 273.15),))
    values, qualities = zip(*readings, strict=True)
    frame = build_frame(
        header,
        1,
        [np.arange(len(values)) * 10 + 5],
        [np.array(values)],
        [np.array(qualities, np.uint8)],
    )
    (record,) = channel_statistics(frame)
    expected = np.array(numpy_statistics(frame, 0), STATISTICS)
    for name in STATISTICS.names or ():
        assert record[name] == pytest.approx(expected[name], rel=1e-12, abs=1e-12), name


def test_statistics_of_every_kind_of_channel_survive_packing() -> None:
    frame = small_frame()
    records = channel_statistics(frame)
    names, unpacked = unpack_statistics(pack_statistics(frame.header, records))
    assert names == ("flow", "temperature", "starts", "running")
    assert unpacked.tobytes() == records.tobytes()
    flow, temperature, starts, running = records
    assert flow["max"] == 32.021 * 1e-3 / 60
    assert (temperature["reading_count"], temperature["good_count"]) == (4, 1)
    assert temperature["last"] == temperature["sum"] == 25.5 + 273.15
    assert (starts["sum"], starts["sum_of_squares"]) == (23.0, 177.0)
    assert (running["first"], running["last"], running["sum"]) == (0.0, 1.0, 2.0)


def test_a_channel_without_a_good_reading_has_counts_alone() -> None:
    frame = with_qualities(flow_frame(), [np.full(3, Quality.BAD, np.uint8)])
    (record,) = channel_statistics(frame)
    assert record.tolist() == (3, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)


def test_statistics_of_an_unknown_version_are_refused() -> None:
    frame = flow_frame()
    packed = pack_statistics(frame.header, channel_statistics(frame))
    with pytest.raises(InvalidInput) as refused:
        unpack_statistics(b"\x02" + packed[1:])
    assert refused.value.code == "frame.statistics_version"
