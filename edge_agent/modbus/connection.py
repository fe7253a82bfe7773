"""A Modbus line or gateway with its devices: polled, one request at a time.

What a device does not answer costs its own channels alone; when no device answers, the connection
is lost. A Modbus device keeps nothing, so an outage is a declared loss.
"""

from __future__ import annotations

import asyncio
import itertools
import termios
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.client.base import ModbusBaseClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ExceptionResponse, ModbusPDU

from domain.errors import CommandRejected, InvalidInput
from domain.frames import Quality
from edge_agent.channel_mapping import MappedChannel
from edge_agent.live import BrowsedItem, ConnectionLost, DeliveredChannel, Feed, LiveSource, Target
from edge_agent.live.outage import Outage
from edge_agent.modbus.polling import BITS_MAX, REGISTERS_MAX, Asked, Group, Schedule, groups_of
from edge_agent.modbus.registers import Field, Table, registers_of, value_as, value_of
from edge_agent.reading_buffer import ReadingBuffer
from edge_agent.scaling import Scaling

SILENT_MAX: Final = 3
"""Requests in a row that nobody answers until the connection counts as lost."""
SILENT_PAUSE_S_MAX: Final = 30.0
ADDRESS_MAX: Final = 65_535
ILLEGAL_ADDRESS: Final = 2
EXCEPTIONS: Final = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledge",
    6: "device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target device failed to respond",
}
"""Modbus Application Protocol Specification V1.1b3, chapter 7."""
_FAILURES: Final = (OSError, TimeoutError, asyncio.TimeoutError, ModbusException, termios.error)


@dataclass(frozen=True, slots=True)
class Register:
    """Where a channel lies and how often it is asked for."""

    field: Field
    period_s: float


@dataclass(frozen=True)
class ModbusSource:
    """One asset's channels in the registers of one device.

    Parameters
    ----------
    gap_max : registers that nobody wants and that are read to save a request
    """

    mapped: tuple[MappedChannel[Register], ...]
    device_id: int
    gap_max: int

    @property
    def channels(self) -> tuple[DeliveredChannel, ...]:
        """What it delivers."""
        return tuple(mapped.delivered for mapped in self.mapped)


@dataclass(frozen=True)
class ModbusTarget:
    """A register, several, or a coil that may be written, and what its numbers mean."""

    device_id: int
    field: Field
    scaling: Scaling

    @property
    def address(self) -> str:
        """Table, address and device."""
        return f"{self.field.table}:{self.field.address}@{self.device_id}"


@dataclass(frozen=True, kw_only=True)
class TcpLine:
    """A device or gateway by its address."""

    host: str
    port: int
    timeout_s: float

    def client(self) -> ModbusBaseClient:
        """Return a client that is not connected yet; it never reconnects by itself."""
        return AsyncModbusTcpClient(
            self.host, port=self.port, timeout=self.timeout_s, retries=0, reconnect_delay=0
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class SerialLine:
    """A serial line with RTU frames."""

    port: str
    baud_rate: int
    parity: str
    data_bits: int
    stop_bits: int
    timeout_s: float

    def client(self) -> ModbusBaseClient:
        """Return a client that is not connected yet; it never reconnects by itself."""
        return AsyncModbusSerialClient(
            self.port,
            baudrate=self.baud_rate,
            parity=self.parity,
            bytesize=self.data_bits,
            stopbits=self.stop_bits,
            timeout=self.timeout_s,
            retries=0,
            reconnect_delay=0,
        )

    def __str__(self) -> str:
        return self.port


@dataclass
class _Poll:
    """A group of one source while it is polled."""

    source: ModbusSource
    feed: Feed
    group: Group
    schedule: Schedule
    silent_count: int = 0


class ModbusConnection:
    """A line with its devices (`edge_agent.live.Connection`).

    Parameters
    ----------
    now_ns : the wall clock, ns since 1970 UTC
    """

    def __init__(
        self,
        name: str,
        line: TcpLine | SerialLine,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.poll_count = 0
        self._name = name
        self._line = line
        self._now_ns = now_ns
        self._outage = Outage(now_ns)
        self._client: ModbusBaseClient | None = None
        self._line_free = asyncio.Lock()
        self._heard_ns: int | None = None

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    async def run(self, sources: Sequence[tuple[LiveSource, Feed]]) -> None:
        """Deliver until cancelled.

        Raises
        ------
        ConnectionLost
            ``connection.unreachable``, ``connection.lost``, ``connection.silent``
        """
        feeds = [feed for _, feed in sources]
        self._heard_ns = None
        try:
            self._client = await self._connected()
            await self._poll_all(_polls(sources), feeds)
        except (*_FAILURES, ConnectionLost) as error:
            self._outage.begun(self._heard_ns)
            if isinstance(error, ConnectionLost):
                raise
            raise self._lost("connection.lost", error) from error
        finally:
            if self._client is not None:
                self._client.close()
                self._client = None

    async def _connected(self) -> ModbusBaseClient:
        client = self._line.client()
        try:
            async with asyncio.timeout(2 * self._line.timeout_s + 1):
                connected = await client.connect()
        except _FAILURES as error:
            client.close()
            raise self._lost("connection.unreachable", error) from error
        if not connected:
            client.close()
            raise ConnectionLost("connection.unreachable", f"{self._where} cannot be reached")
        return client

    # --- polling --------------------------------------------------------------------------

    async def _poll_all(self, polls: list[_Poll], feeds: Sequence[Feed]) -> None:
        if not polls:
            await self._keep_open()
        silent_in_a_row = 0
        while True:
            poll = min(polls, key=lambda one: one.schedule.due_s)
            await asyncio.sleep(max(0.0, poll.schedule.due_s - time.monotonic()))
            answer, asked_ns = await self._ask(poll.group)
            self.poll_count += 1
            if answer is None:
                silent_in_a_row += 1
            else:
                silent_in_a_row = 0
                self._heard_ns = asked_ns
                self._outage.over(feeds)
            await self._take(poll, answer, asked_ns)
            if silent_in_a_row >= SILENT_MAX:
                told = f"{self._where}: {SILENT_MAX} requests without an answer"
                raise ConnectionLost("connection.silent", told)
            if _refuses_address(answer) and len(poll.group.members) > 1:
                # One register among them is none: the others are not to suffer for it.
                polls.remove(poll)
                now_s = time.monotonic()
                polls += [
                    _Poll(poll.source, poll.feed, half, Schedule(half.period_s, now_s))
                    for half in poll.group.halves()
                ]
                continue
            self._schedule(poll, answer)

    def _schedule(self, poll: _Poll, answer: ModbusPDU | None) -> None:
        """Move `poll` on; a device that says nothing is asked less and less often."""
        poll.silent_count = 0 if answer is not None else poll.silent_count + 1
        missed = poll.schedule.done(time.monotonic())
        if poll.silent_count:
            pause_s = poll.schedule.period_s * 2.0 ** min(poll.silent_count, 16)
            poll.schedule.due_s = time.monotonic() + min(
                max(SILENT_PAUSE_S_MAX, poll.schedule.period_s), pause_s
            )
        elif missed:
            told = f"{missed} polls of every {poll.schedule.period_s:g} s came too late"
            for _ in range(min(missed, 1_000)):
                poll.feed.fault("poll.late", told, channel=_first_name(poll))

    async def _ask(self, group: Group) -> tuple[ModbusPDU | None, int]:
        """Return the device's answer, None where there is none, and when it was asked for."""
        async with self._line_free:
            asked_ns = self._now_ns()
            client = self._client
            if client is None or not client.connected:
                raise ConnectionLost("connection.lost", f"{self._where} was closed")
            try:
                answer = await _read(client, group.table, group.start, group.count, group.device_id)
            except ModbusException:
                if not client.connected:
                    raise
                return None, asked_ns
        return answer, asked_ns

    async def _take(self, poll: _Poll, answer: ModbusPDU | None, asked_ns: int) -> None:
        """Hand on what `answer` says of every member; what it does not say is MISSING."""
        registers, code, told = _contents(poll.group, answer)
        buffer = ReadingBuffer(poll.source.mapped)
        for member in poll.group.members:
            channel = poll.source.mapped[member.channel].delivered
            if registers is None:
                poll.feed.fault(code, told, channel=channel.name)
                buffer.add_missing(member.channel, asked_ns)
                continue
            start = member.field.address - poll.group.start
            own = registers[start : start + member.field.size]
            value = value_as(member.field, own, channel)
            if value.code:
                poll.feed.fault(value.code, value.message, channel=channel.name)
            buffer.add(member.channel, asked_ns, value.raw, value.quality)
        await poll.feed.take(buffer.take())

    async def _keep_open(self) -> None:
        """Hold the line open for writing alone, until it is lost."""
        client = self._client
        for _ in itertools.count():
            await asyncio.sleep(1.0)
            if client is None or not client.connected:
                break
        raise ConnectionLost("connection.lost", f"{self._where} was closed")

    # --- browsing and writing -------------------------------------------------------------

    async def browse(self, below: str | None, count_max: int) -> AsyncIterator[BrowsedItem]:
        """Yield at most `count_max` registers or bits as they are now; Modbus knows no names.

        Parameters
        ----------
        below : ``TABLE``, ``TABLE:ADDRESS`` or ``TABLE:ADDRESS@DEVICE``, such as ``input:100@3``;
            the holding registers of device 1 unless given

        Raises
        ------
        ConnectionLost
        InvalidInput
            ``register.malformed``
        """
        table, address, device_id = read_place(below or Table.HOLDING)
        client = self._client
        own = client is None
        client = client or await self._connected()
        try:
            step = 16
            most = BITS_MAX if table.has_bits else REGISTERS_MAX
            for start in range(address, min(address + count_max, ADDRESS_MAX + 1), step):
                count = min(step, most, address + count_max - start, ADDRESS_MAX + 1 - start)
                async with self._line_free:
                    answer = await _read(client, table, start, count, device_id)
                if answer.isError():
                    continue
                for at, register in enumerate(_items(table, answer, count)):
                    place = f"{table}:{start + at}"
                    kind = "bool" if table.has_bits else "uint16"
                    yield BrowsedItem(place, "", str(int(register)), kind)
        except _FAILURES as error:
            raise self._lost("connection.silent", error) from error
        finally:
            if own:
                client.close()

    async def write(self, target: Target, value: float) -> float:
        """Write `value`, in the target's unit, and return what the device reads back.

        Raises
        ------
        ConnectionLost
            ``connection.down``, ``connection.silent``
        CommandRejected
            ``target.out_of_range``, ``target.refused``, ``target.unreadable``
        """
        wanted = cast(ModbusTarget, target)
        registers = registers_of(wanted.field, wanted.scaling.invert(value))
        if registers is None:
            raise CommandRejected(
                "target.out_of_range",
                f"{wanted.address} is a {wanted.field.number_type} and cannot hold {value}",
                value=value,
            )
        client = self._client
        if client is None:
            raise ConnectionLost("connection.down", f"{self._where} is not connected")
        try:
            async with self._line_free:
                _check(wanted, "target.refused", await _write(client, wanted, registers))
                field = wanted.field
                answer = await _read(
                    client, field.table, field.address, field.size, wanted.device_id
                )
                _check(wanted, "target.unreadable", answer)
        except _FAILURES as error:
            raise self._lost("connection.silent", error) from error
        read = value_of(wanted.field, _items(wanted.field.table, answer, wanted.field.size))
        if read.quality == Quality.MISSING:
            raise CommandRejected("target.unreadable", f"{wanted.address} reads back as no number")
        return float(wanted.scaling.apply(np.array([read.raw], np.float64))[0])

    @property
    def _where(self) -> str:
        return f"{self._name} ({self._line})"

    def _lost(self, code: str, error: BaseException) -> ConnectionLost:
        told = str(error) or type(error).__name__
        return ConnectionLost(code, f"{self._where}: {told:.300}")


def read_place(text: str) -> tuple[Table, int, int]:
    """Return table, address and device of ``TABLE[:ADDRESS][@DEVICE]``.

    Raises
    ------
    InvalidInput
        ``register.malformed``
    """
    place, _, device = text.partition("@")
    table, _, address = place.partition(":")
    try:
        found = Table(table), int(address or "0"), int(device or "1")
        if 0 <= found[1] <= ADDRESS_MAX and 0 <= found[2] <= 255:
            return found
    except ValueError:
        pass
    raise InvalidInput(
        "register.malformed",
        f"{text!r:.80} is no place in a Modbus device",
        hint="such as holding, input:100 or coil:0@3",
        value=text[:80],
    )


# --- requests and answers -----------------------------------------------------------------


def _polls(sources: Sequence[tuple[LiveSource, Feed]]) -> list[_Poll]:
    now_s = time.monotonic()
    polls: list[_Poll] = []
    for given, feed in sources:
        source = cast(ModbusSource, given)
        asked = [
            Asked(channel, mapped.address.field, mapped.address.period_s)
            for channel, mapped in enumerate(source.mapped)
        ]
        polls += [
            _Poll(source, feed, group, Schedule(group.period_s, now_s))
            for group in groups_of(source.device_id, asked, source.gap_max)
        ]
    return polls


async def _read(
    client: ModbusBaseClient, table: Table, start: int, count: int, device_id: int
) -> ModbusPDU:
    read: dict[Table, Callable[..., Any]] = {
        Table.COIL: client.read_coils,
        Table.DISCRETE: client.read_discrete_inputs,
        Table.INPUT: client.read_input_registers,
        Table.HOLDING: client.read_holding_registers,
    }
    answer: ModbusPDU = await read[table](start, count=count, device_id=device_id)
    _heed_cancellation()
    return answer


def _heed_cancellation() -> None:
    """Be cancelled where the library was, and took its answer all the same.

    It waits by `asyncio.wait_for`, which until Python 3.12 forgets a cancellation that comes
    together with the answer: whoever ends this task would wait for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _write(
    client: ModbusBaseClient, target: ModbusTarget, registers: Sequence[int]
) -> ModbusPDU:
    address, device_id = target.field.address, target.device_id
    if target.field.table is Table.COIL:
        return await client.write_coil(address, bool(registers[0]), device_id=device_id)
    if len(registers) == 1:
        return await client.write_register(address, registers[0], device_id=device_id)
    return await client.write_registers(address, list(registers), device_id=device_id)


def _check(target: ModbusTarget, code: str, answer: ModbusPDU) -> None:
    if answer.isError():
        raise CommandRejected(code, f"{target.address}: {_exception(answer)}")


def _exception(answer: ModbusPDU) -> str:
    number = getattr(answer, "exception_code", 0)
    return f"exception {number} ({EXCEPTIONS.get(number, 'not in the specification')})"


def _refuses_address(answer: ModbusPDU | None) -> bool:
    return isinstance(answer, ExceptionResponse) and answer.exception_code == ILLEGAL_ADDRESS


def _items(table: Table, answer: ModbusPDU, count: int) -> list[int]:
    found = answer.bits if table.has_bits else answer.registers
    return [int(item) for item in found[:count]]


def _contents(group: Group, answer: ModbusPDU | None) -> tuple[list[int] | None, str, str]:
    """Return the registers of `group`, or None with a code and words of why there are none."""
    if answer is None:
        return None, "poll.no_answer", f"device {group.device_id} does not answer"
    where = f"{group.table}:{group.start} ({group.count}) of device {group.device_id}"
    if answer.isError():
        return None, "register.refused", f"{where}: {_exception(answer)}"
    found = _items(group.table, answer, group.count)
    if len(found) < group.count:
        told = f"{where}: {len(found)} of {group.count} came"
        return None, "message.short", told
    return found, "", ""


def _first_name(poll: _Poll) -> str:
    return poll.source.mapped[poll.group.members[0].channel].delivered.name
