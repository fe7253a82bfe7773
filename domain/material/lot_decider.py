"""A lot's life: what may be done with it, and how much of it is left.

Quantities are compared in SI and exactly. A lot never gives more than is left of it, unless the
command says why or tells it late; then `KnownLot.left_si` falls below zero, for all to see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import Final, assert_never, get_args

from domain.deciders import Decider, Others
from domain.documents.document import check_revision_name
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.identifiers import check_identifier
from domain.material.lot import (
    ConsumeLot,
    CreateLot,
    LotCommand,
    LotConsumed,
    LotCreated,
    LotEvent,
    LotIncreased,
    LotMerged,
    LotQuarantined,
    LotReceived,
    LotReleased,
    LotScrapped,
    LotShipped,
    LotSplit,
    MergeLot,
    QuarantineLot,
    ReceiveLot,
    ReleaseLot,
    ScrapLot,
    ShipLot,
    SplitLot,
    lot_stream,
)
from domain.material.nodes import check_node
from domain.material.objections import Objections
from domain.material.process_run import looks_at_run, object_to_unknown_run
from domain.material.quantities import amount_si, exact_si, in_unit
from domain.texts import TITLE_LENGTH_MAX, check_text
from domain.units import unit

UNKNOWN: Final = "lot.unknown"
EXCEEDED: Final = "lot.exceeded"


# --- states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class UnknownLot:
    """Nobody has said what this lot is; late facts may have taken from it all the same.

    `taken_si` is how much, of `quantity` (such as ``mass``; None: nothing).
    """

    taken_si: Fraction = Fraction(0)
    quantity: str | None = None


@dataclass(frozen=True)
class KnownLot:
    """A lot of so much of a material: `left_si`, exactly, in the SI unit of `unit`'s quantity."""

    lot_id: str
    material: str
    unit: str
    left_si: Fraction

    @property
    def left(self) -> float:
        """How much is left, in `unit`; below zero when more was taken than there was."""
        return in_unit(self.left_si, self.unit)

    @property
    def quantity(self) -> str:
        """What its unit measures."""
        return unit(self.unit).quantity


@dataclass(frozen=True)
class LotInStock(KnownLot):
    """It may be used."""


@dataclass(frozen=True)
class LotInQuarantine(KnownLot):
    """It may not be used until it is released."""


class LotEnd(StrEnum):
    """What became of all that was left of a lot."""

    MERGED = "merged"
    SCRAPPED = "scrapped"
    SHIPPED = "shipped"


@dataclass(frozen=True)
class LotGone(KnownLot):
    """Nothing is left of it here."""

    end: LotEnd


Lot = UnknownLot | LotInStock | LotInQuarantine | LotGone


# --- decisions ----------------------------------------------------------------------------


def decide(command: LotCommand, lot: Lot, others: Others) -> tuple[LotEvent, ...]:
    """Return the events `command` causes on `lot`; none when it already is so.

    A split and a merger are events of both lots.

    Raises
    ------
    NotFound
        ``lot.unknown``, ``process_run.unknown``
    CommandRejected
        ``lot.already_known``, ``lot.exceeded``, ``lot.empty``, ``lot.quarantined``,
        ``lot.merged``, ``lot.scrapped``, ``lot.shipped``, ``lot.not_quarantined``,
        ``lot.material_mismatch``
    InvalidInput
        ``lot.unit_mismatch``, ``lot.quantity_not_positive``, ``lot.pieces_not_whole``,
        ``lot.same_lot``, ``unit.unknown``, names and texts
    """
    # A late command is decided on the lot as it was then; `now` is what is known of it since.
    now: Lot = others.get(lot_stream(command.lot_id), lot)
    objections = Objections(late=command.late)
    match command:
        case ReceiveLot():
            return (_receive(command, now, objections),)
        case CreateLot():
            return (_create(command, now, others, objections),)
        case ConsumeLot():
            return (_consume(command, lot, now, others, objections),)
        case SplitLot():
            return _split(command, lot, now, others, objections)
        case MergeLot():
            return _merge(command, lot, now, others, objections)
        case QuarantineLot():
            return _quarantine(command, lot, objections)
        case ReleaseLot():
            reason = check_text("reason", command.reason)
            if not isinstance(lot, LotInQuarantine):
                _object_to_absence(command.lot_id, lot, objections)
            if isinstance(lot, LotInStock):
                objections.object(_not_quarantined(command.lot_id))
            return (LotReleased(command.lot_id, reason, objections.flags),)
        case ScrapLot():
            reason = check_text("reason", command.reason)
            _object_to_absence(command.lot_id, lot, objections)
            return (LotScrapped(command.lot_id, reason, objections.flags),)
        case ShipLot():
            return (_ship(command, lot, objections),)
        case _:
            assert_never(command)


def unknown_lot(lot_id: str) -> NotFound:
    """Return the error for a lot that nobody received or made."""
    return NotFound(
        UNKNOWN,
        f"lot {lot_id!r} was never received or made",
        hint="receive or create it first, or check the name",
        value=lot_id,
    )


def object_to_use(lot_id: str, lot: Lot, objections: Objections) -> None:
    """Object unless something of `lot` may be used."""
    if isinstance(lot, LotInQuarantine):
        objections.object(
            CommandRejected(
                "lot.quarantined",
                f"lot {lot_id!r} is in quarantine",
                hint="release it first",
                value=lot_id,
            )
        )
    _object_to_absence(lot_id, lot, objections)


def _object_to_absence(lot_id: str, lot: Lot, objections: Objections) -> None:
    if isinstance(lot, UnknownLot):
        objections.object(unknown_lot(lot_id))
    if isinstance(lot, LotGone):
        objections.object(
            CommandRejected(
                f"lot.{lot.end}",
                f"lot {lot_id!r} was {lot.end}; nothing is left of it here",
                value=lot_id,
            )
        )


def _not_quarantined(lot_id: str) -> CommandRejected:
    return CommandRejected(
        "lot.not_quarantined", f"lot {lot_id!r} is not in quarantine", value=lot_id
    )


def _receive(command: ReceiveLot, now: Lot, objections: Objections) -> LotReceived:
    if command.certificate is not None:
        check_revision_name(command.certificate)
    material = _check_new(command, now, objections)
    return LotReceived(
        command.lot_id,
        material,
        command.quantity,
        command.unit,
        check_text("supplier", command.supplier, TITLE_LENGTH_MAX),
        check_text("supplier lot", command.supplier_lot, TITLE_LENGTH_MAX),
        command.certificate,
        objections.flags,
    )


def _create(command: CreateLot, now: Lot, others: Others, objections: Objections) -> LotCreated:
    material = _check_new(command, now, objections)
    if command.run_id is not None:
        object_to_unknown_run(command.run_id, others, objections)
    return LotCreated(
        command.lot_id,
        material,
        command.quantity,
        command.unit,
        command.run_id,
        objections.flags,
    )


def _check_new(command: ReceiveLot | CreateLot, now: Lot, objections: Objections) -> str:
    """Return the material of a lot that begins, when it may."""
    material = check_text("material", command.material, TITLE_LENGTH_MAX)
    amount, quantity = amount_si("lot", command.quantity, command.unit)
    _check_begins(command.lot_id, now, amount, quantity, objections)
    return material


def _check_begins(
    lot_id: str, now: Lot, amount: Fraction, quantity: str, objections: Objections
) -> None:
    # Told late or not: a lot begins once, and what was recorded wrong is corrected.
    if not isinstance(now, UnknownLot):
        raise CommandRejected(
            "lot.already_known",
            f"lot {lot_id!r} is known, of {now.material!r}",
            hint="choose another name, or correct what was recorded",
            value=lot_id,
        )
    _check_same_quantity(lot_id, now, quantity)
    if now.taken_si > amount:
        objections.note(EXCEEDED)


def _check_same_quantity(lot_id: str, lot: Lot, quantity: str) -> None:
    if lot.quantity is not None and lot.quantity != quantity:
        raise InvalidInput(
            "lot.unit_mismatch",
            f"lot {lot_id!r} is counted in {lot.quantity}, not in {quantity}",
            value=quantity,
            limit=lot.quantity,
        )


def _consume(
    command: ConsumeLot, lot: Lot, now: Lot, others: Others, objections: Objections
) -> LotConsumed:
    reason = _take(command, lot, now, objections)
    object_to_unknown_run(command.run_id, others, objections)
    return LotConsumed(
        command.lot_id, command.run_id, command.quantity, command.unit, reason, objections.flags
    )


def _split(
    command: SplitLot, lot: Lot, now: Lot, others: Others, objections: Objections
) -> tuple[LotEvent, ...]:
    reason = _take(command, lot, now, objections)
    source = _described(command.lot_id, lot, now)
    amount, quantity = amount_si("lot", command.quantity, command.unit)
    _check_two_lots(command)
    target: Lot = others[lot_stream(command.into_lot_id)]
    beginning = Objections(late=command.late)
    _check_begins(command.into_lot_id, target, amount, quantity, beginning)
    return (
        LotSplit(
            command.lot_id,
            command.into_lot_id,
            command.quantity,
            command.unit,
            reason,
            objections.flags,
        ),
        LotCreated(
            command.into_lot_id,
            source.material,
            command.quantity,
            command.unit,
            None,
            beginning.flags,
        ),
    )


def _take(command: ConsumeLot | SplitLot, lot: Lot, now: Lot, objections: Objections) -> str | None:
    """Return the reason of an excess, when so much may be taken."""
    amount, quantity = amount_si("lot", command.quantity, command.unit)
    reason = command.excess_reason
    if reason is not None:
        reason = check_text("excess reason", reason)
    object_to_use(command.lot_id, lot, objections)
    for known in (lot, now):
        _check_same_quantity(command.lot_id, known, quantity)
        if isinstance(known, UnknownLot) or amount <= known.left_si:
            continue
        if isinstance(known, LotGone) and known.end is not LotEnd.MERGED:
            continue  # it went with whatever was left, so this says that less went
        if reason is None:
            objections.object(_exceeded(command, known))
        objections.note(EXCEEDED)
    return reason


def _exceeded(command: ConsumeLot | SplitLot, lot: KnownLot) -> CommandRejected:
    left = in_unit(lot.left_si, command.unit)
    return CommandRejected(
        EXCEEDED,
        f"{command.quantity} {command.unit} are more than the {left} {command.unit} left of lot "
        f"{command.lot_id!r}",
        hint="declare it with a reason if it is true all the same",
        value=command.quantity,
        limit=left,
    )


def _described(lot_id: str, lot: Lot, now: Lot) -> KnownLot:
    """Return the lot as it was, or if nobody knew it then as it is known now."""
    for known in (lot, now):
        if not isinstance(known, UnknownLot):
            return known
    # What it is made of would have to be invented, so even a late command is refused.
    raise unknown_lot(lot_id)


def _check_two_lots(command: SplitLot | MergeLot) -> None:
    if command.lot_id == command.into_lot_id:
        raise InvalidInput(
            "lot.same_lot",
            f"lot {command.lot_id!r} is on both sides",
            hint="name another lot",
            value=command.lot_id,
        )


def _merge(
    command: MergeLot, lot: Lot, now: Lot, others: Others, objections: Objections
) -> tuple[LotEvent, ...]:
    _check_two_lots(command)
    object_to_use(command.lot_id, lot, objections)
    source = _described(command.lot_id, lot, now)
    if source.left_si <= 0:
        raise _empty(source)
    if isinstance(now, KnownLot) and source.left_si > now.left_si:
        objections.note(EXCEEDED)  # some of it is known to have been taken later
    target: Lot = others[lot_stream(command.into_lot_id)]
    _check_same_quantity(command.into_lot_id, target, source.quantity)
    object_to_use(command.into_lot_id, target, objections)
    if isinstance(target, KnownLot) and target.material != source.material:
        objections.object(
            CommandRejected(
                "lot.material_mismatch",
                f"lot {command.into_lot_id!r} is of {target.material!r}, not {source.material!r}",
                value=source.material,
                limit=target.material,
            )
        )
    return (
        LotMerged(command.lot_id, command.into_lot_id, source.left, source.unit, objections.flags),
        LotIncreased(
            command.into_lot_id, command.lot_id, source.left, source.unit, objections.flags
        ),
    )


def _empty(lot: KnownLot) -> CommandRejected:
    return CommandRejected(
        "lot.empty", f"nothing is left of lot {lot.lot_id!r}", value=lot.left, limit=0
    )


def _quarantine(command: QuarantineLot, lot: Lot, objections: Objections) -> tuple[LotEvent, ...]:
    reason = check_text("reason", command.reason)
    if command.cause is not None:
        check_node(command.cause)
    # A late fact is kept though it seems to say nothing: another one may yet come between.
    if isinstance(lot, LotInQuarantine) and not command.late:
        return ()
    _object_to_absence(command.lot_id, lot, objections)
    return (LotQuarantined(command.lot_id, reason, command.cause, objections.flags),)


def _ship(command: ShipLot, lot: Lot, objections: Objections) -> LotShipped:
    check_identifier("shipment", command.shipment_id)
    customer = check_text("customer", command.customer, TITLE_LENGTH_MAX)
    object_to_use(command.lot_id, lot, objections)
    if isinstance(lot, KnownLot) and lot.left_si <= 0:
        objections.object(_empty(lot))
    return LotShipped(command.lot_id, command.shipment_id, customer, objections.flags)


def _looks_at(command: LotCommand, _lot: Lot, _others: Others) -> tuple[str, ...]:
    own = (lot_stream(command.lot_id),) if command.late else ()
    match command:
        case ConsumeLot(run_id=run_id):
            return (*own, looks_at_run(run_id))
        case CreateLot(run_id=str(run_id)):
            return (*own, looks_at_run(run_id))
        case SplitLot(into_lot_id=into) | MergeLot(into_lot_id=into):
            return (*own, lot_stream(check_identifier("lot", into)))
        case _:
            return own


# --- fold ---------------------------------------------------------------------------------


def evolve(lot: Lot, event: LotEvent) -> Lot:
    """Return what `event` makes of `lot`, in whatever order late facts were put between others.

    Only what no order makes possible is an error: a lot that begins twice or is counted in two
    quantities, less than something, and what befell an unknown lot without being flagged so.
    """
    match event:
        case LotReceived() | LotCreated():
            return _begin(lot, event)
        case LotConsumed() | LotSplit():
            _check_known_or_flagged(lot, event)
            return _changed(lot, -_amount_si(event), event.unit)
        case LotIncreased():
            return _changed(lot, _amount_si(event), event.unit)
        case LotMerged():
            _check_known_or_flagged(lot, event)
            left = _changed(lot, -_amount_si(event), event.unit)
            return _gone(left, LotEnd.MERGED)
        case LotScrapped():
            _check_known_or_flagged(lot, event)
            return _gone(lot, LotEnd.SCRAPPED)
        case LotShipped():
            _check_known_or_flagged(lot, event)
            return _gone(lot, LotEnd.SHIPPED)
        case LotQuarantined():
            _check_known_or_flagged(lot, event)
            return _moved(LotInQuarantine, lot)
        case LotReleased():
            _check_known_or_flagged(lot, event)
            return _moved(LotInStock, lot)
        case _:
            assert_never(event)


def _begin(lot: Lot, event: LotReceived | LotCreated) -> Lot:
    quantity = unit(event.unit).quantity
    if not isinstance(lot, UnknownLot) or lot.quantity not in (None, quantity):
        raise ValueError(f"{type(event).__name__} cannot happen to {lot}")
    return LotInStock(event.lot_id, event.material, event.unit, _amount_si(event) - lot.taken_si)


def _amount_si(
    event: LotReceived | LotCreated | LotConsumed | LotSplit | LotMerged | LotIncreased,
) -> Fraction:
    amount = exact_si(event.quantity, event.unit)
    if amount <= 0:
        raise ValueError(f"{type(event).__name__} of {event.quantity} {event.unit}")
    return amount


def _check_known_or_flagged(lot: Lot, event: LotEvent) -> None:
    if isinstance(lot, UnknownLot) and UNKNOWN not in event.flags:
        raise ValueError(f"{type(event).__name__} cannot happen to an unknown lot")


def _changed(lot: Lot, change_si: Fraction, symbol: str) -> Lot:
    quantity = unit(symbol).quantity
    if lot.quantity not in (None, quantity):
        raise ValueError(f"a lot in {lot.quantity} cannot change by {quantity}")
    if isinstance(lot, UnknownLot):
        return UnknownLot(lot.taken_si - change_si, quantity)
    return replace(lot, left_si=lot.left_si + change_si)


def _moved(to: Callable[[str, str, str, Fraction], Lot], lot: Lot) -> Lot:
    """Return `lot` in stock or in quarantine, unless it is gone or unknown."""
    if isinstance(lot, UnknownLot | LotGone):
        return lot
    return to(lot.lot_id, lot.material, lot.unit, lot.left_si)


def _gone(lot: Lot, end: LotEnd) -> Lot:
    """Return `lot` without what was left of it; what was taken in excess stays."""
    if isinstance(lot, UnknownLot):
        return lot
    return LotGone(lot.lot_id, lot.material, lot.unit, min(lot.left_si, Fraction(0)), end)


DECIDER: Final[Decider[LotCommand, Lot, LotEvent]] = Decider(
    category="lot",
    command_types=get_args(LotCommand),
    initial=UnknownLot(),
    decide=decide,
    evolve=evolve,
    subject=lambda command: lot_stream(command.lot_id),
    stream_of=lambda event: lot_stream(event.lot_id),
    looks_at=_looks_at,
    by_valid_time=True,
)
