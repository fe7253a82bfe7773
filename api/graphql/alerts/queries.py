"""Queries of alerts: one by its id, and lists, newest first."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

import strawberry

from api.access.rights import Right
from api.graphql.alerts.types import AlertFilter
from api.graphql.as_of import Asked, AsOfArgument, asked
from api.graphql.assets.types import ALERT_CURSOR, Alert, alert_connection, alerts_before
from api.graphql.context import MinPosition, OperationContext, OperationInfo
from api.graphql.fields import field
from api.graphql.filters import chosen
from api.graphql.plant.scope import assets_wanted
from api.graphql.relay import After, Connection, First, connection, encode_cursor
from projections.alerts.as_of import alerts_then, list_alerts_then
from projections.alerts.projection import AlertProjection, find_alert, list_alerts
from projections.plant.projection import PlantProjection

ALERTS_ALONE: Final = (AlertProjection.name,)


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
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Alert | None:
        """Return one alert."""
        context = info.context
        when = await asked(context, as_of, min_position, AlertProjection.name)
        async with context.reads:
            row = await find_alert(context.ledger, alert_id)
        if row is None or not (await context.sight()).sees_asset(row.asset_id):
            return None
        if when.is_now:
            return Alert.of(row)
        async with context.reads:
            then = await alerts_then(
                context.ledger,
                [row.asset_id],
                known_at=await _known_at(context, when),
                valid_at=when.valid_at,
            )
        return next((Alert.of(a) for a in then[row.asset_id] if a.alert_id == alert_id), None)

    @field(
        right=Right.READ,
        description="Alerts of all assets, newest first. As of earlier a page may hold fewer than "
        "`first`, or none, where the filter lets few through; `pageInfo.hasNextPage` says whether "
        "to go on.",
    )
    async def alerts(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            AlertFilter | None, strawberry.argument(description="Which alerts are wanted.")
        ] = None,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[Alert]:
        """Return a page of alerts."""
        wanted = filter or AlertFilter()
        context, ledger = info.context, info.context.ledger
        before = alerts_before(context, first, after)
        severities = chosen("severities", wanted.severities)
        states = chosen("states", wanted.states)
        locations = chosen("locations", wanted.locations)
        names = (AlertProjection.name, PlantProjection.name) if locations else ALERTS_ALONE
        when = await asked(context, as_of, min_position, *names)
        assets = await assets_wanted(context, when, chosen("assetIds", wanted.asset_ids), locations)
        if not when.is_now:
            async with context.reads:
                page = await list_alerts_then(
                    ledger,
                    known_at=await _known_at(context, when),
                    valid_at=when.valid_at,
                    before=before,
                    first=first,
                    asset_ids=assets,
                    severities=severities,
                    states=states,
                )
            return connection(
                page.rows,
                first=first,
                after=after,
                position=when.position,
                node=Alert.of,
                cursor=lambda row: encode_cursor(ALERT_CURSOR, ledger.name, row.position),
                goes_on_after=encode_cursor(ALERT_CURSOR, ledger.name, page.scanned_to)
                if page.scanned_to > 1
                else None,
            )
        async with context.reads:
            rows = await list_alerts(
                ledger,
                before=before,
                first=first + 1,
                seen=assets,
                severities=severities,
                states=states,
            )
        return alert_connection(context, rows, first, after, when.position)


async def _known_at(context: OperationContext, when: Asked) -> int:
    return await context.ledger.head() if when.known_at is None else when.known_at
