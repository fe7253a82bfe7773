"""Where one frame of a stream of bytes ends and the next begins, and whether it is sound.

Pure. A frame ends with a delimiter or has a fixed length; after damage of any kind the search
begins anew one byte further, so that a lost byte costs one frame and not the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

CRC16_MODBUS_POLYNOMIAL: Final = 0xA001  # 0x8005 reflected
CRC16_CCITT_POLYNOMIAL: Final = 0x1021


def _xor8(covered: bytes) -> int:
    found = 0
    for byte in covered:
        found ^= byte
    return found


def _sum8(covered: bytes) -> int:
    return sum(covered) & 0xFF


def _crc16_modbus(covered: bytes) -> int:
    """CRC-16/MODBUS: reflected, from 0xFFFF (Modbus over serial line 1.02, 6.2.2)."""
    found = 0xFFFF
    for byte in covered:
        found ^= byte
        for _ in range(8):
            found = (found >> 1) ^ (CRC16_MODBUS_POLYNOMIAL if found & 1 else 0)
    return found


def _crc16_ccitt(covered: bytes) -> int:
    """CRC-16/CCITT-FALSE: not reflected, from 0xFFFF."""
    found = 0xFFFF
    for byte in covered:
        found ^= byte << 8
        for _ in range(8):
            found = ((found << 1) ^ (CRC16_CCITT_POLYNOMIAL if found & 0x8000 else 0)) & 0xFFFF
    return found


CHECKSUMS: Final[dict[str, tuple[Callable[[bytes], int], int]]] = {
    "xor8": (_xor8, 1),
    "sum8": (_sum8, 1),
    "crc16-modbus": (_crc16_modbus, 2),
    "crc16-ccitt": (_crc16_ccitt, 2),
}
"""Each kind's function and the bytes it takes."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum at the end of a frame, before its delimiter.

    Parameters
    ----------
    as_hex : written as hexadecimal digits
    big_endian : the more significant byte first, of two in binary
    first : the first byte that it covers
    skip_last : bytes between what it covers and itself, such as the ``*`` of NMEA 0183
    """

    kind: str
    as_hex: bool = False
    big_endian: bool = True
    first: int = 0
    skip_last: int = 0

    def strip(self, frame: bytes) -> bytes | None:
        """Return `frame` without its checksum, or None where that is wrong."""
        function, width = CHECKSUMS[self.kind]
        size = width * 2 if self.as_hex else width
        body, told = frame[:-size], frame[-size:]
        covered = body[self.first : len(body) - self.skip_last]
        if len(frame) < size + self.skip_last + self.first + 1:
            return None
        if self.as_hex:
            try:
                value = int(told.decode("ascii"), 16)
            except ValueError:
                return None
        else:
            value = int.from_bytes(told, "big" if self.big_endian else "little")
        if function(covered) != value:
            return None
        return body[: len(body) - self.skip_last]


@dataclass(frozen=True, slots=True)
class Framing:
    """How frames stand in the stream.

    Parameters
    ----------
    delimiter : ends a frame; empty where frames have a `length`
    start : begins a frame; what stands before it is noise
    """

    delimiter: bytes
    length: int
    start: bytes
    bytes_max: int
    checksum: Checksum | None


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame, or (`fault`) why there is none.

    Parameters
    ----------
    contents : without delimiter and checksum
    """

    contents: bytes
    fault: str = ""


class FrameCutter:
    """Cuts frames from what arrives; holds at most one frame."""

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._held = bytearray()
        self._skipping = False

    def cut(self, arrived: bytes) -> Iterator[Frame]:
        """Yield the frames that `arrived` completes, and what was damaged between them."""
        self._held += arrived
        if self._framing.delimiter:
            yield from self._delimited()
        else:
            yield from self._fixed()

    def _delimited(self) -> Iterator[Frame]:
        framing, held = self._framing, self._held
        while (end := held.find(framing.delimiter)) >= 0:
            raw = bytes(held[:end])
            del held[: end + len(framing.delimiter)]
            if self._skipping:
                self._skipping = False  # the end of a frame that was too long
                continue
            if framing.start:
                begin = raw.rfind(framing.start)
                raw = raw[begin:] if begin >= 0 else b""
            if not raw:
                continue
            if len(raw) > framing.bytes_max:
                yield Frame(raw[: framing.bytes_max], "message.too_large")
            else:
                yield self._checked(raw)
        if len(held) > framing.bytes_max + len(framing.delimiter):
            if not self._skipping:
                yield Frame(bytes(held[: framing.bytes_max]), "message.too_large")
            self._skipping = True
            # The beginning of a delimiter may stand at the end.
            del held[: len(held) - len(framing.delimiter) + 1]

    def _fixed(self) -> Iterator[Frame]:
        framing, held = self._framing, self._held
        while True:
            if framing.start:
                begin = held.find(framing.start)
                if begin < 0:
                    # The beginning of a start may stand at the end.
                    del held[: max(0, len(held) - len(framing.start) + 1)]
                    return
                del held[:begin]
            if len(held) < framing.length:
                return
            frame = self._checked(bytes(held[: framing.length]))
            # A frame that is wrong may have begun in the midst of another.
            lost_step = frame.fault and (framing.start or framing.checksum)
            del held[: 1 if lost_step else framing.length]
            yield frame

    def _checked(self, raw: bytes) -> Frame:
        checksum = self._framing.checksum
        if checksum is None:
            return Frame(raw)
        contents = checksum.strip(raw)
        return Frame(raw, "message.checksum") if contents is None else Frame(contents)
