"""Questions about telemetry, warm, each beside PostgreSQL answering with the same rows bare.

The data is what TimescaleDB and VictoriaMetrics were asked about too: 200 assets of 8 channels
with 12,500 readings each, real skab values in frames of 125 readings a channel.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Final

from benchmarks.ingest import COLUMNS, LEDGER, READINGS_A_FRAME, ROWS_A_FRAME, START_NS, _frames
from benchmarks.report import Figure, Report
from benchmarks.scratch import run_as_served, scratch_server
from domain.asset import telemetry_stream
from domain.frames import time_from_ns
from eventlog.database import Pool, create_pool
from eventlog.decoded import READINGS_MAX as DECODED_READINGS_MAX
from eventlog.envelope import new_frame
from eventlog.ledger import Ledger
from eventlog.reading import read_page
from projections.running.runner import Projection
from projections.telemetry.readings import ReadingColumns, read_last_values, read_raw
from projections.telemetry.rollup_columns import HOUR_S, MINUTE_S, RollupColumns, read_rollups
from projections.telemetry.rollups import RollupProjection
from projections.twins.projection import TwinProjection

ASSET: Final = "pump-007"
CHANNEL: Final = "flow"
END_NS: Final = 2**62
FRAMES_AN_APPEND: Final = 500

Question = Callable[[], Awaitable[object]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--assets", type=int, default=200)
    parser.add_argument("--readings", type=int, default=12_500, help="readings a channel")
    parser.add_argument("--rounds", type=int, default=100, help="times each question is asked")


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    with scratch_server() as server:
        return run_as_served(_measure(arguments, server.url))


async def _measure(arguments: argparse.Namespace, database_url: str) -> Report:
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, LEDGER)
    report = Report("readings")
    try:
        await _record(ledger, arguments.assets, arguments.readings // ROWS_A_FRAME)
        await pool.execute("vacuum analyze")
        await _check(ledger, arguments)
        for name, (question, bare, goal_ms) in _questions(ledger, arguments.assets).items():
            answered_ms = await _median_ms(question, arguments.rounds)
            report.figures[name] = Figure(
                answered_ms, "ms", await _median_ms(bare, arguments.rounds), goal_ms, ceiling=True
            )
    finally:
        await ledger.close()
        await pool.close()
    report.notes = [
        f"{arguments.assets} assets x {len(COLUMNS)} channels x {arguments.readings:,} readings of "
        f"skab, {READINGS_A_FRAME:,} a frame; warm, medians of {arguments.rounds}; limit: asyncpg "
        "fetching the rows that hold the answer, undecoded, in ms; the process remembers decoded "
        f"frames of {DECODED_READINGS_MAX:,} readings, so the raw channel is asked for both ways",
    ]
    return report


async def _record(ledger: Ledger, assets: int, windows: int) -> None:
    """Put the frames into the log, and fold twins and rollups."""
    events = []
    for frame in _frames(assets * windows, assets):
        events.append(
            new_frame(
                telemetry_stream(frame.header.asset),
                frame,
                event_id=uuid.uuid4(),
                occurred_at=time_from_ns(frame.window_end_ns),
            )
        )
        if len(events) == FRAMES_AN_APPEND:
            await ledger.append(events)
            events = []
    if events:
        await ledger.append(events)
    projections: tuple[Projection, ...] = (TwinProjection(), RollupProjection())
    after = 0
    while page := await read_page(ledger, after, limit=FRAMES_AN_APPEND):
        for projection in projections:
            async with ledger.pool.acquire() as connection, connection.transaction():
                await projection.fold(connection, ledger, page)
        after = page[-1].position


async def _check(ledger: Ledger, arguments: argparse.Namespace) -> None:
    """Stop where an answer is not what was asked for."""
    last = await read_last_values(ledger)
    (raw,) = await _raw(ledger)
    minutes, hours = await _minutes(ledger), await _hours(ledger)
    readings = arguments.readings // ROWS_A_FRAME * ROWS_A_FRAME
    answered = (
        len(last.values),
        raw.reading_count,
        sum(int(columns.reading_count.sum()) for columns in minutes),
        sum(int(columns.reading_count.sum()) for columns in hours),
    )
    channels = arguments.assets * len(COLUMNS)
    wanted = (channels, readings, readings * len(COLUMNS), readings * channels)
    if answered != wanted:
        raise SystemExit(f"the answers hold {answered}, not {wanted}")


def _questions(ledger: Ledger, assets: int) -> dict[str, tuple[Question, Question, float | None]]:
    """Return, by name: a question, the bare fetch of what answers it, and the goal in ms."""
    pool, ledger_id = ledger.pool, ledger.ledger_id
    turn = itertools.count()  # another asset each time: none of its frames is remembered decoded
    return {
        "last_values_of_all_channels": (
            lambda: read_last_values(ledger),
            _fetching(
                pool, "select value, read_at_ns from twin_channel where ledger_id = $1", ledger_id
            ),
            2,
        ),
        "one_channel_raw": (
            lambda: _raw(ledger),
            _fetching(
                pool,
                "select payload from event where ledger_id = $1 and stream = $2",
                ledger_id,
                telemetry_stream(ASSET),
            ),
            4,
        ),
        "one_channel_raw_to_be_decoded": (
            lambda: _raw(ledger, f"pump-{next(turn) % assets:03d}"),
            _fetching(
                pool,
                "select payload from event where ledger_id = $1 and stream = $2",
                ledger_id,
                telemetry_stream(ASSET),
            ),
            None,
        ),
        "one_asset_by_minute": (
            lambda: _minutes(ledger),
            _fetching(
                pool,
                "select record_send(m) from rollup_minute m join rollup_series s using (series_id) "
                "where s.ledger_id = $1 and s.asset_id = $2",
                ledger_id,
                ASSET,
            ),
            5,
        ),
        "all_assets_by_hour": (
            lambda: _hours(ledger),
            _fetching(
                pool,
                "select record_send(h) from rollup_hour h join rollup_series s using (series_id) "
                "where s.ledger_id = $1",
                ledger_id,
            ),
            80,
        ),
    }


def _raw(ledger: Ledger, asset_id: str = ASSET) -> Awaitable[list[ReadingColumns]]:
    return read_raw(ledger, asset_id, [CHANNEL], start_ns=START_NS, end_ns=END_NS)


def _minutes(ledger: Ledger) -> Awaitable[list[RollupColumns]]:
    return read_rollups(ledger, MINUTE_S, asset_ids=[ASSET], start_s=0, end_s=END_NS)


def _hours(ledger: Ledger) -> Awaitable[list[RollupColumns]]:
    return read_rollups(ledger, HOUR_S, start_s=0, end_s=END_NS)


def _fetching(pool: Pool, query: str, *arguments: object) -> Question:
    return lambda: pool.fetch(query, *arguments)


async def _median_ms(question: Question, rounds: int) -> float:
    took_s = []
    for _ in range(rounds + 3):
        started = time.perf_counter()
        await question()
        took_s.append(time.perf_counter() - started)
    return statistics.median(took_s[3:]) * 1e3
