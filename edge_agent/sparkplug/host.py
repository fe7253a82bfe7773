"""A Sparkplug host application as a connection of the agent.

It tells its own birth and death (STATE), knows every configured edge node by a `NodeSession`,
hands the nodes' metrics to the sources that map them, marks them MISSING when their node or
device dies, asks for a rebirth when something cannot be understood, and writes by command.
Sparkplug's sessions are clean and its data are QoS 0: what is published while nobody listens is
lost, and is declared.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

import numpy as np

from domain.errors import InvalidInput, Unavailable
from domain.time_quality import DEVICE
from edge_agent.channel_mapping import MappedChannel
from edge_agent.live import BrowsedItem, ConnectionLost, DeliveredChannel, Feed, LiveSource, Target
from edge_agent.mqtt.client import Broker, MqttClient, Publication, beside
from edge_agent.mqtt.inbox import Inbox
from edge_agent.reading_buffer import ReadingBuffer
from edge_agent.scaling import Scaling
from edge_agent.sparkplug.births import browse_births, rebirth_request
from edge_agent.sparkplug.metric_readings import add_metric
from edge_agent.sparkplug.node_session import (
    Born,
    Delivered,
    Died,
    Gap,
    NodeSession,
    Outcome,
    RebirthWanted,
    Refused,
    Told,
)
from edge_agent.sparkplug.payload import Payload, Value, decode, encode, metric_of
from edge_agent.sparkplug.topics import NAMESPACE, MessageType, Topic, parse_topic, state_topic
from edge_agent.waiting import end_all, first_ended

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessage

REBIRTH_PAUSE_S: Final = 5.0
"""A node is asked for a rebirth no more often than that."""
ANSWER_S_MAX: Final = 5.0
"""For so long a device may take to report what it was told to write."""
STATE_DISPUTES_MAX: Final = 20
_TEXT_MAX: Final = 200

_log = logging.getLogger("heddle.edge.sparkplug")


@dataclass(frozen=True, kw_only=True)
class SparkplugSource:
    """One asset's channels among the metrics of a node (`device` None) or of a device.

    An address is the name of a metric.
    """

    group: str
    node: str
    device: str | None
    mapped: tuple[MappedChannel[str], ...]

    @property
    def channels(self) -> tuple[DeliveredChannel, ...]:
        """What it delivers."""
        return tuple(one.delivered for one in self.mapped)


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkplugTarget:
    """A metric that can be written."""

    group: str
    node: str
    device: str | None
    metric: str
    scaling: Scaling

    @property
    def address(self) -> str:
        """Its place: group, node, device and metric."""
        device = "" if self.device is None else f"/{self.device}"
        return f"{self.group}/{self.node}{device}#{self.metric}"


@dataclass(eq=False)
class _Served:
    source: SparkplugSource
    feed: Feed
    buffer: ReadingBuffer
    channels: dict[str, list[int]]
    dark: tuple[str, int] | None


@dataclass(eq=False)
class _Node:
    """An edge node, the sources it feeds, and when it may be asked for a rebirth."""

    group: str
    name: str
    session: NodeSession
    served: list[_Served] = field(default_factory=list)
    wanted: str | None = None
    ask_from_ns: int = 0


@dataclass(eq=False)
class _Watch:
    """Somebody who waits for a device to report a metric."""

    key: tuple[str, str, str | None, str]
    reported: asyncio.Queue[Value] = field(default_factory=lambda: asyncio.Queue(100))


class SparkplugConnection:
    """A session of one host application with one broker.

    Parameters
    ----------
    host_id : unique among the host applications of the plant
    reorder_timeout_s : for how long a message that was overtaken is waited for
    now_ns : the wall clock, ns since 1970 UTC
    announced : whether it tells its STATE, which edge nodes may wait for
    """

    def __init__(
        self,
        name: str,
        broker: Broker,
        host_id: str,
        reorder_timeout_s: float,
        now_ns: Callable[[], int] = time.time_ns,
        *,
        announced: bool = True,
    ) -> None:
        self._name = name
        self._broker = broker
        self._host_id = host_id
        self._reorder_timeout_s = reorder_timeout_s
        self._announced = announced
        self._reorder_timeout_ns = round(reorder_timeout_s * 1e9)
        self._now_ns = now_ns
        self._nodes: dict[tuple[str, str], _Node] = {}
        self._away_since_ns: int | None = None
        self._client: MqttClient | None = None
        self._born_ms = 0
        self._disputes = 0
        self._watches: list[_Watch] = []

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    @property
    def certificate_files(self) -> tuple[Path, ...]:
        """The certificates that it uses, for whoever watches when they end."""
        used = self._broker.certificates
        return () if used is None else used.files

    @property
    def watched_files(self) -> tuple[Path, ...]:
        """The files with which a session is secured; another content asks for a new session."""
        used = self._broker.certificates
        return () if used is None else used.watched_files

    def for_trial(self) -> SparkplugConnection:
        """Return one that listens beside this one, and of whose coming and going nobody is told."""
        return SparkplugConnection(
            self._name,
            beside(self._broker, "check"),
            self._host_id,
            self._reorder_timeout_s,
            self._now_ns,
            announced=False,
        )

    # --- the session ----------------------------------------------------------------------

    async def run(self, sources: Sequence[tuple[LiveSource, Feed]]) -> None:
        """Deliver to every source's feed until cancelled.

        Raises
        ------
        ConnectionLost
            ``connection.*``, ``sparkplug.host_id_taken``
        """
        self._serve(sources)
        # The birth has to carry the time of the will, which is that of the CONNECT packet.
        self._born_ms = self._now_ns() // 1_000_000
        self._disputes = 0
        inbox = Inbox(self._now_ns)
        client = MqttClient(
            self._broker,
            lambda message: inbox.put(client, message),
            self._state(online=False, timestamp_ms=self._born_ms) if self._announced else None,
        )
        tasks: list[asyncio.Task[None]] = []
        try:
            await client.connect()
            await self._subscribe(client)
            # Nothing can be written yet: no birth has been told, and ours goes first.
            self._client = client
            if self._announced:
                await client.publish(self._state(online=True, timestamp_ms=self._born_ms))
            self._want_births()
            tasks = [
                asyncio.create_task(client.lost()),
                asyncio.create_task(self._deliver(client, inbox)),
            ]
            await first_ended(tasks)
        finally:
            if tasks:
                self._away_since_ns = self._now_ns()
            self._client = None
            await end_all(tasks)
            await self._leave(client)

    async def _leave(self, client: MqttClient) -> None:
        """Tell our death before we take leave, because the broker does not tell it then."""
        death = self._state(online=False, timestamp_ms=self._now_ns() // 1_000_000)
        if not self._announced:
            await client.close()
            return
        try:
            async with asyncio.timeout(1.0):
                await client.publish(death)
        except (TimeoutError, Unavailable, ValueError):
            pass  # the broker is away; it has our will
        await client.close()

    async def _subscribe(self, client: MqttClient) -> None:
        """Subscribe to our own STATE and to every configured node, all at once."""
        filters = [(state_topic(self._host_id), 1)] if self._announced else []
        filters += [
            (f"{NAMESPACE}/{node.group}/+/{node.name}/#", 1) for node in self._nodes.values()
        ]
        if not filters:
            return
        granted = await client.subscribe(filters)
        for (text, _), qos in zip(filters, granted, strict=True):
            if qos >= 128:
                told = f"the broker at {self._broker.url} does not let us read {text!r}"
                raise ConnectionLost("connection.subscription_refused", told)

    def _state(self, *, online: bool, timestamp_ms: int) -> Publication:
        payload = json.dumps({"online": online, "timestamp": timestamp_ms}).encode()
        return Publication(state_topic(self._host_id), payload, qos=1, retain=True)

    def _serve(self, sources: Sequence[tuple[LiveSource, Feed]]) -> None:
        """Take up the sources; what was known of a node's session ended with ours."""
        now_ns = self._now_ns()
        since = ("sparkplug.no_birth", now_ns)
        if self._away_since_ns is not None:
            since = ("connection.down", self._away_since_ns)
        before, self._nodes = self._nodes, {}
        for source, feed in sources:
            if not isinstance(source, SparkplugSource):
                continue
            key = (source.group, source.node)
            node = self._nodes.get(key)
            if node is None:
                session = NodeSession(self._reorder_timeout_ns)
                if key in before:
                    session = before[key].session
                    session.disconnected()
                node = self._nodes[key] = _Node(source.group, source.node, session)
            channels: dict[str, list[int]] = {}
            for index, mapped in enumerate(source.mapped):
                channels.setdefault(mapped.address, []).append(index)
            buffer = ReadingBuffer(source.mapped, DEVICE)
            node.served.append(_Served(source, feed, buffer, channels, since))

    def _want_births(self) -> None:
        """Ask every node for its births, but give it a moment to tell them by itself."""
        for node in self._nodes.values():
            node.wanted = "host.connected"
            node.ask_from_ns = self._now_ns() + self._reorder_timeout_ns

    # --- messages -------------------------------------------------------------------------

    async def _deliver(self, client: MqttClient, inbox: Inbox) -> None:
        while True:
            for message, arrival_ns in await inbox.batch(self._wait_s()):
                client.acknowledge(message)
                await self._read(client, message, arrival_ns)
            now_ns = self._now_ns()
            for node in self._nodes.values():
                self._follow(node, node.session.expire(now_ns))
                await self._ask(client, node, now_ns)
                for served in node.served:
                    if served.buffer:
                        await served.feed.take(served.buffer.take())
            inbox.settle(client)
            await asyncio.sleep(0)

    def _wait_s(self) -> float | None:
        """Return how long from now until something is due, None where nothing is."""
        due = [node.session.due_ns for node in self._nodes.values()]
        due += [node.ask_from_ns for node in self._nodes.values() if node.wanted]
        known = [due_ns for due_ns in due if due_ns is not None]
        return max(0.001, (min(known) - self._now_ns()) / 1e9) if known else None

    async def _read(self, client: MqttClient, message: MQTTMessage, arrival_ns: int) -> None:
        try:
            text = message.topic
        except UnicodeDecodeError:
            return  # no topic that we subscribed to
        if text == state_topic(self._host_id):
            await self._read_state(client, bytes(message.payload))
            return
        topic = parse_topic(text)
        node = None if topic is None else self._nodes.get((topic.group, topic.node))
        if topic is None or node is None:
            return
        payload = bytes(message.payload)
        try:
            if len(payload) > self._broker.message_bytes_max:
                told = f"{len(payload)} bytes, more than {self._broker.message_bytes_max}"
                raise InvalidInput("message.too_large", told)
            decoded = decode(payload)
        except InvalidInput as error:
            self._refuse(node, topic.device, error.code, f"{text[:120]}: {error.message}", payload)
            return
        outcomes = node.session.accept(topic.type, topic.device, decoded, arrival_ns)
        self._follow(node, outcomes, topic, arrival_ns)

    async def _read_state(self, client: MqttClient, payload: bytes) -> None:
        """Contradict whoever says that we are offline."""
        try:
            online = json.loads(payload).get("online")
        except (ValueError, AttributeError, RecursionError):
            return
        if online is not False:
            return
        self._disputes += 1
        if self._disputes > STATE_DISPUTES_MAX:
            told = f"another host application calls itself {self._host_id!r}"
            raise ConnectionLost("sparkplug.host_id_taken", told)
        await client.publish(self._state(online=True, timestamp_ms=self._born_ms))

    def _follow(
        self,
        node: _Node,
        outcomes: Sequence[Outcome],
        topic: Topic | None = None,
        arrival_ns: int | None = None,
    ) -> None:
        """Do what follows from a message, or from the end of a wait."""
        arrival_ns = self._now_ns() if arrival_ns is None else arrival_ns
        for outcome in outcomes:
            match outcome:
                case Delivered():
                    self._take(node, outcome, arrival_ns)
                case Born(device, time_ns):
                    self._born(node, device, time_ns)
                case Died(device, time_ns):
                    self._died(node, device, time_ns)
                case Gap(from_ns, to_ns):
                    for served in node.served:
                        served.feed.lost("sequence.gap", from_ns, to_ns)
                case RebirthWanted(reason):
                    node.wanted = node.wanted or reason
                case Refused(code, message):
                    device = None if topic is None else topic.device
                    self._refuse(node, device, code, message)
                case _:
                    assert_never(outcome)

    def _born(self, node: _Node, device: str | None, time_ns: int) -> None:
        if device is None:
            node.wanted = None
        for served in node.served:
            if served.source.device == device and served.dark is not None:
                reason, since_ns = served.dark
                served.dark = None
                if time_ns > since_ns:
                    served.feed.lost(reason, since_ns, time_ns)

    def _died(self, node: _Node, device: str | None, time_ns: int) -> None:
        """Mark what a node or device told as stale: from now on there is no reading."""
        for served in node.served:
            if device is not None and served.source.device != device:
                continue
            if served.dark is None:
                served.dark = ("node.offline" if device is None else "device.offline", time_ns)
                for channel, mapped in enumerate(served.source.mapped):
                    if mapped.delivered.rate_hz is None:
                        served.buffer.add_missing(channel, time_ns)

    def _take(self, node: _Node, delivered: Delivered, arrival_ns: int) -> None:
        for told in delivered.metrics:
            for watch in self._watches:
                key = (node.group, node.name, delivered.device, told.known.name)
                if watch.key == key and not delivered.of_birth and not watch.reported.full():
                    watch.reported.put_nowait(_value_or_none(told))
        for served in node.served:
            if served.source.device != delivered.device:
                continue
            if delivered.of_birth:
                self._tell_missing(served, delivered)
            for told in delivered.metrics:
                time_ms = told.metric.timestamp_ms
                if time_ms is None:
                    time_ms = delivered.timestamp_ms
                for channel in served.channels.get(told.known.name, ()):
                    add_metric(
                        served.buffer,
                        served.feed,
                        channel,
                        served.source.mapped[channel].delivered,
                        told,
                        arrival_ns if time_ms is None else time_ms * 1_000_000,
                    )

    def _tell_missing(self, served: _Served, delivered: Delivered) -> None:
        names = {told.known.name for told in delivered.metrics}
        for name in served.channels.keys() - names:
            for channel in served.channels[name]:
                mapped = served.source.mapped[channel].delivered.name
                told = f"the birth tells of no metric {name!r}"
                served.feed.fault("value.no_such_metric", told, channel=mapped, text=name)

    def _refuse(
        self, node: _Node, device: str | None, code: str, message: str, payload: bytes = b""
    ) -> None:
        """Tell the sources that a message was meant for; those of the node for a node's."""
        text = payload[:_TEXT_MAX].hex(" ")
        of_device = [served for served in node.served if served.source.device == device]
        for served in of_device or node.served:
            served.feed.fault(code, message, text=text)

    async def _ask(self, client: MqttClient, node: _Node, now_ns: int) -> None:
        """Ask a node for a rebirth where that is wanted, and not too often."""
        if node.wanted is None or now_ns < node.ask_from_ns:
            return
        _log.info("asking node %s/%s for a rebirth: %s", node.group, node.name, node.wanted)
        node.wanted = None
        node.ask_from_ns = now_ns + round(REBIRTH_PAUSE_S * 1e9)
        await client.publish(rebirth_request(node.group, node.name, now_ns // 1_000_000))

    # --- writing and browsing -------------------------------------------------------------

    async def write(self, target: Target, value: float) -> float:
        """Command a metric, and return the value that the node then reports.

        Raises
        ------
        ConnectionLost
            ``connection.down``
        InvalidInput
            ``target.foreign``, ``target.unknown`` (no birth has told of it), ``value.wrong_type``
            and ``value.out_of_range`` (its datatype cannot hold the value)
        Unavailable
            ``target.no_answer``
        """
        if not isinstance(target, SparkplugTarget):
            raise InvalidInput("target.foreign", f"{target.address!r} is no Sparkplug metric")
        client = self._client
        if client is None:
            raise ConnectionLost("connection.down", f"no session with {self._broker.url}")
        node = self._nodes.get((target.group, target.node))
        known = None if node is None else node.session.known(target.device, target.metric)
        if known is None:
            told = f"no birth has told of {target.address!r}"
            raise InvalidInput("target.unknown", told, value=target.address)
        raw = target.scaling.invert(value)
        time_ms = self._now_ns() // 1_000_000
        # Where a birth gave an alias, commands carry it in place of the name.
        name = None if known.alias is not None else known.name
        metric = metric_of(raw, known.datatype, name=name, alias=known.alias, timestamp_ms=time_ms)
        kind = MessageType.NCMD if target.device is None else MessageType.DCMD
        topic = Topic(kind, target.group, target.node, target.device)
        watch = _Watch((target.group, target.node, target.device, target.metric))
        self._watches.append(watch)
        try:
            await client.publish(Publication(str(topic), encode(Payload((metric,), time_ms))))
            reported = np.array([await _reported(watch, raw, target)])
            return float(target.scaling.apply(reported)[0])
        finally:
            self._watches.remove(watch)

    async def browse(self, below: str | None, count_max: int) -> AsyncIterator[BrowsedItem]:
        """Yield the metrics that births tell of, after asking for them.

        Parameters
        ----------
        below : ``group``, ``group/node`` or ``group/node/device``; None for everything
        """
        async for item in browse_births(self._broker, below, count_max, self._now_ns):
            yield item


async def _reported(watch: _Watch, wanted: float, target: SparkplugTarget) -> float:
    """Return the wanted value once it is reported, else the last one that was."""
    last: float | None = None
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            while True:
                value = await watch.reported.get()
                if isinstance(value, (bool, int, float)):
                    last = float(value)
                    if math.isclose(last, wanted, rel_tol=1e-6, abs_tol=1e-9):
                        return last
    except TimeoutError:
        if last is not None:
            return last
        told = f"{target.address!r} was commanded and not reported within {ANSWER_S_MAX:g} s"
        raise Unavailable("target.no_answer", told) from None


def _value_or_none(told: Told) -> Value:
    try:
        return told.metric.value(told.known.datatype)
    except InvalidInput:
        return None
