"""A pump shaft's story, told to a log as it happened: from the steel to the failure in the field.

Lathe 1 turns shafts from two suppliers' lots while the bearing of its spindle wears out (the end
of a real bearing's life, PRONOSTIA). The terminal at the lathe is offline during the last run, and
what it knows arrives late and in the wrong order. One shaft of that run is too thin, is used as it
is, by a signed decision, and breaks at the customer's. Only then is it found out that the second
run had been booked on the wrong lot.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from domain.asset import CommissionAsset, PlaceAsset, RegisterAsset, telemetry_stream
from domain.documents.document import DocumentKind, ReleaseDocument, SupersedeDocument
from domain.frames import time_from_ns
from domain.maintenance.work_order import (
    ApproveWorkOrder,
    CompleteWorkOrder,
    Finding,
    Replacement,
    StartWorkOrder,
)
from domain.material.lot import ConsumeLot, ReceiveLot
from domain.material.part import (
    AssemblePart,
    CreatePart,
    ReportPartFailure,
    ShipPart,
    StockPart,
)
from domain.material.process_run import (
    ActualParameter,
    CompleteProcessRun,
    SetParameter,
    StartProcessRun,
)
from domain.opinions.model import TrainModel
from domain.opinions.prediction import Contribution, PredictRemainingLife
from domain.plant.component import InstallComponent, RegisterComponent, RemoveComponent
from domain.plant.location import DefineLocation, Level
from domain.quality.inspection import Characteristic, Judge, RecordInspection, Verdict
from domain.quality.instrument import CalibrateInstrument, RegisterInstrument
from domain.quality.nonconformance import (
    Disposition,
    DispositionNonconformance,
    NonconformanceDispositioned,
    OpenNonconformance,
)
from domain.records import CorrectRecord, Meaning
from domain.signatures import Authentication, SignRecord
from domain.thread import LinkKind, NodeKind
from eventlog.commands import Handled, handle
from eventlog.corrections import handle_correction
from eventlog.documents import ContentStore, add_document
from eventlog.envelope import new_frame
from eventlog.ledger import Ledger
from eventlog.reading import read_event
from eventlog.signatures import KEY_BYTES_MIN, KeyedVerifier, sign_record
from projections.thread.trace import trace
from projections.thread.traced import Direction
from tests.projections.all_projections import Runners, settled
from tests.projections.machine_frames import machine_frame
from tests.recordings import FemtoLife, read_femto

# Policies take what is more than a week old for history, so the story is of this week.
MACHINING: Final = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=5)
MINUTE: Final = timedelta(minutes=1)
DAY: Final = timedelta(days=1)
HOUR_S: Final = 3_600.0

BEARING: Final = "Bearing1_2"
LOOKS: Final = 120
"""The last twenty minutes of the bearing's life, a look every 10 s."""

LOOKS_A_WINDOW: Final = 6
LOOK_NS: Final = 10_000_000_000

MARA, JON, TERMINAL = "user:mara", "user:jon", "terminal:lathe-1"
GATEWAY: Final = KeyedVerifier(bytes(range(KEY_BYTES_MIN)))
NONCONFORMANCE: Final = "nonconformance:NC-1"

FILES: Final = {
    "DRW-SHAFT@A": b"ISO-10303-21; shaft 25 f7, first edition",
    "DRW-SHAFT@B": b"ISO-10303-21; shaft 25 f7, with a radius at the shoulder",
    "CERT-S@1": b"EN 10204 3.1: heat 77121, 42CrMo4, Rm 1040 MPa",
    "CERT-T@1": b"EN 10204 3.1: heat 80455, 42CrMo4, Rm 1055 MPa",
    "RCP-TURN@3": b"G96 S180 M4; G1 X25 F0.12",
    "CAL-CMM@7": b"ISO 10360-2: MPE_E 1.9 um + L/350",
}
"""What is in the files of documents' revisions."""


def at(minutes: float) -> datetime:
    """Return the moment so many minutes after the machining began."""
    return MACHINING + minutes * MINUTE


@dataclass
class Story:
    """A factory's log while the story is told, and where in the log its turns are.

    Parameters
    ----------
    shipped : position of the shipment
    failed : of all that was known when the shaft broke
    rebooked : of the correction of the second run's lot
    decided : position of the disposition; `signed` of its signature
    taken_back : position of the disposition's correction
    """

    ledger: Ledger
    runners: Runners
    contents: ContentStore
    life: FemtoLife
    shipped: int = 0
    failed: int = 0
    rebooked: int = 0
    decided: int = 0
    signed: int = 0
    taken_back: int = 0
    positions: dict[str, int] = field(default_factory=dict)

    async def tell(self, minutes: float, command: Any, actor: str = MARA) -> Handled:
        """Have `command` decided and recorded, as true `minutes` after the machining began."""
        return await handle(
            self.ledger,
            command,
            actor=actor,
            occurred_at=at(minutes),
            event_id=lambda _: uuid.uuid4(),
        )

    async def settle(self) -> int:
        """Return the head once everything is folded and no policy has anything to add."""
        return await settled(self.ledger, self.runners)


async def tell_story(story: Story) -> None:
    """Tell all of it."""
    await found_factory(story)
    await turn_shafts(story)
    await inspect_shafts(story)
    await assemble_and_ship(story)
    await repair_lathe(story)
    await fail_in_the_field(story)
    await find_out(story)


# --- before ---------------------------------------------------------------------------------


async def found_factory(story: Story) -> None:
    """Drawings, steel with its certificates, a lathe with a bearing, a calibrated instrument."""
    for name, kind, part_number in (
        ("DRW-SHAFT@A", DocumentKind.DESIGN, "SHAFT-25"),
        ("DRW-SHAFT@B", DocumentKind.DESIGN, "SHAFT-25"),
        ("CERT-S@1", DocumentKind.CERTIFICATE, None),
        ("CERT-T@1", DocumentKind.CERTIFICATE, None),
        ("RCP-TURN@3", DocumentKind.RECIPE, None),
        ("CAL-CMM@7", DocumentKind.CERTIFICATE, None),
    ):
        await add(story, name, kind, part_number)
    await story.tell(-110, SupersedeDocument("DRW-SHAFT", "A", "B"))
    for lot, supplier, heat in (("LOT-S", "Saarstahl", "77121"), ("LOT-T", "Ovako", "80455")):
        certificate = f"CERT-{lot[-1]}@1"
        received = ReceiveLot(lot, "42CrMo4 bar 30 mm", 120, "kg", supplier, heat, certificate)
        await story.tell(-100, received)
    await story.tell(-90, DefineLocation("works", Level.ENTERPRISE, "Works"))
    await story.tell(-90, DefineLocation("line-1", Level.LINE, "Shafts", "works"))
    await story.tell(-90, RegisterAsset("lathe-1", "production-machine", "Lathe 1"))
    await story.tell(-89, CommissionAsset("lathe-1"))
    await story.tell(-88, PlaceAsset("lathe-1", "line-1"))
    for bearing in ("BRG-1", "BRG-2"):
        await story.tell(-90, RegisterComponent(bearing, "spindle-bearing", "Spindle bearing"))
    await story.tell(-80, InstallComponent("BRG-1", "lathe-1", "spindle"))
    await story.tell(-70, RegisterInstrument("CMM-2", "Measuring machine"))
    calibrated = CalibrateInstrument("CMM-2", at(-60), at(0) + 365 * DAY, "CAL-CMM@7")
    await story.tell(-60, calibrated)
    trained = TrainModel(
        "bearing-life",
        "3",
        "remaining life of spindle bearings",
        hashlib.sha256(b"weights").hexdigest(),
        training_from_position=1,
        training_to_position=await story.ledger.head(),
        seed=7,
        code_version="1.4.0",
        metrics=(),
    )
    await story.tell(-50, trained)


async def add(story: Story, name: str, kind: DocumentKind, part_number: str | None) -> None:
    """Store a file and release it as the revision `name`."""
    document_id, _, revision = name.partition("@")
    command = ReleaseDocument(
        document_id, revision, kind, name, "", 0, "text/plain", part_number, at(-120)
    )
    _, content = await add_document(
        story.ledger,
        story.contents,
        io.BytesIO(FILES[name]),
        command,
        actor=MARA,
        occurred_at=at(-120),
        event_id=lambda _: uuid.uuid4(),
    )
    assert content.sha256 == hashlib.sha256(FILES[name]).hexdigest()


# --- machining ------------------------------------------------------------------------------


def start_of(run: str, *, late: bool = False) -> StartProcessRun:
    return StartProcessRun(
        run,
        "lathe-1",
        "turning",
        recipe="RCP-TURN@3",
        design="DRW-SHAFT@B",
        tool="CNMG-120408",
        operator="user:ines",
        parameters=(SetParameter("feed", 0.12, "mm"),),
        late=late,
    )


def end_of(run: str, *, late: bool = False) -> CompleteProcessRun:
    parameters = (ActualParameter("feed", 0.12, 0.118, 0.121, "mm"),)
    return CompleteProcessRun(run, parameters, 2.1e6, late=late)


def shaft(number: int, run: str, *, late: bool = False) -> CreatePart:
    return CreatePart(f"SN-{number}", "SHAFT-25", "DRW-SHAFT@B", run, late=late)


async def turn_shafts(story: Story) -> None:
    """Three runs of two shafts each; the last one's terminal is offline."""
    await run_live(story, "RUN-1", "LOT-S", 0, (1, 2))
    await send_windows(story, 0, 7)
    await run_live(story, "RUN-2", "LOT-T", 7, (3, 4))
    await send_windows(story, 7, 20)
    await story.settle()
    await predict_wear(story)
    # Back online it sends what it holds, the newest first.
    backlog: list[tuple[float, Any]] = [
        (20, end_of("RUN-3", late=True)),
        (19, shaft(6, "RUN-3", late=True)),
        (18, shaft(5, "RUN-3", late=True)),
        (15, ConsumeLot("LOT-S", "RUN-3", 8, "kg", late=True)),
        (14, start_of("RUN-3", late=True)),
    ]
    for minutes, command in backlog:
        handled = await story.tell(minutes, command, TERMINAL)
        story.positions[type(command).__name__] = handled.position


async def predict_wear(story: Story) -> None:
    """A model that has seen the lathe's vibration gives the bearing some hours."""
    predicted = PredictRemainingLife(
        "P-1",
        "lathe-1",
        "BRG-1",
        "bearing-life@3",
        "bearing_wear",
        remaining_s=4 * HOUR_S,
        lower_s=1 * HOUR_S,
        upper_s=9 * HOUR_S,
        confidence=0.9,
        input_from_position=1,
        input_to_position=await story.ledger.head(),
        explanation=(Contribution("vibration_vertical_rms", 2.1, -3.4 * HOUR_S),),
    )
    await story.tell(21, predicted, "agent:lathe-1")


async def run_live(story: Story, run: str, lot: str, begin: float, shafts: tuple[int, int]) -> None:
    await story.tell(begin, start_of(run), TERMINAL)
    consumed = await story.tell(begin + 1, ConsumeLot(lot, run, 8, "kg"), TERMINAL)
    story.positions[f"{run} consumed"] = consumed.position
    for number in shafts:
        await story.tell(begin + 5, shaft(number, run), TERMINAL)
    await story.tell(begin + 6, end_of(run), TERMINAL)


async def send_windows(story: Story, first: int, last: int) -> None:
    """Record the lathe's vibration of the minutes `first` to `last`, a window each."""
    events = []
    for minute in range(first, last):
        looks = slice(minute * LOOKS_A_WINDOW, (minute + 1) * LOOKS_A_WINDOW)
        begin_ns = int(at(0).timestamp()) * 1_000_000_000
        times_ns = begin_ns + np.arange(looks.start, looks.stop, dtype=np.int64) * LOOK_NS
        columns = {
            "vibration_horizontal": story.life.horizontal_g[-LOOKS:][looks],
            "vibration_vertical": story.life.vertical_g[-LOOKS:][looks],
        }
        frame = machine_frame("lathe-1", minute + 1, times_ns, columns)
        events.append(
            new_frame(
                telemetry_stream("lathe-1"),
                frame,
                event_id=uuid.uuid4(),
                occurred_at=time_from_ns(frame.window_end_ns),
            )
        )
    await story.ledger.append(events)


# --- quality --------------------------------------------------------------------------------


def journal(measured: float) -> Characteristic:
    """Return a measured journal of 25 f7: 24.959 to 24.980 mm."""
    return Characteristic("journal", 25.0, 24.959, 24.980, measured, "mm", "CMM-2")


async def inspect_shafts(story: Story) -> None:
    """One shaft is good, one is too thin and used all the same: decided, and signed for."""
    for number, measured, verdict, defects in (
        (1, 24.971, Verdict.GOOD, ()),
        (5, 24.951, Verdict.DEFECTIVE, ("undersize",)),
    ):
        await story.tell(
            60,
            RecordInspection(
                f"INS-{number}",
                f"part:SN-{number}",
                at(60),
                verdict,
                Judge.PERSON,
                run_id=None,
                characteristics=(journal(measured),),
                defect_codes=defects,
            ),
        )
    await story.tell(
        62, OpenNonconformance("NC-1", "part:SN-5", "undersize", "8 um too thin", "INS-5")
    )
    use = DispositionNonconformance("NC-1", Disposition.USE_AS_IS, "the seal takes 24.945 mm")
    story.decided = (await story.tell(65, use, JON)).position
    story.signed = await sign(story, story.decided, at(70))


async def sign(story: Story, position: int, now: datetime) -> int:
    """Have Mara approve the event at `position`, freshly authenticated; return where."""
    authentication = Authentication(MARA, ("password", "totp"), now - MINUTE)
    command = SignRecord(
        NONCONFORMANCE, position, "Mara Lindqvist", Meaning.APPROVED, authentication
    )
    handled = await sign_record(
        story.ledger, GATEWAY.vouch(command), GATEWAY, actor=MARA, now=now, event_id=uuid.uuid4
    )
    return handled.position


# --- assembly, shipment, maintenance --------------------------------------------------------


async def assemble_and_ship(story: Story) -> None:
    """Three pumps get a shaft each, and two of them leave."""
    for pump, number in (("PUMP-A", 5), ("PUMP-B", 1), ("PUMP-C", 3)):
        await story.tell(110, CreatePart(pump, "PUMP-200"))
        await story.tell(120, AssemblePart(f"SN-{number}", pump, "shaft"))
        await story.tell(130, StockPart(pump))
    for number in (2, 4):
        await story.tell(130, StockPart(f"SN-{number}"))
    for pump in ("PUMP-A", "PUMP-B"):
        handled = await story.tell(24 * 60, ShipPart(pump, "SHIP-1", "Aqua AG"))
    story.shipped = handled.position


async def repair_lathe(story: Story) -> None:
    """What the prediction led to is done: the bearing was worn, and is replaced."""
    await story.settle()
    found = await trace(
        story.ledger,
        ["prediction:P-1"],
        direction=Direction.FORWARD,
        link_kinds=[LinkKind.LED_TO],
        node_kinds=[NodeKind.WORK_ORDER],
    )
    (order,) = {node.key.removeprefix("work-order:") for node in found.nodes}
    # The policy asked when it learnt of the wear; nobody repairs before he is asked.
    requested = await read_event(story.ledger, found.nodes[0].first_position)
    assert requested is not None
    began = (requested.occurred_at - MACHINING) / MINUTE
    await story.tell(began, ApproveWorkOrder(order), JON)
    await story.tell(began + 1, StartWorkOrder(order, asset_down=True), JON)
    await story.tell(began + 30, RemoveComponent("BRG-1", "lathe-1", "spindle", "worn"), JON)
    await story.tell(began + 50, InstallComponent("BRG-2", "lathe-1", "spindle"), JON)
    await story.tell(
        began + 60,
        CompleteWorkOrder(
            order,
            completed_at=at(began + 60),
            finding=Finding.FAILURE_CONFIRMED,
            failure_mode="bearing_wear",
            failed_at=at(14),
            replacements=(Replacement("spindle", "BRG-1", "BRG-2"),),
            labour_s=3_540.0,
            cost=640.0,
            currency="EUR",
            note="outer race spalled",
        ),
        JON,
    )


# --- the field ------------------------------------------------------------------------------


async def fail_in_the_field(story: Story) -> None:
    broke = ReportPartFailure("SN-5", "FAIL-1", "shaft_fracture", "broke at the shoulder")
    story.failed = (await story.tell(3 * 24 * 60, broke, "portal:aqua-ag")).position


async def find_out(story: Story) -> None:
    """The second run had used the other lot, and nobody should have let the shaft pass."""
    await correct(
        story,
        story.positions["RUN-2 consumed"],
        None,
        "the bar's label was read wrong: it was of LOT-S",
    )
    told = await story.tell(8, ConsumeLot("LOT-S", "RUN-2", 8, "kg", late=True), JON)
    story.rebooked = told.position
    story.taken_back = await correct(
        story,
        story.decided,
        NonconformanceDispositioned("NC-1", Disposition.SCRAP, "the seal was another one"),
        "the concession was for the seal of PUMP-300",
    )


async def correct(story: Story, position: int, replacement: Any, reason: str) -> int:
    """Record that the event at `position` was wrong; return where."""
    wrong = await read_event(story.ledger, position)
    assert wrong is not None
    handled = await handle_correction(
        story.ledger,
        CorrectRecord(wrong.stream, wrong.event_id, reason, replacement),
        actor=JON,
        event_id=uuid.uuid4(),
    )
    return handled.position


async def told_story(ledger: Ledger, runners: Runners, folder: Path) -> Story:
    """Tell the story to `ledger`, and return it once everything is folded."""
    contents = await asyncio.to_thread(ContentStore, str(folder / "documents"))
    story = Story(ledger, runners, contents, read_femto(BEARING))
    await tell_story(story)
    await story.settle()
    return story
