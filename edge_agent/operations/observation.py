"""Looks at a running agent every other second, for its status, its metrics and its certificates."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge_agent.configuration import AgentConfiguration
from edge_agent.inference.updates import statuses as model_statuses
from edge_agent.live.collector import LiveCollector
from edge_agent.operations.certificates import CertificateStatus, ExpiryWatch
from edge_agent.operations.snapshot import Snapshot, SnapshotFile
from edge_agent.outbox import Outbox, OutboxStatus
from edge_agent.running_sources import RunningSources
from edge_agent.settings import Settings
from edge_agent.uplink.link import Link

LOOK_EVERY_S: Final = 2.0
CERTIFICATES_EVERY_S: Final = 3_600.0


@dataclass(frozen=True)
class Observed:
    """The parts of a running agent that are looked at.

    Parameters
    ----------
    configuration : returns the one in force
    """

    configuration: Callable[[], AgentConfiguration]
    settings: Settings
    outbox: Outbox
    sources: RunningSources
    live: LiveCollector
    link: Link


class Observation:
    """Keeps the latest snapshot of an agent."""

    def __init__(self, observed: Observed) -> None:
        self.latest: tuple[Snapshot, OutboxStatus] | None = None
        self._observed = observed
        self._started_s = time.monotonic()
        self._file = SnapshotFile(observed.settings.state_dir)
        self._expiry = ExpiryWatch()
        self._certificates: list[CertificateStatus] = []
        self._certificates_s: float | None = None

    async def run(self) -> None:
        """Look for ever; end by being cancelled."""
        try:
            while True:
                self.look()
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            self._file.remove()

    def look(self) -> Snapshot:
        """Take and keep one snapshot."""
        snapshot = self._snapshot()
        self.latest = snapshot, self._observed.outbox.status_while_running()
        self._file.write(snapshot)
        return snapshot

    def _snapshot(self) -> Snapshot:
        observed, now_s = self._observed, time.monotonic()
        link, settings = observed.link, observed.settings
        configuration = observed.configuration()
        frames = link.frames
        return Snapshot(
            agent=configuration.agent,
            pid=os.getpid(),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            running_s=round(now_s - self._started_s, 1),
            readings=observed.sources.reading_count,
            frames_accepted=frames.counts.accepted,
            frames_duplicate=frames.counts.duplicate,
            frames_rejected=frames.counts.rejected,
            frames_failed_requests=frames.counts.failed_requests,
            commands_carried_out=link.commands.counts.carried_out,
            commands_rejected=link.commands.counts.rejected,
            server=settings.server_url,
            server_silent_s=_since(frames.last_answer_s, now_s),
            server_failing_s=_since(frames.failing_since_s, now_s),
            directives_silent_s=link.directives_silent_s,
            connections=_connections(observed),
            clock_steps_s=list(observed.live.clock_steps_s[-10:]),
            clock_synchronized=observed.live.agent_clock.synchronized,
            setpoints={
                one.subject: "closed-loop" if one.closed_loop else "advisory"
                for one in configuration.directing.setpoints
            },
            writing_stopped=link.setpoints.writing_stopped,
            models=dict(model_statuses(configuration.observers)),
            certificates=self._looked_at_certificates(configuration, settings, now_s),
        )

    def _looked_at_certificates(
        self, configuration: AgentConfiguration, settings: Settings, now_s: float
    ) -> list[CertificateStatus]:
        due = self._certificates_s is None or now_s - self._certificates_s > CERTIFICATES_EVERY_S
        if due:
            self._certificates_s = now_s
            self._certificates = self._expiry.look(certificate_files(configuration, settings))
        return self._certificates


def certificate_files(configuration: AgentConfiguration, settings: Settings) -> list[Path]:
    """Return the certificates that the agent and its connections use."""
    files = [file for file in (settings.certificate_file, settings.ca_file) if file is not None]
    for configured in configuration.connections:
        files += getattr(configured.connection, "certificate_files", ())
    return files


def _connections(observed: Observed) -> Mapping[str, str]:
    failures = observed.sources.failures()
    return {name: failures.get(name, "") for name in observed.sources.connections}


def _since(moment_s: float | None, now_s: float) -> float | None:
    return None if moment_s is None else round(now_s - moment_s, 3)
