"""What goes into the outbox and what it tells: frames, commands and declared losses."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from edge_agent.readings import Position, RowFault

FROM_POSITION: Final = "heddle:position-of-first-frame"
TO_POSITION: Final = "heddle:position-of-last-frame"
"""Texts in a command's input in whose place the ledger's positions of its input's frames go: the
first one that it rests on, and the last one of the window that has caused it."""


class Priority(IntEnum):
    """What a frame is worth when not all can be kept; the highest number goes first."""

    ALERT = 0  # it has caused a command; never dropped
    LIVE = 1
    WAVEFORM = 2


@dataclass(frozen=True, slots=True)
class PendingFrame:
    """A frame that waits for the server's acknowledgement."""

    sequence: int
    event_id: uuid.UUID
    source: str
    encoded: bytes


@dataclass(frozen=True, slots=True)
class NewFrame:
    """A frame that is to be kept, and what has to be told of it should it be lost.

    Parameters
    ----------
    from_ns, to_ns : of its window, ns since 1970 UTC
    """

    sequence: int
    event_id: uuid.UUID
    encoded: bytes
    priority: Priority
    from_ns: int
    to_ns: int
    reading_count: int


@dataclass(frozen=True, slots=True)
class AgentCommand:
    """A mutation that the agent asks of the server; carried out once, by its key.

    Parameters
    ----------
    mutation : such as ``assessHealth``
    input : its input without the key; `FROM_POSITION` and `TO_POSITION` stand for positions
    idempotency_key : 1 to 200 printable characters
    input_from_ns : since when, ns since 1970 UTC, its source's readings count that it rests on;
        None: those of the window alone that has caused it
    """

    mutation: str
    input: Mapping[str, object]
    idempotency_key: str
    input_from_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """Readings that were, or would have been, accepted, and are not kept.

    Parameters
    ----------
    reason : a stable code such as ``outbox.full`` or ``connection.down``
    from_ns, to_ns : between which they were measured
    count : how many; None where nobody can tell
    """

    reason: str
    from_ns: int
    to_ns: int
    count: int | None = None


@dataclass(frozen=True)
class KeptWindow:
    """What one source has brought since the last time, kept in one commit.

    Parameters
    ----------
    position : how far the source got; None leaves it where it was
    commands : what the window has caused
    fault_counts : faults met since the last window, by (channel or "", code)
    refused : some of the messages that were refused, with their text
    """

    source: str
    frames: Sequence[NewFrame] = ()
    position: Position | None = None
    commands: Sequence[AgentCommand] = ()
    losses: Sequence[Loss] = ()
    fault_counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    refused: Sequence[RowFault] = ()


@dataclass(frozen=True, slots=True)
class PendingCommand:
    """A command that waits for the server's answer; `input` as JSON, positions filled in."""

    number: int
    command: AgentCommand


@dataclass(frozen=True, slots=True)
class Rejection:
    """A frame, or the command of that number, that the server will not take, and why."""

    sequence: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class SourceState:
    """How far a source got.

    Parameters
    ----------
    position : of the last row that is in a frame; None before the first
    anchor_ns, first_ns : when the replay's first row was due, and its recorded time
    ended : a finite source was read to its end
    kept_by : who keeps what comes for a live source while nobody listens; empty: nobody
    """

    position: Position | None
    anchor_ns: int | None
    first_ns: int | None
    ended: bool
    kept_by: str = ""


@dataclass(frozen=True)
class SourceStatus:
    """What `heddle agent status` tells of a source; `fault_counts` by channel and code."""

    name: str
    part: str
    row: int | None
    time_ns: int | None
    ended: bool
    fault_counts: dict[str, int]
    live: bool = False
    asset: str = ""
    pending_frames: int = 0
    lost_counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class OutboxStatus:
    """What `heddle agent status` tells.

    Parameters
    ----------
    oldest_pending_s : so long the agent has run since it kept the oldest frame that waits
    lost_counts : readings lost by reason; losses of unknown size count 0 here and 1 below
    loss_counts : declared losses by reason
    pending_losses : of these, how many the server is not told of yet
    """

    agent: str
    last_sequence: int
    acknowledged_sequence: int
    acknowledged_position: int
    pending_frames: int
    pending_bytes: int
    rejected_counts: dict[str, int]
    refused_row_count: int
    sources: tuple[SourceStatus, ...]
    oldest_pending_s: float = 0.0
    pending_commands: int = 0
    rejected_command_counts: dict[str, int] = field(default_factory=dict)
    lost_counts: dict[str, int] = field(default_factory=dict)
    loss_counts: dict[str, int] = field(default_factory=dict)
    pending_losses: int = 0
