"""One agent in a process of its own under load; prints what it took as one JSON object.

``drain``: frames that wait are sent. ``live``: readings and waveforms come in, one asset's at a
time, where a connection would have unpacked its message; they go through buffers and scaling,
windows, features and a model, and are sent. Only the protocols' own parsing is left out.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import resource
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from benchmarks.edge_site import PERIOD_S, PUMP, PUMP_CHANNELS, RIG_RATE_HZ, Site, level_of
from domain.frame_checks import header_for
from domain.frame_encoding import encode_many
from domain.frames import build_frame
from edge_agent.configuration import AgentConfiguration, ConfiguredLiveSource, read_configuration
from edge_agent.live.collector import LiveCollector
from edge_agent.live.feed import SourceFeed
from edge_agent.live.window import Window
from edge_agent.memory import settle_memory
from edge_agent.opcua.connection import OpcUaSource
from edge_agent.outbox import KeptWindow, NewFrame, Outbox, Priority, open_outbox
from edge_agent.outbox.records import AgentCommand
from edge_agent.reading_buffer import ReadingBuffer
from edge_agent.readings import Position
from edge_agent.running_sources import RunningSources
from edge_agent.settings import Settings
from edge_agent.uplink.http import open_http_transport
from edge_agent.uplink.link import Link

ROWS_A_FRAME: Final = 125
WARM_UP_S: Final = 5.0
ROUNDS: Final = 100
"""Values of a channel that are drawn beforehand, and then come round again."""


# --- draining -----------------------------------------------------------------------------


def drain(folder: Path, url: str, frame_count: int) -> dict[str, float]:
    """Send `frame_count` frames of 1,000 readings that wait."""
    settings = Settings(server_url=url, state_dir=folder)
    with open_outbox(folder, 2**40) as outbox:
        outbox.adopt("bench", {}, live={"pump-1": "pump-1"})
        _fill(outbox, frame_count)
        return asyncio.run(_drained(outbox, settings, frame_count))


def _fill(outbox: Outbox, frame_count: int) -> None:
    header = header_for(PUMP, "pump-1", "bench", [(n, u) for n, (u, _) in PUMP_CHANNELS.items()])
    random = np.random.default_rng(1)
    values = [
        np.round(random.normal(level, level / 100, (ROWS_A_FRAME,)), 4)
        for _, level in PUMP_CHANNELS.values()
    ]
    for start in range(0, frame_count, 200):
        numbers = range(start + 1, min(start + 200, frame_count) + 1)
        frames = [
            build_frame(
                header,
                number,
                [np.arange(ROWS_A_FRAME, dtype=np.int64) * 10**9 + number * 10**12],
                [np.roll(column, number) for column in values],
                [None] * len(values),
            )
            for number in numbers
        ]
        kept = [
            NewFrame(number, uuid.UUID(int=number), data, Priority.LIVE, 0, 0, frame.reading_count)
            for number, frame, data in zip(numbers, frames, encode_many(frames), strict=True)
        ]
        outbox.put_windows([KeptWindow("pump-1", kept, Position(0, start, start))])


async def _drained(outbox: Outbox, settings: Settings, frame_count: int) -> dict[str, float]:
    async with open_http_transport(settings) as transport:
        moved = asyncio.Event()
        link = Link("bench", outbox, transport, settings, asyncio.Event(), moved)
        began_s, cpu_s = time.perf_counter(), time.process_time()
        running = asyncio.create_task(link.frames.run())
        while link.frames.counts.accepted < frame_count:
            moved.clear()
            await moved.wait()
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    readings = frame_count * ROWS_A_FRAME * len(PUMP_CHANNELS)
    return {"readings_per_s": readings / wall_s, "readings_per_cpu_s": readings / cpu_s}


# --- live ---------------------------------------------------------------------------------


class _Clocked:
    """An observer that notes how long the real one takes."""

    def __init__(self, observer: Any) -> None:
        self.observer = observer
        self.took_s: list[float] = []

    def observe(self, windows: Sequence[Window]) -> Sequence[Sequence[AgentCommand]]:
        began_s = time.perf_counter()
        answers: Sequence[Sequence[AgentCommand]] = self.observer.observe(windows)
        self.took_s.append(time.perf_counter() - began_s)
        return answers


def live(folder: Path, url: str, site: Site, seconds: float) -> dict[str, float]:
    """Take readings for `seconds`: what the site's broker delivers, or what is made up here."""
    file = folder / "agent.yaml"
    file.write_text(yaml.safe_dump(site.configuration()))
    configuration = read_configuration(file, folder)
    settings = Settings(server_url=url, state_dir=folder / "state")
    with open_outbox(settings.state_dir, 2**40) as outbox:
        outbox.adopt("bench", {}, live=configuration.asset_by_live_source)
        heard = site.broker_port is not None
        return asyncio.run(_lived(configuration, outbox, settings, seconds, heard=heard))


async def _lived(
    configuration: AgentConfiguration,
    outbox: Outbox,
    settings: Settings,
    seconds: float,
    *,
    heard: bool,
) -> dict[str, float]:
    waiting, moved, numbering = asyncio.Event(), asyncio.Event(), asyncio.Lock()
    clocked = [_Clocked(observer) for observer in configuration.observers]
    collector = LiveCollector("bench", outbox, tuple(clocked), numbering, waiting, moved)
    latencies = _Latencies(outbox)
    async with open_http_transport(settings) as transport:
        link = Link("bench", outbox, transport, settings, waiting, moved)
        sources = RunningSources(
            outbox, settings, collector, numbering, waiting, moved, give_up=False
        )
        feeds: list[tuple[ConfiguredLiveSource, SourceFeed]] = []
        if heard:
            await sources.apply(configuration)
            collector.observers = tuple(clocked)
        else:
            feeds = [(source, collector.open(source)) for source in configuration.live]
        tasks = [
            asyncio.create_task(collector.run()),
            asyncio.create_task(link.frames.run()),
            asyncio.create_task(link.commands.run()),
            *(asyncio.create_task(_feed(n, *pair)) for n, pair in enumerate(feeds)),
        ]
        settle_memory()
        await asyncio.sleep(WARM_UP_S)
        latencies.clear()
        for one in clocked:
            one.took_s.clear()
        began_s, cpu_s, before = time.perf_counter(), time.process_time(), collector.reading_count
        await asyncio.sleep(seconds)
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        readings = collector.reading_count - before
        await sources.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        collector.shut_down()
    took_s = [took for one in clocked for took in one.took_s]
    return {
        "readings_per_s": readings / wall_s,
        "cpu_percent": 100 * cpu_s / wall_s,
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "acknowledged_p50_ms": latencies.quantile_ms(0.50),
        "acknowledged_p99_ms": latencies.quantile_ms(0.99),
        "prediction_p99_ms": 1e3 * float(np.quantile(took_s, 0.99)) if took_s else math.nan,
    }


class _Latencies:
    """From the newest reading of a frame until its acknowledgement is on disk."""

    def __init__(self, outbox: Outbox) -> None:
        self._newest_ns: dict[int, int] = {}
        self._found_s: list[float] = []
        put, acknowledge = outbox.put_windows, outbox.acknowledge

        def putting(windows: Sequence[KeptWindow]) -> None:
            for window in windows:
                for frame in window.frames:
                    self._newest_ns[frame.sequence] = frame.to_ns
            put(windows)

        def acknowledging(sequences: Sequence[int], *rest: Any) -> None:
            acknowledge(sequences, *rest)
            now_ns = time.time_ns()
            for sequence in sequences:
                self._found_s.append((now_ns - self._newest_ns.pop(sequence)) / 1e9)

        outbox.put_windows = putting  # type: ignore[method-assign]
        outbox.acknowledge = acknowledging  # type: ignore[method-assign, assignment]

    def clear(self) -> None:
        self._found_s.clear()

    def quantile_ms(self, share: float) -> float:
        return 1e3 * float(np.quantile(self._found_s, share)) if self._found_s else math.nan


async def _feed(number: int, configured: ConfiguredLiveSource, feed: SourceFeed) -> None:
    """Bring what one asset measures, ten times a second, each at its own moment."""
    assert isinstance(configured.source, OpcUaSource)
    random = np.random.default_rng(number)
    buffer = ReadingBuffer(configured.source.mapped)
    waveform = random.normal(0, 0.1, round(RIG_RATE_HZ * PERIOD_S))
    good = np.zeros(len(waveform), np.uint8)
    rows = _drawn(configured, random)
    at, due_s = 0, time.monotonic() + PERIOD_S * random.random()
    for row in itertools.cycle(rows):
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        due_s += PERIOD_S
        now_ns = time.time_ns()
        # A waveform goes on where it ended, however late it is brought; it is brought when its last
        # sample is measured.
        start_ns = at or now_ns - round(PERIOD_S * 1e9)
        at = start_ns + round(PERIOD_S * 1e9)
        for index, channel in enumerate(configured.source.channels):
            if channel.rate_hz is None:
                buffer.add(index, now_ns, row[index], 0)
            else:
                buffer.add_run(index, start_ns, waveform, good)
        await feed.take(buffer.take())


def _drawn(configured: ConfiguredLiveSource, random: np.random.Generator) -> list[list[float]]:
    """Return what the channels tell, round by round: their levels, with 1 % of noise.

    No value is a short decimal, which is the worst that can come: it cannot be packed.
    """
    channels = configured.source.channels
    levels = np.array([level_of(configured.asset_type, c.name, c.unit) for c in channels])
    drawn = levels * (1 + 0.01 * random.standard_normal((ROUNDS, len(levels))))
    rows: list[list[float]] = drawn.tolist()
    return rows


def main() -> None:
    """Run what the arguments name."""
    what, url, *numbers = sys.argv[1:]
    os.nice(0)
    with tempfile.TemporaryDirectory(prefix="heddle-bench-edge-") as name:
        folder = Path(name)
        if what == "drain":
            found = drain(folder, url, int(numbers[0]))
        else:
            *counts, port, seconds = numbers
            benches, pumps, rigs = (int(count) for count in counts)
            site = Site(benches, pumps, rigs, int(port) or None)
            found = live(folder, url, site, float(seconds))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
