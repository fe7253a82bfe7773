"""Names of things: the rule every identifier from outside has to follow."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Final

from domain.errors import InvalidInput

IDENTIFIER_LENGTH_MAX: Final = 64
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_identifier(kind: str, value: object) -> str:
    """Return `value` when it can name a `kind` ("asset", "agent", "channel" …).

    Raises
    ------
    InvalidInput
        ``<kind>.malformed_name`` unless it is 1 to 64 letters, digits, dots, dashes and
        underscores, starting with a letter or a digit.
    """
    if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
        raise InvalidInput(
            f"{kind}.malformed_name",
            f"{value!r:.80} cannot name a {kind}",
            hint="1 to 64 letters, digits, '.', '-', '_', starting with a letter or digit",
            value=str(value)[:80],
            limit=IDENTIFIER_LENGTH_MAX,
        )
    return value


def uuid7(time_ms: int, random_bits: bytes) -> uuid.UUID:
    """Return the UUIDv7 of `time_ms` (ms since 1970 UTC) and at least 10 `random_bits` bytes.

    References
    ----------
    RFC 9562 (2024), section 5.7.
    """
    value = (time_ms & (1 << 48) - 1) << 80 | int.from_bytes(random_bits[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return uuid.UUID(int=value)


def derived_uuid7(time_ms: int, *parts: str) -> uuid.UUID:
    """Return the UUIDv7 that belongs to `parts`: the same words give the same identifier.

    A follower that is restarted proposes the same event again under the same identifier, so
    that the log recognises it.
    """
    return uuid7(time_ms, hashlib.sha256("\x1f".join(parts).encode()).digest())
