"""A log with a signer, and facts to fill it with, for tests of what is signed and proved."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from eventlog.checkpoints import CheckpointSigner, SigningKeys, origin_of
from eventlog.ledger import APPEND_EVENTS_MAX, Ledger
from eventlog.notes import VerifierKey
from eventlog.tiles import LedgerTiles
from tests.eventlog.new_events import fact

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
