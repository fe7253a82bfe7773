"""Packs the columns of many frames into bits: their low bits, and what is above them in unary.

``docs/frame-format.md`` specifies the bits, `domain.integer_columns` reads them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from domain.integer_columns import IntArray

_TOGETHER: Final = ((4, 14), (2, 28), (1, 56))
"""So many numbers of so many bits at the most are put together before they are placed."""

Numbers = npt.NDArray[Any]


class Sections:
    """Where what each column of each frame takes lies, each frame beginning with a whole byte.

    Parameters
    ----------
    bits : what each column takes, frame after frame
    frame_columns : how many columns each frame has
    """

    def __init__(self, bits: IntArray, frame_columns: IntArray) -> None:
        ends = np.zeros(len(bits) + 1, np.int64)
        np.cumsum(bits, out=ends[1:])
        column_ends = np.cumsum(frame_columns)
        first = ends[column_ends - frame_columns]
        frame_bytes = (ends[column_ends] - first + 7) >> 3
        byte_ends = np.cumsum(frame_bytes)
        byte_starts = byte_ends - frame_bytes
        # Where a frame's bits end within a byte, the next frame's begin with the next byte.
        slack = 8 * byte_starts - first
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
        narrowest = 0
        for together, widest in _TOGETHER:
            at = np.flatnonzero((widths > narrowest) & (widths <= widest))
            if len(at) == len(widths):
                self._put_together(starts, widths, rows, together)
            elif len(at):
                self._put_together(starts[at], widths[at], rows[at], together)
            narrowest = widest

    def _put_together(
        self, starts: IntArray, widths: IntArray, rows: Numbers, together: int
    ) -> None:
        width = widths[:, None]
        low = rows & ((np.int64(1) << width) - 1).astype(rows.dtype)
        joined = low[:, ::together].astype(np.uint64)
        for place in range(1, min(together, low.shape[1])):
            part = low[:, place::together].astype(np.uint64)
            part <<= (width * place).view(np.uint64)
            if part.shape == joined.shape:
                joined |= part
            else:  # the last ones of a row are fewer
                joined[:, : part.shape[1]] |= part
        self.put(starts[:, None] + width * together * np.arange(joined.shape[1]), joined)

    def put(self, position: IntArray, numbers: npt.NDArray[np.uint64]) -> None:
        """Put `numbers`, of `width` bits each (an array that broadcasts), at `position`.

        They have no bits beyond their width, which is 56 at the most.
        """
        word, up = (position >> 6).reshape(-1), (position & 63).view(np.uint64)
        np.add.at(self._words, word, (numbers << up).reshape(-1))
        # What does not fit in; a shift by 64 would be none.
        word += 1
        np.add.at(
            self._words, word, ((numbers >> np.uint64(1)) >> (up ^ np.uint64(63))).reshape(-1)
        )

    def packed(self) -> bytes:
        """Return the bytes."""
        return self._words.tobytes()


def unary_ends(rows: Numbers) -> Numbers:
    """Return where the ones of `rows` in unary lie, and so how many bits: as `rows`.

    Each number is that many zeros and a one; the first bit of a row is number 1.
    """
    # Four bytes hold it: numbers of four bytes are coded in about two bits of unary each.
    return np.cumsum(rows + 1, axis=1, dtype=rows.dtype)


def packed_ones(places: list[IntArray], byte_count: int) -> bytes:
    """Return `byte_count` bytes whose bits are one at `places` alone."""
    bits = np.zeros(8 * byte_count, np.uint8)
    for some in places:
        bits[some] = 1
    return np.packbits(bits, bitorder="little").tobytes()
