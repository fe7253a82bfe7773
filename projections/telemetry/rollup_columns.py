"""Rollups as columns: minutes and hours of any assets and channels.

A row of the tables holds all channels of a series. Where all are wanted, rows come as they are and
are cut here; where few are wanted, over a long time, PostgreSQL collects each into one value.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from domain.errors import InvalidInput
from domain.frames import FloatArray, IntArray
from eventlog.ledger import Ledger
from projections.telemetry.buckets import Buckets, merged
from projections.telemetry.rollup_rows import (
    HOUR_S,
    MINUTE_S,
    POSTGRES_EPOCH_S,
    TABLES,
    stored_between,
)

__all__ = ("BUCKETS_MAX", "HOUR_S", "MINUTE_S", "RollupColumns", "read_rollups")

BUCKETS_MAX: Final = 1_000_000
"""Buckets of all channels together that one answer may hold."""

_ARRAY_HEAD_BYTES: Final = 20  # what array_send writes before the elements of one dimension
_STATISTICS: Final = {
    "reading_count": ">i4",
    "min": ">f8",
    "max": ">f8",
    "sum": ">f8",
    "sum_of_squares": ">f8",
    "first": ">f8",
    "last": ">f8",
    "first_ns": ">i8",
    "last_ns": ">i8",
}


@dataclass(frozen=True, slots=True)
class RollupColumns:
    """GOOD readings of one channel by bucket, in the order of time; a bucket holds at least one.

    Parameters
    ----------
    resolution_s : width of a bucket, s
    start_s : int64, shape (n,), start of each bucket, s since 1970 UTC
    reading_count : int64, shape (n,), at least 1
    min, max, sum, first, last : float64, shape (n,), SI
    sum_of_squares : float64, shape (n,), SI unit squared
    """

    asset_id: str
    channel: str
    resolution_s: int
    start_s: IntArray
    reading_count: IntArray
    min: FloatArray
    max: FloatArray
    sum: FloatArray
    sum_of_squares: FloatArray
    first: FloatArray
    last: FloatArray

    @property
    def mean(self) -> FloatArray:
        """Mean of the readings of each bucket, SI."""
        mean: FloatArray = self.sum / self.reading_count
        return mean


async def read_rollups(
    ledger: Ledger,
    resolution_s: int,
    *,
    asset_ids: Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
    start_s: int,
    end_s: int,
) -> list[RollupColumns]:
    """Return the buckets that start from `start_s` to `end_s`, by asset and channel.

    Parameters
    ----------
    resolution_s : 60 or 3600
    asset_ids, channels : None for all; what has no bucket in the range is left out
    start_s, end_s : s since 1970 UTC, both included

    Raises
    ------
    InvalidInput
        ``rollups.resolution``; ``rollups.too_many_buckets`` when there may be more than
        `BUCKETS_MAX`
    """
    if resolution_s not in TABLES:
        raise InvalidInput(
            "rollups.resolution",
            f"rollups are of 60 s and 3600 s, not of {resolution_s} s",
            value=resolution_s,
        )
    wanted = (
        ledger.ledger_id,
        None if asset_ids is None else list(asset_ids),
        None if channels is None else list(channels),
    )
    series = await ledger.pool.fetch(
        """
        select s.series_id, s.asset_id, c.channel, c.n::integer as n,
            greatest(s.start_ns / 1000000000, $4) as start_s,
            least(s.end_ns / 1000000000, $5) as end_s
        from rollup_series s cross join lateral unnest(s.channels) with ordinality as c(channel, n)
        where s.ledger_id = $1 and ($2::text[] is null or s.asset_id = any($2))
            and ($3::text[] is null or c.channel = any($3))
            and s.start_ns / 1000000000 <= $5 and s.end_ns / 1000000000 >= $4
        order by s.asset_id, c.channel, s.series_id
        """,
        *wanted,
        start_s - resolution_s,
        end_s,
    )
    if not series:
        return []
    buckets = sum((row["end_s"] - row["start_s"]) // resolution_s + 1 for row in series)
    if buckets > BUCKETS_MAX:
        raise InvalidInput(
            "rollups.too_many_buckets",
            f"the range may hold {buckets} buckets, more than {BUCKETS_MAX}",
            hint="ask for a shorter range, wider buckets, or fewer assets and channels",
            value=buckets,
            limit=BUCKETS_MAX,
        )
    # What lies beyond the readings may lie beyond a timestamp.
    first_s = max(start_s, min(row["start_s"] for row in series) - resolution_s)
    last_s = min(end_s, max(row["end_s"] for row in series))
    read = _as_rows if channels is None else _as_columns
    found = await read(ledger, resolution_s, series, first_s, last_s)
    return [
        _merged(asset_id, channel, resolution_s, [buckets for _, buckets in parts])
        for (asset_id, channel), parts in itertools.groupby(found, lambda part: part[0])
    ]


_Name = tuple[str, str]
"""An asset and a channel."""


async def _as_rows(
    ledger: Ledger, resolution_s: int, series: Sequence[Any], first_s: int, last_s: int
) -> list[tuple[_Name, Buckets]]:
    """Return each channel's buckets from whole rows: best where all channels are wanted."""
    channels: dict[int, list[Any]] = {}
    for row in series:
        channels.setdefault(row["series_id"], []).append(row)
    by_count: dict[int, list[int]] = {}
    for number, members in channels.items():
        by_count.setdefault(len(members), []).append(number)
    found: list[tuple[_Name, Buckets]] = []
    for channel_count, numbers in by_count.items():
        async with ledger.pool.acquire() as connection:
            rows = await stored_between(
                connection, resolution_s, numbers, first_s, last_s, channel_count
            )
        starts = np.flatnonzero(np.diff(rows.series, prepend=-1))
        for start, end in itertools.pairwise([*starts.tolist(), len(rows)]):
            for row in channels[int(rows.series[start])]:
                buckets = rows.channel(slice(start, end), row["n"] - 1)
                if len(buckets):
                    found.append(((row["asset_id"], row["channel"]), buckets))
    # Stable: series of one channel stay in the order of their numbers.
    return sorted(found, key=lambda part: part[0])


async def _as_columns(
    ledger: Ledger, resolution_s: int, series: Sequence[Any], first_s: int, last_s: int
) -> list[tuple[_Name, Buckets]]:
    """Return each channel's buckets as PostgreSQL collects them: best where few are wanted."""
    rows = await ledger.pool.fetch(
        f"""
        select place, array_send(array_agg(bucket_start)) as bucket_start,
            {", ".join(f"array_send(array_agg({name})) as {name}" for name in _STATISTICS)}
        from (
            select s.place, r.bucket_start, {", ".join(f"r.{name}[s.n]" for name in _STATISTICS)}
            from unnest($1::integer[], $2::integer[], $3::integer[]) as s(place, series_id, n)
            join {TABLES[resolution_s]} r on r.series_id = s.series_id
                and r.bucket_start between to_timestamp($4::bigint) and to_timestamp($5::bigint)
            where r.reading_count[s.n] > 0
            order by s.place, r.bucket_start
        ) bucket
        group by place order by place
        """,
        list(range(len(series))),
        [row["series_id"] for row in series],
        [row["n"] for row in series],
        first_s,
        last_s,
    )
    return [(_name(series[row["place"]]), _buckets(row, resolution_s)) for row in rows]


def _name(row: Any) -> _Name:
    return row["asset_id"], row["channel"]


def _merged(
    asset_id: str, channel: str, resolution_s: int, parts: Sequence[Buckets]
) -> RollupColumns:
    buckets = parts[0]
    if len(parts) > 1:  # a channel that came in several series
        together = Buckets.joined(parts)
        buckets = merged(replace(together, series=np.zeros(len(together), np.int64)))
    return RollupColumns(
        asset_id,
        channel,
        resolution_s,
        buckets.bucket * resolution_s,
        buckets.reading_count[:, 0],
        buckets.min[:, 0],
        buckets.max[:, 0],
        buckets.sum[:, 0],
        buckets.sum_of_squares[:, 0],
        buckets.first[:, 0],
        buckets.last[:, 0],
    )


def _buckets(row: Any, resolution_s: int) -> Buckets:
    """Return a row's columns as buckets of one channel."""
    starts_s = _elements(row["bucket_start"], ">i8") // 1_000_000 + POSTGRES_EPOCH_S
    return Buckets(
        np.zeros(len(starts_s), np.int64),
        starts_s // resolution_s,
        *(_elements(row[name], element)[:, None] for name, element in _STATISTICS.items()),
    )


def _elements(sent: bytes, element: str) -> npt.NDArray[Any]:
    """Return the elements of an array as `array_send` writes it, in the machine's byte order."""
    items = np.dtype([("bytes", ">i4"), ("value", element)])
    values = np.frombuffer(sent, items, offset=_ARRAY_HEAD_BYTES)["value"]
    return values.astype(np.float64 if element == ">f8" else np.int64)
