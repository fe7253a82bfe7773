"""How far times can be trusted, as a frame's header says it: exact, bounded, and nothing else."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import HeddleError, MalformedFrame
from domain.frame_decoding import decode
from domain.frame_encoding import encode
from domain.frame_header import HEADER_BYTES_MAX, parse_header, unpack_header
from domain.frame_statistics import pack_statistics_many, time_quality
from domain.frames import canonical_bytes
from domain.time_quality import OFFSET_NS_MAX, TimeQuality
from tests.domain.frame_samples import flow_frame, small_frame, time_qualities

PLAIN = flow_frame().header


def timed(members: str) -> bytes:
    """Return the canonical header of `PLAIN` with `members` as what it says of its times."""
    return PLAIN.canonical[:-1] + f',"time":{members}}}'.encode()


@given(time_qualities())
def test_what_is_said_comes_back_and_is_part_of_the_hash(time: TimeQuality) -> None:
    header = replace(PLAIN, time=time)
    assert parse_header(header.canonical) == unpack_header(header.packed) == header
    frame = replace(flow_frame(), header=header)
    decoded = decode(encode(frame))
    assert decoded.header.time == time
    assert decoded.canonical_sha256 == frame.canonical_sha256 != flow_frame().canonical_sha256


def test_frames_that_say_nothing_keep_their_bytes_and_their_packing() -> None:
    assert PLAIN.time is None
    assert b"time" not in PLAIN.canonical
    assert PLAIN.packed[0] == 1
    assert canonical_bytes(flow_frame()).startswith(b"heddle-frame/1\n")
    said = replace(flow_frame(), header=replace(PLAIN, time=TimeQuality("agent")))
    assert canonical_bytes(said).startswith(b"heddle-frame/2\n")


def test_it_takes_few_bytes_of_a_frame() -> None:
    for time in (TimeQuality("recording"), TimeQuality("device", True, 2_000_000)):
        assert len(replace(PLAIN, time=time).packed) <= len(PLAIN.packed) + 8


def test_frames_alike_but_for_their_times_are_still_alike() -> None:
    one, other = (replace(PLAIN, time=time) for time in (None, TimeQuality("agent", True)))
    assert one.alike is other.alike
    assert one != other


@pytest.mark.parametrize(
    "time",
    [
        TimeQuality("moon"),
        TimeQuality(""),
        TimeQuality(7),  # type: ignore[arg-type]
        TimeQuality("device", offset_ns=-1),
        TimeQuality("device", offset_ns=OFFSET_NS_MAX + 1),
        TimeQuality("device", offset_ns=1.5),  # type: ignore[arg-type]
        TimeQuality("device", offset_ns=True),
        TimeQuality("device", synchronized=1),  # type: ignore[arg-type]
        TimeQuality("device", stepped=1),  # type: ignore[arg-type]
        TimeQuality("agent", offset_ns=0),
        TimeQuality("recording", synchronized=True),
        TimeQuality("recording", stepped=True),
        TimeQuality("recording", offset_ns=5),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused_built_or_received(time: TimeQuality) -> None:
    header = replace(PLAIN, time=time)
    with pytest.raises(MalformedFrame) as refused:
        header.checked()
    assert refused.value.code == "frame.time_quality"
    with pytest.raises(MalformedFrame) as refused:
        parse_header(header.canonical)
    assert refused.value.code == "frame.time_quality"


@pytest.mark.parametrize(
    "members",
    [
        "null",
        "[]",
        "{}",
        '"agent"',
        "7",
        '{"source":null}',
        '{"source":["agent"]}',
        '{"source":"agent","stepped":false}',
        '{"source":"agent","synchronized":null}',
        '{"offset_ns":null,"source":"device"}',
        '{"source":"device","offset_ns":5}',
        '{"source":"agent","colour":"blue"}',
        '{"offset_ns":5.0,"source":"device"}',
        '{"offset_ns":05,"source":"device"}',
        '{"offset_ns":' + "9" * 5_000 + ',"source":"device"}',
        '{"source": "agent"}',
        '{"source":"agent","source":"agent"}',
    ],
)
def test_what_is_not_said_in_the_one_way_is_refused(members: str) -> None:
    with pytest.raises(MalformedFrame) as refused:
        parse_header(timed(members))
    assert refused.value.code in ("frame.header", "frame.time_quality")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["source", "offset_ns", "stepped", "synchronized", "x"]), inner
        )
    ),
    max_leaves=8,
)


@given(_JSON)
@settings(max_examples=300)
def test_a_header_is_refused_or_says_exactly_what_it_said(members: Any) -> None:
    raw = timed(json.dumps(members, sort_keys=True, separators=(",", ":")))
    found, code = _parsed(raw)
    assert code in ("", "frame.header", "frame.time_quality")
    assert (found is None) == bool(code)
    assert found in (None, raw)


def _parsed(raw: bytes) -> tuple[bytes | None, str]:
    """Return what the header `raw` is written anew as, or the code by which it is refused."""
    try:
        return parse_header(raw).canonical, ""
    except HeddleError as refused:
        return None, refused.code


@given(st.binary(max_size=200), st.sampled_from([0, 1, 2, 3, 255]))
@settings(max_examples=300)
def test_hostile_packed_headers_are_refused(raw: bytes, packing: int) -> None:
    with pytest.raises(HeddleError):
        unpack_header(bytes([packing]) + raw)


def test_a_header_that_inflates_without_end_is_refused() -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflate.compress(b" " * (HEADER_BYTES_MAX * 100)) + deflate.flush()
    with pytest.raises(MalformedFrame) as refused:
        unpack_header(b"\x02" + bomb)
    assert refused.value.code == "frame.header"


def test_the_statistics_beside_a_frame_say_it_too() -> None:
    time = TimeQuality("device", False, 10_000_000)
    header = replace(small_frame().header, time=time)
    said, silent = pack_statistics_many([replace(small_frame(), header=header), small_frame()])
    assert time_quality(said) == time
    assert time_quality(silent) is None
