"""Statistics of a frame, which lie beside its payload so that most questions need not decode it.

Version 2 keeps them as the integers that the values are: smallest, range, sums above the
smallest. With the header, which has the map to SI, they give back the very numbers that the
readings give; ``docs/frame-format.md`` specifies the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from domain.errors import InvalidInput, MalformedFrame
from domain.frame_header import FrameHeader, unpack_header
from domain.frame_rows import Scaled
from domain.frame_scaling import exact_integers
from domain.frame_stacks import FrameStack, stacked, stacked_integers
from domain.frame_statistics_layout import (
    CLOCK,
    FIELDS,
    FIRST_STATISTICS_VERSION,
    FLOAT_SUMS,
    FLOATS,
    GOOD,
    HEAD,
    INTEGER_SUM_COUNT_MAX,
    INTEGERS,
    MODE,
    NOT_ALL_GOOD,
    NOTHING,
    SQUARES_MAX,
    STATISTICS,
    STATISTICS_VERSION,
    SUM_TOLERANCE,
    TEXT,
    TEXT_BYTES_KEPT,
    Records,
    StatisticsReader,
    TextStatistics,
    fill_from_integers,
    maps_of,
    sums_are_sure,
)
from domain.frames import FloatArray, Frame, IntArray, Quality
from domain.integer_columns import SPREAD_MAX, bit_length, byte_length
from domain.time_quality import TimeQuality

__all__ = [
    "STATISTICS",
    "STATISTICS_VERSION",
    "TEXT_BYTES_KEPT",
    "Records",
    "StatisticsStack",
    "TextStatistics",
    "channel_names",
    "channel_statistics",
    "channel_statistics_many",
    "pack_statistics",
    "pack_statistics_many",
    "unpack_statistics",
    "unpack_statistics_many",
    "unpack_texts",
]


@dataclass(frozen=True, eq=False, slots=True)
class StatisticsStack:
    """Statistics of frames that have the same channels.

    Parameters
    ----------
    places : where they were among the statistics given
    names : the numeric channels
    records : `STATISTICS`, shape (n_frames, n_channels)
    """

    places: tuple[int, ...]
    names: tuple[str, ...]
    records: Records


# --- computing ----------------------------------------------------------------------------


def channel_statistics(frame: Frame) -> Records:
    """Return one `STATISTICS` record per numeric channel of `frame`, in the header's order."""
    return channel_statistics_many([frame])[0]


def channel_statistics_many(frames: Sequence[Frame]) -> list[Records]:
    """Return `channel_statistics` of each of `frames`; together they cost less."""
    results = [np.zeros(len(frame.numeric_channels), STATISTICS) for frame in frames]
    for stack in stacked(frames):
        records = _stack_statistics(stack)
        numeric = stack.frames[0].numeric_channels
        at = [numeric.index(index) for index in stack.indexes]
        for place, of_frame in zip(stack.places, records, strict=True):
            results[place][at] = of_frame
    return results


def _stack_statistics(stack: FrameStack) -> Records:
    """Return the records of `stack`, shape (n_frames, n_channels)."""
    records = _counted(stack)
    _fill_all(stack, records)
    return records


def _counted(stack: FrameStack) -> Records:
    """Return the records of `stack` with counts and times alone."""
    records = np.zeros(stack.shape[:2], STATISTICS)
    records["reading_count"] = stack.shape[2]
    if stack.all_good:
        times = stack.times_ns
        records["good_count"] = stack.shape[2]
        records["first_ns"], records["last_ns"] = times[:, :1], times[:, -1:]
        return records
    for place, channel in np.ndindex(records.shape):
        times = stack.times_ns[place, stack.quality[place, channel] == Quality.GOOD]
        if len(times):
            record = records[place, channel]
            record["good_count"] = len(times)
            record["first_ns"], record["last_ns"] = times[0], times[-1]
    return records


def _fill_all(stack: FrameStack, records: Records) -> None:
    """Fill what follows from the GOOD readings of `stack`."""
    if stack.all_good:
        _fill(records, stack.si)
        return
    for place, channel in np.ndindex(records.shape):
        good = stack.quality[place, channel] == Quality.GOOD
        if good.any():
            record = records[place, channel : channel + 1]
            _fill(record, stack.si[place, channel : channel + 1, good].reshape(1, -1))


def _fill(records: Records, si: FloatArray) -> None:
    """Fill what follows from GOOD readings alone: their values are the last axis of `si`."""
    records["min"], records["max"] = si.min(axis=-1), si.max(axis=-1)
    records["sum"] = si.sum(axis=-1)
    records["sum_of_squares"] = np.einsum("...i,...i->...", si, si)
    records["first"], records["last"] = si[..., 0], si[..., -1]


# --- packing ------------------------------------------------------------------------------


def pack_statistics(frame: Frame) -> bytes:
    """Return the statistics of `frame` as the bytes kept in its row."""
    return pack_statistics_many([frame])[0]


def pack_statistics_many(frames: Sequence[Frame]) -> list[bytes]:
    """Return `pack_statistics` of each of `frames`; together they cost less."""
    whole: list[bytes] = [b""] * len(frames)
    packed: list[dict[int, _Packed]] = [{} for _ in frames]
    for stack in stacked(frames):
        numbers = _Numbers(stack)
        if stack.all_good and len(stack.indexes) == len(stack.frames[0].values):
            for place, joined in zip(stack.places, numbers.joined(), strict=True):
                whole[place] = joined
            continue
        for place, of_frame in zip(stack.places, numbers.packed(), strict=True):
            packed[place].update(of_frame)
    return [
        done or _joined(frame, parts)
        for frame, parts, done in zip(frames, packed, whole, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Packed:
    """A run of channels: descriptors, numbers, and what is said where not all is GOOD."""

    descriptor: bytes
    numbers: bytes
    good: bytes = b""


def _joined(frame: Frame, parts: dict[int, _Packed]) -> bytes:
    header = frame.header
    for index in frame.text_channels:
        parts[index] = _packed_text(frame, index)
    ordered = [parts[index] for index in sorted(parts)]
    return b"".join(
        (
            HEAD.pack(STATISTICS_VERSION, len(header.packed)),
            header.packed,
            *(CLOCK.pack(len(clock), int(clock[0]), int(clock[-1])) for clock in frame.clocks),
            *(part.descriptor for part in ordered),
            *(part.numbers for part in ordered),
            *(part.good for part in ordered),
        )
    )


def _packed_text(frame: Frame, index: int) -> _Packed:
    values, quality = frame.values[index], frame.qualities[index]
    good = np.flatnonzero(quality == Quality.GOOD)
    if len(good) == 0:
        return _Packed(bytes((NOTHING, 0, 0, 0)), b"")
    ends = [_cut(values[good[0]]), _cut(values[good[-1]])]
    numbers = b"".join(bytes([len(text)]) + text for text in ends)
    if len(good) == len(values):
        return _Packed(bytes((TEXT, 0, 0, 0)), numbers)
    times = frame.channel_times_ns(index)
    said = GOOD.pack(len(good), int(times[good[0]]), int(times[good[-1]]))
    return _Packed(bytes((TEXT | NOT_ALL_GOOD, 0, 0, 0)), numbers, said)


def _cut(text: str) -> bytes:
    """Return the UTF-8 bytes of `text`, at most `TEXT_BYTES_KEPT` and whole characters."""
    return text.encode()[:TEXT_BYTES_KEPT].decode(errors="ignore").encode()


class _Numbers:
    """The numbers of `stack` in bytes, and what describes them."""

    def __init__(self, stack: FrameStack) -> None:
        self._stack = stack
        shape = stack.shape[:2]
        self._counted = None if stack.all_good else _counted(stack)
        good_count = (
            np.full(shape, stack.shape[2], np.uint32)
            if self._counted is None
            else self._counted["good_count"]
        )
        fields = np.zeros((*shape, len(FIELDS)), np.int64)
        exact = np.zeros(shape, np.bool_)
        decimals = np.zeros(shape, np.int64)
        for channels, frames, scaled in _alike(stack):
            found = _integer_fields(scaled)
            if len(channels) * len(frames) == exact.size:
                exact, decimals = found[0].reshape(shape), scaled.decimals.reshape(shape).copy()
                fields = found[1].reshape(*shape, len(FIELDS))
                break
            part = len(frames), len(channels)
            at = np.ix_(frames, channels)
            exact[at], decimals[at] = found[0].reshape(part), scaled.decimals.reshape(part)
            fields[at] = found[1].reshape(*part, len(FIELDS))
        modes = _check_integers(stack, good_count, fields, exact, decimals)
        sizes = _sizes(fields, modes)
        described = np.empty((*shape, 4), np.uint8)
        described[..., 0] = modes
        if self._counted is not None:
            described[good_count < stack.shape[2], 0] |= NOT_ALL_GOOD
        described[..., 1] = decimals << 4 | sizes[..., 0]
        described[..., 2] = sizes[..., 1] << 4 | sizes[..., 4]
        described[..., 3] = sizes[..., 5]
        self._descriptors = described.tobytes()
        # Every number in as many of its bytes as it takes, one after the other.
        said = fields.view(np.uint8).reshape(*fields.shape, 8)[sizes[..., None] > _BYTES]
        self._numbers = said.tobytes()
        self._lengths = sizes.sum(axis=-1)

    def joined(self) -> Iterator[bytes]:
        """Yield the statistics of each frame, of all whose channels these are the numbers."""
        size = 4 * len(self._stack.indexes)
        begin = 0
        for place, (frame, total) in enumerate(
            zip(self._stack.frames, self._lengths.sum(axis=-1).tolist(), strict=True)
        ):
            header = frame.header.packed
            clock = CLOCK.pack(self._stack.shape[2], frame.window_start_ns, frame.window_end_ns)
            yield b"".join(
                (
                    HEAD.pack(STATISTICS_VERSION, len(header)),
                    header,
                    clock,
                    self._descriptors[size * place : size * (place + 1)],
                    self._numbers[begin : begin + total],
                )
            )
            begin += total

    def packed(self) -> Iterator[dict[int, _Packed]]:
        """Yield, for each frame, its channels packed, by their index."""
        stack = self._stack
        counted = _counted(stack) if self._counted is None else self._counted
        begin = at = 0
        for of_frame, lengths in zip(counted, self._lengths.tolist(), strict=True):
            packed = {}
            for channel, length in enumerate(lengths):
                descriptor = self._descriptors[at : at + 4]
                good = b""
                if descriptor[0] & NOT_ALL_GOOD and descriptor[0] & MODE != NOTHING:
                    record = of_frame[channel]
                    good = GOOD.pack(record["good_count"], record["first_ns"], record["last_ns"])
                packed[stack.indexes[channel]] = _Packed(
                    descriptor, self._numbers[begin : begin + length], good
                )
                begin += length
                at += 4
            yield packed


_BYTES: Final = np.arange(8)


def _alike(stack: FrameStack) -> Iterator[tuple[list[int], list[int], Scaled]]:
    """Yield (channels, frames, what integers their GOOD values are made of, frame by frame).

    A channel without a GOOD reading is left out.
    """
    every = list(range(len(stack.frames)))
    if stack.all_good:
        scaled = stacked_integers(stack)
        if scaled is not None:
            yield list(range(len(stack.indexes))), every, scaled
            return
        for channel, index in enumerate(stack.indexes):
            column = np.stack([frame.values[index] for frame in stack.frames])
            yield [channel], every, exact_integers(column)
        return
    for place, frame in enumerate(stack.frames):
        for channel, index in enumerate(stack.indexes):
            good = stack.quality[place, channel] == Quality.GOOD
            if good.any():
                yield [channel], [place], exact_integers(frame.values[index][good][None])


def _integer_fields(scaled: Scaled) -> tuple[npt.NDArray[np.bool_], IntArray]:
    """Return for each row whether its sums are integers too, and its six integers."""
    low, above = scaled.low, scaled.above
    span = above.max(axis=1).astype(np.int64)
    exact = scaled.exact & (np.abs(low) < SPREAD_MAX / 8)
    exact &= span.astype(np.float64) ** 2 * above.shape[1] < SQUARES_MAX
    fields = np.empty((len(low), len(FIELDS)), np.int64)
    fields[:, 0], fields[:, 1] = low, span
    fields[:, 2], fields[:, 3] = above[:, 0], above[:, -1]
    fields[:, 4] = above.sum(axis=1, dtype=np.int64)
    fields[:, 5] = np.einsum("ij,ij->i", above, above, dtype=np.int64)
    return exact, fields


def _check_integers(
    stack: FrameStack,
    good_count: npt.NDArray[np.uint32],
    fields: IntArray,
    exact: npt.NDArray[np.bool_],
    decimals: IntArray,
) -> IntArray:
    """Return the mode of each channel, and put floats into `fields` where integers fall short.

    The extremes and ends of exact integers are those of the readings, because the map to SI
    never turns the order of two numbers around, nor makes two of one. Their sums are computed
    from the readings where the integers might not give them back.
    """
    good = good_count > 0
    maps = maps_of(stack.frames[0].header, stack.indexes, decimals)
    sure = sums_are_sure(good_count, fields, maps)
    unsure = good & ~(exact & sure)
    if not unsure.any():
        # Without a GOOD reading all fields are zero.
        return np.where(good, INTEGERS, NOTHING)
    records = _counted(stack)
    _fill_all(stack, records)
    rebuilt = records.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        fill_from_integers(rebuilt, fields, maps)
        magnitude = np.sqrt(records["good_count"] * records["sum_of_squares"])
        close = np.abs(rebuilt["sum"] - records["sum"]) <= SUM_TOLERANCE * magnitude
        close &= (
            np.abs(rebuilt["sum_of_squares"] - records["sum_of_squares"])
            <= SUM_TOLERANCE * records["sum_of_squares"]
        )
    close &= records["good_count"] <= INTEGER_SUM_COUNT_MAX
    for name in FIELDS[:4]:
        exact &= (rebuilt[name] == records[name]) | sure
    floats = np.stack([records[name] for name in FIELDS], axis=-1).view(np.int64)
    float_sums = exact & ~close & ~sure
    fields[float_sums, 4:] = floats[float_sums, 4:]
    fields[~exact] = floats[~exact]
    decimals[~exact] = 0
    fields[~good] = 0
    modes = np.where(exact, np.where(float_sums, INTEGERS | FLOAT_SUMS, INTEGERS), FLOATS)
    return np.where(good, modes, NOTHING)


def _sizes(fields: IntArray, modes: IntArray) -> IntArray:
    """Return how many bytes each of `fields` takes."""
    sizes = np.minimum((bit_length(np.maximum(fields, 0)) + 7) // 8, 8)
    sizes[..., 0] = byte_length(fields[..., 0])
    sizes[..., 2:4] = sizes[..., 1:2]  # none of them is beyond the range
    sizes[modes & FLOAT_SUMS != 0, 4:] = 8
    sizes[modes & MODE == FLOATS] = 8
    return sizes


# --- unpacking ----------------------------------------------------------------------------


def unpack_statistics(packed: bytes) -> tuple[tuple[str, ...], Records]:
    """Return (names of the numeric channels, one `STATISTICS` record each).

    Raises
    ------
    InvalidInput
        ``frame.statistics_version``
    MalformedFrame
        ``frame.statistics``, or what is wrong with the header within
    """
    (stack,) = unpack_statistics_many([packed])
    return stack.names, stack.records[0]


def unpack_statistics_many(packed: Sequence[bytes]) -> list[StatisticsStack]:
    """Return `unpack_statistics` of all of `packed`, those with the same channels stacked.

    Raises
    ------
    InvalidInput
        as `unpack_statistics`
    """
    shapes = [_shape_of(one) for one in packed]
    first: dict[bytes, list[int]] = {}
    second: dict[int, list[int]] = {}
    headers = {
        shape: unpack_header(shape[HEAD.size :])
        for shape in set(shapes)
        if shape[0] != FIRST_STATISTICS_VERSION
    }
    for place, shape in enumerate(shapes):
        if shape in headers:  # assets of a kind have the same channels
            second.setdefault(id(headers[shape].alike), []).append(place)
        else:
            first.setdefault(shape, []).append(place)
    stacks = [
        StatisticsStack(tuple(places), *_unpack_1([packed[place] for place in places]))
        for places in first.values()
    ]
    for places in second.values():
        header = headers[shapes[places[0]]]
        heads = np.array([len(shapes[place]) for place in places], np.int64)
        unpacked = _unpack_2([packed[place] for place in places], header, heads)
        stacks.append(StatisticsStack(tuple(places), *unpacked))
    return stacks


def _shape_of(packed: bytes) -> bytes:
    """Return the bytes that statistics of the same channels have in common."""
    if len(packed) < HEAD.size:
        raise MalformedFrame("frame.statistics", f"{len(packed)} bytes are no statistics")
    version, length = HEAD.unpack_from(packed)
    if version not in (FIRST_STATISTICS_VERSION, STATISTICS_VERSION):
        raise InvalidInput(
            "frame.statistics_version",
            f"statistics version {version} is not known; this reader knows up to "
            f"{STATISTICS_VERSION}",
            value=version,
            limit=STATISTICS_VERSION,
        )
    return packed[: HEAD.size + length]


def _unpack_1(packed: Sequence[bytes]) -> tuple[tuple[str, ...], Records]:
    head = _shape_of(packed[0])
    try:
        names = tuple(head[HEAD.size :].decode().split("\n"))
    except UnicodeDecodeError as error:
        raise MalformedFrame("frame.statistics", f"the names are not UTF-8: {error}") from error
    size = len(names) * STATISTICS.itemsize
    if any(len(one) != len(head) + size for one in packed):
        raise MalformedFrame(
            "frame.statistics", f"statistics of {len(names)} channels take {size} bytes", limit=size
        )
    raw = b"".join(one[len(head) :] for one in packed)
    return names, np.frombuffer(raw, STATISTICS).reshape(len(packed), len(names))


def _unpack_2(
    packed: Sequence[bytes], header: FrameHeader, heads: IntArray
) -> tuple[tuple[str, ...], Records]:
    """Return the records of statistics whose headers, of `heads` bytes, are like `header`."""
    reader = StatisticsReader(packed, header, heads)
    numeric = [n for n, channel in enumerate(header.channels) if not channel.is_text]
    names = tuple(header.channels[n].name for n in numeric)
    return names, reader.records(numeric)


def unpack_texts(packed: bytes) -> dict[str, TextStatistics]:
    """Return the statistics of the channels that hold text, by name.

    Raises
    ------
    InvalidInput
        as `unpack_statistics`
    """
    head = _shape_of(packed)
    if head[0] == FIRST_STATISTICS_VERSION:
        return {}
    header = unpack_header(head[HEAD.size :])
    return StatisticsReader([packed], header, len(head)).texts()


def channel_names(packed: bytes) -> tuple[str, ...]:
    """Return the names of all channels, those that hold text among them, in their order.

    Raises
    ------
    InvalidInput
        as `unpack_statistics`
    """
    head = _shape_of(packed)
    if head[0] == FIRST_STATISTICS_VERSION:
        return _unpack_1([packed])[0]
    return unpack_header(head[HEAD.size :]).names


def time_quality(packed: bytes) -> TimeQuality | None:
    """Return how far the frame's times can be trusted; None where it does not tell.

    Raises
    ------
    InvalidInput
        as `unpack_statistics`
    """
    head = _shape_of(packed)
    return None if head[0] == FIRST_STATISTICS_VERSION else unpack_header(head[HEAD.size :]).time
