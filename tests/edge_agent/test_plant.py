"""The simulated plant: deterministic, faulty on schedule, and served to a real agent."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from domain.errors import InvalidInput
from domain.frame_decoding import decode
from domain.frames import Frame, Quality
from edge_agent.modbus.connection import ModbusTarget
from edge_agent.modbus.registers import Field, Table
from edge_agent.opcua.writing import OpcUaTarget
from edge_agent.outbox import inspect_outbox
from edge_agent.scaling import Scaling
from edge_agent.simulated_plant.faults import FaultSchedule, read_faults
from edge_agent.simulated_plant.machine import CHANNELS, Sample, SimulatedPump
from edge_agent.simulated_plant.modbus_server import ModbusPlant
from edge_agent.simulated_plant.opcua_server import OpcUaPlant
from edge_agent.simulated_plant.plant import PlantServer, SimulatedPlant
from tests.edge_agent.feeds import RecordingFeed, delivering, live_configuration, until
from tests.edge_agent.frame_server import FrameServer, serving
from tests.recordings import REPOSITORY

DEADLINE_S = 60.0


def pump(
    *faults: str, seed: int = 1, period_s: float = 1.0, repeat_s: float = 0.0
) -> SimulatedPump:
    schedule = read_faults(faults, CHANNELS, repeat_s)
    return SimulatedPump("simulated-pump-1", seed, period_s, schedule)


def run(machine: SimulatedPump, count: int, channel: str = "flow") -> list[float]:
    return [machine.sample(0).values[channel] for _ in range(count)]


# --- the machine --------------------------------------------------------------------------


def test_same_seed_gives_the_same_plant_and_another_another() -> None:
    assert run(pump(), 50) == run(pump(), 50)
    assert run(pump(), 50) != run(pump(seed=2), 50)


def test_flow_follows_its_set_point_as_a_first_order_lag() -> None:
    machine = pump()
    before = np.mean(run(machine, 20))
    assert machine.want_flow(40.0) == 40.0
    one_constant_later = run(machine, 4)[-1]
    settled = run(machine, 60)[-20:]
    assert before == pytest.approx(32.0, abs=0.2)
    assert one_constant_later == pytest.approx(
        before + (40.0 - before) * (1 - math.exp(-1)), abs=0.8
    )
    assert np.mean(settled) == pytest.approx(40.0, abs=0.2)
    machine.restart()
    assert np.mean(run(machine, 20)) == pytest.approx(before, abs=0.2)


@pytest.mark.parametrize("wanted", [1e9, -5.0])
def test_set_point_stays_within_what_the_drive_can(wanted: float) -> None:
    machine = pump()
    low, high = machine.flow_limits_l_per_min
    assert machine.want_flow(wanted) == (high if wanted > 0 else low)
    assert machine.want_flow(math.nan) == machine.flow_setpoint_l_per_min
    assert all(math.isfinite(value) for value in run(machine, 100))


def test_faults_show_when_and_where_they_are_declared() -> None:
    machine = pump("stuck:flow@10+5", "spike:pressure@20+1", "nan:flow@30+2", "bad:flow@40+1")
    clean = pump()
    samples = [(machine.sample(0), clean.sample(0)) for _ in range(50)]
    stuck = [faulty.values["flow"] for faulty, _ in samples[9:15]]
    assert len(set(stuck)) == 1
    assert samples[15][0].values["flow"] == samples[15][1].values["flow"]
    assert samples[20][0].values["pressure"] == 3 * samples[20][1].values["pressure"]
    assert [math.isnan(faulty.values["flow"]) for faulty, _ in samples[29:33]] == [
        False,
        True,
        True,
        False,
    ]
    assert [faulty.qualities for faulty, _ in samples[39:42]] == [{}, {"flow": Quality.BAD}, {}]


def test_closing_valve_lowers_the_flow_and_faults_repeat() -> None:
    flows = run(pump("valve@100+100", repeat_s=400.0), 800)
    assert min(flows[130:170]) < 0.95 * np.mean(flows[:90])
    assert np.mean(flows[300:400]) == pytest.approx(np.mean(flows[:90]), rel=0.01)
    assert min(flows[530:570]) < 0.95 * np.mean(flows[:90])


@pytest.mark.parametrize(
    "declared",
    ["fire@1+1", "stuck@1+1", "valve:flow@1+1", "nan:wind@1+1", "drop@1", "drop@1+0", ""],
)
def test_malformed_fault_is_refused(declared: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_faults([declared], CHANNELS, 0.0)
    assert refused.value.code == "fault.malformed"


def test_machine_must_say_that_it_is_simulated() -> None:
    with pytest.raises(ValueError, match="simulated"):
        SimulatedPump("pump-1", 1, 1.0, FaultSchedule())


class Told:
    """A server that notes what it is asked."""

    address = "nowhere"

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def open(self, pumps: Sequence[SimulatedPump]) -> None:
        self.calls.append(f"open {len(pumps)}")

    async def tell(self, pump: SimulatedPump, sample: Sample) -> None:
        self.calls.append(f"{pump.name} {sample.number}")

    async def close(self) -> None:
        self.calls.append("close")


@pytest.mark.anyio
@pytest.mark.parametrize(("kind", "wanted"), [("restart", 32.0), ("drop", 40.0)])
async def test_links_are_cut_on_schedule_and_a_restart_forgets_the_set_point(
    kind: str, wanted: float
) -> None:
    server, schedule = Told(), read_faults([f"{kind}@2+2"], CHANNELS, 0.0)
    machine = SimulatedPump("simulated-pump-1", 1, 1.0, schedule)
    plant = SimulatedPlant([machine], [server], schedule, 1.0)
    await plant.open()
    machine.want_flow(40.0)
    for _ in range(6):
        await plant.step()
    await plant.close()
    name = machine.name
    assert server.calls == [
        "open 1",
        f"{name} 0",
        f"{name} 1",
        "close",
        "open 1",
        f"{name} 4",
        f"{name} 5",
        "close",
    ]
    assert machine.flow_setpoint_l_per_min == pytest.approx(wanted, abs=0.1)


@pytest.mark.anyio
async def test_set_point_written_over_either_protocol_is_followed_and_seen_on_both(
    tmp_path: Path,
) -> None:
    opcua, modbus = free_ports(2)
    machine = pump(period_s=0.5)
    servers: list[PlantServer] = [
        OpcUaPlant("127.0.0.1", opcua),
        ModbusPlant("127.0.0.1", modbus),
    ]
    plant = SimulatedPlant([machine], servers, FaultSchedule(), 0.5)
    declared = site(opcua, modbus)
    declared["sources"][1]["device_id"] = 1
    found = live_configuration(tmp_path, declared["connections"], *declared["sources"])
    plc, drives = (connection.connection for connection in found.connections)
    node = "nsu=urn:heddle:simulated-plant;s=simulated-pump-1.flow_setpoint"
    over_opcua = OpcUaTarget(node, Scaling())
    register = Field(table=Table.HOLDING, address=0)
    over_modbus = ModbusTarget(1, register, Scaling(0.1))
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
    await plant.open()
    try:
        feeds = [RecordingFeed(), RecordingFeed()]
        async with (
            delivering(plc, (found.live[0].source, feeds[0])),
            delivering(drives, (found.live[1].source, feeds[1])),
        ):
            await plant.step()
            await until(lambda: all(feed.values(0) for feed in feeds))
            assert await plc.write(over_opcua, 40.0) == 40.0
            await plant.step()
            assert machine.flow_setpoint_l_per_min == 40.0
            assert await drives.write(over_modbus, 25.5) == 25.5
            await plant.step()
            assert machine.flow_setpoint_l_per_min == 25.5
            assert await drives.write(over_modbus, 900.0) == pytest.approx(48.0, abs=0.2)
            for _ in range(60):
                await plant.step()
            await until(lambda: all(feed.values(0)[-1] > 45.0 for feed in feeds))
    finally:
        await plant.close()
        await asyncio.sleep(0.05)  # transports close in the loop


# --- served to a real agent ---------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    opened = [socket.socket() for _ in range(count)]
    for one in opened:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in opened]
    for one in opened:
        one.close()
    return ports


@contextmanager
def process(log: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as written:
        started = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env=os.environ | environment,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
        try:
            yield started
        finally:
            if started.poll() is None:
                started.terminate()
                try:
                    started.wait(20)
                except subprocess.TimeoutExpired:
                    started.kill()
                    started.wait()


def wait_for(condition: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def frames_of(server: FrameServer, asset: str) -> list[Frame]:
    found = [decode(server.frame_bytes[key]) for key in sorted(server.frame_bytes)]
    return [frame for frame in found if frame.header.asset == asset]


def values_of(server: FrameServer, asset: str, channel: str) -> list[float]:
    return [
        float(value)
        for frame in frames_of(server, asset)
        for index, declared in enumerate(frame.header.channels)
        if declared.name == channel
        for value in frame.values[index]
    ]


def site(opcua: int, modbus: int, window_s: float = 0.2) -> dict[str, Any]:
    window = {"seconds": window_s, "readings": 1000}
    node = "nsu=urn:heddle:simulated-plant;s=simulated-pump-1.{}".format
    return {
        "agent": "site-1",
        "connections": {
            "plc": {"kind": "opcua", "url": f"opc.tcp://127.0.0.1:{opcua}/simulated"},
            "drives": {"kind": "modbus-tcp", "host": "127.0.0.1", "port": modbus},
        },
        "sources": [
            {
                "kind": "opcua",
                "connection": "plc",
                "asset": "simulated-pump-1",
                "asset_type": "skab-pump-loop",
                "window": window,
                "channels": {
                    "flow": {"node": node("flow"), "unit": "l/min"},
                    "pressure": {"node": node("pressure"), "unit": "bar"},
                },
            },
            {
                "kind": "modbus-tcp",
                "connection": "drives",
                "asset": "simulated-pump-2",
                "asset_type": "skab-pump-loop",
                "device_id": 2,
                "period_ms": 100,
                "window": window,
                "channels": {
                    "flow": {"table": "input", "address": 14, "type": "float32", "unit": "l/min"}
                },
            },
        ],
    }


QUICK = {"HEDDLE_AGENT_RETRY_DELAY_S_MIN": "0.05", "HEDDLE_AGENT_RETRY_DELAY_S_MAX": "0.2"}


@pytest.mark.slow
def test_agent_reads_the_plant_over_its_protocols_survives_a_drop_and_reloads(
    tmp_path: Path,
) -> None:
    opcua, modbus = free_ports(2)
    plant_log, agent_log = tmp_path / "plant.log", tmp_path / "agent.log"
    config, state = tmp_path / "site.yaml", tmp_path / "state"
    config.write_text(yaml.safe_dump(site(opcua, modbus)))
    ports = [f"--opcua={opcua}", f"--modbus={modbus}"]
    plant = ["-m", "api.cli", "plant", "--period=0.1", "--fault=drop@6+1.5", *ports]
    agent = ["-m", "edge_agent", "run", f"--config={config}", f"--state-dir={state}"]
    with serving(FrameServer()) as server, process(plant_log, *plant):
        wait_for(lambda: plant_log.read_text().count("SIMULATED plant on") == 2, plant_log)
        with process(agent_log, *agent, f"--server={server.url}", **QUICK) as running:
            for asset in ("simulated-pump-1", "simulated-pump-2"):
                wait_for(lambda asset=asset: len(values_of(server, asset, "flow")) > 5, agent_log)  # type: ignore[misc]
            wait_for(lambda: agent_log.read_text().count("is down") >= 2, agent_log)
            wait_for(lambda: agent_log.read_text().count("is back") >= 2, agent_log)
            stored = len(values_of(server, "simulated-pump-1", "flow"))
            wait_for(lambda: len(values_of(server, "simulated-pump-1", "flow")) > stored, agent_log)

            faulty = site(opcua, modbus)
            faulty["sources"][0]["channels"]["flow"]["unit"] = "furlong"
            config.write_text(yaml.safe_dump(faulty))
            running.send_signal(signal.SIGHUP)
            wait_for(lambda: "unit.unknown" in agent_log.read_text(), agent_log)
            changed = site(opcua, modbus)
            changed["sources"][1]["channels"]["pressure"] = {
                "table": "input",
                "address": 6,
                "type": "float32",
                "unit": "bar",
            }
            config.write_text(yaml.safe_dump(changed))
            running.send_signal(signal.SIGHUP)
            wait_for(lambda: values_of(server, "simulated-pump-2", "pressure"), agent_log)
            assert running.poll() is None
    told = agent_log.read_text()
    assert "a new configuration is in force; 1 parts were stopped" in told
    assert "Traceback" not in told
    flows = values_of(server, "simulated-pump-2", "flow")
    assert min(value for value in flows if not math.isnan(value)) > 25.0
    with inspect_outbox(state) as outbox:
        sources = {source.name: source for source in outbox.status().sources}
        losses = outbox.status().loss_counts
    assert losses["connection.down"] == 2
    assert losses["agent.reconfigured"] == 1
    assert set(sources) == {"simulated-pump-1", "simulated-pump-2"}


@pytest.mark.slow
def test_check_and_browse_show_the_plant_and_keep_nothing(tmp_path: Path) -> None:
    opcua, modbus = free_ports(2)
    log = tmp_path / "plant.log"
    config = tmp_path / "site.yaml"
    declared = site(opcua, modbus)
    declared["sources"][0]["channels"]["motor_current"] = {"node": "ns=2;s=none", "unit": "A"}
    config.write_text(yaml.safe_dump(declared))

    def command(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "edge_agent", *arguments, f"--config={config}"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    ports = [f"--opcua={opcua}", f"--modbus={modbus}"]
    with process(log, "-m", "api.cli", "plant", "--period=0.1", *ports):
        wait_for(lambda: log.read_text().count("SIMULATED plant on") == 2, log)
        code, told = command("check", "--rows=1", "--seconds=3", "--json")
        shown = yaml.safe_load(told)
        assert code == 0, told
        assert {(r["source"], r["channel"], r["unit"]) for r in shown["readings"]} == {
            ("simulated-pump-1", "flow", "l/min"),
            ("simulated-pump-1", "pressure", "bar"),
            ("simulated-pump-2", "flow", "l/min"),
        }
        (flow,) = [
            r
            for r in shown["readings"]
            if (r["source"], r["channel"]) == ("simulated-pump-2", "flow")
        ]
        assert flow["si"] == pytest.approx(flow["value"] / 60_000)
        assert flow["si_unit"] == "m3/s"
        (first,) = [s for s in shown["sources"] if s["source"] == "simulated-pump-1"]
        assert first["silent_channels"] == ["motor_current"]
        assert "BadNodeIdUnknown" in first["faults"]["motor_current: node.refused"]
        code, told = command("browse", "plc", "--below=ns=2;s=simulated-pump-1", "--count=20")
        assert code == 0, told
        assert ': {node: "ns=2;s=simulated-pump-1.flow", unit: l/min}' in told
        assert yaml.safe_load(told)["channels"]
        code, told = command("browse", "nobody")
        assert (code, "connection.unknown" in told) == (2, True)
    code, told = command("check", "--seconds=3")
    assert code == 1
    assert "connection.unreachable" in told
