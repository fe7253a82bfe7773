"""Packs the columns of many frames into bits: their low bits, and what is above them in unary.

``docs/frame-format.md`` specifies the bits, `domain.integer_columns` reads them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from domain.integer_columns import IntArray

TOGETHER: Final = 4
TOGETHER_WIDTH_MAX: Final = 56 // TOGETHER
"""Bits of a number of which so many are put together before they are placed."""

Numbers = npt.NDArray[Any]


class Sections:
    """Where what each column of each frame takes lies, each frame beginning with a whole byte.

    Parameters
    ----------
    bits : what each column takes, frame after frame
    frame_columns : how many columns each frame has
    """

    def __init__(self, bits: IntArray, frame_columns: IntArray) -> None:
        ends = np.concatenate(([0], np.cumsum(bits)))
        column_ends = np.cumsum(frame_columns)
        frame_bits = np.diff(ends[np.concatenate(([0], column_ends))])
        byte_ends = np.cumsum((frame_bits + 7) >> 3)
        byte_starts = byte_ends - ((frame_bits + 7) >> 3)
        # Where a frame's bits end within a byte, the next frame's begin with the next byte.
        slack = 8 * byte_starts - ends[column_ends - frame_columns]
        self.starts: IntArray = ends[:-1] + np.repeat(slack, frame_columns)
        self.byte_count = int(byte_ends[-1])
        self._cuts = list(zip(byte_starts.tolist(), byte_ends.tolist(), strict=True))

    def cut(self, packed: bytes) -> list[bytes]:
        """Return each frame's bytes out of all."""
        return [packed[start:end] for start, end in self._cuts]


class LowBits:
    """Takes numbers at places that do not overlap, in any order."""

    def __init__(self, byte_count: int) -> None:
        # Beyond the end only zeros are put: what is added to the last numbers of a column.
        self._words = np.zeros(byte_count // 8 + 10, np.uint64)

    def put_rows(self, starts: IntArray, widths: IntArray, rows: Numbers) -> None:
        """Put the low bits of `rows`, shape (n_rows, n), from the bits `starts` on, end to end."""
        few = widths <= TOGETHER_WIDTH_MAX
        if few.all():
            self._put_together(starts, widths, rows)
            return
        if few.any():
            self._put_together(starts[few], widths[few], rows[few])
        width = widths[~few, None]
        numbers = rows[~few].astype(np.uint64)
        numbers &= ((np.int64(1) << width) - 1).astype(np.uint64)
        self.put(starts[~few, None] + np.arange(rows.shape[1]) * width, width, numbers)

    def _put_together(self, starts: IntArray, widths: IntArray, rows: Numbers) -> None:
        width = widths[:, None]
        low = rows & ((np.int64(1) << width) - 1).astype(rows.dtype)
        shift = width.astype(np.uint64)
        together = low[:, ::TOGETHER].astype(np.uint64)
        for place in range(1, min(TOGETHER, low.shape[1])):
            part = low[:, place::TOGETHER].astype(np.uint64)
            part <<= shift * np.uint64(place)
            together[:, : part.shape[1]] |= part
        step: IntArray = width * TOGETHER
        position: IntArray = starts[:, None] + step * np.arange(together.shape[1])
        self.put(position, step, together)

    def put(self, position: IntArray, width: IntArray, numbers: npt.NDArray[np.uint64]) -> None:
        """Put `numbers`, of `width` bits each (an array that broadcasts), at `position`."""
        shift = position & 63
        word, up = (position >> 6).reshape(-1), shift.astype(np.uint64)
        np.add.at(self._words, word, (numbers << up).reshape(-1))
        over = np.flatnonzero(shift + width > 64)
        if len(over):
            rest = numbers.reshape(-1).take(over)
            rest >>= np.uint64(64) - up.reshape(-1).take(over)
            np.add.at(self._words, word.take(over) + 1, rest)

    def packed(self) -> bytes:
        """Return the bytes."""
        return self._words.tobytes()


def unary_ends(rows: Numbers) -> IntArray:
    """Return where the ones of `rows` in unary lie, and so how many bits: int64, shape as `rows`.

    Each number is that many zeros and a one; the first bit of a row is number 1.
    """
    ends = np.cumsum(rows, axis=1, dtype=np.int64)
    ends += np.arange(1, rows.shape[1] + 1)
    return ends


def packed_ones(places: list[IntArray], byte_count: int) -> bytes:
    """Return `byte_count` bytes whose bits are one at `places` alone."""
    bits = np.zeros(8 * byte_count, np.uint8)
    for some in places:
        bits[some] = 1
    return np.packbits(bits, bitorder="little").tobytes()
