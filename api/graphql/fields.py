"""Fields of the schema, typed: each says what it is, or it is none.

Strawberry's own decorators are untyped to a strict checker; these are the same ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import strawberry

F = TypeVar("F", bound=Callable[..., Any])


def field(*, description: str) -> Callable[[F], F]:
    """Make a method the resolver of a field."""
    return cast("Callable[[F], F]", strawberry.field(description=description))


def mutation(*, description: str) -> Callable[[F], F]:
    """Make a method the resolver of a mutation."""
    return cast("Callable[[F], F]", strawberry.mutation(description=description))


def subscription(*, description: str) -> Callable[[F], F]:
    """Make an asynchronous generator the source of a subscription."""
    return cast("Callable[[F], F]", strawberry.subscription(description=description))
