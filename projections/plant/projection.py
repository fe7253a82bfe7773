"""The plant: what stands where, what is installed in what, and as what; then and now.

One table holds every statement about locations, assets and components with when it was true and
when it was known (`projections.plant.intervals`), so that any question can be asked as of a
position and a moment (`projections.plant.queries`). What does not fit together is not refused,
for it may be the reality, or a fact that is still to come (`projections.plant.findings`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, Final

import asyncpg

from domain.records import CORRECTED
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf
from projections.plant.intervals import (
    KNOWN_STILL,
    VALID_STILL,
    Change,
    Facet,
    Finding,
    Interval,
    Place,
    Said,
    Statement,
    Timelines,
    change_of,
)

TYPES: Final = (
    "asset.placed",
    "asset.registered",
    "asset.retired",
    "component.installed",
    "component.registered",
    "component.removed",
    "component.scrapped",
    "location.defined",
    "location.moved",
    "location.retired",
    "location.roll_up_declared",
    CORRECTED,
)


# --- fold ---------------------------------------------------------------------------------


class PlantProjection:
    """Folds what is said of locations, assets and components into intervals."""

    name: ClassVar[str] = "plant"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = TYPES
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS
    tables: ClassVar[tuple[str, ...]] = ("plant_interval",)
    query_indexes: ClassVar[tuple[str, ...]] = ("plant_interval_by_place", "plant_interval_finding")

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Change the rows by `events`."""
        changes = [
            change
            for event in events
            if (change := change_of(event.stream, event.position, event.occurred_at, event.fact))
        ]
        if not changes:
            return
        timelines = Timelines(await _held(connection, ledger.ledger_id, changes))
        for change in changes:
            timelines.apply(change)
        await _store(connection, ledger.ledger_id, timelines)


_COLUMNS: Final = (
    "facet",
    "statement",
    "finding",
    "required",
    "subject",
    "source_position",
    "known_from",
    "known_to",
    "valid_from",
    "valid_to",
    "stated_place",
    "stated_slot",
    "place",
    "slot",
    "item_type",
    "title",
    "part_id",
    "roll_up",
)


async def _held(
    connection: Connection, ledger_id: int, changes: Sequence[Change]
) -> list[Interval]:
    """Return the intervals that `changes` may touch, and what held before each of them."""
    since: dict[str, datetime] = {}
    for change in changes:
        for statement in change.statements:
            earlier = since.get(change.subject, VALID_STILL)
            since[change.subject] = min(earlier, statement.valid_from)
    retracted = [(change.subject, change.retracted) for change in changes if change.retracted]
    if retracted:
        rows = await connection.fetch(
            f"""
            select subject, min(valid_from) as since
            from plant_interval join unnest($2::text[], $3::bigint[]) as wanted(subject, source)
                using (subject)
            where ledger_id = $1 and source_position = source and known_to = {KNOWN_STILL}
            group by subject
            """,
            ledger_id,
            [subject for subject, _ in retracted],
            [source for _, source in retracted],
        )
        for subject, moment in rows:
            since[subject] = min(since.get(subject, VALID_STILL), moment)
    rows = await connection.fetch(
        f"""
        select {", ".join(f"i.{column}" for column in _COLUMNS)}
        from unnest($2::text[], $3::timestamptz[]) as wanted(subject, since)
        join plant_interval i on i.ledger_id = $1 and i.subject = wanted.subject
            and i.known_to = {KNOWN_STILL} and i.valid_to >= wanted.since
        """,
        ledger_id,
        list(since),
        list(since.values()),
    )
    return [_interval(row) for row in rows]


def _interval(row: asyncpg.Record) -> Interval:
    statement = Statement(
        row["subject"],
        Facet(row["facet"]),
        row["source_position"],
        row["valid_from"],
        Said(row["statement"]),
        _place(row["stated_place"], row["stated_slot"]),
        row["item_type"],
        row["title"],
        row["part_id"],
        row["roll_up"],
        row["required"],
    )
    return Interval(
        statement,
        row["valid_to"],
        _place(row["place"], row["slot"]),
        Finding(row["finding"]),
        row["known_from"],
        row["known_to"],
    )


def _place(subject: str | None, slot: str | None) -> Place | None:
    return None if subject is None else Place(subject, slot)


async def _store(connection: Connection, ledger_id: int, timelines: Timelines) -> None:
    if timelines.closed:
        keys = [(*interval.key, interval.known_to) for interval in timelines.closed]
        await connection.execute(
            """
            update plant_interval i set known_to = closed.known_to
            from unnest($2::text[], $3::smallint[], $4::bigint[], $5::bigint[], $6::bigint[])
                as closed(subject, facet, source_position, known_from, known_to)
            where i.ledger_id = $1 and i.subject = closed.subject and i.facet = closed.facet
                and i.source_position = closed.source_position and i.known_from = closed.known_from
            """,
            ledger_id,
            *map(list, zip(*keys, strict=True)),
        )
    await connection.copy_records_to_table(
        "plant_interval",
        columns=("ledger_id", *_COLUMNS),
        records=[(ledger_id, *_row(interval)) for interval in timelines.created],
    )


def _row(interval: Interval) -> tuple[Any, ...]:
    said = interval.statement
    return (
        said.facet,
        said.said,
        interval.finding,
        said.required,
        said.subject,
        said.source_position,
        interval.known_from,
        interval.known_to,
        said.valid_from,
        interval.valid_to,
        *(said.stated or (None, None)),
        *(interval.place or (None, None)),
        said.item_type,
        said.title,
        said.part_id,
        said.roll_up,
    )
