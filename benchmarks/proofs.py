"""Verification of a whole log, and proofs at ten million leaves, beside what reading alone costs.

The large tree is not appended: its leaves are hashed directly, the roots of all its full tiles
are stored, and of its events those stand in the database that the asked-for proofs touch.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import statistics
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from benchmarks.report import Figure, Report
from benchmarks.scratch import scratch_server
from domain.asset import SetpointReported
from eventlog.database import Pool, create_pool
from eventlog.envelope import NewEvent, new_fact
from eventlog.ledger import Ledger
from eventlog.transparency.merkle import (
    TILE_WIDTH,
    TileRoot,
    TileTree,
    check_consistency,
    check_inclusion,
    consistency_plan,
    inclusion_plan,
    tiles_of,
)
from eventlog.transparency.tiles import LedgerTiles
from eventlog.verification.whole_log import verify_ledger

OCCURRED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
EVENTS_AN_APPEND: Final = 1_000
STREAMS: Final = 5_000
LEAVES_A_STEP: Final = 64 * TILE_WIDTH
SEED: Final = 20_260_101
ROUNDS: Final = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--events", type=int, default=300_000, help="events to verify")
    parser.add_argument("--leaves", type=int, default=10_000_000, help="size of the large tree")
    parser.add_argument("--proofs", type=int, default=200, help="leaves to prove in it")


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    with scratch_server() as server:
        return asyncio.run(_measure(arguments, server.url))


async def _measure(arguments: argparse.Namespace, database_url: str) -> Report:
    report = Report("proofs")
    pool = await create_pool(database_url)
    try:
        await _verify(report, pool, arguments.events)
        await _prove(report, pool, arguments.leaves, arguments.proofs)
    finally:
        await pool.close()
    return report


# --- verify -------------------------------------------------------------------------------


async def _verify(report: Report, pool: Pool, events: int) -> None:
    ledger = await Ledger.open(pool, "verified")
    started = time.perf_counter()
    for start in range(0, events, EVENTS_AN_APPEND):
        await ledger.append([_event(n) for n in range(start, start + EVENTS_AN_APPEND)])
    appended_s = time.perf_counter() - started
    await ledger.close()
    await pool.execute("analyze event")
    tiles = LedgerTiles(pool, ledger.ledger_id, ledger.name)
    started = time.perf_counter()
    built = await tiles.build(events)
    built_s = time.perf_counter() - started
    read_s = min([await _bare_read(pool, ledger.ledger_id, events) for _ in range(ROUNDS)])
    verified_s = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        outcome = await verify_ledger(pool, ledger.name)
        verified_s.append(time.perf_counter() - started)
        if not outcome.clean or outcome.payloads != events:
            raise SystemExit(f"the log is not clean: {outcome.findings[:3]}")
    report.figures["verify_events_per_s"] = Figure(
        events / statistics.median(verified_s), "events/s", events / read_s, 60_000
    )
    report.figures["build_tiles_events_per_s"] = Figure(events / built_s, "events/s")
    report.notes.append(
        f"{events:,} facts of {len(_event(0).payload)} payload bytes on {STREAMS:,} streams "
        f"(appended in {appended_s:.1f} s), {built:,} tiles; verify recomputes payload hashes, "
        "leaves, versions, tree and tiles, and compares the tables beside the log; "
        f"median of {ROUNDS}; limit: reading the same rows by pages"
    )


def _event(number: int) -> NewEvent:
    return new_fact(
        f"asset:loop-{number % STREAMS}",
        SetpointReported(f"loop-{number % STREAMS}", f"valve_{'x' * 150}", number / 8),
        event_id=uuid.UUID(int=number),
        occurred_at=OCCURRED_AT,
        actor="benchmark",
    )


async def _bare_read(pool: Pool, ledger_id: int, events: int) -> float:
    started, position = time.perf_counter(), 0
    while position < events:
        rows = await pool.fetch(
            "select * from event where ledger_id = $1 and position > $2 "
            "order by position limit 2000",
            ledger_id,
            position,
        )
        position = rows[-1]["position"]
    return time.perf_counter() - started


# --- proofs -------------------------------------------------------------------------------


async def _prove(report: Report, pool: Pool, leaves: int, proofs: int) -> None:
    ledger = await Ledger.open(pool, "large")
    await ledger.close()
    ledger_id = ledger.ledger_id
    rng = random.Random(SEED)
    indexes = [rng.randrange(leaves) for _ in range(proofs)]
    sizes = [rng.randrange(1, leaves) for _ in range(proofs)]
    started = time.perf_counter()
    tree, roots, old_roots = _large_tree(leaves, sorted(set(sizes)))
    hashed_s = time.perf_counter() - started
    await pool.copy_records_to_table(
        "tile",
        columns=("ledger_id", "level", "number", "root"),
        records=[(ledger_id, tile.level, tile.number, tile.root) for tile in roots],
    )
    wanted = {
        tile.number
        for plan in (
            *(inclusion_plan(index, leaves) for index in indexes),
            *(consistency_plan(size, leaves) for size in sizes),
        )
        for tile in tiles_of(plan, leaves)
        if tile.level == 0
    }
    await _store_events(pool, ledger_id, sorted(wanted), leaves)
    await pool.execute("analyze event, tile")
    tiles = LedgerTiles(pool, ledger_id, ledger.name)
    root = tree.root()
    await tiles.inclusion_proof(indexes[0], leaves)
    inclusion_ms, consistency_ms, bare_ms = [], [], []
    for index, size in zip(indexes, sizes, strict=True):
        started = time.perf_counter()
        path = await tiles.inclusion_proof(index, leaves)
        inclusion_ms.append((time.perf_counter() - started) * 1e3)
        check_inclusion(_leaf(index), index, leaves, root, path)
        started = time.perf_counter()
        proof = await tiles.consistency_proof(size, leaves)
        consistency_ms.append((time.perf_counter() - started) * 1e3)
        check_consistency(size, old_roots[size], leaves, root, proof)
        started = time.perf_counter()
        await tiles.read_all(tiles_of(inclusion_plan(index, leaves), leaves))
        bare_ms.append((time.perf_counter() - started) * 1e3)
    limit = statistics.median(bare_ms)
    for name, found in (("inclusion", inclusion_ms), ("consistency", consistency_ms)):
        report.figures[f"{name}_proof_p50"] = Figure(
            statistics.median(found), "ms", limit, 10, ceiling=True
        )
        report.figures[f"{name}_proof_p99"] = Figure(
            statistics.quantiles(found, n=100)[98], "ms", None, 10, ceiling=True
        )
    report.figures["tiles_a_proof"] = Figure(
        max(len(tiles_of(inclusion_plan(index, leaves), leaves)) for index in indexes), "tiles"
    )
    report.notes.append(
        f"{proofs} random leaves and sizes of a tree of {leaves:,}, hashed in {hashed_s:.0f} s; "
        f"{len(roots):,} rows of table tile, {len(wanted) * TILE_WIDTH:,} events; each proof "
        "verified against the root; limit: reading the tiles of a proof"
    )


def _leaf(index: int) -> bytes:
    return hashlib.sha256(b"\x00" + index.to_bytes(8, "big")).digest()


def _large_tree(
    leaves: int, sizes: Sequence[int]
) -> tuple[TileTree, list[TileRoot], dict[int, bytes]]:
    """Return the tree, the roots of its full tiles, and its root at each of `sizes`."""
    tree = TileTree()
    roots: list[TileRoot] = []
    old_roots: dict[int, bytes] = {}
    for stop in (*sizes, leaves):
        while tree.size < stop:
            end = min(stop, tree.size + LEAVES_A_STEP)
            roots += tree.append([_leaf(index) for index in range(tree.size, end)])
        old_roots[stop] = tree.root()
    return tree, roots, old_roots


async def _store_events(pool: Pool, ledger_id: int, tiles: Sequence[int], leaves: int) -> None:
    await pool.execute("select ensure_event_partitions($1)", leaves)
    for number in tiles:
        first = number * TILE_WIDTH
        await pool.copy_records_to_table(
            "event",
            columns=(
                "ledger_id", "position", "version", "occurred_at", "recorded_at", "event_id",
                "schema_version", "stream", "type", "actor", "payload_sha256", "leaf_hash",
                "payload",
            ),
            records=[
                (
                    ledger_id, index + 1, index + 1, OCCURRED_AT, OCCURRED_AT, uuid.UUID(int=index),
                    1, "asset:loop-1", "asset.retired", "benchmark", bytes(32), _leaf(index),
                    bytes(250),
                )
                for index in range(first, min(first + TILE_WIDTH, leaves))
            ],
        )  # fmt: skip
