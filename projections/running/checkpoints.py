"""Checkpoints: the position that a projection's rows reflect, and the fence around them.

A row of ``projection_checkpoint`` says up to where the rows of one projection, ledger and version
have come. Whoever folds a batch moves it in the same transaction, and only from where he believes
it to be; so a batch is folded once, whoever else thinks that it is his turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from eventlog.database import Connection, Pool
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from projections.running.projection import OfEnvelopes, Projection, wanted

_KEY: Final = "ledger_id = $1 and projection = $2"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a projection's rows of one version stand.

    `generation` counts how often rebuilt tables were switched in.
    """

    version: int
    position: int
    generation: int


async def live_checkpoint(
    connection: Connection, ledger_id: int, projection: str
) -> Checkpoint | None:
    """Return the checkpoint of the rows that queries read: of the highest version there is."""
    row = await connection.fetchrow(
        f"select version, position, generation from projection_checkpoint where {_KEY} "
        "order by version desc limit 1",
        ledger_id,
        projection,
    )
    return None if row is None else Checkpoint(**row)


async def begin(
    connection: Connection | Pool, ledger_id: int, projection: str, version: int
) -> None:
    """Have a projection that has no row yet stand before the first event."""
    await connection.execute(
        "insert into projection_checkpoint (ledger_id, projection, version, position) "
        "values ($1, $2, $3, 0) on conflict do nothing",
        ledger_id,
        projection,
        version,
    )


async def carry_over(
    connection: Connection, ledger_id: int, projection: str, held: Checkpoint, version: int
) -> None:
    """Let `version` go on with the rows of `held` from where they stand."""
    await connection.execute(
        "update projection_checkpoint set version = $4, generation = generation + 1 "
        f"where {_KEY} and version = $3",
        ledger_id,
        projection,
        held.version,
        version,
    )


async def fold_batch(
    connection: Connection,
    projection: Projection,
    ledger: Ledger,
    batch: Sequence[RecordedEvent],
    held: Checkpoint,
    reached: int,
    *,
    wait_for_disk: bool = True,
) -> Checkpoint | None:
    """Fold `batch`, all there is beyond `held` up to `reached`; return where the rows stand then.

    Rows and checkpoint are one transaction. None, and nothing changed, where the checkpoint is
    not `held` any more: somebody else folded the batch, or other tables were switched in.
    Where `wait_for_disk` is not set and the server falls, both are lost together.
    """
    then = replace(held, position=reached)
    events = wanted(projection, batch)
    move = (connection, projection.name, ledger.ledger_id, held, then)
    if not events:
        # A step that is lost is made again; nothing was folded.
        return then if await _move(*move, wait_for_disk=False) else None
    async with connection.transaction():
        if not await _move(*move, wait_for_disk=wait_for_disk):
            return None
        await projection.fold(connection, ledger, events)
    return then


async def fold_envelopes(
    connection: Connection, projection: OfEnvelopes, ledger: Ledger, held: Checkpoint, up_to: int
) -> Checkpoint | None:
    """Fold the events beyond `held` up to `up_to`; return where the rows stand then.

    As `fold_batch`, never waiting for the disk: what is lost was nobody's but the log's.
    """
    then = replace(held, position=up_to)
    move = (connection, projection.name, ledger.ledger_id, held, then)
    async with connection.transaction():
        if not await _move(*move, wait_for_disk=False):
            return None
        await projection.fold_positions(connection, ledger, held.position, up_to)
    return then


async def _move(
    connection: Connection,
    projection: str,
    ledger_id: int,
    held: Checkpoint,
    reached: Checkpoint,
    *,
    wait_for_disk: bool,
) -> bool:
    taken = await connection.fetchval(
        f"update projection_checkpoint set position = $6 where {_KEY} "
        "and version = $3 and position = $4 and generation = $5 "
        "returning set_config('synchronous_commit', $7, true)",
        ledger_id,
        projection,
        held.version,
        held.position,
        held.generation,
        reached.position,
        "on" if wait_for_disk else "off",
    )
    return taken is not None
