"""Moves, compacts or erases payloads in a process that kills itself at a named step.

``python -m tests.eventlog.archive_process DATABASE_URL FOLDER COMMAND STEP``, where COMMAND is
``archive``, ``compact`` or ``erase:POSITION,…``. It exits 0 when it never came to that step.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from eventlog import erasure
from eventlog.archive import segments as archive_segments
from eventlog.archive.compaction import compact
from eventlog.archive.store import ArchiveStore
from tests.eventlog.archived import archive_all, archived_ledger, erase_positions
from tests.eventlog.new_events import opened

STEPS: Final = (
    "recorded",
    "announced",
    "half written",
    "renamed",
    "read back",
    "in the transaction",
    "committed",
    "file deleted",
)


def die(*_: object, **__: object) -> None:
    """End this process as a lost machine would."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_before(owner: Any, name: str) -> None:
    """Have whoever calls `name` of `owner` die instead."""
    setattr(owner, name, die)


def die_after(owner: Any, name: str) -> None:
    """Have whoever calls `name` of `owner` die once that is done."""
    work: Callable[..., Any] = getattr(owner, name)

    def done(*args: Any, **kwargs: Any) -> None:
        work(*args, **kwargs)
        die()

    async def done_async(*args: Any, **kwargs: Any) -> None:
        await work(*args, **kwargs)
        die()

    setattr(owner, name, done_async if asyncio.iscoroutinefunction(work) else done)


def die_in_transaction() -> None:
    """Die when the last statement of the transaction that changes the archive was run."""
    check = archive_segments._check_count

    def checked(status: str, expected: int, what: str) -> None:
        check(status, expected, what)
        if what != "the new file":
            die()

    archive_segments._check_count = checked


def arm(step: str) -> None:
    """Make this process die at `step`."""
    match step:
        case "recorded":
            die_before(erasure, "finish_erasures")
        case "announced":
            die_before(ArchiveStore, "put")
        case "half written":
            die_before(os, "replace")
        case "renamed":
            die_after(ArchiveStore, "put")
        case "read back":
            die_after(archive_segments, "_check_written")
        case "in the transaction":
            die_in_transaction()
        case "committed":
            die_after(archive_segments, "_commit")
        case "file deleted":
            die_after(ArchiveStore, "delete")


async def run(database_url: str, folder: str, command: str) -> None:
    """Do what the command line says."""
    store = ArchiveStore(folder)
    async with opened(database_url) as ledger:
        name, _, positions = command.partition(":")
        if name == "archive":
            await archive_all(ledger, store)
        elif name == "compact":
            await compact(archived_ledger(ledger), store)
        else:
            await erase_positions(ledger, *map(int, positions.split(",")))


if __name__ == "__main__":
    arm(sys.argv[4])
    asyncio.run(run(*sys.argv[1:4]))
