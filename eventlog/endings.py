"""How a task that works for somebody is ended."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

TOLD_AGAIN_AFTER_S: Final = 1.0


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel `task` and return once it has ended; raise what it ended with, if not that.

    It is told again until it heeds: a cancellation that meets the answer it was waiting for may
    be taken by a wait with a time limit on the way (`asyncio.wait_for` before Python 3.12).
    """
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=TOLD_AGAIN_AFTER_S)
    with contextlib.suppress(asyncio.CancelledError):
        task.result()
