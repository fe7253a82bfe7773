"""What the file of a detector says of itself, whatever the format of the file.

An agent reads it before it asks the model anything (`edge_agent.inference.model_file`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from ml.anomaly import AnomalyDetector

FORMAT: Final = 1
KIND: Final = "anomaly"
INPUT: Final = "deviations"
OUTPUTS: Final = ("ratio", "contributions", "health")


def described(
    detector: AnomalyDetector, model: str, version: str, asset_types: Sequence[str]
) -> str:
    """Return the JSON that goes into the file's metadata."""
    settings = detector.settings
    return json.dumps(
        {
            "format": FORMAT,
            "kind": KIND,
            "model": model,
            "version": version,
            "asset_types": list(asset_types),
            "channels": list(detector.channels),
            "baseline_s": settings.baseline_s,
            "window_s": settings.window_s,
        },
        sort_keys=True,
    )
