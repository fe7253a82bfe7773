"""Frames: a window of readings of one asset as columns, and the bytes they travel and rest in.

A frame keeps every value exactly as the sensor delivered it, beside the unit it declares and
that unit's map to SI. It has two byte forms:

* the *canonical form* (`canonical_bytes`), uncompressed, over which the hash is taken: the same
  readings give the same bytes whatever compressed them;
* the *encoded form* (`encode` / `decode`), compressed, which travels and is stored, and may be
  replaced by a better one without touching any hash.

The byte layouts are specified in ``docs/frame-format.md``; this file is their implementation
and refuses whatever does not follow them, before allocating what a malicious header asks for.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zstandard

from domain.errors import InvalidInput, MalformedFrame
from domain.identifiers import check_identifier

FRAME_MAGIC: Final = b"HDF"
FRAME_VERSION: Final = 1
CHANNELS_MAX: Final = 256
READINGS_MAX: Final = 1_000_000
HEADER_BYTES_MAX: Final = 65_535
UNIT_LENGTH_MAX: Final = 64
FRAME_BYTES_MAX: Final = 4 * 1024 * 1024
HEADERS_REMEMBERED_MAX: Final = 512
SEQUENCE_MAX: Final = 2**63 - 1
DECIMALS_MAX: Final = 9
EXACT_INTEGER_MAX: Final = float(2**53)
ZSTD_LEVEL: Final = 3

IntArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]
Column = npt.NDArray[Any]

VALUE_TYPES: Final[dict[str, np.dtype[Any]]] = {
    "f8": np.dtype("<f8"),
    "f4": np.dtype("<f4"),
    "i8": np.dtype("<i8"),
    "b1": np.dtype("?"),
}


class Quality(IntEnum):
    """How far a reading can be trusted; the severities of an OPC UA StatusCode, and one more.

    ``MISSING`` is BAD without a value (OPC UA Bad_NoData): the sensor delivered nothing that is
    a number. Its stored value is NaN for floats and zero for integers and booleans.
    """

    GOOD = 0
    UNCERTAIN = 1
    BAD = 2
    MISSING = 3


@dataclass(frozen=True, slots=True)
class ChannelHeader:
    """What a frame says of one channel: ``si = value * factor + offset``."""

    name: str
    unit: str
    factor: float
    offset: float
    value_type: str = "f8"
    clock: int = 0


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What does not change from one frame of a source to the next."""

    asset: str
    agent: str
    channels: tuple[ChannelHeader, ...]
    clock_count: int = 1


@dataclass(frozen=True, eq=False)
class Frame:
    """Readings of one asset over one window.

    Parameters
    ----------
    sequence : number of the frame within its agent, from 1 upwards, never used twice
    clocks : for each clock, int64 nanoseconds since 1970-01-01 UTC, strictly increasing
    values : for each channel, the values as delivered, as long as its clock
    qualities : for each channel, a `Quality` per value (uint8)
    """

    header: FrameHeader
    sequence: int
    clocks: tuple[IntArray, ...]
    values: tuple[Column, ...]
    qualities: tuple[ByteArray, ...]

    @cached_property
    def window_start_ns(self) -> int:
        """Time of the first reading, ns since 1970 UTC."""
        return min(int(clock[0]) for clock in self.clocks)

    @cached_property
    def window_end_ns(self) -> int:
        """Time of the last reading, ns since 1970 UTC."""
        return max(int(clock[-1]) for clock in self.clocks)

    @cached_property
    def reading_count(self) -> int:
        """Readings of all channels together, whatever their quality."""
        return sum(len(column) for column in self.values)

    def channel_times_ns(self, index: int) -> IntArray:
        """Return the clock of channel `index`: int64 ns, shape (n,)."""
        return self.clocks[self.header.channels[index].clock]

    def channel_si(self, index: int) -> FloatArray:
        """Return the values of channel `index` in SI: float64, shape (n,)."""
        channel = self.header.channels[index]
        # Widened first: a float32 times a Python float would stay a float32.
        with np.errstate(over="ignore"):
            wide = self.values[index].astype(np.float64, copy=False)
            return wide * channel.factor + channel.offset

    @cached_property
    def clock_groups(self) -> tuple[ClockGroup, ...]:
        """The channels by their clock, each group's readings in SI as one matrix."""
        groups = []
        for clock, times in enumerate(self.clocks):
            indexes = [n for n, c in enumerate(self.header.channels) if c.clock == clock]
            si = np.empty((len(indexes), len(times)))
            quality = np.empty(si.shape, np.uint8)
            for row, index in enumerate(indexes):
                si[row] = self.values[index]
                quality[row] = self.qualities[index]
            channels = [self.header.channels[index] for index in indexes]
            # What no SI number can hold becomes infinite, and so out of every range.
            with np.errstate(over="ignore"):
                si *= np.array([[channel.factor] for channel in channels])
                si += np.array([[channel.offset] for channel in channels])
            groups.append(ClockGroup(tuple(indexes), times, si, quality))
        return tuple(groups)

    @cached_property
    def canonical_sha256(self) -> bytes:
        """SHA-256 of the canonical form, 32 bytes."""
        return hashlib.sha256(canonical_bytes(self)).digest()


@dataclass(frozen=True, eq=False)
class ClockGroup:
    """The channels of a frame that share a clock.

    Parameters
    ----------
    indexes : the channels' places in the header
    times_ns : int64, shape (n_readings,)
    si : float64, shape (n_channels, n_readings), SI; NaN where a reading is MISSING
    quality : uint8, shape (n_channels, n_readings), `Quality`
    """

    indexes: tuple[int, ...]
    times_ns: IntArray
    si: FloatArray
    quality: ByteArray

    @cached_property
    def all_good(self) -> bool:
        """Whether every reading is GOOD."""
        return not self.quality.any()

    @cached_property
    def good_si(self) -> FloatArray:
        """`si` with NaN in place of every reading that is not GOOD."""
        return self.si if self.all_good else np.where(self.quality == 0, self.si, np.nan)


def time_from_ns(time_ns: int) -> datetime:
    """Return the UTC time of `time_ns` (ns since 1970), cut to the microsecond."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1000)


# --- construction -------------------------------------------------------------------------


def build_frame(
    header: FrameHeader,
    sequence: int,
    clocks: Sequence[Column],
    values: Sequence[Column],
    qualities: Sequence[Column | None],
) -> Frame:
    """Return a frame after checking that its parts belong together.

    Parameters
    ----------
    qualities : None stands for all GOOD

    Raises
    ------
    InvalidInput
        ``frame.*``: a count, a type, a non-finite value or times that do not increase.
    """
    check_header(header)
    channels = header.channels
    if not 1 <= sequence <= SEQUENCE_MAX:
        raise MalformedFrame(
            "frame.sequence_out_of_range",
            f"sequence {sequence} is not between 1 and {SEQUENCE_MAX}",
            value=sequence,
            limit=SEQUENCE_MAX,
        )
    if len(clocks) != header.clock_count or not (len(values) == len(qualities) == len(channels)):
        raise MalformedFrame(
            "frame.column_count",
            f"{len(clocks)} clocks, {len(values)} value and {len(qualities)} quality columns for "
            f"a header with {header.clock_count} clocks and {len(channels)} channels",
        )
    frame_clocks = tuple(_checked_clock(np.asarray(clock)) for clock in clocks)
    masks: list[ByteArray] = []
    columns: list[Column] = []
    for channel, column, quality in zip(channels, values, qualities, strict=True):
        length = len(frame_clocks[channel.clock])
        mask = np.zeros(length, np.uint8) if quality is None else np.asarray(quality, np.uint8)
        columns.append(_checked_values(channel, np.asarray(column), mask, length))
        masks.append(mask)
    frame = Frame(header, sequence, frame_clocks, tuple(columns), tuple(masks))
    if frame.reading_count > READINGS_MAX:
        raise MalformedFrame(
            "frame.too_many_readings",
            f"the frame holds {frame.reading_count} readings, more than {READINGS_MAX}",
            hint="send shorter windows",
            value=frame.reading_count,
            limit=READINGS_MAX,
        )
    return frame


def _checked_clock(clock: Column) -> IntArray:
    if clock.dtype != np.int64 or clock.ndim != 1 or len(clock) == 0:
        raise MalformedFrame(
            "frame.clock", "a clock is a non-empty column of int64 nanoseconds since 1970 UTC"
        )
    if len(clock) > 1:
        late = np.flatnonzero(clock[1:] <= clock[:-1])
        if len(late):
            at = int(late[0]) + 1
            raise MalformedFrame(
                "frame.time_not_increasing",
                f"time {int(clock[at])} ns at index {at} does not follow {int(clock[at - 1])} ns",
                hint="start a new frame where the source repeats a time or goes back",
                value=int(clock[at]),
                limit=int(clock[at - 1]),
            )
    return np.ascontiguousarray(clock, dtype="<i8")


def _checked_values(channel: ChannelHeader, column: Column, mask: ByteArray, length: int) -> Column:
    dtype = VALUE_TYPES[channel.value_type]
    if column.shape != (length,) or mask.shape != (length,):
        raise MalformedFrame(
            "frame.column_length",
            f"channel {channel.name!r} has {len(column)} values and {len(mask)} qualities "
            f"for {length} times",
            value=len(column),
            limit=length,
        )
    if column.dtype != dtype:
        raise MalformedFrame(
            "frame.value_type",
            f"channel {channel.name!r} declares {channel.value_type} and holds {column.dtype}",
            value=str(column.dtype),
            limit=channel.value_type,
        )
    column = np.ascontiguousarray(column)
    finite = dtype.kind != "f" or bool(np.isfinite(column).all())
    if finite and not mask.any():
        return column
    if int(mask.max()) > Quality.MISSING:
        raise MalformedFrame(
            "frame.quality_unknown",
            f"channel {channel.name!r} has quality {int(mask.max())}; the largest is "
            f"{int(Quality.MISSING)}",
            value=int(mask.max()),
            limit=int(Quality.MISSING),
        )
    missing = mask == Quality.MISSING
    if not finite:
        bad = np.flatnonzero(~np.isfinite(column) & ~missing)
        if len(bad):
            at = int(bad[0])
            raise InvalidInput(
                "frame.value_not_finite",
                f"channel {channel.name!r} holds {column[at]} at index {at}",
                hint="a reading without a number has quality MISSING",
                value=str(column[at]),
            )
    if missing.any():
        column = column.copy()
        column[missing] = np.nan if dtype.kind == "f" else 0
    return column


# --- header -------------------------------------------------------------------------------


@lru_cache(maxsize=HEADERS_REMEMBERED_MAX)
def header_bytes(header: FrameHeader) -> bytes:
    """Return the canonical JSON of `header`: sorted keys, no spaces, ASCII keys."""
    document = {
        "agent": header.agent,
        "asset": header.asset,
        "channels": [
            {
                "clock": channel.clock,
                "factor": channel.factor,
                "name": channel.name,
                "offset": channel.offset,
                "type": channel.value_type,
                "unit": channel.unit,
            }
            for channel in header.channels
        ],
        "clocks": header.clock_count,
    }
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


@lru_cache(maxsize=HEADERS_REMEMBERED_MAX)
def parse_header(raw: bytes) -> FrameHeader:
    """Return the header that `raw` is the canonical JSON of.

    Raises
    ------
    MalformedFrame
        ``frame.header`` when it is not JSON, has other members, or is not canonical.
    """
    try:
        document = json.loads(raw)
        header = FrameHeader(
            asset=document["asset"],
            agent=document["agent"],
            channels=tuple(
                ChannelHeader(
                    name=entry["name"],
                    unit=entry["unit"],
                    factor=entry["factor"],
                    offset=entry["offset"],
                    value_type=entry["type"],
                    clock=entry["clock"],
                )
                for entry in document["channels"]
            ),
            clock_count=document["clocks"],
        )
        check_header(header)
        canonical = header_bytes(header)
    except (MalformedFrame, InvalidInput):
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MalformedFrame("frame.header", f"the frame's header is malformed: {error}") from error
    if canonical != raw:
        raise MalformedFrame(
            "frame.header",
            "the frame's header is not canonical JSON",
            hint="sorted keys, no spaces, shortest numbers, no other members",
        )
    return header


def check_header(header: FrameHeader) -> None:
    """Raise unless names, counts, types, maps to SI and clocks of `header` are sound.

    Raises
    ------
    InvalidInput
        ``asset.malformed_name``, ``agent.malformed_name``, ``channel.malformed_name``
    MalformedFrame
        ``frame.header``, ``frame.channel_count``, ``frame.channel_repeated``,
        ``frame.value_type``, ``frame.clock``
    """
    check_identifier("asset", header.asset)
    check_identifier("agent", header.agent)
    if not 1 <= len(header.channels) <= CHANNELS_MAX:
        raise MalformedFrame(
            "frame.channel_count",
            f"a frame has 1 to {CHANNELS_MAX} channels, not {len(header.channels)}",
            value=len(header.channels),
            limit=CHANNELS_MAX,
        )
    names = [check_identifier("channel", channel.name) for channel in header.channels]
    if len(set(names)) != len(names):
        raise MalformedFrame("frame.channel_repeated", "a channel appears twice in the frame")
    used = set()
    for channel in header.channels:
        _check_unit(channel)
        if channel.value_type not in VALUE_TYPES:
            raise MalformedFrame(
                "frame.value_type",
                f"channel {channel.name!r} has the unknown type {channel.value_type!r}",
                hint=f"known types: {', '.join(VALUE_TYPES)}",
                value=channel.value_type,
            )
        if type(channel.clock) is not int or not 0 <= channel.clock < CHANNELS_MAX:
            raise MalformedFrame("frame.clock", f"channel {channel.name!r} names no clock")
        used.add(channel.clock)
    if type(header.clock_count) is not int or not 1 <= header.clock_count <= CHANNELS_MAX:
        raise MalformedFrame("frame.clock", f"a frame has 1 to {CHANNELS_MAX} clocks")
    if used != set(range(header.clock_count)):
        raise MalformedFrame("frame.clock", "each clock must be used by a channel and exist")


def _check_unit(channel: ChannelHeader) -> None:
    if not isinstance(channel.unit, str) or not 1 <= len(channel.unit) <= UNIT_LENGTH_MAX:
        raise MalformedFrame(
            "frame.header",
            f"unit {channel.unit!r:.80} is not a text of 1 to {UNIT_LENGTH_MAX} characters",
            limit=UNIT_LENGTH_MAX,
        )
    for number in (channel.factor, channel.offset):
        if type(number) is not float or not math.isfinite(number):
            raise MalformedFrame("frame.header", f"{number!r:.80} is not a finite number")
        # It equals 0.0 and is written otherwise, so two canonical headers would be one.
        if number == 0.0 and math.copysign(1.0, number) < 0:
            raise MalformedFrame("frame.header", "a factor or an offset is a negative zero")


# --- canonical form -----------------------------------------------------------------------

_CANONICAL_PREFIX = b"heddle-frame/1\n"


def canonical_bytes(frame: Frame) -> bytes:
    """Return the uncompressed form of `frame` over which its hash is taken."""
    head = header_bytes(frame.header)
    parts = [
        _CANONICAL_PREFIX,
        struct.pack("<I", len(head)),
        head,
        struct.pack("<Q", frame.sequence),
        struct.pack(f"<{len(frame.clocks)}I", *(len(clock) for clock in frame.clocks)),
    ]
    parts += [clock.tobytes() for clock in frame.clocks]
    for column, quality in zip(frame.values, frame.qualities, strict=True):
        parts.append(column.tobytes())
        parts.append(b"\x01" + quality.tobytes() if quality.any() else b"\x00")
    return b"".join(parts)


# --- encoded form -------------------------------------------------------------------------

_PRELUDE = struct.Struct("<3sBQIH")  # magic, version, sequence, body length, clock count

_U16 = struct.Struct("<H")
_BYTE_AND_TWO = struct.Struct("<Bqq")  # a scheme or decimals, then two int64

_CLOCK_REGULAR = 0
_CLOCK_DELTAS = 1
_VALUES_RAW = 0
_VALUES_SCALED = 1
_VALUES_SCALED_DELTAS = 2
_QUALITY_ALL_GOOD = 0
_QUALITY_MASK = 1

_WIDTHS: Final = (np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4"), np.dtype("<u8"))
_POWERS: Final = tuple(10.0**decimals for decimals in range(DECIMALS_MAX + 1))

_zstd = threading.local()


def encode(frame: Frame) -> bytes:
    """Return the compressed form of `frame`: scaled integers where exact, then zstd."""
    head = header_bytes(frame.header)
    if len(head) > HEADER_BYTES_MAX:
        raise InvalidInput(
            "frame.header",
            f"the frame's header takes {len(head)} bytes, more than {HEADER_BYTES_MAX}",
            hint="send fewer channels a frame",
            value=len(head),
            limit=HEADER_BYTES_MAX,
        )
    parts = [_U16.pack(len(head)), head]
    parts += [_encode_clock(clock) for clock in frame.clocks]
    for column, quality in zip(frame.values, frame.qualities, strict=True):
        parts.append(_encode_values(column, quality))
        if quality.any():
            parts += [bytes([_QUALITY_MASK]), quality.tobytes()]
        else:
            parts.append(bytes([_QUALITY_ALL_GOOD]))
    body = b"".join(parts)
    counts = struct.pack(f"<{len(frame.clocks)}I", *(len(clock) for clock in frame.clocks))
    prelude = _PRELUDE.pack(
        FRAME_MAGIC, FRAME_VERSION, frame.sequence, len(body), len(frame.clocks)
    )
    encoded = prelude + counts + _compressor().compress(body)
    if len(encoded) > FRAME_BYTES_MAX:
        raise InvalidInput(
            "frame.too_large",
            f"the frame takes {len(encoded)} bytes, more than {FRAME_BYTES_MAX}",
            hint="send shorter windows",
            value=len(encoded),
            limit=FRAME_BYTES_MAX,
        )
    return encoded


def decode(encoded: bytes) -> Frame:
    """Return the frame that `encoded` holds.

    Raises
    ------
    MalformedFrame
        when the bytes are not a frame of a known version, contradict themselves or are larger
        than a frame may be. Nothing larger than the declared and bounded size is allocated.
    """
    prelude = peek(encoded)
    body = _unpacked(encoded[prelude.body_offset :], prelude.body_length)
    if len(body) != prelude.body_length:
        raise MalformedFrame("frame.truncated", "the frame's body is not as long as declared")
    reader = _Reader(body)
    (header_length,) = reader.unpack(_U16)
    header = parse_header(reader.take(header_length))
    if header.clock_count != len(prelude.clock_lengths):
        raise MalformedFrame("frame.clock", "header and prelude disagree on the clocks")
    lengths = prelude.clock_lengths
    readings = sum(lengths[channel.clock] for channel in header.channels)
    if readings > READINGS_MAX:
        raise MalformedFrame(
            "frame.too_many_readings",
            f"the frame declares {readings} readings, more than {READINGS_MAX}",
            value=readings,
            limit=READINGS_MAX,
        )
    clocks = [_decode_clock(reader, length) for length in lengths]
    values: list[Column] = []
    qualities: list[ByteArray] = []
    for channel in header.channels:
        length = lengths[channel.clock]
        column = _decode_values(reader, VALUE_TYPES[channel.value_type], length)
        quality = _decode_quality(reader, length)
        if column.dtype.kind == "f" and quality.any():
            column[quality == Quality.MISSING] = np.nan
        values.append(column)
        qualities.append(quality)
    if reader.left:
        raise MalformedFrame("frame.trailing_bytes", f"{reader.left} bytes follow the last column")
    return build_frame(header, prelude.sequence, clocks, values, qualities)


def _unpacked(compressed: bytes, length: int) -> bytes:
    """Return what `compressed`, one zstd frame, unpacks to: at most `length` bytes."""
    try:
        # A size in the zstd header would be allocated unchecked, whatever `length` says.
        declared = zstandard.frame_content_size(compressed)
        if declared not in (-1, length):
            raise MalformedFrame(
                "frame.compression",
                f"the frame unpacks to {declared} bytes and declares {length}",
                value=declared,
                limit=length,
            )
        return _decompressor().decompress(
            compressed, max_output_size=length, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise MalformedFrame("frame.compression", f"the frame does not unpack: {error}") from error


@dataclass(frozen=True, slots=True)
class Prelude:
    """The uncompressed start of an encoded frame."""

    sequence: int
    body_length: int
    clock_lengths: tuple[int, ...]
    body_offset: int


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
    if len(encoded) < _PRELUDE.size:
        raise MalformedFrame("frame.truncated", f"{len(encoded)} bytes are too few for a frame")
    magic, version, sequence, body_length, clock_count = _PRELUDE.unpack_from(encoded)
    if magic != FRAME_MAGIC:
        raise MalformedFrame("frame.magic", "the bytes do not start as a frame does")
    if version != FRAME_VERSION:
        raise MalformedFrame(
            "frame.version",
            f"frame version {version} is not known; this reader knows {FRAME_VERSION}",
            value=version,
            limit=FRAME_VERSION,
        )
    offset = _PRELUDE.size + 4 * clock_count
    if not 1 <= clock_count <= CHANNELS_MAX or len(encoded) < offset:
        raise MalformedFrame("frame.clock", f"a frame cannot have {clock_count} clocks here")
    lengths = struct.unpack_from(f"<{clock_count}I", encoded, _PRELUDE.size)
    readings = sum(lengths)
    # A reading takes at most 9 bytes in any scheme and a time 8; schemes add 32 bytes a column.
    body_max = HEADER_BYTES_MAX + 2 + CHANNELS_MAX * 64 + READINGS_MAX * 17
    if min(lengths) < 1 or readings > READINGS_MAX or body_length > body_max:
        raise MalformedFrame(
            "frame.too_many_readings",
            f"the frame declares {readings} times in {body_length} bytes, more than is allowed",
            value=readings,
            limit=READINGS_MAX,
        )
    return Prelude(sequence, body_length, lengths, offset)


class _Reader:
    """A cursor over a body that refuses to read past its end."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._body) - self._at

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise MalformedFrame(
                "frame.truncated", f"{length} bytes are wanted where {self.left} are left"
            )
        taken = self._body[self._at : self._at + length]
        self._at += length
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))


def _encode_clock(clock: IntArray) -> bytes:
    steps = np.diff(clock)
    if len(steps) == 0 or (steps == steps[0]).all():
        step = int(steps[0]) if len(steps) else 0
        return _BYTE_AND_TWO.pack(_CLOCK_REGULAR, int(clock[0]), step)
    tick = int(np.gcd.reduce(steps))
    packed = _pack_unsigned((steps // tick).astype(np.uint64))
    return _BYTE_AND_TWO.pack(_CLOCK_DELTAS, int(clock[0]), tick) + packed


def _decode_clock(reader: _Reader, length: int) -> IntArray:
    scheme, start, tick = reader.unpack(_BYTE_AND_TWO)
    if scheme == _CLOCK_REGULAR:
        steps = np.full(length - 1, tick, np.int64)
    elif scheme == _CLOCK_DELTAS:
        steps = _unpack_unsigned(reader, length - 1).astype(np.int64) * tick
    else:
        raise MalformedFrame("frame.scheme", f"clock scheme {scheme} is not known", value=scheme)
    clock = np.empty(length, np.int64)
    clock[0] = start
    np.cumsum(steps, out=clock[1:])
    clock[1:] += start
    return clock


def _encode_values(column: Column, quality: ByteArray) -> bytes:
    scaled = _scaled_integers(column, quality)
    if scaled is None:
        return bytes([_VALUES_RAW]) + _shuffled(column)
    decimals, integers = scaled
    deltas = np.diff(integers)
    scheme, base, residuals = _VALUES_SCALED, int(integers.min()), integers
    # The spread of white noise grows by sqrt(2) under differences, so noisy channels stay plain.
    if len(deltas) and np.abs(deltas).sum() < np.abs(integers - integers.mean()).sum():
        scheme, base, residuals = _VALUES_SCALED_DELTAS, int(deltas.min()), deltas
    first = int(integers[0])
    packed = _pack_unsigned((residuals - base).astype(np.uint64))
    return struct.pack("<BBqq", scheme, decimals, first, base) + packed


def _decode_values(reader: _Reader, dtype: np.dtype[Any], length: int) -> Column:
    scheme = reader.byte()
    if scheme == _VALUES_RAW:
        raw = reader.take(length * dtype.itemsize)
        if dtype.kind == "b" and raw.strip(b"\x00\x01"):
            raise MalformedFrame("frame.value_type", "a boolean is neither 0 nor 1")
        return _unshuffled(raw, dtype, length)
    if scheme not in (_VALUES_SCALED, _VALUES_SCALED_DELTAS) or dtype.kind not in "fi":
        raise MalformedFrame("frame.scheme", f"value scheme {scheme} is not known", value=scheme)
    decimals, first, base = reader.unpack(_BYTE_AND_TWO)
    if decimals > (DECIMALS_MAX if dtype.kind == "f" else 0):
        raise MalformedFrame("frame.scheme", f"{decimals} decimals are too many", value=decimals)
    if scheme == _VALUES_SCALED:
        integers = _unpack_unsigned(reader, length).astype(np.int64) + base
    else:
        integers = np.empty(length, np.int64)
        integers[0] = first
        np.cumsum(_unpack_unsigned(reader, length - 1).astype(np.int64) + base, out=integers[1:])
        integers[1:] += first
    if dtype.kind == "i":
        return integers
    return (integers / _POWERS[decimals]).astype(dtype, copy=False)


def _scaled_integers(column: Column, quality: ByteArray) -> tuple[int, IntArray] | None:
    """Return (decimals, integers) with ``integers / 10**decimals`` equal to `column` bit by bit."""
    if column.dtype.kind == "b":
        return None
    if column.dtype.kind == "i":
        spread = float(column.max()) - float(column.min())
        return (0, column) if spread < EXACT_INTEGER_MAX else None
    if quality.any():
        column = _filled(column, quality)
    wide = column.astype(np.float64, copy=False)
    if np.abs(wide).max() * _POWERS[0] >= EXACT_INTEGER_MAX:
        return None
    bits = f"<i{column.dtype.itemsize}"
    for decimals, power in enumerate(_POWERS):
        rounded = np.rint(wide * power)
        if np.abs(rounded).max() >= EXACT_INTEGER_MAX:
            return None
        integers = rounded.astype(np.int64)
        restored = (integers / power).astype(column.dtype, copy=False)
        if np.array_equal(restored.view(bits), column.view(bits)):
            return decimals, integers
    return None


def _filled(column: Column, quality: ByteArray) -> Column:
    """Return `column` with each MISSING value replaced by the last present one (0 before any)."""
    present = np.where(quality != Quality.MISSING, np.arange(1, len(column) + 1), 0)
    latest = np.maximum.accumulate(present)
    return np.concatenate((np.zeros(1, column.dtype), column))[latest]


def _pack_unsigned(integers: npt.NDArray[np.uint64]) -> bytes:
    largest = int(integers.max()) if len(integers) else 0
    width = next(w for w in _WIDTHS if largest < 1 << (8 * w.itemsize))
    return bytes([width.itemsize]) + _shuffled(integers.astype(width))


def _unpack_unsigned(reader: _Reader, length: int) -> npt.NDArray[np.uint64]:
    itemsize = reader.byte()
    width = next((w for w in _WIDTHS if w.itemsize == itemsize), None)
    if width is None:
        raise MalformedFrame("frame.scheme", f"integers of {itemsize} bytes", value=itemsize)
    return _unshuffled(reader.take(length * itemsize), width, length).astype(np.uint64)


def _shuffled(column: Column) -> bytes:
    """Return the bytes of `column` plane by plane: all first bytes, then all second ones, …"""
    itemsize = column.dtype.itemsize
    return column.view(np.uint8).reshape(len(column), itemsize).T.tobytes()


def _unshuffled(raw: bytes, dtype: np.dtype[Any], length: int) -> Column:
    planes = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, length)
    # A copy even of a single value: what `frombuffer` returns cannot be written to.
    return planes.T.copy(order="C").view(dtype).reshape(length)


def _decode_quality(reader: _Reader, length: int) -> ByteArray:
    scheme = reader.byte()
    if scheme == _QUALITY_ALL_GOOD:
        return np.zeros(length, np.uint8)
    if scheme != _QUALITY_MASK:
        raise MalformedFrame("frame.scheme", f"quality scheme {scheme} is not known", value=scheme)
    return np.frombuffer(reader.take(length), np.uint8)


def _compressor() -> zstandard.ZstdCompressor:
    if not hasattr(_zstd, "compressor"):
        _zstd.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=False)
    compressor: zstandard.ZstdCompressor = _zstd.compressor
    return compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_zstd, "decompressor"):
        _zstd.decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 25)
    decompressor: zstandard.ZstdDecompressor = _zstd.decompressor
    return decompressor


# --- statistics beside the payload --------------------------------------------------------

STATISTICS_VERSION: Final = 1
STATISTICS: Final = np.dtype(
    [
        ("reading_count", "<u4"),
        ("good_count", "<u4"),
        ("min", "<f8"),
        ("max", "<f8"),
        ("sum", "<f8"),
        ("sum_of_squares", "<f8"),
        ("first", "<f8"),
        ("last", "<f8"),
        ("first_ns", "<i8"),
        ("last_ns", "<i8"),
    ]
)
"""Per channel, over GOOD readings alone, in SI. Without a GOOD reading all but the counts are 0."""


def channel_statistics(frame: Frame) -> npt.NDArray[np.void]:
    """Return one `STATISTICS` record per channel of `frame`, in the header's order."""
    records = np.zeros(len(frame.header.channels), STATISTICS)
    for group in frame.clock_groups:
        at = list(group.indexes)
        records["reading_count"][at] = len(group.times_ns)
        if group.all_good:
            _fill_statistics(records, at, group.si, group.times_ns)
            continue
        for row, index in enumerate(at):
            good = group.quality[row] == Quality.GOOD
            if good.any():
                _fill_statistics(
                    records, [index], group.si[row : row + 1, good], group.times_ns[good]
                )
    return records


def _fill_statistics(
    records: npt.NDArray[np.void], at: list[int], si: FloatArray, times_ns: IntArray
) -> None:
    """Fill the records of the channels `at` from GOOD readings, shape (n_channels, n)."""
    records["good_count"][at] = len(times_ns)
    records["min"][at], records["max"][at] = si.min(axis=1), si.max(axis=1)
    records["sum"][at], records["sum_of_squares"][at] = si.sum(axis=1), (si * si).sum(axis=1)
    records["first"][at], records["last"][at] = si[:, 0], si[:, -1]
    records["first_ns"][at], records["last_ns"][at] = times_ns[0], times_ns[-1]


def pack_statistics(header: FrameHeader, records: npt.NDArray[np.void]) -> bytes:
    """Return version, channel names and `records` as the bytes kept in the frame's row."""
    names = "\n".join(channel.name for channel in header.channels).encode()
    return struct.pack("<BH", STATISTICS_VERSION, len(names)) + names + records.tobytes()


def unpack_statistics(packed: bytes) -> tuple[tuple[str, ...], npt.NDArray[np.void]]:
    """Return (channel names, one `STATISTICS` record each) from `pack_statistics`' bytes."""
    version, length = struct.unpack_from("<BH", packed)
    if version != STATISTICS_VERSION:
        raise InvalidInput(
            "frame.statistics_version",
            f"statistics version {version} is not known; this reader knows {STATISTICS_VERSION}",
            value=version,
            limit=STATISTICS_VERSION,
        )
    names = packed[3 : 3 + length].decode().split("\n")
    return tuple(names), np.frombuffer(packed, STATISTICS, offset=3 + length)


def with_qualities(frame: Frame, qualities: Sequence[ByteArray]) -> Frame:
    """Return `frame` with other quality masks; values and times stay as delivered."""
    return replace(frame, qualities=tuple(qualities))
