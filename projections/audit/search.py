"""Which entries of the audit trail are wanted, and where they stand in the log.

They are found by the log's index of streams, or in those blocks of the log of which
`AuditProjection` says that there is one, the last first: few others are looked at, however long the
log is. What has been recorded beyond the checkpoint of that projection is looked through in the log
itself. So the answer is exact as soon as an append has returned, wherever the projection stands.
While it keeps up, that is a moment's events; where it was stopped, or has not come through the log
yet, the answer is the same, and the slower the more is missing, frames among it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from eventlog.database import Connection
from eventlog.ledger import Ledger
from projections.audit.projection import BLOCK_POSITIONS, AuditProjection
from projections.running.checkpoints import live_checkpoint

NEAR_BLOCKS: Final = 4
"""Blocks that are looked through before those of each kind and actor are looked for: a page is
mostly found there."""

BLOCKS_AT_ONCE: Final = 2
"""Blocks that are read first; twice as many each time that they do not fill the page."""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are wanted; what is empty or None does not restrict.

    Parameters
    ----------
    actors : who did it, such as ``user:mara``
    streams : to which object, such as ``work-order:WO-7``
    types : of which kind, such as ``work_order.completed``
    recorded_from, recorded_until : when it was recorded, both included
    """

    actors: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    recorded_from: datetime | None = None
    recorded_until: datetime | None = None


async def find_positions(
    connection: Connection, ledger: Ledger, wanted: AuditFilter, low: int, high: int, count: int
) -> list[int]:
    """Return the last `count` positions from `low` to `high` that are `wanted`, newest first.

    The times of `wanted` are left to the caller, as bounds.
    """
    asked = _Asked(
        connection,
        ledger.ledger_id,
        list(dict.fromkeys(wanted.actors)),
        list(dict.fromkeys(wanted.types)),
    )
    if wanted.streams:
        streams = list(dict.fromkeys(wanted.streams))
        return await asked.fetch(_BY_STREAM, low, high, count, streams)
    folded = await _folded(connection, ledger)
    found: list[int] = []
    if folded < high:
        found = await asked.fetch(_IN_LOG, max(low, folded + 1), high, count)
    if len(found) < count and low <= folded:
        found += await _in_blocks(asked, low, min(high, folded), count - len(found))
    return found


async def _folded(connection: Connection, ledger: Ledger) -> int:
    """Return the position up to which blocks are told of, for this statement and those after it.

    Rows come with the checkpoint and never go: rebuilt ones that are put in their place reach at
    least as far. Those of another version of the projection are left alone.
    """
    held = await live_checkpoint(connection, ledger.ledger_id, AuditProjection.name)
    return held.position if held is not None and held.version == AuditProjection.version else 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """Where to ask, and for whom; `actors` and `types` are empty where they do not restrict."""

    connection: Connection
    ledger_id: int
    actors: list[str]
    types: list[str]

    async def fetch(
        self, statement: str, low: int, high: int, count: int, *more: Sequence[str | int] | int
    ) -> list[int]:
        rows = await self.connection.fetch(
            statement, self.ledger_id, low, high, count, self.actors, self.types, *more
        )
        return [row[0] for row in rows]

    async def fetch_within(
        self, blocks: Sequence[int], low: int, high: int, count: int
    ) -> list[int]:
        return await self.fetch(_IN_BLOCKS, low, high, count, blocks, BLOCK_POSITIONS)


# Parameters of all: ledger, first and last, count; actors and types, each empty where it does not
# restrict; streams, or blocks and their length.
_NAMED: Final = """
    (cardinality($5::text[]) = 0 or e.actor = any($5))
    and (cardinality($6::text[]) = 0 or e.type = any($6))
"""
_WANTED: Final = f"""
    e.ledger_id = $1 and e.window_end_ns is null and e.position >= $2 and e.position <= $3
    and {_NAMED}
"""

_IN_LOG: Final = f"""
    select e.position from event e where {_WANTED} order by e.position desc limit $4
"""

_BY_STREAM: Final = f"""
    select found.position from unnest($7::text[]) as of(stream) cross join lateral (
        select e.position from event e where {_WANTED} and e.stream = of.stream
            and e.version <= stream_version_at($1, of.stream, $3)
        order by e.version desc limit $4
    ) as found
    order by found.position desc limit $4
"""

# --- by blocks ----------------------------------------------------------------------------


async def _in_blocks(asked: _Asked, low: int, high: int, count: int) -> list[int]:
    """Return positions as `find_positions` does, where blocks are told of."""
    first, last = low // BLOCK_POSITIONS, high // BLOCK_POSITIONS
    found: list[int] = []
    statement = _BLOCKS_OF_FACTS
    if asked.actors or asked.types:
        near = await asked.fetch(_BLOCKS_OF_FACTS, first, last, NEAR_BLOCKS)
        found = await asked.fetch_within(near, low, high, count)
        if len(near) < NEAR_BLOCKS:
            return found
        statement, last = _blocks_by_hash(asked), near[-1] - 1
    while len(found) < count:
        # Nearly each holds an entry: not where the bounds cut it, or two texts have one hash.
        missing = count - len(found) + 1
        blocks = await asked.fetch(statement, first, last, missing)
        at_once, begin = BLOCKS_AT_ONCE, 0
        while begin < len(blocks) and len(found) < count:
            some = blocks[begin : begin + at_once]
            found += await asked.fetch_within(some, low, high, count - len(found))
            begin, at_once = begin + at_once, 2 * at_once
        if len(blocks) < missing:
            break
        last = blocks[-1] - 1
    return found


_IN_BLOCKS: Final = f"""
    select found.position from unnest($7::bigint[]) as of(block) cross join lateral (
        select e.position from event e where {_WANTED}
            and e.position >= of.block * $8::bigint and e.position < (of.block + 1) * $8::bigint
        order by e.position desc limit $4
    ) as found
    order by found.position desc limit $4
"""

_TOLD: Final = "b.ledger_id = $1 and b.block >= $2 and b.block <= $3"

# PostgreSQL has to be told the types of parameters that a statement has no use for.
_ALL_TYPED: Final = "$5::text[] is not null and $6::text[] is not null"

_BLOCKS_OF_FACTS: Final = f"""
    with recursive step(block, n) as (
        (select b.block, 1 from audit_block b where {_TOLD} order by b.block desc limit 1)
        union all
        select (select b.block from audit_block b where {_TOLD} and b.block < step.block
            order by b.block desc limit 1), n + 1
        from step where step.block is not null and n < $4
    )
    select block from step where block is not null and {_ALL_TYPED} order by block desc
"""


def _blocks_by_hash(asked: _Asked) -> str:
    """Return the statement for the last ``$4`` blocks with facts of the hashes that are wanted.

    Of each pair of a kind and an actor the last block is looked for first: only pairs whose last
    one is among the last ``$4`` can have others there, and none before the oldest of those.
    """
    kinds = _KINDS if asked.types else _HASHES_OF_KINDS
    whose = _ACTORS if asked.actors else _HASHES_OF_ACTORS
    return f"""
        with pair as materialized (
            select kind.hash as kind, who.hash as who, newest.block
            from ({kinds}) as kind(hash) cross join lateral ({whose}) as who(hash)
            cross join lateral (
                select b.block from audit_block b where {_TOLD}
                    and b.kind = kind.hash and b.who = who.hash
                order by b.block desc limit 1
            ) as newest
        ), oldest as materialized (
            select case count(*) when $4 then min(block) else $2 end as block from (
                select distinct block from pair order by block desc limit $4
            ) as newest
        )
        select distinct found.block from oldest join pair on pair.block >= oldest.block
        cross join lateral (
            select b.block from audit_block b where {_TOLD}
                and b.kind = pair.kind and b.who = pair.who and b.block >= oldest.block
            order by b.block desc limit $4
        ) as found
        where {_ALL_TYPED} order by found.block desc limit $4
    """


_KINDS: Final = "select distinct hashtext(type) from unnest($6::text[]) as of(type)"
_ACTORS: Final = "select distinct hashtext(actor) from unnest($5::text[]) as who(actor)"


def _hashes(column: str, condition: str) -> str:
    """Return the hashes that facts have in `column`, in SQL, each found by one step in the index.

    The log is asked, not this software: it may hold kinds that only a newer one knows.
    """
    held = f"from audit_block b where b.ledger_id = $1 {condition}"
    return f"""
        with recursive step(hash) as (
            (select b.{column} {held} order by b.{column} limit 1)
            union all
            select (select b.{column} {held} and b.{column} > step.hash
                order by b.{column} limit 1)
            from step where step.hash is not null
        )
        select hash from step where hash is not null
    """


_HASHES_OF_KINDS: Final = _hashes("kind", "")
_HASHES_OF_ACTORS: Final = _hashes("who", "and b.kind = kind.hash")
