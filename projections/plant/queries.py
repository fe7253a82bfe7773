"""Questions about the plant: what stands below, what above, what in an asset's slots; then and now.

Every answer is as of a position of the log and a moment (`AsOf`), bounded, and one statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import asyncpg

from domain.asset import asset_stream
from domain.errors import InvalidInput
from domain.plant.location import RollUp, location_stream
from eventlog.ledger import Ledger
from eventlog.reading import position_at
from projections.as_of import NOW, AsOf
from projections.plant.intervals import KNOWN_STILL, VALID_STILL, Facet

ITEMS_MAX: Final = 10_000
"""What one answer holds at most."""

DEPTH_MAX: Final = 16
"""Levels that are gone down or up: ISA-95 has five, an asset and a component below them."""


# --- as of --------------------------------------------------------------------------------

_LAST_MOMENT: Final = VALID_STILL - timedelta(microseconds=1)


async def moment_of(ledger: Ledger, as_of: AsOf) -> tuple[int, datetime]:
    """Return (position, moment) that `as_of` asks for: what was known then of what was true then.

    Without a moment it is the last one: what nothing that is known has ended.

    Raises
    ------
    InvalidInput
        ``as_of.ambiguous`` when it names a position and a time of recording
    """
    if as_of.recorded_at is not None and as_of.position is not None:
        raise InvalidInput(
            "as_of.ambiguous",
            "as of a position or of a time of recording, not of both",
            value=as_of.position,
        )
    known = KNOWN_STILL - 1 if as_of.position is None else as_of.position
    if as_of.recorded_at is not None:
        known = await position_at(ledger, as_of.recorded_at)
    return known, as_of.valid_at or _LAST_MOMENT


def holds(alias: str, facet: Facet) -> str:
    """Return, in SQL, that an interval of `facet` held at the position $2 and the moment $3."""
    # What is known now is asked for most, and has an index of its own.
    return (
        f"{alias}.ledger_id = $1 and {alias}.facet = {facet:d} "
        f"and {alias}.known_from <= $2 and {alias}.known_to > $2 "
        f"and {alias}.valid_from <= $3 and {alias}.valid_to > $3"
    )


# --- queries ------------------------------------------------------------------------------


class ItemKind(StrEnum):
    """What stands in the plant."""

    LOCATION = "LOCATION"
    ASSET = "ASSET"
    COMPONENT = "COMPONENT"


@dataclass(frozen=True, slots=True)
class PlantItem:
    """A location, asset or component, where it stood and what it was.

    Parameters
    ----------
    item_type : a location's level, the type of an asset or component; None while only mentioned
    parent, slot : what it stood in, as a stream's name
    since : when it came to stand there
    depth : levels from where the question began
    ended : given up, retired or scrapped
    roll_up, required : how a location judged what stood in it
    """

    kind: ItemKind
    item_id: str
    item_type: str | None
    title: str | None
    part_id: str | None
    parent: str | None
    slot: str | None
    since: datetime | None
    depth: int
    ended: bool
    roll_up: RollUp
    required: int | None

    @property
    def stream(self) -> str:
        """Its stream."""
        return f"{self.kind.value.lower()}:{self.item_id}"


async def tree_below(
    ledger: Ledger,
    location_id: str,
    as_of: AsOf = NOW,
    *,
    depth_max: int = DEPTH_MAX,
    components: bool = True,
) -> list[PlantItem]:
    """Return a location and what stood in it, and in that, those nearer to it first.

    Raises
    ------
    InvalidInput
        ``plant.too_large`` when that is more than `ITEMS_MAX`, ``as_of.ambiguous``
    """
    rows = await ledger.pool.fetch(
        _TREE,
        ledger.ledger_id,
        *await moment_of(ledger, as_of),
        location_stream(location_id),
        min(depth_max, DEPTH_MAX),
        components,
    )
    return _items(rows)


async def path_of(ledger: Ledger, stream: str, as_of: AsOf = NOW) -> list[PlantItem]:
    """Return what the location, asset or component of `stream` stood in, from the top to itself.

    Its own `depth` is 0, that of the top the greatest. What stood in nothing is alone.
    """
    rows = await ledger.pool.fetch(_PATH, ledger.ledger_id, *await moment_of(ledger, as_of), stream)
    return _items(rows)[::-1]


async def components_of(
    ledger: Ledger, asset_ids: Sequence[str], as_of: AsOf = NOW
) -> dict[str, list[PlantItem]]:
    """Return what was installed in each of `asset_ids`, by its slot, in one statement."""
    found: dict[str, list[PlantItem]] = {asset_id: [] for asset_id in asset_ids}
    places = [asset_stream(asset_id) for asset_id in found]
    rows = await ledger.pool.fetch(
        _STANDING_IN, ledger.ledger_id, *await moment_of(ledger, as_of), places
    )
    for item in sorted(_items(rows), key=lambda item: (item.slot or "", item.item_id)):
        assert item.parent is not None
        found[item.parent.partition(":")[2]].append(item)
    return found


async def assets_of(ledger: Ledger, location_id: str, as_of: AsOf = NOW) -> list[PlantItem]:
    """Return the assets that stood in a location itself, not those below it, by their id."""
    rows = await ledger.pool.fetch(
        _STANDING_IN,
        ledger.ledger_id,
        *await moment_of(ledger, as_of),
        [location_stream(location_id)],
    )
    return [item for item in _items(rows) if item.kind is ItemKind.ASSET]


@dataclass(frozen=True, slots=True)
class Stay:
    """Where something stood and how long; `ended_at` None: nothing that is known has ended it."""

    subject: str
    place: str
    slot: str | None
    began_at: datetime
    ended_at: datetime | None
    source_position: int


async def stays_of(
    ledger: Ledger, streams: Sequence[str], as_of: AsOf = NOW
) -> dict[str, list[Stay]]:
    """Return where each of `streams` has stood up to the moment asked for, oldest first.

    Raises
    ------
    InvalidInput
        ``plant.too_large`` when those are more than `ITEMS_MAX`, ``as_of.ambiguous``
    """
    return await _stays(ledger, "subject", streams, as_of)


async def stays_in(
    ledger: Ledger, streams: Sequence[str], as_of: AsOf = NOW
) -> dict[str, list[Stay]]:
    """Return what has stood in each of `streams`, as `stays_of` does."""
    return await _stays(ledger, "place", streams, as_of)


async def _stays(
    ledger: Ledger, column: str, streams: Sequence[str], as_of: AsOf
) -> dict[str, list[Stay]]:
    known, moment = await moment_of(ledger, as_of)
    rows = await ledger.pool.fetch(
        f"""
        select subject, place, slot, valid_from, valid_to, source_position from plant_interval
        where ledger_id = $1 and facet = {Facet.PLACE:d} and {column} = any($4)
            and known_from <= $2 and known_to > $2 and valid_from <= $3
            and place is not null and valid_from < valid_to
        order by valid_from, source_position limit {ITEMS_MAX + 1}
        """,
        ledger.ledger_id,
        known,
        moment,
        list(streams),
    )
    check_size(rows)
    found: dict[str, list[Stay]] = {stream: [] for stream in streams}
    for row in rows:
        ends = row["valid_to"]
        stay = Stay(
            row["subject"],
            row["place"],
            row["slot"],
            row["valid_from"],
            None if ends > moment else ends,
            row["source_position"],
        )
        found[row[column]].append(stay)
    return _merged(found)


def _merged(found: dict[str, list[Stay]]) -> dict[str, list[Stay]]:
    """Return `found` with what was said twice, or said to have ended without an end, as one."""
    for stream, stays in found.items():
        merged: list[Stay] = []
        last: dict[str, int] = {}
        for stay in stays:
            at = last.get(stay.subject)
            if at is not None and (merged[at].place, merged[at].slot, merged[at].ended_at) == (
                stay.place,
                stay.slot,
                stay.began_at,
            ):
                merged[at] = replace(merged[at], ended_at=stay.ended_at)
            else:
                last[stay.subject] = len(merged)
                merged.append(stay)
        found[stream] = merged
    return found


# --- statements ---------------------------------------------------------------------------


def described(source: str, more: str = "") -> str:
    """Return the end of a statement that says of what `source` names what it was.

    Its columns are those that `item_of` reads, and `more`.
    """
    return f"""
        select {more} s.subject, s.place, s.slot, s.since, s.depth, d.item_type, d.title, d.part_id,
            r.roll_up, r.required, e.subject is not null as ended
        from {source} s
        left join plant_interval d on d.subject = s.subject and {holds("d", Facet.DESCRIPTION)}
        left join plant_interval r on r.subject = s.subject and {holds("r", Facet.ROLL_UP)}
        left join plant_interval e on e.subject = s.subject and {holds("e", Facet.END)}
        order by s.depth, s.subject
    """


_TREE: Final = f"""
    with recursive below as (
        select $4::text as subject, null::text as place, null::text as slot,
            null::timestamptz as since, 0 as depth, array[$4::text] as trail
        union all
        select i.subject, i.place, i.slot, i.valid_from, below.depth + 1, below.trail || i.subject
        from below join plant_interval i
            on i.place = below.subject and {holds("i", Facet.PLACE)}
        where below.depth < $5 and i.subject <> all (below.trail) and ($6 or i.slot is null)
    ), bounded as materialized (select * from below limit {ITEMS_MAX + 1})
    {described("bounded")}
"""

_PATH: Final = f"""
    with recursive above as (
        select begun.subject, i.place, i.slot, i.valid_from as since, 0 as depth,
            array[begun.subject] as trail
        from (select $4::text as subject) begun left join plant_interval i
            on i.subject = begun.subject and {holds("i", Facet.PLACE)}
        union all
        select above.place, i.place, i.slot, i.valid_from, above.depth + 1,
            above.trail || above.place
        from above left join plant_interval i
            on i.subject = above.place and {holds("i", Facet.PLACE)}
        where above.place is not null and above.depth < {DEPTH_MAX}
            and above.place <> all (above.trail)
    )
    {described("above")}
"""

_STANDING_IN: Final = f"""
    with standing as materialized (
        select i.subject, i.place, i.slot, i.valid_from as since, 1 as depth
        from plant_interval i
        where i.place = any($4) and {holds("i", Facet.PLACE)} limit {ITEMS_MAX + 1}
    )
    {described("standing")}
"""


# --- rows ---------------------------------------------------------------------------------


def _items(rows: Sequence[asyncpg.Record]) -> list[PlantItem]:
    check_size(rows)
    return [item_of(row) for row in rows]


def check_size(rows: Sequence[asyncpg.Record]) -> None:
    """Raise `InvalidInput` (``plant.too_large``) where there are more than `ITEMS_MAX`."""
    if len(rows) > ITEMS_MAX:
        raise InvalidInput(
            "plant.too_large",
            f"that is more than {ITEMS_MAX} things",
            hint="ask for a part of the plant, or for fewer levels",
            limit=ITEMS_MAX,
        )


def item_of(row: asyncpg.Record) -> PlantItem:
    """Return the item that a row of `described` tells."""
    category, _, item_id = row["subject"].partition(":")
    return PlantItem(
        kind=ItemKind(category.upper()),
        item_id=item_id,
        item_type=row["item_type"],
        title=row["title"],
        part_id=row["part_id"],
        parent=row["place"],
        slot=row["slot"],
        since=row["since"],
        depth=row["depth"],
        ended=row["ended"],
        roll_up=RollUp(row["roll_up"] or RollUp.WORST),
        required=row["required"],
    )
