"""A serial line as a connection of the agent: one port, whose frames any number of sources read.

A frame's time is when its last byte arrived. A device that speaks only when it is asked is asked
every so often with declared bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from domain.errors import InvalidInput
from edge_agent.channel_mapping import MappedChannel
from edge_agent.live import BrowsedItem, ConnectionLost, DeliveredChannel, Feed, LiveSource, Target
from edge_agent.live.outage import Outage
from edge_agent.reading_buffer import ReadingBuffer
from edge_agent.serial_line.contents import Contents, Place, value_at
from edge_agent.serial_line.framing import Frame, FrameCutter, Framing
from edge_agent.waiting import end_all

if TYPE_CHECKING:
    from serial import Serial

READ_BYTES: Final = 4_096
HELD_CHUNKS_MAX: Final = 256
"""Chunks read and not yet looked at; what comes then is lost and declared."""
BROWSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class SerialPort:
    """A port and its settings; `parity` is ``N``, ``E`` or ``O``."""

    path: str
    baud: int
    parity: str
    data_bits: int
    stop_bits: int


@dataclass(frozen=True, kw_only=True)
class SerialLineSource:
    """One asset's channels in the frames of a line."""

    contents: Contents
    mapped: tuple[MappedChannel[Place], ...]

    @property
    def channels(self) -> tuple[DeliveredChannel, ...]:
        """What it delivers."""
        return tuple(one.delivered for one in self.mapped)


class SerialLineConnection:
    """A port that is read frame by frame.

    Parameters
    ----------
    request : sent every `every_s`; nothing where it is empty
    now_ns : the wall clock, ns since 1970 UTC
    """

    def __init__(
        self,
        name: str,
        port: SerialPort,
        framing: Framing,
        request: bytes = b"",
        every_s: float = 1.0,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._name = name
        self._port = port
        self._framing = framing
        self._request = request
        self._every_s = every_s
        self._now_ns = now_ns
        self._outage = Outage(now_ns)

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    async def run(self, sources: Sequence[tuple[LiveSource, Feed]]) -> None:
        """Deliver to every source's feed until cancelled.

        Raises
        ------
        ConnectionLost
            ``connection.unreachable`` (no such port, or taken), ``connection.lost``
        """
        served = [(one, feed) for one, feed in sources if isinstance(one, SerialLineSource)]
        chunks = _Chunks(self._open(), self._now_ns)
        asking: asyncio.Task[None] | None = None
        try:
            self._outage.over(feed for _, feed in served)
            if self._request:
                asking = asyncio.create_task(self._ask(chunks))
            cutter = FrameCutter(self._framing)
            while True:
                arrived, time_ns = await chunks.next()
                for frame in cutter.cut(arrived):
                    await self._deliver(frame, time_ns, served)
                if chunks.dropped:
                    for _, feed in served:
                        feed.lost("queue.overflow", time_ns, self._now_ns())
                    chunks.dropped = 0
        finally:
            self._outage.begun()
            chunks.close()
            if asking is not None:
                await end_all((asking,))

    async def browse(self, below: str | None, count_max: int) -> AsyncIterator[BrowsedItem]:  # noqa: ARG002
        """Yield the frames that arrive within `BROWSE_S`, as text and as bytes."""
        chunks = _Chunks(self._open(), self._now_ns)
        cutter, seen = FrameCutter(self._framing), 0
        try:
            if self._request:
                chunks.send(self._request)
            until = asyncio.get_running_loop().time() + BROWSE_S
            while seen < count_max:
                try:
                    async with asyncio.timeout_at(until):
                        arrived, _ = await chunks.next()
                except TimeoutError:
                    return
                for frame in cutter.cut(arrived):
                    seen += 1
                    text = frame.contents.decode("ascii", "backslashreplace")
                    title = frame.fault or "frame"
                    yield BrowsedItem(f"frame {seen}", title, text, frame.contents.hex(" "))
                    if seen >= count_max:
                        return
        finally:
            chunks.close()

    async def write(self, target: Target, value: float) -> float:
        """Refuse: nothing declares how a device on a line would read back.

        Raises
        ------
        InvalidInput
            ``target.not_writable``
        """
        told = f"{target.address!r} on line {self._name!r} cannot be written"
        raise InvalidInput("target.not_writable", told, value=value)

    def _open(self) -> Serial:
        from serial import Serial, SerialException

        port = self._port
        try:
            return Serial(
                port.path,
                port.baud,
                bytesize=port.data_bits,
                parity=port.parity,
                stopbits=port.stop_bits,
                timeout=0,
                write_timeout=0,
                exclusive=True,
            )
        except (SerialException, OSError, ValueError) as error:
            told = f"the line {port.path} cannot be opened: {error}"
            raise ConnectionLost("connection.unreachable", told) from error

    async def _ask(self, chunks: _Chunks) -> None:
        while True:
            chunks.send(self._request)
            await asyncio.sleep(self._every_s)

    async def _deliver(
        self, frame: Frame, time_ns: int, served: Sequence[tuple[SerialLineSource, Feed]]
    ) -> None:
        for source, feed in served:
            buffer = ReadingBuffer(source.mapped)
            try:
                if frame.fault:
                    raise InvalidInput(frame.fault, f"{len(frame.contents)} bytes")
                values = source.contents.values(frame.contents)
            except InvalidInput as error:
                feed.fault(error.code, error.message, text=_shown(frame.contents))
                continue
            if values is None:
                continue
            for channel, mapped in enumerate(source.mapped):
                value, quality, code, text = value_at(values, mapped.address, mapped.delivered)
                if code:
                    told = f"{text!r:.80} gives no good reading"
                    feed.fault(code, told, channel=mapped.delivered.name, text=text[:200])
                buffer.add(channel, time_ns, value, quality)
            await feed.take(buffer.take())


class _Chunks:
    """What a port delivers, chunk by chunk, each with the time of its arrival."""

    def __init__(self, port: Serial, now_ns: Callable[[], int]) -> None:
        self.dropped = 0
        self._port = port
        self._now_ns = now_ns
        self._held: asyncio.Queue[tuple[bytes, int] | ConnectionLost] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._number = port.fileno()
        self._loop.add_reader(self._number, self._read)

    async def next(self) -> tuple[bytes, int]:
        """Return the next chunk.

        Raises
        ------
        ConnectionLost
            ``connection.lost``
        """
        found = await self._held.get()
        if isinstance(found, ConnectionLost):
            raise found
        return found

    def send(self, request: bytes) -> None:
        """Send bytes, as far as the port takes them at once."""
        try:
            self._port.write(request)
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Let the port go."""
        self._loop.remove_reader(self._number)
        self._port.close()

    def _read(self) -> None:
        try:
            chunk = self._port.read(READ_BYTES)
        except OSError as error:
            self._fail(error)
            return
        if not chunk:
            self._fail(OSError("the line has hung up"))
        elif self._held.qsize() >= HELD_CHUNKS_MAX:
            self.dropped += 1
        else:
            self._held.put_nowait((chunk, self._now_ns()))

    def _fail(self, error: OSError) -> None:
        self._loop.remove_reader(self._number)
        lost = ConnectionLost("connection.lost", f"the line {self._port.port}: {error}")
        self._held.put_nowait(lost)


def _shown(frame: bytes) -> str:
    return frame[:100].decode("ascii", "backslashreplace")
