"""Sealing: secrets of webhooks as the database holds them, of no use without this server's key.

A copy of the database alone, a backup say, signs nothing in a webhook's name. A sealed secret is
a byte that tells its form (1), 12 bytes of nonce, and what AES-256-GCM makes of the secret; it is
bound to its ledger, webhook and name, so that none can be put in another's place.

References
----------
NIST SP 800-38D (2007): nonces of 96 random bits, fewer than 2**32 of them a key.
"""

from __future__ import annotations

import base64
import os
import secrets
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from api.settings import SEALING_KEY_BYTES, ServerSettings, sealing_key
from domain.errors import InvalidInput, Unavailable
from eventlog.private_files import create_once, read_private

KEY_FILE: Final = "webhooks.key"
VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12


@dataclass(frozen=True)
class Sealing:
    """Seals secrets and opens them again.

    Parameters
    ----------
    key : of `SEALING_KEY_BYTES`
    """

    key: bytes

    @classmethod
    def of(cls, settings: ServerSettings) -> Sealing:
        """Return what seals on this server; the file of its key is made at the first use.

        Raises
        ------
        Unavailable
            ``webhook.key_unusable``: its file cannot be made or read, or says something else
        """
        if settings.webhook_key is not None:
            return cls(settings.webhook_key)
        path = settings.keys_folder / KEY_FILE
        try:
            if not path.exists():
                create_once(path, _fresh_key)
            return cls(sealing_key(read_private(path)))
        except (OSError, ValueError, InvalidInput) as error:
            raise Unavailable(
                "webhook.key_unusable",
                f"{path} gives no key to seal secrets of webhooks with: {error}",
                hint="set HEDDLE_WEBHOOK_KEY, or let the server keep that file, mode 0600",
            ) from error

    def seal(self, secret: bytes, *name: str) -> bytes:
        """Return `secret` sealed under `name`: of ledger, webhook and secret."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return VERSION + nonce + AESGCM(self.key).encrypt(nonce, secret, _bound(name))

    def open(self, sealed: bytes, *name: str) -> bytes:
        """Return the secret that was sealed under `name`.

        Raises
        ------
        Unavailable
            ``webhook.secret_unreadable``: with another key, under another name, or of a later form
        """
        nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != VERSION:
                raise InvalidTag
            return AESGCM(self.key).decrypt(nonce, text, _bound(name))
        except InvalidTag as error:
            raise Unavailable(
                "webhook.secret_unreadable",
                f"the secret {name[-1]} cannot be read: it was sealed with another key",
                hint=f"give this server the key that sealed it (HEDDLE_WEBHOOK_KEY, or {KEY_FILE} "
                "among its keys), or rotate the webhook's secret",
            ) from error


def _bound(name: tuple[str, ...]) -> bytes:
    return "\0".join(name).encode()


def _fresh_key() -> str:
    return base64.b64encode(os.urandom(SEALING_KEY_BYTES)).decode() + "\n"
