"""Evidence: a trace with all that proves it, gathered from the log and written as one file."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from domain.errors import NotAllowed
from domain.events import format_time
from eventlog.bundles.lines import TraceSelection
from eventlog.bundles.traces import (
    BundleEdge,
    BundleNode,
    Exported,
    TraceEvidence,
    export_trace_bundle,
)
from eventlog.documents import ContentStore
from eventlog.following.tail import Tail
from eventlog.ledger import Ledger
from eventlog.transparency.signing import CheckpointSigner
from projections.as_of import NOW, AsOf
from projections.running.runner import ProjectionRunner
from projections.thread.projection import ThreadProjection
from projections.thread.trace import events_of, trace, unknown_nodes
from projections.thread.traced import Direction, Trace

NODES_MAX: Final = 20_000
"""Things in one bundle."""

CATCH_UP_S_MAX: Final = 600.0

Visible = Callable[[Iterable[str]], Awaitable[frozenset[str]]]
"""Returns those of some streams that somebody may see."""


async def gather(
    ledger: Ledger,
    roots: Sequence[str],
    *,
    direction: Direction = Direction.BOTH,
    depth: int | None = None,
    as_of: AsOf = NOW,
    nodes_max: int = NODES_MAX,
) -> TraceEvidence:
    """Return all that the trace of `roots` rests on.

    Raises
    ------
    NotFound, InvalidInput
        as `projections.thread.trace.trace` and `events_of`
    """
    traced = await trace(
        ledger, roots, direction=direction, depth=depth, as_of=as_of, nodes_max=nodes_max
    )
    selection = TraceSelection(
        tuple(root for root in roots if root not in traced.unknown_roots),
        str(direction),
        traced.position,
        None if as_of.valid_at is None else format_time(as_of.valid_at),
        complete=traced.cut is None,
    )
    return TraceEvidence(selection, _nodes(traced), _edges(traced), await events_of(ledger, traced))


async def evidence_of(
    ledger: Ledger,
    roots: Sequence[str],
    visible: Visible,
    *,
    direction: Direction = Direction.BOTH,
    as_of: AsOf = NOW,
) -> TraceEvidence:
    """Return what `gather` does, for somebody who sees what `visible` lets through.

    Raises
    ------
    NotFound
        ``thread.unknown_node``: none of the roots is known, or none in sight
    NotAllowed
        ``evidence.out_of_sight``: evidence with holes would prove nothing
    InvalidInput
        as `gather`
    """
    seen = await visible(roots)
    if not seen:
        raise unknown_nodes(roots)
    evidence = await gather(ledger, sorted(seen), direction=direction, as_of=as_of)
    keys = {node.key.partition("@")[0] for node in evidence.nodes}
    hidden = keys - await visible(keys)
    if hidden:
        raise NotAllowed(
            "evidence.out_of_sight",
            f"the trace of {roots[0]} leads to {len(hidden)} things beyond what you may see",
            hint="ask for an identity that sees all of it: evidence with holes proves nothing",
            value=len(hidden),
        )
    return evidence


async def write_bundle(
    signer: CheckpointSigner,
    evidence: TraceEvidence,
    path: Path,
    *,
    contents: ContentStore | None = None,
) -> Exported:
    """Write `evidence` as a bundle, against a checkpoint of the log as it is now, and sign it.

    Parameters
    ----------
    contents : where the files of documents are; None leaves them out, and names their hashes

    Raises
    ------
    HeddleError
        as `CheckpointSigner.sign` and `export_trace_bundle`
    """
    note = await signer.sign()
    key = await asyncio.to_thread(signer.keys.current)
    return await export_trace_bundle(signer.tiles, note, key, evidence, path, contents=contents)


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Where the thread stands, and where the log does."""

    position: int
    head: int


async def catch_up(ledger: Ledger, database_url: str) -> CaughtUp:
    """Fold the thread up to the log's end, unless a server does so, and return once it is there.

    Raises
    ------
    Unavailable
        ``projection.behind``
    """
    tail = Tail(ledger, database_url)
    try:
        runner = ProjectionRunner(ThreadProjection(), tail)
        try:
            head = await ledger.head()
            await runner.wait_for(head, CATCH_UP_S_MAX)
            return CaughtUp(runner.position, head)
        finally:
            await runner.close()
    finally:
        await tail.close()


def _nodes(traced: Trace) -> list[BundleNode]:
    return [
        BundleNode(node.key, node.kind.name, node.state.name, node.depth, node.first_position)
        for node in traced.nodes
    ]


def _edges(traced: Trace) -> list[BundleEdge]:
    return [
        BundleEdge(
            edge.kind.name,
            edge.cause,
            edge.effect,
            edge.quantity,
            edge.unit,
            format_time(edge.valid_from),
            None if edge.valid_to is None else format_time(edge.valid_to),
            edge.position,
            edge.ended_position,
        )
        for edge in traced.edges
    ]
