"""The settings of an agent's process, read once from the environment.

What the agent reads and how is its configuration (`edge_agent.configuration`); this is where it
runs. A flag of the command line goes before the environment.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import httpx

from domain.errors import InvalidInput
from domain.frame_batches import BATCH_BYTES_MAX, BATCH_FRAMES_MAX
from domain.frames import FRAME_BYTES_MAX


@dataclass(frozen=True)
class Settings:
    """Where the agent sends, where it keeps its state, and its bounds.

    Parameters
    ----------
    server_url : Heddle's address, without a path of the API
    data_dir : folder to which the paths of recordings are relative
    state_dir : durable state; belongs to one agent
    outbox_bytes_max : frames on disk that are not acknowledged yet; sources wait beyond it
    batch_bytes_max, batch_frames_max : what one request carries at most
    request_timeout_s : until a request without an answer has failed
    retry_delay_s_min, retry_delay_s_max : the first and the longest pause after a failure
    progress_every_s : pause between two lines of progress
    api_key : by which the server knows the agent; the environment alone has it
    """

    server_url: str = "http://127.0.0.1:8000"
    data_dir: Path = Path("../shared/data")
    state_dir: Path = Path(".heddle/agent")
    outbox_bytes_max: int = 1024 * 1024 * 1024
    batch_bytes_max: int = 4 * 1024 * 1024
    batch_frames_max: int = 500
    request_timeout_s: float = 30.0
    retry_delay_s_min: float = 0.5
    retry_delay_s_max: float = 30.0
    progress_every_s: float = 2.0
    api_key: str | None = field(default=None, repr=False)


VARIABLES: Final[Mapping[str, str]] = {
    "server_url": "HEDDLE_SERVER_URL",
    "data_dir": "HEDDLE_DATA",
    "state_dir": "HEDDLE_AGENT_DIR",
    "outbox_bytes_max": "HEDDLE_AGENT_OUTBOX_BYTES_MAX",
    "batch_bytes_max": "HEDDLE_AGENT_BATCH_BYTES_MAX",
    "batch_frames_max": "HEDDLE_AGENT_BATCH_FRAMES_MAX",
    "request_timeout_s": "HEDDLE_AGENT_REQUEST_TIMEOUT_S",
    "retry_delay_s_min": "HEDDLE_AGENT_RETRY_DELAY_S_MIN",
    "retry_delay_s_max": "HEDDLE_AGENT_RETRY_DELAY_S_MAX",
    "progress_every_s": "HEDDLE_AGENT_PROGRESS_EVERY_S",
    "api_key": "HEDDLE_AGENT_API_KEY",
}

_BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "outbox_bytes_max": (FRAME_BYTES_MAX, 2**50),
    "batch_bytes_max": (1024, BATCH_BYTES_MAX),
    "batch_frames_max": (1, BATCH_FRAMES_MAX),
    "request_timeout_s": (0.1, 3600),
    "retry_delay_s_min": (0.001, 3600),
    "retry_delay_s_max": (0.001, 3600),
    "progress_every_s": (0.1, 3600),
}


def read_settings(environment: Mapping[str, str] | None = None, **flags: object | None) -> Settings:
    """Return the settings that `environment` (the process's) and `flags` make.

    Parameters
    ----------
    flags : fields of `Settings` given on the command line; None stands for not given

    Raises
    ------
    InvalidInput
        ``settings.invalid`` with every fault there is.
    """
    found = os.environ if environment is None else environment
    faults: list[str] = []
    values: dict[str, Any] = {}
    for known in fields(Settings):
        flag, text = flags.get(known.name), found.get(VARIABLES[known.name], "")
        if flag is None and not text:
            continue
        name = VARIABLES[known.name] if flag is None else f"--{known.name.replace('_', '-')}"
        try:
            values[known.name] = _read(known.name, text if flag is None else str(flag))
        except ValueError as error:
            faults.append(f"{name}: {error}")
    settings = Settings(**values)
    if not faults and settings.retry_delay_s_min > settings.retry_delay_s_max:
        faults.append("the retry delay's minimum is longer than its maximum")
    if faults:
        raise InvalidInput("settings.invalid", "; ".join(faults))
    return settings


def _read(name: str, text: str) -> object:
    if name == "api_key":
        return _api_key(text)
    match type(getattr(Settings, name)):
        case t if t is str:
            return _server_url(text)
        case t if t is int:
            return int(_bounded(name, int(text)))
        case t if t is float:
            return _bounded(name, float(text))
        case _:
            return Path(text)


def _bounded(name: str, number: float) -> float:
    least, most = _BOUNDS[name]
    if math.isnan(number) or not least <= number <= most:
        raise ValueError(f"{number} is not between {least:g} and {most:g}")
    return number


def _api_key(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("it is no key such as `heddle key create` prints")  # never the key itself
    return text


def _server_url(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError(f"{text!r} is not an address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{text!r} is not an address such as http://127.0.0.1:8000")
    return text.rstrip("/")
