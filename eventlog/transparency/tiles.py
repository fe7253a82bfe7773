"""Tiles of a ledger: its Merkle tree as runs of 256 hashes, its entries, and proofs from both.

Level 0 is read from the events. Of each full tile one row keeps the root (table `tile`), which
is what the level above is made of; so any tile, full or partial, is one range of a key. Rows
are built forward from the log, by whoever comes first: what they hold follows from the log.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import orjson

from domain.errors import HeddleError, InvalidInput, NotFound
from eventlog.database import Pool
from eventlog.transparency.merkle import (
    HASH_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Part,
    TileId,
    Tiles,
    consistency_plan,
    inclusion_plan,
    root_plan,
    split_hashes,
    subtree_root,
    tiles_of,
    width_in,
)

PAGE_TILES: Final = 64
"""Tiles whose hashes are in memory at once while rows are built."""

ENTRY_NAMES: Final = (
    "actor",
    "causation_id",
    "correlation_id",
    "event_id",
    "ledger",
    "occurred_at",
    "payload_sha256",
    "position",
    "recorded_at",
    "schema_version",
    "stream",
    "traceparent",
    "type",
    "version",
)
"""Members of an entry in the order of RFC 8785."""


def time_sql(column: str) -> str:
    """Return SQL for `column` as `domain.events.format_time` writes a time."""
    return f"""to_char({column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


ENTRY_COLUMNS: Final = f"""
    actor, causation_id::text, correlation_id::text, event_id::text, $2::text as ledger,
    {time_sql("occurred_at")} as occurred_at, encode(payload_sha256, 'hex') as payload_sha256,
    position, {time_sql("recorded_at")} as recorded_at, schema_version, stream, traceparent,
    type, version
"""
"""The columns of `ENTRY_NAMES`, as JSON has them; parameter 2 is the ledger's name."""


def entry_of(row: Iterable[Any]) -> bytes:
    """Return the entry of a row that begins with `ENTRY_COLUMNS`: its canonical envelope."""
    return orjson.dumps(dict(zip(ENTRY_NAMES, row, strict=False)))


class LogDamaged(HeddleError):
    """The tables of the log contradict one another; `heddle verify` says where."""


@dataclass(frozen=True, slots=True)
class Head:
    """How long the log is, and the root of its tree, as committed."""

    size: int
    root: bytes


class LedgerTiles:
    """The tiles of one ledger. `name` is the ledger's."""

    def __init__(self, pool: Pool, ledger_id: int, name: str) -> None:
        self.pool = pool
        self.ledger_id = ledger_id
        self.name = name

    @classmethod
    async def of(cls, pool: Pool, name: str) -> Self:
        """Return the tiles of the ledger called `name`.

        Raises
        ------
        NotFound
            ``ledger.unknown``
        """
        ledger_id = await pool.fetchval("select ledger_id from ledger where name = $1", name)
        if ledger_id is None:
            raise NotFound("ledger.unknown", f"there is no ledger {name!r}", value=name)
        return cls(pool, ledger_id, name)

    async def head(self) -> Head:
        """Return the committed head."""
        row = await self.pool.fetchrow(
            "select position, root from ledger where ledger_id = $1", self.ledger_id
        )
        assert row is not None, "the ledger's row is never deleted"
        return Head(row["position"], row["root"])

    # --- building -------------------------------------------------------------------------

    async def build(self, size: int) -> int:
        """Store the roots of all full tiles of the first `size` leaves; return how many were new.

        Several processes may build at once: each goes on from what it finds, in order, and all
        compute the same.

        Raises
        ------
        LogDamaged
            ``log.damaged``: events are missing
        """
        made, level = 0, 0
        while full := size >> (TILE_HEIGHT * (level + 1)):
            have: int = await self.pool.fetchval(
                "select coalesce(max(number) + 1, 0) from tile where ledger_id = $1 and level = $2",
                self.ledger_id,
                level,
            )
            while have < full:
                count = min(PAGE_TILES, full - have)
                await self._build_page(level, have, count)
                have += count
                made += count
            level += 1
        return made

    async def _build_page(self, level: int, number: int, count: int) -> None:
        packed = await self._run_of_hashes(level, number * TILE_WIDTH, count * TILE_WIDTH)
        hashes = split_hashes(packed)
        await self.pool.execute(
            """
            insert into tile (ledger_id, level, number, root)
            select $1, $2, * from unnest($3::bigint[], $4::bytea[])
            on conflict do nothing
            """,
            self.ledger_id,
            level,
            list(range(number, number + count)),
            [
                subtree_root(hashes[start : start + TILE_WIDTH])
                for start in range(0, len(hashes), TILE_WIDTH)
            ],
        )

    async def _run_of_hashes(self, level: int, start: int, count: int) -> bytes:
        packed = (await self._fetch([(level, start, count)]))[0]
        if len(packed) != count * HASH_BYTES:
            raise LogDamaged(
                "log.damaged",
                f"ledger {self.name!r} has {len(packed) // HASH_BYTES} of the {count} hashes "
                f"from {start} on at level {level} of its tree",
                hint="`heddle verify` says what is missing",
                value=len(packed) // HASH_BYTES,
                limit=count,
            )
        return packed

    async def _fetch(self, runs: Sequence[tuple[int, int, int]]) -> list[bytes]:
        """Return what there is of each run of hashes: (level, first, count), packed."""
        leaves = [(n, *run[1:]) for n, run in enumerate(runs) if not run[0]]
        above = [(n, *run) for n, run in enumerate(runs) if run[0]]
        found = [b""] * len(runs)
        if leaves:
            rows = await self.pool.fetch(
                """
                select w.n, (
                    select string_agg(leaf_hash, ''::bytea order by position) from event
                    where ledger_id = $1 and position > w.start and position <= w.start + w.count
                ) as packed
                from unnest($2::int[], $3::bigint[], $4::int[]) as w(n, start, count)
                """,
                self.ledger_id,
                *map(list, zip(*leaves, strict=True)),
            )
            for row in rows:
                found[row["n"]] = row["packed"] or b""
        if above:
            rows = await self.pool.fetch(
                """
                select w.n, (
                    select string_agg(root, ''::bytea order by number) from tile
                    where ledger_id = $1 and level = w.level - 1
                        and number >= w.start and number < w.start + w.count
                ) as packed
                from unnest($2::int[], $3::smallint[], $4::bigint[], $5::int[])
                    as w(n, level, start, count)
                """,
                self.ledger_id,
                *map(list, zip(*above, strict=True)),
            )
            for row in rows:
                found[row["n"]] = row["packed"] or b""
        return found

    # --- reading --------------------------------------------------------------------------

    async def read(self, tile: TileId) -> bytes:
        """Return the hashes of `tile`, packed.

        Raises
        ------
        LogDamaged
            ``log.damaged``: the log is not that long, or not whole
        """
        return (await self.read_all([tile]))[tile]

    async def read_all(self, wanted: Sequence[TileId]) -> dict[TileId, bytes]:
        """Return the hashes of each of `wanted`, packed; rows not yet built are built first."""
        runs = [(tile.level, tile.number * TILE_WIDTH, tile.width) for tile in wanted]
        found = await self._fetch(runs)
        if any(len(f) != run[2] * HASH_BYTES for f, run in zip(found, runs, strict=True)):
            await self.build((await self.head()).size)
            found = [await self._run_of_hashes(*run) for run in runs]
        return dict(zip(wanted, found, strict=True))

    async def entries(self, start: int, count: int) -> list[bytes]:
        """Return the entries from tree index `start` on.

        Raises
        ------
        LogDamaged
            ``log.damaged``: there are fewer
        """
        rows = await self.pool.fetch(
            f"""
            select {ENTRY_COLUMNS} from event
            where ledger_id = $1 and position > $3 and position <= $4 order by position
            """,
            self.ledger_id,
            self.name,
            start,
            start + count,
        )
        if len(rows) != count:
            raise LogDamaged(
                "log.damaged",
                f"ledger {self.name!r} holds {len(rows)} events from position {start + 1} to "
                f"{start + count}",
                hint="`heddle verify` says what is missing",
                value=len(rows),
                limit=count,
            )
        return [entry_of(row) for row in rows]

    async def bundle(self, number: int, width: int = TILE_WIDTH) -> bytes:
        """Return an entry bundle: each entry after its length, a big-endian u16."""
        found = await self.entries(number * TILE_WIDTH, width)
        return b"".join(struct.pack(">H", len(entry)) + entry for entry in found)

    # --- proofs ---------------------------------------------------------------------------

    async def root_at(self, size: int) -> bytes:
        """Return the root of the first `size` leaves."""
        return (await self._prove(root_plan(size), size))[0]

    async def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the audit path of leaf `index` in the tree of the first `size` leaves."""
        return await self._prove(inclusion_plan(index, size), size)

    async def inclusion_proofs(self, indexes: Sequence[int], size: int) -> list[list[bytes]]:
        """Return the audit path of each of `indexes`, reading each tile once."""
        plans = [inclusion_plan(index, size) for index in indexes]
        wanted = tiles_of((part for plan in plans for part in plan), size)
        tiles = Tiles(await self.read_all(wanted) if wanted else {})
        return [tiles.proof(plan) for plan in plans]

    async def consistency_proof(self, old_size: int, size: int) -> list[bytes]:
        """Return the proof that the tree of `size` leaves begins with that of `old_size`."""
        return await self._prove(consistency_plan(old_size, size), size)

    async def _prove(self, plan: Sequence[Part], size: int) -> list[bytes]:
        wanted = tiles_of(plan, size)
        return Tiles(await self.read_all(wanted) if wanted else {}).proof(plan)


def check_tile(level: int, number: int, width: int, size: int) -> TileId:
    """Return the tile when a tree of `size` leaves has it, as wide or wider.

    Raises
    ------
    InvalidInput
        ``tile.not_in_tree``
    """
    available = width_in(level, number, size)
    if not 0 < width <= available:
        raise InvalidInput(
            "tile.not_in_tree",
            f"in the tree of {size} leaves, tile {number} of level {level} has {available} "
            f"hashes, not {width}",
            value=width,
            limit=available,
        )
    return TileId(level, number, width)
