"""Units: the table is sound, and the maps to SI are the published ones."""

from math import pi

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidInput
from domain.units import SI_UNITS, UNITS, Unit, si, symbols, unit


@pytest.mark.parametrize("symbol", UNITS)
def test_every_unit_measures_a_known_quantity_with_a_positive_factor(symbol: str) -> None:
    found = UNITS[symbol]
    assert found.symbol == symbol
    assert found.quantity in SI_UNITS
    assert found.factor > 0


@pytest.mark.parametrize(("quantity", "symbol"), SI_UNITS.items())
def test_the_si_unit_of_a_quantity_maps_to_itself(quantity: str, symbol: str) -> None:
    assert unit(symbol) == Unit(symbol, quantity, 1.0, 0.0)


@pytest.mark.parametrize(
    ("value", "symbol", "value_si"),
    [
        (0.0, "degC", 273.15),
        (212.0, "degF", 373.15),
        (-459.67, "degF", 0.0),
        (518.67, "degR", 288.15),
        (10.0, "delta_degC", 10.0),
        (1.0, "bar", 100_000.0),
        (1.0, "atm", 101_325.0),
        (1.0, "psi", 6_894.757293168361),  # NIST SP 811, appendix B.8
        (60_000.0, "l/min", 1.0),
        (3_600.0, "m3/h", 1.0),
        (60.0, "rpm", 2 * pi),
        (1.0, "g_n", 9.80665),
        (1.0, "kWh", 3.6e6),
        (5.0, "%", 0.05),
        (2.5, "h", 9_000.0),
        (250.0, "g", 0.25),
        (1.0, "lb", 0.45359237),  # NIST SP 811, appendix B.8
        (1.5, "t", 1_500.0),
        (1.0, "in", 0.0254),
        (10_000.0, "cm2", 1.0),
        (1_000.0, "l", 1.0),
        (1.0, "cm3", 1e-6),
        (12.0, "pieces", 12.0),
    ],
)
def test_a_value_maps_to_its_published_si_value(value: float, symbol: str, value_si: float) -> None:
    assert si(value, symbol) == pytest.approx(value_si, rel=1e-14, abs=1e-10)


@given(
    st.sampled_from(sorted(UNITS)),
    st.floats(min_value=-1e9, max_value=1e9, allow_nan=False),
)
def test_a_value_comes_back_from_si(symbol: str, value: float) -> None:
    found = unit(symbol)
    rounding = 4 * 2.0**-52 * (abs(value) + abs(found.offset / found.factor)) + 1e-300
    assert found.from_si(found.to_si(value)) == pytest.approx(value, rel=0, abs=rounding)


def test_an_unknown_unit_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput) as refused:
        unit("furlong")
    assert refused.value.code == "unit.unknown"
    assert refused.value.value == "furlong"
    assert "l/min" in refused.value.hint


def test_a_unit_of_another_quantity_is_refused_with_the_right_ones() -> None:
    with pytest.raises(InvalidInput) as refused:
        unit("bar", quantity="temperature")
    assert refused.value.code == "unit.quantity_mismatch"
    assert (refused.value.value, refused.value.limit) == ("bar", "temperature")
    assert refused.value.hint == "units of temperature: K, degC, degF, degR"


def test_a_temperature_is_not_a_temperature_difference() -> None:
    with pytest.raises(InvalidInput) as refused:
        unit("degC", quantity="temperature_difference")
    assert refused.value.code == "unit.quantity_mismatch"


def test_symbols_are_listed_by_quantity() -> None:
    assert symbols("volume_flow") == ["m3/s", "l/min", "l/s", "m3/h"]
    assert set(symbols()) == set(UNITS)


def test_a_count_of_pieces_is_no_ratio() -> None:
    with pytest.raises(InvalidInput) as refused:
        unit("pieces", quantity="ratio")
    assert refused.value.code == "unit.quantity_mismatch"
