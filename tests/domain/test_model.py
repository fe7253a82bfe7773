"""Models: each training is a version of its own, and one version serves at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.opinions.figures import FIGURES_MAX
from domain.opinions.model import (
    DECIDER,
    DetectDrift,
    DriftDetected,
    Metric,
    Model,
    ModelEvent,
    ModelPromoted,
    ModelRetired,
    ModelTrained,
    PromoteModel,
    RetireModel,
    Stage,
    TrainModel,
)
from domain.thread import NodeState, Standing
from tests.domain.specification import Given, given_of

TRAIN = TrainModel(
    "bearing-wear",
    "1",
    "probability of failure within 72 h",
    "0123456789abcdef" * 4,
    1,
    900,
    7,
    "1.4.0",
    (Metric("average_precision", 0.81), Metric("brier_score", 0.07)),
)
ONE = ModelTrained(**vars(TRAIN))
TWO = replace(ONE, version="2")
SERVES_ONE = ModelPromoted("bearing-wear", "1", "first")
DRIFT = DetectDrift("bearing-wear", "1", "rms_velocity_m_per_s", 0.31, 0.2, "PSI")


def given(*events: ModelEvent) -> Given:
    return given_of(DECIDER, *events)


def test_a_training_is_recorded_with_what_reproduces_it() -> None:
    given().when(TRAIN).then(ONE)
    given(ONE).when(TRAIN).then_rejected(CommandRejected, "model.version_exists", "1")
    given(ONE).when(replace(TRAIN, version="2")).then(TWO)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model_id": "a@b"}, "model.malformed_name"),
        ({"version": "1@2"}, "model.malformed_name"),
        ({"purpose": " "}, "text.empty"),
        ({"artefact_sha256": "AB" * 32}, "sha256.malformed"),
        ({"training_from_position": 0}, "position.out_of_range"),
        ({"training_to_position": 0}, "position.out_of_order"),
        ({"seed": 2**53}, "model.seed_out_of_range"),
        ({"code_version": ""}, "text.empty"),
        ({"metrics": (Metric("auc", math.nan),)}, "figure.not_finite"),
        ({"metrics": (Metric("", 1.0),)}, "text.empty"),
        ({"metrics": (Metric("auc", 0.8), Metric("auc", 0.9))}, "model.metric_twice"),
        ({"metrics": (Metric("auc", 0.8),) * (FIGURES_MAX + 1)}, "figure.too_many"),
    ],
)
def test_a_training_that_reproduces_nothing_is_refused(changes: dict[str, Any], code: str) -> None:
    given().when(replace(TRAIN, **changes)).then_rejected(InvalidInput, code)


def test_who_serves_is_retired_by_who_is_promoted() -> None:
    given(ONE).when(PromoteModel("bearing-wear", "1", "first")).then(SERVES_ONE)
    given(ONE, TWO, SERVES_ONE).when(PromoteModel("bearing-wear", "2", "better")).then(
        ModelRetired("bearing-wear", "1", "version 2 serves instead"),
        ModelPromoted("bearing-wear", "2", "better"),
    )
    given(ONE, SERVES_ONE).when(PromoteModel("bearing-wear", "1", "again")).then()


def test_one_may_go_back_to_a_version_that_was_retired() -> None:
    retired = ModelRetired("bearing-wear", "1", "drift")
    given(ONE, SERVES_ONE).when(RetireModel("bearing-wear", "1", "drift")).then(retired)
    given(ONE, SERVES_ONE, retired).when(RetireModel("bearing-wear", "1", "drift")).then()
    given(ONE, SERVES_ONE, retired).when(PromoteModel("bearing-wear", "1", "first")).then(
        SERVES_ONE
    )


@pytest.mark.parametrize(
    "command",
    [
        PromoteModel("bearing-wear", "9", "x"),
        RetireModel("bearing-wear", "9", "x"),
        replace(DRIFT, version="9"),
    ],
)
def test_only_a_trained_version_is_spoken_of(command: Any) -> None:
    given(ONE).when(command).then_rejected(NotFound, "model.unknown_version", "bearing-wear@9")


def test_drift_is_recorded_with_its_figures() -> None:
    given(ONE).when(DRIFT).then(DriftDetected(**vars(DRIFT)))
    for beyond in (replace(DRIFT, statistic=math.nan), replace(DRIFT, limit=math.inf)):
        given(ONE).when(beyond).then_rejected(InvalidInput, "figure.not_finite")
    given(ONE).when(replace(DRIFT, test="")).then_rejected(InvalidInput, "text.empty")


@hypothesis_given(
    st.lists(st.tuples(st.sampled_from(["promote", "retire"]), st.sampled_from("123")), max_size=12)
)
def test_one_version_serves_at_a_time_whatever_is_asked(steps: list[tuple[str, str]]) -> None:
    history: list[ModelEvent] = [replace(ONE, version=version) for version in "123"]
    serving: str | None = None
    for step, version in steps:
        command = (PromoteModel if step == "promote" else RetireModel)("bearing-wear", version, "x")
        history += DECIDER.decide(command, DECIDER.fold(history), {})
        if step == "promote":
            serving = version
        elif serving == version:
            serving = None
        model = DECIDER.fold(history)
        assert model.serving == serving
        assert list(model.versions.values()).count(Stage.SERVING) == (serving is not None)


def test_one_version_serves_though_a_retirement_was_corrected_away() -> None:
    model = DECIDER.fold([ONE, TWO, SERVES_ONE, ModelPromoted("bearing-wear", "2", "better")])
    assert model == Model({"1": Stage.RETIRED, "2": Stage.SERVING})


def test_each_version_has_a_node_of_its_own() -> None:
    node = "model:bearing-wear@1"
    assert ONE.thread() == (Standing(node, NodeState.IN_STOCK),)
    assert SERVES_ONE.thread() == (Standing(node, NodeState.ACTIVE),)
    assert ModelRetired("bearing-wear", "1", "").thread() == (Standing(node, NodeState.RETIRED),)


def test_a_history_of_versions_that_were_not_trained_is_no_history() -> None:
    retired = ModelRetired("bearing-wear", "1", "x")
    histories: list[list[ModelEvent]] = [[SERVES_ONE], [ONE, ONE], [TWO, retired]]
    for history in histories:
        with pytest.raises(ValueError, match="cannot happen to version '1'"):
            DECIDER.fold(history)
