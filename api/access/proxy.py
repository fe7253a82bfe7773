"""Identities that a trusted proxy vouches for: it checked a client's certificate (mTLS).

The proxy tells the certificate's subject in a header. The header counts only when it comes from
an address that is configured as a proxy, and only once; from anybody else it does not exist.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

from api.access.identity import Identity
from api.access.rights import Role
from api.headers import SEVERAL
from domain.errors import InvalidInput, NotAllowed
from domain.identifiers import check_identifier

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SUBJECT_LENGTH_MAX: Final = 512
SUBJECTS_MAX: Final = 10_000
ADDRESSES_KEPT_MAX: Final = 1_000
FILE_BYTES_MAX: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate's subject stands for: a key's holder, or an identity of its own.

    Exactly one of them is given.
    """

    key_name: str | None
    identity: Identity | None


@dataclass(frozen=True)
class TrustedProxies:
    """Which peers are proxies, where they tell the subject, and whom it stands for."""

    networks: Sequence[Network]
    header: str
    subjects: Mapping[str, Subject]

    def trusts(self, peer: str | None) -> bool:
        """Return whether the address `peer` is that of a proxy."""
        address = address_of(peer)
        return address is not None and any(address in network for network in self.networks)

    def subject(self, headers: Mapping[str, str], peer: str | None) -> Subject | None:
        """Return whom the proxy at `peer` vouches for; None where nobody does.

        Raises
        ------
        NotAllowed
            ``access.unauthenticated``: the subject is not known, or told twice
        """
        if not self.trusts(peer):
            return None
        told = headers.get(self.header)
        if told is None:
            return None
        if SEVERAL in told:
            raise NotAllowed(
                "access.unauthenticated",
                f"the header {self.header} was sent more than once",
                hint="the proxy has to replace what its client sends under that name",
            )
        found = self.subjects.get(told)
        if found is None:
            raise NotAllowed(
                "access.unauthenticated",
                f"nobody is known by the certificate {told!r:.100}",
                hint="add the subject to HEDDLE_PROXY_SUBJECTS",
            )
        return found


@lru_cache(maxsize=ADDRESSES_KEPT_MAX)
def address_of(peer: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that `peer` spells, of IPv4 also where it is mapped into IPv6."""
    try:
        address = ipaddress.ip_address((peer or "").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_loopback(peer: str | None) -> bool:
    """Return whether `peer` is this machine."""
    address = address_of(peer)
    return address is not None and address.is_loopback


# --- the file of subjects -----------------------------------------------------------------


def read_subjects(path: Path) -> dict[str, Subject]:
    """Return whom each subject in the YAML or JSON file at `path` stands for.

    ::

        "CN=gateway-1,O=Works": {key: gateway-1}
        "CN=scada": {actor: scada, roles: [operator], locations: [site-1]}

    Raises
    ------
    InvalidInput
        ``access.subjects_malformed``
    """
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ValueError(f"it has more than {FILE_BYTES_MAX} bytes")
        told = yaml.safe_load(path.read_text())
        if not isinstance(told, dict) or len(told) > SUBJECTS_MAX:
            raise ValueError(f"it is no mapping of up to {SUBJECTS_MAX} subjects")
        return {_subject_text(subject): _subject(given) for subject, given in told.items()}
    except (OSError, ValueError, yaml.YAMLError, InvalidInput) as error:
        raise InvalidInput(
            "access.subjects_malformed",
            f"{path} cannot be used: {error}",
            hint="map each subject to {key: NAME} or to {actor: …, roles: […]}",
            value=str(path),
        ) from error


def _subject_text(given: object) -> str:
    if not isinstance(given, str) or not 1 <= len(given) <= SUBJECT_LENGTH_MAX:
        raise ValueError(f"a subject is a text of up to {SUBJECT_LENGTH_MAX}, not {given!r:.80}")
    return given


def _subject(given: object) -> Subject:
    match given:
        case {"key": str(name), **others} if not others:
            return Subject(check_identifier("key", name), None)
        case {"actor": str(actor), "roles": list(roles), **others} if not (
            others.keys() - {"locations", "assets"}
        ):
            return Subject(
                None,
                Identity(
                    actor=f"service:{check_identifier('actor', actor)}",
                    roles=frozenset(Role(role) for role in roles),
                    locations=_names("location", others.get("locations")),
                    assets=_names("asset", others.get("assets")),
                    method="proxy",
                ),
            )
    raise ValueError(f"{given!r:.100} stands for nobody")


def _names(kind: str, given: Any) -> frozenset[str] | None:
    if given is None:
        return None
    if not isinstance(given, list):
        raise ValueError(f"{given!r:.80} is no list of {kind}s")
    return frozenset(check_identifier(kind, name) for name in given)
