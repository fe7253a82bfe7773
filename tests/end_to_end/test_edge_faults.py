"""Agents that are killed, servers that are away, disks that are full, files that are half written.

Afterwards every reading that a controller told is in the log exactly once, or lies within a loss
that the agent has declared.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from domain.asset import ReadingsLost, telemetry_stream
from edge_agent.outbox import OutboxStatus, inspect_outbox
from edge_agent.outbox.file import FILE_NAME
from eventlog.database import create_pool
from eventlog.embedded.server import EmbeddedPostgres
from eventlog.ledger import Ledger
from eventlog.reading import read_page
from tests.end_to_end.counting_plc import CountingPlc
from tests.end_to_end.processes import PATIENCE_S, Process, Server

pytestmark = pytest.mark.slow

ASSET = "pump-7"
KILLS = int(os.environ.get("HEDDLE_AGENT_KILLS", "8"))
"""How often the agent is killed; 50 where somebody has ten minutes."""
SLACK_NS = 1_000_000_000
"""The clocks of a window's end and of a loss's beginning are read apart."""


class CountingAgent(Process):
    """`heddle agent run` on a counting controller."""

    def __init__(self, folder: Path, server_url: str, plc_url: str, **environment: str) -> None:
        folder.mkdir()
        self.state_dir = folder / "state"
        config = folder / "agent.yaml"
        config.write_text(yaml.safe_dump(_configuration(plc_url)))
        super().__init__(
            [
                "agent",
                "run",
                f"--config={config}",
                f"--server={server_url}",
                f"--state-dir={self.state_dir}",
            ],
            {"HEDDLE_AGENT_RETRY_DELAY_S_MAX": "0.5", **environment},
            folder / "agent.log",
        )

    @property
    def memory_mib(self) -> float:
        """What the process holds in memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("Linux tells it")

    def status(self) -> OutboxStatus | None:
        """Return what its outbox holds; None while there is none."""
        if not (self.state_dir / FILE_NAME).exists():
            return None
        try:
            with inspect_outbox(self.state_dir) as outbox:
                return outbox.status()
        except Exception:  # it is just being made
            return None

    def wait_for(self, holds: Callable[[OutboxStatus], bool]) -> OutboxStatus:
        """Return its status once `holds` is true of it."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert self.is_running, self.log
            told = self.status()
            if told is not None and holds(told):
                return told
            time.sleep(0.1)
        raise AssertionError(f"{self.status()}\n{self.log}")


def _configuration(url: str) -> dict[str, Any]:
    return {
        "agent": "edge-1",
        "connections": {"plc-1": {"kind": "opcua", "url": url, "timeout_s": 2}},
        "sources": [
            {
                "kind": "opcua",
                "connection": "plc-1",
                "asset": ASSET,
                "asset_type": "skab-pump-loop",
                "window": {"seconds": 0.2, "readings": 10_000},
                "publishing_ms": 100,
                "sampling_ms": 0,
                "channels": {"flow": {"node": "ns=2;s=Flow", "unit": "l/min", "queue_size": 100}},
            }
        ],
    }


@dataclass
class Accounts:
    """What became of what a controller told."""

    told: dict[float, int]
    recorded: Counter[float]
    losses: list[ReadingsLost]

    def check(self) -> None:
        """Every reading since the first that the agent heard: once, or within a declared loss."""
        first_ns = min(self.told[value] for value in self.recorded if value in self.told)
        doubled = {value: count for value, count in self.recorded.items() if count > 1}
        assert not doubled, doubled
        assert set(self.recorded) <= {0.0, *self.told}, "nothing was invented"
        assert len(set(self.losses)) == len(self.losses), "a loss is told once"
        spans = [
            (loss.since.timestamp() * 1e9 - SLACK_NS, loss.until.timestamp() * 1e9 + SLACK_NS)
            for loss in self.losses
        ]
        missing = [
            time_ns
            for value, time_ns in self.told.items()
            if time_ns >= first_ns
            and value not in self.recorded
            and not any(since <= time_ns <= until for since, until in spans)
        ]
        reasons = Counter(loss.reason for loss in self.losses)
        since_first_s = [round((time_ns - first_ns) / 1e9, 2) for time_ns in missing]
        told = f"{len(missing)} of {len(self.told)}, {since_first_s[:5]} … {since_first_s[-5:]} s"
        assert not missing, f"{told}; declared: {reasons}"


def accounts(server: Server, plc: CountingPlc) -> Accounts:
    """Read the log of a server."""

    async def read() -> Accounts:
        found = Accounts(dict(plc.told), Counter(), [])
        with EmbeddedPostgres.start(server.data_dir) as database:
            pool = await create_pool(database.url)
            ledger = await Ledger.open(pool, "plant-1")
            try:
                position = 0
                while page := await read_page(ledger, position):
                    position = page[-1].position
                    for event in page:
                        if event.stream == telemetry_stream(ASSET):
                            found.recorded.update(event.frame.values[0].tolist())
                        elif event.type == "asset.readings_lost":
                            found.losses.append(event.fact)
            finally:
                await ledger.close()
                await pool.close()
        return found

    return asyncio.run(read())


def drain(agent: CountingAgent, plc: CountingPlc) -> None:
    """Let the agent send all it has, and tell what was lost."""
    plc.pause()
    time.sleep(1.0)  # what was told last is in a window by now
    agent.wait_for(
        lambda told: not (told.pending_frames or told.pending_commands or told.pending_losses)
    )
    agent.stop()


def test_agent_that_is_killed_again_and_again(folder: Path, pytestconfig: pytest.Config) -> None:
    chance = random.Random(pytestconfig.getoption("fault_seed"))
    with (
        CountingPlc() as plc,
        Server(folder) as server,
        CountingAgent(folder / "agent", server.url, plc.url) as agent,
    ):
        server.start()
        server.register(ASSET)
        for kill in range(KILLS):
            agent.start()
            before = 0 if (told := agent.status()) is None else told.last_sequence
            agent.wait_for(lambda told: told.last_sequence > before)  # noqa: B023
            time.sleep(chance.random())
            if kill % 3 == 1:
                server.kill()
            agent.kill()
            if kill % 3 == 2:
                server.start()
        if not server.is_running:
            server.start()
        agent.start()
        drain(agent, plc)
        found = accounts(server, plc)
    found.check()
    assert sum(found.recorded.values()) > 10 * KILLS
    assert {"agent.down"} <= {loss.reason for loss in found.losses}


def test_server_that_is_away_and_comes_back_again_and_again(folder: Path) -> None:
    with (
        CountingPlc() as plc,
        Server(folder) as server,
        CountingAgent(folder / "agent", server.url, plc.url) as agent,
    ):
        server.start()
        server.register(ASSET)
        agent.start()
        agent.wait_for(lambda told: told.acknowledged_sequence > 0)
        memory_mib = agent.memory_mib
        for _ in range(2):
            server.kill()
            waiting = agent.wait_for(lambda told: told.pending_frames > 10).pending_frames
            server.start()
            agent.wait_for(lambda told: told.pending_frames < waiting)  # noqa: B023
        for _ in range(20):  # the link flaps
            os.kill(server.pid, signal.SIGSTOP)
            time.sleep(0.1)
            os.kill(server.pid, signal.SIGCONT)
            time.sleep(0.1)
        assert agent.memory_mib < memory_mib + 40, "an outage is held on disk, not in memory"
        drain(agent, plc)
        found = accounts(server, plc)
        log = agent.log
    found.check()
    assert not found.losses, "an outage of the server costs nothing"
    assert log.count("takes no frames") <= 6, "once a failure"


def test_disk_that_is_full_for_a_while(folder: Path) -> None:
    with (
        CountingPlc() as plc,
        Server(folder) as server,
        CountingAgent(folder / "agent", server.url, plc.url) as agent,
    ):
        server.start()
        server.register(ASSET)
        agent.start()
        agent.wait_for(lambda told: told.acknowledged_sequence > 0)
        server.kill()
        agent.wait_for(lambda told: told.pending_frames > 3)
        # Files of this process can grow no further, as on a disk that is full.
        _, most = resource.prlimit(agent.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (4096, most))
        time.sleep(5.0)
        assert agent.is_running, agent.log
        resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (most, most))
        server.start()
        drain(agent, plc)
        log = agent.log
        found = accounts(server, plc)
    assert "outbox.disk_full" in log
    found.check()


def test_outbox_of_which_half_is_gone(folder: Path) -> None:
    with (
        CountingPlc() as plc,
        Server(folder) as server,
        CountingAgent(folder / "agent", server.url, plc.url) as agent,
    ):
        server.start()
        server.register(ASSET)
        agent.start()
        agent.wait_for(lambda told: told.acknowledged_sequence > 0)
        server.kill()
        agent.wait_for(lambda told: told.pending_frames > 20)
        agent.kill()
        with inspect_outbox(agent.state_dir) as outbox:
            outbox.store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        file = agent.state_dir / FILE_NAME
        os.truncate(file, file.stat().st_size // 2)
        server.start()
        agent.start()
        agent.wait_for(lambda told: told.last_sequence > 1_000)
        drain(agent, plc)
        found = accounts(server, plc)
    found.check()
    assert "outbox.damaged" in {loss.reason for loss in found.losses}
    assert list(agent.state_dir.glob("damaged-*")), "it is kept"
