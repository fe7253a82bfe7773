"""The rows of rollups: one a series and bucket, its channels as arrays, in binary form.

New rows go in by binary COPY and stored ones come back by `record_send`, both straight from and
into NumPy: a row of eight channels would else be a hundred Python floats.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from domain.frames import IntArray
from eventlog.database import Connection
from projections.telemetry.buckets import HOUR_NS, MINUTE_NS, SECOND_NS, Buckets, Hours

# See "COPY", "Binary Format" in PostgreSQL's manual, and array_send and record_send in its source.
_COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_END: Final = b"\xff\xff"
_OID_INT4: Final = 23
_OID_INT8: Final = 20
_OID_FLOAT8: Final = 701
POSTGRES_EPOCH_S: Final = 946_684_800  # 2000-01-01 in seconds since 1970
_COPY_CHUNK: Final = 1 << 20

_ARRAYS: Final = {
    "reading_count": (_OID_INT4, ">i4"),
    "min": (_OID_FLOAT8, ">f8"),
    "max": (_OID_FLOAT8, ">f8"),
    "sum": (_OID_FLOAT8, ">f8"),
    "sum_of_squares": (_OID_FLOAT8, ">f8"),
    "first": (_OID_FLOAT8, ">f8"),
    "last": (_OID_FLOAT8, ">f8"),
    "first_ns": (_OID_INT8, ">i8"),
    "last_ns": (_OID_INT8, ">i8"),
}
_SETTLED: Final = {
    "settled_sum": (_OID_FLOAT8, ">f8"),
    "settled_squares": (_OID_FLOAT8, ">f8"),
}
MINUTE_S: Final = MINUTE_NS // SECOND_NS
HOUR_S: Final = HOUR_NS // SECOND_NS
TABLES: Final = {MINUTE_S: "rollup_minute", HOUR_S: "rollup_hour"}
_WIDTH_NS: Final = {"minute": MINUTE_NS, "hour": HOUR_NS}

CONTENTS: Final = {
    "rollup_series": "select asset_id, channels, start_ns, end_ns, longest_ns from rollup_series "
    "where ledger_id = $1",
} | {
    f"rollup_{table}": f"""
        select s.asset_id, s.channels, r.bucket_start, {", ".join(f"r.{c}" for c in columns)}
        from rollup_{table} r join rollup_series s using (series_id) where s.ledger_id = $1
    """
    for table, columns in (("minute", [*_ARRAYS]), ("hour", [*_ARRAYS, *_SETTLED]))
}
"""What the rows say, of one ledger: series are numbered as they come, by a sequence."""

Row = npt.NDArray[np.void]


def _arrays(table: str) -> dict[str, tuple[int, str]]:
    return _ARRAYS | (_SETTLED if table == "hour" else {})


@lru_cache(maxsize=512)
def _layout(table: str, channel_count: int, *, of_record: bool) -> tuple[np.dtype[Any], Row]:
    """Return the layout of a row as COPY or `record_send` has it, and a row without its values."""
    # A record counts its columns in 4 bytes and names each one's type; COPY does neither.
    columns: list[tuple[Any, ...]] = [("columns", ">i4" if of_record else ">i2")]

    def column(name: str, content: list[tuple[Any, ...]]) -> None:
        if of_record:
            columns.append((f"{name}_type", ">i4"))
        columns.append((f"{name}_bytes", ">i4"))
        columns.extend(content)

    column("bucket_start", [("bucket_start", ">i8")])
    column("series_id", [("series_id", ">i4")])
    for name, (_, element) in _arrays(table).items():
        items = np.dtype([("bytes", ">i4"), ("value", element)])
        head = np.dtype([(f"{name}_head", ">i4", (5,))])
        column(name, [*head.descr, (name, items, (channel_count,))])
    layout = np.dtype(columns)
    blank = np.zeros(1, layout)
    blank["columns"] = 2 + len(_arrays(table))
    blank["bucket_start_bytes"], blank["series_id_bytes"] = 8, 4
    for name, (oid, element) in _arrays(table).items():
        width = np.dtype(element).itemsize
        blank[f"{name}_head"] = (1, 0, oid, channel_count, 1)
        blank[f"{name}_bytes"] = 20 + channel_count * (4 + width)
        blank[name]["bytes"] = width
    return layout, blank


# --- writing ------------------------------------------------------------------------------


async def insert_minutes(connection: Connection, minutes: Iterable[Buckets]) -> None:
    """Add rows that are not there yet."""
    await _copy(connection, "minute", [_encoded("minute", part, {}) for part in minutes])


async def insert_hours(connection: Connection, hours: Iterable[Hours]) -> None:
    """Add rows that are not there yet."""
    await _copy(
        connection, "hour", [_encoded("hour", part.buckets, _settled(part)) for part in hours]
    )


def _settled(hours: Hours) -> dict[str, npt.NDArray[Any]]:
    return {"settled_sum": hours.settled_sum, "settled_squares": hours.settled_squares}


def _encoded(table: str, buckets: Buckets, settled: dict[str, npt.NDArray[Any]]) -> bytes:
    _, blank = _layout(table, buckets.channel_count, of_record=False)
    rows = np.repeat(blank, len(buckets))
    width_s = _WIDTH_NS[table] // SECOND_NS
    rows["bucket_start"] = (buckets.bucket * width_s - POSTGRES_EPOCH_S) * 1_000_000
    rows["series_id"] = buckets.series
    for name in _ARRAYS:
        rows[name]["value"] = getattr(buckets, name)
    for name, column in settled.items():
        rows[name]["value"] = column
    return rows.tobytes()


async def _copy(connection: Connection, table: str, encoded: Sequence[bytes]) -> None:
    if not any(encoded):
        return

    async def source() -> AsyncIterator[bytes]:
        yield _COPY_HEAD
        for rows in encoded:
            for at in range(0, len(rows), _COPY_CHUNK):
                yield rows[at : at + _COPY_CHUNK]
        yield _COPY_END

    await connection.copy_to_table(
        f"rollup_{table}",
        source=source(),
        columns=["bucket_start", "series_id", *_arrays(table)],
        format="binary",
    )


async def update_minutes(connection: Connection, minutes: Buckets) -> None:
    """Put `minutes` in place of the rows of the same series and bucket."""
    await _update(connection, "minute", minutes, {})


async def update_hours(connection: Connection, hours: Hours) -> None:
    """Put `hours` in place of the rows of the same series and bucket."""
    await _update(connection, "hour", hours.buckets, _settled(hours))


async def _update(
    connection: Connection, table: str, buckets: Buckets, settled: dict[str, npt.NDArray[Any]]
) -> None:
    names = list(_arrays(table))
    columns = [getattr(buckets, name) for name in _ARRAYS] + list(settled.values())
    types = {_OID_INT4: "integer", _OID_INT8: "bigint", _OID_FLOAT8: "float8"}
    slices = ", ".join(
        f"{name} = (${5 + n}::{types[oid]}[])[changed.n * $1 + 1 : (changed.n + 1) * $1]"
        for n, (name, (oid, _)) in enumerate(_arrays(table).items())
    )
    assert len(names) == len(columns), "a row has a value for each column"
    # One flat array a column, cut here: unnest knows no arrays of arrays.
    await connection.execute(
        f"""
        update rollup_{table} held set {slices}
        from unnest($2::integer[], $3::integer[], $4::bigint[]) as changed(n, series_id, start_s)
        where held.series_id = changed.series_id
            and held.bucket_start = to_timestamp(changed.start_s)
        """,
        buckets.channel_count,
        list(range(len(buckets))),
        buckets.series.tolist(),
        _starts_s(table, buckets.bucket),
        *(column.ravel().tolist() for column in columns),
    )


async def delete_minutes(
    connection: Connection, series: Sequence[int], first: int, last: int
) -> None:
    """Remove the minutes `first` to `last` of `series`."""
    await connection.execute(
        """
        delete from rollup_minute where series_id = any($1::integer[])
            and bucket_start between to_timestamp($2::bigint) and to_timestamp($3::bigint)
        """,
        list(series),
        first * MINUTE_S,
        last * MINUTE_S,
    )


async def delete_hours(connection: Connection, series: IntArray, hour: IntArray) -> None:
    """Remove the hours `hour` of `series`, pair by pair."""
    await connection.execute(
        """
        delete from rollup_hour held
        using unnest($1::integer[], $2::bigint[]) as gone(series_id, start_s)
        where held.series_id = gone.series_id and held.bucket_start = to_timestamp(gone.start_s)
        """,
        series.tolist(),
        _starts_s("hour", hour),
    )


def _starts_s(table: str, bucket: IntArray) -> list[int]:
    starts: list[int] = (bucket * (_WIDTH_NS[table] // SECOND_NS)).tolist()
    return starts


# --- reading ------------------------------------------------------------------------------


async def stored_minutes(
    connection: Connection, series: IntArray, bucket: IntArray, channel_count: int
) -> Buckets:
    """Return those of the minutes that are stored; the series have `channel_count` channels."""
    rows = await _stored(connection, "minute", series, bucket, channel_count)
    return _buckets("minute", rows)


async def stored_hours(
    connection: Connection, series: IntArray, bucket: IntArray, channel_count: int
) -> Hours:
    """Return those of the hours that are stored; the series have `channel_count` channels."""
    rows = await _stored(connection, "hour", series, bucket, channel_count)
    return Hours(
        _buckets("hour", rows),
        rows["settled_sum"]["value"].astype(np.float64),
        rows["settled_squares"]["value"].astype(np.float64),
    )


async def _stored(
    connection: Connection, table: str, series: IntArray, bucket: IntArray, channel_count: int
) -> Row:
    if len(series) == 0:
        return np.zeros(0, _layout(table, channel_count, of_record=True)[0])
    records = await connection.fetch(
        f"""
        select record_send(held)
        from unnest($1::integer[], $2::bigint[]) as wanted(series_id, start_s)
        join rollup_{table} held on held.series_id = wanted.series_id
            and held.bucket_start = to_timestamp(wanted.start_s)
        """,
        series.tolist(),
        _starts_s(table, bucket),
    )
    return _parsed(table, [record[0] for record in records], channel_count)


async def minutes_of_hours(
    connection: Connection, series: IntArray, hour: IntArray, channel_count: int
) -> Buckets:
    """Return the stored minutes of the hours `hour` of `series`, ascending."""
    records = await connection.fetch(
        """
        select record_send(held)
        from unnest($1::integer[], $2::bigint[]) as wanted(series_id, start_s)
        join rollup_minute held on held.series_id = wanted.series_id
            and held.bucket_start >= to_timestamp(wanted.start_s)
            and held.bucket_start < to_timestamp(wanted.start_s + 3600)
        order by held.series_id, held.bucket_start
        """,
        series.tolist(),
        _starts_s("hour", hour),
    )
    return _buckets("minute", _parsed("minute", [record[0] for record in records], channel_count))


async def stored_between(
    connection: Connection,
    resolution_s: int,
    series: Sequence[int],
    first_s: int,
    last_s: int,
    channel_count: int,
) -> Buckets:
    """Return the buckets of `series` that start from `first_s` to `last_s`, ascending."""
    # Hours without what only their fold needs.
    columns = ", ".join(("r.bucket_start", "r.series_id", *(f"r.{name}" for name in _ARRAYS)))
    records = await connection.fetch(
        f"""
        select record_send(row({columns})) from {TABLES[resolution_s]} r
        where r.series_id = any($1::integer[])
            and r.bucket_start between to_timestamp($2::bigint) and to_timestamp($3::bigint)
        order by r.series_id, r.bucket_start
        """,
        list(series),
        first_s,
        last_s,
    )
    rows = _parsed("minute", [record[0] for record in records], channel_count)
    return _buckets("minute" if resolution_s == MINUTE_S else "hour", rows)


def _parsed(table: str, records: Sequence[bytes], channel_count: int) -> Row:
    return np.frombuffer(b"".join(records), _layout(table, channel_count, of_record=True)[0])


def _buckets(table: str, rows: Row) -> Buckets:
    width_s = _WIDTH_NS[table] // SECOND_NS
    starts_s = rows["bucket_start"].astype(np.int64) // 1_000_000 + POSTGRES_EPOCH_S
    columns: list[Any] = [
        rows[name]["value"].astype(np.float64 if element == ">f8" else np.int64)
        for name, (_, element) in _ARRAYS.items()
    ]
    return Buckets(rows["series_id"].astype(np.int64), starts_s // width_s, *columns)
