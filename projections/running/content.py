"""Checking: whether a projection's live rows are what the log says, compared by hash.

The log is folded anew into tables beside the live ones, up to the live checkpoint; then both are
looked at in one snapshot. The hash of a table does not depend on the order of its rows: two sums
of 64-bit hashes of each row's text, which PostgreSQL computes. Only where the hashes differ are
the rows themselves compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from domain.errors import Unavailable
from eventlog.database import Connection, Pool
from eventlog.ledger import Ledger
from projections.running.beside import (
    MAINTENANCE_TIMEOUT_S,
    PAUSE_EVENTS_MAX,
    Beside,
    Told,
    beside,
    silent,
)
from projections.running.projection import ComparedByContents, Projection
from projections.running.side_tables import quoted

DIFFERENCES_SHOWN: Final = 5
PAUSE_ATTEMPTS_MAX: Final = 100
PAUSE_RETRY_DELAY_S: Final = 0.1
ROW_TEXT_MAX: Final = 400


@dataclass(frozen=True, slots=True)
class Content:
    """What a table holds of one ledger: how many rows, and the hash of them all."""

    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not as the log says.

    `key` names it, by the primary key where there is one; `live` and `rebuilt` are the row, or
    None where there is none.
    """

    key: str
    live: str | None
    rebuilt: str | None


@dataclass(frozen=True, slots=True)
class TableCheck:
    """A table's live content beside the rebuilt one, and the first rows that differ."""

    table: str
    live: Content
    rebuilt: Content
    differences: tuple[Difference, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether both hold the same rows."""
        return self.live == self.rebuilt


@dataclass(frozen=True, slots=True)
class ProjectionCheck:
    """A projection's live tables beside rebuilt ones, both of the log up to `position`."""

    projection: str
    version: int
    position: int
    tables: tuple[TableCheck, ...]

    @property
    def equal(self) -> bool:
        """Whether all tables hold what the log says."""
        return all(table.equal for table in self.tables)


async def check(
    pool: Pool, ledger: Ledger, projection: Projection, *, told: Told = silent
) -> ProjectionCheck:
    """Compare the live rows of `projection` with what its fold makes of the log.

    The live projection is held still for the fold of its last events; else nothing waits.

    Raises
    ------
    InvalidInput
        ``projection.is_policy``
    Conflict
        ``projection.busy``
    Unavailable
        ``projection.not_folded``: there are no rows of this version; ``projection.behind``: the
        live rows go on faster than they are folded beside
    PoisonEvent
        an event below the live checkpoint cannot be folded
    """
    async with beside(
        pool, projection, "check", ledger_ids=[ledger.ledger_id], told=told
    ) as copies:
        pairs = [await _make_pair(copies, table, ledger.ledger_id) for table in projection.tables]
        for _ in range(PAUSE_ATTEMPTS_MAX):
            await copies.catch_up(ledger.ledger_id, await _live_position(copies, ledger))
            if await _level(copies, ledger):
                break
            await asyncio.sleep(PAUSE_RETRY_DELAY_S)
        else:
            raise Unavailable(
                "projection.behind",
                f"the live rows of {projection.name!r} go on faster than they can be folded anew",
                hint="check while less comes in",
                value=copies.held[ledger.ledger_id].position,
            )
        # `_level` left the folding connection in a snapshot in which both are equally far.
        try:
            tables = [await _compare(copies.folding, pair) for pair in pairs]
        finally:
            await copies.folding.execute("rollback")
    return ProjectionCheck(
        projection.name,
        projection.version,
        copies.held[ledger.ledger_id].position,
        tuple(tables),
    )


async def _live_position(copies: Beside, ledger: Ledger) -> int:
    found = (await copies.live()).get(ledger.ledger_id)
    if found is None or found.version != copies.projection.version:
        raise Unavailable(
            "projection.not_folded",
            f"{ledger.name!r} has no rows of {copies.projection.name!r} of version "
            f"{copies.projection.version}"
            + ("" if found is None else f", but of version {found.version}"),
            hint="start `heddle serve`, or run `heddle rebuild`",
            value=None if found is None else found.version,
            limit=copies.projection.version,
        )
    return found.position


async def _level(copies: Beside, ledger: Ledger) -> bool:
    """Hold the live rows still, fold what is missing, and keep a snapshot of that moment.

    False where too much is missing to hold them for it.
    """
    async with copies.guard.transaction():
        live = (await copies.live(for_update=True))[ledger.ledger_id]
        if live.position - copies.held[ledger.ledger_id].position > PAUSE_EVENTS_MAX:
            return False
        await copies.catch_up(ledger.ledger_id, live.position)
        await copies.folding.execute("begin isolation level repeatable read, read only")
        await copies.folding.execute("select 1")  # the snapshot is taken by the first statement
        return True


# --- tables -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two views that show what is compared of a table, and the columns that name a row."""

    table: str
    live: str
    rebuilt: str
    key: tuple[str, ...]


async def _make_pair(copies: Beside, table: str, ledger_id: int) -> _Pair:
    """Make the views beside the copies. Bare names mean one or the other by the search path."""
    projection, side, connection = copies.projection, copies.side, copies.folding
    contents = projection.contents if isinstance(projection, ComparedByContents) else {}
    query = contents.get(table, f"select * from {quoted(table)} where ledger_id = $1")
    pair = _Pair(
        table,
        side.name(f"{table}_live"),
        side.name(f"{table}_rebuilt"),
        () if table in contents else await _primary_key(connection, side.name(table)),
    )
    for view, path in ((pair.live, quoted(side.live)), (pair.rebuilt, side.search_path)):
        await connection.execute(f"set search_path to {path}")
        await connection.execute(f"create view {view} as {query.replace('$1', str(ledger_id))}")
    return pair


async def _compare(connection: Connection, pair: _Pair) -> TableCheck:
    live = await _content(connection, pair.live)
    rebuilt = await _content(connection, pair.rebuilt)
    if live == rebuilt:
        return TableCheck(pair.table, live, rebuilt)
    only_live = await _only_in(connection, pair.live, pair.rebuilt, pair.key)
    only_rebuilt = await _only_in(connection, pair.rebuilt, pair.live, pair.key)
    differences = [
        Difference(key, only_live.get(key), only_rebuilt.get(key))
        for key in dict.fromkeys((*only_live, *only_rebuilt))
    ]
    return TableCheck(pair.table, live, rebuilt, tuple(differences[:DIFFERENCES_SHOWN]))


async def _content(connection: Connection, view: str) -> Content:
    row = await connection.fetchrow(
        f"""
        select count(*) as rows,
            coalesce(sum(hashtextextended(r::text, 0)::numeric), 0)::text as one,
            coalesce(sum(hashtextextended(r::text, 1)::numeric), 0)::text as other
        from {view} r
        """,
        timeout=MAINTENANCE_TIMEOUT_S,
    )
    assert row is not None, "an aggregate has a row"
    halves = [f"{int(row[half]) % 2**64:016x}" for half in ("one", "other")]
    return Content(row["rows"], "".join(halves))


async def _only_in(
    connection: Connection, view: str, other: str, key: Sequence[str]
) -> dict[str, str]:
    """Return the first rows of `view` that `other` does not have, by their key."""
    named = ", ".join(f"r.{quoted(column)}" for column in key)
    rows = await connection.fetch(
        f"""
        select {f"row({named})::text" if key else "left(r::text, $2)"} as key,
            left(r::text, $2) as row
        from (select * from {view} except all select * from {other}) r
        order by {named or "r::text"} limit $1
        """,
        DIFFERENCES_SHOWN,
        ROW_TEXT_MAX,
        timeout=MAINTENANCE_TIMEOUT_S,
    )
    return {row["key"]: row["row"] for row in rows}


async def _primary_key(connection: Connection, table: str) -> tuple[str, ...]:
    """Return the columns of a table's primary key; without one no row has a name."""
    rows = await connection.fetch(
        """
        select a.attname from pg_index i
        cross join lateral unnest(i.indkey::smallint[]) with ordinality as k(number, place)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
        where i.indrelid = to_regclass($1) and i.indisprimary order by k.place
        """,
        table,
    )
    return tuple(row["attname"] for row in rows)
