"""Inspections: what was measured and seen on a part, a lot or a run, and the verdict.

A verdict does not contradict what was measured: what lies outside its tolerance is never GOOD.
To use it all the same is a decision of its own, the disposition USE_AS_IS of a non-conformance,
with its reason and whoever answers for it.

References
----------
ISO 9001:2015, 7.1.5.2 (traceable measurement), 8.6 (release), 8.7 (nonconforming outputs).
AS9102C (2023), Form 3: each characteristic beside its requirement; one that is outside of it
names a non-conformance.
ISO 14253-1:2017 would narrow the tolerance by the uncertainty of the measurement; limits here
are taken as given, so an inspection plan that wants guard bands puts them into its limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from domain.deciders import Decider, Others
from domain.documents.document import check_revision_name
from domain.errors import CommandRejected, HeddleError, InvalidInput
from domain.events import event_type, format_time
from domain.identifiers import check_identifier
from domain.quality.instrument import (
    Unregistered,
    calibration_at,
    instrument_stream,
    unknown_instrument,
)
from domain.texts import NAME_LENGTH_MAX, check_media_type, check_sha256, check_text
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem
from domain.units import unit

SUBJECT_CATEGORIES: Final = ("lot", "part", "process-run")
"""What can be inspected, and what a non-conformance can concern."""

CHARACTERISTICS_MAX: Final = 500
IMAGES_MAX: Final = 100
DEFECT_CODES_MAX: Final = 50
INSTRUMENTS_MAX: Final = 100


def inspection_stream(inspection_id: str) -> str:
    """Return the stream of an inspection."""
    return f"inspection:{inspection_id}"


# --- events -------------------------------------------------------------------------------


class Verdict(StrEnum):
    """What an inspection comes to."""

    GOOD = "GOOD"
    DEFECTIVE = "DEFECTIVE"
    CRITICAL = "CRITICAL"


class Judge(StrEnum):
    """Who gave a verdict."""

    PERSON = "PERSON"
    MODEL = "MODEL"


@dataclass(frozen=True)
class Characteristic:
    """One measured property against its tolerance, all in `unit`; a None limit is open.

    The nominal need not lie within the limits: that of a fit such as 25 f7 does not. A
    characteristic measured several times stands there several times.
    """

    name: str
    nominal: float | None
    lower_limit: float | None
    upper_limit: float | None
    measured: float
    unit: str
    instrument_id: str | None

    @property
    def conforms(self) -> bool:
        """Whether what was measured lies within its limits, ends included."""
        above = self.lower_limit is None or self.measured >= self.lower_limit
        return above and (self.upper_limit is None or self.measured <= self.upper_limit)


@dataclass(frozen=True)
class Image:
    """A picture by the hex SHA-256 of its content."""

    sha256: str
    media_type: str


@event_type("inspection.recorded")
@dataclass(frozen=True)
class InspectionRecorded:
    """Somebody or something looked at `subject` (a stream: part, lot or process run).

    Parameters
    ----------
    plan : revision of the inspection plan's document, or None
    judge, model : who gave the verdict; ``model`` is ``MODEL-ID@VERSION`` for Judge.MODEL
    flags : what was not as it should be and recorded all the same, by its code, such as
        ``inspection.instrument_uncalibrated``
    """

    inspection_id: str
    subject: str
    run_id: str | None
    plan: str | None
    characteristics: tuple[Characteristic, ...]
    images: tuple[Image, ...]
    defect_codes: tuple[str, ...]
    verdict: Verdict
    judge: Judge
    model: str | None
    flags: tuple[str, ...]

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the inspection of its subject, and what it was made with."""
        node = inspection_stream(self.inspection_id)
        items: list[ThreadItem] = [
            Link(LinkKind.INSPECTED_BY, self.subject, node),
            Standing(node, NodeState[self.verdict.name]),
        ]
        if self.run_id is not None:
            items.append(Link(LinkKind.INSPECTED_BY, f"process-run:{self.run_id}", node))
        if self.plan is not None:
            items.append(Link(LinkKind.SPECIFIED, f"document:{self.plan}", node))
        if self.model is not None:
            items.append(Link(LinkKind.PREDICTED, f"model:{self.model}", node))
        instruments = {c.instrument_id for c in self.characteristics if c.instrument_id is not None}
        items += [
            Link(LinkKind.MEASURED_WITH, f"instrument:{name}", node) for name in sorted(instruments)
        ]
        return tuple(items)


InspectionEvent = InspectionRecorded


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class RecordInspection:
    """Record an inspection; see `InspectionRecorded`.

    Parameters
    ----------
    inspected_at : when; the event's `occurred_at`
    late : it happened so already, as a paper or another system says: what would be refused is
        recorded, flagged with the code of the refusal
    """

    inspection_id: str
    subject: str
    inspected_at: datetime
    verdict: Verdict
    judge: Judge
    run_id: str | None = None
    plan: str | None = None
    characteristics: tuple[Characteristic, ...] = ()
    images: tuple[Image, ...] = ()
    defect_codes: tuple[str, ...] = ()
    model: str | None = None
    late: bool = False


InspectionCommand = RecordInspection


# --- states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unrecorded:
    """Nobody has recorded this inspection."""


@dataclass(frozen=True)
class Recorded:
    """What was recorded."""

    event: InspectionRecorded


Inspection = Unrecorded | Recorded


# --- decisions ----------------------------------------------------------------------------


def decide(
    command: InspectionCommand, inspection: Inspection, others: Others
) -> tuple[InspectionEvent, ...]:
    """Return the events `command` causes; `others` holds its instruments.

    The subject need not be known: the inspection of what comes in is often the first that is
    heard of it. What cannot be measured as it is said to be is refused whether late or not.

    Raises
    ------
    CommandRejected
        ``inspection.already_recorded``; unless `late`, ``inspection.verdict_contradicts`` and
        ``inspection.instrument_uncalibrated``
    NotFound
        ``instrument.unknown``, unless `late`
    InvalidInput
        ``inspection.subject``, ``inspection.model``, ``inspection.too_many``,
        ``inspection.limits``, ``inspection.value_not_finite``, ``unit.unknown``,
        ``<kind>.malformed_name``, ``event.naive_time``, ``sha256.malformed``,
        ``media_type.malformed``, ``text.empty``, ``text.too_long``, and as
        `check_revision_name`
    """
    _check(command)
    if isinstance(inspection, Recorded):
        raise CommandRejected(
            "inspection.already_recorded",
            f"inspection {command.inspection_id!r} is recorded as {inspection.event.verdict} of "
            f"{inspection.event.subject}",
            hint="an inspection is recorded once; look again under another name, or correct it",
            value=command.inspection_id,
        )
    doubts = list(_doubts(command, others))
    if doubts and not command.late:
        raise doubts[0]
    flags = tuple(sorted({doubt.code for doubt in doubts}))
    return (
        InspectionRecorded(
            inspection_id=command.inspection_id,
            subject=command.subject,
            run_id=command.run_id,
            plan=command.plan,
            characteristics=command.characteristics,
            images=command.images,
            defect_codes=command.defect_codes,
            verdict=command.verdict,
            judge=command.judge,
            model=command.model,
            flags=flags,
        ),
    )


def check_subject(kind: str, stream: str) -> None:
    """Raise ``<kind>.subject`` unless `stream` is one of a part, a lot or a process run.

    Raises
    ------
    InvalidInput
        ``<kind>.subject``, ``<category>.malformed_name``
    """
    category, _, name = stream.partition(":")
    if category not in SUBJECT_CATEGORIES:
        raise InvalidInput(
            f"{kind}.subject",
            f"{stream!r:.140} is no {kind}'s subject",
            hint=f"a stream of one of {', '.join(SUBJECT_CATEGORIES)}, such as part:SN-1042",
            value=stream[:140],
        )
    check_identifier(category.replace("-", "_"), name)


def instruments_of(command: InspectionCommand) -> list[str]:
    """Return the instruments that `command` measured with, each once, sorted."""
    return sorted({c.instrument_id for c in command.characteristics if c.instrument_id is not None})


def _check(command: RecordInspection) -> None:
    check_identifier("inspection", command.inspection_id)
    check_subject("inspection", command.subject)
    format_time(command.inspected_at)
    if command.run_id is not None:
        check_identifier("process_run", command.run_id)
    if command.plan is not None:
        check_revision_name(command.plan)
    if (command.judge is Judge.MODEL) != (command.model is not None):
        raise InvalidInput(
            "inspection.model",
            f"a verdict by a {command.judge} with the model {command.model!r:.140}",
            hint="name the model, as MODEL-ID@VERSION, where a model judged, and there alone",
            value=command.model,
        )
    if command.model is not None:
        _check_model(command.model)
    for name, items, count_max in (
        ("characteristics", command.characteristics, CHARACTERISTICS_MAX),
        ("images", command.images, IMAGES_MAX),
        ("defect codes", command.defect_codes, DEFECT_CODES_MAX),
        ("instruments", instruments_of(command), INSTRUMENTS_MAX),
    ):
        if len(items) > count_max:
            raise InvalidInput(
                "inspection.too_many",
                f"the inspection has {len(items)} {name}, more than {count_max}",
                hint="record it as several inspections",
                value=len(items),
                limit=count_max,
            )
    for characteristic in command.characteristics:
        _check_characteristic(characteristic)
    for image in command.images:
        check_sha256("the image's hash", image.sha256)
        check_media_type(image.media_type)
    for code in command.defect_codes:
        check_identifier("defect_code", code)


def _check_model(model: str) -> None:
    model_id, separator, version = model.partition("@")
    if not separator:
        raise InvalidInput(
            "inspection.model",
            f"{model!r:.140} names no version of a model",
            hint="MODEL-ID@VERSION",
            value=model[:140],
        )
    check_identifier("model", model_id)
    check_identifier("model_version", version)


def _check_characteristic(found: Characteristic) -> None:
    name = check_text("characteristic", found.name, NAME_LENGTH_MAX)
    unit(found.unit)
    if found.instrument_id is not None:
        check_identifier("instrument", found.instrument_id)
    for value in (found.nominal, found.lower_limit, found.upper_limit, found.measured):
        if value is not None and not math.isfinite(value):
            raise InvalidInput(
                "inspection.value_not_finite",
                f"characteristic {name!r} has the value {value}",
                value=str(value),
            )
    lower, upper = found.lower_limit, found.upper_limit
    if lower is not None and upper is not None and lower > upper:
        raise InvalidInput(
            "inspection.limits",
            f"the lower limit {lower} {found.unit} of {name!r} is above the upper one, {upper}",
            value=lower,
            limit=upper,
        )


def _doubts(command: RecordInspection, others: Others) -> Iterator[HeddleError]:
    """Yield what should not be so, though it may well have happened."""
    outside = next((c for c in command.characteristics if not c.conforms), None)
    if command.verdict is Verdict.GOOD and (outside is not None or command.defect_codes):
        yield _contradiction(command, outside)
    for name in instruments_of(command):
        instrument = others[instrument_stream(name)]
        if isinstance(instrument, Unregistered):
            yield unknown_instrument(name)
        elif calibration_at(instrument, command.inspected_at) is None:
            last = instrument.calibrations[-1:]
            until = f"its last one until {last[0].valid_until.isoformat()}" if last else "none"
            yield CommandRejected(
                "inspection.instrument_uncalibrated",
                f"instrument {name!r} had no valid calibration at "
                f"{command.inspected_at.isoformat()}; known: {until}",
                hint="record its calibration first, or the inspection as `late`: with a flag",
                value=name,
                limit=last[0].valid_until.isoformat() if last else None,
            )


def _contradiction(command: RecordInspection, outside: Characteristic | None) -> CommandRejected:
    hint = "judge it DEFECTIVE; to use it all the same is a non-conformance's disposition USE_AS_IS"
    if outside is None:
        return CommandRejected(
            "inspection.verdict_contradicts",
            f"a verdict GOOD with the defects {', '.join(command.defect_codes)}",
            hint=hint,
            value=list(command.defect_codes),
        )
    return CommandRejected(
        "inspection.verdict_contradicts",
        f"a verdict GOOD with {outside.name!r} at {outside.measured} {outside.unit}, outside "
        f"{outside.lower_limit} to {outside.upper_limit}",
        hint=hint,
        value=outside.measured,
        limit=[outside.lower_limit, outside.upper_limit],
    )


# --- fold ---------------------------------------------------------------------------------


def evolve(_inspection: Inspection, event: InspectionEvent) -> Inspection:
    """Return what `event` makes of an inspection."""
    return Recorded(event)


DECIDER: Final[Decider[InspectionCommand, Inspection, InspectionEvent]] = Decider(
    category="inspection",
    command_types=(RecordInspection,),
    initial=Unrecorded(),
    decide=decide,
    evolve=evolve,
    subject=lambda command: inspection_stream(command.inspection_id),
    stream_of=lambda event: inspection_stream(event.inspection_id),
    looks_at=lambda command, _inspection, _others: tuple(
        instrument_stream(name) for name in instruments_of(command)
    ),
    happened_at=lambda command: command.inspected_at,
)
