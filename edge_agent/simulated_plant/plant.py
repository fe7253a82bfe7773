"""The plant as it runs: machines sampled by the clock, servers that tell of it, failing links."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final, Protocol

from edge_agent.simulated_plant.faults import OF_THE_LINK, FaultKind, FaultSchedule
from edge_agent.simulated_plant.machine import Sample, SimulatedPump

LATE_S_MAX: Final = 10.0
"""A plant that could not run for longer goes on from now."""

_log = logging.getLogger("heddle.plant")


class PlantServer(Protocol):
    """One protocol over which the plant is served."""

    @property
    def address(self) -> str:
        """Where it is found."""

    async def open(self, pumps: Sequence[SimulatedPump]) -> None:
        """Begin to serve `pumps`; what is written to a set-point goes to `want_flow`."""

    async def tell(self, pump: SimulatedPump, sample: Sample) -> None:
        """Let clients see the latest sample of a pump."""

    async def close(self) -> None:
        """Cut every connection and stop listening."""


class SimulatedPlant:
    """Pumps and the servers that tell of them."""

    def __init__(
        self,
        pumps: Sequence[SimulatedPump],
        servers: Sequence[PlantServer],
        faults: FaultSchedule,
        period_s: float,
    ) -> None:
        self.sample_count = 0
        self._pumps = pumps
        self._servers = servers
        self._faults = faults
        self._period_s = period_s
        self._away: FaultKind | None = None

    async def open(self) -> None:
        """Open all servers."""
        for server in self._servers:
            await server.open(self._pumps)

    async def run(self) -> None:
        """Sample and tell until cancelled."""
        due_s = time.monotonic()
        while True:
            await self.step()
            due_s += self._period_s
            now_s = time.monotonic()
            if now_s - due_s > LATE_S_MAX:
                due_s = now_s
            await asyncio.sleep(max(0.0, due_s - now_s))

    async def step(self) -> None:
        """Take one sample of every pump and tell it to whoever is connected."""
        time_s = self.sample_count * self._period_s
        await self._link(time_s)
        self.sample_count += 1
        time_ns = time.time_ns()
        for pump in self._pumps:
            sample = pump.sample(time_ns)
            if self._away is None:
                for server in self._servers:
                    await server.tell(pump, sample)

    async def close(self) -> None:
        """Close all servers."""
        if self._away is None:
            for server in self._servers:
                await server.close()

    async def _link(self, time_s: float) -> None:
        """Cut the connections where a fault begins to act, and open them where it ends."""
        acting = [f.kind for f in self._faults.active(time_s) if f.kind in OF_THE_LINK]
        wanted = acting[0] if acting else None
        if wanted is not None and self._away is None:
            _log.info("fault: %s", wanted)
            for server in self._servers:
                await server.close()
            if wanted is FaultKind.RESTART:
                for pump in self._pumps:
                    pump.restart()
        elif wanted is None and self._away is not None:
            _log.info("the links are back")
            for server in self._servers:
                await server.open(self._pumps)
        self._away = wanted
