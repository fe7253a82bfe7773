"""Predictions: what a model says of an asset, from which data, why, and how it came out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from domain.asset import asset_stream
from domain.events import event_type
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem


def prediction_stream(prediction_id: str) -> str:
    """Return the stream of a prediction."""
    return f"prediction:{prediction_id}"


class Outcome(StrEnum):
    """How a prediction came out."""

    CONFIRMED = "CONFIRMED"
    REFUTED = "REFUTED"
    UNDECIDED = "UNDECIDED"  # prevented, or its horizon has passed without anybody looking


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
