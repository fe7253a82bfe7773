"""A manufacturer's scaling is exact in decimals."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.scaling import Scaling

NUMBERS = st.decimals(-10_000, 10_000, places=3).map(float)


@given(st.lists(st.integers(-(2**31), 2**31), min_size=1), NUMBERS.filter(bool), NUMBERS)
def test_registers_are_scaled_to_the_nearest_float_of_the_decimal_result(
    raw: list[int], scale: float, offset: float
) -> None:
    found = Scaling(scale, offset).apply(np.array(raw, np.float64))
    exact = [Decimal(value) * Decimal(repr(scale)) + Decimal(repr(offset)) for value in raw]
    assert found.tolist() == [float(value) for value in exact]


def test_what_is_not_finite_or_not_whole_is_scaled_as_well() -> None:
    found = Scaling(0.1, 1.0).apply(np.array([np.nan, np.inf, 1.25, 1e300]))
    assert np.isnan(found[0])
    assert found[1:].tolist() == [np.inf, 1.125, 1e299]


@given(st.integers(-1_000_000, 1_000_000), NUMBERS.filter(bool), NUMBERS)
def test_what_is_written_is_what_would_be_read(raw: int, scale: float, offset: float) -> None:
    scaling = Scaling(scale, offset)
    (value,) = scaling.apply(np.array([float(raw)])).tolist()
    assert abs(scaling.invert(value) - raw) <= 1e-6 * max(1, abs(raw))
