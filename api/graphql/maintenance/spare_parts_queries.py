"""Queries of spare parts, one by its item number or in pages."""

from __future__ import annotations

from typing import Annotated

import strawberry

from api.access.rights import Right
from api.graphql.as_of import AsOfArgument
from api.graphql.context import MinPosition, OperationInfo
from api.graphql.fields import field
from api.graphql.maintenance.spare_parts_types import SparePart, SparePartFilter
from api.graphql.object_lists import OrderBy, object_page
from api.graphql.objects import asked_object
from api.graphql.relay import After, Connection, First
from domain.identifiers import check_identifier
from domain.maintenance.spare_part import spare_part_stream
from projections.objects import ObjectOrder


@strawberry.type
class SparePartQueries:
    """Root fields."""

    @field(
        right=Right.READ,
        description="The spare part with this item number; null where nothing is known of it.",
    )
    async def spare_part(
        self,
        info: OperationInfo,
        item_number: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the spare part.")
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> SparePart | None:
        """Return one spare part."""
        check_identifier("spare_part", item_number)
        found = await asked_object(
            info.context, spare_part_stream(item_number), as_of, min_position
        )
        return None if found is None else SparePart.of(found)

    @field(right=Right.READ, description="Spare parts.")
    async def spare_parts(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            SparePartFilter | None,
            strawberry.argument(description="Which spare parts are wanted."),
        ] = None,
        order_by: OrderBy = ObjectOrder.KEY,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[SparePart]:
        """Return a page of spare parts."""
        given = filter or SparePartFilter()
        return await object_page(
            info.context,
            "spare-part",
            name="spare_parts",
            first=first,
            after=after,
            order=order_by,
            wanted=given.wanted(
                given.states,
                {
                    "work_order": given.work_order_ids,
                },
            ),
            as_of=as_of,
            min_position=min_position,
            node=SparePart.of,
        )
