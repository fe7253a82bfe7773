"""How much there is of something: exact sums of what was measured in different units.

Sums are of fractions and not of floats: three times a tenth of a kilogram leave nothing of
300 g, so that what is left needs no tolerance.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from typing import Final

from domain.errors import InvalidInput
from domain.units import unit

COUNT: Final = "count"
AMOUNTS: Final = (COUNT, "mass", "volume", "area", "length")
"""Quantities that material comes in."""

QUANTITY_MAX: Final = 1e15
"""Beyond it a float no longer counts pieces."""


def amount_si(kind: str, value: float, symbol: str) -> tuple[Fraction, str]:
    """Return `value` in the unit `symbol` exactly in SI, and the quantity that it is of.

    Parameters
    ----------
    kind : what it is of, such as ``lot``, for the code

    Raises
    ------
    InvalidInput
        ``unit.unknown``; ``<kind>.unit_mismatch`` unless it is one of `AMOUNTS`;
        ``<kind>.quantity_not_positive`` unless it is above 0 and at most `QUANTITY_MAX`;
        ``<kind>.pieces_not_whole``
    """
    found = unit(symbol)
    if found.quantity not in AMOUNTS:
        raise InvalidInput(
            f"{kind}.unit_mismatch",
            f"unit {symbol!r} measures {found.quantity}, and material comes by "
            + ", ".join(AMOUNTS),
            value=symbol,
            limit=list(AMOUNTS),
        )
    # Written so that NaN fails too.
    if not 0 < value <= QUANTITY_MAX:
        raise InvalidInput(
            f"{kind}.quantity_not_positive",
            f"a quantity of {value} {symbol} is not above 0 and at most {QUANTITY_MAX:.0e}",
            value=value if math.isfinite(value) else str(value),
            limit=[0, QUANTITY_MAX],
        )
    if found.quantity == COUNT and value != int(value):
        raise InvalidInput(
            f"{kind}.pieces_not_whole",
            f"{value} {symbol} is no whole number",
            value=value,
        )
    return exact_si(value, symbol), found.quantity


def exact_si(value: float, symbol: str) -> Fraction:
    """Return `value` in the unit `symbol` in SI, as exactly as its decimals say."""
    return Fraction(repr(float(value))) * _factor(symbol)


def in_unit(amount: Fraction, symbol: str) -> float:
    """Return `amount`, in SI, in the unit `symbol`."""
    return float(amount / _factor(symbol))


@cache  # of as many symbols as there are units: an unknown one raises
def _factor(symbol: str) -> Fraction:
    return Fraction(repr(unit(symbol).factor))
