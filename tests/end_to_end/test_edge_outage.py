"""A server that is away for days: all of it arrives afterwards, and what is fresh does not wait.

Twelve hours of windows in CI; `HEDDLE_OUTAGE_HOURS=72` makes three days of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from domain.asset import telemetry_stream
from edge_agent.outbox import OutboxStatus
from edge_agent.uplink.frames import FRESH_S
from eventlog.database import create_pool
from eventlog.embedded.server import EmbeddedPostgres
from eventlog.ledger import Ledger
from eventlog.reading import read_page
from tests.distribution import TOLD
from tests.end_to_end.counting_agent import CountingAgent, accounts, opcua_site, prepare
from tests.end_to_end.counting_plc import CountingPlc
from tests.end_to_end.processes import PATIENCE_S, Server

pytestmark = pytest.mark.slow

HOURS: Final = float(os.environ.get("HEDDLE_OUTAGE_HOURS", "12"))
SAMPLES: Final = round(HOURS * 3600)
CHANNELS: Final = 8
WINDOW_S: Final = 60
FRAMES: Final = SAMPLES // WINDOW_S
BATCH_FRAMES: Final = 20
"""Small, so that the order in which frames are sent shows in few of them."""
PATIENCE_LONG_S: Final = PATIENCE_S + 20 * HOURS
TIMEOUT_S: Final = 3 * PATIENCE_LONG_S
SIMULATED: Final = "simulated-pump-loop"
FRESH_AHEAD_MIN: Final = 0.5
"""Of the frames that waited, so many have to stand behind the first fresh one."""
MEMORY_MIB_MORE: Final = 64.0


@dataclass
class Backlog:
    """Where the frames of the simulated asset stand, and how often each window was recorded."""

    positions: list[int] = field(default_factory=list)
    windows: Counter[int] = field(default_factory=Counter)
    readings: int = 0


def simulated_source() -> dict[str, Any]:
    """Return a source that brings days of a pump loop, in windows, as fast as it can."""
    return {
        "kind": "simulated-pump",
        "asset": SIMULATED,
        "asset_type": "skab-pump-loop",
        "samples": SAMPLES,
        "window": {"seconds": WINDOW_S, "readings": CHANNELS * WINDOW_S},
        "replay": {"speed": "max", "times": "recorded"},
    }


@pytest.mark.timeout(TIMEOUT_S)
def test_days_that_waited_arrive_once_and_what_is_fresh_goes_first(
    folder: Path, record_property: Callable[[str, object], None]
) -> None:
    with CountingPlc() as plc, Server(folder) as server:
        declared = opcua_site(plc.url)
        declared["sources"].append(simulated_source())
        environment = {
            "HEDDLE_AGENT_BATCH_FRAMES_MAX": str(BATCH_FRAMES),
            "HEDDLE_AGENT_RETRY_DELAY_S_MAX": "1",
        }
        with CountingAgent(folder / "agent", server.url, declared, **environment) as agent:
            server.start()
            server.register(SIMULATED)
            prepare(server)
            server.kill()
            agent.start_until(lambda told: told.last_sequence > 0)
            memory_mib = most_mib = agent.memory_mib

            def has_ended(told: OutboxStatus) -> bool:
                nonlocal most_mib
                most_mib = max(most_mib, agent.memory_mib)
                return any(one.name == SIMULATED and one.ended for one in told.sources)

            waiting = agent.wait_for(has_ended, PATIENCE_LONG_S)
            assert waiting.pending_frames > FRAMES, "nobody took a frame so far"
            agent.wait_for_commands("assessHealth", 1)
            # What was kept since the last look at the numbers, some seconds ago, counts as fresh.
            time.sleep(FRESH_S + 2)
            fresh_from = max(plc.told)  # all of the days was kept before
            server.start()

            def is_empty(told: OutboxStatus) -> bool:
                nonlocal most_mib
                most_mib = max(most_mib, agent.memory_mib)
                return told.pending_frames < 100

            agent.wait_for(is_empty, PATIENCE_LONG_S)
            agent.drain(plc.pause)
        found = accounts(server, plc.told)
        backlog = read_backlog(server)
    found.check(agent.witness)
    assert not found.losses
    assert set(backlog.windows.values()) == {1}
    assert len(backlog.windows) == FRAMES
    assert backlog.readings == SAMPLES * CHANNELS
    first_fresh = min(p for value, p in found.places.items() if value > fresh_from)
    behind = sum(position > first_fresh for position in backlog.positions)
    assert behind > FRESH_AHEAD_MIN * len(backlog.positions), "what is fresh has waited"
    assert most_mib < memory_mib + MEMORY_MIB_MORE, "an outage is held on disk"
    record_property(
        TOLD,
        f"{HOURS:g} hours behind an outage: {waiting.pending_bytes / 2**20:.1f} MiB and "
        f"{waiting.pending_frames} frames waited; memory {memory_mib:.0f} MiB, {most_mib:.0f} at "
        f"most; {behind} frames stand behind the first fresh one",
    )


def read_backlog(server: Server) -> Backlog:
    """Read from the log of a server what it has of the simulated asset."""

    async def read() -> Backlog:
        found = Backlog()
        with EmbeddedPostgres.start(server.data_dir) as database:
            pool = await create_pool(database.url)
            ledger = await Ledger.open(pool, "plant-1")
            try:
                position = 0
                while page := await read_page(ledger, position):
                    position = page[-1].position
                    for event in page:
                        if event.stream == telemetry_stream(SIMULATED):
                            found.positions.append(event.position)
                            found.windows[event.frame.window_start_ns] += 1
                            found.readings += event.frame.reading_count
            finally:
                await ledger.close()
                await pool.close()
        return found

    return asyncio.run(read())
