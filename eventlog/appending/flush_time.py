"""Whether the server's flushes are slow, from how far apart its answers to batches come."""

from __future__ import annotations

from collections import deque
from typing import Final

SLOW_S: Final = 1.2e-3
FAST_S: Final = 0.8e-3
"""A median beyond the first is slow, and no longer where it is below the second."""

FLUSHES_REMEMBERED: Final = 9
"""One that happens to take long, for a new file or a checkpoint, says nothing."""

TIMED_BYTES_MAX: Final = 64 * 1024
"""A larger batch takes so long to come that it looks as if it was flushed for long."""


class FlushTime:
    """Takes in the answers of one server.

    Attributes
    ----------
    is_slow : whether batches should write their rows while another is flushed. Where a flush is
        short, the second connection that this takes costs more than it saves
    """

    def __init__(self) -> None:
        self.is_slow = False
        self._last_s: deque[float] = deque(maxlen=FLUSHES_REMEMBERED)
        self._answered_at_s = 0.0

    def take(self, sent_at_s: float, answered_at_s: float, worked_s: float, nbytes: int) -> None:
        """Take in when a batch was sent and answered.

        Parameters
        ----------
        worked_s : of this time so much was not the flush
        nbytes : of the batch's payloads
        """
        before_s, self._answered_at_s = self._answered_at_s, answered_at_s
        # One that was not there yet when the one before was answered says when it came.
        if sent_at_s < before_s and nbytes <= TIMED_BYTES_MAX:
            self._last_s.append(answered_at_s - before_s - worked_s)
            median_s = sorted(self._last_s)[len(self._last_s) // 2]
            self.is_slow = median_s > (FAST_S if self.is_slow else SLOW_S)
