"""Queries of assets: one by its natural key, lists by key, and the catalogue of types."""

from __future__ import annotations

from typing import Annotated, Final

import strawberry

from api.access.rights import Right
from api.graphql.assets.catalogue import AssetType
from api.graphql.assets.types import Asset, AssetFilter
from api.graphql.context import MinPosition, OperationInfo
from api.graphql.fields import field
from api.graphql.filters import chosen
from api.graphql.relay import (
    After,
    Connection,
    First,
    check_first,
    connection,
    decode_text_cursor,
    encode_cursor,
)
from domain.asset_types import asset_type, asset_types
from domain.identifiers import check_identifier
from projections.alerts import AlertProjection
from projections.twins import TwinProjection, list_assets, projection_position

CURSOR_KIND: Final = "assets"


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
        min_position: MinPosition = None,
    ) -> Asset | None:
        """Return one asset."""
        check_identifier("asset", asset_id)
        await info.context.wait_for(min_position, TwinProjection.name, AlertProjection.name)
        row = await info.context.asset_by_asset_id.load(asset_id)
        return None if row is None else Asset.of(row)

    @field(right=Right.READ, description="Assets in the order of their natural key.")
    async def assets(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            AssetFilter | None, strawberry.argument(description="Which assets are wanted.")
        ] = None,
        min_position: MinPosition = None,
    ) -> Connection[Asset]:
        """Return a page of assets."""
        check_first(first)
        wanted = filter or AssetFilter()
        types = chosen("assetTypes", wanted.asset_types)
        for name in types:
            asset_type(name)
        ledger = info.context.ledger
        key = "" if after is None else decode_text_cursor(after, CURSOR_KIND, ledger.name)
        await info.context.wait_for(min_position, TwinProjection.name, AlertProjection.name)
        async with info.context.reads:
            position = await projection_position(ledger.pool, ledger.ledger_id, TwinProjection.name)
            rows = await list_assets(
                ledger,
                after=key,
                first=first + 1,
                asset_types=types,
                lifecycles=chosen("lifecycles", wanted.lifecycles),
            )
        return connection(
            rows,
            first=first,
            after=after,
            position=position,
            node=Asset.of,
            cursor=lambda row: encode_cursor(CURSOR_KIND, ledger.name, row.asset_id),
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
