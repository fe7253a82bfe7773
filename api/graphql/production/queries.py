"""Queries of production: process runs, one or in pages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import strawberry

from api.access.rights import Right
from api.graphql.as_of import Asked, AsOfArgument, asked
from api.graphql.context import MinPosition, OperationContext, OperationInfo
from api.graphql.fields import field
from api.graphql.filters import chosen
from api.graphql.key_cursors import decode_key_cursor, encode_key_cursor
from api.graphql.plant.scope import assets_wanted
from api.graphql.production.types import ProcessRun, find_process_run
from api.graphql.relay import After, Connection, First, check_first, connection
from api.graphql.scalars import Cursor
from domain.identifiers import check_identifier
from projections.production import process_runs as standing
from projections.production.process_runs import RunState, list_runs, runs_of
from projections.production.projection import ProductionProjection

CURSOR_KIND: Final = "process runs"


@strawberry.input(description="Which runs are wanted; what is null or empty does not restrict.")
class AssetProcessRunFilter:
    """What restricts a list of one asset's runs."""

    operations: list[str] | None = strawberry.field(
        default=None, description="Runs of these operations."
    )
    states: list[RunState] | None = strawberry.field(
        default=None, description="Runs that are so far."
    )
    part_numbers: list[str] | None = strawberry.field(
        default=None, description="Runs that parts of these numbers went through."
    )
    units: list[str] | None = strawberry.field(
        default=None,
        description="Runs that these parts or lots went through: streams, such as `part:SN-1042`.",
    )
    running_from: datetime | None = strawberry.field(
        default=None, description="Runs that had not ended at this time."
    )
    running_to: datetime | None = strawberry.field(
        default=None, description="Runs that began before this time."
    )

    def told(self, assets: tuple[str, ...] | None = None) -> standing.RunFilter:
        """Return it as the projection understands it."""
        return standing.RunFilter(
            assets=assets,
            operations=chosen("operations", self.operations),
            states=chosen("states", self.states),
            part_numbers=chosen("partNumbers", self.part_numbers),
            units=chosen("units", self.units),
            running_from=self.running_from,
            running_to=self.running_to,
        )


@strawberry.input(description="Which runs are wanted; what is null or empty does not restrict.")
class ProcessRunFilter(AssetProcessRunFilter):
    """What restricts a list of runs."""

    asset_ids: list[str] | None = strawberry.field(
        default=None, description="Runs of these assets, at most 100."
    )
    locations: list[str] | None = strawberry.field(
        default=None,
        description="Runs of assets that stand in these locations, or in what stands there.",
    )


@strawberry.type
class ProductionQueries:
    """Root fields."""

    @field(
        right=Right.READ,
        description="The process run with this natural key; null where there is none.",
    )
    async def process_run(
        self,
        info: OperationInfo,
        run_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the run.")
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> ProcessRun | None:
        """Return one run."""
        check_identifier("process_run", run_id)
        when = await asked(info.context, as_of, min_position, ProductionProjection.name)
        return await find_process_run(info.context, run_id, when)

    @field(right=Right.READ, description="Process runs, the latest start first.")
    async def process_runs(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            ProcessRunFilter | None, strawberry.argument(description="Which are wanted.")
        ] = None,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[ProcessRun]:
        """Return a page of runs."""
        context = info.context
        key = _key(context, first, after)
        wanted = filter or ProcessRunFilter()
        when = await asked(context, as_of, min_position, ProductionProjection.name)
        assets = await assets_wanted(
            context,
            when,
            chosen("assetIds", wanted.asset_ids),
            chosen("locations", wanted.locations),
        )
        async with context.reads:
            rows = await list_runs(
                context.ledger,
                wanted.told(assets),
                first=first + 1,
                after=key,
                as_of=when.known_at,
                valid_at=when.valid_at,
            )
        return _connection(context, rows, first, after, when)


async def runs_of_asset(
    context: OperationContext,
    asset_id: str,
    when: Asked,
    *,
    first: int,
    after: Cursor | None,
    filter: AssetProcessRunFilter | None,
) -> Connection[ProcessRun]:
    """Return a page of an asset's runs; one statement for all assets that ask alike."""
    key = _key(context, first, after)
    wanted = (filter or AssetProcessRunFilter()).told()

    async def load(asset_ids: list[str]) -> list[list[standing.ProcessRun]]:
        async with context.reads:
            found = await runs_of(
                context.ledger,
                asset_ids,
                wanted,
                first=first + 1,
                after=key,
                as_of=when.known_at,
                valid_at=when.valid_at,
            )
        return [found[name] for name in asset_ids]

    name = ("runs of assets", when, wanted, first, key)
    rows = await context.loader(name, load).load(asset_id)
    return _connection(context, rows, first, after, when)


def _key(context: OperationContext, first: int, after: Cursor | None) -> Any:
    check_first(first)
    if after is None:
        return None
    return decode_key_cursor(after, CURSOR_KIND, context.ledger.name, (datetime, str))


def _connection(
    context: OperationContext,
    rows: Sequence[standing.ProcessRun],
    first: int,
    after: Cursor | None,
    when: Asked,
) -> Connection[ProcessRun]:
    return connection(
        rows,
        first=first,
        after=after,
        position=when.position,
        node=lambda run: ProcessRun.of(run, when),
        cursor=lambda run: encode_key_cursor(
            CURSOR_KIND, context.ledger.name, (run.started_at, run.run_id)
        ),
    )
