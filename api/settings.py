"""The server's settings, read once from the environment; start-up fails with every fault."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from domain.errors import HeddleError, InvalidInput
from domain.identifiers import check_identifier

T = TypeVar("T")


class SettingsInvalid(HeddleError):
    """One or more settings cannot be used; the message lists all of them."""


def default_data_dir() -> Path:
    """Return where Heddle keeps its data when nobody says: the system's or the user's folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/heddle")
    return Path.home() / ".local" / "share" / "heddle"


@dataclass(frozen=True)
class ServerSettings:
    """Settings of `heddle serve`; each is ``HEDDLE_`` and its name in capitals.

    Parameters
    ----------
    database_url : a PostgreSQL 16+ server; None starts the embedded one in `data_dir`
    data_dir : the embedded database and the demo's state
    ledger : name of the log this server serves
    keys_dir : the ledger's signing key and last checkpoint; None is ``keys`` in `data_dir`
    origin : name of the log in its checkpoints, for ever; None is ``heddle.example/<ledger>``
    signing_key : the private key itself, where it is not to be a file
    checkpoint_interval_s : a head that moved is signed after at most so long
    witnesses : verifier keys whose cosignatures are accepted
    archive_url : where `heddle archive` moves payloads; None is ``archive`` in `data_dir`
    documents_url : where the files of documents lie; None is ``documents`` in `data_dir`
    frame_future_s_max : a frame that ends further in the future than this is refused
    ingest_bytes_max, graphql_bytes_max : largest request bodies
    otlp_endpoint : where to send traces (OTLP over HTTP); None sends none
    """

    database_url: str | None = field(default=None, repr=False)
    data_dir: Path = field(default_factory=default_data_dir)
    host: str = "127.0.0.1"
    port: int = 8000
    ledger: str = "plant-1"
    connections_max: int = 16
    keys_dir: Path | None = None
    origin: str | None = None
    signing_key: str | None = field(default=None, repr=False)
    checkpoint_interval_s: float = 2.0
    witnesses: tuple[str, ...] = ()
    archive_url: str | None = None
    documents_url: str | None = None
    frame_future_s_max: float = 300.0
    ingest_bytes_max: int = 16 * 1024 * 1024
    ingest_concurrency_max: int = 8
    graphql_bytes_max: int = 256 * 1024
    graphiql: bool = True
    otlp_endpoint: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Return the settings that ``HEDDLE_…`` variables give.

        Raises
        ------
        SettingsInvalid
            ``settings.invalid``, listing every variable that cannot be used
        """
        source = os.environ if environment is None else environment
        faults: list[str] = []
        given: dict[str, Any] = {}
        for name, parse in _PARSERS.items():
            variable = f"HEDDLE_{name.upper()}"
            text = source.get(variable, "")
            if not text:
                continue
            try:
                given[name] = parse(text)
            except (ValueError, InvalidInput) as error:
                told = "…" if name == "database_url" else repr(text)  # it may hold a password
                faults.append(f"{variable}={told}: {error}")
        if faults:
            raise SettingsInvalid(
                "settings.invalid",
                "; ".join(faults),
                hint="correct the environment variables named here",
                value=faults,
            )
        return cls(**given)


def _between(low: float, high: float, convert: Callable[[str], T]) -> Callable[[str], T]:
    def parse(text: str) -> T:
        value = convert(text)
        if not low <= value <= high:  # type: ignore[operator]
            raise ValueError(f"must be between {low} and {high}")
        return value

    return parse


def _postgresql_url(text: str) -> str:
    scheme, separator, _ = text.partition("://")
    if not separator or scheme not in ("postgresql", "postgres"):
        raise ValueError("must start with postgresql://")
    return text.replace("postgres://", "postgresql://", 1)


def _flag(text: str) -> bool:
    if text.lower() not in ("1", "0", "true", "false", "yes", "no"):
        raise ValueError("must be yes or no")
    return text.lower() in ("1", "true", "yes")


_PARSERS: dict[str, Callable[[str], Any]] = {
    "database_url": _postgresql_url,
    "data_dir": lambda text: Path(text).expanduser().resolve(),
    "host": str,
    "port": _between(1, 65_535, int),
    "ledger": lambda text: check_identifier("ledger", text),
    "connections_max": _between(4, 500, int),
    "keys_dir": lambda text: Path(text).expanduser().resolve(),
    "origin": str,
    "signing_key": str,
    "checkpoint_interval_s": _between(0.1, 3_600.0, float),
    "witnesses": lambda text: tuple(text.split()),
    "archive_url": str,
    "documents_url": str,
    "frame_future_s_max": _between(0.0, 86_400.0, float),
    "ingest_bytes_max": _between(1024, 64 * 1024 * 1024, int),
    "ingest_concurrency_max": _between(1, 64, int),
    "graphql_bytes_max": _between(1024, 16 * 1024 * 1024, int),
    "graphiql": _flag,
    "otlp_endpoint": str,
}
