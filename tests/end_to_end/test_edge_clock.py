"""Clocks that are set while agents run: back an hour, forward, over the end of summer time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api.settings import ServerSettings
from edge_agent.uplink.frames import TIME_IN_FUTURE
from tests.end_to_end.counting_agent import CountingAgent, accounts, opcua_site, prepare
from tests.end_to_end.counting_plc import CountingPlc
from tests.end_to_end.moved_clock import MovedClock
from tests.end_to_end.processes import PATIENCE_S, Server

pytestmark = pytest.mark.slow

HOUR_S = 3600
AHEAD_S = ServerSettings().frame_future_s_max + 10
"""So far ahead the server does not believe what it is told, until some ten seconds later."""
SUMMER_TIME_ENDS = datetime(2026, 10, 25, 1, tzinfo=UTC)
"""In Berlin: 03:00 becomes 02:00, and an hour of local times happens twice."""
BEFORE_IT_ENDS_S = 4


def test_clocks_that_are_set_back_and_forward(folder: Path) -> None:
    clock = MovedClock(folder / "clock")
    with (
        CountingPlc() as plc,
        Server(folder) as server,
        CountingAgent(
            folder / "agent",
            server.url,
            opcua_site(plc.url),
            TZ="Europe/Berlin",
            **clock.environment,
        ) as agent,
    ):
        server.start()
        prepare(server)
        agent.start_until(lambda told: told.acknowledged_sequence > 0)
        agent.wait_for_commands("assessHealth", 1)
        clock.set_ahead(-HOUR_S)  # the site's clocks are set back
        plc.clock_ahead_s = -HOUR_S
        wait_for_steps(agent, 1)
        agent.wait_for_commands("assessHealth", 1)
        plc.clock_ahead_s = 0  # the agent's alone is behind: its controller seems to be ahead
        agent.wait_for_commands("assessHealth", 1)
        clock.set_ahead(0)
        wait_for_steps(agent, 2)
        agent.wait_for_commands("assessHealth", 1)
        october_s = SUMMER_TIME_ENDS.timestamp() - time.time() - BEFORE_IT_ENDS_S
        clock.set_ahead(october_s)
        plc.clock_ahead_s = round(october_s)
        wait_for_steps(agent, 3)
        agent.wait_for_commands("assessHealth", 2)
        agent.drain(plc.pause)
        found = accounts(server, plc.told)
    found.check(agent.witness)
    assert not found.losses, "a clock that is set costs nothing"
    positions = [found.places[value] for value in sorted(found.recorded) if value]
    assert positions == sorted(positions), "what was told later stands later, whatever its time"


def wait_for_steps(agent: CountingAgent, count: int) -> None:
    """Return once the agent has noticed that its clock was set `count` times."""
    deadline = time.monotonic() + PATIENCE_S
    while agent.log.count("the agent's clock was set") < count:
        assert agent.is_running, agent.log
        assert time.monotonic() < deadline, agent.log
        time.sleep(0.1)


def test_what_a_clock_told_too_early_arrives_once_its_time_has_come(folder: Path) -> None:
    clock = MovedClock(folder / "clock")
    clock.set_ahead(AHEAD_S)
    with (
        CountingPlc() as plc,
        Server(folder) as server,
        CountingAgent(
            folder / "agent", server.url, opcua_site(plc.url), **clock.environment
        ) as agent,
    ):
        server.start()
        prepare(server)
        plc.clock_ahead_s = AHEAD_S
        agent.start_until(lambda told: told.rejected_counts.get(TIME_IN_FUTURE, 0) > 5)
        agent.wait_for_commands("assessHealth", 1)
        clock.set_ahead(0)
        plc.clock_ahead_s = 0
        wait_for_steps(agent, 1)
        agent.wait_for(lambda told: not told.rejected_counts)
        agent.drain(plc.pause)
        found = accounts(server, plc.told)
    found.check(agent.witness)
    assert not found.losses
    assert not agent.rejected_commands, "a prediction waits, too"
