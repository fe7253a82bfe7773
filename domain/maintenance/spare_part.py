"""Spare parts: kinds of things kept in stock for work orders, by number of pieces."""

from __future__ import annotations

from dataclasses import dataclass

from domain.events import event_type
from domain.thread import Link, LinkKind, ThreadItem


def spare_part_stream(item_number: str) -> str:
    """Return the stream of a kind of spare part."""
    return f"spare-part:{item_number}"


@event_type("spare_part.stocked")
@dataclass(frozen=True)
class SparePartStocked:
    """So many pieces came into stock; `unit_cost` in `currency` (ISO 4217), or None."""

    item_number: str
    pieces: int
    unit_cost: float | None
    currency: str | None


@event_type("spare_part.reserved")
@dataclass(frozen=True)
class SparePartReserved:
    """So many pieces are kept for a work order."""

    item_number: str
    work_order_id: str
    pieces: int


@event_type("spare_part.unreserved")
@dataclass(frozen=True)
class SparePartUnreserved:
    """What was kept for a work order is free again."""

    item_number: str
    work_order_id: str
    pieces: int


@event_type("spare_part.consumed")
@dataclass(frozen=True)
class SparePartConsumed:
    """A work order used so many pieces."""

    item_number: str
    work_order_id: str
    pieces: int

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the use."""
        used_in = f"work-order:{self.work_order_id}"
        node = spare_part_stream(self.item_number)
        return (Link(LinkKind.USED_IN, node, used_in, float(self.pieces)),)


SparePartEvent = SparePartStocked | SparePartReserved | SparePartUnreserved | SparePartConsumed
