"""Inspections of a made-up plant, what they find wrong, and what is done about it."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import replace
from typing import Final

from api.plant_history.plant import HOUR_MS, INSPECTOR, MES, MINUTE_MS, QUALITY, Machine, Plant
from api.plant_history.products import Operation, Product
from api.plant_history.recorder import HistoryEvent, Story
from domain.material.part import (
    PartQuarantined,
    PartReleased,
    PartReworked,
    PartScrapped,
    PartShipped,
    PartStanding,
    part_stream,
)
from domain.material.process_run import (
    ActualParameter,
    ProcessRunCompleted,
    ProcessRunStarted,
    process_run_stream,
)
from domain.quality.inspection import (
    Characteristic,
    Image,
    InspectionRecorded,
    Judge,
    Verdict,
    inspection_stream,
)
from domain.quality.nonconformance import (
    Disposition,
    NonconformanceClosed,
    NonconformanceDispositioned,
    NonconformanceOpened,
    nonconformance_stream,
)

SPREAD: Final = 0.33
"""Standard deviation of what is made, as a share of the tolerance: a Cp of 1.0."""

DRIFT: Final = 0.45
"""By how much of the tolerance a worn machine is off."""

VISION_MODEL: Final = "MDL-VISION"
UNCALIBRATED: Final = ("inspection.instrument_uncalibrated",)
DISPOSITIONS: Final = (
    (0.6, Disposition.REWORK),
    (0.8, Disposition.USE_AS_IS),
    (1.0, Disposition.SCRAP),
)


def inspect(
    plant: Plant, part_id: str, product: Product, run_id: str, machine: Machine, *, soft: bool
) -> InspectionRecorded:
    """Record the inspection of a part that `machine` made, and return it."""
    instrument = plant.instrument()
    recorder, chance = plant.recorder, plant.random
    bias = DRIFT * machine.wear + (0.35 if soft else 0.0)
    characteristics = tuple(
        Characteristic(
            name,
            nominal,
            nominal - tolerance,
            nominal + tolerance,
            round(nominal + tolerance * (bias + SPREAD * chance.gauss(0.0, 1.0)), 5),
            "mm",
            instrument.instrument_id,
        )
        for name, nominal, tolerance in product.tolerances
    )
    wrong = tuple(f"{c.name}_out_of_tolerance" for c in characteristics if not c.conforms)
    inspection = plant.name("INS")
    seen = product.number == "COVER-2"  # a camera looks at what is moulded
    verdict = Verdict.GOOD
    if wrong:
        verdict = Verdict.CRITICAL if len(wrong) > 1 else Verdict.DEFECTIVE
    recorded = InspectionRecorded(
        inspection,
        part_stream(part_id),
        run_id,
        plant.plans[product.number],
        characteristics,
        (Image(hashlib.sha256(inspection.encode()).hexdigest(), "image/png"),) if seen else (),
        wrong,
        verdict,
        Judge.MODEL if seen else Judge.PERSON,
        f"{VISION_MODEL}-{plant.seed}@1" if seen else None,
        UNCALIBRATED if instrument.valid_until_ms <= recorder.now_ms else (),
    )
    event = recorder.record(inspection_stream(inspection), recorded, QUALITY if seen else INSPECTOR)
    if chance.random() < 0.02:
        recorder.tell(
            _correct_reading(plant, event), recorder.now_ms + plant.handling_ms(9 * HOUR_MS)
        )
    return recorded


def _correct_reading(plant: Plant, wrong: HistoryEvent) -> Story:
    """Correct a value that was typed in wrongly, by what the instrument's own memory holds."""
    yield from ()
    recorded = wrong.fact
    assert isinstance(recorded, InspectionRecorded)
    first, *others = recorded.characteristics
    assert first.nominal is not None
    right = replace(first, measured=round((first.measured + first.nominal) / 2, 5))
    plant.recorder.correct(
        wrong,
        replace(recorded, characteristics=(right, *others)),
        f"{first.name} was typed in wrongly; taken from the instrument's memory",
        INSPECTOR,
    )


def settle(
    plant: Plant, part_id: str, product: Product, found: InspectionRecorded, machine: Machine
) -> Generator[int, None, bool]:
    """Record what is done about a part that does not conform; return whether it is still there."""
    record = plant.recorder.record
    part, number = part_stream(part_id), plant.name("NCR")
    concern = nonconformance_stream(number)
    record(
        concern,
        NonconformanceOpened(
            number,
            part,
            found.inspection_id,
            found.defect_codes[0],
            f"{product.title}: {', '.join(found.defect_codes)}",
        ),
        INSPECTOR,
    )
    record(part, PartQuarantined(part_id, "does not conform", concern), INSPECTOR)
    yield plant.recorder.now_ms + plant.handling_ms(6 * HOUR_MS)
    drawn = plant.random.random()
    chosen = next(disposition for share, disposition in DISPOSITIONS if drawn <= share)
    if found.verdict is Verdict.CRITICAL:
        chosen = Disposition.SCRAP
    reason = {
        Disposition.REWORK: "enough stock to grind it again",
        Disposition.USE_AS_IS: "function not affected, agreed with the customer",
        Disposition.SCRAP: "cannot be mended",
        Disposition.RETURN: "the supplier's fault",
    }[chosen]
    record(concern, NonconformanceDispositioned(number, chosen, reason), "user:quality-engineer")
    kept = True
    match chosen:
        case Disposition.REWORK:
            kept = yield from _rework(plant, part_id, product, number, machine)
        case Disposition.USE_AS_IS:
            record(part, PartReleased(part_id, reason, PartStanding.IN_PROCESS), INSPECTOR)
        case _:
            record(part, PartScrapped(part_id, reason), INSPECTOR)
            kept = False
    record(concern, NonconformanceClosed(number, f"{chosen.value.lower()}: done"), INSPECTOR)
    return kept


def _rework(
    plant: Plant, part_id: str, product: Product, number: str, machine: Machine
) -> Generator[int, None, bool]:
    """Record that a part went through its last operations again, and was inspected again."""
    record = plant.recorder.record
    part = part_stream(part_id)
    run_id = plant.name("RUN")
    operation = product.operations[-1]
    start_run(plant, run_id, f"rework-{operation.name}", machine, None, operation)
    record(part, PartReworked(part_id, run_id, number), MES)
    yield plant.recorder.now_ms + plant.handling_ms(operation.minutes * MINUTE_MS)
    complete_run(plant, run_id, operation, machine)
    repaired = Machine(machine.asset_id, machine.machine_class)
    again = inspect(plant, part_id, product, run_id, repaired, soft=False)
    if again.verdict is not Verdict.GOOD:
        record(part, PartScrapped(part_id, "rework did not help"), INSPECTOR)
        return False
    return True


def start_run(
    plant: Plant,
    run_id: str,
    name: str,
    machine: Machine,
    product: Product | None,
    operation: Operation,
) -> HistoryEvent:
    """Record that a run began on `machine`; by the recipe of `product`, if one is given."""
    machine.wear += plant.wear_of_run
    return plant.recorder.record(
        process_run_stream(run_id),
        ProcessRunStarted(
            run_id,
            machine.asset_id,
            name,
            None if product is None else plant.recipes[product.number, name],
            None,
            f"T-{machine.machine_class}-{int(machine.wear * 12) + 1}",
            plant.operator(),
            (operation.parameter,),
        ),
        MES,
    )


def complete_run(plant: Plant, run_id: str, operation: Operation, machine: Machine) -> None:
    """Record that a run came to its end, with what its parameter really was."""
    parameter = operation.parameter
    off = 0.004 * (plant.random.random() - 0.5) + 0.002 * machine.wear
    mean = round(parameter.value * (1 + off), 3)
    half = round(parameter.value * 0.006, 3)
    plant.recorder.record(
        process_run_stream(run_id),
        ProcessRunCompleted(
            run_id,
            (ActualParameter(parameter.name, mean, mean - half, mean + half, parameter.unit),),
            float(operation.minutes * operation.batch * 4_000),
        ),
        MES,
    )


def return_to_supplier(plant: Plant, part_id: str, supplier: str) -> None:
    """Record that a delivered part was found wrong on arrival and went back."""
    record = plant.recorder.record
    part, number, inspection = part_stream(part_id), plant.name("NCR"), plant.name("INS")
    concern = nonconformance_stream(number)
    record(
        inspection_stream(inspection),
        InspectionRecorded(
            inspection,
            part,
            None,
            None,
            (),
            (),
            ("rough_running",),
            Verdict.DEFECTIVE,
            Judge.PERSON,
            None,
            (),
        ),
        INSPECTOR,
    )
    record(
        concern,
        NonconformanceOpened(number, part, inspection, "rough_running", "Bearing runs rough"),
        INSPECTOR,
    )
    record(
        concern,
        NonconformanceDispositioned(number, Disposition.RETURN, "delivered so"),
        "user:quality-engineer",
    )
    record(part, PartShipped(part_id, plant.name("SHIP"), supplier), INSPECTOR)
    record(concern, NonconformanceClosed(number, "sent back"), INSPECTOR)
