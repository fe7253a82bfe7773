"""The made-up plant as it stands: machines, instruments, documents, and how many parts there are.

Every name ends in the history's seed, so that histories of several seeds live in one ledger.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from api.plant_history.products import ALONE, machine_shares
from api.plant_history.recorder import START, HistoryName, Recorder
from domain.documents.document import (
    DocumentKind,
    DocumentReleased,
    document_stream,
    revision_name,
)
from domain.quality.instrument import InstrumentCalibrated, instrument_stream

MES: Final = "system:mes"
QUALITY: Final = "system:quality-station"
PLANNER: Final = "user:planner"
ENGINEER: Final = "user:design-engineer"
INSPECTOR: Final = "user:inspector"
OPERATORS: Final = tuple(f"operator-{n + 1}" for n in range(24))

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
MONTH_MS: Final = 30 * DAY_MS

MACHINES_MAX: Final = 160
PARTS_PER_MACHINE: Final = 4_000
RUNS_PER_PART: Final = 2.9
BEARING_LIVES: Final = 6
CALIBRATION_DAYS: Final = 90


@dataclass(slots=True)
class Machine:
    """A machine; `wear` grows from 0 (as new) to 1 (failed) with its runs."""

    asset_id: str
    machine_class: str
    component_id: str = ""
    wear: float = 0.0
    under_repair: bool = False


@dataclass(slots=True)
class Instrument:
    """What is measured with, and until when its calibration is valid."""

    instrument_id: str
    valid_until_ms: int = 0


class Plant:
    """What all stories share."""

    def __init__(self, name: HistoryName, recorder: Recorder) -> None:
        self.seed = name.seed
        self.parts_max = name.parts
        self.span_ms = name.months * MONTH_MS
        self.recorder = recorder
        self.random = random.Random(name.text)
        self.parts = 0
        self.speed = 1.0
        self.spares = 20
        self.model_version = "1"
        self._counters: dict[str, int] = {}
        # Revisions that are current: by part number, and by part number and operation.
        self.designs: dict[str, str] = {}
        self.plans: dict[str, str] = {}
        self.recipes: dict[tuple[str, str], str] = {}
        self.machines = _machines(name)
        machines = sum(len(group) for group in self.machines.values())
        # A bearing lives for so many runs that each machine has its own several times.
        self.wear_of_run = min(0.02, machines * BEARING_LIVES / (name.parts * RUNS_PER_PART))
        self.instruments = [
            Instrument(f"{kind}-{self.seed}-{n}")
            for kind in ("cmm", "micrometer", "gauge")
            for n in (1, 2)
        ]

    def name(self, kind: str) -> str:
        """Return the next name of a kind, such as ``RUN-7-12``."""
        number = self._counters[kind] = self._counters.get(kind, 0) + 1
        return f"{kind}-{self.seed}-{number}"

    def part_name(self) -> str:
        """Return the next serial number."""
        self.parts += 1
        return f"SN-{self.seed}-{self.parts}"

    def chance(self, ratio: float) -> bool:
        """Return True for this share of all questions."""
        return self.random.random() < ratio

    def machine(self, machine_class: str) -> Machine:
        """Return one of the machines of a class."""
        candidates = self.machines[machine_class]
        return candidates[int(self.random.random() * len(candidates))]

    def operator(self) -> str:
        """Return one of the operators."""
        return OPERATORS[int(self.random.random() * len(OPERATORS))]

    def pause_ms(self, mean_ms: float) -> int:
        """Return a time to wait, from half to one and a half times `mean_ms`."""
        return int(mean_ms * (0.5 + self.random.random()))

    def handling_ms(self, mean_ms: float) -> int:
        """Return how long something waits for somebody; less in a plant that is in a hurry."""
        return 1 + self.pause_ms(mean_ms * self.speed)

    # --- documents ----------------------------------------------------------------------------

    def release(
        self,
        kind: DocumentKind,
        document_id: str,
        title: str,
        *,
        revision: str = "A",
        part_number: str | None = None,
    ) -> str:
        """Release a revision of a document and return its name, ``DRW-GEAR-31-7@B``."""
        content = document_content(document_id, revision, title)
        self.recorder.record(
            document_stream(document_id),
            DocumentReleased(
                document_id,
                revision,
                kind,
                title,
                hashlib.sha256(content).hexdigest(),
                len(content),
                "text/plain",
                part_number,
                self.recorder.now,
                None,
            ),
            ENGINEER,
        )
        return revision_name(document_id, revision)

    # --- instruments --------------------------------------------------------------------------

    def calibrate(self, instrument: Instrument) -> None:
        """Record that an instrument was calibrated now, with a certificate."""
        recorder = self.recorder
        certificate = self.release(
            DocumentKind.CERTIFICATE,
            self.name("CAL"),
            f"Calibration of {instrument.instrument_id}",
        )
        instrument.valid_until_ms = recorder.now_ms + CALIBRATION_DAYS * DAY_MS
        recorder.record(
            instrument_stream(instrument.instrument_id),
            InstrumentCalibrated(
                instrument_id=instrument.instrument_id,
                calibrated_at=recorder.now,
                valid_until=START + timedelta(milliseconds=instrument.valid_until_ms),
                certificate=certificate,
            ),
            INSPECTOR,
        )

    def instrument(self) -> Instrument:
        """Return one of the instruments; one that is calibrated, but for one time in fifty."""
        first = int(self.random.random() * len(self.instruments))
        turned: Sequence[Instrument] = self.instruments[first:] + self.instruments[:first]
        if self.chance(0.02):
            return turned[0]
        now_ms = self.recorder.now_ms
        return next((i for i in turned if i.valid_until_ms > now_ms), turned[0])


def _machines(name: HistoryName) -> dict[str, list[Machine]]:
    wanted = min(MACHINES_MAX, name.parts // PARTS_PER_MACHINE)
    return {
        machine_class: [
            Machine(f"{machine_class}-{name.seed}-{n + 1}", machine_class)
            for n in range(1 if machine_class in ALONE else max(1, round(wanted * share)))
        ]
        for machine_class, share in machine_shares().items()
    }


def document_content(document_id: str, revision: str, title: str) -> bytes:
    """Return the file of a made-up document, whose hash its release tells."""
    return f"{title}\n{document_id}, revision {revision}\n".encode()
