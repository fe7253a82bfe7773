"""What tests of every room may ask for. Asynchronous tests carry `pytest.mark.anyio`."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from eventlog.database import Pool, create_pool
from eventlog.ledger import Ledger
from migrations.run import upgrade
from tests.database import embedded_server, new_database
from tests.distribution import TOLD, FileScheduling, processes_first

# No verdict depends on how fast a shared machine is. In CI the examples are the same every time,
# so that a change is judged by what it changes; elsewhere each run looks for new ones.
settings.register_profile(
    "heddle",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("heddle")

LEDGER = "plant-1"
FAULTS = 200

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a longer run of the fault test be asked for, and one be repeated."""
    parser.addoption(
        "--faults",
        type=int,
        default=int(os.environ.get("HEDDLE_FAULTS", FAULTS)),
        help=f"faults that tests/end_to_end/test_exactly_once.py injects (HEDDLE_FAULTS, {FAULTS})",
    )
    seed = 1 if os.environ.get("CI") else random.randrange(1_000_000)
    parser.addoption("--fault-seed", type=int, default=seed, help="what their order is drawn from")


def pytest_report_header(config: pytest.Config) -> str:
    """Tell what repeats the fault test of this run, whichever worker it falls to."""
    return f"fault seed: {config.getoption('fault_seed')}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have told."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, line in report.user_properties:
                if name == TOLD:
                    terminalreporter.write_line(str(line))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand a worker of `pytest -n` the seed, which it would draw anew."""
    node.workerinput["fault_seed"] = node.config.getoption("fault_seed")


def pytest_configure(config: pytest.Config) -> None:
    """Take over what the process that started this worker has drawn."""
    if (given := getattr(config, "workerinput", None)) is not None:
        config.option.fault_seed = given["fault_seed"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    """Say what a worker of `pytest -n` is given at a time."""
    return FileScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let a worker of `pytest -n` begin with what takes longest; all workers have one order."""
    if hasattr(config, "workerinput"):
        processes_first(items)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of the embedded server that all tests of a run, or of one of its workers, share."""
    with embedded_server() as url:
        yield url


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> Iterator[str]:
    """Name of a database that was migrated once; the databases of tests are its copies."""
    name = "heddle_template"
    with new_database(postgres_url, name) as url:
        upgrade(url)
        yield name


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """URL of a database without any table."""
    with new_database(postgres_url, f"heddle_empty_{next(_numbers)}") as url:
        yield url


@pytest.fixture
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """URL of a migrated database that this test has for itself."""
    name = f"heddle_test_{next(_numbers)}"
    with new_database(postgres_url, name, template=template_database) as url:
        yield url


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """Connections to the test's database."""
    connections = await create_pool(database_url)
    yield connections
    await connections.close()


@pytest.fixture
async def ledger(pool: Pool) -> AsyncIterator[Ledger]:
    """An empty ledger in the test's database."""
    opened = await Ledger.open(pool, LEDGER)
    yield opened
    await opened.close()
