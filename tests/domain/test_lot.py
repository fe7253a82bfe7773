"""A lot's life: what may be taken, what is left, and what is refused or recorded with a flag."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import CommandRejected, HeddleError, InvalidInput, NotFound
from domain.material.lot import (
    ConsumeLot,
    CreateLot,
    LotConsumed,
    LotCreated,
    LotIncreased,
    LotMerged,
    LotQuarantined,
    LotReceived,
    LotReleased,
    LotScrapped,
    LotShipped,
    LotSplit,
    MergeLot,
    QuarantineLot,
    ReceiveLot,
    ReleaseLot,
    ScrapLot,
    ShipLot,
    SplitLot,
    lot_stream,
)
from domain.material.lot_decider import (
    DECIDER,
    LotEnd,
    LotGone,
    LotInQuarantine,
    LotInStock,
    UnknownLot,
)
from domain.material.process_run import ProcessRunStarted, process_run_stream
from domain.thread import Link, LinkKind, NodeState, Standing
from tests.domain.memory_log import MemoryLog
from tests.domain.specification import Given, given_of

STEEL = "42CrMo4 bar 60 mm"
RUN = "RUN-1"
RUN_STREAM = process_run_stream(RUN)
started = ProcessRunStarted(RUN, "lathe-2", "turn", None, None, None, None, ())

received = LotReceived("L-1", STEEL, 0.3, "t", "Saarstahl", "H-88213", "CERT-1@A")
quarantined = LotQuarantined("L-1", "inclusions", None)
scrapped = LotScrapped("L-1", "inclusions")
shipped = LotShipped("L-1", "S-1", "Stadtwerke Ulm")
merged = LotMerged("L-1", "L-2", 300.0, "kg")
other = LotCreated("L-2", STEEL, 5.0, "kg", None)

receive = ReceiveLot("L-1", STEEL, 0.3, "t", "Saarstahl", "H-88213", "CERT-1@A")
consume = ConsumeLot("L-1", RUN, 100.0, "kg")
split = SplitLot("L-1", "L-2", 100.0, "kg")

EVERY_USE: tuple[Any, ...] = (
    consume,
    split,
    MergeLot("L-1", "L-2"),
    ShipLot("L-1", "S-1", "Stadtwerke Ulm"),
)
EVERY_CHANGE: tuple[Any, ...] = (
    *EVERY_USE,
    QuarantineLot("L-1", "inclusions"),
    ReleaseLot("L-1", "tested"),
    ScrapLot("L-1", "inclusions"),
)


def lot(*events: Any) -> Given:
    """Start from a lot with a past, beside a run that began.

    A late command may see the lot as it was then, `events`, and as it is known since: the same
    unless a test puts another past `beside` it.
    """
    return given_of(DECIDER, *events).beside(RUN_STREAM, started).beside("lot:L-1", *events)


def consumed(quantity: float, unit: str, *flags: str, reason: str | None = None) -> LotConsumed:
    return LotConsumed("L-1", RUN, quantity, unit, reason, flags)


# --- beginning ----------------------------------------------------------------------------


def test_a_supplier_s_lot_is_received() -> None:
    lot().when(receive).then(received)


def test_a_lot_is_made_by_a_run_or_without_one() -> None:
    lot().when(CreateLot("L-1", STEEL, 3.0, "pieces", RUN)).then(
        LotCreated("L-1", STEEL, 3.0, "pieces", RUN)
    )
    lot().when(CreateLot("L-1", STEEL, 3.0, "pieces")).then(
        LotCreated("L-1", STEEL, 3.0, "pieces", None)
    )


@pytest.mark.parametrize("late", [False, True])
def test_a_lot_begins_once_told_late_or_not(late: bool) -> None:
    for command in (receive, CreateLot("L-1", STEEL, 1.0, "kg")):
        lot(received).when(replace(command, late=late)).then_rejected(
            CommandRejected, "lot.already_known", "L-1"
        )


def test_a_late_reception_before_the_known_one_is_refused_too() -> None:
    lot().beside(lot_stream("L-1"), received).when(replace(receive, late=True)).then_rejected(
        CommandRejected, "lot.already_known"
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"unit": "furlong"}, "unit.unknown"),
        ({"unit": "degC"}, "lot.unit_mismatch"),
        ({"unit": "%"}, "lot.unit_mismatch"),
        ({"quantity": 0.0}, "lot.quantity_not_positive"),
        ({"quantity": -1.0}, "lot.quantity_not_positive"),
        ({"quantity": math.nan}, "lot.quantity_not_positive"),
        ({"quantity": math.inf}, "lot.quantity_not_positive"),
        ({"quantity": 1.1e15}, "lot.quantity_not_positive"),
        ({"quantity": 2.5, "unit": "pieces"}, "lot.pieces_not_whole"),
        ({"certificate": "CERT-1"}, "document.malformed_revision_name"),
        ({"material": " "}, "text.empty"),
        ({"supplier": "x" * 201}, "text.too_long"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_malformed_input_is_refused_told_late_or_not(
    change: dict[str, Any], code: str, late: bool
) -> None:
    lot().when(replace(receive, late=late, **change)).then_rejected(InvalidInput, code)


# --- taking -------------------------------------------------------------------------------


def test_a_run_uses_a_lot_in_any_unit_of_its_quantity() -> None:
    lot(received).when(consume).then(consumed(100.0, "kg"))
    lot(received).when(replace(consume, quantity=0.3, unit="t")).then(consumed(0.3, "t"))


def test_a_lot_is_used_to_the_last_gram() -> None:
    thrice = (consumed(0.1, "t"), consumed(100_000.0, "g"))  # as floats they would leave a rest
    last = replace(consume, quantity=100.0)
    lot(received, *thrice).when(last).then(consumed(100.0, "kg"))
    lot(received, *thrice, consumed(100.0, "kg")).when(
        replace(consume, quantity=1e-6)
    ).then_rejected(CommandRejected, "lot.exceeded", 1e-6)


def test_no_more_is_taken_than_is_left() -> None:
    for command in (consume, split):
        too_much = replace(command, quantity=300.5)
        given_lot = lot(received).when(too_much)
        given_lot.then_rejected(CommandRejected, "lot.exceeded", 300.5)
        with pytest.raises(CommandRejected) as refused:
            given_lot._decide()
        assert refused.value.limit == 300.0


def test_more_is_taken_when_it_is_declared_with_a_reason() -> None:
    declared = replace(consume, quantity=301.0, excess_reason=" an offcut was added ")
    taken = consumed(301.0, "kg", "lot.exceeded", reason="an offcut was added")
    lot(received).when(declared).then(taken)
    after = DECIDER.fold((received, taken))
    assert isinstance(after, LotInStock)
    assert after.left == -0.001
    lot(received).when(replace(declared, excess_reason=" ")).then_rejected(
        InvalidInput, "text.empty"
    )


@pytest.mark.parametrize("unit", ["l", "pieces", "m"])
@pytest.mark.parametrize("late", [False, True])
def test_a_lot_is_taken_from_in_its_own_quantity(unit: str, late: bool) -> None:
    for command in (consume, split):
        asked = replace(command, quantity=1.0, unit=unit, late=late)
        lot(received).when(asked).then_rejected(
            InvalidInput,
            "lot.unit_mismatch",
            {"l": "volume", "pieces": "count", "m": "length"}[unit],
        )


def test_consumption_needs_a_run_that_began() -> None:
    given_of(DECIDER, received).when(consume).then_rejected(NotFound, "process_run.unknown", RUN)
    lot(received).beside(RUN_STREAM).when(replace(consume, late=True)).then(
        consumed(100.0, "kg", "process_run.unknown")
    )
    lot(received).when(replace(consume, run_id="RUN 1")).then_rejected(
        InvalidInput, "process_run.malformed_name"
    )


# --- split and merge ----------------------------------------------------------------------


def test_a_split_is_an_event_of_both_lots() -> None:
    lot(received).when(split).then(
        LotSplit("L-1", "L-2", 100.0, "kg"), LotCreated("L-2", STEEL, 100.0, "kg", None)
    )


def test_a_lot_is_split_into_a_new_one() -> None:
    lot(received).beside("lot:L-2", other).when(split).then_rejected(
        CommandRejected, "lot.already_known", "L-2"
    )
    lot(received).when(replace(split, into_lot_id="L-1")).then_rejected(
        InvalidInput, "lot.same_lot", "L-1"
    )
    lot(received).when(replace(split, into_lot_id="L 2")).then_rejected(
        InvalidInput, "lot.malformed_name"
    )


def test_a_merger_is_an_event_of_both_lots() -> None:
    lot(received, consumed(0.1, "t")).beside("lot:L-2", other).when(MergeLot("L-1", "L-2")).then(
        LotMerged("L-1", "L-2", 0.2, "t"), LotIncreased("L-2", "L-1", 0.2, "t")
    )
    assert DECIDER.fold((other, LotIncreased("L-2", "L-1", 0.2, "t"))) == LotInStock(
        "L-2", STEEL, "kg", Fraction(205)
    )


@pytest.mark.parametrize(
    ("target", "error", "code"),
    [
        ((), NotFound, "lot.unknown"),
        ((other, LotQuarantined("L-2", "rust", None)), CommandRejected, "lot.quarantined"),
        ((other, LotScrapped("L-2", "rust")), CommandRejected, "lot.scrapped"),
        ((LotCreated("L-2", "brass", 5.0, "kg", None),), CommandRejected, "lot.material_mismatch"),
        ((LotCreated("L-2", STEEL, 5.0, "m", None),), InvalidInput, "lot.unit_mismatch"),
    ],
)
def test_a_lot_is_merged_into_a_usable_one_of_its_material(
    target: tuple[Any, ...], error: type[HeddleError], code: str
) -> None:
    lot(received).beside("lot:L-2", *target).when(MergeLot("L-1", "L-2")).then_rejected(error, code)


def test_a_lot_is_not_merged_into_itself() -> None:
    lot(received).when(MergeLot("L-1", "L-1")).then_rejected(InvalidInput, "lot.same_lot")


def test_nothing_is_no_merger_and_no_shipment() -> None:
    for command in (MergeLot("L-1", "L-2"), ShipLot("L-1", "S-1", "Ulm")):
        lot(received, consumed(0.3, "t")).beside("lot:L-2", other).when(command).then_rejected(
            CommandRejected, "lot.empty", 0.0
        )


# --- where a lot stands -------------------------------------------------------------------


@pytest.mark.parametrize("command", EVERY_CHANGE, ids=lambda c: type(c).__name__)
def test_nothing_happens_to_a_lot_that_nobody_knows(command: Any) -> None:
    lot().beside("lot:L-2", other).when(command).then_rejected(NotFound, "lot.unknown", "L-1")


@pytest.mark.parametrize("command", EVERY_USE, ids=lambda c: type(c).__name__)
def test_nothing_is_used_of_a_lot_in_quarantine(command: Any) -> None:
    held = lot(received, quarantined).beside("lot:L-2", other)
    held.when(command).then_rejected(CommandRejected, "lot.quarantined", "L-1")


@pytest.mark.parametrize(
    ("gone", "code"),
    [(scrapped, "lot.scrapped"), (shipped, "lot.shipped"), (merged, "lot.merged")],
)
@pytest.mark.parametrize("command", EVERY_CHANGE, ids=lambda c: type(c).__name__)
def test_a_lot_that_is_gone_accepts_nothing(gone: Any, code: str, command: Any) -> None:
    lot(received, gone).when(command).then_rejected(CommandRejected, code, "L-1")


def test_a_lot_is_quarantined_once_and_released() -> None:
    quarantine = QuarantineLot("L-1", "inclusions", "inspection:I-1")
    lot(received).when(quarantine).then(LotQuarantined("L-1", "inclusions", "inspection:I-1"))
    lot(received, quarantined).when(quarantine).then()
    release = ReleaseLot("L-1", "tested")
    lot(received, quarantined).when(release).then(LotReleased("L-1", "tested"))
    lot(received).when(release).then_rejected(CommandRejected, "lot.not_quarantined", "L-1")
    lot(received, quarantined, LotReleased("L-1", "tested")).when(consume).then(
        consumed(100.0, "kg")
    )


def test_a_cause_names_something() -> None:
    for cause, code in (
        ("rumour:1", "node.unknown_category"),
        ("inspection:", "inspection.malformed_name"),
        ("document:DRW-7@", "revision.malformed_name"),
    ):
        lot(received).when(QuarantineLot("L-1", "why", cause)).then_rejected(InvalidInput, code)


def test_a_lot_in_quarantine_may_be_scrapped() -> None:
    lot(received, quarantined).when(ScrapLot("L-1", "inclusions")).then(scrapped)


def test_what_is_left_is_shipped() -> None:
    lot(received).when(ShipLot("L-1", "S-1", "Stadtwerke Ulm")).then(shipped)
    assert DECIDER.fold((received, shipped)) == LotGone(
        "L-1", STEEL, "t", Fraction(0), LotEnd.SHIPPED
    )


# --- told late ----------------------------------------------------------------------------


def test_what_was_consumed_before_it_was_known_is_recorded_with_a_flag() -> None:
    late = replace(consume, late=True)
    flagged = consumed(100.0, "kg", "lot.unknown")
    lot().when(late).then(flagged)
    assert DECIDER.fold((flagged,)) == UnknownLot(Fraction(100), "mass")
    assert DECIDER.fold((flagged, received)) == LotInStock("L-1", STEEL, "t", Fraction(200))


def test_a_reception_of_less_than_was_consumed_is_flagged() -> None:
    before = consumed(301.0, "kg", "lot.unknown")
    lot(before).when(receive).then(replace(received, flags=("lot.exceeded",)))
    lot(before).when(replace(receive, quantity=1.0, unit="pieces")).then_rejected(
        InvalidInput, "lot.unit_mismatch", "count"
    )


@pytest.mark.parametrize("command", EVERY_USE, ids=lambda c: type(c).__name__)
def test_a_use_told_late_is_flagged_with_all_that_speaks_against_it(command: Any) -> None:
    held = lot(received, quarantined)
    held = held if isinstance(command, SplitLot) else held.beside("lot:L-2", other)
    events = held.when(replace(command, late=True))._decide()
    assert events[0].flags == ("lot.quarantined",)


def test_a_late_consumption_is_held_against_what_was_taken_since() -> None:
    """As of then enough was left; what was taken later shows that it was not."""
    since = lot(received).beside("lot:L-1", received, consumed(250.0, "kg"))
    since.when(replace(consume, late=True)).then(consumed(100.0, "kg", "lot.exceeded"))


def test_a_late_consumption_before_a_shipment_is_as_it_should_be() -> None:
    since = lot(received).beside("lot:L-1", received, shipped)
    since.when(replace(consume, late=True)).then(consumed(100.0, "kg"))


def test_a_lot_of_which_nothing_is_known_is_not_split_told_late_either() -> None:
    lot().when(replace(split, late=True)).then_rejected(NotFound, "lot.unknown")


def test_a_split_told_late_before_the_reception_takes_its_material_from_now() -> None:
    lot().beside("lot:L-1", received).when(replace(split, late=True)).then(
        LotSplit("L-1", "L-2", 100.0, "kg", None, ("lot.unknown",)),
        LotCreated("L-2", STEEL, 100.0, "kg", None),
    )


# --- the fold -----------------------------------------------------------------------------


def test_the_fold_of_a_life() -> None:
    life = (received, consumed(50.0, "kg"), LotSplit("L-1", "L-2", 0.05, "t"), quarantined)
    assert DECIDER.fold(life) == LotInQuarantine("L-1", STEEL, "t", Fraction(200))
    assert DECIDER.fold((*life, scrapped)) == LotGone(
        "L-1", STEEL, "t", Fraction(0), LotEnd.SCRAPPED
    )


@pytest.mark.parametrize(
    "life",
    [
        (received, received),
        (consumed(1.0, "kg"),),
        (quarantined,),
        (received, consumed(1.0, "l")),
        (received, consumed(-1.0, "kg")),
    ],
)
def test_what_no_order_makes_possible_stops_the_fold(life: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"cannot|-1.0 kg"):
        DECIDER.fold(life)


@given(st.permutations(range(6)))
def test_facts_told_late_leave_the_same_lot_in_whatever_order(order: list[int]) -> None:
    facts = [
        (0, replace(receive, late=True)),
        (1, replace(consume, late=True)),
        (2, replace(consume, quantity=0.1, unit="t", late=True)),
        (3, QuarantineLot("L-1", "inclusions", late=True)),
        (4, ReleaseLot("L-1", "tested", late=True)),
        (5, replace(consume, quantity=30_000.0, unit="g", late=True)),
    ]
    log = MemoryLog()
    log.record(RUN_STREAM, started, 0)
    for index in order:
        minute, command = facts[index]
        log.ask(command, minute)
    assert log.state("lot:L-1") == LotInStock("L-1", STEEL, "t", Fraction(70))


# --- the thread ---------------------------------------------------------------------------


def test_what_lots_say_to_the_thread() -> None:
    lot_1, lot_2 = "lot:L-1", "lot:L-2"
    certified = Link(LinkKind.CERTIFIED, "document:CERT-1@A", lot_1)
    assert received.thread() == (Standing(lot_1, NodeState.IN_STOCK), certified)
    assert consumed(5.0, "kg").thread() == (
        Link(LinkKind.CONSUMED_BY, lot_1, RUN_STREAM, 5.0, "kg"),
    )
    produced = Link(LinkKind.PRODUCED, RUN_STREAM, lot_2, 5.0, "kg")
    assert replace(other, run_id=RUN).thread()[1] == produced
    split_off = LotSplit("L-1", "L-2", 5.0, "kg")
    assert split_off.thread() == (Link(LinkKind.SPLIT_INTO, lot_1, lot_2, 5.0, "kg"),)
    assert merged.thread() == (
        Link(LinkKind.MERGED_INTO, lot_1, lot_2, 300.0, "kg"),
        Standing(lot_1, NodeState.CONSUMED),
    )
    assert shipped.thread() == (
        Link(LinkKind.SHIPPED_IN, lot_1, "shipment:S-1"),
        Standing("shipment:S-1", NodeState.COMPLETED),
        Standing(lot_1, NodeState.SHIPPED),
    )
