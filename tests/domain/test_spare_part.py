"""Spare parts: what is kept for one work order is not there for another, and none is invented."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.maintenance.spare_part import (
    DECIDER,
    PIECES_MAX,
    ConsumeSparePart,
    ReserveSparePart,
    SparePartConsumed,
    SparePartEvent,
    SparePartReserved,
    SparePartStocked,
    SparePartUnreserved,
    Stocked,
    StockSparePart,
    UnreserveSparePart,
)
from domain.maintenance.work_order import (
    Finding,
    Priority,
    WorkOrderApproved,
    WorkOrderCancelled,
    WorkOrderCompleted,
    WorkOrderRequested,
    WorkOrderStarted,
)
from domain.maintenance.work_order_decider import DECIDER as WORK_ORDERS
from domain.thread import Link, LinkKind
from tests.domain.specification import Given, given_of

NOON = datetime(2026, 3, 9, 12, 0, tzinfo=UTC)
BEARING = "6205-2RS"
TEN = SparePartStocked(BEARING, 10, 18.4, "EUR")


def requested(work_order_id: str) -> WorkOrderRequested:
    return WorkOrderRequested(work_order_id, "loop-1", None, "bearing", None, Priority.LOW, None)


COMPLETED = (
    requested("WO-3"),
    WorkOrderApproved("WO-3", ""),
    WorkOrderStarted("WO-3", asset_down=True),
    WorkOrderCompleted(
        "WO-3",
        Finding.NOT_APPLICABLE,
        None,
        None,
        (),
        labour_s=60.0,
        cost=None,
        currency=None,
        note="",
    ),
)
CANCELLED = (requested("WO-4"), WorkOrderCancelled("WO-4", "not needed"))


def given(*events: SparePartEvent) -> Given:
    """Start from a spare part beside two open work orders, a completed and a cancelled one."""
    return (
        given_of(DECIDER, *events)
        .beside("work-order:WO-1", requested("WO-1"))
        .beside("work-order:WO-2", requested("WO-2"))
        .beside("work-order:WO-3", *COMPLETED)
        .beside("work-order:WO-4", *CANCELLED)
    )


def test_pieces_are_stocked_with_what_they_cost() -> None:
    given().when(StockSparePart(BEARING, 10, 18.4, "EUR")).then(TEN)
    given(TEN).when(StockSparePart(BEARING, 2)).then(SparePartStocked(BEARING, 2, None, None))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"item_number": "a b"}, "spare_part.malformed_name"),
        ({"pieces": 0}, "spare_part.pieces_out_of_range"),
        ({"pieces": -1}, "spare_part.pieces_out_of_range"),
        ({"pieces": PIECES_MAX + 1}, "spare_part.pieces_out_of_range"),
        ({"unit_cost": math.inf}, "money.out_of_range"),
        ({"currency": None}, "currency.missing"),
        ({"unit_cost": None}, "currency.unwanted"),
        ({"currency": "EURO"}, "currency.unknown"),
    ],
)
def test_malformed_stock_is_refused(changes: dict[str, Any], code: str) -> None:
    stock = StockSparePart(BEARING, 10, 18.4, "EUR")
    given().when(replace(stock, **changes)).then_rejected(InvalidInput, code)


def test_free_pieces_are_reserved_and_given_free_again() -> None:
    reserved = SparePartReserved(BEARING, "WO-1", 7)
    given(TEN).when(ReserveSparePart(BEARING, "WO-1", 7)).then(reserved)
    given(TEN, reserved).when(UnreserveSparePart(BEARING, "WO-1", 3)).then(
        SparePartUnreserved(BEARING, "WO-1", 3)
    )


def test_what_is_kept_for_one_order_is_not_there_for_another() -> None:
    kept = given(TEN, SparePartReserved(BEARING, "WO-1", 7))
    for command in (ReserveSparePart(BEARING, "WO-2", 4), ConsumeSparePart(BEARING, "WO-2", 4)):
        kept.when(command).then_rejected(CommandRejected, "spare_part.insufficient", 4)
    state = DECIDER.fold([TEN, SparePartReserved(BEARING, "WO-1", 7)])
    others = {"work-order:WO-2": WORK_ORDERS.fold([requested("WO-2")])}
    with pytest.raises(CommandRejected) as refused:
        DECIDER.decide(ReserveSparePart(BEARING, "WO-2", 4), state, others)
    assert refused.value.limit == 3
    kept.when(ReserveSparePart(BEARING, "WO-2", 3)).then(SparePartReserved(BEARING, "WO-2", 3))


def test_an_order_consumes_what_is_kept_for_it_and_then_what_is_free() -> None:
    past = (TEN, SparePartReserved(BEARING, "WO-1", 2), SparePartReserved(BEARING, "WO-2", 3))
    given(*past).when(ConsumeSparePart(BEARING, "WO-1", 7)).then(
        SparePartConsumed(BEARING, "WO-1", 7)
    )
    given(*past).when(ConsumeSparePart(BEARING, "WO-1", 8)).then_rejected(
        CommandRejected, "spare_part.insufficient", 8
    )
    after = DECIDER.fold([*past, SparePartConsumed(BEARING, "WO-1", 7)])
    assert after == Stocked(BEARING, 3, {"WO-2": 3})


def test_no_more_is_given_free_than_was_kept() -> None:
    given(TEN, SparePartReserved(BEARING, "WO-1", 2)).when(
        UnreserveSparePart(BEARING, "WO-1", 3)
    ).then_rejected(CommandRejected, "spare_part.insufficient", 3)


def test_use_may_be_booked_after_completion_but_nothing_is_kept_for_an_ended_order() -> None:
    given(TEN).when(ConsumeSparePart(BEARING, "WO-3", 1)).then(
        SparePartConsumed(BEARING, "WO-3", 1)
    )
    for command in (
        ReserveSparePart(BEARING, "WO-3", 1),
        ReserveSparePart(BEARING, "WO-4", 1),
        ConsumeSparePart(BEARING, "WO-4", 1),
    ):
        given(TEN).when(command).then_rejected(CommandRejected, "work_order.ended")
    kept = given(TEN, SparePartReserved(BEARING, "WO-4", 1))
    kept.when(UnreserveSparePart(BEARING, "WO-4", 1)).then(SparePartUnreserved(BEARING, "WO-4", 1))


def test_unknown_parts_and_orders_are_named() -> None:
    given().when(ReserveSparePart(BEARING, "WO-1", 1)).then_rejected(
        NotFound, "spare_part.unknown", BEARING
    )
    given(TEN).when(ReserveSparePart(BEARING, "WO-9", 1)).then_rejected(
        NotFound, "work_order.unknown", "WO-9"
    )


@pytest.mark.parametrize(
    "history",
    [
        [SparePartConsumed(BEARING, "WO-1", 2)],
        [TEN, SparePartReserved(BEARING, "WO-1", 11)],
        [TEN, SparePartReserved(BEARING, "WO-1", 9), SparePartConsumed(BEARING, "WO-2", 2)],
        [TEN, SparePartUnreserved(BEARING, "WO-1", 1)],
    ],
)
def test_a_history_that_takes_more_than_there_is_is_no_history(
    history: list[SparePartEvent],
) -> None:
    with pytest.raises(ValueError, match="cannot happen"):
        DECIDER.fold(history)


def test_use_is_tied_to_its_work_order() -> None:
    assert SparePartConsumed(BEARING, "WO-1", 2).thread() == (
        Link(LinkKind.USED_IN, "spare-part:6205-2RS", "work-order:WO-1", 2.0, "pieces"),
    )


# --- against a simple model ---------------------------------------------------------------


class StockMachine(RuleBasedStateMachine):
    """Any moves: a bag of pieces, each free or kept for an order, agrees with the decider."""

    @initialize()
    def begin(self) -> None:
        self.history: list[SparePartEvent] = [TEN]
        self.bag: list[str | None] = [None] * 10
        self.others = {
            f"work-order:{name}": WORK_ORDERS.fold([requested(name)]) for name in ("WO-1", "WO-2")
        }

    def ask(self, command: Any) -> bool:
        try:
            self.history += DECIDER.decide(command, DECIDER.fold(self.history), self.others)
        except CommandRejected as refused:
            if refused.code != "spare_part.insufficient":
                raise
            return False
        return True

    @rule(pieces=st.integers(1, 5))
    def stock(self, pieces: int) -> None:
        assert self.ask(StockSparePart(BEARING, pieces))
        self.bag += [None] * pieces

    @rule(order=st.sampled_from(["WO-1", "WO-2"]), pieces=st.integers(1, 8))
    def reserve(self, order: str, pieces: int) -> None:
        possible = self.bag.count(None) >= pieces
        assert self.ask(ReserveSparePart(BEARING, order, pieces)) == possible
        for _ in range(pieces if possible else 0):
            self.bag[self.bag.index(None)] = order

    @rule(order=st.sampled_from(["WO-1", "WO-2"]), pieces=st.integers(1, 8))
    def unreserve(self, order: str, pieces: int) -> None:
        possible = self.bag.count(order) >= pieces
        assert self.ask(UnreserveSparePart(BEARING, order, pieces)) == possible
        for _ in range(pieces if possible else 0):
            self.bag[self.bag.index(order)] = None

    @rule(order=st.sampled_from(["WO-1", "WO-2"]), pieces=st.integers(1, 8))
    def consume(self, order: str, pieces: int) -> None:
        possible = self.bag.count(order) + self.bag.count(None) >= pieces
        assert self.ask(ConsumeSparePart(BEARING, order, pieces)) == possible
        for _ in range(pieces if possible else 0):
            self.bag.remove(order if order in self.bag else None)

    @invariant()
    def agree(self) -> None:
        stock = DECIDER.fold(self.history)
        assert isinstance(stock, Stocked)
        assert stock.pieces == len(self.bag)
        assert stock.free == self.bag.count(None)
        kept = {name: self.bag.count(name) for name in ("WO-1", "WO-2") if name in self.bag}
        assert stock.reserved == kept


TestStockMachine = StockMachine.TestCase
