"""What an author of an asset type writes: units people use, converted once, and held together."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from domain.asset_model import (
    DERIVED_REMEMBERED_MAX,
    EVERY_CHANNEL,
    AssetType,
    Bearing,
    BearingGeometry,
    Direction,
    ValueKind,
    channel,
    code_channel,
    flag_channel,
    health_limit,
    setpoint,
    text_channel,
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


VIBRATION = channel("vibration", "Drive", "acceleration", "g_n", (-50, 50), rate_hz=12_000.0)
GEOMETRY = BearingGeometry(
    designation="6205",
    element_count=9,
    element_diameter_m=0.00794,
    pitch_diameter_m=0.03904,
    contact_angle_rad=0.0,
    source="a test",
)


def test_what_a_sensor_delivered_is_a_channel_without_a_physical_range() -> None:
    raw = AssetType("pump", "Pump", "A pump.", (PRESSURE,)).channel("pressure.raw")
    assert (raw.name, raw.quantity, raw.input_unit) == ("pressure.raw", "pressure", "bar")
    assert (raw.physical_min, raw.physical_max) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("feature", "quantity"),
    [
        ("rms", "acceleration"),
        ("kurtosis", "ratio"),
        ("velocity_rms", "velocity"),
        ("band_10_1000", "acceleration"),
        ("bpfo_prominence", "ratio"),
    ],
)
def test_a_waveform_s_features_are_channels_of_their_quantity(feature: str, quantity: str) -> None:
    motor = AssetType("motor", "Motor", "A motor.", (VIBRATION,))
    found = motor.channel(f"vibration.{feature}")
    assert (found.name, found.quantity, found.rate_hz) == (f"vibration.{feature}", quantity, None)
    assert found.physical_min == 0.0 < found.physical_max < math.inf
    assert motor.channel(found.name) == found


@pytest.mark.parametrize(
    "name",
    [
        "pressure.rms",  # no waveform
        "vibration.colour",
        "vibration.band_10_10",
        "vibration.band_010_20",
        "vibration.band_10_99999999",
        "vibration.raw.rms",
        "vibration.raw.raw",
        "flow.raw",
        ".raw",
        "vibration.",
    ],
)
def test_nothing_else_is_made_of_a_channel(name: str) -> None:
    motor = AssetType("motor", "Motor", "A motor.", (PRESSURE, VIBRATION))
    with pytest.raises(NotFound) as refused:
        motor.channel(name)
    assert (refused.value.code, refused.value.value) == ("channel.unknown", name)


def test_made_channels_are_told_from_declared_and_unknown_ones() -> None:
    motor = AssetType("motor", "Motor", "A motor.", (PRESSURE, VIBRATION))
    names = ["vibration.rms", "pressure", "pressure.raw", "flow", "flow.raw"]
    assert [made.name for made in motor.derived(names)] == ["vibration.rms", "pressure.raw"]


def test_what_is_remembered_of_names_from_outside_is_bounded() -> None:
    motor = AssetType("motor", "Motor", "A motor.", (VIBRATION,))
    for high in range(1, 3_000):
        assert motor.channel(f"vibration.band_0_{high}").quantity == "acceleration"
    assert len(motor._derived_channels) == DERIVED_REMEMBERED_MAX


def test_only_an_acceleration_has_a_velocity() -> None:
    shaft = channel("displacement", "Shaft", "length", "um", (-500, 500), rate_hz=5_000.0)
    with pytest.raises(NotFound):
        AssetType("motor", "Motor", "A motor.", (shaft,)).channel("displacement.velocity_rms")


def test_a_bearing_is_measured_by_a_waveform_and_turns_with_a_speed() -> None:
    speed = channel("speed", "Speed", "angular_velocity", "rpm", (0, 4_000))
    bearing = Bearing(name="drive", channel="vibration", speed_channel="speed", geometry=GEOMETRY)
    motor = AssetType("motor", "Motor", "A motor.", (VIBRATION, speed), bearings=(bearing,))
    assert motor.bearing_at("vibration") is bearing
    assert motor.bearing_at("speed") is None
    for wrong in (replace(bearing, channel="speed"), replace(bearing, speed_channel="vibration")):
        with pytest.raises(ValueError, match="of a bearing is no"):
            AssetType("motor", "Motor", "A motor.", (VIBRATION, speed), bearings=(wrong,))
    with pytest.raises(NotFound):
        AssetType("motor", "Motor", "A motor.", (VIBRATION,), bearings=(bearing,))


@pytest.mark.parametrize(
    "impossible",
    [
        {"element_count": 2},
        {"element_diameter_m": 0.0},
        {"element_diameter_m": 0.014},  # nine of them do not fit into the circle
        {"contact_angle_rad": math.pi / 2},
        {"pitch_diameter_m": math.nan},
    ],
)
def test_a_bearing_that_cannot_be_built_is_refused(impossible: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot be built"):
        replace(GEOMETRY, **impossible)


def test_what_is_no_measured_number_says_what_it_is() -> None:
    assert flag_channel("on", "On").kind is ValueKind.BOOLEAN
    code = code_channel("state", "State", (0, 9))
    assert (code.kind, code.physical_max, code.si_unit) == (ValueKind.INTEGER, 9, "1")
    text = text_channel("program", "Program")
    assert text.kind is ValueKind.TEXT
    described = AssetType(name="a", title="A", description="A.", channels=(text, code))
    assert described.channel("program.raw").kind is ValueKind.TEXT
    limit = health_limit("program", Direction.ABOVE, "1", warning=1, critical=2)
    with pytest.raises(ValueError, match="holds text"):
        replace(described, health_limits=(limit,))
