"""The tables of readings and of rollups, by asset, time and channel."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from api.exports.table import Asked, Export, Table, assets_asked, key_after, malformed_after
from domain.asset_model import ValueKind
from domain.asset_types import asset_type
from domain.errors import InvalidInput
from domain.frames import IntArray
from projections.telemetry.reading_slices import slices_of
from projections.telemetry.readings import ReadingColumns, read_raw
from projections.telemetry.rollup_columns import BUCKETS_MAX, RollupColumns, read_rollups
from projections.twins.projection import find_assets

ASSETS_MAX: Final = 10_000
_UTC_NS: Final = pa.timestamp("ns", tz="UTC")
_RESOLUTIONS: Final = {"1m": 60, "1h": 3_600}
_NS: Final = 1_000_000_000

# --- readings -----------------------------------------------------------------------------


async def open_readings(asked: Asked) -> Export:
    """Return every reading of a range, a row each: asset, channel, time, value (SI), quality."""
    start_ns, end_ns = asked.parameters.range_ns()
    bad = asked.parameters.flag("include_bad")
    channels, units = await _channels_of(asked)
    after = _after(asked)
    names = sorted({name for found in channels.values() for name in found})
    schema = pa.schema(
        [
            ("asset_id", pa.dictionary(pa.int32(), pa.string())),
            ("time", _UTC_NS),
            ("channel", pa.dictionary(pa.int32(), pa.string())),
            ("value", pa.float64()),
            ("quality", pa.uint8()),
        ],
        metadata=_told(units, asked.position),
    )

    async def batches() -> AsyncGenerator[pa.RecordBatch, None]:
        assets = list(channels)
        for number, asset_id in enumerate(assets):
            if after is not None and asset_id < after[0]:
                continue
            of_this = after if after is not None and asset_id == after[0] else None
            begin_ns = start_ns if of_this is None else max(start_ns, of_this[1])
            slices = slices_of(
                asked.ledger,
                asset_id,
                start_ns=begin_ns,
                end_ns=end_ns,
                known_at=asked.position,
            )
            async for first_ns, last_ns in slices:
                columns = await read_raw(
                    asked.ledger,
                    asset_id,
                    channels[asset_id],
                    start_ns=first_ns,
                    end_ns=last_ns,
                    with_bad=bad,
                    known_at=asked.position,
                )
                batch = await asyncio.to_thread(
                    _batch, schema, assets, number, names, columns, of_this
                )
                if batch.num_rows:
                    yield batch

    return Export(schema, batches())


def _batch(
    schema: pa.Schema,
    assets: Sequence[str],
    number: int,
    names: Sequence[str],
    columns: Sequence[ReadingColumns],
    after: tuple[str, int, str] | None,
) -> pa.RecordBatch:
    """Return the readings of a slice in the order of time and channel."""
    present = sorted((c for c in columns if len(c.values)), key=lambda c: c.channel)
    codes = np.array([names.index(column.channel) for column in present], np.int32)
    if not present:
        times, values = np.zeros(0, np.int64), np.zeros(0)
        qualities, channel = np.zeros(0, np.uint8), np.zeros(0, np.int32)
    elif all(_same_clock(present[0], column) for column in present[1:]):
        times = np.repeat(present[0].times_ns, len(present))
        values = np.stack([column.values for column in present], axis=1).ravel()
        qualities = np.stack([column.qualities for column in present], axis=1).ravel()
        channel = np.tile(codes, len(present[0].times_ns))
    else:
        times = np.concatenate([column.times_ns for column in present])
        channel = np.repeat(codes, [len(column.times_ns) for column in present])
        order = np.lexsort((channel, times))
        times, channel = times[order], channel[order]
        values = np.concatenate([column.values for column in present])[order]
        qualities = np.concatenate([column.qualities for column in present])[order]
    if after is not None:
        beyond = int(np.searchsorted(np.array(names), after[2], side="right"))
        kept = (times > after[1]) | ((times == after[1]) & (channel >= beyond))
        times, channel, values, qualities = (c[kept] for c in (times, channel, values, qualities))
    return pa.RecordBatch.from_arrays(
        [
            _dictionary(np.full(len(times), number, np.int32), assets),
            pa.array(times).cast(_UTC_NS),
            _dictionary(channel, names),
            pa.array(values),
            pa.array(qualities),
        ],
        schema=schema,
    )


def _same_clock(one: ReadingColumns, other: ReadingColumns) -> bool:
    return one.times_ns is other.times_ns or np.array_equal(one.times_ns, other.times_ns)


# --- rollups ------------------------------------------------------------------------------


async def open_rollups(asked: Asked) -> Export:
    """Return the rollups of a range, a row a bucket: how many GOOD readings, and what of them.

    Raises
    ------
    InvalidInput
        ``rollups.too_many_buckets``, before anything is sent, for one asset of the range
    """
    start_ns, end_ns = asked.parameters.range_ns()
    resolution_s = asked.parameters.one_of("resolution", _RESOLUTIONS, "1m")
    channels, units = await _channels_of(asked)
    after = _after(asked)
    schema = pa.schema(
        [
            ("asset_id", pa.string()),
            ("start", _UTC_NS),
            ("channel", pa.string()),
            ("reading_count", pa.int64()),
            *((name, pa.float64()) for name in _STATISTICS),
        ],
        metadata=_told(units, asked.position),
    )

    async def batches() -> AsyncGenerator[pa.RecordBatch, None]:
        for asset_id, names in channels.items():
            if after is not None and asset_id < after[0]:
                continue
            of_this = after if after is not None and asset_id == after[0] else None
            begin_ns = start_ns if of_this is None else max(start_ns, of_this[1])
            span = await _span_of(asked, asset_id, begin_ns, end_ns)
            if span is None:
                continue
            step_s = max(1, BUCKETS_MAX // max(1, len(names)) // 4) * resolution_s
            for at_s in itertools.count(span[0] // resolution_s * resolution_s, step_s):
                if at_s > span[1]:
                    break
                found = await read_rollups(
                    asked.ledger,
                    resolution_s,
                    asset_ids=[asset_id],
                    channels=names,
                    start_s=at_s,
                    end_s=min(span[1], at_s + step_s - resolution_s),
                )
                batch = _rollup_batch(schema, found, of_this)
                if batch.num_rows:
                    yield batch

    return Export(schema, batches())


_STATISTICS: Final = ("min", "max", "mean", "sum", "sum_of_squares", "first", "last")


async def _span_of(
    asked: Asked, asset_id: str, start_ns: int, end_ns: int
) -> tuple[int, int] | None:
    """Return (first, last) s in which the asset has buckets of the range; None where none."""
    row = await asked.ledger.pool.fetchrow(
        "select min(start_ns) as first, max(end_ns) as last from rollup_series "
        "where ledger_id = $1 and asset_id = $2",
        asked.ledger.ledger_id,
        asset_id,
    )
    if row is None or row["first"] is None:
        return None
    first_ns, last_ns = max(start_ns, row["first"]), min(end_ns, row["last"])
    return (first_ns // _NS, last_ns // _NS) if first_ns <= last_ns else None


def _rollup_batch(
    schema: pa.Schema, found: Sequence[RollupColumns], after: tuple[str, int, str] | None
) -> pa.RecordBatch:
    """Return buckets in the order of their start and channel."""
    columns: dict[str, Any] = {
        "asset_id": [rollup.asset_id for rollup in found for _ in rollup.start_s],
        "channel": [rollup.channel for rollup in found for _ in rollup.start_s],
    }
    starts: IntArray = np.concatenate(
        [np.zeros(0, np.int64), *(rollup.start_s * _NS for rollup in found)]
    )
    table = pa.table(
        {
            **columns,
            "start": pa.array(starts).cast(_UTC_NS),
            "reading_count": pa.array(_joined(found, "reading_count", np.int64)),
            **{name: pa.array(_joined(found, name, np.float64)) for name in _STATISTICS},
        }
    )
    if after is not None:
        keys = zip(starts.tolist(), columns["channel"], strict=True)
        table = table.filter(pa.array([key > after[1:] for key in keys], pa.bool_()))
    table = table.sort_by([("start", "ascending"), ("channel", "ascending")])
    ordered = table.select(schema.names).combine_chunks()
    arrays = [
        column.chunk(0) if column.num_chunks else pa.array([], column.type)
        for column in ordered.columns
    ]
    return pa.RecordBatch.from_arrays(
        [array.cast(field.type) for array, field in zip(arrays, schema, strict=True)],
        schema=schema,
    )


def _joined(found: Sequence[RollupColumns], name: str, kind: Any) -> Any:
    return np.concatenate([np.zeros(0, kind), *(getattr(rollup, name) for rollup in found)])


# --- both ---------------------------------------------------------------------------------


async def _channels_of(asked: Asked) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the numeric channels that are asked for, by asset, sorted, and their SI units.

    Raises
    ------
    InvalidInput
        ``export.too_many_assets``
    """
    wanted = set(asked.parameters.names("channels"))
    assets = await assets_asked(asked)
    if len(assets) > ASSETS_MAX:
        raise InvalidInput(
            "export.too_many_assets",
            f"the export would hold {len(assets)} assets, more than {ASSETS_MAX}",
            hint="name those that you want with `assets`",
            value=len(assets),
            limit=ASSETS_MAX,
        )
    rows = await find_assets(asked.ledger, assets)
    found: dict[str, list[str]] = {}
    units: dict[str, str] = {}
    for asset_id in assets:
        if asset_id not in rows:
            continue
        channels = [
            channel
            for channel in asset_type(rows[asset_id].asset_type).channels
            if (not wanted or channel.name in wanted) and channel.kind is not ValueKind.TEXT
        ]
        found[asset_id] = sorted(channel.name for channel in channels)
        units |= {channel.name: channel.si_unit for channel in channels}
    return found, units


def _after(asked: Asked) -> tuple[str, int, str] | None:
    key = key_after(asked, 3)
    if key is None:
        return None
    asset_id, time_ns, channel = key
    digits = time_ns.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise malformed_after(",".join(key), "asset id, ns since 1970 UTC, channel")
    return asset_id, int(time_ns), channel


def _told(units: dict[str, str], position: int) -> dict[str, str]:
    """Return what a schema tells beside its columns: SI units by channel, and the position."""
    return {"heddle.units": orjson.dumps(units).decode(), "heddle.position": str(position)}


def _dictionary(codes: Any, values: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(values, pa.string()))


READINGS: Final = Table(
    "readings",
    frozenset({"assets", "channels", "from", "to", "include_bad", "after"}),
    open_readings,
)
ROLLUPS: Final = Table(
    "rollups",
    frozenset({"assets", "channels", "from", "to", "resolution", "after"}),
    open_rollups,
)
