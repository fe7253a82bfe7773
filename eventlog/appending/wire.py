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

    BOOLEAN = 16
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
boolean: Final = struct.Struct(">?").pack
smallint: Final = struct.Struct(">h").pack
integer: Final = struct.Struct(">i").pack
bigint: Final = struct.Struct(">q").pack
_array_head: Final = struct.Struct(">iiIii").pack
_DAY_US: Final = 86_400_000_000


def microseconds(moment: datetime) -> int:
    """Return `moment` as PostgreSQL's ``timestamptz`` holds it."""
    since: timedelta = moment - POSTGRES_EPOCH
    return since.days * _DAY_US + since.seconds * 1_000_000 + since.microseconds


def _field(value: bytes) -> bytes:
    """Return `value` after its length."""
    return integer(len(value)) + value


@lru_cache(maxsize=TEXTS_REMEMBERED_MAX)
def _text_field(text: str) -> bytes:
    return _field(text.encode())


def _array(of: Type, values: Sequence[Any], field: Callable[[Any], bytes]) -> Value:
    """Return an array whose elements `field` makes, each after its length; NULL where all are."""
    nulls = values.count(None)
    if nulls == len(values):
        return None
    elements = [NULL if value is None else field(value) for value in values]
    return b"".join((_array_head(1, nulls > 0, of, len(values), 1), *elements))


def alike(of: Type, width: int, values: Sequence[bytes]) -> bytes:
    """Return an array of values that all take `width` bytes, none of which is NULL."""
    head = _array_head(1, False, of, len(values), 1)
    return integer(width).join((head, *values))


def _numbers(of: Type, width: int, pack: Callable[[Any], bytes], values: Sequence[Any]) -> Value:
    if None in values:
        return _array(of, values, lambda value: _field(pack(value)))
    return alike(of, width, [*map(pack, values)])


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
    return _array(Type.TEXT, values, _text_field)


def byteas(values: Sequence[bytes | None]) -> Value:
    """Return an array of ``bytea``."""
    return _array(Type.BYTEA, values, _field)
