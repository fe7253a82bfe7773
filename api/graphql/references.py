"""Types that are named before they are made, so that objects of two domains may lead to each other.

A module that is imported by another cannot import it; where its types lead there all the same, it
names the type and where it is, and both are looked up once everything has been imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from strawberry.types.lazy_type import LazyType

from api.graphql.as_of import Asked
from api.graphql.context import OperationContext
from projections.twins.as_of import assets_as_of
from projections.twins.projection import AssetRow


def reference(name: str, module: str) -> Any:
    """Return the type `name` of `module`, for the argument `type` of `api.graphql.fields.field`."""
    return LazyType(name, module)


ASSETS_AT_ONCE: Final = 1_000

ASSET: Final = reference("Asset", "api.graphql.assets.types")


def told_asset(row: AssetRow, then: Asked | None = None) -> Any:
    """Return `row` as the schema tells it: an `Asset`; `then`: as of when, None: now."""
    return ASSET.resolve_type().of(row, then)


async def asset_named(
    context: OperationContext, asset_id: str | None, then: Asked | None = None
) -> Any:
    """Return the `Asset` called `asset_id`; None where there is none, or none in sight.

    Parameters
    ----------
    then : as of when; None: now
    """
    if asset_id is None:
        return None
    (found,) = await assets_named(context, [asset_id], then)
    return found


async def assets_named(
    context: OperationContext, asset_ids: Sequence[str], then: Asked | None = None
) -> list[Any]:
    """Return for each of `asset_ids` what `asset_named` does; read together, whoever asks."""
    if then is None or then.is_now:
        rows = await context.asset_by_asset_id.load_many(asset_ids)
        return [None if row is None else told_asset(row) for row in rows]

    async def load(names: list[str]) -> list[AssetRow | None]:
        sight = await context.sight()
        seen = [name for name in dict.fromkeys(names) if sight.sees_asset(name)]
        found: dict[str, AssetRow] = {}
        async with context.reads:
            for at in range(0, len(seen), ASSETS_AT_ONCE):
                part = seen[at : at + ASSETS_AT_ONCE]
                found |= await assets_as_of(context.ledger, part, then.as_of)
        return [found.get(name) for name in names]

    rows = await context.loader(("assets then", then), load).load_many(asset_ids)
    return [None if row is None else told_asset(row, then) for row in rows]
