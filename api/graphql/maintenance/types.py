"""Types of maintenance: work orders, and the board of those that are open."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import strawberry

from api.graphql.as_of import Asked, asked_now
from api.graphql.basis import Basis
from api.graphql.context import OperationContext, OperationInfo
from api.graphql.fields import field
from api.graphql.maintenance import enums as _enums  # noqa: F401 (describes Priority and others)
from api.graphql.plant.loaders import item_named
from api.graphql.plant.types import Component
from api.graphql.references import ASSET, asset_named
from api.graphql.relay import Connection, Node, encode_id
from api.graphql.scalars import Position
from api.graphql.versions import VERSION, version_of
from domain.maintenance.work_order import Finding, Priority, work_order_stream
from domain.plant.component import component_stream
from projections.maintenance.projection import (
    BOARD_ASSETS_MAX,
    BoardEntry,
    MaintenanceProjection,
    WorkOrderState,
)
from projections.maintenance.work_orders import WorkOrder as Standing
from projections.maintenance.work_orders import find_work_orders

WORK_ORDER: Final = "WorkOrder"


@strawberry.type(description="A state that a work order has been in, and since when.")
class WorkOrderStep:
    """A step of `projections.maintenance.work_orders.WorkOrder`."""

    state: WorkOrderState = strawberry.field(description="The state.")
    at: datetime = strawberry.field(description="When it came to be in it.")


@strawberry.type(description="Maintenance to be done, or done.")
class WorkOrder(Node):
    """`projections.maintenance.work_orders.WorkOrder`."""

    asked: strawberry.Private[Asked]
    work_order_id: strawberry.ID = strawberry.field(description="Natural key.")
    key: str = strawberry.field(
        description="Its stream, `work-order:<workOrderId>`, for `events`, `trace` and the audit "
        "trail."
    )
    asset_id: strawberry.ID = strawberry.field(description="Natural key of its asset.")
    component_id: strawberry.ID | None = strawberry.field(
        description="Natural key of the component that it is about; null: the asset as a whole."
    )
    title: str = strawberry.field(description="What is to be done, for people.")
    failure_mode: str | None = strawberry.field(
        description="Failure that is feared, by its name in the asset's type; null where none is."
    )
    priority: Priority = strawberry.field(description="How soon it has to be done.")
    state: WorkOrderState = strawberry.field(description="How far it is.")
    cause: str | None = strawberry.field(
        description="Stream of what led to it, such as `prediction:…` or `alert:…`; null: a "
        "person's own idea."
    )
    requested_at: datetime = strawberry.field(description="When it was requested.")
    requested_by: str = strawberry.field(description="Who requested it, such as `user:jane`.")
    approved_by: str | None = strawberry.field(
        description="Who approved it; null while nobody has."
    )
    planned_start: datetime | None = strawberry.field(
        description="When it is planned to begin; null without a plan."
    )
    planned_end: datetime | None = strawberry.field(
        description="When it is planned to be done; null without a plan."
    )
    assignee: str | None = strawberry.field(description="For whom it is planned.")
    started_at: datetime | None = strawberry.field(
        description="When work began for the first time; null before."
    )
    closed_at: datetime | None = strawberry.field(
        description="When it was completed or cancelled; null while it is open."
    )
    asset_down_from: datetime | None = strawberry.field(
        description="Since when the asset stands still for it, from the failure on where that is "
        "known; null where it does not."
    )
    asset_down_to: datetime | None = strawberry.field(
        description="Until when the asset stood still for it; null while it does."
    )
    failure_at: datetime | None = strawberry.field(
        description="When the failure was that the work confirmed; null without one."
    )
    prevented: bool = strawberry.field(
        description="Whether a prediction led to it and the failure was confirmed before it had "
        "happened."
    )
    finding: Finding | None = strawberry.field(description="What was found; null while it is open.")
    found_failure_mode: str | None = strawberry.field(
        description="Failure that was found, by its name in the asset's type."
    )
    worked_s: float | None = strawberry.field(
        description="Time between its starts and its rests, s, without one that is under way; null "
        "as of a moment before its end."
    )
    labour_s: float | None = strawberry.field(
        description="Working time of people that was booked, s; null where none was."
    )
    cost: float | None = strawberry.field(description="What it cost, in `currency`.")
    currency: str | None = strawberry.field(description="Currency of the cost, ISO 4217.")
    replacement_count: int = strawberry.field(description="Components that were replaced.")
    note: str | None = strawberry.field(
        description="What was noted at its end, or why it was cancelled."
    )
    steps: list[WorkOrderStep] = strawberry.field(
        description="The states that it has been in, in the order of time."
    )
    position: Position = strawberry.field(
        description="Position of the last event that made it what it is."
    )

    @classmethod
    def of(cls, order: Standing, asked: Asked) -> WorkOrder:
        """Return `order`, as it was `asked` for, as the schema tells it."""
        component = order.component_id
        return cls(
            id=encode_id(WORK_ORDER, order.work_order_id),
            asked=asked,
            work_order_id=strawberry.ID(order.work_order_id),
            key=work_order_stream(order.work_order_id),
            asset_id=strawberry.ID(order.asset_id),
            component_id=None if component is None else strawberry.ID(component),
            title=order.title,
            failure_mode=order.failure_mode,
            priority=order.priority,
            state=order.state,
            cause=order.cause,
            requested_at=order.requested_at,
            requested_by=order.requested_by,
            approved_by=order.approved_by,
            planned_start=order.planned_start,
            planned_end=order.planned_end,
            assignee=order.assignee,
            started_at=order.started_at,
            closed_at=order.closed_at,
            asset_down_from=order.down_from,
            asset_down_to=order.down_to,
            failure_at=order.failure_at,
            prevented=order.prevented,
            finding=order.finding,
            found_failure_mode=order.found_failure_mode,
            worked_s=order.worked_s,
            labour_s=order.labour_s,
            cost=order.cost,
            currency=order.currency,
            replacement_count=order.replacements,
            note=order.note,
            steps=[WorkOrderStep(state=state, at=at) for state, at in order.steps],
            position=Position(order.position),
        )

    @field(description=VERSION)
    async def version(self, info: OperationInfo) -> Position:
        """Return the version of its stream."""
        return await version_of(info.context, self.key, self.asked.position)

    @field(description="Its asset.", type=ASSET | None)
    async def asset(self, info: OperationInfo) -> Any:
        """Return the asset."""
        return await asset_named(info.context, self.asset_id, self.asked)

    @field(description="The component that it is about; null: the asset as a whole.")
    async def component(self, info: OperationInfo) -> Component | None:
        """Return the component."""
        if self.component_id is None:
            return None
        stream = component_stream(self.component_id)
        item = await item_named(info.context, self.asked, stream)
        return None if item is None else Component.of(item, self.asked)


async def find_work_order(
    context: OperationContext, key: str, asked: Asked | None = None
) -> WorkOrder | None:
    """Return the work order called `key`; None where there is none, or none in sight.

    As it is now where `asked` is None.
    """
    asked = asked or await asked_now(context, MaintenanceProjection.name)

    async def load(names: list[str]) -> list[Standing | None]:
        sight = await context.sight()
        async with context.reads:
            found = await find_work_orders(
                context.ledger, names, as_of=asked.known_at, valid_at=asked.valid_at
            )
        seen = {name: order for name, order in found.items() if sight.sees_asset(order.asset_id)}
        return [seen.get(name) for name in names]

    order = await context.loader(("work order", asked), load).load(key)
    return None if order is None else WorkOrder.of(order, asked)


# --- the board ----------------------------------------------------------------------------


@strawberry.type(description="An open work order on the board, as of the moment asked for.")
class BacklogEntry:
    """`projections.maintenance.projection.BoardEntry`."""

    work_order_id: strawberry.ID = strawberry.field(description="Natural key.")
    asset_id: strawberry.ID = strawberry.field(description="Natural key of its asset.")
    component_id: strawberry.ID | None = strawberry.field(
        description="Natural key of the component that it is about; null: the whole asset."
    )
    title: str = strawberry.field(description="What is to be done, for people.")
    failure_mode: str | None = strawberry.field(description="Failure that is feared.")
    priority: Priority = strawberry.field(description="How soon it has to be done.")
    state: WorkOrderState = strawberry.field(description="How far it was.")
    requested_at: datetime = strawberry.field(description="When it was requested.")
    requested_by: str = strawberry.field(description="Who requested it.")
    age_s: float = strawberry.field(description="How long ago it was requested, s.")
    cause: str | None = strawberry.field(description="Stream of what led to it.")
    approved_by: str | None = strawberry.field(description="Who approved it.")
    planned_start: datetime | None = strawberry.field(description="When it is to begin.")
    planned_end: datetime | None = strawberry.field(description="When it is to be done.")
    assignee: str | None = strawberry.field(description="For whom it is planned.")
    started_at: datetime | None = strawberry.field(description="When work began.")
    asset_down_since: datetime | None = strawberry.field(
        description="Since when the asset stands still for it; null where it does not."
    )
    position: Position = strawberry.field(
        description="Position of the last event that made it what it is."
    )

    @classmethod
    def of(cls, entry: BoardEntry) -> BacklogEntry:
        """Return `entry` as the schema tells it."""
        component = entry.component_id
        return cls(
            work_order_id=strawberry.ID(entry.work_order_id),
            asset_id=strawberry.ID(entry.asset_id),
            component_id=None if component is None else strawberry.ID(component),
            title=entry.title,
            failure_mode=entry.failure_mode,
            priority=entry.priority,
            state=entry.state,
            requested_at=entry.requested_at,
            requested_by=entry.requested_by,
            age_s=entry.age_s,
            cause=entry.cause,
            approved_by=entry.approved_by,
            planned_start=entry.planned_start,
            planned_end=entry.planned_end,
            assignee=entry.assignee,
            started_at=entry.started_at,
            asset_down_since=entry.asset_down_since,
            position=Position(entry.position),
        )

    @field(description="Its asset, as it is now.", type=ASSET | None)
    async def asset(self, info: OperationInfo) -> Any:
        """Return the asset."""
        return await asset_named(info.context, self.asset_id)


@strawberry.type(description="So many open work orders are in a state.")
class StateCount:
    """A count by state."""

    state: WorkOrderState = strawberry.field(description="The state.")
    count: int = strawberry.field(description="How many.")


@strawberry.type(description="So many open work orders are of a priority.")
class PriorityCount:
    """A count by priority."""

    priority: Priority = strawberry.field(description="The priority.")
    count: int = strawberry.field(description="How many.")


@strawberry.type(description="So many open work orders are of an age.")
class AgeCount:
    """A count by age."""

    up_to_s: float | None = strawberry.field(
        description="At most so old, s, and older than the bound before; null: older than all."
    )
    count: int = strawberry.field(description="How many.")


@strawberry.type(description="The open work orders of an asset.")
class AssetBacklog:
    """`projections.maintenance.projection.AssetBacklog`."""

    asset_id: strawberry.ID = strawberry.field(description="Natural key of the asset.")
    open: int = strawberry.field(description="How many are open.")
    oldest_requested_at: datetime = strawberry.field(
        description="When the oldest of them was requested."
    )

    @field(description="The asset, as it is now.", type=ASSET | None)
    async def asset(self, info: OperationInfo) -> Any:
        """Return the asset."""
        return await asset_named(info.context, self.asset_id)


@strawberry.type(
    description="What was open at a moment: counts of everything that is wanted, and a page of it."
)
class MaintenanceBoard:
    """`projections.maintenance.projection.MaintenanceBoard`."""

    at: datetime = strawberry.field(description="The moment that it tells of.")
    open: int = strawberry.field(description="Open work orders.")
    overdue: int = strawberry.field(description="Of those, planned to have begun, and not begun.")
    assets_down: int = strawberry.field(description="Assets that stand still for one.")
    by_state: list[StateCount] = strawberry.field(
        description="How many are in each state; those without any left out."
    )
    by_priority: list[PriorityCount] = strawberry.field(
        description="How many are of each priority, the most urgent first."
    )
    by_age: list[AgeCount] = strawberry.field(
        description="How many are how old: a day, a week, 30 days, 90 days, older."
    )
    by_asset: list[AssetBacklog] = strawberry.field(
        description=f"Of the {BOARD_ASSETS_MAX} assets with the most, the most first."
    )
    backlog: Connection[BacklogEntry] = strawberry.field(
        description="A page, the most urgent first and of the same urgency the oldest."
    )
    basis: Basis = strawberry.field(description="What it rests on.")
