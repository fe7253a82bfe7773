"""Inspections: verdicts, defects and measured characteristics.

One row a fact; a correction closes it and adds its own. Of which asset, operation and part number
an inspection is, is looked up in the rows of `production` when it is asked, so that it does not
matter which came first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final

from domain.quality.inspection import InspectionRecorded
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf
from projections.histories import (
    KNOWN,
    WITH_CORRECTIONS,
    Stated,
    as_of_or_now,
    close_corrected,
    stated,
    write_facts,
)
from projections.places import in_sight

_INSPECTIONS: Final = frozenset(("inspection",))
_INSPECTION_COLUMNS: Final = (
    "inspected_at",
    "inspection_id",
    "subject",
    "run_id",
    "verdict",
    "judge",
    "model",
    "defect_codes",
    "flags",
)
_CHARACTERISTIC_COLUMNS: Final = (
    "inspected_at",
    "ordinal",
    "subject",
    "run_id",
    "name",
    "nominal",
    "lower_limit",
    "upper_limit",
    "measured",
    "unit",
    "instrument_id",
)


# --- fold ---------------------------------------------------------------------------------


class QualityProjection:
    """Folds inspections into rows of verdicts and of characteristics."""

    name: ClassVar[str] = "quality"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = ("inspection.recorded", *WITH_CORRECTIONS)
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS
    tables: ClassVar[tuple[str, ...]] = ("inspection", "inspection_characteristic")
    query_indexes: ClassVar[tuple[str, ...]] = (
        "inspection_time",
        "inspection_subject",
        "inspection_run",
        "inspection_characteristic_name",
    )

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Change the rows by `events`."""
        said = list(stated(events, _INSPECTIONS))
        if not said:
            return
        inspections: list[tuple[Stated, tuple[Any, ...]]] = []
        characteristics: list[tuple[Stated, tuple[Any, ...]]] = []
        for s in said:
            if isinstance(s.value, InspectionRecorded):
                inspections.append((s, _inspection_values(s, s.value)))
                characteristics += [(s, values) for values in _characteristic_values(s, s.value)]
        await write_facts(
            connection, ledger.ledger_id, "inspection", _INSPECTION_COLUMNS, inspections
        )
        await write_facts(
            connection,
            ledger.ledger_id,
            "inspection_characteristic",
            _CHARACTERISTIC_COLUMNS,
            characteristics,
        )
        await close_corrected(connection, ledger.ledger_id, self.tables, said)


def _inspection_values(s: Stated, fact: InspectionRecorded) -> tuple[Any, ...]:
    return (
        s.occurred_at,
        fact.inspection_id,
        fact.subject,
        fact.run_id,
        fact.verdict.value,
        fact.judge.value,
        fact.model,
        fact.defect_codes,
        fact.flags,
    )


def _characteristic_values(s: Stated, fact: InspectionRecorded) -> list[tuple[Any, ...]]:
    return [
        (
            s.occurred_at,
            ordinal,
            fact.subject,
            fact.run_id,
            c.name,
            c.nominal,
            c.lower_limit,
            c.upper_limit,
            c.measured,
            c.unit,
            c.instrument_id,
        )
        for ordinal, c in enumerate(fact.characteristics)
    ]


# --- queries ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WantedInspections:
    """Which inspections are wanted; what is empty or None does not restrict.

    Parameters
    ----------
    subjects : streams of what was inspected
    inspected_from, inspected_to : when, the first included and the second not
    """

    subjects: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    defect_codes: tuple[str, ...] = ()
    inspected_from: datetime | None = None
    inspected_to: datetime | None = None


ANY_INSPECTION: Final = WantedInspections()


@dataclass(frozen=True, slots=True)
class InspectionPlace:
    """Where a list of inspections stands: a time, and the position of the inspection's event."""

    inspected_at: datetime
    origin: int
    inspection_id: str


@dataclass(frozen=True, slots=True)
class InspectionPage:
    """Inspections, the latest first, and the position that they reflect."""

    position: int
    places: tuple[InspectionPlace, ...]


async def list_inspections(
    ledger: Ledger,
    *,
    first: int,
    after: tuple[datetime, int] | None = None,
    wanted: WantedInspections = ANY_INSPECTION,
    as_of: int | None = None,
    valid_at: datetime | None = None,
    places: Sequence[str] | None = None,
) -> InspectionPage:
    """Return a page of inspections, the latest first, in one statement.

    Parameters
    ----------
    first : at most so many
    after : time and origin of the inspection after which to go on
    as_of : as they were known at that position; None: all that is folded
    valid_at : made by then; None: whenever
    places : only what belongs to one of these (`projections.places`); None: all
    """
    rows = await ledger.pool.fetch(
        f"""
        select reached, inspected_at, origin, inspection_id from (
            select max(position) as reached from (
                select position from projection_checkpoint
                where ledger_id = $1 and projection = $3 order by version desc limit 1
            ) as newest
        ) as folded left join lateral (
            select inspected_at, origin, inspection_id from inspection
            where {KNOWN}
                and ($5::text[] is null or subject = any($5))
                and ($6::text[] is null or run_id = any($6))
                and ($7::text[] is null or verdict = any($7))
                and ($8::text[] is null or judge = any($8))
                and ($9::text[] is null or model = any($9))
                and ($10::text[] is null or defect_codes && $10)
                and ($11::timestamptz is null or inspected_at >= $11)
                and ($12::timestamptz is null or inspected_at < $12)
                and ($13::timestamptz is null or inspected_at <= $13)
                and ($14::timestamptz is null or (inspected_at, origin) < ($14, $15::bigint))
                and {in_sight("'inspection:' || inspection.inspection_id", 16)}
            order by inspected_at desc, origin desc limit $4
        ) as found on true
        order by inspected_at desc, origin desc
        """,
        ledger.ledger_id,
        as_of_or_now(as_of),
        QualityProjection.name,
        first,
        list(wanted.subjects) or None,
        list(wanted.run_ids) or None,
        list(wanted.verdicts) or None,
        list(wanted.judges) or None,
        list(wanted.models) or None,
        list(wanted.defect_codes) or None,
        wanted.inspected_from,
        wanted.inspected_to,
        valid_at,
        None if after is None else after[0],
        None if after is None else after[1],
        None if places is None else list(places),
    )
    reached = rows[0]["reached"] or 0
    return InspectionPage(
        reached if as_of is None else min(as_of, reached),
        tuple(
            InspectionPlace(row["inspected_at"], row["origin"], row["inspection_id"])
            for row in rows
            if row["inspection_id"] is not None
        ),
    )
