"""A broker as a connection of the agent: messages in, readings out, acknowledged once kept.

The session is persistent and messages are acknowledged only when what they said is on disk. A
message is asked for with QoS 1 at most: at QoS 2 the library would tell the broker that it has the
message before the disk has it, and a crash would lose it; at QoS 1 the broker delivers again, and
a reading that arrives twice with its own time is one reading.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from domain.errors import InvalidInput
from edge_agent.live import BrowsedItem, ConnectionLost, DeliveredChannel, Feed, LiveSource, Target
from edge_agent.live.outage import CONNECTION_DOWN, Outage
from edge_agent.mqtt.client import Broker, MqttClient, beside
from edge_agent.mqtt.inbox import HELD_MAX, Inbox
from edge_agent.mqtt.json_messages import JsonMapping, pointer_of, shown
from edge_agent.mqtt.topics import matches
from edge_agent.reading_buffer import ReadingBuffer
from edge_agent.waiting import end_all, first_ended

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessage

ROUTES_REMEMBERED_MAX: Final = 10_000
BROWSE_S: Final = 3.0
BROWSE_DEPTH_MAX: Final = 8
SHOWN_MAX: Final = 60
QOS_GRANTED_MAX: Final = 1
_REFUSED: Final = 128


@dataclass(frozen=True, kw_only=True)
class MqttSource:
    """One asset's channels in the messages of some topics."""

    filters: tuple[tuple[str, ...], ...]
    qos: int
    mapping: JsonMapping

    @property
    def channels(self) -> tuple[DeliveredChannel, ...]:
        """What it delivers."""
        return tuple(mapped.delivered for mapped in self.mapping.channels)

    @property
    def topic_filters(self) -> list[str]:
        """Its filters as they are subscribed to, in order."""
        return sorted("/".join(levels) for levels in self.filters)


@dataclass(frozen=True, eq=False)
class _Served:
    """A source with its feed and what its messages said since the last batch."""

    source: MqttSource
    feed: Feed
    buffer: ReadingBuffer


class MqttConnection:
    """A session with a broker, and the sources whose messages come over it.

    Parameters
    ----------
    now_ns : the wall clock, ns since 1970 UTC
    qos_max : asked for at most, whatever a source says
    """

    def __init__(
        self,
        name: str,
        broker: Broker,
        now_ns: Callable[[], int] = time.time_ns,
        *,
        qos_max: int = QOS_GRANTED_MAX,
    ) -> None:
        self._name = name
        self._broker = broker
        self._qos_max = qos_max
        self._now_ns = now_ns
        self._outage = Outage(now_ns)
        self._served: list[_Served] = []
        self._routes: OrderedDict[str, tuple[tuple[_Served, tuple[int, ...]], ...]] = OrderedDict()
        self._unacknowledged: list[MQTTMessage] = []
        self._to_acknowledge = asyncio.Event()

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

    def for_trial(self) -> MqttConnection:
        """Return one that listens beside this one: no session of it is touched or left behind."""
        return MqttConnection(self._name, beside(self._broker, "check"), self._now_ns, qos_max=0)

    async def run(self, sources: Sequence[tuple[LiveSource, Feed]]) -> None:
        """Deliver to every source's feed until cancelled.

        Raises
        ------
        ConnectionLost
            ``connection.*``
        """
        self._served = [
            _Served(source, feed, ReadingBuffer(source.mapping.channels, source.mapping.clock))
            for source, feed in sources
            if isinstance(source, MqttSource)
        ]
        self._routes.clear()
        self._unacknowledged.clear()
        inbox = Inbox(self._now_ns)
        client = MqttClient(self._broker, lambda message: inbox.put(client, message))
        tasks: list[asyncio.Task[None]] = []
        connected = False
        try:
            had_session = await client.connect()
            granted = await self._subscribe(client)
            connected = True
            self._tell_lost(had_session, granted)
            tasks = [
                asyncio.create_task(client.lost()),
                asyncio.create_task(self._deliver(client, inbox)),
                asyncio.create_task(self._acknowledge(client)),
            ]
            await first_ended(tasks)
        finally:
            if connected:
                self._outage.begun()
            await end_all(tasks)
            await client.close()

    async def browse(self, below: str | None, count_max: int) -> AsyncIterator[BrowsedItem]:
        """Yield the values in the messages that arrive within `BROWSE_S` below a topic filter.

        An address is the topic, ``#`` and the JSON pointer of a field.
        """
        arrived: asyncio.Queue[MQTTMessage] = asyncio.Queue(HELD_MAX)

        def take(message: MQTTMessage) -> None:
            if not arrived.full():
                arrived.put_nowait(message)

        client = MqttClient(beside(self._broker, "browse"), take)
        seen: set[str] = set()
        try:
            await client.connect()
            await client.subscribe([(below or "#", 0)])
            until = asyncio.get_running_loop().time() + BROWSE_S
            while len(seen) < count_max:
                try:
                    async with asyncio.timeout_at(until):
                        message = await arrived.get()
                except TimeoutError:
                    return
                for item in _offered(message):
                    if item.address not in seen and len(seen) < count_max:
                        seen.add(item.address)
                        yield item
        finally:
            await client.close()

    async def write(self, target: Target, value: float) -> float:
        """Refuse: plain MQTT has no answer in which a device reads back what it took.

        Raises
        ------
        InvalidInput
            ``target.not_writable``
        """
        raise InvalidInput(
            "target.not_writable",
            f"{target.address!r} on broker {self._name!r} cannot be written",
            hint="use Sparkplug B, OPC UA or Modbus, whose devices answer what they took",
            value=value,
        )

    # --- from the broker ------------------------------------------------------------------

    async def _subscribe(self, client: MqttClient) -> dict[str, int]:
        """Subscribe to every source's filters; return the QoS that each was granted."""
        wanted: dict[str, int] = {}
        for served in self._served:
            qos = min(served.source.qos, self._qos_max)
            for levels in served.source.filters:
                text = "/".join(levels)
                wanted[text] = max(qos, wanted.get(text, 0))
        if not wanted:
            return {}
        granted = dict(zip(wanted, await client.subscribe(list(wanted.items())), strict=True))
        refused = {text for text, qos in granted.items() if qos >= _REFUSED}
        if len(refused) == len(granted):
            told = f"the broker at {self._broker.url} lets us read none of {sorted(refused)}"
            raise ConnectionLost("connection.subscription_refused", told[:500])
        for served in self._served:
            for levels in served.source.filters:
                if (text := "/".join(levels)) in refused:
                    told = f"the broker does not let us read {text!r}"
                    served.feed.fault("message.subscription_refused", told, text=text)
        return granted

    def _tell_lost(self, had_session: bool, granted: Mapping[str, int]) -> None:
        """Declare what nobody kept for us while we were away, in this process or before it."""
        span = self._outage.ended()
        for served in self._served:
            filters = served.source.topic_filters
            waits = all(0 < granted.get(text, 0) < _REFUSED for text in filters)
            if span is not None and not waits:
                served.feed.lost(CONNECTION_DOWN, *span)
            elif span is not None and not had_session:
                served.feed.lost("session.lost", *span)
            kept_by = self._session_of(filters) if waits else ""
            served.feed.resumed(kept_by, was_kept=had_session)

    def _session_of(self, filters: Sequence[str]) -> str:
        """Return a name of our session with the broker and of what is subscribed to in it."""
        words = [self._broker.url, self._broker.client_id, *filters]
        return hashlib.sha256(orjson.dumps(words)).hexdigest()

    async def _deliver(self, client: MqttClient, inbox: Inbox) -> None:
        """Hand on what was held, a batch at a time, and go by the feeds' own pace."""
        while True:
            batch = await inbox.batch()
            for message, arrival_ns in batch:
                self._read(message, arrival_ns)
            for served in self._served:
                if served.buffer:
                    await served.feed.take(served.buffer.take())
            self._unacknowledged += [message for message, _ in batch if message.qos]
            if self._unacknowledged:
                self._to_acknowledge.set()
            inbox.settle(client)
            # A broker that never pauses must not keep the other connections waiting.
            await asyncio.sleep(0)

    async def _acknowledge(self, client: MqttClient) -> None:
        """Acknowledge, in the order of arrival, what is on disk."""
        while True:
            await self._to_acknowledge.wait()
            self._to_acknowledge.clear()
            taken, self._unacknowledged = self._unacknowledged, []
            await asyncio.gather(*(served.feed.kept() for served in self._served))
            for message in taken:
                client.acknowledge(message)

    def _read(self, message: MQTTMessage, arrival_ns: int) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            for served in self._served:
                served.feed.fault("message.topic", "a topic that is no UTF-8")
            return
        payload = bytes(message.payload)
        for served, channels in self._route(topic):
            fault = _tell(served.feed, topic)
            if len(payload) > self._broker.message_bytes_max:
                told = f"{len(payload)} bytes, more than {self._broker.message_bytes_max}"
                fault("message.too_large", told, "", shown(payload))
            elif message.retain and served.source.mapping.time is None:
                # The broker kept it since nobody knows when.
                told = "a retained message without a time of its own"
                fault("message.retained", told, "", shown(payload))
            else:
                served.source.mapping.read(payload, channels, arrival_ns, served.buffer, fault)

    def _route(self, topic: str) -> tuple[tuple[_Served, tuple[int, ...]], ...]:
        """Return who reads messages of `topic`, and which channels may stand in them."""
        found = self._routes.get(topic)
        if found is None:
            found = tuple(
                (served, served.source.mapping.channels_of(topic))
                for served in self._served
                if any(matches(levels, topic) for levels in served.source.filters)
            )
            self._routes[topic] = found
            if len(self._routes) > ROUTES_REMEMBERED_MAX:
                self._routes.popitem(last=False)
        return found


def _tell(feed: Feed, topic: str) -> Callable[[str, str, str, str], None]:
    def fault(code: str, message: str, channel: str, text: str) -> None:
        feed.fault(code, f"{topic[:120]}: {message}", channel=channel, text=text)

    return fault


def _offered(message: MQTTMessage) -> list[BrowsedItem]:
    """Return the values in a message that may be mapped, each by topic and JSON pointer."""
    try:
        topic, document = message.topic, orjson.loads(message.payload)
    except (UnicodeDecodeError, orjson.JSONDecodeError):
        return []
    found: list[BrowsedItem] = []
    waiting: deque[tuple[tuple[str, ...], object]] = deque([((), document)])
    while waiting:
        path, value = waiting.popleft()
        if isinstance(value, dict) and len(path) < BROWSE_DEPTH_MAX:
            waiting.extend(((*path, key), member) for key, member in value.items())
        elif value is None or isinstance(value, bool | int | float | str):
            address = f"{topic}#{pointer_of(path)}"
            kind = type(value).__name__
            shown_value = f"{value!r:.{SHOWN_MAX}}"
            found.append(BrowsedItem(address, path[-1] if path else topic, shown_value, kind))
    return found
