"""Traces and recalls as far as they are in sight: what lies beyond is left out, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from api.access.sight import Sight
from api.graphql.context import OperationContext
from domain.thread import LinkKind
from projections.as_of import AsOf
from projections.thread.trace import NODES_MAX, recall, trace, unknown_nodes
from projections.thread.traced import CutReason, Direction, Recall, Trace


async def trace_in_sight(
    context: OperationContext, roots: Sequence[str], **asked: Any
) -> tuple[Trace, int]:
    """Return the trace from `roots`, and how many things of it were left out as out of sight.

    Parameters
    ----------
    asked : as `projections.thread.trace.trace` has it

    Raises
    ------
    NotFound, InvalidInput
        as `projections.thread.trace.trace`; a root out of sight is not known
    """
    sight = await context.sight()
    async with context.reads:
        if sight.is_whole:
            return await trace(context.ledger, roots, **asked), 0
        seen = await _seen_roots(sight, roots)
        if roots and not seen:
            raise unknown_nodes(roots)
        return await kept_in_sight(sight, await trace(context.ledger, seen, **asked), roots, seen)


async def recall_in_sight(
    context: OperationContext,
    roots: Sequence[str],
    *,
    link_kinds: Sequence[LinkKind] | None,
    as_of: AsOf,
) -> Recall:
    """Return what `roots` reached that is in sight.

    Raises
    ------
    NotFound, InvalidInput
        as `projections.thread.trace.recall`; a root out of sight is not known
    """
    if (await context.sight()).is_whole:
        async with context.reads:
            return await recall(context.ledger, roots, as_of=as_of, link_kinds=link_kinds)
    traced, hidden = await trace_in_sight(
        context,
        roots,
        direction=Direction.FORWARD,
        link_kinds=link_kinds,
        as_of=as_of,
        nodes_max=NODES_MAX,
    )
    counts = Counter((node.kind, node.state) for node in traced.nodes)
    return Recall(
        counts, counts.total(), traced.position, traced.cut, traced.unknown_roots, None, hidden
    )


async def _seen_roots(sight: Sight, roots: Sequence[str]) -> list[str]:
    visible = await sight.visible({_stream(root) for root in roots})
    return [root for root in roots if _stream(root) in visible]


async def kept_in_sight(
    sight: Sight, traced: Trace, roots: Sequence[str], seen: Sequence[str]
) -> tuple[Trace, int]:
    """Return `traced` without what is out of sight, and how many things that was."""
    visible = await sight.visible({_stream(node.key) for node in traced.nodes})
    nodes = [node for node in traced.nodes if _stream(node.key) in visible]
    edges = [edge for edge in traced.edges if _both_seen(edge.cause, edge.effect, visible)]
    hidden = len(traced.nodes) - len(nodes)
    known = set(seen) - set(traced.unknown_roots)
    kept = replace(
        traced,
        cut=traced.cut or (CutReason.SIGHT if hidden else None),
        unknown_roots=tuple(root for root in dict.fromkeys(roots) if root not in known),
        node_count=len(nodes),
        graph=lambda: (nodes, edges),
    )
    return kept, hidden


def _both_seen(cause: str, effect: str, visible: frozenset[str]) -> bool:
    return _stream(cause) in visible and _stream(effect) in visible


def _stream(key: str) -> str:
    """Return the stream of a node: that of a revision is its document's."""
    return key.partition("@")[0]
