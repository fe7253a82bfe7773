"""Maintenance and engineering of a made-up plant: alerts, predictions, work orders, revisions."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from datetime import timedelta
from typing import Final

from api.plant_history.founding import (
    BEARING_MODEL,
    BEARING_SLOT,
    install_bearing,
    release_recipe,
    spare_item,
    train,
)
from api.plant_history.plant import (
    CALIBRATION_DAYS,
    DAY_MS,
    ENGINEER,
    HOUR_MS,
    MES,
    PLANNER,
    Machine,
    Plant,
)
from api.plant_history.products import PRODUCTS
from api.plant_history.recorder import Story
from domain.asset import (
    AlertAcknowledged,
    AlertCleared,
    AlertRaised,
    SetpointDesired,
    SetpointReported,
    asset_stream,
)
from domain.asset_model import Severity
from domain.documents.document import DocumentKind, DocumentSuperseded, document_stream
from domain.identifiers import derived_uuid7
from domain.maintenance.spare_part import (
    SparePartConsumed,
    SparePartReserved,
    SparePartStocked,
    spare_part_stream,
)
from domain.maintenance.work_order import (
    Finding,
    Priority,
    Replacement,
    WorkOrderApproved,
    WorkOrderCancelled,
    WorkOrderCompleted,
    WorkOrderPaused,
    WorkOrderRequested,
    WorkOrderResumed,
    WorkOrderScheduled,
    WorkOrderStarted,
    work_order_stream,
)
from domain.opinions.model import DriftDetected, model_stream
from domain.opinions.prediction import (
    Contribution,
    FailurePredicted,
    Outcome,
    OutcomeRecorded,
    RemainingLifePredicted,
    prediction_stream,
)
from domain.opinions.scenario import Assumption, Delta, ScenarioRun, scenario_stream
from domain.opinions.setpoint_proposal import (
    SetpointApplied,
    SetpointApproved,
    SetpointProposed,
    SetpointRefused,
    setpoint_proposal_stream,
)
from domain.plant.component import ComponentRemoved, component_stream
from domain.units import si

FAILURE_MODE: Final = "bearing_wear"
ROUNDS: Final = 60
"""Times that the maintenance planner goes round the plant in a history."""

WORN: Final = 0.6
CASES_PER_ROUND: Final = 12
REVISIONS: Final = 9
"""Times that drawings or recipes are revised in a history, for each part number."""

POLICY: Final = "policy:maintenance"


def rounds(plant: Plant) -> Story:
    """Look after the machines: what is worn is found, by rule, by model or by a person."""
    machines = [machine for group in plant.machines.values() for machine in group]
    for _ in range(ROUNDS):
        yield plant.recorder.now_ms + plant.pause_ms(plant.span_ms * 0.95 / ROUNDS)
        worn = [machine for machine in machines if machine.wear > WORN][:CASES_PER_ROUND]
        for machine in worn:
            if not machine.under_repair:
                plant.recorder.tell(_case(plant, machine))
        if plant.chance(0.3):
            chosen = machines[int(plant.random.random() * len(machines))]
            if not chosen.under_repair:
                plant.recorder.tell(_preventive(plant, chosen))


def calibrations(plant: Plant) -> Story:
    """Calibrate the instruments, sometimes a few days too late."""
    while True:
        due_ms = (CALIBRATION_DAYS - 2) * DAY_MS + plant.pause_ms(2 * DAY_MS)
        if plant.recorder.now_ms + due_ms > plant.span_ms:
            return
        yield plant.recorder.now_ms + due_ms
        for instrument in plant.instruments:
            plant.calibrate(instrument)


def revisions(plant: Plant) -> Story:
    """Revise drawings and recipes one after the other; each supersedes the one before."""
    numbers = list(PRODUCTS)
    times = REVISIONS * len(numbers)
    for n in range(times):
        yield plant.recorder.now_ms + plant.pause_ms(plant.span_ms * 0.9 / times)
        number = numbers[n % len(numbers)]
        product = PRODUCTS[number]
        if n // len(numbers) % 3 == 0:
            current = plant.designs[number]
            revision = _next_revision(current)
            plant.designs[number] = plant.release(
                DocumentKind.DESIGN,
                current.partition("@")[0],
                f"{product.title}, drawing",
                revision=revision,
                part_number=number,
            )
        else:
            operations = product.operations
            operation = operations[int(plant.random.random() * len(operations))].name
            current = plant.recipes[number, operation]
            revision = _next_revision(current)
            release_recipe(plant, number, operation, revision)
        document_id, _, old = current.partition("@")
        plant.recorder.record(
            document_stream(document_id), DocumentSuperseded(document_id, old, revision), ENGINEER
        )


def _next_revision(name: str) -> str:
    return chr(ord(name.rpartition("@")[2]) + 1)


def improvements(plant: Plant) -> Story:
    """Ask now and then what a slower machine would bring, and act on the answer or not."""
    machines = [machine for group in plant.machines.values() for machine in group]
    for version in range(2, 6):
        yield plant.recorder.now_ms + plant.pause_ms(plant.span_ms * 0.22)
        machine = machines[int(plant.random.random() * len(machines))]
        _propose(plant, machine, applied=version % 2 == 0)
        _retrain(plant, version)


def _retrain(plant: Plant, version: int) -> None:
    model_id = f"{BEARING_MODEL}-{plant.seed}"
    stream, old = model_stream(model_id), str(version - 1)
    plant.recorder.record(
        stream, DriftDetected(model_id, old, "vibration_horizontal", 0.21, 0.2, "psi"), POLICY
    )
    train(plant, BEARING_MODEL, str(version), "failure of main bearings")
    plant.model_version = str(version)


def _propose(plant: Plant, machine: Machine, *, applied: bool) -> None:
    record = plant.recorder.record
    scenario, proposal = plant.name("SCN"), plant.name("SPP")
    speed = round(si(1_450.0, "rpm"), 6)
    record(
        scenario_stream(scenario),
        ScenarioRun(
            scenario,
            machine.asset_id,
            "What if it turned a tenth slower",
            max(1, plant.recorder.head),
            500,
            plant.seed,
            (Assumption("drive_speed", speed, "rad/s"),),
            (Delta("bearing_life_s", 9.1e6, 5.2e6, 1.4e7, 0.9, "s"),),
        ),
        "user:process-engineer",
    )
    stream, asset = setpoint_proposal_stream(proposal), asset_stream(machine.asset_id)
    record(
        stream,
        SetpointProposed(
            proposal, machine.asset_id, "drive_speed", speed, "longer bearing life", scenario
        ),
        "user:process-engineer",
    )
    if not applied:
        record(stream, SetpointRefused(proposal, "the order book leaves no room"), PLANNER)
        return
    record(stream, SetpointApproved(proposal, "agreed"), PLANNER)
    record(asset, SetpointDesired(machine.asset_id, "drive_speed", speed), PLANNER)
    record(asset, SetpointReported(machine.asset_id, "drive_speed", speed), "agent:edge-1")
    record(stream, SetpointApplied(proposal, speed), "agent:edge-1")


# --- cases --------------------------------------------------------------------------------


def _case(plant: Plant, machine: Machine) -> Story:
    """Find that a bearing is worn, and replace it; or look, and find nothing."""
    machine.under_repair = True
    recorder, record = plant.recorder, plant.recorder.record
    asset, alert = asset_stream(machine.asset_id), None
    cause = None
    if plant.chance(0.5):
        alert = _raise_alert(plant, machine)
        cause = f"alert:{alert}"
        yield recorder.now_ms + plant.pause_ms(HOUR_MS)
        record(
            asset,
            AlertAcknowledged(machine.asset_id, alert, "can be heard"),
            f"user:{plant.operator()}",
        )
    prediction = None
    if alert is None or plant.chance(0.4):
        prediction = _predict(plant, machine)
        cause = prediction_stream(prediction)
        yield recorder.now_ms + plant.pause_ms(2 * HOUR_MS)
    right = plant.chance(0.85)
    order = plant.name("WO")
    yield from _work(plant, machine, order, cause, confirmed=right)
    if alert is not None:
        record(asset, AlertCleared(machine.asset_id, alert, si(0.6, "g_n")), "policy:alerts")
    if prediction is not None:
        record(
            prediction_stream(prediction),
            OutcomeRecorded(prediction, Outcome.CONFIRMED if right else Outcome.REFUTED, order),
            POLICY,
        )
    machine.under_repair = False


def _raise_alert(plant: Plant, machine: Machine) -> uuid.UUID:
    recorder = plant.recorder
    since = recorder.now - timedelta(seconds=30)
    words = (machine.asset_id, "vibration_horizontal_high", str(recorder.number))
    alert = derived_uuid7(int(since.timestamp() * 1000), *words)
    recorder.record(
        asset_stream(machine.asset_id),
        AlertRaised(
            machine.asset_id,
            alert,
            "vibration_horizontal_high",
            Severity.WARNING,
            "vibration_horizontal",
            round(si(1.5 + machine.wear, "g_n"), 4),
            si(1.5, "g_n"),
            since,
            "the main drive's bearing vibrates as healthy ones do not",
        ),
        "policy:alerts",
    )
    return alert


def _predict(plant: Plant, machine: Machine) -> str:
    """Record what a model says of a machine's bearing, and return the prediction's name."""
    prediction, model = plant.name("PRD"), f"{BEARING_MODEL}-{plant.seed}@{plant.model_version}"
    head = max(1, plant.recorder.head)
    first = max(1, head - 1_000)
    explanation = (
        Contribution("vibration_horizontal_rms", round(si(1.2 + machine.wear, "g_n"), 3), 0.31),
        Contribution("vibration_kurtosis", round(3 + 4 * machine.wear, 3), 0.12),
    )
    bearing = machine.component_id
    fact: FailurePredicted | RemainingLifePredicted
    if plant.chance(0.5):
        probability = round(min(0.99, 0.4 + 0.5 * machine.wear), 3)
        fact = FailurePredicted(
            prediction,
            machine.asset_id,
            bearing,
            model,
            FAILURE_MODE,
            probability,
            7 * 86_400.0,
            first,
            head,
            explanation,
        )
    else:
        remaining_s = round(86_400.0 * 20 * max(0.05, 1.05 - machine.wear), 0)
        fact = RemainingLifePredicted(
            prediction,
            machine.asset_id,
            bearing,
            model,
            FAILURE_MODE,
            remaining_s,
            remaining_s / 2,
            remaining_s * 1.6,
            0.9,
            first,
            head,
            explanation,
        )
    plant.recorder.record(prediction_stream(prediction), fact, "agent:edge-1")
    return prediction


def _preventive(plant: Plant, machine: Machine) -> Story:
    """Somebody wants a machine to be looked at; one time in three it comes to nothing."""
    machine.under_repair = True
    order = plant.name("WO")
    if plant.chance(0.33):
        stream = work_order_stream(order)
        _request(plant, machine, order, None, Priority.LOW)
        yield plant.recorder.now_ms + plant.pause_ms(3 * DAY_MS)
        plant.recorder.record(stream, WorkOrderCancelled(order, "no capacity"), PLANNER)
    else:
        yield from _work(plant, machine, order, None, confirmed=None)
    machine.under_repair = False


def _request(
    plant: Plant, machine: Machine, order: str, cause: str | None, priority: Priority
) -> None:
    plant.recorder.record(
        work_order_stream(order),
        WorkOrderRequested(
            order,
            machine.asset_id,
            machine.component_id,
            "Main bearing: look after it" if cause is None else "Main bearing: replace it",
            None if cause is None else FAILURE_MODE,
            priority,
            cause,
        ),
        POLICY if cause is not None else f"user:{plant.operator()}",
    )


def _work(
    plant: Plant, machine: Machine, order: str, cause: str | None, *, confirmed: bool | None
) -> Generator[int, None, None]:
    """Do a work order from its request to its end; `confirmed` None: it is preventive work."""
    recorder, record = plant.recorder, plant.recorder.record
    stream, technician = work_order_stream(order), f"user:technician-{len(order) % 4 + 1}"
    urgent = Priority.HIGH if machine.wear > 0.9 else Priority.NORMAL
    _request(plant, machine, order, cause, urgent)
    yield recorder.now_ms + plant.pause_ms(2 * HOUR_MS)
    record(stream, WorkOrderApproved(order, ""), PLANNER)
    start = recorder.now + timedelta(hours=6)
    record(
        stream, WorkOrderScheduled(order, start, start + timedelta(hours=3), technician), PLANNER
    )
    if confirmed:
        _reserve(plant, order)
    yield recorder.now_ms + plant.pause_ms(6 * HOUR_MS)
    record(stream, WorkOrderStarted(order, True), technician)
    if plant.chance(0.2):
        yield recorder.now_ms + HOUR_MS
        record(stream, WorkOrderPaused(order, "waiting for a puller"), technician)
        yield recorder.now_ms + plant.pause_ms(2 * HOUR_MS)
        record(stream, WorkOrderResumed(order), technician)
    labour_ms = plant.pause_ms(2 * HOUR_MS)
    yield recorder.now_ms + labour_ms
    replacements: tuple[Replacement, ...] = ()
    if confirmed:
        record(
            spare_part_stream(spare_item(plant)),
            SparePartConsumed(spare_item(plant), order, 1),
            technician,
        )
        old = machine.component_id
        record(
            component_stream(old),
            ComponentRemoved(old, machine.asset_id, BEARING_SLOT, "worn"),
            technician,
        )
        replacements = (Replacement(BEARING_SLOT, old, install_bearing(plant, machine)),)
    finding = Finding.NOT_APPLICABLE
    if confirmed is not None:
        finding = Finding.FAILURE_CONFIRMED if confirmed else Finding.NO_FAULT_FOUND
    record(
        stream,
        WorkOrderCompleted(
            order,
            finding,
            FAILURE_MODE if confirmed else None,
            None,
            replacements,
            labour_ms / 1000,
            round(labour_ms / HOUR_MS * 68.0 + (412.5 if confirmed else 0.0), 2),
            "EUR",
            "",
        ),
        technician,
    )
    if not confirmed:
        machine.wear = min(machine.wear, WORN / 2)


def _reserve(plant: Plant, order: str) -> None:
    """Keep a bearing for a work order; order more when few are left."""
    item = spare_item(plant)
    stream = spare_part_stream(item)
    plant.spares -= 1
    if plant.spares < 5:
        plant.recorder.record(stream, SparePartStocked(item, 20, 412.5, "EUR"), MES)
        plant.spares += 20
    plant.recorder.record(stream, SparePartReserved(item, order, 1), PLANNER)
