"""Types of reliability and of prevented failures."""

from __future__ import annotations

from typing import Any

import strawberry

from api.graphql.basis import Basis
from api.graphql.context import OperationInfo
from api.graphql.fields import field
from api.graphql.references import ASSET, asset_named
from api.graphql.units import measured
from domain.key_figures.costs import PreventionAssumptions as Assumptions
from domain.key_figures.costs import PreventionSavings
from projections.figures import reliability as figures
from projections.figures.reliability import WORK_ORDERS_NAMED_MAX


@strawberry.type(
    description="How often assets failed and how long they stood still, after IEC 60050-192."
)
class Reliability:
    """`projections.figures.reliability.Reliability`."""

    figure: strawberry.Private[figures.Reliability]
    observed = measured("figure.observed_s", "time", "The period's length, once for each asset")
    down = measured(
        "figure.down_s", "time", "Standstill for work orders of any kind, overlaps counted once"
    )
    mtbf = measured(
        "figure.mtbf_s",
        "time",
        "Mean operating time between failures: observed less down, by failures; null without one",
    )
    mtbf_lower = measured(
        "mtbf_lower_s",
        "time",
        "Lower bound of MTBF, if failures come at a constant rate (chi-square)",
    )
    mtbf_upper = measured(
        "mtbf_upper_s", "time", "Upper bound of MTBF; null without a failure: there is none"
    )
    mttr = measured(
        "figure.mttr_s",
        "time",
        "Mean time from a failure to its restoration; null where nothing was restored",
    )
    restoration = measured(
        "figure.restoration_s",
        "time",
        "From the failures of the period to their restorations, also beyond it, together",
    )
    failures: int = strawberry.field(
        description="Failures that were confirmed, by when they happened; prevented ones are none."
    )
    prevented: int = strawberry.field(
        description="Confirmed by work that a prediction led to, before they happened."
    )
    restored: int = strawberry.field(
        description="Failures for which the asset stood still, and was restored."
    )
    unrestored: int = strawberry.field(
        description="Failures for which the asset still stood still."
    )
    without_downtime: int = strawberry.field(
        description="Failures for which the asset did not stand still."
    )
    confidence: float | None = strawberry.field(
        description="Confidence of the bounds of MTBF, 0 to 1."
    )
    availability_ratio: float | None = strawberry.field(
        description="Share of the observed time that is not down, 0 to 1."
    )
    inherent_availability_ratio: float | None = strawberry.field(
        description="MTBF / (MTBF + MTTR), 0 to 1; null where either is."
    )

    @property
    def mtbf_lower_s(self) -> float | None:
        """Lower bound of MTBF, s."""
        bounds = self.figure.mtbf_bounds
        return None if bounds is None else bounds.lower_s

    @property
    def mtbf_upper_s(self) -> float | None:
        """Upper bound of MTBF, s."""
        bounds = self.figure.mtbf_bounds
        return None if bounds is None else bounds.upper_s

    @classmethod
    def of(cls, figure: figures.Reliability) -> Reliability:
        """Return `figure` as the schema tells it."""
        bounds = figure.mtbf_bounds
        return cls(
            figure=figure,
            failures=figure.failures,
            prevented=figure.prevented,
            restored=figure.restored,
            unrestored=figure.unrestored,
            without_downtime=figure.without_downtime,
            confidence=None if bounds is None else bounds.confidence,
            availability_ratio=figure.availability_ratio,
            inherent_availability_ratio=figure.inherent_availability_ratio,
        )


@strawberry.type(description="Reliability of one asset.")
class AssetReliability:
    """An asset of `projections.figures.reliability.ReliabilityOfAssets`."""

    asset_id: strawberry.ID = strawberry.field(description="Natural key of the asset.")
    figures: Reliability = strawberry.field(description="Its reliability.")

    @field(description="The asset, as it is now.", type=ASSET | None)
    async def asset(self, info: OperationInfo) -> Any:
        """Return the asset."""
        return await asset_named(info.context, self.asset_id)


@strawberry.type(description="Reliability of all assets together, and of each.")
class ReliabilityFigures:
    """`projections.figures.reliability.ReliabilityOfAssets`."""

    total: Reliability = strawberry.field(description="All assets together.")
    by_asset: list[AssetReliability] = strawberry.field(description="Each, by natural key.")
    basis: Basis = strawberry.field(description="What it rests on.")


# --- prevented failures -------------------------------------------------------------------


@strawberry.input(
    description="What would have happened without acting: nobody has seen it, so somebody has to "
    "say. The answer tells it again."
)
class PreventionAssumptionsInput:
    """`domain.key_figures.costs.PreventionAssumptions`."""

    failure_probability: float = strawberry.field(
        description="That a confirmed finding would have become a failure, 0 to 1."
    )
    failure_down_s: float = strawberry.field(
        description="How long the asset would have stood still, s."
    )
    failure_repair_cost: float = strawberry.field(
        description="What the repair would have cost, with secondary damage, in `currency`."
    )
    down_cost_per_s: float = strawberry.field(
        description="What a second of standstill costs, in `currency` per s."
    )
    currency: str = strawberry.field(description="Of all these amounts: ISO 4217, such as `EUR`.")

    def told(self) -> Assumptions:
        """Return them as the figure takes them."""
        return Assumptions(
            self.failure_probability,
            self.failure_down_s,
            self.failure_repair_cost,
            self.down_cost_per_s,
            self.currency,
        )


@strawberry.type(description="What was assumed would have happened without acting.")
class PreventionAssumptions:
    """`domain.key_figures.costs.PreventionAssumptions`."""

    failure_probability: float = strawberry.field(
        description="That a confirmed finding would have become a failure, 0 to 1."
    )
    failure_down_s: float = strawberry.field(
        description="How long the asset would have stood still, s."
    )
    failure_repair_cost: float = strawberry.field(
        description="What the repair would have cost, in `currency`."
    )
    down_cost_per_s: float = strawberry.field(
        description="What a second of standstill costs, in `currency` per s."
    )
    currency: str = strawberry.field(description="Of all these amounts: ISO 4217.")


@strawberry.type(description="An amount of money.")
class Money:
    """An amount and its currency."""

    amount: float = strawberry.field(description="How much, in `currency`.")
    currency: str = strawberry.field(description="ISO 4217, such as `EUR`.")

    @classmethod
    def by_currency(cls, amounts: dict[str, float]) -> list[Money]:
        """Return `amounts` by currency; none is converted."""
        return [cls(amount=amounts[name], currency=name) for name in sorted(amounts)]


@strawberry.type(
    description="What acting on predictions saved, under the assumptions that come with it."
)
class PreventedFailures:
    """`projections.figures.reliability.PreventedFailures`."""

    savings: strawberry.Private[PreventionSavings]
    prevented: int = strawberry.field(
        description="Failures that were confirmed before they had happened, by work that a "
        "prediction led to."
    )
    avoided_cost: float = strawberry.field(
        description="What they would have cost, in the assumptions' currency."
    )
    avoided_down = measured(
        "savings.avoided_down_s", "time", "How long assets would have stood still"
    )
    spent_on_work: float = strawberry.field(
        description="What the work cost, false alarms included, in the assumptions' currency."
    )
    spent_on_down_time: float = strawberry.field(
        description="What the standstill for that work cost, in the assumptions' currency."
    )
    saving: float = strawberry.field(
        description="Avoided cost less what was spent, in the assumptions' currency; may be "
        "negative."
    )
    assumptions: PreventionAssumptions = strawberry.field(description="What was assumed.")
    work_order_ids: list[strawberry.ID] = strawberry.field(
        description=f"Work orders that prevented a failure, at most {WORK_ORDERS_NAMED_MAX}."
    )
    false_alarm_ids: list[strawberry.ID] = strawberry.field(
        description="Work orders that a prediction led to and that found no fault; as many."
    )
    costs_in_other_currencies: list[Money] = strawberry.field(
        description="What the same work cost in other currencies; in no sum."
    )
    uncosted_work_orders: int = strawberry.field(
        description="Work orders of the same work without a cost."
    )
    basis: Basis = strawberry.field(description="What it rests on.")

    @classmethod
    def of(cls, found: figures.PreventedFailures, basis: Basis) -> PreventedFailures:
        """Return `found` as the schema tells it."""
        savings = found.savings
        assumed = savings.assumptions
        return cls(
            savings=savings,
            prevented=savings.prevented,
            avoided_cost=savings.avoided_cost,
            spent_on_work=savings.spent_on_work,
            spent_on_down_time=savings.spent_on_down_time,
            saving=savings.saving,
            assumptions=PreventionAssumptions(
                failure_probability=assumed.failure_probability,
                failure_down_s=assumed.failure_down_s,
                failure_repair_cost=assumed.failure_repair_cost,
                down_cost_per_s=assumed.down_cost_per_s,
                currency=assumed.currency,
            ),
            work_order_ids=[strawberry.ID(name) for name in found.work_order_ids],
            false_alarm_ids=[strawberry.ID(name) for name in found.false_alarm_ids],
            costs_in_other_currencies=Money.by_currency(found.costs_in_other_currencies),
            uncosted_work_orders=found.uncosted_work_orders,
            basis=basis,
        )
