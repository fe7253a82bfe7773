"""The subscription of a twin: its state, whenever something of it changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

import strawberry

from api.access.rights import Right
from api.graphql.assets.types import Asset
from api.graphql.changes import (
    EVERY_S_DEFAULT,
    ChangeMessage,
    ChangesAfter,
    EveryS,
    changes,
    cursor_at,
)
from api.graphql.context import OperationContext, OperationInfo, Told
from api.graphql.fields import subscription
from api.graphql.scalars import Position
from domain.asset import asset_stream, telemetry_stream
from domain.asset_decider import unknown_asset
from eventlog.reading import EventFilter, PayloadOf
from projections.alerts.projection import AlertProjection
from projections.twins.projection import TwinProjection

_PROJECTIONS = (TwinProjection.name, AlertProjection.name)


@strawberry.type(description="An asset as its latest events left it.")
class TwinMessage(ChangeMessage):
    """A message of the subscription `twin`."""

    asset: Asset = strawberry.field(description="The asset; ask it for its twin.")


@strawberry.type
class TwinSubscriptions:
    """Root fields."""

    @subscription(
        right=Right.READ,
        cost=20,
        description="An asset and its twin: as they are now, unless it resumes with `after`, and "
        "then whenever something of them changed. Messages tell the latest state; what happened "
        "between two of them is in `events`.",
    )
    async def twin(
        self,
        info: OperationInfo,
        asset_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the asset.")
        ],
        after: ChangesAfter = None,
        every_s: EveryS = EVERY_S_DEFAULT,
    ) -> AsyncGenerator[TwinMessage, None]:
        """Yield the asset's states."""
        context = info.context
        asset = await _asset(context, asset_id)
        if (after or context.resume_after) is None:
            head = await context.ledger.head()
            await context.wait_for(Position(head), *_PROJECTIONS)
            context.forget()
            context.told = Told(head, head)
            after = cursor_at(context, head)
            asset = await _asset(context, asset_id)
            yield TwinMessage(cursor=after, events=0, lag=Position(0), asset=asset)
        wanted = EventFilter(streams=(asset_stream(asset_id), telemetry_stream(asset_id)))
        following = changes(
            context,
            after,
            wanted,
            every_s=every_s,
            payloads=PayloadOf.NONE,
            projections=_PROJECTIONS,
        )
        async with aclosing(following) as found:
            async for change in found:
                yield TwinMessage(
                    cursor=cursor_at(context, change.position),
                    events=len(change.events),
                    lag=change.lag,
                    asset=await _asset(context, asset_id),
                )


async def _asset(context: OperationContext, asset_id: str) -> Any:
    row = await context.asset_by_asset_id.load(asset_id)
    if row is None:
        raise unknown_asset(asset_id)
    return Asset.of(row)
