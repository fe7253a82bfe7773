"""Work orders: each step follows from where they stand, and an end is an end."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from domain.asset import AssetRegistered, AssetRetired
from domain.asset_decider import DECIDER as ASSETS
from domain.errors import CommandRejected, HeddleError, InvalidInput, NotFound
from domain.maintenance.work_order import (
    Approved,
    ApproveWorkOrder,
    Cancelled,
    CancelWorkOrder,
    Completed,
    CompleteWorkOrder,
    Finding,
    Paused,
    PauseWorkOrder,
    Priority,
    Replacement,
    Requested,
    RequestWorkOrder,
    ResumeWorkOrder,
    ScheduleWorkOrder,
    StartWorkOrder,
    UnderWay,
    Unrequested,
    WorkOrderApproved,
    WorkOrderCancelled,
    WorkOrderCompleted,
    WorkOrderEvent,
    WorkOrderPaused,
    WorkOrderRequested,
    WorkOrderResumed,
    WorkOrderScheduled,
    WorkOrderStarted,
)
from domain.maintenance.work_order_decider import DECIDER, REPLACEMENTS_MAX
from domain.plant.component import ComponentRegistered
from domain.thread import Link, LinkKind, NodeState, Standing
from tests.domain.specification import Given, given_of

NOON = datetime(2026, 3, 9, 12, 0, tzinfo=UTC)
LOOP = AssetRegistered("loop-1", "skab-pump-loop", "Loop 1")
REQUEST = RequestWorkOrder(
    work_order_id="WO-1",
    asset_id="loop-1",
    component_id=None,
    title="Replace the drive end bearing",
    failure_mode="bearing_wear",
    priority=Priority.HIGH,
    cause="prediction:P-7",
)
REQUESTED = WorkOrderRequested(**vars(REQUEST))
APPROVED = WorkOrderApproved("WO-1", "")
STARTED = WorkOrderStarted("WO-1", asset_down=True)
PAUSED = WorkOrderPaused("WO-1", "waits for the bearing")
DONE = CompleteWorkOrder(
    work_order_id="WO-1",
    completed_at=NOON,
    finding=Finding.FAILURE_CONFIRMED,
    failure_mode="bearing_wear",
    failed_at=NOON - timedelta(hours=5),
    replacements=(Replacement("drive_end", "BRG-1", "BRG-2"),),
    labour_s=5400.0,
    cost=412.5,
    currency="EUR",
    note="inner ring spalled",
)
COMPLETED = WorkOrderCompleted(**{k: v for k, v in vars(DONE).items() if k != "completed_at"})
CANCELLED = WorkOrderCancelled("WO-1", "the line is shut down")


def given(*events: WorkOrderEvent) -> Given:
    return given_of(DECIDER, *events).beside("asset:loop-1", LOOP)


# --- from request to end ------------------------------------------------------------------


def test_work_is_requested_of_a_known_asset() -> None:
    given().when(REQUEST).then(REQUESTED)
    given_of(DECIDER).when(REQUEST).then_rejected(NotFound, "asset.unknown", "loop-1")
    retired = given_of(DECIDER).beside("asset:loop-1", LOOP, AssetRetired("loop-1", "sold"))
    retired.when(REQUEST).then_rejected(CommandRejected, "asset.retired", "loop-1")


def test_work_is_requested_of_a_known_component() -> None:
    on_bearing = replace(REQUEST, component_id="BRG-1")
    given().when(on_bearing).then_rejected(NotFound, "component.unknown", "BRG-1")
    bearing = ComponentRegistered("BRG-1", "bearing", "Drive end bearing", None)
    given().beside("component:BRG-1", bearing).when(on_bearing).then(
        WorkOrderRequested(**vars(on_bearing))
    )


def test_a_work_order_is_requested_once() -> None:
    for past in ([REQUESTED], [REQUESTED, CANCELLED]):
        given(*past).when(REQUEST).then_rejected(
            CommandRejected, "work_order.already_requested", "WO-1"
        )


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("work_order_id", "WO 1", "work_order.malformed_name"),
        ("title", "  ", "text.empty"),
        ("title", "x" * 201, "text.too_long"),
        ("failure_mode", "bearing wear", "failure_mode.malformed_name"),
        ("cause", "weather:rain", "work_order.malformed_cause"),
        ("cause", "alert:", "work_order.malformed_cause"),
        ("cause", "prediction:" + "x" * 65, "work_order.malformed_cause"),
    ],
)
def test_a_malformed_request_is_refused(field: str, value: str, code: str) -> None:
    changes: dict[str, Any] = {field: value}
    given().when(replace(REQUEST, **changes)).then_rejected(InvalidInput, code)


def test_nothing_can_be_done_about_an_order_that_nobody_requested() -> None:
    given().when(ApproveWorkOrder("WO-1")).then_rejected(NotFound, "work_order.unknown", "WO-1")


def test_an_order_goes_from_request_to_completion() -> None:
    plan = ScheduleWorkOrder("WO-1", NOON, NOON + timedelta(hours=4), "team-a")
    scheduled = WorkOrderScheduled(**vars(plan))
    given(REQUESTED).when(plan).then(scheduled)
    given(REQUESTED, scheduled).when(ApproveWorkOrder("WO-1", "go")).then(
        WorkOrderApproved("WO-1", "go")
    )
    given(REQUESTED, APPROVED).when(plan).then(scheduled)
    given(REQUESTED, APPROVED, scheduled).when(StartWorkOrder("WO-1", asset_down=True)).then(
        STARTED
    )
    given(REQUESTED, APPROVED, STARTED).when(PauseWorkOrder("WO-1", PAUSED.reason)).then(PAUSED)
    given(REQUESTED, APPROVED, STARTED, PAUSED).when(ResumeWorkOrder("WO-1")).then(
        WorkOrderResumed("WO-1")
    )
    given(REQUESTED, APPROVED, STARTED).when(DONE).then(COMPLETED)
    given(REQUESTED, APPROVED, STARTED, PAUSED).when(DONE).then(COMPLETED)
    given(REQUESTED).when(CancelWorkOrder("WO-1", CANCELLED.reason)).then(CANCELLED)


def test_a_plan_survives_its_approval() -> None:
    scheduled = WorkOrderScheduled("WO-1", NOON, NOON + timedelta(hours=1), None)
    assert DECIDER.fold([REQUESTED, scheduled, APPROVED]) == Approved(REQUESTED, NOON)


@pytest.mark.parametrize("start", [NOON, NOON + timedelta(seconds=1)])
def test_a_plan_ends_after_it_begins(start: datetime) -> None:
    backwards = ScheduleWorkOrder("WO-1", start, NOON)
    given(REQUESTED).when(backwards).then_rejected(InvalidInput, "work_order.plan_out_of_order")


def test_a_plan_has_a_time_zone() -> None:
    naive = ScheduleWorkOrder("WO-1", NOON.replace(tzinfo=None), NOON)
    given(REQUESTED).when(naive).then_rejected(InvalidInput, "event.naive_time")


def test_a_plan_across_time_zones_is_compared_in_time() -> None:
    tokyo = (NOON + timedelta(hours=1)).astimezone(timezone(timedelta(hours=9)))
    plan = ScheduleWorkOrder("WO-1", NOON, tokyo)
    given(REQUESTED).when(plan).then(WorkOrderScheduled(**vars(plan)))


@pytest.mark.parametrize("command", [DONE, CancelWorkOrder("WO-1", "no"), ApproveWorkOrder("WO-1")])
def test_nothing_follows_an_end(command: Any) -> None:
    completed = given(REQUESTED, APPROVED, STARTED, COMPLETED)
    completed.when(command).then_rejected(CommandRejected, "work_order.ended", "WO-1")
    given(REQUESTED, CANCELLED).when(command).then_rejected(CommandRejected, "work_order.ended")


def test_a_refused_step_says_where_the_order_stands_and_what_it_takes() -> None:
    with pytest.raises(CommandRejected) as refused:
        DECIDER.decide(StartWorkOrder("WO-1", asset_down=False), Requested(REQUESTED), {})
    assert refused.value.value == "Requested"
    assert refused.value.limit == ["ApproveWorkOrder", "ScheduleWorkOrder", "CancelWorkOrder"]


# --- completion ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"failure_mode": None}, "work_order.failure_mode_missing"),
        ({"finding": Finding.NO_FAULT_FOUND}, "work_order.failure_mode_unwanted"),
        ({"finding": Finding.NOT_APPLICABLE}, "work_order.failure_mode_unwanted"),
        (
            {"finding": Finding.NO_FAULT_FOUND, "failure_mode": None},
            "work_order.failure_mode_unwanted",
        ),
        ({"failure_mode": "a b"}, "failure_mode.malformed_name"),
        ({"labour_s": -1.0}, "work_order.labour_out_of_range"),
        ({"labour_s": math.nan}, "work_order.labour_out_of_range"),
        ({"labour_s": math.inf}, "work_order.labour_out_of_range"),
        ({"cost": -0.01}, "money.out_of_range"),
        ({"cost": math.nan}, "money.out_of_range"),
        ({"currency": None}, "currency.missing"),
        ({"cost": None}, "currency.unwanted"),
        ({"currency": "eur"}, "currency.unknown"),
        ({"currency": "DEM"}, "currency.unknown"),
        ({"failed_at": NOON + timedelta(microseconds=1)}, "work_order.failed_after_completion"),
        ({"failed_at": NOON.replace(tzinfo=None)}, "event.naive_time"),
        ({"completed_at": NOON.replace(tzinfo=None)}, "event.naive_time"),
        ({"replacements": (Replacement("s", None, None),)}, "work_order.empty_replacement"),
        ({"replacements": (Replacement("a b", "x", None),)}, "slot.malformed_name"),
        ({"replacements": (Replacement("s", "a b", None),)}, "component.malformed_name"),
        (
            {"replacements": (Replacement("s", "x", None),) * (REPLACEMENTS_MAX + 1)},
            "work_order.too_many_replacements",
        ),
        ({"note": "x" * 2001}, "text.too_long"),
    ],
)
def test_a_completion_that_contradicts_itself_is_refused(
    changes: dict[str, Any], code: str
) -> None:
    under_way = given(REQUESTED, APPROVED, STARTED)
    under_way.when(replace(DONE, **changes)).then_rejected(InvalidInput, code)


def test_no_fault_found_has_no_failure_mode_and_may_be_free_of_charge() -> None:
    nothing = {"failure_mode": None, "failed_at": None, "cost": None, "currency": None}
    for finding in (Finding.NO_FAULT_FOUND, Finding.NOT_APPLICABLE):
        given(REQUESTED, APPROVED, STARTED).when(
            replace(DONE, finding=finding, labour_s=0.0, **nothing)  # type: ignore[arg-type]
        ).then(replace(COMPLETED, finding=finding, labour_s=0.0, **nothing))  # type: ignore[arg-type]


def test_a_failure_may_be_noticed_as_the_work_ends() -> None:
    at_the_end = replace(DONE, failed_at=NOON)
    given(REQUESTED, APPROVED, STARTED).when(at_the_end).then(replace(COMPLETED, failed_at=NOON))


# --- what corrections leave ---------------------------------------------------------------


@pytest.mark.parametrize(
    "history",
    [
        [APPROVED],
        [REQUESTED, STARTED],
        [REQUESTED, REQUESTED],
        [REQUESTED, APPROVED, COMPLETED],
        [REQUESTED, APPROVED, STARTED, WorkOrderResumed("WO-1")],
        [REQUESTED, APPROVED, STARTED, COMPLETED, CANCELLED],
        [REQUESTED, CANCELLED, CANCELLED],
    ],
)
def test_a_history_with_a_step_corrected_away_is_no_history(history: list[WorkOrderEvent]) -> None:
    with pytest.raises(ValueError, match="cannot happen to a work order"):
        DECIDER.fold(history)


# --- the thread ---------------------------------------------------------------------------


def test_an_order_is_tied_to_its_cause_and_to_what_it_services() -> None:
    request = replace(REQUESTED, component_id="BRG-1")
    assert set(request.thread()) == {
        Standing("work-order:WO-1", NodeState.ACTIVE),
        Link(LinkKind.LED_TO, "prediction:P-7", "work-order:WO-1"),
        Link(LinkKind.SERVICED, "work-order:WO-1", "asset:loop-1"),
        Link(LinkKind.SERVICED, "work-order:WO-1", "component:BRG-1"),
    }
    assert COMPLETED.thread() == (Standing("work-order:WO-1", NodeState.COMPLETED),)
    assert CANCELLED.thread() == (Standing("work-order:WO-1", NodeState.ABORTED),)


# --- against a simple model ---------------------------------------------------------------

STEPS: dict[str, Any] = {
    "request": REQUEST,
    "approve": ApproveWorkOrder("WO-1"),
    "schedule": ScheduleWorkOrder("WO-1", NOON, NOON + timedelta(hours=4)),
    "start": StartWorkOrder("WO-1", asset_down=False),
    "pause": PauseWorkOrder("WO-1", "lunch"),
    "resume": ResumeWorkOrder("WO-1"),
    "complete": DONE,
    "cancel": CancelWorkOrder("WO-1", "not needed"),
}
TABLE: dict[str, dict[str, str]] = {
    "": {"request": "requested"},
    "requested": {"approve": "approved", "schedule": "requested", "cancel": "cancelled"},
    "approved": {"start": "under way", "schedule": "approved", "cancel": "cancelled"},
    "under way": {"pause": "paused", "complete": "completed", "cancel": "cancelled"},
    "paused": {"resume": "under way", "complete": "completed", "cancel": "cancelled"},
    "completed": {},
    "cancelled": {},
}
"""What a work order is, as a table: from where, by which step, to where."""

STATES: dict[type, str] = {
    Unrequested: "",
    Requested: "requested",
    Approved: "approved",
    UnderWay: "under way",
    Paused: "paused",
    Completed: "completed",
    Cancelled: "cancelled",
}


def refusal(state: str, step: str) -> str:
    if step == "request":
        return "work_order.already_requested"
    if state == "":
        return "work_order.unknown"
    ended = state in ("completed", "cancelled")
    return "work_order.ended" if ended else "work_order.illegal_transition"


class WorkOrderMachine(RuleBasedStateMachine):
    """Any steps in any order: the decider and the table agree on each."""

    @initialize()
    def begin(self) -> None:
        self.state = ""
        self.history: list[WorkOrderEvent] = []
        self.others = {"asset:loop-1": ASSETS.fold([LOOP])}

    @rule(step=st.sampled_from(sorted(STEPS)))
    def take(self, step: str) -> None:
        work_order = DECIDER.fold(self.history)
        following = TABLE[self.state].get(step)
        if following is None:
            with pytest.raises(HeddleError) as refused:
                DECIDER.decide(STEPS[step], work_order, self.others)
            assert refused.value.code == refusal(self.state, step)
        else:
            self.history += DECIDER.decide(STEPS[step], work_order, self.others)
            self.state = following
        assert STATES[type(DECIDER.fold(self.history))] == self.state


TestWorkOrderMachine = WorkOrderMachine.TestCase
