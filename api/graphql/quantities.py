"""Quantities as they were recorded, told in SI or in the unit that a client wants."""

from __future__ import annotations

import strawberry

from api.graphql.fields import field
from api.graphql.units import InUnit, in_unit, si_unit_of
from domain.units import unit as unit_of


@strawberry.type(description="An amount, with the unit in which it was recorded.")
class Quantity:
    """A value and its unit."""

    recorded: float = strawberry.field(description="As it was recorded, in `recordedUnit`.")
    recorded_unit: str = strawberry.field(description="Unit in which it was recorded.")

    @field(description="In the unit that is asked for; by default in `siUnit`.")
    def value(self, unit: InUnit = None) -> float:
        """Return the amount in `unit`."""
        recorded = unit_of(self.recorded_unit)
        if unit == self.recorded_unit:
            return self.recorded
        return in_unit(recorded.to_si(self.recorded), recorded.quantity, unit)

    @field(description="SI unit of what it measures.")
    def si_unit(self) -> str:
        """Return the SI unit."""
        return si_unit_of(unit_of(self.recorded_unit).quantity)


def quantity(value: float | None, symbol: str | None) -> Quantity | None:
    """Return an amount as the schema tells it; None where there is none."""
    if value is None or symbol is None:
        return None
    return Quantity(recorded=value, recorded_unit=symbol)
