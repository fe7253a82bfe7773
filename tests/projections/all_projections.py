"""Every projection and policy of a server, followed by runners until the log stands still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from api.app import projections
from eventlog.following.tail import Tail
from eventlog.ledger import Ledger
from projections.running.active import ActiveLocks
from projections.running.pages import SharedPages
from projections.running.runner import ProjectionRunner
from tests.projections.loop_frames import PATIENCE_S

Runners = dict[str, ProjectionRunner]
ROUNDS_MAX: Final = 50
"""So often, at most, policies may answer what policies have told."""


@asynccontextmanager
async def running_all(ledger: Ledger, database_url: str) -> AsyncIterator[Runners]:
    """Run all that a server folds, wired as it wires them, and yield the runners by name."""
    async with AsyncExitStack() as stack:
        tail = Tail(ledger, database_url)
        stack.push_async_callback(tail.close)
        pages, locks = SharedPages(ledger), ActiveLocks(ledger.pool)
        stack.push_async_callback(locks.close)
        runners: Runners = {}
        for projection in projections():
            runner = ProjectionRunner(projection, tail, pages, locks)
            stack.push_async_callback(runner.close)
            runners[projection.name] = runner
        yield runners


async def settled(ledger: Ledger, runners: Runners) -> int:
    """Return the head of the log once all have folded it and no policy adds anything to it."""
    for _ in range(ROUNDS_MAX):
        head = await ledger.head()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(_reached(runner, head) for runner in runners.values()))
        if await ledger.head() == head:
            return head
    raise AssertionError("the policies answer one another without end")


async def _reached(runner: ProjectionRunner, head: int) -> None:
    """Return once `runner` has folded up to `head`; tell at once of what stops it."""
    while runner.position < head:
        assert runner.failure is None, f"{runner.projection.name}: {runner.failure}"
        await asyncio.sleep(0.01)
