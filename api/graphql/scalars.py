"""Scalars of the schema, and the words in which Python's enumerations are told to clients."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, NewType, TypeVar
from uuid import UUID

import strawberry
from strawberry.types.scalar import ScalarDefinition

from domain.errors import InvalidInput
from domain.events import format_time
from domain.frames import ByteArray, FloatArray, IntArray

POSITION_MAX: Final = 2**53 - 1
"""Every JSON reader holds integers up to here exactly."""

CURSOR_LENGTH_MAX: Final = 512

Position = NewType("Position", int)
Cursor = NewType("Cursor", str)
BigInt = NewType("BigInt", int)
Json = NewType("Json", object)
FloatColumn = NewType("FloatColumn", FloatArray)
QualityColumn = NewType("QualityColumn", ByteArray)
Column = NewType("Column", list[Any])

_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)?", re.IGNORECASE
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_INT64_MAX: Final = 2**63 - 1


def parse_time(text: object) -> datetime:
    """Return the RFC 3339 time that `text` gives, UTC.

    Raises
    ------
    InvalidInput
        ``time.malformed``, or ``event.naive_time`` when it has no zone
    """
    found = _RFC3339.fullmatch(text) if isinstance(text, str) else None
    try:
        if found is None:
            raise ValueError("not of the form 2020-03-09T10:34:33Z")
        moment = datetime.fromisoformat(found[0].upper())
        format_time(moment)  # refuses a time without a zone
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            "time.malformed",
            f"{text!r:.80} is no time: {error}",
            hint="RFC 3339 with a zone, such as 2020-03-09T10:34:33.250Z",
            value=str(text)[:80],
        ) from error


def to_ns(moment: datetime) -> int:
    """Return `moment` as ns since 1970 UTC, held within what 64 bits can say (1677 to 2262)."""
    time_ns = (moment - _EPOCH) // _MICROSECOND * 1000
    return max(-_INT64_MAX, min(_INT64_MAX, time_ns))


def to_ms(times_ns: IntArray) -> FloatColumn:
    """Return times in ns as float64 ms since 1970 UTC, exact to about a quarter microsecond."""
    # Whole milliseconds apart: an int64 of nanoseconds has more digits than a float64 holds.
    return FloatColumn(times_ns // 1_000_000 + times_ns % 1_000_000 / 1e6)


def _parse_uuid(value: object) -> UUID:
    try:
        return UUID(value if isinstance(value, str) else "")
    except ValueError as error:
        raise InvalidInput(
            "uuid.malformed",
            f"{value!r:.80} is no UUID",
            hint="32 hexadecimal digits, such as 0198c5a6-7e10-7000-8000-000000000000",
            value=str(value)[:80],
        ) from error


def _parse_position(value: object) -> Position:
    if type(value) is not int or not 0 <= value <= POSITION_MAX:
        raise InvalidInput(
            "position.malformed",
            f"{value!r:.40} is no position",
            hint=f"a whole number from 0 to {POSITION_MAX}",
            value=str(value)[:40],
            limit=POSITION_MAX,
        )
    return Position(value)


def _parse_big_int(value: object) -> BigInt:
    if type(value) is not int or abs(value) > POSITION_MAX:
        raise InvalidInput(
            "number.malformed",
            f"{value!r:.40} is no whole number of at most 53 bits",
            value=str(value)[:40],
            limit=POSITION_MAX,
        )
    return BigInt(value)


def _parse_cursor(value: object) -> Cursor:
    if not isinstance(value, str) or len(value) > CURSOR_LENGTH_MAX:
        raise InvalidInput(
            "cursor.malformed",
            f"{value!r:.40} is no cursor",
            hint="give back a cursor exactly as the API returned it",
            value=str(value)[:40],
        )
    return Cursor(value)


def _refuse_input(value: object) -> Any:
    raise InvalidInput("scalar.output_only", f"{value!r:.40} cannot be given as an input")


SCALARS: Final[Mapping[object, ScalarDefinition]] = {
    datetime: strawberry.scalar(
        name="DateTime",
        description="A time: RFC 3339, UTC, to the microsecond, such as "
        "`2020-03-09T10:34:33.250000Z`. As an input any offset is accepted and a time without "
        "one is refused; digits beyond the microsecond are dropped.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
        serialize=format_time,
        parse_value=parse_time,
    ),
    UUID: strawberry.scalar(
        name="UUID",
        description="A UUID in its canonical form, such as `0198c5a6-7e10-7000-8000-000000000000`.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc9562",
        serialize=str,
        parse_value=_parse_uuid,
    ),
    Position: strawberry.scalar(
        name="Position",
        description="A place in the log: 1, 2, 3 … without gaps; 0 is before the first event. "
        "A 64-bit integer in the log and a JSON number here, at most 2^53 - 1, so that every "
        "JSON reader holds it exactly.",
        serialize=int,
        parse_value=_parse_position,
    ),
    Cursor: strawberry.scalar(
        name="Cursor",
        description="Where a list or a subscription goes on. Opaque: give it back exactly as it "
        "came. It belongs to one ledger and one kind of list.",
        serialize=str,
        parse_value=_parse_cursor,
    ),
    BigInt: strawberry.scalar(
        name="BigInt",
        description="A whole number from -(2^53 - 1) to 2^53 - 1, a JSON number: `Int` ends at 31 "
        "bits, and every JSON reader holds these exactly.",
        serialize=int,
        parse_value=_parse_big_int,
    ),
    Json: strawberry.scalar(
        name="JSON",
        description="Any JSON value.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc8259",
        serialize=lambda value: value,
    ),
    FloatColumn: strawberry.scalar(
        name="FloatColumn",
        description="A column of numbers: a JSON list of finite 64-bit floats. One scalar, and "
        "not a list of them, so that 10,000 readings cost hardly more than one.",
        serialize=lambda column: column,
        parse_value=_refuse_input,
    ),
    QualityColumn: strawberry.scalar(
        name="QualityColumn",
        description="A column of qualities: a JSON list of small integers, 0 GOOD, 1 UNCERTAIN, "
        "2 BAD (the severities of an OPC UA status code).",
        serialize=lambda column: column,
        parse_value=_refuse_input,
    ),
    Column: strawberry.scalar(
        name="Column",
        description="A column of values, one a row: a JSON list of what its field says. One "
        "scalar, and not a list of them, so that 10,000 rows cost hardly more than one.",
        serialize=lambda column: column,
        parse_value=_refuse_input,
    ),
}

E = TypeVar("E", bound=type[Enum])


def described_enum(
    enumeration: E, description: str, meanings: Mapping[str, str], *, name: str | None = None
) -> E:
    """Return `enumeration` as an enumeration of the schema, each member with its meaning.

    The schema's words stay here, so that `domain` and `projections` need not know GraphQL.

    Parameters
    ----------
    name : its name in the schema, where that is not the class's
    """
    told = strawberry.enum(enumeration, name=name, description=description)
    definition = told.__strawberry_definition__  # type: ignore[attr-defined]
    for value in definition.values:
        value.description = meanings[value.name]
    return told
