"""The work order policy: follows predictions and alerts, and asks for the work they call for.

`domain.maintenance.policy` decides; this file remembers what it decides on, and commands. Memory
and checkpoint are one transaction; commands carry identifiers made from the event that caused
them, so that a batch that is folded again after a crash commands the same once more and the log
recognises it.

When a work order ends whose cause was a prediction, what was found is recorded as the outcome of
that prediction; when what was found is corrected, so is the outcome.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import Any, ClassVar, Final

from domain.asset import AlertRaised, AssetRegistered, AssetRetired, alert_node
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.identifiers import derived_uuid7
from domain.maintenance.policy import (
    PRIORITY_OF,
    Evidence,
    MaintenancePolicy,
    failure_mode_of,
    is_history,
    judge,
    outcome_of,
    plan,
    policy_of,
    source_of,
    title_of,
    urgency,
    within_s,
)
from domain.maintenance.work_order import (
    RequestWorkOrder,
    ScheduleWorkOrder,
    WorkOrderCancelled,
    WorkOrderCompleted,
    WorkOrderRequested,
    work_order_stream,
)
from domain.opinions.prediction import (
    FailurePredicted,
    OutcomeRecorded,
    RecordOutcome,
    RemainingLifePredicted,
    prediction_stream,
)
from domain.records import CORRECTED, CorrectRecord, Entry, RecordCorrected, effective_entries
from eventlog.commands import handle
from eventlog.corrections import handle_correction
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import IdempotencyKey, Ledger
from eventlog.reading import PayloadOf, read_whole_stream

logger = logging.getLogger("heddle.projections")

ACTOR: Final = "policy:work-orders"
_PREDICTION: Final = prediction_stream("")
_WORK_ORDER: Final = work_order_stream("")


@dataclass(frozen=True, slots=True)
class _Order:
    """A work order that has not ended."""

    asset_id: str
    failure_mode: str | None
    cause: str | None


_Source = tuple[str, str, str]
"""Asset, failure mode, and who speaks of it."""


@dataclass(slots=True)
class _Memory:
    """What is known of the assets and orders of a batch, and what of it has changed."""

    types: dict[str, str] = field(default_factory=dict)
    orders: dict[str, _Order] = field(default_factory=dict)
    disarmed: set[_Source] = field(default_factory=set)
    open_count: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    retired: set[str] = field(default_factory=set)
    loaded_orders: dict[str, _Order] = field(default_factory=dict)
    loaded_disarmed: frozenset[_Source] = frozenset()

    def open(self, work_order_id: str, order: _Order) -> None:
        """Remember that an order is open; once, however often it is told."""
        if work_order_id not in self.orders:
            self.orders[work_order_id] = order
            self.open_count[order.asset_id, order.failure_mode] += 1

    def end(self, work_order_id: str) -> _Order | None:
        """Forget an order that has ended, and return it."""
        order = self.orders.pop(work_order_id, None)
        if order is not None:
            self.open_count[order.asset_id, order.failure_mode] -= 1
        return order


class WorkOrderPolicy:
    """Requests work for predictions and alerts, and settles predictions by what was found."""

    name: ClassVar[str] = "work-order-policy"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = (
        "asset.registered",
        "asset.retired",
        "asset.alert_raised",
        "prediction.failure_predicted",
        "prediction.remaining_life_predicted",
        "work_order.requested",
        "work_order.completed",
        "work_order.cancelled",
        CORRECTED,
    )
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS
    tables: ClassVar[tuple[str, ...]] = (
        "work_order_policy_asset",
        "work_order_policy_order",
        "work_order_policy_disarmed",
    )
    commands_as: ClassVar[str] = ACTOR

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Remember what `events` tell, and command what follows from them."""
        told = [event for event in events if event.type != CORRECTED or _of_order(event)]
        memory = await _load(connection, ledger.ledger_id, [event.fact for event in told])
        for event in told:
            match event.fact:
                case AssetRegistered(asset_id=asset_id, asset_type=type_name):
                    memory.types[asset_id] = type_name
                case AssetRetired(asset_id=asset_id):
                    memory.retired.add(asset_id)
                case AlertRaised() | FailurePredicted() | RemainingLifePredicted() as evidence:
                    await _consider(ledger, memory, event, evidence)
                case WorkOrderRequested() as requested:
                    order = _Order(requested.asset_id, requested.failure_mode, requested.cause)
                    memory.open(requested.work_order_id, order)
                case WorkOrderCompleted(work_order_id=work_order_id) as completed:
                    ended = memory.end(work_order_id)
                    if ended is not None and not is_history(event.occurred_at, event.recorded_at):
                        await _settle(ledger, event, ended, completed)
                case WorkOrderCancelled(work_order_id=work_order_id):
                    memory.end(work_order_id)
                case RecordCorrected():
                    await _correct(ledger, memory, event)
                case other:
                    raise TypeError(f"{type(other).__name__} calls for no work")
        await _store(connection, ledger.ledger_id, memory)


def _of_order(event: RecordedEvent) -> bool:
    return event.stream.startswith(_WORK_ORDER)


# --- commands -----------------------------------------------------------------------------


async def _consider(
    ledger: Ledger, memory: _Memory, cause: RecordedEvent, evidence: Evidence
) -> None:
    """Request the work that `evidence` calls for, and remember whether it did."""
    if is_history(cause.occurred_at, cause.recorded_at):
        return
    policy = policy_of(memory.types.get(evidence.asset_id))
    mode = failure_mode_of(policy, evidence)
    source = (evidence.asset_id, mode, source_of(evidence))
    verdict = judge(
        policy,
        evidence,
        armed=source not in memory.disarmed,
        order_open=memory.open_count[evidence.asset_id, mode] > 0,
    )
    (memory.disarmed.discard if verdict.armed else memory.disarmed.add)(source)
    if verdict.opens:
        request = _request(ledger, policy, cause, evidence, mode)
        if await _command(ledger, cause, request):
            order = _Order(request.asset_id, mode, request.cause)
            memory.open(request.work_order_id, order)
            await _propose_plan(ledger, policy, cause, evidence, request.work_order_id)


def _request(
    ledger: Ledger,
    policy: MaintenancePolicy,
    cause: RecordedEvent,
    evidence: Evidence,
    failure_mode: str,
) -> RequestWorkOrder:
    if isinstance(evidence, AlertRaised):
        led_by, component_id = alert_node(evidence.alert_id), None
    else:
        led_by = prediction_stream(evidence.prediction_id)
        component_id = evidence.component_id
    return RequestWorkOrder(
        work_order_id=f"WO-{_derived(ledger, cause, 'order')}",
        asset_id=evidence.asset_id,
        component_id=component_id,
        title=title_of(evidence),
        failure_mode=failure_mode,
        priority=PRIORITY_OF[urgency(within_s(policy, evidence))],
        cause=led_by,
    )


async def _propose_plan(
    ledger: Ledger,
    policy: MaintenancePolicy,
    cause: RecordedEvent,
    evidence: Evidence,
    work_order_id: str,
) -> None:
    planned = plan(policy, evidence, cause.recorded_at.astimezone(UTC))
    if planned is not None:
        await _command(ledger, cause, ScheduleWorkOrder(work_order_id, *planned))


async def _settle(
    ledger: Ledger, cause: RecordedEvent, order: _Order, completed: WorkOrderCompleted
) -> None:
    """Record how the prediction came out that led to `order`, where one did."""
    if order.cause is None or not order.cause.startswith(_PREDICTION):
        return
    outcome = outcome_of(order.failure_mode, completed)
    if outcome is not None:
        prediction_id = order.cause.removeprefix(_PREDICTION)
        settled = RecordOutcome(prediction_id, outcome, completed.work_order_id)
        await _command(ledger, cause, settled)


async def _correct(ledger: Ledger, memory: _Memory, correction: RecordedEvent) -> None:
    """Take an order, and the outcome that it told, as it is now known to be."""
    entries = [
        Entry(event.event_id, event.position, event.occurred_at, event.fact)
        async for event in read_whole_stream(ledger, correction.stream, as_of=correction.position)
    ]
    facts = [entry.fact for entry in effective_entries(entries)]
    work_order_id = correction.stream.removeprefix(_WORK_ORDER)
    requested = next((fact for fact in facts if isinstance(fact, WorkOrderRequested)), None)
    memory.end(work_order_id)
    if requested is not None:
        order = _Order(requested.asset_id, requested.failure_mode, requested.cause)
        completed = next((fact for fact in facts if isinstance(fact, WorkOrderCompleted)), None)
        if completed is None and not any(isinstance(fact, WorkOrderCancelled) for fact in facts):
            memory.open(work_order_id, order)
        await _settle_anew(ledger, correction, order, work_order_id, completed)


async def _settle_anew(
    ledger: Ledger,
    cause: RecordedEvent,
    order: _Order,
    work_order_id: str,
    completed: WorkOrderCompleted | None,
) -> None:
    """Correct the outcome that an order told of its prediction; record it where none was."""
    if order.cause is None or not order.cause.startswith(_PREDICTION):
        return
    outcome = None if completed is None else outcome_of(order.failure_mode, completed)
    entries = [
        Entry(event.event_id, event.position, event.occurred_at, event.fact)
        async for event in read_whole_stream(ledger, order.cause)
    ]
    told = [
        entry
        for entry in effective_entries(entries)
        if isinstance(entry.fact, OutcomeRecorded) and entry.fact.work_order_id == work_order_id
    ]
    if not told:
        if completed is not None:
            await _settle(ledger, cause, order, completed)
        return
    right = None if outcome is None else replace(told[0].fact, outcome=outcome)
    if right != told[0].fact:
        reason = f"what work order {work_order_id} found was corrected"
        command = CorrectRecord(order.cause, told[0].event_id, reason, right)
        await _command(ledger, cause, command)


async def _command(ledger: Ledger, cause: RecordedEvent, command: Any) -> bool:
    """Have `command` decided; return whether it was accepted, now or before."""
    kind = type(command).__name__
    key = f"{ACTOR}:{cause.event_id}:{kind}"
    # The key alone is the content: a rule may be declared otherwise by now.
    idempotency = IdempotencyKey.of(key, key.encode())
    try:
        if isinstance(command, CorrectRecord):
            await handle_correction(
                ledger,
                command,
                actor=ACTOR,
                event_id=_derived(ledger, cause, kind),
                idempotency=idempotency,
                causation_id=cause.event_id,
                correlation_id=cause.correlation_id,
                traceparent=cause.traceparent,
            )
        else:
            await handle(
                ledger,
                command,
                actor=ACTOR,
                occurred_at=cause.recorded_at,
                event_id=lambda n: _derived(ledger, cause, f"{kind}:{n}"),
                idempotency=idempotency,
                causation_id=cause.event_id,
                correlation_id=cause.correlation_id,
                traceparent=cause.traceparent,
            )
    except (NotFound, CommandRejected, InvalidInput) as refused:
        # The asset was retired, or a person was faster: nothing is left to do.
        logger.info("work order policy: %s refused: %s", kind, refused)
        return False
    return True


def _derived(ledger: Ledger, cause: RecordedEvent, what: str) -> uuid.UUID:
    time_ms = int(cause.recorded_at.timestamp() * 1000)
    return derived_uuid7(time_ms, ledger.name, ACTOR, str(cause.event_id), what)


# --- memory -------------------------------------------------------------------------------


async def _load(connection: Connection, ledger_id: int, facts: Sequence[Any]) -> _Memory:
    """Return what is remembered of the assets and orders that `facts` speak of."""
    asset_ids = list({fact.asset_id for fact in facts if hasattr(fact, "asset_id")})
    order_ids = {fact.work_order_id for fact in facts if hasattr(fact, "work_order_id")}
    order_ids |= {
        fact.stream.removeprefix(_WORK_ORDER) for fact in facts if isinstance(fact, RecordCorrected)
    }
    types = await connection.fetch(
        "select asset_id, asset_type from work_order_policy_asset "
        "where ledger_id = $1 and asset_id = any($2)",
        ledger_id,
        asset_ids,
    )
    orders = await connection.fetch(
        "select work_order_id, asset_id, failure_mode, cause from work_order_policy_order "
        "where ledger_id = $1 and (asset_id = any($2) or work_order_id = any($3))",
        ledger_id,
        asset_ids,
        list(order_ids),
    )
    disarmed = await connection.fetch(
        "select asset_id, failure_mode, source from work_order_policy_disarmed "
        "where ledger_id = $1 and asset_id = any($2)",
        ledger_id,
        asset_ids,
    )
    memory = _Memory(types=dict(map(tuple, types)), disarmed={tuple(row) for row in disarmed})
    for work_order_id, *order in orders:
        memory.open(work_order_id, _Order(*order))
    memory.loaded_orders = dict(memory.orders)
    memory.loaded_disarmed = frozenset(memory.disarmed)
    return memory


async def _store(connection: Connection, ledger_id: int, memory: _Memory) -> None:
    """Write what has changed, in orders that two processes share."""
    await _store_types(connection, ledger_id, memory)
    await _store_orders(connection, ledger_id, memory)
    await _store_disarmed(connection, ledger_id, memory)


async def _store_types(connection: Connection, ledger_id: int, memory: _Memory) -> None:
    staying = sorted(memory.types.keys() - memory.retired)
    if staying:
        await connection.execute(
            "insert into work_order_policy_asset "
            "select $1, * from unnest($2::text[], $3::text[]) on conflict do nothing",
            ledger_id,
            staying,
            [memory.types[asset_id] for asset_id in staying],
        )
    if memory.retired:
        await connection.execute(
            "delete from work_order_policy_asset where ledger_id = $1 and asset_id = any($2)",
            ledger_id,
            sorted(memory.retired),
        )


async def _store_orders(connection: Connection, ledger_id: int, memory: _Memory) -> None:
    loaded = memory.loaded_orders
    opened = sorted(one for one, order in memory.orders.items() if loaded.get(one) != order)
    if opened:
        orders = [memory.orders[work_order_id] for work_order_id in opened]
        await connection.execute(
            """
            insert into work_order_policy_order
            select $1, * from unnest($2::text[], $3::text[], $4::text[], $5::text[])
            on conflict (ledger_id, work_order_id) do update set
                asset_id = excluded.asset_id, failure_mode = excluded.failure_mode,
                cause = excluded.cause
            """,
            ledger_id,
            opened,
            [order.asset_id for order in orders],
            [order.failure_mode for order in orders],
            [order.cause for order in orders],
        )
    ended = sorted(loaded.keys() - memory.orders.keys())
    if ended:
        await connection.execute(
            "delete from work_order_policy_order where ledger_id = $1 and work_order_id = any($2)",
            ledger_id,
            ended,
        )


async def _store_disarmed(connection: Connection, ledger_id: int, memory: _Memory) -> None:
    gone = {source for source in memory.disarmed if source[0] in memory.retired}
    disarmed = sorted(memory.disarmed - memory.loaded_disarmed - gone)
    if disarmed:
        await connection.execute(
            "insert into work_order_policy_disarmed "
            "select $1, * from unnest($2::text[], $3::text[], $4::text[])",
            ledger_id,
            *(list(column) for column in zip(*disarmed, strict=True)),
        )
    armed = sorted((memory.loaded_disarmed - memory.disarmed) | (memory.loaded_disarmed & gone))
    if armed:
        await connection.execute(
            """
            delete from work_order_policy_disarmed d
            using unnest($2::text[], $3::text[], $4::text[]) as a(asset_id, failure_mode, source)
            where d.ledger_id = $1 and d.asset_id = a.asset_id
                and d.failure_mode = a.failure_mode and d.source = a.source
            """,
            ledger_id,
            *(list(column) for column in zip(*armed, strict=True)),
        )
