"""What an OPC UA DataValue says, as a reading: time, number, quality, and what is wrong with it.

References
----------
OPC 10000-4 (Services) 7.38: StatusCode, its severities and its overflow bit; 7.11: DataValue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from asyncua import ua

from domain.frames import READINGS_MAX, Column, Quality
from domain.time_quality import AGENT, DEVICE, SERVER
from edge_agent.delivered_numbers import exactness
from edge_agent.delivered_values import Value, is_exact, value_of
from edge_agent.live import DeliveredChannel

SEVERITY_SHIFT: Final = 30
INFO_DATA_VALUE: Final = 0x0400
INFO_TYPE_MASK: Final = 0x0C00
INFO_OVERFLOW: Final = 0x0080
SHOWN_MAX: Final = 80
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_QUALITY_BY_SEVERITY: Final = (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD)


@dataclass(frozen=True, slots=True)
class Delivered:
    """One value as the server told it.

    Parameters
    ----------
    time_ns : the source's time, else the server's; None where neither is told
    raw : of the channel's type; NaN where there is no number
    code, message : stable code and words of what is wrong with it; empty where nothing is
    overflowed : the server's queue overflowed before it: values were lost
    """

    time_ns: int | None
    raw: Value
    quality: int
    code: str = ""
    message: str = ""
    overflowed: bool = False


@dataclass(frozen=True, slots=True)
class DeliveredRun:
    """An array of samples as the server told it; `raw` float64, `qualities` uint8."""

    time_ns: int | None
    raw: Column
    qualities: Column
    code: str = ""
    message: str = ""
    overflowed: bool = False


def quality_of(status: ua.StatusCode | None) -> Quality:
    """Return the quality that the severity of `status` stands for; no status means Good."""
    return Quality.GOOD if status is None else _QUALITY_BY_SEVERITY[status.value >> SEVERITY_SHIFT]


def delivered_as(data: ua.DataValue, channel: DeliveredChannel) -> Delivered:
    """Return what `data` says of `channel`, which has single values, in the channel's type."""
    if not is_exact(channel):
        return delivered(data)
    status = data.StatusCode
    value = None if data.Value is None else data.Value.Value
    found, own, code = value_of(value, channel)
    told = f"{type(value).__name__} {value!r:.{SHOWN_MAX}} gives no good reading" if code else ""
    quality = quality_of(status)
    if value is None and quality != Quality.BAD:
        code, told = "value.missing", "a value is missing though its status is not Bad"
    return Delivered(_time_ns(data), found, max(quality, own), code, told, _overflowed(status))


def delivered(data: ua.DataValue) -> Delivered:
    """Return what `data` says of a channel with single numbers."""
    status = data.StatusCode
    quality, overflowed = quality_of(status), _overflowed(status)
    time_ns = _time_ns(data)
    value = None if data.Value is None else data.Value.Value
    if type(value) is float and math.isfinite(value):  # nearly all are
        return Delivered(time_ns, value, quality, "", "", overflowed)
    if value is None:
        told = "" if quality == Quality.BAD else "a value is missing though its status is not Bad"
        code = "" if quality == Quality.BAD else "value.missing"
        return Delivered(time_ns, math.nan, Quality.MISSING, code, told, overflowed)
    number = _number(value)
    if number is None:
        told = f"{type(value).__name__} {value!r:.{SHOWN_MAX}} is no single number"
        return Delivered(time_ns, math.nan, Quality.MISSING, "value.wrong_type", told, overflowed)
    if not math.isfinite(number):
        told = f"{number} is no finite number"
        return Delivered(time_ns, math.nan, Quality.MISSING, "value.not_finite", told, overflowed)
    inexact, code = exactness(value)
    told = f"{value} is beyond 2^53 and was rounded" if code else ""
    return Delivered(time_ns, number, max(quality, inexact), code, told, overflowed)


def delivered_run(data: ua.DataValue) -> DeliveredRun:
    """Return what `data` says of a waveform: an array of numbers, of which none may be too long."""
    status = data.StatusCode
    quality, overflowed, time_ns = quality_of(status), _overflowed(status), _time_ns(data)
    value = None if data.Value is None else data.Value.Value
    nothing = np.empty(0), np.empty(0, np.uint8)
    if value is None:
        return DeliveredRun(time_ns, *nothing, overflowed=overflowed)
    if isinstance(value, list) and len(value) > READINGS_MAX:
        told = f"an array of {len(value)} values, more than {READINGS_MAX}"
        return DeliveredRun(time_ns, *nothing, "value.too_long", told, overflowed)
    raw = _numbers(value)
    if raw is None:
        told = f"{type(value).__name__} {value!r:.{SHOWN_MAX}} is no array of numbers"
        return DeliveredRun(time_ns, *nothing, "value.wrong_type", told, overflowed)
    qualities = np.full(len(raw), quality, np.uint8)
    return DeliveredRun(time_ns, raw, qualities, overflowed=overflowed)


def _number(value: Any) -> float | None:
    """Return a Boolean, an integer or a float as a float; None for whatever else came."""
    if isinstance(value, bool | int | float):
        try:
            return float(value)
        except OverflowError:  # no type of OPC UA is as wide; a hostile server may still try
            return None
    return None


def _numbers(value: Any) -> Column | None:
    if not isinstance(value, list) or not all(isinstance(one, bool | int | float) for one in value):
        return None
    try:
        return np.array(value, np.float64)
    except (OverflowError, ValueError):
        return None


def _overflowed(status: ua.StatusCode | None) -> bool:
    return (
        status is not None
        and status.value & INFO_TYPE_MASK == INFO_DATA_VALUE
        and bool(status.value & INFO_OVERFLOW)
    )


def clock_of(data: ua.DataValue) -> str:
    """Return who told the time of `data`, of `domain.time_quality.TIME_SOURCES`."""
    if data.SourceTimestamp:
        return DEVICE
    return SERVER if data.ServerTimestamp else AGENT


def _time_ns(data: ua.DataValue) -> int | None:
    """Return the source's time, or the server's where the source tells none."""
    moment = data.SourceTimestamp or data.ServerTimestamp
    if moment is None:
        return None
    aware: datetime = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since: timedelta = aware - _EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1_000
