"""Subscribers: where each client of a subscription stands, and the way to him."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from api.graphql.messages import Batch

if TYPE_CHECKING:
    from api.graphql.operations import Operation, Payload


class Line(Protocol):
    """The way to one subscriber."""

    @property
    def is_open(self) -> bool:
        """Whether the client is still there."""

    def write(self, batch: Batch) -> bool:
        """Take messages on; return whether there is room for more, at once."""

    async def room(self) -> None:
        """Return once there is room; raise what ends a subscription whose client has gone."""


@dataclass(slots=True)
class Counts:
    """What all groups did, together."""

    executed: int = 0
    delivered: int = 0
    evicted: int = 0
    kept_bytes: int = 0


class Subscriber:
    """One subscription of one client.

    Parameters
    ----------
    operation : prepared for him; `operation.context` says where he starts
    """

    __slots__ = (
        "after",
        "dropped",
        "ended",
        "is_current",
        "is_live",
        "leave",
        "line",
        "operation",
        "outcome",
    )

    def __init__(self, operation: Operation, line: Line) -> None:
        self.operation = operation
        self.line = line
        self.after: int | None = None
        """All up to this position has been told; None before the first turn."""
        self.is_live = False
        """Whether the group tells him."""
        self.is_current = False
        """Whether he had seen the end of the log a moment ago."""
        self.dropped: asyncio.Future[None] | None = None
        """Done once the group goes on without him."""
        self.leave: Callable[[Subscriber], None] | None = None
        self.ended = False
        self.outcome: Payload | Exception | None = None

    def end(self, outcome: Payload | Exception | None) -> None:
        """Tell him nothing more but how it ended."""
        if self.ended:
            return
        self.ended = True
        self.outcome = outcome
        if self.leave is not None:
            self.leave(self)
