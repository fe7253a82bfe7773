"""The watchdog: what the agent has set goes back to its safe value when nobody minds it any more.

Nobody does when the server has given no sign of life for the declared time, or the channels on
which the set-point depends have brought nothing. It is written once; when link and twin are back,
nothing is set again but by a new directive.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from domain.errors import HeddleError
from edge_agent.setpoints.applier import SetpointApplier
from edge_agent.setpoints.declaration import DeclaredSetpoint, SafeReturn
from edge_agent.setpoints.guards import Refusal
from edge_agent.setpoints.journal import APPLIED
from edge_agent.setpoints.latest_values import LatestValues

LOOK_EVERY_S: Final = 0.25
RETRY_S: Final = 2.0

_log = logging.getLogger("heddle.edge.setpoints")


class Watchdog:
    """Watches link and twin for every set-point that has a safe value.

    Parameters
    ----------
    link_alive_s : the monotonic moment of the server's last sign of life
    """

    def __init__(
        self,
        applier: SetpointApplier,
        values: LatestValues,
        link_alive_s: Callable[[], float],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._applier = applier
        self._values = values
        self._link_alive_s = link_alive_s
        self._now_s = now_s
        self._started_s = now_s()
        self._tried_s: dict[str, float] = {}
        self._told: set[str] = set()

    async def run(self) -> None:
        """Watch for ever; end by being cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Let every set-point go back that has to."""
        for declared in list(self._applier.declared.values()):
            if declared.safe is None or not declared.closed_loop:
                continue
            why = self._lost(declared, declared.safe)
            if why is None:
                self._told.discard(declared.subject)
                continue
            try:
                await self._return(declared, why)
            except HeddleError as error:
                self._tell(declared, error.message)

    async def _return(self, declared: DeclaredSetpoint, why: Refusal) -> None:
        last = self._applier.journal.last_write(declared.subject)
        if last is None or last.outcome != APPLIED:
            return  # it stands where others have left it, or is back already
        tried_s = self._tried_s.get(declared.subject)
        if tried_s is not None and self._now_s() - tried_s < RETRY_S:
            return
        self._tried_s[declared.subject] = self._now_s()
        if not await self._applier.return_to_safety(declared, why):
            self._tell(declared, "writing is stopped, or the device did not take it")

    def _lost(self, declared: DeclaredSetpoint, safe: SafeReturn) -> Refusal | None:
        silent_s = self._now_s() - max(self._link_alive_s(), self._started_s)
        if safe.link_lost_s is not None and silent_s > safe.link_lost_s:
            return Refusal("watchdog.link_lost", f"no sign of the server for {silent_s:.1f} s")
        if safe.twin_lost_s is None:
            return None
        for asset, channel in sorted(declared.watched):
            age_s = self._values.age_s(asset, channel)
            since_start_s = self._now_s() - self._started_s
            unheard_s = since_start_s if age_s is None else min(age_s, since_start_s)
            if unheard_s > safe.twin_lost_s:
                return Refusal(
                    "watchdog.twin_lost", f"no reading of {asset}/{channel} for {unheard_s:.1f} s"
                )
        return None

    def _tell(self, declared: DeclaredSetpoint, reason: str) -> None:
        if declared.subject not in self._told:
            self._told.add(declared.subject)
            _log.error("%s cannot go back to its safe value: %s", declared.subject, reason)
