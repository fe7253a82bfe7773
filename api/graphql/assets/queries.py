"""Queries of assets: one by its natural key, lists by key, and the catalogue of types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import strawberry

from api.access.rights import Right
from api.graphql.as_of import Asked, AsOfArgument, asked
from api.graphql.assets.catalogue import AssetType
from api.graphql.assets.loaders import ASSETS_THEN, asset_then
from api.graphql.assets.types import Asset, AssetFilter
from api.graphql.context import MinPosition, OperationContext, OperationInfo
from api.graphql.fields import field
from api.graphql.filters import chosen
from api.graphql.plant.scope import assets_wanted
from api.graphql.relay import (
    After,
    Connection,
    First,
    check_first,
    connection,
    decode_text_cursor,
    encode_cursor,
)
from api.graphql.scalars import Cursor
from domain.asset_types import asset_type, asset_types
from domain.identifiers import check_identifier
from projections.alerts.projection import AlertProjection
from projections.plant.lists import list_items
from projections.plant.projection import PlantProjection
from projections.plant.queries import ItemKind
from projections.twins.as_of import assets_as_of
from projections.twins.projection import AssetRow, Lifecycle, TwinProjection, list_assets

CURSOR_KIND: Final = "assets"
PROJECTIONS_NOW: Final = (TwinProjection.name, AlertProjection.name)


@strawberry.type
class AssetQueries:
    """Root fields."""

    @field(
        right=Right.READ, description="The asset with this natural key; null where there is none."
    )
    async def asset(
        self,
        info: OperationInfo,
        asset_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the asset.")
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Asset | None:
        """Return one asset."""
        check_identifier("asset", asset_id)
        context = info.context
        if as_of is None:
            await context.wait_for(min_position, TwinProjection.name, AlertProjection.name)
            row = await context.asset_by_asset_id.load(asset_id)
            return None if row is None else Asset.of(row)
        when = await asked(context, as_of, min_position, *ASSETS_THEN)
        if when.is_now:
            row = await context.asset_by_asset_id.load(asset_id)
            return None if row is None else Asset.of(row)
        then = await asset_then(context, when, asset_id)
        return None if then is None else Asset.of(then, when)

    @field(
        right=Right.READ,
        description="Assets in the order of their natural key. As of earlier a page may hold fewer "
        "than `first` where a filter on lifecycles lets few through; "
        "`pageInfo.hasNextPage` says whether to go on.",
    )
    async def assets(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            AssetFilter | None, strawberry.argument(description="Which assets are wanted.")
        ] = None,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[Asset]:
        """Return a page of assets."""
        check_first(first)
        wanted = filter or AssetFilter()
        types = chosen("assetTypes", wanted.asset_types)
        for name in types:
            asset_type(name)
        lifecycles = chosen("lifecycles", wanted.lifecycles)
        locations = chosen("locations", wanted.locations)
        context = info.context
        ledger = context.ledger
        key = "" if after is None else decode_text_cursor(after, CURSOR_KIND, ledger.name)
        names: tuple[str, ...] = PROJECTIONS_NOW if as_of is None else ASSETS_THEN
        if locations:
            names = (*names, PlantProjection.name)
        when = await asked(context, as_of, min_position, *names)
        within = await assets_wanted(context, when, (), locations)
        if not when.is_now:
            return await _page_then(context, when, within, types, lifecycles, first, after, key)
        async with context.reads:
            rows = await list_assets(
                ledger,
                after=key,
                first=first + 1,
                asset_types=types,
                lifecycles=lifecycles,
                seen=within,
            )
        return connection(
            rows,
            first=first,
            after=after,
            position=when.position,
            node=Asset.of,
            cursor=lambda row: encode_cursor(CURSOR_KIND, ledger.name, row.asset_id),
            kept_by="asset_id",
        )

    @field(right=Right.READ, description="Every asset type that this server knows, by name.")
    def asset_types(self) -> list[AssetType]:
        """Return the catalogue of asset types."""
        return [AssetType.of(described) for _, described in sorted(asset_types().items())]

    @field(right=Right.READ, description="The asset type of this name; null where there is none.")
    def asset_type(
        self,
        name: Annotated[str, strawberry.argument(description="Name of the asset type.")],
    ) -> AssetType | None:
        """Return one asset type."""
        described = asset_types().get(name)
        return None if described is None else AssetType.of(described)


async def _page_then(
    context: OperationContext,
    when: Asked,
    within: Sequence[str] | None,
    types: Sequence[str],
    lifecycles: Sequence[Lifecycle],
    first: int,
    after: Cursor | None,
    key: str,
) -> Connection[Asset]:
    """Return a page of assets as of earlier: by name from the plant, then by their facts."""
    ledger = context.ledger
    if within is None:
        async with context.reads:
            items = await list_items(
                ledger,
                ItemKind.ASSET,
                when.as_of,
                after=key,
                first=first + 1,
                item_types=types,
                with_ended=True,
            )
        names = [item.item_id for item in items]
    else:
        names = [name for name in within if name > key][: first + 1]
    rows = await _assets_then(context, when, names[:first])
    return connection(
        [
            row
            for row in rows
            if (not types or row.asset_type in types)
            and (not lifecycles or row.lifecycle in lifecycles)
        ],
        first=first,
        after=after,
        position=when.position,
        node=lambda row: Asset.of(row, when),
        cursor=lambda row: encode_cursor(CURSOR_KIND, ledger.name, row.asset_id),
        goes_on_after=encode_cursor(CURSOR_KIND, ledger.name, names[first - 1])
        if len(names) > first
        else None,
    )


async def _assets_then(
    context: OperationContext, when: Asked, names: Sequence[str]
) -> list[AssetRow]:
    """Return those of `names` that were registered as of earlier and are in sight, in order."""
    sight = await context.sight()
    async with context.reads:
        found = await assets_as_of(
            context.ledger, [name for name in names if sight.sees_asset(name)], when.as_of
        )
    return [found[name] for name in names if name in found]
