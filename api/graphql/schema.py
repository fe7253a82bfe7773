"""The schema: what the domains declare, put together; run as a program, it prints its SDL.

::

    python -m api.graphql.schema                # print the SDL
    python -m api.graphql.schema --write        # bring api/graphql/schema.graphql up to date
    python -m api.graphql.schema --check        # fail when that file is out of date
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import strawberry
from graphql import GraphQLError, GraphQLSchema
from strawberry.extensions import SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from api.graphql.alerts.mutations import AlertMutations
from api.graphql.alerts.queries import AlertQueries
from api.graphql.alerts.subscriptions import AlertSubscriptions
from api.graphql.assets.mutations import AssetMutations
from api.graphql.assets.queries import AssetQueries
from api.graphql.assets.subscriptions import TwinSubscriptions
from api.graphql.audit.queries import AuditQueries
from api.graphql.documents.mutations import DocumentMutations
from api.graphql.documents.queries import DocumentQueries
from api.graphql.events.queries import EventQueries
from api.graphql.events.subscriptions import EventSubscriptions
from api.graphql.figures.queries import FigureQueries
from api.graphql.keys.mutations import ApiKeyMutations
from api.graphql.keys.queries import ApiKeyQueries
from api.graphql.learning.mutations import ModelMutations, PredictionMutations
from api.graphql.learning.queries import LearningQueries
from api.graphql.maintenance.mutations import SparePartMutations, WorkOrderMutations
from api.graphql.maintenance.queries import MaintenanceQueries
from api.graphql.maintenance.spare_parts_queries import SparePartQueries
from api.graphql.maintenance.subscriptions import WorkOrderSubscriptions
from api.graphql.material.mutations import LotMutations, PartMutations
from api.graphql.material.queries import MaterialQueries
from api.graphql.node import NodeQueries
from api.graphql.plant.mutations import ComponentMutations, LocationMutations
from api.graphql.plant.queries import PlantQueries
from api.graphql.production.mutations import ProcessRunMutations
from api.graphql.production.queries import ProductionQueries
from api.graphql.quality.mutations import (
    InspectionMutations,
    InstrumentMutations,
    NonconformanceMutations,
)
from api.graphql.quality.queries import QualityQueries
from api.graphql.records.batch import batch_mutations
from api.graphql.records.mutations import RecordMutations
from api.graphql.scalars import SCALARS
from api.graphql.scenarios.mutations import ScenarioMutations, SetpointProposalMutations
from api.graphql.scenarios.queries import ScenarioQueries
from api.graphql.telemetry.subscriptions import ReadingSubscriptions
from api.graphql.thread.queries import ThreadQueries
from api.graphql.thread.subscriptions import ThreadSubscriptions
from api.graphql.webhooks.mutations import WebhookMutations
from api.graphql.webhooks.queries import WebhookQueries

SDL_FILE: Final = Path(__file__).with_name("schema.graphql")


@strawberry.type(description="What can be asked.")
class Query(
    AssetQueries,
    AlertQueries,
    EventQueries,
    ThreadQueries,
    PlantQueries,
    MaintenanceQueries,
    ProductionQueries,
    FigureQueries,
    AuditQueries,
    MaterialQueries,
    QualityQueries,
    DocumentQueries,
    LearningQueries,
    ScenarioQueries,
    SparePartQueries,
    WebhookQueries,
    ApiKeyQueries,
    NodeQueries,
):
    """All root fields that read."""


MUTATIONS: Final = (
    AssetMutations,
    AlertMutations,
    LocationMutations,
    ComponentMutations,
    WorkOrderMutations,
    SparePartMutations,
    LotMutations,
    PartMutations,
    ProcessRunMutations,
    InspectionMutations,
    NonconformanceMutations,
    InstrumentMutations,
    DocumentMutations,
    ModelMutations,
    PredictionMutations,
    ScenarioMutations,
    SetpointProposalMutations,
    RecordMutations,
    WebhookMutations,
    ApiKeyMutations,
    batch_mutations(),  # after all that it can carry out
)

Mutation: Final = strawberry.type(
    type("Mutation", MUTATIONS, {"__doc__": "All root fields that write."}),
    description="What can be done. Expected failures are members of each result's union.",
)


@strawberry.type(description="What can be listened to, resumable after any message.")
class Subscription(
    EventSubscriptions,
    TwinSubscriptions,
    AlertSubscriptions,
    WorkOrderSubscriptions,
    ReadingSubscriptions,
    ThreadSubscriptions,
):
    """All root fields that stream."""


class HeddleSchema(strawberry.Schema):
    """A schema whose errors are told and logged by `api.graphql.errors` alone."""

    @property
    def core(self) -> GraphQLSchema:
        """The schema as graphql-core knows it."""
        return self._schema

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Leave errors to whoever answers the request."""


def create_schema(extensions: Sequence[type[SchemaExtension]] = ()) -> HeddleSchema:
    """Return the schema."""
    return HeddleSchema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        extensions=extensions,
        config=StrawberryConfig(scalar_map=SCALARS),
    )


def sdl() -> str:
    """Return the schema in GraphQL's schema definition language."""
    return create_schema().as_str() + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print, write or check the SDL; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m api.graphql.schema", description=__doc__)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--write", action="store_true", help=f"write {SDL_FILE.name}")
    choice.add_argument("--check", action="store_true", help=f"fail when {SDL_FILE.name} differs")
    chosen = parser.parse_args(arguments)
    current = sdl()
    if chosen.write:
        SDL_FILE.write_text(current)
    elif chosen.check:
        committed = SDL_FILE.read_text() if SDL_FILE.exists() else ""
        difference = difflib.unified_diff(
            committed.splitlines(), current.splitlines(), SDL_FILE.name, "code", lineterm=""
        )
        lines = list(difference)
        if lines:
            sys.stderr.write("\n".join([*lines, "run: python -m api.graphql.schema --write", ""]))
            return 1
    else:
        sys.stdout.write(current)
    return 0


if __name__ == "__main__":
    sys.exit(main())
