"""Tiles and entries of a real log, built once, by anybody, from the rows alone."""

from __future__ import annotations

import asyncio
import json
import struct
from pathlib import Path

import asyncpg
import pytest
import rfc8785

from domain.errors import InvalidInput, NotFound
from eventlog.database import Pool
from eventlog.ledger import Ledger
from eventlog.transparency.merkle import (
    Frontier,
    TileId,
    check_consistency,
    check_inclusion,
    leaf_hash,
    split_hashes,
    subtree_root,
)
from eventlog.transparency.tiles import LedgerTiles, LogDamaged, check_tile
from tests.database import as_superuser
from tests.eventlog.new_events import fact, frame_event, frame_of, opened
from tests.eventlog.signing import grow, tiles_of_ledger

pytestmark = pytest.mark.anyio

SIZE = 700


async def leaves(ledger: Ledger) -> list[bytes]:
    rows = await ledger.pool.fetch("select leaf_hash from event order by position")
    return [row["leaf_hash"] for row in rows]


def root_of(hashes: list[bytes]) -> bytes:
    tree = Frontier()
    tree.append(hashes)
    return tree.root()


async def stored(pool: Pool) -> list[tuple[int, int, bytes]]:
    rows = await pool.fetch("select level, number, root from tile order by level, number")
    return [tuple(row) for row in rows]


async def test_a_ledger_nobody_opened_has_no_tiles(pool: Pool) -> None:
    with pytest.raises(NotFound) as refused:
        await LedgerTiles.of(pool, "plant-9")
    assert (refused.value.code, refused.value.value) == ("ledger.unknown", "plant-9")


async def test_an_entry_hashes_to_the_leaf_that_was_recorded(ledger: Ledger) -> None:
    await ledger.append([fact(1, actor='user:Zoë \\ "q" 😀'), frame_event(frame_of(1))])
    await ledger.append([fact(2, traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")])
    tiles = tiles_of_ledger(ledger)
    entries = await tiles.entries(0, 3)
    assert [leaf_hash(entry) for entry in entries] == await leaves(ledger)
    for entry in entries:
        assert rfc8785.dumps(json.loads(entry)) == entry
    assert await tiles.bundle(0, 3) == b"".join(
        struct.pack(">H", len(entry)) + entry for entry in entries
    )


async def test_tiles_are_built_forward_and_again_without_effect(ledger: Ledger) -> None:
    tiles = tiles_of_ledger(ledger)
    assert await tiles.build(0) == 0
    await grow(ledger, 255)
    assert await tiles.build(255) == 0
    await grow(ledger, 513)
    assert await tiles.build(513) == 2
    assert await tiles.build(513) == 0
    hashes = await leaves(ledger)
    assert await stored(ledger.pool) == [
        (0, 0, subtree_root(hashes[:256])),
        (0, 1, subtree_root(hashes[256:512])),
    ]


async def test_several_build_at_once_and_agree(ledger: Ledger, database_url: str) -> None:
    await grow(ledger, 3_000)
    async with opened(database_url) as other:
        made = await asyncio.gather(
            *(tiles_of_ledger(log).build(3_000) for log in (ledger, other) for _ in range(3))
        )
    assert sum(made) >= 11
    hashes = await leaves(ledger)
    assert await stored(ledger.pool) == [
        (0, n, subtree_root(hashes[256 * n : 256 * n + 256])) for n in range(11)
    ]


async def test_a_tile_of_level_two_stands_on_full_tiles_below(ledger: Ledger) -> None:
    await grow(ledger, 65_536 + 300)
    tiles = tiles_of_ledger(ledger)
    await tiles.build(65_836)
    hashes = await leaves(ledger)
    level_1 = split_hashes(await tiles.read(TileId(1, 0)))
    assert level_1 == [subtree_root(hashes[256 * n : 256 * n + 256]) for n in range(256)]
    assert await tiles.read(TileId(2, 0, 1)) == subtree_root(hashes[:65_536])
    assert await tiles.read(TileId(1, 1, 1)) == subtree_root(hashes[65_536:65_792])
    assert await tiles.root_at(65_836) == (await tiles.head()).root == root_of(hashes)
    path = await tiles.inclusion_proof(65_800, 65_836)
    check_inclusion(hashes[65_800], 65_800, 65_836, root_of(hashes), path)


async def test_every_width_of_a_tile_is_read_before_it_is_built(ledger: Ledger) -> None:
    await grow(ledger, SIZE)
    tiles, hashes = tiles_of_ledger(ledger), await leaves(ledger)
    assert await tiles.read(TileId(1, 0, 2)) == b"".join(
        subtree_root(hashes[256 * n : 256 * n + 256]) for n in range(2)
    )
    assert await tiles.read(TileId(0, 0)) == b"".join(hashes[:256])
    assert await tiles.read(TileId(0, 2, 1)) == hashes[512]
    assert await tiles.read(TileId(0, 2, 188)) == b"".join(hashes[512:700])
    for beyond in (TileId(0, 2, 189), TileId(1, 0, 3), TileId(2, 0, 1)):
        with pytest.raises(LogDamaged) as refused:
            await tiles.read(beyond)
        assert refused.value.code == "log.damaged"


@pytest.mark.parametrize(
    ("level", "number", "width", "available"),
    [(0, 2, 188, True), (0, 2, 189, False), (0, 1, 256, True), (0, 3, 1, False), (1, 0, 2, True),
     (1, 0, 3, False), (2, 0, 1, False), (63, 0, 1, False), (0, 10**20, 1, False)],
)  # fmt: skip
def test_only_tiles_of_the_tree_are_named(
    level: int, number: int, width: int, available: bool
) -> None:
    if available:
        assert check_tile(level, number, width, SIZE) == TileId(level, number, width)
        return
    with pytest.raises(InvalidInput) as refused:
        check_tile(level, number, width, SIZE)
    assert refused.value.code == "tile.not_in_tree"


async def test_proofs_of_a_real_log_verify(ledger: Ledger) -> None:
    await grow(ledger, SIZE)
    tiles, hashes = tiles_of_ledger(ledger), await leaves(ledger)
    root = root_of(hashes)
    indexes = [0, 1, 255, 256, 511, 512, 698, 699]
    for index, path in zip(indexes, await tiles.inclusion_proofs(indexes, SIZE), strict=True):
        check_inclusion(hashes[index], index, SIZE, root, path)
        assert path == await tiles.inclusion_proof(index, SIZE)
    for old in (0, 1, 256, 300, 512, 699, 700):
        proof = await tiles.consistency_proof(old, SIZE)
        check_consistency(old, root_of(hashes[:old]), SIZE, root, proof)


async def test_a_missing_event_is_said_and_not_papered_over(
    ledger: Ledger, database_url: str
) -> None:
    await grow(ledger, 300)
    superuser = await asyncpg.connect(as_superuser(database_url))
    await superuser.execute("set session_replication_role = replica")
    await superuser.execute("delete from event where position = 100")
    await superuser.close()
    tiles = tiles_of_ledger(ledger)
    for attempt in (tiles.build(300), tiles.entries(99, 1), tiles.read(TileId(0, 0))):
        with pytest.raises(LogDamaged) as refused:
            await attempt
        assert refused.value.code == "log.damaged"
    assert await stored(ledger.pool) == []


@pytest.mark.parametrize("table", ["tile", "checkpoint", "cosignature"])
async def test_tiles_and_checkpoints_are_append_only(
    ledger: Ledger, database_url: str, table: str, tmp_path: Path
) -> None:
    changes = [f"update {table} set ledger_id = 9", f"truncate {table}"]
    if table != "checkpoint":  # of which a few may go: tests/eventlog/test_signing.py
        changes.append(f"delete from {table}")
    for change in changes:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await ledger.pool.execute(change)
    superuser = await asyncpg.connect(as_superuser(database_url))
    try:
        for change in changes:
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
                await superuser.execute(change)
    finally:
        await superuser.close()
