"""How often assets fail, how long they stand still, and what acting before a failure saved.

Nothing is stored here: every figure is made of the rows of `maintenance` when it is asked for, as
of any position. Formulas are `domain.key_figures`'s; standstills that overlap are united by
PostgreSQL, so that two work orders at once are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from domain.key_figures.costs import (
    PreventionAssumptions,
    PreventionSavings,
    prevention_savings,
)
from domain.key_figures.reliability import (
    Bounds,
    inherent_availability,
    mean_operating_time_between_failures_s,
    mean_time_to_restoration_s,
    mtbf_bounds,
    operational_availability,
)
from domain.maintenance.work_order import Finding
from eventlog.ledger import Ledger
from projections.figures.asset_sets import distinct_assets
from projections.figures.periods import Period, length_s
from projections.histories import KNOWN, Basis, as_of_or_now, known

WORK_ORDERS_NAMED_MAX: Final = 500

# --- reliability --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often assets failed, and how long they stood still, over a period.

    Parameters
    ----------
    observed_s : the period's length, once for each asset
    down_s : of that, standstill for work orders of any kind, overlaps counted once
    failures : confirmed in the period, by when they happened; prevented ones are none
    prevented : confirmed by work that a prediction had led to, before they happened
    restored : failures for which the asset stood still, and after which it was restored
    unrestored, without_downtime : other failures: not restored yet, or the asset did not stand
    restoration_s : from those failures to their restorations, also beyond the period
    mtbf_s : operating time (observed less down) by failures; None without a failure
    mtbf_bounds : the interval it lies in, if failures come at a constant rate
    mttr_s : mean time to restoration; None where nothing was restored
    availability_ratio : share of the observed time that is not down
    inherent_availability_ratio : MTBF / (MTBF + MTTR); None where either is
    """

    observed_s: float
    down_s: float
    failures: int
    prevented: int
    restored: int
    unrestored: int
    without_downtime: int
    restoration_s: float
    mtbf_s: float | None
    mtbf_bounds: Bounds | None
    mttr_s: float | None
    availability_ratio: float | None
    inherent_availability_ratio: float | None


@dataclass(frozen=True, slots=True)
class ReliabilityOfAssets:
    """Reliability of all assets together and of each."""

    total: Reliability
    by_asset: dict[str, Reliability]
    basis: Basis


_WORK_ORDERS: Final = f"""
    select o.asset_id, o.closed_at, o.down_from, o.down_to, o.failure_at, o.prevented, o.cost,
        o.currency, o.known_from
    from work_order o
    where {known("o")} and o.closed_at is not null and o.closed_at >= $3
        and o.asset_id = any($5::text[])
    union all
    select o.asset_id, o.closed_at, o.down_from, o.down_to, o.failure_at, o.prevented, o.cost,
        o.currency, o.known_from
    from work_order o
    where {known("o")} and o.closed_at is null and o.asset_id = any($5::text[])
"""
"""Work orders that may concern the period from ``$3`` to ``$4``: not closed before it."""

_DOWN_SPAN: Final = (
    "tstzrange(greatest(down_from, $3), least(coalesce(down_to, $4::timestamptz), $4))"
)
_IS_DOWN: Final = "down_from < $4 and (down_to is null or down_to > $3)"


async def reliability(
    ledger: Ledger,
    assets: Sequence[str],
    period: Period,
    *,
    confidence: float = 0.9,
    as_of: int | None = None,
) -> ReliabilityOfAssets:
    """Return MTBF, MTTR and availability of `assets` over a period that has passed.

    The assets are taken to have been in service all the period; an asset that nothing is known
    of counts as one that never failed. What stands still at the end of the period counts as down
    up to there.

    Parameters
    ----------
    assets : 1 to `ASSETS_MAX`; `assets_below` gives those of a location
    confidence : of the bounds of MTBF

    Raises
    ------
    InvalidInput
        ``figure.assets``, ``figure.confidence_out_of_range``
    """
    names = distinct_assets(assets)
    rows = await ledger.pool.fetch(
        f"""
        with work as materialized ({_WORK_ORDERS}), concerned as (
            select *, failure_at >= $3 and failure_at < $4 as failed,
                prevented and closed_at >= $3 and closed_at < $4 as averted,
                {_IS_DOWN} as stands
            from work
        )
        select asset_id,
            {length_s(f"range_agg({_DOWN_SPAN}) filter (where stands)")} as down_s,
            count(*) filter (where failed) as failures,
            count(*) filter (where averted) as prevented,
            count(*) filter (where failed and down_from is not null and down_to is not null)
                as restored,
            count(*) filter (where failed and down_from is not null and down_to is null)
                as unrestored,
            count(*) filter (where failed and down_from is null) as without_downtime,
            coalesce(sum(extract(epoch from down_to - failure_at))
                filter (where failed and down_from is not null), 0)::float8 as restoration_s,
            count(*) as orders, min(known_from) as low, max(known_from) as high
        from concerned where failed or averted or stands
        group by asset_id
        """,
        ledger.ledger_id,
        as_of_or_now(as_of),
        period.start,
        period.end,
        names,
    )
    found = {row["asset_id"]: row for row in rows}
    by_asset = {
        name: _reliability(period.length_s, [found[name]] if name in found else [], confidence)
        for name in names
    }
    return ReliabilityOfAssets(
        _reliability(period.length_s * len(names), rows, confidence),
        by_asset,
        Basis.of(rows, sum(row["orders"] for row in rows), as_of),
    )


def _reliability(
    observed_s: float, rows: Sequence[asyncpg.Record], confidence: float
) -> Reliability:
    def total(name: str) -> Any:
        return sum(row[name] for row in rows)

    down_s, failures = float(total("down_s")), total("failures")
    # Differences of sums of times may fall short of zero by a rounding.
    operating_s = max(0.0, observed_s - down_s)
    mtbf_s = mean_operating_time_between_failures_s(operating_s, failures)
    mttr_s = mean_time_to_restoration_s(total("restoration_s"), total("restored"))
    return Reliability(
        observed_s=observed_s,
        down_s=down_s,
        failures=failures,
        prevented=total("prevented"),
        restored=total("restored"),
        unrestored=total("unrestored"),
        without_downtime=total("without_downtime"),
        restoration_s=float(total("restoration_s")),
        mtbf_s=mtbf_s,
        mtbf_bounds=mtbf_bounds(operating_s, failures, confidence),
        mttr_s=mttr_s,
        availability_ratio=operational_availability(operating_s, down_s),
        inherent_availability_ratio=(
            None if mtbf_s is None or mttr_s is None else inherent_availability(mtbf_s, mttr_s)
        ),
    )


# --- prevented failures -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PreventedFailures:
    """What acting on predictions saved, under the assumptions that come with it.

    Parameters
    ----------
    savings : what was spent includes false alarms
    work_order_ids : of prevented failures, at most `WORK_ORDERS_NAMED_MAX`
    false_alarm_ids : of work that a prediction led to and that found no fault; as many
    costs_in_other_currencies : of the same work; in no sum
    uncosted_work_orders : of the same work, without a cost
    """

    savings: PreventionSavings
    work_order_ids: tuple[str, ...]
    false_alarm_ids: tuple[str, ...]
    costs_in_other_currencies: dict[str, float]
    uncosted_work_orders: int
    basis: Basis


async def prevented_failures(
    ledger: Ledger,
    assets: Sequence[str],
    period: Period,
    assumptions: PreventionAssumptions,
    *,
    as_of: int | None = None,
) -> PreventedFailures:
    """Return what was saved by work that predictions led to and that was closed in a period.

    A failure counts as prevented where such work confirmed it before it had happened. Work on a
    prediction that found no fault was spent for nothing, and counts as such.

    Parameters
    ----------
    assumptions : what would have happened otherwise; nothing of it is known to the log

    Raises
    ------
    InvalidInput
        ``figure.assets``, ``figure.value_invalid``, ``figure.ratio_out_of_range``
    """
    rows = await ledger.pool.fetch(
        f"""
        select prevented, currency, count(*) as orders, coalesce(sum(cost), 0)::float8 as cost,
            count(*) filter (where cost is null) as uncosted,
            coalesce(sum(extract(epoch from down_to - down_from)), 0)::float8 as down_s,
            (array_agg(work_order_id order by closed_at, work_order_id))
                [:{WORK_ORDERS_NAMED_MAX}] as names,
            min(known_from) as low, max(known_from) as high
        from work_order
        where {KNOWN} and closed_at >= $3 and closed_at < $4 and asset_id = any($5::text[])
            and (prevented or cause like 'prediction:%' and finding = $6)
        group by prevented, currency
        """,
        ledger.ledger_id,
        as_of_or_now(as_of),
        period.start,
        period.end,
        distinct_assets(assets),
        Finding.NO_FAULT_FOUND.value,
    )
    costs: dict[str, float] = {}
    for row in rows:
        if row["currency"] is not None:
            costs[row["currency"]] = costs.get(row["currency"], 0.0) + row["cost"]
    own = costs.pop(assumptions.currency, 0.0)
    prevented = [row for row in rows if row["prevented"]]
    return PreventedFailures(
        prevention_savings(
            sum(row["orders"] for row in prevented),
            work_cost=own,
            down_s=sum(row["down_s"] for row in rows),
            assumptions=assumptions,
        ),
        _names(prevented),
        _names([row for row in rows if not row["prevented"]]),
        costs,
        sum(row["uncosted"] for row in rows),
        Basis.of(rows, sum(row["orders"] for row in rows), as_of),
    )


def _names(rows: Sequence[asyncpg.Record]) -> tuple[str, ...]:
    return tuple(sorted(name for row in rows for name in row["names"])[:WORK_ORDERS_NAMED_MAX])
