"""What is told of clocks: the agent's own, those of devices, and the moment one was set."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from hypothesis import given
from hypothesis import strategies as st

from domain.frames import Frame
from domain.time_quality import AGENT, DEVICE, MIXED, SERVER, TimeQuality, check_time_quality
from edge_agent.channel_mapping import MappedChannel
from edge_agent.clock_quality import (
    OFFSET_STEP_NS_MIN,
    SMALLER_BY,
    SYNCHRONIZED_ASKED_EVERY_S,
    AgentClock,
    SourceClock,
    kernel_synchronized,
    next_step,
    told_offset,
)
from edge_agent.live.feed import SourceFeed
from edge_agent.opcua.values import clock_of
from edge_agent.reading_buffer import ReadingBuffer
from edge_agent.scaling import Scaling
from tests.edge_agent.configurations import configuration, csv_source, second, write_rows
from tests.edge_agent.test_live import (
    CHANNELS,
    NOW_NS,
    Clock,
    S,
    anyio_backend,
    collecting,
    configured,
    readings,
)

__all__ = ["anyio_backend"]

MS = 1_000_000


# --- offsets ------------------------------------------------------------------------------


@given(st.integers(0, 2**64))
def test_offsets_are_told_in_steps_that_cover_them(offset_ns: int) -> None:
    told = next_step(offset_ns)
    assert told >= min(offset_ns, 2**63 - 1)
    assert told <= max(OFFSET_STEP_NS_MIN, 2.5 * offset_ns)
    check_time_quality(TimeQuality(DEVICE, offset_ns=told))
    assert told == 2**63 - 1 or str(told).rstrip("0") in ("1", "2", "5")


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=50))
def test_what_is_told_always_covers_what_is_seen(lags: list[int]) -> None:
    told: int | None = None
    for lag in lags:
        told = told_offset(lag, told)
        assert abs(lag) <= told < SMALLER_BY * max(OFFSET_STEP_NS_MIN, 3 * abs(lag))


def test_a_network_that_is_now_faster_now_slower_changes_no_header() -> None:
    clock = SourceClock(AgentClock(lambda: True))
    said = {clock.quality({DEVICE}, lag, stepped=False) for lag in (4 * MS, 900_000, 3 * MS, 0)}
    assert said == {TimeQuality(DEVICE, True, 5 * MS)}
    assert clock.quality({DEVICE}, -40 * MS, stepped=False).offset_ns == 50 * MS
    assert clock.quality({DEVICE}, 2 * MS, stepped=False).offset_ns == 2 * MS


def test_who_told_the_times_is_told() -> None:
    clock = SourceClock(AgentClock(lambda: None))
    assert clock.quality({AGENT}, None, stepped=False) == TimeQuality(AGENT)
    assert clock.quality(set(), None, stepped=True) == TimeQuality(AGENT, stepped=True)
    assert clock.quality({SERVER}, 5 * MS, stepped=False) == TimeQuality(SERVER, offset_ns=5 * MS)
    assert clock.quality({DEVICE, AGENT}, 5 * MS, stepped=False).source == MIXED


# --- the agent's clock --------------------------------------------------------------------


def test_the_kernel_says_whether_its_clock_follows_a_reference_or_nothing() -> None:
    assert kernel_synchronized() in (True, False, None)


def test_the_kernel_is_asked_now_and_then() -> None:
    answers, now_s = [True, False], [0.0]
    clock = AgentClock(lambda: answers.pop(0), lambda: now_s[0])
    said = []
    for now in (0.0, SYNCHRONIZED_ASKED_EVERY_S - 0.1, SYNCHRONIZED_ASKED_EVERY_S):
        now_s[0] = now
        said.append(clock.synchronized)
    assert said == [True, True, False]
    assert answers == []


# --- windows ------------------------------------------------------------------------------


def times_of(frames: list[Frame]) -> list[TimeQuality | None]:
    return [
        None if frame.header.time is None else replace(frame.header.time, synchronized=None)
        for frame in frames
    ]


@pytest.mark.anyio
async def test_windows_say_how_far_off_the_devices_clock_is(tmp_path: Path) -> None:
    source, clock = configured(), Clock()
    async with collecting(tmp_path, clock, source) as running:
        feed = running.collector.open(source)
        late = replace(readings([NOW_NS - 300 * S], [1.0]), clock=DEVICE)
        fresh = replace(readings([NOW_NS - 3 * MS], [2.0], channel=1), clock=DEVICE)
        await feed.take([late, fresh])
        await running.settle()
        # A clock that was never set tells of 1984, and is replaced by the agent's.
        await feed.take([replace(readings([450_000_000 * S], [3.0]), clock=SERVER)])
        await running.settle()
        await feed.take([readings([clock.wall_ns], [4.0])])
        await running.settle()
        unset, said = NOW_NS + S - 450_000_000 * S, times_of(running.frames())
    assert said == [
        # The value from before is no proof of a clock that is five minutes late.
        TimeQuality(DEVICE, offset_ns=5 * MS),
        TimeQuality(AGENT),
        TimeQuality(AGENT),
    ]
    assert next_step(unset) > unset


@pytest.mark.anyio
async def test_every_window_that_is_open_while_the_clock_is_set_says_so(tmp_path: Path) -> None:
    clock = Clock()
    short, long = configured("short"), configured("long", period_ns=4 * S)
    async with collecting(tmp_path, clock, short, long) as running:
        feeds = [running.collector.open(source) for source in (short, long)]

        async def bring(value: float) -> None:
            for feed in feeds:
                await feed.take([readings([clock.wall_ns], [value])])
            await running.settle()

        await bring(1.0)
        clock.wall_ns -= 3600 * S
        for value in (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0):
            await bring(value)
        told = [
            (max(frame.values[0].tolist()), len(frame.values[0]), quality.stepped)
            for frame, quality in zip(running.frames(), times_of(running.frames()), strict=True)
            if quality is not None
        ]
        counts = {s.name: s.fault_counts for s in running.outbox.status().sources}
    of_short = [(value, stepped) for value, count, stepped in told if count == 1]
    of_long = [stepped for _, count, stepped in told if count > 1]
    assert [value for value, stepped in of_short if stepped] == [2.0]
    assert of_long[0] is True, "the long window was open, though it did not end then"
    assert not any(of_long[1:])
    assert of_long[1:]
    assert counts == {"short": {"clock.stepped": 1}, "long": {"clock.stepped": 1}}


def test_a_recording_says_that_it_is_one(tmp_path: Path) -> None:
    write_rows(tmp_path, [f"{second(0)},1,2"])
    (source,) = configuration(tmp_path, csv_source()).sources
    assert source.header.time == TimeQuality("recording")


@pytest.mark.anyio
async def test_what_comes_after_a_full_window_is_told_of_the_next() -> None:
    feed = SourceFeed(configured(readings_max=2), lambda: None, lambda: NOW_NS)
    times = NOW_NS - np.array([3, 2, 1]) * MS
    await feed.take([replace(readings(times.tolist(), [1.0, 2.0, 3.0]), clock=DEVICE)])
    await feed.take([readings([NOW_NS], [4.0])])
    full, other = feed.cut(whole=True)
    assert (full.clocks, full.lag_ns) == ({DEVICE}, MS)
    assert (other.clocks, other.lag_ns) == ({DEVICE, AGENT}, MS)


@pytest.mark.parametrize(
    ("source", "server", "told"),
    [
        (datetime.now(UTC), datetime.now(UTC), DEVICE),
        (None, datetime.now(UTC), SERVER),
        (None, None, AGENT),
    ],
    ids=[DEVICE, SERVER, AGENT],
)
def test_an_opc_ua_value_says_who_told_its_time(source: Any, server: Any, told: str) -> None:
    assert clock_of(ua.DataValue(SourceTimestamp=source, ServerTimestamp=server)) == told


@given(st.lists(st.sampled_from([DEVICE, SERVER]), max_size=4))
def test_readings_that_several_told_are_mixed(told: list[str]) -> None:
    buffer = ReadingBuffer([MappedChannel(CHANNELS[0], Scaling(), "")])
    for clock in told:
        buffer.told_by(clock)
        buffer.add(0, NOW_NS, 1.0, 0)
    taken = buffer.take()
    expected = [] if not told else [told[0] if len(set(told)) == 1 else MIXED]
    assert [one.clock for one in taken] == expected
    buffer.add(0, NOW_NS, 1.0, 0)
    assert buffer.take()[0].clock == AGENT
