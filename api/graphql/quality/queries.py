"""Queries of quality: inspections, non-conformances and instruments."""

from __future__ import annotations

from typing import Annotated

import strawberry

from api.access.rights import Right
from api.graphql.as_of import AsOfArgument
from api.graphql.context import MinPosition, OperationInfo
from api.graphql.fields import field
from api.graphql.object_lists import OrderBy, object_page
from api.graphql.objects import asked_object
from api.graphql.quality.inspection_lists import InspectionQueries
from api.graphql.quality.types import (
    Instrument,
    InstrumentFilter,
    Nonconformance,
    NonconformanceFilter,
)
from api.graphql.relay import After, Connection, First
from domain.identifiers import check_identifier
from domain.quality.instrument import instrument_stream
from domain.quality.nonconformance import nonconformance_stream
from projections.objects import ObjectOrder


@strawberry.type
class QualityQueries(InspectionQueries):
    """Root fields."""

    @field(
        right=Right.READ,
        description="The non-conformance with this natural key; null where nothing is known of it.",
    )
    async def nonconformance(
        self,
        info: OperationInfo,
        nonconformance_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the non-conformance.")
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Nonconformance | None:
        """Return one non-conformance."""
        check_identifier("nonconformance", nonconformance_id)
        found = await asked_object(
            info.context, nonconformance_stream(nonconformance_id), as_of, min_position
        )
        return None if found is None else Nonconformance.of(found)

    @field(right=Right.READ, description="Non-conformances.")
    async def nonconformances(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            NonconformanceFilter | None,
            strawberry.argument(description="Which non-conformances are wanted."),
        ] = None,
        order_by: OrderBy = ObjectOrder.NEWEST,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[Nonconformance]:
        """Return a page of non-conformances."""
        given = filter or NonconformanceFilter()
        return await object_page(
            info.context,
            "nonconformance",
            name="nonconformances",
            first=first,
            after=after,
            order=order_by,
            wanted=given.wanted(
                given.states,
                {
                    "subject": given.subjects,
                    "inspection": given.inspection_ids,
                    "defect_code": given.defect_codes,
                    "disposition": given.dispositions,
                },
            ),
            as_of=as_of,
            min_position=min_position,
            node=Nonconformance.of,
        )

    @field(
        right=Right.READ,
        description="The instrument with this natural key; null where nothing is known of it.",
    )
    async def instrument(
        self,
        info: OperationInfo,
        instrument_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the instrument.")
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Instrument | None:
        """Return one instrument."""
        check_identifier("instrument", instrument_id)
        found = await asked_object(
            info.context, instrument_stream(instrument_id), as_of, min_position
        )
        return None if found is None else Instrument.of(found)

    @field(right=Right.READ, description="Instruments.")
    async def instruments(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            InstrumentFilter | None,
            strawberry.argument(description="Which instruments are wanted."),
        ] = None,
        order_by: OrderBy = ObjectOrder.KEY,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[Instrument]:
        """Return a page of instruments."""
        given = filter or InstrumentFilter()
        return await object_page(
            info.context,
            "instrument",
            name="instruments",
            first=first,
            after=after,
            order=order_by,
            wanted=given.wanted(
                given.states,
                {
                    "certificate": given.certificates,
                },
                given.due_before,
            ),
            as_of=as_of,
            min_position=min_position,
            node=Instrument.of,
        )
