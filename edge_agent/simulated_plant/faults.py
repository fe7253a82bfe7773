"""What goes wrong in the simulated plant, and when: a declared schedule, the same in every run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from domain.errors import InvalidInput

FAULTS_MAX: Final = 1_000
SECONDS_MAX: Final = 1e9


class FaultKind(StrEnum):
    """What can go wrong."""

    VALVE = "valve"  # it half closes; every channel shows it as physics has it
    STUCK = "stuck"  # the sensor shows what it showed last
    SPIKE = "spike"  # the sensor shows three times what is there
    NAN = "nan"  # the sensor delivers no number
    BAD = "bad"  # the sensor says itself that it has failed
    DROP = "drop"  # the connections are cut; the plant goes on
    RESTART = "restart"  # the controller is away and begins anew, with its first set-point


OF_A_CHANNEL: Final = (FaultKind.STUCK, FaultKind.SPIKE, FaultKind.NAN, FaultKind.BAD)
OF_THE_LINK: Final = (FaultKind.DROP, FaultKind.RESTART)
_DECLARED: Final = re.compile(
    r"(?P<kind>[a-z]+)(:(?P<channel>[a-z0-9_]+))?@(?P<start>[0-9.]+)\+(?P<duration>[0-9.]+)"
)


@dataclass(frozen=True, slots=True)
class PlantFault:
    """One fault, from `start_s` after the plant's start for `duration_s`."""

    kind: FaultKind
    start_s: float
    duration_s: float
    channel: str = ""


@dataclass(frozen=True)
class FaultSchedule:
    """The faults of a plant; `repeat_s` begins them again and again, 0 never."""

    faults: tuple[PlantFault, ...] = ()
    repeat_s: float = 0.0

    def active(self, time_s: float) -> tuple[PlantFault, ...]:
        """Return the faults that act at `time_s` after the plant's start."""
        at_s = self._within(time_s)
        return tuple(f for f in self.faults if f.start_s <= at_s < f.start_s + f.duration_s)

    def elapsed_s(self, fault: PlantFault, time_s: float) -> float:
        """Return for how long `fault`, which acts at `time_s`, has acted."""
        return self._within(time_s) - fault.start_s

    def _within(self, time_s: float) -> float:
        return time_s % self.repeat_s if self.repeat_s else time_s


def read_faults(declared: Sequence[str], channels: Sequence[str], repeat_s: float) -> FaultSchedule:
    """Return the schedule that texts such as ``stuck:flow@60+30`` declare.

    Raises
    ------
    InvalidInput
        ``fault.malformed``, ``fault.too_many``
    """
    if len(declared) > FAULTS_MAX:
        raise InvalidInput("fault.too_many", f"{len(declared)} faults, more than {FAULTS_MAX}")
    return FaultSchedule(tuple(_fault(text, channels) for text in declared), repeat_s)


def _fault(text: str, channels: Sequence[str]) -> PlantFault:
    matched = _DECLARED.fullmatch(text)
    try:
        if matched is None:
            raise ValueError
        kind = FaultKind(matched["kind"])
        start_s, duration_s = float(matched["start"]), float(matched["duration"])
    except ValueError:
        kinds = ", ".join(FaultKind)
        raise _malformed(text, f"KIND[:CHANNEL]@START+SECONDS with {kinds}") from None
    channel = matched["channel"] or ""
    if not (0 <= start_s <= SECONDS_MAX and 0 < duration_s <= SECONDS_MAX):
        raise _malformed(text, "times of more than 0 seconds")
    if (kind in OF_A_CHANNEL) != bool(channel):
        raise _malformed(text, f"a channel for {', '.join(OF_A_CHANNEL)}, and for no other kind")
    if channel and channel not in channels:
        raise _malformed(text, f"one of the channels {', '.join(channels)}")
    return PlantFault(kind, start_s, duration_s, channel)


def _malformed(text: str, expected: str) -> InvalidInput:
    return InvalidInput(
        "fault.malformed", f"{text!r:.80} declares no fault: expected {expected}", value=text[:80]
    )
