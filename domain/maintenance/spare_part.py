"""Spare parts: kinds of things kept in stock for work orders, by number of pieces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, assert_never, get_args

from domain.deciders import Decider, Others
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.events import event_type
from domain.identifiers import check_identifier
from domain.maintenance.money import check_money
from domain.maintenance.work_order import (
    Cancelled,
    Completed,
    Unrequested,
    WorkOrder,
    work_order_stream,
)
from domain.maintenance.work_order_decider import ended_work_order, unknown_work_order
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem

PIECES_MAX: Final = 1_000_000_000


def spare_part_stream(item_number: str) -> str:
    """Return the stream of a kind of spare part."""
    return f"spare-part:{item_number}"


# --- events -------------------------------------------------------------------------------


@event_type("spare_part.stocked")
@dataclass(frozen=True)
class SparePartStocked:
    """So many pieces came into stock; `unit_cost` in `currency` (ISO 4217), or None."""

    item_number: str
    pieces: int
    unit_cost: float | None
    currency: str | None

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return that there are some."""
        return (Standing(spare_part_stream(self.item_number), NodeState.IN_STOCK),)


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
        node = spare_part_stream(self.item_number)
        used_in = work_order_stream(self.work_order_id)
        return (Link(LinkKind.USED_IN, node, used_in, float(self.pieces), "pieces"),)


SparePartEvent = SparePartStocked | SparePartReserved | SparePartUnreserved | SparePartConsumed


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class StockSparePart:
    """Bring pieces into stock; `unit_cost` in `currency` (ISO 4217), or neither."""

    item_number: str
    pieces: int
    unit_cost: float | None = None
    currency: str | None = None


@dataclass(frozen=True)
class ReserveSparePart:
    """Keep free pieces for a work order that has not ended."""

    item_number: str
    work_order_id: str
    pieces: int


@dataclass(frozen=True)
class UnreserveSparePart:
    """Give pieces free that were kept for a work order."""

    item_number: str
    work_order_id: str
    pieces: int


@dataclass(frozen=True)
class ConsumeSparePart:
    """Say that a work order used pieces: first what is kept for it, then what is free.

    Also after its completion: use is often booked when the work is done.
    """

    item_number: str
    work_order_id: str
    pieces: int


SparePartCommand = StockSparePart | ReserveSparePart | UnreserveSparePart | ConsumeSparePart


# --- states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unstocked:
    """There never was one."""


@dataclass(frozen=True)
class Stocked:
    """Known: `pieces` in stock, of which some are `reserved`, by work order."""

    item_number: str
    pieces: int
    reserved: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def free(self) -> int:
        """Pieces that are kept for no work order."""
        return self.pieces - sum(self.reserved.values())


SparePart = Unstocked | Stocked


# --- decisions ----------------------------------------------------------------------------


def decide(
    command: SparePartCommand, spare_part: SparePart, others: Others
) -> tuple[SparePartEvent, ...]:
    """Return the event `command` causes on `spare_part`.

    Parameters
    ----------
    others : the work order that `looks_at` names

    Raises
    ------
    CommandRejected
        ``spare_part.insufficient`` with the pieces asked for and those there are;
        ``work_order.ended``
    NotFound
        ``spare_part.unknown``, ``work_order.unknown``
    InvalidInput
        ``spare_part.malformed_name``, ``spare_part.pieces_out_of_range``, ``currency.missing``,
        ``currency.unwanted``, ``currency.unknown``, ``money.out_of_range``
    """
    if not 1 <= command.pieces <= PIECES_MAX:
        raise InvalidInput(
            "spare_part.pieces_out_of_range",
            f"{command.pieces} pieces cannot be moved",
            hint=f"a whole number from 1 to {PIECES_MAX}",
            value=command.pieces,
            limit=[1, PIECES_MAX],
        )
    if isinstance(command, StockSparePart):
        check_identifier("spare_part", command.item_number)
        check_money("unit cost", command.unit_cost, command.currency)
        return (SparePartStocked(**vars(command)),)
    if isinstance(spare_part, Unstocked):
        raise NotFound(
            "spare_part.unknown",
            f"spare part {command.item_number!r} was never in stock",
            hint="stock it first, or check the number",
            value=command.item_number,
        )
    work_order: WorkOrder = others.get(work_order_stream(command.work_order_id), Unrequested())
    if isinstance(work_order, Unrequested):
        raise unknown_work_order(command.work_order_id)
    kept = spare_part.reserved.get(command.work_order_id, 0)
    match command:
        case ReserveSparePart():
            if isinstance(work_order, Completed | Cancelled):
                raise ended_work_order(work_order)
            _check_enough(command, spare_part.free, "free")
            return (SparePartReserved(**vars(command)),)
        case UnreserveSparePart():
            _check_enough(command, kept, f"kept for work order {command.work_order_id!r}")
            return (SparePartUnreserved(**vars(command)),)
        case ConsumeSparePart():
            if isinstance(work_order, Cancelled):
                raise ended_work_order(work_order)
            _check_enough(command, kept + spare_part.free, "kept for the work order or free")
            return (SparePartConsumed(**vars(command)),)
        case _:
            assert_never(command)


def _check_enough(
    command: ReserveSparePart | UnreserveSparePart | ConsumeSparePart, there_are: int, where: str
) -> None:
    if command.pieces > there_are:
        raise CommandRejected(
            "spare_part.insufficient",
            f"{command.pieces} pieces of {command.item_number!r} are asked for, and {there_are} "
            f"are {where}",
            hint="stock more, or give free what is kept for other work",
            value=command.pieces,
            limit=there_are,
        )


def looks_at(command: SparePartCommand, _spare_part: SparePart, _others: Others) -> tuple[str, ...]:
    """Return the stream of the work order that pieces are for."""
    if isinstance(command, StockSparePart):
        return ()
    return (work_order_stream(command.work_order_id),)


# --- fold ---------------------------------------------------------------------------------


def evolve(spare_part: SparePart, event: SparePartEvent) -> SparePart:
    """Return what `event` makes of `spare_part`.

    Raises
    ------
    ValueError
        more is taken or kept than there is
    """
    stock = Stocked(event.item_number, 0) if isinstance(spare_part, Unstocked) else spare_part
    kept = stock.reserved.get(getattr(event, "work_order_id", ""), 0)
    match event:
        case SparePartStocked():
            after = replace(stock, pieces=stock.pieces + event.pieces)
        case SparePartReserved():
            after = _with_reserved(stock, event.work_order_id, kept + event.pieces)
        case SparePartUnreserved():
            after = _with_reserved(stock, event.work_order_id, kept - event.pieces)
        case SparePartConsumed():
            left = replace(stock, pieces=stock.pieces - event.pieces)
            after = _with_reserved(left, event.work_order_id, max(0, kept - event.pieces))
        case _:
            assert_never(event)
    if after.free < 0 or min(after.reserved.values(), default=0) < 0:
        raise ValueError(
            f"{type(event).__name__} of {event.pieces} pieces cannot happen: {stock.pieces} are "
            f"there, {stock.free} of them free"
        )
    return after


def _with_reserved(stock: Stocked, work_order_id: str, pieces: int) -> Stocked:
    reserved = {order: kept for order, kept in stock.reserved.items() if order != work_order_id}
    if pieces != 0:
        reserved[work_order_id] = pieces
    return replace(stock, reserved=reserved)


DECIDER: Final[Decider[SparePartCommand, SparePart, SparePartEvent]] = Decider(
    category="spare-part",
    command_types=get_args(SparePartCommand),
    initial=Unstocked(),
    decide=decide,
    evolve=evolve,
    subject=lambda command: spare_part_stream(command.item_number),
    stream_of=lambda event: spare_part_stream(event.item_number),
    looks_at=looks_at,
)
