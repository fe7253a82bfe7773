"""The contract of every asset type: whoever adds a file is held to it without writing a test."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

import domain.asset_types as catalogue
from domain.asset_model import AssetType, DeviationRule, Direction, LimitRule, ValueKind
from domain.asset_types import asset_type, asset_types
from domain.errors import NotFound
from domain.frame_checks import header_for
from domain.identifiers import check_identifier
from domain.units import SI_UNITS, unit

TYPES = sorted(asset_types())


@pytest.fixture(params=TYPES)
def described(request: pytest.FixtureRequest) -> AssetType:
    return asset_type(request.param)


def test_a_type_is_named_and_described(described: AssetType) -> None:
    check_identifier("asset_type", described.name)
    assert described.title
    assert described.description.endswith(".")
    assert described.channels
    assert 0 < described.stale_after_s < math.inf


def test_channels_are_named_and_measured_in_a_unit_of_their_quantity(described: AssetType) -> None:
    for channel in described.channels:
        check_identifier("channel", channel.name)
        assert "." not in channel.name, "a dot begins what is made of a channel"
        assert channel.rate_hz is None or 0 < channel.rate_hz < math.inf
        assert channel.title
        assert unit(channel.input_unit, quantity=channel.quantity)
        assert channel.si_unit == SI_UNITS[channel.quantity]


def test_channels_have_a_physical_range(described: AssetType) -> None:
    for channel in described.channels:
        if channel.kind is ValueKind.TEXT:
            assert channel.input_unit == "1"
            continue
        assert -math.inf < channel.physical_min < channel.physical_max < math.inf
        if channel.quantity == "temperature":
            assert channel.physical_min >= 0, "below absolute zero"


def test_setpoints_have_safe_bounds_within_what_can_be_measured(described: AssetType) -> None:
    channels = {channel.name: channel for channel in described.channels}
    for setpoint in described.setpoints:
        check_identifier("setpoint", setpoint.name)
        assert unit(setpoint.input_unit, quantity=setpoint.quantity)
        assert -math.inf < setpoint.safe_min < setpoint.safe_max < math.inf
        measured = channels.get(setpoint.name)
        if measured is not None:
            assert measured.quantity == setpoint.quantity
            assert measured.physical_min <= setpoint.safe_min
            assert setpoint.safe_max <= measured.physical_max


def test_alert_rules_watch_what_can_happen(described: AssetType) -> None:
    for rule in described.alert_rules:
        check_identifier("alert_rule", rule.name)
        watched = described.channel(rule.channel)
        assert rule.message
        assert rule.hold_s >= 0
        assert rule.clear_hold_s >= 0
        match rule:
            case LimitRule():
                assert watched.physical_min < rule.limit < watched.physical_max
                apart = rule.limit - rule.clear
                assert apart >= 0 if rule.direction is Direction.ABOVE else apart <= 0
            case DeviationRule():
                assert 0 < rule.clear_ratio <= rule.deviation_ratio
                assert rule.window_s > 0
                assert rule.baseline_s > 0


def test_health_limits_grow_worse_in_their_direction(described: AssetType) -> None:
    for limit in described.health_limits:
        watched = described.channel(limit.channel)
        low, high = watched.physical_min, watched.physical_max
        assert low < limit.warning < high
        assert low < limit.critical < high
        worse = limit.critical > limit.warning
        assert worse == (limit.direction is Direction.ABOVE)


def test_a_header_can_be_made_of_every_channel(described: AssetType) -> None:
    header = header_for(
        described, "a", "b", [(channel.name, channel.input_unit) for channel in described.channels]
    )
    assert len(header.channels) == len(described.channels)


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotFound) as refused:
        asset_type("teapot")
    assert refused.value.code == "asset_type.unknown"
    assert "skab-pump-loop" in refused.value.hint


BOOSTER_PUMP = '''\
"""A booster pump with a pressure sensor: the smallest asset type."""

from domain.asset_model import AssetType, Direction, LimitRule, Severity, channel
from domain.units import si

ASSET_TYPE = AssetType(
    name="booster-pump",
    title="Booster pump",
    description="Raises the pressure of drinking water.",
    channels=(
        channel("pressure", "Outlet pressure", "pressure", "bar", (-1, 16)),
        channel("motor_current", "Motor current", "electric_current", "A", (0, 30)),
    ),
    alert_rules=(
        LimitRule(name="pressure_low", channel="pressure", severity=Severity.CRITICAL,
                  direction=Direction.BELOW, message="no pressure", limit=si(2, "bar"),
                  clear=si(2.2, "bar"), hold_s=10),
    ),
)
'''


def test_a_second_pump_type_is_one_file_of_twenty_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(BOOSTER_PUMP.splitlines()) <= 20
    (tmp_path / "booster_pump.py").write_text(BOOSTER_PUMP)
    monkeypatch.setattr(catalogue, "__path__", [*catalogue.__path__, str(tmp_path)])
    asset_types.cache_clear()
    try:
        found = asset_type("booster-pump")
        assert sorted(asset_types()) == sorted([*TYPES, "booster-pump"])
        for check in (
            test_a_type_is_named_and_described,
            test_channels_are_named_and_measured_in_a_unit_of_their_quantity,
            test_channels_have_a_physical_range,
            test_alert_rules_watch_what_can_happen,
            test_a_header_can_be_made_of_every_channel,
        ):
            check(found)
    finally:
        asset_types.cache_clear()
        sys.modules.pop("domain.asset_types.booster_pump", None)
        vars(catalogue).pop("booster_pump", None)


def test_two_files_cannot_describe_one_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first_booster", "second_booster"):
        (tmp_path / f"{name}.py").write_text(BOOSTER_PUMP)
    monkeypatch.setattr(catalogue, "__path__", [str(tmp_path)])
    asset_types.cache_clear()
    try:
        with pytest.raises(ValueError, match="two files describe"):
            asset_types()
    finally:
        asset_types.cache_clear()
        for name in ("first_booster", "second_booster"):
            sys.modules.pop(f"domain.asset_types.{name}", None)
            vars(catalogue).pop(name, None)
