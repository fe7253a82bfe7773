"""A Sparkplug edge node: what the simulated plant is to a host application.

It registers its death before it is born, tells births of itself and its devices, data when they
change, and takes commands. With a primary host it speaks only while that host is online, and
walks on to its next broker when the host goes.

References
----------
Sparkplug 3.0.0, 5.4 (edge node session), 5.5 (termination), 5.14 (multiple servers), 6.4.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from domain.errors import InvalidInput, Unavailable
from domain.frames import Quality
from edge_agent.live import ConnectionLost
from edge_agent.mqtt.client import Broker, MqttClient, Publication
from edge_agent.mqtt.inbox import Inbox
from edge_agent.sparkplug.payload import (
    BD_SEQ,
    REBIRTH,
    DataType,
    Metric,
    Payload,
    Value,
    decode,
    encode,
    metric_of,
)
from edge_agent.sparkplug.topics import MessageType, Topic, check_id, parse_topic, state_topic
from edge_agent.waiting import end_all, first_ended

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessage

SEQ_COUNT: Final = 256
LEAVE_S_MAX: Final = 1.0

TakeCommand = Callable[[str | None, str, Value], Awaitable[None]]
"""Told of a command: the device (None for the node itself), the metric and its value."""


@dataclass(frozen=True, slots=True)
class NodeMetric:
    """A metric of the node or of one of its devices."""

    name: str
    datatype: DataType
    writable: bool = False


@dataclass(frozen=True, slots=True)
class _Current:
    value: Value
    time_ms: int
    quality: Quality


class EdgeNode:
    """An edge node from one session to the next.

    Parameters
    ----------
    brokers : connected to one at a time, the next one whenever a session has ended
    metrics : of the node itself, beside bdSeq and Node Control/Rebirth
    devices : the metrics of each device
    command : called for each metric that is written
    primary_host : id of the host application without which the node keeps silent
    aliases : whether data carry aliases in place of names
    bd_seq : of the first session
    now_ns : the wall clock, ns since 1970 UTC
    """

    def __init__(
        self,
        brokers: Sequence[Broker],
        group: str,
        node: str,
        devices: Mapping[str, Sequence[NodeMetric]],
        command: TakeCommand,
        *,
        metrics: Sequence[NodeMetric] = (),
        primary_host: str | None = None,
        aliases: bool = True,
        bd_seq: int = 0,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._brokers = tuple(brokers)
        self._group = check_id("group", group)
        self._node = check_id("edge node", node)
        self._known: dict[str | None, dict[str, NodeMetric]] = {
            None: {metric.name: metric for metric in metrics}
        }
        for device, of_device in devices.items():
            check_id("device", device)
            self._known[device] = {metric.name: metric for metric in of_device}
        _check_case([device for device in self._known if device is not None], "devices")
        for known in self._known.values():
            _check_case(list(known), "metrics")
        every = [(device, name) for device, known in self._known.items() for name in known]
        self._aliases = {key: number for number, key in enumerate(every, 1)} if aliases else {}
        self._command = command
        self._primary_host = primary_host
        self._now_ns = now_ns
        self._bd_seq = bd_seq % SEQ_COUNT
        self._sessions = 0
        self._seq = 0
        self._current: dict[tuple[str | None, str], _Current] = {}
        self._online = set(devices)
        self._host_time_ms: int | None = None
        self._client: MqttClient | None = None
        self._speaking = asyncio.Lock()

    # --- what the machine tells -----------------------------------------------------------

    async def update(
        self,
        device: str | None,
        values: Mapping[str, Value],
        *,
        time_ms: int | None = None,
        quality: Quality = Quality.GOOD,
    ) -> None:
        """Take new values of a device, and tell those that have changed."""
        at_ms = self._now_ms() if time_ms is None else time_ms
        changed: list[str] = []
        for name, value in values.items():
            before = self._current.get((device, name))
            self._current[device, name] = _Current(value, at_ms, quality)
            if before is None or (before.value, before.quality) != (value, quality):
                changed.append(name)
        async with self._speaking:
            if self._client is None or not changed or (device and device not in self._online):
                return
            kind = MessageType.NDATA if device is None else MessageType.DDATA
            await self._tell(kind, device, [self._data(device, name) for name in changed])

    async def device_offline(self, device: str) -> None:
        """Tell that a device cannot be reached any more."""
        async with self._speaking:
            if device in self._online:
                self._online.discard(device)
                if self._client is not None:
                    await self._tell(MessageType.DDEATH, device, [])

    async def device_online(self, device: str) -> None:
        """Tell that a device is there again."""
        async with self._speaking:
            if device not in self._online:
                self._online.add(device)
                if self._client is not None:
                    await self._tell_birth(device)

    # --- the session ----------------------------------------------------------------------

    async def run(self) -> None:
        """Hold one session until it ends or is cancelled.

        Raises
        ------
        ConnectionLost
            ``connection.*``, ``sparkplug.host_offline``
        """
        broker = self._brokers[self._sessions % len(self._brokers)]
        if self._sessions:
            self._bd_seq = (self._bd_seq + 1) % SEQ_COUNT
        self._sessions += 1
        self._host_time_ms = None
        inbox = Inbox(self._now_ns)
        client = MqttClient(
            replace(broker, session_expiry_s=0),
            lambda message: inbox.put(client, message),
            self._death(),
        )
        tasks: list[asyncio.Task[None]] = []
        try:
            await client.connect()
            await client.subscribe(self._filters())
            tasks = [
                asyncio.create_task(client.lost()),
                asyncio.create_task(self._listen(client, inbox)),
            ]
            if self._primary_host is None:
                await self._birth(client)
            await first_ended(tasks)
        finally:
            await end_all(tasks)
            self._client = None
            await self._leave(client)

    def drop(self) -> None:
        """Drop the connection without a word, as a crash would."""
        if self._client is not None:
            self._client.drop()

    def _filters(self) -> list[tuple[str, int]]:
        filters = [(str(Topic(MessageType.NCMD, self._group, self._node)), 1)]
        filters += [
            (str(Topic(MessageType.DCMD, self._group, self._node, device)), 1)
            for device in self._known
            if device is not None
        ]
        if self._primary_host is not None:
            filters.append((state_topic(self._primary_host), 1))
        return filters

    async def _leave(self, client: MqttClient) -> None:
        """Tell our death before we take leave, because MQTT 3.1.1 does not tell it then."""
        try:
            async with asyncio.timeout(LEAVE_S_MAX):
                await client.publish(self._death())
        except (TimeoutError, Unavailable, ValueError):
            pass  # the broker is away; it has our will
        await client.close(with_will=True)

    def _death(self) -> Publication:
        metric = metric_of(
            self._bd_seq,
            DataType.INT64,
            name=BD_SEQ,
            timestamp_ms=self._now_ms(),
            tell_datatype=True,
        )
        topic = Topic(MessageType.NDEATH, self._group, self._node)
        return Publication(str(topic), encode(Payload((metric,), self._now_ms())), qos=1)

    # --- births and data ------------------------------------------------------------------

    async def _birth(self, client: MqttClient) -> None:
        """Tell everything; no data are told before all births are."""
        async with self._speaking:
            self._client = client
            self._seq = 0
            now_ms = self._now_ms()
            control = [
                metric_of(
                    self._bd_seq,
                    DataType.INT64,
                    name=BD_SEQ,
                    timestamp_ms=now_ms,
                    tell_datatype=True,
                ),
                # Never under an alias, so that a host that knows nothing may still ask for it.
                metric_of(
                    False, DataType.BOOLEAN, name=REBIRTH, timestamp_ms=now_ms, tell_datatype=True
                ),
            ]
            births = [self._born(None, name) for name in self._known[None]]
            await self._tell(MessageType.NBIRTH, None, [*control, *births])
            for device in self._known:
                if device is not None and device in self._online:
                    await self._tell_birth(device)

    async def _tell_birth(self, device: str) -> None:
        births = [self._born(device, name) for name in self._known[device]]
        await self._tell(MessageType.DBIRTH, device, births)

    def _born(self, device: str | None, name: str) -> Metric:
        metric = self._known[device][name]
        current = self._current.get((device, name))
        return metric_of(
            None if current is None else current.value,
            metric.datatype,
            name=name,
            alias=self._aliases.get((device, name)),
            timestamp_ms=self._now_ms() if current is None else current.time_ms,
            tell_datatype=True,
            quality=Quality.GOOD if current is None else current.quality,
        )

    def _data(self, device: str | None, name: str) -> Metric:
        current = self._current[device, name]
        alias = self._aliases.get((device, name))
        return metric_of(
            current.value,
            self._known[device][name].datatype,
            name=name if alias is None else None,
            alias=alias,
            timestamp_ms=current.time_ms,
            quality=current.quality,
        )

    async def _tell(self, kind: MessageType, device: str | None, metrics: list[Metric]) -> None:
        """Publish the next message of the session; the caller holds `_speaking`."""
        client = self._client
        if client is None:
            return
        # What is not historical stands in the order of its times.
        ordered = sorted(metrics, key=lambda metric: metric.timestamp_ms or 0)
        payload = Payload(tuple(ordered), self._now_ms(), self._seq)
        self._seq = (self._seq + 1) % SEQ_COUNT
        topic = Topic(kind, self._group, self._node, device)
        await client.publish(Publication(str(topic), encode(payload)))

    # --- commands and the primary host ----------------------------------------------------

    async def _listen(self, client: MqttClient, inbox: Inbox) -> None:
        while True:
            for message, _ in await inbox.batch():
                client.acknowledge(message)
                await self._read(client, message)
            inbox.settle(client)

    async def _read(self, client: MqttClient, message: MQTTMessage) -> None:
        host = self._primary_host
        if host is not None and message.topic == state_topic(host):
            await self._read_state(client, bytes(message.payload))
            return
        topic = parse_topic(message.topic)
        if topic is None or self._client is None:
            return
        try:
            payload = decode(bytes(message.payload))
        except InvalidInput:
            return  # whoever sent it gets no answer, which is all that Sparkplug knows
        await self._obey(client, topic.device, payload)

    async def _obey(self, client: MqttClient, device: str | None, payload: Payload) -> None:
        for metric in payload.metrics:
            if device is None and metric.name == REBIRTH:
                if _says_true(metric):
                    await self._birth(client)
                continue
            name = self._name_of(device, metric)
            known = None if name is None else self._known.get(device, {}).get(name)
            if name is None or known is None or not known.writable:
                continue
            try:
                value = metric.value(known.datatype)
            except InvalidInput:
                continue
            await self._command(device, name, value)

    def _name_of(self, device: str | None, metric: Metric) -> str | None:
        if metric.name is not None:
            return metric.name
        for (owner, name), alias in self._aliases.items():
            if owner == device and alias == metric.alias:
                return name
        return None

    async def _read_state(self, client: MqttClient, payload: bytes) -> None:
        """Speak while the primary host is online; older news of it is no news."""
        try:
            told = json.loads(payload)
            online, timestamp_ms = told["online"], told["timestamp"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if not isinstance(online, bool) or not isinstance(timestamp_ms, int):
            return
        if self._host_time_ms is not None and timestamp_ms < self._host_time_ms:
            return
        self._host_time_ms = timestamp_ms
        if online and self._client is None:
            await self._birth(client)
        elif not online and self._client is not None:
            told_host = f"primary host {self._primary_host!r} is offline"
            raise ConnectionLost("sparkplug.host_offline", told_host)

    def _now_ms(self) -> int:
        return self._now_ns() // 1_000_000


def _check_case(names: Sequence[str], kind: str) -> None:
    """Raise where two names differ in nothing but their case.

    Raises
    ------
    InvalidInput
        ``sparkplug.case``
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            told = f"{kind} {other!r} and {name!r} differ in nothing but their case"
            raise InvalidInput("sparkplug.case", told, value=name)


def _says_true(metric: Metric) -> bool:
    try:
        return metric.value(DataType.BOOLEAN) is True
    except InvalidInput:
        return False
