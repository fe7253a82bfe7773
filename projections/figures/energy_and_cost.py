"""Energy and cost: of assets by their runs and work orders, of parts by their runs.

Nothing is stored here: figures are made of the rows of `production` and `maintenance` when they
are asked for, as of any position. The price of energy is the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from domain.errors import InvalidInput
from domain.key_figures.costs import EnergyPrice, per_unit
from eventlog.ledger import Ledger
from projections.figures.asset_sets import distinct_assets
from projections.figures.periods import Period
from projections.histories import KNOWN, Basis, as_of_or_now, known
from projections.production.projection import PART_UNIT

PART_NUMBERS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class AssetCost:
    """What the runs of an asset took and its maintenance cost, over a period.

    Parameters
    ----------
    runs, unmeasured_runs : that ended in the period; of those, without measured energy
    energy_j, energy_cost : of the others
    parts : different parts that went through a run which ended in the period
    energy_j_per_part : of parts that went through measured runs; None of none
    maintenance_cost : of work orders closed in the period, by currency
    cost_per_part : energy and maintenance in the price's currency, by part; None without a price
        or a part
    uncosted_work_orders : closed with completion in the period, and without a cost
    """

    asset_id: str
    runs: int
    unmeasured_runs: int
    energy_j: float
    energy_cost: float | None
    parts: int
    energy_j_per_part: float | None
    maintenance_cost: dict[str, float]
    cost_per_part: float | None
    uncosted_work_orders: int


@dataclass(frozen=True, slots=True)
class EnergyAndCost:
    """Energy and cost of each asset; `price` as it was given."""

    by_asset: dict[str, AssetCost]
    price: EnergyPrice | None
    basis: Basis


async def energy_and_cost(
    ledger: Ledger,
    assets: Sequence[str],
    period: Period,
    *,
    price: EnergyPrice | None = None,
    as_of: int | None = None,
) -> EnergyAndCost:
    """Return what runs and maintenance of `assets` took and cost in a period.

    Parameters
    ----------
    price : of energy; without it there is no cost of energy

    Raises
    ------
    InvalidInput
        ``figure.assets``, ``figure.value_invalid``
    """
    names = distinct_assets(assets)
    arguments = (ledger.ledger_id, as_of_or_now(as_of), period.start, period.end, names)
    runs = await ledger.pool.fetch(
        f"""
        with run as materialized (
            select run_id, asset_id, energy_j, known_from from process_run
            where {KNOWN} and asset_id = any($5::text[]) and outcome is not null
                and coalesce(ended_at, 'infinity') >= $3 and ended_at < $4
        ), part as (
            select r.asset_id, count(distinct u.unit_id) as parts,
                count(distinct u.unit_id) filter (where r.energy_j is not null) as measured
            from run r join run_unit u on {known("u")} and u.run_id = r.run_id
                and u.unit = '{PART_UNIT}'
            group by r.asset_id
        )
        select asset_id, count(*) as runs, count(*) filter (where energy_j is null) as unmeasured,
            coalesce(sum(energy_j), 0)::float8 as energy_j, coalesce(min(parts), 0) as parts,
            coalesce(min(measured), 0) as measured, min(known_from) as low, max(known_from) as high
        from run left join part using (asset_id) group by asset_id
        """,
        *arguments,
    )
    orders = await ledger.pool.fetch(
        f"""
        select asset_id, currency, coalesce(sum(cost), 0)::float8 as cost, count(*) as orders,
            count(*) filter (where cost is null and finding is not null) as uncosted,
            min(known_from) as low, max(known_from) as high
        from work_order
        where {KNOWN} and asset_id = any($5::text[]) and closed_at >= $3 and closed_at < $4
        group by asset_id, currency
        """,
        *arguments,
    )
    by_run = {row["asset_id"]: row for row in runs}
    by_asset = {
        name: _asset_cost(
            name, by_run.get(name), [row for row in orders if row["asset_id"] == name], price
        )
        for name in names
    }
    records = sum(row["runs"] for row in runs) + sum(row["orders"] for row in orders)
    return EnergyAndCost(by_asset, price, Basis.of([*runs, *orders], records, as_of))


def _asset_cost(
    name: str,
    run: asyncpg.Record | None,
    orders: Sequence[asyncpg.Record],
    price: EnergyPrice | None,
) -> AssetCost:
    energy_j = 0.0 if run is None else run["energy_j"]
    parts = 0 if run is None else run["parts"]
    maintenance = {row["currency"]: row["cost"] for row in orders if row["currency"] is not None}
    return AssetCost(
        asset_id=name,
        runs=0 if run is None else run["runs"],
        unmeasured_runs=0 if run is None else run["unmeasured"],
        energy_j=energy_j,
        energy_cost=None if price is None else price.cost(energy_j),
        parts=parts,
        energy_j_per_part=None if run is None else per_unit(energy_j, run["measured"]),
        maintenance_cost=maintenance,
        cost_per_part=(
            None
            if price is None
            else per_unit(price.cost(energy_j) + maintenance.get(price.currency, 0.0), parts)
        ),
        uncosted_work_orders=sum(row["uncosted"] for row in orders),
    )


@dataclass(frozen=True, slots=True)
class PartNumberEnergy:
    """Energy that the runs of parts of one number took: a run's, in equal shares of its parts.

    `energy_j_per_part` is of the `measured_parts`, which went through a measured run;
    `energy_cost_per_part` is None without a price.
    """

    part_number: str
    parts: int
    measured_parts: int
    energy_j: float
    energy_j_per_part: float | None
    energy_cost_per_part: float | None
    unmeasured_runs: int


async def energy_by_part_number(
    ledger: Ledger,
    period: Period,
    *,
    assets: Sequence[str] | None = None,
    part_ids: Sequence[str] | None = None,
    price: EnergyPrice | None = None,
    first: int = 100,
    as_of: int | None = None,
) -> list[PartNumberEnergy]:
    """Return the energy of runs that ended in a period by part number, the most first.

    Parameters
    ----------
    assets : only their runs; None: all
    part_ids : only these parts, such as a single serial number; None: all
    price : of energy; without it there is no cost
    first : at most so many part numbers

    Raises
    ------
    InvalidInput
        ``page.limit``
    """
    if not 1 <= first <= PART_NUMBERS_MAX:
        raise InvalidInput(
            "page.limit",
            f"first is {first}; it lies between 1 and {PART_NUMBERS_MAX}",
            value=first,
            limit=PART_NUMBERS_MAX,
        )
    rows = await ledger.pool.fetch(
        f"""
        with through as (
            select distinct r.run_id, r.energy_j, u.unit_id from process_run r
            join run_unit u on {known("u")} and u.run_id = r.run_id and u.unit = '{PART_UNIT}'
            where {known("r")} and r.outcome is not null and r.ended_at >= $3 and r.ended_at < $4
                and ($5::text[] is null or r.asset_id = any($5))
                and ($6::text[] is null or exists (
                    select from run_unit w where {known("w")} and w.run_id = r.run_id
                        and w.unit_id = any($6)
                ))
        ), shared as (
            select *, energy_j / count(*) over (partition by run_id) as share from through
        )
        select n.part_number, count(distinct s.unit_id) as parts,
            count(distinct s.unit_id) filter (where s.share is not null) as measured,
            coalesce(sum(s.share), 0)::float8 as energy_j,
            count(distinct s.run_id) filter (where s.share is null) as unmeasured
        from shared s join part_number n on {known("n")} and n.unit_id = s.unit_id
        where $6 is null or s.unit_id = any($6)
        group by n.part_number order by energy_j desc, n.part_number limit $7
        """,
        ledger.ledger_id,
        as_of_or_now(as_of),
        period.start,
        period.end,
        None if assets is None else list(assets),
        None if part_ids is None else [f"part:{part_id}" for part_id in part_ids],
        first,
    )
    return [
        PartNumberEnergy(
            row["part_number"],
            row["parts"],
            row["measured"],
            row["energy_j"],
            per_unit(row["energy_j"], row["measured"]),
            None if price is None else per_unit(price.cost(row["energy_j"]), row["measured"]),
            row["unmeasured"],
        )
        for row in rows
    ]
