"""Frames: a window of readings of one asset as columns, and the form their hash is taken over.

A frame keeps every value exactly as the sensor delivered it, beside the unit it declares and
that unit's map to SI. Its *canonical form*, uncompressed, is what is hashed: the same readings
give the same bytes whatever compressed them. The *encoded form* in which it travels and rests is
`domain.frame_encoding`'s; the bytes of both are specified in ``docs/frame-format.md``.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from domain.errors import InvalidInput, MalformedFrame
from domain.frame_header import (
    CHANNELS_MAX,
    HEADER_BYTES_MAX,
    VALUE_TYPES,
    ChannelHeader,
    FrameHeader,
    check_header,
    header_bytes,
    parse_header,
)
from domain.frame_rows import SharedRows, in_si

__all__ = [
    "CHANNELS_MAX",
    "FRAME_BYTES_MAX",
    "HEADER_BYTES_MAX",
    "READINGS_MAX",
    "SEQUENCE_MAX",
    "TEXT_BYTES_MAX",
    "TEXT_LENGTH_MAX",
    "VALUE_TYPES",
    "ByteArray",
    "ChannelHeader",
    "ClockGroup",
    "Column",
    "FloatArray",
    "Frame",
    "FrameHeader",
    "IntArray",
    "Quality",
    "SharedRows",
    "build_frame",
    "canonical_bytes",
    "check_header",
    "good_mask",
    "header_bytes",
    "parse_header",
    "time_from_ns",
    "waveform_times_ns",
    "with_qualities",
]

READINGS_MAX: Final = 1_000_000
FRAME_BYTES_MAX: Final = 4 * 1024 * 1024
SEQUENCE_MAX: Final = 2**63 - 1
TEXT_LENGTH_MAX: Final = 1_024
"""UTF-8 bytes of one text."""
TEXT_BYTES_MAX: Final = 4 * 1024 * 1024
"""UTF-8 bytes of all texts of a frame together, each as often as it was read."""

IntArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]
Column = npt.NDArray[Any]


class Quality(IntEnum):
    """How far a reading can be trusted; the severities of an OPC UA StatusCode, and one more.

    ``MISSING`` is BAD without a value (OPC UA Bad_NoData): the sensor delivered nothing. Its
    stored value is NaN for floats, zero for integers and booleans, and the empty text.
    """

    GOOD = 0
    UNCERTAIN = 1
    BAD = 2
    MISSING = 3


@dataclass(frozen=True, eq=False)
class Frame:
    """Readings of one asset over one window.

    Parameters
    ----------
    sequence : number of the frame within its agent, from 1 upwards, never used twice
    clocks : for each clock, int64 nanoseconds since 1970-01-01 UTC, strictly increasing
    values : for each channel, the values as delivered, as long as its clock; texts as objects
    qualities : for each channel, a `Quality` per value (uint8)
    rows : where the frame was built or decoded together with others, their values and its first
        row
    """

    header: FrameHeader
    sequence: int
    clocks: tuple[IntArray, ...]
    values: tuple[Column, ...]
    qualities: tuple[ByteArray, ...]
    rows: tuple[SharedRows, int] | None = field(default=None, repr=False)

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

    @cached_property
    def all_good(self) -> bool:
        """Whether every reading is GOOD."""
        masks = self.qualities
        if all(mask is masks[0] for mask in masks):  # as `good_mask` is, by all
            return masks[0] is good_mask(len(masks[0])) or not masks[0].any()
        return not any(mask is not good_mask(len(mask)) and mask.any() for mask in masks)

    def channel_times_ns(self, index: int) -> IntArray:
        """Return the clock of channel `index`: int64 ns, shape (n,)."""
        return self.clocks[self.header.channels[index].clock]

    def channel_si(self, index: int) -> FloatArray:
        """Return the values of channel `index` in SI: float64, shape (n,).

        Raises
        ------
        InvalidInput
            ``frame.channel_is_text``: a text has no SI
        """
        channel = self.header.channels[index]
        if channel.is_text:
            raise InvalidInput(
                "frame.channel_is_text", f"channel {channel.name!r} holds text, which has no SI"
            )
        if self.rows is not None:
            shared, first = self.rows
            row: FloatArray = shared.si[first + index]
            return row
        factor, offset = np.array([channel.factor]), np.array([channel.offset])
        alone: FloatArray = in_si(self.values[index][None], factor, offset)[0]
        return alone

    @property
    def numeric_channels(self) -> tuple[int, ...]:
        """The indexes of the channels that have an SI: all but those that hold text."""
        return self.header.numeric_channels

    @property
    def text_channels(self) -> tuple[int, ...]:
        """The indexes of the channels that hold text."""
        return self.header.text_channels

    @cached_property
    def clock_groups(self) -> tuple[ClockGroup, ...]:
        """The numeric channels by their clock, each group's readings in SI as one matrix.

        A clock that times text alone has no group.
        """
        groups = []
        for times, channels in zip(self.clocks, self.header.clock_channels, strict=True):
            indexes = tuple(n for n in channels if not self.header.channels[n].is_text)
            if indexes:
                groups.append(self._clock_group(indexes, times))
        return tuple(groups)

    def _clock_group(self, indexes: tuple[int, ...], times_ns: IntArray) -> ClockGroup:
        masks = [self.qualities[index] for index in indexes]
        good = good_mask(len(times_ns))
        if all(mask is good for mask in masks):
            quality: ByteArray = np.broadcast_to(good, (len(indexes), len(times_ns)))
        else:
            quality = np.stack(masks)
        if self.rows is not None:
            shared, first = self.rows
            return ClockGroup(indexes, times_ns, shared.si[first : first + len(indexes)], quality)
        si = np.empty(quality.shape)
        for row, index in enumerate(indexes):
            si[row] = self.values[index]
        at = list(indexes)
        si = in_si(si, self.header.factors[at], self.header.offsets[at])
        return ClockGroup(indexes, times_ns, si, quality)

    @cached_property
    def canonical_sha256(self) -> bytes:
        """SHA-256 of the canonical form, 32 bytes."""
        return hashlib.sha256(canonical_bytes(self)).digest()


@dataclass(frozen=True, eq=False)
class ClockGroup:
    """The numeric channels of a frame that share a clock.

    Parameters
    ----------
    indexes : the channels' places in the header
    times_ns : int64, shape (n_readings,)
    si : float64, shape (n_channels, n_readings), SI; NaN where a reading is MISSING and the
        channel has floats
    quality : uint8, shape (n_channels, n_readings), `Quality`
    """

    indexes: tuple[int, ...]
    times_ns: IntArray
    si: FloatArray
    quality: ByteArray

    @cached_property
    def all_good(self) -> bool:
        """Whether every reading is GOOD."""
        # Where all masks are the one shared row of zeros, there is nothing to look at.
        return self.quality.strides[0] == 0 or not self.quality.any()

    @cached_property
    def good_si(self) -> FloatArray:
        """`si` with NaN in place of every reading that is not GOOD."""
        return self.si if self.all_good else np.where(self.quality == 0, self.si, np.nan)


def time_from_ns(time_ns: int) -> datetime:
    """Return the UTC time of `time_ns` (ns since 1970), cut to the microsecond."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1000)


@lru_cache(maxsize=256)
def good_mask(length: int) -> ByteArray:
    """Return the mask of `length` GOOD readings, which frames share and nobody may write to."""
    mask = np.zeros(length, np.uint8)
    mask.flags.writeable = False
    return mask


def waveform_times_ns(start_ns: int, rate_hz: float, count: int) -> IntArray:
    """Return the times of `count` samples from `start_ns` on, each rounded to the nanosecond.

    Every time follows from the start, so that no error accumulates: 12 kHz stays 12 kHz.
    """
    # Exact up to the division: a frame has at most a million samples.
    since: IntArray = np.rint(np.arange(count) * 1e9 / rate_hz).astype(np.int64)
    return since + start_ns


# --- construction -------------------------------------------------------------------------


def build_frame(
    header: FrameHeader,
    sequence: int,
    clocks: Sequence[Column],
    values: Sequence[Column] | Column,
    qualities: Sequence[Column | None],
) -> Frame:
    """Return a frame after checking that its parts belong together.

    Parameters
    ----------
    clocks : int64 ns; of a waveform, those of `waveform_times_ns`
    values : of the types that the header declares; texts as an array of objects. Channels of one
        type and clock may come as one array, shape (n_channels, n), and are checked faster.
    qualities : None stands for all GOOD

    Raises
    ------
    InvalidInput
        ``frame.*``: a count, a type, a non-finite value or times that do not increase.
    """
    channels = header.checked().channels
    check_sequence(sequence)
    if len(clocks) != header.clock_count or not (len(values) == len(qualities) == len(channels)):
        raise MalformedFrame(
            "frame.column_count",
            f"{len(clocks)} clocks, {len(values)} value and {len(qualities)} quality columns for "
            f"a header with {header.clock_count} clocks and {len(channels)} channels",
        )
    frame_clocks = tuple(
        checked_clock(np.asarray(clock), rate_hz)
        for clock, rate_hz in zip(clocks, header.rates_hz, strict=True)
    )
    if isinstance(values, np.ndarray) and _is_sound_matrix(header, frame_clocks, values, qualities):
        check_reading_count(values.size)
        rows = tuple(np.ascontiguousarray(values))
        return Frame(
            header, sequence, frame_clocks, rows, (good_mask(values.shape[1]),) * len(rows)
        )
    masks: list[ByteArray] = []
    columns: list[Column] = []
    for channel, column, quality in zip(channels, values, qualities, strict=True):
        length = len(frame_clocks[channel.clock])
        mask = good_mask(length) if quality is None else np.asarray(quality, np.uint8)
        columns.append(_checked_values(channel, np.asarray(column), mask, length))
        masks.append(mask)
    frame = Frame(header, sequence, frame_clocks, tuple(columns), tuple(masks))
    check_reading_count(frame.reading_count)
    check_text_bytes(frame)
    return frame


def _is_sound_matrix(
    header: FrameHeader,
    clocks: tuple[IntArray, ...],
    values: Column,
    qualities: Sequence[Column | None],
) -> bool:
    """Whether `values` are finite numbers of the one type on the one clock, all of them GOOD."""
    return (
        header.uniform_type is not None
        and values.dtype == VALUE_TYPES[header.uniform_type]
        and values.shape == (len(header.channels), len(clocks[0]))
        and all(quality is None for quality in qualities)
        and (values.dtype.kind != "f" or bool(np.isfinite(values).all()))
    )


def check_sequence(sequence: int) -> None:
    """Raise ``frame.sequence_out_of_range`` unless a frame may have that number."""
    if not 1 <= sequence <= SEQUENCE_MAX:
        raise MalformedFrame(
            "frame.sequence_out_of_range",
            f"sequence {sequence} is not between 1 and {SEQUENCE_MAX}",
            value=sequence,
            limit=SEQUENCE_MAX,
        )


def check_reading_count(readings: int) -> None:
    """Raise ``frame.too_many_readings`` beyond `READINGS_MAX`."""
    if readings > READINGS_MAX:
        raise MalformedFrame(
            "frame.too_many_readings",
            f"the frame holds {readings} readings, more than {READINGS_MAX}",
            hint="send shorter windows",
            value=readings,
            limit=READINGS_MAX,
        )


def check_text_bytes(frame: Frame) -> None:
    """Raise ``frame.text`` when the texts of `frame` are together larger than `TEXT_BYTES_MAX`."""
    total = sum(len(text.encode()) for n in frame.text_channels for text in frame.values[n])
    if total > TEXT_BYTES_MAX:
        raise MalformedFrame(
            "frame.text",
            f"the texts of the frame take {total} bytes, more than {TEXT_BYTES_MAX}",
            hint="send shorter windows",
            value=total,
            limit=TEXT_BYTES_MAX,
        )


def checked_clock(clock: Column, rate_hz: float | None) -> IntArray:
    """Return `clock` when its times are int64, increase, and follow from its rate if it has one."""
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
    if rate_hz is not None:
        expected = waveform_times_ns(int(clock[0]), rate_hz, len(clock))
        wrong = np.flatnonzero(clock != expected)
        if len(wrong):
            at = int(wrong[0])
            raise MalformedFrame(
                "frame.rate",
                f"sample {at} of a waveform of {rate_hz!r} Hz is at {int(clock[at])} ns, "
                f"not {int(expected[at])} ns",
                hint="its times are those of waveform_times_ns",
                value=int(clock[at]),
                limit=int(expected[at]),
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
        return _checked_texts(channel, column) if channel.is_text else column
    check_qualities(channel, mask)
    missing = mask == Quality.MISSING
    if not finite:
        bad = np.flatnonzero(~np.isfinite(column) & ~missing)
        if len(bad):
            raise not_finite(channel, column, int(bad[0]))
    if missing.any():
        column = column.copy()
        column[missing] = no_value(channel)
    return _checked_texts(channel, column) if channel.is_text else column


def no_value(channel: ChannelHeader) -> Any:
    """Return what stands for a MISSING value of `channel`."""
    if channel.is_text:
        return ""
    return np.nan if channel.value_type in ("f8", "f4") else 0


def check_qualities(channel: ChannelHeader, mask: ByteArray) -> None:
    """Raise ``frame.quality_unknown`` when `mask` holds what is no `Quality`."""
    if int(mask.max()) > Quality.MISSING:
        raise MalformedFrame(
            "frame.quality_unknown",
            f"channel {channel.name!r} has quality {int(mask.max())}; the largest is "
            f"{int(Quality.MISSING)}",
            value=int(mask.max()),
            limit=int(Quality.MISSING),
        )


def not_finite(channel: ChannelHeader, column: Column, at: int) -> InvalidInput:
    """Return the error that tells of a value that is no number."""
    return InvalidInput(
        "frame.value_not_finite",
        f"channel {channel.name!r} holds {column[at]} at index {at}",
        hint="a reading without a number has quality MISSING",
        value=str(column[at]),
    )


def _checked_texts(channel: ChannelHeader, column: Column) -> Column:
    for text in column.tolist():
        check_text(channel.name, text)
    return column


def check_text(channel: str, text: object) -> bytes:
    """Return the UTF-8 bytes of `text`, or raise ``frame.text`` when it cannot be a value."""
    try:
        if isinstance(text, str) and len(encoded := text.encode()) <= TEXT_LENGTH_MAX:
            return encoded
    except UnicodeEncodeError:
        pass  # a lone surrogate
    raise MalformedFrame(
        "frame.text",
        f"channel {channel!r} holds {text!r:.80}, not a text of at most "
        f"{TEXT_LENGTH_MAX} bytes of UTF-8",
        limit=TEXT_LENGTH_MAX,
    )


def with_qualities(frame: Frame, qualities: Sequence[ByteArray]) -> Frame:
    """Return `frame` with other quality masks; values and times stay as delivered."""
    return replace(frame, qualities=tuple(qualities))


# --- canonical form -----------------------------------------------------------------------

_PREFIX_1 = b"heddle-frame/1\n"
_PREFIX_2 = b"heddle-frame/2\n"
_CANONICAL_HEAD_MAX: Final = 512


def canonical_bytes(frame: Frame) -> bytes:
    """Return the uncompressed form of `frame` over which its hash is taken."""
    return b"".join(_canonical_parts(frame))


def _canonical_parts(frame: Frame) -> list[Any]:
    header = frame.header
    parts: list[Any] = [
        canonical_head(header),
        struct.pack(
            f"<Q{len(frame.clocks)}I", frame.sequence, *(len(clock) for clock in frame.clocks)
        ),
    ]
    for clock, rate_hz in zip(frame.clocks, header.rates_hz, strict=True):
        # The other times of a waveform follow from its rate, which the header has.
        parts.append(clock if rate_hz is None else clock[:1])
    for channel, column, quality in zip(
        header.channels, frame.values, frame.qualities, strict=True
    ):
        if channel.is_text:
            parts += _canonical_texts(column)
        else:
            parts.append(np.ascontiguousarray(column))
        if quality is not good_mask(len(quality)) and quality.any():
            parts += (b"\x01", np.ascontiguousarray(quality))
        else:
            parts.append(b"\x00")
    return parts


@lru_cache(maxsize=_CANONICAL_HEAD_MAX)
def canonical_head(header: FrameHeader) -> bytes:
    """Return what the canonical forms of all frames with `header` begin with."""
    prefix = _PREFIX_1 if header.is_first_version else _PREFIX_2
    return prefix + struct.pack("<I", len(header.canonical)) + header.canonical


def _canonical_texts(column: Column) -> list[bytes]:
    texts = [text.encode() for text in column.tolist()]
    return [struct.pack(f"<{len(texts)}I", *map(len, texts)), *texts]
