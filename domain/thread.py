"""The digital thread's vocabulary: what an event ties together, from cause to effect.

A node is a stream's name (``part:SN-1042``), or for what has revisions ``document:DRW-7@B``. A
link runs from cause to effect, is true from the event's `occurred_at` on, and is known since its
position. An event that says something about the thread has a method ``thread()``, which returns
what it says; the thread projection needs to know of no event but this.

References
----------
W3C PROV-DM (2013) and GS1 EPCIS 2.0 (2022) for the kinds of links.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, runtime_checkable


class NodeKind(IntEnum):
    """What a node is; the numbers are stored and never change."""

    UNKNOWN = 0
    DOCUMENT = 1
    LOT = 2
    PART = 3
    PROCESS_RUN = 4
    ASSET = 5
    COMPONENT = 6
    INSPECTION = 7
    NONCONFORMANCE = 8
    SHIPMENT = 9
    FAILURE = 10
    ALERT = 11
    WORK_ORDER = 12
    PREDICTION = 13
    MODEL = 14
    SCENARIO = 15
    SETPOINT_PROPOSAL = 16
    INSTRUMENT = 17
    LOCATION = 18
    SPARE_PART = 19


NODE_KIND_OF_CATEGORY: dict[str, NodeKind] = {
    "document": NodeKind.DOCUMENT,
    "lot": NodeKind.LOT,
    "part": NodeKind.PART,
    "process-run": NodeKind.PROCESS_RUN,
    "asset": NodeKind.ASSET,
    "component": NodeKind.COMPONENT,
    "inspection": NodeKind.INSPECTION,
    "nonconformance": NodeKind.NONCONFORMANCE,
    "shipment": NodeKind.SHIPMENT,
    "failure": NodeKind.FAILURE,
    "alert": NodeKind.ALERT,
    "work-order": NodeKind.WORK_ORDER,
    "prediction": NodeKind.PREDICTION,
    "model": NodeKind.MODEL,
    "scenario": NodeKind.SCENARIO,
    "setpoint-proposal": NodeKind.SETPOINT_PROPOSAL,
    "instrument": NodeKind.INSTRUMENT,
    "location": NodeKind.LOCATION,
    "spare-part": NodeKind.SPARE_PART,
}
"""By the category of a stream: what stands before its colon."""


class LinkKind(IntEnum):
    """How a cause led to an effect; the numbers are stored and never change."""

    SPECIFIED = 1  # document -> process run, part or lot: drawing, recipe, work instruction
    CERTIFIED = 2  # document -> lot, part, instrument
    CONSUMED_BY = 3  # lot -> process run, with its quantity
    PROCESSED_BY = 4  # part -> process run
    PRODUCED = 5  # process run -> part or lot, with its quantity
    PERFORMED = 6  # asset -> process run
    SPLIT_INTO = 7  # lot -> lot, with its quantity
    MERGED_INTO = 8  # lot -> lot, with its quantity
    ASSEMBLED_INTO = 9  # part -> part; ends when it is removed
    INSPECTED_BY = 10  # part, lot or process run -> inspection
    MEASURED_WITH = 11  # instrument -> inspection
    FOUND = 12  # inspection -> nonconformance
    CONCERNS = 13  # nonconformance -> part, lot or process run
    SHIPPED_IN = 14  # part or lot -> shipment
    FAILED_AS = 15  # part -> failure reported from the field
    INSTALLED_IN = 16  # component -> asset; ends when it is removed
    EMBODIED_BY = 17  # part -> component
    RAISED = 18  # asset -> alert
    LED_TO = 19  # alert, prediction or failure -> work order; scenario -> set-point proposal
    SERVICED = 20  # work order -> asset or component
    PREDICTED = 21  # model -> prediction
    ABOUT = 22  # asset or component -> prediction, scenario or set-point proposal
    CONFIRMED_BY = 23  # work order -> prediction: its outcome
    USED_IN = 24  # spare part -> work order, with its quantity
    REWORKED_FOR = 25  # nonconformance -> process run
    SUPERSEDED_BY = 26  # document -> document
    LOCATED_IN = 27  # asset -> location; ends when it is moved
    MADE_FROM = 28  # lot -> part, where no run is known; with its quantity


BEARS_ON_CAUSE: frozenset[LinkKind] = frozenset({LinkKind.PROCESSED_BY, LinkKind.INSPECTED_BY})
"""Links whose effect bears on their cause: a part is what its runs made of it, and may be used
because of what its inspections found. Where a part comes from leads through both, and what a bad
lot or instrument reached leads through them to the parts."""


class NodeState(IntEnum):
    """How a node stands; the numbers are stored and never change."""

    MENTIONED = 0  # known only by its name: nobody has said what it is
    ACTIVE = 1
    IN_PROCESS = 2
    IN_STOCK = 3
    QUARANTINED = 4
    ASSEMBLED = 5
    SCRAPPED = 6
    SHIPPED = 7
    RETURNED = 8
    FAILED = 9
    COMPLETED = 10
    ABORTED = 11
    GOOD = 12
    DEFECTIVE = 13
    CRITICAL = 14
    SUPERSEDED = 15
    CLOSED = 16
    RETIRED = 17
    CONSUMED = 18


@dataclass(frozen=True, slots=True)
class Link:
    """`cause` led to `effect` from the event's `occurred_at` on."""

    kind: LinkKind
    cause: str
    effect: str
    quantity: float | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """The link of this kind between the two that was true until now ends at `occurred_at`."""

    kind: LinkKind
    cause: str
    effect: str


@dataclass(frozen=True, slots=True)
class Standing:
    """`node` stands so from the event's `occurred_at` on."""

    node: str
    state: NodeState


ThreadItem = Link | LinkEnd | Standing


@runtime_checkable
class Threaded(Protocol):
    """An event that says something about the thread."""

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return what the event ties together, ends, and how nodes stand after it."""


def node_kind(key: str) -> NodeKind:
    """Return what the node `key` is, by the category of its stream."""
    return NODE_KIND_OF_CATEGORY.get(key.partition(":")[0], NodeKind.UNKNOWN)
