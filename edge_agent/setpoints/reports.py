"""What the server is told of a set-point: applied, read back, refused, or what would have been."""

from __future__ import annotations

from domain.directives import SetpointDirective
from edge_agent.outbox.records import AgentCommand
from edge_agent.setpoints.declaration import DeclaredSetpoint
from edge_agent.setpoints.guards import Refusal

ADVISORY: str = "setpoint.advisory"
_REASON_LENGTH_MAX = 500


def applied(agent: str, directive: SetpointDirective, value: float) -> list[AgentCommand]:
    """Return the reports that the device took a value and reads back `value`, SI."""
    key = f"{agent}:setpoint:{directive.position}"
    reports = [
        AgentCommand(
            "reportSetpoint",
            {"assetId": directive.asset_id, "setpoint": directive.setpoint, "value": value},
            f"{key}:reported",
        )
    ]
    if directive.proposal_id is not None:
        reports.append(
            AgentCommand(
                "applySetpoint",
                {"proposalId": directive.proposal_id, "value": value},
                f"{key}:applied",
            )
        )
    return reports


def declined(agent: str, directive: SetpointDirective, refusal: Refusal) -> list[AgentCommand]:
    """Return the reports that a directive was not carried out, and why.

    A proposal is refused by that, unless it is only that nobody lets the agent write by itself.
    """
    key = f"{agent}:setpoint:{directive.position}:{refusal.code}"
    reason = refusal.reason[:_REASON_LENGTH_MAX]
    reports = [
        AgentCommand(
            "declineSetpoint",
            {
                "assetId": directive.asset_id,
                "setpoint": directive.setpoint,
                "value": directive.value,
                "code": refusal.code,
                "reason": reason,
            },
            f"{key}:declined",
        )
    ]
    if directive.proposal_id is not None and refusal.code not in (ADVISORY, "directive.replayed"):
        reports.append(
            AgentCommand(
                "refuseSetpoint",
                {"proposalId": directive.proposal_id, "reason": f"{refusal.code}: {reason}"},
                f"{key}:refused",
            )
        )
    return reports


def returned(
    agent: str, declared: DeclaredSetpoint, value: float, refusal: Refusal, at_ns: int
) -> list[AgentCommand]:
    """Return the reports that the agent has gone back to the safe value by itself."""
    key = f"{agent}:watchdog:{declared.subject}:{at_ns}"
    named = {"assetId": declared.asset, "setpoint": declared.name, "value": value}
    return [
        AgentCommand("reportSetpoint", named, f"{key}:reported"),
        AgentCommand(
            "declineSetpoint",
            {**named, "code": refusal.code, "reason": refusal.reason[:_REASON_LENGTH_MAX]},
            f"{key}:declined",
        ),
    ]
