"""Many things of the plant at once: by name, by kind in pages, with all above or all below them.

As `projections.plant.queries`, and as many statements for hundreds as for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from domain.plant.location import location_stream
from eventlog.ledger import Ledger
from projections.as_of import NOW, AsOf
from projections.plant.intervals import Facet
from projections.plant.queries import (
    DEPTH_MAX,
    ITEMS_MAX,
    ItemKind,
    PlantItem,
    check_size,
    described,
    holds,
    item_of,
    moment_of,
)


async def items_of(
    ledger: Ledger, streams: Sequence[str], as_of: AsOf = NOW
) -> dict[str, PlantItem]:
    """Return the locations, assets and components of `streams` that were known, by stream."""
    rows = await ledger.pool.fetch(
        _NAMED, ledger.ledger_id, *await moment_of(ledger, as_of), list(streams)
    )
    items = map(item_of, rows)
    return {item.stream: item for item in items if item.item_type is not None}


async def list_items(
    ledger: Ledger,
    kind: ItemKind,
    as_of: AsOf = NOW,
    *,
    after: str = "",
    first: int,
    item_types: Sequence[str] = (),
    places: Sequence[str] = (),
    with_ended: bool = False,
) -> list[PlantItem]:
    """Return at most `first` things of a kind beyond the id `after`, by id.

    Parameters
    ----------
    item_types : levels of locations, types of assets and components
    places : streams of what they stand in themselves
    with_ended : those that were given up, retired or scrapped too
    """
    prefix = f"{kind.value.lower()}:"
    rows = await ledger.pool.fetch(
        _LISTED,
        ledger.ledger_id,
        *await moment_of(ledger, as_of),
        prefix + after,
        prefix,
        list(item_types) or None,
        list(places) or None,
        with_ended,
        first,
    )
    return [item_of(row) for row in rows]


async def paths_of(
    ledger: Ledger, streams: Sequence[str], as_of: AsOf = NOW
) -> dict[str, list[PlantItem]]:
    """Return, for each of `streams`, what `projections.plant.queries.path_of` does.

    Raises
    ------
    InvalidInput
        ``plant.too_large``, ``as_of.ambiguous``
    """
    names = list(dict.fromkeys(streams))
    rows = await ledger.pool.fetch(_PATHS, ledger.ledger_id, *await moment_of(ledger, as_of), names)
    check_size(rows)
    paths: dict[str, list[PlantItem]] = {stream: [] for stream in names}
    for row in reversed(rows):
        paths[row["origin"]].append(item_of(row))
    return paths


async def forest_below(
    ledger: Ledger, location_ids: Sequence[str], as_of: AsOf = NOW
) -> list[PlantItem]:
    """Return locations and all locations and assets below them, each once, parents first.

    `depth` counts from the highest of `location_ids` that it stands below.

    Raises
    ------
    InvalidInput
        ``plant.too_large``, ``as_of.ambiguous``
    """
    roots = [location_stream(location_id) for location_id in location_ids]
    rows = await ledger.pool.fetch(
        _FOREST, ledger.ledger_id, *await moment_of(ledger, as_of), list(dict.fromkeys(roots))
    )
    check_size(rows)
    # One that was asked for, and that stands below another, has two rows: one knows where.
    items: dict[str, PlantItem] = {}
    for item in map(item_of, rows):
        if item.parent is not None or item.stream not in items:
            items[item.stream] = item
    return _parents_first(items)


def below(items: Sequence[PlantItem], location_id: str) -> list[PlantItem]:
    """Return those of a forest that stand in a location, or in what stands there; nearest first."""
    reached = {location_stream(location_id): 0}
    found = []
    for item in items:
        if item.parent in reached and item.stream not in reached:
            depth = reached[item.stream] = reached[item.parent] + 1
            found.append(replace(item, depth=depth))
    return sorted(found, key=lambda item: (item.depth, item.stream))


def _parents_first(items: Mapping[str, PlantItem]) -> list[PlantItem]:
    children: dict[str | None, list[PlantItem]] = {}
    for item in items.values():
        children.setdefault(item.parent if item.parent in items else None, []).append(item)
    ordered: dict[str, PlantItem] = {}
    level = children.get(None, [])
    while level:
        depth_of = {item.stream: item.depth for item in level}
        ordered.update({item.stream: item for item in level})
        level = [
            replace(child, depth=depth_of[stream] + 1)
            for stream in depth_of
            for child in children.get(stream, ())
            if child.stream not in ordered
        ]
    # Locations that stand in each other in a circle have no first; reality may be told so.
    return [*ordered.values(), *(item for name, item in items.items() if name not in ordered)]


# --- statements ---------------------------------------------------------------------------

_NAMED: Final = f"""
    with named as (
        select begun.subject, i.place, i.slot, i.valid_from as since, 0 as depth
        from unnest($4::text[]) as begun(subject) left join plant_interval i
            on i.subject = begun.subject and {holds("i", Facet.PLACE)}
    )
    {described("named")}
"""

_LISTED: Final = f"""
    select d.subject, p.place, p.slot, p.valid_from as since, 0 as depth, d.item_type, d.title,
        d.part_id, r.roll_up, r.required, e.subject is not null as ended
    from plant_interval d
    left join plant_interval p on p.subject = d.subject and {holds("p", Facet.PLACE)}
    left join plant_interval r on r.subject = d.subject and {holds("r", Facet.ROLL_UP)}
    left join plant_interval e on e.subject = d.subject and {holds("e", Facet.END)}
    where {holds("d", Facet.DESCRIPTION)} and d.subject > $4 and starts_with(d.subject, $5)
        and ($6::text[] is null or d.item_type = any($6))
        and ($7::text[] is null or p.place = any($7))
        and ($8 or e.subject is null)
    order by d.subject limit $9
"""

_PATHS: Final = f"""
    with recursive above as (
        select begun.subject as origin, begun.subject, i.place, i.slot, i.valid_from as since,
            0 as depth, array[begun.subject] as trail
        from unnest($4::text[]) as begun(subject) left join plant_interval i
            on i.subject = begun.subject and {holds("i", Facet.PLACE)}
        union all
        select above.origin, above.place, i.place, i.slot, i.valid_from, above.depth + 1,
            above.trail || above.place
        from above left join plant_interval i
            on i.subject = above.place and {holds("i", Facet.PLACE)}
        where above.place is not null and above.depth < {DEPTH_MAX}
            and above.place <> all (above.trail)
    ), bounded as materialized (select * from above limit {ITEMS_MAX + 1})
    {described("bounded", "s.origin,")}
"""

# Without a trail: what has been reached is not gone through again.
_FOREST: Final = f"""
    with recursive below(subject, place, slot, since) as (
        select begun.subject, null::text, null::text, null::timestamptz
        from unnest($4::text[]) as begun(subject)
        union
        select i.subject, i.place, i.slot, i.valid_from
        from below join plant_interval i
            on i.place = below.subject and {holds("i", Facet.PLACE)}
        where i.slot is null
    ), bounded as materialized (select *, 0 as depth from below limit {ITEMS_MAX + 1})
    {described("bounded")}
"""
