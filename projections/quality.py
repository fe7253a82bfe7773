"""Inspections: verdicts, defects and measured characteristics.

One row a fact; a correction closes it and adds its own. Of which asset, operation and part number
an inspection is, is looked up in the rows of `production` when it is asked, so that it does not
matter which came first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from domain.quality.inspection import InspectionRecorded
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf
from projections.histories import (
    WITH_CORRECTIONS,
    Stated,
    close_corrected,
    stated,
    write_facts,
)

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
