"""What runs a model: ONNX Runtime on what the machine has, or torch where torch is there.

Both libraries are imported when the first model is loaded, never before.
"""

from __future__ import annotations

import io
import json
import logging
import re
import zipfile
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from domain.errors import InvalidInput, Unavailable
from edge_agent.inference.model_file import (
    METADATA_KEY,
    MODEL_BYTES_MAX,
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
ARCHIVE_BYTES_MAX: Final = 4 * MODEL_BYTES_MAX
_PLAIN: Final = frozenset(
    {"models/model.json", "extra/heddle.json", "archive_format", "archive_version", "byteorder"}
)
_RAW_WEIGHT: Final = re.compile(r"data/(weights|constants)/(weight|tensor)_[0-9]+")
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
        ``model.too_large``, ``model.hash_mismatch``, ``model.description``, ``model.malformed``,
        ``model.unsafe``
    Unavailable
        ``model.no_runtime``: what it needs is not installed
    """
    check_content(content, sha256)
    # An archive of torch.export is a zip file, an ONNX model a protobuf message.
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
    """A module that returns (ratio, contributions, health), on the GPU where there is one."""

    def __init__(self, torch: Any, module: Any, device: str, description: ModelDescription) -> None:
        self.description = description
        self.device = f"torch {device}"
        self._torch = torch
        self._module = module
        self._place = device

    def run(self, deviations: SingleArray) -> Answer:
        """Return what the model says of `deviations`."""
        with self._torch.inference_mode():
            outputs = self._module(self._torch.from_numpy(deviations).to(self._place))
        return Answer(*(output.cpu().numpy() for output in outputs))


def _torch(content: bytes) -> Runtime:
    check_archive(content)
    try:
        import torch
    except ImportError as error:
        raise Unavailable(
            "model.no_runtime",
            "this is a model for torch, and torch is not installed",
            hint="pip install torch, or promote a version in ONNX",
        ) from error
    # The thread that asks is bounded; more of them would take the core of others.
    torch.set_num_threads(1)
    extra = {TORCH_METADATA: ""}
    try:
        program = torch.export.load(io.BytesIO(content), extra_files=extra)
        description = parse_description(str(extra[TORCH_METADATA]))
        module, device = _placed(torch, program.module(), description)
    except InvalidInput:
        raise
    except Exception as error:  # its errors have no common class
        raise _malformed(str(error)) from error
    return TorchModel(torch, module, device, description)


def _placed(torch: Any, module: Any, description: ModelDescription) -> tuple[Any, str]:
    """Return the module where it runs: on CUDA if it works there, else on the CPU."""
    if torch.cuda.is_available():
        try:
            moved = module.to("cuda")
            with torch.inference_mode():
                moved(torch.zeros(1, len(description.channels), device="cuda"))
            return moved, "cuda"
        except Exception as error:  # a driver that does not fit, memory that others hold
            _log.warning("CUDA is there and does not work: %s", error)
    return module.to("cpu"), "cpu"


def check_archive(content: bytes) -> None:
    """Raise unless an archive of ``torch.export`` holds graph and raw weights, and no pickle.

    torch unpickles examples of inputs, custom objects and weights that say so; who signs a model
    vouches for what it computes, not for programs in its file.

    Raises
    ------
    InvalidInput
        ``model.malformed``, ``model.unsafe``
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > ARCHIVE_BYTES_MAX:
                raise _malformed("its archive is far larger than the file")
            for member in members:
                _check_member(archive, member)
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, TypeError) as error:
        raise _malformed(f"it is no archive: {error}") from error


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    name = member.filename.partition("/")[2]
    if name in _PLAIN or name.startswith(".data/"):
        return
    if name.endswith("_config.json"):
        entries = json.loads(archive.read(member))["config"]
        if not any(entry["use_pickle"] for entry in entries.values()):
            return
    # Weights are raw bytes by their own configuration, which was just looked at.
    elif _RAW_WEIGHT.fullmatch(name) or member.file_size == 0:
        return
    raise InvalidInput(
        "model.unsafe",
        f"the archive holds {name!r:.80}, which would be unpickled",
        hint="export it with ml.torch_export",
        value=name[:80],
    )


def _malformed(told: str) -> InvalidInput:
    return InvalidInput("model.malformed", f"the model cannot be run: {told:.300}")
