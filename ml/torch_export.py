"""Detectors as archives of ``torch.export``, for agents that have torch and perhaps a GPU.

The same input and outputs as `ml.onnx_export`, in float32; the same detector gives the same bytes.
The archive holds the graph as JSON and the weights as raw bytes, and nothing that anybody would
unpickle; its description is the extra file ``heddle.json``. (TorchScript is
deprecated.)
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np

from ml.anomaly import AnomalyDetector
from ml.artefact import described

METADATA_FILE: Final = "heddle.json"
BATCH_MAX: Final = 100_000
"""Assets that are judged in one run."""


def anomaly_torch(
    detector: AnomalyDetector, name: str, version: str, asset_types: Sequence[str]
) -> bytes:
    """Return `detector` as the bytes of an archive of ``torch.export``."""
    import torch  # only who exports for torch has it

    class Assessed(torch.nn.Module):  # type: ignore[misc] # torch is not read
        precision: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            scaled = (detector.precision / detector.limit).astype(np.float32)
            self.register_buffer("precision", torch.from_numpy(scaled))

        def forward(
            self, deviations: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            contributions = deviations * (deviations @ self.precision)
            ratio = contributions.sum(dim=1)
            return ratio, contributions, 1 / torch.clamp(ratio, min=1.0)

    example = torch.zeros(2, len(detector.channels))
    rows = torch.export.Dim("n", min=1, max=BATCH_MAX)
    program = torch.export.export(Assessed().eval(), (example,), dynamic_shapes=({0: rows},))
    # Examples of inputs would be pickled into the archive.
    program._example_inputs = None
    made = io.BytesIO()
    told = described(detector, name, version, asset_types)
    torch.export.save(program, made, extra_files={METADATA_FILE: told})
    return made.getvalue()
