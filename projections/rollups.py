"""Rollups: count, extremes, sums, first and last of GOOD readings by second, minute and hour.

Seconds are kept frame by frame as they came, in one row of arrays a frame and clock, and are
merged when they are read: at one reading a second a row each would dwarf the log, and so nothing
has to be read before it is written. Where no second holds more than one reading, that reading is
all its statistics and only it is stored. Minutes and hours are plain rows. The view
``telemetry_rollup`` shows all three alike; docs/projections.md documents it.

Minutes and hours are merged strictly in the order of the log, one frame after the other, so that
the sums come out bit by bit the same however the events were cut into batches. Late frames merge
like any other.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, Self

import numpy as np
import numpy.typing as npt

from domain.events import FRAME_RECORDED
from domain.frames import FloatArray, Frame, IntArray, Quality
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf
from projections.runner import EVENTS_AT_ONCE

SECOND_NS: Final = 1_000_000_000
MINUTE_S: Final = 60
HOUR_S: Final = 3600
_BUCKET_BITS: Final = 40  # seconds since 1970 fit into 40 bits for 34,000 years

Series = tuple[str, str]
"""An asset and a channel of it."""


class RollupProjection:
    """Folds frames into the three rollup tables."""

    name: ClassVar[str] = "rollups"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = (FRAME_RECORDED,)
    payloads: ClassVar[PayloadOf] = PayloadOf.ALL

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Merge the frames of `events` into the rows."""
        numbers: dict[Series, int] = {}
        rows: list[bytes] = []
        minutes: list[Buckets] = []
        hours: list[Buckets] = []
        for number, event in enumerate(events):
            if number % EVENTS_AT_ONCE == 0:
                await asyncio.sleep(0)
            asset_id = event.stream.partition(":")[2]
            for clock, seconds in enumerate(frame_seconds(event.frame)):
                rows.append(_second_row(ledger.ledger_id, asset_id, event.position, clock, seconds))
                series = np.array(
                    [
                        numbers.setdefault((asset_id, channel), len(numbers))
                        for channel in seconds.channels
                    ],
                    np.int64,
                )
                # Hours are made from minutes within the frame, wherever the batch is cut.
                minute = coarser(seconds, MINUTE_S)
                minutes.append(_flattened(series, minute))
                hours.append(_flattened(series, coarser(minute, HOUR_S // MINUTE_S)))
        if not rows:
            return
        names = list(numbers)
        await _store_seconds(connection, rows)
        for table, partials in (("minute", minutes), ("hour", hours)):
            await _store_plain(connection, ledger.ledger_id, table, names, Buckets.joined(partials))


# --- statistics of one frame --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grid:
    """Statistics of the channels that share a clock, by bucket.

    Parameters
    ----------
    bucket : int64, shape (n_buckets,), start since 1970 UTC in units of the width, increasing
    reading_count and the rest : shape (n_channels, n_buckets), SI; where the count is 0 the
        floats are NaN
    single : no bucket holds more than one reading, so that `first` is everything
    """

    channels: tuple[str, ...]
    single: bool
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


def frame_seconds(frame: Frame) -> list[Grid]:
    """Return the statistics by second of `frame`, one grid a clock."""
    grids = []
    for group in frame.clock_groups:
        channels = tuple(frame.header.channels[n].name for n in group.indexes)
        values, times = group.good_si, group.times_ns
        moments = np.broadcast_to(times, values.shape)
        readings = Grid(
            channels,
            True,
            times,
            (group.quality == Quality.GOOD).astype(np.int64),
            values,
            values,
            values,
            values * values,
            values,
            values,
            moments,
            moments,
        )
        grids.append(coarser(readings, SECOND_NS))
    return grids


def coarser(grid: Grid, factor: int) -> Grid:
    """Return `grid` merged into buckets `factor` times as wide."""
    bucket = grid.bucket // factor
    starts = np.flatnonzero(np.diff(bucket, prepend=bucket[0] - 1))
    if len(starts) == len(bucket):  # nothing to merge: only the buckets are named anew
        columns = [getattr(grid, f.name) for f in fields(Grid)[3:]]
        return Grid(grid.channels, grid.single, bucket, *columns)
    counted = grid.reading_count > 0
    # Positions of the first and last bucket with a reading, per channel and wider bucket.
    at = np.arange(len(bucket))
    earliest = np.minimum.reduceat(np.where(counted, at, len(bucket)), starts, axis=1)
    latest = np.maximum.reduceat(np.where(counted, at, -1), starts, axis=1)
    empty = latest < 0
    earliest[empty] = latest[empty] = 0
    reading_count = np.add.reduceat(grid.reading_count, starts, axis=1)
    total = np.add.reduceat(np.where(counted, grid.sum, 0.0), starts, axis=1)
    squares = np.add.reduceat(np.where(counted, grid.sum_of_squares, 0.0), starts, axis=1)
    total[empty] = squares[empty] = np.nan
    return Grid(
        channels=grid.channels,
        single=bool(reading_count.max() <= 1),
        bucket=bucket[starts],
        reading_count=reading_count,
        min=np.fmin.reduceat(grid.min, starts, axis=1),
        max=np.fmax.reduceat(grid.max, starts, axis=1),
        sum=total,
        sum_of_squares=squares,
        first=_picked(grid.first, earliest, empty),
        last=_picked(grid.last, latest, empty),
        first_ns=np.take_along_axis(grid.first_ns, earliest, axis=1),
        last_ns=np.take_along_axis(grid.last_ns, latest, axis=1),
    )


def _picked(values: FloatArray, at: IntArray, empty: npt.NDArray[np.bool_]) -> FloatArray:
    picked = np.take_along_axis(values, at, axis=1)
    picked[empty] = np.nan
    return picked


# --- merging across frames ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Buckets:
    """Statistics of buckets of several series as parallel columns, shape (n,).

    `key` is the number of the series and the bucket's start in units of its width.
    """

    key: IntArray
    reading_count: IntArray
    min: FloatArray
    max: FloatArray
    sum: FloatArray
    sum_of_squares: FloatArray
    first: FloatArray
    last: FloatArray
    first_ns: IntArray
    last_ns: IntArray

    @classmethod
    def joined(cls, parts: Sequence[Buckets]) -> Self:
        """Return the rows of all `parts`, in their order."""
        return cls(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls))
        )

    @property
    def series(self) -> IntArray:
        """Number of the series of each row."""
        return self.key >> _BUCKET_BITS

    @property
    def bucket(self) -> IntArray:
        """Start of each bucket since 1970, in units of its width."""
        return self.key & ((1 << _BUCKET_BITS) - 1)


def _flattened(series: IntArray, grid: Grid) -> Buckets:
    """Return the buckets of `grid` that hold readings; `series` numbers its channels."""
    key = (series[:, None] << _BUCKET_BITS) + grid.bucket
    held = grid.reading_count > 0
    return Buckets(key[held], *(getattr(grid, f.name)[held] for f in fields(Buckets)[1:]))


def merged(buckets: Buckets) -> Buckets:
    """Return one row per key of `buckets`, keys ascending, merged in the order of the rows."""
    key, place = np.unique(buckets.key, return_inverse=True)
    if len(key) == len(buckets.key):
        order = np.argsort(buckets.key)
        return Buckets(*(getattr(buckets, f.name)[order] for f in fields(Buckets)))
    size = len(key)
    # ufunc.at adds row by row; pairwise or grouped summation would depend on the batch.
    reading_count = np.zeros(size, np.int64)
    np.add.at(reading_count, place, buckets.reading_count)
    total, squares = np.zeros(size), np.zeros(size)
    np.add.at(total, place, buckets.sum)
    np.add.at(squares, place, buckets.sum_of_squares)
    smallest, largest = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(smallest, place, buckets.min)
    np.maximum.at(largest, place, buckets.max)
    earliest = _extreme_row(place, buckets.first_ns, last=False)
    latest = _extreme_row(place, buckets.last_ns, last=True)
    return Buckets(
        key,
        reading_count,
        smallest,
        largest,
        total,
        squares,
        buckets.first[earliest],
        buckets.last[latest],
        buckets.first_ns[earliest],
        buckets.last_ns[latest],
    )


def _extreme_row(place: npt.NDArray[np.intp], times: IntArray, *, last: bool) -> IntArray:
    """Return, per group of `place`, the row with the earliest or latest time."""
    order = np.lexsort((times, place))
    changes = place[order][1:] != place[order][:-1]
    bounds = np.append(changes, True) if last else np.insert(changes, 0, True)
    rows: IntArray = order[bounds]
    return rows


# --- rows of minutes and hours ------------------------------------------------------------

_PLAIN_COLUMNS: Final = (
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


async def _store_plain(
    connection: Connection,
    ledger_id: int,
    table: str,
    series: Sequence[Series],
    partials: Buckets,
) -> None:
    keys = np.unique(partials.key)
    numbers, buckets = (keys >> _BUCKET_BITS).tolist(), keys & ((1 << _BUCKET_BITS) - 1)
    rows = await connection.fetch(
        f"""
        select wanted.key, {", ".join(f"held.{name}" for name in _PLAIN_COLUMNS)}
        from unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[])
            as wanted(key, asset_id, channel, bucket)
        join rollup_{table} held on held.ledger_id = $1 and held.asset_id = wanted.asset_id
            and held.channel = wanted.channel and held.bucket = wanted.bucket
        """,
        ledger_id,
        keys.tolist(),
        [series[n][0] for n in numbers],
        [series[n][1] for n in numbers],
        buckets.tolist(),
    )
    # What is stored comes first: it was merged from earlier positions.
    result = merged(Buckets.joined([_buckets([tuple(row) for row in rows]), partials]))
    numbers = result.series.tolist()
    columns = [getattr(result, name).tolist() for name in _PLAIN_COLUMNS]
    await connection.execute(
        f"""
        insert into rollup_{table}
            (ledger_id, asset_id, channel, bucket, {", ".join(_PLAIN_COLUMNS)})
        select $1, * from unnest($2::text[], $3::text[], $4::bigint[], $5::integer[],
            $6::float8[], $7::float8[], $8::float8[], $9::float8[], $10::float8[],
            $11::float8[], $12::bigint[], $13::bigint[])
        on conflict (ledger_id, asset_id, channel, bucket) do update set
            {", ".join(f"{name} = excluded.{name}" for name in _PLAIN_COLUMNS)}
        """,
        ledger_id,
        [series[n][0] for n in numbers],
        [series[n][1] for n in numbers],
        result.bucket.tolist(),
        *columns,
    )


def _buckets(rows: Sequence[tuple[Any, ...]]) -> Buckets:
    """Return rows of (key, *_PLAIN_COLUMNS) as columns."""
    columns = list(zip(*rows, strict=True)) or [()] * (1 + len(_PLAIN_COLUMNS))
    key, reading_count, *statistics, first_ns, last_ns = columns
    smallest, largest, total, squares, first, last = (
        np.array(column, np.float64) for column in statistics
    )
    return Buckets(
        np.array(key, np.int64),
        np.array(reading_count, np.int64),
        smallest,
        largest,
        total,
        squares,
        first,
        last,
        np.array(first_ns, np.int64),
        np.array(last_ns, np.int64),
    )


# --- rows of seconds ----------------------------------------------------------------------

_SECOND_COLUMNS: Final = (
    "ledger_id",
    "asset_id",
    "position",
    "clock",
    "start_ns",
    "end_ns",
    "channel",
    "second",
    "first",
    "reading_count",
    "min",
    "max",
    "sum",
    "sum_of_squares",
    "last",
)

# The binary COPY format of PostgreSQL: see its manual, "COPY", "Binary Format".
_COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
_COPY_END: Final = struct.pack(">h", -1)
_NULL: Final = struct.pack(">i", -1)
_OID_INT4: Final = 23
_OID_TEXT: Final = 25
_OID_FLOAT8: Final = 701


async def _store_seconds(connection: Connection, rows: Sequence[bytes]) -> None:
    async def source() -> Any:
        yield _COPY_HEAD
        for row in rows:
            yield row
        yield _COPY_END

    await connection.copy_to_table(
        "rollup_second", source=source(), columns=_SECOND_COLUMNS, format="binary"
    )


def _second_row(ledger_id: int, asset_id: str, position: int, clock: int, seconds: Grid) -> bytes:
    """Return the row of a frame's seconds in binary COPY format."""
    start_s = int(seconds.bucket[0])
    name = asset_id.encode()
    names = b"".join(struct.pack(">i", len(c)) + c for c in (n.encode() for n in seconds.channels))
    one, two = (len(seconds.channels),), seconds.first.shape
    parts = [
        struct.pack(">h", len(_SECOND_COLUMNS)),
        struct.pack(">ih", 2, ledger_id),
        struct.pack(">i", len(name)) + name,
        struct.pack(">iq", 8, position),
        struct.pack(">ih", 2, clock),
        struct.pack(">iq", 8, int(seconds.first_ns.min())),
        struct.pack(">iq", 8, int(seconds.last_ns.max())),
        _array(_OID_TEXT, one, names),
        _array(_OID_INT4, seconds.bucket.shape, _elements(seconds.bucket - start_s, ">i4")),
        _array(_OID_FLOAT8, two, _elements(seconds.first, ">f8")),
    ]
    if seconds.single:
        parts += [_NULL] * 6
    else:
        parts.append(_array(_OID_INT4, two, _elements(seconds.reading_count, ">i4")))
        parts += [
            _array(_OID_FLOAT8, two, _elements(column, ">f8"))
            for column in (
                seconds.min,
                seconds.max,
                seconds.sum,
                seconds.sum_of_squares,
                seconds.last,
            )
        ]
    return b"".join(parts)


def _array(element_oid: int, shape: tuple[int, ...], elements: bytes) -> bytes:
    head = struct.pack(">iii", len(shape), 0, element_oid)
    head += b"".join(struct.pack(">ii", length, 1) for length in shape)
    return struct.pack(">i", len(head) + len(elements)) + head + elements


def _elements(column: npt.NDArray[Any], dtype: str) -> bytes:
    width = np.dtype(dtype).itemsize
    elements = np.empty(column.size, [("length", ">i4"), ("value", dtype)])
    elements["length"] = width
    elements["value"] = column.ravel()
    return elements.tobytes()


# --- queries ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Extremes:
    """Buckets of one channel in time order: start (s since 1970 UTC), count, and SI extremes."""

    start_s: IntArray
    reading_count: IntArray
    min: FloatArray
    max: FloatArray


async def read_extremes(
    ledger: Ledger, asset_id: str, channel: str, resolution_s: int, start_s: int, end_s: int
) -> Extremes:
    """Return the buckets of `resolution_s` (1, 60 or 3600) from `start_s` to `end_s`."""
    if resolution_s == 1:
        rows = await ledger.pool.fetch(
            """
            select s.start_s, sum(s.reading_count)::integer, min(s.min), max(s.max)
            from rollup_second r, second_statistics(r) s
            where r.ledger_id = $1 and r.asset_id = $2 and r.end_ns >= $4::bigint * 1000000000
                and r.start_ns < ($5::bigint + 1) * 1000000000
                and s.channel = $3 and s.start_s between $4 and $5
            group by s.start_s order by s.start_s
            """,
            ledger.ledger_id,
            asset_id,
            channel,
            start_s,
            end_s,
        )
    else:
        table = {MINUTE_S: "minute", HOUR_S: "hour"}[resolution_s]
        rows = await ledger.pool.fetch(
            f"""
            select bucket * {resolution_s}, reading_count, min, max from rollup_{table}
            where ledger_id = $1 and asset_id = $2 and channel = $3 and bucket between $4 and $5
            order by bucket
            """,
            ledger.ledger_id,
            asset_id,
            channel,
            start_s // resolution_s,
            end_s // resolution_s,
        )
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    return Extremes(
        np.array(columns[0], np.int64),
        np.array(columns[1], np.int64),
        np.array(columns[2], np.float64),
        np.array(columns[3], np.float64),
    )
