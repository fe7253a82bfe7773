"""Texts from outside: how long they may be, and the forms that hashes and media types have."""

from __future__ import annotations

import re
from typing import Final

from domain.errors import InvalidInput

NAME_LENGTH_MAX: Final = 64
TITLE_LENGTH_MAX: Final = 200
NOTE_LENGTH_MAX: Final = 2_000

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")


def check_text(name: str, text: str, length_max: int = NOTE_LENGTH_MAX) -> str:
    """Return `text` without blanks at its ends.

    Raises
    ------
    InvalidInput
        ``text.empty``, ``text.too_long``
    """
    stripped = check_note(name, text, length_max).strip()
    if not stripped:
        raise InvalidInput("text.empty", f"{name} is empty", hint="say it in words", value=text)
    return stripped


def check_note(name: str, text: str, length_max: int = NOTE_LENGTH_MAX) -> str:
    """Return `text`, which may be empty.

    Raises
    ------
    InvalidInput
        ``text.too_long``
    """
    if len(text) > length_max:
        raise InvalidInput(
            "text.too_long",
            f"{name} has {len(text)} characters, more than {length_max}",
            value=len(text),
            limit=length_max,
        )
    return text


def check_sha256(name: str, text: str) -> str:
    """Return `text` when it is a SHA-256 in hex.

    Raises
    ------
    InvalidInput
        ``sha256.malformed``
    """
    if not _SHA256.fullmatch(text):
        raise InvalidInput(
            "sha256.malformed",
            f"{name} {text!r:.80} is no SHA-256",
            hint="64 hexadecimal digits in lower case",
            value=text[:80],
        )
    return text


def check_media_type(text: str) -> str:
    """Return `text` when it is a media type such as ``image/png`` (RFC 6838, 4.2; lower case).

    Raises
    ------
    InvalidInput
        ``media_type.malformed``
    """
    if not _MEDIA_TYPE.fullmatch(text):
        raise InvalidInput(
            "media_type.malformed",
            f"{text!r:.80} is no media type",
            hint="such as image/png, in lower case and without parameters",
            value=text[:80],
        )
    return text
