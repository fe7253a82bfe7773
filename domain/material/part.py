"""Parts: things with a serial number, from their making to the field."""

from __future__ import annotations

from dataclasses import dataclass

from domain.events import event_type
from domain.thread import Link, LinkEnd, LinkKind, NodeState, Standing, ThreadItem


def part_stream(part_id: str) -> str:
    """Return the stream of a part; its id is the serial number."""
    return f"part:{part_id}"


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

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the processing."""
        node = part_stream(self.part_id)
        return (Link(LinkKind.PROCESSED_BY, node, f"process-run:{self.run_id}"),)


@event_type("part.stocked")
@dataclass(frozen=True)
class PartStocked:
    """A part is finished and lies in stock."""

    part_id: str

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
    """A part was taken out of another one."""

    part_id: str
    from_part_id: str
    reason: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the assembly's end."""
        node = part_stream(self.part_id)
        return (
            LinkEnd(LinkKind.ASSEMBLED_INTO, node, part_stream(self.from_part_id)),
            Standing(node, NodeState.IN_STOCK),
        )


@event_type("part.reworked")
@dataclass(frozen=True)
class PartReworked:
    """A part went through a run to mend what a non-conformance names."""

    part_id: str
    run_id: str
    nonconformance_id: str | None

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

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(part_stream(self.part_id), NodeState.QUARANTINED),)


@event_type("part.released")
@dataclass(frozen=True)
class PartReleased:
    """A part may be used again."""

    part_id: str
    reason: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(part_stream(self.part_id), NodeState.IN_STOCK),)


@event_type("part.scrapped")
@dataclass(frozen=True)
class PartScrapped:
    """A part was thrown away."""

    part_id: str
    reason: str

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

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the shipment."""
        node = part_stream(self.part_id)
        return (
            Link(LinkKind.SHIPPED_IN, node, f"shipment:{self.shipment_id}"),
            Standing(node, NodeState.SHIPPED),
        )


@event_type("part.returned")
@dataclass(frozen=True)
class PartReturned:
    """A part came back from a customer."""

    part_id: str
    reason: str

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

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the failure."""
        node = part_stream(self.part_id)
        return (
            Link(LinkKind.FAILED_AS, node, f"failure:{self.failure_id}"),
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
