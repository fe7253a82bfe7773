"""A set-point desired in GraphQL moves a real device, and what became of it is in the log."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.edge_agent.setpoints.site import L_PER_MIN, Device, device
from tests.end_to_end.processes import PATIENCE_S, REPOSITORY, Process, Server, free_port

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

AGENT = "edge-1"
ASSET = "pump-7"


class LiveAgent(Process):
    """`heddle agent run` on a configuration of its own."""

    def __init__(self, folder: Path, server: Server, configuration: dict[str, Any]) -> None:
        folder.mkdir()
        self.state_dir = folder / "state"
        self.metrics_port = free_port()
        config = folder / "agent.yaml"
        config.write_text(yaml.safe_dump(configuration))
        super().__init__(
            [
                "agent",
                "run",
                f"--config={config}",
                f"--server={server.url}",
                f"--state-dir={self.state_dir}",
            ],
            {
                "HEDDLE_AGENT_RETRY_DELAY_S_MAX": "0.5",
                "HEDDLE_AGENT_METRICS_PORT": str(self.metrics_port),
            },
            folder / "agent.log",
        )


def configuration(url: str, vkey: str, mode: str) -> dict[str, Any]:
    return {
        "agent": AGENT,
        "connections": {"plc-1": {"kind": "opcua", "url": url, "timeout_s": 2}},
        "sources": [
            {
                "kind": "opcua",
                "connection": "plc-1",
                "asset": ASSET,
                "asset_type": "skab-pump-loop",
                "window": {"seconds": 0.2, "readings": 1000},
                "publishing_ms": 50,
                "channels": {"flow": {"node": "ns=2;s=Flow", "unit": "l/min"}},
            }
        ],
        "directives": {"keys": [vkey]},
        "setpoints": [
            {
                "asset": ASSET,
                "asset_type": "skab-pump-loop",
                "setpoint": "flow",
                "connection": "plc-1",
                "target": {"node": "ns=2;s=Setpoint"},
                "unit": "l/min",
                "mode": mode,
                "range": {"min": 15, "max": 40},
                "two_person": False,
                "tolerance": 0.01,
                "interlocks": [{"channel": "flow", "unit": "l/min", "min": 1, "age_s_max": 3600}],
            }
        ],
    }


async def until(holds: Callable[[], Any], agent: Process) -> None:
    """Return once `holds` returns something true."""
    deadline = time.monotonic() + PATIENCE_S / 2
    while time.monotonic() < deadline:
        assert agent.is_running, agent.log
        if await asyncio.to_thread(holds):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(agent.log)


def events(server: Server, *types: str) -> list[dict[str, Any]]:
    """Return the recorded events of `types`, in order."""
    wanted = ", ".join(f'"{one}"' for one in types)
    told = server.query(
        f"{{ events(first: 100, filter: {{types: [{wanted}]}}) {{ nodes {{ type fact actor }} }} }}"
    )
    found: list[dict[str, Any]] = told["events"]["nodes"]
    return found


def mutate(server: Server, name: str, fields: str) -> None:
    told = server.query(
        f'mutation {{ told: {name}(input: {{idempotencyKey: "{time.time_ns()}", {fields}}}) '
        "{ __typename ... on Error { code message } } }"
    )["told"]
    assert told["__typename"].endswith("Success"), told


async def in_thread(server: Server, name: str, fields: str) -> None:
    await asyncio.to_thread(mutate, server, name, fields)


async def test_setpoint_goes_from_graphql_to_the_device_and_back_into_the_log(
    folder: Path,
) -> None:
    with Server(folder) as server:
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(server.register, ASSET)
        told = await asyncio.to_thread(httpx.get, f"{server.url}/tlog/plant-1/vkey")
        vkey = told.text.strip()
        async with device() as plc:
            with LiveAgent(
                folder / "agent", server, configuration(plc.url, vkey, "closed-loop")
            ) as agent:
                agent.start()
                await _close_the_loop(server, agent, plc)


async def test_what_was_desired_before_an_agent_first_came_is_applied_once_or_refused(
    folder: Path,
) -> None:
    """Also by an agent that is killed while it is told; another one finds it answered."""
    with Server(folder) as server:
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(server.register, ASSET)
        told = await asyncio.to_thread(httpx.get, f"{server.url}/tlog/plant-1/vkey")
        desired = f'assetId: "{ASSET}", setpoint: "flow", value: '
        async with device() as plc:
            declared = configuration(plc.url, told.text.strip(), "closed-loop")
            await in_thread(server, "desireSetpoint", f"{desired}{22 * L_PER_MIN}")
            await in_thread(server, "desireSetpoint", f"{desired}{25 * L_PER_MIN}")
            with LiveAgent(folder / "agent", server, declared) as agent:
                agent.start()
                await until(lambda: events(server, "asset.setpoint_reported"), agent)
                assert await plc.value() == pytest.approx(25.0)
                agent.kill()
                await plc.setpoint.write_value(21.0)  # somebody at the machine
                agent.start()
                await in_thread(server, "desireSetpoint", f"{desired}{12 * L_PER_MIN}")
                await until(lambda: events(server, "asset.setpoint_declined"), agent)
                assert agent.stop() == 0
            assert await plc.value() == pytest.approx(21.0), "what was answered is not told again"

            # Too old for the site by the time that its agent comes for the first time.
            await in_thread(server, "desireSetpoint", f"{desired}{30 * L_PER_MIN}")
            await asyncio.sleep(1.5)
            declared["agent"], declared["setpoints"][0]["age_s_max"] = "edge-2", 1
            with LiveAgent(folder / "another", server, declared) as another:
                another.start()
                await until(lambda: len(events(server, "asset.setpoint_declined")) == 2, another)
                assert another.stop() == 0
            assert await plc.value() == pytest.approx(21.0)
    assert "directive.stale" in another.log


async def _close_the_loop(server: Server, agent: LiveAgent, plc: Device) -> None:
    streams = agent.state_dir / "outbox.sqlite3"
    await until(streams.exists, agent)
    await until(lambda: events_of_frames(server), agent)
    await in_thread(
        server, "desireSetpoint", f'assetId: "{ASSET}", setpoint: "flow", value: {25 * L_PER_MIN}'
    )
    await until(lambda: events(server, "asset.setpoint_reported"), agent)
    assert await plc.value() == pytest.approx(25.0)
    reported = events(server, "asset.setpoint_reported")[0]
    assert reported["fact"]["value"] == pytest.approx(25 * L_PER_MIN)

    await in_thread(
        server, "desireSetpoint", f'assetId: "{ASSET}", setpoint: "flow", value: {12 * L_PER_MIN}'
    )
    await until(lambda: events(server, "asset.setpoint_declined"), agent)
    assert events(server, "asset.setpoint_declined")[0]["fact"]["code"] == "setpoint.out_of_bounds"
    assert await plc.value() == pytest.approx(25.0), "within the type's bounds, not the site's"

    await in_thread(
        server,
        "proposeSetpoint",
        f'proposalId: "sp-1", assetId: "{ASSET}", setpoint: "flow", value: {30 * L_PER_MIN}, '
        'reason: "less wear"',
    )
    await in_thread(server, "approveSetpoint", 'proposalId: "sp-1"')
    await until(lambda: events(server, "setpoint_proposal.applied"), agent)
    assert await plc.value() == pytest.approx(30.0)

    await asyncio.to_thread(_check_told, agent)

    # Away while two more are desired: on its return the agent goes on where it was.
    agent.stop()
    await in_thread(
        server, "desireSetpoint", f'assetId: "{ASSET}", setpoint: "flow", value: {35 * L_PER_MIN}'
    )
    await in_thread(
        server, "desireSetpoint", f'assetId: "{ASSET}", setpoint: "flow", value: {36 * L_PER_MIN}'
    )
    agent.start()
    await until(lambda: len(events(server, "asset.setpoint_reported")) == 4, agent)
    assert await plc.value() == pytest.approx(36.0)
    (agent.state_dir / "stop-writing").touch()
    await in_thread(
        server, "desireSetpoint", f'assetId: "{ASSET}", setpoint: "flow", value: {20 * L_PER_MIN}'
    )
    await until(lambda: len(events(server, "asset.setpoint_declined")) == 2, agent)
    assert events(server, "asset.setpoint_declined")[1]["fact"]["code"] == "writing.stopped"
    assert await plc.value() == pytest.approx(36.0)


def _check_told(agent: LiveAgent) -> None:
    """Look at the running agent as an operator and Prometheus do."""
    told = _status(agent)
    deadline_s = time.monotonic() + PATIENCE_S
    # A running agent writes its status every few seconds.
    while told["running"]["directives_silent_s"] is None and time.monotonic() < deadline_s:
        time.sleep(0.5)
        told = _status(agent)
    assert told["running"]["connections"] == {"plc-1": ""}
    assert told["running"]["setpoints"] == {f"{ASSET}/flow": "closed-loop"}
    assert told["running"]["server_failing_s"] is None
    assert told["running"]["directives_silent_s"] < PATIENCE_S
    assert told["setpoint_counts"] == {"applied": 2, "refused: setpoint.out_of_bounds": 1}
    assert told["writing_stopped"] is False
    (source,) = told["sources"]
    assert (source["live"], source["asset"]) == (True, ASSET)
    metrics = httpx.get(f"http://127.0.0.1:{agent.metrics_port}/metrics").text.splitlines()
    assert 'heddle_agent_connection_up{connection="plc-1"} 1.0' in metrics
    assert "heddle_agent_server_up 1.0" in metrics


def _status(agent: LiveAgent) -> dict[str, Any]:
    asked = subprocess.run(
        [
            *(sys.executable, "-m", "api.cli", "agent", "status", "--running", "--json"),
            f"--state-dir={agent.state_dir}",
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    told: dict[str, Any] = json.loads(asked.stdout)
    return told


def events_of_frames(server: Server) -> list[dict[str, Any]]:
    return events(server, "asset.frame_recorded")
