"""Queries of maintenance: work orders, one or in pages, and the board."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import strawberry

from api.access.rights import Right
from api.graphql.as_of import Asked, AsOfArgument, asked
from api.graphql.basis import Basis
from api.graphql.context import MinPosition, OperationContext, OperationInfo
from api.graphql.fields import field
from api.graphql.filters import chosen
from api.graphql.key_cursors import decode_key_cursor, encode_key_cursor
from api.graphql.maintenance.types import (
    AgeCount,
    AssetBacklog,
    BacklogEntry,
    MaintenanceBoard,
    PriorityCount,
    StateCount,
    WorkOrder,
    find_work_order,
)
from api.graphql.plant.scope import assets_wanted
from api.graphql.relay import After, Connection, First, check_first, connection
from api.graphql.scalars import Cursor
from domain.identifiers import check_identifier
from domain.maintenance.work_order import Priority
from projections.maintenance import work_orders as standing
from projections.maintenance.projection import (
    MaintenanceProjection,
    WorkOrderState,
    maintenance_board,
)
from projections.maintenance.work_orders import (
    WorkOrderOrder,
    key_of,
    list_work_orders,
    work_orders_of,
)
from projections.plant.projection import PlantProjection

BOARD_CURSOR: Final = "backlog"
_KEY_TYPES: Final = {
    WorkOrderOrder.NEWEST: (datetime, str),
    WorkOrderOrder.DUE: (datetime, str),
    WorkOrderOrder.PRIORITY: (int, datetime, str),
}


@strawberry.input(
    description="Which work orders are wanted; what is null or empty does not restrict."
)
class AssetWorkOrderFilter:
    """What restricts a list of one asset's work orders."""

    states: list[WorkOrderState] | None = strawberry.field(
        default=None, description="Those that are so far."
    )
    priorities: list[Priority] | None = strawberry.field(
        default=None, description="Those of these priorities."
    )
    failure_modes: list[str] | None = strawberry.field(
        default=None, description="Those in which one of these failures was feared or found."
    )
    requested_by: list[str] | None = strawberry.field(
        default=None, description="Those that one of these requested, such as `user:jane`."
    )
    assignees: list[str] | None = strawberry.field(
        default=None, description="Those that are planned for one of these."
    )
    requested_from: datetime | None = strawberry.field(
        default=None, description="Those requested at this time or later."
    )
    requested_to: datetime | None = strawberry.field(
        default=None, description="Those requested before this time."
    )

    def told(self, assets: tuple[str, ...] | None = None) -> standing.WorkOrderFilter:
        """Return it as the projection understands it."""
        return standing.WorkOrderFilter(
            assets=assets,
            states=chosen("states", self.states),
            priorities=chosen("priorities", self.priorities),
            failure_modes=chosen("failureModes", self.failure_modes),
            requested_by=chosen("requestedBy", self.requested_by),
            assignees=chosen("assignees", self.assignees),
            requested_from=self.requested_from,
            requested_to=self.requested_to,
        )


@strawberry.input(
    description="Which work orders are wanted; what is null or empty does not restrict."
)
class WorkOrderFilter(AssetWorkOrderFilter):
    """What restricts a list of work orders."""

    asset_ids: list[str] | None = strawberry.field(
        default=None, description="Those of these assets, at most 100."
    )
    locations: list[str] | None = strawberry.field(
        default=None,
        description="Those of assets that stand in these locations, or in what stands there.",
    )


@strawberry.input(
    description="Which work orders a board tells of; what is null or empty does not restrict."
)
class BoardFilter:
    """What restricts a board."""

    asset_ids: list[str] | None = strawberry.field(
        default=None, description="Those of these assets, at most 100."
    )
    locations: list[str] | None = strawberry.field(
        default=None,
        description="Those of assets that stand in these locations, or in what stands there.",
    )
    states: list[WorkOrderState] | None = strawberry.field(
        default=None, description="Those that are so far."
    )
    priorities: list[Priority] | None = strawberry.field(
        default=None, description="Those of these priorities."
    )


OrderBy = Annotated[
    WorkOrderOrder,
    strawberry.argument(description="Their order. A cursor belongs to the order it came from."),
]


@strawberry.type
class MaintenanceQueries:
    """Root fields."""

    @field(
        right=Right.READ,
        description="The work order with this natural key; null where there is none.",
    )
    async def work_order(
        self,
        info: OperationInfo,
        work_order_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the work order.")
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> WorkOrder | None:
        """Return one work order."""
        check_identifier("work_order", work_order_id)
        when = await asked(info.context, as_of, min_position, MaintenanceProjection.name)
        return await find_work_order(info.context, work_order_id, when)

    @field(right=Right.READ, description="Work orders of all assets, open and closed.")
    async def work_orders(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            WorkOrderFilter | None, strawberry.argument(description="Which are wanted.")
        ] = None,
        order_by: OrderBy = WorkOrderOrder.NEWEST,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[WorkOrder]:
        """Return a page of work orders."""
        context = info.context
        key = _key(context, first, after, order_by)
        wanted = filter or WorkOrderFilter()
        when = await asked(context, as_of, min_position, MaintenanceProjection.name)
        assets = await assets_wanted(
            context,
            when,
            chosen("assetIds", wanted.asset_ids),
            chosen("locations", wanted.locations),
        )
        async with context.reads:
            rows = await list_work_orders(
                context.ledger,
                wanted.told(assets),
                order_by,
                first=first + 1,
                after=key,
                as_of=when.known_at,
                valid_at=when.valid_at,
            )
        return _connection(context, rows, first, after, order_by, when)

    @field(
        right=Right.READ,
        cost=20,
        description="What is open, or was at the moment `asOf.validAt`: counts, and the backlog.",
    )
    async def maintenance_board(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            BoardFilter | None, strawberry.argument(description="Which are wanted.")
        ] = None,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> MaintenanceBoard:
        """Return the board."""
        context = info.context
        check_first(first)
        ledger = context.ledger
        key: Any = None
        if after is not None:
            key = decode_key_cursor(after, BOARD_CURSOR, ledger.name, (int, datetime, str))
        wanted = filter or BoardFilter()
        when = await asked(
            context, as_of, min_position, MaintenanceProjection.name, PlantProjection.name
        )
        at = when.valid_at or context.now
        assets = await assets_wanted(
            context,
            when,
            chosen("assetIds", wanted.asset_ids),
            chosen("locations", wanted.locations),
        )
        async with context.reads:
            board = await maintenance_board(
                ledger,
                at=at,
                assets=assets,
                priorities=chosen("priorities", wanted.priorities),
                states=chosen("states", wanted.states),
                as_of=when.known_at,
                first=first,
                after=key,
            )
        entries = board.entries
        last = entries[-1] if len(entries) == first else None
        return MaintenanceBoard(
            at=at,
            open=board.open,
            overdue=board.overdue,
            assets_down=board.assets_down,
            by_state=[StateCount(state=s, count=n) for s, n in board.by_state.items()],
            by_priority=[PriorityCount(priority=p, count=n) for p, n in board.by_priority.items()],
            by_age=[AgeCount(up_to_s=bound, count=n) for bound, n in board.by_age],
            by_asset=[
                AssetBacklog(
                    asset_id=strawberry.ID(each.asset_id),
                    open=each.open,
                    oldest_requested_at=each.oldest_requested_at,
                )
                for each in board.by_asset
            ],
            backlog=connection(
                entries,
                first=first,
                after=after,
                position=when.position,
                node=BacklogEntry.of,
                cursor=lambda entry: encode_key_cursor(BOARD_CURSOR, ledger.name, entry.cursor),
                goes_on_after=None
                if last is None
                else encode_key_cursor(BOARD_CURSOR, ledger.name, last.cursor),
            ),
            basis=Basis.of(board.basis, when),
        )


async def work_orders_of_asset(
    context: OperationContext,
    asset_id: str,
    when: Asked,
    *,
    first: int,
    after: Cursor | None,
    filter: AssetWorkOrderFilter | None,
    by: WorkOrderOrder,
) -> Connection[WorkOrder]:
    """Return a page of an asset's work orders; one statement for all assets that ask alike."""
    key = _key(context, first, after, by)
    wanted = (filter or AssetWorkOrderFilter()).told()

    async def load(asset_ids: list[str]) -> list[list[standing.WorkOrder]]:
        async with context.reads:
            found = await work_orders_of(
                context.ledger,
                asset_ids,
                wanted,
                by,
                first=first + 1,
                after=key,
                as_of=when.known_at,
                valid_at=when.valid_at,
            )
        return [found[name] for name in asset_ids]

    name = ("work orders of assets", when, wanted, by, first, key)
    rows = await context.loader(name, load).load(asset_id)
    return _connection(context, rows, first, after, by, when)


def _key(context: OperationContext, first: int, after: Cursor | None, by: WorkOrderOrder) -> Any:
    check_first(first)
    if after is None:
        return None
    return decode_key_cursor(after, _cursors(by), context.ledger.name, _KEY_TYPES[by])


def _connection(
    context: OperationContext,
    rows: Sequence[standing.WorkOrder],
    first: int,
    after: Cursor | None,
    by: WorkOrderOrder,
    when: Asked,
) -> Connection[WorkOrder]:
    return connection(
        rows,
        first=first,
        after=after,
        position=when.position,
        node=lambda row: WorkOrder.of(row, when),
        cursor=lambda row: encode_key_cursor(_cursors(by), context.ledger.name, key_of(row, by)),
    )


def _cursors(by: WorkOrderOrder) -> str:
    return f"work orders, {by.value.lower()}"
