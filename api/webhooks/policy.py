"""Which addresses webhooks may call: https to the public internet, and what settings allow beside.

An address is judged twice. As a text, when a webhook is created: its form, scheme, port and name.
As the IP address that is really connected to, at each delivery: a name that answers otherwise by
then, or an address that disguises another, changes nothing.

References
----------
RFC 6890 (2013), special-purpose address registries. RFC 4291 (2006), 2.5.5; RFC 6052 (2010);
RFC 3056 (2001); RFC 4380 (2006): IPv6 addresses that lead to IPv4 addresses within them.
WHATWG URL, "ends in a number checker": hosts that systems read as IPv4 numbers.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from api.access.proxy import Network
from api.settings import PortRange, ServerSettings
from domain.errors import InvalidInput
from domain.webhooks import URL_LENGTH_MAX

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PRINTABLE: Final = re.compile(r"[!-~]+")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Target:
    """An address as a delivery needs it: `path` with its query, `host` without brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What the header ``Host`` says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True)
class EgressPolicy:
    """What may be called.

    Parameters
    ----------
    http : whether without TLS too
    networks : private or local networks that may be reached all the same
    hosts : the only names there are, ``*.example.org`` for all below one; none: any
    ports : the only ports
    """

    http: bool = False
    networks: tuple[Network, ...] = ()
    hosts: tuple[str, ...] = ()
    ports: tuple[PortRange, ...] = ((443, 443),)

    @classmethod
    def of(cls, settings: ServerSettings) -> EgressPolicy:
        """Return what `settings` allow."""
        return cls(
            http=settings.webhook_http,
            networks=settings.webhook_networks,
            hosts=settings.webhook_hosts,
            ports=settings.webhook_ports,
        )

    def target(self, url: str) -> Target:
        """Return what `url` names, if it may be called as far as its text tells.

        Raises
        ------
        InvalidInput
            ``webhook.malformed_url``, ``webhook.forbidden_scheme``, ``webhook.forbidden_port``,
            ``webhook.forbidden_host``, ``webhook.forbidden_address``
        """
        parts = _split(url)
        if parts.scheme != "https" and not (self.http and parts.scheme == "http"):
            raise InvalidInput(
                "webhook.forbidden_scheme",
                f"a webhook calls https addresses, not {parts.scheme!r:.20}",
                hint="HEDDLE_WEBHOOK_HTTP=yes allows http",
                value=parts.scheme[:20],
            )
        host, port = _host(parts, url), parts.port or _DEFAULT_PORTS[parts.scheme]
        if not any(low <= port <= high for low, high in self.ports):
            raise InvalidInput(
                "webhook.forbidden_port",
                f"port {port} is none that webhooks may call",
                hint="HEDDLE_WEBHOOK_PORTS names those that they may",
                value=port,
                limit=[f"{low}-{high}" for low, high in self.ports],
            )
        if self.hosts and not any(_matches(host, pattern) for pattern in self.hosts):
            raise InvalidInput(
                "webhook.forbidden_host",
                f"{host!r:.253} is none of the hosts that webhooks may call",
                hint="HEDDLE_WEBHOOK_HOSTS names them",
                value=host[:253],
            )
        address = _literal(host)
        if address is not None:
            self.check_address(address)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(parts.scheme, host, port, path)

    def check_address(self, address: Address) -> None:
        """Refuse an IP address that is not to be called.

        Raises
        ------
        InvalidInput
            ``webhook.forbidden_address``
        """
        for meant in _meant(address):
            if not _is_public(meant) and not self._is_allowed(meant):
                raise InvalidInput(
                    "webhook.forbidden_address",
                    f"{address} is no address of the public internet",
                    hint="HEDDLE_WEBHOOK_NETWORKS names private networks that may be called",
                    value=str(address),
                )

    def _is_allowed(self, address: Address) -> bool:
        return any(
            address.version == network.version and address in network for network in self.networks
        )


def _split(url: str) -> SplitResult:
    """Return the parts of `url`: printable ASCII, nothing before the host, nothing after a #."""
    try:
        if len(url) > URL_LENGTH_MAX or not _PRINTABLE.fullmatch(url) or "\\" in url:
            raise ValueError("it is too long, or holds a character that no URL does")
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None or "@" in parts.netloc:
            raise ValueError("it names a user")
        if "#" in url:
            raise ValueError("it has a fragment")
        if not parts.hostname:
            raise ValueError("it names no host")
        if parts.port == 0:
            raise ValueError("there is no port 0")
    except ValueError as error:
        raise _malformed(url, str(error)) from error
    return parts


def _host(parts: SplitResult, url: str) -> str:
    """Return the host of `url` in its one spelling."""
    host = (parts.hostname or "").rstrip(".")
    if _literal(host) is not None:
        return host
    if not _HOST.fullmatch(host):
        raise _malformed(url, f"{host!r:.80} is no host name; give an international one as xn--…")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise _malformed(url, f"{host!r:.80} is an IPv4 address that is not spelled as one")
    return host


def _malformed(url: str, why: str) -> InvalidInput:
    return InvalidInput(
        "webhook.malformed_url",
        f"the address cannot be used: {why}",
        hint="such as https://cmms.example/hooks/heddle",
        value=url[:200],
    )


def _literal(host: str) -> Address | None:
    if "%" in host:
        return None  # a zone is of this machine alone; it is refused as a name
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return host == pattern


def _meant(address: Address) -> Iterator[Address]:
    """Yield `address`, and the IPv4 addresses that it leads to from within it."""
    yield address
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 0xFFFF):
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None or address in _NAT64:
            return True  # what counts is the address within
        if address.is_site_local:
            return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
    )
