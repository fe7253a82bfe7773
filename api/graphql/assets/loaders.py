"""Assets, their twins and alerts as of earlier."""

from __future__ import annotations

from typing import Final

from api.graphql.as_of import Asked
from api.graphql.context import AlertPage, OperationContext
from domain.asset import unknown_asset
from domain.errors import InvalidInput
from projections.alerts import AlertRow
from projections.alerts_as_of import alerts_then
from projections.twin_as_of import twin_as_of
from projections.twins import Twin

TWINS_THEN_MAX: Final = 200
"""Twins as of earlier in one operation: each costs some statements."""


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

    rows = await context.loader(("alerts then", asked), load).load(page.asset_id)
    wanted = [
        row
        for row in rows
        if (page.before is None or row.position < page.before)
        and (not page.severities or row.severity in page.severities)
        and (not page.states or row.state in page.states)
    ]
    return wanted[: page.first]
