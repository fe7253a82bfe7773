"""The parts of a trace: what of the trace of many things is the trace of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from domain.thread import BEARS_ON_CAUSE, LinkKind
from projections.thread.trace import BACK_LINKS, FORWARD_LINKS
from projections.thread.traced import CutReason, Direction, Trace, TraceEdge, TraceNode

_BACK: Final = frozenset(BACK_LINKS)
_FORWARD: Final = frozenset(FORWARD_LINKS)
_Ways = Mapping[str, Sequence[tuple[str, TraceEdge]]]


class TraceParts:
    """A trace that many things are the roots of, by the links that each follows when told none.

    Parameters
    ----------
    traced : of all of them together, in `direction`; where it was cut, so may each part be
    """

    def __init__(self, traced: Trace, direction: Direction) -> None:
        self._traced = traced
        self._nodes = {node.key: (place, node) for place, node in enumerate(traced.nodes)}
        self._walks: list[tuple[frozenset[LinkKind], _Ways]] = []
        if direction is not Direction.FORWARD:
            self._walks.append((_BACK, _ways(traced.edges, _BACK, back=True)))
        if direction is not Direction.BACK:
            self._walks.append((_FORWARD, _ways(traced.edges, _FORWARD, back=False)))

    def of(self, roots: Sequence[str], *, depth: int | None, nodes_max: int) -> Trace:
        """Return the trace of `roots`, which are among the roots of the whole.

        Parameters
        ----------
        depth, nodes_max : as `projections.thread.trace.trace` has them; there is no cursor to go on
        with
        """
        starts = [root for root in dict.fromkeys(roots) if root in self._nodes]
        depths: dict[str, int] = {}
        edges: dict[TraceEdge, None] = {}
        beyond = False
        for kinds, ways in self._walks:
            reached, cut = _walk(starts, ways, depth)
            beyond = beyond or cut
            depths = {
                key: min(depths.get(key, lies), reached.get(key, lies))
                for key, lies in {**depths, **reached}.items()
            }
            edges |= dict.fromkeys(_among(reached, ways, kinds))
        order = sorted(depths, key=lambda key: (depths[key], self._nodes[key][0]))
        kept = set(order[:nodes_max])
        nodes = [self._nodes[key][1]._replace(depth=depths[key]) for key in order[:nodes_max]]
        told = [edge for edge in edges if edge.cause in kept and edge.effect in kept]
        told.sort(key=lambda edge: edge.position)
        return Trace(
            position=self._traced.position,
            cut=self._cut(len(order) > nodes_max, beyond),
            cursor=None,
            unknown_roots=tuple(root for root in dict.fromkeys(roots) if root not in self._nodes),
            node_count=len(nodes),
            graph=lambda: (nodes, told),
        )

    def _cut(self, too_many: bool, too_deep: bool) -> CutReason | None:
        if too_many or self._traced.cut is CutReason.NODES:
            return CutReason.NODES
        return CutReason.DEPTH if too_deep else None


def nothing(roots: Iterable[str], position: int) -> Trace:
    """Return the trace of `roots` of which the thread knew none."""
    nodes: list[TraceNode] = []
    edges: list[TraceEdge] = []
    return Trace(position, None, None, tuple(dict.fromkeys(roots)), 0, lambda: (nodes, edges))


def _ways(edges: Iterable[TraceEdge], kinds: frozenset[LinkKind], *, back: bool) -> _Ways:
    """Return where `edges` of `kinds` lead from each key."""
    ways: defaultdict[str, list[tuple[str, TraceEdge]]] = defaultdict(list)
    for edge in edges:
        if edge.kind in kinds:
            told_backwards = edge.kind in BEARS_ON_CAUSE
            near, far = (
                (edge.cause, edge.effect) if back == told_backwards else (edge.effect, edge.cause)
            )
            ways[near].append((far, edge))
    return ways


def _walk(starts: Sequence[str], ways: _Ways, depth: int | None) -> tuple[dict[str, int], bool]:
    """Return how deep what is reached lies, and whether there is more, deeper."""
    depths = dict.fromkeys(starts, 0)
    level, lies = list(starts), 0
    while level:
        following = dict.fromkeys(
            far for near in level for far, _ in ways.get(near, ()) if far not in depths
        )
        if depth is not None and lies >= depth:
            return depths, bool(following)
        lies += 1
        depths |= dict.fromkeys(following, lies)
        level = list(following)
    return depths, False


def _among(
    reached: Mapping[str, int], ways: _Ways, kinds: frozenset[LinkKind]
) -> Iterable[TraceEdge]:
    for near in reached:
        for far, edge in ways.get(near, ()):
            if far in reached and edge.kind in kinds:
                yield edge
