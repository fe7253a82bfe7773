"""The plant over MQTT, at a broker that is there already: as a Sparkplug edge node and as JSON.

Sparkplug: one edge node, a device for each pump, a metric for each channel and the writable
metric ``setpoint/flow``. JSON: a message for each sample on ``<root>/<pump>/telemetry``, with its
time in milliseconds, values by channel (``null`` where a sensor delivers nothing) and the
qualities of those that are not good.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from domain.errors import Unavailable
from domain.frames import Quality
from edge_agent.live import ConnectionLost
from edge_agent.mqtt.client import Broker, MqttClient, Publication
from edge_agent.simulated_plant.machine import CHANNELS, Sample, SimulatedPump
from edge_agent.sparkplug.edge_node import EdgeNode, NodeMetric
from edge_agent.sparkplug.payload import DataType, Value
from edge_agent.waiting import end_all

GROUP: Final = "simulated-plant"
NODE: Final = "edge-1"
SETPOINT: Final = "setpoint/flow"
JSON_ROOT: Final = "simulated-plant"
RECONNECT_PAUSE_S: Final = 1.0

_log = logging.getLogger("heddle.plant")


class SparkplugPlant:
    """Tells the plant as a Sparkplug edge node.

    Parameters
    ----------
    broker : its client id is that of the node
    primary_host : the host application without which it keeps silent
    """

    def __init__(self, broker: Broker, primary_host: str | None = None) -> None:
        self._broker = broker
        self._primary_host = primary_host
        self._node: EdgeNode | None = None
        self._session: asyncio.Task[None] | None = None
        self._sessions = 0

    @property
    def address(self) -> str:
        """Where it is found."""
        return f"Sparkplug B, {self._broker.url}, group {GROUP}, node {NODE}"

    async def open(self, pumps: Sequence[SimulatedPump]) -> None:
        """Begin to serve `pumps`, whether the broker is there yet or not."""
        by_name = {pump.name: pump for pump in pumps}
        metrics = [
            *(NodeMetric(channel, DataType.DOUBLE) for channel in CHANNELS),
            NodeMetric(SETPOINT, DataType.DOUBLE, writable=True),
        ]

        async def obey(device: str | None, name: str, value: Value) -> None:
            pump = by_name.get(device or "")
            if pump is not None and name == SETPOINT and isinstance(value, (int, float)):
                # What the drive follows is told, whether it is what was wanted or not.
                followed = pump.want_flow(float(value))
                await _quietly(node.update(pump.name, {SETPOINT: followed}))

        devices = {pump.name: metrics for pump in pumps}
        node = EdgeNode(
            [self._broker],
            GROUP,
            NODE,
            devices,
            obey,
            primary_host=self._primary_host,
            bd_seq=self._sessions,
        )
        self._node = node
        self._sessions += 1
        self._session = asyncio.create_task(_again_and_again(node.run, self.address))

    async def tell(self, pump: SimulatedPump, sample: Sample) -> None:
        """Tell what has changed."""
        node = self._node
        if node is None:
            return
        time_ms = sample.time_ns // 1_000_000
        for quality, values in _by_quality(sample).items():
            await _quietly(node.update(pump.name, values, time_ms=time_ms, quality=quality))
        setpoint: dict[str, Value] = {SETPOINT: sample.flow_setpoint_l_per_min}
        await _quietly(node.update(pump.name, setpoint, time_ms=time_ms))

    async def close(self) -> None:
        """Die, in Sparkplug's sense."""
        self._node = None
        await _ended(self._session)


class JsonPlant:
    """Tells the plant as JSON."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._client: MqttClient | None = None
        self._session: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where it is found."""
        return f"JSON at {self._broker.url}, {JSON_ROOT}/<pump>/telemetry"

    async def open(self, pumps: Sequence[SimulatedPump]) -> None:  # noqa: ARG002
        """Begin to serve, whether the broker is there yet or not."""
        self._session = asyncio.create_task(_again_and_again(self._hold, self.address))

    async def tell(self, pump: SimulatedPump, sample: Sample) -> None:
        """Tell a sample."""
        if self._client is None:
            return
        document = {
            "ts": sample.time_ns // 1_000_000,
            "values": {
                name: value if math.isfinite(value) else None
                for name, value in sample.values.items()
            },
            "quality": {name: quality.name for name, quality in sample.qualities.items()},
        }
        topic = f"{JSON_ROOT}/{pump.name}/telemetry"
        told = Publication(topic, json.dumps(document).encode(), qos=1)
        await _quietly(self._client.publish(told))

    async def close(self) -> None:
        """Leave the broker."""
        await _ended(self._session)

    async def _hold(self) -> None:
        client = MqttClient(
            replace(self._broker, client_id=f"{self._broker.client_id}-json"), lambda _message: None
        )
        try:
            await client.connect()
            self._client = client
            await client.lost()
        finally:
            self._client = None
            await client.close()


async def _again_and_again(session: Callable[[], Awaitable[None]], told: str) -> None:
    """Hold one session after the other, and tell of the first failure in a row."""
    failed = False
    while True:
        try:
            await session()
        except ConnectionLost as lost:
            if not failed:
                _log.warning("%s: %s", told, lost)
            failed = lost.code in ("connection.unreachable", "connection.refused")
        await asyncio.sleep(RECONNECT_PAUSE_S)


async def _quietly(telling: Awaitable[None]) -> None:
    """Tell; where the session has gone meanwhile, the next one begins with what is current."""
    with suppress(Unavailable):
        await telling


async def _ended(session: asyncio.Task[None] | None) -> None:
    if session is not None:
        await end_all((session,))


def _by_quality(sample: Sample) -> Mapping[Quality, dict[str, Value]]:
    """Return the values by their quality; None where a sensor delivers nothing."""
    found: dict[Quality, dict[str, Value]] = {}
    for name, value in sample.values.items():
        quality = sample.qualities.get(name, Quality.GOOD)
        found.setdefault(quality, {})[name] = value if math.isfinite(value) else None
    return found
