"""Types of overall equipment effectiveness."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import strawberry

from api.graphql.basis import Basis
from api.graphql.context import OperationInfo
from api.graphql.fields import field
from api.graphql.references import ASSET, asset_named
from api.graphql.units import measured
from domain.key_figures.effectiveness import Effectiveness
from projections.figures import effectiveness as figures
from projections.production.projection import PART_UNIT


@strawberry.input(
    description="A time for which production was planned (planned busy time of ISO 22400)."
)
class PlannedTimeInput:
    """`projections.figures.effectiveness.PlannedTime`, of one asset or of all."""

    asset_id: strawberry.ID | None = strawberry.field(
        default=None, description="On this asset; null: on each of the assets asked about."
    )
    from_: datetime = strawberry.field(name="from", description="From this time on.")
    to: datetime = strawberry.field(description="Up to this time.")


@strawberry.input(description="How long an item is planned to take (planned run time, PRI).")
class CycleTimeInput:
    """A planned run time of an item."""

    operation: str = strawberry.field(description="Of the runs of this operation.")
    unit: str = strawberry.field(
        default=PART_UNIT,
        description="What an item is counted in: `part`, or the unit of a lot's quantity.",
    )
    cycle_s: float = strawberry.field(description="Planned run time of one item, s.")


@strawberry.type(
    description="Overall equipment effectiveness after ISO 22400-2: its factors, and the time that "
    "each of them costs. Losses and valuable time add up to the planned time."
)
class Oee:
    """`domain.key_figures.effectiveness.Effectiveness`."""

    figure: strawberry.Private[Effectiveness]
    oee_ratio: float | None = strawberry.field(
        description="Availability x effectiveness x quality; null of no planned time."
    )
    availability_ratio: float | None = strawberry.field(
        description="Production time by planned busy time."
    )
    effectiveness_ratio: float | None = strawberry.field(
        description="Planned run time of what was made by production time; above 1 says that the "
        "planned run times are too long."
    )
    quality_ratio: float | None = strawberry.field(
        description="Good items by items, weighted by their planned run times."
    )
    planned_busy = measured(
        "figure.planned_busy_s", "time", "Time for which production was planned"
    )
    production = measured("figure.production_s", "time", "Time in which something was produced")
    down_loss = measured("figure.down_loss_s", "time", "Planned time lost to recorded down time")
    idle_loss = measured(
        "figure.idle_loss_s",
        "time",
        "Planned time lost without recorded down time: set-up, waiting, no order",
    )
    performance_loss = measured(
        "figure.performance_loss_s",
        "time",
        "Production time beyond what the items should have taken; may be negative",
    )
    quality_loss = measured(
        "figure.quality_loss_s", "time", "What the items that were not good should have taken"
    )
    valuable = measured("figure.valuable_s", "time", "What the good items should have taken")
    items: float = strawberry.field(description="Items that were produced.")
    good: float = strawberry.field(description="Of those, good ones.")
    runs: int = strawberry.field(description="Runs that were completed within the planned times.")
    aborted_runs: int = strawberry.field(
        description="Runs that were given up: they took time and made nothing."
    )

    @classmethod
    def of(cls, found: figures.AssetEffectiveness) -> Oee:
        """Return `found` as the schema tells it."""
        figure = found.figure
        return cls(
            figure=figure,
            oee_ratio=figure.oee_ratio,
            availability_ratio=figure.availability_ratio,
            effectiveness_ratio=figure.effectiveness_ratio,
            quality_ratio=figure.quality_ratio,
            items=found.items,
            good=found.good,
            runs=found.runs,
            aborted_runs=found.aborted_runs,
        )


@strawberry.type(description="OEE of one asset.")
class AssetOee:
    """An asset of `projections.figures.effectiveness.OeeOfAssets`."""

    asset_id: strawberry.ID = strawberry.field(description="Natural key of the asset.")
    figures: Oee = strawberry.field(description="Its OEE.")

    @field(description="The asset, as it is now.", type=ASSET | None)
    async def asset(self, info: OperationInfo) -> Any:
        """Return the asset."""
        return await asset_named(info.context, self.asset_id)


@strawberry.type(description="OEE of all assets together, and of each.")
class OeeFigures:
    """`projections.figures.effectiveness.OeeOfAssets`."""

    total: Oee = strawberry.field(description="All assets together, their times added up.")
    by_asset: list[AssetOee] = strawberry.field(description="Each, by natural key.")
    basis: Basis = strawberry.field(description="What it rests on.")
