"""The subscription of alerts: each as it stands, whenever something was said of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Final
from uuid import UUID

import strawberry

from api.access.rights import Right
from api.graphql.alerts.types import AlertFilter
from api.graphql.assets.types import Alert
from api.graphql.changes import (
    EVERY_S_DEFAULT,
    Change,
    ChangeMessage,
    ChangesAfter,
    EveryS,
    changes,
    cursor_at,
)
from api.graphql.context import OperationInfo
from api.graphql.fields import subscription
from api.graphql.filters import chosen
from domain.asset import asset_stream
from eventlog.reading import EventFilter
from projections.alerts.projection import AlertProjection, AlertRow, find_alerts

TYPES: Final = (
    "asset.alert_raised",
    "asset.alert_acknowledged",
    "asset.alert_escalated",
    "asset.alert_cleared",
)


@strawberry.type(description="Alerts as their latest events left them.")
class AlertMessage(ChangeMessage):
    """A message of the subscription `alerts`."""

    alerts: list[Alert] = strawberry.field(
        description="Each alert that something was said of and that is wanted, once; in the order "
        "in which they were last spoken of. It may be none: keep the cursor all the same."
    )


@strawberry.type
class AlertSubscriptions:
    """Root fields."""

    @subscription(
        right=Right.READ,
        cost=20,
        description="Alerts that are raised, acknowledged, passed on or cleared, each as it stands "
        "then.",
    )
    async def alerts(
        self,
        info: OperationInfo,
        after: ChangesAfter = None,
        filter: Annotated[
            AlertFilter | None, strawberry.argument(description="Which alerts are wanted.")
        ] = None,
        every_s: EveryS = EVERY_S_DEFAULT,
    ) -> AsyncGenerator[AlertMessage, None]:
        """Yield messages for as long as the client listens."""
        context, wanted = info.context, filter or AlertFilter()
        asset_ids = chosen("assetIds", wanted.asset_ids)
        severities = chosen("severities", wanted.severities)
        states = chosen("states", wanted.states)
        following = changes(
            context,
            after,
            EventFilter(types=TYPES, streams=tuple(asset_stream(a) for a in asset_ids)),
            every_s=every_s,
            projections=(AlertProjection.name,),
        )
        async with aclosing(following) as found:
            async for change in found:
                rows = await find_alerts(context.ledger, _spoken_of(change))
                yield AlertMessage(
                    cursor=cursor_at(context, change.position),
                    events=len(change.events),
                    lag=change.lag,
                    alerts=[Alert.of(row) for row in rows if _is_wanted(row, severities, states)],
                )


def _spoken_of(change: Change) -> list[UUID]:
    """Return the alerts that events speak of, by when they were last spoken of."""
    last = {
        event.fact.alert_id: event.position for event in change.events if event.payload is not None
    }
    return sorted(last, key=lambda alert_id: last[alert_id])


def _is_wanted(row: AlertRow, severities: tuple[object, ...], states: tuple[object, ...]) -> bool:
    return (not severities or row.severity in severities) and (not states or row.state in states)
