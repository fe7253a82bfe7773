"""A part's life: where it stands, what it is inside of, and what is refused or flagged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.material.lot import LotQuarantined, LotReceived
from domain.material.part import (
    AssemblePart,
    CreatePart,
    PartAssembled,
    PartCreated,
    PartFailureReported,
    PartProcessed,
    PartQuarantined,
    PartReceived,
    PartReleased,
    PartRemoved,
    PartReturned,
    PartReworked,
    PartScrapped,
    PartShipped,
    PartStanding,
    PartStocked,
    ProcessPart,
    QuarantinePart,
    ReceivePart,
    ReleasePart,
    RemovePart,
    ReportPartFailure,
    ReturnPart,
    ReworkPart,
    ScrapPart,
    ShipPart,
    StockPart,
)
from domain.material.part_decider import DECIDER, Part, UnknownPart
from domain.material.process_run import ProcessRunCompleted, ProcessRunStarted
from domain.thread import Link, LinkEnd, LinkKind, NodeState, Standing
from tests.domain.specification import Given, given_of

RUN = "RUN-1"
started = ProcessRunStarted(RUN, "lathe-2", "turn", None, None, None, None, ())

created = PartCreated("SN-1", "SHAFT", "DRW-7@B", RUN, None)
stocked = PartStocked("SN-1")
assembled = PartAssembled("SN-1", "SN-9", "shaft")
quarantined = PartQuarantined("SN-1", "runout", None)
scrapped = PartScrapped("SN-1", "crack")
shipped = PartShipped("SN-1", "S-1", "Ulm")
returned = PartReturned("SN-1", "vibration")
failed = PartFailureReported("SN-1", "F-1", "crack", "")
removed = PartRemoved("SN-1", "SN-9", "worn")

host = PartCreated("SN-9", "PUMP", None, None, None)
host_shipped = PartShipped("SN-9", "S-1", "Ulm")

process = ProcessPart("SN-1", RUN)
stock = StockPart("SN-1")
assemble = AssemblePart("SN-1", "SN-9", "shaft")
remove = RemovePart("SN-1", "SN-9", "worn")
rework = ReworkPart("SN-1", RUN)
quarantine = QuarantinePart("SN-1", "runout")
release = ReleasePart("SN-1", "measured")
scrap = ScrapPart("SN-1", "crack")
ship = ShipPart("SN-1", "S-1", "Ulm")
take_back = ReturnPart("SN-1", "vibration")
report_failure = ReportPartFailure("SN-1", "F-1", "crack", "")

EVERY_CHANGE: tuple[Any, ...] = (
    process,
    stock,
    assemble,
    remove,
    rework,
    quarantine,
    release,
    scrap,
    ship,
    take_back,
    report_failure,
)


def part(*events: Any) -> Given:
    """Start from a part with a past, beside a run that began and a part to put it in."""
    return (
        given_of(DECIDER, *events)
        .beside(f"process-run:{RUN}", started)
        .beside("part:SN-9", host)
        .beside("part:SN-1", *events)
    )


# --- beginning ----------------------------------------------------------------------------


def test_a_part_is_made_by_a_run_to_a_design() -> None:
    part().when(CreatePart("SN-1", "SHAFT", "DRW-7@B", RUN)).then(created)


def test_a_part_is_made_of_a_lot_that_may_be_used() -> None:
    of_lot = CreatePart("SN-1", "SHAFT", lot_id="L-1")
    received = LotReceived("L-1", "steel", 1.0, "kg", "S", "1", None)
    lot = part().beside("lot:L-1", received)
    lot.when(of_lot).then(PartCreated("SN-1", "SHAFT", None, None, "L-1"))
    held = part().beside("lot:L-1", received, LotQuarantined("L-1", "rust", None))
    held.when(of_lot).then_rejected(CommandRejected, "lot.quarantined", "L-1")
    held.when(replace(of_lot, late=True)).then(
        PartCreated("SN-1", "SHAFT", None, None, "L-1", ("lot.quarantined",))
    )
    part().when(of_lot).then_rejected(NotFound, "lot.unknown", "L-1")


def test_a_part_is_received_from_a_supplier() -> None:
    part().when(ReceivePart("SN-1", "6206-2RS", "SKF", "CERT-1@A")).then(
        PartReceived("SN-1", "6206-2RS", "SKF", "CERT-1@A")
    )


@pytest.mark.parametrize("late", [False, True])
def test_a_serial_number_names_one_part(late: bool) -> None:
    for command in (CreatePart("SN-1", "SHAFT"), ReceivePart("SN-1", "SHAFT", "SKF")):
        part(created).when(replace(command, late=late)).then_rejected(
            CommandRejected, "part.already_known", "SN-1"
        )


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (CreatePart("SN-1", " "), "text.empty"),
        (CreatePart("SN-1", "SHAFT", "DRW-7"), "document.malformed_revision_name"),
        (CreatePart("SN-1", "SHAFT", None, "RUN 1"), "process_run.malformed_name"),
        (CreatePart("SN-1", "SHAFT", None, None, "L 1"), "lot.malformed_name"),
        (ReceivePart("SN-1", "SHAFT", "SKF", "@A"), "document.malformed_name"),
        (replace(assemble, into_part_id="SN 9"), "part.malformed_name"),
        (replace(assemble, slot=""), "text.empty"),
        (replace(remove, from_part_id="SN 9"), "part.malformed_name"),
        (replace(rework, nonconformance_id="NC 1"), "nonconformance.malformed_name"),
        (replace(ship, shipment_id="S 1"), "shipment.malformed_name"),
        (replace(report_failure, failure_id="F 1"), "failure.malformed_name"),
        (replace(report_failure, failure_mode=""), "text.empty"),
        (replace(report_failure, description="x" * 2_001), "text.too_long"),
        (replace(quarantine, cause="rumour"), "node.unknown_category"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_malformed_input_is_refused_told_late_or_not(command: Any, code: str, late: bool) -> None:
    past = () if isinstance(command, CreatePart | ReceivePart) else (created,)
    part(*past).when(replace(command, late=late)).then_rejected(InvalidInput, code)


@pytest.mark.parametrize("command", EVERY_CHANGE, ids=lambda c: type(c).__name__)
def test_nothing_happens_to_a_part_that_nobody_knows(command: Any) -> None:
    part().when(command).then_rejected(NotFound, "part.unknown", "SN-1")
    events = part().when(replace(command, late=True))._decide()
    assert "part.unknown" in events[0].flags


# --- where a part stands ------------------------------------------------------------------

IN_PROCESS = (created,)
IN_STOCK = (created, stocked)
ASSEMBLED = (created, assembled)
QUARANTINED = (created, quarantined)
SCRAPPED = (created, scrapped)
SHIPPED = (created, shipped)
RETURNED = (created, shipped, returned)
FAILED = (created, shipped, failed)

PASTS = {
    "in_process": IN_PROCESS,
    "in_stock": IN_STOCK,
    "assembled": ASSEMBLED,
    "quarantined": QUARANTINED,
    "scrapped": SCRAPPED,
    "shipped": SHIPPED,
    "returned": RETURNED,
    "failed": FAILED,
}

ACCEPTED: dict[Any, set[str]] = {
    process: {"in_process", "in_stock"},
    stock: {"in_process", "in_stock", "returned"},
    assemble: {"in_process", "in_stock"},
    remove: {"assembled"},
    rework: {"in_process", "in_stock", "returned"},
    replace(rework, nonconformance_id="NC-1"): {
        "in_process",
        "in_stock",
        "returned",
        "quarantined",
    },
    quarantine: {
        "in_process",
        "in_stock",
        "assembled",
        "returned",
        "quarantined",
    },
    release: {"quarantined"},
    scrap: {"in_process", "in_stock", "quarantined", "returned", "failed"},
    ship: {"in_process", "in_stock"},
    take_back: {"shipped", "failed"},
    report_failure: {"shipped", "failed"},
}

OWN_CODE: dict[type, str] = {
    RemovePart: "part.not_inside",
    ReleasePart: "part.not_quarantined",
    ReturnPart: "part.not_shipped",
    ReportPartFailure: "part.not_shipped",
}


@pytest.mark.parametrize("standing", PASTS)
@pytest.mark.parametrize("command", ACCEPTED, ids=lambda c: type(c).__name__)
def test_what_a_part_accepts_depends_on_where_it_stands(command: Any, standing: str) -> None:
    asked = part(*PASTS[standing]).when(command)
    if standing in ACCEPTED[command]:
        events = asked._decide()
        assert all(event.flags == () for event in events)
        return
    code = OWN_CODE.get(type(command), f"part.{standing}")
    asked.then_rejected(CommandRejected, code)
    told_late = part(*PASTS[standing]).when(replace(command, late=True))._decide()
    assert code in told_late[0].flags


def test_a_part_that_already_is_so_needs_no_event() -> None:
    part(*IN_STOCK).when(stock).then()
    part(*QUARANTINED).when(quarantine).then()


def test_runs_are_held_against_those_that_began() -> None:
    for command in (process, rework):
        nowhere = given_of(DECIDER, created).beside("part:SN-1", created)
        nowhere.when(command).then_rejected(NotFound, "process_run.unknown", RUN)
        flagged = nowhere.when(replace(command, late=True))._decide()
        assert flagged[0].flags == ("process_run.unknown",)
    after = part(created).beside(f"process-run:{RUN}", started, ProcessRunCompleted(RUN, (), None))
    after.when(process).then(PartProcessed("SN-1", RUN))  # bookings come after the run


# --- assemblies ---------------------------------------------------------------------------


def test_a_part_is_put_into_another_one_once_at_a_time() -> None:
    part(created).when(assemble).then(assembled)
    elsewhere = part(*ASSEMBLED).beside("part:SN-8", PartCreated("SN-8", "X", None, None, None))
    elsewhere.when(replace(assemble, into_part_id="SN-8")).then_rejected(
        CommandRejected, "part.assembled", "SN-1"
    )


def test_a_part_is_taken_out_of_where_it_is() -> None:
    part(*ASSEMBLED).when(remove).then(removed)
    part(*ASSEMBLED).when(replace(remove, from_part_id="SN-8")).then_rejected(
        CommandRejected, "part.not_inside", "SN-8"
    )
    part(*ASSEMBLED, removed).when(assemble).then(assembled)


def test_what_is_put_in_needs_something_to_be_put_into() -> None:
    part(created).beside("part:SN-9").when(assemble).then_rejected(NotFound, "part.unknown", "SN-9")
    for event, code in (
        (PartQuarantined("SN-9", "leak", None), "part.quarantined"),
        (PartScrapped("SN-9", "leak"), "part.scrapped"),
    ):
        part(created).beside("part:SN-9", host, event).when(assemble).then_rejected(
            CommandRejected, code, "SN-9"
        )


def test_a_part_is_never_inside_itself() -> None:
    part(created).when(replace(assemble, into_part_id="SN-1")).then_rejected(
        CommandRejected, "part.cycle", "SN-1"
    )
    deep = (
        part(created)
        .beside("part:SN-9", host, PartAssembled("SN-9", "SN-8", "a"))
        .beside(
            "part:SN-8",
            PartCreated("SN-8", "X", None, None, None),
            PartAssembled("SN-8", "SN-7", "a"),
        )
        .beside(
            "part:SN-7",
            PartCreated("SN-7", "X", None, None, None),
            PartAssembled("SN-7", "SN-1", "a"),
        )
    )
    deep.when(assemble).then_rejected(CommandRejected, "part.cycle", "SN-9")
    flagged = deep.when(replace(assemble, late=True))._decide()
    assert flagged == (replace(assembled, flags=("part.cycle",)),)


def test_a_circle_that_late_facts_closed_is_walked_once() -> None:
    circle = (
        part(created)
        .beside("part:SN-9", host, PartAssembled("SN-9", "SN-8", "a"))
        .beside(
            "part:SN-8",
            PartCreated("SN-8", "X", None, None, None),
            PartAssembled("SN-8", "SN-9", "a", ("part.cycle",)),
        )
    )
    circle.when(assemble).then(assembled)


def test_a_quarantine_outlasts_an_assembly() -> None:
    """What is held stays held when it is taken out, and the thread says so."""
    held = part(*ASSEMBLED, quarantined)
    out = replace(removed, stands=PartStanding.QUARANTINED)
    held.when(remove).then(out)
    assert out.thread()[-1] == Standing("part:SN-1", NodeState.QUARANTINED)
    assert DECIDER.fold((*ASSEMBLED, quarantined, out)) == Part(
        "SN-1", "SHAFT", PartStanding.QUARANTINED
    )
    released = PartReleased("SN-1", "measured", PartStanding.ASSEMBLED)
    held.when(release).then(released)
    assert DECIDER.fold((*ASSEMBLED, quarantined, released)) == DECIDER.fold(ASSEMBLED)
    held.when(scrap).then_rejected(CommandRejected, "part.assembled", "SN-1")


def test_a_release_leads_back_to_where_the_part_was() -> None:
    part(*QUARANTINED).when(release).then(PartReleased("SN-1", "measured", PartStanding.IN_PROCESS))
    part(*IN_STOCK, quarantined).when(release).then(
        PartReleased("SN-1", "measured", PartStanding.IN_STOCK)
    )


def test_rework_out_of_quarantine_names_its_non_conformance() -> None:
    part(*QUARANTINED).when(rework).then_rejected(CommandRejected, "part.quarantined", "SN-1")
    part(*QUARANTINED).when(replace(rework, nonconformance_id="NC-1")).then(
        PartReworked("SN-1", RUN, "NC-1")
    )


# --- in the field -------------------------------------------------------------------------


def test_what_is_inside_a_shipped_part_fails_in_the_field_too() -> None:
    inside = part(*ASSEMBLED)
    inside.when(report_failure).then_rejected(CommandRejected, "part.not_shipped", "SN-1")
    inside.beside("part:SN-9", host, host_shipped).when(report_failure).then(failed)
    deeper = inside.beside("part:SN-9", host, PartAssembled("SN-9", "SN-8", "a")).beside(
        "part:SN-8", PartCreated("SN-8", "X", None, None, None), PartShipped("SN-8", "S-1", "Ulm")
    )
    deeper.when(report_failure).then(failed)


def test_a_failed_part_stays_failed_when_it_is_taken_out() -> None:
    part(*ASSEMBLED, failed).when(remove).then(replace(removed, stands=PartStanding.FAILED))


def test_a_returned_part_is_stocked_again_before_it_is_shipped() -> None:
    part(*RETURNED).when(ship).then_rejected(CommandRejected, "part.returned", "SN-1")
    part(*RETURNED).when(stock).then(stocked)
    part(*RETURNED, stocked).when(ship).then(shipped)


# --- told late, and the fold --------------------------------------------------------------


def test_a_part_assembled_before_it_is_known_is_where_it_was_put() -> None:
    early = replace(assembled, flags=("part.unknown",))
    part().when(replace(assemble, late=True)).then(early)
    assert DECIDER.fold((early,)) == UnknownPart("SN-9")
    assert DECIDER.fold((early, created)) == Part("SN-1", "SHAFT", PartStanding.IN_PROCESS, "SN-9")


def test_a_second_assembly_told_late_is_flagged() -> None:
    part(*ASSEMBLED).when(replace(assemble, late=True)).then(
        replace(assembled, flags=("part.assembled",))
    )


@pytest.mark.parametrize("life", [(created, created), (stocked,), (assembled,)])
def test_what_no_order_makes_possible_stops_the_fold(life: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="cannot happen"):
        DECIDER.fold(life)


def test_every_standing_is_one_of_the_thread() -> None:
    assert {standing.name for standing in PartStanding} <= {state.name for state in NodeState}


# --- the thread ---------------------------------------------------------------------------


@pytest.mark.parametrize("past", PASTS.values(), ids=PASTS)
def test_the_thread_and_the_part_say_the_same_of_where_it_stands(past: tuple[Any, ...]) -> None:
    standings = [item for e in past for item in e.thread() if isinstance(item, Standing)]
    state = DECIDER.fold(past)
    assert isinstance(state, Part)
    assert standings[-1] == Standing("part:SN-1", NodeState[state.standing.name])


def test_what_parts_say_to_the_thread() -> None:
    node = "part:SN-1"
    assert created.thread()[1:] == (
        Link(LinkKind.SPECIFIED, "document:DRW-7@B", node),
        Link(LinkKind.PRODUCED, "process-run:RUN-1", node),
    )
    assert assembled.thread()[0] == Link(LinkKind.ASSEMBLED_INTO, node, "part:SN-9")
    assert removed.thread()[0] == LinkEnd(LinkKind.ASSEMBLED_INTO, node, "part:SN-9")
    assert failed.thread()[0] == Link(LinkKind.FAILED_AS, node, "failure:F-1")
    assert PartReworked("SN-1", RUN, "NC-1").thread() == (
        Link(LinkKind.PROCESSED_BY, node, "process-run:RUN-1"),
        Standing(node, NodeState.IN_PROCESS),
        Link(LinkKind.REWORKED_FOR, "nonconformance:NC-1", "process-run:RUN-1"),
    )
