"""Work orders one by one and in pages, as they stood at a position and at a moment.

What happened after the moment that is asked for is not told; what was planned counts as it is
known, as on the board.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import asyncpg

from domain.maintenance.work_order import Finding, Priority
from eventlog.ledger import Ledger
from projections.histories import KNOWN, as_of_or_now
from projections.maintenance.projection import URGENCY, WorkOrderState

AT_LAST: Final = datetime(9999, 12, 30, tzinfo=UTC)
"""A moment after everything."""


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """A work order as it stood; columns as in `maintenance.projection.WorkOrderVersion`.

    Parameters
    ----------
    steps : the states that it had been in, each with when it began
    worked_s : None where that is not known of the moment asked for
    position : of the last of its events that is told
    """

    work_order_id: str
    asset_id: str
    component_id: str | None
    title: str
    failure_mode: str | None
    priority: Priority
    state: WorkOrderState
    cause: str | None
    requested_at: datetime
    requested_by: str
    approved_by: str | None
    planned_start: datetime | None
    planned_end: datetime | None
    assignee: str | None
    started_at: datetime | None
    closed_at: datetime | None
    down_from: datetime | None
    down_to: datetime | None
    failure_at: datetime | None
    prevented: bool
    finding: Finding | None
    found_failure_mode: str | None
    worked_s: float | None
    labour_s: float | None
    cost: float | None
    currency: str | None
    replacements: int
    note: str | None
    steps: tuple[tuple[WorkOrderState, datetime], ...]
    position: int

    @property
    def urgency(self) -> int:
        """Place of its priority, the most urgent first."""
        return URGENCY.index(self.priority)


class WorkOrderOrder(StrEnum):
    """In which order work orders are listed."""

    NEWEST = "NEWEST"
    DUE = "DUE"
    PRIORITY = "PRIORITY"


WorkOrderKey = tuple[Any, ...]
"""Where a work order stands in an order: the values of its columns in `_KEYS`."""


@dataclass(frozen=True, slots=True)
class WorkOrderFilter:
    """Which work orders are wanted; what is empty or None does not restrict.

    Parameters
    ----------
    assets : None: all; an empty tuple: none
    failure_modes : that were feared or that were found
    requested_from, requested_to : from the one up to, but not with, the other
    """

    assets: tuple[str, ...] | None = None
    states: tuple[WorkOrderState, ...] = ()
    priorities: tuple[Priority, ...] = ()
    failure_modes: tuple[str, ...] = ()
    requested_by: tuple[str, ...] = ()
    assignees: tuple[str, ...] = ()
    requested_from: datetime | None = None
    requested_to: datetime | None = None


# Parameters: ledger, position, moment, and those of `_arguments`.
_STANDING: Final = f"""
    select *, states[(
        select count(*) from unnest(state_times) as entered where entered <= $3
    )] as state
    from work_order where {KNOWN} and requested_at <= $3
"""
_WANTED: Final = """
    ($4::text[] is null or asset_id = any($4))
    and ($5::text[] is null or state = any($5))
    and ($6::smallint[] is null or urgency = any($6))
    and ($7::text[] is null or failure_mode = any($7) or found_failure_mode = any($7))
    and ($8::text[] is null or requested_by = any($8))
    and ($9::text[] is null or assignee = any($9))
    and ($10::timestamptz is null or requested_at >= $10)
    and ($11::timestamptz is null or requested_at < $11)
"""
_DUE: Final = "coalesce(planned_start, '9999-12-30T00:00:00Z'::timestamptz)"
_KEYS: Final[Mapping[WorkOrderOrder, tuple[tuple[tuple[str, str], ...], str]]] = {
    # columns with their types, and which way they run
    WorkOrderOrder.NEWEST: ((("requested_at", "timestamptz"), ("work_order_id", "text")), "desc"),
    WorkOrderOrder.DUE: (((_DUE, "timestamptz"), ("work_order_id", "text")), "asc"),
    WorkOrderOrder.PRIORITY: (
        (("urgency", "smallint"), ("requested_at", "timestamptz"), ("work_order_id", "text")),
        "asc",
    ),
}


def key_of(order: WorkOrder, by: WorkOrderOrder) -> WorkOrderKey:
    """Return where `order` stands in an order."""
    match by:
        case WorkOrderOrder.NEWEST:
            return order.requested_at, order.work_order_id
        case WorkOrderOrder.DUE:
            return order.planned_start or AT_LAST, order.work_order_id
        case WorkOrderOrder.PRIORITY:
            return order.urgency, order.requested_at, order.work_order_id


async def find_work_orders(
    ledger: Ledger,
    work_order_ids: Sequence[str],
    *,
    as_of: int | None = None,
    valid_at: datetime | None = None,
) -> dict[str, WorkOrder]:
    """Return those of `work_order_ids` that had been requested, by their id."""
    rows = await ledger.pool.fetch(
        f"select * from ({_STANDING}) as standing where work_order_id = any($4::text[])",
        ledger.ledger_id,
        as_of_or_now(as_of),
        valid_at or AT_LAST,
        list(work_order_ids),
    )
    return {row["work_order_id"]: _work_order(row, valid_at) for row in rows}


async def list_work_orders(
    ledger: Ledger,
    wanted: WorkOrderFilter,
    by: WorkOrderOrder,
    *,
    first: int,
    after: WorkOrderKey | None = None,
    as_of: int | None = None,
    valid_at: datetime | None = None,
) -> list[WorkOrder]:
    """Return at most `first` work orders beyond the key `after`, in the order `by`."""
    rows = await ledger.pool.fetch(
        f"select * from ({_STANDING}) as standing where {_WANTED} "
        f"{_beyond(by, after)} order by {_ordered(by)} limit $12",
        *_arguments(ledger, wanted, as_of, valid_at),
        first,
        *(after or ()),
    )
    return [_work_order(row, valid_at) for row in rows]


async def work_orders_of(
    ledger: Ledger,
    asset_ids: Sequence[str],
    wanted: WorkOrderFilter,
    by: WorkOrderOrder,
    *,
    first: int,
    after: WorkOrderKey | None = None,
    as_of: int | None = None,
    valid_at: datetime | None = None,
) -> dict[str, list[WorkOrder]]:
    """Return what `list_work_orders` would for each of `asset_ids` alone, in one statement.

    An asset without one has an empty list; `wanted.assets` is not looked at.
    """
    named = tuple(dict.fromkeys(asset_ids))
    # No index has all orders of an asset: one pass over them is less than one for each asset.
    rows = await ledger.pool.fetch(
        f"""
        select * from (
            select *, row_number() over (partition by asset_id order by {_ordered(by)}) as place
            from ({_STANDING}) as standing where {_WANTED} {_beyond(by, after)}
        ) as ranked
        where place <= $12 order by asset_id, place
        """,
        *_arguments(ledger, replace(wanted, assets=named), as_of, valid_at),
        first,
        *(after or ()),
    )
    found: dict[str, list[WorkOrder]] = {asset_id: [] for asset_id in named}
    for row in rows:
        found[row["asset_id"]].append(_work_order(row, valid_at))
    return found


def _beyond(by: WorkOrderOrder, after: WorkOrderKey | None) -> str:
    if after is None:
        return ""
    columns, way = _KEYS[by]
    names = ", ".join(name for name, _ in columns)
    given = ", ".join(f"${n}::{of_type}" for n, (_, of_type) in enumerate(columns, 13))
    return f"and ({names}) {'>' if way == 'asc' else '<'} ({given})"


def _ordered(by: WorkOrderOrder) -> str:
    columns, way = _KEYS[by]
    return ", ".join(f"{name} {way}" for name, _ in columns)


def _arguments(
    ledger: Ledger, wanted: WorkOrderFilter, as_of: int | None, valid_at: datetime | None
) -> tuple[Any, ...]:
    return (
        ledger.ledger_id,
        as_of_or_now(as_of),
        valid_at or AT_LAST,
        None if wanted.assets is None else list(wanted.assets),
        [state.value for state in wanted.states] or None,
        [URGENCY.index(priority) for priority in wanted.priorities] or None,
        list(wanted.failure_modes) or None,
        list(wanted.requested_by) or None,
        list(wanted.assignees) or None,
        wanted.requested_from,
        wanted.requested_to,
    )


def _work_order(row: asyncpg.Record, valid_at: datetime | None) -> WorkOrder:
    until = valid_at or AT_LAST

    def then(name: str) -> Any:
        """Return a time, unless it lies beyond the moment."""
        return row[name] if row[name] is not None and row[name] <= until else None

    closed_at = then("closed_at")
    told = dict(row) if closed_at is not None or valid_at is None else {}
    steps = tuple(
        (WorkOrderState(state), at)
        for state, at in zip(row["states"], row["state_times"], strict=True)
        if at <= until
    )
    approved = any(state is WorkOrderState.APPROVED for state, _ in steps)
    return WorkOrder(
        work_order_id=row["work_order_id"],
        asset_id=row["asset_id"],
        component_id=row["component_id"],
        title=row["title"],
        failure_mode=row["failure_mode"],
        priority=URGENCY[row["urgency"]],
        state=WorkOrderState(row["state"]),
        cause=row["cause"],
        requested_at=row["requested_at"],
        requested_by=row["requested_by"],
        approved_by=row["approved_by"] if approved else None,
        planned_start=row["planned_start"],
        planned_end=row["planned_end"],
        assignee=row["assignee"],
        started_at=then("started_at"),
        closed_at=closed_at,
        down_from=then("down_from"),
        down_to=then("down_to"),
        failure_at=told.get("failure_at"),
        prevented=told.get("prevented", False),
        finding=None if told.get("finding") is None else Finding(told["finding"]),
        found_failure_mode=told.get("found_failure_mode"),
        worked_s=told.get("worked_s"),
        labour_s=told.get("labour_s"),
        cost=told.get("cost"),
        currency=told.get("currency"),
        replacements=told.get("replacements", 0),
        note=told.get("note"),
        steps=steps,
        position=row["known_from"],
    )
