"""Non-conformances: what was found wrong, what is to be done with it, and that it was done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from domain.events import event_type
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem


def nonconformance_stream(nonconformance_id: str) -> str:
    """Return the stream of a non-conformance."""
    return f"nonconformance:{nonconformance_id}"


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
