"""Values as protocols and texts deliver them, as the float64 that a channel holds."""

from __future__ import annotations

import math
from typing import Any, Final

from domain.frames import Quality

EXACT_INTEGER_MAX: Final = 2**53
TEXT_LENGTH_MAX: Final = 200


def number_of(value: Any, *, of_unity: bool = False) -> tuple[float, Quality, str]:
    """Return the number that a delivered value is, its quality, and a fault's code or nothing.

    Parameters
    ----------
    of_unity : whether a truth value counts as 1 or 0
    """
    if isinstance(value, bool):
        if of_unity:
            return float(value), Quality.GOOD, ""
        return math.nan, Quality.MISSING, "value.not_numeric"
    if isinstance(value, int):
        quality, code = exactness(value)
        return float(value), Quality(quality), code
    if value is None:
        return math.nan, Quality.MISSING, ""
    if isinstance(value, str):
        # Python reads "1_000" and Arabic digits as numbers; whoever sent them did not mean one.
        if not value.isascii() or "_" in value or len(value) > TEXT_LENGTH_MAX:
            return math.nan, Quality.MISSING, "value.not_numeric"
        try:
            value = float(value)
        except ValueError:
            return math.nan, Quality.MISSING, "value.not_numeric"
    if not isinstance(value, float):
        return math.nan, Quality.MISSING, "value.not_numeric"
    if not math.isfinite(value):
        return math.nan, Quality.MISSING, "value.not_finite"
    return value, Quality.GOOD, ""


def judged_number(value: float) -> tuple[float, Quality, str]:
    """Return a delivered number as a float64, its quality, and a fault's code or nothing."""
    if not math.isfinite(value):
        return math.nan, Quality.MISSING, "value.not_finite"
    quality, code = exactness(value)
    return float(value), Quality(quality), code


def exactness(value: float) -> tuple[int, str]:
    """Return the quality of a number once it is a float64, and the code where it is inexact."""
    if isinstance(value, int) and abs(value) > EXACT_INTEGER_MAX:
        return Quality.UNCERTAIN, "value.not_exact"
    return Quality.GOOD, ""
