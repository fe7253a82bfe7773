"""Capability: how well a process fits between its tolerance limits.

References
----------
ISO 22514-2:2017, Capability and performance of time-dependent process models. ISO 22514-4:2016.
Montgomery (2013), Introduction to Statistical Quality Control, 7th ed., section 8.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from domain.errors import InvalidInput
from domain.key_figures.arguments import check_order


@dataclass(frozen=True, slots=True)
class Capability:
    """How often the spread fits into the tolerance.

    `index` (Cp, or Pp) needs both limits; `nearest` (Cpk, or Ppk) looks at the nearer one. Both
    are None without spread. They say something only of a process that is in control and of
    values that are about normally distributed.
    """

    mean: float
    sigma: float
    index: float | None
    nearest: float | None


def capability(
    mean: float, sigma: float, lower_limit: float | None, upper_limit: float | None
) -> Capability:
    """Return how `sigma` around `mean` fits between the limits; a None limit is open.

    Parameters
    ----------
    sigma : within subgroups for Cp and Cpk, over all values for Pp and Ppk

    Raises
    ------
    InvalidInput
        ``figure.no_limits``, ``figure.values_contradict``
    """
    if lower_limit is None and upper_limit is None:
        raise InvalidInput(
            "figure.no_limits", "without a tolerance limit nothing can be called capable"
        )
    if lower_limit is not None and upper_limit is not None:
        check_order("the lower limit", lower_limit, "the upper limit", upper_limit)
    if sigma <= 0:
        return Capability(mean, sigma, None, None)
    reaches = [
        *([] if lower_limit is None else [(mean - lower_limit) / (3 * sigma)]),
        *([] if upper_limit is None else [(upper_limit - mean) / (3 * sigma)]),
    ]
    both = lower_limit is not None and upper_limit is not None
    return Capability(mean, sigma, sum(reaches) / 2 if both else None, min(reaches))


def overall_sigma(values: Sequence[float]) -> float:
    """Return the standard deviation of all `values`, with n - 1.

    Raises
    ------
    InvalidInput
        ``figure.too_few_values``
    """
    if len(values) < 2:
        raise InvalidInput(
            "figure.too_few_values",
            f"{len(values)} values have no standard deviation",
            value=len(values),
            limit=2,
        )
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
