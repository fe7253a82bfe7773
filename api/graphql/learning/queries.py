"""Queries of learning: models and predictions, one by its natural key or in pages."""

from __future__ import annotations

from typing import Annotated

import strawberry

from api.access.rights import Right
from api.graphql.as_of import AsOfArgument
from api.graphql.context import MinPosition, OperationInfo
from api.graphql.fields import field
from api.graphql.learning.types import Model, ModelFilter, Prediction, PredictionFilter
from api.graphql.object_lists import OrderBy, object_page
from api.graphql.objects import asked_object
from api.graphql.relay import After, Connection, First
from domain.identifiers import check_identifier
from domain.opinions.model import model_stream
from domain.opinions.prediction import prediction_stream
from projections.objects import ObjectOrder


@strawberry.type
class LearningQueries:
    """Root fields."""

    @field(
        right=Right.READ,
        description="The model with this natural key; null where nothing is known of it.",
    )
    async def model(
        self,
        info: OperationInfo,
        model_id: Annotated[
            strawberry.ID,
            strawberry.argument(description="Natural key of the model, without a version."),
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Model | None:
        """Return one model."""
        check_identifier("model", model_id)
        found = await asked_object(info.context, model_stream(model_id), as_of, min_position)
        return None if found is None else Model.of(found)

    @field(right=Right.READ, description="Models.")
    async def models(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            ModelFilter | None,
            strawberry.argument(description="Which models are wanted."),
        ] = None,
        order_by: OrderBy = ObjectOrder.KEY,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[Model]:
        """Return a page of models."""
        given = filter or ModelFilter()
        return await object_page(
            info.context,
            "model",
            name="models",
            first=first,
            after=after,
            order=order_by,
            wanted=given.wanted(
                given.states,
                {
                    "purpose": given.purposes,
                    "drift": given.drifted,
                },
            ),
            as_of=as_of,
            min_position=min_position,
            node=Model.of,
        )

    @field(
        right=Right.READ,
        description="The prediction with this natural key; null where nothing is known of it.",
    )
    async def prediction(
        self,
        info: OperationInfo,
        prediction_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the prediction.")
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Prediction | None:
        """Return one prediction."""
        check_identifier("prediction", prediction_id)
        found = await asked_object(
            info.context, prediction_stream(prediction_id), as_of, min_position
        )
        return None if found is None else Prediction.of(found)

    @field(right=Right.READ, description="Predictions.")
    async def predictions(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            PredictionFilter | None,
            strawberry.argument(description="Which predictions are wanted."),
        ] = None,
        order_by: OrderBy = ObjectOrder.NEWEST,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[Prediction]:
        """Return a page of predictions."""
        given = filter or PredictionFilter()
        return await object_page(
            info.context,
            "prediction",
            name="predictions",
            first=first,
            after=after,
            order=order_by,
            wanted=given.wanted(
                given.states,
                {
                    "kind": given.kinds,
                    "asset": given.asset_ids,
                    "component": given.component_ids,
                    "model_id": given.model_ids,
                    "model": given.models,
                    "failure_mode": given.failure_modes,
                    "outcome": given.outcomes,
                },
            ),
            as_of=as_of,
            min_position=min_position,
            node=Prediction.of,
        )
