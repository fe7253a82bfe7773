"""Queries of inspections, found by the rows of `projections.quality.projection`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Final

import strawberry

from api.access.rights import Right
from api.graphql.as_of import AsOfArgument, asked
from api.graphql.context import MinPosition, OperationInfo
from api.graphql.fields import field
from api.graphql.filters import chosen
from api.graphql.objects import asked_object, objects_in
from api.graphql.quality.types import Inspection, InspectionFilter
from api.graphql.relay import (
    After,
    Connection,
    First,
    check_first,
    connection,
    decode_text_cursor,
    encode_cursor,
)
from api.graphql.scalars import Cursor, parse_time
from domain.errors import InvalidInput
from domain.events import format_time
from domain.identifiers import check_identifier
from domain.quality.inspection import inspection_stream
from projections.quality.projection import (
    InspectionPlace,
    QualityProjection,
    WantedInspections,
    list_inspections,
)

CURSOR: Final = "inspections"


@strawberry.type
class InspectionQueries:
    """Root fields."""

    @field(
        right=Right.READ,
        description="The inspection with this natural key; null where nothing is known of it.",
    )
    async def inspection(
        self,
        info: OperationInfo,
        inspection_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the inspection.")
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Inspection | None:
        """Return one inspection."""
        check_identifier("inspection", inspection_id)
        stream = inspection_stream(inspection_id)
        found = await asked_object(info.context, stream, as_of, min_position)
        return None if found is None else Inspection.of(found)

    @field(right=Right.READ, description="Inspections, the latest first.")
    async def inspections(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            InspectionFilter | None,
            strawberry.argument(description="Which inspections are wanted."),
        ] = None,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[Inspection]:
        """Return a page of inspections."""
        context = info.context
        check_first(first)
        ledger = context.ledger
        wanted = _wanted(filter or InspectionFilter())
        place = None if after is None else _place(after, ledger.name)
        when = await asked(context, as_of, min_position, QualityProjection.name)
        sight = await context.sight()
        async with context.reads:
            page = await list_inspections(
                ledger,
                first=first + 1,
                after=place,
                wanted=wanted,
                as_of=when.known_at,
                valid_at=when.valid_at,
                places=sight.places,
            )
        streams = [inspection_stream(found.inspection_id) for found in page.places]
        loaded = await objects_in(context, streams, replace(when, known_at=page.position))
        rows = [
            (place, one) for place, one in zip(page.places, loaded, strict=True) if one is not None
        ]
        # One that is told no more, since it was found, does not end the list.
        more = len(page.places) > first >= len(rows)
        last = encode_cursor(CURSOR, ledger.name, _told(page.places[-1])) if more else None
        return connection(
            rows,
            first=first,
            after=after,
            position=page.position,
            node=lambda row: Inspection.of(row[1]),
            cursor=lambda row: encode_cursor(CURSOR, ledger.name, _told(row[0])),
            goes_on_after=last,
        )


def _wanted(given: InspectionFilter) -> WantedInspections:
    for moment in (given.inspected_from, given.inspected_to):
        if moment is not None:
            format_time(moment)
    return WantedInspections(
        subjects=chosen("subjects", given.subjects),
        run_ids=chosen("processRunIds", given.process_run_ids),
        verdicts=tuple(verdict.value for verdict in chosen("verdicts", given.verdicts)),
        judges=tuple(judge.value for judge in chosen("judges", given.judges)),
        models=chosen("models", given.models),
        defect_codes=chosen("defectCodes", given.defect_codes),
        inspected_from=given.inspected_from,
        inspected_to=given.inspected_to,
    )


def _told(place: InspectionPlace) -> str:
    return f"{format_time(place.inspected_at)} {place.origin}"


def _place(cursor: Cursor, ledger: str) -> tuple[datetime, int]:
    at, _, origin = decode_text_cursor(cursor, CURSOR, ledger).partition(" ")
    try:
        return parse_time(at), int(origin)
    except (InvalidInput, ValueError) as error:
        raise InvalidInput(
            "cursor.malformed",
            f"{cursor!r:.80} is no cursor",
            hint="give back a cursor exactly as the API returned it",
            value=cursor[:80],
        ) from error
