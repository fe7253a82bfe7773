"""A process of the fault test: followers with durable cursors on the tail of each ledger.

    python -m tests.end_to_end.fault_follower FOLDER

A follower notes each event it is given; its cursor is its last note. It may be killed at any
moment, and follows on from there when it is started again.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Final

import uvloop

from domain.errors import Unavailable
from eventlog.database import CONNECTION_LOST
from eventlog.following.tail import Tail
from eventlog.reading import ALL_EVENTS, EventFilter, PayloadOf
from tests.end_to_end.durable_lines import DurableLines
from tests.end_to_end.operations import LEDGERS
from tests.end_to_end.patient_opening import open_ledgers

FOLLOWED: Final = {
    "all": (ALL_EVENTS, 200),
    "small-pages": (ALL_EVENTS, 7),
    "frames": (EventFilter(types=("asset.frame_recorded",)), 50),
    "shared": (EventFilter(streams=("asset:shared",)), 3),
}
"""Name of a follower, what it wants, and events a page."""

RETRY_S: Final = 0.1


def notes_of(folder: Path, ledger: str, follower: str) -> Path:
    """Return the file in which a follower notes what it was given."""
    return folder / f"{ledger}.{follower}.follower"


async def follow(tail: Tail, notes: DurableLines, wanted: EventFilter, page_events: int) -> None:
    """Note every event, for ever."""
    after = notes.lines[-1]["position"] if notes.lines else 0
    while True:
        try:
            async with aclosing(
                tail.follow(after, wanted=wanted, page_events=page_events, payloads=PayloadOf.NONE)
            ) as events:
                async for event in events:
                    notes.add(position=event.position, event_id=str(event.event_id))
                    after = event.position
        except (*CONNECTION_LOST, Unavailable):
            await asyncio.sleep(RETRY_S)


async def main(folder: Path) -> None:
    """Follow every ledger, for ever."""
    url = os.environ["HEDDLE_DATABASE_URL"]
    _, ledgers = await open_ledgers(url, LEDGERS)
    async with asyncio.TaskGroup() as followers:
        for name, ledger in ledgers.items():
            tail = Tail(ledger, url)
            for follower, (wanted, page_events) in FOLLOWED.items():
                notes = DurableLines(notes_of(folder, name, follower))
                followers.create_task(follow(tail, notes, wanted, page_events))


if __name__ == "__main__":
    loop = (asyncio, uvloop)[os.getpid() % 2]  # each life on one of those that Heddle runs on
    loop.run(main(Path(sys.argv[1])))
