"""Frames for tests: hypothesis strategies for every kind of column, and small fixed frames."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import zstandard
from hypothesis import strategies as st

from domain.frames import (
    VALUE_TYPES,
    ChannelHeader,
    Column,
    Frame,
    FrameHeader,
    Quality,
    build_frame,
)

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
PRELUDE = struct.Struct("<3sBQIH")

_f8 = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [0.0, -0.0, 5e-324, -5e-324, 2.2e-308, 1.7976931348623157e308, 2.0**53, 2.0**53 - 1]
    ),
    st.integers(-(10**7), 10**7).map(lambda n: n / 1000),
    st.integers(-(2**53), 2**53).map(lambda n: n / 1e9),
    st.integers(-(2**60), 2**60).map(float),
)
_f4 = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.401298464324817e-45, 3.4028234663852886e38]),
    st.integers(-(10**5), 10**5).map(lambda n: float(np.float32(n / 100))),
)
_i8 = st.one_of(
    st.integers(-1000, 1000),
    st.integers(INT64_MIN, INT64_MAX),
    st.sampled_from([INT64_MIN, INT64_MIN + 1, -(2**53), 2**53, INT64_MAX - 1, INT64_MAX]),
    st.integers(INT64_MAX - 1000, INT64_MAX),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {"f8": _f8, "f4": _f4, "i8": _i8, "b1": st.booleans()}


@st.composite
def clocks(draw: st.DrawFn, length_max: int = 40) -> Column:
    """Return strictly increasing times: regular, jittered, or anything that int64 can hold."""
    kind = draw(st.sampled_from(["regular", "jittered", "any"]))
    if kind == "any":
        time = st.one_of(
            st.integers(INT64_MIN, INT64_MAX), st.sampled_from([INT64_MIN, 0, INT64_MAX])
        )
        times = draw(st.lists(time, min_size=1, max_size=length_max, unique=True))
        return np.array(sorted(times), np.int64)
    start = draw(st.integers(0, 2 * 10**18))
    length = draw(st.integers(1, length_max))
    if kind == "regular":
        return start + np.arange(length, dtype=np.int64) * draw(st.integers(1, 10**12))
    tick = draw(st.sampled_from([1, 1000, 10**9]))
    steps = draw(st.lists(st.integers(1, 10**6), min_size=length, max_size=length))
    return start + np.cumsum(np.array(steps, np.int64)) * tick


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Return a frame of 1 to 4 channels on 1 to 3 clocks, of any value types and qualities."""
    clock_count = draw(st.integers(1, 3))
    types = draw(st.lists(st.sampled_from(sorted(VALUE_TYPES)), min_size=clock_count, max_size=4))
    times = [draw(clocks()) for _ in range(clock_count)]
    channels, columns, masks = [], [], []
    for index, value_type in enumerate(types):
        # The first channels use one clock each, so that none is without a channel.
        clock = index if index < clock_count else draw(st.integers(0, clock_count - 1))
        length = len(times[clock])
        factor = draw(st.sampled_from([1.0, 1e-3, 5 / 9, 1.6666666666666667e-05]))
        channels.append(
            ChannelHeader(
                f"channel_{index}",
                draw(st.sampled_from(["V", "degC", "°C", "m³/h"])),
                factor,
                draw(st.sampled_from([0.0, 273.15, -1e22])),
                value_type,
                clock,
            )
        )
        values = draw(st.lists(VALUES[value_type], min_size=length, max_size=length))
        columns.append(np.array(values, VALUE_TYPES[value_type]))
        quality = draw(
            st.none() | st.lists(st.sampled_from(Quality), min_size=length, max_size=length)
        )
        masks.append(None if quality is None else np.array(quality, np.uint8))
    header = FrameHeader("pump-1", "agent.7", tuple(channels), clock_count)
    return build_frame(header, draw(st.integers(1, INT64_MAX)), times, columns, masks)


def small_frame() -> Frame:
    """Return a frame of two clocks and four channels, one of each value type."""
    header = FrameHeader(
        "pump-1",
        "agent-1",
        (
            ChannelHeader("flow", "l/min", 1e-3 / 60, 0.0),
            ChannelHeader("temperature", "degC", 1.0, 273.15, "f4"),
            ChannelHeader("starts", "1", 1.0, 0.0, "i8", 1),
            ChannelHeader("running", "1", 1.0, 0.0, "b1", 1),
        ),
        clock_count=2,
    )
    start = 1_583_750_073_000_000_000
    return build_frame(
        header,
        42,
        [
            start + np.arange(4, dtype=np.int64) * 1_000_000_000,
            start + np.array([0, 1_500_000_000, 2_000_000_000], np.int64),
        ],
        [
            np.array([32.0, 32.021, 31.99, 5e-324]),
            np.array([25.5, 25.25, np.nan, -0.0], np.float32),
            np.array([7, 8, 8]),
            np.array([False, True, True]),
        ],
        [
            None,
            np.array([Quality.GOOD, Quality.UNCERTAIN, Quality.MISSING, Quality.BAD], np.uint8),
            None,
            None,
        ],
    )


def body_of(encoded: bytes) -> tuple[bytes, bytes]:
    """Return (prelude with clock lengths, uncompressed body) of an encoded frame."""
    *_, body_length, clock_count = PRELUDE.unpack_from(encoded)
    at = PRELUDE.size + 4 * clock_count
    body = zstandard.ZstdDecompressor().decompress(encoded[at:], max_output_size=body_length)
    return encoded[:at], body


def with_body(encoded: bytes, body: bytes, level: int = 1, **options: Any) -> bytes:
    """Return `encoded` with another body, compressed anew and its length put right."""
    prelude, _ = body_of(encoded)
    magic, version, sequence, _, clock_count = PRELUDE.unpack_from(prelude)
    return (
        PRELUDE.pack(magic, version, sequence, len(body), clock_count)
        + prelude[PRELUDE.size :]
        + zstandard.ZstdCompressor(level=level, **options).compress(body)
    )


def recoded(
    encoded: bytes, change: Callable[[bytes], bytes] = bytes, level: int = 1, **options: Any
) -> bytes:
    """Return `encoded` with its body changed by `change` and compressed anew."""
    return with_body(encoded, change(body_of(encoded)[1]), level, **options)
