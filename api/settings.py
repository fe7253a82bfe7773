"""The server's settings, read once from the environment; start-up fails with every fault."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

from api.access.issuer_keys import check_provider_url
from api.access.proxy import Network
from api.access.rights import Role
from api.access.tokens import ALGORITHMS
from domain.errors import HeddleError, InvalidInput
from domain.identifiers import check_identifier

T = TypeVar("T")

PortRange = tuple[int, int]
"""The first and the last of some ports."""

SEALING_KEY_BYTES: Final = 32
_UNTOLD: Final = {"database_url", "signing_key", "webhook_key"}
"""What is, or may hold, a secret: no message repeats it."""


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
    setpoint_valid_s : so long after it was desired a set-point may be applied by an agent
    documents_url : where the files of documents lie; None is ``documents`` in `data_dir`
    frame_future_s_max : a frame that ends further in the future than this is refused
    ingest_bytes_max, graphql_bytes_max : largest request bodies
    graphql_cost_max : an operation that costs more is not executed (`api.graphql.limits`)
    graphql_s_max : an operation is ended after so long
    graphql_concurrency_max : operations executed at once over HTTP
    graphql_rate, graphql_burst : cost that a client may ask for a second, and at once
    graphql_report_cost : whether every answer says what it cost, asked or not
    graphql_draft_statuses : the statuses 294 and 422 of the newer draft of GraphQL over HTTP
    trusted_documents : a file of documents that may be asked for by their hash
    trusted_documents_only : whether nothing else is executed
    cors_origins : web origins whose pages may read answers
    allowed_hosts : names that requests may be for; none: local ones on loopback, else any
    slow_operation_s : operations that take longer are logged
    otlp_endpoint : where to send traces (OTLP over HTTP); None sends none
    oidc_issuer, oidc_audience : whose JWTs are accepted, and whom they have to be for
    oidc_algorithms : what they may be signed with
    oidc_jwks_url : where the issuer's keys are; None: where its discovery document says
    oidc_actor_claim, oidc_roles_claim : which claim says who it is, and his roles
    oidc_role_names : what the issuer calls roles that are called otherwise here
    oidc_locations_claim : which claim names the locations that he sees; None: he sees everything
    oidc_leeway_s : by how much the issuer's clock may differ
    api_keys : whether whoever asks is recognised by an API key
    trusted_proxies : networks of proxies that check certificates and tell their subject
    proxy_header : the header in which they do
    proxy_subjects : the file that says whom each subject stands for
    dev_tokens : whether the tokens of `heddle token` are accepted; on loopback only
    transparency_public : whether checkpoints, tiles and proofs are served to anybody
    webhook_key : seals their secrets in the database, 32 bytes; None: a file among the keys
    webhook_http : whether webhooks may call http addresses too
    webhook_networks : private networks that webhooks may call
    webhook_hosts : the only names that they may call, ``*.example.org`` too; none: any
    webhook_ports : the only ports that they may call
    webhook_ca_file : certificates of authorities that they trust beside the system's
    webhook_timeout_s : of one call
    webhook_attempts_max, webhook_age_s_max : a delivery that failed so often, or that is so old
        when it fails, is given up
    webhook_retry_s_max : longest pause between two attempts
    webhook_parallel_max : calls of one webhook at once
    webhook_kept_s : so long it is told what became of a delivery
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
    setpoint_valid_s: float = 300.0
    frame_future_s_max: float = 300.0
    ingest_bytes_max: int = 16 * 1024 * 1024
    ingest_concurrency_max: int = 8
    graphql_bytes_max: int = 256 * 1024
    graphql_cost_max: int = 50_000
    graphql_s_max: float = 30.0
    graphql_concurrency_max: int = 64
    graphql_rate: float = 20_000.0
    graphql_burst: float = 200_000.0
    graphql_report_cost: bool = False
    graphql_draft_statuses: bool = False
    introspection: bool = True
    trusted_documents: Path | None = None
    trusted_documents_only: bool = False
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    slow_operation_s: float = 1.0
    graphiql: bool = True
    otlp_endpoint: str | None = None
    oidc_issuer: str | None = None
    oidc_audience: str | None = None
    oidc_algorithms: tuple[str, ...] = ("RS256", "ES256")
    oidc_jwks_url: str | None = None
    oidc_actor_claim: str = "sub"
    oidc_roles_claim: str = "roles"
    oidc_role_names: tuple[tuple[str, str], ...] = ()
    oidc_locations_claim: str | None = None
    oidc_leeway_s: float = 30.0
    api_keys: bool = False
    trusted_proxies: tuple[Network, ...] = ()
    proxy_header: str = "x-client-subject"
    proxy_subjects: Path | None = None
    dev_tokens: bool = False
    transparency_public: bool = False
    webhook_key: bytes | None = field(default=None, repr=False)
    webhook_http: bool = False
    webhook_networks: tuple[Network, ...] = ()
    webhook_hosts: tuple[str, ...] = ()
    webhook_ports: tuple[PortRange, ...] = ((443, 443), (8443, 8443))
    webhook_ca_file: Path | None = None
    webhook_timeout_s: float = 15.0
    webhook_attempts_max: int = 200
    webhook_age_s_max: float = 3 * 86_400.0
    webhook_retry_s_max: float = 3_600.0
    webhook_parallel_max: int = 8
    webhook_kept_s: float = 30 * 86_400.0

    @property
    def keys_folder(self) -> Path:
        """Where this server's keys lie."""
        return self.keys_dir or self.data_dir / "keys"

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
                told = "…" if name in _UNTOLD else repr(text)
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


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(text.split())
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != origin:
            raise ValueError(f"{origin!r} is no origin such as https://console.example")
    return origins


def _algorithms(text: str) -> tuple[str, ...]:
    names = tuple(text.split())
    for name in names:
        if name not in ALGORITHMS:
            raise ValueError(f"{name!r} is none of {', '.join(ALGORITHMS)}")
    return names


def _role_names(text: str) -> tuple[tuple[str, str], ...]:
    pairs = tuple((their, our) for their, _, our in (pair.partition("=") for pair in text.split()))
    for their, our in pairs:
        if not their or our not in set(Role):
            raise ValueError(f"'{their}={our}' is no THEIR-NAME=ROLE, of {', '.join(Role)}")
    return pairs


def _header_name(text: str) -> str:
    if not text.isascii() or not text.replace("-", "").isalnum():
        raise ValueError("must be the name of a header")
    return text.lower()


def _file(text: str) -> Path:
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise ValueError("there is no such file")
    return path


def sealing_key(text: str) -> bytes:
    """Return the key that seals secrets, of `SEALING_KEY_BYTES`, as base64 spells it.

    Raises
    ------
    ValueError
    """
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != SEALING_KEY_BYTES:
        raise ValueError(
            f"must be {SEALING_KEY_BYTES} bytes in base64, such as `openssl rand -base64 32` makes"
        )
    return key


def _hosts(text: str) -> tuple[str, ...]:
    names = tuple(text.lower().split())
    for name in names:
        if not name.isascii() or not name.removeprefix("*.").replace("-", "").replace(".", ""):
            raise ValueError(f"{name!r} is no host name, and no *.example.org")
    return names


def _ports(text: str) -> tuple[PortRange, ...]:
    ranges = []
    for part in text.split():
        low, _, high = part.partition("-")
        first, last = int(low), int(high or low)
        if not 1 <= first <= last <= 65_535:
            raise ValueError(f"{part!r} is no port, and no range such as 8000-8999")
        ranges.append((first, last))
    return tuple(ranges)


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
    "setpoint_valid_s": _between(1.0, 86_400.0, float),
    "frame_future_s_max": _between(0.0, 86_400.0, float),
    "ingest_bytes_max": _between(1024, 64 * 1024 * 1024, int),
    "ingest_concurrency_max": _between(1, 64, int),
    "graphql_bytes_max": _between(1024, 16 * 1024 * 1024, int),
    "graphql_cost_max": _between(100, 10_000_000, int),
    "graphql_s_max": _between(0.1, 600.0, float),
    "graphql_concurrency_max": _between(1, 10_000, int),
    "graphql_rate": _between(1.0, 1e9, float),
    "graphql_burst": _between(1_000.0, 1e9, float),
    "graphql_report_cost": _flag,
    "graphql_draft_statuses": _flag,
    "introspection": _flag,
    "trusted_documents": lambda text: Path(text).expanduser().resolve(),
    "trusted_documents_only": _flag,
    "cors_origins": _origins,
    "allowed_hosts": lambda text: tuple(text.split()),
    "slow_operation_s": _between(0.001, 600.0, float),
    "graphiql": _flag,
    "otlp_endpoint": str,
    "oidc_issuer": check_provider_url,
    "oidc_audience": str,
    "oidc_algorithms": _algorithms,
    "oidc_jwks_url": check_provider_url,
    "oidc_actor_claim": str,
    "oidc_roles_claim": str,
    "oidc_role_names": _role_names,
    "oidc_locations_claim": str,
    "oidc_leeway_s": _between(0.0, 300.0, float),
    "api_keys": _flag,
    "trusted_proxies": lambda text: tuple(map(ipaddress.ip_network, text.split())),
    "proxy_header": _header_name,
    "proxy_subjects": lambda text: Path(text).expanduser().resolve(),
    "dev_tokens": _flag,
    "transparency_public": _flag,
    "webhook_key": sealing_key,
    "webhook_http": _flag,
    "webhook_networks": lambda text: tuple(map(ipaddress.ip_network, text.split())),
    "webhook_hosts": _hosts,
    "webhook_ports": _ports,
    "webhook_ca_file": _file,
    "webhook_timeout_s": _between(0.1, 60.0, float),
    "webhook_attempts_max": _between(1, 1_000, int),
    "webhook_age_s_max": _between(1.0, 30 * 86_400.0, float),
    "webhook_retry_s_max": _between(0.1, 86_400.0, float),
    "webhook_parallel_max": _between(1, 64, int),
    "webhook_kept_s": _between(60.0, 366 * 86_400.0, float),
}
