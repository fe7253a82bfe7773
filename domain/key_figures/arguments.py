"""What every figure asks of its arguments."""

from __future__ import annotations

import math

from domain.errors import InvalidInput


def check_not_negative(**values: float) -> None:
    """Raise `InvalidInput` unless every value is finite and at least zero.

    Raises
    ------
    InvalidInput
        ``figure.value_invalid``
    """
    for name, value in values.items():
        if not math.isfinite(value) or value < 0:
            raise InvalidInput(
                "figure.value_invalid",
                f"{name} is {value:g}; it has to be finite and at least 0",
                value=value,
                limit=0,
            )


def check_ratio(**values: float) -> None:
    """Raise `InvalidInput` unless every value lies between 0 and 1.

    Raises
    ------
    InvalidInput
        ``figure.ratio_out_of_range``
    """
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise InvalidInput(
                "figure.ratio_out_of_range",
                f"{name} is {value:g}; a share lies between 0 and 1",
                value=value,
                limit=1,
            )


def check_order(lower_name: str, lower: float, upper_name: str, upper: float) -> None:
    """Raise `InvalidInput` unless `lower` is at most `upper`.

    Raises
    ------
    InvalidInput
        ``figure.values_contradict``
    """
    if lower > upper:
        raise InvalidInput(
            "figure.values_contradict",
            f"{lower_name} is {lower:g}, more than {upper_name}, {upper:g}",
            value=lower,
            limit=upper,
        )


def ratio(part: float, whole: float) -> float | None:
    """Return `part` by `whole`, or None where there is no whole to have a part of."""
    return part / whole if whole > 0 else None
