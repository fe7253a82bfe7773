"""Traces: what led to a thing and what it led to, as the thread knows it or knew it.

A trace is a graph: nodes and the links among them, from causes to effects. It follows the kinds
of links that carry cause on in its direction (`BACK_LINKS`, `FORWARD_LINKS`) unless it is told
others: through what everything touches (an asset, an instrument) all leads to all.

A link that has ended (a part that was taken out again) is part of the thread, with its end, unless
the trace is asked as of a valid time. Nothing is ever deleted: as of a position a trace is what it
was when the log ended there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isnan
from typing import Any, Final, NamedTuple

import numpy as np

from domain.errors import InvalidInput, NotFound
from domain.thread import BEARS_ON_CAUSE, LinkKind, NodeKind, NodeState, node_kind
from eventlog.database import Connection
from eventlog.ledger import Ledger
from eventlog.reading import position_at
from projections.as_of import NOW, AsOf
from projections.thread.trace_rows import (
    NO_NODES,
    NOW_POSITION,
    EdgeColumns,
    NodeColumns,
    Reached,
    Way,
    count,
    depths_of,
    find_roots,
    reach,
    read_edges,
    read_nodes,
    times,
    times_or_none,
    walk,
)
from projections.thread.traced import CutReason, Direction, Recall, Trace, TraceEdge, TraceNode

ROOTS_MAX: Final = 1_000
NODES_MAX: Final = 100_000
"""Nodes that one answer holds at most; by default `NODES_DEFAULT`."""

NODES_DEFAULT: Final = 10_000
COUNTED_MAX: Final = 1_000_000
"""Nodes that a recall counts, and that the answers of one trace hold together."""

DEPTH_MAX: Final = 10_000
NEAR_DEPTH: Final = 8
"""So deep a trace is walked level by level: all the way would be more than is wanted."""

EVENTS_MAX: Final = 1_000_000
KEY_LENGTH_MAX: Final = 512


_STAYS_BEHIND: Final = {LinkKind.LOCATED_IN, LinkKind.SUPERSEDED_BY}
BACK_LINKS: Final = tuple(
    kind
    for kind in LinkKind
    if kind not in _STAYS_BEHIND | {LinkKind.INSTALLED_IN, LinkKind.SERVICED}
)
"""To causes, but not through an asset to all that was ever put into it or done to it."""

FORWARD_LINKS: Final = tuple(
    kind
    for kind in LinkKind
    if kind not in _STAYS_BEHIND | {LinkKind.PERFORMED, LinkKind.RAISED, LinkKind.ABOUT}
)
"""To effects, but not through an asset to all that it ever did."""

ASSET_FORWARD_LINKS: Final = tuple(
    kind
    for kind in LinkKind
    if kind not in _STAYS_BEHIND | {LinkKind.INSTALLED_IN, LinkKind.SERVICED}
)
"""To effects of an asset that is asked about: what it did, but not through other assets."""


async def trace(
    ledger: Ledger,
    roots: Sequence[str],
    *,
    direction: Direction,
    depth: int | None = None,
    link_kinds: Sequence[LinkKind] | None = None,
    node_kinds: Sequence[NodeKind] | None = None,
    as_of: AsOf = NOW,
    nodes_max: int = NODES_DEFAULT,
    after: str | None = None,
) -> Trace:
    """Return what the things named `roots` came from, or led to, or both.

    Parameters
    ----------
    roots : keys of nodes, 1 to `ROOTS_MAX`
    depth : links from a root at most; None: all the way
    link_kinds : kinds of links to follow; None: those of the direction
    node_kinds : kinds of nodes to return; the trace goes on through the others. None: all
    nodes_max : nodes of this answer, 1 to `NODES_MAX`
    after : the `cursor` of the answer before

    Raises
    ------
    NotFound
        ``thread.unknown_node``: none of the roots was known
    InvalidInput
        ``trace.roots``, ``trace.depth``, ``trace.nodes_max``, ``trace.as_of``, ``trace.cursor``
    """
    ways = await _ways(ledger, roots, direction, link_kinds, as_of)
    _check_range("trace.depth", "depth", depth, DEPTH_MAX, minimum=0)
    _check_range("trace.nodes_max", "nodes_max", nodes_max, NODES_MAX)
    depth_max = DEPTH_MAX if depth is None else depth
    async with ledger.pool.acquire() as connection:
        found = None
        if after is None and depth_max > NEAR_DEPTH:
            found = await _reached(connection, ways, roots, depth_max, nodes_max)
        if found is None:
            asked = _digest(roots, direction, depth, link_kinds, node_kinds, as_of.valid_at)
            start = None if after is None else _Place.of(after, asked)
            found = await _walked(connection, ways, roots, depth_max, nodes_max, start, asked)
    return found if node_kinds is None else _only(found, frozenset(node_kinds))


async def recall(
    ledger: Ledger,
    roots: Sequence[str],
    *,
    as_of: AsOf = NOW,
    link_kinds: Sequence[LinkKind] | None = None,
    nodes: bool = False,
    nodes_max: int = NODES_MAX,
) -> Recall:
    """Return what `roots` reached: how many parts and lots, by state; with `nodes` the graph too.

    Raises
    ------
    NotFound, InvalidInput
        as `trace`
    """
    (way,) = await _ways(ledger, roots, Direction.FORWARD, link_kinds, as_of)
    if nodes:
        traced = await trace(
            ledger,
            roots,
            direction=Direction.FORWARD,
            link_kinds=link_kinds,
            as_of=as_of,
            nodes_max=nodes_max,
        )
        if traced.cut is None:
            counts = Counter((node.kind, node.state) for node in traced.nodes)
            return Recall(
                counts, counts.total(), traced.position, None, traced.unknown_roots, traced
            )
        way = replace(way, position=traced.position)
    async with ledger.pool.acquire() as connection:
        rows = await count(connection, way, roots, COUNTED_MAX + 1)
    if not rows:
        raise unknown_nodes(roots)
    total = sum(row["count"] for row in rows)
    return Recall(
        {(NodeKind(row["kind"]), NodeState(row["state"])): row["count"] for row in rows},
        total,
        rows[0]["position"],
        CutReason.NODES if total > COUNTED_MAX else None,
        _unknown_roots(roots, rows[0]["root_keys"]),
        traced if nodes else None,
    )


async def events_of(ledger: Ledger, traced: Trace) -> list[int]:
    """Return the positions of all events that `traced` rests on, ascending.

    Those that said its links and their ends, how its nodes stood, and every fact in the nodes'
    own streams, as far as they were known at `traced.position`.

    Raises
    ------
    InvalidInput
        ``trace.too_many_events``
    """
    positions = {edge.position for edge in traced.edges}
    positions.update(
        edge.ended_position for edge in traced.edges if edge.ended_position is not None
    )
    keys = [node.key for node in traced.nodes]
    rows = await ledger.pool.fetch(
        _EVENTS,
        ledger.ledger_id,
        keys,
        sorted({key.partition("@")[0] for key in keys}),
        traced.position,
        sorted(positions),
        EVENTS_MAX + 1,
    )
    if len(rows) > EVENTS_MAX:
        raise InvalidInput(
            "trace.too_many_events",
            f"the trace rests on more than {EVENTS_MAX} events",
            hint="trace fewer roots, less deep, or fewer kinds of links",
            limit=EVENTS_MAX,
        )
    return [row["position"] for row in rows]


_EVENTS: Final = """
    with said as materialized (
        select unnest($5::bigint[]) as position
        union
        select s.rec_from from thread_node n join thread_standing s on s.node = n.id
        where n.ledger_id = $1 and n.key = any($2::text[]) and s.rec_from <= $4
    ), corrected as (
        -- What was corrected, and how before, belongs to what is said.
        select other.position, other.place from said
        join thread_correction c on c.ledger_id = $1 and c.position = said.position
        join thread_correction other on other.ledger_id = $1 and other.place = c.place
            and other.position <= $4
    )
    select position from said
    union select position from corrected
    union select place from corrected
    union select e.position from unnest($3::text[]) as own(stream)
        join event e on e.ledger_id = $1 and e.stream = own.stream
            and e.window_end_ns is null and e.position <= $4
    order by position limit $6
"""


# --- asking -------------------------------------------------------------------------------


async def _ways(
    ledger: Ledger,
    roots: Sequence[str],
    direction: Direction,
    link_kinds: Sequence[LinkKind] | None,
    as_of: AsOf,
) -> list[Way]:
    """Return the ways to follow from `roots`, one a direction."""
    if not 1 <= len(roots) <= ROOTS_MAX:
        raise InvalidInput(
            "trace.roots",
            f"a trace begins at 1 to {ROOTS_MAX} things, not {len(roots)}",
            value=len(roots),
            limit=ROOTS_MAX,
        )
    for root in roots:
        if len(root) > KEY_LENGTH_MAX:
            raise InvalidInput(
                "trace.roots",
                f"a key has {KEY_LENGTH_MAX} characters at most, not {len(root)}",
                value=root[:80],
                limit=KEY_LENGTH_MAX,
            )
    position = await _position(ledger, as_of)
    backs = {Direction.BACK: (True,), Direction.FORWARD: (False,), Direction.BOTH: (True, False)}
    return [
        Way(
            ledger.ledger_id,
            back,
            tuple(link_kinds) if link_kinds is not None else default_links(roots, back=back),
            position,
            as_of.valid_at,
            usual=link_kinds is None,
        )
        for back in backs[direction]
    ]


def default_links(roots: Iterable[str], *, back: bool) -> tuple[LinkKind, ...]:
    """Return the kinds of links that a trace from `roots` follows when it is told none."""
    if back:
        return BACK_LINKS
    if any(node_kind(root) is NodeKind.ASSET for root in roots):
        return ASSET_FORWARD_LINKS
    return FORWARD_LINKS


async def _position(ledger: Ledger, as_of: AsOf) -> int:
    if as_of.position is not None and as_of.recorded_at is not None:
        raise InvalidInput(
            "trace.as_of",
            "a trace is as of a position or as of a moment of recording, not both",
            value=as_of.position,
        )
    if as_of.valid_at is not None and as_of.valid_at.tzinfo is None:
        raise InvalidInput(
            "trace.as_of",
            f"time {as_of.valid_at.isoformat()} has no zone",
            value=as_of.valid_at.isoformat(),
        )
    if as_of.recorded_at is not None:
        return await position_at(ledger, as_of.recorded_at)
    if as_of.position is None:
        return NOW_POSITION
    if not 0 <= as_of.position <= NOW_POSITION:
        raise InvalidInput(
            "trace.as_of",
            f"position {as_of.position} is none of a log",
            value=as_of.position,
            limit=NOW_POSITION,
        )
    return as_of.position


def _check_range(
    code: str, name: str, value: int | None, maximum: int, *, minimum: int = 1
) -> None:
    if value is not None and not minimum <= value <= maximum:
        raise InvalidInput(
            code, f"{name} is {minimum} to {maximum}, not {value}", value=value, limit=maximum
        )


def unknown_nodes(roots: Sequence[str]) -> NotFound:
    """Return the refusal of a trace none of whose roots is known."""
    named = ", ".join(roots[:3])
    return NotFound(
        "thread.unknown_node",
        f"the thread knew nothing of {named}",
        hint="keys are streams and revisions, such as part:SN-1042 or document:DRW-7@B",
        value=roots[0],
    )


def _unknown_roots(roots: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    kept = set(known)
    return tuple(root for root in dict.fromkeys(roots) if root not in kept)


# --- all at once --------------------------------------------------------------------------


async def _reached(
    connection: Connection, ways: Sequence[Way], roots: Sequence[str], depth: int, nodes_max: int
) -> Trace | None:
    """Return the whole trace, or None where it is more than `nodes_max` nodes."""
    sides = []
    for way in ways:
        side = await reach(connection, way, roots, nodes_max + 1)
        if not side.roots:
            raise unknown_nodes(roots)
        if len(side.node_ids) > nodes_max:
            return None
        sides.append(side)
        if len(ways) > 1:
            ways = [replace(other, position=side.position) for other in ways]
    count = len(sides[0].node_ids) if len(sides) == 1 else len(_depths(ways, sides))
    if count > nodes_max:
        return None
    cut = None
    if depth < DEPTH_MAX:
        lies = _depths(ways, sides)
        near = sum(at <= depth for at in lies.values())
        cut, count = (CutReason.DEPTH, near) if near < count else (None, count)
    return Trace(
        position=sides[0].position,
        cut=cut,
        cursor=None,
        unknown_roots=_unknown_roots(roots, sides[0].roots),
        node_count=count,
        graph=lambda: _assembled(
            [side.nodes() for side in sides],
            [side.edges() for side in sides],
            {node: at for node, at in _depths(ways, sides).items() if at <= depth},
            NO_NODES,
        ),
    )


def _depths(ways: Sequence[Way], sides: Sequence[Reached]) -> dict[int, int]:
    depths: dict[int, int] = {}
    for way, side in zip(ways, sides, strict=True):
        lies = depths_of(side.roots.values(), way.back, *side.ends)
        if not depths:
            depths = lies
        else:
            depths = {
                node: min(depths.get(node, DEPTH_MAX), lies.get(node, DEPTH_MAX))
                for node in {**depths, **lies}
            }
    return depths


# --- level by level -----------------------------------------------------------------------


class _Place(NamedTuple):
    """Where a trace goes on: as of which position, behind how many nodes."""

    position: int
    offset: int

    @classmethod
    def of(cls, cursor: str, asked: str) -> _Place:
        try:
            position, offset, digest = json.loads(base64.urlsafe_b64decode(cursor.encode()))
            place = cls(int(position), int(offset))
        except (binascii.Error, ValueError, TypeError) as error:
            raise InvalidInput(
                "trace.cursor", f"{cursor!r:.80} is no cursor of a trace", value=cursor[:80]
            ) from error
        if digest != asked or place.position < 0 or place.offset <= 0:
            raise InvalidInput(
                "trace.cursor",
                "the cursor is another trace's",
                hint="go on with the same roots, direction, depth, kinds and valid time",
                value=cursor[:80],
            )
        if place.offset >= COUNTED_MAX:
            raise InvalidInput(
                "trace.cursor",
                f"a trace goes on up to {COUNTED_MAX} nodes",
                hint="begin at another root, or follow fewer kinds of links",
                value=place.offset,
                limit=COUNTED_MAX,
            )
        return place

    def told(self, asked: str) -> str:
        return base64.urlsafe_b64encode(
            json.dumps([self.position, self.offset, asked]).encode()
        ).decode()


def _digest(*asked: Any) -> str:
    """Return what tells the cursor of one trace from another's."""
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:16]


async def _walked(
    connection: Connection,
    ways: Sequence[Way],
    roots: Sequence[str],
    depth: int,
    nodes_max: int,
    start: _Place | None,
    asked: str,
) -> Trace:
    """Return the nodes of a trace that come after `start`, the nearest first."""
    wanted = ways[0].position if start is None else start.position
    position, known = await find_roots(connection, ways[0].ledger_id, roots, wanted)
    if not known:
        raise unknown_nodes(roots)
    offset = 0 if start is None else start.offset
    ways = [replace(way, position=position) for way in ways]
    walks = [
        await walk(connection, way, known.values(), depth=depth, enough=offset + nodes_max + 1)
        for way in ways
    ]
    depths: dict[int, int] = {}
    for walked in walks:
        for node, at in walked.depths.items():
            depths[node] = min(at, depths.get(node, at))
    order = sorted(depths, key=lambda node: (depths[node], node))
    page = order[offset : offset + nodes_max]
    before = order[:offset]
    nodes = await read_nodes(connection, ways[0], page)
    edges = [
        columns
        for way, walked in zip(ways, walks, strict=True)
        for columns in await read_edges(
            connection,
            way,
            [node for node in page if node in walked.depths],
            [node for node in before if node in walked.depths],
        )
    ]
    if before:
        linked = {node for columns in edges for ends in columns[:2] for node in ends.tolist()}
        others = await read_nodes(connection, ways[0], sorted(linked.intersection(before)))
    else:
        others = NO_NODES
    cut = None
    if len(order) > offset + nodes_max:
        cut = CutReason.NODES
    elif any(walked.more for walked in walks):
        cut = CutReason.DEPTH
    return Trace(
        position=position,
        cut=cut,
        cursor=(
            _Place(position, offset + nodes_max).told(asked) if cut is CutReason.NODES else None
        ),
        unknown_roots=_unknown_roots(roots, known),
        node_count=len(page),
        graph=lambda: _assembled([nodes], edges, {node: depths[node] for node in page}, others),
    )


# --- answering ----------------------------------------------------------------------------

_LINK_KINDS: Final = {int(kind): kind for kind in LinkKind}
_NODE_KINDS: Final = {int(kind): kind for kind in NodeKind}
_NODE_STATES: Final = {int(state): state for state in NodeState}
_TOLD_BACKWARDS: Final = np.array([kind in BEARS_ON_CAUSE for kind in range(max(LinkKind) + 1)])


def _assembled(
    nodes: Sequence[NodeColumns],
    edges: Sequence[EdgeColumns],
    depths: Mapping[int, int],
    others: NodeColumns,
) -> tuple[list[TraceNode], list[TraceEdge]]:
    """Return those `nodes` that `depths` knows of, and the `edges` among them.

    `others` are the nodes of earlier answers to which there are links.
    """
    key_of = dict(zip(others.ids, others.keys, strict=True))
    found: dict[tuple[int, int], TraceNode] = {}
    for columns in nodes:
        for number, first, kind, state, key in zip(*columns, strict=True):
            depth = depths.get(number)
            if depth is not None:
                key_of[number] = key
                found[depth, number] = TraceNode(
                    key, _NODE_KINDS[kind], _NODE_STATES[state], depth, first
                )
    return [found[place] for place in sorted(found)], _links(edges, key_of)


def _links(edges: Sequence[EdgeColumns], key_of: Mapping[int, str]) -> list[TraceEdge]:
    """Return the links between nodes that `key_of` knows of, by position, each once."""
    src, dst, kinds, quantities, since, until, said, ended, units = EdgeColumns.joined(edges)
    order = np.lexsort((kinds, dst, src, said))
    kinds = kinds[order]
    src, dst = src[order], dst[order]
    backwards = _TOLD_BACKWARDS[kinds]
    # Column by column: a link at a time takes three times as long.
    causes = [key_of.get(node) for node in np.where(backwards, dst, src).tolist()]
    effects = [key_of.get(node) for node in np.where(backwards, src, dst).tolist()]
    columns = (
        [_LINK_KINDS[kind] for kind in kinds.tolist()],
        causes,
        effects,
        [None if isnan(quantity) else quantity for quantity in quantities[order].tolist()],
        [units[n] for n in order.tolist()],
        times(since[order]),
        times_or_none(until[order]),
        said[order].tolist(),
        [position or None for position in ended[order].tolist()],
    )
    found = list(map(TraceEdge._make, zip(*columns, strict=True)))
    if None in causes or None in effects:
        known = zip(found, causes, effects, strict=True)
        found = [edge for edge, cause, effect in known if cause is not None and effect is not None]
    # A trace both ways may come by a link twice.
    return found if len(edges) == 1 else list(dict.fromkeys(found))


def _only(traced: Trace, kinds: frozenset[NodeKind]) -> Trace:
    """Return the nodes of `kinds` and the links among them."""

    def graph() -> tuple[list[TraceNode], list[TraceEdge]]:
        return (
            [node for node in traced.nodes if node.kind in kinds],
            [
                edge
                for edge in traced.edges
                if node_kind(edge.cause) in kinds and node_kind(edge.effect) in kinds
            ],
        )

    return replace(traced, graph=graph)
