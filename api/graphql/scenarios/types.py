"""Types of scenarios: what-if runs on a twin, and the set-points that were proposed on them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import strawberry

from api.graphql.context import OperationContext, OperationInfo
from api.graphql.fields import field
from api.graphql.object_lists import ObjectFilterInput
from api.graphql.objects import (
    ThreadObject,
    actor_of,
    common,
    first_entry,
    key_or_none,
    last_entry,
    object_in,
)
from api.graphql.references import ASSET, asset_named
from api.graphql.scalars import BigInt, Position, described_enum
from api.graphql.units import InUnit, in_unit
from domain.asset_model import Setpoint
from domain.asset_types import asset_type
from domain.errors import InvalidInput
from domain.opinions.scenario import ScenarioRun, scenario_stream
from domain.opinions.setpoint_proposal import (
    SetpointApplied,
    SetpointApproved,
    SetpointProposed,
    SetpointRefused,
    setpoint_proposal_stream,
)
from eventlog.objects import LoadedObject
from projections.object_kinds import (
    ScenarioState,
    SetpointProposalState,
    scenario_state,
    setpoint_proposal_state,
)

SCENARIO: Final = "Scenario"
SETPOINT_PROPOSAL: Final = "SetpointProposal"

described_enum(
    ScenarioState,
    "Whether a scenario is recorded.",
    {"UNKNOWN": "It was corrected away.", "RUN": "It was run."},
)
described_enum(
    SetpointProposalState,
    "How far a set-point proposal has come.",
    {
        "UNKNOWN": "It was corrected away.",
        "PROPOSED": "It waits for approval.",
        "APPROVED": "It may be applied: the asset's set-point is desired so.",
        "APPLIED": "The machine took it.",
        "REFUSED": "It will not be applied.",
    },
)


# --- scenarios ------------------------------------------------------------------------------


@strawberry.input(
    description="Which scenarios are wanted; what is null or empty does not restrict."
)
class ScenarioFilter(ObjectFilterInput):
    """What restricts a list of scenarios; each list at most 100 values."""

    states: list[ScenarioState] | None = strawberry.field(
        default=None, description="Scenarios that stand so."
    )
    asset_ids: list[str] | None = strawberry.field(
        default=None, description="Scenarios on these assets."
    )


@strawberry.type(description="What a scenario takes as given.")
class Assumption:
    """`domain.opinions.scenario.Assumption`."""

    name: str = strawberry.field(description="What of.")
    value: float = strawberry.field(description="How much, in `unit`.")
    unit: str = strawberry.field(description="SI unit; empty: dimensionless.")


@strawberry.type(
    description="By how much an indicator changes against doing nothing, with an interval."
)
class ScenarioDelta:
    """`domain.opinions.scenario.Delta`."""

    indicator: str = strawberry.field(description="What changes, such as `throughput`.")
    mean: float = strawberry.field(description="By how much on average, in `unit`.")
    lower: float = strawberry.field(description="Lower end of the interval, in `unit`.")
    upper: float = strawberry.field(description="Upper end of the interval, in `unit`.")
    confidence: float = strawberry.field(description="Confidence of the interval, 0 to 1.")
    unit: str = strawberry.field(
        description="Unit as it was recorded: SI, a currency such as `EUR`; empty: dimensionless."
    )


@strawberry.type(description="A twin, forked at a position of the log and simulated.")
class Scenario(ThreadObject):
    """`domain.opinions.scenario.ScenarioRun`."""

    scenario_id: strawberry.ID = strawberry.field(description="Natural key.")
    state: ScenarioState = strawberry.field(description="Whether it is recorded.")
    asset_id: strawberry.ID | None = strawberry.field(
        description="The asset whose twin was forked; null where the scenario was corrected away, "
        "as is all else then."
    )
    title: str | None = strawberry.field(description="What people call it.")
    from_position: Position | None = strawberry.field(
        description="Position of the log at which the twin was forked."
    )
    futures: int | None = strawberry.field(description="How many futures were simulated.")
    seed: BigInt | None = strawberry.field(description="Seed that makes it again.")
    assumptions: list[Assumption] = strawberry.field(description="What it takes as given.")
    deltas: list[ScenarioDelta] = strawberry.field(description="What changes, and by how much.")
    run_at: datetime | None = strawberry.field(description="When it was run.")
    run_by: str | None = strawberry.field(description="Who ran it.")

    @classmethod
    def of(cls, loaded: LoadedObject) -> Scenario:
        """Return a scenario as the schema tells it."""
        entry = first_entry(loaded, ScenarioRun)
        fact: ScenarioRun | None = None if entry is None else entry.fact
        return cls(
            **common(SCENARIO, loaded),
            scenario_id=strawberry.ID(loaded.key),
            state=scenario_state(loaded.state),
            asset_id=None if fact is None else strawberry.ID(fact.asset_id),
            title=None if fact is None else fact.title,
            from_position=None if fact is None else Position(fact.from_position),
            futures=None if fact is None else fact.futures,
            seed=None if fact is None else BigInt(fact.seed),
            assumptions=[
                Assumption(name=taken.name, value=taken.value, unit=taken.unit)
                for taken in (() if fact is None else fact.assumptions)
            ],
            deltas=[
                ScenarioDelta(
                    indicator=delta.indicator,
                    mean=delta.mean,
                    lower=delta.lower,
                    upper=delta.upper,
                    confidence=delta.confidence,
                    unit=delta.unit,
                )
                for delta in (() if fact is None else fact.deltas)
            ],
            run_at=None if entry is None else entry.occurred_at,
            run_by=actor_of(loaded, entry),
        )

    @field(
        description="The asset whose twin was forked; null where it is not known.",
        type=ASSET | None,
    )
    async def asset(self, info: OperationInfo) -> Any:
        """Return the scenario's asset."""
        return await asset_named(info.context, self.asset_id)


# --- set-point proposals ----------------------------------------------------------------------


@strawberry.input(
    description="Which set-point proposals are wanted; what is null or empty does not restrict."
)
class SetpointProposalFilter(ObjectFilterInput):
    """What restricts a list of set-point proposals; each list at most 100 values."""

    states: list[SetpointProposalState] | None = strawberry.field(
        default=None, description="Proposals that have come so far."
    )
    asset_ids: list[str] | None = strawberry.field(
        default=None, description="Proposals for these assets."
    )
    setpoints: list[str] | None = strawberry.field(
        default=None, description="Proposals for set-points of these names."
    )
    scenario_ids: list[str] | None = strawberry.field(
        default=None, description="Proposals that these scenarios led to."
    )


@strawberry.type(description="A set-point that somebody or something proposes.")
class SetpointProposal(ThreadObject):
    """`domain.opinions.setpoint_proposal.SetpointProposal`."""

    proposed: strawberry.Private[SetpointProposed | None]
    applied: strawberry.Private[SetpointApplied | None]
    proposal_id: strawberry.ID = strawberry.field(description="Natural key.")
    state: SetpointProposalState = strawberry.field(description="How far it has come.")
    asset_id: strawberry.ID | None = strawberry.field(
        description="The asset that it is for; null where the proposal was corrected away, as is "
        "all else then."
    )
    setpoint: str | None = strawberry.field(description="Name of the set-point.")
    reason: str | None = strawberry.field(description="Why, in words.")
    scenario_id: strawberry.ID | None = strawberry.field(
        description="The scenario that led to it; null: none was named."
    )
    proposed_at: datetime | None = strawberry.field(description="When it was proposed.")
    proposed_by: str | None = strawberry.field(description="Who or what proposed it.")
    approved_at: datetime | None = strawberry.field(
        description="When it was approved; null where it was not."
    )
    approved_by: str | None = strawberry.field(description="Who approved it.")
    approval_note: str | None = strawberry.field(description="What he noted.")
    ended_at: datetime | None = strawberry.field(
        description="When it was applied or refused; null: it waits."
    )
    refusal_reason: str | None = strawberry.field(
        description="Why it was refused; null where it was not."
    )

    @classmethod
    def of(cls, loaded: LoadedObject) -> SetpointProposal:
        """Return a set-point proposal as the schema tells it."""
        entry = first_entry(loaded, SetpointProposed)
        fact: SetpointProposed | None = None if entry is None else entry.fact
        approved = last_entry(loaded, SetpointApproved)
        applied = last_entry(loaded, SetpointApplied)
        refused = last_entry(loaded, SetpointRefused)
        ended = applied or refused
        return cls(
            **common(SETPOINT_PROPOSAL, loaded),
            proposed=fact,
            applied=None if applied is None else applied.fact,
            proposal_id=strawberry.ID(loaded.key),
            state=setpoint_proposal_state(loaded.state),
            asset_id=None if fact is None else strawberry.ID(fact.asset_id),
            setpoint=None if fact is None else fact.setpoint,
            reason=None if fact is None else fact.reason,
            scenario_id=None if fact is None else key_or_none(fact.scenario_id),
            proposed_at=None if entry is None else entry.occurred_at,
            proposed_by=actor_of(loaded, entry),
            approved_at=None if approved is None else approved.occurred_at,
            approved_by=actor_of(loaded, approved),
            approval_note=None if approved is None else approved.fact.note,
            ended_at=None if ended is None else ended.occurred_at,
            refusal_reason=None if refused is None else refused.fact.reason,
        )

    @field(description="The value that is proposed, SI unless another unit is asked for.")
    async def value(self, info: OperationInfo, unit: InUnit = None) -> float | None:
        """Return what is proposed in `unit`."""
        if self.proposed is None:
            return None
        return await self._in_unit(info.context, self.proposed.value, unit)

    @field(
        description="The value that the machine read back when it took it, SI unless another unit "
        "is asked for; null where it did not take it."
    )
    async def applied_value(self, info: OperationInfo, unit: InUnit = None) -> float | None:
        """Return what was applied in `unit`."""
        if self.applied is None:
            return None
        return await self._in_unit(info.context, self.applied.value, unit)

    @field(description="SI unit of the values; null where the asset or set-point is not known.")
    async def si_unit(self, info: OperationInfo) -> str | None:
        """Return the SI unit of the set-point."""
        described = await self._setpoint(info.context)
        return None if described is None else described.si_unit

    @field(description="The asset that it is for; null where it is not known.", type=ASSET | None)
    async def asset(self, info: OperationInfo) -> Any:
        """Return the proposal's asset."""
        return await asset_named(info.context, self.asset_id)

    @field(description="The scenario that led to it; null: none was named, or it is not known.")
    async def scenario(self, info: OperationInfo) -> Scenario | None:
        """Return the scenario that led to it."""
        if self.scenario_id is None:
            return None
        return await find_scenario(info.context, self.scenario_id, self.loaded)

    async def _in_unit(
        self, context: OperationContext, value_si: float, symbol: str | None
    ) -> float:
        if symbol is None:
            return value_si
        described = await self._setpoint(context)
        if described is None:
            raise InvalidInput(
                "unit.unknown_quantity",
                f"what the set-point {self.setpoint!r} of {self.asset_id!r} measures is not known",
                hint="ask for the SI value",
                value=symbol,
            )
        return in_unit(value_si, described.quantity, symbol)

    async def _setpoint(self, context: OperationContext) -> Setpoint | None:
        if self.asset_id is None:
            return None
        row = await context.asset_by_asset_id.load(self.asset_id)
        if row is None:
            return None
        setpoints = asset_type(row.asset_type).setpoints
        return next((found for found in setpoints if found.name == self.setpoint), None)


# --- finding --------------------------------------------------------------------------------


async def find_scenario(context: OperationContext, key: str, as_of: Any = None) -> Scenario | None:
    """Return the scenario called `key`; as `api.graphql.objects.object_in`."""
    found = await object_in(context, scenario_stream(key), as_of)
    return None if found is None else Scenario.of(found)


async def find_setpoint_proposal(
    context: OperationContext, key: str, as_of: Any = None
) -> SetpointProposal | None:
    """Return the set-point proposal called `key`; as `api.graphql.objects.object_in`."""
    found = await object_in(context, setpoint_proposal_stream(key), as_of)
    return None if found is None else SetpointProposal.of(found)
