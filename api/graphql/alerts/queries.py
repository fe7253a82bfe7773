"""Queries of alerts: one by its id, and lists, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final
from uuid import UUID

import strawberry

from api.graphql.alerts.types import Alert, AlertFilter
from api.graphql.context import MinPosition, OperationContext, OperationInfo
from api.graphql.fields import field
from api.graphql.filters import chosen
from api.graphql.relay import (
    After,
    Connection,
    First,
    check_first,
    connection,
    decode_position_cursor,
    encode_cursor,
)
from api.graphql.scalars import Cursor
from domain.asset_model import Severity
from projections.alerts import AlertProjection, AlertState, find_alert, list_alerts
from projections.twins import projection_position

CURSOR_KIND: Final = "alerts"


@strawberry.type
class AlertQueries:
    """Root fields."""

    @field(description="The alert with this natural key; null where there is none.")
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

    @field(description="Alerts of all assets, newest first.")
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
        await info.context.wait_for(min_position, AlertProjection.name)
        return await resolve_alerts(
            info.context,
            first=first,
            after=after,
            asset_ids=chosen("assetIds", wanted.asset_ids),
            severities=chosen("severities", wanted.severities),
            states=chosen("states", wanted.states),
        )


async def resolve_alerts(
    context: OperationContext,
    *,
    first: int,
    after: Cursor | None,
    asset_ids: Sequence[str] = (),
    severities: Sequence[Severity] = (),
    states: Sequence[AlertState] = (),
) -> Connection[Alert]:
    """Return the alerts after the cursor `after`, newest first.

    Raises
    ------
    InvalidInput
        ``page.first``, ``cursor.malformed``
    """
    check_first(first)
    ledger = context.ledger
    before = None if after is None else decode_position_cursor(after, CURSOR_KIND, ledger.name)
    async with context.reads:
        position = await projection_position(ledger.pool, ledger.ledger_id, AlertProjection.name)
        rows = await list_alerts(
            ledger,
            before=before,
            first=first + 1,
            asset_ids=asset_ids,
            severities=severities,
            states=states,
        )
    return connection(
        rows,
        first=first,
        after=after,
        position=position,
        node=Alert.of,
        cursor=lambda row: encode_cursor(CURSOR_KIND, ledger.name, row.position),
    )
