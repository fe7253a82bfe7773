"""Mutations of production: process runs."""

from __future__ import annotations

from api.access.rights import Right
from api.graphql.declared import Declared, answer_by_key, mutations
from api.graphql.production.types import ProcessRun, find_process_run
from domain.material.process_run import AbortProcessRun, CompleteProcessRun, StartProcessRun
from projections.production.projection import ProductionProjection

ProcessRunMutations = mutations(
    "ProcessRunMutations",
    Declared(
        StartProcessRun,
        Right.OPERATE,
        "Begin an operation on an asset.",
        "The run goes on.",
    ),
    Declared(
        CompleteProcessRun,
        Right.OPERATE,
        "Bring a run to its end.",
        "The run is completed.",
    ),
    Declared(
        AbortProcessRun,
        Right.OPERATE,
        "Give a run up.",
        "The run is aborted.",
    ),
    answer=answer_by_key("process_run", ProcessRun, find_process_run, ProductionProjection.name),
)
