"""Who asks: an identity for each request, by whichever proof came with it, or a refusal.

Proofs are an API key or a JWT in ``Authorization: Bearer …``, or a certificate that a trusted
proxy has checked. A proof that is given is judged, also where none is asked for. A server that
has no way configured to recognise anybody is open, and answers this machine alone.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

from api.access.development import ISSUER, development_verifier
from api.access.identity import LOCAL_ADMIN, Identity
from api.access.issuer_keys import IssuerKeys
from api.access.keys import (
    KEY_PREFIX,
    USE_NOTED_EVERY,
    ApiKey,
    find_key,
    find_named_key,
    note_use,
    parse_key,
    utc_now,
)
from api.access.proxy import TrustedProxies, address_of, is_loopback, read_subjects
from api.access.tokens import Claims, TokenVerifier, expired, refused, unverified_issuer
from api.settings import ServerSettings, SettingsInvalid
from domain.errors import InvalidInput, NotAllowed, Unavailable
from eventlog.database import CONNECTION_LOST
from eventlog.ledger import Ledger

ACTOR_HEADER: Final = "x-heddle-actor"
ACTOR_LENGTH_MAX: Final = 100
_ACTOR: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]*")

BEARER: Final = "bearer"
KEY_KEPT_S: Final = 5.0
"""A key that is revoked lets nobody in after so long."""

TOKEN_KEPT_S: Final = 60.0
"""A token whose signature was checked is not checked again for so long."""

KEPT_MAX: Final = 10_000
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host")

V = TypeVar("V")


class _Kept(Generic[V]):
    """Answers that hold for a while, the oldest let go beyond `KEPT_MAX`."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._entries: OrderedDict[object, tuple[float, V]] = OrderedDict()

    def get(self, key: object) -> V | None:
        entry = self._entries.get(key)
        if entry is None or self._clock() >= entry[0]:
            return None
        return entry[1]

    def put(self, key: object, value: V) -> None:
        self._entries[key] = (self._clock() + self._seconds, value)
        self._entries.move_to_end(key)
        if len(self._entries) > KEPT_MAX:
            self._entries.popitem(last=False)


class Authenticator:
    """Recognises whoever asks a server.

    Parameters
    ----------
    now : the time that proofs are held against
    clock : seconds, monotonic

    Raises
    ------
    InvalidInput
        ``access.subjects_malformed``
    """

    def __init__(
        self,
        settings: ServerSettings,
        ledger: Ledger,
        *,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._now = now
        self._proxies = _proxies(settings)
        self._issuer = _issuer(settings)
        self._development = (
            development_verifier(settings.data_dir, settings.ledger)
            if settings.dev_tokens
            else None
        )
        self._keys: _Kept[ApiKey] = _Kept(KEY_KEPT_S, clock)
        self._no_keys: _Kept[bool] = _Kept(KEY_KEPT_S, clock)
        self._noted: _Kept[bool] = _Kept(USE_NOTED_EVERY.total_seconds(), clock)
        self._tokens: _Kept[Identity] = _Kept(TOKEN_KEPT_S, clock)

    @property
    def is_open(self) -> bool:
        """Whether this machine may do everything without any proof."""
        return not recognises_anybody(self._settings)

    async def identify(self, headers: Mapping[str, str], peer: str | None) -> Identity:
        """Return who asks.

        Parameters
        ----------
        headers : of the request, or of the handshake of a WebSocket; names in lower case
        peer : the address at the other end of the connection, not what anybody says it is

        Raises
        ------
        NotAllowed
            ``access.unauthenticated``, ``access.expired``
        InvalidInput
            ``actor.malformed_name``
        Unavailable
            ``access.provider_unavailable``
        """
        given = headers.get("authorization")
        if given is not None:
            return await self.of_authorization(given, peer)
        if self._proxies is not None:
            subject = self._proxies.subject(headers, peer)
            if subject is not None and subject.identity is not None:
                return subject.identity
            if subject is not None:
                assert subject.key_name is not None, "a subject is a key or an identity"
                return await self._named_key(subject.key_name)
        if not self.is_open:
            raise NotAllowed(
                "access.unauthenticated",
                "nobody is asked for without saying who asks",
                hint="send `Authorization: Bearer` with a token or an API key",
            )
        _check_local(headers, peer)
        return replace(LOCAL_ADMIN, actor=actor_of(headers))

    async def of_authorization(self, given: str, peer: str | None) -> Identity:
        """Return whom the value of a header ``Authorization`` vouches for.

        Raises
        ------
        NotAllowed
            ``access.unauthenticated``, ``access.expired``
        """
        scheme, _, proof = given.partition(" ")
        proof = proof.strip()
        if scheme.lower() != BEARER or not proof:
            raise refused("it is not `Bearer` and a token or an API key")
        if proof.startswith(KEY_PREFIX):
            return await self._of_key(proof)
        return await self._of_token(proof, peer)

    async def still_valid(self, identity: Identity) -> bool:
        """Return whether `identity` would be let in still: for what lasts longer than a request.

        Asked again within seconds it costs no statement.
        """
        if identity.expires_at is not None and self._now() >= identity.expires_at:
            return False
        if identity.key_id is None:
            return True
        key = await self._known_key(identity.key_id)
        if key is None or not key.is_valid(self._now()):
            return False
        held = key.identity()
        return (held.actor, held.permissions) == (identity.actor, identity.permissions)

    # --- API keys -------------------------------------------------------------------------

    async def _of_key(self, text: str) -> Identity:
        parsed = parse_key(text)
        key = None if parsed is None else await self._known_key(parsed[0])
        if parsed is None or key is None or not hmac.compare_digest(parsed[1], key.secret_sha256):
            raise NotAllowed(
                "access.unauthenticated",
                "there is no such API key",
                hint="`heddle key create` makes one; its text is shown once",
            )
        return (await self._let_in(key)).identity()

    async def _named_key(self, name: str) -> Identity:
        kept = self._keys.get(("name", name))
        with _database_told():
            key = kept or await find_named_key(self._ledger, name, self._now())
        if key is None:
            raise NotAllowed(
                "access.unauthenticated",
                f"the certificate stands for the key {name!r}, and no such key is valid",
                hint="`heddle key create` makes one",
            )
        if kept is None:
            self._keys.put(("name", name), key)
        return (await self._let_in(key)).identity("proxy")

    async def _let_in(self, key: ApiKey) -> ApiKey:
        if key.revoked_at is not None:
            raise NotAllowed(
                "access.unauthenticated",
                f"the API key {key.key_id} was revoked",
                hint="ask whoever revoked it for another",
            )
        if not key.is_valid(self._now()):
            raise expired()
        if self._noted.get(key.key_id) is None:
            self._noted.put(key.key_id, True)
            with _database_told():
                await note_use(self._ledger, key, self._now())
        return key

    async def _known_key(self, key_id: str) -> ApiKey | None:
        """Return the key as it was within the last `KEY_KEPT_S`."""
        key = self._keys.get(key_id)
        if key is not None or self._no_keys.get(key_id):
            return key
        with _database_told():
            key = await find_key(self._ledger, key_id)
        if key is None:
            # Kept apart, so that guesses push out no key that is in use.
            self._no_keys.put(key_id, True)
            return None
        self._keys.put(key_id, key)
        return key

    # --- tokens ---------------------------------------------------------------------------

    async def _of_token(self, token: str, peer: str | None) -> Identity:
        fingerprint = hashlib.sha256(token.encode()).digest()
        identity = self._tokens.get(fingerprint)
        if identity is None:
            identity = await self._verifier(token, peer).verify(token)
            self._tokens.put(fingerprint, identity)
        if identity.method == "development" and not is_loopback(peer):
            raise refused("development tokens are accepted from this machine alone")
        if identity.expires_at is not None and self._now() >= identity.expires_at:
            raise expired()
        return identity

    async def claims_of(self, token: str, peer: str | None) -> Mapping[str, Any]:
        """Return what a JWT says that would be let in: checked anew, never from memory.

        Raises
        ------
        NotAllowed, Unavailable
            as `identify`
        """
        return await self._verifier(token, peer).claims(token)

    def _verifier(self, token: str, peer: str | None) -> TokenVerifier:
        issuer = unverified_issuer(token)
        if issuer == ISSUER:
            if self._development is None or not is_loopback(peer):
                raise refused("development tokens are not accepted here")
            return self._development
        if self._issuer is None or issuer != self._issuer.issuer:
            raise refused("its issuer is not trusted here")
        return self._issuer


@contextmanager
def _database_told() -> Iterator[None]:
    """Tell a lost database as what it is, a reason to ask again."""
    try:
        yield
    except CONNECTION_LOST as error:
        raise Unavailable(
            "database.unavailable",
            "the database cannot be reached",
            hint="send the same request again later",
        ) from error


# --- what is configured -------------------------------------------------------------------


def recognises_anybody(settings: ServerSettings) -> bool:
    """Return whether `settings` name a way to recognise whoever asks; else the server is open."""
    return bool(
        settings.oidc_issuer or settings.api_keys or settings.trusted_proxies or settings.dev_tokens
    )


def check_settings(settings: ServerSettings) -> None:
    """Refuse to serve the world without asking who it is.

    Raises
    ------
    SettingsInvalid
        ``settings.invalid``, with every fault
    """
    faults: list[str] = []
    local = settings.host == "localhost" or is_loopback(settings.host)
    if not local and not recognises_anybody(settings):
        faults.append(
            f"HEDDLE_HOST={settings.host} can be reached from elsewhere, and nothing says how "
            "to recognise who asks: set HEDDLE_OIDC_ISSUER, HEDDLE_API_KEYS=yes or "
            "HEDDLE_TRUSTED_PROXIES, or listen on 127.0.0.1"
        )
    if not local and settings.dev_tokens:
        faults.append(
            f"HEDDLE_DEV_TOKENS=yes on HEDDLE_HOST={settings.host}: development tokens are for "
            "127.0.0.1 alone"
        )
    if settings.oidc_issuer and not settings.oidc_audience:
        faults.append("HEDDLE_OIDC_ISSUER without HEDDLE_OIDC_AUDIENCE: whom are its tokens for?")
    if settings.trusted_proxies and settings.proxy_subjects is None:
        faults.append("HEDDLE_TRUSTED_PROXIES without HEDDLE_PROXY_SUBJECTS: it lets nobody in")
    if faults:
        raise SettingsInvalid(
            "settings.invalid",
            "; ".join(faults),
            hint="see docs/access.md",
            value=faults,
        )


def _proxies(settings: ServerSettings) -> TrustedProxies | None:
    if not settings.trusted_proxies or settings.proxy_subjects is None:
        return None
    return TrustedProxies(
        settings.trusted_proxies, settings.proxy_header, read_subjects(settings.proxy_subjects)
    )


def _issuer(settings: ServerSettings) -> TokenVerifier | None:
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        return None
    return TokenVerifier(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        algorithms=settings.oidc_algorithms,
        key=IssuerKeys(settings.oidc_issuer, settings.oidc_jwks_url).key,
        claims=Claims(
            actor=settings.oidc_actor_claim,
            roles=settings.oidc_roles_claim,
            locations=settings.oidc_locations_claim,
            role_names=dict(settings.oidc_role_names),
        ),
        leeway_s=settings.oidc_leeway_s,
    )


# --- an open server -----------------------------------------------------------------------


def _check_local(headers: Mapping[str, str], peer: str | None) -> None:
    """Refuse whoever is not a program of this machine that means this server.

    A page in a browser of this machine may ask too: it is known by the name it asks for
    (``Host``, which it cannot choose, though its own name may lead here) and by its ``Origin``.
    """
    host = headers.get("host", "")
    origin = headers.get("origin")
    local = (
        is_loopback(peer)
        and _is_local_name(f"//{host}")
        and (origin is None or _is_local_name(origin))
        and not any(name in headers for name in _FORWARDED)
    )
    if not local:
        raise NotAllowed(
            "access.unauthenticated",
            "this server asks nobody who he is, and so answers its own machine alone",
            hint="ask http://127.0.0.1, or configure authentication (docs/access.md)",
        )


def _is_local_name(url: str) -> bool:
    try:
        name = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return (
        name == "localhost"
        or name.endswith(".localhost")
        or (address_of(name) is not None and is_loopback(name))
    )


def actor_of(headers: Mapping[str, str]) -> str:
    """Return who acts on an open server, by the header ``X-Heddle-Actor``; else ``user:local``.

    Raises
    ------
    InvalidInput
        ``actor.malformed_name``
    """
    name = headers.get(ACTOR_HEADER)
    if name is None:
        return LOCAL_ADMIN.actor
    if len(name) > ACTOR_LENGTH_MAX or not _ACTOR.fullmatch(name):
        raise InvalidInput(
            "actor.malformed_name",
            f"{name!r:.80} cannot name an actor",
            hint=f"X-Heddle-Actor: 1 to {ACTOR_LENGTH_MAX} letters, digits, '.', '-', '_', '@', "
            "'+', starting with a letter or digit",
            value=name[:80],
            limit=ACTOR_LENGTH_MAX,
        )
    return f"user:{name}"
