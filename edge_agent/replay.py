"""When the rows of a recording are due, and at which times they are said to have happened.

Pure. The anchor, the moment at which the first row was due, is kept in the agent's state; so a
restarted agent goes on with the same timeline and catches up on what became due meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from domain.frames import IntArray
from edge_agent.readings import Rows

RECORDED: Final = "recorded"
NOW: Final = "now"


@dataclass(frozen=True, slots=True)
class Replay:
    """How a recording is replayed.

    Parameters
    ----------
    speed : of the recording's clock against the wall clock; None reads as fast as possible
    times : ``recorded`` keeps the times, ``now`` moves them so that the first is the anchor
    """

    speed: float | None
    times: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """A replay tied to the wall clock: the row of `first_ns` was due at `anchor_ns`."""

    replay: Replay
    anchor_ns: int
    first_ns: int

    @property
    def shift_ns(self) -> int:
        """What is added to every recorded time."""
        return self.anchor_ns - self.first_ns if self.replay.times == NOW else 0

    def due_count(self, rows: Rows, now_ns: int) -> int:
        """Return how many leading `rows` are due at `now_ns`."""
        if self.replay.speed is None:
            return len(rows)
        later = np.flatnonzero(self._due_ns(rows.times_ns, self.replay.speed) > now_ns)
        return int(later[0]) if len(later) else len(rows)

    def wait_s(self, rows: Rows, now_ns: int) -> float:
        """Return how long from `now_ns` until the first of `rows` is due."""
        if self.replay.speed is None:
            return 0.0
        due_ns = int(self._due_ns(rows.times_ns[:1], self.replay.speed)[0])
        return max(0, due_ns - now_ns) / 1e9

    def _due_ns(self, times_ns: IntArray, speed: float) -> IntArray:
        since_first_ns = times_ns - self.first_ns
        if speed != 1:
            since_first_ns = (since_first_ns / speed).astype(np.int64)
        return since_first_ns + self.anchor_ns
