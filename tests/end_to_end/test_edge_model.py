"""A model beside the machine with real processes: from a recording to predictions on the server."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.processes import Agent, Server, skab_source
from tests.recordings import REPOSITORY, read_labels

pytestmark = pytest.mark.slow

MODEL = "skab-pump-anomaly"
RECORDING = "valve1/8"
TRAIN = """
mutation($input: TrainModelInput!) {
  trainModel(input: $input) { __typename ... on Error { code message } }
}
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
