"""What a control tells of itself, from its message at a broker over TLS to GraphQL, exactly."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from edge_agent.mqtt.client import Broker, Certificates, MqttClient, Publication
from tests.brokers import mosquitto_broker
from tests.edge_agent.certificates import Authority
from tests.end_to_end.processes import PATIENCE_S, Server
from tests.end_to_end.test_edge_setpoint import LiveAgent

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

LATHE = """
query Lathe($from: DateTime!, $to: DateTime!) {
  asset(assetId: "lathe-1") {
    twin { readings(channels: ["program", "alarm_code", "running"]) { channel value text } }
    readings(from: $from, to: $to, channels: ["program", "alarm_code", "running"]) {
      channel count values texts
    }
  }
}
"""
MESSAGES = (
    '"on": true, "alarm": 0, "program": "O1234 Gehäuse"',
    '"on": true, "alarm": 2147483647, "program": "O1234 Gehäuse"',
    '"on": false, "alarm": 17, "program": "O99"',
)


def configuration(url: str, tls: dict[str, str]) -> dict[str, Any]:
    return {
        "agent": "edge-1",
        "connections": {"cell": {"kind": "mqtt", "url": url, "tls": tls}},
        "sources": [
            {
                "kind": "mqtt",
                "connection": "cell",
                "asset": "lathe-1",
                "asset_type": "production-machine",
                "topic": "lathe-1/control",
                "time": {"field": "t", "format": "unix_ms"},
                "window": {"seconds": 0.2, "readings": 1000},
                "channels": {
                    "running": {"field": "on"},
                    "alarm_code": {"field": "alarm"},
                    "program": {"field": "program"},
                },
            }
        ],
    }


async def test_a_control_s_words_reach_the_twin_as_it_said_them(
    folder: Path, tmp_path: Path
) -> None:
    with Server(folder) as server:
        server.start()
        await check_a_lathe(server, tmp_path)


async def check_a_lathe(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "cell"
    folder.mkdir()
    authority = Authority(folder)
    certificate, key = authority.issue("broker")
    own, own_key = authority.issue("edge-1")
    settings = (
        f"cafile {authority.file}",
        f"certfile {certificate}",
        f"keyfile {key}",
        "require_certificate true",
        "use_identity_as_username true",
        "allow_anonymous true",
    )
    server.register("lathe-1", "production-machine")
    with mosquitto_broker(folder, *settings) as broker:
        tls = {"authority": str(authority.file), "certificate": str(own), "key": str(own_key)}
        document = configuration(f"mqtts://127.0.0.1:{broker.port}", tls)
        with LiveAgent(tmp_path / "edge", server, document) as agent:
            agent.start()
            machine = MqttClient(
                Broker(
                    host="127.0.0.1",
                    port=broker.port,
                    client_id="lathe-1",
                    certificates=Certificates(
                        authority=authority.file, certificate=own, key=own_key
                    ),
                ),
                lambda _message: None,
            )
            until = time.monotonic() + PATIENCE_S
            while not broker.said("Sending SUBACK to edge-1-cell"):
                assert agent.is_running, agent.log
                assert time.monotonic() < until, agent.log
                await asyncio.sleep(0.05)
            await machine.connect()
            now_ms = time.time_ns() // 1_000_000
            for number, told in enumerate(MESSAGES):
                message = f'{{"t": {now_ms + number}, {told}}}'
                await machine.publish(Publication("lathe-1/control", message.encode(), qos=1))
            await machine.close()
            asset: dict[str, Any] = {}
            while not asset or asset["readings"][0]["count"] < len(MESSAGES):
                assert agent.is_running, agent.log
                assert time.monotonic() < until, agent.log
                await asyncio.sleep(0.1)
                server.wait_until_folded()
                asset = server.query(
                    LATHE, **{"from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}
                )["asset"]
    read = {column["channel"]: column for column in asset["readings"]}
    assert read["program"]["texts"] == ["O1234 Gehäuse", "O1234 Gehäuse", "O99"]
    assert read["alarm_code"]["values"] == [0, 2**31 - 1, 17]
    assert read["running"]["values"] == [1, 1, 0]
    twin = {reading["channel"]: reading for reading in asset["twin"]["readings"]}
    assert (twin["program"]["text"], twin["program"]["value"]) == ("O99", None)
    assert (twin["alarm_code"]["value"], twin["running"]["value"]) == (17, 0)
