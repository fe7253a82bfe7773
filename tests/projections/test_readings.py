"""Readings over any range: the sensor's own where they are few, extremes where they are many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInput
from domain.frames import Quality
from eventlog.database import Pool
from eventlog.ledger import Ledger
from projections.telemetry.readings import (
    POINTS_MAX,
    ReadingColumns,
    Tier,
    read_columns,
    read_last_values,
    read_raw,
)
from projections.telemetry.rollups import RollupProjection
from projections.twins.projection import TwinProjection
from tests.projections.loop_frames import (
    LOOP,
    NOON_S,
    SECOND_NS,
    fold,
    fresh_ledgers,
    loop_frame,
    record,
    seconds_ns,
    si,
    skab_frames,
)
from tests.recordings import read_skab

pytestmark = pytest.mark.anyio

FLOW = "flow"
EVER: dict[str, Any] = {"start_ns": 0, "end_ns": 2**62}


async def read(ledger: Ledger, *channels: str, **changes: Any) -> list[ReadingColumns]:
    asked: dict[str, Any] = {**EVER, "points_max": POINTS_MAX, **changes}
    return await read_columns(ledger, LOOP, channels or (FLOW,), **asked)


async def read_flow(ledger: Ledger, **changes: Any) -> list[tuple[float, float, int]]:
    """Return (seconds after noon, l/min, quality) of the flow's readings."""
    (columns,) = await read(ledger, **changes)
    return [
        ((time - NOON_S * SECOND_NS) / SECOND_NS, round(value / si(FLOW, [1.0])[0], 9), quality)
        for time, value, quality in zip(
            columns.times_ns.tolist(),
            columns.values.tolist(),
            columns.qualities.tolist(),
            strict=True,
        )
    ]


# --- raw ----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [60, 333])
async def test_readings_are_those_of_the_recording_bit_by_bit_in_si(
    ledger: Ledger, length: int
) -> None:
    recording = read_skab("valve1/3")
    frames = skab_frames("valve1/3", length)
    await record(ledger, [*frames[1::2], *frames[::2]])
    found = await read(ledger, *recording.values)
    assert [columns.channel for columns in found] == list(recording.values)
    for columns in found:
        assert columns.tier is Tier.RAW
        assert columns.times_ns.tobytes() == recording.times_ns.tobytes()
        expected = si(columns.channel, recording.values[columns.channel])
        assert columns.values.tobytes() == expected.tobytes()
        assert not columns.qualities.any()
        assert columns.reading_count == len(recording.times_ns)


async def test_of_readings_of_one_moment_the_one_at_the_highest_position_counts(
    ledger: Ledger,
) -> None:
    await record(ledger, [loop_frame(2, seconds_ns(0, 1, 2), {FLOW: [1.0, 2.0, 3.0]})])
    await record(ledger, [loop_frame(1, seconds_ns(1, 2, 3), {FLOW: [20.0, 30.0, 40.0]})])
    assert await read_flow(ledger) == [(0, 1, 0), (1, 20, 0), (2, 30, 0), (3, 40, 0)]
    await record(ledger, [loop_frame(3, seconds_ns(0, 3), {FLOW: [100.0, 99.0]})])
    assert await read_flow(ledger) == [(0, 100, 0), (1, 20, 0), (2, 30, 0), (3, 99, 0)]


async def test_a_later_reading_that_is_bad_takes_the_place_of_a_good_one(
    ledger: Ledger,
) -> None:
    await record(ledger, [loop_frame(1, seconds_ns(0, 1), {FLOW: [1.0, 2.0]})])
    bad = {FLOW: [Quality.BAD]}
    await record(ledger, [loop_frame(2, seconds_ns(1), {FLOW: [9.0]}, qualities=bad)])
    assert await read_flow(ledger) == [(0, 1, 0)]
    assert await read_flow(ledger, with_bad=True) == [(0, 1, 0), (1, 9, 2)]


async def test_overlapping_frames_of_two_agents_are_woven_together(ledger: Ledger) -> None:
    await record(ledger, [loop_frame(1, seconds_ns(0, 2, 4), {FLOW: [1.0, 3.0, 5.0]}, agent="a")])
    await record(ledger, [loop_frame(1, seconds_ns(1, 3), {FLOW: [2.0, 4.0]}, agent="b")])
    assert await read_flow(ledger) == [(n, n + 1, 0) for n in range(5)]


async def test_both_ends_of_a_range_belong_to_it(ledger: Ledger) -> None:
    await record(ledger, [loop_frame(1, seconds_ns(0, 1, 2, 3), {FLOW: [1.0, 2.0, 3.0, 4.0]})])
    one, two = seconds_ns(1, 2).tolist()
    assert await read_flow(ledger, start_ns=one, end_ns=two) == [(1, 2, 0), (2, 3, 0)]
    assert await read_flow(ledger, start_ns=one, end_ns=one) == [(1, 2, 0)]
    assert await read_flow(ledger, start_ns=one + 1, end_ns=two - 1) == []
    assert await read_flow(ledger, start_ns=one + 1, end_ns=two) == [(2, 3, 0)]


async def test_bad_readings_come_when_they_are_asked_for_and_missing_ones_never(
    ledger: Ledger,
) -> None:
    frame = loop_frame(
        1,
        seconds_ns(0, 1, 2, 3),
        {FLOW: [1.0, 2.0, 3.0, np.nan]},
        qualities={FLOW: [Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.MISSING]},
    )
    await record(ledger, [frame])
    assert await read_flow(ledger) == [(0, 1, 0), (1, 2, 1)]
    assert await read_flow(ledger, with_bad=True) == [(0, 1, 0), (1, 2, 1), (2, 3, 2)]


async def test_nothing_recorded_gives_empty_columns(ledger: Ledger) -> None:
    (columns,) = await read(ledger)
    assert (columns.channel, columns.tier, columns.reading_count) == (FLOW, Tier.RAW, 0)
    assert len(columns.times_ns) == len(columns.values) == len(columns.qualities) == 0
    await record(ledger, [loop_frame(1, seconds_ns(0), {"pressure": [0.1]})])
    assert await read_flow(ledger) == []
    assert await read(ledger, "never_heard_of") != []


@pytest.mark.parametrize("page", [1, 3, 500])
async def test_frames_that_end_together_are_read_across_pages(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr("projections.telemetry.readings.FRAMES_PAGE", page)
    agents = 8
    await record(
        ledger,
        [
            loop_frame(1, seconds_ns(n / 100, 1), {FLOW: [float(n), 50.0 + n]}, agent=f"agent-{n}")
            for n in range(agents)
        ],
    )
    expected = [(n / 100, float(n), 0) for n in range(agents)]
    assert await read_flow(ledger) == [*expected, (1, 50 + agents - 1, 0)]


async def test_an_empty_range_and_impossible_bounds_are_refused(ledger: Ledger) -> None:
    refusals: list[tuple[dict[str, Any], str, int, Any]] = [
        ({"start_ns": 5, "end_ns": 4}, "readings.range", 4, 5),
        ({"points_max": 1}, "readings.points_max", 1, POINTS_MAX),
        ({"points_max": POINTS_MAX + 1}, "readings.points_max", POINTS_MAX + 1, POINTS_MAX),
    ]
    for changes, code, value, limit in refusals:
        with pytest.raises(InvalidInput) as refused:
            await read(ledger, **changes)
        found = refused.value
        assert (found.code, found.value, found.limit) == (code, value, limit)


async def test_more_raw_readings_than_are_allowed_at_once_are_refused(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = loop_frame(1, seconds_ns(0, 1, 2), {FLOW: [1.0, 2.0, 3.0]})
    await record(ledger, [frame])
    monkeypatch.setattr("projections.telemetry.readings.RAW_READINGS_MAX", 3)
    (columns,) = await read_raw(ledger, LOOP, [FLOW], **EVER)
    assert columns.times_ns.tolist() == frame.clocks[0].tolist()
    monkeypatch.setattr("projections.telemetry.readings.RAW_READINGS_MAX", 2)
    with pytest.raises(InvalidInput) as refused:
        await read_raw(ledger, LOOP, [FLOW], **EVER)
    assert (refused.value.code, refused.value.value, refused.value.limit) == (
        "readings.too_many",
        3,
        2,
    )


async def test_frames_of_many_lengths_and_of_channels_that_come_and_go_are_read_in_order(
    ledger: Ledger,
) -> None:
    lengths, at, frames = [1, 5, 2, 2, 9, 1, 30, 3] * 8, 0, []
    for n, length in enumerate(lengths):
        times = seconds_ns(*range(at, at + length))
        columns = {"pressure": [0.5] * length}
        if n % 3:
            columns = {FLOW: [float(at + i) for i in range(length)], **columns}
        masks = {FLOW: [Quality.UNCERTAIN] * length} if n % 5 == 1 else {}
        frames.append(loop_frame(n + 1, times, columns, qualities=masks if n % 3 else {}))
        at += length
    await record(ledger, frames)
    for _ in range(2):  # decoded, then remembered
        flow = await read_flow(ledger)
        assert flow == [
            ((int(time) - NOON_S * SECOND_NS) / SECOND_NS, value, quality)
            for frame in frames
            for index, header in enumerate(frame.header.channels)
            if header.name == FLOW
            for time, value, quality in zip(
                frame.clocks[0].tolist(),
                frame.values[index].tolist(),
                frame.qualities[index].tolist(),
                strict=True,
            )
        ]


async def test_last_values_are_those_of_every_channel_that_has_one(ledger: Ledger) -> None:
    assert len((await read_last_values(ledger)).values) == 0
    for asset, value in (("loop-2", 5.0), ("loop-1", 3.0)):
        await record(
            ledger,
            [
                loop_frame(
                    1,
                    seconds_ns(0, 1),
                    {FLOW: [1.0, value], "pressure": [0.1, 0.2], "motor_current": [1.0, 2.0]},
                    agent=f"agent-of-{asset}",
                    asset=asset,
                    qualities={
                        "pressure": [Quality.GOOD, Quality.BAD],
                        "motor_current": [Quality.BAD, Quality.BAD],
                    },
                )
            ],
        )
    await fold(ledger, TwinProjection())
    last = await read_last_values(ledger)
    assert list(zip(last.asset_ids, last.channels, strict=True)) == [
        (asset, channel) for asset in ("loop-1", "loop-2") for channel in (FLOW, "pressure")
    ]
    assert last.values.tolist() == [
        si(FLOW, [3.0])[0],
        si("pressure", [0.1])[0],
        si(FLOW, [5.0])[0],
        si("pressure", [0.1])[0],
    ]
    zero, one = seconds_ns(0, 1).tolist()
    assert last.times_ns.tolist() == [one, zero, one, zero]
    assert (await read_last_values(ledger, ["loop-2"])).asset_ids == ("loop-2", "loop-2")


# --- thinned out --------------------------------------------------------------------------


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 3000),
    points_max=st.sampled_from([2, 3, 4, 5, 6, 17, 100, 1000]),
)
async def test_fewer_points_keep_the_lowest_and_the_highest_reading(
    pool: Pool, seed: int, count: int, points_max: int
) -> None:
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.normal(size=count)) if rng.random() < 0.5 else rng.normal(size=count)
    times = NOON_S * SECOND_NS + np.cumsum(rng.integers(1, SECOND_NS, count))
    (ledger,) = await fresh_ledgers(pool, 1)
    try:
        await record(ledger, [loop_frame(1, times, {FLOW: values})])
        (columns,) = await read(ledger, points_max=points_max)
    finally:
        await ledger.close()
    expected = si(FLOW, values)
    assert len(columns.values) <= points_max
    assert len(columns.values) >= min(points_max, count) // 2
    assert (columns.values.min(), columns.values.max()) == (expected.min(), expected.max())
    assert columns.reading_count == count
    places = np.searchsorted(times, columns.times_ns)
    assert (np.diff(places) > 0).all()
    assert times[places].tolist() == columns.times_ns.tolist()
    assert expected[places].tolist() == columns.values.tolist()


async def test_as_many_points_as_there_are_readings_are_all_of_them(ledger: Ledger) -> None:
    await record(ledger, [loop_frame(1, seconds_ns(*range(50)), {FLOW: [*map(float, range(50))]})])
    assert len(await read_flow(ledger, points_max=50)) == 50
    assert len(await read_flow(ledger, points_max=49)) <= 49


async def test_the_quality_stays_with_its_reading_when_points_are_left_out(
    ledger: Ledger,
) -> None:
    values = [10.0] * 100
    values[37] = 99.0
    masks = [Quality.GOOD] * 100
    masks[37] = Quality.UNCERTAIN
    frame = loop_frame(1, seconds_ns(*range(100)), {FLOW: values}, qualities={FLOW: masks})
    await record(ledger, [frame])
    found = await read_flow(ledger, points_max=10)
    assert (37, 99, Quality.UNCERTAIN) in found
    assert sum(quality for _, _, quality in found) == Quality.UNCERTAIN


# --- from rollups -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("buckets_max", "tier", "resolution_s"),
    [(200_000, Tier.SECOND, 1), (100, Tier.MINUTE, 60), (2, Tier.HOUR, 3600)],
)
async def test_large_ranges_are_read_from_the_finest_rollup_that_bears_them(
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    buckets_max: int,
    tier: Tier,
    resolution_s: int,
) -> None:
    monkeypatch.setattr("projections.telemetry.readings.RAW_READINGS_MAX", 1_000)
    monkeypatch.setattr("projections.telemetry.readings.ROLLUP_BUCKETS_MAX", buckets_max)
    recording = read_skab("valve1/3")
    await record(ledger, skab_frames("valve1/3", 60))
    await fold(ledger, RollupProjection())
    flow, pressure = await read(ledger, FLOW, "pressure")
    starts = recording.times_ns // SECOND_NS // resolution_s
    for columns in (flow, pressure):
        values = si(columns.channel, recording.values[columns.channel])
        assert columns.tier is tier
        assert columns.reading_count == len(values)
        expected = [
            extreme(values[starts == start])
            for start in np.unique(starts)
            for extreme in (np.min, np.max)
        ]
        assert columns.values.tolist() == expected
        assert (np.diff(columns.times_ns) > 0).all()
        assert (columns.times_ns[::2] // SECOND_NS // resolution_s == np.unique(starts)).all()


@pytest.mark.parametrize("piece", [7, 100, 1_000_000])
async def test_seconds_of_overlapping_frames_are_the_same_in_pieces_of_any_size(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr("projections.telemetry.readings.RAW_READINGS_MAX", 10)
    monkeypatch.setattr("projections.telemetry.readings.PIECE_READINGS", piece)
    times = NOON_S * SECOND_NS + np.arange(200, dtype=np.int64) * (SECOND_NS // 4)
    values = np.arange(200.0)
    await record(
        ledger,
        [
            loop_frame(1, times, {FLOW: values}),
            loop_frame(2, times[50:120], {FLOW: values[50:120] + 1000}),
            loop_frame(3, times[100:101], {FLOW: [1.0]}, qualities={FLOW: [Quality.BAD]}),
        ],
    )
    values[50:120] += 1000
    kept = np.delete(np.arange(200), 100)
    seconds = times[kept] // SECOND_NS
    (columns,) = await read(ledger)
    assert columns.tier is Tier.SECOND
    assert columns.reading_count == 199
    assert columns.values.tolist() == [
        extreme
        for second in np.unique(seconds)
        for extreme in si(
            FLOW, [values[kept][seconds == second].min(), values[kept][seconds == second].max()]
        )
    ]


async def test_a_rollup_is_thinned_to_the_points_asked_for_with_its_extremes(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.telemetry.readings.RAW_READINGS_MAX", 1_000)
    await record(ledger, skab_frames("valve1/3", 60))
    await fold(ledger, RollupProjection())
    values = si(FLOW, read_skab("valve1/3").values[FLOW])
    (columns,) = await read(ledger, points_max=40)
    assert columns.tier is Tier.SECOND
    assert len(columns.values) <= 40
    assert (columns.values.min(), columns.values.max()) == (values.min(), values.max())


async def test_a_short_range_of_a_long_log_is_read_raw(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.telemetry.readings.RAW_READINGS_MAX", 1_000)
    recording = read_skab("valve1/3")
    await record(ledger, skab_frames("valve1/3", 60))
    times = recording.times_ns[60:120]
    (columns,) = await read(ledger, start_ns=int(times[0]), end_ns=int(times[-1]))
    assert columns.tier is Tier.RAW
    assert columns.times_ns.tolist() == times.tolist()
