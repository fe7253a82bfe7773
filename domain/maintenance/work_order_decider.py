"""What a command does to a work order, and what its events make of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, assert_never, get_args

from domain.asset import asset_stream
from domain.asset_decider import registered_asset
from domain.deciders import Decider, Others
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.events import format_time
from domain.identifiers import IDENTIFIER_LENGTH_MAX, check_identifier
from domain.maintenance.money import check_money
from domain.maintenance.work_order import (
    Approved,
    ApproveWorkOrder,
    Cancelled,
    CancelWorkOrder,
    Completed,
    CompleteWorkOrder,
    Finding,
    OpenWorkOrder,
    Paused,
    PauseWorkOrder,
    Replacement,
    Requested,
    RequestWorkOrder,
    ResumeWorkOrder,
    ScheduleWorkOrder,
    StartWorkOrder,
    UnderWay,
    Unrequested,
    WorkOrder,
    WorkOrderApproved,
    WorkOrderCancelled,
    WorkOrderCommand,
    WorkOrderCompleted,
    WorkOrderEvent,
    WorkOrderPaused,
    WorkOrderRequested,
    WorkOrderResumed,
    WorkOrderScheduled,
    WorkOrderStarted,
    work_order_stream,
)
from domain.plant.component import Unregistered as UnregisteredComponent
from domain.plant.component import component_stream, unknown_component
from domain.texts import TITLE_LENGTH_MAX, check_note, check_text

CAUSES: Final = ("alert", "prediction", "failure", "nonconformance", "inspection")
"""Categories of the streams that may lead to a work order."""

REPLACEMENTS_MAX: Final = 64


# --- decisions ----------------------------------------------------------------------------


def decide(
    command: WorkOrderCommand, work_order: WorkOrder, others: Others
) -> tuple[WorkOrderEvent, ...]:
    """Return the events `command` causes on `work_order`.

    Parameters
    ----------
    others : the asset and the component that `looks_at` names

    Raises
    ------
    CommandRejected
        ``work_order.already_requested``, ``work_order.ended``, ``work_order.illegal_transition``,
        ``asset.retired``
    NotFound
        ``work_order.unknown``, ``asset.unknown``, ``component.unknown``
    InvalidInput
        ``work_order.malformed_name``, ``work_order.malformed_cause``,
        ``work_order.plan_out_of_order``, ``work_order.failure_mode_missing``,
        ``work_order.failure_mode_unwanted``, ``work_order.labour_out_of_range``,
        ``work_order.too_many_replacements``, ``work_order.empty_replacement``,
        ``work_order.failed_after_completion``, ``currency.missing``, ``currency.unwanted``,
        ``currency.unknown``, ``money.out_of_range``, ``failure_mode.malformed_name``,
        ``slot.malformed_name``, ``component.malformed_name``, ``text.empty``, ``text.too_long``,
        ``event.naive_time``
    """
    if isinstance(command, RequestWorkOrder):
        return _request(command, work_order, others)
    match work_order:
        case Unrequested():
            raise unknown_work_order(command.work_order_id)
        case Completed() | Cancelled():
            raise ended_work_order(work_order)
        case Requested() | Approved() | UnderWay() | Paused():
            return (_decide_open(command, work_order),)
        case _:
            assert_never(work_order)


def unknown_work_order(work_order_id: str) -> NotFound:
    """Return the error for a work order that nobody requested."""
    return NotFound(
        "work_order.unknown",
        f"work order {work_order_id!r} was not requested",
        hint="request it first, or check the name",
        value=work_order_id,
    )


def ended_work_order(work_order: Completed | Cancelled) -> CommandRejected:
    """Return the error for whatever is asked of a work order that has ended."""
    work_order_id, ended_as = work_order.order.work_order_id, type(work_order).__name__.upper()
    return CommandRejected(
        "work_order.ended",
        f"work order {work_order_id!r} has ended: {ended_as}",
        hint="correct its completion, or request another one",
        value=work_order_id,
        limit=ended_as,
    )


def _request(
    command: RequestWorkOrder, work_order: WorkOrder, others: Others
) -> tuple[WorkOrderEvent, ...]:
    check_identifier("work_order", command.work_order_id)
    title = check_text("title", command.title, TITLE_LENGTH_MAX)
    _check_mode(command.failure_mode)
    if command.cause is not None:
        _check_cause(command.cause)
    if not isinstance(work_order, Unrequested):
        raise CommandRejected(
            "work_order.already_requested",
            f"work order {command.work_order_id!r} was requested already",
            hint="choose another name; a work order is requested once",
            value=command.work_order_id,
        )
    registered_asset(command.asset_id, others)
    if command.component_id is not None:
        component = others.get(component_stream(command.component_id), UnregisteredComponent())
        if isinstance(component, UnregisteredComponent):
            raise unknown_component(command.component_id)
    return (WorkOrderRequested(**{**vars(command), "title": title}),)


def _check_mode(failure_mode: str | None) -> None:
    if failure_mode is not None:
        check_identifier("failure_mode", failure_mode)


def _check_cause(cause: str) -> None:
    category, _, name = cause.partition(":")
    if category not in CAUSES or not name or len(name) > IDENTIFIER_LENGTH_MAX:
        raise InvalidInput(
            "work_order.malformed_cause",
            f"{cause!r:.100} is nothing that leads to a work order",
            hint=f"a stream of {', '.join(CAUSES)}, such as 'alert:ID'",
            value=cause[:100],
            limit=list(CAUSES),
        )


def _decide_open(
    command: ApproveWorkOrder
    | ScheduleWorkOrder
    | StartWorkOrder
    | PauseWorkOrder
    | ResumeWorkOrder
    | CompleteWorkOrder
    | CancelWorkOrder,
    work_order: OpenWorkOrder,
) -> WorkOrderEvent:
    work_order_id = work_order.order.work_order_id
    match command, work_order:
        case ApproveWorkOrder(note=note), Requested():
            return WorkOrderApproved(work_order_id, check_note("note", note))
        case ScheduleWorkOrder(), Requested() | Approved():
            _check_plan(command)
            return WorkOrderScheduled(**vars(command))
        case StartWorkOrder(asset_down=asset_down), Approved():
            return WorkOrderStarted(work_order_id, asset_down)
        case PauseWorkOrder(reason=reason), UnderWay():
            return WorkOrderPaused(work_order_id, check_text("reason", reason))
        case ResumeWorkOrder(), Paused():
            return WorkOrderResumed(work_order_id)
        case CompleteWorkOrder(), UnderWay() | Paused():
            return _complete(command)
        case CancelWorkOrder(reason=reason), _:
            return WorkOrderCancelled(work_order_id, check_text("reason", reason))
        case _:
            stands = type(work_order).__name__
            raise CommandRejected(
                "work_order.illegal_transition",
                f"work order {work_order_id!r} is {stands}: {type(command).__name__} does not "
                "follow from that",
                hint=f"it takes {', '.join(_FOLLOWS[type(work_order)])}",
                value=stands,
                limit=list(_FOLLOWS[type(work_order)]),
            )


_FOLLOWS: Final[Mapping[type, tuple[str, ...]]] = {
    Requested: ("ApproveWorkOrder", "ScheduleWorkOrder", "CancelWorkOrder"),
    Approved: ("ScheduleWorkOrder", "StartWorkOrder", "CancelWorkOrder"),
    UnderWay: ("PauseWorkOrder", "CompleteWorkOrder", "CancelWorkOrder"),
    Paused: ("ResumeWorkOrder", "CompleteWorkOrder", "CancelWorkOrder"),
}


def _check_plan(command: ScheduleWorkOrder) -> None:
    start, end = format_time(command.planned_start), format_time(command.planned_end)
    if command.planned_start >= command.planned_end:
        raise InvalidInput(
            "work_order.plan_out_of_order",
            f"a plan from {start} to {end} ends before it begins",
            value=end,
            limit=start,
        )
    if command.assignee is not None:
        check_text("assignee", command.assignee, TITLE_LENGTH_MAX)


def _complete(command: CompleteWorkOrder) -> WorkOrderCompleted:
    _check_finding(command)
    _check_labour(command.labour_s)
    check_money("cost", command.cost, command.currency)
    _check_failed_at(command)
    _check_replacements(command.replacements)
    check_note("note", command.note)
    said = {name: value for name, value in vars(command).items() if name != "completed_at"}
    return WorkOrderCompleted(**said)


def _check_finding(command: CompleteWorkOrder) -> None:
    _check_mode(command.failure_mode)
    if command.finding is Finding.FAILURE_CONFIRMED:
        if command.failure_mode is None:
            raise InvalidInput(
                "work_order.failure_mode_missing",
                "a confirmed failure has a failure mode, and none is given",
                hint="name the failure mode that was found",
                value=command.finding,
            )
    elif command.failure_mode is not None or command.failed_at is not None:
        raise InvalidInput(
            "work_order.failure_mode_unwanted",
            f"{command.finding} has neither a failure mode nor a time of failure",
            hint="leave them out, or say FAILURE_CONFIRMED",
            value=command.failure_mode or format_time(command.failed_at or command.completed_at),
            limit=command.finding,
        )


def _check_labour(labour_s: float) -> None:
    # Written so that NaN fails too.
    if not 0 <= labour_s < math.inf:
        raise InvalidInput(
            "work_order.labour_out_of_range",
            f"labour of {labour_s} s is no amount",
            hint="a finite number of seconds that is not negative",
            value=labour_s,
            limit=0,
        )


def _check_failed_at(command: CompleteWorkOrder) -> None:
    completed = format_time(command.completed_at)
    if command.failed_at is not None:
        failed = format_time(command.failed_at)
        if command.failed_at > command.completed_at:
            raise InvalidInput(
                "work_order.failed_after_completion",
                f"a failure at {failed} lies after the work on it ended, at {completed}",
                value=failed,
                limit=completed,
            )


def _check_replacements(replacements: Sequence[Replacement]) -> None:
    if len(replacements) > REPLACEMENTS_MAX:
        raise InvalidInput(
            "work_order.too_many_replacements",
            f"{len(replacements)} replacements, more than {REPLACEMENTS_MAX}",
            hint="split the work into several orders",
            value=len(replacements),
            limit=REPLACEMENTS_MAX,
        )
    for replacement in replacements:
        check_identifier("slot", replacement.slot)
        named = [
            component_id
            for component_id in (
                replacement.removed_component_id,
                replacement.installed_component_id,
            )
            if component_id is not None
        ]
        for component_id in named:
            check_identifier("component", component_id)
        if not named:
            raise InvalidInput(
                "work_order.empty_replacement",
                f"nothing was taken out of slot {replacement.slot!r} and nothing put in",
                hint="name the component that was removed, installed, or both",
                value=replacement.slot,
            )


def looks_at(command: WorkOrderCommand, _work_order: WorkOrder, _others: Others) -> tuple[str, ...]:
    """Return the streams of the asset and the component that work is asked for."""
    if not isinstance(command, RequestWorkOrder):
        return ()
    asset = asset_stream(command.asset_id)
    if command.component_id is None:
        return (asset,)
    return asset, component_stream(command.component_id)


# --- fold ---------------------------------------------------------------------------------


def evolve(work_order: WorkOrder, event: WorkOrderEvent) -> WorkOrder:
    """Return what `event` makes of `work_order`.

    Raises
    ------
    ValueError
        it cannot happen to it
    """
    match work_order, event:
        case Unrequested(), WorkOrderRequested():
            return Requested(event)
        case Requested(order, planned_start), WorkOrderApproved():
            return Approved(order, planned_start)
        case Requested() | Approved(), WorkOrderScheduled(planned_start=planned_start):
            return replace(work_order, planned_start=planned_start)
        case Approved(order), WorkOrderStarted():
            return UnderWay(order)
        case UnderWay(order), WorkOrderPaused():
            return Paused(order)
        case Paused(order), WorkOrderResumed():
            return UnderWay(order)
        case UnderWay(order) | Paused(order), WorkOrderCompleted():
            return Completed(order, event.finding, event.failure_mode)
        case Requested(order) | Approved(order) | UnderWay(order) | Paused(order), (
            WorkOrderCancelled()
        ):
            return Cancelled(order)
        case _:
            raise ValueError(
                f"{type(event).__name__} cannot happen to a work order that is "
                f"{type(work_order).__name__}"
            )


DECIDER: Final[Decider[WorkOrderCommand, WorkOrder, WorkOrderEvent]] = Decider(
    category="work-order",
    command_types=get_args(WorkOrderCommand),
    initial=Unrequested(),
    decide=decide,
    evolve=evolve,
    subject=lambda command: work_order_stream(command.work_order_id),
    stream_of=lambda event: work_order_stream(event.work_order_id),
    looks_at=looks_at,
    happened_at=lambda command: (
        command.completed_at if isinstance(command, CompleteWorkOrder) else None
    ),
)
