"""How frames and commands reach Heddle: what any way of sending promises.

Today that is HTTP (`edge_agent.uplink.http`); a way over Kafka would stand beside it. A
transport sends once and says what became of each item; repeating is the uplink's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from domain.errors import Unavailable
from edge_agent.outbox.records import AgentCommand, PendingFrame


class FrameResult(msgspec.Struct, frozen=True):
    """What became of one frame of a batch."""

    index: int
    status: Literal["accepted", "duplicate", "rejected"]
    sequence: int | None = None
    position: int | None = None
    code: str = ""
    message: str = ""
    hint: str = ""


class BatchAnswer(msgspec.Struct, frozen=True):
    """The server's answer to a batch: one result a frame, in order."""

    results: list[FrameResult]


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What became of one command.

    Parameters
    ----------
    code : empty when it was carried out, now or before
    is_passing : the same command may be carried out later
    """

    code: str = ""
    message: str = ""
    is_passing: bool = False


class RequestFailed(Unavailable):
    """A whole request failed; nothing is known of its items and all are sent again.

    Parameters
    ----------
    retry_after_s : the pause the server asked for, 0 without one
    too_large : the server refuses bodies of this size
    """

    def __init__(
        self, code: str, message: str, *, retry_after_s: float = 0.0, too_large: bool = False
    ) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s
        self.too_large = too_large


class RequestMalformed(RequestFailed):
    """The server cannot read the request as a whole: one of its items spoils it."""


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """One message of the server's stream of commands.

    Parameters
    ----------
    position : in the ledger; the stream goes on beyond it
    data : the message; empty for a sign of life
    """

    position: int | None
    data: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of what an agent wants to be told.

    Parameters
    ----------
    after : position of the ledger beyond which; None begins with what comes next
    """

    agent: str
    assets: frozenset[str]
    models: frozenset[str]
    after: int | None


class Transport(Protocol):
    """One way to one server."""

    @property
    def address(self) -> str:
        """Where the server is, for messages."""

    @property
    def frames_bytes_overhead(self) -> int:
        """Bytes of a batch that are no frame."""

    async def send_frames(self, frames: Sequence[PendingFrame]) -> BatchAnswer:
        """Send `frames` in one request and return what became of each.

        Raises
        ------
        RequestFailed
            ``uplink.*``
        """

    async def send_commands(self, commands: Sequence[AgentCommand]) -> list[CommandResult]:
        """Send `commands`, to be carried out in order; return what became of each.

        Raises
        ------
        RequestFailed, RequestMalformed
            ``uplink.*``
        """

    def receive_directives(self, wanted: Wanted) -> AsyncIterator[StreamMessage]:
        """Yield what the server tells the agent, until the stream ends.

        Raises
        ------
        RequestFailed
            ``uplink.*``
        """

    async def fetch(self, path: str, bytes_max: int) -> bytes:
        """Return what the server has under `path`, at most `bytes_max` of it.

        Raises
        ------
        RequestFailed
            ``uplink.*``
        """
