"""Events and commands of parts: things with a serial number, from their making to the field.

Every event has `flags`: codes of what did not fit when it was recorded, and was recorded all the
same, because it had happened (`domain.material.objections`). A command with
`late` tells what has happened already.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from domain.events import event_type
from domain.thread import Link, LinkEnd, LinkKind, NodeState, Standing, ThreadItem


def part_stream(part_id: str) -> str:
    """Return the stream of a part; its id is the serial number."""
    return f"part:{part_id}"


class PartStanding(StrEnum):
    """How a part stands; each is a `NodeState` of the same name."""

    IN_PROCESS = "IN_PROCESS"
    IN_STOCK = "IN_STOCK"
    ASSEMBLED = "ASSEMBLED"
    QUARANTINED = "QUARANTINED"
    SCRAPPED = "SCRAPPED"
    SHIPPED = "SHIPPED"
    RETURNED = "RETURNED"
    FAILED = "FAILED"


# --- events -------------------------------------------------------------------------------


@event_type("part.created")
@dataclass(frozen=True)
class PartCreated:
    """A part was made: by a run, or from a lot where no run is known.

    `design`: the document's revision it is made to, ``DRW-7@B``, or None.
    """

    part_id: str
    part_number: str
    design: str | None
    run_id: str | None
    lot_id: str | None
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return that it is in process, and what it was made of and to."""
        node = part_stream(self.part_id)
        items: list[ThreadItem] = [Standing(node, NodeState.IN_PROCESS)]
        if self.design is not None:
            items.append(Link(LinkKind.SPECIFIED, f"document:{self.design}", node))
        if self.run_id is not None:
            items.append(Link(LinkKind.PRODUCED, f"process-run:{self.run_id}", node))
        if self.lot_id is not None:
            items.append(Link(LinkKind.MADE_FROM, f"lot:{self.lot_id}", node))
        return tuple(items)


@event_type("part.received")
@dataclass(frozen=True)
class PartReceived:
    """A part came in from a supplier. `certificate`: a document's revision, or None."""

    part_id: str
    part_number: str
    supplier: str
    certificate: str | None
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return that it is in stock, and its certificate."""
        node = part_stream(self.part_id)
        known = Standing(node, NodeState.IN_STOCK)
        if self.certificate is None:
            return (known,)
        return (known, Link(LinkKind.CERTIFIED, f"document:{self.certificate}", node))


@event_type("part.processed")
@dataclass(frozen=True)
class PartProcessed:
    """A part went through a run."""

    part_id: str
    run_id: str
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the processing."""
        node = part_stream(self.part_id)
        return (Link(LinkKind.PROCESSED_BY, node, f"process-run:{self.run_id}"),)


@event_type("part.stocked")
@dataclass(frozen=True)
class PartStocked:
    """A part is finished and lies in stock."""

    part_id: str
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(part_stream(self.part_id), NodeState.IN_STOCK),)


@event_type("part.assembled")
@dataclass(frozen=True)
class PartAssembled:
    """A part was put into another one, at a place of it that has a name."""

    part_id: str
    into_part_id: str
    slot: str
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the assembly."""
        node = part_stream(self.part_id)
        return (
            Link(LinkKind.ASSEMBLED_INTO, node, part_stream(self.into_part_id)),
            Standing(node, NodeState.ASSEMBLED),
        )


@event_type("part.removed")
@dataclass(frozen=True)
class PartRemoved:
    """A part was taken out of another one; what failed or is in quarantine `stands` so still."""

    part_id: str
    from_part_id: str
    reason: str
    stands: PartStanding = PartStanding.IN_STOCK
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the assembly's end."""
        node = part_stream(self.part_id)
        return (
            LinkEnd(LinkKind.ASSEMBLED_INTO, node, part_stream(self.from_part_id)),
            Standing(node, NodeState[self.stands.name]),
        )


@event_type("part.reworked")
@dataclass(frozen=True)
class PartReworked:
    """A part went through a run to mend what a non-conformance names."""

    part_id: str
    run_id: str
    nonconformance_id: str | None
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the rework."""
        node, run = part_stream(self.part_id), f"process-run:{self.run_id}"
        items: list[ThreadItem] = [
            Link(LinkKind.PROCESSED_BY, node, run),
            Standing(node, NodeState.IN_PROCESS),
        ]
        if self.nonconformance_id is not None:
            cause = f"nonconformance:{self.nonconformance_id}"
            items.append(Link(LinkKind.REWORKED_FOR, cause, run))
        return tuple(items)


@event_type("part.quarantined")
@dataclass(frozen=True)
class PartQuarantined:
    """A part may not be used until it is released. `cause`: a stream, or None."""

    part_id: str
    reason: str
    cause: str | None
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(part_stream(self.part_id), NodeState.QUARANTINED),)


@event_type("part.released")
@dataclass(frozen=True)
class PartReleased:
    """A part may be used again, and `stands` where it was: in process, in stock or assembled."""

    part_id: str
    reason: str
    stands: PartStanding = PartStanding.IN_STOCK
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(part_stream(self.part_id), NodeState[self.stands.name]),)


@event_type("part.scrapped")
@dataclass(frozen=True)
class PartScrapped:
    """A part was thrown away."""

    part_id: str
    reason: str
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(part_stream(self.part_id), NodeState.SCRAPPED),)


@event_type("part.shipped")
@dataclass(frozen=True)
class PartShipped:
    """A part went to a customer."""

    part_id: str
    shipment_id: str
    customer: str
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the shipment."""
        node, shipment = part_stream(self.part_id), f"shipment:{self.shipment_id}"
        return (
            Link(LinkKind.SHIPPED_IN, node, shipment),
            Standing(shipment, NodeState.COMPLETED),
            Standing(node, NodeState.SHIPPED),
        )


@event_type("part.returned")
@dataclass(frozen=True)
class PartReturned:
    """A part came back from a customer."""

    part_id: str
    reason: str
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(part_stream(self.part_id), NodeState.RETURNED),)


@event_type("part.failure_reported")
@dataclass(frozen=True)
class PartFailureReported:
    """A part failed in the field, at the event's `occurred_at`."""

    part_id: str
    failure_id: str
    failure_mode: str
    description: str
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the failure."""
        node, failure = part_stream(self.part_id), f"failure:{self.failure_id}"
        return (
            Link(LinkKind.FAILED_AS, node, failure),
            Standing(failure, NodeState.ACTIVE),
            Standing(node, NodeState.FAILED),
        )


PartEvent = (
    PartCreated
    | PartReceived
    | PartProcessed
    | PartStocked
    | PartAssembled
    | PartRemoved
    | PartReworked
    | PartQuarantined
    | PartReleased
    | PartScrapped
    | PartShipped
    | PartReturned
    | PartFailureReported
)


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class CreatePart:
    """Make a part, by a run or from a lot where no run is known; see `PartCreated`."""

    part_id: str
    part_number: str
    design: str | None = None
    run_id: str | None = None
    lot_id: str | None = None
    late: bool = False


@dataclass(frozen=True)
class ReceivePart:
    """Take in a part from a supplier."""

    part_id: str
    part_number: str
    supplier: str
    certificate: str | None = None
    late: bool = False


@dataclass(frozen=True)
class ProcessPart:
    """Put a part through a run."""

    part_id: str
    run_id: str
    late: bool = False


@dataclass(frozen=True)
class StockPart:
    """Lay a finished part in stock."""

    part_id: str
    late: bool = False


@dataclass(frozen=True)
class AssemblePart:
    """Put a part into another one, at its `slot`."""

    part_id: str
    into_part_id: str
    slot: str
    late: bool = False


@dataclass(frozen=True)
class RemovePart:
    """Take a part out of the one it is in."""

    part_id: str
    from_part_id: str
    reason: str
    late: bool = False


@dataclass(frozen=True)
class ReworkPart:
    """Put a part through a run to mend it; out of quarantine only for a non-conformance."""

    part_id: str
    run_id: str
    nonconformance_id: str | None = None
    late: bool = False


@dataclass(frozen=True)
class QuarantinePart:
    """Let a part not be used until it is released. `cause`: a stream, or None."""

    part_id: str
    reason: str
    cause: str | None = None
    late: bool = False


@dataclass(frozen=True)
class ReleasePart:
    """Let a part be used again."""

    part_id: str
    reason: str
    late: bool = False


@dataclass(frozen=True)
class ScrapPart:
    """Throw a part away."""

    part_id: str
    reason: str
    late: bool = False


@dataclass(frozen=True)
class ShipPart:
    """Send a part to a customer, with all that is in it."""

    part_id: str
    shipment_id: str
    customer: str
    late: bool = False


@dataclass(frozen=True)
class ReturnPart:
    """Take a part back from a customer, with all that is in it."""

    part_id: str
    reason: str
    late: bool = False


@dataclass(frozen=True)
class ReportPartFailure:
    """Say that a part, shipped by itself or in another one, failed in the field."""

    part_id: str
    failure_id: str
    failure_mode: str
    description: str
    late: bool = False


PartCommand = (
    CreatePart
    | ReceivePart
    | ProcessPart
    | StockPart
    | AssemblePart
    | RemovePart
    | ReworkPart
    | QuarantinePart
    | ReleasePart
    | ScrapPart
    | ShipPart
    | ReturnPart
    | ReportPartFailure
)
