"""A server that may call loopback, and what asks it for webhooks."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.api.graphql.server import Server
from tests.api.webhooks.hooks import hooking
from tests.api.webhooks.receiver import Receiver, receiving
from tests.database import new_database

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def webhook_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """URL of a migrated database in which each test has a ledger."""
    with new_database(postgres_url, "heddle_webhooks", template=template_database) as url:
        yield url


@pytest.fixture
def ledger_name() -> str:
    """Name of a ledger that is nobody else's."""
    return f"hooks-{next(_numbers)}"


@pytest.fixture
async def server(webhook_database_url: str, ledger_name: str) -> AsyncIterator[Server]:
    """An open server that delivers."""
    async with hooking(webhook_database_url, ledger=ledger_name) as running:
        yield running


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that takes whatever it is sent."""
    async with receiving() as opened:
        yield opened
