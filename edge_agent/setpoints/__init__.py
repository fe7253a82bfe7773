"""Set-points: what an agent may set on a device, when it refuses, and how it returns to safety."""

from edge_agent.setpoints.applier import SetpointApplier
from edge_agent.setpoints.configuration import configure
from edge_agent.setpoints.declaration import DeclaredSetpoint, Interlock, SafeReturn
from edge_agent.setpoints.latest_values import LatestValues

__all__ = [
    "DeclaredSetpoint",
    "Interlock",
    "LatestValues",
    "SafeReturn",
    "SetpointApplier",
    "configure",
]
