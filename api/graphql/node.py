"""`node` and `nodes`: anything with a global id, found by it, as of any time.

Each domain has a function that finds one of its kind: ``find_<kind>(context, key, asked)``, None
where there is none, or none in sight. `FINDERS` says which kind is found how.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from api.access.rights import Right
from api.graphql.as_of import Asked, AsOf, AsOfArgument, asked
from api.graphql.assets.catalogue import ASSET_TYPE, AssetType
from api.graphql.assets.loaders import ASSETS_THEN, alert_rows_then, asset_then
from api.graphql.assets.types import ALERT, ASSET, Alert, Asset
from api.graphql.context import MinPosition, OperationContext, OperationInfo
from api.graphql.documents import types as documents
from api.graphql.events.types import EVENT, Event
from api.graphql.fields import field
from api.graphql.learning import types as learning
from api.graphql.maintenance import spare_parts_types as spare_parts
from api.graphql.maintenance import types as maintenance
from api.graphql.material import types as material
from api.graphql.plant import types as plant
from api.graphql.production import types as production
from api.graphql.quality import types as quality
from api.graphql.relay import Node, decode_id
from api.graphql.scenarios import types as scenarios
from api.graphql.webhooks import types as webhooks
from domain.asset_types import asset_types
from domain.errors import InvalidInput
from eventlog.reading import read_event
from projections.alerts.projection import AlertProjection, find_alert
from projections.maintenance.projection import MaintenanceProjection
from projections.plant.projection import PlantProjection
from projections.production.projection import ProductionProjection
from projections.twins.projection import TwinProjection

NODES_MAX: Final = 100
POSITION_DIGITS_MAX: Final = 16

Find = Callable[[OperationContext, str, Asked], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Finder:
    """How a kind of thing is found.

    Parameters
    ----------
    projections : names of those whose rows tell of it; none where the log does by itself
    then : those that tell of it as of earlier, where that takes others
    """

    find: Find
    projections: tuple[str, ...] = ()
    then: tuple[str, ...] = ()

    def reads(self, as_of: AsOf | None) -> tuple[str, ...]:
        """Return the projections that tell of it as of `as_of`."""
        return self.projections if as_of is None else self.then or self.projections


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
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Node | None:
        """Return the object with a global id."""
        found: list[Node | None] = await _found(info.context, [id], as_of, min_position)
        return found[0]

    @field(
        right=Right.READ,
        description="Whatever has these global ids, in their order; null in the place of what is "
        f"not, or no longer, known. At most {NODES_MAX}; a kind of thing is read at once.",
    )
    async def nodes(
        self,
        info: OperationInfo,
        ids: Annotated[
            list[strawberry.ID],
            strawberry.argument(description="Global ids as the API returned them."),
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> list[Node | None]:
        """Return the objects with global ids."""
        return await _found(info.context, ids, as_of, min_position)


async def _found(
    context: OperationContext,
    ids: Sequence[strawberry.ID],
    as_of: AsOf | None,
    min_position: int | None,
) -> list[Any]:
    """Return the objects with these global ids; None for what is unknown, or out of sight.

    Raises
    ------
    InvalidInput
        ``node.too_many``, ``id.malformed``, and as `api.graphql.as_of.asked`
    """
    if len(ids) > NODES_MAX:
        raise InvalidInput(
            "node.too_many",
            f"{len(ids)} ids at once are more than {NODES_MAX}",
            value=len(ids),
            limit=NODES_MAX,
        )
    wanted = [_finder(id) for id in ids]
    waited = sorted({name for finder, _ in wanted for name in finder.reads(as_of)})
    when = await asked(context, as_of, min_position, *waited)
    return await asyncio.gather(*(finder.find(context, key, when) for finder, key in wanted))


def _finder(id: str) -> tuple[Finder, str]:
    kind, key = decode_id(id)
    found = FINDERS.get(kind)
    if found is None:
        raise InvalidInput("id.malformed", f"{id!r:.80} is the id of no known kind", value=id[:80])
    return found, key


# --- what projections and the catalogue tell --------------------------------------------------


async def _find_asset(context: OperationContext, asset_id: str, when: Asked) -> Node | None:
    if when.is_now:
        row = await context.asset_by_asset_id.load(asset_id)
        return None if row is None else Asset.of(row)
    row = await asset_then(context, when, asset_id)
    return None if row is None else Asset.of(row, when)


async def _find_asset_type(_context: OperationContext, name: str, _when: Asked) -> Node | None:
    described = asset_types().get(name)
    return None if described is None else AssetType.of(described)


async def _find_alert(context: OperationContext, alert_id: str, when: Asked) -> Node | None:
    try:
        key = UUID(alert_id)
    except ValueError:
        return None
    row = await find_alert(context.ledger, key)
    if row is None or not (await context.sight()).sees_asset(row.asset_id):
        return None
    if when.is_now:
        return Alert.of(row)
    then = await alert_rows_then(context, when, row.asset_id)
    return next((Alert.of(told) for told in then if told.alert_id == key), None)


async def _find_event(context: OperationContext, position: str, when: Asked) -> Node | None:
    if not (position.isascii() and position.isdigit() and len(position) <= POSITION_DIGITS_MAX):
        return None
    if when.known_at is not None and int(position) > when.known_at:
        return None
    event = await read_event(context.ledger, int(position))
    if event is None or not await (await context.sight()).visible([event.stream]):
        return None
    return Event.of(event)


FINDERS: Final[Mapping[str, Finder]] = {
    ASSET: Finder(_find_asset, (TwinProjection.name,), ASSETS_THEN),
    ASSET_TYPE: Finder(_find_asset_type),
    ALERT: Finder(_find_alert, (AlertProjection.name,)),
    EVENT: Finder(_find_event),
    plant.LOCATION: Finder(plant.find_location, (PlantProjection.name,)),
    plant.COMPONENT: Finder(plant.find_component, (PlantProjection.name,)),
    maintenance.WORK_ORDER: Finder(maintenance.find_work_order, (MaintenanceProjection.name,)),
    production.PROCESS_RUN: Finder(production.find_process_run, (ProductionProjection.name,)),
    material.LOT: Finder(material.find_lot),
    material.PART: Finder(material.find_part),
    documents.DOCUMENT: Finder(documents.find_document),
    documents.DOCUMENT_REVISION: Finder(documents.find_document_revision),
    quality.INSPECTION: Finder(quality.find_inspection),
    quality.NONCONFORMANCE: Finder(quality.find_nonconformance),
    quality.INSTRUMENT: Finder(quality.find_instrument),
    learning.MODEL: Finder(learning.find_model),
    learning.PREDICTION: Finder(learning.find_prediction),
    scenarios.SCENARIO: Finder(scenarios.find_scenario),
    scenarios.SETPOINT_PROPOSAL: Finder(scenarios.find_setpoint_proposal),
    spare_parts.SPARE_PART: Finder(spare_parts.find_spare_part),
    webhooks.WEBHOOK: Finder(webhooks.find_webhook, webhooks.PROJECTIONS),
}
"""By the kind that a global id names: the name of its type in the schema."""
