"""A part's life: what may be done with it, and what it is inside of.

A part stands somewhere and may be inside one other part; what is inside a part goes with it, by
the thread and without events of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, assert_never, get_args

from domain.deciders import Decider, Others
from domain.documents.document import check_revision_name
from domain.errors import CommandRejected, NotFound
from domain.identifiers import check_identifier
from domain.material.lot import lot_stream
from domain.material.lot_decider import object_to_use
from domain.material.nodes import check_node
from domain.material.objections import Objections
from domain.material.part import (
    AssemblePart,
    CreatePart,
    PartAssembled,
    PartCommand,
    PartCreated,
    PartEvent,
    PartFailureReported,
    PartProcessed,
    PartQuarantined,
    PartReceived,
    PartReleased,
    PartRemoved,
    PartReturned,
    PartReworked,
    PartScrapped,
    PartShipped,
    PartStanding,
    PartStocked,
    ProcessPart,
    QuarantinePart,
    ReceivePart,
    ReleasePart,
    RemovePart,
    ReportPartFailure,
    ReturnPart,
    ReworkPart,
    ScrapPart,
    ShipPart,
    StockPart,
    part_stream,
)
from domain.material.process_run import looks_at_run, object_to_unknown_run
from domain.texts import NAME_LENGTH_MAX, NOTE_LENGTH_MAX, TITLE_LENGTH_MAX, check_note, check_text

UNKNOWN: Final = "part.unknown"

USABLE: Final = frozenset({PartStanding.IN_PROCESS, PartStanding.IN_STOCK})
IN_FIELD: Final = frozenset({PartStanding.SHIPPED, PartStanding.FAILED})


# --- states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class UnknownPart:
    """Nobody has said what this part is; `inside` is where late facts have put it."""

    inside: str | None = None


@dataclass(frozen=True)
class Part:
    """A part, how it stands, and the part that it is inside of, if it is.

    `was_in_process` says of a part in quarantine where its release leads.
    """

    part_id: str
    part_number: str
    standing: PartStanding
    inside: str | None = None
    was_in_process: bool = False


PartState = UnknownPart | Part


# --- decisions ----------------------------------------------------------------------------


def decide(command: PartCommand, part: PartState, others: Others) -> tuple[PartEvent, ...]:
    """Return the events `command` causes on `part`; none when it already is so.

    Raises
    ------
    NotFound
        ``part.unknown``, ``process_run.unknown``, ``lot.unknown``
    CommandRejected
        ``part.already_known``, ``part.cycle``, ``part.not_inside``, ``part.not_quarantined``,
        ``part.not_shipped``, and where it stands in the way: ``part.assembled``,
        ``part.quarantined``, ``part.scrapped``, ``part.shipped``, ``part.returned``,
        ``part.failed``; of a lot as `domain.material.lot_decider.object_to_use`
    InvalidInput
        names and texts
    """
    # A late command is decided on the part as it was then; `now` is what is known of it since.
    now: PartState = others.get(part_stream(command.part_id), part)
    objections = Objections(late=command.late)
    match command:
        case CreatePart() | ReceivePart():
            return (_begin(command, now, others, objections),)
        case ProcessPart():
            _object_to_standing(command.part_id, part, USABLE, objections)
            object_to_unknown_run(command.run_id, others, objections)
            return (PartProcessed(command.part_id, command.run_id, objections.flags),)
        case StockPart():
            return _stock(command, part, objections)
        case AssemblePart():
            return (_assemble(command, part, others, objections),)
        case RemovePart():
            return (_remove(command, part, objections),)
        case ReworkPart():
            return (_rework(command, part, others, objections),)
        case QuarantinePart():
            return _quarantine(command, part, objections)
        case ReleasePart():
            return (_release(command, part, objections),)
        case ScrapPart():
            return (_scrap(command, part, objections),)
        case ShipPart():
            return (_ship(command, part, objections),)
        case ReturnPart():
            return (_return(command, part, objections),)
        case ReportPartFailure():
            return (_report_failure(command, part, others, objections),)
        case _:
            assert_never(command)


def unknown_part(part_id: str) -> NotFound:
    """Return the error for a part that nobody made or received."""
    return NotFound(
        UNKNOWN,
        f"part {part_id!r} was never made or received",
        hint="create or receive it first, or check the serial number",
        value=part_id,
    )


def _object_to_standing(
    part_id: str, part: PartState, accepted: frozenset[PartStanding], objections: Objections
) -> None:
    """Object unless the part is known and stands as one of `accepted`, inside no other part."""
    if isinstance(part, UnknownPart):
        objections.object(unknown_part(part_id))
        return
    if part.standing not in accepted:
        objections.object(_stands_so(part_id, part.standing))
    if part.inside is not None:
        objections.object(
            CommandRejected(
                "part.assembled",
                f"part {part_id!r} is inside {part.inside!r}",
                hint="remove it first",
                value=part_id,
                limit=part.inside,
            )
        )


def _stands_so(part_id: str, standing: PartStanding) -> CommandRejected:
    return CommandRejected(
        f"part.{standing.lower()}",
        f"part {part_id!r} is {standing.lower().replace('_', ' ')}",
        value=part_id,
        limit=str(standing),
    )


def _begin(
    command: CreatePart | ReceivePart, now: PartState, others: Others, objections: Objections
) -> PartCreated | PartReceived:
    part_number = check_text("part number", command.part_number, NAME_LENGTH_MAX)
    # Told late or not: a part begins once, and what was recorded wrong is corrected.
    if isinstance(now, Part):
        raise CommandRejected(
            "part.already_known",
            f"part {command.part_id!r} is known, as {now.part_number!r}",
            hint="a serial number names one part; correct what was recorded if it was wrong",
            value=command.part_id,
        )
    if isinstance(command, ReceivePart):
        supplier = check_text("supplier", command.supplier, TITLE_LENGTH_MAX)
        if command.certificate is not None:
            check_revision_name(command.certificate)
        return PartReceived(
            command.part_id, part_number, supplier, command.certificate, objections.flags
        )
    if command.design is not None:
        check_revision_name(command.design)
    if command.run_id is not None:
        object_to_unknown_run(command.run_id, others, objections)
    if command.lot_id is not None:
        object_to_use(command.lot_id, others[lot_stream(command.lot_id)], objections)
    return PartCreated(
        command.part_id,
        part_number,
        command.design,
        command.run_id,
        command.lot_id,
        objections.flags,
    )


def _stock(command: StockPart, part: PartState, objections: Objections) -> tuple[PartEvent, ...]:
    # A late fact is kept though it seems to say nothing: another one may yet come between.
    if isinstance(part, Part) and part.standing is PartStanding.IN_STOCK and not command.late:
        return ()
    accepted = USABLE | {PartStanding.RETURNED}
    _object_to_standing(command.part_id, part, accepted, objections)
    return (PartStocked(command.part_id, objections.flags),)


def _assemble(
    command: AssemblePart, part: PartState, others: Others, objections: Objections
) -> PartAssembled:
    slot = check_text("slot", command.slot, NAME_LENGTH_MAX)
    _object_to_standing(command.part_id, part, USABLE, objections)
    host: PartState = others.get(part_stream(command.into_part_id), part)
    if isinstance(host, UnknownPart):
        objections.object(unknown_part(command.into_part_id))
    elif host.standing in (PartStanding.QUARANTINED, PartStanding.SCRAPPED):
        objections.object(_stands_so(command.into_part_id, host.standing))
    if command.part_id in _chain(command.into_part_id, others):
        objections.object(
            CommandRejected(
                "part.cycle",
                f"part {command.into_part_id!r} is {command.part_id!r} or inside it",
                hint="a part cannot be inside itself",
                value=command.into_part_id,
                limit=command.part_id,
            )
        )
    return PartAssembled(command.part_id, command.into_part_id, slot, objections.flags)


def _remove(command: RemovePart, part: PartState, objections: Objections) -> PartRemoved:
    reason = check_text("reason", command.reason)
    check_identifier("part", command.from_part_id)
    if isinstance(part, UnknownPart):
        objections.object(unknown_part(command.part_id))
    if part.inside != command.from_part_id:
        objections.object(
            CommandRejected(
                "part.not_inside",
                f"part {command.part_id!r} is inside "
                + ("no other part" if part.inside is None else repr(part.inside)),
                value=command.from_part_id,
                limit=part.inside,
            )
        )
    return PartRemoved(
        command.part_id, command.from_part_id, reason, _after_removal(part), objections.flags
    )


def _rework(
    command: ReworkPart, part: PartState, others: Others, objections: Objections
) -> PartReworked:
    accepted = USABLE | {PartStanding.RETURNED}
    if command.nonconformance_id is not None:
        check_identifier("nonconformance", command.nonconformance_id)
        accepted |= {PartStanding.QUARANTINED}
    _object_to_standing(command.part_id, part, accepted, objections)
    object_to_unknown_run(command.run_id, others, objections)
    return PartReworked(
        command.part_id, command.run_id, command.nonconformance_id, objections.flags
    )


def _quarantine(
    command: QuarantinePart, part: PartState, objections: Objections
) -> tuple[PartEvent, ...]:
    reason = check_text("reason", command.reason)
    if command.cause is not None:
        check_node(command.cause)
    if isinstance(part, UnknownPart):
        objections.object(unknown_part(command.part_id))
    elif part.standing is PartStanding.QUARANTINED and not command.late:
        return ()
    elif part.standing in (*IN_FIELD, PartStanding.SCRAPPED):
        objections.object(_stands_so(command.part_id, part.standing))
    return (PartQuarantined(command.part_id, reason, command.cause, objections.flags),)


def _release(command: ReleasePart, part: PartState, objections: Objections) -> PartReleased:
    reason = check_text("reason", command.reason)
    if isinstance(part, UnknownPart):
        objections.object(unknown_part(command.part_id))
    elif part.standing is not PartStanding.QUARANTINED:
        objections.object(
            CommandRejected(
                "part.not_quarantined",
                f"part {command.part_id!r} is not in quarantine",
                value=command.part_id,
                limit=str(part.standing),
            )
        )
    return PartReleased(command.part_id, reason, _after_release(part), objections.flags)


def _scrap(command: ScrapPart, part: PartState, objections: Objections) -> PartScrapped:
    reason = check_text("reason", command.reason)
    accepted = USABLE | {PartStanding.QUARANTINED, PartStanding.RETURNED, PartStanding.FAILED}
    _object_to_standing(command.part_id, part, accepted, objections)
    return PartScrapped(command.part_id, reason, objections.flags)


def _ship(command: ShipPart, part: PartState, objections: Objections) -> PartShipped:
    check_identifier("shipment", command.shipment_id)
    customer = check_text("customer", command.customer, TITLE_LENGTH_MAX)
    _object_to_standing(command.part_id, part, USABLE, objections)
    return PartShipped(command.part_id, command.shipment_id, customer, objections.flags)


def _return(command: ReturnPart, part: PartState, objections: Objections) -> PartReturned:
    reason = check_text("reason", command.reason)
    if isinstance(part, Part) and part.standing not in IN_FIELD:
        objections.object(_not_shipped(command.part_id, part))
    _object_to_standing(command.part_id, part, frozenset(PartStanding), objections)
    return PartReturned(command.part_id, reason, objections.flags)


def _report_failure(
    command: ReportPartFailure, part: PartState, others: Others, objections: Objections
) -> PartFailureReported:
    check_identifier("failure", command.failure_id)
    failure_mode = check_text("failure mode", command.failure_mode, NAME_LENGTH_MAX)
    description = check_note("description", command.description, NOTE_LENGTH_MAX)
    if isinstance(part, UnknownPart):
        objections.object(unknown_part(command.part_id))
    elif part.standing not in IN_FIELD and not _is_shipped_inside(part, others):
        objections.object(_not_shipped(command.part_id, part))
    return PartFailureReported(
        command.part_id, command.failure_id, failure_mode, description, objections.flags
    )


def _is_shipped_inside(part: Part, others: Others) -> bool:
    """Return whether a part that holds `part`, at whatever depth, is in the field."""
    if part.inside is None:
        return False
    holders = (others[part_stream(name)] for name in _chain(part.inside, others))
    return any(isinstance(holder, Part) and holder.standing in IN_FIELD for holder in holders)


def _not_shipped(part_id: str, part: Part) -> CommandRejected:
    return CommandRejected(
        "part.not_shipped",
        f"part {part_id!r} is not in the field",
        hint="ship it first",
        value=part_id,
        limit=str(part.standing),
    )


def _chain(part_id: str, others: Others) -> tuple[str, ...]:
    """Return `part_id`, the part it is inside of, and so on as far as `others` tell.

    Late facts may have closed a circle; it is walked once.
    """
    chain: list[str] = []
    holder: str | None = part_id
    while holder is not None and holder not in chain:
        chain.append(holder)
        state: PartState | None = others.get(part_stream(holder))
        holder = None if state is None else state.inside
    return tuple(chain)


def _looks_at(command: PartCommand, part: PartState, others: Others) -> tuple[str, ...]:
    own = (part_stream(command.part_id),) if command.late else ()
    match command:
        case ProcessPart(run_id=run_id) | ReworkPart(run_id=run_id):
            return (*own, looks_at_run(run_id))
        case CreatePart(run_id=run, lot_id=lot):
            runs = () if run is None else (looks_at_run(run),)
            lots = () if lot is None else (lot_stream(check_identifier("lot", lot)),)
            return (*own, *runs, *lots)
        case AssemblePart(into_part_id=into):
            chain = _chain(check_identifier("part", into), others)
            # Its own stream ends the chain: there the circle would close.
            holders = [name for name in chain if name != command.part_id]
            return (*own, *(part_stream(name) for name in holders))
        case ReportPartFailure() if part.inside is not None:
            return (*own, *(part_stream(name) for name in _chain(part.inside, others)))
        case _:
            return own


# --- fold ---------------------------------------------------------------------------------


def evolve(part: PartState, event: PartEvent) -> PartState:
    """Return what `event` makes of `part`, in whatever order late facts were put between others.

    How it stands after a removal or a release follows from the part and not from the event, which
    says what was known when it was told.

    Only what no order makes possible is an error: a part that begins twice, and what happened to
    an unknown part without being flagged so.
    """
    if isinstance(event, PartCreated | PartReceived):
        return _begun(part, event)
    if isinstance(part, UnknownPart) and UNKNOWN not in event.flags:
        raise ValueError(f"{type(event).__name__} cannot happen to an unknown part")
    match event:
        case PartProcessed():
            return part
        case PartStocked():
            return _standing(part, PartStanding.IN_STOCK)
        case PartAssembled():
            return _standing(replace(part, inside=event.into_part_id), PartStanding.ASSEMBLED)
        case PartRemoved():
            return _standing(replace(part, inside=None), _after_removal(part))
        case PartReworked():
            return _standing(part, PartStanding.IN_PROCESS)
        case PartQuarantined():
            return _standing(part, PartStanding.QUARANTINED)
        case PartReleased():
            return _standing(part, _after_release(part))
        case PartScrapped():
            return _standing(part, PartStanding.SCRAPPED)
        case PartShipped():
            return _standing(part, PartStanding.SHIPPED)
        case PartReturned():
            return _standing(part, PartStanding.RETURNED)
        case PartFailureReported():
            return _standing(part, PartStanding.FAILED)
        case _:
            assert_never(event)


def _begun(part: PartState, event: PartCreated | PartReceived) -> Part:
    if not isinstance(part, UnknownPart):
        raise ValueError(f"{type(event).__name__} cannot happen to {part}")
    received = isinstance(event, PartReceived)
    standing = PartStanding.IN_STOCK if received else PartStanding.IN_PROCESS
    return Part(event.part_id, event.part_number, standing, part.inside)


def _after_removal(part: PartState) -> PartStanding:
    """Return how a part stands once it is out: what failed or is in quarantine stays so."""
    if isinstance(part, UnknownPart) or part.standing in (*USABLE, PartStanding.ASSEMBLED):
        return PartStanding.IN_STOCK
    return part.standing


def _after_release(part: PartState) -> PartStanding:
    """Return how a part stands once it is released: as before it was put in quarantine."""
    if isinstance(part, Part) and part.standing is not PartStanding.QUARANTINED:
        return part.standing
    if part.inside is not None:
        return PartStanding.ASSEMBLED
    if isinstance(part, Part) and part.was_in_process:
        return PartStanding.IN_PROCESS
    return PartStanding.IN_STOCK


def _standing(part: PartState, standing: PartStanding) -> PartState:
    if isinstance(part, UnknownPart):
        return part
    was_in_process = False
    if standing is PartStanding.QUARANTINED:
        again = part.standing is PartStanding.QUARANTINED
        was_in_process = part.was_in_process if again else part.standing is PartStanding.IN_PROCESS
    return replace(part, standing=standing, was_in_process=was_in_process)


DECIDER: Final[Decider[PartCommand, PartState, PartEvent]] = Decider(
    category="part",
    command_types=get_args(PartCommand),
    initial=UnknownPart(),
    decide=decide,
    evolve=evolve,
    subject=lambda command: part_stream(command.part_id),
    stream_of=lambda event: part_stream(event.part_id),
    looks_at=_looks_at,
    by_valid_time=True,
)
