"""Scenarios: recorded once, with assumptions, and figures that are intervals."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from domain.asset import AssetRegistered, AssetRetired
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.opinions.figures import FIGURES_MAX
from domain.opinions.scenario import (
    DECIDER,
    FUTURES_MAX,
    Assumption,
    Delta,
    RunScenario,
    ScenarioEvent,
    ScenarioRun,
)
from domain.thread import Link, LinkKind, NodeState, Standing
from tests.domain.specification import Given, given_of

LOOP = AssetRegistered("loop-1", "skab-pump-loop", "Loop 1")
ENERGY = Delta("energy", -3.1e6, -4.2e6, -1.9e6, 0.9, "J")
RUN = RunScenario(
    "S-1",
    "loop-1",
    "Run the pump slower at night",
    1200,
    1000,
    7,
    (Assumption("flow", 4.5e-4, "m3/s"),),
    (ENERGY,),
)
HAS_RUN = ScenarioRun(**vars(RUN))


def given(*events: ScenarioEvent) -> Given:
    return given_of(DECIDER, *events).beside("asset:loop-1", LOOP)


def test_a_scenario_is_recorded_once() -> None:
    given().when(RUN).then(HAS_RUN)
    given(HAS_RUN).when(RUN).then_rejected(CommandRejected, "scenario.already_run", "S-1")


def test_it_is_of_a_known_asset() -> None:
    given().when(replace(RUN, asset_id="loop-2")).then_rejected(NotFound, "asset.unknown")
    given().beside("asset:loop-1", LOOP, AssetRetired("loop-1", "")).when(RUN).then_rejected(
        CommandRejected, "asset.retired"
    )


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"scenario_id": ""}, "scenario.malformed_name"),
        ({"title": ""}, "text.empty"),
        ({"from_position": 0}, "position.out_of_range"),
        ({"futures": 0}, "figure.out_of_range"),
        ({"futures": FUTURES_MAX + 1}, "figure.out_of_range"),
        ({"seed": 2**53}, "figure.out_of_range"),
        ({"assumptions": (Assumption("flow", math.nan, "m3/s"),)}, "figure.not_finite"),
        ({"assumptions": (Assumption(" ", 1.0, "m3/s"),)}, "text.empty"),
        ({"assumptions": (Assumption("flow", 1.0, "m" * 65),)}, "text.too_long"),
        ({"assumptions": RUN.assumptions * (FIGURES_MAX + 1)}, "figure.too_many"),
        ({"deltas": ()}, "scenario.without_deltas"),
        ({"deltas": (ENERGY,) * (FIGURES_MAX + 1)}, "figure.too_many"),
        ({"deltas": (replace(ENERGY, lower=-1.0),)}, "figure.out_of_order"),
        ({"deltas": (replace(ENERGY, upper=math.inf),)}, "figure.not_finite"),
        ({"deltas": (replace(ENERGY, mean=math.nan),)}, "figure.not_finite"),
        ({"deltas": (replace(ENERGY, confidence=90.0),)}, "figure.out_of_range"),
        ({"deltas": (replace(ENERGY, indicator=""),)}, "text.empty"),
    ],
)
def test_what_is_no_scenario_is_refused(changes: dict[str, Any], code: str) -> None:
    given().when(replace(RUN, **changes)).then_rejected(InvalidInput, code)


def test_the_mean_of_skewed_futures_may_lie_outside_their_interval() -> None:
    skewed = replace(RUN, deltas=(replace(ENERGY, mean=-9e6),))
    given().when(skewed).then(ScenarioRun(**vars(skewed)))


def test_a_scenario_is_tied_to_its_asset() -> None:
    assert HAS_RUN.thread() == (
        Standing("scenario:S-1", NodeState.COMPLETED),
        Link(LinkKind.ABOUT, "asset:loop-1", "scenario:S-1"),
    )


def test_a_history_of_two_runs_is_no_history() -> None:
    with pytest.raises(ValueError, match="was run already"):
        DECIDER.fold([HAS_RUN, HAS_RUN])
