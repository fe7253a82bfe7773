"""What an export is asked for: the parameters of its address, checked before a byte goes out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar

from api.graphql.filters import chosen
from api.graphql.scalars import parse_time, to_ns
from domain.errors import InvalidInput

T = TypeVar("T")

_FLAGS: Final = {"yes": True, "no": False, "true": True, "false": False}
_EARLIEST: Final = datetime(1678, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2262, 1, 1, tzinfo=UTC)


class Parameters:
    """The parameters of one request.

    Parameters
    ----------
    given : (name, value) pairs as they stand in the address
    known : the names there are

    Raises
    ------
    InvalidInput
        ``export.unknown_parameter``, ``export.repeated_parameter``
    """

    def __init__(self, given: Collection[tuple[str, str]], known: Collection[str]) -> None:
        self._given: dict[str, str] = {}
        for name, value in given:
            if name not in known:
                raise InvalidInput(
                    "export.unknown_parameter",
                    f"there is no parameter {name!r:.80}",
                    hint=f"there are {', '.join(sorted(known))}",
                    value=name[:80],
                )
            if name in self._given:
                raise InvalidInput(
                    "export.repeated_parameter",
                    f"the parameter {name!r} is given twice",
                    hint="give a list with commas",
                    value=name,
                )
            self._given[name] = value

    def names(self, parameter: str) -> tuple[str, ...]:
        """Return the names that `parameter` lists with commas; none where it is not given."""
        text = self._given.get(parameter, "")
        return chosen(parameter, [name for name in text.split(",") if name])

    def flag(self, parameter: str) -> bool:
        """Return whether `parameter` is yes."""
        return self.one_of(
            parameter, {"yes": True, "no": False, "true": True, "false": False}, "no"
        )

    def one_of(self, parameter: str, options: Mapping[str, T], default: str) -> T:
        """Return what the option means that `parameter` names.

        Raises
        ------
        InvalidInput
            ``export.malformed_parameter``
        """
        text = self._given.get(parameter, default)
        if text not in options:
            raise InvalidInput(
                "export.malformed_parameter",
                f"{parameter}={text!r:.40} is none of {', '.join(options)}",
                value=text[:40],
            )
        return options[text]

    def time(self, parameter: str) -> datetime | None:
        """Return the time that `parameter` gives; None where it is not given."""
        text = self._given.get(parameter)
        return None if text is None else parse_time(text)

    def range_ns(self) -> tuple[int, int]:
        """Return ``from`` and ``to`` in ns since 1970 UTC, both included; all time without them.

        Raises
        ------
        InvalidInput
            ``readings.range``
        """
        start, end = to_ns(self.time("from") or _EARLIEST), to_ns(self.time("to") or _LATEST)
        if start > end:
            raise InvalidInput(
                "readings.range",
                "`to` lies before `from`",
                value=self._given.get("to"),
                limit=self._given.get("from"),
            )
        return start, end

    def text(self, parameter: str) -> str | None:
        """Return `parameter` as it was given."""
        return self._given.get(parameter)

    def whole(self, parameter: str, *, low: int, high: int) -> int | None:
        """Return the whole number that `parameter` gives, from `low` to `high`."""
        text = self._given.get(parameter)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
            raise InvalidInput(
                "export.malformed_parameter",
                f"{parameter}={text!r:.40} is no whole number from {low} to {high}",
                value=text[:40],
                limit=high,
            )
        return int(text)
