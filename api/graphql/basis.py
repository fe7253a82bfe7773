"""What a figure rests on, told beside it."""

from __future__ import annotations

import strawberry

from api.graphql.as_of import Asked
from api.graphql.scalars import Position
from projections import histories


@strawberry.type(description="What a figure rests on: so many records, from where in the log.")
class Basis:
    """`projections.histories.Basis`."""

    records: int = strawberry.field(description="Records that it was made of.")
    first_position: Position | None = strawberry.field(
        description="Position of the first of them; null where there are none."
    )
    last_position: Position | None = strawberry.field(
        description="Position of the last of them; null where there are none."
    )
    position: Position = strawberry.field(
        description="It reflects at least everything in the log up to here."
    )

    @classmethod
    def of(cls, basis: histories.Basis, asked: Asked) -> Basis:
        """Return `basis` of an answer to what was `asked`."""
        first, last = basis.first_position, basis.last_position
        return cls(
            records=basis.records,
            first_position=None if first is None else Position(first),
            last_position=None if last is None else Position(last),
            position=Position(asked.position),
        )
