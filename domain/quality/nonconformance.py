"""Non-conformances: what was found wrong, what is to be done with it, and that it was done.

A disposition is a decision, not its execution: that a part was reworked, scrapped or sent back
are commands of the part or the lot, which name the non-conformance where they can.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never, get_args

from domain.deciders import Decider, Others
from domain.errors import CommandRejected, NotFound
from domain.events import event_type
from domain.identifiers import check_identifier
from domain.quality.inspection import Recorded, Verdict, check_subject, inspection_stream
from domain.texts import check_note, check_text
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem


def nonconformance_stream(nonconformance_id: str) -> str:
    """Return the stream of a non-conformance."""
    return f"nonconformance:{nonconformance_id}"


# --- events -------------------------------------------------------------------------------


class Disposition(StrEnum):
    """What is done with what does not conform (ISO 9001, 8.7.1)."""

    USE_AS_IS = "USE_AS_IS"
    REWORK = "REWORK"
    SCRAP = "SCRAP"
    RETURN = "RETURN"


@event_type("nonconformance.opened")
@dataclass(frozen=True)
class NonconformanceOpened:
    """Something about `subject` (a stream) is not as specified."""

    nonconformance_id: str
    subject: str
    inspection_id: str | None
    defect_code: str
    description: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return what found it and what it concerns."""
        node = nonconformance_stream(self.nonconformance_id)
        items: list[ThreadItem] = [
            Standing(node, NodeState.ACTIVE),
            Link(LinkKind.CONCERNS, node, self.subject),
        ]
        if self.inspection_id is not None:
            items.append(Link(LinkKind.FOUND, f"inspection:{self.inspection_id}", node))
        return tuple(items)


@event_type("nonconformance.dispositioned")
@dataclass(frozen=True)
class NonconformanceDispositioned:
    """It was decided what is done with it."""

    nonconformance_id: str
    disposition: Disposition
    reason: str


@event_type("nonconformance.closed")
@dataclass(frozen=True)
class NonconformanceClosed:
    """What was decided has been done."""

    nonconformance_id: str
    note: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(nonconformance_stream(self.nonconformance_id), NodeState.CLOSED),)


NonconformanceEvent = NonconformanceOpened | NonconformanceDispositioned | NonconformanceClosed


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class OpenNonconformance:
    """Say that something is not as specified; see `NonconformanceOpened`."""

    nonconformance_id: str
    subject: str
    defect_code: str
    description: str
    inspection_id: str | None = None


@dataclass(frozen=True)
class DispositionNonconformance:
    """Decide what is done with it, and why."""

    nonconformance_id: str
    disposition: Disposition
    reason: str


@dataclass(frozen=True)
class CloseNonconformance:
    """Say that what was decided has been done."""

    nonconformance_id: str
    note: str = ""


NonconformanceCommand = OpenNonconformance | DispositionNonconformance | CloseNonconformance


# --- states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unopened:
    """Nobody has opened it yet."""


@dataclass(frozen=True)
class Opened:
    """Found, and waiting for a decision."""

    opened: NonconformanceOpened


@dataclass(frozen=True)
class Dispositioned:
    """Decided, and waiting to be carried out."""

    opened: NonconformanceOpened
    disposition: Disposition


@dataclass(frozen=True)
class Closed:
    """Carried out."""

    opened: NonconformanceOpened
    disposition: Disposition | None


Nonconformance = Unopened | Opened | Dispositioned | Closed


# --- decisions ----------------------------------------------------------------------------


def decide(
    command: NonconformanceCommand, nonconformance: Nonconformance, others: Others
) -> tuple[NonconformanceEvent, ...]:
    """Return the events `command` causes; `others` holds the inspection that found it.

    Raises
    ------
    CommandRejected
        ``nonconformance.already_opened``, ``nonconformance.inspection_good``,
        ``nonconformance.already_dispositioned``, ``nonconformance.not_dispositioned``,
        ``nonconformance.closed``
    NotFound
        ``nonconformance.unknown``
    InvalidInput
        ``nonconformance.malformed_name``, ``nonconformance.subject``,
        ``defect_code.malformed_name``, ``inspection.malformed_name``, ``text.empty``,
        ``text.too_long``
    """
    if isinstance(command, OpenNonconformance):
        return _open(command, nonconformance, others)
    match nonconformance:
        case Unopened():
            raise NotFound(
                "nonconformance.unknown",
                f"non-conformance {command.nonconformance_id!r} is not opened",
                hint="open it first, or check the name",
                value=command.nonconformance_id,
            )
        case Closed():
            raise CommandRejected(
                "nonconformance.closed",
                f"non-conformance {command.nonconformance_id!r} is closed",
                hint="what was recorded wrongly is corrected by a correction of the record",
                value=command.nonconformance_id,
            )
        case Opened() | Dispositioned():
            return _decide_open(command, nonconformance)
        case _:
            assert_never(nonconformance)


def _open(
    command: OpenNonconformance, nonconformance: Nonconformance, others: Others
) -> tuple[NonconformanceEvent, ...]:
    check_identifier("nonconformance", command.nonconformance_id)
    check_subject("nonconformance", command.subject)
    check_identifier("defect_code", command.defect_code)
    description = check_note("description", command.description).strip()
    if not isinstance(nonconformance, Unopened):
        raise CommandRejected(
            "nonconformance.already_opened",
            f"non-conformance {command.nonconformance_id!r} is opened on "
            f"{nonconformance.opened.subject}",
            hint="choose another name; a non-conformance is opened once",
            value=command.nonconformance_id,
        )
    if command.inspection_id is not None:
        inspection = others[inspection_stream(command.inspection_id)]
        if isinstance(inspection, Recorded) and inspection.event.verdict is Verdict.GOOD:
            raise CommandRejected(
                "nonconformance.inspection_good",
                f"inspection {command.inspection_id!r} came to the verdict GOOD",
                hint="correct its verdict, or leave it out",
                value=command.inspection_id,
            )
    return (
        NonconformanceOpened(
            command.nonconformance_id,
            command.subject,
            command.inspection_id,
            command.defect_code,
            description,
        ),
    )


def _decide_open(
    command: DispositionNonconformance | CloseNonconformance,
    nonconformance: Opened | Dispositioned,
) -> tuple[NonconformanceEvent, ...]:
    name = command.nonconformance_id
    match command:
        case DispositionNonconformance(disposition=disposition, reason=reason):
            reason = check_text("reason", reason)
            if isinstance(nonconformance, Dispositioned):
                raise CommandRejected(
                    "nonconformance.already_dispositioned",
                    f"non-conformance {name!r} is dispositioned as {nonconformance.disposition}",
                    hint="a disposition that was wrong is corrected by a correction of the record",
                    value=disposition.value,
                    limit=nonconformance.disposition.value,
                )
            return (NonconformanceDispositioned(name, disposition, reason),)
        case CloseNonconformance(note=note):
            check_note("note", note)
            if isinstance(nonconformance, Opened):
                raise CommandRejected(
                    "nonconformance.not_dispositioned",
                    f"non-conformance {name!r} is not dispositioned yet",
                    hint="decide what is done with it before it is closed",
                    value=name,
                )
            return (NonconformanceClosed(name, note),)
        case _:
            assert_never(command)


# --- fold ---------------------------------------------------------------------------------


def evolve(nonconformance: Nonconformance, event: NonconformanceEvent) -> Nonconformance:
    """Return what `event` makes of `nonconformance`.

    After a correction an event may stand without the one it followed from.
    """
    if isinstance(event, NonconformanceOpened):
        return Opened(event)
    if isinstance(nonconformance, Unopened):
        return nonconformance
    match event:
        case NonconformanceDispositioned(disposition=disposition):
            return Dispositioned(nonconformance.opened, disposition)
        case NonconformanceClosed():
            decided = None if isinstance(nonconformance, Opened) else nonconformance.disposition
            return Closed(nonconformance.opened, decided)
        case _:
            assert_never(event)


def _looks_at(
    command: NonconformanceCommand, _nonconformance: Nonconformance, _others: Others
) -> tuple[str, ...]:
    if isinstance(command, OpenNonconformance) and command.inspection_id is not None:
        check_identifier("inspection", command.inspection_id)
        return (inspection_stream(command.inspection_id),)
    return ()


DECIDER: Final[Decider[NonconformanceCommand, Nonconformance, NonconformanceEvent]] = Decider(
    category="nonconformance",
    command_types=get_args(NonconformanceCommand),
    initial=Unopened(),
    decide=decide,
    evolve=evolve,
    subject=lambda command: nonconformance_stream(command.nonconformance_id),
    stream_of=lambda event: nonconformance_stream(event.nonconformance_id),
    looks_at=_looks_at,
)
