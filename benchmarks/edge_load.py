"""One agent in a process of its own under load; prints what it took as one JSON object.

``drain``: frames that wait are sent. ``live``: readings and waveforms come in, go through windows,
features and a model, and are sent; as deep as everything but the protocols' own parsing.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import resource
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from domain.asset_types import asset_type
from domain.frame_checks import header_for
from domain.frame_encoding import encode_many
from domain.frames import build_frame
from domain.units import unit
from edge_agent.configuration import AgentConfiguration, ConfiguredLiveSource, read_configuration
from edge_agent.live import DeliveredChannel, Readings
from edge_agent.live.collector import LiveCollector
from edge_agent.live.feed import SourceFeed
from edge_agent.live.window import Window
from edge_agent.outbox import KeptWindow, NewFrame, Outbox, Priority, open_outbox
from edge_agent.outbox.records import AgentCommand
from edge_agent.readings import Position
from edge_agent.settings import Settings
from edge_agent.uplink.http import open_http_transport
from edge_agent.uplink.link import Link

PUMP: Final = asset_type("skab-pump-loop")
BENCH: Final = asset_type("hydraulic-test-rig")
RIG_RATE_HZ: Final = 12_000.0
CHANNELS: Final = {
    "accelerometer_1": ("g_n", 0.03),
    "accelerometer_2": ("g_n", 0.04),
    "motor_current": ("A", 2.2),
    "pressure": ("bar", 0.4),
    "housing_temperature": ("degC", 70.0),
    "fluid_temperature": ("degC", 25.0),
    "supply_voltage": ("V", 230.0),
    "flow": ("l/min", 32.0),
}
ROWS_A_FRAME: Final = 125
WARM_UP_S: Final = 5.0
MODEL: Final = Path(__file__).resolve().parents[1] / "docs/models/skab-pump-anomaly"


# --- draining -----------------------------------------------------------------------------


def drain(folder: Path, url: str, frame_count: int) -> dict[str, float]:
    """Send `frame_count` frames of 1,000 readings that wait."""
    settings = Settings(server_url=url, state_dir=folder)
    with open_outbox(folder, 2**40) as outbox:
        outbox.adopt("bench", {}, live={"pump-1": "pump-1"})
        _fill(outbox, frame_count)
        return asyncio.run(_drained(outbox, settings, frame_count))


def _fill(outbox: Outbox, frame_count: int) -> None:
    header = header_for(PUMP, "pump-1", "bench", [(n, u) for n, (u, _) in CHANNELS.items()])
    random = np.random.default_rng(1)
    values = [
        np.round(random.normal(level, level / 100, (ROWS_A_FRAME,)), 4)
        for _, level in CHANNELS.values()
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
    readings = frame_count * ROWS_A_FRAME * len(CHANNELS)
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


def live(
    folder: Path, url: str, benches: int, pumps: int, rigs: int, seconds: float
) -> dict[str, float]:
    """Take readings for `seconds`.

    Parameters
    ----------
    benches, pumps : assets of 17 and of 8 channels at 10 Hz; a model looks at the pumps
    rigs : assets of 2 waveforms at 12 kHz, with features
    """
    file = folder / "agent.yaml"
    file.write_text(yaml.safe_dump(_configuration(benches, pumps, rigs)))
    configuration = read_configuration(file, folder)
    settings = Settings(server_url=url, state_dir=folder / "state")
    with open_outbox(settings.state_dir, 2**40) as outbox:
        outbox.adopt("bench", {}, live=configuration.asset_by_live_source)
        return asyncio.run(_lived(configuration, outbox, settings, seconds))


def _configuration(benches: int, pumps: int, rigs: int) -> dict[str, Any]:
    def source(asset: str, kind: str, channels: dict[str, str], **more: Any) -> dict[str, Any]:
        return {
            "kind": "opcua",
            "connection": "plc",
            "asset": asset,
            "asset_type": kind,
            "window": {"seconds": 0.1, "readings": 100_000},
            "channels": {
                name: {
                    "node": f"ns=2;s={asset}.{name}",
                    "unit": unit,
                    **({"rate_hz": RIG_RATE_HZ} if name.startswith("vibration_") else {}),
                }
                for name, unit in channels.items()
            },
            **more,
        }

    pump_channels = {name: unit for name, (unit, _) in CHANNELS.items()}
    vibration = {"vibration_drive_end": "g_n", "vibration_fan_end": "g_n"}
    features = {
        name: {
            "seconds": 1,
            "names": ["rms", "kurtosis", "crest_factor", "velocity_rms", "bpfo", "bpfi"],
            "envelope_band": {"low_hz": 1_000, "high_hz": 5_000},
        }
        for name in vibration
    }
    rig_channels = {**vibration, "shaft_speed": "rpm"}
    return {
        "agent": "bench",
        "connections": {"plc": {"kind": "opcua", "url": "opc.tcp://127.0.0.1:1/none"}},
        "sources": [
            source(f"bench-{n}", BENCH.name, {c.name: c.input_unit for c in BENCH.channels})
            for n in range(benches)
        ]
        + [source(f"pump-{n}", "skab-pump-loop", pump_channels) for n in range(pumps)]
        + [
            source(f"rig-{n}", "bearing-test-rig", rig_channels, features=features)
            for n in range(rigs)
        ],
        "models": [
            {
                "model": "skab-pump-anomaly",
                "file": str(MODEL / "model.onnx"),
                "sha256": sha256((MODEL / "model.onnx").read_bytes()).hexdigest(),
                "every_seconds": 1,
            }
        ],
    }


async def _lived(
    configuration: AgentConfiguration, outbox: Outbox, settings: Settings, seconds: float
) -> dict[str, float]:
    waiting, moved, numbering = asyncio.Event(), asyncio.Event(), asyncio.Lock()
    clocked = [_Clocked(observer) for observer in configuration.observers]
    collector = LiveCollector("bench", outbox, tuple(clocked), numbering, waiting, moved)
    latencies = _Latencies(outbox)
    async with open_http_transport(settings) as transport:
        link = Link("bench", outbox, transport, settings, waiting, moved)
        feeds = [(source, collector.open(source)) for source in configuration.live]
        tasks = [
            asyncio.create_task(collector.run()),
            asyncio.create_task(link.frames.run()),
            asyncio.create_task(link.commands.run()),
            *(asyncio.create_task(_feed(n, *pair)) for n, pair in enumerate(feeds)),
        ]
        await asyncio.sleep(WARM_UP_S)
        latencies.clear()
        for one in clocked:
            one.took_s.clear()
        began_s, cpu_s, before = time.perf_counter(), time.process_time(), collector.reading_count
        await asyncio.sleep(seconds)
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        readings = collector.reading_count - before
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
    random = np.random.default_rng(number)
    period_s, due_s = 0.1, time.monotonic() + 0.1 * random.random()
    waveform = random.normal(0, 0.1, round(RIG_RATE_HZ * period_s))
    good = np.zeros(len(waveform), np.uint8)
    levels = [_level(configured, channel) for channel in configured.source.channels]
    at = 0
    while True:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        due_s += period_s
        now_ns, readings = time.time_ns(), []
        start_ns = at or now_ns
        for index, channel in enumerate(configured.source.channels):
            if channel.rate_hz is None:
                level = levels[index]
                value = np.array([level * (1 + 0.01 * random.standard_normal())])
                readings.append(Readings(index, np.array([now_ns]), value, good[:1]))
            else:
                times = start_ns + (np.arange(len(waveform)) / RIG_RATE_HZ * 1e9).astype(np.int64)
                readings.append(Readings(index, times, waveform, good))
        at = start_ns + round(period_s * 1e9)
        await feed.take(readings)


def _level(configured: ConfiguredLiveSource, channel: DeliveredChannel) -> float:
    """Return a value of a channel, in the unit it is delivered in, well within its range."""
    if configured.asset_type is PUMP and channel.name in CHANNELS:
        return CHANNELS[channel.name][1]
    described = configured.asset_type.channel(channel.name)
    middle = (described.physical_min + described.physical_max) / 2
    return unit(channel.unit).from_si(middle)


def main() -> None:
    """Run what the arguments name."""
    what, url, *numbers = sys.argv[1:]
    os.nice(0)
    with tempfile.TemporaryDirectory(prefix="heddle-bench-edge-") as name:
        folder = Path(name)
        if what == "drain":
            found = drain(folder, url, int(numbers[0]))
        else:
            *counts, seconds = numbers
            benches, pumps, rigs = (int(count) for count in counts)
            found = live(folder, url, benches, pumps, rigs, float(seconds))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
