"""What an identity sees: its locations and assets as ids, and which streams belong to them.

What is out of sight is answered as if it did not exist: the same words, the same codes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from api.access.identity import Identity
from domain.asset import asset_stream
from domain.errors import Unavailable
from domain.plant.location import location_stream
from eventlog.ledger import Ledger
from eventlog.reading import category_of
from projections.places import PlaceProjection, placed_among, placed_elsewhere
from projections.plant.projection import PlantProjection
from projections.plant.queries import ItemKind, path_of, tree_below
from projections.running.runner import ProjectionRunner

SIGHT_KEPT_S: Final = 1.0
"""An asset that moves comes into sight, or leaves it, after so long."""

SIGHTS_KEPT_MAX: Final = 1_000
PLACES_WAIT_S_MAX: Final = 5.0
SEEN_MAX: Final = 10_000

REFERENCE_CATEGORIES: Final = frozenset({"document", "instrument", "model"})
"""Streams of what everybody works with: whoever may read sees them."""

_OF_ASSETS: Final = frozenset({"asset", "telemetry"})


@dataclass(frozen=True)
class Sight:
    """The scope of an identity, resolved on the plant as it is now.

    Parameters
    ----------
    asset_ids : the assets it sees; None: all
    location_ids : the locations it sees; None: all
    above_ids : the locations that these stand in, of which it sees the names alone
    names_assets : whether its assets were named one by one, and no other may become its own
    ledger : whose streams are judged; None where everything is seen
    """

    asset_ids: frozenset[str] | None = None
    location_ids: frozenset[str] | None = None
    above_ids: frozenset[str] = frozenset()
    names_assets: bool = False
    ledger: Ledger | None = field(default=None, compare=False, repr=False)

    @property
    def is_whole(self) -> bool:
        """Whether it sees everything."""
        return self.asset_ids is None

    @cached_property
    def places(self) -> list[str] | None:
        """The streams of its assets, for `projections.places.in_sight` in SQL; None: all."""
        return None if self.asset_ids is None else [asset_stream(a) for a in self.asset_ids]

    def sees_asset(self, asset_id: str) -> bool:
        """Return whether the asset is in sight."""
        return self.asset_ids is None or asset_id in self.asset_ids

    def sees_location(self, location_id: str) -> bool:
        """Return whether the location is in sight, with all that stands in it."""
        return self.location_ids is None or location_id in self.location_ids

    def names_location(self, location_id: str) -> bool:
        """Return whether the location's id, level and title may be told."""
        return self.sees_location(location_id) or location_id in self.above_ids

    async def visible(self, streams: Iterable[str]) -> frozenset[str]:
        """Return those of `streams` that are in sight; a revision goes by its stream."""
        asked = frozenset(streams)
        if self.is_whole:
            return asked
        seen, unsure = set(), set()
        for stream in asked:
            judged = self.judge(stream)
            if judged is None:
                unsure.add(stream)
            elif judged:
                seen.add(stream)
        if unsure:
            assert self.ledger is not None, "a bounded sight has a ledger"
            seen |= await placed_among(self.ledger, unsure, self.places or [])
        return frozenset(seen)

    def judge(self, stream: str) -> bool | None:
        """Return whether `stream` is in sight; None where that takes a look at where it belongs."""
        category, _, key = stream.partition(":")
        if category in _OF_ASSETS:
            return self.sees_asset(key)
        if category == "location":
            return self.sees_location(key)
        return True if category in REFERENCE_CATEGORIES else None

    async def elsewhere(self, streams: Iterable[str]) -> frozenset[str]:
        """Return those of `streams` that belong to places, none of which is in sight.

        What belongs nowhere yet (a lot just received, an asset just registered) is not among
        them: it is nobody else's.
        """
        asked = [stream for stream in streams if category_of(stream) not in REFERENCE_CATEGORIES]
        if self.is_whole or not asked:
            return frozenset()
        assert self.ledger is not None, "a bounded sight has a ledger"
        hidden = set(asked) - await self.visible(asked)
        never = {s for s in hidden if self.names_assets and category_of(s) in _OF_ASSETS}
        return await placed_elsewhere(self.ledger, hidden - never) | never


EVERYTHING: Final = Sight()


class Sights:
    """Resolves the scopes of identities on the plant, and keeps them while it stands as it did.

    Parameters
    ----------
    runners : the projections that this process folds, by name
    kept_s : so long a sight is used though something has been recorded since
    clock : seconds, monotonic
    """

    def __init__(
        self,
        ledger: Ledger,
        runners: Mapping[str, ProjectionRunner],
        *,
        kept_s: float = SIGHT_KEPT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._runners = runners
        self._kept_s = kept_s
        self._clock = clock
        self._kept: dict[Hashable, tuple[float, int | None, Sight]] = {}
        self._lock = asyncio.Lock()

    async def of(self, identity: Identity) -> Sight:
        """Return what `identity` sees now.

        Raises
        ------
        InvalidInput
            ``plant.too_large``: more stands in its locations than one answer holds
        """
        if identity.sees_everything:
            return EVERYTHING
        key = (identity.locations, identity.assets)
        kept = self._fresh(key)
        if kept is not None:
            return kept
        async with self._lock:
            kept = self._fresh(key)
            if kept is not None:
                return kept
            position = self._plant_position()
            sight = await self._resolved(identity)
            if len(self._kept) >= SIGHTS_KEPT_MAX:
                self._kept.clear()
            self._kept[key] = (self._clock(), position, sight)
            return sight

    def folded_to(self) -> int:
        """Return up to which position of the log it is known where streams belong."""
        runner = self._runners.get(PlaceProjection.name)
        return 0 if runner is None else runner.position

    def known_to(self, identity: Identity) -> int:
        """Return the position of the log that the kept sight of `identity` reflects, 0: none."""
        kept = self._kept.get((identity.locations, identity.assets))
        return 0 if kept is None else kept[1] or 0

    async def wait_for(self, position: int) -> None:
        """Return once it is known where what happened up to `position` stands and belongs.

        Raises
        ------
        Unavailable
            ``projection.behind``, ``projection.not_running``
        """
        for name in (PlantProjection.name, PlaceProjection.name):
            runner = self._runners.get(name)
            if runner is None:
                raise Unavailable(
                    "projection.not_running",
                    f"this server does not fold the projection {name!r}",
                    value=name,
                )
            if runner.position < position:
                await runner.wait_for(position, PLACES_WAIT_S_MAX)
        for key, (_, known_to, _sight) in list(self._kept.items()):
            if known_to is None or known_to < position:
                del self._kept[key]

    def _fresh(self, key: Hashable) -> Sight | None:
        entry = self._kept.get(key)
        if entry is None:
            return None
        kept_at, position, sight = entry
        moved = position is None or self._plant_position() != position
        return None if moved and self._clock() - kept_at >= self._kept_s else sight

    def _plant_position(self) -> int | None:
        runner = self._runners.get(PlantProjection.name)
        return None if runner is None else runner.position

    async def _resolved(self, identity: Identity) -> Sight:
        assets: set[str] = set()
        locations: set[str] = set()
        above: set[str] = set()
        for location_id in sorted(identity.locations or ()):
            for item in await tree_below(self._ledger, location_id, components=False):
                if item.kind is ItemKind.ASSET:
                    assets.add(item.item_id)
                elif item.kind is ItemKind.LOCATION:
                    locations.add(item.item_id)
            path = await path_of(self._ledger, location_stream(location_id))
            above.update(item.item_id for item in path)
        if identity.assets is not None:
            own = identity.assets
            assets = set(own) if identity.locations is None else assets & own
        return Sight(
            asset_ids=frozenset(assets),
            location_ids=frozenset(locations),
            above_ids=frozenset(above - locations),
            names_assets=identity.assets is not None,
            ledger=self._ledger,
        )


class StreamsInSight:
    """Which streams an identity sees, asked again and again as events come in.

    What is found in sight is remembered for as long as the sight stays the same: a stream never
    leaves the assets that it belongs to.
    """

    def __init__(self, sights: Sights, identity: Identity) -> None:
        self._sights = sights
        self._identity = identity
        self._sight = EVERYTHING
        self._seen: set[str] = set()

    async def includes(self, stream: str, position: int) -> bool:
        """Return whether `stream`, of which an event stands at `position`, is in sight.

        Waits until it is known where that event makes it belong.

        Raises
        ------
        Unavailable
            as `Sights.wait_for`
        """
        if self._identity.sees_everything:
            return True
        sight = await self._current()
        judged = sight.judge(stream)
        told = category_of(stream) != "telemetry"
        if judged is False and told and position > self._sights.known_to(self._identity):
            # It may stand in sight since that very fact, or one that the kept sight is older than.
            sight = await self._sight_at(position)
            judged = sight.judge(stream)
        if judged is not None:
            return judged
        if stream in self._seen:
            return True
        sight = await self._sight_at(position)
        if not await sight.visible([stream]):
            return False
        if len(self._seen) < SEEN_MAX:
            self._seen.add(stream)
        return True

    async def _sight_at(self, position: int) -> Sight:
        """Return the sight that reflects at least `position`."""
        await self._sights.wait_for(position)
        return await self._current()

    async def _current(self) -> Sight:
        sight = await self._sights.of(self._identity)
        if sight is not self._sight:
            self._sight, self._seen = sight, set()
        return sight
