"""Somebody who reads all of Sparkplug's messages at a broker, as they were published."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from edge_agent.mqtt.client import Broker, MqttClient, Publication
from edge_agent.sparkplug.payload import DataType, Metric, Payload, decode, encode, metric_of
from edge_agent.sparkplug.topics import MessageType, Topic, parse_topic
from tests.brokers import MosquittoBroker
from tests.edge_agent.feeds import until

GROUP = "Plant"
NODE = "Edge 1"
DEVICE = "Pump"
HOST = "heddle"


@dataclass(frozen=True)
class Seen:
    """A message as the broker handed it on."""

    topic: str
    raw: bytes
    qos: int
    retain: bool

    @property
    def parsed(self) -> Topic:
        """What its topic names."""
        parsed = parse_topic(self.topic)
        assert parsed is not None, self.topic
        return parsed

    @property
    def payload(self) -> Payload:
        """Its payload, of anything but STATE."""
        return decode(self.raw)

    @property
    def state(self) -> dict[str, Any]:
        """Its payload, of STATE."""
        found = json.loads(self.raw.decode("utf-8"))
        assert isinstance(found, dict)
        return found


@dataclass
class Observer:
    """What was seen, and a way to say something."""

    client: MqttClient
    seen: list[Seen] = field(default_factory=list)

    def states(self) -> list[Seen]:
        """Return the messages of host applications."""
        return [one for one in self.seen if one.topic.startswith("spBv1.0/STATE/")]

    def nodes(self) -> list[Seen]:
        """Return the messages of edge nodes and to them."""
        return [one for one in self.seen if not one.topic.startswith("spBv1.0/STATE/")]

    def types(self) -> list[str]:
        """Return the types of the messages of edge nodes, in their order."""
        return [one.parsed.type.value for one in self.nodes()]

    async def wait(self, kind: str, count: int = 1) -> list[Seen]:
        """Return the messages of a type once there are so many."""

        def found() -> list[Seen]:
            return [one for one in self.nodes() if one.parsed.type == kind]

        await until(lambda: len(found()) >= count, f"no {count} {kind}, but {self.types()}")
        return found()

    async def wait_states(self, count: int) -> list[Seen]:
        """Return the messages of hosts once there are so many."""
        await until(lambda: len(self.states()) >= count, f"{self.states()}")
        return self.states()

    async def say_state(self, *, online: object, timestamp: object, host: str = HOST) -> None:
        """Publish as host application `host`."""
        document = json.dumps({"online": online, "timestamp": timestamp}).encode()
        await self.client.publish(Publication(f"spBv1.0/STATE/{host}", document, 1, retain=True))

    async def command(self, device: str | None, *metrics: Metric) -> None:
        """Publish a command for the node or one of its devices."""
        kind = MessageType.NCMD if device is None else MessageType.DCMD
        topic = str(Topic(kind, GROUP, NODE, device))
        await self.client.publish(Publication(topic, encode(Payload(metrics, 1))))

    async def ask_for_rebirth(self) -> None:
        """Ask the node for a rebirth."""
        await self.command(None, metric_of(True, DataType.BOOLEAN, name="Node Control/Rebirth"))


@asynccontextmanager
async def observing(broker: MosquittoBroker, name: str = "observer") -> AsyncIterator[Observer]:
    """Read everything at `broker`."""
    found: list[Seen] = []
    client = MqttClient(
        Broker(host="127.0.0.1", port=broker.port, client_id=name),
        lambda message: found.append(
            Seen(message.topic, bytes(message.payload), message.qos, message.retain)
        ),
    )
    await client.connect()
    await client.subscribe([("spBv1.0/#", 1)])
    try:
        yield Observer(client, found)
    finally:
        await client.close()


def at(broker: MosquittoBroker, name: str, version: int = 5) -> Broker:
    """Return `broker` as a node or host called `name` reaches it."""
    return Broker(host="127.0.0.1", port=broker.port, client_id=name, version=version)
