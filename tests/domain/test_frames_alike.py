"""Frames of one shape are built, encoded, decoded and summarised together as they are alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInput
from domain.frame_columns import shape_of
from domain.frame_decoding import decode, decode_many
from domain.frame_encoding import encode, encode_many
from domain.frame_layout import peek
from domain.frame_outline import outlined
from domain.frame_stacks import build_frames, hash_frames
from domain.frame_statistics import pack_statistics, pack_statistics_many, unpack_statistics
from domain.frames import (
    ChannelHeader,
    Column,
    Frame,
    FrameHeader,
    Quality,
    build_frame,
    canonical_bytes,
    with_qualities,
)
from tests.domain.frame_samples import assert_same_bits, columns, frames

TYPES = ("f8", "f4", "i8", "i2", "u1", "b1")


def headers(count: int, channels: int, value_type: str = "f8") -> list[FrameHeader]:
    of_each = tuple(ChannelHeader(f"c{n}", "V", 2.0, 1.0, value_type) for n in range(channels))
    return [FrameHeader(f"pump-{n}", f"agent-{n}", of_each) for n in range(count)]


@st.composite
def shapes(draw: st.DrawFn) -> tuple[list[FrameHeader], np.ndarray, Column]:
    """Return headers, clocks and values of frames of one shape."""
    count, channels, length = draw(st.tuples(*[st.integers(1, n) for n in (5, 3, 30)]))
    value_type = draw(st.sampled_from(TYPES))
    rows = [draw(columns(value_type, length)) for _ in range(count * channels)]
    values = np.array(rows).reshape(count, channels, length)
    if values.dtype.kind == "f":
        values[~np.isfinite(values)] = 0
    steps = draw(st.lists(st.integers(1, 10**9), min_size=length, max_size=length))
    starts = draw(st.lists(st.integers(0, 2**60), min_size=count, max_size=count))
    clocks = np.array(starts)[:, None] + np.cumsum(steps)
    return headers(count, channels, value_type), clocks, values


@given(shapes())
@settings(max_examples=150, deadline=None)
def test_frames_built_together_are_those_built_alone(
    shape: tuple[list[FrameHeader], np.ndarray, Column],
) -> None:
    of_frames, clocks, values = shape
    together = build_frames(of_frames, range(1, len(of_frames) + 1), clocks, values)
    alone = [
        build_frame(header, n, [clock], list(some), [None] * len(some))
        for n, (header, clock, some) in enumerate(zip(*shape, strict=True), 1)
    ]
    with np.errstate(over="ignore", invalid="ignore"):
        assert pack_statistics_many(together) == [pack_statistics(frame) for frame in alone]
    encoded = encode_many(together)
    assert encoded == [encode(frame) for frame in alone]
    hash_frames(together)
    for frame, other, decoded in zip(together, alone, decode_many(encoded), strict=True):
        assert frame.canonical_sha256 == hashlib.sha256(canonical_bytes(other)).digest()
        assert isinstance(decoded, Frame)
        for one in (frame, decoded):
            assert_same_bits(one, other)
            assert (one.window_start_ns, one.window_end_ns, one.reading_count, one.all_good) == (
                other.window_start_ns,
                other.window_end_ns,
                other.reading_count,
                other.all_good,
            )


@given(st.lists(frames(), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_what_was_decoded_is_encoded_again_to_the_same_bytes(several: list[Frame]) -> None:
    encoded = encode_many(several)
    decoded = [frame for frame in decode_many(encoded) if isinstance(frame, Frame)]
    assert encode_many(decoded) == encoded


def test_neighbours_of_other_kinds_part_a_run_of_frames() -> None:
    random = np.random.default_rng(2)
    several = windows(6)
    noisy = random.normal(0, 1, (1, 2, 125))
    several[2:2] = build_frames(headers(1, 2), [9], clocks_of(1), noisy)
    bad = np.zeros(125, np.uint8)
    bad[7] = Quality.BAD
    several[5] = with_qualities(several[5], [bad, several[5].qualities[1]])
    encoded = encode_many(several)
    assert encoded == [encode(frame) for frame in several]
    for frame, decoded in zip(several, decode_many(encoded), strict=True):
        assert isinstance(decoded, Frame)
        assert_same_bits(decoded, frame)


def test_frames_of_several_shapes_may_alternate() -> None:
    others = build_frames(
        headers(3, 1, "i4"),
        [1, 2, 3],
        clocks_of(3),
        np.arange(375, dtype=np.int32).reshape(3, 1, -1),
    )
    several = [frame for pair in zip(windows(3), others, strict=True) for frame in pair]
    assert encode_many(several) == [encode(frame) for frame in several]


def clocks_of(count: int) -> np.ndarray:
    return np.arange(count)[:, None] * 10**12 + np.arange(125) * 10**9


def windows(count: int) -> list[Frame]:
    """Return frames of columns that are coded by tables, in unary, as counters and as zeros."""
    random = np.random.default_rng(1)
    levels = random.choice([1.25, 7.5, 9.0, 11.75], (count, 125))
    walk = np.cumsum(random.integers(-3, 4, (count, 125)), axis=1) / 100
    return build_frames(
        headers(count, 2), range(1, count + 1), clocks_of(count), np.stack((levels, walk), axis=1)
    )


def test_together_and_alone_the_same_bytes_are_read_and_refused() -> None:
    (encoded,) = encode_many(windows(1))
    at = outlined(encoded, peek(encoded)).at
    outcomes = set()
    for place in [*range(at), *range(at, len(encoded), 3)]:
        for change in (1, 0x24, 0x80, 0xFF):
            changed = bytearray(encoded)
            changed[place] ^= change
            (together,) = decode_many([bytes(changed)])
            alone = decoded_alone(bytes(changed))
            if isinstance(alone, Frame):
                assert isinstance(together, Frame)
                assert_same_bits(together, alone)
            else:
                assert isinstance(together, InvalidInput)
                assert (together.code, together.message) == (alone.code, alone.message)
            outcomes.add("read" if isinstance(alone, Frame) else "refused")
    assert outcomes == {"read", "refused"}


def decoded_alone(encoded: bytes) -> Frame | InvalidInput:
    try:
        return decode(encoded)
    except InvalidInput as error:
        return error


def test_every_kind_of_these_columns_is_read_together() -> None:
    for encoded in encode_many(windows(2)):
        assert shape_of(outlined(encoded, peek(encoded))) == ("f8", 2, 125)


def test_a_frame_at_fault_is_named_as_if_it_were_built_alone() -> None:
    values = np.ones((3, 1, 4))
    clocks = np.arange(12).reshape(3, 4)
    late = clocks.copy()
    late[1, 2] = late[1, 1]
    infinite = values.copy()
    infinite[2, 0, 3] = np.inf
    for of_clocks, of_values, code in (
        (late, values, "frame.time_not_increasing"),
        (clocks, infinite, "frame.value_not_finite"),
        (clocks, values.astype(np.float32), "frame.value_type"),
        (clocks[:, :3], values, "frame.column_length"),
    ):
        with pytest.raises(InvalidInput) as refused:
            build_frames(headers(3, 1), [1, 2, 3], of_clocks, of_values)
        assert refused.value.code == code
    with pytest.raises(InvalidInput) as refused:
        build_frames(headers(3, 1), [1, 0, 3], clocks, values)
    assert refused.value.code == "frame.sequence_out_of_range"


@pytest.mark.parametrize("spread", [2**28 - 1, 2**28 + 1, 2**31 + 5, 2**52])
def test_integers_far_apart_are_coded_without_loss(spread: int) -> None:
    numbers = np.random.default_rng(3).integers(0, spread, (4, 2, 50))
    numbers[:, :, 7] = spread
    several = build_frames(headers(4, 2), range(1, 5), clocks_of(4)[:, :50], numbers.astype(float))
    encoded = encode_many(several)
    for frame, decoded in zip(several, decode_many(encoded), strict=True):
        assert isinstance(decoded, Frame)
        assert_same_bits(decoded, frame)


def test_many_integers_far_apart_take_no_more_than_their_bytes() -> None:
    numbers = np.random.default_rng(5).integers(0, 2**52, (1, 1, 5_000)).astype(float)
    times = np.arange(5_000)[None]
    (encoded,) = encode_many(build_frames(headers(1, 1), [1], times, numbers))
    assert len(encoded) < 8 * 5_000
    np.testing.assert_array_equal(decode(encoded).values[0], numbers[0, 0])


def test_sums_that_nearly_cancel_are_those_of_the_readings() -> None:
    header = FrameHeader("pump", "agent", (ChannelHeader("t", "degC", 1.0, 273.15),))
    random = np.random.default_rng(4)
    near_zero = np.round(-273.15 + random.normal(0, 1e-7, (2, 1, 100)), 9)
    for frame in build_frames([header] * 2, [1, 2], clocks_of(2)[:, :100], near_zero):
        _, records = unpack_statistics(pack_statistics(frame))
        si = frame.channel_si(0)
        squares = float(np.sum(si * si))
        assert abs(float(records["sum"][0]) - float(si.sum())) <= 1e-10 * np.sqrt(100 * squares)
        assert abs(float(records["sum_of_squares"][0]) - squares) <= 1e-10 * squares
