"""The subscription of readings: what came in, thinned out to what the client can take."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated

import strawberry

from api.access.rights import Right
from api.graphql.changes import ChangeMessage, ChangesAfter, EveryS, changes, cursor_at
from api.graphql.context import OperationInfo
from api.graphql.fields import subscription
from api.graphql.telemetry.queries import resolve_readings
from api.graphql.telemetry.types import ChannelUnit, ReadingColumn
from domain.asset import telemetry_stream
from domain.asset_decider import unknown_asset
from domain.asset_types import asset_type
from domain.frames import time_from_ns
from eventlog.reading import EventFilter, PayloadOf
from projections.telemetry.readings import POINTS_MAX


@strawberry.type(description="Readings that came in since the message before.")
class ReadingMessage(ChangeMessage):
    """A message of the subscription `readings`."""

    start: datetime = strawberry.field(description="Time of the first of them.")
    end: datetime = strawberry.field(description="Time of the last of them.")
    readings: list[ReadingColumn] = strawberry.field(
        description="A column a channel, with all that is known of the time from `start` to `end`."
    )


@strawberry.type
class ReadingSubscriptions:
    """Root fields."""

    @subscription(
        right=Right.READ,
        cost=50,
        description="Readings of an asset as they come in, at most `maxPoints` a channel in a "
        "message and a message every `everyS` seconds. A frame that comes late comes in a message "
        "of its time: put columns in by their times.",
    )
    async def readings(
        self,
        info: OperationInfo,
        asset_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the asset.")
        ],
        channels: Annotated[
            list[str] | None,
            strawberry.argument(description="Names of the channels that are wanted; null is all."),
        ] = None,
        max_points: Annotated[
            int,
            strawberry.argument(
                description=f"At most so many values a channel in a message, 2 to {POINTS_MAX}."
            ),
        ] = 500,
        units: Annotated[
            list[ChannelUnit] | None,
            strawberry.argument(description="Channels wanted in another unit than SI."),
        ] = None,
        after: ChangesAfter = None,
        every_s: EveryS = 1.0,
    ) -> AsyncGenerator[ReadingMessage, None]:
        """Yield messages for as long as the client listens."""
        context = info.context
        row = await context.asset_by_asset_id.load(asset_id)
        if row is None:
            raise unknown_asset(asset_id)
        following = changes(
            context,
            after,
            EventFilter(streams=(telemetry_stream(asset_id),)),
            every_s=every_s,
            payloads=PayloadOf.NONE,
        )
        async with aclosing(following) as found:
            async for change in found:
                windows = [e.window for e in change.events if e.window is not None]
                if not windows:
                    continue
                start = time_from_ns(min(window.start_ns for window in windows))
                end = time_from_ns(max(window.end_ns for window in windows))
                columns = await resolve_readings(
                    context,
                    asset_id,
                    asset_type(row.asset_type),
                    channels=channels,
                    start=start,
                    end=end,
                    points_max=max_points,
                    with_bad=False,
                    units=units,
                )
                yield ReadingMessage(
                    cursor=cursor_at(context, change.position),
                    events=len(change.events),
                    lag=change.lag,
                    start=start,
                    end=end,
                    readings=columns,
                )
