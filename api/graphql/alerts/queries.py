"""Queries of alerts: one by its id, and lists, newest first."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import strawberry

from api.access.rights import Right
from api.graphql.alerts.types import AlertFilter
from api.graphql.assets.types import Alert, alert_connection, alerts_before
from api.graphql.context import MinPosition, OperationInfo
from api.graphql.fields import field
from api.graphql.filters import chosen
from api.graphql.relay import After, Connection, First
from projections.alerts import AlertProjection, find_alert, list_alerts
from projections.twins import projection_position


@strawberry.type
class AlertQueries:
    """Root fields."""

    @field(
        right=Right.READ, description="The alert with this natural key; null where there is none."
    )
    async def alert(
        self,
        info: OperationInfo,
        alert_id: Annotated[UUID, strawberry.argument(description="Natural key of the alert.")],
        min_position: MinPosition = None,
    ) -> Alert | None:
        """Return one alert."""
        await info.context.wait_for(min_position, AlertProjection.name)
        row = await find_alert(info.context.ledger, alert_id)
        return None if row is None else Alert.of(row)

    @field(right=Right.READ, description="Alerts of all assets, newest first.")
    async def alerts(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            AlertFilter | None, strawberry.argument(description="Which alerts are wanted.")
        ] = None,
        min_position: MinPosition = None,
    ) -> Connection[Alert]:
        """Return a page of alerts."""
        wanted = filter or AlertFilter()
        context, ledger = info.context, info.context.ledger
        before = alerts_before(context, first, after)
        asset_ids = chosen("assetIds", wanted.asset_ids)
        severities = chosen("severities", wanted.severities)
        states = chosen("states", wanted.states)
        await context.wait_for(min_position, AlertProjection.name)
        async with context.reads:
            position = await projection_position(
                ledger.pool, ledger.ledger_id, AlertProjection.name
            )
            rows = await list_alerts(
                ledger,
                before=before,
                first=first + 1,
                asset_ids=asset_ids,
                severities=severities,
                states=states,
            )
        return alert_connection(context, rows, first, after, position)
