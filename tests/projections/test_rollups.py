"""Rollups equal what NumPy makes of the same readings, however they arrive and are folded."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInput
from domain.frame_header import ChannelHeader, FrameHeader
from domain.frames import Frame, Quality, build_frame, waveform_times_ns
from eventlog.database import Pool
from eventlog.ledger import Ledger
from projections.telemetry.rollup_columns import BUCKETS_MAX, read_rollups
from projections.telemetry.rollups import RollupProjection
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
)
from tests.projections.rollup_model import (
    RESOLUTIONS_S,
    assert_rollups_equal_recomputation,
    recomputed,
    stored_rows,
)

pytestmark = pytest.mark.anyio

RATES_HZ = (1, 10, 1000)


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
            coarse.append(await stored_rows(ledger))
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


async def test_waveforms_roll_up_like_others_and_texts_not_at_all(ledger: Ledger) -> None:
    start = NOON_S * SECOND_NS + 59 * SECOND_NS
    wave = waveform_times_ns(start, 10_000.0, 20_000)
    vibration = np.sin(np.arange(20_000.0))
    texts = np.array(["idle", "running"], object)
    header = FrameHeader(
        LOOP,
        "agent-1",
        (
            ChannelHeader("vibration", "m/s2", 1.0, 0.0, clock=0, rate_hz=10_000.0),
            ChannelHeader("state", "1", 1.0, 0.0, "str", clock=1),
        ),
        clock_count=2,
    )
    alone = FrameHeader(LOOP, "agent-1", (ChannelHeader("state", "1", 1.0, 0.0, "str"),))
    await record(
        ledger,
        [
            build_frame(header, 1, [wave, seconds_ns(0, 1)], [vibration, texts], [None, None]),
            build_frame(alone, 2, [seconds_ns(0, 1)], [texts], [None]),
        ],
    )
    await fold(ledger, RollupProjection())
    (columns,) = await read_rollups(ledger, 60, start_s=NOON_S, end_s=NOON_S + 3600)
    first, second = vibration[:10_000], vibration[10_000:]
    assert columns.channel == "vibration"
    assert columns.start_s.tolist() == [NOON_S, NOON_S + 60]
    assert columns.reading_count.tolist() == [10_000, 10_000]
    assert columns.min.tolist() == [first.min(), second.min()]
    assert columns.max.tolist() == [first.max(), second.max()]
    assert columns.first.tolist() == [first[0], second[0]]
    assert columns.last.tolist() == [first[-1], second[-1]]
    assert columns.sum.tolist() == pytest.approx([math.fsum(first), math.fsum(second)], abs=1e-9)


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
    monkeypatch.setattr("projections.running.runner.BATCH_EVENTS_MAX", 2)
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
async def test_columns_are_those_of_the_buckets_of_the_range(
    ledger: Ledger, resolution_s: int
) -> None:
    frames = skab_frames("valve1/2", 50)
    await record(ledger, frames)
    await fold(ledger, RollupProjection())
    expected = recomputed(frames, resolution_s)
    starts = sorted(start for channel, start in expected if channel == "pressure")
    wanted = [s for s in starts if starts[len(starts) // 4] <= s <= starts[3 * len(starts) // 4]]
    found = await read_rollups(
        ledger, resolution_s, asset_ids=[LOOP], start_s=wanted[0], end_s=wanted[-1]
    )
    assert [(columns.asset_id, columns.channel) for columns in found] == [
        (LOOP, channel) for channel in sorted(UNITS)
    ]
    for columns in found:
        held = [expected[columns.channel, start] for start in wanted]
        assert columns.start_s.tolist() == wanted
        assert columns.reading_count.tolist() == [e.count for e in held]
        assert columns.min.tolist() == [e.min for e in held]
        assert columns.max.tolist() == [e.max for e in held]
        assert columns.first.tolist() == [e.first for e in held]
        assert columns.last.tolist() == [e.last for e in held]
        assert columns.sum.tolist() == pytest.approx([e.total for e in held], rel=1e-12)
        assert columns.mean.tolist() == pytest.approx([e.total / e.count for e in held], rel=1e-12)


async def test_columns_of_all_assets_and_of_some_channels(ledger: Ledger) -> None:
    for n, asset in enumerate(("loop-1", "loop-2", "loop-3")):
        columns = {"flow": [30.0 + n], "motor_current": [1.0 + n]}
        await record(ledger, [loop_frame(n + 1, seconds_ns(0), columns, asset=asset)])
    await fold(ledger, RollupProjection())
    hours: dict[str, Any] = {"start_s": NOON_S, "end_s": NOON_S}
    found = await read_rollups(ledger, 3600, channels=["flow"], **hours)
    assert [c.asset_id for c in found] == ["loop-1", "loop-2", "loop-3"]
    assert {c.channel for c in found} == {"flow"}
    some = await read_rollups(ledger, 3600, asset_ids=["loop-2", "loop-9"], **hours)
    assert [(c.asset_id, c.channel) for c in some] == [
        ("loop-2", "flow"),
        ("loop-2", "motor_current"),
    ]


async def test_columns_of_what_never_spoke_are_left_out(ledger: Ledger) -> None:
    for resolution_s in RESOLUTIONS_S:
        assert await read_rollups(ledger, resolution_s, start_s=0, end_s=NOON_S) == []


async def test_a_resolution_that_is_not_kept_and_too_many_buckets_are_refused(
    ledger: Ledger,
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await read_rollups(ledger, 1, start_s=0, end_s=NOON_S)
    assert (refused.value.code, refused.value.value) == ("rollups.resolution", 1)
    minutes = BUCKETS_MAX + 1
    times = NOON_S * SECOND_NS + np.array([0, minutes * 60 * SECOND_NS])
    await record(ledger, [loop_frame(1, times, {"flow": [30.0, 31.0]})])
    await fold(ledger, RollupProjection())
    with pytest.raises(InvalidInput) as refused:
        await read_rollups(ledger, 60, start_s=-(2**62), end_s=2**62)
    assert (refused.value.code, refused.value.value, refused.value.limit) == (
        "rollups.too_many_buckets",
        minutes + 1,
        BUCKETS_MAX,
    )
    (hours,) = await read_rollups(ledger, 3600, start_s=-(2**62), end_s=2**62)
    assert hours.reading_count.tolist() == [1, 1]


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
    (found,) = await read_rollups(ledger, 60, start_s=NOON_S + 60, end_s=NOON_S + 300)
    assert found.start_s.tolist() == [NOON_S + 60]
