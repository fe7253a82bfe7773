"""A model beside the machine with real processes: from a recording to predictions on the server."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from ml.anomaly import AnomalyDetector, AnomalySettings
from ml.onnx_export import anomaly_onnx
from tests.end_to_end.processes import PATIENCE_S, Agent, Process, Server, skab_source
from tests.recordings import REPOSITORY, data_folder, read_labels

pytestmark = pytest.mark.slow

MODEL = "skab-pump-anomaly"
RECORDING = "valve1/8"
TRAIN = """
mutation($input: TrainModelInput!) {
  trainModel(input: $input) { __typename ... on Error { code message } }
}
"""
PROMOTE = """
mutation($input: PromoteModelInput!) {
  promoteModel(input: $input) { __typename ... on Error { code message } }
}
"""
RETIRE = """
mutation($input: RetireModelInput!) {
  retireModel(input: $input) { __typename ... on Error { code message } }
}
"""
FRAMES = """
{ events(first: 500, filter: {streams: ["telemetry:pump-a"]}) { nodes {
    position frame { windowStart windowEnd } } } }
"""
PREDICTIONS = """
{ predictions(first: 100) { nodes {
    assetId modelName health predictedAt inputFromPosition inputToPosition
    explanation { feature value contribution } } } }
"""


def test_a_closing_valve_is_predicted_beside_the_machine_and_recorded_once(folder: Path) -> None:
    artefact = REPOSITORY / "docs" / "models" / MODEL / "model.onnx"
    model = {
        "model": MODEL,
        "file": str(artefact),
        "sha256": hashlib.sha256(artefact.read_bytes()).hexdigest(),
        "every_seconds": 1,
    }
    source = skab_source("pump-a", RECORDING, window_s=10)
    source["conditioning"] = {"flow": {"keep_raw": True, "range": {"low": 0, "high": 200}}}
    with Server(folder) as server:
        server.start()
        server.register("pump-a")
        server.query(TRAIN, input=trained())
        for _ in range(2):  # the second start finds everything told
            with Agent(folder / "agent", server.url, [source], models=[model]) as agent:
                agent.start()
                assert agent.wait() == 0, agent.log
        server.wait_until_folded()
        found = server.query(PREDICTIONS)["predictions"]["nodes"]
    told = sorted(found, key=lambda one: str(one["predictedAt"]))
    assert told, agent.log
    assert len({one["predictedAt"] for one in told}) == len(told), "each once"
    sick = [one for one in told if one["health"] < 1]
    labelled = read_labels(RECORDING)
    begun = datetime.fromisoformat(sick[0]["predictedAt"]).timestamp()
    assert labelled[0] < begun < labelled[0] + 90
    for one in told:
        assert (one["assetId"], one["modelName"]) == ("pump-a", f"{MODEL}@1")
        assert 0 < int(one["inputFromPosition"]) <= int(one["inputToPosition"])
        shares = [reason["contribution"] for reason in one["explanation"]]
        assert sum(shares) == pytest.approx(one["health"] - 1, abs=1e-4)


# --- versions come and go ----------------------------------------------------------------------

LIVE_MODEL = "pump-watch"
WINDOW_S = 20


def version(folder: Path, number: str, *, limit: float, asset_type: str = "skab-pump-loop") -> Path:
    """Write a version of a small model of two channels; the lower its limit, the more it minds."""
    detector = AnomalyDetector(
        ("flow", "pressure"),
        AnomalySettings(baseline_s=60, window_s=WINDOW_S),
        np.eye(2),
        limit,
    )
    content = anomaly_onnx(detector, LIVE_MODEL, number, [asset_type])
    at = folder / f"version-{number}"
    at.mkdir()
    (at / "model.onnx").write_bytes(content)
    described = {
        "model": LIVE_MODEL,
        "version": number,
        "purpose": "a test",
        "artefact": "model.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "code_version": "a test",
        "seed": 0,
        "metrics": {},
    }
    (at / "model.json").write_text(json.dumps(described))
    return at


def add(server: Server, at: Path) -> None:
    """Give the server a version as people do."""
    added = subprocess.run(
        [sys.executable, "-m", "api.cli", "model", "add", str(at), "--actor=user:mara"],
        cwd=REPOSITORY,
        env=os.environ | {"HEDDLE_DATA_DIR": str(server.data_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert added.returncode == 0, added.stderr


def decide(server: Server, document: str, number: str) -> None:
    told = server.query(
        document,
        input={
            "idempotencyKey": str(time.time_ns()),
            "modelId": LIVE_MODEL,
            "version": number,
            "reason": "a test",
        },
    )
    ((_, result),) = told.items()
    assert result["__typename"].endswith("Success"), result


class LiveAgent(Process):
    """`heddle agent run` that replays a recording at many times its speed, and goes on after."""

    def __init__(self, folder: Path, server: Server, file: Path) -> None:
        folder.mkdir()
        vkey = httpx.get(f"{server.url}/tlog/plant-1/vkey").text.strip()
        config = folder / "agent.yaml"
        declared = {
            "agent": "edge-1",
            "sources": [
                {
                    **skab_source("pump-a", RECORDING, speed=25, window_s=5),
                    "conditioning": {"flow": {"keep_raw": True, "range": {"low": 0, "high": 200}}},
                }
            ],
            "directives": {"keys": [vkey]},
            "models": [
                {
                    "model": LIVE_MODEL,
                    "file": str(file),
                    "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                    "every_seconds": 1,
                    "hold_seconds": 0,
                    "at_most_every_seconds": 1,
                }
            ],
        }
        config.write_text(yaml.safe_dump(declared))
        super().__init__(
            [
                *("agent", "run", f"--config={config}", f"--server={server.url}"),
                *(f"--state-dir={folder / 'state'}", f"--data={data_folder()}"),
            ],
            {"HEDDLE_AGENT_RETRY_DELAY_S_MAX": "0.5"},
            folder / "agent.log",
        )

    def wait_until_told(self, pattern: str, after: int = 0) -> int:
        """Return the length of the log once it tells `pattern` beyond `after`."""
        deadline = time.monotonic() + PATIENCE_S / 2
        while time.monotonic() < deadline:
            if re.search(pattern, self.log[after:]):
                return len(self.log)
            assert self.is_running, self.log
            time.sleep(0.05)
        raise AssertionError(f"no {pattern!r} in {self.log}")


def predictions_of(server: Server, number: str) -> list[dict[str, Any]]:
    found = server.query(PREDICTIONS)["predictions"]["nodes"]
    return [one for one in found if one["modelName"] == f"{LIVE_MODEL}@{number}"]


def wait_for_prediction(server: Server, agent: LiveAgent, number: str) -> None:
    deadline = time.monotonic() + PATIENCE_S / 2
    while not predictions_of(server, number):
        assert agent.is_running, agent.log
        assert time.monotonic() < deadline, agent.log
        time.sleep(0.1)


def test_versions_are_promoted_refused_retired_and_predict_with_the_input_they_saw(
    folder: Path,
) -> None:
    with Server(folder) as server:
        server.start()
        server.register("pump-a")
        calm = version(folder, "1", limit=1e9)
        add(server, calm)
        add(server, version(folder, "2", limit=1e-9))
        add(server, version(folder, "3", limit=1e-9, asset_type="press"))
        with LiveAgent(folder / "agent", server, calm / "model.onnx") as agent:
            agent.start()
            wait_for_prediction(server, agent, "1")
            decide(server, PROMOTE, "2")
            wait_for_prediction(server, agent, "2")
            agent.kill()
            agent.start()  # its state folder knows which version served
            # Of another asset type, and a file that somebody has changed: the second goes on.
            decide(server, PROMOTE, "3")
            seen = agent.wait_until_told("model pump-watch@3 does not serve, pump-watch@2 goes on")
            assert "judges assets of press, not of 'skab-pump-loop'" in agent.log
            swapped = version(folder, "4", limit=1e-9)
            add(server, swapped)
            sha256 = json.loads((swapped / "model.json").read_text())["sha256"]
            stored = server.data_dir / "documents" / "sha256" / sha256[:2] / sha256
            stored.write_bytes(stored.read_bytes()[:-1])
            decide(server, PROMOTE, "4")
            seen = agent.wait_until_told("pump-watch@4 does not serve, pump-watch@2 goes", seen)
            decide(server, PROMOTE, "2")
            decide(server, RETIRE, "2")
            seen = agent.wait_until_told("model pump-watch@2 is retired", seen)
            decide(server, PROMOTE, "1")
            agent.wait_until_told("model pump-watch@1 serves", seen)
            assert agent.stop() == 0
        server.wait_until_folded()
        found = predictions_of(server, "1") + predictions_of(server, "2")
        assert len({(one["predictedAt"], one["modelName"]) for one in found}) == len(found)
        frames = {
            int(node["position"]): node["frame"] for node in server.query(FRAMES)["events"]["nodes"]
        }
        for one in found:
            check_input(frames, one)


def check_input(frames: dict[int, dict[str, str]], prediction: dict[str, Any]) -> None:
    """Check that a prediction's positions are those of the frames its window has come in."""
    ended = datetime.fromisoformat(prediction["predictedAt"])
    begun = ended - timedelta(seconds=WINDOW_S)
    at = [int(prediction[name]) for name in ("inputFromPosition", "inputToPosition")]
    assert at[0] < at[1]
    first, last = (frames[position] for position in at)
    assert datetime.fromisoformat(first["windowStart"]) <= begun
    assert datetime.fromisoformat(first["windowEnd"]) >= begun
    assert datetime.fromisoformat(last["windowEnd"]) >= ended - timedelta(seconds=1)


def trained() -> dict[str, Any]:
    """Return what makes the version known to the server."""
    artefact = REPOSITORY / "docs" / "models" / MODEL / "model.onnx"
    return {
        "idempotencyKey": "trained",
        "modelId": MODEL,
        "version": "1",
        "purpose": "anomaly detection on a pump loop",
        "artefactSha256": hashlib.sha256(artefact.read_bytes()).hexdigest(),
        "trainingFromPosition": 1,
        "trainingToPosition": 1,
        "seed": 0,
        "codeVersion": "a test",
        "metrics": [],
    }
