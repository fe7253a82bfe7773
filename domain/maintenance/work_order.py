"""Work orders: from a request to what was found, done and spent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from domain.asset import asset_stream
from domain.events import event_type
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem


def work_order_stream(work_order_id: str) -> str:
    """Return the stream of a work order."""
    return f"work-order:{work_order_id}"


class Priority(StrEnum):
    """How soon it has to be done."""

    LOW = "LOW"
    NORMAL = "NORMAL"
    HIGH = "HIGH"
    EMERGENCY = "EMERGENCY"


class Finding(StrEnum):
    """What was found of the failure that a work order was opened for."""

    FAILURE_CONFIRMED = "FAILURE_CONFIRMED"
    NO_FAULT_FOUND = "NO_FAULT_FOUND"
    NOT_APPLICABLE = "NOT_APPLICABLE"  # preventive work


@dataclass(frozen=True)
class Replacement:
    """A component taken out and the one put in; either may be None."""

    slot: str
    removed_component_id: str | None
    installed_component_id: str | None


# --- events -------------------------------------------------------------------------------


@event_type("work_order.requested")
@dataclass(frozen=True)
class WorkOrderRequested:
    """Somebody or something wants work done on an asset.

    `cause`: the stream that led to it (``alert:…``, ``prediction:…``, ``failure:…``); None: a
    person's own idea, and the event's actor says whose.
    """

    work_order_id: str
    asset_id: str
    component_id: str | None
    title: str
    failure_mode: str | None
    priority: Priority
    cause: str | None

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return what led to it and what it is about."""
        node = work_order_stream(self.work_order_id)
        items: list[ThreadItem] = [
            Standing(node, NodeState.ACTIVE),
            Link(LinkKind.SERVICED, node, asset_stream(self.asset_id)),
        ]
        if self.component_id is not None:
            items.append(Link(LinkKind.SERVICED, node, f"component:{self.component_id}"))
        if self.cause is not None:
            items.append(Link(LinkKind.LED_TO, self.cause, node))
        return tuple(items)


@event_type("work_order.approved")
@dataclass(frozen=True)
class WorkOrderApproved:
    """It may be done; who approved it is the event's actor."""

    work_order_id: str
    note: str


@event_type("work_order.scheduled")
@dataclass(frozen=True)
class WorkOrderScheduled:
    """It is planned for a time and for somebody."""

    work_order_id: str
    planned_start: datetime
    planned_end: datetime
    assignee: str | None


@event_type("work_order.started")
@dataclass(frozen=True)
class WorkOrderStarted:
    """Work began, at the event's `occurred_at`; `asset_down`: the asset stands still for it."""

    work_order_id: str
    asset_down: bool


@event_type("work_order.paused")
@dataclass(frozen=True)
class WorkOrderPaused:
    """Work rests."""

    work_order_id: str
    reason: str


@event_type("work_order.resumed")
@dataclass(frozen=True)
class WorkOrderResumed:
    """Work goes on."""

    work_order_id: str


@event_type("work_order.completed")
@dataclass(frozen=True)
class WorkOrderCompleted:
    """Work is done. A confirmed failure mode is the ground truth that learning uses.

    Parameters
    ----------
    failed_at : when the failure happened, where that is known to have been before the work
    labour_s : working time, s
    cost, currency : what it cost; ISO 4217
    """

    work_order_id: str
    finding: Finding
    failure_mode: str | None
    failed_at: datetime | None
    replacements: tuple[Replacement, ...]
    labour_s: float
    cost: float | None
    currency: str | None
    note: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(work_order_stream(self.work_order_id), NodeState.COMPLETED),)


@event_type("work_order.cancelled")
@dataclass(frozen=True)
class WorkOrderCancelled:
    """It will not be done."""

    work_order_id: str
    reason: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(work_order_stream(self.work_order_id), NodeState.ABORTED),)


WorkOrderEvent = (
    WorkOrderRequested
    | WorkOrderApproved
    | WorkOrderScheduled
    | WorkOrderStarted
    | WorkOrderPaused
    | WorkOrderResumed
    | WorkOrderCompleted
    | WorkOrderCancelled
)

# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class RequestWorkOrder:
    """Ask for work on an asset; see `WorkOrderRequested`."""

    work_order_id: str
    asset_id: str
    component_id: str | None
    title: str
    failure_mode: str | None
    priority: Priority
    cause: str | None = None


@dataclass(frozen=True)
class ApproveWorkOrder:
    """Let it be done."""

    work_order_id: str
    note: str = ""


@dataclass(frozen=True)
class ScheduleWorkOrder:
    """Plan it, or plan it anew; before its approval that is a proposal."""

    work_order_id: str
    planned_start: datetime
    planned_end: datetime
    assignee: str | None = None


@dataclass(frozen=True)
class StartWorkOrder:
    """Say that work began; `asset_down`: the asset stands still for it."""

    work_order_id: str
    asset_down: bool


@dataclass(frozen=True)
class PauseWorkOrder:
    """Say that work rests."""

    work_order_id: str
    reason: str


@dataclass(frozen=True)
class ResumeWorkOrder:
    """Say that work goes on."""

    work_order_id: str


@dataclass(frozen=True)
class CompleteWorkOrder:
    """Say that work is done, and what was found; see `WorkOrderCompleted`.

    `completed_at` is when: the `occurred_at` of the event.
    """

    work_order_id: str
    completed_at: datetime
    finding: Finding
    failure_mode: str | None
    failed_at: datetime | None
    replacements: tuple[Replacement, ...]
    labour_s: float
    cost: float | None
    currency: str | None
    note: str = ""


@dataclass(frozen=True)
class CancelWorkOrder:
    """Say that it will not be done."""

    work_order_id: str
    reason: str


WorkOrderCommand = (
    RequestWorkOrder
    | ApproveWorkOrder
    | ScheduleWorkOrder
    | StartWorkOrder
    | PauseWorkOrder
    | ResumeWorkOrder
    | CompleteWorkOrder
    | CancelWorkOrder
)


# --- states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unrequested:
    """Nobody has asked for it yet."""


@dataclass(frozen=True)
class Requested:
    """Asked for; `planned_start` is a proposal."""

    order: WorkOrderRequested
    planned_start: datetime | None = None


@dataclass(frozen=True)
class Approved:
    """It may be done; it is scheduled when it has a `planned_start`."""

    order: WorkOrderRequested
    planned_start: datetime | None = None


@dataclass(frozen=True)
class UnderWay:
    """Somebody works on it."""

    order: WorkOrderRequested


@dataclass(frozen=True)
class Paused:
    """Begun, and resting."""

    order: WorkOrderRequested


@dataclass(frozen=True)
class Completed:
    """Done."""

    order: WorkOrderRequested
    finding: Finding
    failure_mode: str | None


@dataclass(frozen=True)
class Cancelled:
    """Will not be done."""

    order: WorkOrderRequested


OpenWorkOrder = Requested | Approved | UnderWay | Paused
WorkOrder = Unrequested | OpenWorkOrder | Completed | Cancelled
