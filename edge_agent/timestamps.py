"""Times as a recording writes them, read as nanoseconds since 1970 UTC.

A text is first read as a wall clock. Where it carries no offset, the declared zone supplies one,
and the two nights a year on which a wall clock is not a time are decided here:

* an hour that does not exist (clocks go forward) is refused as ``row.time_nonexistent``;
* an hour that happens twice (clocks go back) is read as whichever of the two lies nearer to the
  row before, and as the first when there is none. Rows that follow each other by less than half
  an hour are thereby always read right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from domain.errors import InvalidInput

ISO8601: Final = "iso8601"
UNIX_S: Final = "unix_s"
UNIX_MS: Final = "unix_ms"

NS_PER_S: Final = 1_000_000_000
TIME_NS_MIN: Final = -(2**63)
TIME_NS_MAX: Final = 2**63 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)
_UNIX_DIGITS_MAX: Final = 40
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?(Z|[+-]\d\d:\d\d)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class WallClock:
    """A time as written: nanoseconds since 1970 on that clock, and the clock's offset if told."""

    local_ns: int
    offset_s: int | None


def carries_zone(time_format: str) -> bool:
    """Return whether every text of `time_format` names an instant without a zone beside it."""
    return time_format in (UNIX_S, UNIX_MS) or "%z" in time_format.replace("%%", "")


class TimeReader:
    """Reads the times of one source.

    Parameters
    ----------
    time_format : ``iso8601``, ``unix_s``, ``unix_ms`` or a `datetime.strptime` format
    zone : of texts without an offset of their own
    """

    def __init__(self, time_format: str, zone: ZoneInfo | None) -> None:
        self._zone = zone
        self._wall_clock: Callable[[str], WallClock]
        match time_format:
            case "iso8601":
                self._wall_clock = _read_iso8601
            case "unix_s":
                self._wall_clock = lambda text: _read_unix(text, NS_PER_S)
            case "unix_ms":
                self._wall_clock = lambda text: _read_unix(text, NS_PER_S // 1000)
            case _:
                self._wall_clock = lambda text: _read_strptime(text, time_format)
        # Clocks change on whole minutes, and a minute's rows share its offsets.
        self._offsets_s = lru_cache(maxsize=1024)(self._offsets_of_minute)

    def read(self, text: str, previous_ns: int | None) -> int:
        """Return the instant `text` names, ns since 1970 UTC.

        Parameters
        ----------
        previous_ns : the row before, which tells the two passes of a repeated hour apart

        Raises
        ------
        InvalidInput
            ``row.time_unreadable``, ``row.time_nonexistent``, ``row.time_out_of_range`` or
            ``row.zone_missing``.
        """
        wall_clock = self._wall_clock(text)
        if wall_clock.offset_s is not None:
            return _checked(wall_clock.local_ns - wall_clock.offset_s * NS_PER_S, text)
        offsets_s = self._offsets_s(wall_clock.local_ns // (60 * NS_PER_S))
        if not offsets_s:
            raise InvalidInput(
                "row.time_nonexistent",
                f"{text!r:.80} was skipped when clocks went forward in {self._zone}",
                value=text,
            )
        candidates = [wall_clock.local_ns - offset_s * NS_PER_S for offset_s in offsets_s]
        if len(candidates) == 1 or previous_ns is None:
            return _checked(candidates[0], text)
        before = previous_ns
        return _checked(min(candidates, key=lambda candidate: abs(candidate - before)), text)

    def _offsets_of_minute(self, local_minute: int) -> tuple[int, ...]:
        """Return the offsets that the zone's clocks showed at that minute, the earlier first."""
        if self._zone is None:
            raise InvalidInput(
                "row.zone_missing",
                "the time has no offset and the mapping no zone",
                hint="add time.zone, such as Europe/Berlin or UTC",
            )
        wall = _EPOCH + timedelta(minutes=local_minute)
        offsets_s = []
        for fold in (0, 1):
            aware = wall.replace(tzinfo=self._zone, fold=fold)
            offset = aware.utcoffset() or timedelta()
            try:
                shown = (aware.astimezone(UTC)).astimezone(self._zone).replace(tzinfo=None)
            except OverflowError:
                shown = wall
            offset_s = round(offset.total_seconds())
            if shown == wall and offset_s not in offsets_s:
                offsets_s.append(offset_s)
        return tuple(offsets_s)


def _read_iso8601(text: str) -> WallClock:
    matched = _ISO.fullmatch(text.strip())
    if matched is None:
        raise _unreadable(text, "an ISO 8601 date and time such as 2020-03-09T10:14:33Z")
    date, clock, fraction, offset = matched.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}")
    except ValueError as error:
        raise _unreadable(text, "an ISO 8601 date and time") from error
    fraction_ns = int(fraction.ljust(9, "0")) if fraction else 0
    return WallClock(_local_ns(moment) + fraction_ns, _offset_s(offset))


def _offset_s(offset: str | None) -> int | None:
    if offset is None:
        return None
    if offset == "Z":
        return 0
    sign = -1 if offset[0] == "-" else 1
    return sign * (int(offset[1:3]) * 3600 + int(offset[4:6]) * 60)


def _read_strptime(text: str, time_format: str) -> WallClock:
    try:
        moment = datetime.strptime(text.strip(), time_format)  # noqa: DTZ007 (a wall clock)
    except ValueError as error:
        raise _unreadable(text, f"a time in the format {time_format!r}") from error
    offset = moment.utcoffset()
    offset_s = None if offset is None else round(offset.total_seconds())
    return WallClock(_local_ns(moment.replace(tzinfo=None)), offset_s)


def _read_unix(text: str, unit_ns: int) -> WallClock:
    try:
        number = Decimal(text.strip()) if len(text) <= _UNIX_DIGITS_MAX else Decimal("nan")
    except InvalidOperation as error:
        raise _unreadable(text, "a number of seconds or milliseconds since 1970") from error
    if not number.is_finite() or number.adjusted() > 20:
        raise _unreadable(text, "a number of seconds or milliseconds since 1970")
    return WallClock(int((number * unit_ns).to_integral_value()), 0)


def _local_ns(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1_000


def _unreadable(text: str, expected: str) -> InvalidInput:
    return InvalidInput("row.time_unreadable", f"{text!r:.80} is not {expected}", value=text)


def _checked(time_ns: int, text: str) -> int:
    if not TIME_NS_MIN <= time_ns <= TIME_NS_MAX:
        raise InvalidInput(
            "row.time_out_of_range",
            f"{text!r:.80} lies outside the years 1678 to 2262",
            value=text,
        )
    return time_ns
