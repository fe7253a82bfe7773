"""Tokens for development: signed by a key of this machine, accepted by a server on this machine.

`heddle token` makes one; a server accepts it only while ``HEDDLE_DEV_TOKENS=yes``, which it
refuses to be told on any address but loopback.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from api.access.issuer_keys import IssuerKey
from api.access.rights import Role
from api.access.tokens import EVERYWHERE, Claims, TokenVerifier
from domain.errors import InvalidInput

ISSUER: Final = "urn:heddle:development"
KEY_FILE: Final = "development-token-key.pem"
LIFE_MAX: Final = timedelta(hours=24)
LEEWAY_S: Final = 5.0


def audience_of(ledger: str) -> str:
    """Return whom a development token is for: servers of the ledger of this name."""
    return f"urn:heddle:ledger:{ledger}"


def make_token(
    data_dir: Path,
    ledger: str,
    *,
    actor: str,
    roles: Sequence[Role],
    locations: Sequence[str] | None,
    life: timedelta,
    now: datetime,
) -> str:
    """Return a token; the key that signs it is made where there is none yet.

    Raises
    ------
    InvalidInput
        ``token.life``, ``token.key_unusable``
    """
    import jwt

    if not timedelta(0) < life <= LIFE_MAX:
        raise InvalidInput(
            "token.life",
            f"a development token lives up to {LIFE_MAX}, not {life}",
            value=life.total_seconds(),
            limit=LIFE_MAX.total_seconds(),
        )
    claims = {
        "iss": ISSUER,
        "aud": audience_of(ledger),
        "sub": actor,
        "roles": sorted(roles),
        "locations": [EVERYWHERE] if locations is None else sorted(locations),
        "iat": now,
        "nbf": now,
        "exp": now + life,
    }
    return jwt.encode(claims, _private_key(data_dir), algorithm="EdDSA")


def development_verifier(data_dir: Path, ledger: str) -> TokenVerifier:
    """Return what checks the tokens that `make_token` makes in the same folder."""

    async def key(_key_id: str | None) -> IssuerKey | None:
        path = data_dir / KEY_FILE
        if not path.exists():  # a server may be older than the first token
            return None
        return IssuerKey(_load(path).public_key(), "OKP", "EdDSA")

    return TokenVerifier(
        issuer=ISSUER,
        audience=audience_of(ledger),
        algorithms=("EdDSA",),
        key=key,
        claims=Claims(locations="locations"),
        leeway_s=LEEWAY_S,
        method="development",
    )


def _private_key(data_dir: Path) -> Ed25519PrivateKey:
    path = data_dir / KEY_FILE
    data_dir.mkdir(parents=True, exist_ok=True)
    made = Ed25519PrivateKey.generate()
    try:
        # Nobody else may read it, not even for a moment; and of two that make it one wins.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _load(path)
    with os.fdopen(descriptor, "wb") as file:
        file.write(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


def _load(path: Path) -> Ed25519PrivateKey:
    try:
        if path.stat().st_mode & 0o077:
            raise ValueError("others may read it; `chmod 600` it or remove it")
        key = load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError("it holds no Ed25519 key")
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(
            "token.key_unusable",
            f"the key in {path} cannot be used: {error}",
            hint="remove the file; the next `heddle token` makes another",
            value=str(path),
        ) from error
    return key
