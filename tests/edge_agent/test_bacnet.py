"""BACnet/IP against a real device of bacpypes3 on the loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from domain.errors import InvalidInput, Unavailable
from domain.frames import Quality
from edge_agent.bacnet import network
from edge_agent.bacnet.addresses import Interface, check_interface
from edge_agent.bacnet.connection import BacnetConnection, BacnetTarget
from edge_agent.bacnet.device import BacnetSource
from edge_agent.browsing import channels_to_paste
from edge_agent.live import ConnectionLost
from edge_agent.scaling import Scaling
from edge_agent.trial import try_live_sources
from edge_agent.yaml_section import ConfigurationFaults
from tests.edge_agent.feeds import RecordingFeed, delivering, live_configuration, until

pytestmark = pytest.mark.anyio

FLOW, PRESSURE = 0, 1


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Device:
    """A device with two analog inputs, a broken one, and an output."""

    def __init__(self, port: int, *, multiple: bool = True) -> None:
        from bacpypes3.errors import UnrecognizedService
        from bacpypes3.ipv4.app import NormalApplication
        from bacpypes3.local.analog import AnalogInputObject, AnalogOutputObject
        from bacpypes3.local.binary import BinaryInputObject
        from bacpypes3.local.device import DeviceObject
        from bacpypes3.pdu import IPv4Address

        class OneByOne(NormalApplication):  # type: ignore[misc]
            """A device that does not know ReadPropertyMultiple."""

            async def do_ReadPropertyMultipleRequest(  # noqa: N802 (the library's name)
                self,
                apdu: Any,  # noqa: ARG002
            ) -> None:
                raise UnrecognizedService

        kind = NormalApplication if multiple else OneByOne
        device = DeviceObject(
            objectIdentifier=("device", 1001), objectName="plant", vendorIdentifier=999
        )
        self.port = port
        self.application = kind(device, IPv4Address(f"127.0.0.1/32:{port}"))
        shared = {"statusFlags": [0, 0, 0, 0], "eventState": "normal", "outOfService": False}
        self.flow = AnalogInputObject(
            objectIdentifier=("analogInput", 1),
            objectName="flow",
            presentValue=1.5,
            units="litersPerMinute",
            covIncrement=0.1,
            **shared,
        )
        self.pressure = AnalogInputObject(
            objectIdentifier=("analogInput", 2),
            objectName="pressure",
            presentValue=20.0,
            units="bars",
            covIncrement=0.1,
            **shared,
        )
        self.output = AnalogOutputObject(
            objectIdentifier=("analogOutput", 1),
            objectName="set flow",
            presentValue=3.0,
            relinquishDefault=3.0,
            units="litersPerMinute",
            **shared,
        )
        self.running = BinaryInputObject(
            objectIdentifier=("binaryInput", 1), objectName="on", presentValue="active", **shared
        )
        for made in (self.flow, self.pressure, self.output, self.running):
            self.application.add_object(made)

    def close(self) -> None:
        """Leave the network."""
        network.end_application(self.application)


@asynccontextmanager
async def device(**options: Any) -> AsyncIterator[Device]:
    made = Device(free_udp_port(), **options)
    await asyncio.sleep(0.05)
    try:
        yield made
    finally:
        made.close()
        await asyncio.sleep(0)


def source(port: int, **changes: Any) -> dict[str, Any]:
    declared: dict[str, Any] = {
        "kind": "bacnet",
        "connection": "building",
        "asset": "pump-1",
        "asset_type": "skab-pump-loop",
        "device": f"127.0.0.1:{port}",
        "period_s": 0.05,
        "channels": {
            "flow": {"object": "analog-input,1", "unit": "l/min"},
            "pressure": {"object": "analog-input:2", "unit": "bar", "scale": 0.1},
        },
        "window": {"seconds": 1, "readings": 1000},
    }
    return declared | changes


def configured(
    folder: Path, *sources: dict[str, Any]
) -> tuple[BacnetConnection, list[BacnetSource]]:
    declared = {
        "kind": "bacnet",
        "interface": "127.0.0.1:0",
        "device_instance": 599,
        "timeout_s": 0.2,
    }
    configuration = live_configuration(folder, {"building": declared}, *sources)
    made = configuration.connections[0].connection
    assert isinstance(made, BacnetConnection)
    found = [live.source for live in configuration.live]
    return made, [one for one in found if isinstance(one, BacnetSource)]


@pytest.mark.parametrize("multiple", [True, False])
async def test_objects_are_polled_with_their_flags(tmp_path: Path, multiple: bool) -> None:
    async with device(multiple=multiple) as peer:
        connection, (pump,) = configured(tmp_path, source(peer.port))
        feed = RecordingFeed()
        async with delivering(connection, (pump, feed)):
            await until(lambda: len(feed.values(FLOW)) >= 2)
            peer.flow.presentValue = 2.5
            peer.flow.reliability = "no-sensor"
            peer.pressure.outOfService = True
            await until(lambda: Quality.UNCERTAIN in feed.qualities(PRESSURE))
    assert feed.values(FLOW)[0] == 1.5
    assert feed.qualities(FLOW)[0] == Quality.GOOD
    assert feed.values(FLOW)[-1] == 2.5
    assert feed.qualities(FLOW)[-1] == Quality.BAD
    assert set(feed.values(PRESSURE)) == {2.0}
    assert feed.times_ns(FLOW) == sorted(feed.times_ns(FLOW))
    assert not feed.losses


async def test_what_an_object_gets_wrong_is_told_by_channel_and_harms_no_neighbour(
    tmp_path: Path,
) -> None:
    async with device() as peer:
        channels = {
            "flow": {"object": "analog-input,1", "unit": "l/min"},
            "pressure": {"object": "analog-input,77", "unit": "bar"},
            "motor_current": {"object": "device,1001", "unit": "A"},
            "supply_voltage": {"object": "binary-input,1", "unit": "V"},
            "accelerometer_1": {"object": "analog-input,2", "unit": "g_n"},
        }
        connection, (pump,) = configured(tmp_path, source(peer.port, channels=channels))
        feed = RecordingFeed()
        peer.pressure.presentValue = float("nan")
        async with delivering(connection, (pump, feed)):
            await until(lambda: len(feed.values(FLOW)) >= 2)
    assert feed.values(FLOW)[:2] == [1.5, 1.5]
    assert set(feed.qualities(1)) == set(feed.qualities(2)) == {Quality.MISSING}
    assert feed.values(3)[0] == 1.0
    told = {(fault.channel, fault.code) for fault in feed.faults}
    assert told == {
        ("pressure", "value.refused"),
        ("motor_current", "value.refused"),
        ("accelerometer_1", "value.not_finite"),
    }


async def test_changes_are_told_at_once_where_they_are_subscribed(tmp_path: Path) -> None:
    async with device() as peer:
        declared = source(peer.port, period_s=3_600, cov_lifetime_s=3)
        declared["channels"]["flow"]["cov"] = True
        connection, (pump,) = configured(tmp_path, declared)
        feed = RecordingFeed()
        async with delivering(connection, (pump, feed)):
            # The poll at the start, and the notification that a subscription begins with.
            await until(lambda: len(feed.values(FLOW)) >= 2)
            peer.flow.presentValue = 7.25
            await until(lambda: 7.25 in feed.values(FLOW))
            # A subscription of three seconds is renewed before it ends.
            await asyncio.sleep(3.5)
            peer.flow.presentValue = 9.5
            await until(lambda: 9.5 in feed.values(FLOW))
    assert set(feed.qualities(FLOW)) == {Quality.GOOD}
    assert len(feed.values(PRESSURE)) == 1


async def test_a_silent_device_is_declared_and_its_neighbour_goes_on(tmp_path: Path) -> None:
    async with device() as peer, device() as other:
        connection, (pump, neighbour) = configured(
            tmp_path, source(peer.port), source(other.port, asset="pump-2")
        )
        feed, others = RecordingFeed(), RecordingFeed()
        async with delivering(connection, (pump, feed), (neighbour, others)):
            await until(lambda: feed.values(FLOW) and others.values(FLOW))
            peer.close()
            await asyncio.sleep(0.6)
            before = len(others.values(FLOW))
            await until(lambda: len(others.values(FLOW)) > before)
            again = Device(peer.port)
            await until(lambda: feed.losses)
            again.close()
    reason, from_ns, to_ns, _ = feed.losses[0]
    assert reason == "device.silent"
    assert from_ns < to_ns
    assert not others.losses


async def test_a_value_is_written_at_its_priority_and_read_back(tmp_path: Path) -> None:
    async with device() as peer:
        connection, (pump,) = configured(tmp_path, source(peer.port))
        target = BacnetTarget(
            device=("127.0.0.1", peer.port),
            object="analog-output,1",
            priority=8,
            scaling=Scaling(0.5),
        )
        with pytest.raises(ConnectionLost):
            await connection.write(target, 1.0)
        async with delivering(connection, (pump, RecordingFeed())):
            await asyncio.sleep(0.05)
            assert await connection.write(target, 6.0) == 6.0
            assert peer.output.presentValue == 12.0
            assert peer.output.priorityArray[7].real == 12.0
            unknown = BacnetTarget(
                device=target.device, object="analog-output,9", priority=8, scaling=Scaling()
            )
            with pytest.raises(InvalidInput) as refused:
                await connection.write(unknown, 1.0)
            assert refused.value.code == "target.refused"
            away = BacnetTarget(
                device=("127.0.0.1", free_udp_port()),
                object="analog-output,1",
                priority=8,
                scaling=Scaling(),
            )
            with pytest.raises(Unavailable) as silent:
                await connection.write(away, 1.0)
            assert silent.value.code == "device.silent"


async def test_browsing_tells_objects_with_their_units(tmp_path: Path) -> None:
    async with device() as peer:
        connection, _ = configured(tmp_path, source(peer.port))
        found = [item async for item in connection.browse(f"127.0.0.1:{peer.port}", 10)]
    offered = {item.address: (item.title, item.value, item.unit) for item in found}
    assert offered["analog-input,1"] == ("flow", "1.5", "l/min")
    assert offered["analog-input,2"] == ("pressure", "20.0", "bar")
    assert offered["device,1001"] == ("plant", "", "")


class Bbmd:
    """A router of broadcasts, and a device that is foreign to it, each on a port of its own."""

    def __init__(self) -> None:
        from bacpypes3.ipv4.app import BBMDApplication, ForeignApplication
        from bacpypes3.local.device import DeviceObject
        from bacpypes3.pdu import IPv4Address

        def named(instance: int, name: str) -> Any:
            return DeviceObject(
                objectIdentifier=("device", instance), objectName=name, vendorIdentifier=999
            )

        self.port, self.device_port = free_udp_port(), free_udp_port()
        own = IPv4Address(f"127.0.0.1/32:{self.port}")
        self.router = BBMDApplication(named(2001, "router"), own)
        place = IPv4Address(f"127.0.0.1/32:{self.device_port}")
        self.device = ForeignApplication(named(2002, "far away"), place)
        self.device.register(own, 30)

    @property
    def foreign(self) -> list[str]:
        """The addresses that it sends broadcasts on to."""
        return [str(entry.fdAddress) for entry in self.router.bbmd.bbmdFDT]

    async def close(self) -> None:
        """Leave the network."""
        self.device.unregister()
        await asyncio.sleep(0.05)
        network.end_application(self.device)
        self.router.bbmd._fdt_clock_handle.cancel()
        network.end_application(self.router)
        await asyncio.sleep(0)


def connected(folder: Path, **changes: Any) -> BacnetConnection:
    """Return a connection that nothing but browsing is wanted of."""
    declared = {
        "kind": "bacnet",
        "interface": "127.0.0.1:0",
        "device_instance": 599,
        "timeout_s": 0.5,
    } | changes
    made = live_configuration(folder, {"building": declared}, source(1)).connections[0].connection
    assert isinstance(made, BacnetConnection)
    return made


async def test_devices_behind_a_router_of_broadcasts_are_discovered_by_a_foreign_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "DISCOVERY_S", 0.5)
    router = Bbmd()
    try:
        await until(lambda: len(router.foreign) == 1, "the device did not register")
        connection = connected(tmp_path, bbmd=f"127.0.0.1:{router.port}")
        found = [item async for item in connection.browse(None, 10)]
        assert {item.address: (item.title, item.value) for item in found} == {
            f"127.0.0.1:{router.port}": ("router", "device,2001"),
            f"127.0.0.1:{router.device_port}": ("far away", "device,2002"),
        }
        # Whoever leaves says so: nothing is sent to a port that nobody listens on.
        await until(lambda: router.foreign == [f"127.0.0.1:{router.device_port}"])
        assert "--below" in channels_to_paste("bacnet", found)
        assert f"127.0.0.1:{router.device_port}  far away" in channels_to_paste("bacnet", found)
        assert len([item async for item in connection.browse(None, 1)]) == 1
    finally:
        await router.close()


async def test_a_router_of_broadcasts_that_does_not_answer_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        connection = connected(tmp_path, bbmd=f"127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(Unavailable) as silent:
            [item async for item in connection.browse(None, 10)]
    assert silent.value.code == "bbmd.silent"


async def test_a_foreign_device_polls_on_where_its_router_of_broadcasts_is_silent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with device() as peer:
        declared = {
            "kind": "bacnet",
            "interface": "127.0.0.1:0",
            "device_instance": 599,
            "timeout_s": 0.2,
            "bbmd": f"127.0.0.1:{free_udp_port()}",
        }
        configuration = live_configuration(tmp_path, {"building": declared}, source(peer.port))
        connection, pump = configuration.connections[0].connection, configuration.live[0].source
        feed = RecordingFeed()
        async with delivering(connection, (pump, feed)):
            await until(lambda: "bbmd.silent" in caplog.text)
            seen = len(feed.values(FLOW))
            await until(lambda: len(feed.values(FLOW)) > seen)
    assert set(feed.values(FLOW)) == {1.5}


async def test_a_router_of_broadcasts_that_refused_us_is_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", logger="heddle.edge.bacnet")
    monkeypatch.setattr(network, "AGAIN_S", 0.1)
    monkeypatch.setattr(network, "LOOK_EVERY_S", 0.05)
    router = Bbmd()
    try:
        await until(lambda: len(router.foreign) == 1)
        register = router.router.bbmd.register_foreign_device
        # 30: Register-Foreign-Device NAK (135-2020, J.2.1).
        router.router.bbmd.register_foreign_device = lambda *_: 0x0030
        connection = connected(tmp_path, bbmd=f"127.0.0.1:{router.port}", timeout_s=0.1)
        with pytest.raises(Unavailable) as refused:
            [item async for item in connection.browse(None, 10)]
        assert refused.value.code == "bbmd.refused"
        async with delivering(connection):
            await until(lambda: "refuses to register us" in caplog.text)
            router.router.bbmd.register_foreign_device = register
            await until(lambda: len(router.foreign) == 2)
            await until(lambda: "serves us" in caplog.text)
    finally:
        await router.close()


async def test_devices_of_our_own_network_are_discovered_by_broadcast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "DISCOVERY_S", 0.5)
    async with device() as peer:
        # The library takes every address of the loopback with its own port for itself, so the
        # device answers from another port, and hears the broadcasts of this one by a socket.
        port = free_udp_port()
        ears, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: peer.application.normal.server.local_protocol,
            local_addr=("127.255.255.255", port),
            allow_broadcast=True,
            reuse_port=True,
        )
        peer.application.normal.server.local_protocol.server = peer.application.normal.server
        try:
            connection = connected(tmp_path, interface=f"127.0.0.1/8:{port}")
            found = [item async for item in connection.browse(None, 10)]
        finally:
            ears.close()
            await asyncio.sleep(0)
    addresses = [(item.address, item.title, item.value) for item in found]
    assert addresses == [(f"127.0.0.1:{peer.port}", "plant", "device,1001")]


async def test_a_check_listens_beside_an_agent_that_has_the_port(tmp_path: Path) -> None:
    async with device() as peer:
        port = free_udp_port()
        declared = {
            "kind": "bacnet",
            "interface": f"127.0.0.1:{port}",
            "device_instance": 599,
            "timeout_s": 0.5,
        }
        configuration = live_configuration(tmp_path, {"building": declared}, source(peer.port))
        connection, pump = configuration.connections[0].connection, configuration.live[0].source
        feed = RecordingFeed()
        async with delivering(connection, (pump, feed)) as agent:
            await until(lambda: feed.values(FLOW))
            (trial,) = await try_live_sources(configuration, 1, 10.0)
            assert not agent.done()
    assert not trial.failure
    assert [reading.value for reading in trial.readings] == [1.5, 2.0]


async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        connection = BacnetConnection("building", Interface(*taken.getsockname()), 1, 1.0)
        with pytest.raises(ConnectionLost, match=r"connection\.address"):
            await connection.run([])


@pytest.mark.parametrize(
    ("text", "interface"),
    [
        ("10.0.0.2", Interface("10.0.0.2", 47_808, 32)),
        ("10.0.0.2:47809", Interface("10.0.0.2", 47_809, 32)),
        ("10.0.0.2/24", Interface("10.0.0.2", 47_808, 24)),
        ("10.0.0.2/24:0", Interface("10.0.0.2", 0, 24)),
        ("10.0.0.2/", None),
        ("10.0.0.2/33", None),
        ("10.0.0.2/0", None),
        ("10.0.0.2/²4", None),
        ("10.0.0.2/24:65536", None),
        ("10.0.0.2/24:47808:1", None),
        ("/24", None),
        ("", None),
    ],
)
def test_an_interface_is_an_address_with_its_network_or_refused(
    text: str, interface: Interface | None
) -> None:
    if interface is not None:
        assert check_interface(text) == interface
        return
    with pytest.raises(InvalidInput) as refused:
        check_interface(text)
    assert refused.value.code == "connection.address"


def test_what_is_wrong_with_a_declaration_is_told_all_at_once(tmp_path: Path) -> None:
    declared = source(1, device="10.0.0.300", period_s=0)
    declared["channels"]["flow"] = {"object": "analog input 1", "unit": "l/min", "cov": "maybe"}
    with pytest.raises(ConfigurationFaults) as refused:
        configured(tmp_path, declared)
    assert {fault.code for fault in refused.value.faults} == {
        "connection.address",
        "configuration.out_of_range",
        "mapping.object",
        "configuration.wrong_type",
    }


async def test_what_was_asked_and_not_answered_is_not_asked_again_after_the_end() -> None:
    from bacpypes3.pdu import Address

    interface = Interface("127.0.0.1", 0, 32)
    station = network.Station("leaving", interface, 599, 0.05, None)
    failures: list[Any] = []
    loop = asyncio.get_running_loop()
    told, handler = lambda _, context: failures.append(context), loop.get_exception_handler()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.setblocking(False)
        device = Address(f"127.0.0.1:{silent.getsockname()[1]}")
        asking = asyncio.ensure_future(
            station.application.read_property(device, "device,1", "objectName")
        )
        await asyncio.wait_for(loop.sock_recv(silent, 1_500), 10)
        loop.set_exception_handler(told)
        try:
            await station.close()
            asking.cancel()
            await asyncio.sleep(0.3)  # the time for several more requests
        finally:
            loop.set_exception_handler(handler)
        with pytest.raises(BlockingIOError):
            silent.recv(1_500)
    assert not failures
