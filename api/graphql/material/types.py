"""Types of material: lots by quantity, and parts with a serial number."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import strawberry

from api.graphql.context import OperationContext, OperationInfo
from api.graphql.documents.types import DocumentRevision, revision_named
from api.graphql.fields import field
from api.graphql.object_lists import ObjectFilterInput
from api.graphql.objects import (
    ThreadObject,
    asked_as,
    common,
    entry_page,
    first_entry,
    flags_of,
    key_or_none,
    last_entry,
    object_in,
)
from api.graphql.production.types import ProcessRun, find_process_run
from api.graphql.quantities import Quantity, quantity
from api.graphql.relay import After, Connection, First
from api.graphql.scalars import Position, described_enum
from domain.material.lot import (
    LotConsumed,
    LotCreated,
    LotIncreased,
    LotMerged,
    LotQuarantined,
    LotReceived,
    LotScrapped,
    LotShipped,
    LotSplit,
    lot_stream,
)
from domain.material.lot_decider import KnownLot
from domain.material.part import (
    PartAssembled,
    PartCreated,
    PartFailureReported,
    PartProcessed,
    PartQuarantined,
    PartReceived,
    PartReturned,
    PartReworked,
    PartScrapped,
    PartShipped,
    part_stream,
)
from domain.material.part_decider import Part as PartAsDecided
from domain.records import Entry
from eventlog.objects import LoadedObject
from projections.object_kinds import LotState, PartState, lot_state, part_state

LOT: Final = "Lot"
PART: Final = "Part"

described_enum(
    LotState,
    "How a lot stands.",
    {
        "UNKNOWN": "Used or judged, and nobody has said what it is.",
        "IN_STOCK": "It may be used.",
        "QUARANTINED": "Nothing of it may be used until it is released.",
        "MERGED": "All that was left went into another lot.",
        "SCRAPPED": "What was left was thrown away.",
        "SHIPPED": "What was left went to a customer.",
    },
)
described_enum(
    PartState,
    "How a part stands.",
    {
        "UNKNOWN": "Used or judged, and nobody has said what it is.",
        "IN_PROCESS": "Being made.",
        "IN_STOCK": "Ready and not yet used.",
        "ASSEMBLED": "Inside another part.",
        "QUARANTINED": "Not to be used until it is released.",
        "SCRAPPED": "Thrown away.",
        "SHIPPED": "Gone to a customer.",
        "RETURNED": "Come back from a customer.",
        "FAILED": "Failed in the field.",
    },
)


class LotBookingKind(StrEnum):
    """How a lot's quantity changed."""

    RECEIVED = "RECEIVED"
    CREATED = "CREATED"
    INCREASED = "INCREASED"
    CONSUMED = "CONSUMED"
    SPLIT = "SPLIT"
    MERGED = "MERGED"


described_enum(
    LotBookingKind,
    "How a lot's quantity changed.",
    {
        "RECEIVED": "It came from a supplier.",
        "CREATED": "It was made here, or split off another lot.",
        "INCREASED": "Another lot was merged into it.",
        "CONSUMED": "A process run used so much.",
        "SPLIT": "So much became a lot of its own.",
        "MERGED": "All that was left went into another lot.",
    },
)


# --- what befell it -------------------------------------------------------------------------


@strawberry.type(description="Why something may not be used until it is released.")
class Quarantine:
    """The last quarantine of a lot or part that is in it."""

    since: datetime = strawberry.field(description="Since when.")
    reason: str = strawberry.field(description="Why, in words.")
    cause: str | None = strawberry.field(
        description="Stream of what led to it, such as `inspection:INS-9`; null: none was named."
    )
    position: Position = strawberry.field(description="Where the event stands in the log.")


@strawberry.type(description="What went to a customer together.")
class Shipment:
    """The last shipment of a lot or part."""

    shipment_id: strawberry.ID = strawberry.field(description="Natural key of the shipment.")
    customer: str = strawberry.field(description="Who got it.")
    shipped_at: datetime = strawberry.field(description="When.")
    position: Position = strawberry.field(description="Where the event stands in the log.")


def _quarantine(loaded: LoadedObject, *kinds: type) -> Quarantine | None:
    entry = last_entry(loaded, *kinds)
    if entry is None:
        return None
    return Quarantine(
        since=entry.occurred_at,
        reason=entry.fact.reason,
        cause=entry.fact.cause,
        position=Position(entry.position),
    )


def _shipment(loaded: LoadedObject, *kinds: type) -> Shipment | None:
    entry = last_entry(loaded, *kinds)
    if entry is None:
        return None
    return Shipment(
        shipment_id=strawberry.ID(entry.fact.shipment_id),
        customer=entry.fact.customer,
        shipped_at=entry.occurred_at,
        position=Position(entry.position),
    )


async def _run(
    context: OperationContext, run_id: str | None, told: LoadedObject
) -> ProcessRun | None:
    return None if run_id is None else await find_process_run(context, run_id, asked_as(told))


# --- lots -----------------------------------------------------------------------------------


@strawberry.input(description="Which lots are wanted; what is null or empty does not restrict.")
class LotFilter(ObjectFilterInput):
    """What restricts a list of lots; each list at most 100 values."""

    states: list[LotState] | None = strawberry.field(
        default=None, description="Lots that stand so."
    )
    materials: list[str] | None = strawberry.field(
        default=None, description="Lots of these materials."
    )
    suppliers: list[str] | None = strawberry.field(
        default=None, description="Lots from these suppliers."
    )
    supplier_lots: list[str] | None = strawberry.field(
        default=None, description="Lots that their supplier calls so."
    )
    process_run_ids: list[str] | None = strawberry.field(
        default=None, description="Lots that these runs made."
    )
    customers: list[str] | None = strawberry.field(
        default=None, description="Lots that went to these customers."
    )


@strawberry.type(description="A change of a lot's quantity.")
class LotBooking:
    """An event that put something into a lot or took something out of it."""

    lot: strawberry.Private[LoadedObject]
    kind: LotBookingKind = strawberry.field(description="How it changed.")
    quantity: Quantity = strawberry.field(description="By how much; never below zero.")
    occurred_at: datetime = strawberry.field(description="When.")
    process_run_id: strawberry.ID | None = strawberry.field(
        description="The run that made or used it; null: none."
    )
    other_lot_id: strawberry.ID | None = strawberry.field(
        description="The lot that it came from or went to; null: none."
    )
    excess_reason: str | None = strawberry.field(
        description="Why more was taken than there was, as whoever took it says."
    )
    flags: list[str] = strawberry.field(
        description="Codes of what did not fit and was recorded all the same, for it had happened."
    )
    position: Position = strawberry.field(description="Where the event stands in the log.")

    @field(description="The run that made or used it; null: none, or it is not known.")
    async def process_run(self, info: OperationInfo) -> ProcessRun | None:
        """Return the booking's run."""
        return await _run(info.context, self.process_run_id, self.lot)

    @field(description="The lot that it came from or went to; null: none, or it is not known.")
    async def other_lot(self, info: OperationInfo) -> Lot | None:
        """Return the other lot."""
        if self.other_lot_id is None:
            return None
        return await find_lot(info.context, self.other_lot_id, self.lot)


@strawberry.type(description="Material by quantity.")
class Lot(ThreadObject):
    """`domain.material.lot_decider.Lot`."""

    lot_id: strawberry.ID = strawberry.field(description="Natural key.")
    state: LotState = strawberry.field(description="How it stands.")
    material: str | None = strawberry.field(
        description="What it is of; null while nobody has said."
    )
    quantity: Quantity | None = strawberry.field(
        description="How much it began with; null while nobody has said."
    )
    left: Quantity | None = strawberry.field(
        description="How much is left of it; below zero where more was taken than there was."
    )
    supplier: str | None = strawberry.field(description="Who supplied it; null: it was made here.")
    supplier_lot: str | None = strawberry.field(description="What its supplier calls it.")
    certificate: str | None = strawberry.field(
        description="Revision of the certificate that it came with, such as `CERT-1@A`."
    )
    process_run_id: strawberry.ID | None = strawberry.field(
        description="The run that made it; null: none is known."
    )
    quarantine: Quarantine | None = strawberry.field(
        description="Why it may not be used; null where it is not in quarantine."
    )
    shipment: Shipment | None = strawberry.field(
        description="Where it went; null where it was not shipped."
    )
    scrap_reason: str | None = strawberry.field(
        description="Why it was thrown away; null where it was not."
    )
    flags: list[str] = strawberry.field(
        description="Codes of what did not fit and was recorded all the same, for it had happened."
    )

    @classmethod
    def of(cls, loaded: LoadedObject) -> Lot:
        """Return a lot as the schema tells it."""
        entry = first_entry(loaded, LotReceived, LotCreated)
        begun = None if entry is None else entry.fact
        received = begun if isinstance(begun, LotReceived) else None
        made = begun if isinstance(begun, LotCreated) else None
        state = lot_state(loaded.state)
        known = loaded.state if isinstance(loaded.state, KnownLot) else None
        scrapped = last_entry(loaded, LotScrapped) if state is LotState.SCRAPPED else None
        return cls(
            **common(LOT, loaded),
            lot_id=strawberry.ID(loaded.key),
            state=state,
            material=None if begun is None else begun.material,
            quantity=None if begun is None else quantity(begun.quantity, begun.unit),
            left=None if known is None else quantity(known.left, known.unit),
            supplier=None if received is None else received.supplier,
            supplier_lot=None if received is None else received.supplier_lot,
            certificate=None if received is None else received.certificate,
            process_run_id=None if made is None else key_or_none(made.run_id),
            quarantine=_quarantine(loaded, LotQuarantined)
            if state is LotState.QUARANTINED
            else None,
            shipment=_shipment(loaded, LotShipped) if state is LotState.SHIPPED else None,
            scrap_reason=None if scrapped is None else scrapped.fact.reason,
            flags=flags_of(loaded.entries),
        )

    @field(description="What was put into it and taken out of it, in the order of its truth.")
    def bookings(
        self, info: OperationInfo, first: First, after: After = None
    ) -> Connection[LotBooking]:
        """Return a page of the lot's bookings."""
        return entry_page(
            info.context,
            (entry for entry in self.loaded.entries if isinstance(entry.fact, _BOOKED)),
            kind="bookings",
            first=first,
            after=after,
            position=self.loaded.position,
            node=lambda entry: _booking(self.loaded, entry),
        )

    @field(description="The run that made it; null: none is known.")
    async def process_run(self, info: OperationInfo) -> ProcessRun | None:
        """Return the lot's run."""
        return await _run(info.context, self.process_run_id, self.loaded)

    @field(
        description="The certificate that it came with; null: none, or it is not released.",
    )
    async def certificate_revision(self, info: OperationInfo) -> DocumentRevision | None:
        """Return the lot's certificate."""
        return await revision_named(info.context, self.certificate, self.loaded)


_KINDS_OF_BOOKING: Final = {
    LotReceived: LotBookingKind.RECEIVED,
    LotCreated: LotBookingKind.CREATED,
    LotIncreased: LotBookingKind.INCREASED,
    LotConsumed: LotBookingKind.CONSUMED,
    LotSplit: LotBookingKind.SPLIT,
    LotMerged: LotBookingKind.MERGED,
}
_BOOKED: Final = tuple(_KINDS_OF_BOOKING)


def _booking(lot: LoadedObject, entry: Entry) -> LotBooking:
    fact = entry.fact
    other = getattr(fact, "into_lot_id", None) or getattr(fact, "from_lot_id", None)
    return LotBooking(
        lot=lot,
        kind=_KINDS_OF_BOOKING[type(fact)],
        quantity=Quantity(recorded=fact.quantity, recorded_unit=fact.unit),
        occurred_at=entry.occurred_at,
        process_run_id=key_or_none(getattr(fact, "run_id", None)),
        other_lot_id=key_or_none(other),
        excess_reason=getattr(fact, "excess_reason", None),
        flags=list(fact.flags),
        position=Position(entry.position),
    )


# --- parts ----------------------------------------------------------------------------------


@strawberry.input(description="Which parts are wanted; what is null or empty does not restrict.")
class PartFilter(ObjectFilterInput):
    """What restricts a list of parts; each list at most 100 values."""

    states: list[PartState] | None = strawberry.field(
        default=None, description="Parts that stand so."
    )
    part_numbers: list[str] | None = strawberry.field(
        default=None, description="Parts with these part numbers."
    )
    inside: list[str] | None = strawberry.field(
        default=None, description="Parts directly inside these parts, by their serial numbers."
    )
    designs: list[str] | None = strawberry.field(
        default=None, description="Parts made to these revisions, such as `DRW-7@B`."
    )
    process_run_ids: list[str] | None = strawberry.field(
        default=None, description="Parts that these runs made."
    )
    lot_ids: list[str] | None = strawberry.field(
        default=None, description="Parts made from these lots where no run is known."
    )
    suppliers: list[str] | None = strawberry.field(
        default=None, description="Parts from these suppliers."
    )
    customers: list[str] | None = strawberry.field(
        default=None, description="Parts that went to these customers."
    )
    failure_modes: list[str] | None = strawberry.field(
        default=None, description="Parts that failed so in the field."
    )


@strawberry.type(description="A process run that a part went through.")
class PartRun:
    """`domain.material.part.PartProcessed` or `PartReworked`."""

    part: strawberry.Private[LoadedObject]
    process_run_id: strawberry.ID = strawberry.field(description="Natural key of the run.")
    rework: bool = strawberry.field(description="Whether it was to mend it.")
    nonconformance_id: strawberry.ID | None = strawberry.field(
        description="The non-conformance that it was mended for; null: none was named."
    )
    occurred_at: datetime = strawberry.field(description="When.")
    flags: list[str] = strawberry.field(
        description="Codes of what did not fit and was recorded all the same."
    )
    position: Position = strawberry.field(description="Where the event stands in the log.")

    @field(description="The run; null where it is not known.")
    async def process_run(self, info: OperationInfo) -> ProcessRun | None:
        """Return the run that it went through."""
        return await _run(info.context, self.process_run_id, self.part)


@strawberry.type(description="A failure in the field.")
class PartFailure:
    """`domain.material.part.PartFailureReported`."""

    failure_id: strawberry.ID = strawberry.field(description="Natural key of the failure.")
    failure_mode: str = strawberry.field(description="How it failed, by its code.")
    description: str = strawberry.field(description="What was seen, in words.")
    failed_at: datetime = strawberry.field(description="When.")
    position: Position = strawberry.field(description="Where the event stands in the log.")


@strawberry.type(description="A thing with a serial number.")
class Part(ThreadObject):
    """`domain.material.part_decider.Part`."""

    part_id: strawberry.ID = strawberry.field(description="Natural key: the serial number.")
    state: PartState = strawberry.field(description="How it stands.")
    part_number: str | None = strawberry.field(
        description="What it is; null while nobody has said."
    )
    design: str | None = strawberry.field(
        description="Revision that it is made to, such as `DRW-7@B`; null: none was named."
    )
    supplier: str | None = strawberry.field(description="Who supplied it; null: it was made here.")
    certificate: str | None = strawberry.field(
        description="Revision of the certificate that it came with, such as `CERT-1@A`."
    )
    process_run_id: strawberry.ID | None = strawberry.field(
        description="The run that made it; null: none is known."
    )
    lot_id: strawberry.ID | None = strawberry.field(
        description="The lot that it was made from, where no run is known."
    )
    inside_id: strawberry.ID | None = strawberry.field(
        description="The part that it is inside of; null: none."
    )
    slot: str | None = strawberry.field(description="Its place there; null: it is inside none.")
    quarantine: Quarantine | None = strawberry.field(
        description="Why it may not be used; null where it is not in quarantine."
    )
    shipment: Shipment | None = strawberry.field(
        description="Its last shipment; null where it was never shipped by itself."
    )
    return_reason: str | None = strawberry.field(
        description="Why it last came back; null where it did not."
    )
    scrap_reason: str | None = strawberry.field(
        description="Why it was thrown away; null where it was not."
    )
    failures: list[PartFailure] = strawberry.field(
        description="How it failed in the field, in the order of the failures."
    )
    flags: list[str] = strawberry.field(
        description="Codes of what did not fit and was recorded all the same, for it had happened."
    )

    @classmethod
    def of(cls, loaded: LoadedObject) -> Part:
        """Return a part as the schema tells it."""
        entry = first_entry(loaded, PartCreated, PartReceived)
        begun = None if entry is None else entry.fact
        state = part_state(loaded.state)
        inside = loaded.state.inside
        assembled = last_entry(loaded, PartAssembled) if inside is not None else None
        returned, scrapped = last_entry(loaded, PartReturned), last_entry(loaded, PartScrapped)
        known = isinstance(loaded.state, PartAsDecided)
        return cls(
            **common(PART, loaded),
            part_id=strawberry.ID(loaded.key),
            state=state,
            part_number=loaded.state.part_number if known else None,
            design=getattr(begun, "design", None),
            supplier=getattr(begun, "supplier", None),
            certificate=getattr(begun, "certificate", None),
            process_run_id=key_or_none(getattr(begun, "run_id", None)),
            lot_id=key_or_none(getattr(begun, "lot_id", None)),
            inside_id=key_or_none(inside),
            slot=None if assembled is None else assembled.fact.slot,
            quarantine=_quarantine(loaded, PartQuarantined)
            if state is PartState.QUARANTINED
            else None,
            shipment=_shipment(loaded, PartShipped),
            return_reason=None if returned is None else returned.fact.reason,
            scrap_reason=scrapped.fact.reason
            if scrapped is not None and state is PartState.SCRAPPED
            else None,
            failures=list(_failures(loaded)),
            flags=flags_of(loaded.entries),
        )

    @field(description="The runs that it went through after it was made, in their order.")
    def runs(self, info: OperationInfo, first: First, after: After = None) -> Connection[PartRun]:
        """Return a page of the part's runs."""
        wanted = (PartProcessed, PartReworked)
        return entry_page(
            info.context,
            (entry for entry in self.loaded.entries if isinstance(entry.fact, wanted)),
            kind="runs",
            first=first,
            after=after,
            position=self.loaded.position,
            node=lambda entry: _part_run(self.loaded, entry),
        )

    @field(description="The run that made it; null: none is known.")
    async def process_run(self, info: OperationInfo) -> ProcessRun | None:
        """Return the run that made it."""
        return await _run(info.context, self.process_run_id, self.loaded)

    @field(description="The part that it is inside of; null: none.")
    async def inside(self, info: OperationInfo) -> Part | None:
        """Return the part that holds it."""
        if self.inside_id is None:
            return None
        return await find_part(info.context, self.inside_id, self.loaded)

    @field(description="The lot that it was made from, where no run is known.")
    async def lot(self, info: OperationInfo) -> Lot | None:
        """Return the part's lot."""
        if self.lot_id is None:
            return None
        return await find_lot(info.context, self.lot_id, self.loaded)

    @field(
        description="The design that it is made to; null: none, or it is not released.",
    )
    async def design_revision(self, info: OperationInfo) -> DocumentRevision | None:
        """Return the part's design."""
        return await revision_named(info.context, self.design, self.loaded)

    @field(
        description="The certificate that it came with; null: none, or it is not released.",
    )
    async def certificate_revision(self, info: OperationInfo) -> DocumentRevision | None:
        """Return the part's certificate."""
        return await revision_named(info.context, self.certificate, self.loaded)


def _part_run(part: LoadedObject, entry: Entry) -> PartRun:
    fact = entry.fact
    return PartRun(
        part=part,
        process_run_id=strawberry.ID(fact.run_id),
        rework=isinstance(fact, PartReworked),
        nonconformance_id=key_or_none(getattr(fact, "nonconformance_id", None)),
        occurred_at=entry.occurred_at,
        flags=list(fact.flags),
        position=Position(entry.position),
    )


def _failures(loaded: LoadedObject) -> Iterable[PartFailure]:
    for entry in loaded.entries:
        if isinstance(entry.fact, PartFailureReported):
            yield PartFailure(
                failure_id=strawberry.ID(entry.fact.failure_id),
                failure_mode=entry.fact.failure_mode,
                description=entry.fact.description,
                failed_at=entry.occurred_at,
                position=Position(entry.position),
            )


# --- finding --------------------------------------------------------------------------------


async def find_lot(context: OperationContext, key: str, as_of: Any = None) -> Lot | None:
    """Return the lot called `key`; as `api.graphql.objects.object_in`."""
    found = await object_in(context, lot_stream(key), as_of)
    return None if found is None else Lot.of(found)


async def find_part(context: OperationContext, key: str, as_of: Any = None) -> Part | None:
    """Return the part called `key`; as `api.graphql.objects.object_in`."""
    found = await object_in(context, part_stream(key), as_of)
    return None if found is None else Part.of(found)
