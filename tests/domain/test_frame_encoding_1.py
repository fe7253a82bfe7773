"""Encoding 1, which is read for ever: its vectors, and no harm from hostile bytes."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInput, MalformedFrame
from domain.frame_decoding import decode, decode_many
from domain.frame_encoding import encode
from domain.frame_layout import peek
from domain.frames import (
    CHANNELS_MAX,
    FRAME_BYTES_MAX,
    READINGS_MAX,
    ChannelHeader,
    Frame,
    FrameHeader,
    Quality,
    header_bytes,
)
from tests.domain.first_encoding import encode_1
from tests.domain.frame_samples import (
    FIRST_TYPES,
    PRELUDE,
    assert_same_bits,
    body_of,
    flow_frame,
    frames,
    recoded,
    small_frame,
    with_body,
)

MEBIBYTE = 1024 * 1024
CHANNEL = ChannelHeader("flow", "V", 1.0, 0.0)


@given(frames(FIRST_TYPES))
@settings(max_examples=100)
def test_a_frame_of_encoding_1_is_the_same_frame(frame: Frame) -> None:
    decoded = decode(encode_1(frame))
    assert_same_bits(decoded, frame)
    assert decoded.canonical_sha256 == frame.canonical_sha256


@given(frames(FIRST_TYPES), st.integers(1, 19), st.booleans(), st.booleans())
@settings(max_examples=30)
def test_the_hash_does_not_depend_on_the_compression(
    frame: Frame, level: int, with_size: bool, with_checksum: bool
) -> None:
    other = recoded(
        encode_1(frame), level=level, write_content_size=with_size, write_checksum=with_checksum
    )
    assert decode(other).canonical_sha256 == frame.canonical_sha256


def test_both_encodings_are_decoded_together() -> None:
    first, second = decode_many([encode_1(small_frame()), encode(small_frame())])
    assert isinstance(first, Frame)
    assert isinstance(second, Frame)
    assert_same_bits(first, second)


def test_encoding_1_holds_only_what_it_knew() -> None:
    header = FrameHeader("a", "b", (ChannelHeader("n", "1", 1.0, 0.0, "i2"),))
    body = struct.pack("<H", len(header.canonical)) + header.canonical
    encoded = prelude(len(body)) + zstandard.ZstdCompressor().compress(body)
    with pytest.raises(MalformedFrame) as refused:
        decode(encoded)
    assert refused.value.code == "frame.value_type"


def test_a_single_missing_value_decodes_from_the_raw_scheme_too() -> None:
    frame = flow_frame(clocks=[np.array([10])], values=[np.array([1.5])])
    _, body = body_of(encode_1(frame))
    head = body[: 2 + int.from_bytes(body[:2], "little")]
    clock = struct.pack("<Bqq", 0, 10, 0)
    raw = head + clock + b"\x00" + struct.pack("<d", 1.5) + b"\x01\x03"
    decoded = decode(with_body(encode_1(frame), raw))
    assert np.isnan(decoded.values[0]).all()
    assert decoded.qualities[0].tolist() == [Quality.MISSING]


def decodes_or_is_refused(encoded: bytes) -> None:
    try:
        frame = decode(encoded)
    except InvalidInput:
        return
    assert_same_bits(decode(encode_1(frame)), frame)


def test_every_truncation_is_refused() -> None:
    encoded = encode_1(small_frame())
    for length in range(len(encoded)):
        with pytest.raises(MalformedFrame):
            decode(encoded[:length])


def test_every_changed_byte_decodes_to_something_or_is_refused() -> None:
    encoded = encode_1(small_frame())
    for at in range(len(encoded)):
        for flipped in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            changed = bytes([encoded[at] ^ flipped])
            decodes_or_is_refused(encoded[:at] + changed + encoded[at + 1 :])


def test_every_changed_byte_of_the_body_decodes_to_something_or_is_refused() -> None:
    encoded = encode_1(small_frame())
    _, body = body_of(encoded)
    for at in range(len(body)):
        for flipped in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            changed = body[:at] + bytes([body[at] ^ flipped]) + body[at + 1 :]
            decodes_or_is_refused(with_body(encoded, changed))


def test_every_truncation_of_the_body_is_refused() -> None:
    encoded = encode_1(small_frame())
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
    decodes_or_is_refused(recoded(encode_1(frame), lambda body: body[: 2 + len(head) + cut] + tail))


@pytest.mark.parametrize("junk", [b"\x00", b"junk", zstandard.ZstdCompressor().compress(b"x")])
def test_bytes_after_the_frame_are_refused(junk: bytes) -> None:
    with pytest.raises(MalformedFrame) as refused:
        decode(encode_1(flow_frame()) + junk)
    assert refused.value.code == "frame.compression"


def test_bytes_after_the_last_column_are_refused() -> None:
    with pytest.raises(MalformedFrame) as refused:
        decode(recoded(encode_1(flow_frame()), lambda body: body + b"\x00"))
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
        (prelude(version=3), "frame.version"),
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
    seen = peek(encode_1(small_frame()))
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
            encode_1(flow_frame()),
            lambda body: body.replace(b'"clocks":1', b'"clocks":99999999999'),
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
    encoded = encode_1(flow_frame(clocks=[times], values=[np.zeros(READINGS_MAX)]))
    assert len(encoded) < 10_000
    tracemalloc.start()
    try:
        frame = decode(encoded)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert frame.reading_count == READINGS_MAX
    assert peak_bytes < 100 * MEBIBYTE
