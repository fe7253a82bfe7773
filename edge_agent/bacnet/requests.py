"""Asking a device in the library's words, and its answers in ours."""

from __future__ import annotations

import math
from typing import Any

from domain.errors import InvalidInput, Unavailable
from domain.frames import Quality
from edge_agent.delivered_numbers import judged_number
from edge_agent.delivered_values import NO_VALUE, Value, is_exact, value_of
from edge_agent.live import DeliveredChannel


async def answered(request: Any, what: str) -> Any:
    """Return the answer of a device.

    Raises
    ------
    Unavailable
        ``device.silent``
    InvalidInput
        ``target.refused`` when it answers with an error
    """
    from bacpypes3.apdu import AbortPDU, ErrorRejectAbortNack

    try:
        answer = await request
    except AbortPDU as error:
        raise Unavailable("device.silent", f"{what}: {error.apduAbortRejectReason}") from error
    except ErrorRejectAbortNack as error:
        raise InvalidInput("target.refused", f"{what}: {error}") from error
    except OSError as error:
        raise Unavailable("device.silent", f"{what}: {error}") from error
    if isinstance(answer, ErrorRejectAbortNack):
        raise InvalidInput("target.refused", f"{what}: {answer}")
    return answer


def is_refusal(error: BaseException) -> bool:
    from bacpypes3.apdu import ErrorRejectAbortNack

    return isinstance(error, (ErrorRejectAbortNack, OSError))


def address_of(device: tuple[str, int]) -> Any:
    from bacpypes3.pdu import Address

    return Address(f"{device[0]}:{device[1]}")


def object_of(text: str) -> Any:
    from bacpypes3.primitivedata import ObjectIdentifier

    return ObjectIdentifier(text)


def property_of(text: str) -> Any:
    from bacpypes3.basetypes import PropertyIdentifier

    return PropertyIdentifier(text)


def quality_of(flags: Any) -> Quality:
    """Return what an object's status flags say: in-alarm, fault, overridden, out-of-service.

    An alarm is about the machine; its value is as good as any. A value that somebody overrode, or
    that is out of service, is not what the sensor says.
    """
    try:
        _, fault, overridden, out_of_service = (bool(bit) for bit in flags)
    except (TypeError, ValueError):
        return Quality.GOOD  # an object without status flags
    if fault:
        return Quality.BAD
    return Quality.UNCERTAIN if overridden or out_of_service else Quality.GOOD


def value_in(value: Any, channel: DeliveredChannel) -> tuple[Value, int, str]:
    """Return what a property's value is in `channel`, its quality, a fault's code or nothing."""
    if not is_exact(channel):
        return number_of(value)
    nothing = NO_VALUE[channel.value_type]
    if value is None or isinstance(value, InvalidInput) or type(value).__name__ == "ErrorType":
        return nothing, Quality.MISSING, number_of(value)[2]
    if type(value).__name__ == "BinaryPV":  # an enumeration: inactive is 0, active 1
        return value_of(int(value), channel)
    # The library's numbers and texts are Python's, with more to them.
    for plain in (str, bool, int, float):
        if isinstance(value, plain):
            return value_of(plain(value), channel)
    return nothing, Quality.MISSING, "value.wrong_type"


def number_of(value: Any) -> tuple[float, int, str]:
    """Return the number that a property's value is, its quality, and a fault's code or nothing."""
    if value is None:
        return math.nan, Quality.MISSING, "value.absent"
    if isinstance(value, InvalidInput):
        return math.nan, Quality.MISSING, value.code
    name = type(value).__name__
    if name == "ErrorType":
        return math.nan, Quality.MISSING, "value.refused"
    if name == "BinaryPV":
        return float(int(value)), Quality.GOOD, ""
    if isinstance(value, (bool, int, float)):
        return judged_number(value)
    return math.nan, Quality.MISSING, "value.not_numeric"
