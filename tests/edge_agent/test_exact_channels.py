"""Texts, truth values and whole numbers of 64 bits: over every protocol, from a real peer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from hypothesis import given
from hypothesis import strategies as st

from domain.asset_types import asset_type
from domain.frame_decoding import decode
from domain.frame_encoding import encode
from domain.frames import TEXT_LENGTH_MAX, Quality
from edge_agent.configuration import AgentConfiguration, read_configuration
from edge_agent.delivered_values import NO_VALUE, value_of
from edge_agent.live import DeliveredChannel, LiveSource
from edge_agent.live.framing import frames_of
from edge_agent.live.order import Ordering
from edge_agent.live.window import Window
from edge_agent.mqtt.client import Broker, MqttClient, Publication
from edge_agent.sparkplug.payload import DataType, metric_of
from edge_agent.trial import try_live_sources
from edge_agent.yaml_section import ConfigurationFaults
from tests.brokers import mosquitto_broker
from tests.edge_agent import test_bacnet, test_modbus, test_opcua, test_serial_line
from tests.edge_agent.feeds import RecordingFeed, delivering, live_configuration, until
from tests.edge_agent.sparkplug.observer import DEVICE, GROUP, NODE, observing
from tests.edge_agent.sparkplug.test_host import bd_seq, tell

pytestmark = pytest.mark.anyio

MACHINE = "production-machine"
RUNNING, ALARM, PROGRAM, SPEED = range(4)
BEYOND_FLOAT = 2**53 + 1
"""The smallest whole number that no float64 is."""
WINDOW = {"seconds": 1, "readings": 1000}
line = test_serial_line.line


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quiet_libraries() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("asyncua", "pymodbus.logging")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def configured(
    folder: Path, connection: dict[str, Any], source: dict[str, Any], channels: dict[str, Any]
) -> tuple[Any, Any]:
    """Return the connection, and its source of a production machine's `channels`."""
    declared = {
        "kind": connection["kind"],
        "connection": "one",
        "asset": "lathe-1",
        "asset_type": MACHINE,
        "window": WINDOW,
        "channels": channels,
    }
    found: AgentConfiguration = live_configuration(folder, {"one": connection}, declared | source)
    return found.connections[0].connection, found.live[0].source


def as_recorded(source: LiveSource, feed: RecordingFeed) -> dict[str, list[Any]]:
    """Return what frames of the readings say, channel by channel, after their journey."""
    channels = Ordering(source.channels).ordered(feed.taken)
    window = Window("lathe-1", "lathe-1", asset_type(MACHINE), channels)
    found: dict[str, list[Any]] = {}
    for frame in frames_of(window, "agent-1", 1):
        received = decode(encode(frame))
        assert received.canonical_sha256 == frame.canonical_sha256
        for name, values in zip(received.header.names, received.values, strict=True):
            found.setdefault(name, []).extend(values.tolist())
    return found


async def test_fields_of_json_over_mqtt(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto_broker(folder) as broker:
        connection, source = configured(
            tmp_path,
            {"kind": "mqtt", "url": broker.url},
            {"topic": "lathe", "time": {"field": "t", "format": "unix_ms"}},
            {
                "running": {"field": "on"},
                "alarm_code": {"field": "alarm", "unit": "1"},
                "program": {"field": "program"},
                "drive_speed": {"field": "rpm", "unit": "rpm"},
            },
        )
        assert [c.value_type for c in source.channels] == ["b1", "i8", "str", "f8"]
        feed = RecordingFeed()
        noon_ms = 1_714_564_800_000
        async with delivering(connection, (source, feed)):
            await until(lambda: broker.said("Sending SUBACK"))
            client = MqttClient(
                Broker(host="127.0.0.1", port=broker.port, client_id="lathe"), lambda _message: None
            )
            await client.connect()
            for number, told in enumerate(
                (
                    '"on": true, "alarm": 9007199254740993, "program": "O1234 Gehäuse", "rpm": 5',
                    '"on": 0, "alarm": "-17", "program": "", "rpm": 6',
                    '"on": "yes", "alarm": 1.5, "program": 7, "rpm": 7',
                    '"on": 2, "alarm": 9223372036854775808, "program": "' + "x" * 1025 + '"',
                    '"on": null, "alarm": true, "program": null, "rpm": 8',
                )
            ):
                text = f'{{"t": {noon_ms + number}, {told}}}'
                await client.publish(Publication("lathe", text.encode(), qos=1))
            await until(lambda: len(feed.values(PROGRAM)) == 5)
            await until(lambda: feed.values(SPEED) == [5, 6, 7, 8])
            await client.close()
    missing = Quality.MISSING
    assert feed.values(RUNNING) == [True, False, False, False, False]
    assert feed.qualities(RUNNING) == [0, 0, missing, missing, missing]
    assert feed.values(ALARM)[:2] == [BEYOND_FLOAT, -17]
    # Of the unity, a truth value is the number 1; 2^63 is beyond 64 bits with a sign.
    assert feed.values(ALARM)[4] == 1
    assert feed.qualities(ALARM) == [0, 0, missing, missing, 0]
    assert feed.values(PROGRAM) == ["O1234 Gehäuse", "", "", "", ""]
    assert feed.qualities(PROGRAM) == [0, 0, missing, missing, missing]
    assert feed.codes() == {
        "value.not_boolean": 2,
        "value.not_integer": 1,
        "value.out_of_range": 1,
        "value.not_text": 1,
        "value.text_too_long": 1,
    }
    recorded = as_recorded(source, feed)
    assert recorded["alarm_code"][0] == BEYOND_FLOAT
    assert recorded["program"][0] == "O1234 Gehäuse"
    assert recorded["running"][:2] == [True, False]


async def test_a_check_shows_them_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto_broker(folder) as broker:
        configuration = live_configuration(
            tmp_path,
            {"one": {"kind": "mqtt", "url": broker.url}},
            {
                "kind": "mqtt",
                "connection": "one",
                "asset": "lathe-1",
                "asset_type": MACHINE,
                "topic": "lathe",
                "time": {"field": "t", "format": "unix_ms"},
                "window": WINDOW,
                "channels": {
                    "running": {"field": "on"},
                    "alarm_code": {"field": "alarm"},
                    "program": {"field": "program"},
                },
            },
        )
        client = MqttClient(
            Broker(host="127.0.0.1", port=broker.port, client_id="lathe"), lambda _message: None
        )
        await client.connect()
        told = f'{{"t": 1714564800000, "on": true, "alarm": {BEYOND_FLOAT}, "program": "O1"}}'
        await client.publish(Publication("lathe", told.encode(), qos=1, retain=True))
        (trial,) = await try_live_sources(configuration, 1, 20.0)
        await client.close()
    shown = {reading.channel: (reading.value, reading.si) for reading in trial.readings}
    assert shown == {
        "running": (True, 1.0),
        "alarm_code": (BEYOND_FLOAT, float(BEYOND_FLOAT)),
        "program": ("O1", None),
    }


async def test_metrics_of_sparkplug(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto_broker(folder) as broker:
        connection, source = configured(
            tmp_path,
            {"kind": "sparkplug", "url": broker.url, "reorder_timeout_s": 0.3},
            {"group": GROUP, "node": NODE, "device": DEVICE},
            {
                "running": {"metric": "On"},
                "alarm_code": {"metric": "Alarm"},
                "program": {"metric": "Program"},
            },
        )
        feed = RecordingFeed()

        def metrics(running: bool, alarm: int, program: str, *, birth: bool) -> list[Any]:
            return [
                metric_of(value, kind, name=name, timestamp_ms=time_ms, tell_datatype=birth)
                for value, kind, name in (
                    (running, DataType.BOOLEAN, "On"),
                    (alarm, DataType.UINT64, "Alarm"),
                    (program, DataType.STRING, "Program"),
                )
            ]

        time_ms = 1_714_564_800_000
        async with observing(broker) as observer, delivering(connection, (source, feed)):
            await until(lambda: any(one.state.get("online") for one in observer.states()))
            await tell(observer, "NBIRTH", 0, bd_seq(0))
            first = metrics(True, BEYOND_FLOAT, "O1", birth=True)
            await tell(observer, "DBIRTH", 1, *first)
            time_ms += 1
            await tell(observer, "DDATA", 2, *metrics(False, 2**64 - 1, "O2", birth=False))
            time_ms += 1
            await tell(observer, "DDATA", 3, *metrics(True, 2**63 - 1, "O3", birth=False))
            await tell(observer, "DDEATH", 4, time_ms=time_ms + 1)
            await until(lambda: len(feed.values(2)) == 4)
    missing = Quality.MISSING
    assert feed.values(0) == [True, False, True, False]
    assert feed.qualities(0) == [0, 0, 0, missing]
    assert feed.values(1) == [BEYOND_FLOAT, 0, 2**63 - 1, 0]
    assert feed.qualities(1) == [0, missing, 0, missing]
    assert feed.values(2) == ["O1", "O2", "O3", ""]
    assert feed.codes() == {"value.out_of_range": 1}
    assert as_recorded(source, feed)["alarm_code"] == [BEYOND_FLOAT, 0, 2**63 - 1, 0]


async def test_nodes_of_opc_ua(tmp_path: Path) -> None:
    async with test_opcua.plc() as controller:
        connection, source = configured(
            tmp_path,
            {"kind": "opcua", "url": controller.url, "timeout_s": 2},
            {"publishing_ms": 20, "sampling_ms": 0},
            {
                "running": {"node": "ns=2;s=Lathe.On"},
                "alarm_code": {"node": "ns=2;s=Lathe.Alarm"},
                "program": {"node": "ns=2;s=Pump7.Mode"},
            },
        )
        objects = controller.server.nodes.objects
        for name, value in (
            ("On", ua.Variant(True)),
            ("Alarm", ua.Variant(BEYOND_FLOAT, ua.VariantType.UInt64)),
        ):
            node_id = ua.NodeId.from_string(f"ns=2;s=Lathe.{name}")
            controller.nodes[name] = await objects.add_variable(node_id, name, value)
        feed = RecordingFeed()
        async with delivering(connection, (source, feed)):
            await until(lambda: feed.values(0) and feed.values(1) and feed.values(2))
            await controller.write("On", ua.Variant(False))
            await controller.write("Mode", "manual", status=0x40000000)
            await controller.write("Alarm", ua.Variant(2**63, ua.VariantType.UInt64))
            await until(lambda: len(feed.values(1)) == len(feed.values(2)) == 2)
            await until(lambda: len(feed.values(0)) == 2)
    assert feed.values(0) == [True, False]
    assert feed.values(1) == [BEYOND_FLOAT, 0]
    assert feed.qualities(1) == [Quality.GOOD, Quality.MISSING]
    assert feed.values(2) == ["auto", "manual"]
    assert feed.qualities(2) == [Quality.GOOD, Quality.UNCERTAIN]
    assert feed.codes() == {"value.out_of_range": 1}
    assert as_recorded(source, feed)["alarm_code"][0] == BEYOND_FLOAT


async def test_registers_of_modbus(tmp_path: Path) -> None:
    device = test_modbus.Device()
    device.put(4, ">Q", BEYOND_FLOAT)
    async with test_modbus.served(device) as port:
        connection, source = configured(
            tmp_path,
            {"kind": "modbus-tcp", "host": "127.0.0.1", "port": port, "timeout_s": 5},
            {"period_ms": 10},
            {
                "running": {"table": "coil", "address": 0},
                "alarm_code": {"address": 4, "type": "uint64", "absent": 2**64 - 1},
                "drive_speed": {"address": 4, "type": "uint64", "unit": "rpm"},
            },
        )
        feed = RecordingFeed()
        async with delivering(connection, (source, feed)):
            await until(lambda: BEYOND_FLOAT in feed.values(1))
            device.put(4, ">Q", 2**63)
            await until(lambda: feed.codes()["value.out_of_range"])
            faults = len(feed.faults)
            device.put(4, ">Q", 2**64 - 1)
            await until(lambda: feed.values(1)[-1] == 0 and len(feed.faults) > faults)
    assert set(feed.values(0)) == {True}
    good = [v for v, q in zip(feed.values(1), feed.qualities(1), strict=True) if q == Quality.GOOD]
    assert set(good) == {BEYOND_FLOAT}
    # The same registers as a measured number are rounded, and say so.
    assert feed.values(2)[0] == 2.0**53
    assert feed.qualities(2)[0] == Quality.UNCERTAIN
    assert as_recorded(source, feed)["alarm_code"][0] == BEYOND_FLOAT


async def test_fields_of_a_serial_line(tmp_path: Path, line: test_serial_line.Line) -> None:
    connection, source = configured(
        tmp_path,
        {
            "kind": "serial-line",
            "port": line.path,
            "baud": 115_200,
            "frame": {"delimiter": "\r\n"},
        },
        {"format": "fields", "separator": ";"},
        {
            "running": {"field": 0},
            "alarm_code": {"field": 1},
            "program": {"field": 2},
        },
    )
    feed = RecordingFeed()
    async with delivering(connection, (source, feed)):
        await asyncio.sleep(0.05)
        line.say(f"1;{BEYOND_FLOAT};O1234\r\nfalse;;\r\nmaybe;1e3;O2\r\n0;7\r\n".encode())
        await until(lambda: len(feed.values(1)) == 4)
    missing = Quality.MISSING
    assert feed.values(0) == [True, False, False, False]
    assert feed.qualities(0) == [0, 0, missing, 0]
    assert feed.values(1) == [BEYOND_FLOAT, 0, 0, 7]
    assert feed.qualities(1) == [0, missing, missing, 0]
    # A text may be empty; one that is not there is missing.
    assert feed.values(2) == ["O1234", "", "O2", ""]
    assert feed.qualities(2) == [0, 0, 0, missing]
    assert feed.codes() == {"value.not_boolean": 1, "value.not_integer": 1, "value.absent": 1}


async def test_objects_of_bacnet(tmp_path: Path) -> None:
    from bacpypes3.local.multistate import MultiStateInputObject
    from bacpypes3.local.object import Object
    from bacpypes3.object import CharacterStringValueObject

    class Text(Object, CharacterStringValueObject):  # type: ignore[misc]
        """A text that the device serves."""

    async with test_bacnet.device() as peer:
        state = MultiStateInputObject(
            objectIdentifier=("multiStateInput", 1),
            objectName="state",
            presentValue=3,
            numberOfStates=5,
            statusFlags=[0, 0, 0, 0],
            eventState="normal",
            outOfService=False,
        )
        program = Text(
            objectIdentifier=("characterstringValue", 1),
            objectName="program",
            presentValue="O1234 Gehäuse",
            statusFlags=[0, 0, 0, 0],
        )
        for made in (state, program):
            peer.application.add_object(made)
        connection, source = configured(
            tmp_path,
            {
                "kind": "bacnet",
                "interface": "127.0.0.1:0",
                "device_instance": 599,
                "timeout_s": 0.5,
            },
            {"device": f"127.0.0.1:{peer.port}", "period_s": 0.05},
            {
                "running": {"object": "binary-input,1"},
                "alarm_code": {"object": "multi-state-input,1"},
                "program": {"object": "characterstring-value,1"},
            },
        )
        feed = RecordingFeed()
        async with delivering(connection, (source, feed)):
            await until(lambda: feed.values(2))
            peer.running.presentValue = 0
            await until(lambda: False in feed.values(0))
    assert feed.values(0)[0] is True
    assert set(feed.values(1)) == {3}
    assert set(feed.values(2)) == {"O1234 Gehäuse"}
    assert not feed.faults


# --- declarations -------------------------------------------------------------------------


def test_what_is_exact_is_neither_scaled_nor_a_waveform_nor_of_a_recording(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationFaults) as refused:
        configured(
            tmp_path,
            {"kind": "mqtt", "url": "mqtt://127.0.0.1"},
            {"topic": "lathe"},
            {
                "running": {"field": "on", "scale": 2},
                "alarm_code": {"field": "alarm", "rate_hz": 10},
                "program": {"field": "program", "unit": "bar"},
                "drive_speed": {"field": "rpm"},
            },
        )
    codes = sorted(fault.code for fault in refused.value.faults)
    assert codes == [
        "configuration.key_missing",
        "mapping.not_numeric",
        "mapping.not_numeric",
        "unit.quantity_mismatch",
    ]
    with pytest.raises(ConfigurationFaults) as refused:
        configured(
            tmp_path,
            {"kind": "modbus-tcp", "host": "127.0.0.1"},
            {},
            {"program": {"address": 0}},
        )
    assert [fault.code for fault in refused.value.faults] == ["mapping.no_text"]
    (tmp_path / "lathe.csv").write_text("t,program\n2024-05-01 12:00:00,O1\n")
    file = tmp_path / "recording.yaml"
    file.write_text(
        """
agent: test-agent
sources:
  - kind: csv
    asset: lathe-1
    asset_type: production-machine
    path: lathe.csv
    delimiter: ","
    time: {column: t, format: "%Y-%m-%d %H:%M:%S", zone: UTC}
    channels: {program: {column: program, unit: "1"}}
    window: {seconds: 60, readings: 100}
"""
    )
    with pytest.raises(ConfigurationFaults) as refused:
        read_configuration(file, tmp_path)
    assert "channel.wrong_type" in {fault.code for fault in refused.value.faults}


# --- whatever comes -----------------------------------------------------------------------

ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.text(min_size=TEXT_LENGTH_MAX // 4, max_size=TEXT_LENGTH_MAX + 5, alphabet="aé€\U0001f600")
    | st.sampled_from(["1_000", "٣", "nan", "-inf", " 1 ", "0x10", "1e999", "\ud800", "TRUE"])
    | st.binary(max_size=5)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=2), st.integers(), max_size=1)
    | st.sampled_from([np.float32(1.0), np.float64("nan"), np.uint64(2**64 - 1), np.bool_(True)])
)


@given(ANYTHING, st.sampled_from(sorted(NO_VALUE)))
def test_a_value_is_taken_as_it_is_or_missing(value: Any, value_type: str) -> None:
    found, quality, code = value_of(value, DeliveredChannel("any", "1", value_type))
    if quality == Quality.MISSING:
        assert code or value is None
        assert found == NO_VALUE[value_type] or found != found
        return
    match value_type:
        case "i8":
            assert type(found) is int
            assert -(2**63) <= found < 2**63
            assert found == (int(value) if isinstance(value, str) else value)
        case "b1":
            assert type(found) is bool
            assert isinstance(value, str) or found == value
        case "str":
            assert found == value
            assert len(value.encode()) <= TEXT_LENGTH_MAX
        case _:
            assert isinstance(found, float)
