"""The tables of figures: reliability, and energy and cost, of each asset over a period."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Final

import orjson
import pyarrow as pa

from api.exports.table import Asked, Export, Table, assets_asked
from domain.errors import InvalidInput
from domain.key_figures.effectiveness import Effectiveness
from projections.figures.asset_sets import ASSETS_MAX, assets_below
from projections.figures.effectiveness import PlannedTime, oee
from projections.figures.energy_and_cost import energy_and_cost
from projections.figures.periods import Period
from projections.figures.reliability import reliability
from projections.production.projection import PART_UNIT

_PERIOD: Final = frozenset({"assets", "location", "from", "to"})

_RELIABILITY: Final = {
    "asset_id": pa.string(),
    "observed_s": pa.float64(),
    "down_s": pa.float64(),
    "failures": pa.int64(),
    "prevented": pa.int64(),
    "restored": pa.int64(),
    "unrestored": pa.int64(),
    "without_downtime": pa.int64(),
    "restoration_s": pa.float64(),
    "mtbf_s": pa.float64(),
    "mttr_s": pa.float64(),
    "availability_ratio": pa.float64(),
    "inherent_availability_ratio": pa.float64(),
}
_ENERGY: Final = {
    "asset_id": pa.string(),
    "runs": pa.int64(),
    "unmeasured_runs": pa.int64(),
    "energy_j": pa.float64(),
    "parts": pa.int64(),
    "energy_j_per_part": pa.float64(),
    "maintenance_cost": pa.string(),
    "uncosted_work_orders": pa.int64(),
}
_OEE: Final = {
    "asset_id": pa.string(),
    **dict.fromkeys((each.name for each in fields(Effectiveness)), pa.float64()),
    "items": pa.float64(),
    "good": pa.float64(),
    "runs": pa.int64(),
    "aborted_runs": pa.int64(),
}


async def open_reliability(asked: Asked) -> Export:
    """Return MTBF, MTTR, availability and what they are made of, a row an asset."""
    assets, period = await _assets(asked), _period(asked)
    found = {}
    if assets:
        found = (await reliability(asked.ledger, assets, period, as_of=asked.position)).by_asset
    rows = [{"asset_id": asset_id, **asdict(figure)} for asset_id, figure in found.items()]
    return _one_batch(asked, _RELIABILITY, rows)


async def open_energy(asked: Asked) -> Export:
    """Return what runs and maintenance took, a row an asset; cost by currency, as JSON."""
    assets, period = await _assets(asked), _period(asked)
    found = {}
    if assets:
        found = (await energy_and_cost(asked.ledger, assets, period, as_of=asked.position)).by_asset
    rows: list[dict[str, Any]] = [asdict(cost) for cost in found.values()]
    for row in rows:
        row["maintenance_cost"] = orjson.dumps(row["maintenance_cost"]).decode()
    return _one_batch(asked, _ENERGY, rows)


async def open_oee(asked: Asked) -> Export:
    """Return OEE, its factors and losses, a row an asset, as if all of the period were planned."""
    period, cycle_times = _period(asked), _cycle_times(asked)
    assets = await _assets(asked)
    found = {}
    if assets:
        planned = [PlannedTime(asset_id, period) for asset_id in assets]
        found = (await oee(asked.ledger, planned, cycle_times, as_of=asked.position)).by_asset
    rows = []
    for asset_id, effectiveness in found.items():
        told = asdict(effectiveness)
        rows.append({"asset_id": asset_id, **told.pop("figure"), **told})
    return _one_batch(asked, _OEE, rows)


def _cycle_times(asked: Asked) -> dict[tuple[str, str], float]:
    """Return the planned run times of an item that ``cycle_times`` lists, by operation and unit.

    Raises
    ------
    InvalidInput
        ``export.malformed_parameter``
    """
    found: dict[tuple[str, str], float] = {}
    for text in asked.parameters.names("cycle_times"):
        what, _, seconds_text = text.rpartition(":")
        operation, at, unit = what.partition("@")
        try:
            seconds = float(seconds_text)
        except ValueError:
            seconds = math.nan
        if not operation or bool(at) != bool(unit) or not 0 < seconds < math.inf:
            raise InvalidInput(
                "export.malformed_parameter",
                f"cycle_times={text!r:.80} is not an operation and the seconds that an item of it "
                "should take",
                hint="such as `turning:240,casting@kg:3.5`",
                value=text[:80],
            )
        found[operation, unit or PART_UNIT] = seconds
    return found


async def _assets(asked: Asked) -> list[str]:
    location = asked.parameters.text("location")
    if location is None:
        assets = await assets_asked(asked)
    elif asked.parameters.names("assets"):
        raise InvalidInput(
            "export.malformed_parameter",
            "give `assets` or `location`, not both",
            value=location[:80],
        )
    else:
        below = await assets_below(asked.ledger, location)
        assets = [asset_id for asset_id in below if asked.sight.sees_asset(asset_id)]
    if len(assets) > ASSETS_MAX:
        raise InvalidInput(
            "export.too_many_assets",
            f"the export would hold {len(assets)} assets, more than {ASSETS_MAX}",
            hint="name those that you want with `assets`, or a `location`",
            value=len(assets),
            limit=ASSETS_MAX,
        )
    return assets


def _period(asked: Asked) -> Period:
    """Return the period that is asked for; both its ends have to be said.

    Raises
    ------
    InvalidInput
        ``figure.period_missing``, ``figure.period_empty``
    """
    start, end = (asked.parameters.time(name) for name in ("from", "to"))
    if start is None or end is None:
        raise InvalidInput(
            "figure.period_missing",
            "a figure is of a period, and one of its ends is missing",
            hint="give `from` and `to`",
        )
    return Period(start, end)


def _one_batch(
    asked: Asked, columns: Mapping[str, pa.DataType], rows: Sequence[Mapping[str, Any]]
) -> Export:
    schema = pa.schema(list(columns.items()), metadata={"heddle.position": str(asked.position)})
    ordered = sorted(rows, key=lambda row: str(row["asset_id"]))
    batch = pa.RecordBatch.from_pylist([dict(row) for row in ordered], schema=schema)

    async def batches() -> AsyncGenerator[pa.RecordBatch, None]:
        yield batch

    return Export(schema, batches())


RELIABILITY: Final = Table("reliability", _PERIOD, open_reliability)
ENERGY: Final = Table("energy", _PERIOD, open_energy)
OEE: Final = Table("oee", _PERIOD | {"cycle_times"}, open_oee)
