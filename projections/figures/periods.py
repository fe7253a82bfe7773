"""Periods of time that figures are made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from domain.errors import InvalidInput
from domain.events import format_time


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` up to, but not with, `end`; both with a zone.

    Raises
    ------
    InvalidInput
        ``event.naive_time``, ``event.time_out_of_range``, ``figure.period_empty``
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        start, end = format_time(self.start), format_time(self.end)
        if self.start >= self.end:
            raise InvalidInput(
                "figure.period_empty",
                f"the period from {start} to {end} holds no time",
                value=start,
                limit=end,
            )

    @property
    def length_s(self) -> float:
        """How long it is, s."""
        return (self.end - self.start).total_seconds()


_SECONDS: Final = "extract(epoch from upper(span) - lower(span))::float8"


def length_s(multirange: str) -> str:
    """Return how long a multirange of times is, s, overlaps counted once, in SQL."""
    return f"(select coalesce(sum({_SECONDS}), 0) from unnest({multirange}) as span)"
