"""Versions of streams: what mutations take as `expectedVersion`, of the state that was shown."""

from __future__ import annotations

from api.graphql.context import OperationContext
from api.graphql.scalars import Position
from eventlog.reading import category_of, stream_versions_at

VERSION: str = (
    "How many events of it the answer reflects: what mutations take as `expectedVersion`. They "
    "refuse it where more has been recorded since."
)


async def version_of(context: OperationContext, stream: str, position: int) -> Position:
    """Return the version of `stream` at `position`; one statement for all of its category."""

    async def load(streams: list[str]) -> list[int]:
        found = await stream_versions_at(context.ledger, streams, position)
        return [found[stream] for stream in streams]

    name = ("version", category_of(stream), position)
    return Position(await context.loader(name, load).load(stream))
