"""The agent: one task for each source, one for the uplink, and an orderly end.

Everything runs in one thread; work is done in steps of a few milliseconds. What the process was
doing when it ended does not matter: the outbox says where to go on.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import httpx

from edge_agent.collector import Collector
from edge_agent.configuration import AgentConfiguration
from edge_agent.outbox import Outbox, open_outbox
from edge_agent.settings import Settings
from edge_agent.uplink import Uplink
from edge_agent.waiting import wait_up_to

DRAIN_POLL_S: Final = 1.0
LOOPBACK_HOSTS: Final = ("127.0.0.1", "::1", "localhost")

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
    configuration: AgentConfiguration, settings: Settings, *, once: bool, report: Report
) -> Outcome:
    """Run until stopped by SIGINT or SIGTERM, or, when `once`, until all is acknowledged.

    Raises
    ------
    HeddleError
        when the state folder cannot be used, or, when `once`, a source cannot be read.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, stop.set)
    try:
        with open_outbox(settings.state_dir, settings.outbox_bytes_max) as outbox:
            parts = {source.name: source.source.parts for source in configuration.sources}
            outbox.adopt(configuration.agent, parts)
            # No timeouts here: the uplink bounds each request as a whole.
            async with httpx.AsyncClient(
                base_url=settings.server_url, timeout=None, headers=_credentials(settings)
            ) as client:
                run = _Run(configuration, settings, outbox, client, report)
                return await run.until(stop, once=once)
    finally:
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(signal_number)


def _credentials(settings: Settings) -> dict[str, str]:
    """Return the header by which the server knows the agent."""
    if settings.api_key is None:
        return {}
    url = httpx.URL(settings.server_url)
    if url.scheme == "http" and url.host not in LOOPBACK_HOSTS:
        _log.warning("the API key goes to %s in the clear: use https", settings.server_url)
    return {"authorization": f"Bearer {settings.api_key}"}


class _Run:
    """One run of the agent on its open outbox."""

    def __init__(
        self,
        configuration: AgentConfiguration,
        settings: Settings,
        outbox: Outbox,
        client: httpx.AsyncClient,
        report: Report,
    ) -> None:
        self._started_s = time.monotonic()
        self._configuration = configuration
        self._settings = settings
        self._outbox = outbox
        self._report = report
        self._outbox_moved = asyncio.Event()
        frames_waiting = asyncio.Event()
        self._collectors = [
            Collector(source, outbox, frames_waiting, self._outbox_moved)
            for source in configuration.sources
        ]
        self._uplink = Uplink(outbox, client, settings, frames_waiting, self._outbox_moved)

    async def until(self, stop: asyncio.Event, *, once: bool) -> Outcome:
        """Run until `stop` is set or, when `once`, until there is nothing left to do."""
        stopped = asyncio.create_task(stop.wait())
        tasks: list[asyncio.Task[object]] = [
            stopped,
            asyncio.create_task(self._collect_and_drain(once)),
            asyncio.create_task(self._uplink.run()),
            asyncio.create_task(self._keep_reporting()),
        ]
        try:
            # Whichever ends first ends the run; what it raised is raised here.
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _cancel(tasks)
        self._report(self.progress())
        if once and stopped in done:
            return Outcome.STOPPED_EARLY
        return Outcome.REJECTED if once and self._outbox.rejected_counts() else Outcome.DONE

    async def _collect_and_drain(self, once: bool) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for collector in self._collectors:
                    group.create_task(collector.run(give_up=once))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        if not once:
            await asyncio.Event().wait()
        while self._outbox.pending_count():
            self._outbox_moved.clear()
            await wait_up_to(self._outbox_moved, DRAIN_POLL_S)

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
        counts = self._uplink.counts
        names = [source.name for source in self._configuration.sources]
        return Progress(
            elapsed_s=round(time.monotonic() - self._started_s, 3),
            readings_read=sum(collector.reading_count for collector in self._collectors),
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


async def _cancel(tasks: Sequence[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
