"""Killed at any step: nothing is lost, nothing is left behind, and running it again finishes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from domain.frames import Frame
from eventlog.archive.compaction import compact
from eventlog.archive.payloads import BLOCKS
from eventlog.archive.store import ArchiveStore
from eventlog.erasure import finish_erasures
from eventlog.ledger import Ledger
from tests.eventlog.archive_process import STEPS
from tests.eventlog.archived import (
    archive_all,
    archived_ledger,
    everything,
    files,
    record,
    tiers,
)
from tests.eventlog.new_events import frame_of
from tests.recordings import REPOSITORY

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FRAMES = [frame_of(n, start_ns=n * 10**9, agent=f"agent-{n % 2}") for n in range(1, 13)]
ERASED = (3, 4, 12)


async def run(database_url: str, folder: Path, command: str, step: str) -> int:
    """Run the command in a process of its own and return how that ended."""
    process = await asyncio.to_thread(
        subprocess.run,
        [
            *(sys.executable, "-m", "tests.eventlog.archive_process"),
            *(database_url, str(folder), command, step),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        timeout=120,
        check=False,
    )
    return process.returncode


async def assert_nothing_is_lost(
    ledger: Ledger, frames: Sequence[Frame] = FRAMES, erased: Sequence[int] = ()
) -> None:
    """Every frame is read as recorded, but for those at the positions `erased`."""
    BLOCKS.clear()
    for event, frame in zip(await everything(ledger), frames, strict=False):
        if event.position in erased:
            assert event.erased
            assert event.payload is None
        else:
            assert event.frame.canonical_sha256 == frame.canonical_sha256


async def assert_settled(ledger: Ledger, folder: Path) -> None:
    """The files there are, are those that payloads are read from."""
    lying = await files(ledger, folder)
    assert lying.on_disk == lying.live
    assert lying.unsettled == set()


@pytest.mark.parametrize("step", [step for step in STEPS if step != "recorded"])
async def test_an_archive_run_that_was_killed(
    ledger: Ledger, database_url: str, tmp_path: Path, step: str
) -> None:
    await record(ledger, FRAMES)
    killed = await run(database_url, tmp_path, "archive", step)
    assert killed == (0 if step == "file deleted" else -signal.SIGKILL)
    await assert_nothing_is_lost(ledger)
    await archive_all(ledger, tmp_path)
    await assert_settled(ledger, tmp_path)
    assert set((await tiers(ledger)).values()) == {1}
    await assert_nothing_is_lost(ledger)


@pytest.mark.parametrize("step", STEPS)
async def test_an_erasure_that_was_killed_is_carried_out_by_whoever_comes_next(
    ledger: Ledger, database_url: str, tmp_path: Path, step: str
) -> None:
    await record(ledger, FRAMES[:8])
    await archive_all(ledger, tmp_path)
    await record(ledger, FRAMES[8:])
    killed = await run(database_url, tmp_path, f"erase:{','.join(map(str, ERASED))}", step)
    assert killed == -signal.SIGKILL
    events = await everything(ledger)
    assert len(events) == len(FRAMES) + 1  # it was recorded before anything else
    gone = {event.position for event in events if event.erased}
    assert gone <= set(ERASED)
    await assert_nothing_is_lost(ledger, erased=sorted(gone))
    assert await finish_erasures(archived_ledger(ledger)) == 1
    assert await finish_erasures(archived_ledger(ledger)) == 0
    assert {n for n, tier in (await tiers(ledger)).items() if tier == 2} == set(ERASED)
    await assert_settled(ledger, tmp_path)
    await assert_nothing_is_lost(ledger, erased=ERASED)


@pytest.mark.parametrize("step", [step for step in STEPS if step != "recorded"])
async def test_a_compaction_that_was_killed(
    ledger: Ledger, database_url: str, tmp_path: Path, step: str
) -> None:
    for frame in FRAMES:
        await record(ledger, [frame])
        await archive_all(ledger, tmp_path)
    assert await run(database_url, tmp_path, "compact", step) == -signal.SIGKILL
    await assert_nothing_is_lost(ledger)
    await compact(archived_ledger(ledger), ArchiveStore(str(tmp_path)))
    await assert_settled(ledger, tmp_path)
    assert len((await files(ledger, tmp_path)).live) == 2
    await assert_nothing_is_lost(ledger)


async def test_killed_again_and_again_at_any_moment(
    ledger: Ledger, database_url: str, tmp_path: Path
) -> None:
    frames = [
        frame_of(n, start_ns=n * 10**9, agent=f"agent-{n % 40}", length=200) for n in range(1, 401)
    ]
    await record(ledger, frames)
    dice = random.Random(4)
    kills = 0
    for _ in range(12):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.eventlog.archive_process"),
            *(database_url, str(tmp_path), "archive", "never"),
            cwd=REPOSITORY,
        )
        # Once it is at work, at some moment that no step has a name for.
        await wait_until_at_work(ledger, process)
        await asyncio.sleep(dice.uniform(0, 0.12))
        if process.returncode is None:
            process.kill()
        await process.wait()
        kills += process.returncode == -signal.SIGKILL
        await assert_nothing_is_lost(ledger, frames)
    await archive_all(ledger, tmp_path)
    await assert_settled(ledger, tmp_path)
    assert set((await tiers(ledger)).values()) == {1}
    await assert_nothing_is_lost(ledger, frames)
    assert kills >= 2


async def wait_until_at_work(ledger: Ledger, process: asyncio.subprocess.Process) -> None:
    """Return once somebody holds the archive's lock, or `process` has ended."""
    for _ in range(6_000):
        held = await ledger.pool.fetchval(
            "select exists (select from pg_locks where locktype = 'advisory' and objid = $1 "
            "and database = (select oid from pg_database where datname = current_database()))",
            ledger.ledger_id,
        )
        if held or process.returncode is not None:
            return
        await asyncio.sleep(0.005)
