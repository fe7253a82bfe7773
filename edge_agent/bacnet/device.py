"""One BACnet device: polled, listened to, and silent or not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from domain.errors import InvalidInput, Unavailable
from edge_agent.bacnet.requests import (
    address_of,
    answered,
    is_refusal,
    object_of,
    property_of,
    quality_of,
    value_in,
)
from edge_agent.channel_mapping import MappedChannel
from edge_agent.live import DeliveredChannel, Feed
from edge_agent.reading_buffer import ReadingBuffer

if TYPE_CHECKING:
    from bacpypes3.ipv4.app import NormalApplication

OBJECTS_PER_REQUEST: Final = 20
"""What devices with small packets can answer in one."""
NOTIFICATIONS_HELD_MAX: Final = 1_000
RESUBSCRIBE_PAUSE_S: Final = 5.0
LOOK_EVERY_S: Final = 1.0
PRESENT_VALUE: Final = "present-value"
STATUS_FLAGS: Final = "status-flags"

_log = logging.getLogger("heddle.edge.bacnet")


@dataclass(frozen=True, slots=True)
class BacnetPoint:
    """Where a channel is found.

    Parameters
    ----------
    object : such as ``analog-input,1``; its present value is read
    cov : whether changes are subscribed
    """

    object: str
    cov: bool = False


@dataclass(frozen=True, kw_only=True)
class BacnetSource:
    """One asset's channels among the objects of a device."""

    device: tuple[str, int]
    period_s: float
    cov_lifetime_s: int
    mapped: tuple[MappedChannel[BacnetPoint], ...]

    @property
    def channels(self) -> tuple[DeliveredChannel, ...]:
        """What it delivers."""
        return tuple(one.delivered for one in self.mapped)


class DevicePolls:
    """One source's device: polled, listened to, and silent or not."""

    def __init__(
        self,
        application: NormalApplication,
        source: BacnetSource,
        feed: Feed,
        now_ns: Callable[[], int],
    ) -> None:
        self._application = application
        self._source = source
        self._feed = feed
        self._now_ns = now_ns
        self._multiple = True
        self._silent_since_ns: int | None = None

    # --- polling --------------------------------------------------------------------------

    async def poll(self) -> None:
        """Poll every period; a poll that takes longer than a period delays the next."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            asked_ns = self._now_ns()
            try:
                values = await self._read_all()
            except Unavailable as error:
                self._note_silent(asked_ns, error)
            else:
                self._note_answer(asked_ns)
                await self._take(asked_ns, values)
            due = max(due + self._source.period_s, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _read_all(self) -> list[tuple[Any, Any]]:
        """Return present value and status flags of each channel's object."""
        found: list[tuple[Any, Any]] = []
        objects = [mapped.address.object for mapped in self._source.mapped]
        for start in range(0, len(objects), OBJECTS_PER_REQUEST):
            some = objects[start : start + OBJECTS_PER_REQUEST]
            if self._multiple:
                try:
                    found += await self._read_together(some)
                    continue
                except InvalidInput as refused:
                    # A device that cannot do it is asked for one property after the other.
                    _log.info("%s: no ReadPropertyMultiple: %s", self._source.device, refused)
                    self._multiple = False
            for name in some:
                found.append(await self._read_alone(name))
        return found

    async def _read_together(self, objects: Sequence[str]) -> list[tuple[Any, Any]]:
        wanted: list[Any] = []
        for name in objects:
            wanted += [object_of(name), [property_of(PRESENT_VALUE), property_of(STATUS_FLAGS)]]
        answer = await answered(
            self._application.read_property_multiple(address_of(self._source.device), wanted),
            "ReadPropertyMultiple",
        )
        values = {(str(found[0]), str(found[1])): found[3] for found in answer}
        return [
            (
                values.get((str(object_of(name)), PRESENT_VALUE)),
                values.get((str(object_of(name)), STATUS_FLAGS)),
            )
            for name in objects
        ]

    async def _read_alone(self, name: str) -> tuple[Any, Any]:
        found: list[Any] = []
        for prop in (PRESENT_VALUE, STATUS_FLAGS):
            try:
                found.append(
                    await answered(
                        self._application.read_property(
                            address_of(self._source.device), object_of(name), property_of(prop)
                        ),
                        f"{name} {prop}",
                    )
                )
            except InvalidInput as refused:
                found.append(refused)
        return found[0], found[1]

    async def _take(self, time_ns: int, values: Sequence[tuple[Any, Any]]) -> None:
        buffer = ReadingBuffer(self._source.mapped)
        for channel, (value, flags) in enumerate(values):
            self._add(buffer, channel, time_ns, value, flags)
        await self._feed.take(buffer.take())

    def _add(
        self, buffer: ReadingBuffer, channel: int, time_ns: int, value: Any, flags: Any
    ) -> None:
        mapped = self._source.mapped[channel]
        found, quality, code = value_in(value, mapped.delivered)
        if code:
            told = f"{mapped.address.object}: {value!s:.120} gives no good reading"
            self._feed.fault(code, told, channel=mapped.delivered.name, text=f"{value!s:.200}")
        buffer.add(channel, time_ns, found, max(quality, quality_of(flags)))

    def _note_silent(self, asked_ns: int, error: Unavailable) -> None:
        if self._silent_since_ns is None:
            self._silent_since_ns = asked_ns
            _log.error("BACnet device %s:%d is silent: %s", *self._source.device, error)

    def _note_answer(self, asked_ns: int) -> None:
        if self._silent_since_ns is not None:
            _log.info("BACnet device %s:%d answers again", *self._source.device)
            self._feed.lost("device.silent", self._silent_since_ns, asked_ns)
            self._silent_since_ns = None

    # --- changes of value -----------------------------------------------------------------

    async def listen(self, channel: int, process: int) -> None:
        """Take one object's changes, and subscribe anew whenever the subscription has ended."""
        point = self._source.mapped[channel].address
        told = False
        while True:
            try:
                async with self._application.change_of_value(
                    address_of(self._source.device),
                    object_of(point.object),
                    process,
                    True,
                    self._source.cov_lifetime_s,
                ) as subscription:
                    if told:
                        _log.info("%s tells its changes again", point.object)
                    told = False
                    await self._notifications(channel, subscription)
            except (Exception, asyncio.CancelledError) as error:
                if not is_refusal(error):
                    raise
                if not told:
                    _log.warning("%s cannot be subscribed, only polled: %r", point.object, error)
                told = True
            await asyncio.sleep(RESUBSCRIBE_PAUSE_S)

    async def _notifications(self, channel: int, subscription: Any) -> None:
        value: Any = None
        while True:
            renewal = subscription.refresh_subscription_task
            if renewal is not None and renewal.done() and renewal.exception() is not None:
                return
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    prop, found = await subscription.get_value()
            except TimeoutError:
                continue
            # A notification tells the value and then the flags (13.1, table 13-1).
            if str(prop) == PRESENT_VALUE:
                value = found
            elif str(prop) == STATUS_FLAGS and value is not None:
                if subscription.queue.qsize() > NOTIFICATIONS_HELD_MAX:
                    self._drop(subscription)
                buffer = ReadingBuffer(self._source.mapped)
                self._add(buffer, channel, self._now_ns(), value, found)
                await self._feed.take(buffer.take())

    def _drop(self, subscription: Any) -> None:
        """Give up what piled up; the next notification or poll tells the value as it is then."""
        now_ns, dropped = self._now_ns(), subscription.queue.qsize()
        while not subscription.queue.empty():
            subscription.queue.get_nowait()
        self._feed.lost("queue.overflow", now_ns, now_ns, dropped // 2)
