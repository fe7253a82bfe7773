"""What an alert rule remembers between frames, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from domain.frames import IntArray


@dataclass(frozen=True, slots=True)
class Raised:
    """The rule's condition holds: `value` against `limit` (SI) since `since_s`, told at `at_s`."""

    at_s: int
    since_s: int
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class Cleared:
    """The rule's condition has gone at `at_s`; the value stands at `value` (SI)."""

    at_s: int
    value: float


Transition = Raised | Cleared


@dataclass(frozen=True, slots=True)
class Seconds:
    """Sums of readings by whole second: parallel columns, shape (n,), in time order.

    `second` is seconds since 1970 UTC, `total` the sum of the readings in quanta of the
    channel's range above its physical minimum, `count` how many there were.
    """

    second: IntArray
    total: IntArray
    count: IntArray

    def __len__(self) -> int:
        return len(self.second)


NO_SECONDS: Final = Seconds(*(np.zeros(0, np.int64) for _ in range(3)))


@dataclass(frozen=True, slots=True)
class RuleState:
    """What a rule remembers between frames; all times in seconds since 1970 UTC.

    `history` are completed seconds and the `open` one that later readings may still join.
    """

    history: Seconds = NO_SECONDS
    open: Seconds = NO_SECONDS
    pending_since_s: int | None = None
    raised_at_s: int | None = None
    clearing_since_s: int | None = None
    frozen_baseline: float | None = None

    @property
    def newest_s(self) -> int | None:
        """The second of the newest reading; older readings come late."""
        newest = self.open.second if len(self.open) else self.history.second[-1:]
        return int(newest[0]) if len(newest) else None


INITIAL: Final = RuleState()
