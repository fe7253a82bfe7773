"""`node`: anything with a global id, found by it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Final
from uuid import UUID

import strawberry

from api.access.rights import Right
from api.graphql.assets.catalogue import ASSET_TYPE, AssetType
from api.graphql.assets.types import ALERT, ASSET, Alert, Asset
from api.graphql.context import MinPosition, OperationContext, OperationInfo
from api.graphql.events.types import EVENT, Event
from api.graphql.fields import field
from api.graphql.relay import Node, decode_id
from domain.asset_types import asset_types
from domain.errors import InvalidInput
from eventlog.reading import read_event
from projections.alerts import AlertProjection, find_alert
from projections.twins import TwinProjection

POSITION_DIGITS_MAX: Final = 16


@strawberry.type
class NodeQueries:
    """Root fields."""

    @field(
        right=Right.READ,
        description="Whatever has this global id; null where it is not, or no longer, known.",
    )
    async def node(
        self,
        info: OperationInfo,
        id: Annotated[
            strawberry.ID, strawberry.argument(description="A global id as the API returned it.")
        ],
        min_position: MinPosition = None,
    ) -> Node | None:
        """Return the object with a global id."""
        kind, key = decode_id(id)
        find = _FINDERS.get(kind)
        if find is None:
            raise InvalidInput("id.malformed", f"{id!r:.80} is the id of no known kind", value=id)
        await info.context.wait_for(min_position, TwinProjection.name, AlertProjection.name)
        return await find(info.context, key)


async def _find_asset(context: OperationContext, asset_id: str) -> Node | None:
    row = await context.asset_by_asset_id.load(asset_id)
    return None if row is None else Asset.of(row)


async def _find_asset_type(_context: OperationContext, name: str) -> Node | None:
    described = asset_types().get(name)
    return None if described is None else AssetType.of(described)


async def _find_alert(context: OperationContext, alert_id: str) -> Node | None:
    try:
        key = UUID(alert_id)
    except ValueError:
        return None
    row = await find_alert(context.ledger, key)
    return None if row is None else Alert.of(row)


async def _find_event(context: OperationContext, position: str) -> Node | None:
    if not (position.isascii() and position.isdigit() and len(position) <= POSITION_DIGITS_MAX):
        return None
    event = await read_event(context.ledger, int(position))
    return None if event is None else Event.of(event)


_FINDERS: Final[Mapping[str, Callable[[OperationContext, str], Awaitable[Node | None]]]] = {
    ASSET: _find_asset,
    ASSET_TYPE: _find_asset_type,
    ALERT: _find_alert,
    EVENT: _find_event,
}
