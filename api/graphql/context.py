"""The context of one operation: services, who acts, the time it is judged at, and its loaders.

Made anew for every operation, also for each of those that share a WebSocket: a loader's cache
that outlived its operation would answer with what was true then.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Final, Protocol, TypeVar

import strawberry
from graphql import DocumentNode
from strawberry.dataloader import DataLoader
from strawberry.types import Info

from api.access.identity import Identity
from api.access.sight import Sight
from api.graphql.scalars import Cursor, Position
from api.services import Services
from api.tracing import traced_batch
from domain.asset_model import Severity
from domain.errors import Unavailable
from eventlog.ledger import Ledger
from projections.alerts.projection import AlertProjection, AlertRow, AlertState, alerts_of
from projections.twins.projection import (
    AssetRow,
    Twin,
    find_assets,
    projection_position,
    twins_by_asset_id,
)

PROJECTION_WAIT_S_MAX: Final = 5.0
READS_AT_ONCE_MAX: Final = 4
"""Statements of one operation at once, so that it leaves connections to everybody else."""

ALERT_PAGES_AT_ONCE_MAX: Final = 100
"""Assets whose alerts one statement reads."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MinPosition = Annotated[
    Position | None,
    strawberry.argument(
        description="Answer only once everything up to this position is reflected, as a mutation "
        "returned it: read your own write. Waits at most 5 s, then fails with "
        "`projection.behind`."
    ),
]


@dataclass(frozen=True, slots=True)
class AlertPage:
    """A page of one asset's alerts, newest first: at most `first`, raised before `before`."""

    asset_id: str
    before: int | None
    first: int
    severities: tuple[Severity, ...]
    states: tuple[AlertState, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """Of which events a subscription's message tells: positions of the first and the last one.

    Until there is a message, both are where the subscription starts.

    Parameters
    ----------
    lasts : whether the message stays true, as an event does, and the state of a thing does not
    """

    first: int
    last: int
    lasts: bool = False


class PreparesOperations(Protocol):
    """`api.graphql.operations.Operations`, as far as a resolver needs it: a webhook's document is
    checked as if it were asked for.
    """

    async def prepare(
        self, request: Any, identity: Identity, headers: Mapping[str, str], peer: str | None = None
    ) -> Any:
        """Return the operation that `request` asks for, or refuse it."""


@dataclass
class OperationContext:
    """What the resolvers of one operation share.

    Parameters
    ----------
    identity : who acts, and what he may
    document : what is executed, checked before
    peer : the address that the request comes from
    resume_after : the cursor after which a subscription goes on, where the transport says it
    up_to : the position up to which a subscription tells what happened, and ends; None: for ever
    told : what a subscription said last
    operations : who prepared this operation, and prepares others
    """

    services: Services
    identity: Identity
    document: DocumentNode
    peer: str | None = None
    resume_after: Cursor | None = None
    up_to: int | None = None
    told: Told | None = None
    operations: PreparesOperations | None = None
    reads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READS_AT_ONCE_MAX))
    loaders: dict[Hashable, DataLoader[Any, Any]] = field(default_factory=dict)
    _twins: dict[str, Twin] = field(default_factory=dict)
    _twins_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def actor(self) -> str:
        """Who acts, such as ``user:jane``."""
        return self.identity.actor

    async def sight(self) -> Sight:
        """Return what of the plant he sees: nothing else may show in any answer."""
        return await self.services.sights.of(self.identity)

    @property
    def ledger(self) -> Ledger:
        """The log that this server serves."""
        return self.services.ledger

    @cached_property
    def now(self) -> datetime:
        """When this operation is judged: ages in one answer agree."""
        return self.services.now()

    @cached_property
    def asset_by_asset_id(self) -> DataLoader[str, AssetRow | None]:
        """Assets in sight by their id, in one statement a batch."""

        async def load(asset_ids: list[str]) -> list[AssetRow | None]:
            sight = await self.sight()
            found = await find_assets(self.ledger, [a for a in asset_ids if sight.sees_asset(a)])
            return [found.get(asset_id) for asset_id in asset_ids]

        return DataLoader(traced_batch("assets", load))

    @cached_property
    def twin_by_asset(self) -> DataLoader[AssetRow, Twin]:
        """Twins by their asset, in as many statements for one as for hundreds."""

        return DataLoader(self.twins_of)

    async def twins_of(self, assets: Sequence[AssetRow]) -> list[Twin]:
        """Return the twin of each of `assets`; one is judged once an operation."""
        async with self._twins_lock:
            told = self._twins
            missing = [asset for asset in assets if asset.asset_id not in told]
            if missing:

                async def load(wanted: list[AssetRow]) -> dict[str, Twin]:
                    return await twins_by_asset_id(self.ledger, wanted, self.now)

                told.update(await traced_batch("twins", load)(missing))
            return [told[asset.asset_id] for asset in assets]

    @cached_property
    def alerts_by_page(self) -> DataLoader[AlertPage, tuple[int, list[AlertRow]]]:
        """Alerts of assets and the position they reflect, in two statements for up to 100 assets.

        One statement more for each other way in which they are asked for (by aliases, say).
        """

        async def load(pages: list[AlertPage]) -> list[tuple[int, list[AlertRow]]]:
            ledger = self.ledger
            alike: defaultdict[AlertPage, list[str]] = defaultdict(list)
            for page in pages:
                alike[replace(page, asset_id="")].append(page.asset_id)
            async with self.reads:
                position = await projection_position(
                    ledger.pool, ledger.ledger_id, AlertProjection.name
                )
                found = {
                    wanted: await alerts_of(
                        ledger,
                        asset_ids,
                        before=wanted.before,
                        first=wanted.first,
                        severities=wanted.severities,
                        states=wanted.states,
                    )
                    for wanted, asset_ids in alike.items()
                }
            return [(position, found[replace(p, asset_id="")][p.asset_id]) for p in pages]

        return DataLoader(traced_batch("alerts", load), max_batch_size=ALERT_PAGES_AT_ONCE_MAX)

    def loader(
        self, name: Hashable, load: Callable[[list[K]], Awaitable[list[V]]]
    ) -> DataLoader[K, V]:
        """Return the loader of this operation called `name`; made with `load` when first asked.

        Parameters
        ----------
        name : with whatever `load` depends on, such as when something is asked of
        load : returns a value for each key, in their order
        """
        found = self.loaders.get(name)
        if found is None:
            found = self.loaders[name] = DataLoader(traced_batch(str(name), load))
        return found

    def forget(self) -> None:
        """Drop what was loaded: a command of this operation has changed it."""
        self.loaders.clear()
        self._twins = {}
        for name in ("now", "asset_by_asset_id", "twin_by_asset", "alerts_by_page"):
            self.__dict__.pop(name, None)

    async def wait_for(self, position: int | None, *projections: str) -> None:
        """Return once each of `projections` reflects `position`.

        Raises
        ------
        Unavailable
            ``projection.behind``, or ``projection.not_running`` where this server folds it not
        """
        if position is None:
            return
        for name in projections:
            runner = self.services.runners.get(name)
            if runner is None:
                raise Unavailable(
                    "projection.not_running",
                    f"this server does not fold the projection {name!r}",
                    hint="ask without minPosition",
                    value=name,
                )
            await runner.wait_for(position, PROJECTION_WAIT_S_MAX)
        if not self.identity.sees_everything:
            await self.services.sights.wait_for(position)


OperationInfo = Info[OperationContext, None]
