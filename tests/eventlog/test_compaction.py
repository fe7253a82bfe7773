"""Compaction: long blocks on real recordings, and short files of a day that become one."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.frames import Frame
from eventlog.archive import compaction, payloads
from eventlog.archive.compaction import compact
from eventlog.archive.layout import BLOCK_WINDOWS_MAX, Window, write_segment
from eventlog.archive.payloads import BLOCKS
from eventlog.archive.store import ArchiveStore
from eventlog.ledger import Ledger
from tests.eventlog.archived import (
    DAY_NS,
    archive_all,
    archived_ledger,
    everything,
    files,
    record,
)
from tests.eventlog.cold_recordings import hydraulic_windows, skab_windows
from tests.eventlog.new_events import frame_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("windows", "bytes_a_reading_max"),
    [(skab_windows, 1.8), (hydraulic_windows, 1.05)],
    ids=["skab", "hydraulic"],
)
def test_cold_recordings_are_small(windows: object, bytes_a_reading_max: float) -> None:
    """Footers and directories included, with the quality and boundaries of every window."""
    assert callable(windows)
    frames: list[Frame] = windows()
    readings = sum(frame.reading_count for frame in frames)
    placed = [Window(n, frame) for n, frame in enumerate(frames, 1)]
    segment = write_segment("plant-1", "telemetry:loop-1", placed)
    assert len(segment.content) / readings <= bytes_a_reading_max
    assert max(map(len, segment.blocks)) == BLOCK_WINDOWS_MAX


async def test_short_files_of_a_day_become_one(ledger: Ledger, tmp_path: Path) -> None:
    frames = [
        frame_of(n, start_ns=(n % 2) * DAY_NS + n * 10**9, agent=f"agent-{n % 3}")
        for n in range(1, 25)
    ]
    for at in range(0, len(frames), 4):
        await record(ledger, frames[at : at + 4])
        await archive_all(ledger, tmp_path)
    before = await files(ledger, tmp_path)
    store = ArchiveStore(str(tmp_path))
    report = await compact(archived_ledger(ledger), store)
    after = await files(ledger, tmp_path)
    assert (report.files, report.segments, report.windows) == (len(before.live), 6, 24)
    assert report.bytes_after < report.bytes_before
    assert after.on_disk == after.live
    assert len(after.live) == 6  # two days, three headers
    BLOCKS.clear()
    assert [event.frame.canonical_sha256 for event in await everything(ledger)] == [
        frame.canonical_sha256 for frame in frames
    ]
    again = await compact(archived_ledger(ledger), store)
    assert again.files == 0


async def test_files_are_merged_a_bounded_number_at_a_time(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "FILES_AT_ONCE", 3)
    monkeypatch.setattr(compaction, "READINGS_AT_ONCE", 12)
    frames = [frame_of(n, start_ns=n * 10**9) for n in range(1, 8)]
    for frame in frames:
        await record(ledger, [frame])
        await archive_all(ledger, tmp_path)
    report = await compact(archived_ledger(ledger), ArchiveStore(str(tmp_path)))
    assert (report.files, report.segments) == (6, 3)  # of five readings each, two at a time
    assert [event.frame.canonical_sha256 for event in await everything(ledger)] == [
        frame.canonical_sha256 for frame in frames
    ]


async def test_a_reader_that_looked_before_the_file_was_replaced_finds_it(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in (1, 2):
        await record(ledger, [frame_of(n, start_ns=n * 10**9)])
        await archive_all(ledger, tmp_path)
    old = await payloads.locate(ledger.pool, ledger.ledger_id, [1, 2])
    await compact(archived_ledger(ledger), ArchiveStore(str(tmp_path)))
    locate, answers = payloads.locate, [old]

    async def stale_once(*of: object) -> dict[int, payloads.Place]:
        return answers.pop() if answers else await locate(*of)  # type: ignore[arg-type]

    monkeypatch.setattr(payloads, "locate", stale_once)
    events = await everything(ledger)
    assert [event.frame.sequence for event in events] == [1, 2]
    assert answers == []
