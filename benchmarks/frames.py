"""Frames of real recordings: from arrays to acknowledged, bytes on disk, encoding and decoding.

Each figure of the log stands beside bare COPY of the same rows and beside a wide table, a row a
time with a column a channel, filled by COPY from the same arrays; fsync on.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.frame_copy import copy_frames
from benchmarks.frame_writers import PROCESSES, rate_of_processes
from benchmarks.report import Figure, Report
from benchmarks.scratch import run_as_served, scratch_server
from domain.asset import telemetry_stream
from domain.frame_decoding import decode_many
from domain.frame_encoding import encode_many
from domain.frame_stacks import build_frames, hash_frames
from domain.frames import (
    ChannelHeader,
    FloatArray,
    Frame,
    FrameHeader,
    time_from_ns,
)
from domain.identifiers import uuid7
from domain.units import UNITS
from eventlog.database import Pool, create_pool
from eventlog.envelope import NewEvent, frame_windows, new_frame
from eventlog.ledger import Appended, Ledger

ROWS_A_FRAME = 125
FRAMES_A_TRANSACTION = 20
OF_WIDE_TABLE = 7.0 / 3.2
"""What 7 M readings/s are of the wide table on the machine of that goal, in 3.2 M."""
START_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000
SKAB = {
    "Accelerometer1RMS": ("accelerometer_1", "g_n"),
    "Accelerometer2RMS": ("accelerometer_2", "g_n"),
    "Current": ("motor_current", "A"),
    "Pressure": ("pressure", "bar"),
    "Temperature": ("housing_temperature", "degC"),
    "Thermocouple": ("fluid_temperature", "degC"),
    "Voltage": ("supply_voltage", "V"),
    "Volume Flow RateRMS": ("flow", "l/min"),
}
HYDRAULIC = {
    "TS1": ("temperature_1", "degC"),
    "TS2": ("temperature_2", "degC"),
    "TS3": ("temperature_3", "degC"),
    "TS4": ("temperature_4", "degC"),
    "VS1": ("vibration", "mm/s"),
    "CE": ("cooling_efficiency", "%"),
    "CP": ("cooling_power", "kW"),
    "SE": ("efficiency", "%"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--frames", type=int, default=12_000, help="frames of each recording")
    parser.add_argument("--assets", type=int, default=200)


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    report = Report("frames")
    for name, recording, goal_bytes in (
        ("skab", _skab(), 2.8),
        ("hydraulic", _hydraulic(), 2.0),
    ):
        _measure_codec(report, name, recording)
        # A log of its own: rows of another recording would fill the gaps that this one leaves.
        with scratch_server() as server:
            run_as_served(_measure_log(report, name, recording, goal_bytes, arguments, server.url))
            record = partial(_record_share, recording, arguments)
            rate = rate_of_processes(server.url, "plant-3", record)
            limit = report.figures[f"{name}_20_frames_a_transaction"].limit
            report.figures[f"{name}_20_frames_from_{PROCESSES}_processes"] = Figure(
                rate, "readings/s", limit, 7_000_000
            )
    report.notes = [
        f"frames of {ROWS_A_FRAME} readings of 8 channels, {arguments.assets} assets, fsync on; "
        "from arrays: building, checking, encoding, hashing and statistics are part of it",
        f"{FRAMES_A_TRANSACTION} frames a transaction: windows of one asset, two callers, in one "
        f"process or in each of {PROCESSES} that write to one ledger; "
        "200 agents: made from arrays together, one window an append, all at once",
        "limit: COPY of the same rows, as many a transaction; the wide table is filled from the "
        "same arrays, 2,500 rows a transaction",
        "encoding and decoding: one core, CPU time",
    ]
    return report


# --- recordings ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """Real readings, cut into windows.

    Parameters
    ----------
    channels : (name, unit) of each
    values : float64, shape (n_channels, n), as delivered
    """

    channels: tuple[tuple[str, str], ...]
    values: FloatArray

    def window(self, number: int) -> FloatArray:
        """Return the values of a window, shape (n_channels, `ROWS_A_FRAME`)."""
        first = number % (self.values.shape[1] // ROWS_A_FRAME) * ROWS_A_FRAME
        return self.values[:, first : first + ROWS_A_FRAME]

    def header(self, asset: int) -> FrameHeader:
        """Return the header of the frames of asset number `asset`."""
        channels = tuple(
            ChannelHeader(name, unit, UNITS[unit].factor, UNITS[unit].offset)
            for name, unit in self.channels
        )
        return FrameHeader(f"pump-{asset:03d}", f"agent-{asset:03d}", channels)


def _folder() -> Path:
    return Path(os.environ.get("HEDDLE_DATA", "../shared/data"))


def _skab() -> Recording:
    file = _folder() / "skab" / "data" / "anomaly-free" / "anomaly-free.csv"
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter=";"))
    values = np.array([[float(row[column]) for row in rows] for column in SKAB])
    return Recording(tuple(SKAB.values()), values)


def _hydraulic() -> Recording:
    folder = _folder() / "hydraulic"
    values = np.array([np.loadtxt(folder / f"{column}.txt").ravel() for column in HYDRAULIC])
    return Recording(tuple(HYDRAULIC.values()), values)


class _Windows:
    """Makes frames from arrays, each asset's windows following one another."""

    def __init__(self, recording: Recording, assets: int) -> None:
        self._recording = recording
        self._headers = [recording.header(asset) for asset in range(assets)]
        self._steps = np.arange(ROWS_A_FRAME, dtype=np.int64) * SECOND_NS
        self._made = [0] * assets

    def frames(self, assets: Sequence[int]) -> list[Frame]:
        """Return the next frame of each of `assets`."""
        numbers = [self._next(asset) for asset in assets]
        starts = START_NS + np.array(numbers) * (ROWS_A_FRAME * SECOND_NS)
        windows = [self._recording.window(n + a) for n, a in zip(numbers, assets, strict=True)]
        return build_frames(
            [self._headers[asset] for asset in assets],
            [number + 1 for number in numbers],
            starts[:, None] + self._steps,
            np.array(windows),
        )

    def _next(self, asset: int) -> int:
        number = self._made[asset]
        self._made[asset] += 1
        return number


def _events(frames: Sequence[Frame]) -> list[NewEvent]:
    """Return the events that record `frames`."""
    hash_frames(frames)
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    return [
        new_frame(
            telemetry_stream(frame.header.asset),
            frame,
            event_id=uuid7(now_ms, os.urandom(10)),
            occurred_at=time_from_ns(frame.window_end_ns),
            encoded=encoded,
            window=window,
        )
        for frame, encoded, window in zip(
            frames, encode_many(frames), frame_windows(frames), strict=True
        )
    ]


# --- codec --------------------------------------------------------------------------------


def _measure_codec(report: Report, name: str, recording: Recording) -> None:
    windows = _Windows(recording, 200)
    frames = windows.frames([n % 200 for n in range(400)])
    encoded = encode_many(frames)
    readings = sum(frame.reading_count for frame in frames)
    report.figures[f"{name}_payload_bytes_a_reading"] = Figure(
        sum(map(len, encoded)) / readings, "bytes"
    )
    together = _cpu_s(lambda: encode_many(frames)) / len(frames) * 1e6
    report.figures[f"{name}_encode_a_frame"] = Figure(together, "us", None, 100, ceiling=True)
    decode_s = _cpu_s(lambda: decode_many(encoded))
    report.figures[f"{name}_decode"] = Figure(readings / decode_s, "readings/s", None, 25_000_000)


def _cpu_s(work: Callable[[], object]) -> float:
    """Return the CPU seconds that `work` takes, the best of some runs."""
    best = float("inf")
    for _ in range(7):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


# --- log ----------------------------------------------------------------------------------


async def _measure_log(
    report: Report,
    name: str,
    recording: Recording,
    goal_bytes: float,
    arguments: argparse.Namespace,
    database_url: str,
) -> None:
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, "plant-1")
    try:
        limit = await _bare_copy(pool, recording, FRAMES_A_TRANSACTION)
        wide = await _wide_copy(pool, recording)
        report.figures[f"{name}_wide_table_copy"] = Figure(wide, "readings/s")
        before = await _log_bytes(pool)
        started = time.perf_counter()
        readings = await _transactions(ledger, recording, arguments, range(arguments.assets))
        rate = readings / (time.perf_counter() - started)
        stored = await _log_bytes(pool) - before
        report.figures[f"{name}_20_frames_a_transaction"] = Figure(
            rate, "readings/s", limit, 7_000_000
        )
        report.figures[f"{name}_20_frames_of_wide_table_copy"] = Figure(
            rate / wide, "ratio", None, OF_WIDE_TABLE
        )
        report.figures[f"{name}_bytes_a_reading_on_disk"] = Figure(
            stored / readings, "bytes", None, goal_bytes, ceiling=True
        )
    finally:
        await ledger.close()
    agents = await Ledger.open(pool, "plant-2")
    try:
        rate = await _agents(agents, recording, arguments.frames // 200 or 1)
        report.figures[f"{name}_200_agents_one_window"] = Figure(
            rate, "readings/s", limit, 4_000_000
        )
    finally:
        await agents.close()
        await pool.close()


def _rounds(arguments: argparse.Namespace) -> int:
    frames: int = arguments.frames
    assets: int = arguments.assets
    return max(1, frames // (assets * FRAMES_A_TRANSACTION))


async def _record_share(
    recording: Recording, arguments: argparse.Namespace, ledger: Ledger, number: int
) -> int:
    """Append the windows of the assets of process `number`; return how many readings they have."""
    assets = range(number, arguments.assets, PROCESSES)
    return await _transactions(ledger, recording, arguments, assets)


async def _transactions(
    ledger: Ledger, recording: Recording, arguments: argparse.Namespace, assets: Sequence[int]
) -> int:
    """Have two callers append the windows of one of `assets` after another; return the readings."""
    windows = _Windows(recording, arguments.assets)
    turns = iter([asset for _ in range(_rounds(arguments)) for asset in assets])
    readings = 0

    async def caller() -> None:
        nonlocal readings
        for asset in turns:
            frames = windows.frames([asset] * FRAMES_A_TRANSACTION)
            await ledger.append(_events(frames))
            readings += sum(frame.reading_count for frame in frames)

    await asyncio.gather(caller(), caller())
    return readings


async def _agents(ledger: Ledger, recording: Recording, rounds: int) -> float:
    """Return readings/s of 200 agents that append a window each, all at once, again and again."""
    windows = _Windows(recording, 200)
    readings = 0
    started = time.perf_counter()
    waiting: asyncio.Future[list[Appended]] | None = None
    for _ in range(rounds):
        events = _events(windows.frames(range(200)))
        readings += 200 * 8 * ROWS_A_FRAME
        if waiting is not None:
            await waiting
        waiting = asyncio.gather(*(ledger.append([event]) for event in events))
        await asyncio.sleep(0)
    if waiting is not None:
        await waiting
    return readings / (time.perf_counter() - started)


async def _log_bytes(pool: Pool) -> int:
    """Return what the log's tables, their indexes and what lies beside them take."""
    size: int = await pool.fetchval(
        """
        select (select sum(pg_total_relation_size(relid)) from pg_partition_tree('event'))
            + pg_total_relation_size('event_identity') + pg_total_relation_size('stream_head')
        """
    )
    return int(size)


# --- limits -------------------------------------------------------------------------------


async def _bare_copy(pool: Pool, recording: Recording, frames_a_copy: int) -> float:
    windows = _Windows(recording, 200)
    frames = windows.frames([n % 200 for n in range(4_000)])
    async with pool.acquire() as connection:
        return await copy_frames(connection, _events(frames), frames_a_copy)


async def _wide_copy(pool: Pool, recording: Recording) -> float:
    """Return readings/s into a table with a row a time and a column a channel, by COPY."""
    columns = ", ".join(f"c{n} float8" for n in range(len(recording.channels)))
    windows = 400
    async with pool.acquire() as connection:
        await connection.execute(
            f"create table wide (asset text, read_at timestamptz, {columns}, "
            "primary key (asset, read_at))"
        )
        started = time.perf_counter()
        for first in range(0, windows, FRAMES_A_TRANSACTION):
            rows = []
            for number in range(first, first + FRAMES_A_TRANSACTION):
                begin_s = START_NS // SECOND_NS + number * ROWS_A_FRAME
                rows += [
                    ("pump-000", datetime.fromtimestamp(begin_s + n, UTC), *values)
                    for n, values in enumerate(recording.window(number).T.tolist())
                ]
            await connection.copy_records_to_table("wide", records=rows)
        elapsed_s = time.perf_counter() - started
        await connection.execute("drop table wide")
    return windows * ROWS_A_FRAME * len(recording.channels) / elapsed_s
