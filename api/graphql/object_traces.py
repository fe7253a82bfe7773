"""Traces of objects: of many at once, in as many statements as of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from api.access.sight import Sight
from api.graphql.context import OperationContext
from api.graphql.thread.types import ThreadGraph
from domain.errors import InvalidInput, NotFound
from eventlog.objects import LoadedObject
from projections.as_of import AsOf
from projections.thread.trace import DEPTH_MAX, ROOTS_MAX, trace
from projections.thread.trace_parts import TraceParts, nothing
from projections.thread.traced import CutReason, Direction, Trace

TOGETHER_NODES_MAX: Final = 20_000
"""Things that the traces of one batch hold together: more would keep others waiting."""

Roots = tuple[str, ...]


async def graph_of(
    context: OperationContext,
    loaded: LoadedObject,
    roots: Sequence[str],
    direction: Direction,
    depth: int | None,
    first: int,
) -> ThreadGraph:
    """Return the trace of an object, as of when it is told; nodes out of sight are left out.

    Raises
    ------
    InvalidInput
        ``trace.depth``, ``trace.nodes_max``
    """
    if not 1 <= first <= TOGETHER_NODES_MAX:
        raise InvalidInput(
            "trace.nodes_max",
            f"the trace of an object has 1 to {TOGETHER_NODES_MAX} things, not {first}",
            hint="the root field `trace` tells more",
            value=first,
            limit=TOGETHER_NODES_MAX,
        )
    if depth is not None and not 0 <= depth <= DEPTH_MAX:
        raise InvalidInput(
            "trace.depth",
            f"depth is 0 to {DEPTH_MAX}, not {depth}",
            value=depth,
            limit=DEPTH_MAX,
        )
    as_of = AsOf(loaded.position, None, loaded.valid_at)

    async def load(keys: list[Roots]) -> list[ThreadGraph]:
        traces: list[Trace] = []
        for batch in _batches(keys):
            async with context.reads:
                traces += await _traces(context, batch, direction, depth, first, as_of)
        return await _in_sight(await context.sight(), traces)

    name = ("trace", loaded.position, loaded.valid_at, direction, depth, first)
    return await context.loader(name, load).load(tuple(roots))


def _batches(keys: Sequence[Roots]) -> list[list[Roots]]:
    """Return `keys` in batches that a trace may begin with."""
    batches: list[list[Roots]] = [[]]
    for roots in keys:
        if sum(map(len, batches[-1])) + len(roots) > ROOTS_MAX:
            batches.append([])
        batches[-1].append(roots)
    return [batch for batch in batches if batch]


async def _traces(
    context: OperationContext,
    batch: Sequence[Roots],
    direction: Direction,
    depth: int | None,
    first: int,
    as_of: AsOf,
) -> list[Trace]:
    alone = len(batch) == 1
    # One level more tells of which there is more.
    deep = depth if alone or depth is None else min(depth + 1, DEPTH_MAX)
    try:
        together = await trace(
            context.ledger,
            [root for roots in batch for root in roots],
            direction=direction,
            depth=deep,
            as_of=as_of,
            nodes_max=first if alone else max(first, min(first * len(batch), TOGETHER_NODES_MAX)),
        )
    except NotFound:
        return [nothing(roots, as_of.position or 0) for roots in batch]
    if alone:
        return [together]
    parts = TraceParts(together, direction)
    return [parts.of(roots, depth=depth, nodes_max=first) for roots in batch]


async def _in_sight(sight: Sight, traces: Sequence[Trace]) -> list[ThreadGraph]:
    """Return `traces` without what is out of sight, which is counted."""
    if sight.is_whole:
        return [ThreadGraph(traced=traced, out_of_sight=0) for traced in traces]
    streams = {_stream(node.key) for traced in traces for node in traced.nodes}
    visible = await sight.visible(streams)
    return [_seen(traced, visible) for traced in traces]


def _seen(traced: Trace, visible: frozenset[str]) -> ThreadGraph:
    nodes = [node for node in traced.nodes if _stream(node.key) in visible]
    keys = {node.key for node in nodes}
    edges = [edge for edge in traced.edges if edge.cause in keys and edge.effect in keys]
    hidden = len(traced.nodes) - len(nodes)
    kept = replace(
        traced,
        cut=traced.cut or (CutReason.SIGHT if hidden else None),
        node_count=len(nodes),
        graph=lambda: (nodes, edges),
    )
    return ThreadGraph(traced=kept, out_of_sight=hidden)


def _stream(key: str) -> str:
    """Return the stream of a node: that of a revision is its document's, or its model's."""
    return key.partition("@")[0]
