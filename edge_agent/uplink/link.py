"""Everything that goes on between the agent and its server, as one thing to run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from edge_agent.configuration import AgentConfiguration
from edge_agent.live import Connection
from edge_agent.outbox import Outbox
from edge_agent.setpoints import LatestValues, SetpointApplier
from edge_agent.setpoints.watchdog import Watchdog
from edge_agent.settings import Settings
from edge_agent.uplink.commands import CommandUplink
from edge_agent.uplink.directives import DirectiveStream, ModelPromoted
from edge_agent.uplink.frames import Uplink
from edge_agent.uplink.transport import Transport


class Link:
    """Frames and commands up, directives down, each at its own pace.

    Parameters
    ----------
    frames_waiting : set whenever the outbox has got a frame
    outbox_moved : set whenever frames have left the outbox
    connections : returns the running connections by name
    """

    def __init__(
        self,
        agent: str,
        outbox: Outbox,
        transport: Transport,
        settings: Settings,
        frames_waiting: asyncio.Event,
        outbox_moved: asyncio.Event,
        connections: Callable[[], Mapping[str, Connection]] = dict,
    ) -> None:
        self.frames = Uplink(outbox, transport, settings, frames_waiting, outbox_moved)
        self.commands = CommandUplink(outbox, transport, settings)
        self.values = LatestValues()
        self.setpoints = SetpointApplier(
            agent, outbox, self.values, connections, settings.kill_switch
        )
        self.directives = DirectiveStream(agent, transport, self.setpoints, settings)
        self._watchdog = Watchdog(self.setpoints, self.values, lambda: self.directives.alive_s)

    def configure(
        self, configuration: AgentConfiguration, models: Mapping[str, ModelPromoted] | None = None
    ) -> None:
        """Let what `configuration` declares be set, and no more, from now on.

        Parameters
        ----------
        models : who takes promoted versions, by model
        """
        directing = configuration.directing
        self.setpoints.declare(directing.setpoints)
        self.directives.configure(directing.keys, models or {})

    async def run(self) -> None:
        """Run for ever; end by being cancelled."""
        self.setpoints.recover()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.frames.run())
                group.create_task(self.commands.run())
                group.create_task(self.directives.run())
                group.create_task(self._watchdog.run())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures

    @property
    def directives_silent_s(self) -> float | None:
        """For how long the stream of directives gave no sign of life; None where none is wanted,
        or none has come yet.
        """
        if not self.setpoints.declared or not self.directives.alive_s:
            return None
        return round(asyncio.get_running_loop().time() - self.directives.alive_s, 3)
