"""The public keys of an OpenID provider: fetched, kept while it is away, and bounded.

References
----------
RFC 7517 (2015), JSON Web Key; OpenID Connect Discovery 1.0 (2014), section 4.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import orjson

from domain.errors import InvalidInput, Unavailable

logger = logging.getLogger("heddle.access")

FETCH_TIMEOUT_S: Final = 5.0
DOCUMENT_BYTES_MAX: Final = 256 * 1024
KEYS_MAX: Final = 100
KEPT_S: Final = 3_600.0
"""After so long they are fetched again; the old ones go on being used while that fails."""

REFETCH_EVERY_S: Final = 60.0
"""Pause between two fetches, whatever key ids are asked for."""

RETRY_EVERY_S: Final = 5.0
"""Pause between two fetches while no keys are known at all."""

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def check_provider_url(text: str) -> str:
    """Return `text` where it is an address that keys may come from: https, or this machine.

    Raises
    ------
    ValueError
        it is none
    """
    url = urlsplit(text)
    if not url.hostname or url.username or url.fragment:
        raise ValueError("must be an address such as https://login.example/realm")
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOOPBACK):
        raise ValueError("must start with https://")
    return text


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A public key that signatures are checked with.

    Parameters
    ----------
    key_type : ``RSA``, ``EC`` or ``OKP``, as RFC 7518 names it
    algorithm : the only one that it may be used with; None: any of its type
    """

    public_key: Any
    key_type: str
    algorithm: str | None = None


class IssuerKeys:
    """The keys that an issuer signs with.

    Parameters
    ----------
    issuer : as its tokens name it
    jwks_url : where its keys are; None: where its discovery document says
    clock : seconds, monotonic
    """

    def __init__(
        self, issuer: str, jwks_url: str | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._clock = clock
        self._keys: Mapping[str | None, IssuerKey] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._lock = asyncio.Lock()
        self._failing = False

    async def key(self, key_id: str | None) -> IssuerKey | None:
        """Return the key of this id; without an id the only key there is; None: there is none.

        Raises
        ------
        Unavailable
            ``access.provider_unavailable``: the issuer's keys have never been had
        """
        if self._is_due(key_id):
            async with self._lock:
                if self._is_due(key_id):  # somebody else may just have fetched them
                    await self._fetch()
        if self._fetched_at is None:
            raise Unavailable(
                "access.provider_unavailable",
                "the keys of the identity provider cannot be had now",
                hint="ask again in a few seconds",
            )
        return self._find(key_id)

    def _find(self, key_id: str | None) -> IssuerKey | None:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    def _is_due(self, key_id: str | None) -> bool:
        now = self._clock()
        if self._fetched_at is None:
            return self._tried_at is None or now - self._tried_at >= RETRY_EVERY_S
        assert self._tried_at is not None, "what was fetched was tried"
        wanted = now - self._fetched_at >= KEPT_S or self._find(key_id) is None
        return wanted and now - self._tried_at >= REFETCH_EVERY_S

    async def _fetch(self) -> None:
        self._tried_at = self._clock()
        try:
            async with (
                asyncio.timeout(FETCH_TIMEOUT_S),
                httpx.AsyncClient(follow_redirects=False, trust_env=False) as client,
            ):
                url = self._jwks_url or await self._discovered(client)
                keys = _keys_of(await _document(client, url))
        except (httpx.HTTPError, TimeoutError, InvalidInput) as error:
            if not self._failing:
                self._failing = True
                logger.warning(
                    "access: the keys of %s cannot be had: %s: %s",
                    self._issuer,
                    type(error).__name__,
                    error,
                )
            return
        if self._failing:
            self._failing = False
            logger.info("access: the keys of %s can be had again", self._issuer)
        self._keys, self._fetched_at = keys, self._clock()

    async def _discovered(self, client: httpx.AsyncClient) -> str:
        told = await _document(client, self._issuer.rstrip("/") + DISCOVERY_PATH)
        if told.get("issuer") != self._issuer:
            raise _unusable(f"it calls itself {told.get('issuer')!r:.200}")
        try:
            return check_provider_url(str(told.get("jwks_uri")))
        except ValueError as error:
            raise _unusable(f"jwks_uri {error}") from error


async def _document(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """Return the JSON object at `url`, reading no more of it than is allowed."""
    async with client.stream("GET", url, headers={"accept": "application/json"}) as response:
        if response.status_code != httpx.codes.OK:
            raise _unusable(f"{url} answers {response.status_code}")
        body = b""
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > DOCUMENT_BYTES_MAX:
                raise _unusable(f"{url} answers with more than {DOCUMENT_BYTES_MAX} bytes")
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _unusable(f"{url} answers no JSON") from error
    if not isinstance(told, dict):
        raise _unusable(f"{url} answers no object")
    return told


def _keys_of(document: Mapping[str, Any]) -> dict[str | None, IssuerKey]:
    """Return the public signing keys in a JWK set by their id; what is of another kind is left out.

    A symmetric key is never one: whoever can check with it can sign with it.
    """
    from jwt import PyJWK
    from jwt.exceptions import PyJWTError

    listed = document.get("keys")
    if not isinstance(listed, list):
        raise _unusable("it has no list of keys")
    keys: dict[str | None, IssuerKey] = {}
    for given in listed[:KEYS_MAX]:
        if not isinstance(given, dict) or given.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        if given.get("use", "sig") != "sig" or "d" in given:
            continue
        try:
            public_key = PyJWK(given).key
        except PyJWTError:
            continue  # of a curve or an algorithm that is not known here
        key_id, algorithm = given.get("kid"), given.get("alg")
        keys[key_id if isinstance(key_id, str) else None] = IssuerKey(
            public_key, given["kty"], algorithm if isinstance(algorithm, str) else None
        )
    if not keys:
        raise _unusable("it has no key that signatures can be checked with")
    return keys


def _unusable(why: str) -> InvalidInput:
    return InvalidInput("access.provider_unusable", f"the identity provider: {why}")
