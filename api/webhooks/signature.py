"""Standard Webhooks: secrets, and the signatures by which receivers know who sent what.

References
----------
Standard Webhooks 1.0.0, www.standardwebhooks.com: headers ``webhook-id``, ``webhook-timestamp``,
``webhook-signature``; symmetric signatures ``v1,<base64 of HMAC-SHA256>``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

SECRET_PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32


def new_secret() -> bytes:
    """Return a fresh secret."""
    return secrets.token_bytes(SECRET_BYTES)


def spelled(secret: bytes) -> str:
    """Return `secret` as its receiver is told it, once."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signature(secret: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """Return the signature of one message with one secret."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def signed_headers(
    keys: Sequence[bytes], message_id: str, timestamp_s: int, body: bytes
) -> Mapping[str, str]:
    """Return the headers of a message that is signed with each of `keys`.

    A receiver that has any of them can check it: so a secret is changed without a gap.
    """
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(
            signature(key, message_id, timestamp_s, body) for key in keys
        ),
    }
