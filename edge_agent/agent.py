"""The agent: its sources and connections, the uplink, and an orderly end.

What the process was doing when it ended does not matter: the outbox says where to go on. The
configuration is read again on SIGHUP and when its file changes; one with faults is told, and the
one in force stays.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Final

from domain.errors import HeddleError
from edge_agent.configuration import AgentConfiguration, read_configuration, security_files
from edge_agent.configuration_watch import ConfigurationWatch
from edge_agent.inference import carried_over
from edge_agent.inference.updates import ModelUpdates
from edge_agent.live.collector import LiveCollector
from edge_agent.memory import settle_memory, unsettled_after
from edge_agent.operations.metrics import serving_metrics
from edge_agent.operations.observation import Observation, Observed
from edge_agent.operations.snapshot import Snapshot
from edge_agent.operations.traces import exporting_traces
from edge_agent.outbox import Outbox, OutboxStatus, open_outbox
from edge_agent.running_sources import RunningSources
from edge_agent.settings import Settings
from edge_agent.uplink.http import open_http_transport
from edge_agent.uplink.link import Link
from edge_agent.uplink.transport import Transport
from edge_agent.waiting import end_all, first_ended, wait_up_to

DRAIN_POLL_S: Final = 1.0
END_S_MAX: Final = 10.0

_log = logging.getLogger("heddle.edge.agent")


class Outcome(IntEnum):
    """How a run ended; the value is the exit code of the process."""

    DONE = 0
    REJECTED = 1
    STOPPED_EARLY = 130


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run has done so far, and what the outbox still holds.

    `bytes_stored` counts the frames that wait and those put aside.
    """

    elapsed_s: float
    readings_read: int
    frames_accepted: int
    frames_duplicate: int
    frames_rejected: int
    frames_pending: int
    bytes_stored: int
    sources_ended: int
    sources: int


Report = Callable[[Progress], None]


async def run_agent(
    configuration: AgentConfiguration,
    settings: Settings,
    *,
    once: bool,
    report: Report,
    file: Path | None = None,
) -> Outcome:
    """Run until stopped by SIGINT or SIGTERM, or, when `once`, until all is acknowledged.

    Parameters
    ----------
    file : of the configuration, which is read again when it changes; None never does

    Raises
    ------
    HeddleError
        when the state folder cannot be used, or, when `once`, a source cannot be read.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, stop_writing, settings)
    try:
        with open_outbox(
            settings.state_dir, settings.outbox_bytes_max, age_s_max=settings.outbox_age_s_max
        ) as outbox:
            async with open_http_transport(settings) as transport:
                run = _Run(configuration, settings, outbox, transport, report, once=once)
                watch = None if file is None or once else ConfigurationWatch(file)
                with (
                    unsettled_after(),
                    serving_metrics(settings.metrics_port, run.told),
                    exporting_traces(configuration.agent, settings.otlp_endpoint),
                ):
                    return await run.until(stop, watch)
    finally:
        for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            loop.remove_signal_handler(signal_number)


def stop_writing(settings: Settings) -> None:
    """Have nothing written to any device until the file of the kill switch is taken away."""
    settings.kill_switch.parent.mkdir(parents=True, exist_ok=True)
    settings.kill_switch.touch()
    _log.warning("all writing to devices is stopped: %s", settings.kill_switch)


class _Run:
    """One run of the agent on its open outbox."""

    def __init__(
        self,
        configuration: AgentConfiguration,
        settings: Settings,
        outbox: Outbox,
        transport: Transport,
        report: Report,
        *,
        once: bool,
    ) -> None:
        self._started_s = time.monotonic()
        self._configuration = configuration
        self._settings = settings
        self._outbox = outbox
        self._report = report
        self._once = once
        self._outbox_moved = asyncio.Event()
        frames_waiting = asyncio.Event()
        # A sequence number belongs to whoever asked for it until its frame is in the outbox.
        numbering = asyncio.Lock()
        self._live = LiveCollector(
            configuration.agent,
            outbox,
            configuration.observers,
            numbering,
            frames_waiting,
            self._outbox_moved,
        )
        self._link = Link(
            configuration.agent,
            outbox,
            transport,
            settings,
            frames_waiting,
            self._outbox_moved,
            lambda: self._sources.connections,
        )
        self._models = ModelUpdates(configuration.agent, settings.state_dir, transport.fetch)
        self._sources = RunningSources(
            outbox,
            settings,
            self._live,
            numbering,
            frames_waiting,
            self._outbox_moved,
            give_up=once,
            standing=(self._link.values,),
        )

        self._observation = Observation(
            Observed(
                lambda: self._configuration,
                settings,
                outbox,
                self._sources,
                self._live,
                self._link,
            )
        )

    async def until(self, stop: asyncio.Event, watch: ConfigurationWatch | None) -> Outcome:
        """Run until `stop` is set or, when it runs once, until there is nothing left to do."""
        await self._sources.apply(self._configuration)
        self._configure_link(self._configuration)
        settle_memory()
        stopped = asyncio.create_task(stop.wait())
        tasks: list[asyncio.Task[object]] = [
            stopped,
            asyncio.create_task(self._drained() if self._once else self._sources.failed()),
            asyncio.create_task(self._live.run()),
            asyncio.create_task(self._link.run()),
            asyncio.create_task(self._keep_reporting()),
            asyncio.create_task(self._observation.run()),
        ]
        if watch is not None:
            tasks.append(asyncio.create_task(self._keep_configured(watch)))
        try:
            # Whichever ends first ends the run; what it raised is raised here.
            done = await first_ended(tasks)
        finally:
            await end_all(tasks)
            await self._end_sources()
        self._report(self.progress())
        if self._once and stopped in done:
            return Outcome.STOPPED_EARLY
        return Outcome.REJECTED if self._once and self._outbox.rejected_counts() else Outcome.DONE

    def _configure_link(self, configuration: AgentConfiguration) -> None:
        self._link.configure(configuration, self._models.takers(configuration.observers))

    def told(self) -> tuple[Snapshot, OutboxStatus] | None:
        """Return the latest snapshot of the run, None before the first."""
        return self._observation.latest

    async def _drained(self) -> None:
        """Return once all is read and acknowledged."""
        await self._sources.ended()
        while self._outbox.pending_count() or len(self._outbox.commands):
            self._outbox_moved.clear()
            await wait_up_to(self._outbox_moved, DRAIN_POLL_S)

    async def _end_sources(self) -> None:
        """Keep what live sources have brought, for as long as an orderly end may take."""
        try:
            async with asyncio.timeout(END_S_MAX):
                await self._sources.stop()
        except TimeoutError:
            _log.error("the outbox took no readings within %g s; they are lost", END_S_MAX)
        finally:
            self._live.shut_down()

    async def _keep_configured(self, watch: ConfigurationWatch) -> None:
        """Apply every new configuration that can be applied."""
        while True:
            watch.follow(
                file
                for configured in self._configuration.connections
                for file in security_files(configured.connection)
            )
            await watch.changed()
            try:
                configuration = await asyncio.to_thread(
                    read_configuration, watch.file, self._settings.data_dir
                )
                observers = carried_over(self._configuration.observers, configuration.observers)
                configuration = replace(configuration, observers=observers)
                await self._sources.apply(configuration)
                self._configure_link(configuration)
                settle_memory()
            except HeddleError as error:
                _log.error("the new configuration is not in force: %s", error)
                continue
            self._configuration = configuration

    async def _keep_reporting(self) -> None:
        told: Progress | None = None
        while True:
            await asyncio.sleep(self._settings.progress_every_s)
            now = self.progress()
            if told is None or _moved(told, now):
                self._report(now)
                told = now

    def progress(self) -> Progress:
        """Return how far the run is."""
        counts = self._link.frames.counts
        names = [*self._configuration.parts_by_source, *self._configuration.asset_by_live_source]
        return Progress(
            elapsed_s=round(time.monotonic() - self._started_s, 3),
            readings_read=self._sources.reading_count,
            frames_accepted=counts.accepted,
            frames_duplicate=counts.duplicate,
            frames_rejected=counts.rejected,
            frames_pending=self._outbox.pending_count(),
            bytes_stored=self._outbox.stored_bytes(),
            sources_ended=sum(self._outbox.source_state(name).ended for name in names),
            sources=len(names),
        )


def _moved(before: Progress, now: Progress) -> bool:
    return (before.readings_read, before.frames_accepted, before.frames_pending) != (
        now.readings_read,
        now.frames_accepted,
        now.frames_pending,
    )
