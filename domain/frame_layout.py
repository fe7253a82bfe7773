"""The fixed parts of an encoded frame: its prelude, and the bounds checked before all else."""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from typing import Final

import zstandard

from domain.errors import MalformedFrame
from domain.frames import CHANNELS_MAX, FRAME_BYTES_MAX, HEADER_BYTES_MAX, READINGS_MAX

FRAME_MAGIC: Final = b"HDF"
FIRST_VERSION: Final = 1
SECOND_VERSION: Final = 2
PRELUDE_1: Final = struct.Struct("<3sBQIH")
"""Magic, version, sequence, body length, number of clocks."""
PRELUDE_2: Final = struct.Struct("<3sBQIIHH")
"""Magic, version, sequence, readings, length of what is packed, of the header, number of clocks."""

BODY_BYTES_MAX: Final = HEADER_BYTES_MAX + 2 + CHANNELS_MAX * 64 + READINGS_MAX * 17
"""A reading takes at most 9 bytes in any scheme and a time 8; schemes add 32 bytes a column."""

MASKED: Final = 32
"""Of a channel's kind: a column of its qualities follows the channels."""
PACKED: Final = 64
"""Of a column's kind: its values lie in the packed section, in the bytes of their type."""
SHUFFLED: Final = 0
XOR_SHUFFLED: Final = 1

DECIMALS_MAX: Final = 9
TICK_EXPONENT_MAX: Final = 15
POWERS: Final = tuple(10.0**decimals for decimals in range(DECIMALS_MAX + 1))

ZSTD_LEVEL: Final = 3
ZSTD_WINDOW_MAX: Final = 1 << 25


@dataclass(frozen=True, slots=True)
class Prelude:
    """The uncompressed start of an encoded frame.

    Parameters
    ----------
    body_length : bytes that the frame unpacks to, at most
    body_offset : where the body (version 1) or the header (version 2) begins
    packed_length : version 2: bytes that the packed section unpacks to
    header_length : version 2: bytes of the packed header
    readings : version 2: values of all channels together
    """

    version: int
    sequence: int
    body_length: int
    clock_lengths: tuple[int, ...]
    body_offset: int
    packed_length: int = 0
    header_length: int = 0
    readings: int = 0


def peek(encoded: bytes) -> Prelude:
    """Return the uncompressed start of `encoded`, checked against every bound.

    Raises
    ------
    MalformedFrame
        ``frame.too_large``, ``frame.truncated``, ``frame.magic``, ``frame.version`` or a count
        beyond its bound.
    """
    if len(encoded) > FRAME_BYTES_MAX:
        raise MalformedFrame(
            "frame.too_large",
            f"the frame takes {len(encoded)} bytes, more than {FRAME_BYTES_MAX}",
            value=len(encoded),
            limit=FRAME_BYTES_MAX,
        )
    if len(encoded) < PRELUDE_1.size:
        raise MalformedFrame("frame.truncated", f"{len(encoded)} bytes are too few for a frame")
    if encoded[:3] != FRAME_MAGIC:
        raise MalformedFrame("frame.magic", "the bytes do not start as a frame does")
    version = encoded[3]
    if version == FIRST_VERSION:
        _, _, sequence, body_length, clock_count = PRELUDE_1.unpack_from(encoded)
        lengths, offset = _clock_lengths(encoded, PRELUDE_1.size, clock_count)
        if body_length > BODY_BYTES_MAX:
            raise _too_many(sum(lengths), body_length)
        return Prelude(version, sequence, body_length, lengths, offset)
    if version != SECOND_VERSION:
        raise MalformedFrame(
            "frame.version",
            f"frame version {version} is not known; this reader knows up to {SECOND_VERSION}",
            value=version,
            limit=SECOND_VERSION,
        )
    if len(encoded) < PRELUDE_2.size:
        raise MalformedFrame("frame.truncated", f"{len(encoded)} bytes are too few for a frame")
    _, _, sequence, readings, packed_length, header_length, clock_count = PRELUDE_2.unpack_from(
        encoded
    )
    lengths, offset = _clock_lengths(encoded, PRELUDE_2.size, clock_count)
    if readings > READINGS_MAX or packed_length > BODY_BYTES_MAX:
        raise _too_many(readings, packed_length)
    # Nine bytes a reading with its quality, eight a time.
    body_length = packed_length + 9 * readings + 8 * sum(lengths)
    return Prelude(
        version, sequence, body_length, lengths, offset, packed_length, header_length, readings
    )


def _clock_lengths(encoded: bytes, at: int, clock_count: int) -> tuple[tuple[int, ...], int]:
    end = at + 4 * clock_count
    if not 1 <= clock_count <= CHANNELS_MAX or len(encoded) < end:
        raise MalformedFrame("frame.clock", f"a frame cannot have {clock_count} clocks here")
    lengths = struct.unpack_from(f"<{clock_count}I", encoded, at)
    if min(lengths) < 1 or sum(lengths) > READINGS_MAX:
        raise _too_many(sum(lengths), 0)
    return lengths, end


def _too_many(readings: int, body_length: int) -> MalformedFrame:
    return MalformedFrame(
        "frame.too_many_readings",
        f"the frame declares {readings} times or readings in {body_length} bytes, "
        "more than is allowed",
        value=readings,
        limit=READINGS_MAX,
    )


# --- compression --------------------------------------------------------------------------

_zstd = threading.local()


def compressed(raw: bytes) -> bytes:
    """Return `raw` as one zstd frame without its size."""
    if not hasattr(_zstd, "compressor"):
        _zstd.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=False)
    packed: bytes = _zstd.compressor.compress(raw)
    return packed


def decompressed(packed: bytes, length: int) -> bytes:
    """Return the `length` bytes that `packed`, one zstd frame, unpacks to.

    Raises
    ------
    MalformedFrame
        ``frame.compression``, or ``frame.truncated`` when there are fewer bytes
    """
    if not hasattr(_zstd, "decompressor"):
        _zstd.decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX)
    try:
        # A size in the zstd header would be allocated unchecked, whatever `length` says.
        declared = zstandard.frame_content_size(packed)
        if declared not in (-1, length):
            raise MalformedFrame(
                "frame.compression",
                f"the frame unpacks to {declared} bytes and declares {length}",
                value=declared,
                limit=length,
            )
        raw: bytes = _zstd.decompressor.decompress(
            packed, max_output_size=length, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise MalformedFrame("frame.compression", f"the frame does not unpack: {error}") from error
    if len(raw) != length:
        raise MalformedFrame("frame.truncated", "the frame's body is not as long as declared")
    return raw


class ByteReader:
    """A cursor over unpacked bytes that refuses to read past their end."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes have not been read."""
        return len(self._raw) - self._at

    def take(self, length: int) -> bytes:
        """Return the next `length` bytes."""
        if length > self.left:
            raise MalformedFrame(
                "frame.truncated", f"{length} bytes are wanted where {self.left} are left"
            )
        taken = self._raw[self._at : self._at + length]
        self._at += length
        return taken

    def byte(self) -> int:
        """Return the next byte."""
        return self.take(1)[0]

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        """Return the next numbers, laid out as `layout`."""
        return layout.unpack(self.take(layout.size))

    def finish(self) -> None:
        """Raise ``frame.trailing_bytes`` unless everything has been read."""
        if self.left:
            raise MalformedFrame(
                "frame.trailing_bytes", f"{self.left} bytes follow the last column"
            )
