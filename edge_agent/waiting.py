"""Waiting for something to happen, but not for ever."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def wait_up_to(event: asyncio.Event, timeout_s: float) -> None:
    """Return when `event` is set or `timeout_s` are over, whichever comes first."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
