"""What a trace comes to: nodes, edges, what was cut, and what a recall counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from domain.thread import LinkKind, NodeKind, NodeState


class Direction(StrEnum):
    """Which way a trace goes from its roots."""

    BACK = "BACK"  # to causes: what is it made of, with what, by whom
    FORWARD = "FORWARD"  # to effects: what did it reach
    BOTH = "BOTH"  # causes of the roots and effects of the roots, not causes of effects


class CutReason(StrEnum):
    """Why a trace does not hold all there is."""

    NODES = "NODES"  # as many nodes as were asked for; `cursor` goes on
    DEPTH = "DEPTH"  # what lies deeper was not wanted
    SIGHT = "SIGHT"  # some of it is not for whoever asks


class TraceNode(NamedTuple):
    """A thing in a trace.

    Parameters
    ----------
    key : its stream, or a revision: ``part:SN-1042``, ``document:DRW-7@B``
    state : how it stood; MENTIONED when nobody had said what it is (`missing`)
    depth : links from the nearest root, 0 for a root
    first_position : of the event that first mentioned it
    """

    key: str
    kind: NodeKind
    state: NodeState
    depth: int
    first_position: int

    @property
    def missing(self) -> bool:
        """Whether it is only known by its name: mentioned by others, described by nobody."""
        return self.state is NodeState.MENTIONED


class TraceEdge(NamedTuple):
    """A link between two things in a trace, from `cause` to `effect` (keys).

    Parameters
    ----------
    quantity, unit : how much, as it was recorded; None where that makes no sense
    valid_from, valid_to : since when it was true, and until when; None: it has not ended
    position : of the event that says so, which may be a correction
    ended_position : of the event that says that it ended, or None
    """

    kind: LinkKind
    cause: str
    effect: str
    quantity: float | None
    unit: str | None
    valid_from: datetime
    valid_to: datetime | None
    position: int
    ended_position: int | None


@dataclass(frozen=True, eq=False)
class Trace:
    """What a trace came to. Nodes by depth and then as they became known, edges by position.

    What is read is packed; nodes and edges are made of it when they are first asked for.

    Parameters
    ----------
    position : of the log; the answer holds what was known there
    cut : why there is more, or None
    cursor : give it as `after`, with all else the same, for the nodes beyond; None: no more.
        An edge comes with the later one of its two nodes.
    unknown_roots : roots that the thread did not know
    node_count : nodes looked at, of whatever kind
    graph : makes nodes and edges
    """

    position: int
    cut: CutReason | None
    cursor: str | None
    unknown_roots: tuple[str, ...]
    node_count: int
    graph: Callable[[], tuple[list[TraceNode], list[TraceEdge]]] = field(repr=False)

    @property
    def nodes(self) -> Sequence[TraceNode]:
        """Things, the nearest to the roots first."""
        return self._graph[0]

    @property
    def edges(self) -> Sequence[TraceEdge]:
        """Links among them."""
        return self._graph[1]

    @cached_property
    def _graph(self) -> tuple[list[TraceNode], list[TraceEdge]]:
        return self.graph()


@dataclass(frozen=True)
class Recall:
    """What `roots` reached.

    Parameters
    ----------
    counts : nodes by kind and state, the roots among them
    parts, lots : nodes of these kinds by state: shipped, in stock, in process, assembled …
    total : nodes reached, with the roots
    cut : whether more was reached than `total`
    trace : the nodes and edges where they were asked for
    out_of_sight : nodes that are not counted, for they are not for whoever asks
    """

    counts: Mapping[tuple[NodeKind, NodeState], int]
    total: int
    position: int
    cut: CutReason | None
    unknown_roots: tuple[str, ...]
    trace: Trace | None
    out_of_sight: int = 0

    @property
    def parts(self) -> dict[NodeState, int]:
        """Parts by state."""
        return self._of(NodeKind.PART)

    @property
    def lots(self) -> dict[NodeState, int]:
        """Lots by state."""
        return self._of(NodeKind.LOT)

    def _of(self, wanted: NodeKind) -> dict[NodeState, int]:
        return {state: count for (kind, state), count in self.counts.items() if kind is wanted}
