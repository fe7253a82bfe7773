"""From a source to the outbox, with the process ending at any moment."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.frames import Frame, Quality
from edge_agent.collector import Collector
from edge_agent.configuration import AgentConfiguration
from edge_agent.live.window import Window
from edge_agent.outbox import AgentCommand, Outbox, open_outbox
from tests.edge_agent.configurations import (
    adopt,
    configuration,
    csv_source,
    frames,
    second,
    skab_source,
    write_rows,
)
from tests.recordings import read_skab, skab_recording

BYTES_MAX = 10**9
S = 1_000_000_000


class ProcessEnds(BaseException):
    """What a kill looks like from inside: nothing that follows happens."""


class FramesWaiting(asyncio.Event):
    """Ends the process after a number of frames, right after a commit."""

    def __init__(self, frames_left: int) -> None:
        super().__init__()
        self._frames_left = frames_left

    def set(self) -> None:
        super().set()
        self._frames_left -= 1
        if self._frames_left == 0:
            raise ProcessEnds


def collect(
    configured: AgentConfiguration,
    state_dir: Path,
    *,
    ends_after: int = 0,
    now_ns: Callable[[], int] = lambda: 0,
) -> list[Frame]:
    """Run a process over the only source until its end or the end of the process."""

    async def run(outbox: Outbox) -> None:
        source = configured.sources[0]
        waiting = FramesWaiting(ends_after)
        await Collector(source, outbox, waiting, asyncio.Event(), now_ns).collect()

    with open_outbox(state_dir, BYTES_MAX) as outbox:
        adopt(outbox, configured)
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(run(outbox))
        except ProcessEnds:
            pass
        finally:
            loop.close()
        return frames(outbox)


def times(read: list[Frame]) -> list[list[int]]:
    return [frame.clocks[0].tolist() for frame in read]


def test_real_recording_is_in_the_outbox_exactly_once(tmp_path: Path) -> None:
    names = ["valve1/0", "valve1/1"]
    configured = configuration(tmp_path, skab_source([skab_recording(name) for name in names]))
    read = collect(configured, tmp_path / "state")
    expected = [read_skab(name) for name in names]
    assert [frame.sequence for frame in read] == list(range(1, len(read) + 1))
    assert [t for window in times(read) for t in window] == [
        t for recording in expected for t in recording.times_ns.tolist()
    ]
    for index, channel in enumerate(read[0].header.channels):
        values = np.concatenate([frame.values[index] for frame in read])
        written = np.concatenate([recording.values[channel.name] for recording in expected])
        assert values.tobytes() == written.tobytes()


@given(
    st.lists(st.integers(0, 90), min_size=1, max_size=60),
    st.lists(st.integers(1, 5), max_size=4),
    st.integers(0, 60),
)
def test_restarted_process_cuts_the_same_frames(
    row_seconds: list[int], kill_points: list[int], broken_at: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [f"{second(at)},{number},1" for number, at in enumerate(row_seconds)]
        lines.insert(broken_at, "broken row")
        write_rows(folder, lines[: len(lines) // 2], "a.csv")
        write_rows(folder, lines[len(lines) // 2 :], "b.csv")
        declared = csv_source(path=["a.csv", "b.csv"], window={"seconds": 30, "readings": 14})
        configured = configuration(folder, declared)
        whole = collect(configured, folder / "whole")
        for frames_more in kill_points:
            collect(configured, folder / "killed", ends_after=frames_more)
        resumed = collect(configured, folder / "killed")
        assert [frame.canonical_sha256 for frame in resumed] == [
            frame.canonical_sha256 for frame in whole
        ]
        assert [v for f in resumed for v in f.values[0].tolist()] == list(range(len(row_seconds)))
        with open_outbox(folder / "killed", BYTES_MAX) as outbox:
            assert outbox.status().refused_row_count == 1


def test_kill_between_any_two_frames_of_a_real_recording_changes_no_frame(tmp_path: Path) -> None:
    source = skab_source([skab_recording("valve2/3")])
    configured = configuration(tmp_path, source)
    whole = [frame.canonical_sha256 for frame in collect(configured, tmp_path / "whole")]
    for frames_before in range(1, len(whole)):
        state = tmp_path / f"killed-{frames_before}"
        assert len(collect(configured, state, ends_after=frames_before)) == frames_before
        assert [frame.canonical_sha256 for frame in collect(configured, state)] == whole


def test_repeated_and_backward_times_are_all_kept(tmp_path: Path) -> None:
    write_rows(tmp_path, [f"{second(at)},{n},1" for n, at in enumerate([0, 1, 1, 2, 1, 2, 3])])
    read = collect(configuration(tmp_path, csv_source()), tmp_path / "state")
    assert [frame.values[0].tolist() for frame in read] == [[0, 1], [2, 3], [4, 5, 6]]


def test_bad_cells_are_missing_and_impossible_values_bad(tmp_path: Path) -> None:
    write_rows(tmp_path, [f"{second(0)},nan,1", f"{second(1)},5,1", f"{second(2)},99999,1"])
    read = collect(configuration(tmp_path, csv_source()), tmp_path / "state")
    assert read[0].qualities[0].tolist() == [Quality.MISSING, Quality.GOOD, Quality.BAD]
    assert read[0].qualities[1].tolist() == [Quality.GOOD] * 3
    assert read[0].values[0][1:].tolist() == [5.0, 99999.0]
    with open_outbox(tmp_path / "state", BYTES_MAX) as outbox:
        assert outbox.status().sources[0].fault_counts == {"flow: cell.not_finite": 1}


def test_ended_source_adds_nothing_when_it_is_read_again(tmp_path: Path) -> None:
    write_rows(tmp_path, [f"{second(at)},1,1" for at in range(13)])
    configured = configuration(tmp_path, csv_source())
    first = collect(configured, tmp_path / "state")
    assert len(collect(configured, tmp_path / "state")) == len(first) == 2
    with open_outbox(tmp_path / "state", BYTES_MAX) as outbox:
        assert outbox.source_state("pump-1").ended


def test_recording_replayed_now_starts_now_and_catches_up_after_a_stop(tmp_path: Path) -> None:
    write_rows(tmp_path, [f"{second(at)},{at},1" for at in range(10)])
    window = {"seconds": 60, "readings": 4}
    configured = configuration(tmp_path, csv_source(window=window, replay={"times": "now"}))
    anchor_ns = 2_000_000_000 * S
    clock_ns = itertools.count(anchor_ns, S // 1000)
    later_ns = anchor_ns + 5_000 * S
    window_times = [[anchor_ns + at * S, anchor_ns + (at + 1) * S] for at in range(0, 10, 2)]
    assert times(collect_due(configured, tmp_path / "state", clock_ns)) == []
    clock_ns = itertools.count(anchor_ns + 5 * S, S // 1000)
    assert times(collect_due(configured, tmp_path / "state", clock_ns)) == window_times[:3]
    assert times(collect(configured, tmp_path / "state", now_ns=lambda: later_ns)) == window_times


def collect_due(
    configured: AgentConfiguration, state_dir: Path, clock_ns: Iterator[int]
) -> list[Frame]:
    """Run a process until its source waits for a row to become due."""

    async def run(outbox: Outbox) -> None:
        source, event = configured.sources[0], asyncio.Event()
        collector = Collector(source, outbox, event, event, lambda: next(clock_ns))
        collecting = asyncio.create_task(collector.collect())
        await asyncio.sleep(0.05)
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)

    with open_outbox(state_dir, BYTES_MAX) as outbox:
        adopt(outbox, configured)
        asyncio.run(run(outbox))
        return frames(outbox)


def test_collector_waits_for_the_outbox_and_loses_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path, [f"{second(at)},{at},1" for at in range(40)])
    configured = configuration(tmp_path, csv_source(window={"seconds": 60, "readings": 4}))

    async def run(outbox: Outbox) -> list[int]:
        moved = asyncio.Event()
        collector = Collector(configured.sources[0], outbox, asyncio.Event(), moved)
        collecting = asyncio.create_task(collector.collect())
        seen: list[int] = []
        most_frames = 0
        while not collecting.done() or outbox.pending_count():
            await asyncio.sleep(0)
            most_frames = max(most_frames, outbox.pending_count())
            for pending in outbox.pending(1, 10**6):
                seen.append(pending.sequence)
                outbox.acknowledge([pending.sequence], 0)
                moved.set()
        await collecting
        assert most_frames < 20
        return seen

    with open_outbox(tmp_path / "state", 1_000) as outbox:
        adopt(outbox, configured)
        assert asyncio.run(run(outbox)) == list(range(1, 21))


def test_source_that_cannot_be_read_is_raised_when_told_to_give_up(tmp_path: Path) -> None:
    write_rows(tmp_path, [f"{second(0)},1,1"])
    configured = configuration(tmp_path, csv_source())
    (tmp_path / "pump.csv").unlink()

    async def run(outbox: Outbox) -> None:
        collector = Collector(configured.sources[0], outbox, asyncio.Event(), asyncio.Event())
        await collector.run(give_up=True)

    with open_outbox(tmp_path / "state", BYTES_MAX) as outbox:
        adopt(outbox, configured)
        with pytest.raises(FileNotFoundError):
            asyncio.run(run(outbox))


class Doubled:
    """A stage: every value twice as large, the delivered ones beside it as ``flow.raw``."""

    def apply(self, window: Window) -> Window:
        (flow,) = window.channels
        raw = replace(flow, channel=replace(flow.channel, name="flow.raw"))
        return replace(window, channels=(replace(flow, values=flow.values * 2), raw))

    def take_counts(self) -> dict[tuple[str, str], int]:
        return {("flow", "doubled"): 1}


def test_recording_goes_through_its_stages_and_models_and_resumes_where_it_was(
    tmp_path: Path,
) -> None:
    write_rows(tmp_path, [f"{second(at)},{at},1" for at in range(100)])
    channels = {"flow": {"column": "flow", "unit": "l/min"}}
    window = {"seconds": 60, "readings": 10}
    made = configuration(tmp_path, csv_source(channels=channels, window=window))
    source = replace(made.sources[0], stages=(Doubled(),))

    async def asked(seen: Window) -> list[AgentCommand]:
        at = int(seen.channels[1].values[0])
        return [AgentCommand("assessHealth", {"at": at}, f"at {at}")]

    async def run(outbox: Outbox, ends_after: int) -> None:
        waiting = FramesWaiting(ends_after)
        await Collector(source, outbox, waiting, asyncio.Event(), lambda: 0, ask=asked).collect()

    with open_outbox(tmp_path / "state", BYTES_MAX) as outbox:
        adopt(outbox, made)
        for ends_after in (1, 3, 0):
            loop = asyncio.new_event_loop()
            try:
                loop.run_until_complete(run(outbox, ends_after))
            except ProcessEnds:
                pass
            finally:
                loop.close()
        kept = frames(outbox)
        assert outbox.status().pending_commands == len(kept) == 10
        assert outbox.status().sources[0].fault_counts == {"flow: doubled": 10}
    assert [channel.name for channel in kept[0].header.channels] == ["flow", "flow.raw"]
    delivered = [value for frame in kept for value in frame.values[1].tolist()]
    assert delivered == list(range(100))
    assert [value for frame in kept for value in frame.values[0].tolist()] == [
        2 * value for value in delivered
    ]
