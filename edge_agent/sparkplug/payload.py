"""Sparkplug B payloads as plain values: decoded with a limit on everything, encoded by datatype.

Numbers, truth values and texts are carried in full, and arrays of numbers; of data sets,
templates and files it is told that they are there, not what they say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np

from domain.errors import InvalidInput
from domain.frames import Column, Quality
from edge_agent.sparkplug.payload_schema import payload_class

METRICS_MAX: Final = 20_000
NAME_LENGTH_MAX: Final = 1_024
ARRAY_LENGTH_MAX: Final = 100_000
BD_SEQ: Final = "bdSeq"
REBIRTH: Final = "Node Control/Rebirth"
QUALITY_PROPERTY: Final = "Quality"
COMPRESSED: Final = "SPBV1.0_COMPRESSED"

_QUALITIES: Final = {0: Quality.BAD, 192: Quality.GOOD, 500: Quality.UNCERTAIN}
"""Codes of the Quality property (6.4.13): bad, good, stale."""


class DataType(IntEnum):
    """Datatypes of metrics (6.4.16)."""

    UNKNOWN = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATE_TIME = 13
    TEXT = 14
    UUID = 15
    DATA_SET = 16
    BYTES = 17
    FILE = 18
    TEMPLATE = 19
    PROPERTY_SET = 20
    PROPERTY_SET_LIST = 21
    INT8_ARRAY = 22
    INT16_ARRAY = 23
    INT32_ARRAY = 24
    INT64_ARRAY = 25
    UINT8_ARRAY = 26
    UINT16_ARRAY = 27
    UINT32_ARRAY = 28
    UINT64_ARRAY = 29
    FLOAT_ARRAY = 30
    DOUBLE_ARRAY = 31
    BOOLEAN_ARRAY = 32
    STRING_ARRAY = 33
    DATE_TIME_ARRAY = 34


_SIGNED_BITS: Final = {
    DataType.INT8: 8,
    DataType.INT16: 16,
    DataType.INT32: 32,
    DataType.INT64: 64,
}
_UNSIGNED_BITS: Final = {
    DataType.UINT8: 8,
    DataType.UINT16: 16,
    DataType.UINT32: 32,
    DataType.UINT64: 64,
}
_TEXTS: Final = (DataType.STRING, DataType.TEXT, DataType.UUID)
_ARRAYS: Final = {
    DataType.INT8_ARRAY: "<i1",
    DataType.INT16_ARRAY: "<i2",
    DataType.INT32_ARRAY: "<i4",
    DataType.INT64_ARRAY: "<i8",
    DataType.UINT8_ARRAY: "<u1",
    DataType.UINT16_ARRAY: "<u2",
    DataType.UINT32_ARRAY: "<u4",
    DataType.UINT64_ARRAY: "<u8",
    DataType.FLOAT_ARRAY: "<f4",
    DataType.DOUBLE_ARRAY: "<f8",
}

Value = float | int | bool | str | Column | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric as a payload carries it.

    Parameters
    ----------
    timestamp_ms : UTC, ms since 1970
    datatype : a `DataType`; None where the payload leaves it to the birth
    field, raw : which field of the payload holds the value, and what stands there; None for null
    quality : of the Quality property
    """

    name: str | None = None
    alias: int | None = None
    timestamp_ms: int | None = None
    datatype: int | None = None
    is_historical: bool = False
    is_null: bool = False
    quality: Quality = Quality.GOOD
    field: str | None = None
    raw: Any = None

    def value(self, datatype: int) -> Value:
        """Return the value as one of `datatype`.

        Raises
        ------
        InvalidInput
            ``value.unsupported_type`` for what is neither a number, a truth value, a text nor an
            array of numbers; ``value.wrong_type`` where the field cannot hold that type
        """
        if self.is_null or self.field is None:
            return None
        try:
            known = DataType(datatype)
        except ValueError:
            known = DataType.UNKNOWN
        if known in _ARRAYS:
            return self._array(known)
        if known in _SIGNED_BITS or known in _UNSIGNED_BITS:
            return self._integer(known)
        fields = {
            DataType.FLOAT: "float_value",
            DataType.DOUBLE: "double_value",
            DataType.BOOLEAN: "boolean_value",
        } | dict.fromkeys(_TEXTS, "string_value")
        if known not in fields:
            told = f"a metric of datatype {_named(datatype)} gives no readings"
            raise InvalidInput("value.unsupported_type", told, value=datatype)
        if self.field != fields[known]:
            raise self._wrong_type(known)
        found: Value = self.raw
        return found

    def _integer(self, datatype: DataType) -> int:
        if self.field not in ("int_value", "long_value"):
            raise self._wrong_type(datatype)
        raw = int(self.raw)
        if datatype in _UNSIGNED_BITS:
            if raw >> _UNSIGNED_BITS[datatype]:
                raise self._wrong_type(datatype)
            return raw
        # Some publishers extend the sign to the width of the field, some do not.
        bits = _SIGNED_BITS[datatype]
        width = 32 if self.field == "int_value" else 64
        low, high = raw & ((1 << bits) - 1), raw >> bits
        negative = low >> (bits - 1)
        if high and not (negative and high == (1 << max(0, width - bits)) - 1):
            raise self._wrong_type(datatype)
        return low - (1 << bits) if negative else low

    def _array(self, datatype: DataType) -> Column:
        dtype = np.dtype(_ARRAYS[datatype])
        if self.field != "bytes_value" or len(self.raw) % dtype.itemsize:
            raise self._wrong_type(datatype)
        if len(self.raw) > ARRAY_LENGTH_MAX * dtype.itemsize:
            told = f"an array of more than {ARRAY_LENGTH_MAX} values"
            raise InvalidInput("value.too_long", told, limit=ARRAY_LENGTH_MAX)
        return np.frombuffer(self.raw, dtype)

    def _wrong_type(self, datatype: DataType) -> InvalidInput:
        told = f"{self.raw!r:.80} in {self.field} is no {_named(datatype)}"
        return InvalidInput("value.wrong_type", told)


@dataclass(frozen=True, slots=True)
class Payload:
    """A Sparkplug B payload.

    Parameters
    ----------
    timestamp_ms : when it was published, UTC, ms since 1970
    seq : 0 to 255; None where it has none
    """

    metrics: tuple[Metric, ...] = ()
    timestamp_ms: int | None = None
    seq: int | None = None

    def metric(self, name: str) -> Metric | None:
        """Return the first metric called `name`."""
        return next((metric for metric in self.metrics if metric.name == name), None)


def decode(encoded: bytes) -> Payload:
    """Return the payload that `encoded` is.

    Raises
    ------
    InvalidInput
        ``message.malformed``, ``message.compressed``, ``message.too_many_metrics``
    """
    from google.protobuf.message import DecodeError

    try:
        found = payload_class().FromString(encoded)
    except (DecodeError, ValueError) as error:
        told = f"the message is no Sparkplug B payload: {error}"
        raise InvalidInput("message.malformed", told) from error
    if found.uuid == COMPRESSED:
        raise InvalidInput("message.compressed", "a compressed payload is not read")
    if len(found.metrics) > METRICS_MAX:
        told = f"{len(found.metrics)} metrics, more than {METRICS_MAX}"
        raise InvalidInput("message.too_many_metrics", told, limit=METRICS_MAX)
    seq = found.seq if found.HasField("seq") else None
    if seq is not None and seq > 255:
        raise InvalidInput("message.malformed", f"seq {seq} is not 0 to 255", value=seq, limit=255)
    return Payload(
        tuple(map(_decoded, found.metrics)),
        found.timestamp if found.HasField("timestamp") else None,
        seq,
    )


def _decoded(found: Any) -> Metric:
    field = found.WhichOneof("value")
    # Of a data set, a template or a file its kind is enough.
    raw = None if field in (None, "dataset_value", "template_value") else getattr(found, field)
    return Metric(
        name=found.name if found.HasField("name") else None,
        alias=found.alias if found.HasField("alias") else None,
        timestamp_ms=found.timestamp if found.HasField("timestamp") else None,
        datatype=found.datatype if found.HasField("datatype") else None,
        is_historical=found.is_historical,
        is_null=found.is_null,
        quality=_quality(found),
        field=field,
        raw=raw,
    )


def _quality(found: Any) -> Quality:
    if not found.HasField("properties"):
        return Quality.GOOD
    keys, values = found.properties.keys, found.properties.values
    # 6.4.11: as many keys as values; where they differ no value can be told.
    if len(keys) != len(values):
        return Quality.UNCERTAIN
    for key, value in zip(keys, values, strict=True):
        if key == QUALITY_PROPERTY:
            return _QUALITIES.get(value.int_value, Quality.UNCERTAIN)
    return Quality.GOOD


def encode(payload: Payload) -> bytes:
    """Return `payload` as it travels."""
    made = payload_class()()
    if payload.timestamp_ms is not None:
        made.timestamp = payload.timestamp_ms
    if payload.seq is not None:
        made.seq = payload.seq
    for metric in payload.metrics:
        found = made.metrics.add()
        for name in ("name", "alias", "datatype"):
            value = getattr(metric, name)
            if value is not None:
                setattr(found, name, value)
        if metric.timestamp_ms is not None:
            found.timestamp = metric.timestamp_ms
        if metric.is_historical:
            found.is_historical = True
        if metric.is_null:
            found.is_null = True
        elif metric.field is not None:
            setattr(found, metric.field, metric.raw)
        if metric.quality is not Quality.GOOD:
            found.properties.keys.append(QUALITY_PROPERTY)
            code = next(code for code, known in _QUALITIES.items() if known is metric.quality)
            found.properties.values.add(type=DataType.INT32, int_value=code)
    encoded: bytes = made.SerializeToString()
    return encoded


def field_of(value: Value, datatype: int) -> tuple[str | None, Any]:
    """Return the field that holds `value` as one of `datatype`, and what stands there.

    Raises
    ------
    InvalidInput
        ``value.wrong_type`` where the type cannot hold the value
    """
    if value is None:
        return None, None
    known = DataType(datatype)
    if known in _ARRAYS:
        return "bytes_value", np.asarray(value, _ARRAYS[known]).tobytes()
    if known in _TEXTS and isinstance(value, str):
        return "string_value", value
    if isinstance(value, (bool, int, float)) and not (
        isinstance(value, float) and math.isnan(value)
    ):
        if known is DataType.BOOLEAN and value in (0, 1):
            return "boolean_value", bool(value)
        if known is DataType.FLOAT:
            return "float_value", float(value)
        if known is DataType.DOUBLE:
            return "double_value", float(value)
        if value == math.floor(value):
            return _integer_field(int(value), known)
    told = f"{value!r:.80} is no {_named(datatype)}"
    raise InvalidInput("value.wrong_type", told, value=value)


def _integer_field(value: int, datatype: DataType) -> tuple[str, int]:
    bits = _SIGNED_BITS.get(datatype) or _UNSIGNED_BITS.get(datatype)
    signed = datatype in _SIGNED_BITS
    if bits is None:
        told = f"{value!r:.80} is no {_named(datatype)}"
        raise InvalidInput("value.wrong_type", told, value=value)
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if signed else (0, 1 << bits)
    if not low <= value < high:
        told = f"{value} does not fit {_named(datatype)}"
        raise InvalidInput("value.out_of_range", told, value=value, limit=high - 1)
    field, width = ("long_value", 64) if bits == 64 else ("int_value", 32)
    return field, value & ((1 << width) - 1)


def _named(datatype: int) -> str:
    try:
        return DataType(datatype).name
    except ValueError:
        return str(datatype)


def metric_of(
    value: Value,
    datatype: int,
    *,
    name: str | None = None,
    alias: int | None = None,
    timestamp_ms: int | None = None,
    tell_datatype: bool = False,
    quality: Quality = Quality.GOOD,
    is_historical: bool = False,
) -> Metric:
    """Return a metric that carries `value`; null where it is None."""
    field, raw = field_of(value, datatype)
    return Metric(
        name=name,
        alias=alias,
        timestamp_ms=timestamp_ms,
        datatype=datatype if tell_datatype else None,
        is_historical=is_historical,
        is_null=value is None,
        quality=quality,
        field=field,
        raw=raw,
    )


def bd_seq_of(payload: Payload) -> int | None:
    """Return the birth and death sequence number in `payload`, None where it has none."""
    metric = payload.metric(BD_SEQ)
    if metric is None:
        return None
    for datatype in (DataType.INT64, DataType.UINT64):
        try:
            value = metric.value(datatype)
        except InvalidInput:
            continue
        return value if isinstance(value, int) else None
    return None
