"""Who did what kind of thing where in the log: what the audit trail is found by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf

BLOCK_POSITIONS: Final = 128
"""Positions of a block. A page reads whole blocks: shorter ones cost it less, and the fold more."""


class AuditProjection:
    """Keeps which types of facts which actors recorded in each block of the log, by hashes of them.

    Block n holds the positions from n times `BLOCK_POSITIONS` on. A row a fact, as an index would
    have it, cost the fold three times as much. Every fact is told of, of kinds that this software
    does not know and of erased payload too: an auditor has to see that it is there. Frames are only
    read past.
    """

    name: ClassVar[str] = "audit"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = None
    payloads: ClassVar[PayloadOf] = PayloadOf.NONE
    tables: ClassVar[tuple[str, ...]] = ("audit_block",)
    query_indexes: ClassVar[tuple[str, ...]] = ("audit_block_of_facts",)

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Add what is told by `events`, a page of the log that lacks none."""
        if events:
            after = events[0].position - 1
            await self.fold_positions(connection, ledger, after, events[-1].position)

    async def fold_positions(
        self, connection: Connection, ledger: Ledger, after: int, up_to: int
    ) -> None:
        """Add what is told by the facts beyond `after` up to `up_to`."""
        await connection.execute(
            f"""
            insert into audit_block (block, kind, who, ledger_id)
            select distinct position / {BLOCK_POSITIONS}, hashtext(type), hashtext(actor), ledger_id
            from event
            where ledger_id = $1 and position > $2 and position <= $3 and window_end_ns is null
            on conflict do nothing
            """,
            ledger.ledger_id,
            after,
            up_to,
        )
