"""Mutations of scenarios and of the set-points proposed from them."""

from __future__ import annotations

from api.access.rights import Right
from api.graphql.declared import Declared, answer_by_key, mutations
from api.graphql.scenarios.types import (
    Scenario,
    SetpointProposal,
    find_scenario,
    find_setpoint_proposal,
)
from domain.opinions.scenario import RunScenario
from domain.opinions.setpoint_proposal import (
    ApplySetpoint,
    ApproveSetpoint,
    ProposeSetpoint,
    RefuseSetpoint,
)

ScenarioMutations = mutations(
    "ScenarioMutations",
    Declared(
        RunScenario,
        Right.ENGINEER,
        "Record a what-if and what came out.",
        "The scenario is recorded.",
    ),
    answer=answer_by_key("scenario", Scenario, find_scenario),
)

SetpointProposalMutations = mutations(
    "SetpointProposalMutations",
    Declared(
        ProposeSetpoint,
        Right.ENGINEER,
        "Propose a set-point of an asset.",
        "The set-point is proposed.",
    ),
    Declared(
        ApproveSetpoint,
        Right.ENGINEER,
        "Let a proposed set-point be applied: the asset's set-point is desired so from now on.",
        "The set-point is approved.",
    ),
    Declared(
        ApplySetpoint,
        Right.REPORT,
        "Say that the machine took a set-point, and what it reads back.",
        "The set-point is applied.",
    ),
    Declared(
        RefuseSetpoint,
        Right.REPORT,
        "Say that a person or the machine's own interlock does not want it.",
        "The set-point is refused.",
    ),
    answer=answer_by_key("setpoint_proposal", SetpointProposal, find_setpoint_proposal),
)
