"""Units at the boundary: the schema speaks SI, and any unit of the same quantity when asked."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Any

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


def measured(path: str, quantity: str, description: str) -> Any:
    """Return a field that tells the attribute `path`, in SI, in the unit that is asked for.

    Parameters
    ----------
    path : from the type on, such as ``figure.mtbf_s``; what is None there is null
    """
    read = attrgetter(path)

    def resolve(self: Any, unit: InUnit = None) -> float | None:
        value_si = read(self)
        return None if value_si is None else in_unit(value_si, quantity, unit)

    told = f"{description.rstrip('.')}; {SI_UNITS[quantity]} unless a unit is given."
    return strawberry.field(resolver=resolve, description=told)
