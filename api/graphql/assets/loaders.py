"""Assets, their twins and alerts as of earlier."""

from __future__ import annotations

from typing import Final

from api.graphql.as_of import Asked
from api.graphql.context import AlertPage, OperationContext
from domain.asset_decider import unknown_asset
from domain.errors import InvalidInput
from projections.alerts.as_of import alerts_then
from projections.alerts.projection import AlertRow
from projections.plant.projection import PlantProjection
from projections.twins.as_of import assets_as_of, twin_as_of
from projections.twins.history import TwinHistoryProjection
from projections.twins.projection import AssetRow, Twin

TWINS_THEN_MAX: Final = 200
"""Twins as of earlier in one operation: each costs some statements."""


ASSETS_THEN: Final = (PlantProjection.name, TwinHistoryProjection.name)
"""Projections whose rows tell of assets as of earlier."""


async def asset_then(context: OperationContext, asked: Asked, asset_id: str) -> AssetRow | None:
    """Return an asset as of earlier; None where it was not registered yet, or is out of sight."""

    async def load(asset_ids: list[str]) -> list[AssetRow | None]:
        sight = await context.sight()
        seen = [name for name in asset_ids if sight.sees_asset(name)]
        async with context.reads:
            found = await assets_as_of(context.ledger, seen, asked.as_of)
        return [found.get(name) for name in asset_ids]

    return await context.loader(("asset then", asked), load).load(asset_id)


async def twin_then(context: OperationContext, asked: Asked, asset_id: str) -> Twin:
    """Return the twin of an asset as of earlier.

    Raises
    ------
    InvalidInput
        ``as_of.too_many_twins``
    Unavailable
        ``twin.history_behind``
    """

    async def load(asset_ids: list[str]) -> list[Twin]:
        if len(asset_ids) > TWINS_THEN_MAX:
            raise InvalidInput(
                "as_of.too_many_twins",
                f"{len(asset_ids)} twins as of earlier, more than {TWINS_THEN_MAX}",
                hint="ask for fewer assets at once",
                value=len(asset_ids),
                limit=TWINS_THEN_MAX,
            )
        twins = []
        async with context.reads:
            for name in asset_ids:
                found = await twin_as_of(
                    context.ledger, name, asked.as_of, judged_at=asked.judged_at
                )
                if found is None:
                    raise unknown_asset(name)
                twins.append(found[1])
        return twins

    return await context.loader(("twin then", asked), load).load(asset_id)


async def alerts_then_of(
    context: OperationContext, asked: Asked, page: AlertPage
) -> list[AlertRow]:
    """Return a page of an asset's alerts as of earlier; one reading for all that are asked for."""

    rows = await alert_rows_then(context, asked, page.asset_id)
    wanted = [
        row
        for row in rows
        if (page.before is None or row.position < page.before)
        and (not page.severities or row.severity in page.severities)
        and (not page.states or row.state in page.states)
    ]
    return wanted[: page.first]


async def alert_rows_then(context: OperationContext, asked: Asked, asset_id: str) -> list[AlertRow]:
    """Return all alerts of an asset as of earlier, newest first."""

    async def load(asset_ids: list[str]) -> list[list[AlertRow]]:
        known_at = asked.known_at
        async with context.reads:
            found = await alerts_then(
                context.ledger,
                asset_ids,
                known_at=await context.ledger.head() if known_at is None else known_at,
                valid_at=asked.valid_at,
            )
        return [found[name] for name in asset_ids]

    return await context.loader(("alerts then", asked), load).load(asset_id)
