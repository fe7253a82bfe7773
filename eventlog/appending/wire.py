"""Values as PostgreSQL reads them in their binary form: numbers, times, and arrays.

Layout of an array, after ``array_recv`` in PostgreSQL's source: dimensions, whether there are
NULLs, type of the elements, size, lower bound; then each element after its length. Times are
microseconds since 2000.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from eventlog.envelope import POSTGRES_EPOCH

TEXTS_REMEMBERED_MAX: Final = 16_384

Value = bytes | None
"""A value in its binary form; None for NULL."""


class Type(IntEnum):
    """PostgreSQL's numbers for its types, the same in every database (``pg_type.dat``)."""

    BYTEA = 17
    BIGINT = 20
    SMALLINT = 21
    INTEGER = 23
    TEXT = 25
    BYTEAS = 1001
    SMALLINTS = 1005
    INTEGERS = 1007
    TEXTS = 1009
    BIGINTS = 1016
    TIMESTAMPTZ = 1184
    TIMESTAMPTZS = 1185
    UUID = 2950
    UUIDS = 2951


NULL: Final = struct.pack(">i", -1)
smallint: Final = struct.Struct(">h").pack
integer: Final = struct.Struct(">i").pack
bigint: Final = struct.Struct(">q").pack
_array_head: Final = struct.Struct(">iiIii").pack
_DAY_US: Final = 86_400_000_000


def microseconds(moment: datetime) -> int:
    """Return `moment` as PostgreSQL's ``timestamptz`` holds it."""
    since: timedelta = moment - POSTGRES_EPOCH
    return since.days * _DAY_US + since.seconds * 1_000_000 + since.microseconds


def field(value: bytes) -> bytes:
    """Return `value` after its length."""
    return len(value).to_bytes(4, "big") + value


@lru_cache(maxsize=TEXTS_REMEMBERED_MAX)
def _text_field(text: str) -> bytes:
    return field(text.encode())


def _array(of: Type, size: int, elements: bytes, *, has_null: bool = False) -> bytes:
    return _array_head(1, has_null, of, size, 1) + elements


def alike(of: Type, width: int, values: Sequence[bytes]) -> bytes:
    """Return an array of values that all take `width` bytes, none of which is NULL."""
    return _array(of, len(values), integer(width).join((b"", *values)))


def _numbers(of: Type, width: int, pack: Callable[[Any], bytes], values: Sequence[Any]) -> Value:
    nulls = values.count(None)
    if nulls == len(values):
        return None
    if not nulls:
        return alike(of, width, [*map(pack, values)])
    length = integer(width)
    elements = b"".join([NULL if value is None else length + pack(value) for value in values])
    return _array(of, len(values), elements, has_null=True)


def bigints(values: Sequence[int | None]) -> Value:
    """Return an array of ``bigint``, or NULL where all are; so do those below."""
    return _numbers(Type.BIGINT, 8, bigint, values)


def integers(values: Sequence[int | None]) -> Value:
    """Return an array of ``integer``."""
    return _numbers(Type.INTEGER, 4, integer, values)


def smallints(values: Sequence[int | None]) -> Value:
    """Return an array of ``smallint``."""
    return _numbers(Type.SMALLINT, 2, smallint, values)


def timestamps(values: Iterable[datetime]) -> Value:
    """Return an array of ``timestamptz``."""
    return alike(Type.TIMESTAMPTZ, 8, [bigint(microseconds(value)) for value in values])


def uuids(values: Sequence[UUID | None]) -> Value:
    """Return an array of ``uuid``."""
    return _numbers(Type.UUID, 16, attrgetter("bytes"), values)


def texts(values: Sequence[str | None]) -> Value:
    """Return an array of ``text``."""
    nulls = values.count(None)
    if nulls == len(values):
        return None
    elements = [NULL if value is None else _text_field(value) for value in values]
    return _array(Type.TEXT, len(values), b"".join(elements), has_null=nulls > 0)


def byteas(values: Sequence[bytes | None]) -> Value:
    """Return an array of ``bytea``."""
    nulls = values.count(None)
    if nulls == len(values):
        return None
    elements: list[bytes] = []
    for value in values:
        elements += (NULL,) if value is None else (integer(len(value)), value)
    return _array(Type.BYTEA, len(values), b"".join(elements), has_null=nulls > 0)
