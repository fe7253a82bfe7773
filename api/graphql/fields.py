"""Fields of the schema, typed: each says what it is, or it is none.

Strawberry's own decorators are untyped to a strict checker; these are the same ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import strawberry

from api.access.rights import Right

RIGHT: Final = "right"
"""Where a field's metadata say what right it takes."""

F = TypeVar("F", bound=Callable[..., Any])


def field(*, description: str, right: Right | None = None) -> Callable[[F], F]:
    """Make a method the resolver of a field.

    Parameters
    ----------
    right : what it takes to ask for it; a root field has to say so, another one takes what the
        field above it takes unless it says more
    """
    return cast(
        "Callable[[F], F]", strawberry.field(description=description, metadata={RIGHT: right})
    )


def mutation(*, description: str, right: Right) -> Callable[[F], F]:
    """Make a method the resolver of a mutation."""
    return cast(
        "Callable[[F], F]",
        strawberry.mutation(description=description, metadata={RIGHT: right}),
    )


def subscription(*, description: str, right: Right) -> Callable[[F], F]:
    """Make an asynchronous generator the source of a subscription."""
    return cast(
        "Callable[[F], F]",
        strawberry.subscription(description=description, metadata={RIGHT: right}),
    )
