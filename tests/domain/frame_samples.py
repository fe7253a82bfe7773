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
    waveform_times_ns,
)
from domain.time_quality import (
    DEVICE,
    MIXED,
    OFFSET_NS_MAX,
    RECORDING,
    SERVER,
    TIME_SOURCES,
    TimeQuality,
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
_text = st.one_of(
    st.sampled_from(["", "RUN", "STOP", "läuft", "\U0001f527"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)


def _integers(value_type: str) -> st.SearchStrategy[int]:
    low, high = np.iinfo(VALUE_TYPES[value_type]).min, np.iinfo(VALUE_TYPES[value_type]).max
    near = st.integers(max(int(low), -5), min(int(high), 100))
    return st.one_of(near, st.integers(int(low), int(high)), st.sampled_from([int(low), int(high)]))


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "f8": _f8,
    "f4": _f4,
    "i8": _i8,
    "b1": st.booleans(),
    "str": _text,
    **{name: _integers(name) for name in ("i1", "i2", "i4", "u1", "u2", "u4", "u8")},
}
FIRST_TYPES = ("f8", "f4", "i8", "b1")
_RATES = st.sampled_from([12_000.0, 25_600.0, 0.001, 1e9, 48_828.125, 1 / 3])


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
def columns(draw: st.DrawFn, value_type: str, length: int) -> Column:
    """Return values of `value_type`: anything, or what sensors deliver (few, drifting, noise)."""
    if value_type in ("str", "b1") or draw(st.booleans()):
        values = draw(st.lists(VALUES[value_type], min_size=length, max_size=length))
        return np.array(values, VALUE_TYPES[value_type])
    steps = draw(
        st.lists(
            st.integers(-draw(st.sampled_from([0, 1, 40])), draw(st.sampled_from([0, 1, 90]))),
            min_size=length,
            max_size=length,
        )
    )
    integers = np.array(steps) if draw(st.booleans()) else np.cumsum(steps)
    integers = integers + draw(st.sampled_from([0, 20, 1_000]))
    if value_type in ("f8", "f4"):
        power = 10.0 ** draw(st.integers(0, 6))
        decimals: Column = (integers / power).astype(VALUE_TYPES[value_type])
        return decimals
    limits = np.iinfo(VALUE_TYPES[value_type])
    low, high = max(limits.min, -(2**62)), min(limits.max, 2**62)
    held: Column = np.clip(integers, low, high).astype(VALUE_TYPES[value_type])
    return held


@st.composite
def frames(draw: st.DrawFn, types: tuple[str, ...] = tuple(sorted(VALUE_TYPES))) -> Frame:
    """Return a frame of 1 to 5 channels on 1 to 3 clocks, of any of `types` and qualities.

    Where `types` has more than encoding 1 knows, a clock may be that of a waveform.
    """
    clock_count = draw(st.integers(1, 3))
    chosen = draw(st.lists(st.sampled_from(types), min_size=clock_count, max_size=5))
    if draw(st.booleans()):
        chosen = [chosen[0]] * len(chosen)
    times, rates = [], []
    for _ in range(clock_count):
        rate_hz = draw(st.none() | _RATES) if len(types) > len(FIRST_TYPES) else None
        rates.append(rate_hz)
        if rate_hz is None:
            times.append(draw(clocks()))
        else:
            start_ns = draw(st.integers(-(10**18), 10**18))
            times.append(waveform_times_ns(start_ns, rate_hz, draw(st.integers(1, 40))))
    channels, values, masks = [], [], []
    for index, value_type in enumerate(chosen):
        # The first channels use one clock each, so that none is without a channel.
        clock = index if index < clock_count else draw(st.integers(0, clock_count - 1))
        length = len(times[clock])
        is_text = value_type == "str"
        channels.append(
            ChannelHeader(
                f"channel_{index}",
                draw(st.sampled_from(["V", "degC", "°C", "m³/h"])),
                1.0 if is_text else draw(st.sampled_from([1.0, 1e-3, 5 / 9, -2.5, 1 / 60_000])),
                0.0 if is_text else draw(st.sampled_from([0.0, 273.15, -1e22])),
                value_type,
                clock,
                rates[clock],
            )
        )
        values.append(draw(columns(value_type, length)))
        quality = draw(
            st.none() | st.lists(st.sampled_from(Quality), min_size=length, max_size=length)
        )
        masks.append(None if quality is None else np.array(quality, np.uint8))
    # Encoding 1 knows no quality of times.
    time = draw(st.none() | time_qualities()) if len(types) > len(FIRST_TYPES) else None
    header = FrameHeader("pump-1", "agent.7", tuple(channels), clock_count, time)
    return build_frame(header, draw(st.integers(1, INT64_MAX)), times, values, masks)


def time_qualities() -> st.SearchStrategy[TimeQuality]:
    """Return everything that a header can say of its times."""
    of_a_clock = st.builds(
        TimeQuality,
        st.sampled_from([source for source in TIME_SOURCES if source != RECORDING]),
        synchronized=st.none() | st.booleans(),
        stepped=st.booleans(),
    )
    of_another_clock = st.builds(
        TimeQuality,
        st.sampled_from([DEVICE, SERVER, MIXED]),
        synchronized=st.none() | st.booleans(),
        offset_ns=st.integers(0, OFFSET_NS_MAX),
        stepped=st.booleans(),
    )
    return st.just(TimeQuality(RECORDING)) | of_a_clock | of_another_clock


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


def flow_frame(**changes: Any) -> Frame:
    """Return a frame of three flows, with parts of `build_frame` changed."""
    parts: dict[str, Any] = {
        "header": FrameHeader("pump-1", "agent-1", (ChannelHeader("flow", "V", 1.0, 0.0),)),
        "sequence": 1,
        "clocks": [np.array([10, 20, 30])],
        "values": [np.array([1.0, 2.0, 3.0])],
        "qualities": [None],
    }
    return build_frame(**{**parts, **changes})


def assert_same_bits(left: Frame, right: Frame) -> None:
    """Fail unless the frames are equal, NaNs and negative zeros included."""
    assert left.header == right.header
    assert left.sequence == right.sequence
    for mine, its in zip(left.clocks, right.clocks, strict=True):
        np.testing.assert_array_equal(mine, its)
    for mine, its in zip(left.values, right.values, strict=True):
        assert mine.dtype == its.dtype
        if mine.dtype.kind == "O":
            assert mine.tolist() == its.tolist()
        else:
            assert mine.tobytes() == its.tobytes()
    for left_mask, right_mask in zip(left.qualities, right.qualities, strict=True):
        np.testing.assert_array_equal(left_mask, right_mask)
