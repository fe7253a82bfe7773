"""Our place in a BACnet/IP network: on the wire itself, or a foreign device at a BBMD.

A broadcast ends at a router. A device in another network registers itself at a BBMD there, which
sends on what it wants to have broadcast, and to it what others broadcast.

References
----------
ANSI/ASHRAE 135-2020, J.4 (BACnet/IP broadcast management), J.5 (foreign devices), 16.10 (Who-Is).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from domain.errors import HeddleError, Unavailable
from edge_agent.bacnet.addresses import ForeignRegistration, Interface
from edge_agent.bacnet.requests import answered, property_of
from edge_agent.live import BrowsedItem, ConnectionLost

if TYPE_CHECKING:
    from bacpypes3.ipv4.app import ForeignApplication, NormalApplication

RETRIES: Final = 1
VENDOR: Final = 999
"""The vendor id that ASHRAE has set aside for experiments."""
DISCOVERY_S: Final = 3.0
LOOK_EVERY_S: Final = 1.0
LOOK_OFTEN_S: Final = 0.05
NAME_S: Final = 2.0
AGAIN_S: Final = 30.0
"""A BBMD that refused us is asked again after so long."""
DEVICE: Final = "device"
REFUSED: Final = "bbmd.refused"
_REGISTERED: Final = 0

_log = logging.getLogger("heddle.edge.bacnet")


class Station:
    """Our side of BACnet/IP while it is open.

    Parameters
    ----------
    instance : our own device's, unique in the plant
    timeout_s : for how long an answer is waited for, before it is asked for once more
    """

    def __init__(
        self,
        name: str,
        interface: Interface,
        instance: int,
        timeout_s: float,
        foreign: ForeignRegistration | None,
    ) -> None:
        self._foreign = foreign
        self._timeout_s = timeout_s
        self.application = self._opened(name, interface, instance)
        if foreign is not None:
            self._register(foreign)

    async def close(self) -> None:
        """Leave the network; a BBMD is told."""
        if self._foreign is not None:
            self.application.unregister()
            # The farewell goes out in a task of the library's.
            for _ in range(5):
                await asyncio.sleep(0)
        end_application(self.application)

    async def registered(self) -> None:
        """Return once broadcasts reach us, which without a BBMD they do at once.

        Raises
        ------
        Unavailable
            ``bbmd.refused``, ``bbmd.silent``
        """
        told = self._registration_failure()
        until = asyncio.get_running_loop().time() + self._timeout_s
        while told and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(LOOK_OFTEN_S)
            told = self._registration_failure()
        if told:
            raise told

    async def watch_registration(self) -> None:
        """Tell, for ever, when a BBMD does not serve us and when it does again.

        Devices that are asked by their address do not need it, so nothing ends because of it.
        """
        failing = False
        while self._foreign is not None:
            try:
                await self.registered()
                if failing:
                    _log.info("the BBMD at %s:%d serves us", self._foreign.host, self._foreign.port)
                failing = False
            except Unavailable as error:
                if not failing:
                    _log.warning("no broadcasts come: %s", error)
                failing = True
                if error.code == REFUSED:
                    await asyncio.sleep(AGAIN_S)
                    # The library listens to no other answer once it was refused.
                    self.application.unregister()
                    self._register(self._foreign)
            await asyncio.sleep(LOOK_EVERY_S)
        await asyncio.Event().wait()

    async def discover(self, count_max: int) -> AsyncIterator[BrowsedItem]:
        """Yield the devices that say who they are within `DISCOVERY_S`, by their instances.

        Raises
        ------
        Unavailable
            ``bbmd.refused``, ``bbmd.silent``
        """
        await self.registered()
        told = await self.application.who_is(timeout=DISCOVERY_S)
        for device in sorted(told, key=lambda one: one.iAmDeviceIdentifier[1])[:count_max]:
            identifier = device.iAmDeviceIdentifier
            title = await self._name_of(device.pduSource, identifier)
            kind = f"{DEVICE} of vendor {device.vendorID}"
            yield BrowsedItem(str(device.pduSource), title, f"{DEVICE},{identifier[1]}", kind)

    async def _name_of(self, address: Any, identifier: Any) -> str:
        """Return what a device calls itself; nothing where it does not say."""
        try:
            async with asyncio.timeout(NAME_S):
                name = await answered(
                    self.application.read_property(address, identifier, property_of("object-name")),
                    "object-name",
                )
        except (HeddleError, TimeoutError):
            return ""
        return str(name)

    def _registration_failure(self) -> Unavailable | None:
        if self._foreign is None:
            return None
        status = self.application.foreign.bbmdRegistrationStatus
        where = f"the BBMD at {self._foreign.host}:{self._foreign.port}"
        if status == _REGISTERED:
            return None
        if status > 0:
            return Unavailable(REFUSED, f"{where} refuses to register us: {status:#06x}")
        return Unavailable("bbmd.silent", f"{where} does not answer our registration")

    def _opened(self, name: str, interface: Interface, instance: int) -> Any:
        from bacpypes3.ipv4.app import ForeignApplication, NormalApplication
        from bacpypes3.local.device import DeviceObject
        from bacpypes3.pdu import IPv4Address

        port = free_port(interface)
        device = DeviceObject(
            objectIdentifier=(DEVICE, instance),
            objectName=f"heddle-{name}",
            vendorIdentifier=VENDOR,
            apduTimeout=round(self._timeout_s * 1000),
            numberOfApduRetries=RETRIES,
        )
        own = IPv4Address(Interface(interface.host, port, interface.prefix).text)
        application: NormalApplication | ForeignApplication
        if self._foreign is None:
            application = NormalApplication(device, own)
        else:
            application = ForeignApplication(device, own)
            application.foreign.__class__ = _orderly_foreign()
        return application

    def _register(self, foreign: ForeignRegistration) -> None:
        from bacpypes3.pdu import IPv4Address

        bbmd = IPv4Address(f"{foreign.host}:{foreign.port}")
        self.application.register(bbmd, foreign.lifetime_s)


def end_application(application: Any) -> None:
    """Close the library's `application`, and give up what it has asked and was not answered.

    bacpypes3 0.0.110 asks again when its time is over, and where the socket is gone it fails before
    it has counted that: it would go on for ever.
    """
    application.close()
    for transaction in (*application.asap.clientTransactions, *application.asap.serverTransactions):
        transaction.stop_timer()
        if transaction._timer_expired_request is not None:
            transaction._timer_expired_request.cancel()


@cache
def _orderly_foreign() -> type[Any]:
    """Return the library's foreign device, of which no timer goes on after another or the end.

    bacpypes3 0.0.110 forgets a timer when it sets another, so one may fire after the farewell,
    when there is no BBMD any more.
    """
    from bacpypes3.ipv4.service import BIPForeign

    class OrderlyForeign(BIPForeign):  # type: ignore[misc]
        def _start_registration(self) -> None:
            if self.bbmdTimeToLive is None:
                return
            if self._reregistration_timeout_handle:
                self._reregistration_timeout_handle.cancel()
            super()._start_registration()

    return OrderlyForeign


def free_port(interface: Interface) -> int:
    """Return the interface's port, or a free one where that is 0.

    The library tries for ever to get a port; whether it is free is asked here.

    Raises
    ------
    ConnectionLost
        ``connection.address``
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((interface.host, interface.port))
        except OSError as error:
            told = f"UDP {interface.host}:{interface.port} cannot be had: {error}"
            raise ConnectionLost("connection.address", told) from error
        port: int = probe.getsockname()[1]
    return port
