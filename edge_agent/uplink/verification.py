"""Signatures of directives: which keys an agent obeys, and whether one of them signed.

A key is pinned in the configuration as the verifier key string that the server tells under
``/tlog/<ledger>/vkey``, compared once by a person. While a key is rotated two are pinned.

References
----------
C2SP signed-note: verifier keys and key ids. RFC 8032 (2017), Ed25519.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from domain.directives import Directive, decode_directive, signed_text
from domain.errors import InvalidInput, NotAllowed

MESSAGE_CHARACTERS_MAX: Final = 128 * 1024
KEYS_MAX: Final = 8
_ED25519: Final = 0x01
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class PinnedKey:
    """A public Ed25519 key under a name; the name is the log's origin."""

    name: str
    key_id: str
    public: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that a verifier key string ``<name>+<key id>+<base64>`` describes.

        Raises
        ------
        InvalidInput
            ``key.malformed``
        """
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if not name or len(raw) != 1 + _KEY_BYTES or raw[0] != _ED25519:
            raise InvalidInput(
                "key.malformed",
                f"{text!r:.80} is no verifier key",
                hint="copy the line that the server tells under /tlog/<ledger>/vkey",
            )
        expected = hashlib.sha256(name.encode() + b"\n" + raw).hexdigest()[:8]
        if key_id != expected:
            raise InvalidInput(
                "key.malformed",
                f"the key id {key_id!r:.20} should be {expected}: a letter is wrong",
            )
        return cls(name, key_id, raw[1:])


def verified_directive(message: str, keys: Sequence[PinnedKey]) -> Directive:
    """Return the directive in `message`, which one of `keys` has signed.

    Raises
    ------
    NotAllowed
        ``directive.unsigned``, ``directive.key_unknown``, ``directive.signature_invalid``
    InvalidInput
        ``directive.malformed``
    """
    encoded, told_key, signature = _parts(message)
    if not told_key or not signature:
        raise NotAllowed("directive.unsigned", "the directive carries no signature")
    key = next((key for key in keys if f"{key.name}+{key.key_id}" == told_key), None)
    if key is None:
        raise NotAllowed(
            "directive.key_unknown",
            f"the directive is signed by {told_key!r:.120}, which is not pinned here",
            hint="pin the new key as well while the server's key is rotated",
            value=told_key[:120],
        )
    _check_signature(key, signed_text(encoded).encode(errors="replace"), signature)
    return decode_directive(encoded)


def claimed_directive(message: str) -> Directive | None:
    """Return what `message` claims to be, whoever wrote it; None where it is nothing."""
    try:
        return decode_directive(_parts(message)[0])
    except InvalidInput:
        return None


def _parts(message: str) -> tuple[str, str, str]:
    """Return the encoded directive, the key's name and the signature, empty where they lack."""
    if len(message) > MESSAGE_CHARACTERS_MAX:
        raise InvalidInput("directive.malformed", "the message is too long to be a directive")
    try:
        told = json.loads(message)
        encoded, key, signature = (told.get(name, "") for name in ("directive", "key", "signature"))
    except (ValueError, AttributeError, RecursionError) as error:
        raise InvalidInput("directive.malformed", f"the message is not JSON: {error}") from error
    if not all(isinstance(part, str) for part in (encoded, key, signature)):
        raise InvalidInput("directive.malformed", "the message's parts are no texts")
    return encoded, key, signature


def _check_signature(key: PinnedKey, content: bytes, signature: str) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        raw = base64.b64decode(signature, validate=True)
        Ed25519PublicKey.from_public_bytes(key.public).verify(raw, content)
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise NotAllowed(
            "directive.signature_invalid", "the signature does not fit the directive"
        ) from error
