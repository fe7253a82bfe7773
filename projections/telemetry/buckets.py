"""Statistics of GOOD readings by bucket: made from frames, merged, made coarser. Pure arrays.

Sums are floats, so their last bits depend on the order in which they were added. Here each has
one: within a frame and a bucket as NumPy adds them, frames in the order of the log, and an hour
minute by minute. Whoever adds the same readings gets the same bits, however events are batched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from domain.frames import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]

STATISTICS: Final = (
    "reading_count",
    "min",
    "max",
    "sum",
    "sum_of_squares",
    "first",
    "last",
    "first_ns",
    "last_ns",
)
_LATEST: Final = np.iinfo(np.int64).max
_EARLIEST: Final = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Buckets:
    """Statistics of n buckets of series that have equally many channels.

    Parameters
    ----------
    series : int64, shape (n,), number of the series: an asset and some channels of it
    bucket : int64, shape (n,), start since 1970 UTC in units of the width
    reading_count and the rest : shape (n, n_channels), SI and ns since 1970 UTC. Where the count
        is 0 the others are what changes nothing when merged: infinite extremes, sums of 0.
    """

    series: IntArray
    bucket: IntArray
    reading_count: IntArray
    min: FloatArray
    max: FloatArray
    sum: FloatArray
    sum_of_squares: FloatArray
    first: FloatArray
    last: FloatArray
    first_ns: IntArray
    last_ns: IntArray

    def __len__(self) -> int:
        return len(self.bucket)

    @property
    def channel_count(self) -> int:
        """How many channels each bucket has."""
        return int(self.reading_count.shape[1])

    def take(self, rows: IntArray | npt.NDArray[np.intp] | BoolArray) -> Self:
        """Return a copy of `rows`, indexes or a mask."""
        return type(self)(*(getattr(self, f.name)[rows] for f in fields(self)))

    def channel(self, rows: slice, column: int) -> Self:
        """Return those of `rows` that hold readings of one channel, as a view where all do."""
        held = self.reading_count[rows, column] > 0
        at = slice(None) if held.all() else held
        one = slice(column, column + 1)
        return type(self)(
            self.series[rows][at],
            self.bucket[rows][at],
            *(getattr(self, name)[rows, one][at] for name in STATISTICS),
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all `parts`, in their order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls))
        )

    @classmethod
    def empty(cls, series: IntArray, bucket: IntArray, channel_count: int) -> Self:
        """Return buckets without a reading."""
        shape = (len(bucket), channel_count)
        return cls(
            series,
            bucket,
            np.zeros(shape, np.int64),
            np.full(shape, np.inf),
            np.full(shape, -np.inf),
            np.zeros(shape),
            np.zeros(shape),
            np.full(shape, np.nan),
            np.full(shape, np.nan),
            np.full(shape, _LATEST),
            np.full(shape, _EARLIEST),
        )

    def add(self, rows: npt.NDArray[np.intp], other: Self) -> None:
        """Merge `other`, row by row, into `rows`, each of which occurs once."""
        earlier = other.first_ns < self.first_ns[rows]
        later = other.last_ns >= self.last_ns[rows]
        self.reading_count[rows] += other.reading_count
        self.min[rows] = np.minimum(self.min[rows], other.min)
        self.max[rows] = np.maximum(self.max[rows], other.max)
        self.sum[rows] += other.sum
        self.sum_of_squares[rows] += other.sum_of_squares
        self.first[rows] = np.where(earlier, other.first, self.first[rows])
        self.last[rows] = np.where(later, other.last, self.last[rows])
        self.first_ns[rows] = np.minimum(self.first_ns[rows], other.first_ns)
        self.last_ns[rows] = np.maximum(self.last_ns[rows], other.last_ns)


# --- from readings ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Readings:
    """Readings of frames that hold the same channels at equally many times each.

    Parameters
    ----------
    series : int64, shape (n_frames,), number of the series of each
    columns : where each channel stands among those of its series
    times_ns : int64, shape (n_frames, n), increasing within a frame
    values : float64, shape (n_columns, n_frames * n), SI, one frame after the other
    counted : bool, as `values`: which readings count; None where all do
    """

    series: IntArray
    columns: tuple[int, ...]
    times_ns: IntArray
    values: FloatArray
    counted: BoolArray | None


def partials(readings: Readings, channel_count: int, width_ns: int) -> tuple[IntArray, Buckets]:
    """Return what each frame of `readings` holds of each bucket, and of which frame each row is.

    Rows come frame by frame, then by time; those in which nothing counts are left out. Where a
    series has more channels than these, the others are empty.
    """
    bucket = readings.times_ns // width_ns
    changes = np.ones(bucket.shape, np.bool_)  # two frames are kept apart within a bucket
    np.not_equal(bucket[:, 1:], bucket[:, :-1], out=changes[:, 1:])
    starts = np.flatnonzero(changes)
    times = readings.times_ns.ravel()
    frame: IntArray = starts // bucket.shape[1]
    result = Buckets.empty(readings.series[frame], bucket.ravel()[starts], channel_count)
    at = np.ix_(np.arange(len(starts)), np.array(readings.columns))
    if readings.counted is None:
        _fill(result, at, starts, times, readings.values)
        return frame, result
    _fill_counted(result, at, starts, times, readings.values, readings.counted)
    held = result.reading_count.max(axis=1) > 0
    return frame[held], result.take(held)


_Places = tuple[npt.NDArray[np.intp], ...]


def _fill(
    result: Buckets,
    at: _Places,
    starts: npt.NDArray[np.intp],
    times: IntArray,
    values: FloatArray,
) -> None:
    ends = np.append(starts[1:], len(times)) - 1
    result.reading_count[at] = (ends - starts + 1)[:, None]
    result.min[at] = np.minimum.reduceat(values, starts, axis=1).T
    result.max[at] = np.maximum.reduceat(values, starts, axis=1).T
    result.sum[at] = np.add.reduceat(values, starts, axis=1).T
    result.sum_of_squares[at] = np.add.reduceat(values * values, starts, axis=1).T
    result.first[at] = values[:, starts].T
    result.last[at] = values[:, ends].T
    result.first_ns[at] = times[starts][:, None]
    result.last_ns[at] = times[ends][:, None]


def _fill_counted(
    result: Buckets,
    at: _Places,
    starts: npt.NDArray[np.intp],
    times: IntArray,
    values: FloatArray,
    counted: BoolArray,
) -> None:
    # Zeros stand in for what does not count, so that a sum is added up alike in both ways.
    kept = np.where(counted, values, 0.0)
    places = np.arange(len(times))
    earliest = np.minimum.reduceat(np.where(counted, places, len(times)), starts, axis=1)
    latest = np.maximum.reduceat(np.where(counted, places, -1), starts, axis=1)
    none = latest < 0
    earliest[none] = latest[none] = 0
    result.reading_count[at] = np.add.reduceat(counted, starts, axis=1, dtype=np.int64).T
    result.min[at] = np.minimum.reduceat(np.where(counted, values, np.inf), starts, axis=1).T
    result.max[at] = np.maximum.reduceat(np.where(counted, values, -np.inf), starts, axis=1).T
    result.sum[at] = np.add.reduceat(kept, starts, axis=1).T
    result.sum_of_squares[at] = np.add.reduceat(kept * kept, starts, axis=1).T
    result.first[at] = np.where(none, np.nan, np.take_along_axis(values, earliest, axis=1)).T
    result.last[at] = np.where(none, np.nan, np.take_along_axis(values, latest, axis=1)).T
    result.first_ns[at] = np.where(none, _LATEST, times[earliest]).T
    result.last_ns[at] = np.where(none, _EARLIEST, times[latest]).T


# --- merging ------------------------------------------------------------------------------


def merged(buckets: Buckets) -> Buckets:
    """Return one row per series and bucket, ascending, merged in the order of the rows."""
    order = np.lexsort((buckets.bucket, buckets.series))  # stable: equal keys keep their order
    series, bucket = buckets.series[order], buckets.bucket[order]
    changes = np.ones(len(order), np.bool_)
    changes[1:] = (series[1:] != series[:-1]) | (bucket[1:] != bucket[:-1])
    starts = np.flatnonzero(changes)
    result = buckets.take(order[starts])
    if len(starts) == len(order):
        return result
    group = np.cumsum(changes) - 1
    rank = np.arange(len(order)) - starts[group]
    # One row of each group after the other: pairwise sums would depend on the batch.
    for turn in range(1, int(rank.max()) + 1):
        rows = np.flatnonzero(rank == turn)
        result.add(group[rows], buckets.take(order[rows]))
    return result


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours, and of each the sums without its latest minute.

    With `settled_sum` and `settled_squares`, shape (n, n_channels), an hour is brought up to date
    by later minutes, and by more readings of its latest, without looking at the others.
    """

    buckets: Buckets
    settled_sum: FloatArray
    settled_squares: FloatArray

    def __len__(self) -> int:
        return len(self.buckets)

    @property
    def latest_minute(self) -> IntArray:
        """The latest minute of each hour that holds a reading, since 1970."""
        latest: IntArray = self.buckets.last_ns.max(axis=1) // MINUTE_NS
        return latest

    def take(self, rows: npt.NDArray[np.intp] | BoolArray) -> Hours:
        """Return a copy of `rows`, indexes or a mask."""
        return Hours(self.buckets.take(rows), self.settled_sum[rows], self.settled_squares[rows])

    @classmethod
    def joined(cls, parts: Sequence[Hours]) -> Hours:
        """Return the rows of all `parts`, in their order."""
        return cls(
            Buckets.joined([part.buckets for part in parts]),
            np.concatenate([part.settled_sum for part in parts]),
            np.concatenate([part.settled_squares for part in parts]),
        )


SECOND_NS: Final = 1_000_000_000
MINUTE_NS: Final = 60 * SECOND_NS
HOUR_NS: Final = 3600 * SECOND_NS
MINUTES_AN_HOUR: Final = 60


def hours_of(minutes: Buckets) -> Hours:
    """Return the hours that `minutes` are all of: one row per series and minute, ascending."""
    hour = minutes.bucket // MINUTES_AN_HOUR
    changes = np.ones(len(minutes), np.bool_)
    changes[1:] = (minutes.series[1:] != minutes.series[:-1]) | (hour[1:] != hour[:-1])
    starts = np.flatnonzero(changes)
    ends = np.append(starts[1:], len(minutes)) - 1
    whole = replace(minutes, bucket=hour)
    last = np.zeros(len(minutes), np.bool_)
    last[ends] = True
    none = Buckets.empty(minutes.series[starts], hour[starts], minutes.channel_count)
    settled = merged(Buckets.joined([none, whole.take(~last)]))
    total = settled.take(np.arange(len(settled)))
    total.add(np.arange(len(total)), whole.take(ends))
    return Hours(total, settled.sum, settled.sum_of_squares)


def later_hours(held: Hours, minutes: Buckets, added_count: IntArray) -> tuple[Hours, BoolArray]:
    """Return the hours of `minutes` brought up to date from `held`, and which could not be.

    Parameters
    ----------
    held : the hours as they were; what was not there yet is missing
    minutes : every minute that changed, as it is now, one row per series and minute, ascending
    added_count : int64, shape (n, n_channels), readings that each of `minutes` gained

    Returns
    -------
    Rows that cannot be trusted are those of hours of which a minute before the latest changed:
    they have to be made from all their minutes.
    """
    hour = minutes.bucket // MINUTES_AN_HOUR
    changes = np.ones(len(minutes), np.bool_)
    changes[1:] = (minutes.series[1:] != minutes.series[:-1]) | (hour[1:] != hour[:-1])
    starts = np.flatnonzero(changes)
    group = np.cumsum(changes) - 1
    place = {key: n for n, key in enumerate(zip(*_keys(held.buckets), strict=True))}
    found = [
        place.get(key, -1)
        for key in zip(minutes.series[starts].tolist(), hour[starts].tolist(), strict=True)
    ]
    at = np.array(found, np.intp)
    known = at >= 0
    before = Buckets.empty(minutes.series[starts], hour[starts], minutes.channel_count)
    late = np.zeros(len(starts), np.bool_)
    if known.any():
        rows, there = np.flatnonzero(known), at[known]
        before.add(rows, held.buckets.take(there))
        earliest, latest = minutes.bucket[starts[rows]], held.latest_minute[there]
        late[rows] = earliest < latest
        # More readings of the latest minute: its sum is taken out, and the new one put in.
        again = earliest == latest
        before.sum[rows[again]] = held.settled_sum[there[again]]
        before.sum_of_squares[rows[again]] = held.settled_squares[there[again]]
    last = np.zeros(len(minutes), np.bool_)
    last[np.append(starts[1:], len(minutes)) - 1] = True
    whole = replace(minutes, bucket=hour, reading_count=added_count)
    settled = merged(Buckets.joined([before, whole.take(~last)]))
    total = settled.take(np.arange(len(settled)))
    total.add(group[last], whole.take(last))
    return Hours(total, settled.sum, settled.sum_of_squares), late


def _keys(buckets: Buckets) -> Iterable[list[int]]:
    return buckets.series.tolist(), buckets.bucket.tolist()
