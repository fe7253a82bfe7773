"""What an operation reads of the plant, each in one statement for all that ask alike."""

from __future__ import annotations

from datetime import datetime

from api.graphql.as_of import Asked
from api.graphql.context import OperationContext
from domain.plant.location import unknown_location
from eventlog.reading import read_event
from projections.as_of import AsOf
from projections.plant.lists import below, forest_below, items_of, paths_of
from projections.plant.queries import ItemKind, PlantItem, Stay, components_of, stays_of
from projections.plant.twins import LocationTwin, location_twins, location_twins_of


async def item_named(context: OperationContext, asked: Asked, stream: str) -> PlantItem | None:
    """Return the location, asset or component of `stream`; None where none is, or in sight."""

    async def load(streams: list[str]) -> list[PlantItem | None]:
        visible = await (await context.sight()).visible(streams)
        async with context.reads:
            found = await items_of(context.ledger, sorted(visible), asked.as_of)
        return [found.get(stream) for stream in streams]

    return await context.loader(("plant item", asked), load).load(stream)


async def path_to(context: OperationContext, asked: Asked, stream: str) -> list[PlantItem]:
    """Return what `stream` stands in, from the top to itself, as far as its name may be told."""

    async def load(streams: list[str]) -> list[list[PlantItem]]:
        async with context.reads:
            paths = await paths_of(context.ledger, streams, asked.as_of)
        sight = await context.sight()
        told = await sight.visible({item.stream for path in paths.values() for item in path})
        return [
            [
                item
                for item in paths[name]
                if item.stream in told
                or (item.kind is ItemKind.LOCATION and sight.names_location(item.item_id))
            ]
            for name in streams
        ]

    return await context.loader(("plant path", asked), load).load(stream)


async def items_below(context: OperationContext, asked: Asked, location_id: str) -> list[PlantItem]:
    """Return locations and assets below a location that are in sight, the nearest first."""

    async def load(location_ids: list[str]) -> list[list[PlantItem]]:
        async with context.reads:
            forest = await forest_below(context.ledger, location_ids, asked.as_of)
        visible = await (await context.sight()).visible({item.stream for item in forest})
        seen = [item for item in forest if item.stream in visible]
        return [below(seen, location_id) for location_id in location_ids]

    return await context.loader(("plant below", asked), load).load(location_id)


async def components_in(context: OperationContext, asked: Asked, asset_id: str) -> list[PlantItem]:
    """Return what is installed in an asset, by slot."""

    async def load(asset_ids: list[str]) -> list[list[PlantItem]]:
        async with context.reads:
            found = await components_of(context.ledger, asset_ids, asked.as_of)
        return [found[asset_id] for asset_id in asset_ids]

    return await context.loader(("plant components", asked), load).load(asset_id)


async def stays_by(context: OperationContext, asked: Asked, stream: str) -> list[Stay]:
    """Return where `stream` has stood, oldest first, as far as that is in sight."""

    async def load(streams: list[str]) -> list[list[Stay]]:
        as_of = asked.as_of
        if as_of.valid_at is None:  # what is still to come is no stay yet
            as_of = AsOf(as_of.position, None, context.now)
        async with context.reads:
            found = await stays_of(context.ledger, streams, as_of)
        visible = await (await context.sight()).visible(
            {stay.place for stays in found.values() for stay in stays}
        )
        return [[stay for stay in found[name] if stay.place in visible] for name in streams]

    return await context.loader(("plant stays", asked), load).load(stream)


async def location_twin(
    context: OperationContext, asked: Asked, location_id: str
) -> tuple[int, datetime, LocationTwin]:
    """Return the position that a location's twin reflects, when it was judged, and the twin.

    Now in as many statements for many as for one; as of earlier each costs some.

    Raises
    ------
    NotFound
        ``location.unknown``
    InvalidInput, Unavailable
        as `projections.plant.twins`
    """

    async def load(location_ids: list[str]) -> list[tuple[int, datetime, LocationTwin]]:
        ledger = context.ledger
        seen = (await context.sight()).asset_ids
        async with context.reads:
            if asked.is_now:
                position, found = await location_twins_of(
                    ledger, location_ids, context.now, assets=seen
                )
                for name in location_ids:
                    if name not in found:
                        raise unknown_location(name)
                return [(position, context.now, found[name]) for name in location_ids]
            judged_at = await _judged_at(context, asked)
            twins = [
                await location_twins(ledger, name, judged_at, asked.as_of, assets=seen)
                for name in location_ids
            ]
        return [
            (twin.position, judged_at, twin.locations[name])
            for name, twin in zip(location_ids, twins, strict=True)
        ]

    return await context.loader(("location twin", asked), load).load(location_id)


async def _judged_at(context: OperationContext, asked: Asked) -> datetime:
    """Return when readings' ages are judged: then, and not now."""
    if asked.judged_at is not None:
        return asked.judged_at
    event = None if not asked.known_at else await read_event(context.ledger, asked.known_at)
    return context.now if event is None else event.recorded_at
