"""The vocabulary in which an asset type is described: channels, set-points, alert rules.

An asset type is data in one file of ``domain/asset_types/``. Its author writes ranges and limits
in the units people use; `channel`, `health_limit`, `setpoint` and `domain.units.si` convert
them once, and everything inside the house sees SI.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

from domain.errors import NotFound
from domain.units import SI_UNITS, unit


class Severity(StrEnum):
    """How urgent an alert or a health finding is."""

    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One measured quantity of an asset.

    Parameters
    ----------
    name : identifier, stable for ever
    title : what a person calls it
    quantity : physical quantity, a key of `domain.units.SI_UNITS`
    input_unit : unit the sensor usually delivers; each frame declares its own
    physical_min, physical_max : SI; a reading outside cannot be real and is marked BAD
    """

    name: str
    title: str
    quantity: str
    input_unit: str
    physical_min: float
    physical_max: float

    @property
    def si_unit(self) -> str:
        """Symbol of the SI unit in which this channel is read."""
        return SI_UNITS[self.quantity]


EVERY_CHANNEL: Final = Channel(
    name="*",
    title="Every channel",
    quantity="time",
    input_unit="s",
    physical_min=0.0,
    physical_max=math.inf,
)
"""What an alert for missing data speaks of: for how long the asset as a whole has been silent."""


class Direction(StrEnum):
    """On which side of its limit a value is wrong."""

    ABOVE = "ABOVE"
    BELOW = "BELOW"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRule:
    """An alert while a channel stays beyond a fixed limit.

    It is raised once every second's mean has been beyond `limit` (SI) for `hold_s`, and cleared
    once it has been back beyond `clear` (SI) for `clear_hold_s`. See `projections.alert_rules`.
    """

    name: str
    channel: str
    severity: Severity
    direction: Direction
    message: str
    limit: float
    clear: float
    hold_s: int
    clear_hold_s: int = 10
    gap_s_max: int = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviationRule:
    """An alert while a channel's recent mean departs from its own recent past.

    The mean over the last `window_s` is compared with the mean over `baseline_s` that ended
    `lag_s` ago. The alert is raised once their difference, in the wrong `direction` and as a
    ratio of the baseline, has exceeded `deviation_ratio` for `hold_s`. From then on the baseline
    stands still, and the alert clears once the ratio has been under `clear_ratio` for
    `clear_hold_s`; after `relearn_s` the level reached counts as the new normal. See
    `projections.alert_rules`.
    """

    name: str
    channel: str
    severity: Severity
    direction: Direction
    message: str
    deviation_ratio: float
    clear_ratio: float
    window_s: int
    baseline_s: int
    lag_s: int
    hold_s: int
    clear_hold_s: int = 10
    relearn_s: int = 600
    gap_s_max: int = 120
    coverage_ratio: float = 0.8


AlertRule = LimitRule | DeviationRule


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthLimit:
    """From where on a channel's mean over its latest window speaks of bad health (SI)."""

    channel: str
    direction: Direction
    warning: float
    critical: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Setpoint:
    """A value that may be desired of an asset, within safe bounds (SI)."""

    name: str
    title: str
    quantity: str
    input_unit: str
    safe_min: float
    safe_max: float

    @property
    def si_unit(self) -> str:
        """Symbol of the SI unit in which this set-point is kept."""
        return SI_UNITS[self.quantity]


@dataclass(frozen=True)
class AssetType:
    """Everything the house knows of a kind of machine.

    Parameters
    ----------
    name : identifier, stable for ever
    stale_after_s : without a reading for so long the twin is stale
    """

    name: str
    title: str
    description: str
    channels: tuple[Channel, ...]
    alert_rules: tuple[AlertRule, ...] = ()
    health_limits: tuple[HealthLimit, ...] = ()
    setpoints: tuple[Setpoint, ...] = ()
    stale_after_s: float = 30.0

    def __post_init__(self) -> None:
        for kind, names in (
            ("channel", [c.name for c in self.channels]),
            ("alert rule", [r.name for r in self.alert_rules]),
            ("set-point", [s.name for s in self.setpoints]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"asset type {self.name!r} names a {kind} twice")
        for declared in (*self.alert_rules, *self.health_limits):
            self.channel(declared.channel)

    @cached_property
    def _channels(self) -> dict[str, Channel]:
        return {channel.name: channel for channel in self.channels}

    def channel(self, name: str) -> Channel:
        """Return the channel called `name`, or raise `NotFound` (``channel.unknown``)."""
        found = self._channels.get(name)
        if found is None:
            raise NotFound(
                "channel.unknown",
                f"asset type {self.name!r} has no channel {name!r}",
                hint=f"its channels: {', '.join(self._channels)}",
                value=name,
            )
        return found

    def judged(self, name: str) -> Channel:
        """Return what an alert speaks of: the channel called `name`, or `EVERY_CHANNEL`."""
        return EVERY_CHANNEL if name == EVERY_CHANNEL.name else self.channel(name)

    def setpoint(self, name: str) -> Setpoint:
        """Return the set-point called `name`, or raise `NotFound` (``setpoint.unknown``)."""
        for setpoint in self.setpoints:
            if setpoint.name == name:
                return setpoint
        raise NotFound(
            "setpoint.unknown",
            f"asset type {self.name!r} has no set-point {name!r}",
            hint=f"its set-points: {', '.join(s.name for s in self.setpoints)}",
            value=name,
        )


# --- what an author writes ----------------------------------------------------------------


def channel(
    name: str, title: str, quantity: str, input_unit: str, physical: tuple[float, float]
) -> Channel:
    """Return a channel whose `physical` range is given in `input_unit`."""
    convert = unit(input_unit, quantity=quantity).to_si
    return Channel(
        name=name,
        title=title,
        quantity=quantity,
        input_unit=input_unit,
        physical_min=convert(physical[0]),
        physical_max=convert(physical[1]),
    )


def setpoint(
    name: str, title: str, quantity: str, input_unit: str, safe: tuple[float, float]
) -> Setpoint:
    """Return a set-point whose `safe` bounds are given in `input_unit`."""
    convert = unit(input_unit, quantity=quantity).to_si
    return Setpoint(
        name=name,
        title=title,
        quantity=quantity,
        input_unit=input_unit,
        safe_min=convert(safe[0]),
        safe_max=convert(safe[1]),
    )


def health_limit(
    channel: str,
    direction: Direction,
    input_unit: str,
    *,
    warning: float,
    critical: float,
) -> HealthLimit:
    """Return a health limit whose values are given in `input_unit`."""
    convert = unit(input_unit).to_si
    return HealthLimit(
        channel=channel, direction=direction, warning=convert(warning), critical=convert(critical)
    )
