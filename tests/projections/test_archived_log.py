"""Projections over a log whose payloads were archived or erased: the same rows, or fewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eventlog.archive.payloads import BLOCKS
from eventlog.database import Pool
from eventlog.ledger import Ledger
from projections.alerts.policy import AlertPolicy
from projections.telemetry.readings import POINTS_MAX, read_columns
from projections.telemetry.rollups import RollupProjection
from projections.twins.projection import TwinProjection
from tests.eventlog.archived import archive_all, erase_positions
from tests.projections.loop_frames import (
    LOOP,
    PATIENCE_S,
    fresh_ledgers,
    record,
    register,
    running,
    skab_frames,
)

pytestmark = pytest.mark.anyio

FRAMES = 8


async def rollups_of(ledger: Ledger, database_url: str) -> list[tuple[Any, ...]]:
    """Have everything that folds frames fold the log from its start; return the rollups."""
    projections = RollupProjection(), TwinProjection(), AlertPolicy()
    async with running(ledger, database_url, *projections) as runners:
        for runner in runners:
            await runner.wait_for(await ledger.head(), PATIENCE_S)
            assert runner.failure is None
    rows = await ledger.pool.fetch(
        "select * from telemetry_rollup where ledger = $1 and resolution_s = 60 "
        "order by asset_id, channel, bucket_start",
        ledger.name,
    )
    return [tuple(row.values())[1:] for row in rows]


async def flow(ledger: Ledger) -> tuple[bytes, bytes]:
    [columns] = await read_columns(
        ledger, LOOP, ("flow",), start_ns=0, end_ns=2**62, points_max=POINTS_MAX
    )
    return columns.times_ns.tobytes(), columns.values.tobytes()


async def test_projections_and_readings_of_an_archived_log_are_the_same(
    pool: Pool, database_url: str, tmp_path: Path
) -> None:
    plain, archived = await fresh_ledgers(pool, 2)
    for ledger in (plain, archived):
        await register(ledger)
        await record(ledger, skab_frames("valve1/1", 60)[:FRAMES])
    report = await archive_all(archived, tmp_path)
    assert report.windows == FRAMES
    assert await flow(archived) == await flow(plain)
    BLOCKS.clear()
    expected = await rollups_of(plain, database_url)
    assert len(expected) > 8
    assert await rollups_of(archived, database_url) == expected
    for ledger in (plain, archived):
        await ledger.close()


async def test_erased_events_are_passed_over_and_leave_no_row_behind(
    pool: Pool, database_url: str, tmp_path: Path
) -> None:
    fewer, erased = await fresh_ledgers(pool, 2)
    frames = skab_frames("valve1/1", 60)[:FRAMES]
    for ledger in (fewer, erased):
        await register(ledger)
    await record(fewer, [*frames[:2], *frames[3:-1]])
    await record(erased, frames)
    await archive_all(erased, tmp_path)
    await erase_positions(erased, 1 + 3, 1 + FRAMES)
    assert await flow(erased) == await flow(fewer)
    expected = await rollups_of(fewer, database_url)
    assert await rollups_of(erased, database_url) == expected
    for ledger in (fewer, erased):
        await ledger.close()
