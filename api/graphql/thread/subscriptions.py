"""The subscription of a thread: what happens to anything that a thing came from or led to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Annotated, Final

import strawberry

from api.access.rights import Right
from api.graphql.changes import (
    EVERY_S_DEFAULT,
    ChangeMessage,
    ChangesAfter,
    EveryS,
    changes,
    cursor_at,
)
from api.graphql.context import OperationContext, OperationInfo
from api.graphql.events.types import Event
from api.graphql.fields import subscription
from api.graphql.thread.in_sight import trace_in_sight
from api.graphql.thread.types import ThreadGraph
from domain.thread import NODE_KIND_OF_CATEGORY, Link, LinkEnd, Standing
from eventlog.envelope import RecordedEvent
from eventlog.reading import EventFilter
from projections.thread.projection import ThreadProjection
from projections.thread.traced import Direction, Trace

NODES_FOLLOWED_MAX: Final = 1_000


@strawberry.type(description="Something happened to the thread of a thing.")
class ThreadMessage(ChangeMessage):
    """A message of the subscription `thread`."""

    happened: list[Event] = strawberry.field(description="The events that concern the thread.")
    graph: ThreadGraph = strawberry.field(
        description=f"The thread as it is now, at most {NODES_FOLLOWED_MAX} things."
    )


@strawberry.type
class ThreadSubscriptions:
    """Root fields."""

    @subscription(
        right=Right.READ,
        cost=200,
        description="What happens to a thing and to all that it came from or led to, and the "
        "thread as it is then. Fails with `thread.unknown_node` where nobody knows of it.",
    )
    async def thread(
        self,
        info: OperationInfo,
        of: Annotated[
            str, strawberry.argument(description="Key of the thing, such as `part:SN-1042`.")
        ],
        after: ChangesAfter = None,
        every_s: EveryS = EVERY_S_DEFAULT,
    ) -> AsyncGenerator[ThreadMessage, None]:
        """Yield messages for as long as the client listens."""
        context = info.context
        traced, hidden = await _trace(context, of)
        following = changes(
            context,
            after,
            EventFilter(categories=tuple(NODE_KIND_OF_CATEGORY)),
            every_s=every_s,
            projections=(ThreadProjection.name,),
        )
        async with aclosing(following) as found:
            async for change in found:
                keys = {node.key for node in traced.nodes}
                happened = [event for event in change.events if not keys.isdisjoint(_about(event))]
                if not happened:
                    continue
                traced, hidden = await _trace(context, of)
                yield ThreadMessage(
                    cursor=cursor_at(context, change.position),
                    events=len(happened),
                    lag=change.lag,
                    happened=[Event.of(event) for event in happened],
                    graph=ThreadGraph(traced=traced, out_of_sight=hidden),
                )


async def _trace(context: OperationContext, key: str) -> tuple[Trace, int]:
    return await trace_in_sight(
        context, [key], direction=Direction.BOTH, nodes_max=NODES_FOLLOWED_MAX
    )


def _about(event: RecordedEvent) -> Iterator[str]:
    """Yield the keys of the things that `event` is about."""
    yield event.stream
    if event.payload is None:
        return
    said = getattr(event.fact, "thread", None)
    for item in () if said is None else said():
        match item:
            case Link() | LinkEnd():
                yield item.cause
                yield item.effect
            case Standing():
                yield item.node
