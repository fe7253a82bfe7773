"""How statistics of a frame are laid out, and how many of them are read at once."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from domain.errors import MalformedFrame
from domain.frame_header import FrameHeader
from domain.frame_layout import DECIMALS_MAX, POWERS
from domain.frames import FloatArray, IntArray

STATISTICS_VERSION: Final = 2
FIRST_STATISTICS_VERSION: Final = 1
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

Records = npt.NDArray[np.void]

TEXT_BYTES_KEPT: Final = 255
"""UTF-8 bytes of a first or last text at most; a longer one is cut at a character."""


@dataclass(frozen=True, slots=True)
class TextStatistics:
    """What is kept of a channel that holds text, over GOOD readings: None where there is none."""

    reading_count: int
    good_count: int
    first: str | None
    last: str | None
    first_ns: int
    last_ns: int


INTEGERS: Final = 0
FLOATS: Final = 1
TEXT: Final = 2
NOTHING: Final = 3
MODE: Final = 3
FLOAT_SUMS: Final = 4
NOT_ALL_GOOD: Final = 8

FIELDS: Final = ("min", "max", "first", "last", "sum", "sum_of_squares")
HEAD: Final = struct.Struct("<BH")
CLOCK: Final = struct.Struct("<Iqq")
GOOD: Final = struct.Struct("<Iqq")
INTEGER_SUM_COUNT_MAX: Final = 65_536
SQUARES_MAX: Final = 2.0**62
SUM_TOLERANCE: Final = 1e-11
_POWERS: Final = np.array(POWERS)


@dataclass(frozen=True, eq=False, slots=True)
class ChannelMaps:
    """How the integers of channels become SI, one entry each (or arrays that broadcast)."""

    power: FloatArray
    factor: FloatArray
    offset: FloatArray
    single: npt.NDArray[np.bool_]

    def si(self, integers: IntArray) -> FloatArray:
        """Return the SI values of `integers`, by the operations that decoding takes."""
        delivered = integers / self.power
        if self.single.any():
            delivered = np.where(self.single, delivered.astype(np.float32), delivered)
        result: FloatArray = delivered * self.factor + self.offset
        return result


def fill_from_integers(records: Records, fields: IntArray, maps: ChannelMaps) -> None:
    """Fill `records`, which have their counts, from six integers each, the last axis of `fields`.

    They are the smallest integer; how far above it the largest, the first and the last lie; and
    the sums of how far above it all lie, and of the squares of that.
    """
    low, span, first, last, above, squares = np.moveaxis(fields, -1, 0)
    smallest, largest = maps.si(low), maps.si(low + span)
    records["min"] = np.minimum(smallest, largest)
    records["max"] = np.maximum(smallest, largest)
    records["first"], records["last"] = maps.si(low + first), maps.si(low + last)
    count = records["good_count"].astype(np.int64)
    records["sum"] = (count * low + above) / maps.power * maps.factor + count * maps.offset
    step = maps.factor / maps.power
    records["sum_of_squares"] = (
        count * (smallest * smallest)
        + 2.0 * (step * smallest) * above.astype(np.float64)
        + (step * step) * squares.astype(np.float64)
    )


def sums_are_sure(
    good_count: npt.NDArray[np.uint32], fields: IntArray, maps: ChannelMaps
) -> npt.NDArray[np.bool_]:
    """Return where the sums that `fill_from_integers` makes are surely within `SUM_TOLERANCE`.

    Its roundings, and those of adding up the readings themselves, are less than `_ROUNDINGS` of
    the largest terms for each reading; what is left to be sure of is that the terms do not
    cancel each other.
    """
    low, span, _, _, above, squares = np.moveaxis(fields, -1, 0)
    count = good_count.astype(np.float64)
    largest = np.maximum(np.abs(low.astype(np.float64)), np.abs(low.astype(np.float64) + span))
    with np.errstate(over="ignore", invalid="ignore"):
        step = np.abs(maps.factor / maps.power)
        magnitude = step * largest + np.abs(maps.offset)
        smallest = maps.si(low)
        terms = (
            count * smallest * smallest,
            2.0 * (maps.factor / maps.power * smallest) * above,
            step * step * squares,
        )
        sum_of_squares = terms[0] + terms[1] + terms[2]
        error = _ROUNDINGS * (count * magnitude * magnitude + sum(np.abs(term) for term in terms))
        sure = error <= SUM_TOLERANCE * (sum_of_squares - error)
        sure &= _ROUNDINGS * count * magnitude <= SUM_TOLERANCE * np.sqrt(
            count * (sum_of_squares - error)
        )
    sure &= (good_count <= INTEGER_SUM_COUNT_MAX) & (count * largest < 2.0**62)
    # Rounded to float32, decimals are not what the integers make of them.
    result: npt.NDArray[np.bool_] = sure & (~maps.single | (maps.power == 1.0))
    return result


_ROUNDINGS: Final = 64 * 2.0**-53


def maps_of(header: FrameHeader, indexes: Sequence[int], decimals: IntArray) -> ChannelMaps:
    """Return the maps of the channels at `indexes`, with as many `decimals` each."""
    at = slice(None) if len(indexes) == len(header.channels) else list(indexes)
    return ChannelMaps(_POWERS[decimals], header.factors[at], header.offsets[at], header.single[at])


class StatisticsReader:
    """Reads the numbers of many statistics with the same header at once."""

    def __init__(self, packed: Sequence[bytes], header: FrameHeader, at: IntArray | int) -> None:
        self._header = header
        self._raw = b"".join(packed)
        lengths = np.fromiter(map(len, packed), np.int64, len(packed))
        self._bytes = np.frombuffer(self._raw + bytes(8), np.uint8)
        self._ends = np.cumsum(lengths)
        begins = self._ends - lengths
        clocks_at = begins + at
        descriptors_at = clocks_at + CLOCK.size * header.clock_count
        channels = len(header.channels)
        self._numbers_at = descriptors_at + 4 * channels
        if (self._numbers_at > self._ends).any():
            raise _truncated()
        self._clocks = self._taken(clocks_at, CLOCK.size * header.clock_count).view(
            np.dtype([("count", "<u4"), ("first_ns", "<i8"), ("last_ns", "<i8")])
        )
        self._descriptors = self._taken(descriptors_at, 4 * channels).reshape(-1, channels, 4)

    def _taken(self, at: IntArray, length: int) -> npt.NDArray[np.uint8]:
        """Return `length` bytes from each of `at` on: shape (n, length)."""
        taken: npt.NDArray[np.uint8] = self._bytes[at[:, None] + np.arange(length)]
        return taken

    def records(self, numeric: list[int]) -> Records:
        """Return the records of the channels `numeric`, shape (n_frames, n_numeric)."""
        modes, fields, ends, _ = self._fields()
        every = np.zeros(modes.shape, STATISTICS)
        clocks = self._clocks[:, [channel.clock for channel in self._header.channels]]
        every["reading_count"] = every["good_count"] = clocks["count"]
        every["first_ns"], every["last_ns"] = clocks["first_ns"], clocks["last_ns"]
        every[modes & MODE == NOTHING] = 0
        every["reading_count"] = clocks["count"]
        self._read_good(every, modes, ends)
        decimals = (self._descriptors[..., 1] >> 4).astype(np.int64)
        if decimals.max(initial=0) > DECIMALS_MAX:
            raise MalformedFrame("frame.statistics", "too many decimals", limit=DECIMALS_MAX)
        records = every.copy()
        with np.errstate(over="ignore", invalid="ignore"):
            fill_from_integers(
                records, fields, maps_of(self._header, range(len(self._header.channels)), decimals)
            )
        floats = fields.view(np.float64)
        for place, name in enumerate(FIELDS):
            as_floats = modes & MODE == FLOATS
            if place >= 4:
                as_floats |= modes & FLOAT_SUMS != 0
            records[name] = np.where(as_floats, floats[..., place], records[name])
        records[modes & MODE >= TEXT] = every[modes & MODE >= TEXT]
        return records[:, numeric]

    def texts(self) -> dict[str, TextStatistics]:
        """Return the statistics of the text channels of the only frame."""
        modes, _, ends, starts = self._fields()
        counted = np.zeros(modes.shape, STATISTICS)
        clocks = self._clocks[:, [channel.clock for channel in self._header.channels]]
        counted["good_count"] = clocks["count"]
        counted["first_ns"], counted["last_ns"] = clocks["first_ns"], clocks["last_ns"]
        self._read_good(counted, modes, ends)
        texts = {}
        for index, channel in enumerate(self._header.channels):
            if not channel.is_text:
                continue
            count = int(clocks["count"][0, index])
            if modes[0, index] & MODE != TEXT:
                texts[channel.name] = TextStatistics(count, 0, None, None, 0, 0)
                continue
            begin, end = int(starts[0, index]), int(self._ends[0])
            (first, last), _ = _read_texts(self._raw, begin, end)
            _, good_count, *_, first_ns, last_ns = counted[0, index].tolist()
            texts[channel.name] = TextStatistics(count, good_count, first, last, first_ns, last_ns)
        return texts

    def _fields(self) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Return modes, the six numbers of each channel, where the numbers of a frame end, and
        where those of a channel begin.
        """
        modes = self._descriptors[..., 0].astype(np.int64)
        low, rest = self._descriptors[..., 1] & 15, self._descriptors[..., 2]
        span, above, squares = rest >> 4, rest & 15, self._descriptors[..., 3]
        sizes = np.stack((low, span, span, span, above, squares), axis=-1).astype(np.int64)
        if sizes.max(initial=0) > 8 or modes.max(initial=0) > MODE | FLOAT_SUMS | NOT_ALL_GOOD:
            raise MalformedFrame("frame.statistics", "a number of more than 8 bytes")
        text = modes & MODE == TEXT
        lengths = sizes.sum(axis=-1)
        if text.any():
            self._measure_texts(text, lengths)
        before = np.cumsum(lengths, axis=1) - lengths
        ends = self._numbers_at + lengths.sum(axis=1)
        if (ends > self._ends).any():
            raise _truncated()
        starts = (self._numbers_at[:, None] + before)[..., None] + np.cumsum(sizes, axis=-1) - sizes
        gathered = self._bytes[np.minimum(starts, len(self._raw))[..., None] + np.arange(8)]
        gathered[np.arange(8) >= sizes[..., None]] = 0
        fields = np.ascontiguousarray(gathered).view("<i8")[..., 0]
        shift = np.where(sizes[..., 0] > 0, 64 - 8 * sizes[..., 0], 0)
        fields[..., 0] = fields[..., 0] << shift >> shift
        return modes, fields, ends, self._numbers_at[:, None] + before

    def _measure_texts(self, text: npt.NDArray[np.bool_], lengths: IntArray) -> None:
        """Put the lengths of texts, which the descriptors do not tell, into `lengths`."""
        for place in range(len(lengths)):
            at, end = int(self._numbers_at[place]), int(self._ends[place])
            for channel in range(lengths.shape[1]):
                if text[place, channel]:
                    lengths[place, channel] = len(_read_texts(self._raw, at, end)[1])
                at += int(lengths[place, channel])

    def _read_good(self, records: Records, modes: IntArray, at: IntArray) -> None:
        """Read counts and times of the channels that are not all GOOD."""
        partly = (modes & NOT_ALL_GOOD != 0) & (modes & MODE != NOTHING)
        ends = at + GOOD.size * partly.sum(axis=1)
        if (ends != self._ends).any():
            raise _truncated()
        for place in np.flatnonzero(partly.any(axis=1)).tolist():
            offset = int(at[place])
            for channel in np.flatnonzero(partly[place]).tolist():
                good_count, first_ns, last_ns = GOOD.unpack_from(self._raw, offset)
                record = records[place, channel : channel + 1]
                record["good_count"] = good_count
                record["first_ns"], record["last_ns"] = first_ns, last_ns
                offset += GOOD.size


def _read_texts(raw: bytes, at: int, end: int) -> tuple[tuple[str, str], bytes]:
    """Return the two texts at `at`, and the bytes they take."""
    texts = []
    begin = at
    for _ in range(2):
        stop = at + 1 + raw[at] if at < end else end + 1
        if stop > end:
            raise _truncated()
        try:
            texts.append(raw[at + 1 : stop].decode())
        except UnicodeDecodeError as error:
            raise MalformedFrame("frame.statistics", f"a text is not UTF-8: {error}") from error
        at = stop
    return (texts[0], texts[1]), raw[begin:at]


def _truncated() -> MalformedFrame:
    return MalformedFrame("frame.statistics", "the statistics are not as long as they say")
