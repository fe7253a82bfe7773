"""Set-point proposals: within safe bounds, approved before they are applied."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from domain.asset import AssetRegistered, AssetRetired, SetpointDesired
from domain.asset_types import asset_type
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.opinions.scenario import Delta, ScenarioRun
from domain.opinions.setpoint_proposal import (
    DECIDER,
    ApplySetpoint,
    ApproveSetpoint,
    ProposeSetpoint,
    RefuseSetpoint,
    SetpointApplied,
    SetpointApproved,
    SetpointProposalEvent,
    SetpointProposed,
    SetpointRefused,
)
from domain.thread import Link, LinkKind, NodeState, Standing
from tests.domain.specification import Given, given_of

LOOP = AssetRegistered("loop-1", "skab-pump-loop", "Loop 1")
FLOW = asset_type("skab-pump-loop").setpoint("flow")
SCENARIO = ScenarioRun(
    "S-1", "loop-1", "slower", 9, 100, 7, (), (Delta("energy", -1.0, -2.0, 0.0, 0.9, "J"),)
)
SAFE = (FLOW.safe_min + FLOW.safe_max) / 2
PROPOSE = ProposeSetpoint("SP-1", "loop-1", "flow", SAFE, "saves energy at night", "S-1")
PROPOSED = SetpointProposed(**vars(PROPOSE))
APPROVED = SetpointApproved("SP-1", "go")
APPLIED = SetpointApplied("SP-1", SAFE)
REFUSED = SetpointRefused("SP-1", "the filter is due first")


def given(*events: SetpointProposalEvent) -> Given:
    return given_of(DECIDER, *events).beside("asset:loop-1", LOOP).beside("scenario:S-1", SCENARIO)


def test_a_setpoint_is_proposed_within_the_safe_bounds_of_its_asset_type() -> None:
    given().when(PROPOSE).then(PROPOSED)
    for value in (FLOW.safe_min, FLOW.safe_max):
        at_the_end = replace(PROPOSE, value=value)
        given().when(at_the_end).then(SetpointProposed(**vars(at_the_end)))
    for value in (
        math.nextafter(FLOW.safe_min, -math.inf),
        math.nextafter(FLOW.safe_max, math.inf),
        math.nan,
    ):
        given().when(replace(PROPOSE, value=value)).then_rejected(
            InvalidInput, "setpoint.out_of_bounds"
        )


def test_it_names_what_there_is() -> None:
    given().when(replace(PROPOSE, asset_id="x")).then_rejected(NotFound, "asset.unknown", "x")
    given().when(replace(PROPOSE, setpoint="x")).then_rejected(NotFound, "setpoint.unknown", "x")
    given().when(replace(PROPOSE, scenario_id="x")).then_rejected(NotFound, "scenario.unknown", "x")
    own_idea = replace(PROPOSE, scenario_id=None)
    given().when(own_idea).then(SetpointProposed(**vars(own_idea)))
    given().when(replace(PROPOSE, reason="")).then_rejected(InvalidInput, "text.empty")
    given().when(replace(PROPOSE, proposal_id="a b")).then_rejected(
        InvalidInput, "setpoint_proposal.malformed_name"
    )


def test_a_proposal_is_made_once() -> None:
    given(PROPOSED).when(PROPOSE).then_rejected(
        CommandRejected, "setpoint_proposal.already_proposed", "SP-1"
    )


def test_an_approval_makes_the_asset_want_it_in_the_same_breath() -> None:
    given(PROPOSED).when(ApproveSetpoint("SP-1", "go")).then(
        APPROVED, SetpointDesired("loop-1", "flow", SAFE)
    )
    given(PROPOSED, APPROVED).when(ApproveSetpoint("SP-1")).then_rejected(
        CommandRejected, "setpoint_proposal.already_approved", "SP-1"
    )


def test_an_approval_looks_at_the_asset_as_it_is_now() -> None:
    given(PROPOSED).beside("asset:loop-1", LOOP, AssetRetired("loop-1", "sold")).when(
        ApproveSetpoint("SP-1")
    ).then_rejected(CommandRejected, "asset.retired")
    unsafe = replace(PROPOSED, value=FLOW.safe_max * 2)  # as if the bounds were wider before
    given(unsafe).when(ApproveSetpoint("SP-1")).then_rejected(
        InvalidInput, "setpoint.out_of_bounds"
    )


def test_only_what_was_approved_is_applied() -> None:
    given(PROPOSED).when(ApplySetpoint("SP-1", SAFE)).then_rejected(
        CommandRejected, "setpoint_proposal.not_approved", "SP-1"
    )
    given(PROPOSED, APPROVED).when(ApplySetpoint("SP-1", SAFE)).then(APPLIED)
    given(PROPOSED, APPROVED).when(ApplySetpoint("SP-1", math.nan)).then_rejected(
        InvalidInput, "figure.not_finite"
    )


def test_what_the_machine_reads_back_is_recorded_as_it_is() -> None:
    given(PROPOSED, APPROVED).when(ApplySetpoint("SP-1", SAFE * 1.01)).then(
        SetpointApplied("SP-1", SAFE * 1.01)
    )


@pytest.mark.parametrize("past", [(PROPOSED,), (PROPOSED, APPROVED)])
def test_it_may_be_refused_until_it_is_applied(past: tuple[SetpointProposalEvent, ...]) -> None:
    given(*past).when(RefuseSetpoint("SP-1", REFUSED.reason)).then(REFUSED)


@pytest.mark.parametrize("past", [(PROPOSED, APPROVED, APPLIED), (PROPOSED, REFUSED)])
@pytest.mark.parametrize(
    "command", [ApproveSetpoint("SP-1"), ApplySetpoint("SP-1", SAFE), RefuseSetpoint("SP-1", "no")]
)
def test_nothing_follows_an_end(past: tuple[SetpointProposalEvent, ...], command: Any) -> None:
    given(*past).when(command).then_rejected(CommandRejected, "setpoint_proposal.ended", "SP-1")


def test_nothing_is_done_about_what_nobody_proposed() -> None:
    given().when(ApproveSetpoint("SP-1")).then_rejected(
        NotFound, "setpoint_proposal.unknown", "SP-1"
    )


def test_a_proposal_is_tied_to_its_asset_and_its_scenario() -> None:
    assert PROPOSED.thread() == (
        Standing("setpoint-proposal:SP-1", NodeState.ACTIVE),
        Link(LinkKind.ABOUT, "asset:loop-1", "setpoint-proposal:SP-1"),
        Link(LinkKind.LED_TO, "scenario:S-1", "setpoint-proposal:SP-1"),
    )
    assert APPLIED.thread() == (Standing("setpoint-proposal:SP-1", NodeState.COMPLETED),)
    assert REFUSED.thread() == (Standing("setpoint-proposal:SP-1", NodeState.ABORTED),)


@pytest.mark.parametrize(
    "history",
    [[APPROVED], [PROPOSED, APPLIED], [PROPOSED, PROPOSED], [PROPOSED, APPROVED, APPLIED, REFUSED]],
)
def test_a_history_with_a_step_corrected_away_is_no_history(
    history: list[SetpointProposalEvent],
) -> None:
    with pytest.raises(ValueError, match="cannot happen to a proposal"):
        DECIDER.fold(history)
