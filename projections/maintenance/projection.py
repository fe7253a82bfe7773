"""Work orders as they stood: requested, approved, planned, worked on, closed, and with what found.

One row for each event of a work order, which counts until its next one. Facts are placed by when
they were true, so a start that is reported late begins when it was, and a correction makes anew
what follows from it; the row that was known before stays for whoever asks as of then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import ClassVar, Final

import asyncpg

from domain.errors import InvalidInput
from domain.maintenance.work_order import (
    Finding,
    Priority,
    WorkOrderApproved,
    WorkOrderCancelled,
    WorkOrderCompleted,
    WorkOrderPaused,
    WorkOrderRequested,
    WorkOrderResumed,
    WorkOrderScheduled,
    WorkOrderStarted,
)
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf
from projections.histories import (
    KNOWN,
    WITH_CORRECTIONS,
    Basis,
    History,
    Version,
    as_of_or_now,
    histories,
    write_versions,
)

URGENCY: Final = (Priority.EMERGENCY, Priority.HIGH, Priority.NORMAL, Priority.LOW)
"""Priorities, the most urgent first; a row holds the place of its own."""


class WorkOrderState(StrEnum):
    """How far a work order is."""

    REQUESTED = "REQUESTED"
    APPROVED = "APPROVED"
    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN_PROGRESS"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"


@dataclass(slots=True)
class WorkOrderVersion:
    """How a work order stands, as far as its events tell; fields are the columns of its row.

    Parameters
    ----------
    urgency : place of its priority in `URGENCY`
    down_from, down_to : for how long the asset stood still; from the failure on, where it is
        known when that was, else from the start of the work. A pause does not end it
    failure_at : when the failure was, if one was confirmed and not `prevented`
    prevented : a prediction led to it, and the failure was confirmed before it had happened
    worked_s : time between its starts and its rests, s
    states, state_times : every state, and from when on it was in it
    """

    asset_id: str | None = None
    component_id: str | None = None
    title: str | None = None
    failure_mode: str | None = None
    urgency: int | None = None
    cause: str | None = None
    requested_at: datetime | None = None
    requested_by: str | None = None
    approved_by: str | None = None
    planned_start: datetime | None = None
    planned_end: datetime | None = None
    assignee: str | None = None
    started_at: datetime | None = None
    closed_at: datetime | None = None
    down_from: datetime | None = None
    down_to: datetime | None = None
    failure_at: datetime | None = None
    prevented: bool = False
    finding: str | None = None
    found_failure_mode: str | None = None
    worked_s: float = 0.0
    labour_s: float | None = None
    cost: float | None = None
    currency: str | None = None
    replacements: int = 0
    note: str | None = None
    states: tuple[str, ...] = ()
    state_times: tuple[datetime, ...] = ()

    def enter(self, state: WorkOrderState, at: datetime) -> None:
        """Be in `state` from `at` on."""
        self.states += (state.value,)
        self.state_times += (at,)


COLUMNS: Final = tuple(field.name for field in fields(WorkOrderVersion))
_VALUES: Final = attrgetter(*COLUMNS)


# --- fold ---------------------------------------------------------------------------------


class MaintenanceProjection:
    """Folds work orders into one row an event."""

    name: ClassVar[str] = "maintenance"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = (
        "work_order.requested",
        "work_order.approved",
        "work_order.scheduled",
        "work_order.started",
        "work_order.paused",
        "work_order.resumed",
        "work_order.completed",
        "work_order.cancelled",
        *WITH_CORRECTIONS,
    )
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS
    tables: ClassVar[tuple[str, ...]] = ("work_order",)
    query_indexes: ClassVar[tuple[str, ...]] = (
        "work_order_open",
        "work_order_closed",
        "work_order_asset",
    )
    categories: ClassVar[frozenset[str]] = frozenset(("work-order",))

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Change the rows by `events`."""
        if not events:
            return
        known = await histories(
            connection, ledger, events, types=self.types or (), categories=self.categories
        )
        versions = [
            Version(
                said.stream.partition(":")[2],
                said.known_from,
                history.begun_before,
                _VALUES(work_order_of(history)),
            )
            for said, history in known
        ]
        columns = ("work_order_id", *COLUMNS)
        await write_versions(connection, ledger.ledger_id, "work_order", columns, versions)


def work_order_of(history: History) -> WorkOrderVersion:
    """Return how a work order stands by all that is known of it. What is closed stays closed."""
    order = WorkOrderVersion()
    working_since: datetime | None = None
    asset_down = False
    failed_at: datetime | None = None
    for said in history.in_order():
        at = said.occurred_at
        if order.closed_at is not None:
            break
        match said.value:
            case WorkOrderRequested() as requested if order.requested_at is None:
                order.asset_id = requested.asset_id
                order.component_id = requested.component_id
                order.title = requested.title
                order.failure_mode = requested.failure_mode
                order.urgency = URGENCY.index(requested.priority)
                order.cause = requested.cause
                order.requested_at, order.requested_by = at, said.actor
                order.enter(WorkOrderState.REQUESTED, at)
            case WorkOrderApproved():
                order.approved_by = said.actor
                order.enter(WorkOrderState.APPROVED, at)
            case WorkOrderScheduled() as scheduled:
                order.planned_start, order.planned_end = (
                    scheduled.planned_start,
                    scheduled.planned_end,
                )
                order.assignee = scheduled.assignee
                if order.started_at is None:  # a new plan does not stop the work
                    order.enter(WorkOrderState.SCHEDULED, at)
            case WorkOrderStarted() as started:
                order.started_at = order.started_at or at
                working_since = working_since or at
                if started.asset_down and not asset_down:
                    asset_down, order.down_from = True, at
                order.enter(WorkOrderState.IN_PROGRESS, at)
            case WorkOrderResumed():
                working_since = working_since or at
                order.enter(WorkOrderState.IN_PROGRESS, at)
            case WorkOrderPaused():
                order.worked_s += _seconds(working_since, at)
                working_since = None
                order.enter(WorkOrderState.PAUSED, at)
            case WorkOrderCompleted() as completed:
                failed_at = completed.failed_at
                _complete(order, completed)
                order.closed_at = at
                order.enter(WorkOrderState.COMPLETED, at)
            case WorkOrderCancelled() as cancelled:
                order.note = cancelled.reason
                order.closed_at = at
                order.enter(WorkOrderState.CANCELLED, at)
    if order.closed_at is not None:
        order.worked_s += _seconds(working_since, order.closed_at)
        order.down_to = order.closed_at if asset_down else None
        _place_failure(order, failed_at)
    return order


def _complete(order: WorkOrderVersion, completed: WorkOrderCompleted) -> None:
    order.finding = completed.finding.value
    order.found_failure_mode = completed.failure_mode
    order.labour_s = completed.labour_s
    order.cost, order.currency = completed.cost, completed.currency
    order.replacements = len(completed.replacements)
    order.note = completed.note


def _place_failure(order: WorkOrderVersion, failed_at: datetime | None) -> None:
    """Say when the confirmed failure was, or that it was prevented."""
    if order.finding != Finding.FAILURE_CONFIRMED or order.closed_at is None:
        return
    order.prevented = failed_at is None and (order.cause or "").startswith("prediction:")
    if order.prevented:
        return
    order.failure_at = min(failed_at or order.started_at or order.closed_at, order.closed_at)
    if order.down_from is not None:
        order.down_from = min(order.down_from, order.failure_at)


def _seconds(since: datetime | None, until: datetime) -> float:
    return 0.0 if since is None else (until - since).total_seconds()


# --- queries ------------------------------------------------------------------------------

BOARD_ENTRIES_MAX: Final = 500
BOARD_ASSETS_MAX: Final = 100
"""Assets of which a board tells the backlog: those with the most open work orders."""

AGE_BOUNDS_S: Final = (86_400.0, 7 * 86_400.0, 30 * 86_400.0, 90 * 86_400.0)


@dataclass(frozen=True, slots=True)
class BoardEntry:
    """An open work order. `state` and `age_s` are those of the moment that was asked for."""

    work_order_id: str
    asset_id: str
    component_id: str | None
    title: str
    failure_mode: str | None
    priority: Priority
    state: WorkOrderState
    requested_at: datetime
    requested_by: str
    age_s: float
    cause: str | None
    approved_by: str | None
    planned_start: datetime | None
    planned_end: datetime | None
    assignee: str | None
    started_at: datetime | None
    asset_down_since: datetime | None
    position: int

    @property
    def cursor(self) -> BoardCursor:
        """Where it stands in the backlog, to go on after it."""
        return URGENCY.index(self.priority), self.requested_at, self.work_order_id


BoardCursor = tuple[int, datetime, str]
"""Urgency, time of the request, and name: the order of the backlog."""


@dataclass(frozen=True, slots=True)
class AssetBacklog:
    """Open work orders of one asset, and the oldest request among them."""

    asset_id: str
    open: int
    oldest_requested_at: datetime


@dataclass(frozen=True, slots=True)
class MaintenanceBoard:
    """What is open, the most urgent first and of the same urgency the oldest.

    Parameters
    ----------
    entries : the page that was asked for; the counts are of everything
    open : so many work orders
    overdue : of those, planned to have begun and not begun
    assets_down : assets that stand still for one
    by_state, by_priority : how many; without those of which there are none
    by_age : how many are at most so old, s, and older than the bound before; None: the rest
    by_asset : those of `BOARD_ASSETS_MAX` assets, the most first
    """

    entries: tuple[BoardEntry, ...]
    open: int
    overdue: int
    assets_down: int
    by_state: dict[WorkOrderState, int]
    by_priority: dict[Priority, int]
    by_age: tuple[tuple[float | None, int], ...]
    by_asset: tuple[AssetBacklog, ...]
    basis: Basis


# A state's time is at or before $3; what is planned counts as it is known.
_OPEN: Final = f"""
    select *, states[(
        select count(*) from unnest(state_times) as entered where entered <= $3
    )] as state
    from (
        select * from work_order where {KNOWN} and closed_at is null
        union all
        select * from work_order where {KNOWN} and closed_at > $3
    ) as known
    where requested_at <= $3
        and ($4::text[] is null or asset_id = any($4))
        and ($5::smallint[] is null or urgency = any($5))
"""


async def maintenance_board(
    ledger: Ledger,
    *,
    at: datetime,
    assets: Sequence[str] | None = None,
    priorities: Sequence[Priority] = (),
    states: Sequence[WorkOrderState] = (),
    as_of: int | None = None,
    first: int = 100,
    after: BoardCursor | None = None,
) -> MaintenanceBoard:
    """Return the work orders that were open at `at`, by what was known as of a position.

    Parameters
    ----------
    at : the moment: now, or one in the past
    assets, priorities, states : only those; None and empty: all
    as_of : position of the log; None: all that is known
    first, after : the page of entries: so many, after that cursor

    Raises
    ------
    InvalidInput
        ``page.limit``
    """
    if not 1 <= first <= BOARD_ENTRIES_MAX:
        raise InvalidInput(
            "page.limit",
            f"first is {first}; it lies between 1 and {BOARD_ENTRIES_MAX}",
            value=first,
            limit=BOARD_ENTRIES_MAX,
        )
    wanted = (
        ledger.ledger_id,
        as_of_or_now(as_of),
        at,
        None if assets is None else list(assets),
        [URGENCY.index(priority) for priority in priorities] or None,
        [state.value for state in states] or None,
    )
    in_state = "where ($6::text[] is null or state = any($6))"
    async with (
        ledger.pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        # That of all rows only the last few are open and still count is more than statistics tell.
        await connection.execute(
            "set local enable_seqscan = off; set local max_parallel_workers_per_gather = 0"
        )
        rows = await connection.fetch(
            f"""
            select * from ({_OPEN}) as open {in_state}
                and ($7::smallint is null
                    or (urgency, requested_at, work_order_id) > ($7, $8::timestamptz, $9::text))
            order by urgency, requested_at, work_order_id limit $10
            """,
            *wanted,
            *(after or (None, None, None)),
            first,
        )
        counts = await connection.fetch(
            f"""
            with open as materialized (select * from ({_OPEN}) as open {in_state})
            select 'total' as what, null as name, count(*) as n, min(known_from) as low,
                max(known_from) as high, null::timestamptz as oldest from open
            union all select 'overdue', null, count(*), null, null, null from open
                where planned_start < $3 and (started_at is null or started_at > $3)
            union all select 'down', null, count(distinct asset_id), null, null, null from open
                where down_from <= $3 and (down_to is null or down_to > $3)
            union all select 'state', state, count(*), null, null, null from open group by state
            union all select 'priority', urgency::text, count(*), null, null, null from open
                group by urgency
            union all select 'age', bucket::text, count(*), null, null, null from (
                select width_bucket(extract(epoch from $3 - requested_at)::float8, $7::float8[])
                    as bucket from open
            ) as aged group by bucket
            union all (select 'asset', asset_id, count(*), null, null, min(requested_at) from open
                group by asset_id order by count(*) desc, asset_id limit {BOARD_ASSETS_MAX})
            """,
            *wanted,
            # An age that is equal to a bound is at most so old.
            [bound + 1e-6 for bound in AGE_BOUNDS_S],
        )
    return _board(tuple(_entry(row, at) for row in rows), counts, as_of)


def _entry(row: asyncpg.Record, at: datetime) -> BoardEntry:
    started_at = row["started_at"]
    down_from = row["down_from"]
    return BoardEntry(
        work_order_id=row["work_order_id"],
        asset_id=row["asset_id"],
        component_id=row["component_id"],
        title=row["title"],
        failure_mode=row["failure_mode"],
        priority=URGENCY[row["urgency"]],
        state=WorkOrderState(row["state"]),
        requested_at=row["requested_at"],
        requested_by=row["requested_by"],
        age_s=(at - row["requested_at"]) / timedelta(seconds=1),
        cause=row["cause"],
        approved_by=row["approved_by"],
        planned_start=row["planned_start"],
        planned_end=row["planned_end"],
        assignee=row["assignee"],
        started_at=started_at if started_at is not None and started_at <= at else None,
        asset_down_since=down_from if down_from is not None and down_from <= at else None,
        position=row["known_from"],
    )


def _board(
    entries: tuple[BoardEntry, ...], counts: Sequence[asyncpg.Record], as_of: int | None
) -> MaintenanceBoard:
    def named(what: str) -> dict[str, int]:
        return {row["name"]: row["n"] for row in counts if row["what"] == what}

    (total,) = (row for row in counts if row["what"] == "total")
    ages = named("age")
    priorities, states = named("priority"), named("state")
    return MaintenanceBoard(
        entries=entries,
        open=total["n"],
        overdue=next(row["n"] for row in counts if row["what"] == "overdue"),
        assets_down=next(row["n"] for row in counts if row["what"] == "down"),
        by_state={s: states[s.value] for s in WorkOrderState if s.value in states},
        by_priority={p: priorities[str(n)] for n, p in enumerate(URGENCY) if str(n) in priorities},
        by_age=tuple((bound, ages.get(str(n), 0)) for n, bound in enumerate((*AGE_BOUNDS_S, None))),
        by_asset=tuple(
            sorted(
                (
                    AssetBacklog(row["name"], row["n"], row["oldest"])
                    for row in counts
                    if row["what"] == "asset"
                ),
                key=lambda backlog: (-backlog.open, backlog.asset_id),
            )
        ),
        basis=Basis(total["n"], total["low"], total["high"], as_of),
    )
