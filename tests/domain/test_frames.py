"""Frames: exact round trips, one hash whatever the encoding, and no harm from hostile bytes."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidInput, MalformedFrame
from domain.frame_decoding import decode
from domain.frame_encoding import encode
from domain.frames import (
    CHANNELS_MAX,
    FRAME_BYTES_MAX,
    READINGS_MAX,
    SEQUENCE_MAX,
    TEXT_BYTES_MAX,
    VALUE_TYPES,
    ChannelHeader,
    Frame,
    FrameHeader,
    Quality,
    build_frame,
    canonical_bytes,
    header_bytes,
    parse_header,
    waveform_times_ns,
)
from tests.domain.frame_samples import assert_same_bits, flow_frame

CHANNEL = ChannelHeader("flow", "V", 1.0, 0.0)
VECTORS = sorted((Path(__file__).parent / "vectors").glob("*.json"))


# --- the hash -----------------------------------------------------------------------------


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
            np.array([no_value(kind) if v is None else v for v in column], VALUE_TYPES[kind])
            for kind, column in zip(vector["types"], vector["values"], strict=True)
        ],
        [None if mask is None else np.array(mask, np.uint8) for mask in vector["qualities"]],
    )
    assert canonical_bytes(built).hex() == vector["canonical"]
    assert built.canonical_sha256.hex() == vector["sha256"]
    encodings = [vector[name] for name in ("encoded", "encoded_2") if name in vector]
    assert encodings
    for encoded in encodings:
        decoded = decode(bytes.fromhex(encoded))
        assert_same_bits(decoded, built)
        assert canonical_bytes(decoded).hex() == vector["canonical"]


def no_value(kind: str) -> Any:
    return "" if kind == "str" else np.nan if kind.startswith("f") else 0


def test_there_are_vectors_of_both_encodings() -> None:
    vectors = [json.loads(path.read_text()) for path in VECTORS]
    assert sum("encoded" in vector for vector in vectors) >= 7
    assert sum("encoded_2" in vector for vector in vectors) >= 12


# --- waveforms and text -------------------------------------------------------------------

WAVEFORM = FrameHeader(
    "a", "b", (ChannelHeader("vibration", "g_n", 9.80665, 0.0, "f4", 0, 12_000.0),)
)


def test_the_times_of_a_waveform_follow_from_start_and_rate_without_error() -> None:
    times = waveform_times_ns(5, 12_000.0, 240_001)
    assert times[0] == 5
    assert times[12_000] == 5 + 1_000_000_000
    assert times[240_000] == 5 + 20_000_000_000
    assert set(np.diff(times).tolist()) == {83_333, 83_334}


def test_a_waveform_is_numeric_and_hashes_its_start_alone() -> None:
    times = waveform_times_ns(10, 12_000.0, 3)
    frame = build_frame(WAVEFORM, 1, [times], [np.array([1, 2, 3], np.float32)], [None])
    (group,) = frame.clock_groups
    np.testing.assert_array_equal(group.si[0], np.array([1.0, 2.0, 3.0]) * 9.80665)
    canonical = canonical_bytes(frame)
    assert canonical.startswith(b"heddle-frame/2\n")
    assert times[:1].tobytes() in canonical
    assert times[1:2].tobytes() not in canonical


def test_times_that_are_not_those_of_the_rate_are_refused() -> None:
    with pytest.raises(MalformedFrame) as refused:
        build_frame(WAVEFORM, 1, [np.array([0, 83_334])], [np.zeros(2, np.float32)], [None])
    assert refused.value.code == "frame.rate"
    assert (refused.value.value, refused.value.limit) == (83_334, 83_333)


TEXTS = FrameHeader(
    "a",
    "b",
    (
        ChannelHeader("mode", "1", 1.0, 0.0, "str"),
        ChannelHeader("flow", "V", 2.0, 0.0),
        ChannelHeader("recipe", "1", 1.0, 0.0, "str", 1),
    ),
    clock_count=2,
)


def text_frame(mode: list[Any], mask: Any = None) -> Frame:
    return build_frame(
        TEXTS,
        1,
        [np.arange(len(mode)), np.array([7])],
        [np.array(mode, object), np.arange(len(mode)) * 1.0, np.array(["r-1"], object)],
        [mask, None, None],
    )


def test_text_is_left_out_where_numbers_are_asked_for() -> None:
    frame = text_frame(["RUN", "STOP"])
    assert frame.numeric_channels == (1,)
    assert frame.text_channels == (0, 2)
    (group,) = frame.clock_groups  # the second clock times text alone
    assert group.indexes == (1,)
    assert group.si.tolist() == [[0.0, 2.0]]
    with pytest.raises(InvalidInput) as refused:
        frame.channel_si(0)
    assert refused.value.code == "frame.channel_is_text"


def test_the_border_between_texts_matters_to_the_hash() -> None:
    assert text_frame(["ab", "c"]).canonical_sha256 != text_frame(["a", "bc"]).canonical_sha256


@pytest.mark.parametrize("text", ["x" * 1025, "é" * 513, "\ud800", 7, None, b"RUN"])
def test_what_is_no_text_is_refused(text: Any) -> None:
    with pytest.raises(MalformedFrame) as refused:
        text_frame([text])
    assert refused.value.code == "frame.text"


def test_a_text_of_the_largest_length_is_held() -> None:
    assert text_frame(["é" * 512]).values[0][0] == "é" * 512


def test_texts_that_are_together_too_large_are_refused() -> None:
    with pytest.raises(MalformedFrame) as refused:
        text_frame(["x" * 1024] * (TEXT_BYTES_MAX // 1024))
    assert refused.value.code == "frame.text"
    assert refused.value.limit == TEXT_BYTES_MAX


def test_a_missing_text_is_empty() -> None:
    mask = np.array([Quality.GOOD, Quality.MISSING], np.uint8)
    assert text_frame(["RUN", "junk"], mask).values[0].tolist() == ["RUN", ""]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"rate_hz": 0.0}, "frame.rate"),
        ({"rate_hz": 2e9}, "frame.rate"),
        ({"rate_hz": float("nan")}, "frame.rate"),
        ({"rate_hz": 12_000}, "frame.rate"),
        ({"value_type": "str", "factor": 2.0}, "frame.header"),
        ({"value_type": "str", "offset": 1.0}, "frame.header"),
    ],
)
def test_a_channel_that_cannot_be_is_refused(changes: dict[str, Any], code: str) -> None:
    header = FrameHeader("a", "b", (replace(CHANNEL, **changes),))
    with pytest.raises(MalformedFrame) as refused:
        header.checked()
    assert refused.value.code == code


def test_channels_of_a_clock_have_one_rate() -> None:
    channels = (replace(CHANNEL, rate_hz=10.0), replace(CHANNEL, name="x", rate_hz=None))
    with pytest.raises(MalformedFrame) as refused:
        FrameHeader("a", "b", channels).checked()
    assert refused.value.code == "frame.rate"


def test_a_rate_that_is_null_is_no_canonical_header() -> None:
    header = FrameHeader("a", "b", (replace(CHANNEL, rate_hz=10.0),)).canonical
    assert parse_header(header).channels[0].rate_hz == 10.0
    with pytest.raises(MalformedFrame):
        parse_header(header.replace(b"10.0", b"null"))


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
            parse_header(header.canonical)
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


# --- channels as one array ----------------------------------------------------------------

PAIR = FrameHeader("a", "b", (CHANNEL, replace(CHANNEL, name="other")))


def test_channels_may_come_as_one_array() -> None:
    clock, values = [np.array([1, 2, 3])], np.arange(12.0).reshape(2, 6)[:, ::2]
    one = build_frame(PAIR, 1, clock, values, [None, None])
    assert_same_bits(one, build_frame(PAIR, 1, clock, list(values), [None, None]))


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (np.array([[1.0, np.nan, 3.0], [1.0, 2.0, 3.0]]), "frame.value_not_finite"),
        (np.zeros((2, 4)), "frame.column_length"),
        (np.zeros((3, 3)), "frame.column_count"),
        (np.zeros((2, 3), np.float32), "frame.value_type"),
        (np.zeros((2, 3), np.int64), "frame.value_type"),
    ],
)
def test_an_array_that_does_not_fit_is_refused_as_columns_are(values: Any, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        build_frame(PAIR, 1, [np.array([1, 2, 3])], values, [None, None])
    assert refused.value.code == code
