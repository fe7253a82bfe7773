"""Set-point proposals: from an idea to a machine that applied or refused it."""

from __future__ import annotations

from dataclasses import dataclass

from domain.asset import asset_stream
from domain.events import event_type
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem


def setpoint_proposal_stream(proposal_id: str) -> str:
    """Return the stream of a set-point proposal."""
    return f"setpoint-proposal:{proposal_id}"


@event_type("setpoint_proposal.proposed")
@dataclass(frozen=True)
class SetpointProposed:
    """Somebody or something proposes a set-point (SI); `scenario_id` says by which what-if."""

    proposal_id: str
    asset_id: str
    setpoint: str
    value: float
    reason: str
    scenario_id: str | None

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return what it is about and what led to it."""
        node = setpoint_proposal_stream(self.proposal_id)
        items: list[ThreadItem] = [
            Standing(node, NodeState.ACTIVE),
            Link(LinkKind.ABOUT, asset_stream(self.asset_id), node),
        ]
        if self.scenario_id is not None:
            items.append(Link(LinkKind.LED_TO, f"scenario:{self.scenario_id}", node))
        return tuple(items)


@event_type("setpoint_proposal.approved")
@dataclass(frozen=True)
class SetpointApproved:
    """It may be applied; who approved it is the event's actor."""

    proposal_id: str
    note: str


@event_type("setpoint_proposal.applied")
@dataclass(frozen=True)
class SetpointApplied:
    """The machine took it and reads back `value` (SI)."""

    proposal_id: str
    value: float

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(setpoint_proposal_stream(self.proposal_id), NodeState.COMPLETED),)


@event_type("setpoint_proposal.refused")
@dataclass(frozen=True)
class SetpointRefused:
    """A person or the machine's own interlock refused it."""

    proposal_id: str
    reason: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(setpoint_proposal_stream(self.proposal_id), NodeState.ABORTED),)


SetpointProposalEvent = SetpointProposed | SetpointApproved | SetpointApplied | SetpointRefused
