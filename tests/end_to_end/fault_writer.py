"""A process of the fault test: some writers on one connection pool, each sure of what it was told.

    python -m tests.end_to_end.fault_writer FOLDER WRITER …

A writer notes each attempt before it is made and each answer after it came, appends the next
operation only then, and repeats what it has no answer to, and now and then what it has. It may be
killed at any moment.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
import uvloop

from domain.errors import Conflict, InvalidInput, Unavailable
from eventlog.ledger import Ledger
from tests.end_to_end.durable_lines import DurableLines
from tests.end_to_end.operations import LEDGERS, Kind, Operation, operation
from tests.end_to_end.patient_opening import open_ledgers
from tests.eventlog.early import early_in_parts

PAUSE_S_MAX: Final = 0.03
REPEATED_SHARE: Final = 0.1
"""Of the operations: so many are followed by one from before, which has to change nothing."""

RETRY_S: Final = 0.1
STOP_FILE: Final = "stop"


class Writer:
    """Appends its operations one after the other."""

    def __init__(self, folder: Path, name: str, ledgers: Mapping[str, Ledger]) -> None:
        self._name = name
        self._ledgers = ledgers
        self._stop = folder / STOP_FILE
        self._notes = DurableLines(folder / f"{name}.writer")
        self._attempts = 0
        self._abandoned: set[int] = set()

    async def run(self) -> None:
        """Go on where the notes end, until the stop file is there and nothing is open."""
        number, is_open = self._resume()
        while is_open or not self._stop.exists():
            await self._carry_out(number)
            is_open = False
            if random.random() < REPEATED_SHARE:
                await self._repeat(random.randint(1, number))
            number += 1
            await asyncio.sleep(random.uniform(0, PAUSE_S_MAX))

    def _resume(self) -> tuple[int, bool]:
        """Return the operation to begin with, and whether it was tried and is not abandoned."""
        tried = {line["try"] for line in self._notes.lines if "try" in line}
        settled = {
            line[word]
            for line in self._notes.lines
            for word in ("recorded", "refused", "abandoned")
            if word in line
        }
        self._abandoned = {line["abandoned"] for line in self._notes.lines if "abandoned" in line}
        for number in sorted(tried - settled):
            if not operation(self._name, number).abandoned_if_killed:
                return number, True
            self._notes.add(abandoned=number)
            self._abandoned.add(number)
        return max(tried, default=0) + 1, False

    async def _repeat(self, number: int) -> None:
        """Append an operation again that was answered before, under the same keys."""
        if number not in self._abandoned:
            await self._carry_out(number)

    async def _carry_out(self, number: int) -> None:
        while True:
            self._attempts += 1
            wanted = operation(self._name, number, f"{os.getpid()}.{self._attempts}")
            self._notes.add(**{"try": number})
            appends = [self._append(wanted) for _ in range(2 if wanted.kind is Kind.TWICE else 1)]
            if all(await asyncio.gather(*appends)):
                return
            await asyncio.sleep(RETRY_S)

    async def _append(self, wanted: Operation) -> bool:
        """Append and note the answer; return whether there was one."""
        try:
            outcome = await self._ledgers[wanted.ledger].append(
                wanted.events, expected=wanted.expected, idempotency=wanted.idempotency
            )
        except Unavailable as error:
            self._notes.add(unavailable=wanted.number, code=error.code)
            return False
        except (Conflict, InvalidInput) as error:
            self._notes.add(refused=wanted.number, code=error.code, message=error.message)
            return True
        placed = [(placed.position, placed.version) for placed in outcome.placed]
        self._notes.add(recorded=wanted.number, placed=placed, duplicate=outcome.duplicate)
        return True


async def main(folder: Path, names: list[str]) -> None:
    """Run the writers `names` until they are told to stop."""
    pool, ledgers = await open_ledgers(os.environ["HEDDLE_DATABASE_URL"], LEDGERS)
    async with asyncio.TaskGroup() as writers:
        for name in names:
            writers.create_task(Writer(folder, name, ledgers).run())
    for ledger in ledgers.values():
        await ledger.close()
    await pool.close()


def be_early() -> None:
    """Have whatever is appended while something is under way write its rows early."""
    early_in_parts(patch := pytest.MonkeyPatch())
    for name in ("OVERLAP_EVENTS_MIN", "SHARE_EVENTS_MIN", "CAREFUL_BATCHES"):
        patch.setattr(f"eventlog.appending.writer.{name}", 1)


if __name__ == "__main__":
    if os.getpid() // 2 % 2:  # every other life; each on one of the loops that Heddle runs on
        be_early()
    loop = (asyncio, uvloop)[os.getpid() % 2]
    loop.run(main(Path(sys.argv[1]), sys.argv[2:]))
