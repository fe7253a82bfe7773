"""Waiting for something to happen, and ending what waits no more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any


async def wait_up_to(event: asyncio.Event, timeout_s: float) -> None:
    """Return when `event` is set or `timeout_s` are over, whichever comes first."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


async def first_ended(tasks: Iterable[asyncio.Future[Any]]) -> set[asyncio.Future[Any]]:
    """Return those of `tasks` that have ended once one has; what one of them raised is raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return done


async def end_all(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel `tasks` and return once they have ended, whatever they raise."""
    ending = tuple(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
