"""The agent as a process at a broker: whoever kills it loses no message that was published."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from domain.frame_decoding import decode
from domain.time_quality import DEVICE
from edge_agent.mqtt.client import Broker, MqttClient, Publication
from tests.brokers import MosquittoBroker, mosquitto_broker
from tests.edge_agent.feeds import until
from tests.edge_agent.frame_server import FrameServer, serving

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MESSAGES = 300
KILLS = 4
START_MS = 1_714_564_800_000


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[MosquittoBroker]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto_broker(folder) as running:
        yield running


def write(folder: Path, broker: MosquittoBroker) -> Path:
    file = folder / "agent.yaml"
    document = {
        "agent": "test-agent",
        "connections": {"broker": {"kind": "mqtt", "url": broker.url}},
        "sources": [
            {
                "kind": "mqtt",
                "connection": "broker",
                "asset": "pump-1",
                "asset_type": "skab-pump-loop",
                "topic": "plant/pump-1",
                "time": {"field": "ts", "format": "unix_ms"},
                "channels": {"pressure": {"field": "p", "unit": "bar"}},
                "window": {"seconds": 0.2, "readings": 1000},
            }
        ],
    }
    file.write_text(yaml.safe_dump(document))
    return file


def start(folder: Path, config: Path, server: FrameServer) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "edge_agent", "run", "--config", str(config)),
            *("--state-dir", str(folder / "state"), "--data", str(folder)),
            *("--server", server.url),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def test_an_agent_that_is_killed_loses_no_acknowledged_message(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    config = write(tmp_path, broker)
    with serving(FrameServer()) as server:
        agent = start(tmp_path, config, server)
        try:
            await until(lambda: broker.said("Sending SUBACK to test-agent"))
            client = MqttClient(
                Broker(host="127.0.0.1", port=broker.port, client_id="machine"),
                lambda _message: None,
            )
            await client.connect()
            for number in range(MESSAGES):
                told = json.dumps({"ts": START_MS + number, "p": number / 1000}).encode()
                await client.publish(Publication("plant/pump-1", told, qos=1))
                await asyncio.sleep(0.005)
                if number % (MESSAGES // KILLS) == MESSAGES // KILLS // 2:
                    agent.kill()
                    agent.wait()
                    agent = start(tmp_path, config, server)
            await client.close()
            await until(lambda: len(readings(server)) >= MESSAGES, "messages are missing")
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(20)
    found = readings(server)
    assert found.keys() == {(START_MS + n) * 1_000_000 for n in range(MESSAGES)}
    # One that the broker delivered again is the same reading.
    for number in range(MESSAGES):
        assert found[(START_MS + number) * 1_000_000] == {number / 1000}
    said = {frame.header.time for frame in map(decode, server.frame_bytes.values())}
    assert {time.source for time in said if time is not None} == {DEVICE}
    assert all(time is not None and time.offset_ns for time in said)


def readings(server: FrameServer) -> dict[int, set[float]]:
    """Return the values that the server has accepted, by their time."""
    found: dict[int, set[float]] = defaultdict(set)
    for encoded in list(server.frame_bytes.values()):
        frame = decode(encoded)
        for at, value in zip(frame.channel_times_ns(0), frame.values[0], strict=True):
            found[int(at)].add(float(value))
    return found
