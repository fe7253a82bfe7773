"""OPC UA against a real server: subscriptions, statuses, restarts, secured sessions, bad input."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from asyncua.crypto.permission_rules import SimpleRoleRuleset, User, UserRole
from asyncua.crypto.truststore import TrustStore
from asyncua.crypto.validator import CertificateValidator
from asyncua.server.server import Server
from asyncua.server.user_managers import UserManager
from asyncua.ua.status_codes import StatusCodes
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import CommandRejected, InvalidInput
from domain.frames import Quality
from edge_agent.browsing import channels_to_paste
from edge_agent.channel_mapping import MappedChannel
from edge_agent.configuration import read_configuration
from edge_agent.live import ConnectionLost, DeliveredChannel
from edge_agent.opcua.connection import (
    HELD_MAX,
    Item,
    OpcUaSource,
    Publication,
    Served,
)
from edge_agent.opcua.values import delivered, delivered_run, quality_of
from edge_agent.opcua.writing import OpcUaTarget
from edge_agent.scaling import Scaling
from edge_agent.yaml_section import ConfigurationFaults
from tests.edge_agent.feeds import RecordingFeed, delivering, live_configuration, until
from tests.recordings import REPOSITORY

pytestmark = pytest.mark.anyio
NAMESPACE = "urn:heddle:test-plant"
S = 1_000_000_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quiet_library() -> Iterator[None]:
    """The library tells of each of its hundreds of standard nodes."""
    logger = logging.getLogger("asyncua")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


class Plc:
    """A controller with the variables of a pump."""

    def __init__(self, port: int, server: Server | None = None) -> None:
        self.url = f"opc.tcp://127.0.0.1:{port}/plant"
        self.server = server or Server()
        self.is_made = server is not None
        self.nodes: dict[str, Any] = {}

    async def open(self) -> None:
        if not self.is_made:
            await self.server.init()
        self.server.set_endpoint(self.url)
        index = await self.server.register_namespace(NAMESPACE)
        pump = await self.server.nodes.objects.add_object(index, "Pump7")
        for name, value in (
            ("Flow", ua.Variant(30.0)),
            ("Pressure", ua.Variant(11, ua.VariantType.Int16)),
            ("Setpoint", ua.Variant(320, ua.VariantType.UInt16)),
            ("Mode", ua.Variant("auto")),
        ):
            node = await pump.add_variable(
                ua.NodeId.from_string(f"ns={index};s=Pump7.{name}"), name, value
            )
            self.nodes[name] = node
        await self.nodes["Setpoint"].set_writable()
        await self.server.start()

    async def write(self, name: str, value: Any, status: int = 0, at: Any = None) -> None:
        moment: Any = at or datetime.now(UTC)
        variant = value if isinstance(value, ua.Variant) else ua.Variant(value)
        await self.nodes[name].write_value(
            ua.DataValue(variant, ua.StatusCode(ua.UInt32(status)), moment)
        )


@asynccontextmanager
async def plc(port: int | None = None, server: Server | None = None) -> AsyncIterator[Plc]:
    running = Plc(port or free_port(), server)
    await running.open()
    try:
        yield running
    finally:
        await running.server.stop()


def pump_source(**changes: Any) -> dict[str, Any]:
    source: dict[str, Any] = {
        "kind": "opcua",
        "connection": "plc-1",
        "asset": "pump-7",
        "asset_type": "skab-pump-loop",
        "window": {"seconds": 1, "readings": 1000},
        "publishing_ms": 20,
        "sampling_ms": 0,
        "channels": {
            "flow": {"node": f"nsu={NAMESPACE};s=Pump7.Flow", "unit": "l/min"},
            "pressure": {"node": "ns=2;s=Pump7.Pressure", "unit": "bar", "scale": 0.1},
        },
    }
    return source | changes


def connection_and_source(folder: Path, url: str, **changes: Any) -> tuple[Any, Any]:
    connections = {"plc-1": {"kind": "opcua", "url": url, "timeout_s": 2}}
    found = live_configuration(folder, connections, pump_source(**changes))
    return found.connections[0].connection, found.live[0].source


# --- readings -----------------------------------------------------------------------------


async def test_values_come_with_the_source_time_scaled_and_in_order(tmp_path: Path) -> None:
    async with plc() as running:
        connection, source = connection_and_source(tmp_path, running.url)
        feed = RecordingFeed()
        moment = datetime(2024, 5, 1, 12, tzinfo=UTC)
        async with delivering(connection, (source, feed)):
            await until(lambda: feed.values(0) and feed.values(1))
            for number in range(20):
                await running.write("Flow", float(number), at=moment + timedelta(seconds=number))
            await running.write("Pressure", ua.Variant(123, ua.VariantType.Int16))
            await until(lambda: 19.0 in feed.values(0) and 12.3 in feed.values(1))
    assert feed.values(0) == [30.0, *map(float, range(20))]
    first_ns = int(moment.timestamp()) * S
    assert feed.times_ns(0)[1:] == [first_ns + number * S for number in range(20)]
    assert feed.values(1) == [1.1, 12.3]  # 123 * 0.1, not its binary neighbour
    assert set(feed.qualities(0)) == {Quality.GOOD}
    assert (feed.faults, feed.losses) == ([], [])


@pytest.mark.parametrize(
    ("status", "quality"),
    [
        (StatusCodes.Good, Quality.GOOD),
        (StatusCodes.GoodClamped, Quality.GOOD),
        (StatusCodes.UncertainLastUsableValue, Quality.UNCERTAIN),
        (StatusCodes.BadSensorFailure, Quality.BAD),
        (0xC0000000, Quality.BAD),
    ],
)
async def test_severity_of_a_status_becomes_the_quality(status: int, quality: Quality) -> None:
    found = delivered(ua.DataValue(ua.Variant(1.5), ua.StatusCode(ua.UInt32(status))))
    assert (found.raw, found.quality) == (1.5, quality)


async def test_statuses_reach_the_feed_with_their_values(tmp_path: Path) -> None:
    async with plc() as running:
        connection, source = connection_and_source(tmp_path, running.url)
        feed = RecordingFeed()
        async with delivering(connection, (source, feed)):
            await until(lambda: feed.values(0))
            await running.write("Flow", 1.0, StatusCodes.UncertainLastUsableValue)
            await running.write("Flow", 2.0, StatusCodes.BadSensorFailure)
            await running.write("Flow", 3.0)
            await until(lambda: feed.values(0)[-1:] == [3.0])
    # This server sends no value beside a Bad status; so there is none to keep.
    assert feed.qualities(0)[-3:] == [Quality.UNCERTAIN, Quality.MISSING, Quality.GOOD]
    assert feed.faults == []


async def test_overflow_bit_of_the_servers_queue_is_a_declared_loss(tmp_path: Path) -> None:
    async with plc() as running:
        connection, source = connection_and_source(tmp_path, running.url)
        feed = RecordingFeed()
        async with delivering(connection, (source, feed)):
            await until(lambda: feed.values(0))
            await running.write("Flow", 1.0, 0x00000480)
            await until(lambda: feed.losses)
    assert [loss[0] for loss in feed.losses] == ["queue.overflow"]
    assert feed.values(0)[-1] == 1.0


async def test_unknown_node_costs_its_own_channel_alone_and_is_told_once(tmp_path: Path) -> None:
    channels = pump_source()["channels"]
    channels["motor_current"] = {"node": "ns=2;s=NoSuchNode", "unit": "A"}
    channels["supply_voltage"] = {"node": "nsu=urn:unknown;i=5", "unit": "V"}
    async with plc() as running:
        connection, source = connection_and_source(tmp_path, running.url, channels=channels)
        feed = RecordingFeed()
        async with delivering(connection, (source, feed)):
            await until(lambda: feed.values(0) and feed.values(1))
            await running.write("Flow", 5.0)
            await until(lambda: 5.0 in feed.values(0))
    assert [(f.code, f.channel) for f in feed.faults] == [
        ("node.refused", "supply_voltage"),
        ("node.refused", "motor_current"),
    ]
    assert "BadNodeIdUnknown" in feed.faults[1].message


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (ua.Variant("high"), "value.wrong_type"),
        (ua.Variant(math.nan), "value.not_finite"),
        (ua.Variant(math.inf), "value.not_finite"),
        (ua.Variant([1.0, 2.0]), "value.wrong_type"),
        (ua.Variant([0.0] * 100_000), "value.wrong_type"),
        (ua.Variant("x" * 100_000), "value.wrong_type"),
        (ua.Variant(b"\x00\xff"), "value.wrong_type"),
        (ua.Variant(datetime(2024, 1, 1, tzinfo=UTC)), "value.wrong_type"),
        (ua.Variant(None), "value.missing"),
    ],
)
async def test_what_is_no_number_is_missing_and_flagged(value: ua.Variant, code: str) -> None:
    found = delivered(ua.DataValue(value))
    assert (found.quality, found.code) == (Quality.MISSING, code)
    assert math.isnan(float(found.raw))
    assert len(found.message) < 500


async def test_wrong_type_harms_no_neighbour(tmp_path: Path) -> None:
    channels = pump_source()["channels"]
    channels["motor_current"] = {"node": "ns=2;s=Pump7.Mode", "unit": "A"}
    async with plc() as running:
        connection, source = connection_and_source(tmp_path, running.url, channels=channels)
        feed = RecordingFeed()
        async with delivering(connection, (source, feed)):
            await until(lambda: feed.values(0) and feed.qualities(2))
            await running.write("Flow", 6.0)
            await until(lambda: 6.0 in feed.values(0))
    assert feed.qualities(2) == [Quality.MISSING]
    assert [(f.code, f.channel) for f in feed.faults] == [("value.wrong_type", "motor_current")]


_numbers = st.one_of(st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats())
_anything = st.one_of(
    st.none(),
    _numbers,
    st.text(max_size=50),
    st.binary(max_size=50),
    st.lists(_numbers, max_size=9),
)


@given(value=_anything, status=st.integers(0, 2**32 - 1), as_run=st.booleans())
def test_no_value_and_no_status_raises(value: Any, status: int, as_run: bool) -> None:
    data = ua.DataValue(ua.Variant(0), ua.StatusCode(ua.UInt32(status)))
    object.__setattr__(data.Value, "Value", value)
    if as_run:
        run = delivered_run(data)
        assert len(run.raw) == len(run.qualities)
    else:
        found = delivered(data)
        assert math.isnan(float(found.raw)) == (found.quality == Quality.MISSING)
        assert found.quality >= quality_of(data.StatusCode) or found.quality == Quality.MISSING


async def test_array_is_a_waveform_stamped_at_its_end(tmp_path: Path) -> None:
    channels = {"accelerometer_1": {"node": "ns=2;s=Pump7.Wave", "unit": "m/s2", "rate_hz": 1000}}
    async with plc() as running:
        pump = await running.server.nodes.objects.get_child("2:Pump7")
        wave = await pump.add_variable(
            ua.NodeId.from_string("ns=2;s=Pump7.Wave"), "Wave", ua.Variant([0.0] * 4)
        )
        running.nodes["Wave"] = wave
        connection, source = connection_and_source(tmp_path, running.url, channels=channels)
        feed = RecordingFeed()
        async with delivering(connection, (source, feed)):
            await until(lambda: feed.taken)
            moment = datetime(2024, 5, 1, tzinfo=UTC)
            await running.write("Wave", [1.0, 2.0, 3.0], at=moment)
            await until(lambda: feed.values(0)[-3:] == [1.0, 2.0, 3.0])
    end_ns = int(moment.timestamp()) * S
    assert feed.times_ns(0)[-3:] == [end_ns - 2_000_000, end_ns - 1_000_000, end_ns]


# --- outages ------------------------------------------------------------------------------


async def test_restarted_controller_is_subscribed_again_and_the_outage_declared(
    tmp_path: Path,
) -> None:
    port = free_port()
    feed = RecordingFeed()
    async with plc(port) as running:
        connection, source = connection_and_source(tmp_path, running.url)
        async with delivering(connection, (source, feed)) as task:
            await until(lambda: feed.values(0))
            await running.server.stop()
            with pytest.raises(ConnectionLost, match=r"plc-1 \(opc.tcp"):
                await task
    with pytest.raises(ConnectionLost) as unreachable:
        await connection.run([(source, feed)])
    assert unreachable.value.code == "connection.unreachable"
    assert feed.losses == []
    async with plc(port) as running, delivering(connection, (source, feed)):
        await until(lambda: feed.losses)
        await running.write("Flow", 44.0)
        await until(lambda: 44.0 in feed.values(0))
    ((reason, from_ns, to_ns, count),) = feed.losses
    assert (reason, count) == ("connection.down", None)
    assert feed.times_ns(0)[0] - S < from_ns < to_ns


async def test_server_that_accepts_and_says_nothing_is_given_up(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connections = {
        "plc-1": {"kind": "opcua", "url": f"opc.tcp://127.0.0.1:{port}", "timeout_s": 0.2}
    }
    found = live_configuration(tmp_path, connections, pump_source())
    async with server:
        with pytest.raises(ConnectionLost) as lost:
            await found.connections[0].connection.run([(found.live[0].source, RecordingFeed())])
        await ended.wait()
    assert lost.value.code == "connection.unreachable"


@pytest.mark.parametrize(
    ("numbers", "gaps"),
    [
        ([(1, True), (2, True), (3, True)], 0),
        ([(7, True), (8, True)], 0),  # a subscription that was there before
        ([(1, True), (2, False), (2, True), (3, False), (3, False), (3, True)], 0),
        ([(1, True), (3, True)], 1),
        ([(1, True), (3, False), (3, True)], 1),  # what the keep-alive says is missing
        ([(2**32 - 1, True), (1, True)], 0),
        ([(2**32 - 2, True), (1, True)], 1),
        ([(1, True), (0, True), (2, True)], 0),
    ],
)
async def test_missing_publications_are_a_declared_loss(
    numbers: list[tuple[int, bool]], gaps: int
) -> None:
    client = Client("opc.tcp://127.0.0.1:4840")
    publication = Publication(client, ua.CreateSubscriptionParameters(), lambda: 5)
    feed = RecordingFeed()
    mapped = MappedChannel(DeliveredChannel("flow", "l/min"), Scaling(), Item("i=1", 0, 1))
    served = Served(OpcUaSource((mapped,), 100.0), feed, lambda: 5)
    publication.served = {1: (served, 0), 2: (served, 0)}
    for number, has_data in numbers:
        message = ua.NotificationMessage(SequenceNumber=ua.UInt32(number))
        message.NotificationData = [ua.DataChangeNotification()] if has_data else []
        await publication.publish_callback(ua.PublishResult(NotificationMessage=message))
    assert [loss[0] for loss in feed.losses] == ["sequence.gap"] * gaps


async def test_values_beyond_what_is_held_are_a_declared_loss() -> None:
    feed = RecordingFeed()
    channels = (
        MappedChannel(DeliveredChannel("flow", "l/min"), Scaling(), Item("i=1", 0, 1)),
        MappedChannel(
            DeliveredChannel("accelerometer_1", "m/s2", "f8", 1000.0), Scaling(), Item("i=2", 0, 1)
        ),
    )
    served = Served(OpcUaSource(channels, 100.0), feed, lambda: 5)
    served.add(1, ua.DataValue(ua.Variant([0.0] * (HELD_MAX + 1))))  # alone it may be so long
    served.add(0, ua.DataValue(ua.Variant(1.0)))
    assert feed.losses == [("queue.overflow", 5, 5, 1)]
    pump = asyncio.create_task(served.pump())
    await until(lambda: len(feed.values(1)) == HELD_MAX + 1)
    served.add(0, ua.DataValue(ua.Variant(2.0)))
    await until(lambda: feed.values(0) == [2.0])
    pump.cancel()


# --- security -----------------------------------------------------------------------------


class OneUser(UserManager):
    """Lets one user in."""

    def get_user(  # type: ignore[no-untyped-def]
        self,
        iserver,  # noqa: ARG002
        username=None,
        password=None,
        certificate=None,  # noqa: ARG002
    ):
        if (username, password) == ("heddle", "fabric"):
            return User(role=UserRole.Admin, name=username)
        return None


async def _key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    key, certificate = folder / f"{name}.pem", folder / f"{name}.der"
    await setup_self_signed_certificate(
        key,
        certificate,
        f"urn:heddle:{name}",
        socket.gethostname(),
        [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH],
        {"countryName": "DE", "organizationName": "Heddle"},
    )
    return key, certificate


@pytest.mark.parametrize(
    ("policy", "mode", "server_policy"),
    [
        ("Basic256Sha256", "Sign", ua.SecurityPolicyType.Basic256Sha256_Sign),
        ("Basic256Sha256", "SignAndEncrypt", ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt),
        (
            "Aes128_Sha256_RsaOaep",
            "SignAndEncrypt",
            ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
        ),
        (
            "Aes256_Sha256_RsaPss",
            "SignAndEncrypt",
            ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
        ),
    ],
)
async def test_secured_session_with_certificates_and_a_user(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy: str,
    mode: str,
    server_policy: ua.SecurityPolicyType,
) -> None:
    _, agent_certificate = await _key_pair(tmp_path, "agent")
    server_key, server_certificate = await _key_pair(tmp_path, "server")
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "agent.der").write_bytes(agent_certificate.read_bytes())
    server = Server(user_manager=OneUser())
    trusted = TrustStore([tmp_path / "trusted"], [])
    await trusted.load()

    def connection_to(url: str, password: str) -> Any:
        monkeypatch.setenv("HEDDLE_SECRET_PLC_PASSWORD", password)
        secured = {
            "policy": policy,
            "mode": mode,
            "certificate": "agent.der",
            "key": "agent.pem",
            "server_certificate": "server.der",
        }
        connections = {
            "plc-1": {
                "kind": "opcua",
                "url": url,
                "security": secured,
                "username": "heddle",
                "password": {"secret": "plc-password"},
            }
        }
        found = live_configuration(tmp_path, connections, pump_source())
        return found.connections[0].connection, found.live[0].source

    port = free_port()
    running = Plc(port, server)
    await server.init()
    await server.load_certificate(str(server_certificate))
    await server.load_private_key(str(server_key))
    server.set_security_policy(
        [server_policy],
        permission_ruleset=SimpleRoleRuleset(),  # type: ignore[no-untyped-call]
    )
    server.set_certificate_validator(CertificateValidator(trust_store=trusted))
    await running.open()
    try:
        connection, source = connection_to(running.url, "fabric")
        feed = RecordingFeed()
        async with delivering(connection, (source, feed)):
            await until(lambda: feed.values(0))
            assert await connection.write(_target("ns=2;s=Pump7.Setpoint"), 300.0) == 300.0
        wrong, source = connection_to(running.url, "guess")
        with pytest.raises(ConnectionLost) as refused:
            await wrong.run([(source, RecordingFeed())])
        assert "guess" not in str(refused.value)
        _, other = await _key_pair(tmp_path, "other")
        server_certificate.write_bytes(other.read_bytes())  # what we pinned is another's
        mistaken, source = connection_to(running.url, "fabric")
        with pytest.raises(ConnectionLost):
            await mistaken.run([(source, RecordingFeed())])
    finally:
        await server.stop()


# --- browsing and writing -----------------------------------------------------------------


def _target(node: str, scale: float = 1.0) -> OpcUaTarget:
    return OpcUaTarget(node, Scaling(scale))


async def test_browsing_shows_variables_with_values_to_paste(tmp_path: Path) -> None:
    async with plc() as running:
        connection, _ = connection_and_source(tmp_path, running.url)
        found = [item async for item in connection.browse("ns=2;i=1", 100)]
        everything = [item async for item in connection.browse(None, 100)]
        only = [item async for item in connection.browse("ns=2;i=1", 2)]
        with pytest.raises(InvalidInput, match=r"node\.malformed") as malformed:
            _ = [item async for item in connection.browse("nonsense", 2)]
    assert [(item.address, item.title, item.value, item.value_type) for item in found] == [
        ("ns=2;s=Pump7.Flow", "Flow", "30.0", "Double"),
        ("ns=2;s=Pump7.Pressure", "Pressure", "11", "Int16"),
        ("ns=2;s=Pump7.Setpoint", "Setpoint", "320", "UInt16"),
        ("ns=2;s=Pump7.Mode", "Mode", "auto", "String"),
    ]
    assert "Pump7/Flow" in [item.title for item in everything]
    assert len(only) == 2
    assert malformed.value.value == "nonsense"
    pasted = yaml.safe_load(channels_to_paste("opcua", found))
    assert pasted["channels"]["?4"] == {"node": "ns=2;s=Pump7.Mode", "unit": "?"}


async def test_writing_scales_types_and_reads_back(tmp_path: Path) -> None:
    async with plc() as running:
        connection, source = connection_and_source(tmp_path, running.url)
        with pytest.raises(ConnectionLost) as down:
            await connection.write(_target("ns=2;s=Pump7.Setpoint"), 1.0)
        assert down.value.code == "connection.down"
        feed = RecordingFeed()
        async with delivering(connection, (source, feed)):
            await until(lambda: feed.values(0))
            read = await connection.write(_target("ns=2;s=Pump7.Setpoint", scale=0.1), 33.3)
            assert read == 33.3
            assert await running.nodes["Setpoint"].read_value() == 333
            for node, value, code in (
                ("ns=2;s=Pump7.Flow", 1.0, "target.refused"),
                ("ns=2;s=None", 1.0, "target.refused"),
                ("nsu=urn:none;s=None", 1.0, "target.unknown"),
                ("ns=2;s=Pump7.Setpoint", 70_000.0, "target.out_of_range"),
                ("ns=2;s=Pump7.Mode", 1.0, "target.wrong_type"),
            ):
                with pytest.raises(CommandRejected) as rejected:
                    await connection.write(_target(node), value)
                assert rejected.value.code == code
            assert await running.nodes["Setpoint"].read_value() == 333


# --- configuration ------------------------------------------------------------------------


def test_every_fault_of_a_configuration_is_told_with_its_line(tmp_path: Path) -> None:
    connections = {
        "plc-1": {
            "kind": "opcua",
            "url": "http://10.0.0.1",
            "password": "open",
            "security": {
                "policy": "Basic256Sha256",
                "certificate": "none.der",
                "key": "none.pem",
                "server_certificate": "none.der",
            },
        }
    }
    with pytest.raises(ConfigurationFaults) as faulty:
        live_configuration(tmp_path, connections, pump_source())
    told = {(fault.key, fault.code) for fault in faulty.value.faults}
    assert told == {
        ("connections.plc-1.url", "connection.address"),
        ("connections.plc-1.password", "secret.in_configuration"),
        ("connections.plc-1.security.certificate", "connection.certificate"),
        ("connections.plc-1.security.server_certificate", "connection.certificate"),
        ("connections.plc-1.security.key", "connection.key"),
    }
    connections = {"plc-1": {"kind": "opcua", "url": "opc.tcp://127.0.0.1:4840"}}
    channels = {"flow": {"node": "Pump", "unit": "bar"}, "wind": {"node": "i=1", "unit": "V"}}
    with pytest.raises(ConfigurationFaults) as faulty:
        live_configuration(tmp_path, connections, pump_source(channels=channels))
    told = {(fault.key.partition("channels.")[2], fault.code) for fault in faulty.value.faults}
    assert told >= {("flow.node", "node.malformed"), ("wind", "channel.unknown")}
    with pytest.raises(ConfigurationFaults) as faulty:
        live_configuration(tmp_path, connections, pump_source(connection="plc-2"))
    assert [fault.code for fault in faulty.value.faults] == ["connection.unknown"]
    with pytest.raises(ConfigurationFaults) as faulty:
        live_configuration(tmp_path, connections, pump_source(kind="modbus-tcp"))
    assert [fault.code for fault in faulty.value.faults] == ["connection.other_kind"]
    with pytest.raises(ConfigurationFaults) as faulty:
        live_configuration(tmp_path, {"plc 1": {"kind": "csv"}}, pump_source())
    assert {fault.code for fault in faulty.value.faults} == {
        "connection.malformed_name",
        "connection.unknown",
    }


async def test_example_in_the_documentation_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (REPOSITORY / "docs" / "edge-protocols.md").read_text()
    example = next(
        part.partition("```")[0]
        for part in text.split("```yaml\n")[1:]
        if part.startswith("agent:")
    )
    folder = tmp_path / "certificates"
    folder.mkdir()
    for name in ("agent", "plc-1"):
        key, _ = await _key_pair(folder, name)
        assert key.is_file()
    monkeypatch.setenv("HEDDLE_SECRET_PLC_1_PASSWORD", "fabric")
    (tmp_path / "site.yaml").write_text(example)
    found = read_configuration(tmp_path / "site.yaml", tmp_path)
    assert [(source.name, source.connection) for source in found.live] == [
        ("pump-7", "plc-1"),
        ("pump-8", "drives"),
    ]
