"""Predictions: what a model says of an asset, from which data, why, and how it came out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never, get_args

from domain.asset import asset_stream
from domain.asset_decider import registered_asset
from domain.deciders import Decider, Others
from domain.errors import CommandRejected, NotFound
from domain.events import event_type
from domain.identifiers import check_identifier
from domain.maintenance.work_order import (
    Completed,
    Unrequested,
    WorkOrder,
    work_order_stream,
)
from domain.maintenance.work_order_decider import unknown_work_order
from domain.opinions.figures import (
    check_ascending,
    check_between,
    check_count,
    check_finite,
    check_positions,
)
from domain.opinions.model import check_version_known, model_stream, split_version
from domain.plant.component import Unregistered as UnregisteredComponent
from domain.plant.component import component_stream, unknown_component
from domain.texts import NAME_LENGTH_MAX, check_text
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem


def prediction_stream(prediction_id: str) -> str:
    """Return the stream of a prediction."""
    return f"prediction:{prediction_id}"


class Outcome(StrEnum):
    """How a prediction came out."""

    CONFIRMED = "CONFIRMED"
    REFUTED = "REFUTED"
    UNDECIDED = "UNDECIDED"  # prevented, or its horizon has passed without anybody looking


# --- events -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contribution:
    """How much a feature moved a prediction away from the model's mean, in the output's unit."""

    feature: str
    value: float
    contribution: float


def _of(
    prediction_id: str, asset_id: str, component_id: str | None, model: str
) -> tuple[ThreadItem, ...]:
    node = prediction_stream(prediction_id)
    items: list[ThreadItem] = [
        Standing(node, NodeState.ACTIVE),
        Link(LinkKind.PREDICTED, f"model:{model}", node),
        Link(LinkKind.ABOUT, asset_stream(asset_id), node),
    ]
    if component_id is not None:
        items.append(Link(LinkKind.ABOUT, f"component:{component_id}", node))
    return tuple(items)


@event_type("prediction.health_assessed")
@dataclass(frozen=True)
class HealthAssessed:
    """A model gives an asset's health as a number from 0 (failed) to 1 (as new).

    `model`: ``MODEL-ID@VERSION``. The model has seen the log from `input_from_position` up to
    `input_to_position`.
    """

    prediction_id: str
    asset_id: str
    component_id: str | None
    model: str
    health: float
    input_from_position: int
    input_to_position: int
    explanation: tuple[Contribution, ...]

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the model and what it speaks of."""
        return _of(self.prediction_id, self.asset_id, self.component_id, self.model)


@event_type("prediction.failure_predicted")
@dataclass(frozen=True)
class FailurePredicted:
    """A model expects a failure within `horizon_s` with this probability."""

    prediction_id: str
    asset_id: str
    component_id: str | None
    model: str
    failure_mode: str
    probability: float
    horizon_s: float
    input_from_position: int
    input_to_position: int
    explanation: tuple[Contribution, ...]

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the model and what it speaks of."""
        return _of(self.prediction_id, self.asset_id, self.component_id, self.model)


@event_type("prediction.remaining_life_predicted")
@dataclass(frozen=True)
class RemainingLifePredicted:
    """A model gives the remaining useful life, s, and an interval of `confidence`."""

    prediction_id: str
    asset_id: str
    component_id: str | None
    model: str
    failure_mode: str
    remaining_s: float
    lower_s: float
    upper_s: float
    confidence: float
    input_from_position: int
    input_to_position: int
    explanation: tuple[Contribution, ...]

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the model and what it speaks of."""
        return _of(self.prediction_id, self.asset_id, self.component_id, self.model)


@event_type("prediction.outcome_recorded")
@dataclass(frozen=True)
class OutcomeRecorded:
    """It is known how a prediction came out; `work_order_id` says by what, or is None."""

    prediction_id: str
    outcome: Outcome
    work_order_id: str | None

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return what told."""
        node = prediction_stream(self.prediction_id)
        closed = Standing(node, NodeState.CLOSED)
        if self.work_order_id is None:
            return (closed,)
        return (closed, Link(LinkKind.CONFIRMED_BY, f"work-order:{self.work_order_id}", node))


PredictionEvent = HealthAssessed | FailurePredicted | RemainingLifePredicted | OutcomeRecorded


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class AssessHealth:
    """Say how healthy an asset is; see `HealthAssessed`."""

    prediction_id: str
    asset_id: str
    component_id: str | None
    model: str
    health: float
    input_from_position: int
    input_to_position: int
    explanation: tuple[Contribution, ...] = ()


@dataclass(frozen=True)
class PredictFailure:
    """Say how probable a failure is; see `FailurePredicted`."""

    prediction_id: str
    asset_id: str
    component_id: str | None
    model: str
    failure_mode: str
    probability: float
    horizon_s: float
    input_from_position: int
    input_to_position: int
    explanation: tuple[Contribution, ...] = ()


@dataclass(frozen=True)
class PredictRemainingLife:
    """Say how long an asset lasts; see `RemainingLifePredicted`."""

    prediction_id: str
    asset_id: str
    component_id: str | None
    model: str
    failure_mode: str
    remaining_s: float
    lower_s: float
    upper_s: float
    confidence: float
    input_from_position: int
    input_to_position: int
    explanation: tuple[Contribution, ...] = ()


@dataclass(frozen=True)
class RecordOutcome:
    """Say how a prediction came out; see `OutcomeRecorded`."""

    prediction_id: str
    outcome: Outcome
    work_order_id: str | None


PredictionCommand = AssessHealth | PredictFailure | PredictRemainingLife | RecordOutcome
_MakePrediction = AssessHealth | PredictFailure | PredictRemainingLife


# --- states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unmade:
    """Nobody has predicted this."""


@dataclass(frozen=True)
class Made:
    """Predicted; how it comes out is not known."""

    prediction_id: str


@dataclass(frozen=True)
class Settled:
    """It is known how it came out."""

    prediction_id: str
    outcome: Outcome


Prediction = Unmade | Made | Settled


# --- decisions ----------------------------------------------------------------------------


def decide(
    command: PredictionCommand, prediction: Prediction, others: Others
) -> tuple[PredictionEvent, ...]:
    """Return the event `command` causes on `prediction`.

    Parameters
    ----------
    others : the asset, component, model or work order that `looks_at` names

    Raises
    ------
    CommandRejected
        ``prediction.already_made``, ``prediction.already_settled``, ``asset.retired``,
        ``work_order.not_completed``
    NotFound
        ``prediction.unknown``, ``asset.unknown``, ``component.unknown``,
        ``model.unknown_version``, ``work_order.unknown``
    InvalidInput
        ``prediction.malformed_name``, ``failure_mode.malformed_name``,
        ``model.malformed_version``, ``figure.not_finite``, ``figure.out_of_range``,
        ``figure.out_of_order``, ``figure.too_many``, ``position.out_of_range``,
        ``position.out_of_order``, ``text.empty``, ``text.too_long``
    """
    match command:
        case RecordOutcome():
            return (_settle(command, prediction, others),)
        case AssessHealth():
            check_between("health", command.health, 0, 1)
            _check_made(command, prediction, others)
            return (HealthAssessed(**vars(command)),)
        case PredictFailure():
            check_identifier("failure_mode", command.failure_mode)
            check_between("probability", command.probability, 0, 1)
            check_between("horizon_s", check_finite("horizon_s", command.horizon_s), 0, math.inf)
            _check_made(command, prediction, others)
            return (FailurePredicted(**vars(command)),)
        case PredictRemainingLife(lower_s=lower_s, remaining_s=remaining_s, upper_s=upper_s):
            check_identifier("failure_mode", command.failure_mode)
            check_between("confidence", command.confidence, 0, 1)
            check_ascending(
                "0, lower_s, remaining_s and upper_s", (0, lower_s, remaining_s, upper_s)
            )
            _check_made(command, prediction, others)
            return (RemainingLifePredicted(**vars(command)),)
        case _:
            assert_never(command)


def _check_made(command: _MakePrediction, prediction: Prediction, others: Others) -> None:
    check_identifier("prediction", command.prediction_id)
    check_positions(command.input_from_position, command.input_to_position)
    _check_explanation(command.explanation)
    if not isinstance(prediction, Unmade):
        raise CommandRejected(
            "prediction.already_made",
            f"prediction {command.prediction_id!r} was made already",
            hint="choose another name; a prediction is made once",
            value=command.prediction_id,
        )
    registered_asset(command.asset_id, others)
    if command.component_id is not None:
        component = others.get(component_stream(command.component_id), UnregisteredComponent())
        if isinstance(component, UnregisteredComponent):
            raise unknown_component(command.component_id)
    check_version_known(command.model, others)


def _check_explanation(explanation: Sequence[Contribution]) -> None:
    check_count("contributions", len(explanation))
    for one in explanation:
        feature = check_text("feature", one.feature, NAME_LENGTH_MAX)
        check_finite(f"value of {feature!r}", one.value)
        check_finite(f"contribution of {feature!r}", one.contribution)


def _settle(command: RecordOutcome, prediction: Prediction, others: Others) -> OutcomeRecorded:
    match prediction:
        case Unmade():
            raise NotFound(
                "prediction.unknown",
                f"prediction {command.prediction_id!r} was not made",
                hint="check the name",
                value=command.prediction_id,
            )
        case Settled(outcome=outcome):
            raise CommandRejected(
                "prediction.already_settled",
                f"it is recorded that prediction {command.prediction_id!r} was {outcome}",
                hint="correct that record where it is wrong",
                value=command.prediction_id,
                limit=outcome,
            )
        case Made():
            if command.work_order_id is not None:
                _check_completed(command.work_order_id, others)
            return OutcomeRecorded(**vars(command))
        case _:
            assert_never(prediction)


def _check_completed(work_order_id: str, others: Others) -> None:
    work_order: WorkOrder = others.get(work_order_stream(work_order_id), Unrequested())
    if isinstance(work_order, Unrequested):
        raise unknown_work_order(work_order_id)
    if not isinstance(work_order, Completed):
        raise CommandRejected(
            "work_order.not_completed",
            f"work order {work_order_id!r} is {type(work_order).__name__} and tells no outcome",
            hint="complete it first",
            value=work_order_id,
        )


def looks_at(
    command: PredictionCommand, _prediction: Prediction, _others: Others
) -> tuple[str, ...]:
    """Return the streams of what a prediction speaks of and of its model, or of what told."""
    if isinstance(command, RecordOutcome):
        return () if command.work_order_id is None else (work_order_stream(command.work_order_id),)
    streams = (asset_stream(command.asset_id), model_stream(split_version(command.model)[0]))
    if command.component_id is None:
        return streams
    return (*streams, component_stream(command.component_id))


# --- fold ---------------------------------------------------------------------------------


def evolve(prediction: Prediction, event: PredictionEvent) -> Prediction:
    """Return what `event` makes of `prediction`.

    Raises
    ------
    ValueError
        it cannot happen to it
    """
    match prediction, event:
        case Unmade(), HealthAssessed() | FailurePredicted() | RemainingLifePredicted():
            return Made(event.prediction_id)
        case Made(), OutcomeRecorded():
            return Settled(event.prediction_id, event.outcome)
        case _:
            raise ValueError(
                f"{type(event).__name__} cannot happen to a prediction that is "
                f"{type(prediction).__name__}"
            )


DECIDER: Final[Decider[PredictionCommand, Prediction, PredictionEvent]] = Decider(
    category="prediction",
    command_types=get_args(PredictionCommand),
    initial=Unmade(),
    decide=decide,
    evolve=evolve,
    subject=lambda command: prediction_stream(command.prediction_id),
    stream_of=lambda event: prediction_stream(event.prediction_id),
    looks_at=looks_at,
)
