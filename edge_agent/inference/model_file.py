"""One version of a model as a file: what it says of itself, and that it is the one that is meant.

The file is the whole artefact; what the agent needs to know of it stands in its metadata under
``heddle`` (see `ml.onnx_export`). It is loaded only when its SHA-256 is the expected one; that
this hash is the right one is vouched for by the configuration or by a signed directive.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from domain.errors import InvalidInput
from domain.identifiers import check_identifier
from domain.texts import check_sha256

MODEL_BYTES_MAX: Final = 64 * 1024 * 1024
CHANNELS_MAX: Final = 256
BASELINE_S_MAX: Final = 24 * 3600
WINDOW_S_MAX: Final = 3600
METADATA_KEY: Final = "heddle"
FORMAT: Final = 1
ANOMALY: Final = "anomaly"


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a model says of itself.

    Parameters
    ----------
    asset_types : whose windows it can judge
    channels : in the order of its input
    baseline_s, window_s : see `ml.deviation`
    """

    model: str
    version: str
    asset_types: tuple[str, ...]
    channels: tuple[str, ...]
    baseline_s: int
    window_s: int

    @property
    def name(self) -> str:
        """``MODEL-ID@VERSION``, as predictions name it."""
        return f"{self.model}@{self.version}"


def check_content(content: bytes, sha256: str) -> None:
    """Raise unless `content` is the file that has the hash `sha256`.

    Raises
    ------
    InvalidInput
        ``model.too_large``, ``model.hash_mismatch``, ``sha256.malformed``
    """
    check_sha256("sha256", sha256)
    if len(content) > MODEL_BYTES_MAX:
        raise InvalidInput(
            "model.too_large",
            f"the model takes {len(content)} bytes, more than {MODEL_BYTES_MAX}",
            value=len(content),
            limit=MODEL_BYTES_MAX,
        )
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise InvalidInput(
            "model.hash_mismatch",
            f"the model's SHA-256 is {found}, not {sha256}",
            hint="it was exchanged or cut short on its way",
            value=found,
            limit=sha256,
        )


def parse_description(text: str) -> ModelDescription:
    """Return what the metadata `text` of a model says.

    Raises
    ------
    InvalidInput
        ``model.description``
    """
    try:
        told = json.loads(text)
        return _description(told)
    except (ValueError, KeyError, TypeError, RecursionError, InvalidInput) as error:
        raise InvalidInput(
            "model.description",
            f"the model does not say what it is: {error}",
            hint="export it with ml.onnx_export",
        ) from error


def _description(told: Mapping[str, Any]) -> ModelDescription:
    if told["format"] != FORMAT or told["kind"] != ANOMALY:
        raise ValueError(f"format {told['format']!r} and kind {told['kind']!r} are not known")
    channels = tuple(check_identifier("channel", name) for name in told["channels"])
    if not 1 <= len(set(channels)) == len(channels) <= CHANNELS_MAX:
        raise ValueError("its channels are none, too many or repeated")
    baseline_s, window_s = told["baseline_s"], told["window_s"]
    for seconds, limit in ((baseline_s, BASELINE_S_MAX), (window_s, WINDOW_S_MAX)):
        if type(seconds) is not int or not 1 <= seconds <= limit:
            raise ValueError(f"{seconds!r} is no number of seconds up to {limit}")
    return ModelDescription(
        model=check_identifier("model", told["model"]),
        version=check_identifier("model", told["version"]),
        asset_types=tuple(check_identifier("asset_type", name) for name in told["asset_types"]),
        channels=channels,
        baseline_s=baseline_s,
        window_s=window_s,
    )
