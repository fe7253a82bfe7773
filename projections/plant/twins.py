"""Twins of what is more, or less, than an asset: of locations, rolled up, and of components.

A location's twin is made when it is read, from the twins of what stands in it, level by level and
as each level declares (`domain.plant.roll_up`): that of a line or cell is the twin of a process,
that of an area, site or enterprise the twin of a system. Assets count whether they are in service
or not; what was retired or given up does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from domain.errors import InvalidInput
from domain.health import HealthStatus
from domain.plant.location import Level, location_stream, unknown_location
from domain.plant.roll_up import MemberHealth, Rule, rolled_up_grade, rolled_up_health
from eventlog.ledger import Ledger
from projections.as_of import NOW, AsOf
from projections.plant.lists import forest_below
from projections.plant.projection import PlantProjection
from projections.plant.queries import (
    ItemKind,
    PlantItem,
    components_of,
    moment_of,
    stays_of,
    tree_below,
)
from projections.twins.as_of import twin_as_of
from projections.twins.projection import (
    Connectivity,
    Twin,
    TwinProjection,
    find_assets,
    projection_position,
    twins_by_asset_id,
)

ASSETS_MAX: Final = 2_000
"""Assets below a location whose twin is asked for."""

ASSETS_AS_OF_MAX: Final = 200
"""The same as of an earlier position or moment, where each asset costs some statements."""

CONCERNS_MAX: Final = 20
"""Members that a location's twin names as those of concern."""


class TwinKind(StrEnum):
    """The four kinds of twins."""

    COMPONENT = "COMPONENT"
    ASSET = "ASSET"
    PROCESS = "PROCESS"  # a line or cell: a work centre or work unit of ISA-95
    SYSTEM = "SYSTEM"  # what is above


# --- locations ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Member:
    """What stands in a location, by its stream, and how it does."""

    stream: str
    title: str | None
    health: MemberHealth


@dataclass(frozen=True, slots=True)
class LocationTwin:
    """The state of a location, by what stands in it.

    Parameters
    ----------
    parent_id : the location it stands in, None for the one that was asked for
    rule : how it judges, as declared
    health, connectivity : by that rule, of its members; None where nothing stands in it or it
        cannot be known
    members : what stands in it itself: locations and assets
    concerns : those of its members that are not GOOD, the worst first, at most `CONCERNS_MAX`
    assets : of all assets below it, whatever lies between, how many are of each health
    connected : the same by connectivity
    open_alert_count : of all assets below it
    """

    location_id: str
    level: Level | None
    title: str | None
    parent_id: str | None
    rule: Rule
    health: MemberHealth
    connectivity: Connectivity | None
    members: int
    concerns: tuple[Member, ...]
    assets: Mapping[HealthStatus, int]
    connected: Mapping[Connectivity, int]
    open_alert_count: int

    @property
    def kind(self) -> TwinKind:
        """What kind of twin it is."""
        process = self.level in (Level.LINE, Level.CELL)
        return TwinKind.PROCESS if process else TwinKind.SYSTEM


@dataclass(frozen=True, slots=True)
class PlantTwins:
    """A location's twin and those of all below it, judged at `as_of`.

    Parameters
    ----------
    position : what all of them reflect
    locations : by id, the one that was asked for first
    assets : by id
    """

    as_of: datetime
    position: int
    locations: Mapping[str, LocationTwin]
    assets: Mapping[str, Twin]


async def location_twins(
    ledger: Ledger,
    location_id: str,
    now: datetime,
    as_of: AsOf = NOW,
    *,
    assets: Collection[str] | None = None,
) -> PlantTwins:
    """Return the twins of a location and of what is below it, judged at `now`.

    Parameters
    ----------
    assets : only these are looked at; None: all that stood there

    Raises
    ------
    NotFound
        ``location.unknown``: nobody had defined it
    InvalidInput
        ``plant.too_large``, ``as_of.ambiguous``
    Unavailable
        ``twin.history_behind``, of an earlier position or moment
    """
    standing = as_of if as_of.valid_at else AsOf(as_of.position, as_of.recorded_at, now)
    tree = await tree_below(ledger, location_id, standing, components=False)
    if tree[0].item_type is None:
        raise unknown_location(location_id)
    if assets is not None:
        tree = [i for i in tree if i.kind is not ItemKind.ASSET or i.item_id in assets]
    asset_ids = _assets_in(tree)
    if as_of == NOW:
        _check_size(asset_ids, ASSETS_MAX)
        position, twins = await _live_twins(ledger, asset_ids, now)
    else:
        _check_size(asset_ids, ASSETS_AS_OF_MAX)
        known, _ = await moment_of(ledger, as_of)
        position, twins = min(known, await ledger.head()), {}
        for asset_id in asset_ids:
            found = await twin_as_of(ledger, asset_id, as_of, judged_at=now)
            if found is not None:
                twins[asset_id] = found[1]
    return PlantTwins(now, position, _rolled_up(tree, twins), twins)


async def location_twins_of(
    ledger: Ledger,
    location_ids: Sequence[str],
    now: datetime,
    *,
    assets: Collection[str] | None = None,
) -> tuple[int, dict[str, LocationTwin]]:
    """Return the twins of locations as they are, by id, and the position that they reflect.

    It takes as many statements for many as for one. A location that nobody has defined has none.
    `assets` as in `location_twins`.

    Raises
    ------
    InvalidInput
        ``plant.too_large``: beyond `ASSETS_MAX` assets below all of them together
    """
    forest = await forest_below(ledger, location_ids, AsOf(valid_at=now))
    if assets is not None:
        forest = [i for i in forest if i.kind is not ItemKind.ASSET or i.item_id in assets]
    asset_ids = _assets_in(forest)
    _check_size(asset_ids, ASSETS_MAX)
    position, twins = await _live_twins(ledger, asset_ids, now)
    found = _rolled_up(forest, twins, frozenset(map(location_stream, location_ids)))
    return position, {
        location_id: found[location_id]
        for location_id in location_ids
        if location_id in found and found[location_id].level is not None
    }


def _assets_in(tree: Sequence[PlantItem]) -> list[str]:
    return [item.item_id for item in tree if item.kind is ItemKind.ASSET and not item.ended]


async def _live_twins(
    ledger: Ledger, asset_ids: Sequence[str], now: datetime
) -> tuple[int, dict[str, Twin]]:
    positions = [
        await projection_position(ledger.pool, ledger.ledger_id, name)
        for name in (PlantProjection.name, TwinProjection.name)
    ]
    assets = await find_assets(ledger, asset_ids)
    return min(positions), await twins_by_asset_id(ledger, list(assets.values()), now)


def _check_size(asset_ids: Sequence[str], limit: int) -> None:
    if len(asset_ids) > limit:
        raise InvalidInput(
            "plant.too_large",
            f"{len(asset_ids)} assets stand there, more than {limit}",
            hint="ask for a part of the plant",
            value=len(asset_ids),
            limit=limit,
        )


# --- roll-up ------------------------------------------------------------------------------

_CONNECTIVITIES: Final = (Connectivity.ONLINE, Connectivity.STALE, Connectivity.NEVER_SEEN)
_STATUSES_BY_CONCERN: Final = (
    HealthStatus.CRITICAL,
    HealthStatus.WARNING,
    HealthStatus.UNKNOWN,
    HealthStatus.GOOD,
)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What a member brings to the location it stands in."""

    member: Member
    connectivity: Connectivity | None
    assets: Counter[HealthStatus]
    connected: Counter[Connectivity]
    open_alert_count: int


def _rolled_up(
    tree: Sequence[PlantItem], twins: Mapping[str, Twin], wanted: frozenset[str] = frozenset()
) -> dict[str, LocationTwin]:
    """Return the twins of the locations of `tree`, which has parents before their children.

    What has ended counts for nothing, but has a twin where it is `wanted`.
    """
    judged: dict[str, list[_Judged]] = {}
    locations: dict[str, LocationTwin] = {}
    for item in reversed(tree):
        ended = item.ended and item.depth > 0
        if ended and item.stream not in wanted:
            continue
        if item.kind is ItemKind.LOCATION:
            twin = _location_twin(item, judged.get(item.stream, []))
            locations[item.item_id] = twin
            brings = _of_location(item, twin)
        else:
            brings = _of_asset(item, twins.get(item.item_id))
        if item.parent is not None and not ended:
            judged.setdefault(item.parent, []).append(brings)
    return dict(reversed(locations.items()))


def _location_twin(item: PlantItem, members: Sequence[_Judged]) -> LocationTwin:
    rule = Rule(item.roll_up, item.required)
    grades = [
        None if each.connectivity is None else _CONNECTIVITIES.index(each.connectivity)
        for each in members
    ]
    grade = rolled_up_grade(rule, grades, worst=len(_CONNECTIVITIES) - 1)
    concerns = [each.member for each in members if each.member.health.status is not _GOOD]
    concerns.sort(key=lambda member: (_concern(member.health), member.stream))
    return LocationTwin(
        location_id=item.item_id,
        level=None if item.item_type is None else Level(item.item_type),
        title=item.title,
        parent_id=None if item.parent is None else item.parent.partition(":")[2],
        rule=rule,
        health=rolled_up_health(rule, [each.member.health for each in members]),
        connectivity=None if grade is None else _CONNECTIVITIES[grade],
        members=len(members),
        concerns=tuple(concerns[:CONCERNS_MAX]),
        assets=sum((each.assets for each in members), Counter()),
        connected=sum((each.connected for each in members), Counter()),
        open_alert_count=sum(each.open_alert_count for each in members),
    )


_GOOD: Final = HealthStatus.GOOD


def _concern(health: MemberHealth) -> tuple[int, float]:
    return _STATUSES_BY_CONCERN.index(health.status), health.index or 0.0


def _of_location(item: PlantItem, twin: LocationTwin) -> _Judged:
    return _Judged(
        Member(item.stream, item.title, twin.health),
        twin.connectivity,
        Counter(twin.assets),
        Counter(twin.connected),
        twin.open_alert_count,
    )


def _of_asset(item: PlantItem, twin: Twin | None) -> _Judged:
    """Return what an asset brings; one without a twin was placed before anybody named it."""
    if twin is None:
        health, connectivity, alerts = MemberHealth(HealthStatus.UNKNOWN, None), None, 0
    else:
        health = MemberHealth(twin.health.status, twin.health.index)
        connectivity, alerts = twin.connectivity, twin.open_alert_count
    return _Judged(
        Member(item.stream, item.title, health),
        connectivity,
        Counter([health.status]),
        Counter([connectivity or Connectivity.NEVER_SEEN]),
        alerts,
    )


# --- components ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ComponentTwin:
    """A component in its slot.

    Parameters
    ----------
    part_id : the part that it was delivered as, if that is known
    installed_at : since when it is in the slot
    installed_s : how long it has been in any asset's slot, all its life; s
    """

    component_id: str
    component_type: str | None
    title: str | None
    part_id: str | None
    asset_id: str
    slot: str
    installed_at: datetime
    installed_s: float

    @property
    def kind(self) -> TwinKind:
        """What kind of twin it is."""
        return TwinKind.COMPONENT


async def component_twins(
    ledger: Ledger, asset_ids: Sequence[str], now: datetime, as_of: AsOf = NOW
) -> dict[str, list[ComponentTwin]]:
    """Return the components of each of `asset_ids` by their slot, in two statements.

    They are those at the moment that `as_of` names, or at `now`.
    """
    moment = as_of.valid_at or now
    then = AsOf(as_of.position, as_of.recorded_at, moment)
    installed = await components_of(ledger, asset_ids, then)
    streams = [item.stream for items in installed.values() for item in items]
    stays = await stays_of(ledger, streams, then)
    lengths = {
        stream: sum(
            ((stay.ended_at or moment) - stay.began_at for stay in of_component), timedelta()
        )
        for stream, of_component in stays.items()
    }
    return {
        asset_id: [
            _component_twin(item, asset_id, lengths[item.stream].total_seconds()) for item in items
        ]
        for asset_id, items in installed.items()
    }


def _component_twin(item: PlantItem, asset_id: str, installed_s: float) -> ComponentTwin:
    assert item.slot is not None
    assert item.since is not None
    return ComponentTwin(
        item.item_id,
        item.item_type,
        item.title,
        item.part_id,
        asset_id,
        item.slot,
        item.since,
        installed_s,
    )
