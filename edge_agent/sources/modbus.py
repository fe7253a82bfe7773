"""Modbus TCP and RTU: registers of a device, polled; see `edge_agent.modbus.connection`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_agent.channel_mapping import mapped_channels
from edge_agent.modbus.registers import FORMATS, ORDERS, WORD_BITS, Field, Table
from edge_agent.scaling import read_scaling
from edge_agent.sources import ConnectionContext, SourceContext
from edge_agent.yaml_section import Section

if TYPE_CHECKING:
    from edge_agent.modbus.connection import (
        ModbusConnection,
        ModbusSource,
        ModbusTarget,
        Register,
        SerialLine,
        TcpLine,
    )

KINDS: Final = ("modbus-tcp", "modbus-rtu")

PORT: Final = 502
TIMEOUT_S: Final = 1.0
PERIOD_MS: Final = 1_000.0
PERIOD_MS_MAX: Final = 86_400_000.0
DEVICE_ID_MAX: Final = 255
GAP_MAX: Final = 120
ADDRESS_MAX: Final = 65_535
BOOL: Final = "bool"
PARITIES: Final = {"none": "N", "even": "E", "odd": "O"}


def configure_connection(
    section: Section,
    name: str,
    context: ConnectionContext,  # noqa: ARG001
) -> ModbusConnection | None:
    """Return the connection that `section` declares, or None after noting what is wrong."""
    from edge_agent.modbus.connection import ModbusConnection

    line: TcpLine | SerialLine | None
    line = _tcp_line(section) if section.plain("kind") == KINDS[0] else _serial_line(section)
    return None if line is None else ModbusConnection(name, line)


def configure(section: Section, context: SourceContext) -> ModbusSource | None:
    """Return the source that `section` declares, or None after noting what is wrong."""
    from edge_agent.modbus.connection import ModbusSource

    device_id = section.whole_number("device_id", 0, DEVICE_ID_MAX, 1)
    gap_max = section.whole_number("gap", 0, GAP_MAX, 0)
    period_ms = section.number("period_ms", 1.0, PERIOD_MS_MAX, PERIOD_MS)
    if device_id is None or gap_max is None or period_ms is None:
        return None
    channels = mapped_channels(
        section, context, lambda mapping, _rate_hz: _register(mapping, period_ms)
    )
    for mapped in channels:
        if mapped.delivered.value_type == "str":
            told = f"{mapped.delivered.name!r} holds texts, and a device's registers hold numbers"
            section.fault("channels", "mapping.no_text", told)
    return ModbusSource(tuple(channels), device_id, gap_max) if channels else None


def configure_target(section: Section, context: SourceContext) -> ModbusTarget | None:  # noqa: ARG001
    """Return what `section` says can be written, or None after noting what is wrong."""
    from edge_agent.modbus.connection import ModbusTarget

    device_id = section.whole_number("device_id", 0, DEVICE_ID_MAX, 1)
    found = _field(section, (Table.HOLDING, Table.COIL))
    scaling = read_scaling(section)
    if found is not None and found.bit_count:
        told = "a bit field cannot be written: the bits beside it would be written with it"
        section.fault("bit", "mapping.bits", told)
        return None
    if device_id is None or found is None or scaling is None:
        return None
    return ModbusTarget(device_id, found, scaling)


def _tcp_line(section: Section) -> TcpLine | None:
    from edge_agent.modbus.connection import TcpLine

    host = section.text("host")
    port = section.whole_number("port", 1, 65_535, PORT)
    timeout_s = section.number("timeout_s", 0.05, 60.0, TIMEOUT_S)
    if host is None or port is None or timeout_s is None:
        return None
    return TcpLine(host=host, port=port, timeout_s=timeout_s)


def _serial_line(section: Section) -> SerialLine | None:
    from edge_agent.modbus.connection import SerialLine

    port = section.text("port")
    baud_rate = section.whole_number("baud_rate", 50, 4_000_000, 19_200)
    parity = section.choice("parity", list(PARITIES), "even")
    data_bits = section.whole_number("data_bits", 7, 8, 8)
    stop_bits = section.whole_number("stop_bits", 1, 2, 1)
    timeout_s = section.number("timeout_s", 0.05, 60.0, TIMEOUT_S)
    if port is None or baud_rate is None or parity is None or timeout_s is None:
        return None
    if data_bits is None or stop_bits is None:
        return None
    return SerialLine(
        port=port,
        baud_rate=baud_rate,
        parity=PARITIES[parity],
        data_bits=data_bits,
        stop_bits=stop_bits,
        timeout_s=timeout_s,
    )


def _register(mapping: Section, period_ms: float) -> Register | None:
    from edge_agent.modbus.connection import Register

    found = _field(mapping, tuple(Table))
    own_period_ms = mapping.number("period_ms", 1.0, PERIOD_MS_MAX, period_ms)
    if found is None or own_period_ms is None:
        return None
    return Register(found, own_period_ms / 1000)


def _field(mapping: Section, tables: tuple[Table, ...]) -> Field | None:
    table_name = mapping.choice("table", [str(table) for table in tables], str(Table.HOLDING))
    address = mapping.whole_number("address", 0, ADDRESS_MAX)
    if table_name is None or address is None:
        return None
    table = Table(table_name)
    if table.has_bits:
        return Field(table=table, address=address, number_type=BOOL)
    number_type = mapping.choice("type", list(FORMATS), "uint16")
    word_order = mapping.choice("word_order", ORDERS, ORDERS[0])
    byte_order = mapping.choice("byte_order", ORDERS, ORDERS[0])
    if number_type is None or word_order is None or byte_order is None:
        return None
    found = Field(
        table=table,
        address=address,
        number_type=number_type,
        word_order=word_order,
        byte_order=byte_order,
    )
    return _with_bits(mapping, found, _absent(mapping, found.size * WORD_BITS))


def _with_bits(mapping: Section, found: Field, absent: tuple[int, ...] | None) -> Field | None:
    """Return `found` with its bit field and its patterns for no value."""
    from dataclasses import replace

    width = found.size * WORD_BITS
    if found.address + found.size - 1 > ADDRESS_MAX:
        told = f"{found.number_type} at {found.address} ends beyond {ADDRESS_MAX}"
        mapping.fault("address", "configuration.out_of_range", told)
        return None
    first_bit, bit_count = 0, 0
    if mapping.has("bit"):
        if found.is_float:
            mapping.fault("bit", "mapping.bits", f"a {found.number_type} has no bit fields")
            return None
        wanted = _pair(mapping, width)
        if wanted is None:
            return None
        first_bit, bit_count = wanted
    if absent is None:
        return None
    return replace(found, first_bit=first_bit, bit_count=bit_count, absent=absent)


def _pair(mapping: Section, width: int) -> tuple[int, int] | None:
    first = mapping.whole_number("bit", 0, width - 1)
    count = mapping.whole_number("bit_count", 1, width, 1)
    if first is None or count is None:
        return None
    if first + count > width:
        told = f"bits {first} to {first + count - 1} of {width}"
        mapping.fault("bit_count", "configuration.out_of_range", told)
        return None
    return first, count


def _absent(mapping: Section, width: int) -> tuple[int, ...] | None:
    """Return the patterns that stand for no value, each as its `width` bits read from 0 up."""
    if not mapping.has("absent"):
        return ()
    # Not as a number of the YAML reader's, which is a float and loses the low bits of 64.
    pattern = mapping.plain("absent")
    least, most = -(2 ** (width - 1)), 2**width - 1
    if isinstance(pattern, bool) or not isinstance(pattern, int):
        told = f"{pattern!r:.80} is no pattern of {width} bits, such as 0x8000"
        mapping.fault("absent", "configuration.wrong_type", told)
        return None
    if not least <= pattern <= most:
        told = f"{pattern} does not fit into {width} bits"
        mapping.fault("absent", "configuration.out_of_range", told)
        return None
    return (pattern % 2**width,)
