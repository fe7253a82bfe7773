"""Queries of the thread: what led to things, what they led to, what a recall reaches."""

from __future__ import annotations

from typing import Annotated

import strawberry

from api.access.rights import Right
from api.graphql.as_of import AsOf, AsOfArgument
from api.graphql.context import MinPosition, OperationInfo
from api.graphql.fields import field
from api.graphql.scalars import Cursor
from api.graphql.thread.in_sight import recall_in_sight, trace_in_sight
from api.graphql.thread.types import (
    GRAPH_FIRST_DEFAULT,
    ThreadGraph,
    ThreadRecall,
)
from domain.thread import LinkKind, NodeKind
from projections.thread.projection import ThreadProjection
from projections.thread.trace import DEPTH_MAX, NODES_MAX, ROOTS_MAX
from projections.thread.traced import Direction

Roots = Annotated[
    list[str],
    strawberry.argument(
        description=f"Keys of 1 to {ROOTS_MAX} things: their streams or revisions, such as "
        "`part:SN-1042`, `lot:L-77` or `document:DRW-7@B`."
    ),
]
LinkKinds = Annotated[
    list[LinkKind] | None,
    strawberry.argument(
        description="Kinds of links to follow. Null: those that carry cause on in the direction, "
        "but not through an asset to all that it ever did or had done to it."
    ),
]


@strawberry.type
class ThreadQueries:
    """Root fields."""

    @field(
        cost=100,
        right=Right.READ,
        description="What things came from, what they led to, or both: a graph, the nearest first. "
        "Fails with `thread.unknown_node` where none of the roots is known.",
    )
    async def trace(
        self,
        info: OperationInfo,
        roots: Roots,
        direction: Annotated[Direction, strawberry.argument(description="Which way to go.")],
        depth: Annotated[
            int | None,
            strawberry.argument(
                description=f"Links from a root at most, 0 to {DEPTH_MAX}; null: all the way."
            ),
        ] = None,
        link_kinds: LinkKinds = None,
        node_kinds: Annotated[
            list[NodeKind] | None,
            strawberry.argument(
                description="Kinds of things to tell; the trace goes on through the others. "
                "Null: all."
            ),
        ] = None,
        as_of: AsOfArgument = None,
        first: Annotated[
            int,
            strawberry.argument(
                description=f"How many things at most, 1 to {NODES_MAX}; with `nodeKinds` those "
                "of other kinds count too."
            ),
        ] = GRAPH_FIRST_DEFAULT,
        after: Annotated[
            Cursor | None,
            strawberry.argument(description="Go on where the graph with this cursor was cut."),
        ] = None,
        min_position: MinPosition = None,
    ) -> ThreadGraph:
        """Return a trace."""
        await info.context.wait_for(min_position, ThreadProjection.name)
        traced, hidden = await trace_in_sight(
            info.context,
            roots,
            direction=direction,
            depth=depth,
            link_kinds=link_kinds,
            node_kinds=node_kinds,
            as_of=(as_of or AsOf()).told(),
            nodes_max=first,
            after=after,
        )
        return ThreadGraph(traced=traced, out_of_sight=hidden)

    @field(
        cost=200,
        right=Right.READ,
        description="What bad things reached, as counts by kind and state, and as a graph where "
        "that is asked for. Fails with `thread.unknown_node` where none of the roots is known.",
    )
    async def recall(
        self,
        info: OperationInfo,
        roots: Roots,
        link_kinds: LinkKinds = None,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> ThreadRecall:
        """Return a recall."""
        wanted = (as_of or AsOf()).told()
        await info.context.wait_for(min_position, ThreadProjection.name)
        recalled = await recall_in_sight(info.context, roots, link_kinds=link_kinds, as_of=wanted)
        return ThreadRecall(
            recalled=recalled, roots=roots, link_kinds=link_kinds, valid_at=wanted.valid_at
        )
