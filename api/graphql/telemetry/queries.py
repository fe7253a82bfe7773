"""Queries of telemetry: what `Asset.readings` answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from api.graphql.context import OperationContext
from api.graphql.scalars import to_ns
from api.graphql.telemetry.types import ChannelUnit, ReadingColumn
from domain.asset_model import AssetType
from domain.units import unit
from projections.telemetry.readings import read_columns


async def resolve_readings(
    context: OperationContext,
    asset_id: str,
    asset_type: AssetType,
    *,
    channels: Sequence[str] | None,
    start: datetime,
    end: datetime,
    points_max: int,
    with_bad: bool,
    units: Sequence[ChannelUnit] | None,
    known_at: int | None = None,
) -> list[ReadingColumn]:
    """Return the readings of `channels`, all of the type's where None, each in its unit.

    `known_at` as in `projections.telemetry.readings.read_columns`.

    Raises
    ------
    NotFound
        ``channel.unknown``
    InvalidInput
        ``unit.*``, and as `projections.telemetry.readings.read_columns`
    """
    if channels is None:
        wanted = list(asset_type.channels)
    else:
        wanted = [asset_type.channel(name) for name in dict.fromkeys(channels)]
    symbols: dict[str, str] = {}
    for chosen in units or ():
        # Refused before anything is read.
        unit(chosen.unit, quantity=asset_type.channel(chosen.channel).quantity)
        symbols[chosen.channel] = chosen.unit
    async with context.reads:
        columns = await read_columns(
            context.ledger,
            asset_id,
            [channel.name for channel in wanted],
            start_ns=to_ns(start),
            end_ns=to_ns(end),
            points_max=points_max,
            with_bad=with_bad,
            known_at=known_at,
        )
    return [
        ReadingColumn.of(column, channel, symbols.get(channel.name))
        for column, channel in zip(columns, wanted, strict=True)
    ]
