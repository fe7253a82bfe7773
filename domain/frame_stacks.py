"""Frames of one shape together: many windows, or many assets of a type, as one array.

They are made from one array, and what is asked of every frame (ranges, statistics, rules) is asked
of the stack instead, since NumPy costs by the call and not by the reading.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from domain.frame_header import VALUE_TYPES, ChannelHeader, FrameHeader
from domain.frame_rows import Scaled, SharedRows, in_si
from domain.frame_scaling import exact_integers, scaled_rows
from domain.frames import (
    ByteArray,
    Column,
    FloatArray,
    Frame,
    IntArray,
    build_frame,
    canonical_head,
    check_reading_count,
    check_sequence,
    good_mask,
)

# --- made together ------------------------------------------------------------------------


def build_frames(
    headers: Sequence[FrameHeader],
    sequences: Sequence[int],
    clocks: IntArray,
    values: Column,
) -> list[Frame]:
    """Return frames of one shape and all GOOD: what `build_frame` returns, checked together.

    Parameters
    ----------
    headers : of one clock each, and as many channels of one numeric type
    clocks : int64 ns, shape (n_frames, n)
    values : of that type, shape (n_frames, n_channels, n); kept, and not to be written to

    Raises
    ------
    InvalidInput
        as `build_frame`, for the first frame that is at fault
    """
    if not _are_sound_matrices(headers, clocks, values):
        return [
            build_frame(header, sequence, [clock], of_frame, [None] * len(of_frame))
            for header, sequence, clock, of_frame in zip(
                headers, sequences, clocks, values, strict=True
            )
        ]
    channels, count = values.shape[1:]
    check_reading_count(channels * count)
    rows = np.ascontiguousarray(values).reshape(-1, count)
    times = np.ascontiguousarray(clocks, dtype="<i8").view()
    rows.flags.writeable = times.flags.writeable = False
    shared = SharedRows(
        rows,
        np.concatenate([header.factors for header in headers]),
        np.concatenate([header.offsets for header in headers]),
    )
    for sequence in sequences:
        check_sequence(sequence)
    return frames_of_rows(headers, sequences, times, shared)


def frames_of_rows(
    headers: Sequence[FrameHeader],
    sequences: Sequence[int],
    clocks: IntArray,
    shared: SharedRows,
) -> list[Frame]:
    """Return frames of one shape, on a clock each and all GOOD, whose parts have been checked.

    Parameters
    ----------
    clocks : int64 ns, shape (n_frames, n)
    shared : the values of all, frame by frame
    """
    rows, count = shared.values.shape
    channels = rows // len(headers)
    masks = (good_mask(count),) * channels
    known = {"all_good": True, "reading_count": channels * count}
    frames = []
    for place, (header, sequence, start_ns, end_ns) in enumerate(
        zip(headers, sequences, clocks[:, 0].tolist(), clocks[:, -1].tolist(), strict=True)
    ):
        first = place * channels
        values = tuple(shared.values[first : first + channels])
        frame = Frame(header, sequence, (clocks[place],), values, masks, (shared, first))
        # Computed for all together: each on its own would cost as much as making the frame.
        frame.__dict__.update(known, window_start_ns=start_ns, window_end_ns=end_ns)
        frames.append(frame)
    return frames


def _are_sound_matrices(headers: Sequence[FrameHeader], clocks: IntArray, values: Column) -> bool:
    """Whether these are frames of finite numbers of one type, on clocks that increase."""
    types = {(header.checked().uniform_type, len(header.channels)) for header in headers}
    if len(types) != 1 or any(header.rates_hz[0] is not None for header in headers):
        return False
    ((value_type, channels),) = types
    return (
        value_type is not None
        and clocks.dtype == np.int64
        and clocks.ndim == 2
        and clocks.shape[1] > 0
        and values.dtype == VALUE_TYPES[value_type]
        and values.shape == (len(headers), channels, clocks.shape[1])
        and bool((clocks[:, 1:] > clocks[:, :-1]).all())
        and (values.dtype.kind != "f" or bool(np.isfinite(values).all()))
    )


# --- looked at together -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FrameStack:
    """The numeric channels on one clock of frames that have the same channels and lengths.

    Parameters
    ----------
    frames : the frames, in the order in which they were given
    places : where they were among the frames given
    clock : the index of the clock
    indexes : the channels' places in the headers
    """

    frames: tuple[Frame, ...]
    places: tuple[int, ...]
    clock: int
    indexes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, channels and readings of each."""
        return len(self.frames), len(self.indexes), len(self.frames[0].clocks[self.clock])

    @cached_property
    def si(self) -> FloatArray:
        """The values: float64, shape (n_frames, n_channels, n), SI, not to be written to.

        NaN where a reading is MISSING and the channel has floats.
        """
        return _stacked_si(self.frames, self.clock, self.indexes)

    @property
    def channels(self) -> tuple[ChannelHeader, ...]:
        """The channels at `indexes`, the same for all frames."""
        every = self.frames[0].header.channels
        return tuple(every[index] for index in self.indexes)

    @cached_property
    def times_ns(self) -> IntArray:
        """The times: int64 ns, shape (n_frames, n)."""
        return np.stack([frame.clocks[self.clock] for frame in self.frames])

    @cached_property
    def all_good(self) -> bool:
        """Whether every reading is GOOD."""
        if all(frame.all_good for frame in self.frames):
            return True
        good = good_mask(self.shape[2])
        masks = (frame.qualities[index] for frame in self.frames for index in self.indexes)
        return all(mask is good for mask in masks) or not self.quality.any()

    @cached_property
    def quality(self) -> ByteArray:
        """The qualities: uint8, shape (n_frames, n_channels, n), `domain.frames.Quality`."""
        masks = [frame.qualities[index] for frame in self.frames for index in self.indexes]
        return np.concatenate(masks).reshape(self.shape)

    @cached_property
    def good_si(self) -> FloatArray:
        """`si` with NaN in place of every reading that is not GOOD."""
        return self.si if self.all_good else np.where(self.quality == 0, self.si, np.nan)


def stacked(frames: Sequence[Frame]) -> list[FrameStack]:
    """Return the numeric readings of `frames` in as few arrays as there are shapes among them."""
    alike: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for place, frame in enumerate(frames):
        shape = id(frame.header.alike), tuple(map(len, frame.clocks))
        alike.setdefault(shape, []).append(place)
    stacks = []
    for places in alike.values():
        members = tuple(frames[place] for place in places)
        header = members[0].header
        for clock, channels in enumerate(header.clock_channels):
            indexes = tuple(n for n in channels if not header.channels[n].is_text)
            if indexes:
                stacks.append(FrameStack(members, tuple(places), clock, indexes))
    return stacks


def _stacked_si(frames: tuple[Frame, ...], clock: int, indexes: tuple[int, ...]) -> FloatArray:
    count = len(frames[0].clocks[clock])
    rows = shared_rows(frames)
    if rows is not None:
        shared, first = rows
        # What was decoded together has all its channels on one clock, one below the other.
        return shared.si[first : first + len(frames) * len(indexes)].reshape(
            len(frames), len(indexes), count
        )
    # Widened one by one where their types differ: together they would become what holds all.
    columns = [frame.values[index] for frame in frames for index in indexes]
    values = np.concatenate(columns, dtype=np.float64, casting="unsafe")
    header = frames[0].header
    at = list(indexes)
    factors, offsets = (np.tile(of[at], len(frames)) for of in (header.factors, header.offsets))
    return in_si(values.reshape(-1, count), factors, offsets).reshape(len(frames), len(at), count)


def shared_rows(frames: Sequence[Frame]) -> tuple[SharedRows, int] | None:
    """Return the matrix in which all values of `frames` follow one another, and the first row."""
    begin = frames[0].rows
    if begin is None:
        return None
    shared, expected = begin
    for frame in frames:
        if frame.rows is None or frame.rows[0] is not shared or frame.rows[1] != expected:
            return None
        expected += len(frame.values)
    return begin


def stacked_integers(stack: FrameStack) -> Scaled | None:
    """Return what integers the values of `stack`, all of them GOOD, are made of: frame by frame,
    and in each channel by channel. None where their types differ.
    """
    rows = shared_rows(stack.frames)
    if rows is not None:
        shared, first = rows
        return scaled_rows(shared).rows(
            slice(first, first + len(stack.frames) * len(stack.indexes))
        )
    if len({channel.value_type for channel in stack.channels}) > 1:
        return None
    columns = [frame.values[index] for frame in stack.frames for index in stack.indexes]
    return exact_integers(np.concatenate(columns).reshape(len(columns), -1))


def hash_frames(frames: Sequence[Frame]) -> None:
    """Compute `Frame.canonical_sha256` of all `frames`, which is cheaper together."""
    shared: dict[int, tuple[SharedRows, list[Frame]]] = {}
    for frame in frames:
        if frame.rows is not None and "canonical_sha256" not in frame.__dict__ and frame.all_good:
            shared.setdefault(id(frame.rows[0]), (frame.rows[0], []))[1].append(frame)
    for rows, members in shared.values():
        # Each row as the canonical form has it: the values, and that none has a mask.
        values = rows.values.view(np.uint8)
        lines = np.zeros((len(values), values.shape[1] + 1), np.uint8)
        lines[:, :-1] = values
        heads: dict[int, hashlib._Hash] = {}
        for frame in members:
            assert frame.rows is not None, "only frames with shared rows are among them"
            first = frame.rows[1]
            (rate_hz,) = frame.header.rates_hz
            (clock,) = frame.clocks
            head = heads.get(id(frame.header))
            if head is None:
                head = heads[id(frame.header)] = hashlib.sha256(canonical_head(frame.header))
            digest = head.copy()
            digest.update(struct.pack("<QI", frame.sequence, len(clock)))
            digest.update((clock if rate_hz is None else clock[:1]).data)
            digest.update(lines[first : first + len(frame.values)].data)
            frame.__dict__["canonical_sha256"] = digest.digest()
    for frame in frames:
        _ = frame.canonical_sha256
