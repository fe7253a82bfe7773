"""Set-point proposals: from an idea to a machine that applied or refused it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never, get_args

from domain.asset import SetpointDesired, asset_stream
from domain.asset_decider import check_setpoint, registered_asset
from domain.deciders import Decider, Others
from domain.errors import CommandRejected, NotFound
from domain.events import event_type
from domain.identifiers import check_identifier
from domain.opinions.figures import check_finite
from domain.opinions.scenario import NotRun, scenario_stream
from domain.texts import check_note, check_text
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem


def setpoint_proposal_stream(proposal_id: str) -> str:
    """Return the stream of a set-point proposal."""
    return f"setpoint-proposal:{proposal_id}"


# --- events -------------------------------------------------------------------------------


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
            items.append(Link(LinkKind.LED_TO, scenario_stream(self.scenario_id), node))
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


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class ProposeSetpoint:
    """Propose a set-point (SI); see `SetpointProposed`."""

    proposal_id: str
    asset_id: str
    setpoint: str
    value: float
    reason: str
    scenario_id: str | None = None


@dataclass(frozen=True)
class ApproveSetpoint:
    """Let it be applied: from now on the asset's set-point is desired so."""

    proposal_id: str
    note: str = ""


@dataclass(frozen=True)
class ApplySetpoint:
    """Say that the machine took it, and which `value` (SI) it reads back."""

    proposal_id: str
    value: float


@dataclass(frozen=True)
class RefuseSetpoint:
    """Say that a person or the machine's own interlock does not want it."""

    proposal_id: str
    reason: str


SetpointProposalCommand = ProposeSetpoint | ApproveSetpoint | ApplySetpoint | RefuseSetpoint


# --- states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unproposed:
    """Nobody has proposed it."""


@dataclass(frozen=True)
class Proposed:
    """Waits for approval."""

    proposal: SetpointProposed


@dataclass(frozen=True)
class Approved:
    """May be applied."""

    proposal: SetpointProposed


@dataclass(frozen=True)
class Applied:
    """The machine took it."""

    proposal: SetpointProposed


@dataclass(frozen=True)
class Refused:
    """It will not be applied."""

    proposal: SetpointProposed


SetpointProposal = Unproposed | Proposed | Approved | Applied | Refused


# --- decisions ----------------------------------------------------------------------------


def decide(
    command: SetpointProposalCommand, proposal: SetpointProposal, others: Others
) -> tuple[SetpointProposalEvent | SetpointDesired, ...]:
    """Return the events `command` causes on `proposal`, and an approval on the asset.

    Parameters
    ----------
    others : the asset and the scenario that `looks_at` names

    Raises
    ------
    CommandRejected
        ``setpoint_proposal.already_proposed``, ``setpoint_proposal.not_approved``,
        ``setpoint_proposal.already_approved``, ``setpoint_proposal.ended``, ``asset.retired``
    NotFound
        ``setpoint_proposal.unknown``, ``asset.unknown``, ``setpoint.unknown``,
        ``scenario.unknown``
    InvalidInput
        ``setpoint_proposal.malformed_name``, ``setpoint.out_of_bounds``, ``figure.not_finite``,
        ``text.empty``, ``text.too_long``
    """
    if isinstance(command, ProposeSetpoint):
        return (_propose(command, proposal, others),)
    match proposal:
        case Unproposed():
            raise NotFound(
                "setpoint_proposal.unknown",
                f"set-point proposal {command.proposal_id!r} was not made",
                hint="check the name",
                value=command.proposal_id,
            )
        case Applied() | Refused():
            raise CommandRejected(
                "setpoint_proposal.ended",
                f"set-point proposal {command.proposal_id!r} was {type(proposal).__name__.lower()}",
                hint="propose it anew",
                value=command.proposal_id,
                limit=type(proposal).__name__.upper(),
            )
        case Proposed() | Approved():
            return _decide_pending(command, proposal, others)
        case _:
            assert_never(proposal)


def _propose(
    command: ProposeSetpoint, proposal: SetpointProposal, others: Others
) -> SetpointProposed:
    check_identifier("setpoint_proposal", command.proposal_id)
    check_text("reason", command.reason)
    if not isinstance(proposal, Unproposed):
        raise CommandRejected(
            "setpoint_proposal.already_proposed",
            f"set-point proposal {command.proposal_id!r} was made already",
            hint="choose another name; a proposal is made once",
            value=command.proposal_id,
        )
    check_setpoint(registered_asset(command.asset_id, others), command.setpoint, command.value)
    if command.scenario_id is not None:
        scenario = others.get(scenario_stream(command.scenario_id), NotRun())
        if isinstance(scenario, NotRun):
            raise NotFound(
                "scenario.unknown",
                f"scenario {command.scenario_id!r} was not run",
                hint="record it first, or check the name",
                value=command.scenario_id,
            )
    return SetpointProposed(**vars(command))


def _decide_pending(
    command: ApproveSetpoint | ApplySetpoint | RefuseSetpoint,
    pending: Proposed | Approved,
    others: Others,
) -> tuple[SetpointProposalEvent | SetpointDesired, ...]:
    proposed = pending.proposal
    match command:
        case ApproveSetpoint(note=note):
            if isinstance(pending, Approved):
                raise CommandRejected(
                    "setpoint_proposal.already_approved",
                    f"set-point proposal {proposed.proposal_id!r} is approved",
                    value=proposed.proposal_id,
                )
            check_note("note", note)
            # The bounds as they are declared now, and an asset that is still there.
            asset = registered_asset(proposed.asset_id, others)
            check_setpoint(asset, proposed.setpoint, proposed.value)
            return (
                SetpointApproved(proposed.proposal_id, note),
                SetpointDesired(proposed.asset_id, proposed.setpoint, proposed.value),
            )
        case ApplySetpoint(value=value):
            if not isinstance(pending, Approved):
                raise CommandRejected(
                    "setpoint_proposal.not_approved",
                    f"set-point proposal {proposed.proposal_id!r} is not approved",
                    hint="have it approved before it is applied",
                    value=proposed.proposal_id,
                )
            return (SetpointApplied(proposed.proposal_id, check_finite("value", value)),)
        case RefuseSetpoint(reason=reason):
            return (SetpointRefused(proposed.proposal_id, check_text("reason", reason)),)
        case _:
            assert_never(command)


def looks_at(
    command: SetpointProposalCommand, proposal: SetpointProposal, _others: Others
) -> tuple[str, ...]:
    """Return the streams of the asset and the scenario that a proposal names."""
    match command, proposal:
        case ProposeSetpoint(asset_id=asset_id, scenario_id=None), _:
            return (asset_stream(asset_id),)
        case ProposeSetpoint(asset_id=asset_id, scenario_id=str(scenario_id)), _:
            return asset_stream(asset_id), scenario_stream(scenario_id)
        case ApproveSetpoint(), Proposed(proposal=proposed):
            return (asset_stream(proposed.asset_id),)
        case _:
            return ()


# --- fold ---------------------------------------------------------------------------------


def evolve(
    proposal: SetpointProposal, event: SetpointProposalEvent | SetpointDesired
) -> SetpointProposal:
    """Return what `event` makes of `proposal`.

    Raises
    ------
    ValueError
        it cannot happen to it
    """
    match proposal, event:
        case Unproposed(), SetpointProposed():
            return Proposed(event)
        case Proposed(proposed), SetpointApproved():
            return Approved(proposed)
        case Approved(proposed), SetpointApplied():
            return Applied(proposed)
        case Proposed(proposed) | Approved(proposed), SetpointRefused():
            return Refused(proposed)
        case _:
            raise ValueError(
                f"{type(event).__name__} cannot happen to a proposal that is "
                f"{type(proposal).__name__}"
            )


def _stream_of(event: SetpointProposalEvent | SetpointDesired) -> str:
    if isinstance(event, SetpointDesired):
        return asset_stream(event.asset_id)
    return setpoint_proposal_stream(event.proposal_id)


DECIDER: Final[
    Decider[SetpointProposalCommand, SetpointProposal, SetpointProposalEvent | SetpointDesired]
] = Decider(
    category="setpoint-proposal",
    command_types=get_args(SetpointProposalCommand),
    initial=Unproposed(),
    decide=decide,
    evolve=evolve,
    subject=lambda command: setpoint_proposal_stream(command.proposal_id),
    stream_of=_stream_of,
    looks_at=looks_at,
)
