"""Rebuilding: a projection's tables folded anew beside the live ones, then exchanged at once.

The tables hold the rows of every ledger of the database, so all are rebuilt together. Meanwhile
the live rows are folded and read as ever. The exchange is one transaction:

1. The live checkpoints are held, so that nobody folds; what is missing is folded beside.
2. Whoever reads in a snapshot older than that is waited for: after the exchange it would find the
   new tables without their last rows.
3. The tables change places, checkpoints say the new version and position, the old tables go.

Readers wait for some milliseconds and then find the new tables, by the same names. Where the
moment does not come, because of a reader who stays, the live projection is let go on and it is
tried again; after `SWITCH_ATTEMPTS_MAX` the rebuild gives up and leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from domain.errors import Conflict, Unavailable
from eventlog.database import Pool
from projections.running.beside import PAUSE_EVENTS_MAX, Beside, Told, beside, silent
from projections.running.checkpoints import Checkpoint
from projections.running.projection import Projection
from projections.running.side_tables import exchange, wait_for_older_snapshots

logger = logging.getLogger("heddle.projections")

SWITCH_ATTEMPTS_MAX: Final = 200
SWITCH_RETRY_DELAY_S: Final = 0.5
SNAPSHOT_WAIT_S: Final = 2.0
"""How long the live projection is held still, at most, for readers in old snapshots."""

LIVE_WAIT_S: Final = 3.0
"""How long the live rows are given to come to where the rebuilt ones are already."""

LIVE_LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What became of a rebuild: by ledger, where the rows stood and where they stand."""

    projection: str
    version: int
    events: int
    before: dict[str, Checkpoint]
    after: dict[str, Checkpoint]


async def rebuild(pool: Pool, projection: Projection, *, told: Told = silent) -> Rebuilt:
    """Make the tables of `projection` anew from the log and put them in the live ones' place.

    Raises
    ------
    InvalidInput
        ``projection.is_policy``
    Conflict
        ``projection.busy``, ``projection.table_not_copied``, ``projection.rebuild_disturbed``
    Unavailable
        ``projection.tables_in_use``, ``projection.schema_not_allowed``
    PoisonEvent
        an event cannot be folded; the live rows stay as they are
    """
    async with beside(pool, projection, "rebuild", told=told) as copies:
        await _catch_up(copies)
        await copies.settle()
        for _ in range(SWITCH_ATTEMPTS_MAX):
            await _catch_up(copies)
            await _let_live_come(copies)
            try:
                rebuilt = await _switch(copies)
            except Unavailable as error:
                blocked = error
                await asyncio.sleep(SWITCH_RETRY_DELAY_S)
                continue
            logger.info("projection %s: version %d is in place", projection.name, rebuilt.version)
            return rebuilt
        raise blocked


async def _catch_up(copies: Beside) -> None:
    for ledger_id, ledger in copies.ledgers.items():
        await copies.catch_up(ledger_id, await ledger.head())


async def _let_live_come(copies: Beside) -> None:
    """Wait for live rows that are about to come as far as the rebuilt ones.

    So that a reader who learnt the position before the exchange finds rows of just that position
    after it. Live rows that are stuck, or that nobody folds, are not waited for long.
    """
    deadline = asyncio.get_running_loop().time() + LIVE_WAIT_S
    while asyncio.get_running_loop().time() < deadline:
        live = await copies.live()
        if all(
            live[ledger_id].position >= held.position
            for ledger_id, held in copies.held.items()
            if ledger_id in live
        ):
            return
        await asyncio.sleep(LIVE_LOOK_S)


async def _switch(copies: Beside) -> Rebuilt:
    """Hold the live rows still, come to where they are, and exchange the tables.

    Raises
    ------
    Unavailable
        the moment is not right; nothing has happened
    """
    guard = copies.guard
    async with guard.transaction():
        live = await copies.live(for_update=True)
        if set(live) != set(copies.ledgers):
            raise Conflict(
                "projection.rebuild_disturbed",
                "another ledger has got rows of this projection meanwhile",
                hint="start again",
                value=sorted(set(live) ^ set(copies.ledgers)),
            )
        if any(
            live[ledger_id].position - held.position > PAUSE_EVENTS_MAX
            for ledger_id, held in copies.held.items()
        ):
            raise Unavailable("projection.behind", "the live rows have gone on meanwhile")
        for ledger_id, held in live.items():
            await copies.catch_up(ledger_id, held.position)
        if not await wait_for_older_snapshots(
            copies.folding, guard.get_server_pid(), SNAPSHOT_WAIT_S
        ):
            raise Unavailable(
                "projection.tables_in_use",
                "somebody has been reading in one transaction for long",
                hint="see pg_stat_activity, column backend_xmin",
                limit=SNAPSHOT_WAIT_S,
            )
        await exchange(guard, copies.side)
        after = await _place_checkpoints(copies, live)
    names = {ledger_id: ledger.name for ledger_id, ledger in copies.ledgers.items()}
    return Rebuilt(
        copies.projection.name,
        copies.projection.version,
        sum(checkpoint.position for checkpoint in after.values()),
        {names[ledger_id]: checkpoint for ledger_id, checkpoint in live.items()},
        {names[ledger_id]: checkpoint for ledger_id, checkpoint in after.items()},
    )


async def _place_checkpoints(copies: Beside, live: dict[int, Checkpoint]) -> dict[int, Checkpoint]:
    """Let the checkpoints speak of the exchanged tables; those of other versions go."""
    name, version = copies.projection.name, copies.projection.version
    # A ledger whose first row came between: nothing of its rows is in the exchanged tables.
    present = await copies.live(for_update=True)
    if set(present) != set(live):
        raise Unavailable("projection.rebuild_disturbed", "another ledger has begun meanwhile")
    after = {
        ledger_id: Checkpoint(version, held.position, live[ledger_id].generation + 1)
        for ledger_id, held in copies.held.items()
    }
    await copies.guard.execute("delete from projection_checkpoint where projection = $1", name)
    await copies.guard.executemany(
        "insert into projection_checkpoint (ledger_id, projection, version, position, generation) "
        "values ($1, $2, $3, $4, $5)",
        [(n, name, version, c.position, c.generation) for n, c in after.items()],
    )
    return after
