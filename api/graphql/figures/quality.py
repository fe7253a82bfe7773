"""Types of quality figures: yields, defects, control charts, capability."""

from __future__ import annotations

import strawberry

from api.graphql.as_of import Asked
from api.graphql.basis import Basis
from api.graphql.scalars import Column, FloatColumn, described_enum
from domain.events import format_time
from domain.key_figures import capability, control_charts
from domain.key_figures.control_charts import Rule, chart_limits
from projections.quality import figures

described_enum(
    Rule,
    "Tests of the Western Electric handbook (1956); sigma is that of the subgroups' means.",
    {
        "BEYOND_3_SIGMA": "Rule 1: one point beyond 3 sigma.",
        "TWO_OF_THREE_BEYOND_2_SIGMA": "Rule 2: two of three beyond 2 sigma on one side.",
        "FOUR_OF_FIVE_BEYOND_1_SIGMA": "Rule 3: four of five beyond 1 sigma on one side.",
        "EIGHT_ON_ONE_SIDE": "Rule 4: eight in a row on one side.",
    },
    name="ControlChartRule",
)


@strawberry.type(description="How units came through an operation.")
class StepYield:
    """`projections.quality.figures.StepYield`."""

    operation: str | None = strawberry.field(
        description="Of the runs that the inspections belong to; null: they belong to none."
    )
    units: int = strawberry.field(description="Inspected there for the first time in the period.")
    good_first_time: int = strawberry.field(description="Of those, found good then.")
    good_at_last: int = strawberry.field(
        description="Of those, found good by the last inspection there."
    )
    first_pass_ratio: float | None = strawberry.field(
        description="First-pass yield, 0 to 1; null of no units."
    )


@strawberry.type(description="Yields by operation, and through all of them.")
class Yields:
    """`projections.quality.figures.Yields`."""

    steps: list[StepYield] = strawberry.field(description="By operation.")
    rolled_ratio: float | None = strawberry.field(
        description="Rolled throughput yield: the product over the operations; null without one. "
        "It says something of a route only where these are its operations."
    )
    basis: Basis = strawberry.field(description="What it rests on.")

    @classmethod
    def of(cls, found: figures.Yields, asked: Asked) -> Yields:
        """Return `found` as the schema tells it."""
        return cls(
            steps=[
                StepYield(
                    operation=step.operation,
                    units=step.units,
                    good_first_time=step.good_first_time,
                    good_at_last=step.good_at_last,
                    first_pass_ratio=step.first_pass_ratio,
                )
                for step in found.steps
            ],
            rolled_ratio=found.rolled_ratio,
            basis=Basis.of(found.basis, asked),
        )


@strawberry.type(description="A defect, how often it was named, and its share.")
class DefectBar:
    """`domain.key_figures.yields.ParetoBar`."""

    code: str = strawberry.field(description="Defect code.")
    count: int = strawberry.field(description="How often it was named.")
    share: float = strawberry.field(description="Its share of all, 0 to 1.")
    cumulative_share: float = strawberry.field(
        description="Share of it and of those before it, 0 to 1."
    )


@strawberry.type(description="Defects by code, the most frequent first.")
class DefectPareto:
    """`projections.quality.figures.DefectPareto`."""

    bars: list[DefectBar] = strawberry.field(description="The most frequent.")
    total: int = strawberry.field(description="All that were named, those left out too.")
    inspections: int = strawberry.field(description="Inspections that were looked at.")
    defective_inspections: int = strawberry.field(
        description="Of those, whose verdict was not GOOD."
    )
    basis: Basis = strawberry.field(description="What it rests on.")

    @classmethod
    def of(cls, found: figures.DefectPareto, asked: Asked) -> DefectPareto:
        """Return `found` as the schema tells it."""
        return cls(
            bars=[
                DefectBar(
                    code=bar.cause,
                    count=bar.count,
                    share=bar.share,
                    cumulative_share=bar.cumulative_share,
                )
                for bar in found.bars
            ],
            total=found.total,
            inspections=found.inspections,
            defective_inspections=found.defective_inspections,
            basis=Basis.of(found.basis, asked),
        )


# --- what was measured --------------------------------------------------------------------


@strawberry.type(
    description="What was measured of a characteristic, in the order of time, as parallel columns."
)
class Measurements:
    """`projections.quality.figures.Measurements`."""

    unit: str = strawberry.field(description="Unit of the values, as they were measured.")
    values: FloatColumn = strawberry.field(description="The values, in `unit`.")
    times: Column = strawberry.field(description="When each was inspected: RFC 3339 times, UTC.")
    inspection_ids: Column = strawberry.field(description="Inspection of each: natural keys.")
    lower_limit: float | None = strawberry.field(
        description="Lower tolerance limit of the last one, in `unit`; null where it is open."
    )
    upper_limit: float | None = strawberry.field(
        description="Upper tolerance limit of the last one, in `unit`; null where it is open."
    )
    limit_sets: int = strawberry.field(
        description="Different pairs of tolerance limits among them."
    )
    basis: Basis = strawberry.field(description="What it rests on.")

    @classmethod
    def of(cls, found: figures.Measurements, asked: Asked) -> Measurements:
        """Return `found` as the schema tells it."""
        return cls(
            unit=found.unit,
            values=FloatColumn(list(found.values)),  # type: ignore[arg-type]
            times=Column([format_time(time) for time in found.times]),
            inspection_ids=Column(list(found.inspection_ids)),
            lower_limit=found.lower_limit,
            upper_limit=found.upper_limit,
            limit_sets=found.limit_sets,
            basis=Basis.of(found.basis, asked),
        )


@strawberry.input(
    description="Centre lines of an earlier phase in which the process was in control: they judge "
    "what was measured since (phase II)."
)
class ChartCentresInput:
    """What `domain.key_figures.control_charts.chart_limits` makes limits of."""

    mean: float = strawberry.field(description="Grand mean, in the unit of what is measured.")
    mean_range: float = strawberry.field(
        description="Mean range of the subgroups, in the same unit."
    )

    def told(self, subgroup_size: int) -> control_charts.ChartLimits:
        """Return the limits that they give."""
        return chart_limits(self.mean, self.mean_range, subgroup_size)


@strawberry.type(description="Centre lines and limits, in the unit of what is measured.")
class ChartLimits:
    """`domain.key_figures.control_charts.ChartLimits`."""

    mean_centre: float = strawberry.field(description="Centre line of means.")
    mean_lower: float = strawberry.field(description="Lower control limit of means.")
    mean_upper: float = strawberry.field(description="Upper control limit of means.")
    range_centre: float = strawberry.field(description="Centre line of ranges.")
    range_lower: float = strawberry.field(description="Lower control limit of ranges.")
    range_upper: float = strawberry.field(description="Upper control limit of ranges.")
    sigma: float = strawberry.field(
        description="Standard deviation of what is measured, within subgroups."
    )


@strawberry.type(description="A point that completes the pattern of a rule.")
class ChartViolation:
    """`domain.key_figures.control_charts.Violation`."""

    index: int = strawberry.field(description="Subgroup, from 0 on.")
    rule: Rule = strawberry.field(description="The rule that it breaks.")
    above: bool = strawberry.field(description="Above the centre line; else below.")
    of_range: bool = strawberry.field(description="On the chart of ranges; else of means.")


@strawberry.type(
    description="Means and ranges of subgroups in the order of time, and where they break a rule "
    "(ISO 7870-2)."
)
class ControlChart:
    """`projections.quality.figures.ControlChart`."""

    subgroup_size: int = strawberry.field(description="Measurements in a subgroup.")
    means: FloatColumn = strawberry.field(description="Mean of each subgroup.")
    ranges: FloatColumn = strawberry.field(description="Range of each subgroup.")
    limits: ChartLimits = strawberry.field(description="Centre lines and limits.")
    violations: list[ChartViolation] = strawberry.field(description="Where a rule is broken.")
    left_over: int = strawberry.field(
        description="Measurements at the end that fill no subgroup, and are in none."
    )
    measurements: Measurements = strawberry.field(
        description="What it is made of: subgroup n is of those from n times the size on."
    )

    @classmethod
    def of(cls, found: figures.ControlChart, asked: Asked) -> ControlChart:
        """Return `found` as the schema tells it."""
        chart, limits = found.chart, found.chart.limits
        return cls(
            subgroup_size=limits.subgroup_size,
            means=FloatColumn(list(chart.means)),  # type: ignore[arg-type]
            ranges=FloatColumn(list(chart.ranges)),  # type: ignore[arg-type]
            limits=ChartLimits(
                mean_centre=limits.mean_centre,
                mean_lower=limits.mean_lower,
                mean_upper=limits.mean_upper,
                range_centre=limits.range_centre,
                range_lower=limits.range_lower,
                range_upper=limits.range_upper,
                sigma=limits.sigma,
            ),
            violations=[
                ChartViolation(
                    index=each.index, rule=each.rule, above=each.side > 0, of_range=each.of_range
                )
                for each in chart.violations
            ],
            left_over=chart.left_over,
            measurements=Measurements.of(found.measurements, asked),
        )


@strawberry.type(description="How often a spread fits into the tolerance.")
class CapabilityIndices:
    """`domain.key_figures.capability.Capability`."""

    mean: float = strawberry.field(description="Mean, in the unit of what is measured.")
    sigma: float = strawberry.field(description="Standard deviation, in the same unit.")
    index: float | None = strawberry.field(
        description="Cp or Pp; null with one open limit, or without spread."
    )
    nearest: float | None = strawberry.field(
        description="Cpk or Ppk: by the nearer limit; null without spread."
    )

    @classmethod
    def of(cls, found: capability.Capability) -> CapabilityIndices:
        """Return `found` as the schema tells it."""
        return cls(mean=found.mean, sigma=found.sigma, index=found.index, nearest=found.nearest)


@strawberry.type(
    description="How well a characteristic fits between its tolerance limits (ISO 22514)."
)
class ProcessCapability:
    """`projections.quality.figures.CharacteristicCapability`."""

    within: CapabilityIndices = strawberry.field(
        description="Cp and Cpk: by the spread within subgroups."
    )
    overall: CapabilityIndices = strawberry.field(
        description="Pp and Ppk: by the spread over all values."
    )
    lower_limit: float | None = strawberry.field(
        description="Lower tolerance limit; null where it is open."
    )
    upper_limit: float | None = strawberry.field(
        description="Upper tolerance limit; null where it is open."
    )
    violations: int = strawberry.field(
        description="Of the control chart's rules: with any, `within` is of a process that is none."
    )
    measurements: Measurements = strawberry.field(description="What it is made of.")

    @classmethod
    def of(cls, found: figures.CharacteristicCapability, asked: Asked) -> ProcessCapability:
        """Return `found` as the schema tells it."""
        return cls(
            within=CapabilityIndices.of(found.within),
            overall=CapabilityIndices.of(found.overall),
            lower_limit=found.lower_limit,
            upper_limit=found.upper_limit,
            violations=found.violations,
            measurements=Measurements.of(found.measurements, asked),
        )
