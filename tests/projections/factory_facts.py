"""Facts of a small factory for tests of projections, put into the log as they are.

No decider is asked: a projection has to be right for whatever the log holds, in whatever order.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from domain.events import encode_fact, type_of
from domain.maintenance.work_order import (
    Finding,
    Priority,
    WorkOrderCompleted,
    WorkOrderRequested,
    WorkOrderStarted,
)
from domain.material.process_run import ProcessRunCompleted, ProcessRunStarted
from domain.quality.inspection import Characteristic, InspectionRecorded, Judge, Verdict
from domain.records import RecordCorrected
from eventlog.envelope import new_fact
from eventlog.ledger import Ledger
from eventlog.reading import read_event, read_page
from projections.running.projection import Projection, wanted

MONDAY: Final = datetime(2026, 3, 2, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
HOUR_S: Final = 3_600.0


def hour(n: float) -> datetime:
    """Return the time `n` hours after Monday's midnight."""
    return MONDAY + n * HOUR


async def tell(
    ledger: Ledger, stream: str, fact: Any, at: datetime, actor: str = "user:mara"
) -> int:
    """Record `fact` and return its position."""
    appended = await ledger.append(
        [new_fact(stream, fact, event_id=uuid.uuid4(), occurred_at=at, actor=actor)]
    )
    return appended.position


async def tell_all(ledger: Ledger, *facts: tuple[str, Any, datetime]) -> list[int]:
    """Record `facts` (stream, fact, time) in one append; return their positions."""
    appended = await ledger.append(
        [
            new_fact(stream, fact, event_id=uuid.uuid4(), occurred_at=at, actor="user:mara")
            for stream, fact, at in facts
        ]
    )
    return [placed.position for placed in appended.placed]


async def correct(
    ledger: Ledger, position: int, fact: Any, at: datetime | None = None, actor: str = "user:otto"
) -> int:
    """Record that at `position` it was `fact`, or nothing at all; return the position of that."""
    event = await read_event(ledger, position)
    assert event is not None
    stored = None if fact is None else type_of(fact)
    correction = RecordCorrected(
        stream=event.stream,
        corrected_event_id=event.event_id,
        corrected_position=position,
        reason="it was written down wrong",
        replacement_type=None if stored is None else stored.name,
        replacement_version=None if stored is None else stored.schema_version,
        replacement=None if fact is None else encode_fact(fact).decode(),
    )
    return await tell(ledger, event.stream, correction, at or event.occurred_at, actor)


async def fold_wanted(
    ledger: Ledger, projections: Sequence[Projection], batch: int = 1000, *, after: int = 0
) -> None:
    """Fold the log beyond `after` in transactions of `batch` events, as the runner does."""
    while page := await read_page(ledger, after, limit=batch):
        for projection in projections:
            events = wanted(projection, page)
            if events:
                async with ledger.pool.acquire() as connection, connection.transaction():
                    await projection.fold(connection, ledger, events)
        after = page[-1].position


async def rows_of(ledger: Ledger, table: str, order: str) -> list[tuple[Any, ...]]:
    """Return the rows of `ledger` in a projection's table, without the ledger's number."""
    rows = await ledger.pool.fetch(
        f"select * from {table} where ledger_id = $1 order by {order}", ledger.ledger_id
    )
    return [tuple(value for key, value in row.items() if key != "ledger_id") for row in rows]


# --- maintenance --------------------------------------------------------------------------


def requested(
    name: str = "WO-1",
    asset: str = "mill-1",
    priority: Priority = Priority.NORMAL,
    cause: str | None = None,
    failure_mode: str | None = "bearing_wear",
) -> tuple[str, WorkOrderRequested]:
    return f"work-order:{name}", WorkOrderRequested(
        work_order_id=name,
        asset_id=asset,
        component_id=None,
        title=f"Look at {asset}",
        failure_mode=failure_mode,
        priority=priority,
        cause=cause,
    )


def started(name: str = "WO-1", *, down: bool = True) -> tuple[str, WorkOrderStarted]:
    return f"work-order:{name}", WorkOrderStarted(name, down)


def completed(
    name: str = "WO-1",
    finding: Finding = Finding.FAILURE_CONFIRMED,
    failed_at: datetime | None = None,
    cost: float | None = None,
    currency: str | None = None,
) -> tuple[str, WorkOrderCompleted]:
    return f"work-order:{name}", WorkOrderCompleted(
        work_order_id=name,
        finding=finding,
        failure_mode="bearing_wear" if finding is Finding.FAILURE_CONFIRMED else None,
        failed_at=failed_at,
        replacements=(),
        labour_s=1_800.0,
        cost=cost,
        currency=currency,
        note="done",
    )


# --- production and quality ---------------------------------------------------------------


def run_started(
    name: str, asset: str = "mill-1", operation: str = "milling"
) -> tuple[str, ProcessRunStarted]:
    return f"process-run:{name}", ProcessRunStarted(
        run_id=name,
        asset_id=asset,
        operation=operation,
        recipe=None,
        design=None,
        tool=None,
        operator=None,
        parameters=(),
    )


def run_completed(name: str, energy_j: float | None = None) -> tuple[str, ProcessRunCompleted]:
    return f"process-run:{name}", ProcessRunCompleted(name, (), energy_j)


def inspected(
    name: str,
    subject: str = "part:SN-1",
    verdict: Verdict = Verdict.GOOD,
    run: str | None = None,
    measured: Sequence[float] = (),
    characteristic: str = "bore",
    limits: tuple[float | None, float | None] = (9.9, 10.1),
    unit: str = "mm",
    defects: tuple[str, ...] = (),
) -> tuple[str, InspectionRecorded]:
    return f"inspection:{name}", InspectionRecorded(
        inspection_id=name,
        subject=subject,
        run_id=run,
        plan=None,
        characteristics=tuple(
            Characteristic(characteristic, 10.0, *limits, value, unit, None) for value in measured
        ),
        images=(),
        defect_codes=defects,
        verdict=verdict,
        judge=Judge.PERSON,
        model=None,
        flags=(),
    )
