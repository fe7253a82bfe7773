"""For how long a connection has told nothing, and what is therefore lost.

For connections whose other side keeps nothing while nobody listens, such as a controller that is
polled. Times are the agent's wall clock, ns since 1970 UTC.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from edge_agent.live import Feed

CONNECTION_DOWN: Final = "connection.down"


class Outage:
    """The outages of one connection, one after the other."""

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._since_ns: int | None = None

    def begun(self, since_ns: int | None = None) -> None:
        """Note that nothing is heard any more, since the last sign of life or since now."""
        if self._since_ns is None:
            self._since_ns = self._now_ns() if since_ns is None else since_ns

    def over(self, feeds: Iterable[Feed]) -> None:
        """Declare to `feeds` what an outage has cost, if there was one."""
        if self._since_ns is None:
            return
        since_ns, self._since_ns = self._since_ns, None
        now_ns = self._now_ns()
        for feed in feeds:
            feed.lost(CONNECTION_DOWN, min(since_ns, now_ns), now_ns)
