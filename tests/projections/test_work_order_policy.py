"""The work order policy asks for each piece of work once, whatever is folded again."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.asset import ClearAlert, RaiseAlert, RetireAsset
from domain.asset_model import Severity
from domain.maintenance.policy import HOUR_S
from domain.maintenance.work_order import (
    ApproveWorkOrder,
    CancelWorkOrder,
    CompleteWorkOrder,
    Finding,
    Priority,
    RequestWorkOrder,
    StartWorkOrder,
    WorkOrderRequested,
    WorkOrderScheduled,
    work_order_stream,
)
from domain.opinions.model import Metric, TrainModel
from domain.opinions.prediction import (
    Made,
    Outcome,
    OutcomeRecorded,
    PredictFailure,
    PredictRemainingLife,
    RecordOutcome,
    Settled,
)
from domain.records import CorrectRecord
from eventlog.commands import handle, load
from eventlog.corrections import handle_correction
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import EventFilter, read_page
from projections.maintenance.policy import ACTOR, WorkOrderPolicy
from tests.eventlog.new_events import opened
from tests.projections.loop_frames import LOOP, NOON, PATIENCE_S, fold, register, running, table

pytestmark = pytest.mark.anyio

TRAINED = TrainModel(
    "bearing-wear", "3", "failure", "ab" * 32, 1, 1, 7, "1.0", (Metric("auc", 0.9),)
)
HOUR = timedelta(hours=1)
FAILURE = PredictFailure(
    "P-1", LOOP, None, "bearing-wear@3", "bearing_wear", 0.84, 200 * HOUR_S, 1, 2, ()
)
DONE = CompleteWorkOrder(
    "WO", NOON, Finding.FAILURE_CONFIRMED, "bearing_wear", None, (), 60.0, None, None
)


async def tell(ledger: Ledger, *commands: Any, ago: timedelta = HOUR) -> None:
    """Have people and models command what happened some time ago."""
    for command in commands:
        moment = datetime.now(UTC) - ago
        if isinstance(command, CompleteWorkOrder):
            command = replace(command, completed_at=moment)
        await handle(
            ledger,
            command,
            actor="user:mara",
            occurred_at=moment,
            event_id=lambda _: uuid.uuid4(),
        )


async def plant(ledger: Ledger, *others: str) -> None:
    """Make a pump loop, `others`, and a model known."""
    for asset_id in (LOOP, *others):
        await register(ledger, asset_id)
    await tell(ledger, TRAINED)


async def predict(ledger: Ledger, name: str, probability: float, **changes: Any) -> None:
    await tell(ledger, replace(FAILURE, prediction_id=name, probability=probability, **changes))


async def raise_alert(
    ledger: Ledger, alert_id: uuid.UUID, severity: Severity = Severity.CRITICAL
) -> None:
    command = RaiseAlert(LOOP, alert_id, "flow_low", severity, "flow", 4e-4, 5e-4, NOON, "low")
    await tell(ledger, command)


async def facts(ledger: Ledger, *types: str) -> list[RecordedEvent]:
    return list(await read_page(ledger, 0, wanted=EventFilter(types=types), limit=1000))


async def requests(ledger: Ledger) -> list[WorkOrderRequested]:
    """Return what the policy asked for, in the order of the log."""
    found = await facts(ledger, "work_order.requested")
    return [event.fact for event in found if event.actor == ACTOR]


async def do_work(ledger: Ledger, work_order_id: str, **found: Any) -> None:
    """Have an order approved, started and completed."""
    await tell(
        ledger,
        ApproveWorkOrder(work_order_id),
        StartWorkOrder(work_order_id, asset_down=True),
        replace(DONE, work_order_id=work_order_id, **found),
    )


async def outcomes(ledger: Ledger) -> list[OutcomeRecorded]:
    return [event.fact for event in await facts(ledger, "prediction.outcome_recorded")]


# --- what opens an order ------------------------------------------------------------------


async def test_a_probable_failure_opens_an_order_that_says_why(ledger: Ledger) -> None:
    await plant(ledger)
    await predict(ledger, "P-1", 0.84)
    await fold(ledger, WorkOrderPolicy())
    (event,) = await facts(ledger, "work_order.requested")
    (prediction,) = await facts(ledger, "prediction.failure_predicted")
    order = event.fact
    assert order == WorkOrderRequested(
        work_order_id=order.work_order_id,
        asset_id=LOOP,
        component_id=None,
        title="bearing_wear: 84% within 200 h",
        failure_mode="bearing_wear",
        priority=Priority.NORMAL,
        cause="prediction:P-1",
    )
    assert event.stream == work_order_stream(order.work_order_id)
    assert (event.actor, event.causation_id) == (ACTOR, prediction.event_id)
    # It is decided when the prediction is known, which may be long after it was true.
    assert event.occurred_at == prediction.recorded_at > prediction.occurred_at


async def test_an_order_is_proposed_for_the_declared_window(ledger: Ledger) -> None:
    await plant(ledger)
    await predict(ledger, "P-1", 0.84)
    await fold(ledger, WorkOrderPolicy())
    (prediction,) = await facts(ledger, "prediction.failure_predicted")
    (scheduled,) = [event.fact for event in await facts(ledger, "work_order.scheduled")]
    assert isinstance(scheduled, WorkOrderScheduled)
    start = scheduled.planned_start
    assert (start.weekday(), start.astimezone(UTC).hour) == (5, 6)
    assert scheduled.planned_end - start == timedelta(hours=6)
    notice = timedelta(hours=8)
    assert notice <= start - prediction.recorded_at < notice + timedelta(days=7)


async def test_a_critical_alert_opens_an_emergency_without_a_plan(ledger: Ledger) -> None:
    await plant(ledger)
    await raise_alert(ledger, uuid.UUID(int=1), Severity.WARNING)
    await raise_alert(ledger, uuid.UUID(int=2))
    await fold(ledger, WorkOrderPolicy())
    (order,) = await requests(ledger)
    assert order.priority is Priority.EMERGENCY
    assert order.failure_mode == "flow_blocked"
    assert order.cause == f"alert:{uuid.UUID(int=2)}"
    assert await facts(ledger, "work_order.scheduled") == []


async def test_a_short_remaining_life_opens_an_order_once(ledger: Ledger) -> None:
    await plant(ledger)
    follower = Follower(ledger)
    for n, lower_h in enumerate((400, 100, 90, 300, 80, 400, 100)):
        life = lower_h * HOUR_S
        model = "bearing-wear@3"
        await tell(
            ledger,
            PredictRemainingLife(f"P-{n}", LOOP, None, model, "wear", life, life, life, 0.9, 1, 2),
        )
        await follower.go_on()
        done = len(await facts(ledger, "work_order.cancelled"))
        for order in (await requests(ledger))[done:]:
            await tell(ledger, CancelWorkOrder(order.work_order_id, "not now"))
    assert [order.cause for order in await requests(ledger)] == ["prediction:P-1", "prediction:P-6"]
    assert {order.priority for order in await requests(ledger)} == {Priority.HIGH}


# --- de-duplication and hysteresis --------------------------------------------------------


async def test_one_order_is_open_for_a_failure_mode_of_an_asset(ledger: Ledger) -> None:
    await plant(ledger, "loop-2")
    await tell(ledger, replace(TRAINED, model_id="second"))
    await predict(ledger, "P-1", 0.84)
    await predict(ledger, "P-2", 0.9, model="second@3")
    await predict(ledger, "P-3", 0.9, failure_mode="seal_leak")
    await predict(ledger, "P-4", 0.9, asset_id="loop-2")
    await fold(ledger, WorkOrderPolicy())
    assert [
        (order.cause, order.asset_id, order.failure_mode) for order in await requests(ledger)
    ] == [
        ("prediction:P-1", LOOP, "bearing_wear"),
        ("prediction:P-3", LOOP, "seal_leak"),
        ("prediction:P-4", "loop-2", "bearing_wear"),
    ]


async def test_an_order_of_a_person_counts_too(ledger: Ledger) -> None:
    await plant(ledger)
    own = RequestWorkOrder("WO-1", LOOP, None, "noise", "bearing_wear", Priority.LOW)
    await tell(ledger, own)
    await predict(ledger, "P-1", 0.84)
    await fold(ledger, WorkOrderPolicy())
    assert await requests(ledger) == []


async def test_an_ended_order_is_followed_by_another_only_after_a_fall(ledger: Ledger) -> None:
    await plant(ledger)
    follower = Follower(ledger)
    await predict(ledger, "P-1", 0.84)
    await follower.go_on()
    (first,) = await requests(ledger)
    await do_work(ledger, first.work_order_id)
    for name, probability in (("P-2", 0.9), ("P-3", 0.5), ("P-4", 0.9)):
        await predict(ledger, name, probability)
    await follower.go_on()
    assert len(await requests(ledger)) == 1
    await predict(ledger, "P-5", 0.49)
    await predict(ledger, "P-6", 0.8)
    await follower.go_on()
    assert [order.cause for order in await requests(ledger)] == ["prediction:P-1", "prediction:P-6"]


async def test_each_alert_opens_an_order_unless_one_is_open(ledger: Ledger) -> None:
    await plant(ledger)
    follower = Follower(ledger)
    one, two, three = (uuid.UUID(int=n) for n in (1, 2, 3))
    await raise_alert(ledger, one)
    await tell(ledger, ClearAlert(LOOP, one, 6e-4))
    await raise_alert(ledger, two)
    await follower.go_on()
    (order,) = await requests(ledger)
    await tell(ledger, CancelWorkOrder(order.work_order_id, "cleared by itself"))
    await raise_alert(ledger, three)
    await follower.go_on()
    assert [order.cause for order in await requests(ledger)] == [f"alert:{one}", f"alert:{three}"]


async def test_what_is_told_as_history_calls_for_nothing(ledger: Ledger) -> None:
    await plant(ledger)
    follower = Follower(ledger)
    week = timedelta(days=7)
    old = replace(FAILURE, prediction_id="P-old")
    await tell(ledger, old, ago=week + HOUR)
    await follower.go_on()
    assert await requests(ledger) == []
    await predict(ledger, "P-1", 0.84)
    await follower.go_on()
    (order,) = await requests(ledger)
    # Neither does it say that the probability fell.
    await tell(ledger, CancelWorkOrder(order.work_order_id, "not now"))
    await tell(ledger, replace(old, prediction_id="P-low", probability=0.1), ago=week + HOUR)
    await predict(ledger, "P-2", 0.84)
    await follower.go_on()
    assert await requests(ledger) == [order]
    await tell(ledger, replace(old, prediction_id="P-3", probability=0.1), ago=week - HOUR)
    await predict(ledger, "P-4", 0.84)
    await follower.go_on()
    assert [asked.cause for asked in await requests(ledger)] == ["prediction:P-1", "prediction:P-4"]


async def test_work_that_is_told_as_history_settles_nothing(ledger: Ledger) -> None:
    await plant(ledger)
    follower = Follower(ledger)
    await predict(ledger, "P-1", 0.84)
    await follower.go_on()
    (order,) = await requests(ledger)
    begun = (
        ApproveWorkOrder(order.work_order_id),
        StartWorkOrder(order.work_order_id, asset_down=True),
    )
    done = replace(DONE, work_order_id=order.work_order_id)
    await tell(ledger, *begun, done, ago=timedelta(days=8))
    await follower.go_on()
    assert await outcomes(ledger) == []
    assert await table(ledger, "work_order_policy_order", "work_order_id") == []


async def test_nothing_is_asked_for_on_a_retired_asset(ledger: Ledger) -> None:
    await plant(ledger)
    await predict(ledger, "P-1", 0.84)
    await tell(ledger, RetireAsset(LOOP, "sold"))
    await fold(ledger, WorkOrderPolicy())
    assert await requests(ledger) == []
    for name in WorkOrderPolicy.tables:
        assert await table(ledger, name, "asset_id") == []


# --- outcomes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        ({}, Outcome.CONFIRMED),
        ({"failure_mode": "seal_leak"}, Outcome.REFUTED),
        ({"finding": Finding.NO_FAULT_FOUND, "failure_mode": None}, Outcome.REFUTED),
    ],
)
async def test_what_was_found_settles_the_prediction(
    ledger: Ledger, found: dict[str, Any], outcome: Outcome
) -> None:
    await plant(ledger)
    follower = Follower(ledger)
    await predict(ledger, "P-1", 0.84)
    await follower.go_on()
    (order,) = await requests(ledger)
    await do_work(ledger, order.work_order_id, **found)
    await follower.go_on()
    assert await outcomes(ledger) == [OutcomeRecorded("P-1", outcome, order.work_order_id)]
    assert await table(ledger, "work_order_policy_order", "work_order_id") == []


async def test_preventive_work_and_alerts_settle_nothing(ledger: Ledger) -> None:
    await plant(ledger)
    follower = Follower(ledger)
    await predict(ledger, "P-1", 0.84)
    await raise_alert(ledger, uuid.UUID(int=1))
    await follower.go_on()
    predicted, alerted = await requests(ledger)
    await do_work(
        ledger, predicted.work_order_id, finding=Finding.NOT_APPLICABLE, failure_mode=None
    )
    await do_work(ledger, alerted.work_order_id, failure_mode="flow_blocked")
    await follower.go_on()
    assert await outcomes(ledger) == []


async def test_a_person_who_was_faster_has_the_last_word(ledger: Ledger) -> None:
    await plant(ledger)
    follower = Follower(ledger)
    await predict(ledger, "P-1", 0.84)
    await follower.go_on()
    (order,) = await requests(ledger)
    await tell(ledger, RecordOutcome("P-1", Outcome.UNDECIDED, None))
    await do_work(ledger, order.work_order_id)
    await follower.go_on()
    assert await outcomes(ledger) == [OutcomeRecorded("P-1", Outcome.UNDECIDED, None)]


async def correct(ledger: Ledger, event: RecordedEvent, right: Any) -> None:
    """Have a person say what an event should have been."""
    await handle_correction(
        ledger,
        CorrectRecord(event.stream, event.event_id, "mistyped", right),
        actor="user:mara",
        event_id=uuid.uuid4(),
    )


async def settled(ledger: Ledger) -> Any:
    """Return the prediction as its events, corrections included, make it."""
    return (await load(ledger, "prediction:P-1"))[0]


async def test_a_corrected_finding_corrects_the_outcome(ledger: Ledger) -> None:
    await plant(ledger)
    follower = Follower(ledger)
    await predict(ledger, "P-1", 0.84)
    await follower.go_on()
    (order,) = await requests(ledger)
    await do_work(ledger, order.work_order_id)
    await follower.go_on()
    assert await settled(ledger) == Settled("P-1", Outcome.CONFIRMED)
    (completed,) = await facts(ledger, "work_order.completed")
    nothing = replace(completed.fact, finding=Finding.NO_FAULT_FOUND, failure_mode=None)
    await correct(ledger, completed, nothing)
    await follower.fold_and_lose()
    await follower.go_on()
    assert await settled(ledger) == Settled("P-1", Outcome.REFUTED)
    corrections = await facts(ledger, "record.corrected")
    assert [event.actor for event in corrections] == ["user:mara", ACTOR]
    # Done it was not, after all: the order is open again, and what it told is taken back.
    await correct(ledger, completed, None)
    await follower.go_on()
    assert await settled(ledger) == Made("P-1")
    rows = await table(ledger, "work_order_policy_order", "work_order_id")
    assert [row[0] for row in rows] == [order.work_order_id]
    await tell(ledger, replace(DONE, work_order_id=order.work_order_id))
    await follower.go_on()
    assert await settled(ledger) == Settled("P-1", Outcome.CONFIRMED)


async def test_an_order_that_was_never_requested_stands_in_nobody_s_way(ledger: Ledger) -> None:
    await plant(ledger)
    follower = Follower(ledger)
    await tell(ledger, RequestWorkOrder("WO-1", LOOP, None, "x", "bearing_wear", Priority.LOW))
    await tell(ledger, RequestWorkOrder("WO-2", LOOP, None, "x", "seal_leak", Priority.LOW))
    await follower.go_on()
    one, two = await facts(ledger, "work_order.requested")
    await correct(ledger, one, None)
    await correct(ledger, two, replace(two.fact, failure_mode="noise"))
    await predict(ledger, "P-1", 0.84)
    await predict(ledger, "P-2", 0.84, failure_mode="seal_leak")
    await predict(ledger, "P-3", 0.84, failure_mode="noise")
    await follower.go_on()
    asked = [order.cause for order in await requests(ledger)]
    assert asked == ["prediction:P-1", "prediction:P-2"]


# --- exactly once -------------------------------------------------------------------------


class Follower:
    """Folds on from where it stopped, as the runner does."""

    def __init__(self, ledger: Ledger, batch: int = 1000) -> None:
        self.ledger = ledger
        self.batch = batch
        self.position = 0

    async def go_on(self) -> None:
        await fold(self.ledger, WorkOrderPolicy(), self.batch, after=self.position)
        self.position = await self.ledger.head()

    async def fold_and_lose(self) -> None:
        """Fold a batch and roll back, as a crash before the commit does."""
        page = await read_page(self.ledger, self.position, limit=self.batch)
        types = WorkOrderPolicy.types or ()
        async with self.ledger.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            wanted = [event for event in page if event.type in types]
            await WorkOrderPolicy().fold(connection, self.ledger, wanted)
            await transaction.rollback()


async def test_a_crash_before_the_checkpoint_asks_for_nothing_twice(ledger: Ledger) -> None:
    await plant(ledger)
    follower = Follower(ledger)
    await predict(ledger, "P-1", 0.84)
    await follower.fold_and_lose()
    (order,) = await requests(ledger)
    assert await table(ledger, "work_order_policy_order", "work_order_id") == []
    head = await ledger.head()
    await follower.fold_and_lose()
    assert await ledger.head() == head
    # People went on with it while the policy was down.
    await do_work(ledger, order.work_order_id)
    await predict(ledger, "P-2", 0.9)
    await follower.fold_and_lose()
    await follower.go_on()
    assert await requests(ledger) == [order]
    assert await outcomes(ledger) == [
        OutcomeRecorded("P-1", Outcome.CONFIRMED, order.work_order_id)
    ]


async def test_the_cut_into_batches_changes_nothing(ledger: Ledger, database_url: str) -> None:
    found = []
    async with opened(database_url, "plant-2") as other:
        for log, batch in ((ledger, 1), (other, 1000)):
            await plant(log, "loop-2")
            for n, probability in enumerate((0.9, 0.3, 0.85, 0.6, 0.95)):
                await predict(log, f"P-{n}", probability, asset_id=("loop-2", LOOP)[n % 2])
            await raise_alert(log, uuid.UUID(int=1))
            await Follower(log, batch).go_on()
            rows = [await table(log, name, "2, 3") for name in WorkOrderPolicy.tables[2:]]
            asked = [(r.cause, r.asset_id, r.priority, r.title) for r in await requests(log)]
            found.append((rows, asked))
    assert found[0] == found[1]
    assert len(found[0][1]) == 2


async def test_two_policies_at_once_ask_once(ledger: Ledger, database_url: str) -> None:
    await plant(ledger)
    async with (
        opened(database_url) as other,
        running(ledger, database_url, WorkOrderPolicy()) as (one,),
        running(other, database_url, WorkOrderPolicy()) as (two,),
    ):
        await predict(ledger, "P-1", 0.84)
        await predict(ledger, "P-2", 0.84)
        for _ in range(2):
            head = await ledger.head()
            await one.wait_for(head, PATIENCE_S)
            await two.wait_for(head, PATIENCE_S)
        assert (one.failure, two.failure) == (None, None)
    assert len(await requests(ledger)) == 1
    assert len(await facts(ledger, "work_order.scheduled")) == 1
