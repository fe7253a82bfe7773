"""Process runs one by one and in pages, with what went through them and their parameters.

Rows are those of `projections.production.projection`; parameters are read from the log, for no
figure is made of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import asyncpg

from domain.material.process_run import (
    ActualParameter,
    ProcessRunAborted,
    ProcessRunCompleted,
    ProcessRunStarted,
    SetParameter,
    process_run_stream,
)
from eventlog.ledger import Ledger
from eventlog.objects import OBJECTS_MAX, load_objects
from projections.histories import KNOWN, as_of_or_now, known
from projections.maintenance.work_orders import AT_LAST
from projections.production.projection import How


class RunState(StrEnum):
    """How far a run is."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    ABORTED = "ABORTED"


@dataclass(frozen=True, slots=True)
class ProcessRun:
    """A run as it stood; `position` is that of the last of its events that is told."""

    run_id: str
    asset_id: str
    operation: str
    recipe: str | None
    design: str | None
    tool: str | None
    operator: str | None
    started_at: datetime
    ended_at: datetime | None
    state: RunState
    energy_j: float | None
    reason: str | None
    position: int


RunKey = tuple[datetime, str]
"""Start and name: the newest first."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are wanted; what is empty or None does not restrict.

    Parameters
    ----------
    assets : None: all; an empty tuple: none
    part_numbers : of parts that went through them
    units : streams of parts or lots that went through them
    running_from, running_to : under way at some time from the one up to, but not with, the other
    """

    assets: tuple[str, ...] | None = None
    operations: tuple[str, ...] = ()
    states: tuple[RunState, ...] = ()
    part_numbers: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    running_from: datetime | None = None
    running_to: datetime | None = None


# Parameters: ledger, position, moment, and those of `_arguments`.
_STANDING: Final = f"""
    select *, case when coalesce(ended_at, 'infinity') <= $3 then outcome else 'RUNNING' end
        as state
    from process_run where {KNOWN} and started_at <= $3
"""
_OF_PART_NUMBERS: Final = f"""
    r.run_id in (
        select u.run_id from part_number n join run_unit u on {known("u")} and u.unit_id = n.unit_id
        where {known("n")} and n.part_number = any($7::text[]) and u.occurred_at <= $3
    )
"""
_OF_UNITS: Final = f"""
    r.run_id in (
        select u.run_id from run_unit u
        where {known("u")} and u.unit_id = any($8::text[]) and u.occurred_at <= $3
    )
"""


def _wanted(wanted: RunFilter) -> str:
    """Return the conditions of `wanted`, in SQL.

    What went through runs is asked for only where it restricts, so that the plan can begin there.
    """
    return f"""
        ($4::text[] is null or asset_id = any($4))
        and ($5::text[] is null or operation = any($5))
        and ($6::text[] is null or state = any($6))
        and {_OF_PART_NUMBERS if wanted.part_numbers else "$7::text[] is null"}
        and {_OF_UNITS if wanted.units else "$8::text[] is null"}
        and ($9::timestamptz is null or coalesce(ended_at, 'infinity') >= $9)
        and ($10::timestamptz is null or started_at < $10)
        and ($12::timestamptz is null or (started_at, run_id) < ($12, $13::text))
    """


_PAGE: Final = "order by started_at desc, run_id desc limit $11"


async def find_runs(
    ledger: Ledger,
    run_ids: Sequence[str],
    *,
    as_of: int | None = None,
    valid_at: datetime | None = None,
) -> dict[str, ProcessRun]:
    """Return those of `run_ids` that had begun, by their id."""
    rows = await ledger.pool.fetch(
        f"select * from ({_STANDING}) as r where run_id = any($4::text[])",
        ledger.ledger_id,
        as_of_or_now(as_of),
        valid_at or AT_LAST,
        list(run_ids),
    )
    return {row["run_id"]: _run(row) for row in rows}


async def list_runs(
    ledger: Ledger,
    wanted: RunFilter,
    *,
    first: int,
    after: RunKey | None = None,
    as_of: int | None = None,
    valid_at: datetime | None = None,
) -> list[ProcessRun]:
    """Return at most `first` runs beyond the key `after`, the newest first."""
    rows = await ledger.pool.fetch(
        f"select * from ({_STANDING}) as r where {_wanted(wanted)} {_PAGE}",
        *_arguments(ledger, wanted, as_of, valid_at, first, after),
    )
    return [_run(row) for row in rows]


async def runs_of(
    ledger: Ledger,
    asset_ids: Sequence[str],
    wanted: RunFilter,
    *,
    first: int,
    after: RunKey | None = None,
    as_of: int | None = None,
    valid_at: datetime | None = None,
) -> dict[str, list[ProcessRun]]:
    """Return what `list_runs` would for each of `asset_ids` alone, in one statement.

    An asset without one has an empty list; `wanted.assets` is not looked at.
    """
    named = list(dict.fromkeys(asset_ids))
    rows = await ledger.pool.fetch(
        f"""
        select found.* from unnest($14::text[]) as of(asset_id) cross join lateral (
            select * from ({_STANDING}) as r
            where r.asset_id = of.asset_id and {_wanted(wanted)} {_PAGE}
        ) as found
        """,
        *_arguments(ledger, replace(wanted, assets=None), as_of, valid_at, first, after),
        named,
    )
    found: dict[str, list[ProcessRun]] = {asset_id: [] for asset_id in named}
    for row in rows:
        found[row["asset_id"]].append(_run(row))
    return found


def _arguments(
    ledger: Ledger,
    wanted: RunFilter,
    as_of: int | None,
    valid_at: datetime | None,
    first: int,
    after: RunKey | None,
) -> tuple[Any, ...]:
    return (
        ledger.ledger_id,
        as_of_or_now(as_of),
        valid_at or AT_LAST,
        None if wanted.assets is None else list(wanted.assets),
        list(wanted.operations) or None,
        [state.value for state in wanted.states] or None,
        list(wanted.part_numbers) or None,
        list(wanted.units) or None,
        wanted.running_from,
        wanted.running_to,
        first,
        *(after or (None, None)),
    )


def _run(row: asyncpg.Record) -> ProcessRun:
    state = RunState(row["state"])
    ended = state is not RunState.RUNNING
    return ProcessRun(
        run_id=row["run_id"],
        asset_id=row["asset_id"],
        operation=row["operation"],
        recipe=row["recipe"],
        design=row["design"],
        tool=row["tool"],
        operator=row["operator"],
        started_at=row["started_at"],
        ended_at=row["ended_at"] if ended else None,
        state=state,
        energy_j=row["energy_j"] if ended else None,
        reason=row["reason"] if ended else None,
        position=row["known_from"],
    )


# --- what went through them ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunUnit:
    """A part or lot, by its stream, that went through a run; `origin`: position that says so."""

    run_id: str
    unit_id: str
    how: How
    quantity: float
    unit: str
    occurred_at: datetime
    origin: int


async def units_of_runs(
    ledger: Ledger,
    run_ids: Sequence[str],
    *,
    first: int,
    after: int = 0,
    as_of: int | None = None,
    valid_at: datetime | None = None,
) -> dict[str, list[RunUnit]]:
    """Return at most `first` of what went through each run, in the order of the log.

    Beyond the position `after`; one statement for all runs.
    """
    named = list(dict.fromkeys(run_ids))
    rows = await ledger.pool.fetch(
        f"""
        select found.* from unnest($4::text[]) as of(run_id) cross join lateral (
            select run_id, unit_id, how, quantity, unit, occurred_at, origin from run_unit
            where {KNOWN} and occurred_at <= $3 and run_unit.run_id = of.run_id and origin > $5
            order by origin limit $6
        ) as found
        """,
        ledger.ledger_id,
        as_of_or_now(as_of),
        valid_at or AT_LAST,
        named,
        after,
        first,
    )
    found: dict[str, list[RunUnit]] = {run_id: [] for run_id in named}
    for row in rows:
        unit = RunUnit(**{**dict(row), "how": How(row["how"])})
        found[unit.run_id].append(unit)
    return found


# --- their parameters ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunParameters:
    """What a run was set to and what it was, and codes of what did not fit when it was told."""

    set: tuple[SetParameter, ...] = ()
    actual: tuple[ActualParameter, ...] = ()
    flags: tuple[str, ...] = ()


async def parameters_of_runs(
    ledger: Ledger,
    run_ids: Sequence[str],
    *,
    as_of: int | None = None,
    valid_at: datetime | None = None,
) -> dict[str, RunParameters]:
    """Return the parameters of runs by their id, corrections applied; 500 runs a statement.

    Raises
    ------
    InvalidInput
        ``objects.too_many_events``
    """
    named = list(dict.fromkeys(run_ids))
    found: dict[str, RunParameters] = {}
    for at in range(0, len(named), OBJECTS_MAX):
        streams = [process_run_stream(run_id) for run_id in named[at : at + OBJECTS_MAX]]
        loaded = await load_objects(ledger, streams, position=as_of, valid_at=valid_at)
        for run in loaded.values():
            found[run.key] = _parameters([entry.fact for entry in run.entries])
    return found


def _parameters(facts: Iterable[Any]) -> RunParameters:
    found = RunParameters()
    for fact in facts:
        match fact:
            case ProcessRunStarted():
                found = RunParameters(fact.parameters, found.actual, fact.flags)
            case ProcessRunCompleted():
                flags = tuple(dict.fromkeys((*found.flags, *fact.flags)))
                found = RunParameters(found.set, fact.parameters, flags)
            case ProcessRunAborted():
                flags = tuple(dict.fromkeys((*found.flags, *fact.flags)))
                found = RunParameters(found.set, found.actual, flags)
    return found
