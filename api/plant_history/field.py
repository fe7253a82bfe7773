"""Parts of a made-up plant after they were shipped: some fail, come back, and are mended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from api.plant_history.plant import DAY_MS, HOUR_MS, INSPECTOR, MES, Plant
from api.plant_history.products import PRODUCTS, UNIT
from api.plant_history.quality import complete_run, start_run
from api.plant_history.recorder import Story
from domain.material.part import (
    PartFailureReported,
    PartRemoved,
    PartReturned,
    PartReworked,
    PartScrapped,
    PartShipped,
    PartStanding,
    PartStocked,
    part_stream,
)

FAILING: Final = 0.015
FAILING_SOFT: Final = 0.15
"""Which share fails in the field; of parts of a lot that is worse than its certificate says."""

FIELD_MS: Final = 35 * DAY_MS


@dataclass(slots=True)
class MadePart:
    """A part on its way; `soft`: some of it is of a lot worse than its certificate says."""

    part_id: str
    soft: bool
    children: tuple[MadePart, ...] = ()
    stream: str = field(init=False)

    def __post_init__(self) -> None:
        self.stream = part_stream(self.part_id)


def in_the_field(plant: Plant, part: MadePart, customer: str) -> None:
    """Let a part that was shipped fail after a while, if it is one of those that do."""
    if plant.chance(FAILING_SOFT if part.soft else FAILING):
        after_ms = plant.handling_ms(FIELD_MS)
        plant.recorder.tell(_failure(plant, part, customer), plant.recorder.now_ms + after_ms)


def _failure(plant: Plant, part: MadePart, customer: str) -> Story:
    record = plant.recorder.record
    mode = "tooth_breakage" if part.soft else "bearing_seizure"
    record(
        part.stream,
        PartFailureReported(
            part.part_id, plant.name("FAIL"), mode, f"{customer}: stands still, noise before"
        ),
        "user:field-service",
    )
    yield plant.recorder.now_ms + plant.handling_ms(60 * HOUR_MS)
    record(part.stream, PartReturned(part.part_id, "under warranty"), "user:dispatcher")
    yield plant.recorder.now_ms + plant.handling_ms(20 * HOUR_MS)
    if not part.children or plant.chance(0.4):
        for child in part.children[1:2]:
            record(
                child.stream,
                PartRemoved(
                    child.part_id, part.part_id, "sound, kept as a spare", PartStanding.IN_STOCK
                ),
                INSPECTOR,
            )
        record(part.stream, PartScrapped(part.part_id, f"{mode}: not worth mending"), INSPECTOR)
        return
    operation = PRODUCTS[UNIT].operations[0]
    run_id, machine = plant.name("RUN"), plant.machine(operation.machine_class)
    start_run(plant, run_id, "repair", machine, None, operation)
    record(part.stream, PartReworked(part.part_id, run_id, None), MES)
    yield plant.recorder.now_ms + plant.handling_ms(2 * HOUR_MS)
    complete_run(plant, run_id, operation, machine)
    record(part.stream, PartStocked(part.part_id), MES)
    yield plant.recorder.now_ms + plant.handling_ms(20 * HOUR_MS)
    record(
        part.stream,
        PartShipped(part.part_id, plant.name("SHIP"), customer),
        "user:dispatcher",
    )
