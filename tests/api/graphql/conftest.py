"""Servers: one of its own for a test that records, a shared one for those that only ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.api.graphql.server import Server, serving
from tests.database import new_database


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    """A GraphQL server on an empty ledger."""
    async with serving(database_url) as running:
        yield running


@pytest.fixture(scope="session")
def untouched_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """URL of a migrated database that stays empty."""
    with new_database(postgres_url, "heddle_graphql", template=template_database) as url:
        yield url


@pytest.fixture(scope="session")
async def empty_server(untouched_database_url: str) -> AsyncIterator[Server]:
    """A GraphQL server on a ledger that stays empty, shared by all tests that record nothing."""
    async with serving(untouched_database_url) as running:
        yield running
