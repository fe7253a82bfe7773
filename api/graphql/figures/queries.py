"""Queries of key figures: of any assets or level of the plant, over any period, as of when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final

import strawberry

from api.access.rights import Right
from api.graphql.as_of import Asked, AsOfArgument, asked
from api.graphql.basis import Basis
from api.graphql.context import MinPosition, OperationContext, OperationInfo
from api.graphql.fields import field
from api.graphql.figures.costs import AssetCost, CostFigures, EnergyPriceInput, PartNumberEnergy
from api.graphql.figures.effectiveness import (
    AssetOee,
    CycleTimeInput,
    Oee,
    OeeFigures,
    PlannedTimeInput,
)
from api.graphql.figures.quality import (
    ChartCentresInput,
    ControlChart,
    DefectPareto,
    Measurements,
    ProcessCapability,
    Yields,
)
from api.graphql.figures.reliability import (
    AssetReliability,
    PreventedFailures,
    PreventionAssumptionsInput,
    Reliability,
    ReliabilityFigures,
)
from api.graphql.filters import chosen
from api.graphql.plant.scope import assets_wanted
from api.graphql.scalars import Position
from domain.asset_decider import unknown_asset
from projections.figures.asset_sets import ASSETS_MAX, distinct_assets
from projections.figures.effectiveness import PLANNED_TIMES_MAX, PlannedTime, oee
from projections.figures.energy_and_cost import (
    PART_NUMBERS_MAX,
    energy_and_cost,
    energy_by_part_number,
)
from projections.figures.periods import Period
from projections.figures.reliability import prevented_failures, reliability
from projections.maintenance.projection import MaintenanceProjection
from projections.plant.projection import PlantProjection
from projections.production.projection import ProductionProjection
from projections.quality import figures as quality_figures
from projections.quality.figures import DEFECT_CODES_MAX, MEASUREMENTS_MAX, Scope
from projections.quality.projection import QualityProjection
from projections.twins.projection import list_assets

PART_IDS_MAX: Final = 100
FIGURES_COST: Final = 50

Operation = Annotated[
    str | None,
    strawberry.argument(description="Only inspections of runs of this operation; null: all."),
]
PartNumber = Annotated[
    str | None,
    strawberry.argument(description="Only inspections of parts of this number; null: all."),
]
Characteristic = Annotated[
    str, strawberry.argument(description="Name of the characteristic, such as `bore diameter`.")
]
SubgroupSize = Annotated[
    int,
    strawberry.argument(
        description="So many measurements, one after another in time, make a subgroup: 2 to 25."
    ),
]
Price = Annotated[
    EnergyPriceInput | None,
    strawberry.argument(description="What energy costs; null: no cost of energy is told."),
]


@strawberry.input(description="A period: when something was true.")
class PeriodInput:
    """`projections.figures.periods.Period`."""

    from_: datetime = strawberry.field(name="from", description="From this time on.")
    to: datetime = strawberry.field(description="Up to, but not with, this time.")

    def told(self) -> Period:
        """Return it as figures take it."""
        return Period(self.from_, self.to)


@strawberry.input(
    description="Assets by name, and all that stand in locations or in what stands there: any "
    "level of the plant. Together at most 2,000."
)
class AssetSetInput:
    """What `projections.figures.asset_sets` are made of."""

    asset_ids: list[str] | None = strawberry.field(
        default=None, description="Natural keys of assets, at most 100."
    )
    locations: list[str] | None = strawberry.field(
        default=None,
        description="Natural keys of locations: what stood there at `asOf.validAt`, or else at the "
        "end of the period.",
    )


@dataclass(frozen=True, slots=True)
class _Question:
    """What all figures of an answer are asked of; `assets` None: nothing restricts them."""

    period: Period
    assets: tuple[str, ...] | None
    asked: Asked


@strawberry.type
class FigureQueries:
    """Root fields."""

    @field(
        right=Right.READ,
        cost=FIGURES_COST,
        description="Key figures over a period, of assets or of any level of the plant. Nothing is "
        "stored of them: any period and any `asOf` is answered from what was known then.",
    )
    async def figures(
        self,
        info: OperationInfo,
        period: Annotated[PeriodInput, strawberry.argument(description="Over which time.")],
        assets: Annotated[
            AssetSetInput | None,
            strawberry.argument(description="Of which assets; null: of all that are in sight."),
        ] = None,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Figures:
        """Return what figures are asked of."""
        context = info.context
        over = period.told()
        wanted = assets or AssetSetInput()
        when = await asked(
            context,
            as_of,
            min_position,
            MaintenanceProjection.name,
            ProductionProjection.name,
            QualityProjection.name,
            PlantProjection.name,
        )
        standing = Asked(
            when.known_at, when.valid_at or over.end - timedelta(microseconds=1), when.position
        )
        names = chosen("assetIds", wanted.asset_ids)
        for name, row in zip(names, await context.asset_by_asset_id.load_many(names), strict=True):
            if row is None:
                raise unknown_asset(name)
        named = await assets_wanted(context, standing, names, chosen("locations", wanted.locations))
        return Figures(
            question=_Question(over, named, when),
            from_=over.start,
            to=over.end,
            position=Position(when.position),
        )


@strawberry.type(description="Key figures over a period; each is made when it is asked for.")
class Figures:
    """The figures of `projections`."""

    question: strawberry.Private[_Question]
    from_: datetime = strawberry.field(name="from", description="Start of the period.")
    to: datetime = strawberry.field(description="End of the period.")
    position: Position = strawberry.field(
        description="They reflect at least everything in the log up to here."
    )

    @field(description="The assets that they are of, by natural key.")
    async def asset_ids(self, info: OperationInfo) -> list[strawberry.ID]:
        """Return the natural keys of the assets."""
        return [strawberry.ID(name) for name in await _assets(info.context, self.question)]

    @field(
        cost=FIGURES_COST,
        description="MTBF, MTTR and availability. An asset counts as in service all the period: "
        "choose periods that have passed, and assets that were there.",
    )
    async def reliability(
        self,
        info: OperationInfo,
        confidence: Annotated[
            float, strawberry.argument(description="Of the bounds of MTBF, between 0 and 1.")
        ] = 0.9,
    ) -> ReliabilityFigures:
        """Return the reliability of the assets."""
        asked = self.question.asked
        names = await _assets(info.context, self.question)
        async with info.context.reads:
            found = await reliability(
                info.context.ledger,
                names,
                self.question.period,
                confidence=confidence,
                as_of=asked.known_at,
            )
        return ReliabilityFigures(
            total=Reliability.of(found.total),
            by_asset=[
                AssetReliability(asset_id=strawberry.ID(name), figures=Reliability.of(figure))
                for name, figure in sorted(found.by_asset.items())
            ],
            basis=Basis.of(found.basis, asked),
        )

    @field(
        cost=FIGURES_COST,
        description="OEE after ISO 22400-2, with its losses. When production was planned, and how "
        "long an item should take, no log knows: both are given. Fails with "
        "`figure.cycle_time_missing` for an operation without one.",
    )
    async def oee(
        self,
        info: OperationInfo,
        cycle_times: Annotated[
            list[CycleTimeInput],
            strawberry.argument(description="Planned run time of an item, by operation and unit."),
        ],
        planned: Annotated[
            list[PlannedTimeInput],
            strawberry.argument(
                description="When production was planned, by asset at most "
                f"{PLANNED_TIMES_MAX:,} together; overlaps count once."
            ),
        ],
    ) -> OeeFigures:
        """Return the OEE of the assets."""
        asked = self.question.asked
        names = await _assets(info.context, self.question)
        times = [
            PlannedTime(name, Period(time.from_, time.to))
            for time in planned
            for name in _planned_on(time, names)
        ]
        async with info.context.reads:
            found = await oee(
                info.context.ledger,
                times,
                {(each.operation, each.unit): each.cycle_s for each in cycle_times},
                as_of=asked.known_at,
            )
        return OeeFigures(
            total=Oee.of(found.total),
            by_asset=[
                AssetOee(asset_id=strawberry.ID(name), figures=Oee.of(figure))
                for name, figure in sorted(found.by_asset.items())
            ],
            basis=Basis.of(found.basis, asked),
        )

    @field(cost=FIGURES_COST, description="Energy of runs and cost of maintenance, by asset.")
    async def energy_and_cost(self, info: OperationInfo, energy_price: Price = None) -> CostFigures:
        """Return energy and cost of the assets."""
        asked = self.question.asked
        price = None if energy_price is None else energy_price.told()
        names = await _assets(info.context, self.question)
        async with info.context.reads:
            found = await energy_and_cost(
                info.context.ledger,
                names,
                self.question.period,
                price=price,
                as_of=asked.known_at,
            )
        return CostFigures(
            by_asset=[AssetCost.of(cost) for _, cost in sorted(found.by_asset.items())],
            price_per_j=None if price is None else price.per_j,
            currency=None if price is None else price.currency,
            basis=Basis.of(found.basis, asked),
        )

    @field(
        cost=FIGURES_COST,
        description="Energy of runs by part number, or of single parts, the most first.",
    )
    async def energy_by_part_number(
        self,
        info: OperationInfo,
        first: Annotated[
            int, strawberry.argument(description=f"How many at most, 1 to {PART_NUMBERS_MAX}.")
        ],
        part_ids: Annotated[
            list[str] | None,
            strawberry.argument(
                description=f"Only these parts, at most {PART_IDS_MAX}; null: all."
            ),
        ] = None,
        energy_price: Price = None,
    ) -> list[PartNumberEnergy]:
        """Return energy by part number."""
        async with info.context.reads:
            found = await energy_by_part_number(
                info.context.ledger,
                self.question.period,
                assets=self.question.assets,
                part_ids=None if part_ids is None else chosen("partIds", part_ids),
                price=None if energy_price is None else energy_price.told(),
                first=first,
                as_of=self.question.asked.known_at,
            )
        return [PartNumberEnergy.of(each) for each in found]

    @field(
        cost=FIGURES_COST,
        description="What work that predictions led to saved, false alarms counted, under the "
        "assumptions that are given.",
    )
    async def prevented_failures(
        self,
        info: OperationInfo,
        assumptions: Annotated[
            PreventionAssumptionsInput,
            strawberry.argument(description="What would have happened without that work."),
        ],
    ) -> PreventedFailures:
        """Return what acting on predictions saved."""
        asked = self.question.asked
        names = await _assets(info.context, self.question)
        async with info.context.reads:
            found = await prevented_failures(
                info.context.ledger,
                names,
                self.question.period,
                assumptions.told(),
                as_of=asked.known_at,
            )
        return PreventedFailures.of(found, Basis.of(found.basis, asked))

    # --- quality --------------------------------------------------------------------------

    @field(cost=FIGURES_COST, description="First-pass yield by operation, and through all of them.")
    async def yields(
        self, info: OperationInfo, operation: Operation = None, part_number: PartNumber = None
    ) -> Yields:
        """Return the yields."""
        asked = self.question.asked
        async with info.context.reads:
            found = await quality_figures.yields(
                info.context.ledger, self._scope(operation, part_number), as_of=asked.known_at
            )
        return Yields.of(found, asked)

    @field(cost=FIGURES_COST, description="What was found wrong, and how often.")
    async def defect_pareto(
        self,
        info: OperationInfo,
        first: Annotated[
            int,
            strawberry.argument(description=f"How many codes at most, 1 to {DEFECT_CODES_MAX}."),
        ] = 20,
        operation: Operation = None,
        part_number: PartNumber = None,
    ) -> DefectPareto:
        """Return the defects."""
        asked = self.question.asked
        async with info.context.reads:
            found = await quality_figures.defect_pareto(
                info.context.ledger,
                self._scope(operation, part_number),
                first=first,
                as_of=asked.known_at,
            )
        return DefectPareto.of(found, asked)

    @field(
        cost=FIGURES_COST,
        description="What was measured of a characteristic, in the order of time. More than "
        f"{MEASUREMENTS_MAX:,} are refused (`figure.too_many_values`), not thinned out.",
    )
    async def measurements(
        self,
        info: OperationInfo,
        characteristic: Characteristic,
        operation: Operation = None,
        part_number: PartNumber = None,
    ) -> Measurements:
        """Return what was measured."""
        asked = self.question.asked
        async with info.context.reads:
            found = await quality_figures.measurements(
                info.context.ledger,
                characteristic,
                self._scope(operation, part_number),
                as_of=asked.known_at,
            )
        return Measurements.of(found, asked)

    @field(
        cost=FIGURES_COST,
        description="Control chart of a characteristic: means and ranges of subgroups (SPC).",
    )
    async def control_chart(
        self,
        info: OperationInfo,
        characteristic: Characteristic,
        subgroup_size: SubgroupSize,
        operation: Operation = None,
        part_number: PartNumber = None,
        centres: Annotated[
            ChartCentresInput | None,
            strawberry.argument(
                description="Of an earlier phase; null: the measurements judge themselves."
            ),
        ] = None,
    ) -> ControlChart:
        """Return the control chart."""
        asked = self.question.asked
        async with info.context.reads:
            found = await quality_figures.control_chart(
                info.context.ledger,
                characteristic,
                self._scope(operation, part_number),
                subgroup_size=subgroup_size,
                limits=None if centres is None else centres.told(subgroup_size),
                as_of=asked.known_at,
            )
        return ControlChart.of(found, asked)

    @field(
        cost=FIGURES_COST,
        description="Cp, Cpk, Pp and Ppk of a characteristic. Different tolerances or units among "
        "the measurements are refused, not mixed.",
    )
    async def capability(
        self,
        info: OperationInfo,
        characteristic: Characteristic,
        subgroup_size: SubgroupSize,
        operation: Operation = None,
        part_number: PartNumber = None,
    ) -> ProcessCapability:
        """Return the capability."""
        asked = self.question.asked
        async with info.context.reads:
            found = await quality_figures.characteristic_capability(
                info.context.ledger,
                characteristic,
                self._scope(operation, part_number),
                subgroup_size=subgroup_size,
                as_of=asked.known_at,
            )
        return ProcessCapability.of(found, asked)

    def _scope(self, operation: str | None, part_number: str | None) -> Scope:
        return Scope(self.question.period, self.question.assets, operation, part_number)


async def _assets(context: OperationContext, question: _Question) -> list[str]:
    """Return the assets that a question is about, by name.

    Raises
    ------
    InvalidInput
        ``figure.assets``
    """
    if question.assets is not None:
        return distinct_assets(question.assets)

    async def load(_: list[str]) -> list[list[str]]:
        async with context.reads:
            rows = await list_assets(context.ledger, first=ASSETS_MAX + 1)
        return [[row.asset_id for row in rows]]

    return distinct_assets(await context.loader("all assets", load).load(""))


def _planned_on(time: PlannedTimeInput, names: Sequence[str]) -> Sequence[str]:
    if time.asset_id is None:
        return names
    if time.asset_id not in names:
        raise unknown_asset(time.asset_id)
    return (str(time.asset_id),)
