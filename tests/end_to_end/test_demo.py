"""`heddle demo` as somebody sees it: a pump, a factory, and a recall that answers."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.demo_broker import find_mosquitto
from tests.end_to_end.processes import PATIENCE_S, REPOSITORY, Process, free_port

pytestmark = pytest.mark.slow


def shown(demo: Process, pattern: str, after: int = 0) -> str:
    """Return what the demo prints of `pattern` once it has."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := re.search(pattern, demo.log[after:]):
            return found[0]
        assert demo.is_running, demo.log
        time.sleep(0.2)
    raise AssertionError(f"no {pattern!r} in {demo.log}")


def position(url: str) -> int:
    answer = httpx.post(f"{url}/graphql", json={"query": "{ log { position } }"}, timeout=10)
    return int(answer.json()["data"]["log"]["position"])


def traced(name: str, url: str, demo: Process) -> str:
    """Return what `heddle trace` prints of a bad lot, once its failures are folded."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        ran = subprocess.run(
            [sys.executable, "-m", "api.cli", "trace", name, "--server", url],
            check=False,
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
        )
        assert ran.returncode == 0, ran.stderr + demo.log
        if re.search(r"failure: \d+ active", ran.stdout) or time.monotonic() > deadline:
            return ran.stdout
        time.sleep(0.2)


def answer(url: str, document: str) -> dict[str, Any]:
    told = httpx.post(f"{url}/graphql", json={"query": document}, timeout=20).json()
    assert "errors" not in told, told
    data: dict[str, Any] = told["data"]
    return data


def close_the_loop(url: str, demo: Process) -> None:
    """Desire a flow in GraphQL until the pump, over OPC UA, has it and the twin shows it."""
    told = answer(
        url,
        'mutation { desireSetpoint(input: { idempotencyKey: "close-the-loop", '
        'assetId: "simulated-pump-1", setpoint: "flow", value: 40, unit: "l/min" }) '
        "{ __typename ... on Error { message } } }",
    )
    assert told["desireSetpoint"]["__typename"] == "DesireSetpointSuccess", told
    twin = (
        '{ asset(assetId: "simulated-pump-1") { twin { '
        "readings { channel value } "
        'setpoints { setpoint reported(unit: "l/min") } } } }'
    )
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        state = answer(url, twin)["asset"]["twin"]
        readings = {r["channel"]: r["value"] or 0.0 for r in state["readings"]}
        reported = [s["reported"] for s in state["setpoints"] if s["setpoint"] == "flow"]
        if reported == [pytest.approx(40.0)] and readings.get("flow", 0.0) > 39.0 / 60_000:
            return
        assert demo.is_running, demo.log
        time.sleep(0.5)
    raise AssertionError(demo.log)


def see_what_the_model_says(url: str, demo: Process) -> None:
    """Wait until the trained model has told of the loop whose valve closes, with its reasons."""
    asked = (
        '{ predictions(first: 50, filter: { modelIds: ["skab-pump-anomaly"] }) { nodes { '
        "assetId modelName health inputFromPosition inputToPosition "
        "explanation { feature contribution } } } }"
    )
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = answer(url, asked)["predictions"]["nodes"]
        sick = [one for one in found if one["health"] < 1]
        if sick:
            assert {one["assetId"] for one in found} == {"pump-simulated-judged"}
            assert {one["modelName"] for one in found} == {"skab-pump-anomaly@1"}
            assert int(sick[0]["inputFromPosition"]) < int(sick[0]["inputToPosition"])
            assert sum(r["contribution"] for r in sick[0]["explanation"]) < 0
            return
        assert demo.is_running, demo.log
        time.sleep(0.5)
    raise AssertionError(demo.log)


def test_the_demo_shows_a_factory_whose_bad_lot_can_be_recalled(folder: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "HEDDLE_DATA_DIR": str(folder / "data"),
        "HEDDLE_DATA": str(folder / "no recordings"),
        "HEDDLE_PORT": str(port),
    }
    with Process(["demo"], environment, folder / "demo.log") as demo:
        demo.start()
        lot = shown(demo, r"lot:LOT-1-\d+")
        told = traced(lot, url, demo)
        assert "lot.received" in told
        assert f"{lot} as the thread knows it" in told
        assert re.search(r"part: .*shipped", told)
        assert re.search(r"failure: \d+ active", told)
        shown(demo, r"simulated-pump-1 ONLINE, .*simulated-pump-2 ONLINE")
        if find_mosquitto() is None:
            assert "Mosquitto is not installed" in demo.log
        else:
            shown(demo, "simulated-pump-3 ONLINE")
        see_what_the_model_says(url, demo)
        close_the_loop(url, demo)
        assert demo.stop() == 0

        seen = len(demo.log)
        demo.start()
        shown(demo, r"lot:LOT-1-\d+", after=seen)
        assert "could not be made" not in demo.log
        assert position(url) < 12_000, "a second factory would be twice as many events"
        assert demo.stop() == 0
