"""Servers: one with a ledger of its own for a test that records, a shared one for the others."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from api.app import projections
from api.history_recording import record_history
from api.plant_history import HistoryName
from projections.running.projection import Policy
from tests.api.graphql.server import LEDGER, Server, serving
from tests.database import new_database

_numbers = itertools.count(2)
HISTORY_WAIT_S = 120.0


@pytest.fixture(scope="session")
def shared_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """URL of a migrated database in which each test has a ledger, and that costs less."""
    with new_database(postgres_url, "heddle_graphql", template=template_database) as url:
        yield url


@pytest.fixture
async def server(shared_database_url: str) -> AsyncIterator[Server]:
    """A GraphQL server on an empty ledger that is nobody else's."""
    async with serving(shared_database_url, ledger=f"plant-{next(_numbers)}") as running:
        yield running


@pytest.fixture(scope="session")
async def empty_server(shared_database_url: str) -> AsyncIterator[Server]:
    """A GraphQL server on a ledger that stays empty, shared by all tests that record nothing."""
    async with serving(shared_database_url, ledger=LEDGER) as running:
        yield running


@pytest.fixture(scope="session")
async def plant(shared_database_url: str) -> AsyncIterator[Server]:
    """A GraphQL server on a made-up year of a plant, shared by all tests that record nothing."""
    folded = [each for each in projections() if not isinstance(each, Policy)]
    async with serving(shared_database_url, projections=folded, ledger="history") as running:
        history = await record_history(running.ledger, HistoryName(parts=60, seed=3, months=12))
        for runner in running.services.runners.values():
            await runner.wait_for(history.position, HISTORY_WAIT_S)
        last = await running.ledger.pool.fetchval(
            "select max(occurred_at) from event where ledger_id = $1", running.ledger.ledger_id
        )
        running.clock.now = last
        yield running
