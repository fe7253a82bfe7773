"""Units of measurement: what a sensor declares, and its exact map to SI.

A reading is stored as delivered and read as SI: ``si = value * factor + offset``. Factors are
derived from defining constants, never typed as rounded products. A unit belongs to one
quantity; a temperature and a temperature difference are two quantities. Pieces are counted, and
a count is no ratio: their unit stands beside those of SI.

References
----------
BIPM, The International System of Units, 9th edition (2019).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import pi

from domain.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit: ``si = value * factor + offset``, with `offset` in the SI unit."""

    symbol: str
    quantity: str
    factor: float = 1.0
    offset: float = 0.0

    def to_si(self, value: float) -> float:
        """Return `value`, given in this unit, in the SI unit of its quantity."""
        return value * self.factor + self.offset

    def from_si(self, value_si: float) -> float:
        """Return `value_si`, given in the SI unit of this unit's quantity, in this unit."""
        return (value_si - self.offset) / self.factor


MINUTE_S = 60.0
HOUR_S = 60.0 * MINUTE_S
LITRE_M3 = 1e-3
STANDARD_GRAVITY_M_PER_S2 = 9.80665  # CGPM 1901, exact
CELSIUS_ZERO_K = 273.15  # exact
STANDARD_ATMOSPHERE_PA = 101_325.0  # CGPM 1954, exact
INCH_M = 0.0254  # exact
POUND_KG = 0.45359237  # international pound of 1959, exact
POUND_FORCE_N = POUND_KG * STANDARD_GRAVITY_M_PER_S2
FOOT_M = 12.0 * INCH_M
HORSEPOWER_W = 550.0 * FOOT_M * POUND_FORCE_N  # mechanical: 550 foot-pounds a second

SI_UNITS: dict[str, str] = {
    "acceleration": "m/s2",
    "angular_velocity": "rad/s",
    "area": "m2",
    "count": "pieces",
    "electric_current": "A",
    "energy": "J",
    "force": "N",
    "frequency": "Hz",
    "length": "m",
    "mass": "kg",
    "power": "W",
    "pressure": "Pa",
    "ratio": "1",
    "temperature": "K",
    "temperature_difference": "delta_K",
    "time": "s",
    "torque": "N.m",
    "velocity": "m/s",
    "voltage": "V",
    "volume": "m3",
    "volume_flow": "m3/s",
}
"""The SI unit in which each quantity is read, computed and compared."""


def _table(units: Iterable[Unit]) -> dict[str, Unit]:
    table = {symbol: Unit(symbol, quantity) for quantity, symbol in SI_UNITS.items()}
    for unit in units:
        if unit.symbol in table or unit.quantity not in SI_UNITS:
            raise ValueError(f"unit {unit.symbol!r} is declared twice or of no known quantity")
        table[unit.symbol] = unit
    return table


UNITS: dict[str, Unit] = _table(
    [
        Unit("g_n", "acceleration", STANDARD_GRAVITY_M_PER_S2),
        Unit("mm/s2", "acceleration", 1e-3),
        Unit("rpm", "angular_velocity", 2 * pi / MINUTE_S),
        Unit("cm2", "area", 1e-4),
        Unit("mm2", "area", 1e-6),
        Unit("mA", "electric_current", 1e-3),
        Unit("kWh", "energy", 1e3 * HOUR_S),
        Unit("MWh", "energy", 1e6 * HOUR_S),
        Unit("kN", "force", 1e3),
        Unit("kHz", "frequency", 1e3),
        Unit("km", "length", 1e3),
        Unit("cm", "length", 1e-2),
        Unit("mm", "length", 1e-3),
        Unit("um", "length", 1e-6),
        Unit("in", "length", INCH_M),
        Unit("t", "mass", 1e3),
        Unit("g", "mass", 1e-3),
        Unit("mg", "mass", 1e-6),
        Unit("lb", "mass", POUND_KG),
        Unit("kW", "power", 1e3),
        Unit("hp", "power", HORSEPOWER_W),
        Unit("bar", "pressure", 1e5),
        Unit("mbar", "pressure", 1e2),
        Unit("kPa", "pressure", 1e3),
        Unit("MPa", "pressure", 1e6),
        Unit("atm", "pressure", STANDARD_ATMOSPHERE_PA),
        Unit("psi", "pressure", POUND_FORCE_N / INCH_M**2),
        Unit("%", "ratio", 1e-2),
        Unit("degC", "temperature", 1.0, CELSIUS_ZERO_K),
        Unit("degF", "temperature", 5.0 / 9.0, CELSIUS_ZERO_K - 32.0 * 5.0 / 9.0),
        Unit("degR", "temperature", 5.0 / 9.0),
        Unit("delta_degC", "temperature_difference"),
        Unit("ms", "time", 1e-3),
        Unit("min", "time", MINUTE_S),
        Unit("h", "time", HOUR_S),
        Unit("mm/s", "velocity", 1e-3),
        Unit("kV", "voltage", 1e3),
        Unit("mV", "voltage", 1e-3),
        Unit("l", "volume", LITRE_M3),
        Unit("ml", "volume", 1e-6),
        Unit("cm3", "volume", 1e-6),
        Unit("l/min", "volume_flow", LITRE_M3 / MINUTE_S),
        Unit("l/s", "volume_flow", LITRE_M3),
        Unit("m3/h", "volume_flow", 1.0 / HOUR_S),
    ]
)


def unit(symbol: str, *, quantity: str | None = None) -> Unit:
    """Return the unit named `symbol`.

    Raises
    ------
    InvalidInput
        ``unit.unknown`` when no unit has that symbol; ``unit.quantity_mismatch`` when
        `quantity` is given and the unit measures another one.
    """
    found = UNITS.get(symbol)
    if found is None:
        raise InvalidInput(
            "unit.unknown",
            f"unit {symbol!r} is not known",
            hint=f"known units: {', '.join(sorted(symbols(quantity)))}",
            value=symbol,
        )
    if quantity is not None and found.quantity != quantity:
        raise InvalidInput(
            "unit.quantity_mismatch",
            f"unit {symbol!r} measures {found.quantity}, not {quantity}",
            hint=f"units of {quantity}: {', '.join(sorted(symbols(quantity)))}",
            value=symbol,
            limit=quantity,
        )
    return found


def symbols(quantity: str | None = None) -> list[str]:
    """Return the symbols of all units, or of those that measure `quantity`."""
    return [u.symbol for u in UNITS.values() if quantity is None or u.quantity == quantity]


def si(value: float, symbol: str) -> float:
    """Return `value`, given in the unit `symbol`, in SI."""
    return unit(symbol).to_si(value)
