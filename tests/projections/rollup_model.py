"""What rollups have to say, made from readings one by one, and what their tables do say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from domain.frames import Frame, Quality
from eventlog.ledger import Ledger
from tests.projections.loop_frames import LOOP, SECOND_NS, si

RESOLUTIONS_S = (60, 3600)
Key = tuple[str, int]


@dataclass(frozen=True)
class Expected:
    """Statistics of a bucket; sums as `math.fsum` gives them, exactly rounded."""

    count: int
    min: float
    max: float
    first: float
    last: float
    total: float
    squares: float


def counted_readings(frames: Sequence[Frame]) -> dict[str, dict[int, float]]:
    """Return, by channel and time, the reading of the latest of `frames`, where that is GOOD."""
    readings: dict[str, dict[int, float]] = {}
    for frame in frames:
        for header, values, mask in zip(
            frame.header.channels, frame.values, frame.qualities, strict=True
        ):
            held = readings.setdefault(header.name, {})
            times = frame.clocks[header.clock].tolist()
            for time, value, quality in zip(
                times, si(header.name, values).tolist(), mask.tolist(), strict=True
            ):
                held.pop(time, None)
                if quality == Quality.GOOD:
                    held[time] = value
    return readings


def recomputed(frames: Sequence[Frame], resolution_s: int) -> dict[Key, Expected]:
    """Return the statistics of what counts of `frames`, by channel and bucket start."""
    result = {}
    for channel, readings in counted_readings(frames).items():
        times = np.array(sorted(readings), np.int64)
        values = np.array([readings[time] for time in times.tolist()])
        starts = times // SECOND_NS // resolution_s * resolution_s
        for start in np.unique(starts).tolist():
            held = values[starts == start]
            result[channel, start] = Expected(
                len(held),
                float(held.min()),
                float(held.max()),
                float(held[0]),
                float(held[-1]),
                math.fsum(held),
                math.fsum(v * v for v in held.tolist()),
            )
    return result


async def assert_rollups_equal_recomputation(ledger: Ledger, frames: Sequence[Frame]) -> None:
    """Hold the view against `frames`, in the order of the log where they overlap."""
    for resolution_s in RESOLUTIONS_S:
        expected = recomputed(frames, resolution_s)
        rows = await ledger.pool.fetch(
            "select channel, extract(epoch from bucket_start)::bigint as start_s, reading_count, "
            "min, max, first, last, mean, sum, sum_of_squares from telemetry_rollup "
            "where ledger = $1 and asset_id = $2 and resolution_s = $3",
            ledger.name,
            LOOP,
            resolution_s,
        )
        found = {(row["channel"], row["start_s"]): row for row in rows}
        assert len(found) == len(rows)
        assert found.keys() == expected.keys()
        for key, want in expected.items():
            row = found[key]
            assert (row["reading_count"], row["min"], row["max"], row["first"], row["last"]) == (
                want.count,
                want.min,
                want.max,
                want.first,
                want.last,
            ), (resolution_s, key)
            assert row["sum"] == pytest.approx(want.total, rel=1e-12, abs=0)
            assert row["sum_of_squares"] == pytest.approx(want.squares, rel=1e-12, abs=0)
            assert row["mean"] == pytest.approx(want.total / want.count, rel=1e-12, abs=0)


async def stored_rows(ledger: Ledger) -> list[tuple[Any, ...]]:
    """Return all rows of minutes and hours with their bits, the series by what they are."""
    statistics = [
        "reading_count",
        "min",
        "max",
        "sum",
        "sum_of_squares",
        "first",
        "last",
        "first_ns",
        "last_ns",
    ]
    settled = [*statistics, "settled_sum", "settled_squares"]
    rows: list[tuple[Any, ...]] = []
    for name, columns in (("minute", statistics), ("hour", settled)):
        found = await ledger.pool.fetch(
            f"""
            select s.asset_id, s.channels, r.bucket_start,
                {", ".join(f"array_send(r.{column})" for column in columns)}
            from rollup_{name} r join rollup_series s using (series_id)
            where s.ledger_id = $1 order by s.asset_id, s.channels, r.bucket_start
            """,
            ledger.ledger_id,
        )
        rows += [(name, *row) for row in found]
    return rows
