"""The demo's model: the published anomaly detector of the pump loop, on a recording it can judge.

The recording is read as fast as it can be, so that what the model says of it is there in seconds;
of a pump that runs now it would say nothing before its baseline of 400 s.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from api.model_cli import read_manifest
from domain.errors import InvalidInput

FOLDER: Final = Path(__file__).resolve().parents[1] / "docs" / "models" / "skab-pump-anomaly"
JUDGED: Final = ("pump-loop-judged", "Pump loop with a closing valve, judged by a model (SKAB)")
SIMULATED: Final = ("pump-simulated-judged", "SIMULATED pump loop, judged by a model")
RECORDING: Final = "skab/data/valve1/8.csv"
"""With a fault that the model tells; it was trained on this recording among others."""


def model_is_there() -> bool:
    """Return whether the model and what runs it (``heddle[edge]``) are there."""
    if find_spec("onnxruntime") is None:
        return False
    try:
        read_manifest(FOLDER)
    except InvalidInput:
        return False  # an installation without the repository's documents
    return True


def model_configuration(source: str) -> dict[str, Any]:
    """Return what an agent's configuration says of the model and the source it judges."""
    manifest = read_manifest(FOLDER)
    return {
        "models": [
            {
                "model": manifest["model"],
                "file": str(FOLDER / manifest["artefact"]),
                "sha256": manifest["sha256"],
                "sources": [source],
            }
        ]
    }


def simulated_source(asset_type: str) -> dict[str, Any]:
    """Return a simulated source whose valve half closes, once the model knows its baseline."""
    return {
        "kind": "simulated-pump",
        "asset": SIMULATED[0],
        "asset_type": asset_type,
        "seed": 2,
        "samples": 1_500,
        "valve_fault_every_s": 1_200,
        "start": "2026-01-01T00:00:00Z",
        "window": {"seconds": 10, "readings": 1000},
        "replay": {"times": "recorded", "speed": "max"},
    }
