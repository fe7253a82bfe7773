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

from domain.errors import HeddleError, InvalidInput, NotFound
from domain.frame_batches import BATCH_BYTES_MAX, BATCH_FRAMES_MAX
from domain.frames import FRAME_BYTES_MAX
from edge_agent.secrets import read_secret

STOP_WRITING_NAME: Final = "stop-writing"


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
    outbox_age_s_max : seconds of running until a live frame is too old to be sent
    ca_file : certificates by which the server is trusted; None: the system's
    certificate_file, key_file : by which the agent shows itself to the server (mTLS)
    metrics_port : of loopback, on which Prometheus asks; 0: nobody may
    otlp_endpoint : where traces go, such as http://127.0.0.1:4318/v1/traces; None: nowhere
    stop_writing_file : while it is there nothing is written to a device; None: ``stop-writing``
        in `state_dir`
    api_key : by which the server knows the agent: from the environment, or the secret
        ``agent-api-key``
    key_password : of `key_file`: the secret ``agent-key-password``
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
    outbox_age_s_max: float = 7 * 24 * 3600.0
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    metrics_port: int = 0
    stop_writing_file: Path | None = None
    otlp_endpoint: str | None = None
    api_key: str | None = field(default=None, repr=False)
    key_password: str | None = field(default=None, repr=False)

    @property
    def kill_switch(self) -> Path:
        """The file that stops all writing."""
        return self.stop_writing_file or self.state_dir / STOP_WRITING_NAME


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
    "outbox_age_s_max": "HEDDLE_AGENT_OUTBOX_AGE_S_MAX",
    "ca_file": "HEDDLE_AGENT_CA_FILE",
    "certificate_file": "HEDDLE_AGENT_CERTIFICATE_FILE",
    "key_file": "HEDDLE_AGENT_KEY_FILE",
    "metrics_port": "HEDDLE_AGENT_METRICS_PORT",
    "stop_writing_file": "HEDDLE_AGENT_STOP_WRITING_FILE",
    "otlp_endpoint": "HEDDLE_AGENT_OTLP_ENDPOINT",
    "api_key": "HEDDLE_AGENT_API_KEY",
}
SECRETS: Final[Mapping[str, str]] = {
    "api_key": "agent-api-key",
    "key_password": "agent-key-password",
}
"""What may also be told as a secret (`edge_agent.secrets`)."""

_BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "outbox_bytes_max": (FRAME_BYTES_MAX, 2**50),
    "batch_bytes_max": (1024, BATCH_BYTES_MAX),
    "batch_frames_max": (1, BATCH_FRAMES_MAX),
    "request_timeout_s": (0.1, 3600),
    "retry_delay_s_min": (0.001, 3600),
    "retry_delay_s_max": (0.001, 3600),
    "progress_every_s": (0.1, 3600),
    "outbox_age_s_max": (60, 10 * 365 * 24 * 3600),
    "metrics_port": (0, 65_535),
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
        if known.name not in VARIABLES:
            continue
        flag, text = flags.get(known.name), found.get(VARIABLES[known.name], "")
        if flag is None and not text:
            continue
        name = VARIABLES[known.name] if flag is None else f"--{known.name.replace('_', '-')}"
        try:
            values[known.name] = _read(known.name, text if flag is None else str(flag))
        except ValueError as error:
            faults.append(f"{name}: {error}")
    for name, secret in SECRETS.items():
        if name in values:
            continue
        try:
            told = read_secret(secret, found)
            values[name] = _api_key(told) if name == "api_key" else told
        except NotFound:
            pass
        except (HeddleError, ValueError) as error:
            faults.append(f"secret {secret}: {error}")
    settings = Settings(**values)
    if settings.key_file is not None and settings.certificate_file is None:
        faults.append(f"{VARIABLES['key_file']} without {VARIABLES['certificate_file']}")
    if not faults and settings.retry_delay_s_min > settings.retry_delay_s_max:
        faults.append("the retry delay's minimum is longer than its maximum")
    if faults:
        raise InvalidInput("settings.invalid", "; ".join(faults))
    return settings


def _read(name: str, text: str) -> object:
    if name == "api_key":
        return _api_key(text)
    if name == "otlp_endpoint":
        return _url(text)
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
    return _url(text).rstrip("/")


def _url(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError(f"{text!r} is not an address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{text!r} is not an address such as http://127.0.0.1:8000")
    return text
