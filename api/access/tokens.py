"""Bearer tokens: JWTs of one issuer for one audience, signed with its public keys.

What a token may be is pinned by the server: issuer, audience and algorithms are compared with
what was configured, never taken from the token; symmetric algorithms and ``none`` do not exist.

References
----------
RFC 7519 (2015), JSON Web Token; RFC 8725 (2020), JSON Web Token Best Current Practices.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from api.access.identity import Identity
from api.access.issuer_keys import IssuerKey
from api.access.rights import Role
from domain.errors import NotAllowed

TOKEN_LENGTH_MAX: Final = 8_192
"""Characters; a header line of twice that is refused before it comes here."""

ALGORITHMS: Final[Mapping[str, str]] = {
    "RS256": "RSA",
    "RS384": "RSA",
    "RS512": "RSA",
    "PS256": "RSA",
    "PS384": "RSA",
    "PS512": "RSA",
    "ES256": "EC",
    "ES384": "EC",
    "ES512": "EC",
    "EdDSA": "OKP",
}
"""Algorithms that may be configured, and the type of key that each takes."""

LOCATIONS_MAX: Final = 1_000
EVERYWHERE: Final = "*"
"""In the claim of locations: the whole ledger."""

NAME_LENGTH_MAX: Final = 100
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+|:/=-]*")
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Claims:
    """Which claims say what; each is a claim's name, or a path of names with dots.

    Parameters
    ----------
    actor : who it is
    roles : a list of roles, or a text with spaces between them
    locations : the ids of locations that he sees; None: everybody sees the whole ledger
    role_names : what the issuer calls a role, where it is not called so here
    """

    actor: str = "sub"
    roles: str = "roles"
    locations: str | None = None
    role_names: Mapping[str, str] = field(default_factory=dict)


class TokenVerifier:
    """Checks the tokens of one issuer.

    Parameters
    ----------
    key : the issuer's key by its id, None where it has none such
    algorithms : of `ALGORITHMS`
    leeway_s : how far the issuer's clock and ours may differ
    method : as `Identity` has it
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        algorithms: Sequence[str],
        key: Callable[[str | None], Awaitable[IssuerKey | None]],
        claims: Claims,
        leeway_s: float,
        method: str = "oidc",
    ) -> None:
        unknown = [name for name in algorithms if name not in ALGORITHMS]
        assert not unknown, f"{unknown} may not be configured"
        self.issuer = issuer
        self._audience = audience
        self._algorithms = frozenset(algorithms)
        self._key = key
        self._claims = claims
        self._leeway_s = leeway_s
        self._method = method

    async def verify(self, token: str) -> Identity:
        """Return whom `token` vouches for.

        Raises
        ------
        NotAllowed, Unavailable
            as `claims`
        """
        return self._identity(await self.claims(token))

    async def claims(self, token: str) -> Mapping[str, Any]:
        """Return what `token` says, once its signature, issuer, audience and times are checked.

        Raises
        ------
        NotAllowed
            ``access.unauthenticated``, ``access.expired``
        Unavailable
            ``access.provider_unavailable``
        """
        import jwt

        header = unverified_header(token)
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise refused(f"it is signed with {algorithm!r:.40}, which is not accepted here")
        key_id = header.get("kid")
        if not isinstance(key_id, str | None):
            raise refused("its key id is no text")
        key = await self._key(key_id)
        if (
            key is None
            or key.key_type != ALGORITHMS[algorithm]
            or key.algorithm not in (None, algorithm)
        ):
            raise refused(f"its issuer has no key {key_id!r:.80} for it")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.public_key,
                algorithms=[algorithm],
                issuer=self.issuer,
                audience=self._audience,
                leeway=self._leeway_s,
                options={"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError:
            raise expired() from None
        except jwt.PyJWTError as error:
            raise refused(f"{error}"[:200]) from None
        return claims

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        name = claim(claims, self._claims.actor)
        if not isinstance(name, str) or len(name) > NAME_LENGTH_MAX or not _NAME.fullmatch(name):
            raise refused(f"its claim {self._claims.actor!r} names nobody")
        locations: frozenset[str] | None = None
        if self._claims.locations is not None:
            told = _texts(claim(claims, self._claims.locations))
            if len(told) > LOCATIONS_MAX:
                raise refused(f"it names {len(told)} locations, more than {LOCATIONS_MAX}")
            locations = None if EVERYWHERE in told else frozenset(told)
        try:
            expires_at = datetime.fromtimestamp(claims["exp"], UTC)
            expires_at += timedelta(seconds=self._leeway_s)
        except (OverflowError, ValueError, OSError):
            raise refused("it ends at no time there is") from None
        return Identity(
            actor=f"user:{name}",
            roles=self._roles(claims),
            locations=locations,
            expires_at=expires_at,
            method=self._method,
        )

    def _roles(self, claims: Mapping[str, Any]) -> frozenset[Role]:
        """Return the roles that are known here; what else the issuer tells of is not for us."""
        names = self._claims.role_names
        told = (names.get(text, text) for text in _texts(claim(claims, self._claims.roles)))
        known = {role.value for role in Role}
        return frozenset(Role(text) for text in told if text in known)


def unverified_header(token: str) -> dict[str, Any]:
    """Return what the header of `token` says, which nobody vouches for.

    Raises
    ------
    NotAllowed
        ``access.unauthenticated``: it is no JWT, or too long
    """
    import jwt

    if len(token) > TOKEN_LENGTH_MAX:
        raise refused(f"it has {len(token)} characters, more than {TOKEN_LENGTH_MAX}")
    if not _SHAPE.fullmatch(token):
        raise refused("it is neither a JWT nor an API key")
    try:
        return jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise refused("its header cannot be read") from None


def unverified_issuer(token: str) -> str | None:
    """Return who `token` says it comes from: good for choosing who checks it, and nothing else.

    Raises
    ------
    NotAllowed
        ``access.unauthenticated``: it is no JWT, or too long
    """
    import jwt

    unverified_header(token)
    try:
        told = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise refused("what it says cannot be read") from None
    issuer = told.get("iss")
    return issuer if isinstance(issuer, str) else None


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """Return the claim called `path`, or the one that the names between its dots lead to."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.split()
    if isinstance(value, list):
        return [text for text in value if isinstance(text, str)]
    return []


def refused(why: str) -> NotAllowed:
    """Return the refusal of a token; `why` says what is wrong with *it*."""
    return NotAllowed(
        "access.unauthenticated",
        f"the token is not accepted: {why}",
        hint="sign in again, or ask whoever runs the server which issuer it trusts",
    )


def expired() -> NotAllowed:
    """Return the refusal of what was valid once."""
    return NotAllowed(
        "access.expired",
        "what you were let in with has ended",
        hint="sign in again, or have a new key made",
    )
