"""What an author of an asset type writes: units people use, converted once, and held together."""

from __future__ import annotations

import pytest

from domain.asset_model import (
    EVERY_CHANNEL,
    AssetType,
    Direction,
    channel,
    health_limit,
    setpoint,
)
from domain.errors import InvalidInput, NotFound

PRESSURE = channel("pressure", "Pressure", "pressure", "bar", (-1, 6))


def test_an_author_s_units_are_converted_once() -> None:
    assert (PRESSURE.physical_min, PRESSURE.physical_max) == (-100_000.0, 600_000.0)
    assert PRESSURE.si_unit == "Pa"
    limit = health_limit("t", Direction.ABOVE, "degC", warning=0, critical=100)
    assert (limit.warning, limit.critical) == (273.15, 373.15)
    desired = setpoint("speed", "Speed", "angular_velocity", "rpm", (0, 60))
    assert desired.safe_max == pytest.approx(6.283185307179586, rel=1e-15)
    assert desired.si_unit == "rad/s"


def test_an_author_s_unit_of_another_quantity_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        channel("pressure", "Pressure", "pressure", "degC", (0, 1))
    assert refused.value.code == "unit.quantity_mismatch"


def test_a_type_that_names_a_channel_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="names a channel twice"):
        AssetType("pump", "Pump", "A pump.", (PRESSURE, PRESSURE))


def test_a_limit_on_a_channel_that_is_not_there_is_refused() -> None:
    limit = health_limit("flow", Direction.BELOW, "l/min", warning=2, critical=1)
    with pytest.raises(NotFound) as refused:
        AssetType("pump", "Pump", "A pump.", (PRESSURE,), health_limits=(limit,))
    assert (refused.value.code, refused.value.value) == ("channel.unknown", "flow")


def test_an_alert_speaks_of_a_channel_or_of_every_one() -> None:
    pump = AssetType("pump", "Pump", "A pump.", (PRESSURE,))
    assert pump.judged("pressure") is PRESSURE
    assert pump.judged("*") is EVERY_CHANNEL
    assert EVERY_CHANNEL.si_unit == "s"
    with pytest.raises(NotFound):
        pump.judged("flow")
    with pytest.raises(NotFound):  # it is none of the type's channels: no frame may bring it
        pump.channel(EVERY_CHANNEL.name)
