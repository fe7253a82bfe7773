"""Columns of integers: the predictor is chosen by what it costs, and the bits say no more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.bit_packing import LowBits, Sections, packed_ones, unary_ends
from domain.column_choice import Coded, choose
from domain.errors import MalformedFrame
from domain.integer_columns import (
    CENTRED,
    DELTA,
    DRIFT,
    PLAIN,
    PREDICTOR,
    TABLE,
    UNARY,
    BitReader,
    bit_length,
    byte_length,
    unzigzag,
    zigzag,
)

INT64 = st.integers(-(2**63), 2**63 - 1)


def coded_bits(coded: Coded, row: int) -> int:
    """Return how many bits column `row` really takes: low bits, unary, base, drift, table."""
    residuals, width, kind = coded.residuals[row], int(coded.width[row]), int(coded.kind[row])
    bits = len(residuals) * width
    if kind & UNARY:
        bits += int((residuals >> width).sum()) + len(residuals)
    else:
        assert (residuals >> width).max() == 0
    entries = int(coded.table_count[row])
    if not entries:
        return bits + 8 * bytes_of(int(coded.base[row])) * (2 if kind & DRIFT else 1)
    gaps = coded.gaps[coded.table_count[:row].sum() - np.count_nonzero(coded.table_count[:row]) :]
    gap = int(gaps[: entries - 1].max())
    return bits + (entries - 1) * gap.bit_length() + 24 + 8 * bytes_of(int(coded.low[row]))


def bytes_of(number: int) -> int:
    return 0 if number == 0 else (number if number >= 0 else ~number).bit_length() // 8 + 1


@pytest.fixture
def sensors() -> np.ndarray:
    random = np.random.default_rng(1)
    count = 125
    return np.stack(
        [
            np.full(count, 12_345),
            np.arange(count) * 17 + 5,  # a counter
            random.normal(1000, 30, count).astype(np.int64),  # noise
            np.cumsum(random.integers(-3, 4, count)) + 50_000,  # a slow drift
            random.choice([-273_216, 54_711, 382_638], count),  # levels of a converter
            random.integers(0, 256, count),  # uniform
            np.where(np.arange(count) == 60, 10**9, random.integers(0, 9, count)),  # one spike
        ]
    )


def test_each_kind_of_sensor_gets_the_predictor_that_fits_it(sensors: np.ndarray) -> None:
    kinds = choose(sensors).kind
    assert kinds[0] == PLAIN
    assert kinds[1] == DELTA | DRIFT
    assert kinds[2] == CENTRED | UNARY
    assert kinds[3] & PREDICTOR == DELTA
    assert kinds[4] & TABLE
    assert kinds[5] == PLAIN


def test_the_size_that_was_estimated_is_the_size_that_is_coded(sensors: np.ndarray) -> None:
    coded = choose(sensors)
    for row in range(len(sensors)):
        # The base of a table costs up to 8 bytes more than the estimate, a length a bit.
        assert abs(int(coded.bits[row]) - coded_bits(coded, row)) <= 64 + 2


@given(st.lists(st.integers(-(10**6), 10**6), min_size=3, max_size=60), st.booleans())
def test_no_other_predictor_would_be_much_smaller(numbers: list[int], walk: bool) -> None:
    column = np.array(numbers, np.int64)
    if walk:
        column = np.cumsum(column)
    coded = choose(column[None])
    count = len(column)
    rice = [
        min(int((z >> w).sum()) + count * (w + 1) for w in range(40))
        for z in (
            zigzag(column - int(np.rint(column.mean()))),
            zigzag(np.diff(column, prepend=column[0])),
        )
    ]
    plain = count * int(column.max() - column.min()).bit_length()
    assert coded_bits(coded, 0) <= min(plain, *rice) * 1.05 + 2 * 64


@given(st.lists(INT64, min_size=1, max_size=20))
def test_zigzag_is_undone(numbers: list[int]) -> None:
    column = np.array(numbers, np.int64)
    np.testing.assert_array_equal(unzigzag(zigzag(column >> 1)), column >> 1)


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=20))
def test_lengths_suffice_and_waste_one_at_the_most(numbers: list[int]) -> None:
    column = np.array(numbers, np.int64)
    for number, bits in zip(numbers, bit_length(column).tolist(), strict=True):
        assert number.bit_length() <= bits <= number.bit_length() + 1
    for signed in (column, ~column):
        for number, size in zip(signed.tolist(), byte_length(signed).tolist(), strict=True):
            assert number == 0 or -(2 ** (8 * size - 1)) <= number < 2 ** (8 * size - 1)


@given(
    st.lists(
        st.tuples(st.integers(1, 56), st.integers(0, 2), st.integers(1, 30)), min_size=1, max_size=8
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60)
def test_low_bits_lie_end_to_end_and_frames_begin_with_a_byte(
    parts: list[tuple[int, int, int]], random: object
) -> None:
    generator = np.random.default_rng(abs(hash(str(parts))) % 2**32)
    parts.sort(key=lambda part: part[1])
    numbers = [generator.integers(0, 1 << width, count) for width, _, count in parts]
    columns_of = [[n for n, part in enumerate(parts) if part[1] == frame] for frame in range(3)]
    sections = Sections(
        np.array([width * count for width, _, count in parts]),
        np.array([len(columns) for columns in columns_of]),
    )
    bits = LowBits(sections.byte_count)
    for n, ((width, _, _), column) in enumerate(zip(parts, numbers, strict=True)):
        # What lies above the low bits is not put.
        row = column | (1 << 57 if width > 50 else 1 << width)
        bits.put_rows(sections.starts[n : n + 1], np.array([width]), row[None])
    packed = sections.cut(bits.packed())
    for frame in range(3):
        expected, at = 0, 0
        for (width, of, _), column in zip(parts, numbers, strict=True):
            for number in column.tolist() if of == frame else ():
                expected |= number << at
                at += width
        assert packed[frame] == expected.to_bytes((at + 7) // 8, "little")


def test_unary_is_zeros_and_a_one() -> None:
    ends = [unary_ends(np.array([row])) for row in ([0, 2], [1], [9])]
    sections = Sections(np.array([each[0, -1] for each in ends]), np.array([2, 1]))
    places = [start + each[0] - 1 for start, each in zip(sections.starts, ends, strict=True)]
    first, second = sections.cut(packed_ones(places, sections.byte_count))
    assert first == bytes([0b0010_1001]) or first == bytes([0b0010_1001, 0])
    assert second == bytes([0, 0b10])


def reader(section: bytes, count: int) -> BitReader:
    column = (count, PLAIN | UNARY, 0, 0, 0, 0, 0, 0, 0, 0)
    return BitReader(b"", column, np.zeros(1, np.int64), [section], [count])


def test_unary_is_read_back() -> None:
    assert reader(bytes([0b0010_1001]), 3).integers([0]).tolist() == [[0, 2, 1]]


@pytest.mark.parametrize(
    ("section", "count", "code"),
    [
        (b"", 1, "frame.truncated"),
        (b"\x01", 2, "frame.bits"),
        (b"\x03", 1, "frame.bits"),
        (b"\x00", 1, "frame.bits"),
        (b"\x01\x00", 1, "frame.trailing_bytes"),
    ],
)
def test_a_unary_section_that_does_not_add_up_is_refused(
    section: bytes, count: int, code: str
) -> None:
    with pytest.raises(MalformedFrame) as refused:
        reader(section, count)
    assert refused.value.code == code
