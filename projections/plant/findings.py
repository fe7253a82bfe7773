"""What does not fit together in the plant: recorded as told, and shown until it is mended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from eventlog.ledger import Ledger
from projections.as_of import NOW, AsOf
from projections.plant.intervals import Facet, Finding
from projections.plant.queries import moment_of


class FindingKind(StrEnum):
    """What does not fit together."""

    NOT_REMOVED = "NOT_REMOVED"  # installed elsewhere, or scrapped, while it was in a slot
    NOT_THERE = "NOT_THERE"  # removed from a slot that it was not in
    SLOT_TAKEN = "SLOT_TAKEN"  # two components in one slot at the same time
    IN_WHAT_ENDED = "IN_WHAT_ENDED"  # stands in what was given up or retired
    IN_WHAT_IS_UNKNOWN = "IN_WHAT_IS_UNKNOWN"  # stands in what nobody has defined or registered


@dataclass(frozen=True, slots=True)
class PlantFinding:
    """What does not fit: `subject` with `other` in a place, since when.

    Parameters
    ----------
    place, slot : what was said of it; None where it was said to be gone
    other : of SLOT_TAKEN, the component that was there before or at the same time
    source_position : of the event that says so
    """

    kind: FindingKind
    subject: str
    place: str | None
    slot: str | None
    other: str | None
    since: datetime
    source_position: int


async def list_findings(
    ledger: Ledger, as_of: AsOf = NOW, *, first: int = 100, after: int = 0
) -> list[PlantFinding]:
    """Return at most `first` findings from events beyond the position `after`, oldest first.

    Those of the past stay until somebody tells or corrects what really happened; IN_WHAT_ENDED
    and IN_WHAT_IS_UNKNOWN are of the moment asked for alone. A page ends with all findings of an
    event, so that it may be longer by those.
    """
    rows = await ledger.pool.fetch(
        _FINDINGS, ledger.ledger_id, *await moment_of(ledger, as_of), after, first
    )
    findings = [PlantFinding(FindingKind(row[0]), *row[1:]) for row in rows]
    return sorted(findings, key=lambda f: (f.source_position, f.kind, f.subject, f.other or ""))


_FINDINGS: Final = f"""
    with known as (
        select * from plant_interval
        where ledger_id = $1 and known_from <= $2 and known_to > $2 and valid_from <= $3
    ), standing as (
        select * from known where facet = {Facet.PLACE:d} and place is not null and valid_to > $3
    ), found as (
        select case finding when {Finding.NOT_REMOVED:d} then 'NOT_REMOVED' else 'NOT_THERE' end
                as kind,
            subject, stated_place as place, stated_slot as slot, null::text as other,
            valid_from as since, source_position
        from known where finding <> 0
        union all
        select 'SLOT_TAKEN', b.subject, b.place, b.slot, a.subject, b.valid_from, b.source_position
        from known a join known b using (place, slot)
        where a.facet = {Facet.PLACE:d} and b.facet = {Facet.PLACE:d} and a.subject <> b.subject
            and (a.valid_from, a.source_position) < (b.valid_from, b.source_position)
            and b.valid_from < a.valid_to and b.valid_from < b.valid_to
            and a.valid_from < a.valid_to
        union all
        select 'IN_WHAT_ENDED', s.subject, s.place, s.slot, null, s.valid_from, s.source_position
        from standing s join known e on e.subject = s.place
        where e.facet = {Facet.END:d} and e.valid_to > $3 and not exists (
            select from known own
            where own.subject = s.subject and own.facet = {Facet.END:d} and own.valid_to > $3
        )
        union all
        select 'IN_WHAT_IS_UNKNOWN', s.subject, s.place, s.slot, null, s.valid_from,
            s.source_position
        from standing s
        where not exists (
            select from plant_interval d where d.ledger_id = $1 and d.subject = s.place
                and d.facet = {Facet.DESCRIPTION:d} and d.known_from <= $2 and d.known_to > $2
        )
    )
    select kind, subject, place, slot, other, since, source_position
    from found where source_position > $4
    order by source_position
    fetch first $5 rows with ties
"""
