"""Events and commands of lots: material by quantity, received or made, used, split and merged.

Every event has `flags`: codes of what did not fit when it was recorded, and was recorded all the
same, because it had happened (`domain.material.objections`). A command with
`late` tells what has happened already.
"""

from __future__ import annotations

from dataclasses import dataclass

from domain.events import event_type
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem


def lot_stream(lot_id: str) -> str:
    """Return the stream of a lot."""
    return f"lot:{lot_id}"


# --- events -------------------------------------------------------------------------------


@event_type("lot.received")
@dataclass(frozen=True)
class LotReceived:
    """A supplier's lot came in. `certificate`: a document's revision, ``CERT-1@A``, or None."""

    lot_id: str
    material: str
    quantity: float
    unit: str
    supplier: str
    supplier_lot: str
    certificate: str | None
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return that it is in stock, and its certificate."""
        node = lot_stream(self.lot_id)
        known = Standing(node, NodeState.IN_STOCK)
        if self.certificate is None:
            return (known,)
        return (known, Link(LinkKind.CERTIFIED, f"document:{self.certificate}", node))


@event_type("lot.created")
@dataclass(frozen=True)
class LotCreated:
    """A lot was made here: by a run, out of other lots, or by whoever says so (both None)."""

    lot_id: str
    material: str
    quantity: float
    unit: str
    run_id: str | None
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return that it is in stock, and the run that made it."""
        node = lot_stream(self.lot_id)
        known = Standing(node, NodeState.IN_STOCK)
        if self.run_id is None:
            return (known,)
        made_by = f"process-run:{self.run_id}"
        return (known, Link(LinkKind.PRODUCED, made_by, node, self.quantity, self.unit))


@event_type("lot.consumed")
@dataclass(frozen=True)
class LotConsumed:
    """A run used so much of a lot. `excess_reason` says why it may be more than there was."""

    lot_id: str
    run_id: str
    quantity: float
    unit: str
    excess_reason: str | None
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the consumption."""
        consumed_by = f"process-run:{self.run_id}"
        return (
            Link(
                LinkKind.CONSUMED_BY, lot_stream(self.lot_id), consumed_by, self.quantity, self.unit
            ),
        )


@event_type("lot.split")
@dataclass(frozen=True)
class LotSplit:
    """So much of a lot became the lot `into_lot_id`; `LotCreated` stands in that one's stream.

    `excess_reason` says why it may be more than there was.
    """

    lot_id: str
    into_lot_id: str
    quantity: float
    unit: str
    excess_reason: str | None = None
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the split."""
        source, target = lot_stream(self.lot_id), lot_stream(self.into_lot_id)
        return (Link(LinkKind.SPLIT_INTO, source, target, self.quantity, self.unit),)


@event_type("lot.merged")
@dataclass(frozen=True)
class LotMerged:
    """All that was left of a lot went into the lot `into_lot_id`."""

    lot_id: str
    into_lot_id: str
    quantity: float
    unit: str
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the merger."""
        source, target = lot_stream(self.lot_id), lot_stream(self.into_lot_id)
        return (
            Link(LinkKind.MERGED_INTO, source, target, self.quantity, self.unit),
            Standing(source, NodeState.CONSUMED),
        )


@event_type("lot.increased")
@dataclass(frozen=True)
class LotIncreased:
    """A merger brought so much into a lot; `from_lot_id` says out of which."""

    lot_id: str
    from_lot_id: str
    quantity: float
    unit: str
    flags: tuple[str, ...] = ()


@event_type("lot.quarantined")
@dataclass(frozen=True)
class LotQuarantined:
    """Nothing of a lot may be used until it is released. `cause`: a stream, or None."""

    lot_id: str
    reason: str
    cause: str | None
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(lot_stream(self.lot_id), NodeState.QUARANTINED),)


@event_type("lot.released")
@dataclass(frozen=True)
class LotReleased:
    """A lot may be used again."""

    lot_id: str
    reason: str
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(lot_stream(self.lot_id), NodeState.IN_STOCK),)


@event_type("lot.scrapped")
@dataclass(frozen=True)
class LotScrapped:
    """What was left of a lot was thrown away."""

    lot_id: str
    reason: str
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(lot_stream(self.lot_id), NodeState.SCRAPPED),)


@event_type("lot.shipped")
@dataclass(frozen=True)
class LotShipped:
    """What was left of a lot went to a customer."""

    lot_id: str
    shipment_id: str
    customer: str
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the shipment."""
        node, shipment = lot_stream(self.lot_id), f"shipment:{self.shipment_id}"
        return (
            Link(LinkKind.SHIPPED_IN, node, shipment),
            Standing(shipment, NodeState.COMPLETED),
            Standing(node, NodeState.SHIPPED),
        )


LotEvent = (
    LotReceived
    | LotCreated
    | LotConsumed
    | LotSplit
    | LotMerged
    | LotIncreased
    | LotQuarantined
    | LotReleased
    | LotScrapped
    | LotShipped
)


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class ReceiveLot:
    """Take in a supplier's lot; see `LotReceived`."""

    lot_id: str
    material: str
    quantity: float
    unit: str
    supplier: str
    supplier_lot: str
    certificate: str | None = None
    late: bool = False


@dataclass(frozen=True)
class CreateLot:
    """Make a lot here, by a run or without one."""

    lot_id: str
    material: str
    quantity: float
    unit: str
    run_id: str | None = None
    late: bool = False


@dataclass(frozen=True)
class ConsumeLot:
    """Use so much of a lot in a run; more than is left only with an `excess_reason`."""

    lot_id: str
    run_id: str
    quantity: float
    unit: str
    excess_reason: str | None = None
    late: bool = False


@dataclass(frozen=True)
class SplitLot:
    """Make so much of a lot a lot of its own; more than is left only with an `excess_reason`."""

    lot_id: str
    into_lot_id: str
    quantity: float
    unit: str
    excess_reason: str | None = None
    late: bool = False


@dataclass(frozen=True)
class MergeLot:
    """Put all that is left of a lot into another one of the same material."""

    lot_id: str
    into_lot_id: str
    late: bool = False


@dataclass(frozen=True)
class QuarantineLot:
    """Let nothing of a lot be used until it is released. `cause`: a stream, or None."""

    lot_id: str
    reason: str
    cause: str | None = None
    late: bool = False


@dataclass(frozen=True)
class ReleaseLot:
    """Let a lot be used again."""

    lot_id: str
    reason: str
    late: bool = False


@dataclass(frozen=True)
class ScrapLot:
    """Throw away what is left of a lot."""

    lot_id: str
    reason: str
    late: bool = False


@dataclass(frozen=True)
class ShipLot:
    """Send what is left of a lot to a customer; to send less, split it."""

    lot_id: str
    shipment_id: str
    customer: str
    late: bool = False


LotCommand = (
    ReceiveLot
    | CreateLot
    | ConsumeLot
    | SplitLot
    | MergeLot
    | QuarantineLot
    | ReleaseLot
    | ScrapLot
    | ShipLot
)
