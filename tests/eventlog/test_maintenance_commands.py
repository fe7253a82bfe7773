"""Commands of maintenance on a real log: what several streams share is recorded together, once."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.asset import RegisterAsset
from domain.asset_decider import Registered
from domain.asset_types import asset_type
from domain.errors import CommandRejected, HeddleError
from domain.maintenance.spare_part import (
    ConsumeSparePart,
    ReserveSparePart,
    Stocked,
    StockSparePart,
)
from domain.maintenance.work_order import (
    ApproveWorkOrder,
    CompleteWorkOrder,
    Finding,
    Priority,
    RequestWorkOrder,
    StartWorkOrder,
)
from domain.opinions.model import Model, PromoteModel, Stage, TrainModel
from domain.opinions.setpoint_proposal import Approved, ApproveSetpoint, ProposeSetpoint
from eventlog.commands import Handled, handle, load
from eventlog.ledger import Ledger
from eventlog.reading import EventFilter, read_page
from tests.eventlog.new_events import opened

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 3, 9, 12, 0, tzinfo=UTC)
FLOW = asset_type("skab-pump-loop").setpoint("flow")
DONE = CompleteWorkOrder(
    "WO-1", NOON, Finding.NO_FAULT_FOUND, None, None, (), 60.0, None, None, "clean"
)


async def tell(ledger: Ledger, *commands: Any) -> Handled:
    """Have each of `commands` decided; return what became of the last."""
    for command in commands:
        handled = await handle(
            ledger, command, actor="user:mara", occurred_at=NOON, event_id=lambda _: uuid.uuid4()
        )
    return handled


async def outcome(ledger: Ledger, command: Any) -> str:
    """Return the code of the refusal of `command`, or an empty text."""
    try:
        await tell(ledger, command)
    except HeddleError as refused:
        return refused.code
    return ""


async def order(ledger: Ledger, work_order_id: str) -> None:
    await tell(ledger, RequestWorkOrder(work_order_id, "loop-1", None, "noise", None, Priority.LOW))


async def test_an_approved_setpoint_is_desired_in_the_same_append(ledger: Ledger) -> None:
    await tell(
        ledger,
        RegisterAsset("loop-1", "skab-pump-loop", "Loop 1"),
        ProposeSetpoint("SP-1", "loop-1", "flow", FLOW.safe_min, "saves energy"),
    )
    approved = await tell(ledger, ApproveSetpoint("SP-1", "go"))
    last = await read_page(ledger, approved.position - 2, limit=10)
    assert [(event.stream, event.type) for event in last] == [
        ("setpoint-proposal:SP-1", "setpoint_proposal.approved"),
        ("asset:loop-1", "asset.setpoint_desired"),
    ]
    asset, _ = await load(ledger, "asset:loop-1")
    assert isinstance(asset, Registered)
    assert asset.desired == {"flow": FLOW.safe_min}
    proposal, version = await load(ledger, "setpoint-proposal:SP-1")
    assert isinstance(proposal, Approved)
    assert approved.version == version == 2


async def test_racing_orders_never_share_a_piece(ledger: Ledger, database_url: str) -> None:
    await tell(ledger, RegisterAsset("loop-1", "skab-pump-loop", "Loop 1"))
    orders = [f"WO-{n}" for n in range(6)]
    for work_order_id in orders:
        await order(ledger, work_order_id)
    await tell(ledger, StockSparePart("6205-2RS", 4))
    async with opened(database_url) as other:
        outcomes = await asyncio.gather(
            *(
                outcome(
                    (ledger, other)[n % 2],
                    (ReserveSparePart, ConsumeSparePart)[n // 3]("6205-2RS", work_order_id, 1),
                )
                for n, work_order_id in enumerate(orders)
            )
        )
    assert sorted(outcomes) == ["", "", "", "", *["spare_part.insufficient"] * 2]
    stock, _ = await load(ledger, "spare-part:6205-2RS")
    assert isinstance(stock, Stocked)
    assert stock.free == 0
    assert stock.pieces == sum(stock.reserved.values())


async def test_racing_completions_leave_one(ledger: Ledger, database_url: str) -> None:
    await tell(ledger, RegisterAsset("loop-1", "skab-pump-loop", "Loop 1"))
    await order(ledger, "WO-1")
    await tell(ledger, ApproveWorkOrder("WO-1"), StartWorkOrder("WO-1", asset_down=True))
    async with opened(database_url) as other:
        outcomes = await asyncio.gather(outcome(ledger, DONE), outcome(other, DONE))
    assert sorted(outcomes) == ["", "work_order.ended"]
    wanted = EventFilter(types=("work_order.completed",))
    assert len(await read_page(ledger, 0, wanted=wanted)) == 1
    with pytest.raises(CommandRejected) as refused:
        await tell(ledger, DONE)
    assert (refused.value.code, refused.value.limit) == ("work_order.ended", "COMPLETED")


async def test_racing_promotions_leave_one_version_serving(
    ledger: Ledger, database_url: str
) -> None:
    for version in "123":
        await tell(ledger, TrainModel("wear", version, "rul", "ab" * 32, 1, 1, 7, "1.0", ()))
    async with opened(database_url) as other:
        await asyncio.gather(
            *(
                tell(log, PromoteModel("wear", version, "champion"))
                for log, version in zip((ledger, other, ledger), "123", strict=True)
            )
        )
    model, _ = await load(ledger, "model:wear")
    assert isinstance(model, Model)
    assert list(model.versions.values()).count(Stage.SERVING) == 1
    types = [event.type for event in await read_page(ledger, 3, limit=100)]
    assert sorted(types) == [*["model.promoted"] * 3, *["model.retired"] * 2]
