"""The archive: bytes a reading of cold recordings, how fast frames move there and are read back.

Real skab and hydraulic recordings in windows of 125 readings a channel, repeated day after day.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.report import Figure, Report
from benchmarks.scratch import scratch_server
from domain.asset import telemetry_stream
from domain.frames import ChannelHeader, Column, Frame, FrameHeader, build_frame, time_from_ns
from eventlog.archive.moving import ArchiveReport, archive
from eventlog.archive.payloads import BLOCKS
from eventlog.archive.segments import ArchivedLedger
from eventlog.archive.store import ArchiveStore
from eventlog.database import Pool, create_pool
from eventlog.envelope import new_frame
from eventlog.ledger import Ledger
from eventlog.reading import read_page
from eventlog.verification.whole_log import verify_ledger

READINGS_A_WINDOW: Final = 125
DAY_NS: Final = 86_400_000_000_000
SECOND_NS: Final = 1_000_000_000
START_NS: Final = 1_600_041_600_000_000_000
FAR_AHEAD: Final = datetime(2100, 1, 1, tzinfo=UTC)
HYDRAULIC: Final = ("CE", "CP", "SE", "TS1", "TS2", "TS3", "TS4", "VS1")
BYTES_GOALS: Final = {"skab": 1.8, "hydraulic": 1.8}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--days", type=int, default=4, help="how often each recording is repeated")


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    with scratch_server() as server:
        return asyncio.run(_measure(arguments.days, server.url, server.folder))


@dataclass(frozen=True, slots=True)
class _Recording:
    name: str
    frames: list[Frame]

    @property
    def readings(self) -> int:
        return sum(frame.reading_count for frame in self.frames)


async def _measure(days: int, database_url: str, folder: Path) -> Report:
    report = Report("archive")
    pool = await create_pool(database_url)
    try:
        for recording in (_Recording("skab", _skab(days)), _Recording("hydraulic", _hydraulic())):
            await _measure_one(report, pool, recording, folder)
    finally:
        await pool.close()
    report.notes = [
        f"windows of {READINGS_A_WINDOW} readings a channel; bytes a reading of whole files, with "
        "footers, quality and window boundaries; limit: the encoded windows, each for itself",
        "archive: from rows to files read back, hashed and committed; limit: pyarrow writing the "
        "same values as plain float64 columns, once, in memory",
        "read: pages with payload from cold files, hashed; limit: the same pages from their rows",
    ]
    return report


async def _measure_one(report: Report, pool: Pool, recording: _Recording, folder: Path) -> None:
    name, frames, readings = recording.name, recording.frames, recording.readings
    ledger = await Ledger.open(pool, name)
    try:
        row_bytes = await _record(ledger, frames)
        from_rows_s = await _read(ledger)
        started = time.perf_counter()
        moved = await _archive(ledger, folder)
        archived_s = time.perf_counter() - started
        BLOCKS.clear()
        from_files_s = await _read(ledger)
        BLOCKS.clear()
        started = time.perf_counter()
        verified = await verify_ledger(pool, name)
        verified_s = time.perf_counter() - started
    finally:
        await ledger.close()
    if not verified.clean or verified.payloads_archived != len(frames):
        raise SystemExit(f"the archive of {name} is not sound: {verified.findings[:3]}")
    report.figures[f"{name}_bytes_a_reading"] = Figure(
        moved.file_bytes / readings, "B", row_bytes / readings, BYTES_GOALS[name], ceiling=True
    )
    report.figures[f"{name}_archived"] = Figure(
        readings / archived_s / 1e6, "M readings/s", readings / _plain_parquet_s(frames) / 1e6
    )
    report.figures[f"{name}_read_back"] = Figure(
        readings / from_files_s / 1e6, "M readings/s", readings / from_rows_s / 1e6
    )
    report.figures[f"{name}_verified"] = Figure(readings / verified_s / 1e6, "M readings/s")


async def _record(ledger: Ledger, frames: Sequence[Frame]) -> int:
    size = 0
    for at in range(0, len(frames), 100):
        events = [
            new_frame(
                telemetry_stream(frame.header.asset),
                frame,
                event_id=uuid.uuid4(),
                occurred_at=time_from_ns(frame.window_end_ns),
            )
            for frame in frames[at : at + 100]
        ]
        size += sum(len(event.payload) for event in events)
        await ledger.append(events)
    return size


async def _archive(ledger: Ledger, folder: Path) -> ArchiveReport:
    return await archive(
        ArchivedLedger(ledger.pool, ledger.ledger_id, ledger.name),
        ArchiveStore(str(folder / "archive")),
        older_than=timedelta(0),
        now=FAR_AHEAD,
    )


async def _read(ledger: Ledger) -> float:
    """Return how many seconds it takes to read every event with its payload, page by page."""
    started, after = time.perf_counter(), 0
    while page := await read_page(ledger, after):
        after = page[-1].position
    return time.perf_counter() - started


def _plain_parquet_s(frames: Sequence[Frame]) -> float:
    columns: dict[str, Column] = {
        channel.name: np.concatenate([frame.values[index] for frame in frames])
        for index, channel in enumerate(frames[0].header.channels)
    }
    columns["time"] = np.concatenate([frame.clocks[0] for frame in frames])
    started = time.perf_counter()
    pq.write_table(pa.table(columns), io.BytesIO(), compression="zstd")
    return time.perf_counter() - started


# --- recordings ---------------------------------------------------------------------------


def _data() -> Path:
    return Path(os.environ.get("HEDDLE_DATA", "../shared/data"))


def _skab(days: int) -> list[Frame]:
    columns: list[list[Column]] = []
    names: list[str] = []
    for path in sorted((_data() / "skab" / "data").glob("*/*.csv")):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter=";"))
        names = [name for name in rows[0] if name not in ("datetime", "anomaly", "changepoint")]
        columns.append([np.array([float(row[name]) for row in rows]) for name in names])
    whole = [np.concatenate(parts) for parts in zip(*columns, strict=True)]
    return _windows("loop-1", [name.replace(" ", "_") for name in names], whole, days)


def _hydraulic() -> list[Frame]:
    whole = [np.loadtxt(_data() / "hydraulic" / f"{name}.txt").ravel() for name in HYDRAULIC]
    return _windows("rig-1", list(HYDRAULIC), whole, 1)


def _windows(asset: str, names: Sequence[str], columns: Sequence[Column], days: int) -> list[Frame]:
    header = FrameHeader(
        asset, "agent-1", tuple(ChannelHeader(name, "1", 1.0, 0.0) for name in names)
    )
    frames: list[Frame] = []
    for day in range(days):
        for at in range(0, len(columns[0]) - READINGS_A_WINDOW + 1, READINGS_A_WINDOW):
            cut = slice(at, at + READINGS_A_WINDOW)
            clock = START_NS + day * DAY_NS + np.arange(cut.start, cut.stop) * SECOND_NS
            frames.append(
                build_frame(
                    header,
                    len(frames) + 1,
                    [clock.astype(np.int64)],
                    [column[cut] for column in columns],
                    [None] * len(columns),
                )
            )
    return frames
