"""Rows of the audit trail, as far as a test wants them."""

from __future__ import annotations

import pytest

from eventlog.ledger import Ledger
from projections.audit.projection import AuditProjection
from projections.running.checkpoints import begin, fold_envelopes, live_checkpoint


def short_blocks(monkeypatch: pytest.MonkeyPatch, near: int, length: int = 4) -> None:
    """Have blocks of `length` positions, of which the last `near` are looked through first."""
    for module in ("projection", "search"):
        monkeypatch.setattr(f"projections.audit.{module}.BLOCK_POSITIONS", length)
    monkeypatch.setattr("projections.audit.search.NEAR_BLOCKS", near)


async def fold_up_to(ledger: Ledger, position: int) -> None:
    """Fold the log up to `position` from where the rows stand, as the runner does."""
    projection = AuditProjection()
    async with ledger.pool.acquire() as connection:
        await begin(connection, ledger.ledger_id, projection.name, projection.version)
        held = await live_checkpoint(connection, ledger.ledger_id, projection.name)
        assert held is not None
        reached = await fold_envelopes(connection, projection, ledger, held, position)
    assert reached is not None
    assert reached.position == position
