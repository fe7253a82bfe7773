"""A log with a signer, and facts to fill it with, for tests of what is signed and proved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from eventlog.database import Connection, Pool
from eventlog.ledger import APPEND_EVENTS_MAX, Ledger
from eventlog.transparency.checkpoints import Checkpoint, open_checkpoint
from eventlog.transparency.merkle import Frontier
from eventlog.transparency.notes import Note, VerifierKey
from eventlog.transparency.signing import CheckpointSigner
from eventlog.transparency.signing_keys import SigningKeys, origin_of
from eventlog.transparency.tiles import LedgerTiles
from tests.database import as_superuser
from tests.eventlog.new_events import fact

ORIGIN = "heddle.example/plant-1"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def tiles_of_ledger(ledger: Ledger) -> LedgerTiles:
    """Return the tiles of `ledger`."""
    return LedgerTiles(ledger.pool, ledger.ledger_id, ledger.name)


def signer_for(
    ledger: Ledger, folder: Path, witnesses: tuple[VerifierKey, ...] = ()
) -> CheckpointSigner:
    """Return a signer whose key lies in `folder`."""
    keys = SigningKeys(folder, ledger.name, origin_of(ledger.name))
    return CheckpointSigner(tiles_of_ledger(ledger), keys, witnesses, now=lambda: NOW)


async def grow(ledger: Ledger, size: int, streams: int = 7) -> None:
    """Append facts until the log has `size` events."""
    while (head := await ledger.head()) < size:
        numbers = range(head, min(size, head + APPEND_EVENTS_MAX))
        await ledger.append([fact(n, stream=f"asset:loop-{n % streams}") for n in numbers])


def opened_note(note: Note, *keys: VerifierKey) -> Checkpoint:
    """Return the checkpoint in `note`, which the log's key among `keys` signed."""
    return open_checkpoint(note.written, keys)


@asynccontextmanager
async def unstopped(database_url: str) -> AsyncIterator[Connection]:
    """Yield a connection that triggers and privileges do not stop."""
    connection = await asyncpg.connect(as_superuser(database_url))
    try:
        await connection.execute("set session_replication_role = replica")
        yield connection
    finally:
        await connection.close()


async def cut(connection: Connection, size: int, pool: Pool) -> None:
    """Take the database back to the moment when it had `size` events, as a restore would."""
    tree = Frontier()
    rows = await pool.fetch("select * from event where position <= $1 order by position", size)
    tree.append(row["leaf_hash"] for row in rows)
    for table in ("event", "event_identity"):
        await connection.execute(f"delete from {table} where position > {size}")
    await connection.execute("delete from tile where (number + 1) << 8 > $1 and level = 0", size)
    await connection.execute("delete from checkpoint where size > $1", size)
    await connection.execute("delete from stream_head")
    await connection.execute(
        "insert into stream_head select ledger_id, stream, max(version) from event group by 1, 2"
    )
    await connection.execute(
        "update ledger set position = $1, frontier = $2, root = $3, recorded_at = $4",
        size,
        tree.packed(),
        tree.root(),
        rows[-1]["recorded_at"],
    )
