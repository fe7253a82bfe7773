"""Everything that brings readings while the agent runs, started and stopped as it is declared.

A connection with its sources is one part, a source that is read is another. When a new
configuration is applied, the parts that changed are stopped and started; the others do not notice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass

from domain.errors import Conflict
from edge_agent.collector import Collector
from edge_agent.configuration import AgentConfiguration, ConfiguredConnection, ConfiguredSource
from edge_agent.inference import input_spans_ns
from edge_agent.live import Connection
from edge_agent.live.collector import AGENT_DOWN, RECONFIGURED, LiveCollector
from edge_agent.live.connections import RunningConnection
from edge_agent.live.window import Observer, Window
from edge_agent.outbox import AgentCommand, Outbox
from edge_agent.settings import Settings

_log = logging.getLogger("heddle.edge.agent")


@dataclass
class _Part:
    """A connection with its sources, or a source that is read; `declared` tells when it changed."""

    declared: tuple[str, ...]
    task: asyncio.Task[None]
    live_names: tuple[str, ...] = ()
    running: RunningConnection | None = None


class RunningSources:
    """The running parts of one agent.

    Parameters
    ----------
    give_up : whether a source that cannot be read ends the run
    standing : observers of the agent's own, whatever is configured
    """

    def __init__(
        self,
        outbox: Outbox,
        settings: Settings,
        live: LiveCollector,
        numbering: asyncio.Lock,
        frames_waiting: asyncio.Event,
        outbox_moved: asyncio.Event,
        *,
        give_up: bool,
        standing: tuple[Observer, ...] = (),
    ) -> None:
        self.configuration: AgentConfiguration | None = None
        self._outbox = outbox
        self._settings = settings
        self._live = live
        self._numbering = numbering
        self._frames_waiting = frames_waiting
        self._outbox_moved = outbox_moved
        self._give_up = give_up
        self._standing = standing
        self._parts: dict[str, _Part] = {}
        self._collectors: dict[str, Collector] = {}
        self._readings_before = 0
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # --- what runs ------------------------------------------------------------------------

    @property
    def reading_count(self) -> int:
        """Readings that all sources have brought since the start."""
        replayed = sum(collector.reading_count for collector in self._collectors.values())
        return self._readings_before + replayed + self._live.reading_count

    @property
    def connections(self) -> dict[str, Connection]:
        """Every running connection by its name."""
        return {
            part.running.connection.name: part.running.connection
            for part in self._parts.values()
            if part.running is not None
        }

    def failures(self) -> dict[str, str]:
        """Return why connections deliver nothing at present, by their name."""
        return {
            name.partition(" ")[2]: part.running.state.failure
            for name, part in self._parts.items()
            if part.running is not None and part.running.state.failure
        }

    async def ended(self) -> None:
        """Return once every source that is read was read to its end.

        Raises
        ------
        HeddleError, OSError
            what a source raised, if it may end the run
        """
        reading = [part.task for part in self._parts.values() if part.running is None]
        for task in asyncio.as_completed(reading):
            await task

    async def failed(self) -> None:
        """Return never; raise what ended a part that may not end."""
        await asyncio.shield(self._failed)

    # --- starting and stopping ------------------------------------------------------------

    async def apply(self, configuration: AgentConfiguration) -> None:
        """Stop what is declared no longer or otherwise, and start what is new.

        Raises
        ------
        Conflict
            ``agent.other_name``: an agent keeps its name; nothing has changed then
        InvalidInput
            ``source.parts_changed``; nothing has changed then
        """
        before = self.configuration
        if before is not None and before.agent != configuration.agent:
            raise Conflict(
                "agent.other_name",
                f"the agent is called {before.agent!r}, the new configuration says "
                f"{configuration.agent!r}",
                hint="stop it and start another with a state folder of its own",
                value=configuration.agent,
                limit=before.agent,
            )
        self._outbox.adopt(
            configuration.agent,
            configuration.parts_by_source,
            live=configuration.asset_by_live_source,
            drop_ranks=configuration.drop_ranks,
        )
        self._outbox.watch_inputs(
            input_spans_ns(configuration.observers, configuration.asset_types_by_source)
        )
        wanted = _declared(configuration)
        stale = [name for name, part in self._parts.items() if wanted.get(name) != part.declared]
        for name in stale:
            await self._stop(name)
        self.configuration = configuration
        self._live.observers = (*self._standing, *configuration.observers)
        reason = AGENT_DOWN if before is None else RECONFIGURED
        for source in configuration.sources:
            if f"source {source.name}" not in self._parts:
                self._start_reading(source)
        for connection in configuration.connections:
            if f"connection {connection.name}" not in self._parts:
                self._start_connection(configuration, connection, reason)
        if before is not None:
            _log.info("a new configuration is in force; %d parts were stopped", len(stale))

    async def stop(self) -> None:
        """Stop everything and keep what has arrived."""
        for name in list(self._parts):
            await self._stop(name)

    async def _stop(self, name: str) -> None:
        part = self._parts.pop(name)
        part.task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(part.task, return_exceptions=True)
        for source in part.live_names:
            await self._live.close(source)
        collector = self._collectors.pop(name.partition(" ")[2], None)
        if collector is not None:
            self._readings_before += collector.reading_count

    def _start_reading(self, source: ConfiguredSource) -> None:
        collector = Collector(
            source,
            self._outbox,
            self._frames_waiting,
            self._outbox_moved,
            numbering=self._numbering,
            ask=self._ask if self._has_models else None,
        )
        self._collectors[source.name] = collector
        task = self._watched(collector.run(give_up=self._give_up))
        self._parts[f"source {source.name}"] = _Part((source.declared,), task)

    @property
    def _has_models(self) -> bool:
        return self.configuration is not None and bool(self.configuration.observers)

    async def _ask(self, window: Window) -> Sequence[AgentCommand]:
        """Return what the models in force say of a window of a recording."""
        observers = self.configuration.observers if self.configuration else ()
        return await self._live.ask(observers, window)

    def _start_connection(
        self, configuration: AgentConfiguration, configured: ConfiguredConnection, reason: str
    ) -> None:
        sources = [source for source in configuration.live if source.connection == configured.name]
        running = RunningConnection(
            configured.connection,
            [(source.source, self._live.open(source, reason=reason)) for source in sources],
            self._settings.retry_delay_s_min,
            self._settings.retry_delay_s_max,
        )
        self._parts[f"connection {configured.name}"] = _Part(
            _declared(configuration)[f"connection {configured.name}"],
            self._watched(running.run()),
            tuple(source.name for source in sources),
            running,
        )

    def _watched(self, running: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a part; what it raises unexpectedly ends the agent, not silently the part."""
        task = asyncio.create_task(running)
        task.add_done_callback(self._note_failure)
        return task

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) and not self._failed.done():
            self._failed.set_exception(error)
            self._failed.exception()  # looked at, should nobody wait for it


def _declared(configuration: AgentConfiguration) -> dict[str, tuple[str, ...]]:
    """Return for every part by its name what it is declared to be."""
    parts: dict[str, tuple[str, ...]] = {}
    parts |= {f"source {source.name}": (source.declared,) for source in configuration.sources}
    for connection in configuration.connections:
        sources = [
            text
            for source in configuration.live
            if source.connection == connection.name
            for text in (source.name, source.declared)
        ]
        secured_by = connection.secured_by
        parts[f"connection {connection.name}"] = (connection.declared, secured_by, *sources)
    return parts
