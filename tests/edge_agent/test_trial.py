"""``heddle agent check`` beside an agent that runs: neither session nor state is touched."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.mqtt.client import Publication
from edge_agent.trial import try_live_sources
from tests.brokers import MosquittoBroker, mosquitto_broker
from tests.edge_agent.feeds import RecordingFeed, delivering, live_configuration, until
from tests.edge_agent.sparkplug.observer import DEVICE, GROUP, NODE, observing
from tests.edge_agent.sparkplug.test_host import be_born, flow, tell

pytestmark = pytest.mark.anyio

WINDOW = {"seconds": 1, "readings": 100}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[MosquittoBroker]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto_broker(folder) as running:
        yield running


def mqtt_source(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "mqtt",
        "connection": "broker",
        "asset": "pump-1",
        "asset_type": "skab-pump-loop",
        "topic": "plant/#",
        "channels": {"flow": {"field": "", "unit": "l/min"}},
        "window": WINDOW,
    } | changes


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_a_check_takes_no_session_from_the_agent_that_runs(
    tmp_path: Path, broker: MosquittoBroker, version: str
) -> None:
    declared = {"kind": "mqtt", "url": broker.url, "version": version}
    configuration = live_configuration(tmp_path, {"broker": declared}, mqtt_source())
    connection, pump = configuration.connections[0].connection, configuration.live[0].source
    feed = RecordingFeed()
    async with observing(broker) as observer, delivering(connection, (pump, feed)) as agent:
        await until(lambda: broker.said("Sending SUBACK to test-agent-broker"))
        # Nothing reaches the disk: whoever took this session over would have it all again.
        feed.keeps.clear()
        checking = asyncio.create_task(try_live_sources(configuration, 2, 20.0))
        await until(lambda: broker.said("Sending SUBACK to test-agent-broker-check"))
        for number in (1, 2, 3):
            message = Publication("plant/flow", str(number).encode(), qos=1)
            await observer.client.publish(message)
        (trial,) = await checking
        await until(lambda: feed.values(0) == [1, 2, 3])
        assert not agent.done()
    assert [reading.value for reading in trial.readings] == [1.0, 2.0]
    assert not trial.failure
    assert not broker.said("already connected")
    # What the check left at the broker is nothing: its session was clean.
    assert "check" not in "".join(feed.codes())


async def test_a_check_of_sparkplug_is_told_to_nobody(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    source = {
        "kind": "sparkplug",
        "connection": "cell",
        "asset": "pump-1",
        "asset_type": "skab-pump-loop",
        "group": GROUP,
        "node": NODE,
        "device": DEVICE,
        "channels": {"flow": {"metric": "Flow", "unit": "l/min"}},
        "window": WINDOW,
    }
    declared = {"kind": "sparkplug", "url": broker.url, "reorder_timeout_s": 0.3}
    configuration = live_configuration(tmp_path, {"cell": declared}, source)
    connection, pump = configuration.connections[0].connection, configuration.live[0].source
    feed = RecordingFeed()
    async with observing(broker) as observer, delivering(connection, (pump, feed)) as agent:
        await until(lambda: any(one.state.get("online") for one in observer.states()))
        states = len(observer.states())
        await be_born(observer)
        await until(lambda: feed.values(0) == [1.0])
        checking = asyncio.create_task(try_live_sources(configuration, 1, 20.0))
        # It knows no birth, so it asks for one; the agent that runs takes it as any other.
        await until(lambda: broker.said("Sending SUBACK to test-agent-cell-check"))
        await be_born(observer)
        (trial,) = await checking
        await tell(observer, "DDATA", 2, flow(5.0))
        await until(lambda: 5.0 in feed.values(0))
        assert not agent.done()
        assert len(observer.states()) == states
        assert set(observer.types()) <= {"NBIRTH", "DBIRTH", "DDATA", "NCMD"}
    assert [reading.value for reading in trial.readings] == [1.0]
    assert not broker.said("already connected")
    assert not feed.losses or {loss[0] for loss in feed.losses} == {"sparkplug.no_birth"}
