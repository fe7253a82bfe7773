"""Keeps a connection running: tried again after growing pauses; its failure is told once, its
recovery once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from domain.errors import HeddleError
from edge_agent.live import Connection, LiveSource
from edge_agent.live.feed import SourceFeed
from edge_agent.uplink.frames import Backoff

STEADY_S: Final = 10.0
"""A connection that lasted so long was a good one: the next failure begins with a short pause."""
PAUSE_S_MIN: Final = 0.1

_log = logging.getLogger("heddle.edge.connection")


@dataclass
class ConnectionState:
    """How a connection stands; `failure` is empty while it delivers."""

    failure: str = ""
    failure_count: int = 0
    down_since_s: float = 0.0


class RunningConnection:
    """Runs one connection for its sources until cancelled.

    Parameters
    ----------
    delay_s_min, delay_s_max : the first and the longest pause after a failure; each pause is drawn
        at random up to it, so that many agents do not come back together
    """

    def __init__(
        self,
        connection: Connection,
        sources: Sequence[tuple[LiveSource, SourceFeed]],
        delay_s_min: float,
        delay_s_max: float,
        draw: random.Random | None = None,
    ) -> None:
        self.state = ConnectionState()
        self.connection = connection
        self._sources = sources
        self._backoff = Backoff(delay_s_min, delay_s_max, draw or random.Random())

    async def run(self) -> None:
        """Run for ever; end by being cancelled."""
        loop = asyncio.get_running_loop()
        for _, feed in self._sources:
            feed.on_heard = self._back
        while True:
            started_s = loop.time()
            try:
                await self.connection.run(self._sources)
                told = "connection.ended: it ended by itself"
            except HeddleError as error:
                told = str(error)
            except Exception as error:  # a fault of ours or of a library ends no other connection
                _log.exception("connection %s failed unexpectedly", self.connection.name)
                told = f"connection.failed: {type(error).__name__}: {error}"
            self._down(told, loop.time())
            if loop.time() - started_s >= STEADY_S:
                self._backoff.reset()
            await asyncio.sleep(PAUSE_S_MIN + self._backoff.next_delay_s())

    def _down(self, told: str, now_s: float) -> None:
        for _, feed in self._sources:
            feed.listening = False
        self.state.failure_count += 1
        if not self.state.failure:
            self.state.down_since_s = now_s
            _log.warning("connection %s is down: %s", self.connection.name, told)
        self.state.failure = told

    def _back(self) -> None:
        if self.state.failure:
            lasted_s = asyncio.get_running_loop().time() - self.state.down_since_s
            _log.info("connection %s is back after %.1f s", self.connection.name, lasted_s)
            self.state.failure = ""
