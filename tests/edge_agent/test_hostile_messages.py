"""Whatever arrives is read, or refused with a code; nothing raises, nothing piles up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import orjson
from asyncua import ua
from bacpypes3.apdu import ErrorType
from bacpypes3.basetypes import BinaryPV
from bacpypes3.primitivedata import CharacterString, OctetString, Real, Unsigned
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidInput
from domain.frame_header import VALUE_TYPES
from domain.frames import Quality
from edge_agent.bacnet.requests import value_in
from edge_agent.channel_mapping import MappedChannel
from edge_agent.live import DeliveredChannel
from edge_agent.modbus.registers import FORMATS, Table, value_as
from edge_agent.modbus.registers import Field as Register
from edge_agent.mqtt.json_messages import Field, JsonMapping, QualityField
from edge_agent.mqtt.topics import check_filter, matches
from edge_agent.opcua.values import delivered_as, quality_of
from edge_agent.reading_buffer import ReadingBuffer
from edge_agent.scaling import Scaling
from edge_agent.serial_line.contents import BinaryPlace, value_at
from edge_agent.sparkplug.node_session import SEQ_COUNT, Delivered, NodeSession
from edge_agent.sparkplug.payload import (
    DataType,
    Metric,
    Payload,
    bd_seq_of,
    decode,
    encode,
    field_of,
)
from edge_agent.sparkplug.topics import MessageType
from edge_agent.timestamps import UNIX_MS, TimeReader

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["1_000", "٣", "nan", "-inf", " 1 ", "0x10", "1e999"])
)
KEYS = st.sampled_from(["a", "t", "q", "w", "s", "0"]) | st.text(max_size=3)
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)
MAPPING = JsonMapping(
    channels=(
        MappedChannel(DeliveredChannel("flow", "l/min"), Scaling(0.1), Field(("a",))),
        MappedChannel(DeliveredChannel("wave", "g_n", "f8", 1_000.0), Scaling(), Field(("w",))),
        MappedChannel(DeliveredChannel("all", "1"), Scaling(), Field(())),
        MappedChannel(DeliveredChannel("program", "1", "str"), Scaling(), Field(("a",))),
        MappedChannel(DeliveredChannel("code", "1", "i8"), Scaling(), Field(("a",))),
        MappedChannel(DeliveredChannel("on", "1", "b1"), Scaling(), Field(("0",))),
    ),
    samples=("s",),
    time=("t",),
    times=TimeReader(UNIX_MS, None),
    quality=QualityField(("q",), {"1": Quality.GOOD}, Quality.UNCERTAIN),
)


def read(payload: bytes) -> tuple[int, list[str]]:
    """Return how many readings `payload` gives, and the codes of what was refused."""
    codes: list[str] = []
    buffer = ReadingBuffer(MAPPING.channels)
    MAPPING.read(
        payload, range(len(MAPPING.channels)), 5, buffer, lambda code, *_: codes.append(code)
    )
    taken = buffer.take()
    for readings in taken:
        assert readings.times_ns.dtype == np.int64
        assert len(readings.times_ns) == len(readings.values) == len(readings.qualities)
        channel = MAPPING.channels[readings.channel].delivered
        assert readings.values.dtype == VALUE_TYPES[channel.value_type]
        missing = readings.qualities == Quality.MISSING
        if channel.value_type == "f8":
            # What is not finite is nothing that a sensor said.
            assert (np.isfinite(readings.values) | missing).all()
        elif channel.value_type == "str":
            assert all(type(text) is str and len(text.encode()) <= 1024 for text in readings.values)
        assert not any(value for value in readings.values[missing] if value == value)
    return sum(len(readings.times_ns) for readings in taken), codes


@given(st.binary(max_size=200))
def test_bytes_are_read_or_refused(payload: bytes) -> None:
    count, codes = read(payload)
    assert count or codes or payload.strip() in (b'{"s":[]}',)


@given(DOCUMENTS)
def test_documents_are_read_or_refused(document: Any) -> None:
    _, codes = read(orjson.dumps(document))
    count, more = read(orjson.dumps({"s": [document, {"t": 5, "a": 2, "q": 1}]}))
    # The sound neighbour is read in any case.
    assert count >= 1
    assert all(code.startswith(("message.", "value.")) for code in codes + more)


@given(st.text(max_size=40), st.text(max_size=40))
def test_topics_are_compared_or_refused(pattern: str, topic: str) -> None:
    try:
        levels = check_filter(pattern)
    except (InvalidInput, UnicodeEncodeError):
        return
    assert matches(levels, topic) in (True, False)
    if "+" not in pattern and "#" not in pattern:
        assert matches(levels, pattern)
        assert matches(levels, topic) == (pattern == topic)


def refusal(attempt: Callable[[], object]) -> str:
    """Return the code with which `attempt` is refused; nothing where it is not."""
    try:
        attempt()
    except InvalidInput as refused:
        return refused.code
    return ""


@given(st.binary(max_size=300))
def test_bytes_are_a_sparkplug_payload_or_refused(encoded: bytes) -> None:
    code = refusal(lambda: decode(encoded))
    if code:
        assert code.startswith("message.")
        return
    payload = decode(encoded)
    bd_seq_of(payload)
    for metric in payload.metrics:
        for datatype in range(40):
            code = refusal(partial(metric.value, datatype))
            assert not code or code.startswith("value.")


NUMERIC = [
    *(DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64),
    *(DataType.UINT8, DataType.UINT16, DataType.UINT32, DataType.UINT64),
]


@given(st.sampled_from(NUMERIC), st.integers(-(2**70), 2**70))
def test_a_whole_number_is_the_same_after_its_journey_or_refused(
    datatype: DataType, value: int
) -> None:
    code = refusal(lambda: field_of(value, datatype))
    if code:
        assert code == "value.out_of_range"
        return
    field, raw = field_of(value, datatype)
    metric = Metric(name="x", datatype=datatype, field=field, raw=raw)
    (found,) = decode(encode(Payload((metric,)))).metrics
    assert found.value(datatype) == value


METRICS = st.builds(
    Metric,
    name=st.none() | st.sampled_from(["a", "b"]),
    alias=st.none() | st.integers(0, 3),
    datatype=st.none() | st.integers(0, 40),
    field=st.just("int_value"),
    raw=st.integers(0, 2**32 - 1),
)
MESSAGES = st.tuples(
    st.sampled_from(list(MessageType)),
    st.sampled_from(["d", "e"]),
    st.builds(
        Payload,
        metrics=st.lists(METRICS, max_size=3).map(tuple),
        timestamp_ms=st.none() | st.integers(0, 2**63),
        seq=st.none() | st.integers(0, 255),
    ),
    st.integers(0, 3),
)


@given(st.lists(MESSAGES, max_size=60))
def test_any_order_of_messages_leaves_a_session_sound(
    messages: list[tuple[MessageType, str, Payload, int]],
) -> None:
    session = NodeSession(reorder_timeout_ns=2)
    now_ns = 0
    for kind, device, payload, pause_ns in messages:
        now_ns += pause_ns
        session.accept(kind, device if kind.of_device else None, payload, now_ns)
        session.expire(now_ns)
        assert session.due_ns is None or now_ns < session.due_ns
        assert len(session._waiting) < SEQ_COUNT
        assert session.online or not session.devices


@given(st.permutations(range(1, 40)))
def test_data_are_delivered_in_order_however_they_arrive(order: list[int]) -> None:
    session = NodeSession(reorder_timeout_ns=10)
    birth = Metric(name="a", datatype=DataType.INT32, field="int_value", raw=0)
    session.accept(MessageType.NBIRTH, None, Payload((birth,), 1, 0), 0)
    found: list[int] = []
    for seq in order:
        metric = Metric(name="a", field="int_value", raw=seq)
        for outcome in session.accept(MessageType.NDATA, None, Payload((metric,), 1, seq), 1):
            assert isinstance(outcome, Delivered)
            found += [told.metric.raw for told in outcome.metrics]
    assert found == list(range(1, 40))
    assert session.due_ns is None


# --- what is no measured number, in the words of each protocol ----------------------------

EXACT = st.sampled_from(["i8", "b1", "str", "f8"]).map(
    lambda kind: DeliveredChannel("x", "1", kind)
)
VARIANTS = st.one_of(
    *(
        st.builds(ua.Variant, values, st.just(kind))
        for kind, values in (
            (ua.VariantType.Boolean, st.booleans()),
            (ua.VariantType.Int64, st.integers(-(2**63), 2**63 - 1)),
            (ua.VariantType.UInt64, st.integers(0, 2**64 - 1)),
            (ua.VariantType.Double, st.floats()),
            (ua.VariantType.String, st.none() | st.text(max_size=1_100)),
            (ua.VariantType.ByteString, st.none() | st.binary(max_size=9)),
            (ua.VariantType.Int32, st.lists(st.integers(0, 9), max_size=3)),
            (ua.VariantType.DateTime, st.datetimes()),
            (ua.VariantType.LocalizedText, st.text().map(lambda text: ua.LocalizedText(text))),
        )
    )
)


def check_value(value: object, quality: int, code: str, channel: DeliveredChannel) -> None:
    """A value is one of its channel's type, and what is none is MISSING and told by a code."""
    assert not code or code.startswith("value.")
    column = np.array([value], VALUE_TYPES[channel.value_type])
    if quality == Quality.MISSING:
        assert not column[0] or column[0] != column[0]
    elif channel.value_type == "str":
        assert isinstance(value, str)
        assert len(value.encode()) <= 1024
    else:
        assert column[0] == value


@given(VARIANTS | st.none(), st.integers(0, 2**32 - 1), EXACT)
def test_any_variant_of_opc_ua_is_a_value_or_missing(
    variant: ua.Variant | None, status: int, channel: DeliveredChannel
) -> None:
    data = ua.DataValue(variant, ua.StatusCode(ua.UInt32(status)))
    found = delivered_as(data, channel)
    check_value(found.raw, found.quality, found.code, channel)
    assert found.quality >= quality_of(data.StatusCode) or found.quality == Quality.MISSING


@given(
    st.lists(st.integers(0, 0xFFFF), min_size=4, max_size=4),
    st.sampled_from(sorted(FORMATS)),
    st.sampled_from(["big", "little"]),
    EXACT.filter(lambda channel: channel.value_type != "str"),
)
def test_any_registers_are_a_value_or_missing(
    registers: list[int], number_type: str, order: str, channel: DeliveredChannel
) -> None:
    field = Register(
        table=Table.HOLDING, address=0, number_type=number_type, word_order=order, byte_order=order
    )
    found = value_as(field, registers[: field.size], channel)
    check_value(found.raw, found.quality, found.code, channel)


@given(
    st.lists(st.text(max_size=30), max_size=3) | st.binary(max_size=12),
    st.sampled_from([0, 2, "group", BinaryPlace(1, ">q"), BinaryPlace(0, "<d")]),
    EXACT,
)
def test_any_frame_of_a_line_is_a_value_or_missing(
    values: list[str] | bytes, place: Any, channel: DeliveredChannel
) -> None:
    value, quality, code, _ = value_at(values, place, channel)
    check_value(value, quality, code, channel)
    assert code or quality != Quality.MISSING or "" in values


@given(
    st.one_of(
        st.none(),
        st.integers(0, 2**32 - 1).map(Unsigned),
        st.floats(width=32).map(Real),
        st.text(max_size=1_100).map(CharacterString),
        st.sampled_from(["active", "inactive"]).map(BinaryPV),
        st.just(ErrorType(errorClass="property", errorCode="unknown-property")),
        st.just(InvalidInput("target.refused", "no")),
        st.binary(max_size=4).map(OctetString),
    ),
    EXACT,
)
def test_any_property_of_bacnet_is_a_value_or_missing(
    value: Any, channel: DeliveredChannel
) -> None:
    found, quality, code = value_in(value, channel)
    if code != "target.refused":
        check_value(found, quality, code, channel)
    assert code or quality != Quality.MISSING
