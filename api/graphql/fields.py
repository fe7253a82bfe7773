"""Fields of the schema, typed: each says what it is, or it is none.

Strawberry's own decorators are untyped to a strict checker; these are the same ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import strawberry
from strawberry.schema_directive import Location

from api.access.rights import Right
from api.graphql.scalars import described_enum

RIGHT: Final = "right"
"""Where a field's metadata say what right it takes."""

COST: Final = "cost"
"""Where they say what it costs; where they do not, `api.graphql.limits` has a rule."""

LOADS: Final = "loads"
"""Where they say that a resolver awaits nothing but loaders of the context."""

ROWS: Final = "rows"
"""Where they say from which rows the objects of a list are made, that a resolver returns."""

ROW: Final = "ROW"
"""The class variable in which a type says what row it is made of: a `Row`."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a type is made of, so that what is asked for of it can be read from there at once.

    Parameters
    ----------
    made_of : class of the row
    same : the type's attributes that its row has under the same name and with the same value, or
        those that are made of the row alone, and how
    """

    made_of: type
    same: Mapping[str, Callable[[Any], Any] | None]


@dataclass(frozen=True, slots=True)
class Many:
    """What answers a field for many objects at once: each of the context and them, in their order.

    Parameters
    ----------
    objects : of the objects, the objects that the field returns
    rows : of the objects, the rows that those are made of
    rows_of_rows : of the rows that the objects are made of, as they are now, the same rows
    """

    objects: Callable[..., Awaitable[list[Any]]]
    rows: Callable[..., Awaitable[list[Any]]]
    rows_of_rows: Callable[..., Awaitable[list[Any]]]


F = TypeVar("F", bound=Callable[..., Any])

described_enum(
    Right,
    "What may be done; which role has which right, docs/access.md says.",
    {
        "READ": "Read plant, twins, readings, thread, figures, documents.",
        "COMMAND": "Give commands at all; each takes a right of its own beyond.",
        "AUDIT": "Read the audit trail: who did what.",
        "OPERATE": "Runs, lots, parts, alerts acknowledged, set-points desired.",
        "MAINTAIN": "Work orders, spare parts, components installed and removed.",
        "INSPECT": "Inspections, non-conformances, quarantine, instruments.",
        "ENGINEER": "The plant and its assets, documents, scenarios, set-points approved.",
        "PREDICT": "Predictions, models, drift.",
        "REPORT": "What an agent says of its assets: alerts, reported set-points.",
        "INGEST": "Send frames.",
        "INTEGRATE": "Webhooks.",
        "ADMINISTER": "Keys, erasure, projections.",
    },
)


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION], description="What right it takes to ask for a field."
)
class RequiresRight:
    """Shows a field's right in the schema; what is enforced is its metadata."""

    right: Right = strawberry.directive_field(name="right")


def _shown(right: Right | None) -> list[RequiresRight]:
    return [] if right is None else [RequiresRight(right=right)]


def field(
    *,
    description: str,
    right: Right | None = None,
    type: Any = None,
    cost: int | None = None,
    loads: bool | Many = False,
    rows: Callable[[Any], Sequence[Any]] | None = None,
) -> Callable[[F], F]:
    """Make a method the resolver of a field.

    Parameters
    ----------
    right : what it takes to ask for it; a root field has to say so, another one takes what the
        field above it takes unless it says more
    type : of the field, where the method cannot name it (`api.graphql.references`)
    cost : of the field by itself; 1 without it, which is about one row that is read by its key
    loads : the resolver is asynchronous and awaits nothing but loaders of the context: those of
        many objects are then run side by side without a task for each (`api.graphql.compiled`);
        or what does so for many at once
    rows : of the object, the rows that the returned objects are made of, one each (`Row`)
    """
    return cast(
        "Callable[[F], F]",
        strawberry.field(
            description=description,
            graphql_type=type,
            metadata={RIGHT: right, COST: cost, LOADS: loads, ROWS: rows},
            directives=_shown(right),
        ),
    )


def mutation(*, description: str, right: Right, cost: int | None = None) -> Callable[[F], F]:
    """Make a method the resolver of a mutation."""
    return cast(
        "Callable[[F], F]",
        strawberry.mutation(
            description=description,
            metadata={RIGHT: right, COST: cost},
            directives=_shown(right),
        ),
    )


def subscription(*, description: str, right: Right, cost: int | None = None) -> Callable[[F], F]:
    """Make an asynchronous generator the source of a subscription."""
    return cast(
        "Callable[[F], F]",
        strawberry.subscription(
            description=description,
            metadata={RIGHT: right, COST: cost},
            directives=_shown(right),
        ),
    )
