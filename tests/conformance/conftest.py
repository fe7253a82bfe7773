"""The public suites are programs for Node; `npm ci` fetches them, pinned by the lock file."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest

from tests.api.graphql.server import Server, serving
from tests.conformance.programs import FOLDER, run
from tests.database import new_database

_numbers = itertools.count(1)
INSTALLED: Final = FOLDER / "node_modules" / ".installed"


@pytest.fixture(scope="session")
async def node() -> str:
    """Path of Node, beside whose programs the suites are installed."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        if os.environ.get("CI"):
            pytest.fail(
                "the conformance suites need Node 18 or newer, and CI may not leave them out"
            )
        pytest.skip("the conformance suites need Node 18 or newer")
    wanted = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    with (FOLDER / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests may run in several processes
        if not INSTALLED.exists() or INSTALLED.read_text() != wanted:
            await run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
            INSTALLED.write_text(wanted)
    return found


@pytest.fixture(scope="session")
def conformance_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """URL of a migrated database that these tests have for themselves."""
    with new_database(postgres_url, "heddle_conformance", template=template_database) as url:
        yield url


@pytest.fixture
async def server(conformance_database_url: str) -> AsyncIterator[Server]:
    """A server on an empty ledger."""
    async with serving(conformance_database_url) as running:
        yield running


@pytest.fixture
async def own_server(conformance_database_url: str) -> AsyncIterator[Server]:
    """A server on an empty ledger that is nobody else's."""
    async with serving(conformance_database_url, ledger=f"line-{next(_numbers)}") as running:
        yield running
