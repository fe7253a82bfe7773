"""Models: versions of what predicts, from training to retirement."""

from __future__ import annotations

from dataclasses import dataclass

from domain.events import event_type
from domain.thread import NodeState, Standing, ThreadItem


def model_stream(model_id: str) -> str:
    """Return the stream of a model, with all its versions."""
    return f"model:{model_id}"


@dataclass(frozen=True)
class Metric:
    """A figure of a model on data it has not seen."""

    name: str
    value: float


@event_type("model.trained")
@dataclass(frozen=True)
class ModelTrained:
    """A version of a model was made from a range of the log.

    `artefact_sha256`: hex, of the file that holds it. `seed` and `code_version` reproduce it.
    """

    model_id: str
    version: str
    purpose: str
    artefact_sha256: str
    training_from_position: int
    training_to_position: int
    seed: int
    code_version: str
    metrics: tuple[Metric, ...]

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return that the version exists."""
        return (Standing(f"model:{self.model_id}@{self.version}", NodeState.IN_STOCK),)


@event_type("model.promoted")
@dataclass(frozen=True)
class ModelPromoted:
    """A version serves from now on."""

    model_id: str
    version: str
    reason: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how the version stands."""
        return (Standing(f"model:{self.model_id}@{self.version}", NodeState.ACTIVE),)


@event_type("model.retired")
@dataclass(frozen=True)
class ModelRetired:
    """A version serves no more."""

    model_id: str
    version: str
    reason: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how the version stands."""
        return (Standing(f"model:{self.model_id}@{self.version}", NodeState.RETIRED),)


@event_type("model.drift_detected")
@dataclass(frozen=True)
class DriftDetected:
    """What a version sees or says has moved away from its training: `statistic` beyond `limit`."""

    model_id: str
    version: str
    subject: str
    statistic: float
    limit: float
    test: str


ModelEvent = ModelTrained | ModelPromoted | ModelRetired | DriftDetected
