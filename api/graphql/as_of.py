"""As of when something is asked: what was known, and what was true; one input for every root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import strawberry

from api.graphql.context import OperationContext
from api.graphql.scalars import Position
from domain.errors import InvalidInput
from eventlog.reading import position_at
from projections import as_of as projected
from projections.twins.projection import projection_positions


@strawberry.input(
    description="Things as they were known and as they were true; what is null: now. Of `position` "
    "and `recordedAt` only one."
)
class AsOf:
    """`projections.as_of.AsOf`."""

    position: Position | None = strawberry.field(
        default=None, description="As it was known when the log ended at this position."
    )
    recorded_at: datetime | None = strawberry.field(
        default=None, description="As it was known at this moment."
    )
    valid_at: datetime | None = strawberry.field(
        default=None,
        description="As it was true at this moment. Null: all that is known, whenever it was true.",
    )

    def told(self) -> projected.AsOf:
        """Return what it asks of projections."""
        return projected.AsOf(self.position, self.recorded_at, self.valid_at)


AsOfArgument = Annotated[
    AsOf | None,
    strawberry.argument(
        description="As of when: what was known at a position or a time of recording, and what was "
        "true at a moment. Null: now."
    ),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """As of when a question is asked, and what its answer reflects.

    Parameters
    ----------
    known_at : position of the log at which it was known; None: all that is known
    valid_at : moment at which it was true; None: now, or whenever
    position : what the answer reflects, at least
    recorded_at : moment that `known_at` was asked for by; None: by a position, or not at all
    """

    known_at: int | None
    valid_at: datetime | None
    position: int
    recorded_at: datetime | None = None

    @property
    def judged_at(self) -> datetime | None:
        """When what changes by itself, such as an age, is judged; None: at the position, or now."""
        return self.valid_at or self.recorded_at

    @property
    def is_now(self) -> bool:
        """Whether nothing earlier is asked for."""
        return self.known_at is None and self.valid_at is None

    @property
    def as_of(self) -> projected.AsOf:
        """The same for projections: a time of recording is a position by now."""
        return projected.AsOf(self.known_at, None, self.valid_at)


async def asked(
    context: OperationContext, as_of: AsOf | None, min_position: int | None, *names: str
) -> Asked:
    """Return as of when a question is asked, once the projections `names` can answer it.

    Raises
    ------
    InvalidInput
        ``as_of.ambiguous``; ``as_of.beyond_log``: the log has not come to that position
    Unavailable
        ``projection.behind``, ``projection.not_running``
    """
    known_at = await position_known(context, as_of)
    for name in names:
        runner = context.services.runners.get(name)
        if known_at is not None and runner is not None:
            await context.wait_for(known_at, name)
    await context.wait_for(min_position, *names)
    stands = await _stands(context, names) if names else [await context.ledger.head()]
    reflected = min(stands) if known_at is None else min(known_at, *stands)
    if as_of is None:
        return Asked(known_at, None, reflected)
    return Asked(known_at, as_of.valid_at, reflected, as_of.recorded_at)


async def _stands(context: OperationContext, names: Sequence[str]) -> Sequence[int]:
    """Return the positions that the rows of the projections `names` reflect, at least."""
    runners = [context.services.runners.get(name) for name in names]
    known = [runner.position for runner in runners if runner is not None and runner.active]
    if len(known) == len(names):
        return known  # what is folded here is known here, once it is committed
    ledger = context.ledger
    return await projection_positions(ledger.pool, ledger.ledger_id, names)


async def position_known(context: OperationContext, as_of: AsOf | None) -> int | None:
    """Return the position at which what `as_of` asks for was known; None: now.

    Raises
    ------
    InvalidInput
        ``as_of.ambiguous``, ``as_of.beyond_log``, ``event.naive_time``
    """
    if as_of is None or (as_of.position is None and as_of.recorded_at is None):
        return None
    if as_of.recorded_at is None:
        assert as_of.position is not None
        head = await context.ledger.head()
        if as_of.position > head:
            raise InvalidInput(
                "as_of.beyond_log",
                f"the log ends at {head}, before the position {as_of.position}",
                hint="ask as of a position that the API has told",
                value=as_of.position,
                limit=head,
            )
        return as_of.position
    if as_of.position is not None:
        raise InvalidInput(
            "as_of.ambiguous",
            "as of a position or of a time of recording, not of both",
            value=as_of.position,
        )
    return await position_at(context.ledger, as_of.recorded_at)


def refuse_valid_at(as_of: AsOf | None) -> None:
    """Raise `InvalidInput` (``as_of.not_by_valid_time``) where a moment of validity is asked for.

    For what is not true at a time, but in the log at a position.
    """
    if as_of is not None and as_of.valid_at is not None:
        raise InvalidInput(
            "as_of.not_by_valid_time",
            "this is asked as of a position or a time of recording alone",
            hint="leave validAt out",
            value=as_of.valid_at.isoformat(),
        )


async def asked_now(context: OperationContext, *names: str) -> Asked:
    """Return what asks for things as they are; looked up once an operation, however often."""

    async def load(keys: list[str]) -> list[Asked]:
        return [await asked(context, None, None, *names)] * len(keys)

    return await context.loader(("now", names), load).load("")
