"""Yields, defects, control charts and capability, of any inspections, as of any position.

Nothing is stored here: figures are made of the rows of `quality` and `production` when they are
asked for. Formulas are `domain.key_figures`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from domain.errors import InvalidInput
from domain.key_figures.capability import Capability, capability, overall_sigma
from domain.key_figures.control_charts import ChartLimits, MeanRangeChart, mean_range_chart
from domain.key_figures.yields import ParetoBar, first_pass_yield, pareto, rolled_throughput_yield
from domain.quality.inspection import Verdict
from eventlog.ledger import Ledger
from projections.figures.periods import Period
from projections.histories import Basis, as_of_or_now, known

# --- which inspections --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scope:
    """Of which inspections a figure is made; None does not restrict.

    Parameters
    ----------
    period : in which it was inspected
    assets, operation : of the run that the inspection belongs to
    part_number : of the part that was inspected
    """

    period: Period
    assets: tuple[str, ...] | None = None
    operation: str | None = None
    part_number: str | None = None

    def arguments(self, ledger: Ledger, as_of: int | None) -> tuple[Any, ...]:
        """Return the values of the first seven parameters of a statement."""
        return (
            ledger.ledger_id,
            as_of_or_now(as_of),
            self.period.start,
            self.period.end,
            None if self.assets is None else list(self.assets),
            self.operation,
            self.part_number,
        )


_IN_SCOPE: Final = f"""
    ($5::text[] is null and $6::text is null or exists (
        select from process_run r where {known("r")} and r.run_id = i.run_id
            and ($5 is null or r.asset_id = any($5)) and ($6 is null or r.operation = $6)
    ))
    and ($7::text is null or exists (
        select from part_number n where {known("n")} and n.unit_id = i.subject
            and n.part_number = $7
    ))
"""
"""Of rows ``i`` of inspections or characteristics, those of a `Scope`, in SQL."""

# --- yields -------------------------------------------------------------------------------

STEPS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class StepYield:
    """How the units that were inspected at an operation came through it.

    Parameters
    ----------
    operation : of the runs that the inspections belong to; None: they belong to no run
    units : inspected there for the first time in the period
    good_first_time : of those, found good then
    good_at_last : of those, found good by the last inspection there that is known
    first_pass_ratio : None of no units
    """

    operation: str | None
    units: int
    good_first_time: int
    good_at_last: int
    first_pass_ratio: float | None


@dataclass(frozen=True, slots=True)
class Yields:
    """Yields by operation, and through all of them.

    Parameters
    ----------
    rolled_ratio : product of the first-pass yields of all operations; None without one. It says
        something of a route only where these are its operations, one after another
    """

    steps: tuple[StepYield, ...]
    rolled_ratio: float | None
    basis: Basis


async def yields(ledger: Ledger, scope: Scope, *, as_of: int | None = None) -> Yields:
    """Return what came through the operations of `scope`, good at once and good at last.

    A unit belongs to the period, and to the asset, of its first inspection at an operation.

    Raises
    ------
    InvalidInput
        ``figure.too_many_steps``
    """
    rows = await ledger.pool.fetch(
        f"""
        with inspected as (
            select distinct i.subject from inspection i
            where {known("i")} and i.inspected_at >= $3 and i.inspected_at < $4 and {_IN_SCOPE}
        ), judged as (
            select r.operation, i.subject, i.inspected_at, i.origin, i.known_from,
                i.verdict = '{Verdict.GOOD.value}' as good, ({_IN_SCOPE}) as in_scope,
                row_number() over (
                    partition by r.operation, i.subject order by i.inspected_at, i.origin
                ) as place,
                row_number() over (
                    partition by r.operation, i.subject order by i.inspected_at desc, i.origin desc
                ) as place_from_last
            from inspected join inspection i on {known("i")} and i.subject = inspected.subject
            left join process_run r on {known("r")} and r.run_id = i.run_id
        ), unit as (
            select operation, subject,
                min(inspected_at) as first_at,
                bool_or(in_scope) filter (where place = 1) as in_scope,
                bool_or(good) filter (where place = 1) as good_first,
                bool_or(good) filter (where place_from_last = 1) as good_last,
                count(*) as inspections, min(known_from) as low, max(known_from) as high
            from judged group by operation, subject
        )
        select operation, count(*) as units,
            count(*) filter (where good_first) as good_first,
            count(*) filter (where good_last) as good_last,
            sum(inspections)::bigint as inspections, min(low) as low, max(high) as high
        from unit where in_scope and first_at >= $3 and first_at < $4
        group by operation order by operation nulls last limit {STEPS_MAX + 1}
        """,
        *scope.arguments(ledger, as_of),
    )
    _check_count("steps", len(rows), STEPS_MAX, "restrict assets, operation or part number")
    steps = tuple(
        StepYield(
            row["operation"],
            row["units"],
            row["good_first"],
            row["good_last"],
            first_pass_yield(row["units"], row["good_first"]),
        )
        for row in rows
    )
    ratios = [s.first_pass_ratio for s in steps if s.first_pass_ratio is not None]
    return Yields(
        steps,
        rolled_throughput_yield(ratios) if ratios else None,
        Basis.of(rows, sum(row["inspections"] for row in rows), as_of),
    )


# --- defects ------------------------------------------------------------------------------

DEFECT_CODES_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class DefectPareto:
    """Defects by code, the most frequent first; `total` counts those that `bars` leave out."""

    bars: tuple[ParetoBar, ...]
    total: int
    inspections: int
    defective_inspections: int
    basis: Basis


async def defect_pareto(
    ledger: Ledger, scope: Scope, *, first: int = 20, as_of: int | None = None
) -> DefectPareto:
    """Return what was found wrong in `scope`, and how often: once for each time it is named.

    Raises
    ------
    InvalidInput
        ``page.limit``
    """
    if not 1 <= first <= DEFECT_CODES_MAX:
        raise InvalidInput(
            "page.limit",
            f"first is {first}; it lies between 1 and {DEFECT_CODES_MAX}",
            value=first,
            limit=DEFECT_CODES_MAX,
        )
    rows = await ledger.pool.fetch(
        f"""
        with found as materialized (
            select i.known_from, i.verdict, i.defect_codes from inspection i
            where {known("i")} and i.inspected_at >= $3 and i.inspected_at < $4 and {_IN_SCOPE}
        ), counted as (
            select code, count(*) as n from found cross join unnest(defect_codes) as code
            group by code
        )
        select null as code, count(*) as n,
            count(*) filter (where verdict <> '{Verdict.GOOD.value}') as defective,
            min(known_from) as low, max(known_from) as high,
            (select coalesce(sum(n), 0)::bigint from counted) as total
        from found
        union all
        (select code, n, null, null, null, null from counted order by n desc, code limit $8)
        """,
        *scope.arguments(ledger, as_of),
        first,
    )
    (whole,) = (row for row in rows if row["code"] is None)
    counts: Mapping[str, int] = {row["code"]: row["n"] for row in rows if row["code"] is not None}
    return DefectPareto(
        tuple(pareto(counts, whole["total"])),
        whole["total"],
        whole["n"],
        whole["defective"],
        Basis(whole["n"], whole["low"], whole["high"], as_of),
    )


# --- characteristics ----------------------------------------------------------------------

MEASUREMENTS_MAX: Final = 20_000


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured of a characteristic, in the order of time, in `unit`.

    `lower_limit` and `upper_limit` are those of the last measurement; `limit_sets` says how many
    different pairs there were.
    """

    values: tuple[float, ...]
    times: tuple[datetime, ...]
    inspection_ids: tuple[str, ...]
    unit: str
    lower_limit: float | None
    upper_limit: float | None
    limit_sets: int
    basis: Basis


async def measurements(
    ledger: Ledger, characteristic: str, scope: Scope, *, as_of: int | None = None
) -> Measurements:
    """Return what was measured of `characteristic` in `scope`.

    Raises
    ------
    InvalidInput
        ``figure.too_many_values``, ``figure.too_few_values``, ``figure.units_mixed``
    """
    rows = await ledger.pool.fetch(
        f"""
        select i.measured, i.inspected_at, i.unit, i.lower_limit, i.upper_limit, i.known_from,
            v.inspection_id
        from inspection_characteristic i
        join inspection v on v.ledger_id = i.ledger_id and v.origin = i.origin
            and v.known_from = i.known_from
        where {known("i")} and i.inspected_at >= $3 and i.inspected_at < $4 and i.name = $8
            and {_IN_SCOPE}
        order by i.inspected_at, i.origin, i.ordinal limit {MEASUREMENTS_MAX + 1}
        """,
        *scope.arguments(ledger, as_of),
        characteristic,
    )
    _check_count("values", len(rows), MEASUREMENTS_MAX, "ask for a shorter period")
    if not rows:
        raise InvalidInput(
            "figure.too_few_values",
            f"nothing was measured of {characteristic!r:.80} in what was asked for",
            value=characteristic[:80],
            limit=1,
        )
    units = sorted({row["unit"] for row in rows})
    if len(units) > 1:
        raise InvalidInput(
            "figure.units_mixed",
            f"{characteristic!r:.80} was measured in {', '.join(units)}",
            hint="ask for a part number, operation or period with one of them",
            value=units,
        )
    last = rows[-1]
    positions = [row["known_from"] for row in rows]
    return Measurements(
        tuple(row["measured"] for row in rows),
        tuple(row["inspected_at"] for row in rows),
        tuple(row["inspection_id"] for row in rows),
        units[0],
        last["lower_limit"],
        last["upper_limit"],
        len({(row["lower_limit"], row["upper_limit"]) for row in rows}),
        Basis(len(rows), min(positions), max(positions), as_of),
    )


@dataclass(frozen=True, slots=True)
class ControlChart:
    """The chart of a characteristic, and the measurements that it is made of.

    Subgroup n is of the measurements from n times the size of a subgroup on.
    """

    chart: MeanRangeChart
    measurements: Measurements


async def control_chart(
    ledger: Ledger,
    characteristic: str,
    scope: Scope,
    *,
    subgroup_size: int,
    limits: ChartLimits | None = None,
    as_of: int | None = None,
) -> ControlChart:
    """Return means and ranges of subgroups of `characteristic`, and where they break a rule.

    Parameters
    ----------
    subgroup_size : so many measurements, one after another in time, make a subgroup; 2 to 25
    limits : of an earlier phase; without them those of the measurements themselves

    Raises
    ------
    InvalidInput
        as `measurements` and `mean_range_chart`
    """
    measured = await measurements(ledger, characteristic, scope, as_of=as_of)
    return ControlChart(mean_range_chart(measured.values, subgroup_size, limits), measured)


@dataclass(frozen=True, slots=True)
class CharacteristicCapability:
    """Cp and Cpk by the spread within subgroups, Pp and Ppk by that over all values.

    `violations` of the control chart: with any, `within` speaks of a process that is none.
    """

    within: Capability
    overall: Capability
    lower_limit: float | None
    upper_limit: float | None
    violations: int
    measurements: Measurements


async def characteristic_capability(
    ledger: Ledger,
    characteristic: str,
    scope: Scope,
    *,
    subgroup_size: int,
    as_of: int | None = None,
) -> CharacteristicCapability:
    """Return how well `characteristic` fits between its tolerance limits.

    Raises
    ------
    InvalidInput
        as `measurements`, `mean_range_chart` and `capability`; ``figure.limits_mixed`` where not
        all measurements had the same tolerance
    """
    found = await control_chart(
        ledger, characteristic, scope, subgroup_size=subgroup_size, as_of=as_of
    )
    measured = found.measurements
    if measured.limit_sets > 1:
        raise InvalidInput(
            "figure.limits_mixed",
            f"{characteristic!r:.80} had {measured.limit_sets} different tolerances",
            hint="ask for a part number or a period with one of them",
            value=measured.limit_sets,
            limit=1,
        )
    tolerance = (measured.lower_limit, measured.upper_limit)
    limits = found.chart.limits
    overall = overall_sigma(measured.values)
    mean = sum(measured.values) / len(measured.values)
    return CharacteristicCapability(
        capability(limits.mean_centre, limits.sigma, *tolerance),
        capability(mean, overall, *tolerance),
        *tolerance,
        len(found.chart.violations),
        measured,
    )


# --- bounds -------------------------------------------------------------------------------


def _check_count(what: str, count: int, count_max: int, hint: str) -> None:
    if count > count_max:
        raise InvalidInput(
            f"figure.too_many_{what}",
            f"there are more than {count_max} {what}",
            hint=hint,
            value=count,
            limit=count_max,
        )
