"""For how long a connection has told nothing, and what is therefore lost.

For connections whose other side keeps nothing while nobody listens, such as a controller that is
polled. Times are the agent's wall clock, ns since 1970 UTC. Where that was set back meanwhile, an
outage is told to span all that either clock, the old or the new one, has shown during it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from edge_agent.live import Feed

CONNECTION_DOWN: Final = "connection.down"
SET_BACK_NS_MIN: Final = 500_000_000
"""What a clock that is kept right is moved by is far less."""


class Outage:
    """The outages of one connection, one after the other."""

    def __init__(
        self,
        now_ns: Callable[[], int] = time.time_ns,
        steady_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._now_ns = now_ns
        self._steady_ns = steady_ns
        self._since_ns: int | None = None
        self._since_steady_ns = 0

    def begun(self, since_ns: int | None = None) -> None:
        """Note that nothing is heard any more, since the last sign of life or since now."""
        if self._since_ns is None:
            now_ns = self._now_ns()
            self._since_ns = now_ns if since_ns is None else since_ns
            self._since_steady_ns = self._steady_ns() - max(0, now_ns - self._since_ns)

    def ended(self) -> tuple[int, int] | None:
        """Return from when to when the outage lasted that ends now, or None without one."""
        if self._since_ns is None:
            return None
        since_ns, self._since_ns = self._since_ns, None
        now_ns, lasted_ns = self._now_ns(), self._steady_ns() - self._since_steady_ns
        if now_ns < since_ns + lasted_ns - SET_BACK_NS_MIN:
            return min(since_ns, now_ns - lasted_ns), since_ns + lasted_ns
        return min(since_ns, now_ns), now_ns

    def over(self, feeds: Iterable[Feed]) -> None:
        """Declare to `feeds` what an outage has cost, if there was one."""
        span = self.ended()
        if span is None:
            return
        for feed in feeds:
            feed.lost(CONNECTION_DOWN, *span)
