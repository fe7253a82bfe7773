"""Mutations of learning: models and predictions."""

from __future__ import annotations

from api.access.rights import Right
from api.graphql.declared import Declared, answer_by_key, mutations
from api.graphql.learning.types import Model, Prediction, find_model, find_prediction
from domain.opinions.model import (
    DetectDrift,
    PromoteModel,
    RetireModel,
    TrainModel,
)
from domain.opinions.prediction import (
    AssessHealth,
    PredictFailure,
    PredictRemainingLife,
    RecordOutcome,
)

ModelMutations = mutations(
    "ModelMutations",
    Declared(
        TrainModel,
        Right.PREDICT,
        "Record that a version of a model was made.",
        "The version is known.",
    ),
    Declared(
        PromoteModel,
        Right.ENGINEER,
        "Let a version serve; the one that served until now is retired.",
        "The version serves.",
    ),
    Declared(
        RetireModel,
        Right.ENGINEER,
        "Let a version serve no more.",
        "The version is retired.",
    ),
    Declared(
        DetectDrift,
        Right.PREDICT,
        "Say that a version has moved away from its training.",
        "The drift is recorded.",
    ),
    answer=answer_by_key("model", Model, find_model),
)

PredictionMutations = mutations(
    "PredictionMutations",
    Declared(
        AssessHealth,
        Right.PREDICT,
        "Say how healthy an asset is.",
        "The assessment is recorded.",
    ),
    Declared(
        PredictFailure,
        Right.PREDICT,
        "Say how probable a failure of an asset is.",
        "The prediction is recorded.",
    ),
    Declared(
        PredictRemainingLife,
        Right.PREDICT,
        "Say how long an asset lasts.",
        "The prediction is recorded.",
    ),
    Declared(
        RecordOutcome,
        Right.MAINTAIN,
        "Say how a prediction came out.",
        "The outcome is recorded.",
    ),
    answer=answer_by_key("prediction", Prediction, find_prediction),
)
