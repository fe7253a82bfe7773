"""Frames that overlap: each time counts once, as the log tells it last, however it is folded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.frames import Frame, Quality
from eventlog.database import Pool
from eventlog.ledger import Ledger
from eventlog.reading import read_page
from projections.telemetry.readings import POINTS_MAX, read_columns
from projections.telemetry.rollups import RollupProjection
from tests.projections.loop_frames import (
    LOOP,
    NOON_S,
    PATIENCE_S,
    SECOND_NS,
    fold,
    fresh_ledgers,
    loop_frame,
    record,
    running,
    seconds_ns,
    skab_frames,
)
from tests.projections.rollup_model import (
    assert_rollups_equal_recomputation,
    counted_readings,
    stored_rows,
)

pytestmark = pytest.mark.anyio

CHANNELS = ("flow", "pressure", "supply_voltage")
STEPS_S = (0.25, 1.0, 17.0, 60.0, 150.0)


# --- any frames -----------------------------------------------------------------------------


@st.composite
def overlapping_frames(draw: st.DrawFn) -> list[Frame]:
    """Return frames of two agents, in the order of the log, whose times come from one small grid.

    So whole frames come again, are cut differently, contain or meet one another at one time, or
    keep to times of their own between those of the others.
    """
    step_ns = int(draw(st.sampled_from(STEPS_S)) * SECOND_NS)
    grid = draw(st.integers(2, 160))
    origin = NOON_S * SECOND_NS - step_ns * draw(st.integers(0, grid))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bad_ratio = draw(st.sampled_from([0.0, 0.2]))
    frames = []
    for number in range(draw(st.integers(2, 12))):
        channels = draw(st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3, unique=True))
        clocks = []
        for _ in range(2):
            start = draw(st.integers(0, grid - 1))
            ticks = np.arange(start, draw(st.integers(start + 1, grid)))
            if draw(st.booleans()):
                ticks = ticks[rng.random(len(ticks)) < 0.6]
            ticks = ticks if len(ticks) else np.array([start])
            shift = draw(st.sampled_from([0, 0, 0, step_ns // 3]))
            clocks.append(origin + ticks.astype(np.int64) * step_ns + shift)
        own = channels[1:] if len(channels) > 1 and draw(st.booleans()) else []
        masks = {
            name: np.where(rng.random(len(clocks[0])) < bad_ratio, rng.integers(1, 4), 0)
            for name in channels
            if name not in own
        }
        frames.append(
            loop_frame(
                number + 1,
                clocks[0],
                {name: rng.random(len(clocks[0])) + 1 for name in channels if name not in own},
                agent=draw(st.sampled_from(["agent-1", "agent-2"])),
                qualities=masks,
                second_clock={name: (clocks[1], rng.random(len(clocks[1])) + 1) for name in own},
            )
        )
    return frames


@st.composite
def frames_and_batches(draw: st.DrawFn) -> tuple[list[Frame], list[int]]:
    """Return overlapping frames, and sizes of batches that they can be folded in."""
    frames = draw(overlapping_frames())
    sizes: list[int] = []
    while sum(sizes) < len(frames):
        sizes.append(draw(st.integers(1, len(frames) - sum(sizes))))
    return frames, sizes


async def fold_in(ledger: Ledger, sizes: Sequence[int]) -> None:
    """Fold the whole log in transactions of `sizes` events."""
    projection, after = RollupProjection(), 0
    for size in sizes:
        page = await read_page(ledger, after, limit=size)
        async with ledger.pool.acquire() as connection, connection.transaction():
            await projection.fold(connection, ledger, page)
        after = page[-1].position


async def assert_readings_equal_model(ledger: Ledger, frames: Sequence[Frame]) -> None:
    found = await read_columns(
        ledger, LOOP, CHANNELS, start_ns=0, end_ns=2**62, points_max=POINTS_MAX
    )
    expected = counted_readings(frames)
    for columns in found:
        good = columns.qualities == Quality.GOOD
        assert (np.diff(columns.times_ns) > 0).all()
        assert list(
            zip(columns.times_ns[good].tolist(), columns.values[good].tolist(), strict=True)
        ) == sorted(expected.get(columns.channel, {}).items())


@pytest.mark.parametrize("at_once", [100, 1_000_000])
@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(case=frames_and_batches())
async def test_of_overlapping_frames_each_time_counts_once_in_any_batch_live_and_rebuilt(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, case: tuple[list[Frame], list[int]], at_once: int
) -> None:
    monkeypatch.setattr("projections.telemetry.rollups.READINGS_AT_ONCE", at_once)
    frames, sizes = case
    live, cut, whole = await fresh_ledgers(pool, 3)
    try:
        for position, frame in enumerate(frames):
            await record(live, [frame])
            await fold(live, RollupProjection(), after=position)
        await record(cut, frames)
        await fold_in(cut, sizes)
        await record(whole, frames)
        await fold(whole, RollupProjection())
        rows = await stored_rows(live)
        assert rows == await stored_rows(cut)
        assert rows == await stored_rows(whole)
        await assert_rollups_equal_recomputation(live, frames)
        await assert_readings_equal_model(live, frames)
    finally:
        for ledger in (live, cut, whole):
            await ledger.close()


# --- as it happens --------------------------------------------------------------------------


async def assert_right_in_every_batch(pool: Pool, frames: Sequence[Frame]) -> None:
    """Hold rollups and readings against the model, folded one by one and all at once."""
    ledgers = await fresh_ledgers(pool, 2)
    try:
        for ledger, batch in zip(ledgers, (1, 1000), strict=True):
            await record(ledger, frames)
            await fold(ledger, RollupProjection(), batch)
            await assert_rollups_equal_recomputation(ledger, frames)
            await assert_readings_equal_model(ledger, frames)
        assert await stored_rows(ledgers[0]) == await stored_rows(ledgers[1])
    finally:
        for ledger in ledgers:
            await ledger.close()


def frame_at(sequence: int, start_s: int, length: int, value: float, **more: Any) -> Frame:
    """Return a frame of the flow at one reading a second."""
    times = seconds_ns(*range(start_s, start_s + length))
    return loop_frame(sequence, times, {"flow": [value + n for n in range(length)]}, **more)


async def test_a_window_cut_differently_after_a_restart_counts_once(pool: Pool) -> None:
    frames = [frame_at(1, 0, 100, 10.0), frame_at(2, 100, 100, 110.0), frame_at(3, 70, 90, 500.0)]
    await assert_right_in_every_batch(pool, frames)


async def test_a_recording_imported_again_under_other_sequences_changes_nothing(
    pool: Pool,
) -> None:
    first = skab_frames("valve1/1", 125)
    once, twice = await fresh_ledgers(pool, 2)
    again = [
        loop_frame(
            n + 1,
            frame.clocks[0],
            {c.name: v for c, v in zip(frame.header.channels, frame.values, strict=True)},
            agent="import-2",
        )
        for n, frame in enumerate(skab_frames("valve1/1", 97))
    ]
    try:
        await record(once, again)
        await record(twice, [*first, *again])
        for ledger in (once, twice):
            await fold(ledger, RollupProjection(), 4)
        await assert_rollups_equal_recomputation(twice, again)
        assert await stored_rows(once) == await stored_rows(twice)
    finally:
        await once.close()
        await twice.close()


async def test_two_agents_with_times_of_their_own_both_count(pool: Pool) -> None:
    times = seconds_ns(*range(120))
    frames = [
        loop_frame(1, times, {"flow": np.arange(120.0)}, agent="agent-1"),
        loop_frame(1, times + SECOND_NS // 2, {"flow": np.arange(120.0)}, agent="agent-2"),
    ]
    await assert_right_in_every_batch(pool, frames)
    assert len(counted_readings(frames)["flow"]) == 240


async def test_frames_that_meet_in_one_reading_count_it_once(pool: Pool) -> None:
    await assert_right_in_every_batch(pool, [frame_at(1, 0, 61, 1.0), frame_at(2, 60, 60, 900.0)])


async def test_a_short_correction_inside_a_long_frame_replaces_what_it_covers(
    pool: Pool,
) -> None:
    frames = [
        frame_at(1, 0, 4000, 10.0),
        frame_at(2, 1800, 3, 90_000.0),
        frame_at(3, 1801, 1, 5.0),
        frame_at(4, 4000, 60, 1.0),
    ]
    await assert_right_in_every_batch(pool, frames)


async def test_a_correction_that_is_bad_leaves_no_reading_and_no_empty_bucket(
    ledger: Ledger,
) -> None:
    bad = {"flow": [Quality.BAD, Quality.MISSING]}
    values = {"flow": [1.0, np.nan]}
    frames = [frame_at(1, 0, 2, 7.0), loop_frame(2, seconds_ns(0, 1), values, qualities=bad)]
    await record(ledger, frames)
    await fold(ledger, RollupProjection())
    assert await stored_rows(ledger) == []
    assert await ledger.pool.fetchval("select count(*) from telemetry_rollup") == 0
    await assert_readings_equal_model(ledger, frames)


async def test_a_late_frame_into_an_old_minute_of_a_passed_hour_is_added(pool: Pool) -> None:
    frames = [
        frame_at(1, 0, 10, 1.0),
        frame_at(2, 3600, 10, 2.0),
        frame_at(3, 7200, 10, 3.0),
        frame_at(4, 20, 10, 4.0),
        frame_at(5, 90, 10, 5.0),
        frame_at(6, 3590, 5, 6.0),
    ]
    await assert_right_in_every_batch(pool, frames)


async def test_channels_that_share_no_time_series_do_not_disturb_each_other(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two agents that deliver other channels of one asset overlap always, and never matter."""
    asked: list[int] = []
    remake = RollupProjection.fold.__globals__["_remake_minutes"]

    async def counting(*arguments: Any) -> None:
        asked.append(1)
        await remake(*arguments)

    monkeypatch.setattr("projections.telemetry.rollups._remake_minutes", counting)
    times = seconds_ns(*range(60))
    frames = [
        loop_frame(n, times + n * 30 * SECOND_NS, {name: np.arange(60.0) + 1}, agent=agent)
        for n in (2, 4, 6)
        for agent, name in (("agent-1", "flow"), ("agent-2", "pressure"))
    ]
    await assert_right_in_every_batch(pool, frames)
    assert asked == []
    await assert_right_in_every_batch(
        pool,
        [
            *frames,
            frames[0].__class__(
                frames[0].header, 99, frames[0].clocks, frames[0].values, frames[0].qualities
            ),
        ],
    )
    assert asked


async def test_channels_that_come_together_in_other_ways_meet_in_one_bucket(pool: Pool) -> None:
    frames = [
        loop_frame(1, seconds_ns(0, 1, 2), {"flow": [1.0, 2.0, 3.0], "pressure": [1.0] * 3}),
        loop_frame(2, seconds_ns(2, 3), {"flow": [30.0, 40.0]}),
        loop_frame(3, seconds_ns(3, 4), {"pressure": [9.0, 8.0], "flow": [4.0, 5.0]}),
        loop_frame(4, seconds_ns(10), {"pressure": [7.0]}),
    ]
    await assert_right_in_every_batch(pool, frames)


async def test_the_runner_folds_overlapping_frames_that_arrive_while_it_runs(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [frame_at(n + 1, 40 * n, 60, 100.0 * n, agent=f"agent-{n % 2}") for n in range(40)]
    async with running(ledger, database_url, RollupProjection()) as (runner,):
        for at in range(0, len(frames), 7):
            await record(ledger, frames[at : at + 7])
        await runner.wait_for(len(frames), PATIENCE_S)
        assert runner.failure is None
    await assert_rollups_equal_recomputation(ledger, frames)
    await assert_readings_equal_model(ledger, frames)
