"""Reads the columns of many frames of one shape: all their descriptors and numbers as one matrix.

It knows what most frames are: numbers of one type on one clock, all of them GOOD and integers.
Whatever else there is `domain.frame_outline` reads, frame by frame, and tells what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from domain.errors import MalformedFrame
from domain.frame_outline import BASE_BYTES_MAX, PLAIN_KINDS, Outline
from domain.integer_columns import (
    DRIFT,
    TABLE,
    UNARY,
    WIDTH_MAX,
    BitReader,
    Column,
    IntArray,
)

_COUNT: Final = Column._fields.index("length")
_KIND: Final = Column._fields.index("kind")
_WIDTH: Final = Column._fields.index("width")
_START: Final = Column._fields.index("start_bit")
_KNOWN: Final = np.isin(np.arange(256), sorted(PLAIN_KINDS))


@dataclass(frozen=True, eq=False, slots=True)
class AlikeColumns:
    """The columns of frames of one shape.

    Parameters
    ----------
    clocks : int64, shape (n_frames, n), before the power of ten
    integers : int64, shape (n_frames * n_channels, n)
    clock_exponents, exponents : powers of ten of each row
    """

    clocks: IntArray
    integers: IntArray
    clock_exponents: IntArray
    exponents: IntArray


def shape_of(outline: Outline) -> tuple[str, int, int] | None:
    """Return type, channels and length of a frame that `read_alike` can read; else None."""
    header = outline.header
    if header.uniform_type is None or header.rates_hz[0] is not None or outline.packed:
        return None
    channels = len(header.channels)
    kinds = outline.encoded[outline.at : outline.at + 3 * (1 + channels) : 3]
    if not PLAIN_KINDS.issuperset(kinds):
        return None
    return header.uniform_type, channels, outline.lengths[0]


def read_alike(outlines: Sequence[Outline]) -> AlikeColumns:
    """Return the columns of `outlines`, all of one `shape_of`.

    Raises
    ------
    MalformedFrame
        when one of them does not follow the format; it does not say which
    """
    frames, columns = len(outlines), 1 + len(outlines[0].header.channels)
    count = outlines[0].lengths[0]
    joined = b"".join([outline.encoded for outline in outlines])
    ends = np.cumsum([len(outline.encoded) for outline in outlines])
    at = np.array([outline.at for outline in outlines])
    at[1:] += ends[:-1]
    described = _Described(joined, at, ends, frames, columns)
    fields = described.fields(count)
    unary_at = described.low_bits(fields)
    unary = np.count_nonzero(fields[..., _KIND] & UNARY, axis=1)
    if ((unary == 0) & (unary_at < ends)).any():
        raise _unread()
    reader = BitReader(
        joined,
        fields.reshape(-1),
        np.repeat(8 * described.parameters_end, columns),
        [joined[a:b] for a, b in zip(unary_at.tolist(), ends.tolist(), strict=True)],
        (count * unary).tolist(),
    )
    rows = np.arange(frames * columns).reshape(frames, columns)
    exponents = described.sizes >> 4
    return AlikeColumns(
        reader.integers(rows[:, 0]),
        reader.integers(rows[:, 1:].reshape(-1)),
        exponents[:, 0],
        exponents[:, 1:].reshape(-1),
    )


class _Described:
    """Descriptors and parameters of columns, shape (n_frames, n_columns) each."""

    def __init__(
        self, joined: bytes, at: IntArray, ends: IntArray, frames: int, columns: int
    ) -> None:
        self._raw = np.frombuffer(joined + bytes(8), np.uint8)
        # What eight bytes hold from each byte on.
        self._words: IntArray = np.ndarray((len(joined) + 1,), "<i8", self._raw.data, 0, (1,))
        self._ends = ends
        begin = at + 3 * columns
        if (begin > ends).any():
            raise _unread()
        descriptors = self._raw[at[:, None] + np.arange(3 * columns)]
        of_columns: IntArray = descriptors.reshape(frames, columns, 3).astype(np.int64)
        self.kind, self.width, self.sizes = np.moveaxis(of_columns, -1, 0)
        self.size = self.sizes & 15
        if (
            not _KNOWN[self.kind].all()
            or self.width.max() > WIDTH_MAX
            or self.size.max() > BASE_BYTES_MAX
        ):
            raise _unread()
        self._drifts, self._tables = self.kind & DRIFT != 0, self.kind & TABLE != 0
        lengths = self.size * (1 + self._drifts) + 3 * self._tables
        parameter_ends = begin[:, None] + np.cumsum(lengths, axis=1)
        self.parameters_end: IntArray = parameter_ends[:, -1]
        if (self.parameters_end > ends).any():
            raise _unread()
        self._parameters = parameter_ends - lengths

    def fields(self, count: int) -> IntArray:
        """Return the fields of a `Column` of `count` integers for each: the last axis."""
        base = self._numbers(self._parameters, self.size)
        zero = np.zeros_like(base)
        drift, table_count, table_width, table_base = zero, zero, zero, zero
        if self._drifts.any():
            drift = np.where(
                self._drifts, self._numbers(self._parameters + self.size, self.size), 0
            )
        if self._tables.any():
            trio = (self._parameters + self.size)[..., None] + np.arange(3)
            # Beyond the end is what `where` leaves out.
            said = self._raw[np.minimum(trio, len(self._raw) - 1)].astype(np.int64)
            table_base = np.where(self._tables, base, 0)
            table_count = np.where(self._tables, said[..., 0] + 1, 0)
            table_width = np.where(self._tables, said[..., 1], 0)
            base = np.where(self._tables, said[..., 2], base)
            if table_width.max() > WIDTH_MAX:
                raise _unread()
        gap_bits = np.maximum(table_count - 1, 0) * table_width
        bits = gap_bits + count * self.width
        table_bit = np.cumsum(bits, axis=1) - bits
        return np.stack(
            (
                np.full_like(base, count),
                self.kind,
                self.width,
                base,
                drift,
                table_bit + gap_bits,
                table_count,
                table_width,
                table_base,
                table_bit,
            ),
            axis=-1,
        )

    def low_bits(self, fields: IntArray) -> IntArray:
        """Return the byte behind the bits of each frame."""
        last = fields[:, -1]
        bits = last[:, _START] + last[:, _COUNT] * last[:, _WIDTH]
        behind: IntArray = self.parameters_end + ((bits + 7) >> 3)
        if (behind > self._ends).any():
            raise _unread()
        return behind

    def _numbers(self, at: IntArray, size: IntArray) -> IntArray:
        """Return the numbers of `size` bytes at `at`, in two's complement."""
        unused = np.where(size > 0, 64 - 8 * size, 0)
        numbers: IntArray = self._words[np.minimum(at, len(self._words) - 1)] << unused >> unused
        return np.where(size > 0, numbers, 0)


def _unread() -> MalformedFrame:
    return MalformedFrame("frame.scheme", "one of the frames is not coded as its format says")
