"""A session with an OPC UA server: subscriptions in, writes out, browsing.

A server keeps nothing for a session that is gone, so an outage is a declared loss. A node that
the server does not know costs its own channel alone and is asked for again now and then, because
programs of controllers are exchanged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.subscription import Subscription
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.uaerrors import UaError

from domain.errors import HeddleError
from edge_agent.channel_mapping import MappedChannel
from edge_agent.delivered_values import is_exact
from edge_agent.live import BrowsedItem, ConnectionLost, DeliveredChannel, Feed, LiveSource, Target
from edge_agent.live.outage import Outage
from edge_agent.opcua.browsing import browse
from edge_agent.opcua.nodes import resolved_node_id
from edge_agent.opcua.security import Security
from edge_agent.opcua.values import (
    Delivered,
    DeliveredRun,
    clock_of,
    delivered,
    delivered_as,
    delivered_run,
)
from edge_agent.opcua.writing import OpcUaTarget, write_and_read_back
from edge_agent.reading_buffer import ReadingBuffer
from edge_agent.waiting import end_all, first_ended

HELD_MAX: Final = 100_000
"""Readings of one source that wait for the agent; what comes beyond is a declared loss."""
ITEMS_PER_CALL_MAX: Final = 500
NOTIFICATIONS_MAX: Final = 10_000
NODES_AGAIN_S: Final = 30.0
KEEP_ALIVE_S: Final = 2.0
LIFETIME_S: Final = 60.0
SEQUENCE_NUMBER_MAX: Final = 2**32 - 1
SAMPLED_AT_END: Final = "end"

_log = logging.getLogger("heddle.edge.opcua")
_FAILURES: Final = (OSError, TimeoutError, asyncio.TimeoutError, UaError, ConnectionError)


@dataclass(frozen=True, slots=True)
class Item:
    """Where a channel is found and how it is asked for.

    Parameters
    ----------
    sampling_ms : 0 asks for the server's fastest
    queue_size : values that the server may keep between two publications
    stamped : whether the time of an array is that of its first sample (start) or its last (end)
    """

    node: str
    sampling_ms: float
    queue_size: int
    stamped: str = SAMPLED_AT_END


@dataclass(frozen=True)
class OpcUaSource:
    """One asset's channels on a server; `publishing_ms` is the interval of their publication."""

    mapped: tuple[MappedChannel[Item], ...]
    publishing_ms: float

    @property
    def channels(self) -> tuple[DeliveredChannel, ...]:
        """What it delivers."""
        return tuple(mapped.delivered for mapped in self.mapped)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where the server is, how we are known to it, and how long a request may take."""

    url: str
    security: Security | None = None
    username: str | None = None
    password: str | None = None
    timeout_s: float = 4.0


class Served:
    """A source while it is served: its feed and what waits to be taken."""

    def __init__(self, source: OpcUaSource, feed: Feed, now_ns: Callable[[], int]) -> None:
        self.source = source
        self.feed = feed
        self.waiting = asyncio.Event()
        self._buffer = ReadingBuffer(source.mapped)
        self._held = 0
        self._now_ns = now_ns
        self._last_ns = [now_ns()] * len(source.mapped)
        self._exact = [is_exact(mapped.delivered) for mapped in source.mapped]

    def add(self, channel: int, data: ua.DataValue) -> None:
        """Add what the server told of a channel; never raises for a value."""
        mapped = self.source.mapped[channel]
        rate_hz = mapped.delivered.rate_hz
        found: Delivered | DeliveredRun
        if self._exact[channel]:
            found = delivered_as(data, mapped.delivered)
        else:
            found = delivered(data) if rate_hz is None else delivered_run(data)
        name = mapped.delivered.name
        time_ns = self._now_ns() if found.time_ns is None else found.time_ns
        self._buffer.told_by(clock_of(data))
        if found.code:
            self.feed.fault(found.code, found.message, channel=name)
        if found.overflowed:
            self.feed.lost("queue.overflow", self._last_ns[channel], time_ns)
        self._last_ns[channel] = time_ns
        count = 1 if isinstance(found, Delivered) else len(found.raw)
        if self._held and self._held + count > HELD_MAX:
            self.feed.lost("queue.overflow", time_ns, time_ns, count)
            return
        if isinstance(found, Delivered):
            self._buffer.add(channel, time_ns, found.raw, found.quality)
        elif count:
            start_ns = time_ns
            if mapped.address.stamped == SAMPLED_AT_END and rate_hz is not None:
                start_ns -= round((count - 1) * 1e9 / rate_hz)
            self._buffer.add_run(channel, start_ns, found.raw, found.qualities)
        self._held += count
        self.waiting.set()

    async def pump(self) -> None:
        """Hand on what was added, for ever; a feed that waits holds up no other source."""
        while True:
            await self.waiting.wait()
            self.waiting.clear()
            self._held = 0
            await self.feed.take(self._buffer.take())


class Publication(Subscription):
    """A subscription that hands each value to its source without a task or a queue between."""

    def __init__(
        self, client: Client, params: ua.CreateSubscriptionParameters, now_ns: Callable[[], int]
    ) -> None:
        super().__init__(client.uaclient.session, params)
        self.served: dict[int, tuple[Served, int]] = {}
        self.refused: list[tuple[Served, int]] = []
        self.ended = ""
        self.heard_s = time.monotonic()
        self.heard_ns = now_ns()
        self._now_ns = now_ns

    async def publish_callback(self, publish_result: ua.PublishResult) -> None:
        """Take one publication; an empty one says that the server is there."""
        message = publish_result.NotificationMessage
        self._check_sequence(int(message.SequenceNumber), bool(message.NotificationData))
        self.last_publish_at = self.heard_s = time.monotonic()
        self.heard_ns = self._now_ns()
        for notification in message.NotificationData or ():
            if isinstance(notification, ua.DataChangeNotification):
                for item in notification.MonitoredItems:
                    found = self.served.get(item.ClientHandle)
                    if found is not None and item.Value is not None:
                        found[0].add(found[1], item.Value)
            elif isinstance(notification, ua.StatusChangeNotification):
                self.ended = f"the server ended the subscription: {notification.Status}"

    def _check_sequence(self, number: int, has_data: bool) -> None:
        """Declare a loss where publications are missing (OPC 10000-4, 5.13.1.1)."""
        if number == 0:  # the library's own word that the session is over
            return
        last = self.last_sequence_number
        expected = None if last is None else last % SEQUENCE_NUMBER_MAX + 1
        if expected is not None and number != expected and number != last:
            for served in {id(s): s for s, _ in self.served.values()}.values():
                served.feed.lost("sequence.gap", self.heard_ns, self._now_ns())
        # A keep-alive carries the number that the next publication will have.
        if has_data:
            self.last_sequence_number = number
        elif expected is not None or number > 1:
            self.last_sequence_number = number - 1 or SEQUENCE_NUMBER_MAX


class OpcUaConnection:
    """A session with one server (`edge_agent.live.Connection`).

    Parameters
    ----------
    now_ns : the wall clock, ns since 1970 UTC
    """

    def __init__(
        self, name: str, endpoint: Endpoint, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._name = name
        self._endpoint = endpoint
        self._now_ns = now_ns
        self._outage = Outage(now_ns)
        self._client: Client | None = None
        self._refused: dict[tuple[int, int], str] = {}

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    @property
    def certificate_files(self) -> tuple[Path, ...]:
        """The certificates that it uses, for whoever watches when they end."""
        security = self._endpoint.security
        return () if security is None else (security.certificate, security.server_certificate)

    @property
    def watched_files(self) -> tuple[Path, ...]:
        """The files with which a session is secured; another content asks for a new session."""
        security = self._endpoint.security
        return () if security is None else (*self.certificate_files, security.key)

    async def run(self, sources: Sequence[tuple[LiveSource, Feed]]) -> None:
        """Deliver until cancelled.

        Raises
        ------
        ConnectionLost
            ``connection.unreachable``, ``connection.lost``
        InvalidInput
            ``connection.certificate``, ``connection.key``
        """
        heard_ns: int | None = None
        publications: list[Publication] = []
        try:
            client = await self._connected()
            try:
                served = [
                    Served(cast(OpcUaSource, source), feed, self._now_ns)
                    for source, feed in sources
                ]
                publications = await self._subscribed(client, served)
                self._outage.over(feed for _, feed in sources)
                await self._deliver(client, served, publications)
            finally:
                self._client = None
                heard_ns = max((p.heard_ns for p in publications), default=None)
                await self._disconnect(client)
        except (*_FAILURES, HeddleError) as error:
            self._outage.begun(heard_ns)
            if isinstance(error, HeddleError):
                raise
            raise self._lost("connection.unreachable", error) from error

    async def _connected(self) -> Client:
        endpoint = self._endpoint
        client = Client(
            endpoint.url, timeout=endpoint.timeout_s, watchdog_intervall=endpoint.timeout_s
        )
        client.name = client.description = "Heddle edge agent"
        if endpoint.username is not None:
            client.set_user(endpoint.username)
        if endpoint.password is not None:
            client.set_password(endpoint.password)
        try:
            # Several requests, each bounded by its own timeout.
            async with asyncio.timeout(5 * endpoint.timeout_s):
                if endpoint.security is not None:
                    await endpoint.security.apply(client)
                await client.connect()
        except BaseException:
            client.disconnect_socket()
            raise
        self._client = client
        return client

    async def _disconnect(self, client: Client) -> None:
        """Say good-bye if somebody listens; the socket is closed in any case."""
        try:
            with suppress(*_FAILURES):
                async with asyncio.timeout(self._endpoint.timeout_s):
                    await client.disconnect()
        finally:
            client.disconnect_socket()

    # --- subscriptions --------------------------------------------------------------------

    async def _subscribed(self, client: Client, served: Sequence[Served]) -> list[Publication]:
        """Return a publication for every interval, with the items of all sources that have it."""
        publications: dict[float, Publication] = {}
        for one in served:
            interval_ms = one.source.publishing_ms
            if interval_ms not in publications:
                params = _parameters(interval_ms)
                publications[interval_ms] = Publication(client, params, self._now_ns)
                await publications[interval_ms].init()
            indexes = range(len(one.source.mapped))
            await self._monitor(client, publications[interval_ms], one, indexes)
        if not publications:  # a connection that is only written to is watched all the same
            publications[1000.0] = Publication(client, _parameters(1000.0), self._now_ns)
            await publications[1000.0].init()
        return list(publications.values())

    async def _monitor(
        self,
        client: Client,
        publication: Publication,
        served: Served,
        channels: Sequence[int],
    ) -> None:
        """Ask for `channels` of a source; those that the server refuses are told and left out."""
        namespaces = await client.get_namespace_array()
        requests: list[tuple[int, ua.MonitoredItemCreateRequest]] = []
        for channel in channels:
            item = served.source.mapped[channel].address
            node_id = resolved_node_id(item.node, namespaces)
            if node_id is None:
                self._refuse(publication, served, channel, "its namespace is not known")
            else:
                handle = len(publication.served) + 1
                publication.served[handle] = (served, channel)
                requests.append((channel, _request(item, node_id, handle)))
        for start in range(0, len(requests), ITEMS_PER_CALL_MAX):
            part = requests[start : start + ITEMS_PER_CALL_MAX]
            answers = await publication.create_monitored_items([request for _, request in part])
            for (channel, _), answer in zip(part, answers, strict=True):
                if isinstance(answer, ua.StatusCode):
                    self._refuse(publication, served, channel, answer.name)
                else:
                    self._refused.pop((id(served), channel), None)

    def _refuse(self, publication: Publication, served: Served, channel: int, told: str) -> None:
        mapped = served.source.mapped[channel]
        if self._refused.get((id(served), channel)) != told:
            self._refused[id(served), channel] = told
            served.feed.fault(
                "node.refused", f"{mapped.address.node}: {told}", channel=mapped.delivered.name
            )
        publication.refused.append((served, channel))

    async def _deliver(
        self,
        client: Client,
        served: Sequence[Served],
        publications: Sequence[Publication],
    ) -> None:
        lost = asyncio.get_running_loop().create_future()

        async def on_lost(error: Exception) -> None:
            if not lost.done():
                lost.set_exception(self._lost("connection.lost", error))

        client.connection_lost_callback = on_lost
        tasks = [asyncio.create_task(one.pump()) for one in served]
        tasks.append(asyncio.create_task(self._watch(client, publications)))
        try:
            await first_ended((lost, *tasks))
        finally:
            await end_all(tasks)
            lost.cancel()

    async def _watch(self, client: Client, publications: Sequence[Publication]) -> None:
        """Raise when a subscription has ended or fallen silent; ask again for refused nodes."""
        asked_s = time.monotonic()
        while True:
            await asyncio.sleep(KEEP_ALIVE_S / 2)
            for publication in publications:
                interval_s = publication.parameters.RequestedPublishingInterval / 1000
                silent_s = time.monotonic() - publication.heard_s
                if silent_s > 3 * max(KEEP_ALIVE_S, interval_s) + self._endpoint.timeout_s:
                    publication.ended = f"a subscription is silent for {silent_s:.1f} s"
                if publication.ended:
                    raise ConnectionLost("connection.lost", f"{self._where}: {publication.ended}")
            if time.monotonic() - asked_s >= NODES_AGAIN_S:
                asked_s = time.monotonic()
                for publication in publications:
                    again, publication.refused = publication.refused, []
                    for one, channel in again:
                        await self._monitor(client, publication, one, [channel])

    # --- browsing and writing -------------------------------------------------------------

    async def browse(self, below: str | None, count_max: int) -> AsyncIterator[BrowsedItem]:
        """Yield at most `count_max` variables below a node, or below the Objects folder.

        Raises
        ------
        ConnectionLost
        InvalidInput
            ``node.malformed``
        """
        client = self._client
        own = client is None
        try:
            client = client or await self._connected()
            try:
                async for item in browse(client, below, count_max):
                    yield item
            finally:
                if own:
                    self._client = None
                    await self._disconnect(client)
        except _FAILURES as error:
            raise self._lost("connection.unreachable", error) from error

    async def write(self, target: Target, value: float) -> float:
        """Write `value`, in the target's unit, and return what the server reads back.

        Raises
        ------
        ConnectionLost
            ``connection.down``, ``connection.lost``
        CommandRejected
            ``target.*`` when the server refuses it
        """
        client = self._client
        if client is None:
            raise ConnectionLost("connection.down", f"{self._where} is not connected")
        try:
            async with asyncio.timeout(5 * self._endpoint.timeout_s):
                return await write_and_read_back(client, cast(OpcUaTarget, target), value)
        except (OSError, TimeoutError, ConnectionError) as error:
            raise self._lost("connection.lost", error) from error

    @property
    def _where(self) -> str:
        return f"{self._name} ({self._endpoint.url})"

    def _lost(self, code: str, error: BaseException) -> ConnectionLost:
        told = str(error) or type(error).__name__
        return ConnectionLost(code, f"{self._where}: {told:.300}")


def _parameters(interval_ms: float) -> ua.CreateSubscriptionParameters:
    keep_alive_count = max(1, round(KEEP_ALIVE_S * 1000 / interval_ms))
    return ua.CreateSubscriptionParameters(
        RequestedPublishingInterval=interval_ms,
        RequestedLifetimeCount=max(3 * keep_alive_count, round(LIFETIME_S * 1000 / interval_ms)),
        RequestedMaxKeepAliveCount=keep_alive_count,
        MaxNotificationsPerPublish=NOTIFICATIONS_MAX,
        PublishingEnabled=True,
        Priority=0,
    )


def _request(item: Item, node_id: ua.NodeId, handle: int) -> ua.MonitoredItemCreateRequest:
    return ua.MonitoredItemCreateRequest(
        ItemToMonitor=ua.ReadValueId(NodeId=node_id, AttributeId=AttributeIds.Value),
        MonitoringMode=ua.MonitoringMode.Reporting,
        RequestedParameters=ua.MonitoringParameters(
            ClientHandle=handle,
            SamplingInterval=item.sampling_ms,
            Filter=ua.DataChangeFilter(
                # Also when only the time is new: a value that stays is a reading all the same.
                Trigger=ua.DataChangeTrigger.StatusValueTimestamp,
            ),
            QueueSize=item.queue_size,
            DiscardOldest=True,
        ),
    )
