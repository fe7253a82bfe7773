"""Asking edge nodes for their births, and what the births offer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

from domain.errors import HeddleError, InvalidInput
from edge_agent.live import BrowsedItem
from edge_agent.mqtt.client import Broker, MqttClient, Publication, beside
from edge_agent.mqtt.inbox import HELD_MAX
from edge_agent.sparkplug.payload import REBIRTH, DataType, Payload, decode, encode, metric_of
from edge_agent.sparkplug.topics import NAMESPACE, MessageType, Topic, parse_topic

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessage

BROWSE_S: Final = 3.0


def rebirth_request(group: str, node: str, time_ms: int) -> Publication:
    """Return the command that asks a node to tell everything anew."""
    metric = metric_of(True, DataType.BOOLEAN, name=REBIRTH, timestamp_ms=time_ms)
    topic = Topic(MessageType.NCMD, group, node)
    return Publication(str(topic), encode(Payload((metric,), time_ms)))


async def browse_births(
    broker: Broker, below: str | None, count_max: int, now_ns: Callable[[], int]
) -> AsyncIterator[BrowsedItem]:
    """Yield the metrics of every birth that arrives within `BROWSE_S`.

    Births are not retained, so every node that is heard of is asked for them.
    """
    tokens = below.split("/") if below else []
    group, node, device = [*tokens, "+", "+", "+"][:3]
    arrived: asyncio.Queue[MQTTMessage] = asyncio.Queue(HELD_MAX)

    def take(message: MQTTMessage) -> None:
        if not arrived.full():
            arrived.put_nowait(message)

    client = MqttClient(beside(broker, "browse"), take)
    asked: set[tuple[str, str]] = set()
    seen: set[str] = set()
    try:
        await client.connect()
        await client.subscribe([(f"{NAMESPACE}/{group}/+/{node}/#", 0)])
        if "+" not in (group, node):
            asked.add((group, node))
            await client.publish(rebirth_request(group, node, now_ns() // 1_000_000))
        until = asyncio.get_running_loop().time() + BROWSE_S
        while len(seen) < count_max:
            try:
                async with asyncio.timeout_at(until):
                    message = await arrived.get()
            except TimeoutError:
                return
            topic = parse_topic(message.topic)
            if topic is None or topic.type in (MessageType.NCMD, MessageType.DCMD):
                continue
            if (topic.group, topic.node) not in asked:
                asked.add((topic.group, topic.node))
                time_ms = now_ns() // 1_000_000
                await client.publish(rebirth_request(topic.group, topic.node, time_ms))
            if device not in ("+", topic.device):
                continue
            for item in _offered(topic, bytes(message.payload)):
                if item.address not in seen and len(seen) < count_max:
                    seen.add(item.address)
                    yield item
    finally:
        await client.close()


def _offered(topic: Topic, payload: bytes) -> list[BrowsedItem]:
    """Return what a birth tells of."""
    if topic.type not in (MessageType.NBIRTH, MessageType.DBIRTH):
        return []
    try:
        metrics = decode(payload).metrics
    except HeddleError:
        return []
    place = f"{topic.group}/{topic.node}" + (f"/{topic.device}" if topic.device else "")
    found: list[BrowsedItem] = []
    for metric in metrics:
        if metric.name is None or metric.datatype is None:
            continue
        try:
            kind, value = DataType(metric.datatype).name.lower(), metric.value(metric.datatype)
        except (InvalidInput, ValueError):
            kind, value = str(metric.datatype), None
        address = f"{place}#{metric.name}"
        found.append(BrowsedItem(address, metric.name, f"{value!r:.80}", kind))
    return found
