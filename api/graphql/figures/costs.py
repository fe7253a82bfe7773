"""Types of energy and cost."""

from __future__ import annotations

from typing import Any

import strawberry

from api.graphql.basis import Basis
from api.graphql.context import OperationInfo
from api.graphql.fields import field
from api.graphql.figures.reliability import Money
from api.graphql.references import ASSET, asset_named
from api.graphql.units import measured
from domain.key_figures.costs import EnergyPrice
from domain.units import unit
from projections.figures import energy_and_cost as figures


@strawberry.input(description="What energy costs; the answer tells it again.")
class EnergyPriceInput:
    """`domain.key_figures.costs.EnergyPrice`."""

    amount: float = strawberry.field(description="Price of one `unit` of energy, in `currency`.")
    unit: str = strawberry.field(default="kWh", description="Unit of energy: `kWh` or `J`.")
    currency: str = strawberry.field(description="ISO 4217, such as `EUR`.")

    def told(self) -> EnergyPrice:
        """Return it as the figure takes it, by J.

        Raises
        ------
        InvalidInput
            ``unit.unknown``, ``unit.quantity_mismatch``
        """
        return EnergyPrice(self.amount / unit(self.unit, quantity="energy").factor, self.currency)


@strawberry.type(description="What the runs of an asset took, and what its maintenance cost.")
class AssetCost:
    """`projections.figures.energy_and_cost.AssetCost`."""

    cost: strawberry.Private[figures.AssetCost]
    asset_id: strawberry.ID = strawberry.field(description="Natural key of the asset.")
    runs: int = strawberry.field(description="Runs that ended in the period.")
    unmeasured_runs: int = strawberry.field(description="Of those, without measured energy.")
    energy = measured("cost.energy_j", "energy", "Energy of the runs that were measured")
    energy_per_part = measured(
        "cost.energy_j_per_part",
        "energy",
        "Energy by part, of parts that went through measured runs; null of none",
    )
    energy_cost: float | None = strawberry.field(
        description="Cost of that energy in the price's currency; null without a price."
    )
    parts: int = strawberry.field(
        description="Different parts that went through a run which ended in the period."
    )
    maintenance_cost: list[Money] = strawberry.field(
        description="Cost of work orders that were closed in the period, by currency."
    )
    cost_per_part: float | None = strawberry.field(
        description="Energy and maintenance in the price's currency, by part; null without a price "
        "or a part."
    )
    uncosted_work_orders: int = strawberry.field(
        description="Work orders that were completed in the period without a cost."
    )

    @classmethod
    def of(cls, cost: figures.AssetCost) -> AssetCost:
        """Return `cost` as the schema tells it."""
        return cls(
            cost=cost,
            asset_id=strawberry.ID(cost.asset_id),
            runs=cost.runs,
            unmeasured_runs=cost.unmeasured_runs,
            energy_cost=cost.energy_cost,
            parts=cost.parts,
            maintenance_cost=Money.by_currency(cost.maintenance_cost),
            cost_per_part=cost.cost_per_part,
            uncosted_work_orders=cost.uncosted_work_orders,
        )

    @field(description="The asset, as it is now.", type=ASSET | None)
    async def asset(self, info: OperationInfo) -> Any:
        """Return the asset."""
        return await asset_named(info.context, self.asset_id)


@strawberry.type(description="Energy and cost of each asset.")
class CostFigures:
    """`projections.figures.energy_and_cost.EnergyAndCost`."""

    by_asset: list[AssetCost] = strawberry.field(description="Each, by natural key.")
    price_per_j: float | None = strawberry.field(
        description="Price that was given, in `currency` per J; null without one."
    )
    currency: str | None = strawberry.field(description="Currency of the price.")
    basis: Basis = strawberry.field(description="What it rests on.")


@strawberry.type(
    description="Energy that the runs of parts of one number took: a run's, in equal shares of its "
    "parts."
)
class PartNumberEnergy:
    """`projections.figures.energy_and_cost.PartNumberEnergy`."""

    found: strawberry.Private[figures.PartNumberEnergy]
    part_number: str = strawberry.field(description="The part number.")
    parts: int = strawberry.field(description="Parts of it that went through runs.")
    measured_parts: int = strawberry.field(description="Of those, through a measured run.")
    energy = measured("found.energy_j", "energy", "Energy that they took")
    energy_per_part = measured(
        "found.energy_j_per_part", "energy", "The same by measured part; null of none"
    )
    energy_cost_per_part: float | None = strawberry.field(
        description="Its cost in the price's currency; null without a price."
    )
    unmeasured_runs: int = strawberry.field(description="Runs without measured energy.")

    @classmethod
    def of(cls, found: figures.PartNumberEnergy) -> PartNumberEnergy:
        """Return `found` as the schema tells it."""
        return cls(
            found=found,
            part_number=found.part_number,
            parts=found.parts,
            measured_parts=found.measured_parts,
            energy_cost_per_part=found.energy_cost_per_part,
            unmeasured_runs=found.unmeasured_runs,
        )
