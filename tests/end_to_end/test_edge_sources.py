"""Controllers that restart and brokers that lose their sessions, with agents that are killed.

A loss that happened is declared. One that did not happen, because the broker has kept what came
meanwhile, is not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import MosquittoBroker, mosquitto_broker
from tests.end_to_end.counting_agent import CountingAgent, accounts, mqtt_site, opcua_site, prepare
from tests.end_to_end.counting_plc import CountingPlc
from tests.end_to_end.counting_publisher import CountingPublisher
from tests.end_to_end.processes import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[MosquittoBroker]:
    with mosquitto_broker(tmp_path) as running:
        yield running


def test_controller_that_restarts(folder: Path) -> None:
    with (
        CountingPlc() as plc,
        Server(folder) as server,
        CountingAgent(folder / "agent", server.url, opcua_site(plc.url)) as agent,
    ):
        server.start()
        prepare(server)
        agent.start_until(lambda told: told.acknowledged_sequence > 0)
        for away_s in (0.0, 2.0):
            agent.wait_for_commands("assessHealth", 1)
            plc.stop()
            time.sleep(away_s)
            plc.start()
            agent.wait_for_commands("reportReadingsLost", 1)
        agent.wait_for_commands("assessHealth", 1)
        agent.drain(plc.pause)
        found = accounts(server, plc.told)
    found.check(agent.witness)
    assert set(found.reasons) == {"connection.down"}


def test_what_a_broker_has_kept_is_not_lost_and_a_lost_session_is(
    folder: Path, broker: MosquittoBroker
) -> None:
    with (
        CountingPublisher(broker) as machine,
        Server(folder) as server,
        CountingAgent(folder / "agent", server.url, mqtt_site(broker.url)) as agent,
    ):
        server.start()
        prepare(server)
        agent.start_until(lambda told: told.acknowledged_sequence > 0)
        for _ in range(2):  # the broker keeps what comes while the agent is down
            agent.wait_for_commands("assessHealth", 1)
            agent.kill()
            agent.read_witness()
            time.sleep(1.0)
            agent.start()
        agent.wait_for_commands("assessHealth", 1)
        broker.stop()  # it restarts, and still knows the agent
        broker.start()
        agent.wait_for_commands("assessHealth", 1)
        told = agent.wait_for(lambda told: told.acknowledged_sequence > 0)
        assert not told.loss_counts, "nothing was lost so far"
        broker.kill()  # it comes back without its sessions
        broker.forget_sessions()
        broker.start()
        agent.wait_for_commands("reportReadingsLost", 1)
        agent.kill()  # it has lost them again while nobody looked
        agent.read_witness()
        broker.kill()
        broker.forget_sessions()
        broker.start()
        time.sleep(1.0)
        agent.start()
        agent.wait_for_commands("reportReadingsLost", 1)
        agent.wait_for_commands("assessHealth", 1)
        agent.drain(machine.pause)
        found = accounts(server, machine.told)
    # What the broker delivered again is the same reading: it has the same time and the same value.
    found.recorded = Counter(set(found.recorded))
    found.check(agent.witness)
    assert set(found.reasons) == {"session.lost", "agent.down"}
    assert sum(found.reasons.values()) == 2
