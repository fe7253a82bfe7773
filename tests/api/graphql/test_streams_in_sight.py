"""Which streams an identity sees while the plant changes under its subscription."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from api.access.identity import Identity
from api.access.rights import Role
from api.access.sight import Sights, StreamsInSight
from domain.asset import CommissionAsset, PlaceAsset, asset_stream
from domain.plant.location import DefineLocation, Level
from projections.places import PlaceProjection
from projections.plant.projection import PlantProjection
from tests.api.graphql.server import Server, serving

pytestmark = pytest.mark.anyio

VIEWER = Identity("user:jane", frozenset({Role.VIEWER}), locations=frozenset({"site-1"}))


@pytest.fixture
async def works(shared_database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """Two sites, and a pump that stands in the second."""
    folded = (PlantProjection(), PlaceProjection())
    name = f"sight-{abs(hash(request.node.nodeid))}"
    async with serving(shared_database_url, projections=folded, ledger=name) as server:
        await server.command(DefineLocation("works", Level.ENTERPRISE, "Works"))
        for site in ("site-1", "site-2"):
            await server.command(DefineLocation(site, Level.SITE, site, "works"))
        await server.register("pump-1")
        await server.command(PlaceAsset("pump-1", "site-2"))
        yield server


async def test_an_asset_that_came_into_sight_is_told_of_at_once(works: Server) -> None:
    # Kept for an hour: whatever is found is found by what happened, not by waiting.
    sights = Sights(works.ledger, works.services.runners, kept_s=3600.0)
    streams = StreamsInSight(sights, VIEWER)
    pump = asset_stream("pump-1")
    assert not await streams.includes(pump, await works.ledger.head())

    await works.command(PlaceAsset("pump-1", "site-1"))
    await works.command(CommissionAsset("pump-1"))

    # All of it is folded, so that only the age of the kept sight can tell that it has to look.
    assert sights.folded_to() == await works.ledger.head()
    assert await streams.includes(pump, await works.ledger.head())


async def test_a_sight_that_reflects_an_event_is_kept(works: Server) -> None:
    sights = Sights(works.ledger, works.services.runners, kept_s=3600.0)
    streams = StreamsInSight(sights, VIEWER)
    head = await works.ledger.head()
    assert not await streams.includes(asset_stream("pump-1"), head)
    kept = await sights.of(VIEWER)

    async with works.statements() as executed:
        for _ in range(5):
            assert not await streams.includes(asset_stream("pump-1"), head)

    assert executed == []
    assert await sights.of(VIEWER) is kept
