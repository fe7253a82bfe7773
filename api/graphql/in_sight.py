"""Pages of what is in sight: rows that an identity may not see are passed over, unnoticed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from api.graphql.context import OperationContext

LOOKS_MAX: Final = 20
"""Times that a page goes on looking while nothing of what is found is in sight."""

R = TypeVar("R")


async def rows_in_sight(
    context: OperationContext,
    fetch: Callable[[str, int], Awaitable[Sequence[R]]],
    *,
    after: str,
    first: int,
    key: Callable[[R], str],
    stream: Callable[[R], str],
) -> tuple[list[R], str | None]:
    """Return up to one more than `first` rows in sight beyond the key `after`.

    And the key to go on after, where that looked at as much as it may before it found so many.

    Parameters
    ----------
    fetch : returns at most so many rows beyond a key, in the order of their keys
    stream : of what a row tells
    """
    sight = await context.sight()
    rows: list[R] = []
    for _ in range(LOOKS_MAX):
        async with context.reads:
            found = await fetch(after, first + 1)
        visible = await sight.visible([stream(row) for row in found])
        rows += [row for row in found if stream(row) in visible]
        if len(found) <= first or len(rows) > first:
            return rows[: first + 1], None
        after = key(found[-1])
    return rows, after
