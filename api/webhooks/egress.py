"""One call of an address: resolved once, checked, and connected to as it was checked.

The name stays in ``Host`` and in TLS, so certificates are checked against it; the connection goes
to an IP address that the policy let through. Redirects are not followed, a proxy is not asked, and
of an answer no more than its beginning is read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpcore

from api.webhooks.policy import Address, EgressPolicy, Target
from domain.errors import InvalidInput

ANSWER_BYTES_MAX: Final = 4_096
"""Of an answer's body; the rest is not read."""

ADDRESSES_MAX: Final = 8
"""Addresses of one name that are looked at."""

CONNECTIONS_MAX: Final = 64
CONNECTIONS_KEPT_MAX: Final = 32
KEPT_S: Final = 15.0

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the IP addresses of a name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an address answered.

    Parameters
    ----------
    excerpt : the beginning of the body, as text
    retry_after : the header ``Retry-After``, as it came
    """

    status: int
    excerpt: str
    retry_after: str | None
    seconds: float


class CallFailed(Exception):
    """An address gave no answer. `code` is dotted and stable."""

    def __init__(self, code: str, message: str, seconds: float) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.seconds = seconds


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the IP addresses of `host`, as this machine's resolver has them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Egress:
    """Calls addresses that `policy` allows.

    Parameters
    ----------
    timeout_s : of a call, from the name to the end of the answer
    ca_file : certificates of authorities that are trusted beside the system's
    """

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        timeout_s: float,
        ca_file: str | None = None,
        resolve: Resolve = resolve,
    ) -> None:
        self.policy = policy
        self._timeout_s = timeout_s
        context = ssl.create_default_context()
        if ca_file is not None:
            context.load_verify_locations(ca_file)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=CONNECTIONS_MAX,
            max_keepalive_connections=CONNECTIONS_KEPT_MAX,
            keepalive_expiry=KEPT_S,
            network_backend=_CheckedNetwork(policy, resolve),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.aclose()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send `body` to `url` and return what it answered, whatever the status.

        Raises
        ------
        CallFailed
            ``webhook.timeout``, ``webhook.unreachable``, ``webhook.tls_failed``,
            ``webhook.answer_malformed``, and the codes of `EgressPolicy`
        """
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._posted(self.policy.target(url), headers, body, began)
        except InvalidInput as error:
            code, message = error.code, error.message
        except (TimeoutError, httpcore.TimeoutException):
            code, message = "webhook.timeout", f"no answer within {self._timeout_s:g} s"
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
            code, message = "webhook.answer_malformed", str(error)
        except httpcore.NetworkError as error:
            tls = isinstance(error.__cause__ or error.__context__, ssl.SSLError)
            code = "webhook.tls_failed" if tls else "webhook.unreachable"
            message = str(error) or type(error).__name__
        except OSError as error:
            code, message = "webhook.unreachable", error.strerror or str(error)
        raise CallFailed(code, message[:500], time.perf_counter() - began)

    async def _posted(
        self, target: Target, headers: Mapping[str, str], body: bytes, began: float
    ) -> Answer:
        url = httpcore.URL(
            scheme=target.scheme.encode(),
            host=target.host.encode(),
            port=target.port,
            target=target.path.encode(),
        )
        sent = [(b"host", target.authority.encode())]
        sent += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        sent.append((b"content-length", str(len(body)).encode()))
        timeout = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_s)
        async with self._pool.stream(
            "POST", url, headers=sent, content=body, extensions={"timeout": timeout}
        ) as response:
            told = await _beginning(response)
            after = next((v for n, v in response.headers if n.lower() == b"retry-after"), None)
            return Answer(
                response.status,
                told.decode(errors="replace"),
                None if after is None else after.decode("latin-1"),
                time.perf_counter() - began,
            )


async def _beginning(response: httpcore.Response) -> bytes:
    told = b""
    async for part in response.aiter_stream():
        told += part[: ANSWER_BYTES_MAX - len(told)]
        if len(told) >= ANSWER_BYTES_MAX:
            break
    return told


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to what the policy has let through, and to nothing else."""

    def __init__(self, policy: EgressPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failed: Exception | None = None
        for address in await self._checked(host, port):
            try:
                return await self._network.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed or httpcore.ConnectError(f"{host} has no address")

    async def _checked(self, host: str, port: int) -> list[Address]:
        """Return the addresses of `host`: where one of them is forbidden, none is called.

        A name that answers with an address inside beside one outside tries something.
        """
        try:
            texts = await self._resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved") from error
        found: list[Address] = []
        for text in list(dict.fromkeys(texts))[:ADDRESSES_MAX]:
            address = ipaddress.ip_address(text.partition("%")[0])
            self._policy.check_address(address)
            found.append(address)
        return found
