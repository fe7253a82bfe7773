"""BACnet/IP devices as seen from one UDP port of ours.

Every device is polled on its own, so that one that is silent costs its neighbours nothing.
Channels may also be subscribed (COV): the device then tells changes at once, and polls go on as
the net under notifications that were lost. BACnet's values carry no time; a reading's time is
when it was asked for, or when its notification came.

References
----------
ANSI/ASHRAE 135-2020: 13.1 (COV), 15.7 (ReadPropertyMultiple), 15.9 (WriteProperty), 12 (objects).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from domain.errors import InvalidInput
from edge_agent.bacnet.addresses import UNITS, ForeignRegistration, Interface, check_address
from edge_agent.bacnet.device import PRESENT_VALUE, BacnetSource, DevicePolls
from edge_agent.bacnet.network import Station
from edge_agent.bacnet.requests import address_of, answered, number_of, object_of, property_of
from edge_agent.live import BrowsedItem, ConnectionLost, Feed, LiveSource, Target
from edge_agent.scaling import Scaling
from edge_agent.waiting import end_all, first_ended

if TYPE_CHECKING:
    from bacpypes3.ipv4.app import NormalApplication

INSTANCE_ANY: Final = 4_194_303
"""Asked of a device, this instance means its own (15.5.2)."""
WHO_IS_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BacnetTarget:
    """A present value that can be written.

    Parameters
    ----------
    priority : 1 to 16, in the object's list of priorities
    """

    device: tuple[str, int]
    object: str
    priority: int
    scaling: Scaling

    @property
    def address(self) -> str:
        """Its place: device and object."""
        host, port = self.device
        return f"{host}:{port}#{self.object}"


class BacnetConnection:
    """Our side of BACnet/IP: one UDP port, from which any number of devices is asked.

    Parameters
    ----------
    interface : our own IPv4 address and UDP port
    device_instance : our own, unique in the plant
    timeout_s : for how long an answer is waited for, before it is asked for once more
    now_ns : the wall clock, ns since 1970 UTC
    foreign : the BBMD at which we register as a foreign device; None where we are in the network
    """

    def __init__(
        self,
        name: str,
        interface: Interface,
        device_instance: int,
        timeout_s: float,
        now_ns: Callable[[], int] = time.time_ns,
        *,
        foreign: ForeignRegistration | None = None,
    ) -> None:
        self._name = name
        self._foreign = foreign
        self._interface = interface
        self._device_instance = device_instance
        self._timeout_s = timeout_s
        self._now_ns = now_ns
        self._application: NormalApplication | None = None
        self._processes = count(1)

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    async def run(self, sources: Sequence[tuple[LiveSource, Feed]]) -> None:
        """Deliver to every source's feed until cancelled.

        Raises
        ------
        ConnectionLost
            ``connection.address``: our own port cannot be had
        """
        station = self._open()
        application = self._application = station.application
        tasks: list[asyncio.Task[None]] = [asyncio.create_task(station.watch_registration())]
        try:
            for source, feed in sources:
                if isinstance(source, BacnetSource):
                    polls = DevicePolls(application, source, feed, self._now_ns)
                    tasks.append(asyncio.create_task(polls.poll()))
                    tasks += [
                        asyncio.create_task(polls.listen(channel, next(self._processes)))
                        for channel, mapped in enumerate(source.mapped)
                        if mapped.address.cov
                    ]
            await first_ended(tasks)
        finally:
            self._application = None
            await end_all(tasks)
            await station.close()

    def for_trial(self) -> BacnetConnection:
        """Return one on a free port of its own: that of an agent that runs is taken."""
        interface = replace(self._interface, port=0)
        return BacnetConnection(
            self._name,
            interface,
            self._device_instance,
            self._timeout_s,
            self._now_ns,
            foreign=self._foreign,
        )

    async def write(self, target: Target, value: float) -> float:
        """Write a present value at the target's priority, and return what is read back.

        Raises
        ------
        ConnectionLost
            ``connection.down``
        InvalidInput
            ``target.foreign``, ``target.refused``
        """
        if not isinstance(target, BacnetTarget):
            raise InvalidInput("target.foreign", f"{target.address!r} is no BACnet object")
        application = self._application
        if application is None:
            raise ConnectionLost("connection.down", "nothing is open to BACnet")
        raw = target.scaling.invert(value)
        await answered(
            application.write_property(
                address_of(target.device),
                object_of(target.object),
                property_of(PRESENT_VALUE),
                _written(target.object, raw),
                None,
                target.priority,
            ),
            target.address,
        )
        reported = await answered(
            application.read_property(
                address_of(target.device), object_of(target.object), property_of(PRESENT_VALUE)
            ),
            target.address,
        )
        number, _, code = number_of(reported)
        if code:
            told = f"{target.address} reads back {reported!r:.80}"
            raise InvalidInput("target.refused", told)
        return float(target.scaling.apply(np.array([number]))[0])

    async def browse(self, below: str | None, count_max: int) -> AsyncIterator[BrowsedItem]:
        """Yield the objects of the device at the address `below`, each with value and unit.

        Without an address, yield the devices that answer a Who-Is.

        Raises
        ------
        ConnectionLost, Unavailable
            ``connection.address``; ``bbmd.refused``, ``bbmd.silent``; ``device.silent``
        """
        device = None if below is None else check_address(below)
        station = self._open_beside()
        try:
            if device is None:
                async for item in station.discover(count_max):
                    yield item
                return
            found = await _device_objects(station.application, device)
            for identifier in found[:count_max]:
                yield await _offered(station.application, device, identifier)
        finally:
            await station.close()

    def _open(self) -> Station:
        return Station(
            self._name, self._interface, self._device_instance, self._timeout_s, self._foreign
        )

    def _open_beside(self) -> Station:
        """Return a station on our own port, or where an agent has that already, on a free one.

        Devices that answer a Who-Is by broadcast are heard on the plant's port alone.
        """
        try:
            return self._open()
        except ConnectionLost:
            return self.for_trial()._open()


def _written(name: str, value: float) -> Any:
    """Return `value` as an object of its type takes it: a state is a whole number."""
    if name.startswith(("binary-", "multi-state-", "positive-integer-", "integer-")):
        if value != math.floor(value):
            raise InvalidInput("value.wrong_type", f"{name} takes whole numbers, not {value!r}")
        return int(value)
    return float(value)


async def _device_objects(application: NormalApplication, device: tuple[str, int]) -> list[Any]:
    """Return every object of the device.

    Raises
    ------
    Unavailable
        ``device.silent``
    """
    address = address_of(device)
    told = await application.who_is(address=address, timeout=WHO_IS_S)
    # Where it does not say who it is, the wildcard means whoever is asked (15.5.2).
    own = told[0].iAmDeviceIdentifier if told else object_of(f"device,{INSTANCE_ANY}")
    found = await answered(
        application.read_property(address, own, property_of("object-list")), "object-list"
    )
    return list(found)


async def _offered(
    application: NormalApplication, device: tuple[str, int], identifier: Any
) -> BrowsedItem:
    found: dict[str, Any] = {}
    for prop in ("object-name", PRESENT_VALUE, "units"):
        try:
            found[prop] = await answered(
                application.read_property(address_of(device), identifier, property_of(prop)), prop
            )
        except InvalidInput:
            found[prop] = None
    kind, instance = identifier
    unit = str(found["units"]) if found["units"] is not None else ""
    value = found[PRESENT_VALUE]
    return BrowsedItem(
        address=f"{kind},{instance}",
        title=str(found["object-name"] or ""),
        value="" if value is None else str(value),
        value_type=type(value).__name__ if value is not None else "",
        unit=UNITS.get(unit, unit),
    )
