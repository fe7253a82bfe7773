"""Queries of material: lots and parts, one by its natural key or in pages."""

from __future__ import annotations

from typing import Annotated

import strawberry

from api.access.rights import Right
from api.graphql.as_of import AsOfArgument
from api.graphql.context import MinPosition, OperationInfo
from api.graphql.fields import field
from api.graphql.material.types import Lot, LotFilter, Part, PartFilter
from api.graphql.object_lists import OrderBy, object_page
from api.graphql.objects import asked_object
from api.graphql.relay import After, Connection, First
from domain.identifiers import check_identifier
from domain.material.lot import lot_stream
from domain.material.part import part_stream
from projections.objects import ObjectOrder


@strawberry.type
class MaterialQueries:
    """Root fields."""

    @field(
        right=Right.READ,
        description="The lot with this natural key; null where nothing is known of it.",
    )
    async def lot(
        self,
        info: OperationInfo,
        lot_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the lot.")
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Lot | None:
        """Return one lot."""
        check_identifier("lot", lot_id)
        found = await asked_object(info.context, lot_stream(lot_id), as_of, min_position)
        return None if found is None else Lot.of(found)

    @field(right=Right.READ, description="Lots.")
    async def lots(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            LotFilter | None,
            strawberry.argument(description="Which lots are wanted."),
        ] = None,
        order_by: OrderBy = ObjectOrder.NEWEST,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[Lot]:
        """Return a page of lots."""
        given = filter or LotFilter()
        return await object_page(
            info.context,
            "lot",
            name="lots",
            first=first,
            after=after,
            order=order_by,
            wanted=given.wanted(
                given.states,
                {
                    "material": given.materials,
                    "supplier": given.suppliers,
                    "supplier_lot": given.supplier_lots,
                    "run": given.process_run_ids,
                    "customer": given.customers,
                },
            ),
            as_of=as_of,
            min_position=min_position,
            node=Lot.of,
        )

    @field(
        right=Right.READ,
        description="The part with this serial number; null where nothing is known of it.",
    )
    async def part(
        self,
        info: OperationInfo,
        part_id: Annotated[
            strawberry.ID,
            strawberry.argument(description="Natural key of the part: its serial number."),
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Part | None:
        """Return one part."""
        check_identifier("part", part_id)
        found = await asked_object(info.context, part_stream(part_id), as_of, min_position)
        return None if found is None else Part.of(found)

    @field(right=Right.READ, description="Parts.")
    async def parts(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            PartFilter | None,
            strawberry.argument(description="Which parts are wanted."),
        ] = None,
        order_by: OrderBy = ObjectOrder.NEWEST,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[Part]:
        """Return a page of parts."""
        given = filter or PartFilter()
        return await object_page(
            info.context,
            "part",
            name="parts",
            first=first,
            after=after,
            order=order_by,
            wanted=given.wanted(
                given.states,
                {
                    "part_number": given.part_numbers,
                    "inside": given.inside,
                    "design": given.designs,
                    "run": given.process_run_ids,
                    "lot": given.lot_ids,
                    "supplier": given.suppliers,
                    "customer": given.customers,
                    "failure_mode": given.failure_modes,
                },
            ),
            as_of=as_of,
            min_position=min_position,
            node=Part.of,
        )
