"""Overall equipment effectiveness of assets, from their runs, standstills and inspections.

Nothing is stored here: one statement over the rows of `production`, `maintenance` and `quality`,
as of any position. The planned times and the planned run times of items are the caller's: the log
does not know what was meant to happen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from domain.errors import InvalidInput
from domain.key_figures.effectiveness import Effectiveness, overall_equipment_effectiveness
from domain.quality.inspection import Verdict
from eventlog.ledger import Ledger
from projections.figures.asset_sets import distinct_assets
from projections.figures.periods import Period, length_s
from projections.histories import Basis, as_of_or_now, known
from projections.production.projection import COMPLETED

PLANNED_TIMES_MAX: Final = 20_000


@dataclass(frozen=True, slots=True)
class PlannedTime:
    """A time for which production was planned on an asset: planned busy time of ISO 22400."""

    asset_id: str
    period: Period


@dataclass(frozen=True, slots=True)
class AssetEffectiveness:
    """OEE of an asset or of several, and the counts behind it.

    `good` of the `items` were not found anything but good by an inspection that belongs to the
    run, nor scrapped with it as their last run. `aborted_runs` took production time and
    made nothing.
    """

    figure: Effectiveness
    items: float
    good: float
    runs: int
    aborted_runs: int


@dataclass(frozen=True, slots=True)
class OeeOfAssets:
    """OEE of all assets together and of each."""

    total: AssetEffectiveness
    by_asset: dict[str, AssetEffectiveness]
    basis: Basis


_OEE: Final = f"""
    with planned as (
        select asset_id, range_agg(tstzrange(began_at, ended_at)) as spans,
            min(began_at) as first, max(ended_at) as last
        from unnest($3::text[], $4::timestamptz[], $5::timestamptz[])
            as given(asset_id, began_at, ended_at)
        group by asset_id
    ), run as materialized (
        select r.run_id, r.asset_id, r.operation, r.outcome, r.ended_at, r.known_from, p.spans,
            tstzrange(r.started_at, greatest(r.started_at, coalesce(r.ended_at, p.last))) as span,
            -- What ends with the shift was made in it.
            coalesce(p.spans @> (r.ended_at - interval '1 microsecond'), false) as ended_in
        from planned p join process_run r on r.asset_id = p.asset_id
        where {known("r")} and coalesce(r.ended_at, 'infinity') > p.first
            and r.started_at < p.last
    ), rejected as (
        select distinct i.run_id, i.subject from inspection i
        where {known("i")} and i.verdict <> '{Verdict.GOOD.value}'
            and i.run_id in (select run_id from run where ended_in)
    ), lost as (
        select s.unit_id, last.run_id from part_scrapped s cross join lateral (
            select u.run_id from run_unit u
            where {known("u")} and u.unit_id = s.unit_id and u.occurred_at <= s.occurred_at
            order by u.occurred_at desc, u.origin desc limit 1
        ) as last
        where {known("s")} and s.occurred_at >= (select min(first) from planned)
    ), made as (
        select r.asset_id, r.operation, u.unit, u.unit_id, r.run_id, max(u.quantity) as quantity,
            bool_or(
                of_unit.run_id is not null or of_run.run_id is not null or lost.run_id is not null
            ) as bad
        from run r join run_unit u on {known("u")} and u.run_id = r.run_id
        left join rejected of_unit
            on of_unit.run_id = r.run_id and of_unit.subject = u.unit_id
        left join rejected of_run
            on of_run.run_id = r.run_id and of_run.subject = 'process-run:' || r.run_id
        left join lost on lost.run_id = r.run_id and lost.unit_id = u.unit_id
        where r.ended_in and r.outcome = '{COMPLETED}'
        group by r.asset_id, r.operation, u.unit, u.unit_id, r.run_id
    ), items as (
        select asset_id, sum(quantity) as items,
            coalesce(sum(quantity) filter (where not bad), 0) as good,
            sum(quantity * cycle_s) as ideal_s,
            coalesce(sum(quantity * cycle_s) filter (where not bad), 0) as ideal_good_s,
            min(operation || ' in ' || unit) filter (where cycle_s is null) as unplanned
        from made left join unnest($6::text[], $7::text[], $8::float8[])
            as cycle(of_operation, of_unit, cycle_s)
            on cycle.of_operation = operation and cycle.of_unit = unit
        group by asset_id
    ), produced as (
        select asset_id, range_agg(span) as spans, count(*) as records,
            count(*) filter (where ended_in and outcome = '{COMPLETED}') as runs,
            count(*) filter (where ended_in and outcome <> '{COMPLETED}') as aborted,
            min(known_from) as low, max(known_from) as high
        from run group by asset_id
    ), down as (
        select p.asset_id, range_agg(tstzrange(o.down_from, coalesce(o.down_to, p.last))) as spans
        from planned p join work_order o on o.asset_id = p.asset_id
        where {known("o")} and o.down_from < p.last and coalesce(o.down_to, p.last) > p.first
            and (o.closed_at is null or o.closed_at > p.first)
        group by p.asset_id
    ), spans as (
        select p.asset_id, p.spans as planned,
            p.spans * coalesce(d.spans, '{{}}') as down,
            p.spans * coalesce(r.spans, '{{}}') - coalesce(d.spans, '{{}}') as produced
        from planned p left join produced r using (asset_id) left join down d using (asset_id)
    )
    select s.asset_id, {length_s("s.planned")} as planned_s, {length_s("s.produced")} as produced_s,
        {length_s("s.down")} as down_s, i.items, i.good, i.ideal_s, i.ideal_good_s, i.unplanned,
        coalesce(r.runs, 0) as runs, coalesce(r.aborted, 0) as aborted,
        coalesce(r.records, 0) as records, r.low, r.high
    from spans s left join items i using (asset_id) left join produced r using (asset_id)
"""


async def oee(
    ledger: Ledger,
    planned: Sequence[PlannedTime],
    cycle_times_s: Mapping[tuple[str, str], float],
    *,
    as_of: int | None = None,
) -> OeeOfAssets:
    """Return the OEE of the assets for which production was planned, over those times.

    Production time is the time of runs, aborted ones too, less the standstill for work orders;
    the items are those of the runs that were completed within the planned times.

    Parameters
    ----------
    planned : when production was planned on which asset; overlaps count once
    cycle_times_s : planned run time of an item (PRI), s, by (operation, unit); parts have the
        unit `PART_UNIT`, lots that of their quantity

    Raises
    ------
    InvalidInput
        ``figure.planned_times``, ``figure.assets``, ``figure.cycle_time_missing``
    """
    if not 1 <= len(planned) <= PLANNED_TIMES_MAX:
        raise InvalidInput(
            "figure.planned_times",
            f"{len(planned)} planned times were given; it has to be 1 to {PLANNED_TIMES_MAX}",
            hint="without a plan there is no OEE",
            value=len(planned),
            limit=PLANNED_TIMES_MAX,
        )
    names = distinct_assets([time.asset_id for time in planned])
    rows = await ledger.pool.fetch(
        _OEE,
        ledger.ledger_id,
        as_of_or_now(as_of),
        [time.asset_id for time in planned],
        [time.period.start for time in planned],
        [time.period.end for time in planned],
        [operation for operation, _ in cycle_times_s],
        [unit for _, unit in cycle_times_s],
        list(cycle_times_s.values()),
    )
    for row in rows:
        if row["unplanned"] is not None:
            raise InvalidInput(
                "figure.cycle_time_missing",
                f"asset {row['asset_id']!r} made items by {row['unplanned']}, "
                "of which no cycle time was given",
                hint="give the planned run time of an item for every operation",
                value=row["unplanned"],
            )
    found = {row["asset_id"]: row for row in rows}
    return OeeOfAssets(
        _effectiveness(rows),
        {name: _effectiveness([found[name]]) for name in names},
        Basis.of(rows, sum(row["records"] for row in rows), as_of),
    )


def _effectiveness(rows: Sequence[asyncpg.Record]) -> AssetEffectiveness:
    def total(name: str) -> float:
        return float(sum(row[name] or 0 for row in rows))

    return AssetEffectiveness(
        overall_equipment_effectiveness(
            planned_busy_s=total("planned_s"),
            production_s=total("produced_s"),
            down_s=total("down_s"),
            ideal_s=total("ideal_s"),
            # Of two sums in different orders the smaller may come out the larger.
            ideal_good_s=min(total("ideal_good_s"), total("ideal_s")),
        ),
        items=total("items"),
        good=total("good"),
        runs=int(total("runs")),
        aborted_runs=int(total("aborted")),
    )
