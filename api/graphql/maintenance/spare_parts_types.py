"""Types of spare parts: kinds of things kept in stock for work orders."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import strawberry

from api.graphql.context import OperationContext, OperationInfo
from api.graphql.fields import field
from api.graphql.maintenance.types import WorkOrder, find_work_order
from api.graphql.object_lists import ObjectFilterInput
from api.graphql.objects import (
    ThreadObject,
    asked_as,
    common,
    entry_page,
    key_or_none,
    object_in,
)
from api.graphql.relay import After, Connection, First
from api.graphql.scalars import BigInt, Position, described_enum
from domain.maintenance.spare_part import (
    SparePartConsumed,
    SparePartReserved,
    SparePartStocked,
    SparePartUnreserved,
    Stocked,
    spare_part_stream,
)
from domain.records import Entry
from eventlog.objects import LoadedObject
from projections.object_kinds import SparePartState, spare_part_state

SPARE_PART: Final = "SparePart"

described_enum(
    SparePartState,
    "Whether there are pieces of a spare part.",
    {
        "UNKNOWN": "Its stocking was corrected away.",
        "IN_STOCK": "There are some, though they may be reserved.",
        "OUT_OF_STOCK": "There are none.",
    },
)


class SparePartMovementKind(StrEnum):
    """What happened to pieces of a spare part."""

    STOCKED = "STOCKED"
    RESERVED = "RESERVED"
    UNRESERVED = "UNRESERVED"
    CONSUMED = "CONSUMED"


described_enum(
    SparePartMovementKind,
    "What happened to pieces of a spare part.",
    {
        "STOCKED": "They came into stock.",
        "RESERVED": "They are kept for a work order.",
        "UNRESERVED": "They were kept for a work order and are free again.",
        "CONSUMED": "A work order used them.",
    },
)

_KINDS: Final = {
    SparePartStocked: SparePartMovementKind.STOCKED,
    SparePartReserved: SparePartMovementKind.RESERVED,
    SparePartUnreserved: SparePartMovementKind.UNRESERVED,
    SparePartConsumed: SparePartMovementKind.CONSUMED,
}


@strawberry.input(
    description="Which spare parts are wanted; what is null or empty does not restrict."
)
class SparePartFilter(ObjectFilterInput):
    """What restricts a list of spare parts; each list at most 100 values."""

    states: list[SparePartState] | None = strawberry.field(
        default=None, description="Spare parts of which there are some, or none."
    )
    work_order_ids: list[str] | None = strawberry.field(
        default=None, description="Spare parts of which pieces are kept for these work orders."
    )


@strawberry.type(description="Pieces that are kept for a work order.")
class SparePartReservation:
    """Of `domain.maintenance.spare_part.Stocked`."""

    spare_part: strawberry.Private[LoadedObject]
    work_order_id: strawberry.ID = strawberry.field(description="Natural key of the work order.")
    pieces: BigInt = strawberry.field(description="How many pieces.")

    @field(description="The work order; null where it is not known.")
    async def work_order(self, info: OperationInfo) -> WorkOrder | None:
        """Return the work order that pieces are kept for."""
        return await find_work_order(info.context, self.work_order_id, asked_as(self.spare_part))


@strawberry.type(description="What happened to pieces of a spare part.")
class SparePartMovement:
    """An event of a spare part."""

    spare_part: strawberry.Private[LoadedObject]
    kind: SparePartMovementKind = strawberry.field(description="What happened.")
    pieces: int = strawberry.field(description="To how many pieces.")
    work_order_id: strawberry.ID | None = strawberry.field(
        description="For which work order; null where they were stocked."
    )
    unit_cost: float | None = strawberry.field(
        description="What a piece cost, in `currency`; null where nobody said, and in others than "
        "STOCKED."
    )
    currency: str | None = strawberry.field(description="Currency of the cost, ISO 4217.")
    occurred_at: datetime = strawberry.field(description="When.")
    position: Position = strawberry.field(description="Where the event stands in the log.")

    @field(description="The work order; null where pieces were stocked, or it is not known.")
    async def work_order(self, info: OperationInfo) -> WorkOrder | None:
        """Return the work order of the movement."""
        if self.work_order_id is None:
            return None
        return await find_work_order(info.context, self.work_order_id, asked_as(self.spare_part))

    @classmethod
    def of(cls, entry: Entry, spare_part: LoadedObject) -> SparePartMovement:
        """Return `entry` as the schema tells it."""
        fact = entry.fact
        return cls(
            spare_part=spare_part,
            kind=_KINDS[type(fact)],
            pieces=fact.pieces,
            work_order_id=key_or_none(getattr(fact, "work_order_id", None)),
            unit_cost=getattr(fact, "unit_cost", None),
            currency=getattr(fact, "currency", None),
            occurred_at=entry.occurred_at,
            position=Position(entry.position),
        )


@strawberry.type(description="A kind of thing that is kept in stock for work orders.")
class SparePart(ThreadObject):
    """`domain.maintenance.spare_part.SparePart`."""

    item_number: strawberry.ID = strawberry.field(description="Natural key.")
    state: SparePartState = strawberry.field(description="Whether there are pieces of it.")
    pieces: BigInt = strawberry.field(description="Pieces in stock, reserved ones among them.")
    free: BigInt = strawberry.field(description="Pieces that are kept for no work order.")
    reservations: list[SparePartReservation] = strawberry.field(
        description="What is kept for which work order."
    )

    @classmethod
    def of(cls, loaded: LoadedObject) -> SparePart:
        """Return a spare part as the schema tells it."""
        stock = loaded.state if isinstance(loaded.state, Stocked) else None
        return cls(
            **common(SPARE_PART, loaded),
            item_number=strawberry.ID(loaded.key),
            state=spare_part_state(loaded.state),
            pieces=BigInt(0 if stock is None else stock.pieces),
            free=BigInt(0 if stock is None else stock.free),
            reservations=[
                SparePartReservation(
                    spare_part=loaded, work_order_id=strawberry.ID(order), pieces=BigInt(pieces)
                )
                for order, pieces in ({} if stock is None else stock.reserved).items()
            ],
        )

    @field(description="What came in, was kept and was used, in that order.")
    def movements(
        self, info: OperationInfo, first: First, after: After = None
    ) -> Connection[SparePartMovement]:
        """Return a page of the spare part's movements."""
        return entry_page(
            info.context,
            self.loaded.entries,
            kind="movements",
            first=first,
            after=after,
            position=self.loaded.position,
            node=lambda entry: SparePartMovement.of(entry, self.loaded),
        )


async def find_spare_part(
    context: OperationContext, key: str, as_of: Any = None
) -> SparePart | None:
    """Return the spare part called `key`; as `api.graphql.objects.object_in`."""
    found = await object_in(context, spare_part_stream(key), as_of)
    return None if found is None else SparePart.of(found)
