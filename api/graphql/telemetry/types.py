"""Types of telemetry: readings of a channel as columns."""

from __future__ import annotations

import strawberry

from api.graphql.scalars import (
    FloatColumn,
    QualityColumn,
    described_enum,
    to_ms,
)
from domain.asset_model import Channel
from domain.units import unit
from projections.telemetry.readings import ReadingColumns, Tier

described_enum(
    Tier,
    "Where readings were read from.",
    {
        "RAW": "The sensor's own readings.",
        "SECOND": "Minimum and maximum of each second.",
        "MINUTE": "Minimum and maximum of each minute.",
        "HOUR": "Minimum and maximum of each hour.",
    },
)


@strawberry.input(description="The unit in which a channel's readings are wanted.")
class ChannelUnit:
    """A channel and the unit it is wanted in."""

    channel: str = strawberry.field(description="Name of the channel.")
    unit: str = strawberry.field(
        description="Symbol of a unit of the channel's quantity, such as `bar` or `degC`."
    )


@strawberry.type(
    description="Readings of one channel as parallel columns, in time order. Of a column with "
    "more readings than `maxPoints` those are kept that show its peaks (MinMaxLTTB)."
)
class ReadingColumn:
    """`projections.telemetry.readings.ReadingColumns` in the unit that was asked for."""

    channel: str = strawberry.field(description="Name of the channel.")
    unit: str = strawberry.field(description="Unit of the values: SI unless another was asked for.")
    tier: Tier = strawberry.field(description="Where the readings were read from.")
    count: int = strawberry.field(
        description="Readings in the range before any were left out; at most 2^31 - 1."
    )
    times_ms: FloatColumn = strawberry.field(
        description="When each value was read: ms since 1970-01-01 UTC, exact to a quarter "
        "microsecond."
    )
    values: FloatColumn = strawberry.field(
        description="The values, in `unit`; none where the channel holds texts."
    )
    qualities: QualityColumn = strawberry.field(
        description="How far each value can be trusted: 0 GOOD, 1 UNCERTAIN, 2 BAD."
    )
    texts: list[str] | None = strawberry.field(
        description="The texts of a channel of texts, in place of `values`: of more than "
        "`maxPoints` those that are another than the one before, and of these the latest. Null of "
        "any other channel, and of a range too long to be read RAW: texts have no extremes."
    )

    @classmethod
    def of(cls, columns: ReadingColumns, channel: Channel, symbol: str | None) -> ReadingColumn:
        """Return `columns` in the unit `symbol`, SI where it is None."""
        values = columns.values
        if symbol is not None:
            wanted = unit(symbol, quantity=channel.quantity)
            # As Unit.from_si, for a whole column.
            values = (values - wanted.offset) / wanted.factor
        return cls(
            channel=columns.channel,
            unit=channel.si_unit if symbol is None else symbol,
            tier=columns.tier,
            count=min(columns.reading_count, 2**31 - 1),
            times_ms=to_ms(columns.times_ns),
            values=FloatColumn(values),
            qualities=QualityColumn(columns.qualities),
            texts=None if columns.texts is None else columns.texts.tolist(),
        )
