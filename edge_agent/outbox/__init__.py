"""The outbox: frames and commands on disk until the server has acknowledged them."""

from edge_agent.outbox.file import FILE_NAME
from edge_agent.outbox.outbox import Outbox, inspect_outbox, open_outbox
from edge_agent.outbox.records import (
    FROM_POSITION,
    TO_POSITION,
    AgentCommand,
    KeptWindow,
    Loss,
    NewFrame,
    OutboxStatus,
    PendingCommand,
    PendingFrame,
    Priority,
    Rejection,
    SourceState,
    SourceStatus,
)

__all__ = [
    "FILE_NAME",
    "FROM_POSITION",
    "TO_POSITION",
    "AgentCommand",
    "KeptWindow",
    "Loss",
    "NewFrame",
    "Outbox",
    "OutboxStatus",
    "PendingCommand",
    "PendingFrame",
    "Priority",
    "Rejection",
    "SourceState",
    "SourceStatus",
    "inspect_outbox",
    "open_outbox",
]
