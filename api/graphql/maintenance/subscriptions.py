"""The subscription of work orders: each as it stands, whenever something was said of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import strawberry

from api.access.rights import Right
from api.graphql.changes import (
    EVERY_S_DEFAULT,
    ChangeMessage,
    ChangesAfter,
    EveryS,
    changes,
    cursor_at,
)
from api.graphql.context import OperationInfo
from api.graphql.fields import subscription
from api.graphql.filters import chosen
from api.graphql.maintenance.types import WorkOrder, find_work_order
from eventlog.reading import EventFilter, PayloadOf
from projections.maintenance.projection import MaintenanceProjection


@strawberry.type(description="Work orders as their latest events left them.")
class WorkOrderMessage(ChangeMessage):
    """A message of the subscription `workOrders`."""

    work_orders: list[WorkOrder] = strawberry.field(
        description="Each work order that something was said of and that is wanted, once. It may "
        "be none: keep the cursor all the same."
    )


@strawberry.type
class WorkOrderSubscriptions:
    """Root fields."""

    @subscription(
        right=Right.READ,
        cost=20,
        description="Work orders that something happens to, each as it stands then: what a CMMS "
        "mirrors them by.",
    )
    async def work_orders(
        self,
        info: OperationInfo,
        after: ChangesAfter = None,
        asset_ids: Annotated[
            list[str] | None,
            strawberry.argument(description="Those of these assets, at most 100; null: all."),
        ] = None,
        every_s: EveryS = EVERY_S_DEFAULT,
    ) -> AsyncGenerator[WorkOrderMessage, None]:
        """Yield messages for as long as the client listens."""
        context, wanted = info.context, chosen("assetIds", asset_ids)
        following = changes(
            context,
            after,
            EventFilter(categories=("work-order",)),
            every_s=every_s,
            payloads=PayloadOf.NONE,
            projections=(MaintenanceProjection.name,),
        )
        async with aclosing(following) as found:
            async for change in found:
                orders = []
                for stream in dict.fromkeys(event.stream for event in change.events):
                    order = await find_work_order(context, stream.partition(":")[2])
                    if order is not None and (not wanted or order.asset_id in wanted):
                        orders.append(order)
                yield WorkOrderMessage(
                    cursor=cursor_at(context, change.position),
                    events=len(change.events),
                    lag=change.lag,
                    work_orders=orders,
                )
