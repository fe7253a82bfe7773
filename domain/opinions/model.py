"""Models: versions of what predicts, from training to retirement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from types import MappingProxyType
from typing import Final, assert_never, get_args

from domain.deciders import Decider, Others
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.events import event_type
from domain.identifiers import check_identifier
from domain.opinions.figures import check_count, check_finite, check_positions
from domain.texts import NAME_LENGTH_MAX, TITLE_LENGTH_MAX, check_sha256, check_text
from domain.thread import NodeState, Standing, ThreadItem

SEED_MAX: Final = 2**53 - 1


def model_stream(model_id: str) -> str:
    """Return the stream of a model, with all its versions."""
    return f"model:{model_id}"


def split_version(model: str) -> tuple[str, str]:
    """Return the model and the version that ``MODEL-ID@VERSION`` names.

    Raises
    ------
    InvalidInput
        ``model.malformed_version``
    """
    model_id, _, version = model.partition("@")
    try:
        return check_identifier("model", model_id), check_identifier("model", version)
    except InvalidInput as malformed:
        raise InvalidInput(
            "model.malformed_version",
            f"{model!r:.140} names no version of a model",
            hint="such as 'bearing-wear@3'",
            value=model[:140],
        ) from malformed


# --- events -------------------------------------------------------------------------------


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


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainModel:
    """Record that a version of a model was made; see `ModelTrained`."""

    model_id: str
    version: str
    purpose: str
    artefact_sha256: str
    training_from_position: int
    training_to_position: int
    seed: int
    code_version: str
    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class PromoteModel:
    """Let a version serve; the one that served until now is retired.

    A version that was retired may be promoted again: going back is what one does when the newer
    one fails.
    """

    model_id: str
    version: str
    reason: str


@dataclass(frozen=True)
class RetireModel:
    """Let a version serve no more."""

    model_id: str
    version: str
    reason: str


@dataclass(frozen=True)
class DetectDrift:
    """Say that a version has moved away from its training; see `DriftDetected`."""

    model_id: str
    version: str
    subject: str
    statistic: float
    limit: float
    test: str


ModelCommand = TrainModel | PromoteModel | RetireModel | DetectDrift


# --- states -------------------------------------------------------------------------------


class Stage(Enum):
    """Where a version stands."""

    TRAINED = auto()
    SERVING = auto()
    RETIRED = auto()


@dataclass(frozen=True)
class Model:
    """A model: the stage of each of its versions, of which one at most serves; none at first."""

    versions: Mapping[str, Stage] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def serving(self) -> str | None:
        """The version that serves, if one does."""
        return next((v for v, stage in self.versions.items() if stage is Stage.SERVING), None)


# --- decisions ----------------------------------------------------------------------------


def decide(command: ModelCommand, model: Model, _others: Others) -> tuple[ModelEvent, ...]:
    """Return the events `command` causes on `model`; none when it already is so.

    Raises
    ------
    CommandRejected
        ``model.version_exists``
    NotFound
        ``model.unknown_version``
    InvalidInput
        ``model.malformed_name``, ``figure.not_finite``, ``figure.too_many``,
        ``model.metric_twice``, ``model.seed_out_of_range``, ``position.out_of_range``,
        ``position.out_of_order``, ``sha256.malformed``, ``text.empty``, ``text.too_long``
    """
    if isinstance(command, TrainModel):
        return _train(command, model)
    stage = model.versions.get(command.version)
    if stage is None:
        raise unknown_version(f"{command.model_id}@{command.version}")
    match command:
        case PromoteModel():
            return _promote(command, model)
        case RetireModel(reason=reason):
            check_text("reason", reason)
            return () if stage is Stage.RETIRED else (ModelRetired(**vars(command)),)
        case DetectDrift():
            check_text("subject", command.subject, TITLE_LENGTH_MAX)
            check_text("test", command.test, TITLE_LENGTH_MAX)
            check_finite("statistic", command.statistic)
            check_finite("limit", command.limit)
            return (DriftDetected(**vars(command)),)
        case _:
            assert_never(command)


def unknown_version(model: str) -> NotFound:
    """Return the error for a version of a model that was never trained."""
    return NotFound(
        "model.unknown_version",
        f"version {model!r} of a model was not trained",
        hint="record its training first, or check the name",
        value=model,
    )


def check_version_known(model: str, others: Others) -> None:
    """Refuse ``MODEL-ID@VERSION`` unless it was trained; one that is retired may still be told of.

    Raises
    ------
    NotFound
        ``model.unknown_version``
    InvalidInput
        ``model.malformed_version``
    """
    model_id, version = split_version(model)
    if version not in others.get(model_stream(model_id), Model()).versions:
        raise unknown_version(model)


def _train(command: TrainModel, model: Model) -> tuple[ModelEvent, ...]:
    check_identifier("model", command.model_id)
    check_identifier("model", command.version)
    check_text("purpose", command.purpose, TITLE_LENGTH_MAX)
    check_text("code_version", command.code_version, TITLE_LENGTH_MAX)
    check_sha256("artefact_sha256", command.artefact_sha256)
    check_positions(command.training_from_position, command.training_to_position)
    if abs(command.seed) > SEED_MAX:
        raise InvalidInput(
            "model.seed_out_of_range",
            f"seed {command.seed} is no integer that JSON keeps",
            value=str(command.seed),
            limit=SEED_MAX,
        )
    _check_metrics(command.metrics)
    if command.version in model.versions:
        raise CommandRejected(
            "model.version_exists",
            f"version {command.version!r} of model {command.model_id!r} was trained already",
            hint="give each training a version of its own",
            value=command.version,
        )
    return (ModelTrained(**vars(command)),)


def _check_metrics(metrics: Sequence[Metric]) -> None:
    check_count("metrics", len(metrics))
    seen: set[str] = set()
    for metric in metrics:
        check_finite(check_text("metric", metric.name, NAME_LENGTH_MAX), metric.value)
        if metric.name in seen:
            raise InvalidInput(
                "model.metric_twice",
                f"metric {metric.name!r} is given twice",
                value=metric.name,
            )
        seen.add(metric.name)


def _promote(command: PromoteModel, model: Model) -> tuple[ModelEvent, ...]:
    check_text("reason", command.reason)
    serving = model.serving
    promoted = ModelPromoted(**vars(command))
    if serving is None:
        return (promoted,)
    if serving == command.version:
        return ()
    reason = f"version {command.version} serves instead"
    return (ModelRetired(command.model_id, serving, reason), promoted)


# --- fold ---------------------------------------------------------------------------------


def evolve(model: Model, event: ModelEvent) -> Model:
    """Return what `event` makes of `model`.

    Raises
    ------
    ValueError
        it speaks of a version that was not trained, or trains one again
    """
    if (event.version in model.versions) == isinstance(event, ModelTrained):
        raise ValueError(f"{type(event).__name__} cannot happen to version {event.version!r}")
    match event:
        case ModelTrained():
            return replace(model, versions={**model.versions, event.version: Stage.TRAINED})
        case ModelPromoted():
            # One serves at a time, also when a retirement was corrected away.
            others = {
                version: Stage.RETIRED if stage is Stage.SERVING else stage
                for version, stage in model.versions.items()
            }
            return replace(model, versions={**others, event.version: Stage.SERVING})
        case ModelRetired():
            return replace(model, versions={**model.versions, event.version: Stage.RETIRED})
        case DriftDetected():
            return model
        case _:
            assert_never(event)


DECIDER: Final[Decider[ModelCommand, Model, ModelEvent]] = Decider(
    category="model",
    command_types=get_args(ModelCommand),
    initial=Model(),
    decide=decide,
    evolve=evolve,
    subject=lambda command: model_stream(command.model_id),
    stream_of=lambda event: model_stream(event.model_id),
)
