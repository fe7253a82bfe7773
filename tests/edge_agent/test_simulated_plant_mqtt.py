"""The simulated plant at a real broker, read and commanded by the agent's own connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain.frames import Quality
from edge_agent.live import LiveSource
from edge_agent.mqtt.client import Broker
from edge_agent.scaling import Scaling
from edge_agent.simulated_plant.faults import read_faults
from edge_agent.simulated_plant.machine import CHANNELS, UNITS, SimulatedPump
from edge_agent.simulated_plant.mqtt_clients import GROUP, NODE, SETPOINT, JsonPlant, SparkplugPlant
from edge_agent.simulated_plant.plant import PlantServer, SimulatedPlant
from edge_agent.sparkplug.host import SparkplugTarget
from tests.brokers import MosquittoBroker, mosquitto_broker
from tests.edge_agent.feeds import RecordingFeed, delivering, live_configuration, until

pytestmark = pytest.mark.anyio

PUMP = "simulated-pump-1"
PERIOD_S = 0.05


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[MosquittoBroker]:
    with mosquitto_broker(tmp_path) as running:
        yield running


def plant_at(broker: MosquittoBroker, *faults: str) -> tuple[SimulatedPlant, SimulatedPump]:
    schedule = read_faults(faults, CHANNELS, 0.0)
    pump = SimulatedPump(PUMP, 1, PERIOD_S, schedule)
    at = Broker(host="127.0.0.1", port=broker.port, client_id="plant")
    servers: list[PlantServer] = [SparkplugPlant(at), JsonPlant(at)]
    return SimulatedPlant([pump], servers, schedule, PERIOD_S), pump


def sources() -> list[dict[str, Any]]:
    common = {"asset_type": "skab-pump-loop", "window": {"seconds": 1, "readings": 1000}}
    sparkplug = {
        "kind": "sparkplug",
        "connection": "cell",
        "asset": PUMP,
        "group": GROUP,
        "node": NODE,
        "device": PUMP,
        "channels": {name: {"metric": name, "unit": UNITS[name]} for name in CHANNELS},
    }
    plain = {
        "kind": "mqtt",
        "connection": "broker",
        "asset": "json",
        "topic": f"simulated-plant/{PUMP}/telemetry",
        "time": {"field": "ts", "format": "unix_ms"},
        "channels": {name: {"field": f"/values/{name}", "unit": UNITS[name]} for name in CHANNELS},
    }
    return [sparkplug | common, plain | common]


async def test_both_tell_the_same_samples_and_a_setpoint_changes_the_plant(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    configuration = live_configuration(
        tmp_path,
        {
            "cell": {"kind": "sparkplug", "url": broker.url, "reorder_timeout_s": 0.2},
            "broker": {"kind": "mqtt", "url": broker.url},
        },
        *sources(),
    )
    plant, pump = plant_at(broker, "nan:pressure@0.5+0.5", "bad:flow@0.5+0.5")
    cell, plain = (configured.connection for configured in configuration.connections)
    by_sparkplug, by_json = RecordingFeed(), RecordingFeed()
    found: list[LiveSource] = [live.source for live in configuration.live]
    async with (
        delivering(cell, (found[0], by_sparkplug)),
        delivering(plain, (found[1], by_json)),
    ):
        await plant.open()
        running = asyncio.create_task(plant.run())
        flow, pressure = CHANNELS.index("flow"), CHANNELS.index("pressure")
        await until(lambda: Quality.BAD in by_sparkplug.qualities(flow))
        await until(lambda: Quality.MISSING in by_sparkplug.qualities(pressure))
        await until(lambda: Quality.MISSING in by_json.qualities(pressure))
        target = SparkplugTarget(
            group=GROUP, node=NODE, device=PUMP, metric=SETPOINT, scaling=Scaling()
        )
        low, _ = pump.flow_limits_l_per_min
        assert await cell.write(target, low + 1.0) == pytest.approx(low + 1.0)
        assert pump.flow_setpoint_l_per_min == pytest.approx(low + 1.0)
        # Beyond what the drive can, it reads back what it follows instead.
        assert await cell.write(target, 0.0) == pytest.approx(low)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await plant.close()
    by_time = dict(zip(by_json.times_ns(flow), by_json.values(flow), strict=True))
    told = dict(zip(by_sparkplug.times_ns(flow), by_sparkplug.values(flow), strict=True))
    shared = by_time.keys() & told.keys()
    assert len(shared) > 10
    assert {at: by_time[at] for at in shared} == {at: told[at] for at in shared}
    assert not by_json.faults
    # Whoever begins to listen amid a node's births tells so, and asks for them again.
    assert {fault.code for fault in by_sparkplug.faults} <= {"message.before_birth"}
