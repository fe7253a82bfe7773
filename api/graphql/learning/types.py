"""Types of learning: models by their versions, and predictions with what came of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Final

import strawberry

from api.graphql.context import OperationContext, OperationInfo
from api.graphql.fields import field
from api.graphql.learning import enums as _enums  # noqa: F401 (describes Outcome)
from api.graphql.maintenance.types import WorkOrder, find_work_order
from api.graphql.object_lists import ObjectFilterInput
from api.graphql.objects import (
    ThreadObject,
    actor_of,
    asked_as,
    common,
    first_entry,
    key_or_none,
    last_entry,
    object_in,
)
from api.graphql.plant.types import Component, find_component
from api.graphql.quantities import Quantity, quantity
from api.graphql.references import ASSET, asset_named
from api.graphql.scalars import BigInt, Position, described_enum
from domain.opinions.model import (
    DriftDetected,
    ModelPromoted,
    ModelRetired,
    ModelTrained,
    Stage,
    model_stream,
)
from domain.opinions.model import Model as ModelAsDecided
from domain.opinions.prediction import (
    FailurePredicted,
    HealthAssessed,
    Outcome,
    OutcomeRecorded,
    RemainingLifePredicted,
    prediction_stream,
)
from domain.records import Entry
from eventlog.objects import LoadedObject
from projections.object_kinds import (
    ModelState,
    PredictionKind,
    PredictionState,
    model_state,
    prediction_kind,
    prediction_state,
)

MODEL: Final = "Model"
PREDICTION: Final = "Prediction"

described_enum(
    Stage,
    "Where a version of a model stands.",
    {
        "TRAINED": "Made, and not serving yet.",
        "SERVING": "It serves; of a model one version at most does.",
        "RETIRED": "It serves no more.",
    },
    name="ModelStage",
)
described_enum(
    ModelState,
    "How a model stands, by its versions.",
    {
        "UNKNOWN": "Its trainings were corrected away.",
        "TRAINED": "None of its versions serves, and one at least never did.",
        "SERVING": "One of its versions serves.",
        "RETIRED": "None of its versions serves any more.",
    },
)
described_enum(
    PredictionState,
    "How far a prediction has come.",
    {
        "UNKNOWN": "It was corrected away.",
        "OPEN": "How it comes out is not known.",
        "SETTLED": "It is known how it came out.",
    },
)
described_enum(
    PredictionKind,
    "What a prediction says.",
    {
        "HEALTH": "How healthy an asset is.",
        "FAILURE": "How probable a failure is within a time.",
        "REMAINING_LIFE": "How long an asset lasts.",
    },
)


# --- models ---------------------------------------------------------------------------------


@strawberry.input(description="Which models are wanted; what is null or empty does not restrict.")
class ModelFilter(ObjectFilterInput):
    """What restricts a list of models; each list at most 100 values."""

    states: list[ModelState] | None = strawberry.field(
        default=None, description="Models that stand so."
    )
    purposes: list[str] | None = strawberry.field(
        default=None, description="Models with these purposes."
    )
    drifted: list[str] | None = strawberry.field(
        default=None, description="Models of which these versions have drifted."
    )


@strawberry.type(description="A figure of a model on data that it has not seen.")
class Metric:
    """`domain.opinions.model.Metric`."""

    name: str = strawberry.field(description="Its name, such as `roc_auc`.")
    value: float = strawberry.field(description="Its value; unit and meaning go with its name.")


@strawberry.type(
    description="That what a version sees or says has moved away from its training: `statistic` "
    "beyond `limit`."
)
class Drift:
    """`domain.opinions.model.DriftDetected`."""

    subject: str = strawberry.field(description="What moved, such as a feature's name.")
    test: str = strawberry.field(description="How it was tested.")
    statistic: float = strawberry.field(description="The test's statistic, dimensionless.")
    limit: float = strawberry.field(description="The limit that it is beyond.")
    detected_at: datetime = strawberry.field(description="When.")
    position: Position = strawberry.field(description="Where the event stands in the log.")


@strawberry.type(description="A version of a model, from its training on.")
class ModelVersion:
    """`domain.opinions.model.ModelTrained`, and what became of it."""

    name: str = strawberry.field(
        description="Model and version, such as `bearing-wear@3`. The thread calls it "
        "`model:bearing-wear@3`."
    )
    version: str = strawberry.field(description="Its name within the model.")
    stage: Stage = strawberry.field(description="Where it stands.")
    purpose: str = strawberry.field(description="What it is for, in words.")
    artefact_sha256: str = strawberry.field(
        description="SHA-256 of the file that holds it, hexadecimal."
    )
    training_from_position: Position = strawberry.field(
        description="First position of the log that it was made from."
    )
    training_to_position: Position = strawberry.field(
        description="Last position of the log that it was made from."
    )
    seed: BigInt = strawberry.field(description="Seed that, with `codeVersion`, makes it again.")
    code_version: str = strawberry.field(description="Version of the code that made it.")
    metrics: list[Metric] = strawberry.field(description="How good it is.")
    trained_at: datetime = strawberry.field(description="When it was made.")
    trained_by: str | None = strawberry.field(description="Who recorded it.")
    promoted_at: datetime | None = strawberry.field(
        description="When it was last promoted; null: it never served."
    )
    promotion_reason: str | None = strawberry.field(description="Why it was promoted.")
    retired_at: datetime | None = strawberry.field(
        description="When it was last retired; null: it was not, or serves again."
    )
    retirement_reason: str | None = strawberry.field(description="Why it was retired.")
    drifts: list[Drift] = strawberry.field(description="Where it has drifted, the earliest first.")
    position: Position = strawberry.field(description="Where its training stands in the log.")


@strawberry.type(description="What predicts, by its versions.")
class Model(ThreadObject):
    """`domain.opinions.model.Model`."""

    model_id: strawberry.ID = strawberry.field(description="Natural key.")
    state: ModelState = strawberry.field(description="How it stands.")
    serving_version: str | None = strawberry.field(
        description="The version that serves; null: none does."
    )
    versions: list[ModelVersion] = strawberry.field(
        description="Its versions, in the order of their training."
    )

    @classmethod
    def of(cls, loaded: LoadedObject) -> Model:
        """Return a model as the schema tells it."""
        model: ModelAsDecided = loaded.state
        return cls(
            **common(MODEL, loaded),
            model_id=strawberry.ID(loaded.key),
            state=model_state(model),
            serving_version=model.serving,
            versions=list(_versions(loaded)),
        )

    @field(description="The version called so; null where it was not trained.")
    def model_version(
        self,
        version: Annotated[str, strawberry.argument(description="Its name, such as `3`.")],
    ) -> ModelVersion | None:
        """Return one version of the model."""
        return next((found for found in self.versions if found.version == version), None)

    def thread_keys(self) -> list[str]:
        """Return what the thread calls its versions."""
        versions = self.loaded.state.versions
        return [f"{self.loaded.stream}@{name}" for name in versions] or [self.loaded.stream]


def _versions(loaded: LoadedObject) -> Iterator[ModelVersion]:
    stages = loaded.state.versions
    for entry in loaded.entries:
        fact = entry.fact
        if isinstance(fact, ModelTrained) and fact.version in stages:
            yield _version(loaded, entry, stages[fact.version])


def _version(loaded: LoadedObject, entry: Entry, stage: Stage) -> ModelVersion:
    trained: ModelTrained = entry.fact
    of_it = [e for e in loaded.entries if getattr(e.fact, "version", None) == trained.version]
    promoted = next((e for e in reversed(of_it) if isinstance(e.fact, ModelPromoted)), None)
    retired = next((e for e in reversed(of_it) if isinstance(e.fact, ModelRetired)), None)
    ended = retired if stage is Stage.RETIRED else None
    return ModelVersion(
        name=f"{loaded.key}@{trained.version}",
        version=trained.version,
        stage=stage,
        purpose=trained.purpose,
        artefact_sha256=trained.artefact_sha256,
        training_from_position=Position(trained.training_from_position),
        training_to_position=Position(trained.training_to_position),
        seed=BigInt(trained.seed),
        code_version=trained.code_version,
        metrics=[Metric(name=metric.name, value=metric.value) for metric in trained.metrics],
        trained_at=entry.occurred_at,
        trained_by=actor_of(loaded, entry),
        promoted_at=None if promoted is None else promoted.occurred_at,
        promotion_reason=None if promoted is None else promoted.fact.reason,
        retired_at=None if ended is None else ended.occurred_at,
        retirement_reason=None if ended is None else ended.fact.reason,
        drifts=[
            Drift(
                subject=e.fact.subject,
                test=e.fact.test,
                statistic=e.fact.statistic,
                limit=e.fact.limit,
                detected_at=e.occurred_at,
                position=Position(e.position),
            )
            for e in of_it
            if isinstance(e.fact, DriftDetected)
        ],
        position=Position(entry.position),
    )


# --- predictions ----------------------------------------------------------------------------


@strawberry.input(
    description="Which predictions are wanted; what is null or empty does not restrict."
)
class PredictionFilter(ObjectFilterInput):
    """What restricts a list of predictions; each list at most 100 values."""

    states: list[PredictionState] | None = strawberry.field(
        default=None, description="Predictions that have come so far."
    )
    kinds: list[PredictionKind] | None = strawberry.field(
        default=None, description="Predictions that say this."
    )
    asset_ids: list[str] | None = strawberry.field(
        default=None, description="Predictions about these assets."
    )
    component_ids: list[str] | None = strawberry.field(
        default=None, description="Predictions about these components."
    )
    model_ids: list[str] | None = strawberry.field(
        default=None, description="Predictions by any version of these models."
    )
    models: list[str] | None = strawberry.field(
        default=None, description="Predictions by these versions, such as `bearing-wear@3`."
    )
    failure_modes: list[str] | None = strawberry.field(
        default=None, description="Predictions of these failures."
    )
    outcomes: list[Outcome] | None = strawberry.field(
        default=None, description="Predictions that came out so."
    )


@strawberry.type(description="How much a feature moved a prediction away from the model's mean.")
class Contribution:
    """`domain.opinions.prediction.Contribution`."""

    feature: str = strawberry.field(description="Name of the feature.")
    value: float = strawberry.field(description="Its value, as the model saw it.")
    contribution: float = strawberry.field(description="By how much, in the unit of the output.")


@strawberry.type(description="How a prediction came out.")
class PredictionOutcome:
    """`domain.opinions.prediction.OutcomeRecorded`."""

    prediction: strawberry.Private[LoadedObject]
    outcome: Outcome = strawberry.field(description="How.")
    work_order_id: strawberry.ID | None = strawberry.field(
        description="The work order that told; null: none was named."
    )
    known_at: datetime = strawberry.field(description="When it was known.")
    recorded_by: str | None = strawberry.field(description="Who recorded it.")
    position: Position = strawberry.field(description="Where the event stands in the log.")

    @field(description="The work order that told; null: none was named, or it is not known.")
    async def work_order(self, info: OperationInfo) -> WorkOrder | None:
        """Return the work order that told how it came out."""
        if self.work_order_id is None:
            return None
        return await find_work_order(info.context, self.work_order_id, asked_as(self.prediction))


@strawberry.type(description="What a model says of an asset, from which data, and why.")
class Prediction(ThreadObject):
    """`domain.opinions.prediction.Prediction`."""

    prediction_id: strawberry.ID = strawberry.field(description="Natural key.")
    state: PredictionState = strawberry.field(description="How far it has come.")
    kind: PredictionKind | None = strawberry.field(
        description="What it says; null where it was corrected away, as is all else then."
    )
    asset_id: strawberry.ID | None = strawberry.field(description="The asset that it is about.")
    component_id: strawberry.ID | None = strawberry.field(
        description="The component that it is about; null: the asset as a whole."
    )
    model_name: str | None = strawberry.field(
        description="Version of the model that said it, such as `bearing-wear@3`."
    )
    predicted_at: datetime | None = strawberry.field(description="When it was said.")
    health: float | None = strawberry.field(
        description="Health, from 0 (failed) to 1 (as new); null in other predictions."
    )
    failure_mode: str | None = strawberry.field(
        description="The failure that is expected; null in a prediction of health."
    )
    probability: float | None = strawberry.field(
        description="Probability of that failure within `horizon`, 0 to 1; null in others."
    )
    horizon: Quantity | None = strawberry.field(
        description="For how long the probability holds, s; null in others."
    )
    remaining_life: Quantity | None = strawberry.field(
        description="Remaining useful life, s; null in others."
    )
    remaining_life_lower: Quantity | None = strawberry.field(
        description="Lower end of its interval, s; null in others."
    )
    remaining_life_upper: Quantity | None = strawberry.field(
        description="Upper end of its interval, s; null in others."
    )
    confidence: float | None = strawberry.field(
        description="Confidence of the interval, 0 to 1; null in others."
    )
    input_from_position: Position | None = strawberry.field(
        description="First position of the log that the model has seen for it."
    )
    input_to_position: Position | None = strawberry.field(
        description="Last position of the log that the model has seen for it."
    )
    explanation: list[Contribution] = strawberry.field(description="What moved it, by features.")
    outcome: PredictionOutcome | None = strawberry.field(
        description="How it came out; null: nobody knows yet."
    )

    @classmethod
    def of(cls, loaded: LoadedObject) -> Prediction:
        """Return a prediction as the schema tells it."""
        entry = first_entry(loaded, HealthAssessed, FailurePredicted, RemainingLifePredicted)
        fact = None if entry is None else entry.fact
        return cls(
            **common(PREDICTION, loaded),
            prediction_id=strawberry.ID(loaded.key),
            state=prediction_state(loaded.state),
            kind=prediction_kind(fact),
            asset_id=key_or_none(getattr(fact, "asset_id", None)),
            component_id=key_or_none(getattr(fact, "component_id", None)),
            model_name=getattr(fact, "model", None),
            predicted_at=None if entry is None else entry.occurred_at,
            health=getattr(fact, "health", None),
            failure_mode=getattr(fact, "failure_mode", None),
            probability=getattr(fact, "probability", None),
            horizon=quantity(getattr(fact, "horizon_s", None), "s"),
            remaining_life=quantity(getattr(fact, "remaining_s", None), "s"),
            remaining_life_lower=quantity(getattr(fact, "lower_s", None), "s"),
            remaining_life_upper=quantity(getattr(fact, "upper_s", None), "s"),
            confidence=getattr(fact, "confidence", None),
            input_from_position=_position(getattr(fact, "input_from_position", None)),
            input_to_position=_position(getattr(fact, "input_to_position", None)),
            explanation=[
                Contribution(
                    feature=moved.feature, value=moved.value, contribution=moved.contribution
                )
                for moved in getattr(fact, "explanation", ())
            ],
            outcome=_outcome(loaded),
        )

    @field(description="The asset that it is about; null where it is not known.", type=ASSET | None)
    async def asset(self, info: OperationInfo) -> Any:
        """Return the prediction's asset."""
        return await asset_named(info.context, self.asset_id)

    @field(description="The component that it is about; null: the asset as a whole.")
    async def component(self, info: OperationInfo) -> Component | None:
        """Return the prediction's component."""
        if self.component_id is None:
            return None
        return await find_component(info.context, self.component_id, asked_as(self.loaded))

    @field(description="The model that said it, with all its versions.")
    async def model(self, info: OperationInfo) -> Model | None:
        """Return the prediction's model."""
        if self.model_name is None:
            return None
        return await find_model(info.context, self.model_name.partition("@")[0], self.loaded)


def _position(position: int | None) -> Position | None:
    return None if position is None else Position(position)


def _outcome(loaded: LoadedObject) -> PredictionOutcome | None:
    entry = last_entry(loaded, OutcomeRecorded)
    if entry is None:
        return None
    return PredictionOutcome(
        prediction=loaded,
        outcome=entry.fact.outcome,
        work_order_id=key_or_none(entry.fact.work_order_id),
        known_at=entry.occurred_at,
        recorded_by=actor_of(loaded, entry),
        position=Position(entry.position),
    )


# --- finding --------------------------------------------------------------------------------


async def find_model(context: OperationContext, key: str, as_of: Any = None) -> Model | None:
    """Return the model called `key`; as `api.graphql.objects.object_in`."""
    found = await object_in(context, model_stream(key), as_of)
    return None if found is None else Model.of(found)


async def find_prediction(
    context: OperationContext, key: str, as_of: Any = None
) -> Prediction | None:
    """Return the prediction called `key`; as `api.graphql.objects.object_in`."""
    found = await object_in(context, prediction_stream(key), as_of)
    return None if found is None else Prediction.of(found)
