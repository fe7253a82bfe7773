"""Units at the boundary: the schema speaks SI, and any unit of the same quantity when asked."""

from __future__ import annotations

from typing import Annotated

import strawberry

from domain.units import SI_UNITS, unit

InUnit = Annotated[
    str | None,
    strawberry.argument(
        description="Convert to this unit, such as `bar`, `degC` or `l/min`; null is the SI unit. "
        "A unit of another quantity is refused with `unit.quantity_mismatch`."
    ),
]


def in_unit(value_si: float, quantity: str, symbol: str | None) -> float:
    """Return `value_si` in the unit `symbol`, which has to measure `quantity`; None is SI.

    Raises
    ------
    InvalidInput
        ``unit.unknown``, ``unit.quantity_mismatch``
    """
    return value_si if symbol is None else unit(symbol, quantity=quantity).from_si(value_si)


def si_unit_of(quantity: str) -> str:
    """Return the symbol of the SI unit of `quantity`."""
    return SI_UNITS[quantity]
