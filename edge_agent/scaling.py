"""A manufacturer's scaling: ``value = raw * scale + offset``, as exact as its decimals say.

A register that holds 123 with a scale of 0.1 means 12.3. In binary 123 * 0.1 is not 12.3 but its
neighbour, which is neither what the manual says nor exactly scalable again; so the scaling is
carried out on decimals.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cached_property
from typing import Final

import numpy as np

from domain.frames import FloatArray
from edge_agent.yaml_section import Section

SCALE_MAX: Final = 1e15
_EXACT_MAX: Final = 2.0**53
_DECIMALS_MAX: Final = 22
"""The largest power of ten that is exactly a binary float."""
_CONTEXT: Final = Context(prec=40)


@dataclass(frozen=True)
class Scaling:
    """What a delivered number means in the unit that its channel declares.

    Examples
    --------
    >>> Scaling(0.1, -40.0).apply(np.array([123.0, 1.0])).tolist()
    [-27.7, -39.9]
    """

    scale: float = 1.0
    offset: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether a value means itself."""
        return self.scale == 1 and self.offset == 0

    def apply(self, raw: FloatArray) -> FloatArray:
        """Return the values of `raw`, each the float nearest to its decimal result.

        Raw values that are not whole are taken for the shortest decimal that reads as them. What
        is not finite stays what it is.
        """
        if self.is_identity:
            return raw
        scale, offset, power = self._integers
        if power is not None:
            # Products and sums of whole floats are exact up to 2^53, and then one division by
            # an exact power of ten rounds once.
            with np.errstate(over="ignore", invalid="ignore"):
                whole = np.rint(raw)
                numerator = whole * scale + offset
                exact = (whole == raw) & (np.abs(numerator) < _EXACT_MAX)
                values = numerator / power
            if exact.all():
                return np.asarray(values, np.float64)
        else:
            exact = np.zeros(raw.shape, np.bool_)
            values = np.empty(raw.shape)
        for index in np.flatnonzero(~exact):
            values[index] = self._one(float(raw[index]))
        return np.asarray(values, np.float64)

    def invert(self, value: float) -> float:
        """Return the number that has to be delivered for `value`."""
        if self.is_identity:
            return value
        difference = _CONTEXT.subtract(_decimal(value), _decimal(self.offset))
        return float(_CONTEXT.divide(difference, _decimal(self.scale)))

    @cached_property
    def _integers(self) -> tuple[float, float, float | None]:
        """Scale and offset as whole multiples of one over a power of ten, which is None when
        there is no such power within the exact ones.
        """
        exponents = [_decimal(number).as_tuple().exponent for number in (self.scale, self.offset)]
        decimals = max(0, *(-exponent for exponent in exponents if isinstance(exponent, int)))
        if decimals > _DECIMALS_MAX:
            return 0.0, 0.0, None
        power = Decimal(10) ** decimals
        scale, offset = (_decimal(number) * power for number in (self.scale, self.offset))
        if max(abs(scale), abs(offset)) >= _EXACT_MAX:
            return 0.0, 0.0, None
        return float(scale), float(offset), float(power)

    def _one(self, raw: float) -> float:
        if not np.isfinite(raw):
            return raw
        product = _CONTEXT.multiply(_decimal(raw), _decimal(self.scale))
        return float(_CONTEXT.add(product, _decimal(self.offset)))


def _decimal(number: float) -> Decimal:
    return Decimal(repr(number))


def read_scaling(section: Section) -> Scaling | None:
    """Return the scaling at ``scale`` and ``offset``, or None after noting what is wrong."""
    scale = section.number("scale", -SCALE_MAX, SCALE_MAX, 1.0)
    offset = section.number("offset", -SCALE_MAX, SCALE_MAX, 0.0)
    if scale == 0:
        section.fault("scale", "mapping.scale_zero", "a scale of 0 makes every value the same")
        return None
    return None if scale is None or offset is None else Scaling(scale, offset)
