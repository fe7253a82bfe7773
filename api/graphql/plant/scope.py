"""Which assets a question is about: those that it names, those below places, those in sight."""

from __future__ import annotations

from collections.abc import Sequence

from api.graphql.as_of import Asked
from api.graphql.context import OperationContext
from api.graphql.plant.loaders import item_named, items_below
from domain.plant.location import location_stream, unknown_location
from projections.plant.queries import ItemKind


async def assets_wanted(
    context: OperationContext,
    asked: Asked,
    asset_ids: Sequence[str],
    locations: Sequence[str],
) -> tuple[str, ...] | None:
    """Return the ids of those of `asset_ids`, or below `locations`, that are in sight.

    Both empty: all that is in sight; None: everything.

    Raises
    ------
    NotFound
        ``location.unknown``: nobody has defined it, or it is not in sight
    InvalidInput
        ``plant.too_large``
    """
    sight = await context.sight()
    if not asset_ids and not locations:
        return None if sight.asset_ids is None else tuple(sorted(sight.asset_ids))
    named = set(asset_ids)
    for location_id in locations:
        if await item_named(context, asked, location_stream(location_id)) is None:
            raise unknown_location(location_id)
        items = await items_below(context, asked, location_id)
        named.update(item.item_id for item in items if item.kind is ItemKind.ASSET)
    return tuple(sorted(asset_id for asset_id in named if sight.sees_asset(asset_id)))
