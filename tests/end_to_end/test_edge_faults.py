"""Agents that are killed, servers that are away, disks that are full, files that are half written.

Afterwards every reading that a controller told is in the log exactly once, or lies within a loss
that the agent has declared; and every prediction that it made is in the log exactly once.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from edge_agent.outbox import inspect_outbox
from edge_agent.outbox.file import FILE_NAME
from tests.end_to_end.counting_agent import CountingAgent, accounts, opcua_site, prepare
from tests.end_to_end.counting_plc import CountingPlc
from tests.end_to_end.flapping_link import FlappingLink
from tests.end_to_end.processes import PATIENCE_S, Server

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("HEDDLE_AGENT_KILLS", "8"))
"""How often the agent is killed; 50 where somebody has a few minutes."""
TIMEOUT_S = 180 + 30 * KILLS
LIVES_FOR_PREDICTIONS = 3
"""Lives of an agent that last until it has predicted something; the others may be shorter."""
MEMORY_MIB_MORE = 40.0
DISK_BYTES = 8 * 1024 * 1024


@pytest.mark.timeout(TIMEOUT_S)
def test_agent_that_is_killed_again_and_again(folder: Path, pytestconfig: pytest.Config) -> None:
    chance = random.Random(pytestconfig.getoption("fault_seed"))
    with (
        CountingPlc() as plc,
        Server(folder) as server,
        CountingAgent(folder / "agent", server.url, opcua_site(plc.url)) as agent,
    ):
        server.start()
        prepare(server)
        before = 0
        for kill in range(KILLS):
            agent.start_until(lambda told: told.last_sequence > before)  # noqa: B023
            if kill % max(1, KILLS // LIVES_FOR_PREDICTIONS) == 0:
                agent.wait_for_commands("assessHealth", 1)
            time.sleep(chance.random())
            if kill % 8 == 1:
                server.kill()
            agent.kill()
            agent.read_witness()
            before = agent.last_sequence_left()
            if kill % 4 == 3:
                leave_half_a_write(agent)
            if kill % 8 == 2:
                server.start()
        if not server.is_running:
            server.start()
        agent.start()
        agent.drain(plc.pause)
        found = accounts(server, plc.told)
    found.check(agent.witness)
    assert sum(found.recorded.values()) > 10 * KILLS
    assert set(found.reasons) == {"agent.down"}
    assert len(found.predictions) >= LIVES_FOR_PREDICTIONS


def leave_half_a_write(agent: CountingAgent) -> None:
    """Leave behind the last write of the outbox's journal what a power failure leaves of one.

    References
    ----------
    SQLite, Database File Format, 4.1 "WAL File Format": frames whose salt is the header's count.
    """
    journal = agent.state_dir / f"{FILE_NAME}-wal"
    content = journal.read_bytes()
    page_bytes, salt = int.from_bytes(content[8:12]), content[16:24]
    frame_bytes = 24 + page_bytes
    end = 32
    while content[end + 8 : end + 16] == salt:
        end += frame_bytes
    assert end > 32, "it was killed while its journal held something"
    with journal.open("r+b") as file:
        file.seek(end)
        file.write(content[32 : 32 + frame_bytes // 3])


def test_server_that_is_away_and_a_link_that_flaps(
    folder: Path, pytestconfig: pytest.Config
) -> None:
    chance = random.Random(pytestconfig.getoption("fault_seed"))
    with (
        CountingPlc() as plc,
        Server(folder) as server,
        FlappingLink(server.url, chance) as link,
        CountingAgent(folder / "agent", link.url, opcua_site(plc.url)) as agent,
    ):
        server.start()
        prepare(server)
        agent.start_until(lambda told: told.acknowledged_sequence > 0)
        agent.wait_for_commands("assessHealth", 1)
        memory_mib = agent.memory_mib
        for _ in range(2):
            server.kill()
            agent.wait_for_commands("assessHealth", 1)
            waiting = agent.wait_for(lambda told: told.pending_frames > 10).pending_frames
            server.start()
            agent.wait_for(lambda told: told.pending_frames < waiting)  # noqa: B023
        link.flap(flaps=True)
        deadline = time.monotonic() + PATIENCE_S
        while min(link.cuts_in_requests, link.cuts_in_answers) < 3:
            assert time.monotonic() < deadline, agent.log
            time.sleep(0.1)
        link.flap(flaps=False)
        for _ in range(10):  # nothing is refused, but answers come late
            os.kill(server.pid, signal.SIGSTOP)
            time.sleep(0.1)
            os.kill(server.pid, signal.SIGCONT)
            time.sleep(0.1)
        assert agent.memory_mib < memory_mib + MEMORY_MIB_MORE, "an outage is held on disk"
        agent.drain(plc.pause)
        found = accounts(server, plc.told)
        log = agent.log
    found.check(agent.witness)
    assert not found.losses, "an outage of the server costs nothing"
    assert log.count("takes no frames") <= 3 + link.cuts_in_requests + link.cuts_in_answers


def test_disk_that_is_full_for_a_while(folder: Path) -> None:
    with (
        CountingPlc() as plc,
        Server(folder) as server,
        CountingAgent(folder / "agent", server.url, opcua_site(plc.url)) as agent,
    ):
        server.start()
        prepare(server)
        with disk_of_its_own(agent) as has_disk:
            agent.start_until(lambda told: told.acknowledged_sequence > 0)
            agent.wait_for_commands("assessHealth", 1)
            server.kill()
            agent.wait_for(lambda told: told.pending_frames > 3)
            with no_room(agent, has_disk=has_disk):
                wait_until_said(agent, "outbox.disk_full")
                time.sleep(3.0)
                assert agent.is_running, agent.log
            server.start()
            agent.wait_for_commands("assessHealth", 1)
            agent.drain(plc.pause)
        found = accounts(server, plc.told)
    found.check(agent.witness)


@contextmanager
def disk_of_its_own(agent: CountingAgent) -> Iterator[bool]:
    """Put the agent's state onto a small file system, where the system lets us."""
    agent.state_dir.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(agent.state_dir)]
    mounted = os.geteuid() == 0 and subprocess.run(mounting, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if agent.is_running:
            agent.kill()
        if mounted:
            subprocess.run(["umount", str(agent.state_dir)], check=True)


@contextmanager
def no_room(agent: CountingAgent, *, has_disk: bool) -> Iterator[None]:
    """Leave the agent no room: somebody else fills its disk, or its files may not grow."""
    if has_disk:
        other = agent.state_dir / "somebody-else"
        with other.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(1024)):
                pass
        yield
        other.unlink()
        return
    _, most = resource.prlimit(agent.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (4096, most))
    yield
    resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (most, most))


def wait_until_said(agent: CountingAgent, words: str) -> None:
    """Return once the agent's log holds `words`."""
    deadline = time.monotonic() + PATIENCE_S
    while words not in agent.log:
        assert agent.is_running, agent.log
        assert time.monotonic() < deadline, agent.log
        time.sleep(0.1)


def test_outbox_of_which_half_is_gone(folder: Path) -> None:
    with (
        CountingPlc() as plc,
        Server(folder) as server,
        CountingAgent(folder / "agent", server.url, opcua_site(plc.url)) as agent,
    ):
        server.start()
        prepare(server)
        agent.start_until(lambda told: told.acknowledged_sequence > 0)
        server.kill()
        agent.wait_for_commands("assessHealth", 1)
        agent.wait_for(lambda told: told.pending_frames > 20)
        agent.kill()
        with inspect_outbox(agent.state_dir) as outbox:
            outbox.store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        file = agent.state_dir / FILE_NAME
        os.truncate(file, file.stat().st_size // 2)
        server.start()
        agent.start_until(lambda told: told.last_sequence > 1_000)
        agent.wait_for_commands("assessHealth", 1)
        agent.witness.inputs.clear()  # what half a file promised is among what it may have lost
        agent.drain(plc.pause)
        found = accounts(server, plc.told)
    found.check(agent.witness)
    assert "outbox.damaged" in found.reasons
    assert list(agent.state_dir.glob("damaged-*")), "it is kept"
