"""Process runs and what went through them: when, on which asset, with how much energy.

One row for each event of a run, which counts until its next one. What went through a run, part
numbers and scrapped parts have one row a fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import IntEnum
from operator import attrgetter
from typing import Any, ClassVar, Final

from domain.material.lot import LotCreated, lot_stream
from domain.material.part import (
    PartCreated,
    PartProcessed,
    PartReceived,
    PartReworked,
    PartScrapped,
    part_stream,
)
from domain.material.process_run import ProcessRunAborted, ProcessRunCompleted, ProcessRunStarted
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf
from projections.histories import (
    WITH_CORRECTIONS,
    History,
    Stated,
    Version,
    close_corrected,
    histories,
    stated,
    write_facts,
    write_versions,
)

PART_UNIT: Final = "part"
"""What parts are counted in; lots are in the unit of their quantity."""

COMPLETED: Final = "COMPLETED"
ABORTED: Final = "ABORTED"


class How(IntEnum):
    """What a run did to a unit; the numbers are stored."""

    PRODUCED = 1
    PROCESSED = 2
    REWORKED = 3


@dataclass(slots=True)
class RunVersion:
    """How a run stands, as far as its events tell; fields are the columns of its row."""

    asset_id: str | None = None
    operation: str | None = None
    recipe: str | None = None
    design: str | None = None
    tool: str | None = None
    operator: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str | None = None
    energy_j: float | None = None
    reason: str | None = None


COLUMNS: Final = tuple(field.name for field in fields(RunVersion))
_VALUES: Final = attrgetter(*COLUMNS)
RUN_TYPES: Final = (
    "process_run.started",
    "process_run.completed",
    "process_run.aborted",
    *WITH_CORRECTIONS,
)
_RUNS: Final = frozenset(("process-run",))
_UNITS: Final = frozenset(("part", "lot"))


class ProductionProjection:
    """Folds runs, and what went through them."""

    name: ClassVar[str] = "production"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = (
        *RUN_TYPES,
        "part.created",
        "part.received",
        "part.processed",
        "part.reworked",
        "part.scrapped",
        "lot.created",
    )
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS
    tables: ClassVar[tuple[str, ...]] = ("process_run", "run_unit", "part_number", "part_scrapped")
    query_indexes: ClassVar[tuple[str, ...]] = (
        "process_run_time",
        "run_unit_run",
        "run_unit_unit",
        "part_number_unit",
        "part_scrapped_time",
    )

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Change the rows by `events`."""
        if not events:
            return
        runs = [e for e in events if e.stream.startswith("process-run:")]
        if runs:
            await _fold_runs(connection, ledger, runs)
        said = list(stated(events, _UNITS))
        if said:
            await _fold_units(connection, ledger.ledger_id, said)


async def _fold_runs(
    connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
) -> None:
    known = await histories(connection, ledger, events, types=RUN_TYPES, categories=_RUNS)
    versions = []
    for said, history in known:
        run = run_of(history)
        name = said.stream.partition(":")[2]
        versions.append(Version(name, said.known_from, history.begun_before, _VALUES(run)))
    columns = ("run_id", *COLUMNS)
    await write_versions(connection, ledger.ledger_id, "process_run", columns, versions)


def run_of(history: History) -> RunVersion:
    """Return how a run stands by all that is known of it. What has ended stays so."""
    run = RunVersion()
    for said in history.in_order():
        match said.value:
            case ProcessRunStarted() as started if run.started_at is None:
                run.asset_id, run.operation = started.asset_id, started.operation
                run.recipe, run.design = started.recipe, started.design
                run.tool, run.operator = started.tool, started.operator
                run.started_at = said.occurred_at
            case ProcessRunCompleted() as completed if run.ended_at is None:
                run.ended_at, run.outcome = said.occurred_at, COMPLETED
                run.energy_j = completed.energy_j
            case ProcessRunAborted() as aborted if run.ended_at is None:
                run.ended_at, run.outcome = said.occurred_at, ABORTED
                run.reason = aborted.reason
    return run


async def _fold_units(connection: Connection, ledger_id: int, said: Sequence[Stated]) -> None:
    units: list[tuple[Stated, tuple[Any, ...]]] = []
    numbers: list[tuple[Stated, tuple[Any, ...]]] = []
    scrapped: list[tuple[Stated, tuple[Any, ...]]] = []
    for s in said:
        match s.value:
            case PartCreated() as created:
                unit = part_stream(created.part_id)
                numbers.append((s, (unit, created.part_number)))
                if created.run_id is not None:
                    units.append(_part_run(s, unit, created.run_id, How.PRODUCED))
            case PartReceived() as received:
                numbers.append((s, (part_stream(received.part_id), received.part_number)))
            case PartProcessed() as processed:
                unit = part_stream(processed.part_id)
                units.append(_part_run(s, unit, processed.run_id, How.PROCESSED))
            case PartReworked() as reworked:
                unit = part_stream(reworked.part_id)
                units.append(_part_run(s, unit, reworked.run_id, How.REWORKED))
            case PartScrapped() as gone:
                scrapped.append((s, (s.occurred_at, part_stream(gone.part_id))))
            case LotCreated() as lot if lot.run_id is not None:
                values = (
                    s.occurred_at,
                    lot.quantity,
                    How.PRODUCED,
                    lot.run_id,
                    lot_stream(lot.lot_id),
                    lot.unit,
                )
                units.append((s, values))
    columns = ("occurred_at", "quantity", "how", "run_id", "unit_id", "unit")
    await write_facts(connection, ledger_id, "run_unit", columns, units)
    await write_facts(connection, ledger_id, "part_number", ("unit_id", "part_number"), numbers)
    await write_facts(connection, ledger_id, "part_scrapped", ("occurred_at", "unit_id"), scrapped)
    await close_corrected(connection, ledger_id, ("run_unit", "part_number", "part_scrapped"), said)


def _part_run(s: Stated, unit: str, run_id: str, how: How) -> tuple[Stated, tuple[Any, ...]]:
    return s, (s.occurred_at, 1.0, how, run_id, unit, PART_UNIT)
