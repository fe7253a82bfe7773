"""Rows of readings as columns, the place in a source they came from, and what was wrong there.

This is what a source hands to the window. It knows neither files nor frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from domain.frames import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Position:
    """A row of a source: reading goes on after it.

    Parameters
    ----------
    part : index of the part (the file) of the source
    row : number of the row within its part, as the source counts
    time_ns : time of the row as the source tells it, ns since 1970 UTC
    """

    part: int
    row: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class RowFault:
    """A reading that could not be taken as delivered, or a whole row when `channel` is empty.

    Parameters
    ----------
    code : ``cell.*`` for one channel, whose reading is then MISSING; ``row.*`` for a refused row
    text : the cell or the row as it was found
    """

    part: int
    row: int
    code: str
    message: str
    text: str
    channel: str = ""


@dataclass(frozen=True, eq=False)
class Rows:
    """Consecutive rows of a source as columns.

    Parameters
    ----------
    parts, numbers, times_ns : int64, shape (n,); together the position of each row
    values : as delivered, float64, shape (channels, n); NaN where there is no reading
    """

    parts: IntArray
    numbers: IntArray
    times_ns: IntArray
    values: FloatArray

    def __len__(self) -> int:
        return len(self.times_ns)

    def between(self, start: int, stop: int) -> Rows:
        """Return the rows from index `start` up to, without, `stop`."""
        return Rows(
            self.parts[start:stop],
            self.numbers[start:stop],
            self.times_ns[start:stop],
            self.values[:, start:stop],
        )

    def followed_by(self, later: Rows) -> Rows:
        """Return these rows and the `later` ones as one."""
        return Rows(
            np.concatenate((self.parts, later.parts)),
            np.concatenate((self.numbers, later.numbers)),
            np.concatenate((self.times_ns, later.times_ns)),
            np.concatenate((self.values, later.values), axis=1),
        )

    @property
    def end(self) -> Position:
        """The position of the last row."""
        return Position(int(self.parts[-1]), int(self.numbers[-1]), int(self.times_ns[-1]))


@dataclass(frozen=True, eq=False)
class Block:
    """What a source read in one step: its rows, perhaps none, and the faults among them.

    `part` and `row` tell how far the source has looked, refused rows included.
    """

    rows: Rows
    part: int
    row: int
    faults: tuple[RowFault, ...] = ()


class Source(Protocol):
    """Where readings come from; one of `edge_agent.sources`."""

    @property
    def channels(self) -> tuple[tuple[str, str], ...]:
        """The channels it delivers, each as (channel name, unit symbol)."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of its parts in the order of reading; a position counts in them."""

    @property
    def endless(self) -> bool:
        """Whether it never comes to an end."""

    def read(self, after: Position | None) -> Iterator[Block]:
        """Yield what follows `after`, or everything, in steps of some ten thousand readings.

        The rows are the same wherever reading began; a block may be cut elsewhere.
        """


@runtime_checkable
class WaveformSource(Source, Protocol):
    """A source whose channels may be waveforms, all of one rate."""

    @property
    def rate_hz(self) -> float | None:
        """Samples a second; None where the channels are none."""


ReadPart = Callable[[int, int, int | None], Iterator[Block]]
"""Yields the blocks of a part: its index, the row to go on after (0: from its beginning), and the
time of the last row before."""


def parts_in_turn(part_count: int, after: Position | None, read: ReadPart) -> Iterator[Block]:
    """Yield the blocks of `part_count` parts that follow `after`, one part after the other."""
    previous_ns = after.time_ns if after else None
    for part in range(after.part if after else 0, part_count):
        done = after.row if after and after.part == part else 0
        for block in read(part, done, previous_ns):
            yield block
            if len(block.rows):
                previous_ns = int(block.rows.times_ns[-1])
