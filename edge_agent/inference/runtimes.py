"""What runs a model: ONNX Runtime on what the machine has, or torch where torch is there.

Both libraries are imported when the first model is loaded, never before.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from domain.errors import InvalidInput, Unavailable
from edge_agent.inference.model_file import (
    METADATA_KEY,
    ModelDescription,
    check_content,
    parse_description,
)

SingleArray = npt.NDArray[np.float32]

PROVIDERS: Final = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
"""In the order in which they are tried, where they are there."""
OUTPUTS: Final = ("ratio", "contributions", "health")
INPUT: Final = "deviations"
TORCH_METADATA: Final = "heddle.json"
ZIP_MAGIC: Final = b"PK\x03\x04"

_log = logging.getLogger("heddle.edge.inference")


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of a batch; see `ml.anomaly.Assessment`.

    Parameters
    ----------
    ratio, health : float32, shape (n,)
    contributions : float32, shape (n, n_channels)
    """

    ratio: SingleArray
    contributions: SingleArray
    health: SingleArray


class Runtime(Protocol):
    """A loaded model."""

    description: ModelDescription
    device: str

    def run(self, deviations: SingleArray) -> Answer:
        """Return what the model says of `deviations`, shape (n, n_channels)."""


def load_model(content: bytes, sha256: str) -> Runtime:
    """Return the model in `content`, run once, so that the first true answer is not the slow one.

    Raises
    ------
    InvalidInput
        ``model.too_large``, ``model.hash_mismatch``, ``model.description``, ``model.malformed``
    Unavailable
        ``model.no_runtime``: what it needs is not installed
    """
    check_content(content, sha256)
    # A TorchScript archive is a zip file, an ONNX model a protobuf message.
    runtime = _torch(content) if content.startswith(ZIP_MAGIC) else _onnx(content)
    count = len(runtime.description.channels)
    try:
        answer = runtime.run(np.zeros((1, count), np.float32))
    except Exception as error:  # whatever a foreign graph may raise
        raise _malformed(str(error)) from error
    shapes = answer.ratio.shape, answer.contributions.shape, answer.health.shape
    if shapes != ((1,), (1, count), (1,)):
        raise _malformed(f"its outputs have the shapes {shapes}")
    return runtime


# --- ONNX ---------------------------------------------------------------------------------


class OnnxModel:
    """An ONNX model in a session of its own."""

    def __init__(self, session: Any, description: ModelDescription) -> None:
        self.description = description
        self.device: str = session.get_providers()[0]
        self._session = session

    def run(self, deviations: SingleArray) -> Answer:
        """Return what the model says of `deviations`."""
        return Answer(*self._session.run(OUTPUTS, {INPUT: deviations}))


def _onnx(content: bytes) -> Runtime:
    try:
        import onnxruntime  # 50 MB that nobody needs without a model
    except ImportError as error:
        raise Unavailable(
            "model.no_runtime", "ONNX Runtime is not installed: pip install heddle[edge]"
        ) from error
    there = set(onnxruntime.get_available_providers())
    providers = [name for name in PROVIDERS if name in there]
    options = onnxruntime.SessionOptions()
    # The models are small; threads would cost more than they bring, and take the core of others.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = _session(onnxruntime, content, options, providers)
    try:
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "")
    except UnicodeDecodeError as error:
        raise _malformed(str(error)) from error
    return OnnxModel(session, parse_description(text))


def _session(onnxruntime: Any, content: bytes, options: Any, providers: list[str]) -> Any:
    """Return a session on the first of `providers` that works; the CPU's always does."""
    for first in range(len(providers)):
        try:
            return onnxruntime.InferenceSession(
                content,
                sess_options=options,
                providers=providers[first:],
                enable_fallback=0,  # it would print; what fails here is tried again below
            )
        except Exception as error:  # its errors have no common class
            if providers[first] == providers[-1]:
                raise _malformed(str(error)) from error
            _log.warning("%s is there and does not work: %s", providers[first], error)
    raise Unavailable("model.no_runtime", "ONNX Runtime offers no provider")


# --- torch --------------------------------------------------------------------------------


class TorchModel:
    """A TorchScript model that returns (ratio, contributions, health)."""

    def __init__(self, torch: Any, module: Any, device: str, description: ModelDescription) -> None:
        self.description = description
        self.device = device
        self._torch = torch
        self._module = module

    def run(self, deviations: SingleArray) -> Answer:
        """Return what the model says of `deviations`."""
        with self._torch.inference_mode():
            outputs = self._module(self._torch.from_numpy(deviations).to(self.device))
        return Answer(*(output.cpu().numpy() for output in outputs))


def _torch(content: bytes) -> Runtime:
    try:
        import torch
    except ImportError as error:
        raise Unavailable(
            "model.no_runtime", "this is a TorchScript model, and torch is not installed"
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    extra = {TORCH_METADATA: ""}
    try:
        module = torch.jit.load(io.BytesIO(content), map_location=device, _extra_files=extra)
    except Exception as error:  # its errors have no common class
        raise _malformed(str(error)) from error
    return TorchModel(torch, module.eval(), device, parse_description(str(extra[TORCH_METADATA])))


def _malformed(told: str) -> InvalidInput:
    return InvalidInput("model.malformed", f"the model cannot be run: {told:.300}")
