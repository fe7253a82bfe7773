"""Twins: what an asset is and reads now, and what that says of its health."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.asset import (
    AcknowledgeAlert,
    ClearAlert,
    CommissionAsset,
    DesireSetpoint,
    RaiseAlert,
    RegisterAsset,
    ReportSetpoint,
    RetireAsset,
)
from domain.asset_model import Severity
from domain.frames import ChannelHeader, Frame, FrameHeader, build_frame
from domain.health import HealthReason, HealthStatus
from domain.units import unit
from eventlog.database import Pool
from eventlog.ledger import Ledger
from projections.alerts.projection import AlertProjection
from projections.twins.projection import (
    ChannelReading,
    Connectivity,
    Lifecycle,
    SetpointState,
    Twin,
    TwinProjection,
    find_asset,
    find_assets,
    list_assets,
    twins_by_asset_id,
)
from tests.projections.loop_frames import (
    LOOP,
    NOON,
    PATIENCE_S,
    fold,
    fresh_ledgers,
    loop_frame,
    record,
    register,
    running,
    seconds_ns,
    si,
    table,
    told,
)

pytestmark = pytest.mark.anyio

FLOW = "flow"


async def twin_of(ledger: Ledger, now: datetime = NOON, asset_id: str = LOOP) -> Twin:
    """Return the twin after the whole log was folded."""
    await fold(ledger, TwinProjection())
    await fold(ledger, AlertProjection())
    return await stored_twin(ledger, now, asset_id)


async def stored_twin(ledger: Ledger, now: datetime = NOON, asset_id: str = LOOP) -> Twin:
    asset = await find_asset(ledger, asset_id)
    assert asset is not None
    return (await twins_by_asset_id(ledger, [asset], now))[asset_id]


def reading(twin: Twin, channel: str = FLOW) -> ChannelReading:
    (found,) = [r for r in twin.readings if r.channel == channel]
    return found


# --- readings -----------------------------------------------------------------------------


async def test_a_twin_shows_the_last_good_reading_with_its_age_and_quality(
    ledger: Ledger,
) -> None:
    await register(ledger)
    await record(
        ledger,
        [
            loop_frame(
                1,
                seconds_ns(0, 1, 2, 3),
                {FLOW: [30.0, 31.0, 32.0, np.nan], "pressure": [0.1, 0.2, 0.3, 0.4]},
                qualities={FLOW: [0, 0, 2, 3]},
            )
        ],
    )
    twin = await twin_of(ledger, NOON + timedelta(seconds=11))
    assert twin.last_reading_at == NOON + timedelta(seconds=3)
    flow = si(FLOW, [30.0, 31.0])
    read = reading(twin)
    assert read.window_mean == pytest.approx(flow.sum() / 2)
    assert replace(read, window_mean=None) == ChannelReading(
        FLOW, flow[1], NOON + timedelta(seconds=1), 10.0, None, 0.5
    )
    assert reading(twin, "pressure").value == si("pressure", [0.4])[0]
    assert reading(twin, "pressure").good_ratio == 1.0


async def test_a_channel_that_was_never_good_has_no_value(ledger: Ledger) -> None:
    await register(ledger)
    await record(ledger, [loop_frame(1, seconds_ns(0), {FLOW: [30.0]}, qualities={FLOW: [1]})])
    twin = await twin_of(ledger)
    assert reading(twin) == ChannelReading(FLOW, None, None, None, None, 0.0)
    assert twin.connectivity is Connectivity.NEVER_SEEN
    assert (twin.health.status, twin.health.index) == (HealthStatus.UNKNOWN, None)


async def test_a_bad_window_keeps_the_last_good_reading_and_shows_in_the_quality(
    ledger: Ledger,
) -> None:
    await register(ledger)
    await record(ledger, [loop_frame(1, seconds_ns(0, 1), {FLOW: [30.0, 31.0]})])
    bad = {FLOW: [2, 2]}
    await record(ledger, [loop_frame(2, seconds_ns(2, 3), {FLOW: [1.0, 2.0]}, qualities=bad)])
    flow = reading(await twin_of(ledger))
    assert (flow.value, flow.read_at) == (si(FLOW, [31.0])[0], NOON + timedelta(seconds=1))
    assert flow.good_ratio == 0.0


async def test_a_late_frame_does_not_overwrite_newer_readings(ledger: Ledger) -> None:
    await register(ledger)
    newer = loop_frame(2, seconds_ns(10, 11), {FLOW: [32.0, 33.0]})
    late = loop_frame(1, seconds_ns(0, 1), {FLOW: [1.0, 2.0]}, qualities={FLOW: [0, 2]})
    await record(ledger, [newer, late])
    await fold(ledger, TwinProjection(), 1)
    flow = reading(await stored_twin(ledger))
    assert (flow.value, flow.good_ratio) == (si(FLOW, [33.0])[0], 1.0)
    assert flow.window_mean == si(FLOW, [32.0, 33.0]).sum() / 2


async def test_of_two_readings_of_one_moment_the_later_recorded_counts(ledger: Ledger) -> None:
    await register(ledger)
    await record(ledger, [loop_frame(1, seconds_ns(0), {FLOW: [30.0]})])
    await record(ledger, [loop_frame(2, seconds_ns(0), {FLOW: [31.0]})])
    assert reading(await twin_of(ledger)).value == si(FLOW, [31.0])[0]


@st.composite
def frames_out_of_order(draw: st.DrawFn) -> list[Frame]:
    frames = []
    for sequence in range(1, draw(st.integers(2, 8)) + 1):
        length = draw(st.integers(1, 3))
        start = draw(st.integers(0, 10))
        channels = draw(st.sampled_from([(FLOW,), ("pressure",), (FLOW, "pressure")]))
        frames.append(
            loop_frame(
                sequence,
                seconds_ns(*range(start, start + length)),
                {name: [float(sequence + n) for n in range(length)] for name in channels},
                qualities={
                    name: draw(st.lists(st.integers(0, 3), min_size=length, max_size=length))
                    for name in channels
                },
            )
        )
    return frames


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=frames_out_of_order())
async def test_batch_sizes_and_folding_twice_do_not_matter(pool: Pool, frames: list[Frame]) -> None:
    ledgers = await fresh_ledgers(pool, 3)
    try:
        rows = []
        for ledger, batch in zip(ledgers, (1, 3, 1000), strict=True):
            await record(ledger, frames)
            await fold(ledger, TwinProjection(), batch)
            rows.append(await table(ledger, "twin_channel", "asset_id, channel"))
        assert rows[0] == rows[1] == rows[2]
        good = [
            (time, values[at])
            for frame in frames
            for header, values, mask in zip(
                frame.header.channels, frame.values, frame.qualities, strict=True
            )
            for at, time in enumerate(frame.clocks[0].tolist())
            if header.name == FLOW and mask[at] == 0
        ]
        value = await pool.fetchval(
            "select value from twin_channel where ledger_id = $1 and channel = $2",
            ledgers[0].ledger_id,
            FLOW,
        )
        newest = max((time for time, _ in good), default=None)
        latest = [v for time, v in good if time == newest]
        assert value == (si(FLOW, latest[-1:])[0] if latest else None)
    finally:
        for ledger in ledgers:
            await ledger.close()


# --- connectivity -------------------------------------------------------------------------


async def test_a_twin_is_online_until_it_was_silent_for_too_long(ledger: Ledger) -> None:
    await register(ledger)
    twin = await twin_of(ledger)
    assert (twin.connectivity, twin.last_reading_at) == (Connectivity.NEVER_SEEN, None)
    await record(ledger, [loop_frame(1, seconds_ns(0), {FLOW: [30.0]})])
    await fold(ledger, TwinProjection(), after=1)
    for silence_s, expected in (
        (0, Connectivity.ONLINE),
        (180, Connectivity.ONLINE),
        (180.001, Connectivity.STALE),
    ):
        twin = await stored_twin(ledger, NOON + timedelta(seconds=silence_s))
        assert twin.connectivity is expected
        assert reading(twin).age_s == silence_s


async def test_one_channel_that_speaks_keeps_a_twin_online(ledger: Ledger) -> None:
    await register(ledger)
    await record(ledger, [loop_frame(1, seconds_ns(0), {FLOW: [30.0]})])
    await record(ledger, [loop_frame(2, seconds_ns(200), {"pressure": [0.1]})])
    twin = await twin_of(ledger, NOON + timedelta(seconds=210))
    assert twin.connectivity is Connectivity.ONLINE
    assert reading(twin).age_s == 210.0


# --- facts --------------------------------------------------------------------------------


async def test_a_twin_follows_the_life_of_its_asset(ledger: Ledger) -> None:
    lives = []
    await register(ledger)
    for command in (None, CommissionAsset(LOOP), RetireAsset(LOOP, "worn out")):
        if command is not None:
            await told(ledger, command)
        await fold(ledger, TwinProjection())
        asset = await find_asset(ledger, LOOP)
        assert asset is not None
        lives.append((asset.lifecycle, asset.version, asset.position))
    assert lives == [
        (Lifecycle.REGISTERED, 1, 1),
        (Lifecycle.IN_SERVICE, 2, 2),
        (Lifecycle.RETIRED, 3, 3),
    ]
    assert asset is not None
    assert (asset.title, asset.asset_type, asset.registered_at) == (
        "Loop 1",
        "skab-pump-loop",
        NOON,
    )


async def test_a_twin_shows_set_points_as_desired_and_as_reported(ledger: Ledger) -> None:
    await register(ledger)
    await told(ledger, DesireSetpoint(LOOP, FLOW, 5e-4), NOON)
    later = NOON + timedelta(seconds=5)
    twin = await twin_of(ledger)
    assert twin.setpoints == (SetpointState(FLOW, 5e-4, NOON, "user:mara", None, None),)
    await told(ledger, ReportSetpoint(LOOP, FLOW, 4e-4), later)
    await told(ledger, DesireSetpoint(LOOP, FLOW, 6e-4), later)
    twin = await twin_of(ledger)
    assert twin.setpoints == (SetpointState(FLOW, 6e-4, later, "user:mara", 4e-4, later),)


async def test_a_set_point_may_be_reported_that_nobody_desired(ledger: Ledger) -> None:
    await register(ledger)
    await told(ledger, ReportSetpoint(LOOP, FLOW, 4e-4))
    assert (await twin_of(ledger)).setpoints == (SetpointState(FLOW, None, None, None, 4e-4, NOON),)


async def test_the_version_of_a_twin_is_that_of_its_asset_s_stream(ledger: Ledger) -> None:
    await register(ledger)
    await told(ledger, alert(1))
    handled = await told(ledger, AcknowledgeAlert(LOOP, uuid.UUID(int=1)))
    await record(ledger, [loop_frame(1, seconds_ns(0), {FLOW: [30.0]})])
    await fold(ledger, TwinProjection())
    asset = await find_asset(ledger, LOOP)
    assert asset is not None
    assert (asset.version, handled.version) == (3, 3)


async def test_assets_are_listed_by_page_type_and_life(ledger: Ledger) -> None:
    for name in ("b", "a", "c"):
        await told(ledger, RegisterAsset(name, "skab-pump-loop", name))
    await told(ledger, CommissionAsset("c"))
    await fold(ledger, TwinProjection())

    async def listed(**wanted: Any) -> list[str]:
        return [row.asset_id for row in await list_assets(ledger, **{"first": 9, **wanted})]

    assert await listed() == ["a", "b", "c"]
    assert await listed(first=2) == ["a", "b"]
    assert await listed(first=2, after="b") == ["c"]
    assert await listed(lifecycles=[Lifecycle.IN_SERVICE]) == ["c"]
    assert await listed(asset_types=["something-else"]) == []
    assert (await find_assets(ledger, ["a", "z"])).keys() == {"a"}
    assert await find_asset(ledger, "z") is None


async def test_a_twin_says_which_position_it_reflects(ledger: Ledger, database_url: str) -> None:
    await register(ledger)
    async with running(ledger, database_url, TwinProjection()) as (runner,):
        await record(ledger, [loop_frame(1, seconds_ns(0), {FLOW: [30.0]})])
        await runner.wait_for(2, PATIENCE_S)
    assert (await stored_twin(ledger)).position == 2


async def test_many_twins_are_read_at_once_and_kept_apart(ledger: Ledger) -> None:
    for n in range(3):
        await register(ledger, f"loop-{n}")
        await record(
            ledger,
            [loop_frame(n + 1, seconds_ns(0), {FLOW: [30.0 + n]}, asset=f"loop-{n}")],
        )
    await fold(ledger, TwinProjection())
    assets = await list_assets(ledger, first=9)
    twins = await twins_by_asset_id(ledger, assets, NOON)
    assert [reading(twins[f"loop-{n}"]).value for n in range(3)] == [
        si(FLOW, [30.0 + n])[0] for n in range(3)
    ]


async def test_a_twin_shows_the_last_text_of_a_channel_that_holds_text(ledger: Ledger) -> None:
    await register(ledger)
    frames = [
        text_frame(1, (10, 11), ["idle", "run"], [0, 0]),
        text_frame(2, (20, 21, 22), ["stop", "?", ""], [0, 2, 3]),
        text_frame(3, (5, 6), ["late", "too late"], [0, 0]),
    ]
    await record(ledger, frames)
    twin = await twin_of(ledger, NOON + timedelta(seconds=30))
    assert reading(twin, "mode") == ChannelReading(
        "mode", None, NOON + timedelta(seconds=20), 10.0, None, 1 / 3, "stop"
    )
    assert reading(twin).value == si(FLOW, [32.0])[0]
    assert reading(twin).text is None
    await record(ledger, [text_frame(4, (40,), ["off"], [1])])
    twin = await twin_of(ledger)
    assert (reading(twin, "mode").text, reading(twin, "mode").good_ratio) == ("stop", 0.0)


def text_frame(
    sequence: int, seconds: Sequence[float], texts: Sequence[str], qualities: Sequence[int]
) -> Frame:
    """Return a frame with a flow of 32 l/min and a channel that holds `texts`."""
    flow = unit("l/min")
    channels = (
        ChannelHeader(FLOW, "l/min", flow.factor, flow.offset),
        ChannelHeader("mode", "1", 1.0, 0.0, "str"),
    )
    return build_frame(
        FrameHeader(LOOP, "agent-1", channels),
        sequence,
        [seconds_ns(*seconds)],
        [np.full(len(texts), 32.0), np.array(texts, object)],
        [None, np.array(qualities, np.uint8)],
    )


# --- health -------------------------------------------------------------------------------


def alert(number: int, severity: Severity = Severity.WARNING) -> RaiseAlert:
    return RaiseAlert(
        LOOP, uuid.UUID(int=number), "flow_low", severity, FLOW, 4e-4, 5e-4, NOON, "flow is low"
    )


async def test_a_twin_within_its_limits_is_in_good_health(ledger: Ledger) -> None:
    await register(ledger)
    await record(ledger, [loop_frame(1, seconds_ns(0), {"supply_voltage": [230.0]})])
    health = (await twin_of(ledger)).health
    assert (health.status, health.index, health.reasons) == (HealthStatus.GOOD, 1.0, ())


async def test_health_falls_with_the_mean_of_the_latest_window(ledger: Ledger) -> None:
    await register(ledger)
    await record(ledger, [loop_frame(1, seconds_ns(0, 1), {"supply_voltage": [200.0, 224.0]})])
    health = (await twin_of(ledger)).health
    # Half-way between the warning at 217 V and the critical limit at 207 V.
    assert (health.status, health.index) == (HealthStatus.WARNING, 0.5)
    assert health.reasons == (
        HealthReason(
            Severity.WARNING,
            "supply_voltage",
            212.0,
            217.0,
            "Motor supply at 212 V is below its warning limit of 217 V",
        ),
    )


async def test_the_worst_finding_gives_the_status_and_comes_first(ledger: Ledger) -> None:
    await register(ledger)
    columns = {"supply_voltage": [244.0], "motor_current": [4.5]}
    await record(ledger, [loop_frame(1, seconds_ns(0), columns)])
    health = (await twin_of(ledger)).health
    assert (health.status, health.index) == (HealthStatus.CRITICAL, 0.0)
    assert [(r.severity, r.channel, r.limit) for r in health.reasons] == [
        (Severity.CRITICAL, "motor_current", 4.0),
        (Severity.WARNING, "supply_voltage", 243.0),
    ]


@pytest.mark.parametrize(
    ("severity", "status", "index"),
    [
        (Severity.WARNING, HealthStatus.WARNING, 0.5),
        (Severity.CRITICAL, HealthStatus.CRITICAL, 0.0),
    ],
)
async def test_an_open_alert_speaks_of_bad_health_until_it_clears(
    ledger: Ledger, severity: Severity, status: HealthStatus, index: float
) -> None:
    await register(ledger)
    await record(ledger, [loop_frame(1, seconds_ns(0), {"supply_voltage": [230.0]})])
    await told(ledger, alert(1, severity))
    twin = await twin_of(ledger)
    assert twin.open_alert_count == 1
    assert (twin.health.status, twin.health.index) == (status, index)
    assert twin.health.reasons == (HealthReason(severity, FLOW, 4e-4, 5e-4, "flow is low"),)
    await told(ledger, AcknowledgeAlert(LOOP, uuid.UUID(int=1)))
    assert (await twin_of(ledger)).open_alert_count == 1
    await told(ledger, ClearAlert(LOOP, uuid.UUID(int=1), 6e-4))
    twin = await twin_of(ledger)
    assert (twin.open_alert_count, twin.health.status) == (0, HealthStatus.GOOD)
