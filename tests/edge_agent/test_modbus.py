"""Modbus against a real server, over TCP and over a serial line: registers, groups, faults."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import socket
import struct
import threading
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from select import select
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from domain.errors import CommandRejected, InvalidInput
from domain.frames import Quality
from edge_agent.live import ConnectionLost
from edge_agent.modbus.connection import ModbusTarget
from edge_agent.modbus.polling import Asked, Schedule, groups_of
from edge_agent.modbus.registers import FORMATS, Field, Table, registers_of, value_of
from edge_agent.scaling import Scaling
from edge_agent.yaml_section import ConfigurationFaults
from tests.edge_agent.feeds import RecordingFeed, delivering, live_configuration, until


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quiet_library() -> Iterator[None]:
    """The library tells of every refused request."""
    logger = logging.getLogger("pymodbus.logging")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


# --- registers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "registers", "expected"),
    [
        ({"number_type": "int16"}, [0xFFFF], -1.0),
        ({"number_type": "uint16", "byte_order": "little"}, [0x3412], float(0x1234)),
        ({"number_type": "uint32"}, [0x0001, 0x0002], 65538.0),
        ({"number_type": "uint32", "word_order": "little"}, [0x0002, 0x0001], 65538.0),
        ({"number_type": "float32"}, [0x41C8, 0x0000], 25.0),
        (
            {"number_type": "float32", "word_order": "little", "byte_order": "little"},
            [0x0000, 0xC841],
            25.0,
        ),
        ({"number_type": "float64"}, [0x4039, 0, 0, 0], 25.0),
        ({"number_type": "int64"}, [0xFFFF] * 4, -1.0),
        ({"number_type": "uint16", "first_bit": 3, "bit_count": 1}, [0b1000], 1.0),
        ({"number_type": "uint16", "first_bit": 4, "bit_count": 3}, [0b101_1111], 5.0),
    ],
)
def test_numbers_of_every_order(
    field: dict[str, Any], registers: list[int], expected: float
) -> None:
    found = value_of(Field(table=Table.HOLDING, address=0, **field), registers)
    assert (found.raw, found.quality, found.code) == (expected, Quality.GOOD, "")


@pytest.mark.parametrize(
    ("number_type", "registers", "absent"),
    [
        ("int16", [0x8000], (0x8000,)),
        ("uint32", [0xFFFF, 0xFFFF], (0xFFFF_FFFF,)),
        ("float32", [0x7F80, 0x0001], (0x7F80_0001,)),
    ],
)
def test_pattern_of_a_device_that_means_nothing_is_missing(
    number_type: str, registers: list[int], absent: tuple[int, ...]
) -> None:
    field = Field(table=Table.INPUT, address=0, number_type=number_type, absent=absent)
    found = value_of(field, registers)
    assert (found.quality, found.code) == (Quality.MISSING, "")
    assert math.isnan(float(found.raw))


@given(
    number_type=st.sampled_from(sorted(FORMATS)),
    word_order=st.sampled_from(["big", "little"]),
    byte_order=st.sampled_from(["big", "little"]),
    data=st.data(),
)
def test_what_was_written_is_read_back_in_every_order(
    number_type: str, word_order: str, byte_order: str, data: st.DataObject
) -> None:
    if number_type.startswith("float"):
        width = int(number_type.removeprefix("float"))
        number = data.draw(st.floats(allow_nan=False, allow_infinity=False, width=width))  # type: ignore[arg-type]
    else:
        limit = 2 ** min(50, struct.calcsize(FORMATS[number_type]) * 8 - 1)
        low = 0 if number_type.startswith("u") else -limit
        number = float(data.draw(st.integers(low, limit - 1)))
    field = Field(
        table=Table.HOLDING,
        address=0,
        number_type=number_type,
        word_order=word_order,
        byte_order=byte_order,
    )
    registers = registers_of(field, number)
    assert registers is not None
    assert value_of(field, registers).raw == number


@given(
    registers=st.lists(st.integers(0, 65_535), min_size=4, max_size=4),
    number_type=st.sampled_from(sorted(FORMATS)),
)
def test_garbage_in_registers_never_raises(registers: list[int], number_type: str) -> None:
    found = value_of(Field(table=Table.INPUT, address=0, number_type=number_type), registers)
    assert math.isfinite(float(found.raw)) or (found.quality, found.code) == (
        Quality.MISSING,
        "value.not_finite",
    )


# --- groups -------------------------------------------------------------------------------


def asked(*addresses: int, size: str = "uint16", period_s: float = 1.0) -> list[Asked]:
    return [
        Asked(channel, Field(table=Table.INPUT, address=address, number_type=size), period_s)
        for channel, address in enumerate(addresses)
    ]


def spans(wanted: list[Asked], gap: int) -> list[tuple[int, int]]:
    return [(group.start, group.count) for group in groups_of(1, wanted, gap)]


def test_neighbours_within_the_gap_share_a_request() -> None:
    assert spans(asked(0, 1, 4, 10), 0) == [(0, 2), (4, 1), (10, 1)]
    assert spans(asked(0, 1, 4, 10), 2) == [(0, 5), (10, 1)]
    assert spans(asked(10, 0, 4, 1), 5) == [(0, 11)]
    assert spans(asked(0, 1, size="float64"), 0) == [(0, 5)]  # they overlap
    assert spans([*asked(0), *asked(1, period_s=2.0)], 9) == [(0, 1), (1, 1)]


@given(
    addresses=st.lists(st.integers(0, 2_000), min_size=1, max_size=60),
    gap=st.integers(0, 120),
    size=st.sampled_from(sorted(FORMATS)),
)
def test_groups_hold_every_field_once_and_fit_into_a_request(
    addresses: list[int], gap: int, size: str
) -> None:
    groups = groups_of(1, asked(*addresses, size=size), gap)
    members = [member.channel for group in groups for member in group.members]
    assert sorted(members) == list(range(len(addresses)))
    for group in groups:
        assert group.count <= 125
        for member in group.members:
            assert group.start <= member.field.address
            assert member.field.address + member.field.size <= group.start + group.count


def test_schedule_counts_what_was_missed_and_keeps_its_beat() -> None:
    schedule = Schedule(period_s=1.0, due_s=10.0)
    assert (schedule.done(10.2), schedule.due_s) == (0, 11.0)
    assert (schedule.done(14.5), schedule.due_s) == (3, 15.0)


# --- a device -----------------------------------------------------------------------------


class Device:
    """What the server's devices hold; tests change it while it is served."""

    def __init__(self) -> None:
        self.registers = [0] * 64
        self.exceptions: dict[int, ExcCodes] = {}
        self.requests: list[tuple[int, int]] = []

    def put(self, address: int, layout: str, *numbers: float) -> None:
        raw = struct.pack(layout, *numbers)
        words = struct.unpack(f">{len(raw) // 2}H", raw)
        self.registers[address : address + len(words)] = words

    def devices(self) -> list[SimDevice]:
        async def answer(
            function_code: int,
            start_address: int,
            address: int,
            count: int,
            registers: list[int],
            written: list[int] | list[bool] | None,
        ) -> ExcCodes | None:
            self.requests.append((address, count))
            for at in range(address, address + count):
                if at in self.exceptions:
                    return self.exceptions[at]
            if function_code in (3, 4, 6, 16):
                registers[:] = self.registers
                if written is not None:
                    self.registers[address : address + len(written)] = [int(w) for w in written]
            return None

        def block() -> list[SimData]:
            return [SimData(0, values=[0] * 64, datatype=DataType.REGISTERS)]

        bits = [SimData(0, values=[True, False] * 8, datatype=DataType.BITS)]
        return [SimDevice(id=1, simdata=(bits, bits, block(), block()), action=answer)]


@asynccontextmanager
async def served(device: Device, port: int = 0) -> AsyncIterator[int]:
    if not port:
        with socket.socket() as opened:
            opened.bind(("127.0.0.1", 0))
            port = opened.getsockname()[1]
    server = ModbusTcpServer(device.devices(), address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    try:
        yield port
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]
        await asyncio.sleep(0.05)  # its transports close in the loop


def pump(**changes: Any) -> dict[str, Any]:
    source: dict[str, Any] = {
        "kind": "modbus-tcp",
        "connection": "drives",
        "asset": "pump-7",
        "asset_type": "skab-pump-loop",
        "period_ms": 10,
        "window": {"seconds": 1, "readings": 1000},
        "channels": {
            "flow": {"table": "holding", "address": 0, "type": "float32", "unit": "l/min"},
            "pressure": {
                "table": "input",
                "address": 4,
                "type": "int16",
                "unit": "bar",
                "scale": 0.01,
                "absent": 0x8000,
            },
        },
    }
    return source | changes


def made(folder: Path, port: int, *, timeout_s: float = 5.0, **changes: Any) -> tuple[Any, Any]:
    connections = {
        "drives": {"kind": "modbus-tcp", "host": "127.0.0.1", "port": port, "timeout_s": timeout_s}
    }
    found = live_configuration(folder, connections, pump(**changes))
    return found.connections[0].connection, found.live[0].source


@pytest.mark.anyio
async def test_registers_are_polled_scaled_exactly_and_missing_where_the_device_says_so(
    tmp_path: Path,
) -> None:
    device = Device()
    device.put(0, ">f", 31.5)
    device.put(4, ">h", 1230)
    async with served(device) as port:
        connection, source = made(tmp_path, port)
        feed = RecordingFeed()
        async with delivering(connection, (source, feed)):
            await until(lambda: 31.5 in feed.values(0) and 12.3 in feed.values(1))
            device.put(4, ">h", -32768)
            await until(lambda: Quality.MISSING in feed.qualities(1))
            device.put(0, ">f", math.nan)
            await until(lambda: Quality.MISSING in feed.qualities(0))
    assert set(feed.codes()) <= {"value.not_finite", "poll.late"}
    assert feed.times_ns(0) == sorted(set(feed.times_ns(0)))


@pytest.mark.anyio
async def test_bits_of_coils_and_registers(tmp_path: Path) -> None:
    device = Device()
    device.put(9, ">H", 0b0110_0000)
    channels = {
        "flow": {"table": "coil", "address": 0, "unit": "l/min"},
        "pressure": {"table": "discrete", "address": 1, "unit": "bar"},
        "motor_current": {"address": 9, "bit": 5, "bit_count": 2, "unit": "A"},
        "supply_voltage": {"address": 9, "bit": 4, "unit": "V"},
    }
    async with served(device) as port:
        connection, source = made(tmp_path, port, channels=channels)
        feed = RecordingFeed()
        async with delivering(connection, (source, feed)):
            await until(lambda: all(feed.values(channel) for channel in range(4)))
    assert [feed.values(channel)[0] for channel in range(4)] == [1.0, 0.0, 3.0, 0.0]


@pytest.mark.anyio
async def test_register_that_does_not_exist_costs_its_own_channel_alone(tmp_path: Path) -> None:
    device = Device()
    device.exceptions[2] = ExcCodes.ILLEGAL_ADDRESS
    device.put(0, ">HHHH", 10, 11, 12, 13)
    names = ("flow", "pressure", "motor_current", "supply_voltage")
    units = ("l/min", "bar", "A", "V")
    channels = {
        name: {"address": at, "unit": unit}
        for at, (name, unit) in enumerate(zip(names, units, strict=True))
    }
    async with served(device) as port:
        connection, source = made(tmp_path, port, channels=channels)
        feed = RecordingFeed()
        async with delivering(connection, (source, feed)):
            await until(lambda: all(q in feed.values(c) for c, q in ((0, 10), (1, 11), (3, 13))))
    assert set(feed.qualities(2)) == {Quality.MISSING}
    refused = [fault.channel for fault in feed.faults if fault.code == "register.refused"]
    assert refused[-1] == "motor_current"
    assert device.requests[0] == (0, 4)  # asked for together, until one was refused
    assert {(0, 2), (2, 1), (3, 1)} <= set(device.requests)


@pytest.mark.anyio
async def test_busy_device_is_told_and_its_group_stays_whole(tmp_path: Path) -> None:
    device = Device()
    device.exceptions[0] = ExcCodes.DEVICE_BUSY
    async with served(device) as port:
        connection, source = made(tmp_path, port)
        feed = RecordingFeed()
        async with delivering(connection, (source, feed)):
            await until(lambda: Quality.MISSING in feed.qualities(0))
            device.exceptions.clear()
            await until(lambda: 0.0 in feed.values(0))
    told = [fault.message for fault in feed.faults if fault.channel == "flow"]
    assert "exception 6 (device busy)" in told[0]


@pytest.mark.anyio
async def test_device_that_never_answers_loses_the_connection_and_the_outage_is_declared(
    tmp_path: Path,
) -> None:
    ended = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(300):
                pass
        finally:
            writer.close()
            ended.set()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection, source = made(tmp_path, port, timeout_s=0.2)
    feed = RecordingFeed()
    async with server:
        with pytest.raises(ConnectionLost) as lost:
            await connection.run([(source, feed)])
        await until(ended.is_set)
    assert lost.value.code == "connection.silent"
    assert feed.codes() == {"poll.no_answer": 3}
    assert {*feed.qualities(0), *feed.qualities(1)} == {Quality.MISSING}
    with pytest.raises(ConnectionLost) as unreachable:
        await connection.run([(source, feed)])
    assert unreachable.value.code == "connection.unreachable"
    assert feed.losses == []
    patient, source = made(tmp_path, port)
    patient._outage = connection._outage
    async with served(Device(), port), delivering(patient, (source, feed)):
        await until(lambda: feed.losses and 0.0 in feed.values(0))
    assert [loss[0] for loss in feed.losses] == ["connection.down"]


@pytest.mark.anyio
async def test_answers_that_are_no_modbus_end_the_connection(tmp_path: Path) -> None:
    ended = asyncio.Event()
    garbage = itertools.cycle([b"\xff" * 260, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 7])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(300):
                writer.write(next(garbage))
        finally:
            writer.close()
            ended.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    feed = RecordingFeed()
    async with server:
        connection, source = made(tmp_path, server.sockets[0].getsockname()[1], timeout_s=0.2)
        with pytest.raises(ConnectionLost):
            await connection.run([(source, feed)])
        await until(ended.is_set)
    assert not [value for value in feed.values(0) + feed.values(1) if not math.isnan(value)]


@pytest.mark.anyio
async def test_writing_reads_back_and_refuses_what_cannot_be_held(tmp_path: Path) -> None:
    device = Device()
    register = Field(table=Table.HOLDING, address=20, number_type="uint16")
    double = Field(table=Table.HOLDING, address=30, number_type="float64", word_order="little")
    async with served(device) as port:
        connection, source = made(tmp_path, port)
        with pytest.raises(ConnectionLost) as down:
            await connection.write(ModbusTarget(1, register, Scaling()), 1.0)
        assert down.value.code == "connection.down"
        feed = RecordingFeed()
        async with delivering(connection, (source, feed)):
            await until(lambda: feed.values(0))
            assert await connection.write(ModbusTarget(1, register, Scaling(0.1)), 33.3) == 33.3
            assert device.registers[20] == 333
            assert await connection.write(ModbusTarget(1, double, Scaling()), 0.1) == 0.1
            with pytest.raises(CommandRejected) as large:
                await connection.write(ModbusTarget(1, register, Scaling()), 70_000.0)
            assert large.value.code == "target.out_of_range"
            device.exceptions[20] = ExcCodes.ILLEGAL_VALUE
            with pytest.raises(CommandRejected) as refused:
                await connection.write(ModbusTarget(1, register, Scaling()), 1.0)
            assert refused.value.code == "target.refused"
    assert device.registers[20] == 333


@pytest.mark.anyio
async def test_browsing_shows_registers_as_they_are(tmp_path: Path) -> None:
    device = Device()
    device.put(60, ">HHHH", 1, 2, 3, 4)
    async with served(device) as port:
        connection, _ = made(tmp_path, port)
        found = [item async for item in connection.browse("input:60@1", 2)]
        with pytest.raises(InvalidInput) as malformed:
            _ = [item async for item in connection.browse("register 5", 2)]
    assert [(item.address, item.value) for item in found] == [("input:60", "1"), ("input:61", "2")]
    assert malformed.value.code == "register.malformed"


# --- a serial line ------------------------------------------------------------------------


@contextmanager
def serial_line() -> Iterator[tuple[str, str]]:
    """Two ends of a line: pseudo-terminals, and a thread that is the wire between them."""
    near, near_name = os.openpty()
    far, far_name = os.openpty()
    for end in (near, near_name, far, far_name):
        tty.setraw(end)
    stop_read, stop_write = os.pipe()

    def carry() -> None:
        while True:
            ready, _, _ = select([near, far, stop_read], [], [])
            if stop_read in ready:
                return
            for end in ready:
                os.write(far if end == near else near, os.read(end, 4096))

    wire = threading.Thread(target=carry)
    wire.start()
    try:
        yield os.ttyname(near_name), os.ttyname(far_name)
    finally:
        os.write(stop_write, b"x")
        wire.join()
        for end in (near, near_name, far, far_name, stop_read, stop_write):
            os.close(end)


@pytest.mark.anyio
async def test_rtu_over_a_serial_line(tmp_path: Path) -> None:
    device = Device()
    device.put(0, ">f", 28.25)
    device.put(4, ">h", 250)
    with serial_line() as (here, there):
        server = ModbusSerialServer(device.devices(), port=there, baudrate=115_200)
        await server.serve_forever(background=True)
        line = {"kind": "modbus-rtu", "port": here, "baud_rate": 115_200, "parity": "none"}
        connections = {"line": line}
        source = pump(kind="modbus-rtu", connection="line")
        found = live_configuration(tmp_path, connections, source)
        feed = RecordingFeed()
        try:
            async with delivering(found.connections[0].connection, (found.live[0].source, feed)):
                await until(lambda: 28.25 in feed.values(0) and 2.5 in feed.values(1))
        finally:
            await server.shutdown()  # type: ignore[no-untyped-call]
            await asyncio.sleep(0.05)


def test_pattern_of_64_bits_is_read_to_its_last_bit(tmp_path: Path) -> None:
    channels = {
        "flow": {"address": 0, "type": "uint64", "absent": 2**64 - 1, "unit": "l/min"},
        "pressure": {"address": 4, "type": "int64", "absent": -1, "unit": "bar"},
    }
    _, source = made(tmp_path, 502, channels=channels)
    assert [mapped.address.field.absent for mapped in source.mapped] == [(2**64 - 1,)] * 2


def test_faults_of_a_mapping_are_told(tmp_path: Path) -> None:
    connections = {"drives": {"kind": "modbus-tcp", "host": "127.0.0.1", "port": 502}}
    channels = {
        "flow": {"address": 65_535, "type": "float32", "unit": "l/min"},
        "pressure": {"address": 0, "type": "float32", "bit": 3, "unit": "bar"},
        "motor_current": {"address": 0, "bit": 10, "bit_count": 9, "unit": "A"},
        "supply_voltage": {"address": 0, "absent": 0x1_0000, "unit": "V"},
    }
    with pytest.raises(ConfigurationFaults) as faulty:
        live_configuration(tmp_path, connections, pump(channels=channels))
    told = {(fault.key.partition("channels.")[2], fault.code) for fault in faulty.value.faults}
    assert told >= {
        ("flow.address", "configuration.out_of_range"),
        ("pressure.bit", "mapping.bits"),
        ("motor_current.bit_count", "configuration.out_of_range"),
        ("supply_voltage.absent", "configuration.out_of_range"),
    }
