"""Rollups equal what NumPy makes of the same readings, however they arrive and are folded."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.frames import Frame, Quality
from eventlog.database import Pool
from eventlog.ledger import Ledger
from projections.rollups import RollupProjection, read_extremes
from tests.eventlog.new_events import opened
from tests.projections.loop_frames import (
    LOOP,
    NOON_S,
    PATIENCE_S,
    SECOND_NS,
    UNITS,
    fold,
    fresh_ledgers,
    loop_frame,
    record,
    running,
    seconds_ns,
    si,
    skab_frames,
    table,
)

pytestmark = pytest.mark.anyio

RESOLUTIONS_S = (1, 60, 3600)
RATES_HZ = (1, 10, 1000)
Key = tuple[str, int]


# --- an independent recomputation ---------------------------------------------------------


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


def recomputed(frames: list[Frame], resolution_s: int) -> dict[Key, Expected]:
    """Return the statistics of GOOD readings by channel and bucket start, from raw columns."""
    readings: dict[str, list[tuple[int, float]]] = {}
    for frame in frames:
        for header, values, mask in zip(
            frame.header.channels, frame.values, frame.qualities, strict=True
        ):
            times = frame.clocks[header.clock]
            good = mask == Quality.GOOD
            readings.setdefault(header.name, []).extend(
                zip(times[good].tolist(), si(header.name, values[good]).tolist(), strict=True)
            )
    result = {}
    for channel, pairs in readings.items():
        pairs.sort()
        times = np.array([t for t, _ in pairs], np.int64)
        values = np.array([v for _, v in pairs])
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


async def assert_rollups_equal_recomputation(ledger: Ledger, frames: list[Frame]) -> None:
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


# --- frames of many kinds -----------------------------------------------------------------


def timeline(rng: np.random.Generator, rate_hz: int, count: int, start_ns: int) -> Any:
    """Return jittered times of about `rate_hz` that never repeat or go back."""
    step = SECOND_NS // rate_hz
    jitter = rng.integers(0, step // 2, count) if rng.random() < 0.5 else np.zeros(count, int)
    return start_ns + np.arange(count, dtype=np.int64) * step + jitter


def positive(rng: np.random.Generator, count: int) -> Any:
    """Return positive values, so that a relative bound on their sums means something."""
    return rng.integers(1, 200_000, count) / 1000 if rng.random() < 0.5 else rng.random(count) + 1


def whole_seconds(times: Any) -> Any:
    """Return the indexes of `times` at which a new second starts, the first one left out."""
    return np.flatnonzero(np.diff(times // SECOND_NS)) + 1


@st.composite
def frame_lists(draw: st.DrawFn, *, cut_seconds: bool = True) -> list[Frame]:
    """Return frames that cut one span of readings around a full hour, in time order.

    Two channels share a clock and a third may have its own; some readings are not GOOD.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rate_hz = draw(st.sampled_from(RATES_HZ))
    count = draw(st.integers(2, {1: 150, 10: 150, 1000: 2500}[rate_hz]))
    before_s = draw(st.sampled_from([0.0, 0.5, 1.25, 30.0, 70.0]))
    times = timeline(rng, rate_hz, count, NOON_S * SECOND_NS - int(before_s * SECOND_NS))
    columns = {name: positive(rng, count) for name in ("flow", "supply_voltage")}
    bad_ratio = draw(st.sampled_from([0.0, 0.1, 0.9]))
    masks = {
        name: np.where(rng.random(count) < bad_ratio, rng.integers(1, 4, count), 0)
        for name in columns
    }
    own_clock = draw(st.booleans())
    places = np.arange(1, count) if cut_seconds else whole_seconds(times)
    pieces = draw(st.integers(1, 8))
    cuts = np.sort(rng.choice(places, min(pieces - 1, len(places)), replace=False))
    frames = []
    for n, span in enumerate(np.split(np.arange(count), cuts)):
        other = None
        if own_clock:
            # Its own clock keeps to the frame's span, so that frames stay in time order.
            ticks = times[span][:: draw(st.integers(1, 5))] + 1
            other = {"pressure": (ticks, positive(rng, len(ticks)))}
        frames.append(
            loop_frame(
                n + 1,
                times[span],
                {name: column[span] for name, column in columns.items()},
                qualities={name: mask[span] for name, mask in masks.items()},
                second_clock=other,
            )
        )
    return frames


async def assert_folds_to_recomputation(
    pool: Pool, frames: list[Frame], batches: tuple[int, ...] = (1, 3, 1000)
) -> None:
    """Fold `frames` once a batch size: each time right, and minutes and hours bit by bit alike."""
    ledgers = await fresh_ledgers(pool, len(batches))
    try:
        coarse = []
        for ledger, batch in zip(ledgers, batches, strict=True):
            await record(ledger, frames)
            await fold(ledger, RollupProjection(), batch)
            coarse.append(
                [
                    await table(ledger, name, "asset_id, channel, bucket")
                    for name in ("rollup_minute", "rollup_hour")
                ]
            )
        assert all(rows == coarse[0] for rows in coarse)
        await assert_rollups_equal_recomputation(ledgers[0], frames)
    finally:
        for ledger in ledgers:
            await ledger.close()


DATABASE_EXAMPLES = settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@DATABASE_EXAMPLES
@given(frames=frame_lists())
async def test_frames_in_order_roll_up_as_numpy_says_whatever_the_batch_size(
    pool: Pool, frames: list[Frame]
) -> None:
    await assert_folds_to_recomputation(pool, frames)


@DATABASE_EXAMPLES
@given(frames=frame_lists().flatmap(st.permutations))
async def test_late_and_out_of_order_frames_roll_up_as_numpy_says(
    pool: Pool, frames: list[Frame]
) -> None:
    await assert_folds_to_recomputation(pool, frames)


async def test_two_frames_of_one_second_that_arrive_backwards_keep_its_first_and_last(
    ledger: Ledger,
) -> None:
    early = loop_frame(1, seconds_ns(0.0, 0.1), {"flow": [30.0, 31.0]})
    late = loop_frame(2, seconds_ns(0.2, 0.3), {"flow": [32.0, 33.0]})
    await record(ledger, [late, early])
    await fold(ledger, RollupProjection())
    await assert_rollups_equal_recomputation(ledger, [early, late])


# --- fixed cases --------------------------------------------------------------------------


@pytest.mark.parametrize("length", [60, 997])
async def test_real_recordings_roll_up_as_numpy_says(ledger: Ledger, length: int) -> None:
    frames = skab_frames("valve1/1", length)
    await record(ledger, frames)
    await fold(ledger, RollupProjection(), 3)
    await assert_rollups_equal_recomputation(ledger, frames)


async def test_a_real_recording_that_arrives_backwards_rolls_up_alike(ledger: Ledger) -> None:
    frames = skab_frames("valve2/3", 45)
    await record(ledger, frames[::-1])
    await fold(ledger, RollupProjection(), 7)
    await assert_rollups_equal_recomputation(ledger, frames)


async def test_only_good_readings_count(ledger: Ledger) -> None:
    frame = loop_frame(
        1,
        seconds_ns(0.0, 0.5, 1.0, 2.0, 2.5),
        {"supply_voltage": [230.0, 1.0, 2.0, np.nan, 3.0]},
        qualities={
            "supply_voltage": [
                Quality.GOOD,
                Quality.BAD,
                Quality.UNCERTAIN,
                Quality.MISSING,
                Quality.BAD,
            ]
        },
    )
    await record(ledger, [frame])
    await fold(ledger, RollupProjection())
    rows = await ledger.pool.fetch(
        "select resolution_s, reading_count, min, max, sum, first, last from telemetry_rollup "
        "order by resolution_s"
    )
    assert [tuple(row) for row in rows] == [
        (resolution_s, 1, 230.0, 230.0, 230.0, 230.0, 230.0) for resolution_s in RESOLUTIONS_S
    ]


async def test_a_frame_without_a_good_reading_leaves_no_bucket(ledger: Ledger) -> None:
    await record(ledger, [loop_frame(1, seconds_ns(0), {"flow": [30.0]}, qualities={"flow": [2]})])
    await fold(ledger, RollupProjection())
    assert await ledger.pool.fetchval("select count(*) from telemetry_rollup") == 0


async def test_assets_and_channels_are_kept_apart(ledger: Ledger) -> None:
    for n, asset in enumerate(("loop-1", "loop-2")):
        columns = {"flow": [30.0 + n], "motor_current": [1.0 + n]}
        await record(ledger, [loop_frame(n + 1, seconds_ns(0), columns, asset=asset)])
    await fold(ledger, RollupProjection())
    rows = await ledger.pool.fetch(
        "select asset_id, channel, first from telemetry_rollup where resolution_s = 60 "
        "order by asset_id, channel"
    )
    assert [tuple(row) for row in rows] == [
        (asset, channel, si(channel, [value])[0])
        for asset, channel, value in (
            ("loop-1", "flow", 30.0),
            ("loop-1", "motor_current", 1.0),
            ("loop-2", "flow", 31.0),
            ("loop-2", "motor_current", 2.0),
        )
    ]


# --- once -----------------------------------------------------------------------------------


async def test_a_runner_that_starts_again_folds_nothing_twice(
    ledger: Ledger, database_url: str
) -> None:
    frames = skab_frames("valve1/0", 120)
    await record(ledger, frames)
    for _ in range(2):
        async with running(ledger, database_url, RollupProjection()) as (runner,):
            await runner.wait_for(len(frames), PATIENCE_S)
    await assert_rollups_equal_recomputation(ledger, frames)


async def test_two_runners_on_one_ledger_fold_everything_once(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.runner.BATCH_EVENTS_MAX", 2)
    frames = skab_frames("valve1/0", 20)
    async with (
        opened(database_url) as other,
        running(ledger, database_url, RollupProjection()) as (one,),
        running(other, database_url, RollupProjection()) as (two,),
    ):
        for at in range(0, len(frames), 5):
            await record(ledger, frames[at : at + 5])
            await asyncio.sleep(0)
        await one.wait_for(len(frames), PATIENCE_S)
        await two.wait_for(len(frames), PATIENCE_S)
        assert (one.failure, two.failure) == (None, None)
    await assert_rollups_equal_recomputation(ledger, frames)


# --- queries --------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution_s", RESOLUTIONS_S)
async def test_extremes_are_those_of_the_buckets_of_the_range(
    ledger: Ledger, resolution_s: int
) -> None:
    frames = skab_frames("valve1/2", 50)
    await record(ledger, frames)
    await fold(ledger, RollupProjection())
    expected = {
        start: want
        for (channel, start), want in recomputed(frames, resolution_s).items()
        if channel == "pressure"
    }
    starts = sorted(expected)
    wanted = [s for s in starts if starts[len(starts) // 4] <= s <= starts[3 * len(starts) // 4]]
    found = await read_extremes(ledger, LOOP, "pressure", resolution_s, wanted[0], wanted[-1])
    assert found.start_s.tolist() == wanted
    assert found.reading_count.tolist() == [expected[s].count for s in wanted]
    assert found.min.tolist() == [expected[s].min for s in wanted]
    assert found.max.tolist() == [expected[s].max for s in wanted]


async def test_extremes_of_a_channel_that_never_spoke_are_empty(ledger: Ledger) -> None:
    for resolution_s in RESOLUTIONS_S:
        found = await read_extremes(ledger, LOOP, "flow", resolution_s, 0, NOON_S)
        assert len(found.start_s) == len(found.min) == len(found.max) == 0


def test_the_recomputation_knows_every_unit_of_the_recordings() -> None:
    assert si("fluid_temperature", [0.0])[0] == 273.15
    assert set(UNITS.values()) == {"g_n", "A", "bar", "degC", "V", "l/min"}
    assert si("fluid_temperature", [0.0])[0] == 273.15
    assert set(UNITS.values()) == {"g_n", "A", "bar", "degC", "V", "l/min"}


async def test_a_bad_end_of_a_frame_hides_nothing_before_it(ledger: Ledger) -> None:
    masks = {"flow": [0, 0, 0, 0, 2, 2]}
    times = seconds_ns(0, 0.5, 100, 100.5, 200, 200.5)
    frame = loop_frame(1, times, {"flow": [30.0] * 6}, qualities=masks)
    await record(ledger, [frame])
    await fold(ledger, RollupProjection())
    found = await read_extremes(ledger, LOOP, "flow", 1, NOON_S + 100, NOON_S + 300)
    assert found.start_s.tolist() == [NOON_S + 100]
