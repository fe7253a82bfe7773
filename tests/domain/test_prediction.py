"""Predictions: made once by a known version of a model, settled once."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from domain.asset import AssetRegistered
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.maintenance.work_order import (
    Finding,
    Priority,
    WorkOrderApproved,
    WorkOrderCompleted,
    WorkOrderRequested,
    WorkOrderStarted,
)
from domain.opinions.figures import FIGURES_MAX
from domain.opinions.model import Metric, ModelRetired, ModelTrained
from domain.opinions.prediction import (
    DECIDER,
    AssessHealth,
    Contribution,
    FailurePredicted,
    HealthAssessed,
    Outcome,
    OutcomeRecorded,
    PredictFailure,
    PredictionEvent,
    PredictRemainingLife,
    RecordOutcome,
    RemainingLifePredicted,
)
from domain.thread import Link, LinkKind, NodeState, Standing
from tests.domain.specification import Given, given_of

LOOP = AssetRegistered("loop-1", "skab-pump-loop", "Loop 1")
TRAINED = ModelTrained(
    "bearing-wear",
    "3",
    "failure probability",
    "ab" * 32,
    1,
    900,
    7,
    "c0ffee",
    (Metric("auc", 0.9),),
)
BECAUSE = (Contribution("rms_velocity_m_per_s", 0.0071, 0.31),)
FAILURE = PredictFailure(
    "P-1", "loop-1", None, "bearing-wear@3", "bearing_wear", 0.84, 259_200.0, 901, 1200, BECAUSE
)
LIFE = PredictRemainingLife(
    "P-1", "loop-1", None, "bearing-wear@3", "bearing_wear", 3e5, 1e5, 6e5, 0.9, 901, 1200, BECAUSE
)
HEALTH = AssessHealth("P-1", "loop-1", None, "bearing-wear@3", 0.42, 901, 1200, BECAUSE)
PREDICTED = FailurePredicted(**vars(FAILURE))
REQUESTED = WorkOrderRequested(
    "WO-1", "loop-1", None, "Replace", "bearing_wear", Priority.HIGH, "prediction:P-1"
)
DONE = (
    WorkOrderApproved("WO-1", ""),
    WorkOrderStarted("WO-1", asset_down=True),
    WorkOrderCompleted(
        "WO-1", Finding.FAILURE_CONFIRMED, "bearing_wear", None, (), 60.0, None, None, ""
    ),
)


def given(*events: PredictionEvent) -> Given:
    return (
        given_of(DECIDER, *events)
        .beside("asset:loop-1", LOOP)
        .beside("model:bearing-wear", TRAINED)
        .beside("work-order:WO-1", REQUESTED, *DONE)
        .beside("work-order:WO-2", replace(REQUESTED, work_order_id="WO-2"))
    )


def test_a_model_gives_an_opinion_of_each_kind() -> None:
    given().when(FAILURE).then(PREDICTED)
    given().when(LIFE).then(RemainingLifePredicted(**vars(LIFE)))
    given().when(HEALTH).then(HealthAssessed(**vars(HEALTH)))


@pytest.mark.parametrize("command", [FAILURE, LIFE, HEALTH])
def test_a_prediction_is_made_once(command: Any) -> None:
    given(PREDICTED).when(command).then_rejected(CommandRejected, "prediction.already_made", "P-1")


@pytest.mark.parametrize("command", [FAILURE, LIFE, HEALTH])
def test_it_speaks_of_what_is_known(command: Any) -> None:
    given().when(replace(command, asset_id="loop-2")).then_rejected(NotFound, "asset.unknown")
    given().when(replace(command, component_id="B-1")).then_rejected(NotFound, "component.unknown")
    for model in ("bearing-wear@4", "other@3"):
        given().when(replace(command, model=model)).then_rejected(
            NotFound, "model.unknown_version", model
        )


def test_a_retired_version_may_still_be_told_of() -> None:
    retired = ModelRetired("bearing-wear", "3", "drift")
    given().beside("model:bearing-wear", TRAINED, retired).when(FAILURE).then(PREDICTED)


@pytest.mark.parametrize(
    ("command", "changes", "code"),
    [
        (FAILURE, {"prediction_id": "P 1"}, "prediction.malformed_name"),
        (FAILURE, {"model": "bearing-wear"}, "model.malformed_version"),
        (FAILURE, {"model": "bearing-wear@3@4"}, "model.malformed_version"),
        (FAILURE, {"failure_mode": ""}, "failure_mode.malformed_name"),
        (FAILURE, {"probability": 1.0000001}, "figure.out_of_range"),
        (FAILURE, {"probability": -0.1}, "figure.out_of_range"),
        (FAILURE, {"probability": math.nan}, "figure.out_of_range"),
        (FAILURE, {"horizon_s": -1.0}, "figure.out_of_range"),
        (FAILURE, {"horizon_s": math.inf}, "figure.not_finite"),
        (FAILURE, {"input_from_position": 0}, "position.out_of_range"),
        (FAILURE, {"input_to_position": 900}, "position.out_of_order"),
        (FAILURE, {"explanation": BECAUSE * (FIGURES_MAX + 1)}, "figure.too_many"),
        (FAILURE, {"explanation": (Contribution("", 0.0, 0.0),)}, "text.empty"),
        (FAILURE, {"explanation": (Contribution("f", math.nan, 0.0),)}, "figure.not_finite"),
        (FAILURE, {"explanation": (Contribution("f", 0.0, math.inf),)}, "figure.not_finite"),
        (HEALTH, {"health": 1.01}, "figure.out_of_range"),
        (HEALTH, {"health": math.nan}, "figure.out_of_range"),
        (LIFE, {"lower_s": 3.1e5}, "figure.out_of_order"),
        (LIFE, {"upper_s": 2.9e5}, "figure.out_of_order"),
        (LIFE, {"lower_s": -1.0}, "figure.out_of_order"),
        (LIFE, {"upper_s": math.inf}, "figure.not_finite"),
        (LIFE, {"remaining_s": math.nan}, "figure.not_finite"),
        (LIFE, {"confidence": 1.5}, "figure.out_of_range"),
    ],
)
def test_what_is_no_opinion_is_refused(command: Any, changes: dict[str, Any], code: str) -> None:
    given().when(replace(command, **changes)).then_rejected(InvalidInput, code)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_model_may_be_certain(probability: float) -> None:
    certain = replace(FAILURE, probability=probability)
    given().when(certain).then(FailurePredicted(**vars(certain)))


def test_an_outcome_is_recorded_once() -> None:
    confirmed = OutcomeRecorded("P-1", Outcome.CONFIRMED, "WO-1")
    given(PREDICTED).when(RecordOutcome("P-1", Outcome.CONFIRMED, "WO-1")).then(confirmed)
    for outcome in Outcome:
        given(PREDICTED, confirmed).when(RecordOutcome("P-1", outcome, None)).then_rejected(
            CommandRejected, "prediction.already_settled", "P-1"
        )


def test_an_outcome_may_be_known_without_a_work_order() -> None:
    given(PREDICTED).when(RecordOutcome("P-1", Outcome.UNDECIDED, None)).then(
        OutcomeRecorded("P-1", Outcome.UNDECIDED, None)
    )


def test_only_a_completed_work_order_tells_an_outcome() -> None:
    told_by_open = RecordOutcome("P-1", Outcome.REFUTED, "WO-2")
    given(PREDICTED).when(told_by_open).then_rejected(
        CommandRejected, "work_order.not_completed", "WO-2"
    )
    given(PREDICTED).when(replace(told_by_open, work_order_id="WO-3")).then_rejected(
        NotFound, "work_order.unknown", "WO-3"
    )
    given().when(told_by_open).then_rejected(NotFound, "prediction.unknown", "P-1")


def test_a_prediction_is_tied_to_its_model_and_its_outcome_to_the_work() -> None:
    assert set(replace(PREDICTED, component_id="B-1").thread()) == {
        Standing("prediction:P-1", NodeState.ACTIVE),
        Link(LinkKind.PREDICTED, "model:bearing-wear@3", "prediction:P-1"),
        Link(LinkKind.ABOUT, "asset:loop-1", "prediction:P-1"),
        Link(LinkKind.ABOUT, "component:B-1", "prediction:P-1"),
    }
    assert OutcomeRecorded("P-1", Outcome.CONFIRMED, "WO-1").thread() == (
        Standing("prediction:P-1", NodeState.CLOSED),
        Link(LinkKind.CONFIRMED_BY, "work-order:WO-1", "prediction:P-1"),
    )


def test_a_history_that_settles_what_was_not_made_is_no_history() -> None:
    settled = OutcomeRecorded("P-1", Outcome.CONFIRMED, None)
    histories: list[list[PredictionEvent]] = [
        [settled],
        [PREDICTED, PREDICTED],
        [PREDICTED, settled, settled],
    ]
    for history in histories:
        with pytest.raises(ValueError, match="cannot happen to a prediction"):
            DECIDER.fold(history)
