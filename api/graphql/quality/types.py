"""Types of quality: inspections, non-conformances, and the instruments that measure."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import strawberry

from api.graphql.context import OperationContext, OperationInfo
from api.graphql.documents.types import DocumentRevision, revision_named
from api.graphql.fields import field
from api.graphql.material.types import Lot, Part, find_lot, find_part
from api.graphql.object_lists import ObjectFilterInput
from api.graphql.objects import (
    ThreadObject,
    actor_of,
    asked_as,
    common,
    first_entry,
    key_or_none,
    last_entry,
    object_in,
)
from api.graphql.production.types import ProcessRun, find_process_run
from api.graphql.quality import enums as _enums  # noqa: F401 (describes Verdict, Judge …)
from api.graphql.quantities import Quantity, quantity
from api.graphql.scalars import Position, described_enum
from domain.quality.inspection import Characteristic as CharacteristicAsDecided
from domain.quality.inspection import (
    InspectionRecorded,
    Judge,
    Verdict,
    inspection_stream,
)
from domain.quality.instrument import (
    InstrumentCalibrated,
    InstrumentRetired,
    Registered,
    calibration_at,
    instrument_stream,
)
from domain.quality.nonconformance import (
    Disposition,
    NonconformanceClosed,
    NonconformanceDispositioned,
    NonconformanceOpened,
    nonconformance_stream,
)
from eventlog.objects import LoadedObject
from projections.object_kinds import (
    InstrumentState,
    NonconformanceState,
    instrument_state,
    nonconformance_state,
)

INSPECTION: Final = "Inspection"
NONCONFORMANCE: Final = "Nonconformance"
INSTRUMENT: Final = "Instrument"

described_enum(
    InstrumentState,
    "How an instrument stands.",
    {
        "UNKNOWN": "Its registration was corrected away.",
        "REGISTERED": "In use.",
        "RETIRED": "Not used any more.",
    },
)
described_enum(
    NonconformanceState,
    "How far a non-conformance has come.",
    {
        "UNKNOWN": "Its opening was corrected away.",
        "OPEN": "Found, and waiting for a decision.",
        "DISPOSITIONED": "Decided, and waiting to be carried out.",
        "CLOSED": "What was decided has been done.",
    },
)


async def _part_of(
    context: OperationContext, stream: str | None, told: LoadedObject
) -> Part | None:
    category, _, key = (stream or "").partition(":")
    return await find_part(context, key, told) if category == "part" else None


async def _lot_of(context: OperationContext, stream: str | None, told: LoadedObject) -> Lot | None:
    category, _, key = (stream or "").partition(":")
    return await find_lot(context, key, told) if category == "lot" else None


# --- instruments ----------------------------------------------------------------------------


@strawberry.input(
    description="Which instruments are wanted; what is null or empty does not restrict."
)
class InstrumentFilter(ObjectFilterInput):
    """What restricts a list of instruments; each list at most 100 values."""

    states: list[InstrumentState] | None = strawberry.field(
        default=None, description="Instruments that stand so."
    )
    due_before: datetime | None = strawberry.field(
        default=None, description="Instruments whose last calibration runs out before then."
    )
    certificates: list[str] | None = strawberry.field(
        default=None, description="Instruments with one of these certificates, such as `CERT-1@A`."
    )


@strawberry.type(description="That an instrument may be trusted, from when until when.")
class Calibration:
    """`domain.quality.instrument.InstrumentCalibrated`."""

    loaded: strawberry.Private[LoadedObject]
    calibrated_at: datetime = strawberry.field(description="From when.")
    valid_until: datetime = strawberry.field(description="Until when.")
    certificate: str | None = strawberry.field(
        description="Revision of its certificate, such as `CERT-1@A`; null: none was named."
    )

    @field(description="Its certificate; null: none, or it is not released.")
    async def certificate_revision(self, info: OperationInfo) -> DocumentRevision | None:
        """Return the calibration's certificate."""
        return await revision_named(info.context, self.certificate, self.loaded)

    @classmethod
    def of(cls, fact: InstrumentCalibrated, loaded: LoadedObject) -> Calibration:
        """Return `fact` as the schema tells it."""
        return cls(
            loaded=loaded,
            calibrated_at=fact.calibrated_at,
            valid_until=fact.valid_until,
            certificate=fact.certificate,
        )


@strawberry.type(description="What is measured with.")
class Instrument(ThreadObject):
    """`domain.quality.instrument.Instrument`."""

    instrument_id: strawberry.ID = strawberry.field(description="Natural key.")
    state: InstrumentState = strawberry.field(description="How it stands.")
    title: str | None = strawberry.field(description="What people call it.")
    calibrations: list[Calibration] = strawberry.field(
        description="Its calibrations, in the order of their times."
    )
    calibrated_until: datetime | None = strawberry.field(
        description="When its last calibration runs out; null: it was never calibrated."
    )
    retired_at: datetime | None = strawberry.field(
        description="From when on it is not used any more; null: it is."
    )
    retirement_reason: str | None = strawberry.field(description="Why it is not used any more.")

    @classmethod
    def of(cls, loaded: LoadedObject) -> Instrument:
        """Return an instrument as the schema tells it."""
        known = loaded.state if isinstance(loaded.state, Registered) else None
        calibrations = () if known is None else known.calibrations
        retired = last_entry(loaded, InstrumentRetired)
        return cls(
            **common(INSTRUMENT, loaded),
            instrument_id=strawberry.ID(loaded.key),
            state=instrument_state(loaded.state),
            title=None if known is None else known.title,
            calibrations=[Calibration.of(fact, loaded) for fact in calibrations],
            calibrated_until=calibrations[-1].valid_until if calibrations else None,
            retired_at=None if known is None else known.retired_at,
            retirement_reason=None if retired is None else retired.fact.reason,
        )

    @field(
        description="The calibration by which it may be trusted at a time; null: it may not be. "
        "The last one before that time counts."
    )
    def calibration(
        self,
        info: OperationInfo,
        at: Annotated[
            datetime | None,
            strawberry.argument(
                description="When; null: now, or when the instrument is asked as of."
            ),
        ] = None,
    ) -> Calibration | None:
        """Return the calibration that counts at a time."""
        if not isinstance(self.loaded.state, Registered):
            return None
        moment = at or self.loaded.valid_at or info.context.now
        found = calibration_at(self.loaded.state, moment)
        return None if found is None else Calibration.of(found, self.loaded)


# --- inspections ----------------------------------------------------------------------------


@strawberry.input(
    description="Which inspections are wanted; what is null or empty does not restrict."
)
class InspectionFilter:
    """What restricts a list of inspections; each list at most 100 values."""

    subjects: list[str] | None = strawberry.field(
        default=None,
        description="Inspections of these, by their streams, such as `part:SN-1042`.",
    )
    process_run_ids: list[str] | None = strawberry.field(
        default=None, description="Inspections made in these runs."
    )
    verdicts: list[Verdict] | None = strawberry.field(
        default=None, description="Inspections that came to this."
    )
    judges: list[Judge] | None = strawberry.field(
        default=None, description="Verdicts given by these."
    )
    models: list[str] | None = strawberry.field(
        default=None, description="Verdicts by these versions of models, such as `vision@3`."
    )
    defect_codes: list[str] | None = strawberry.field(
        default=None, description="Inspections that found one of these defects."
    )
    inspected_from: datetime | None = strawberry.field(
        default=None, description="Inspections made then or later."
    )
    inspected_to: datetime | None = strawberry.field(
        default=None, description="Inspections made before then."
    )


@strawberry.type(
    description="A measured property against its tolerance; a value on a limit conforms."
)
class Characteristic:
    """`domain.quality.inspection.Characteristic`."""

    loaded: strawberry.Private[LoadedObject]
    name: str = strawberry.field(description="What was measured.")
    measured: Quantity = strawberry.field(description="What it came to.")
    nominal: Quantity | None = strawberry.field(description="What it should be; null: not said.")
    lower_limit: Quantity | None = strawberry.field(
        description="The least that conforms; null: open."
    )
    upper_limit: Quantity | None = strawberry.field(
        description="The most that conforms; null: open."
    )
    conforms: bool = strawberry.field(description="Whether it lies within its limits.")
    instrument_id: strawberry.ID | None = strawberry.field(
        description="What it was measured with; null: not said."
    )

    @field(description="What it was measured with; null: not said, or not registered.")
    async def instrument(self, info: OperationInfo) -> Instrument | None:
        """Return the characteristic's instrument."""
        if self.instrument_id is None:
            return None
        return await find_instrument(info.context, self.instrument_id, self.loaded)

    @classmethod
    def of(cls, found: CharacteristicAsDecided, loaded: LoadedObject) -> Characteristic:
        """Return a characteristic as the schema tells it."""
        return cls(
            loaded=loaded,
            name=found.name,
            measured=Quantity(recorded=found.measured, recorded_unit=found.unit),
            nominal=quantity(found.nominal, found.unit),
            lower_limit=quantity(found.lower_limit, found.unit),
            upper_limit=quantity(found.upper_limit, found.unit),
            conforms=found.conforms,
            instrument_id=key_or_none(found.instrument_id),
        )


@strawberry.type(description="A picture, by the SHA-256 of its content.")
class InspectionImage:
    """`domain.quality.inspection.Image`."""

    sha256: str = strawberry.field(description="SHA-256 of its content, hexadecimal.")
    media_type: str = strawberry.field(description="What it is, such as `image/png`.")


@strawberry.type(description="What was measured and seen of a part, a lot or a run; a verdict.")
class Inspection(ThreadObject):
    """`domain.quality.inspection.InspectionRecorded`."""

    inspection_id: strawberry.ID = strawberry.field(description="Natural key.")
    subject: str | None = strawberry.field(
        description="Stream of what was inspected, such as `part:SN-1042`; null where the "
        "inspection was corrected away, as is all else then."
    )
    verdict: Verdict | None = strawberry.field(description="What it came to.")
    judge: Judge | None = strawberry.field(description="Who gave the verdict.")
    model: str | None = strawberry.field(
        description="Version of the model that did, such as `vision@3`; null: a person did."
    )
    inspected_at: datetime | None = strawberry.field(description="When.")
    inspected_by: str | None = strawberry.field(description="Who recorded it.")
    process_run_id: strawberry.ID | None = strawberry.field(
        description="The run in which it was made; null: in none."
    )
    plan: str | None = strawberry.field(
        description="Revision of its inspection plan, such as `PLAN-2@A`; null: not said."
    )
    characteristics: list[Characteristic] = strawberry.field(
        description="What was measured, in the order in which it was told."
    )
    images: list[InspectionImage] = strawberry.field(description="Pictures that were taken.")
    defect_codes: list[str] = strawberry.field(description="What was found wrong, by its codes.")
    flags: list[str] = strawberry.field(
        description="Codes of what should not be so and was recorded all the same, such as "
        "`inspection.instrument_uncalibrated`."
    )

    @classmethod
    def of(cls, loaded: LoadedObject) -> Inspection:
        """Return an inspection as the schema tells it."""
        entry = last_entry(loaded, InspectionRecorded)
        fact: InspectionRecorded | None = None if entry is None else entry.fact
        return cls(
            **common(INSPECTION, loaded),
            inspection_id=strawberry.ID(loaded.key),
            subject=None if fact is None else fact.subject,
            verdict=None if fact is None else fact.verdict,
            judge=None if fact is None else fact.judge,
            model=None if fact is None else fact.model,
            inspected_at=None if entry is None else entry.occurred_at,
            inspected_by=actor_of(loaded, entry),
            process_run_id=None if fact is None else key_or_none(fact.run_id),
            plan=None if fact is None else fact.plan,
            characteristics=[
                Characteristic.of(found, loaded)
                for found in (() if fact is None else fact.characteristics)
            ],
            images=[
                InspectionImage(sha256=image.sha256, media_type=image.media_type)
                for image in (() if fact is None else fact.images)
            ],
            defect_codes=[] if fact is None else list(fact.defect_codes),
            flags=[] if fact is None else list(fact.flags),
        )

    @field(description="The part that was inspected; null: it was none, or nobody knows it.")
    async def part(self, info: OperationInfo) -> Part | None:
        """Return the part that was inspected."""
        return await _part_of(info.context, self.subject, self.loaded)

    @field(description="The lot that was inspected; null: it was none, or nobody knows it.")
    async def lot(self, info: OperationInfo) -> Lot | None:
        """Return the lot that was inspected."""
        return await _lot_of(info.context, self.subject, self.loaded)

    @field(description="The run in which it was made; null: in none, or it is not known.")
    async def process_run(self, info: OperationInfo) -> ProcessRun | None:
        """Return the inspection's run."""
        if self.process_run_id is None:
            return None
        return await find_process_run(info.context, self.process_run_id, asked_as(self.loaded))

    @field(description="Its inspection plan; null: not said, or it is not released.")
    async def plan_revision(self, info: OperationInfo) -> DocumentRevision | None:
        """Return the inspection's plan."""
        return await revision_named(info.context, self.plan, self.loaded)


# --- non-conformances -----------------------------------------------------------------------


@strawberry.input(
    description="Which non-conformances are wanted; what is null or empty does not restrict."
)
class NonconformanceFilter(ObjectFilterInput):
    """What restricts a list of non-conformances; each list at most 100 values."""

    states: list[NonconformanceState] | None = strawberry.field(
        default=None, description="Non-conformances that have come so far."
    )
    subjects: list[str] | None = strawberry.field(
        default=None,
        description="Non-conformances of these, by their streams, such as `part:SN-1042`.",
    )
    inspection_ids: list[str] | None = strawberry.field(
        default=None, description="Non-conformances that these inspections found."
    )
    defect_codes: list[str] | None = strawberry.field(
        default=None, description="Non-conformances with these defects."
    )
    dispositions: list[Disposition] | None = strawberry.field(
        default=None, description="Non-conformances of which this was decided."
    )


@strawberry.type(description="What is done with what does not conform, and why.")
class DispositionDecision:
    """`domain.quality.nonconformance.NonconformanceDispositioned`."""

    disposition: Disposition = strawberry.field(description="What is done with it.")
    reason: str = strawberry.field(description="Why, in words.")
    decided_at: datetime = strawberry.field(description="When it was decided.")
    decided_by: str | None = strawberry.field(description="Who decided.")
    position: Position = strawberry.field(description="Where the decision stands in the log.")


@strawberry.type(description="That something is not as specified, and what is done about it.")
class Nonconformance(ThreadObject):
    """`domain.quality.nonconformance.Nonconformance`."""

    nonconformance_id: strawberry.ID = strawberry.field(description="Natural key.")
    state: NonconformanceState = strawberry.field(description="How far it has come.")
    subject: str | None = strawberry.field(
        description="Stream of what does not conform, such as `part:SN-1042`; null where the "
        "opening was corrected away, as is all else then."
    )
    inspection_id: strawberry.ID | None = strawberry.field(
        description="The inspection that found it; null: none was named."
    )
    defect_code: str | None = strawberry.field(description="What is wrong, by its code.")
    description: str | None = strawberry.field(description="What is wrong, in words.")
    opened_at: datetime | None = strawberry.field(description="When it was opened.")
    opened_by: str | None = strawberry.field(description="Who opened it.")
    decision: DispositionDecision | None = strawberry.field(
        description="What is done with it; null: nobody has decided yet."
    )
    closed_at: datetime | None = strawberry.field(
        description="When it was closed; null: it is not."
    )
    closed_by: str | None = strawberry.field(description="Who closed it.")
    closing_note: str | None = strawberry.field(description="What he noted.")

    @classmethod
    def of(cls, loaded: LoadedObject) -> Nonconformance:
        """Return a non-conformance as the schema tells it."""
        entry = first_entry(loaded, NonconformanceOpened)
        opened: NonconformanceOpened | None = None if entry is None else entry.fact
        closed = last_entry(loaded, NonconformanceClosed)
        return cls(
            **common(NONCONFORMANCE, loaded),
            nonconformance_id=strawberry.ID(loaded.key),
            state=nonconformance_state(loaded.state),
            subject=None if opened is None else opened.subject,
            inspection_id=None if opened is None else key_or_none(opened.inspection_id),
            defect_code=None if opened is None else opened.defect_code,
            description=None if opened is None else opened.description,
            opened_at=None if entry is None else entry.occurred_at,
            opened_by=actor_of(loaded, entry),
            decision=_decision(loaded),
            closed_at=None if closed is None else closed.occurred_at,
            closed_by=actor_of(loaded, closed),
            closing_note=None if closed is None else closed.fact.note,
        )

    @field(description="The part that does not conform; null: it is none, or nobody knows it.")
    async def part(self, info: OperationInfo) -> Part | None:
        """Return the part that it is of."""
        return await _part_of(info.context, self.subject, self.loaded)

    @field(description="The lot that does not conform; null: it is none, or nobody knows it.")
    async def lot(self, info: OperationInfo) -> Lot | None:
        """Return the lot that it is of."""
        return await _lot_of(info.context, self.subject, self.loaded)

    @field(description="The inspection that found it; null: none was named, or it is not known.")
    async def inspection(self, info: OperationInfo) -> Inspection | None:
        """Return the inspection that found it."""
        if self.inspection_id is None:
            return None
        return await find_inspection(info.context, self.inspection_id, self.loaded)


def _decision(loaded: LoadedObject) -> DispositionDecision | None:
    entry = last_entry(loaded, NonconformanceDispositioned)
    if entry is None:
        return None
    return DispositionDecision(
        disposition=entry.fact.disposition,
        reason=entry.fact.reason,
        decided_at=entry.occurred_at,
        decided_by=actor_of(loaded, entry),
        position=Position(entry.position),
    )


# --- finding --------------------------------------------------------------------------------


async def find_instrument(
    context: OperationContext, key: str, as_of: Any = None
) -> Instrument | None:
    """Return the instrument called `key`; as `api.graphql.objects.object_in`."""
    found = await object_in(context, instrument_stream(key), as_of)
    return None if found is None else Instrument.of(found)


async def find_inspection(
    context: OperationContext, key: str, as_of: Any = None
) -> Inspection | None:
    """Return the inspection called `key`; as `api.graphql.objects.object_in`."""
    found = await object_in(context, inspection_stream(key), as_of)
    return None if found is None else Inspection.of(found)


async def find_nonconformance(
    context: OperationContext, key: str, as_of: Any = None
) -> Nonconformance | None:
    """Return the non-conformance called `key`; as `api.graphql.objects.object_in`."""
    found = await object_in(context, nonconformance_stream(key), as_of)
    return None if found is None else Nonconformance.of(found)
