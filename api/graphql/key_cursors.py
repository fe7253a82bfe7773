"""Cursors of lists whose order is of several columns."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import orjson

from api.graphql.relay import decode_text_cursor, encode_cursor
from api.graphql.scalars import Cursor, parse_time
from domain.errors import InvalidInput
from domain.events import format_time

INTEGER_MAX: Final = 2**53 - 1


def encode_key_cursor(kind: str, ledger: str, key: tuple[Any, ...]) -> Cursor:
    """Return the cursor after the item with this key: times, texts and whole numbers."""
    parts = [format_time(part) if isinstance(part, datetime) else part for part in key]
    return encode_cursor(kind, ledger, orjson.dumps(parts).decode())


def decode_key_cursor(
    cursor: Cursor, kind: str, ledger: str, types: tuple[type, ...]
) -> tuple[Any, ...]:
    """Return the key of `cursor`, whose parts are of `types`.

    Raises
    ------
    InvalidInput
        ``cursor.malformed``
    """
    text = decode_text_cursor(cursor, kind, ledger)
    try:
        parts = orjson.loads(text)
        if not isinstance(parts, list):
            raise ValueError("no list")
        return tuple(_part(part, of) for part, of in zip(parts, types, strict=True))
    except (ValueError, InvalidInput):
        raise InvalidInput(
            "cursor.malformed",
            f"{cursor!r:.80} is no cursor",
            hint="give back a cursor exactly as the API returned it",
            value=cursor[:80],
        ) from None


def _part(part: Any, of: type) -> Any:
    if of is datetime:
        return parse_time(part)
    if type(part) is not of or (isinstance(part, int) and abs(part) > INTEGER_MAX):
        raise ValueError("of another type")
    return part
