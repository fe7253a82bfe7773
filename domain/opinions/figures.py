"""Figures of models and people: what is no probability, no interval, no range of the log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from domain.errors import InvalidInput

FIGURES_MAX: Final = 256
"""Metrics, contributions, assumptions or deltas of one event."""


def check_finite(name: str, value: float) -> float:
    """Return `value` when it is a finite number.

    Raises
    ------
    InvalidInput
        ``figure.not_finite``
    """
    if not math.isfinite(value):
        raise InvalidInput(
            "figure.not_finite", f"{name} is {value}, which is no finite number", value=str(value)
        )
    return value


def check_between(name: str, value: float, low: float, high: float) -> float:
    """Return `value` when it lies from `low` to `high`.

    Raises
    ------
    InvalidInput
        ``figure.out_of_range``
    """
    # Written so that NaN fails too.
    if not low <= value <= high:
        raise InvalidInput(
            "figure.out_of_range",
            f"{name} is {value}, not from {low} to {high}",
            value=value if math.isfinite(value) else str(value),
            limit=[low, high],
        )
    return value


def check_ascending(name: str, values: Sequence[float]) -> None:
    """Refuse finite `values` of which one is smaller than the one before it.

    Raises
    ------
    InvalidInput
        ``figure.not_finite``, ``figure.out_of_order``
    """
    for value in values:
        check_finite(name, value)
    if list(values) != sorted(values):
        raise InvalidInput(
            "figure.out_of_order",
            f"{name}: {', '.join(map(str, values))} do not ascend",
            value=list(values),
        )


def check_positions(first: int, last: int) -> None:
    """Refuse what is no range of positions of the log: from `first` to `last`, both in it.

    Raises
    ------
    InvalidInput
        ``position.out_of_range``, ``position.out_of_order``
    """
    if first < 1:
        raise InvalidInput(
            "position.out_of_range",
            f"a log has no position {first}",
            hint="its first position is 1",
            value=first,
            limit=1,
        )
    if last < first:
        raise InvalidInput(
            "position.out_of_order",
            f"positions from {first} to {last} are no range of a log",
            value=last,
            limit=first,
        )


def check_count(name: str, count: int) -> None:
    """Refuse more figures than one event may carry.

    Raises
    ------
    InvalidInput
        ``figure.too_many``
    """
    if count > FIGURES_MAX:
        raise InvalidInput(
            "figure.too_many",
            f"{count} {name}, more than {FIGURES_MAX}",
            value=count,
            limit=FIGURES_MAX,
        )
