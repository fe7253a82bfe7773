"""Serial lines over a pair of pseudo terminals."""

from __future__ import annotations

import asyncio
import os
import struct
import tty
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.frames import Quality
from edge_agent.live import BrowsedItem, ConnectionLost
from edge_agent.serial_line.connection import SerialLineConnection, SerialLineSource
from edge_agent.serial_line.framing import CHECKSUMS, Checksum, FrameCutter, Framing
from edge_agent.yaml_section import ConfigurationFaults
from tests.edge_agent.feeds import RecordingFeed, delivering, live_configuration, until

pytestmark = pytest.mark.anyio

FLOW, PRESSURE = 0, 1
CHECK: bytes = b"123456789"
"""What the catalogues of checksums give their check values for."""


@dataclass
class Line:
    """A line with the device's end in hand."""

    device: int
    path: str

    def say(self, what: bytes) -> None:
        """Send as the device does."""
        os.write(self.device, what)


@pytest.fixture
def line() -> Iterator[Line]:
    device, port = os.openpty()
    tty.setraw(port)
    path = os.ttyname(port)
    try:
        yield Line(device, path)
    finally:
        for end in (device, port):
            with suppress(OSError):
                os.close(end)


def source(**changes: Any) -> dict[str, Any]:
    declared: dict[str, Any] = {
        "kind": "serial-line",
        "connection": "line",
        "asset": "pump-1",
        "asset_type": "skab-pump-loop",
        "format": "fields",
        "channels": {
            "flow": {"field": 1, "unit": "l/min"},
            "pressure": {"field": 2, "unit": "bar", "scale": 0.1},
        },
        "window": {"seconds": 1, "readings": 1000},
    }
    return declared | changes


def configured(
    folder: Path, line: Line, frame: dict[str, Any], *sources: dict[str, Any], **connection: Any
) -> tuple[SerialLineConnection, list[SerialLineSource]]:
    declared = {"kind": "serial-line", "port": line.path, "baud": 115_200, "frame": frame}
    configuration = live_configuration(folder, {"line": declared | connection}, *sources)
    made = configuration.connections[0].connection
    assert isinstance(made, SerialLineConnection)
    found = [live.source for live in configuration.live]
    return made, [one for one in found if isinstance(one, SerialLineSource)]


async def test_fields_of_text_frames_become_readings(tmp_path: Path, line: Line) -> None:
    pump = source(begins_with="P,")
    other = source(asset="pump-2", begins_with="Q,")
    connection, found = configured(tmp_path, line, {"delimiter": "\\r\\n"}, pump, other)
    feeds = [RecordingFeed(), RecordingFeed()]
    async with delivering(connection, *zip(found, feeds, strict=True)):
        await asyncio.sleep(0)  # the port is open now, and what came before is gone
        line.say(b"P,1.5,12")
        line.say(b"3\r\nQ,7,8\r\nP,x,1\r\nP,2\r\n\xff,1\r\nP, 3 ,\r\n")
        await until(lambda: len(feeds[0].values(FLOW)) == 4 and feeds[1].values(FLOW))
    assert feeds[0].values(FLOW)[0] == 1.5
    assert feeds[0].values(PRESSURE)[0] == 12.3
    assert feeds[0].qualities(FLOW) == [0, Quality.MISSING, 0, 0]
    assert feeds[0].qualities(PRESSURE) == [0, 0, Quality.MISSING, Quality.MISSING]
    assert feeds[1].values(FLOW) == [7.0]
    assert feeds[0].codes() == {"value.not_numeric": 1, "value.absent": 1}


async def test_groups_of_a_pattern_become_readings(tmp_path: Path, line: Line) -> None:
    declared = source(
        format="pattern",
        pattern=r"ST,GS,\s*(?P<net>[-+]?[0-9.]+)kg",
        channels={"flow": {"group": "net", "unit": "l/min"}},
    )
    connection, (pump,) = configured(tmp_path, line, {"delimiter": "\\r"}, declared)
    feed = RecordingFeed()
    async with delivering(connection, (pump, feed)):
        await asyncio.sleep(0)  # the port is open now, and what came before is gone
        line.say(b"ST,GS,  +12.50kg\rgarbage\rST,GS,-1kg\r")
        await until(lambda: len(feed.values(FLOW)) == 2)
    assert feed.values(FLOW) == [12.5, -1.0]
    assert feed.codes() == {"message.no_match": 1}


async def test_numbers_of_binary_frames_are_read_after_damage(tmp_path: Path, line: Line) -> None:
    frame = {
        "length": 12,
        "start": "\\xaa\\x55",
        "checksum": {"kind": "crc16-modbus", "byte_order": "little"},
    }
    declared = source(
        format="binary",
        channels={
            "flow": {"at": 2, "type": "f4", "byte_order": "little", "unit": "l/min"},
            "pressure": {"at": 6, "type": "i4", "unit": "bar", "scale": 0.001},
        },
    )
    connection, (pump,) = configured(tmp_path, line, frame, declared)
    feed = RecordingFeed()

    def told(flow: float, pressure: int) -> bytes:
        body = b"\xaa\x55" + struct.pack("<f", flow) + struct.pack(">i", pressure)
        return body + struct.pack("<H", CHECKSUMS["crc16-modbus"][0](body))

    damaged = bytearray(told(9.0, 9))
    damaged[5] ^= 0x40
    async with delivering(connection, (pump, feed)):
        await asyncio.sleep(0)  # the port is open now, and what came before is gone
        line.say(b"\x00noise\xaa" + told(1.5, -2_500)[:7])
        line.say(told(1.5, -2_500)[7:] + bytes(damaged) + told(2.5, 1) + told(3.5, 2)[:9])
        line.say(told(4.5, 3))
        await until(lambda: 4.5 in feed.values(FLOW))
    assert feed.values(FLOW) == [1.5, 2.5, 4.5]
    assert feed.values(PRESSURE) == [-2.5, 0.001, 0.003]
    assert feed.codes()["message.checksum"] >= 2


async def test_a_device_that_is_asked_answers(tmp_path: Path, line: Line) -> None:
    connection, (pump,) = configured(
        tmp_path,
        line,
        {"delimiter": "\\n"},
        source(),
        request={"send": "READ\\r", "every_s": 0.05},
    )
    feed = RecordingFeed()
    os.set_blocking(line.device, False)
    asked = b""

    def answered() -> bool:
        nonlocal asked
        try:
            asked += os.read(line.device, 100)
        except BlockingIOError:
            return False
        line.say(b"P,1,2\n")
        return asked.count(b"READ\r") >= 3

    async with delivering(connection, (pump, feed)):
        await asyncio.sleep(0)  # the port is open now, and what came before is gone
        await until(answered)
        await until(lambda: feed.values(FLOW))


async def test_a_line_that_hangs_up_is_lost_and_its_outage_declared(
    tmp_path: Path, line: Line
) -> None:
    connection, (pump,) = configured(tmp_path, line, {"delimiter": "\\n"}, source())
    feed = RecordingFeed()
    async with delivering(connection, (pump, feed)) as running:
        await asyncio.sleep(0)  # the port is open now, and what came before is gone
        line.say(b"P,1,2\n")
        await until(lambda: feed.values(FLOW))
        os.close(line.device)
        with pytest.raises(ConnectionLost, match=r"connection\.lost"):
            await running
    with pytest.raises(ConnectionLost, match=r"connection\.unreachable"):
        await connection.run([(pump, feed)])


async def test_browsing_shows_what_arrives(tmp_path: Path, line: Line) -> None:
    connection, _ = configured(tmp_path, line, {"delimiter": "\\n"}, source())

    async def browsed() -> list[BrowsedItem]:
        return [item async for item in connection.browse(None, 2)]

    browsing = asyncio.create_task(browsed())
    await asyncio.sleep(0)
    line.say(b"P,1,2\nP,\x07,3\n")
    found = await browsing
    assert [(item.title, item.value) for item in found] == [
        ("frame", "P,1,2"),
        ("frame", "P,\x07,3"),
    ]


@pytest.mark.parametrize(
    ("kind", "value"),
    # From the catalogue of parametrised CRC algorithms; the others follow from their definition.
    [("crc16-modbus", 0x4B37), ("crc16-ccitt", 0x29B1), ("xor8", 0x31), ("sum8", 0xDD)],
)
def test_checksums_give_their_published_check_values(kind: str, value: int) -> None:
    assert CHECKSUMS[kind][0](CHECK) == value


def test_the_checksum_of_nmea_is_hexadecimal_and_skips_its_star() -> None:
    checksum = Checksum("xor8", as_hex=True, first=1, skip_last=1)
    sentence = b"$GPGLL,5300.97914,N,00259.98174,E,125926,A*28"
    assert checksum.strip(sentence) == sentence[:-3]
    assert checksum.strip(sentence.replace(b"5300", b"5301")) is None
    assert checksum.strip(b"") is None


@given(
    frames=st.lists(st.binary(min_size=1, max_size=20).filter(lambda f: b"\n" not in f)),
    cuts=st.lists(st.integers(0, 400)),
)
def test_frames_are_the_same_however_the_stream_is_cut(
    frames: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(frame + b"\n" for frame in frames)
    cutter = FrameCutter(Framing(b"\n", 0, b"", 20, None))
    places = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    found = [
        frame.contents for start, end in pairwise(places) for frame in cutter.cut(stream[start:end])
    ]
    assert found == frames


@given(noise=st.lists(st.binary(max_size=200), max_size=30), by_length=st.booleans())
def test_noise_neither_raises_nor_piles_up(noise: list[bytes], by_length: bool) -> None:
    checksum = Checksum("crc16-ccitt")
    framing = (
        Framing(b"", 16, b"\xaa\x55", 16, checksum)
        if by_length
        else Framing(b"\r\n", 0, b"", 32, checksum)
    )
    cutter = FrameCutter(framing)
    for arrived in noise:
        for frame in cutter.cut(arrived):
            assert frame.fault or frame.contents
        assert len(cutter._held) <= 64


def test_what_is_wrong_with_a_declaration_is_told_all_at_once(tmp_path: Path) -> None:
    line = Line(0, "/dev/none")
    declared = source(
        format="pattern", pattern="(?P<a>x", channels={"flow": {"group": "b", "unit": "l/min"}}
    )
    with pytest.raises(ConfigurationFaults) as refused:
        configured(tmp_path, line, {"length": 4, "delimiter": "x"}, declared)
    assert "mapping.frame" in {fault.code for fault in refused.value.faults}
    with pytest.raises(ConfigurationFaults) as refused:
        configured(tmp_path, line, {"length": 4}, declared)
    assert {fault.code for fault in refused.value.faults} >= {"mapping.pattern"}
