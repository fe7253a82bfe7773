"""Filters: the bounds that every list of names in a filter keeps to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from domain.errors import InvalidInput

FILTER_VALUES_MAX: Final = 100
FILTER_LENGTH_MAX: Final = 200

T = TypeVar("T")


def chosen(name: str, values: Sequence[T] | None) -> tuple[T, ...]:
    """Return the `values` of the filter `name`; none where it is null.

    Raises
    ------
    InvalidInput
        ``filter.too_many`` or ``filter.malformed``
    """
    found = tuple(values or ())
    if len(found) > FILTER_VALUES_MAX:
        raise InvalidInput(
            "filter.too_many",
            f"{name} names {len(found)} values, more than {FILTER_VALUES_MAX}",
            value=len(found),
            limit=FILTER_VALUES_MAX,
        )
    for value in found:
        # PostgreSQL holds no NUL in a text, and no name has one.
        if isinstance(value, str) and (len(value) > FILTER_LENGTH_MAX or not value.isprintable()):
            raise InvalidInput(
                "filter.malformed",
                f"{name} holds {value!r:.80}, which names nothing",
                hint=f"at most {FILTER_LENGTH_MAX} printable characters",
                value=value[:80],
                limit=FILTER_LENGTH_MAX,
            )
    return found
