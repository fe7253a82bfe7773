"""From a live source to the outbox: order, windows, acknowledgement, losses, clocks, failures."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.asset_types import asset_type
from domain.errors import Unavailable
from domain.frames import Frame, Quality, waveform_times_ns
from edge_agent.configuration import ConfiguredLiveSource
from edge_agent.live import ConnectionLost, DeliveredChannel, Feed, LiveSource, Readings
from edge_agent.live.collector import RECONFIGURED, LiveCollector
from edge_agent.live.connections import RunningConnection
from edge_agent.live.feed import BACKLOG_WINDOWS_MAX, FUTURE_NS_MAX, SourceFeed
from edge_agent.live.framing import frames_of
from edge_agent.live.order import Ordering
from edge_agent.live.window import ChannelWindow, Window
from edge_agent.outbox import AgentCommand, KeptWindow, Outbox, open_outbox
from tests.edge_agent.configurations import frames
from tests.edge_agent.feeds import until

S = 1_000_000_000
NOW_NS = 1_714_564_800 * S
PUMP = asset_type("skab-pump-loop")
CHANNELS = (
    DeliveredChannel("flow", "l/min"),
    DeliveredChannel("pressure", "bar"),
    DeliveredChannel("accelerometer_1", "m/s2", "f8", 1000.0),
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(frozen=True)
class Line:
    """A source of three channels."""

    channels: tuple[DeliveredChannel, ...] = CHANNELS


def configured(name: str = "pump-7", **changes: Any) -> ConfiguredLiveSource:
    made = ConfiguredLiveSource(
        name=name,
        asset="pump-7",
        asset_type=PUMP,
        connection="plc-1",
        source=Line(),
        period_ns=S,
        readings_max=1000,
    )
    return replace(made, **changes)


def readings(
    times: Sequence[int],
    values: Sequence[float],
    channel: int = 0,
    qualities: Sequence[int] | None = None,
) -> Readings:
    return Readings(
        channel,
        np.array(times, np.int64),
        np.array(values, np.float64),
        np.array(qualities if qualities is not None else [0] * len(times), np.uint8),
    )


def wave(start_ns: int, values: Sequence[float]) -> Readings:
    return readings(waveform_times_ns(start_ns, 1000.0, len(values)).tolist(), values, 2)


# --- order --------------------------------------------------------------------------------


def test_late_readings_are_sorted_in_and_exact_repeats_dropped() -> None:
    ordering = Ordering(CHANNELS)
    (flow,) = ordering.ordered(
        [readings([3, 5], [30, 50]), readings([4], [40]), readings([5, 6], [50, 60])]
    )
    assert flow.times_ns.tolist() == [3, 4, 5, 6]
    assert flow.values.tolist() == [30, 40, 50, 60]
    assert ordering.repeated_count == 1


def test_value_that_a_new_session_tells_again_is_dropped() -> None:
    ordering = Ordering(CHANNELS)
    ordering.ordered([readings([3], [30])])
    assert ordering.ordered([readings([3], [30])]) == ()
    ((again),) = ordering.ordered([readings([3, 4], [31, 40])])
    assert again.values.tolist() == [31, 40]  # another value at the time is another reading
    assert ordering.repeated_count == 1


def test_missing_readings_of_one_time_are_one() -> None:
    nothing = readings([3, 3], [np.nan, np.nan], qualities=[Quality.MISSING] * 2)
    (flow,) = Ordering(CHANNELS).ordered([nothing])
    assert len(flow) == 1


def test_runs_of_a_waveform_join_where_no_sample_is_missing() -> None:
    first, second = wave(0, [1, 2, 3]), wave(3_000_200, [4, 5])
    far, repeated = wave(9_000_000, [9]), wave(0, [1, 2, 3])
    joined, alone = Ordering(CHANNELS).ordered([second, first, far, repeated])
    assert joined.values.tolist() == [1, 2, 3, 4, 5]
    assert alone.values.tolist() == [9]


# --- frames -------------------------------------------------------------------------------


def window_of(*channels: ChannelWindow) -> Window:
    return Window("pump-7", "pump-7", PUMP, channels)


def channel_window(channel: int, times: Sequence[int], values: Sequence[float]) -> ChannelWindow:
    given = readings(times, values, channel)
    return ChannelWindow(CHANNELS[channel], given.times_ns, given.values, given.qualities)


def test_channels_share_a_clock_only_where_their_times_are_equal() -> None:
    shared = window_of(channel_window(0, [1, 2], [1, 2]), channel_window(1, [1, 2], [3, 4]))
    apart = window_of(channel_window(0, [1, 2], [1, 2]), channel_window(1, [1, 3], [3, 4]))
    assert [len(frame.clocks) for frame in frames_of(shared, "a", 1)] == [1]
    assert [len(frame.clocks) for frame in frames_of(apart, "a", 1)] == [2]
    assert frames_of(shared, "a", 1)[0].header is frames_of(shared, "a", 2)[0].header


def test_equal_times_with_other_values_go_into_frames_of_their_own() -> None:
    window = window_of(channel_window(0, [1, 1, 1, 2], [1, 2, 3, 4]), channel_window(1, [1], [9]))
    made = frames_of(window, "a", 7)
    assert [frame.sequence for frame in made] == [7, 8, 9]
    assert [frame.values[0].tolist() for frame in made] == [[1, 4], [2], [3]]
    assert len(made[0].values) == 2


def test_waveforms_lie_in_frames_of_their_own_with_their_rate() -> None:
    times = waveform_times_ns(5, 1000.0, 3).tolist()
    window = window_of(channel_window(0, [1], [1]), channel_window(2, times, [1, 2, 3]))
    made = frames_of(window, "a", 1)
    assert [frame.header.rates_hz for frame in made] == [(None,), (1000.0,)]


def test_window_too_large_for_a_frame_becomes_several() -> None:
    count = 600_000
    window = window_of(channel_window(0, list(range(count)), [0.5] * count))
    made = frames_of(window, "a", 1)
    assert len(made) > 1
    joined = np.concatenate([frame.clocks[0] for frame in made])
    assert np.array_equal(joined, np.arange(count))


@given(
    arrived=st.lists(
        st.tuples(st.integers(0, 1), st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=40
    ),
    cuts=st.sets(st.integers(0, 40)),
)
def test_every_distinct_reading_is_in_a_frame_however_windows_are_cut(
    arrived: list[tuple[int, int, int]], cuts: set[int]
) -> None:
    ordering, kept, window = Ordering(CHANNELS), set(), []
    for number, (channel, time, value) in enumerate([*arrived, (0, 99, 1)]):
        window.append(readings([time], [value], channel))
        if number in cuts or time == 99:
            for frame in frames_of(window_of(*ordering.ordered(window)), "a", 1):
                for index, declared in enumerate(frame.header.channels):
                    at = frame.channel_times_ns(index).tolist()
                    assert at == sorted(set(at))
                    kept |= {
                        (declared.name, t, v)
                        for t, v in zip(at, frame.values[index].tolist(), strict=True)
                    }
            window = []
    names = [channel.name for channel in CHANNELS]
    assert kept == {(names[c], t, float(v)) for c, t, v in [*arrived, (0, 99, 1)]}


# --- the feed -----------------------------------------------------------------------------


def feed_of(**changes: Any) -> SourceFeed:
    return SourceFeed(configured(**changes), lambda: None, lambda: NOW_NS)


@pytest.mark.anyio
async def test_what_is_no_number_is_missing_and_what_has_another_type_refused() -> None:
    feed = feed_of()
    await feed.take([readings([NOW_NS, NOW_NS + 1], [np.nan, 2.0])])
    whole = Readings(0, np.array([NOW_NS]), np.array(["x"], object), np.zeros(1, np.uint8))
    short = Readings(0, np.array([NOW_NS]), np.zeros(2), np.zeros(1, np.uint8))
    await feed.take([whole, short])
    (window,) = feed.cut(whole=True)
    (kept,) = window.readings
    assert kept.qualities.tolist() == [Quality.MISSING, Quality.GOOD]
    counts = feed.cut_incidents().counts
    assert counts == {("flow", "value.not_finite"): 1, ("flow", "value.wrong_type"): 2}


@pytest.mark.anyio
@pytest.mark.parametrize("time_ns", [0, NOW_NS + FUTURE_NS_MAX + 1, -(2**63), 2**63 - 1])
async def test_time_that_no_clock_can_have_told_becomes_that_of_arrival(time_ns: int) -> None:
    feed = feed_of()
    await feed.take([readings([NOW_NS - 1, time_ns, time_ns], [1, 2, 3])])
    (window,) = feed.cut(whole=True)
    assert window.readings[0].times_ns.tolist() == [NOW_NS - 1, NOW_NS + 1, NOW_NS + 2]
    assert window.readings[0].qualities.tolist() == [0, Quality.UNCERTAIN, Quality.UNCERTAIN]
    assert feed.cut_incidents().counts == {("flow", "value.time_unsound"): 2}


@pytest.mark.anyio
async def test_taking_waits_while_windows_wait_for_the_disk() -> None:
    feed = feed_of(readings_max=2)
    many = [readings([NOW_NS + n for n in range(20)], [0.0] * 20)]
    taking = asyncio.create_task(feed.take(many))
    await asyncio.sleep(0.02)
    assert not taking.done()
    windows = feed.cut(whole=False)
    assert len(windows) > BACKLOG_WINDOWS_MAX
    feed.moved()
    await asyncio.wait_for(taking, 5)
    assert {window.count for window in windows} == {2}


def test_losses_of_one_reason_become_one_and_are_bounded() -> None:
    feed = feed_of()
    feed.lost("queue.overflow", 10, 20, 1)
    feed.lost("queue.overflow", 5, 12, 2)
    for number in range(500):
        feed.lost(f"reason.{number}", number, number + 1)
    losses = feed.cut_incidents().losses
    first = losses[0]
    assert (first.from_ns, first.to_ns, first.count) == (5, 20, 3)
    assert len(losses) == 100
    assert losses[-1].to_ns == 500


# --- the collector ------------------------------------------------------------------------


@dataclass
class Clock:
    """The wall clock and the clock that nobody sets."""

    wall_ns: int = NOW_NS
    steady_s: float = 1000.0

    def advance(self, seconds: float) -> None:
        self.wall_ns += round(seconds * S)
        self.steady_s += seconds


@dataclass
class Collecting:
    """A collector on a real outbox."""

    outbox: Outbox
    collector: LiveCollector
    clock: Clock
    waiting: asyncio.Event
    moved: asyncio.Event

    def frames(self) -> list[Frame]:
        return frames(self.outbox)

    async def settle(self) -> None:
        """Let the time of every window pass and everything be kept."""
        self.clock.advance(1.0)
        self.collector._woken.set()
        async with asyncio.timeout(10):
            while self.collector._woken.is_set() or self.collector._passing.locked():  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@dataclass
class Commanding:
    """Asks for a command for every window with a flow above 40."""

    seen: list[int] = field(default_factory=list)

    def observe(self, windows: Sequence[Window]) -> Sequence[Sequence[AgentCommand]]:
        self.seen.append(len(windows))
        return [
            [AgentCommand("assessHealth", {"assetId": w.asset}, f"{w.source}:{w.reading_count}")]
            if w.channels[0].values.max() > 40
            else ()
            for w in windows
        ]


@asynccontextmanager
async def collecting(
    folder: Path, clock: Clock, *sources: ConfiguredLiveSource, **changes: Any
) -> AsyncIterator[Collecting]:
    waiting, moved = asyncio.Event(), asyncio.Event()
    with open_outbox(folder, 10**9) as outbox:
        outbox.adopt("agent-1", {}, live={source.name: source.asset for source in sources})
        collector = LiveCollector(
            "agent-1",
            outbox,
            changes.get("observers", ()),
            asyncio.Lock(),
            waiting,
            moved,
            lambda: clock.wall_ns,
            lambda: clock.steady_s,
        )
        task = asyncio.create_task(collector.run())
        try:
            yield Collecting(outbox, collector, clock, waiting, moved)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            collector.shut_down()


def losses_of(outbox: Outbox) -> dict[str, int]:
    return outbox.status().loss_counts


@pytest.mark.anyio
async def test_window_is_kept_once_its_time_is_over_and_then_acknowledged(tmp_path: Path) -> None:
    source = configured()
    async with collecting(tmp_path, Clock(), source) as running:
        feed = running.collector.open(source)
        await feed.take([readings([NOW_NS, NOW_NS + 1], [1, 2]), readings([NOW_NS], [3], 1)])
        kept = asyncio.create_task(feed.kept())
        await asyncio.sleep(0.02)
        assert not kept.done()
        assert running.frames() == []
        await running.settle()
        await asyncio.wait_for(kept, 5)
        (frame,) = running.frames()
        assert [channel.name for channel in frame.header.channels] == ["flow", "pressure"]
        assert frame.values[0].tolist() == [1, 2]
        assert running.waiting.is_set()
        assert running.collector.reading_count == 3


@pytest.mark.anyio
async def test_windows_of_all_sources_end_together_and_a_command_goes_with_its_frames(
    tmp_path: Path,
) -> None:
    commanding = Commanding()
    names = ("pump-7", "pump-8", "pump-9")
    sources = [configured(name, asset=name) for name in names]
    async with collecting(tmp_path, Clock(), *sources, observers=(commanding,)) as running:
        feeds = [running.collector.open(source) for source in sources]
        for number, feed in enumerate(feeds):
            await feed.take([readings([NOW_NS], [39.0 + number])])
        await running.settle()
        assert commanding.seen == [3]
        assert [frame.header.asset for frame in running.frames()] == list(names)
        assert [frame.sequence for frame in running.frames()] == [1, 2, 3]
        assert running.outbox.status().pending_commands == 1


class Broken:
    """A stage and an observer that break their word."""

    def apply(self, window: Window) -> Window:  # noqa: ARG002
        raise ZeroDivisionError

    def observe(self, windows: Sequence[Window]) -> Any:  # noqa: ARG002
        raise MemoryError


@pytest.mark.anyio
async def test_stage_or_model_that_fails_costs_no_reading_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = configured(stages=(Broken(),))
    async with collecting(tmp_path, Clock(), source, observers=(Broken(),)) as running:
        feed = running.collector.open(source)
        for number in range(3):
            await feed.take([readings([NOW_NS + number], [1.0])])
            await running.settle()
        assert len(running.frames()) == 3
    assert [record.args for record in caplog.records if "failed" in record.message] == [
        ("pump-7", "Broken"),
        ("observers", "Broken"),
    ]


@pytest.mark.anyio
async def test_time_between_two_runs_is_lost_until_something_is_heard(tmp_path: Path) -> None:
    source, clock = configured(), Clock()
    async with collecting(tmp_path, clock, source) as running:
        running.collector.open(source)
        await running.settle()
        assert losses_of(running.outbox) == {}
        before = running.outbox.source_state("pump-7").position
    assert before is not None
    clock.advance(3600)
    async with collecting(tmp_path, clock, source) as running:
        feed = running.collector.open(source)
        await running.settle()
        assert losses_of(running.outbox) == {}  # nobody has answered yet
        assert running.outbox.source_state("pump-7").position == before
        await feed.take([readings([clock.wall_ns], [1.0])])
        (loss,) = feed.incidents.losses
        assert (loss.reason, loss.from_ns, loss.to_ns) == (
            "agent.down",
            before.time_ns,
            clock.wall_ns,
        )
        await running.settle()
        assert losses_of(running.outbox) == {"agent.down": 1}
        listened = running.outbox.source_state("pump-7").position
        assert listened is not None
        clock.wall_ns -= 7200 * S  # no loss may end before it began, or tell less than is in doubt
        feed = running.collector.open(source, reason=RECONFIGURED)
        feed.lost("connection.down", clock.wall_ns - 5, clock.wall_ns)
        assert [(loss.reason, loss.from_ns, loss.to_ns) for loss in feed.incidents.losses] == [
            ("agent.reconfigured", clock.wall_ns - 5, listened.time_ns),
            ("connection.down", clock.wall_ns - 5, clock.wall_ns),
        ]
        await running.settle()
        after = running.outbox.source_state("pump-7").position
    assert after is not None
    assert after.row > before.row


@pytest.mark.anyio
async def test_source_that_is_not_heard_stays_where_it_was(tmp_path: Path) -> None:
    source, clock = configured(), Clock()
    async with collecting(tmp_path, clock, source) as running:
        feed = running.collector.open(source)
        await running.settle()
        heard = running.outbox.source_state("pump-7").position
        feed.listening = False
        for _ in range(20):
            await running.settle()
        silent = running.outbox.source_state("pump-7").position
        feed.lost("connection.down", NOW_NS, clock.wall_ns)
        await running.settle()
        back = running.outbox.source_state("pump-7").position
    assert heard is not None
    assert heard == silent
    assert back is not None
    assert back.time_ns > heard.time_ns


@pytest.mark.anyio
async def test_clock_that_is_set_is_told_and_its_window_uncertain(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, clock = configured(), Clock()
    async with collecting(tmp_path, clock, source) as running:
        feed = running.collector.open(source)
        await feed.take([readings([NOW_NS], [1.0])])
        await running.settle()
        clock.wall_ns -= 3600 * S
        await feed.take([readings([clock.wall_ns], [2.0])])
        await running.settle()
        await feed.take([readings([clock.wall_ns], [3.0])])
        await running.settle()
        qualities = [frame.qualities[0].tolist() for frame in running.frames()]
        assert [frame.sequence for frame in running.frames()] == [1, 2, 3]
        assert running.collector.clock_steps_s == [pytest.approx(-3600)]
        (status,) = running.outbox.status().sources
    assert qualities == [[Quality.GOOD], [Quality.UNCERTAIN], [Quality.GOOD]]
    assert status.fault_counts == {"clock.stepped": 1}
    assert "set back by 3600.0 s" in caplog.text


@pytest.mark.anyio
async def test_full_disk_holds_windows_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = configured()
    async with collecting(tmp_path, Clock(), source) as running:
        feed = running.collector.open(source)
        put, full = running.outbox.put_windows, [True, True]

        def put_or_refuse(windows: Sequence[KeptWindow]) -> None:
            if full and full.pop():
                raise Unavailable("outbox.disk_full", "the disk of the state folder is full")
            put(windows)

        monkeypatch.setattr(running.outbox, "put_windows", put_or_refuse)
        await feed.take([readings([NOW_NS], [1.0])])
        running.clock.advance(1.0)
        running.collector._woken.set()
        await until(lambda: len(full) < 2)
        while not running.frames():
            running.moved.set()  # frames have left the outbox
            await asyncio.sleep(0.005)
        assert running.frames()[0].values[0].tolist() == [1.0]


@pytest.mark.anyio
async def test_closed_source_keeps_what_its_open_window_held(tmp_path: Path) -> None:
    source = configured()
    async with collecting(tmp_path, Clock(), source) as running:
        feed = running.collector.open(source)
        await feed.take([readings([NOW_NS], [1.0])])
        await running.collector.close("pump-7")
        assert len(running.frames()) == 1


# --- connections --------------------------------------------------------------------------


@dataclass
class Flapping:
    """A connection that comes and goes."""

    name: str = "plc-1"
    outcomes: list[Callable[[], Exception | None]] = field(default_factory=list)
    runs: int = 0

    async def run(self, sources: Sequence[tuple[LiveSource, Feed]]) -> None:
        outcome = self.outcomes[min(self.runs, len(self.outcomes) - 1)]()
        self.runs += 1
        if outcome is not None:
            raise outcome
        await sources[0][1].take([readings([NOW_NS], [1.0])])
        await asyncio.sleep(0.01)
        raise ConnectionLost("connection.lost", "it went away")


@pytest.mark.anyio
async def test_failure_of_a_connection_is_told_once_and_so_is_its_recovery(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "heddle")

    def gone() -> Exception:
        return ConnectionLost("connection.unreachable", "nobody there")

    flapping = Flapping(outcomes=[gone, gone, lambda: RuntimeError("a bug"), lambda: None, gone])
    feed = feed_of()
    running = RunningConnection(
        flapping,  # type: ignore[arg-type]
        [(Line(), feed)],
        0.001,
        0.01,
        random.Random(1),
    )
    task = asyncio.create_task(running.run())
    await until(lambda: flapping.runs >= 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    told = [record.message.split(":")[0] for record in caplog.records if record.levelno < 40]
    assert told == [
        "connection plc-1 is down",
        told[1],
        "connection plc-1 is down",
    ]
    assert told[1].startswith("connection plc-1 is back after")
    assert running.state.failure.startswith("connection.unreachable")
    assert not feed.listening
