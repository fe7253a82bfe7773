"""The vocabulary in which an asset type is described: channels, set-points, alert rules.

An asset type is data in one file of ``domain/asset_types/``. Its author writes ranges and limits
in the units people use; `channel`, `health_limit`, `setpoint` and `domain.units.si` convert
them once, and everything inside the house sees SI.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
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


class ValueKind(StrEnum):
    """What the values of a channel are.

    Numbers are measured and may have any number type in a frame. The others are exact: nothing
    between two of them means anything.
    """

    NUMBER = "NUMBER"
    INTEGER = "INTEGER"
    BOOLEAN = "BOOLEAN"
    TEXT = "TEXT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One measured quantity, state or name of an asset.

    Parameters
    ----------
    name : identifier, stable for ever
    title : what a person calls it
    quantity : physical quantity, a key of `domain.units.SI_UNITS`
    input_unit : unit the sensor usually delivers; each frame declares its own
    physical_min, physical_max : SI; a reading outside cannot be real and is marked BAD
    rate_hz : samples a second of a waveform as it is usually taken, None for every other channel;
        each frame declares its own
    kind : what its values are; a text has neither quantity (``ratio``, unit ``1``) nor range, and
        statistics of it are counts
    """

    name: str
    title: str
    quantity: str
    input_unit: str
    physical_min: float
    physical_max: float
    rate_hz: float | None = None
    kind: ValueKind = ValueKind.NUMBER

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
    once it has been back beyond `clear` (SI) for `clear_hold_s`. See `projections.alerts.rules`.
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
    `projections.alerts.rules`.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BearingGeometry:
    """A rolling bearing as far as its defect frequencies depend on it.

    Parameters
    ----------
    element_count : balls or rollers of one row
    element_diameter_m, pitch_diameter_m : of a ball or roller, and of the circle of their centres
    contact_angle_rad : between the load on an element and the bearing's radial plane
    source : who says so
    """

    designation: str
    element_count: int
    element_diameter_m: float
    pitch_diameter_m: float
    contact_angle_rad: float
    source: str

    def __post_init__(self) -> None:
        # The elements stand in a circle without touching, and lie within it.
        room_m = math.pi * self.pitch_diameter_m / max(self.element_count, 1)
        if not (
            self.element_count >= 3
            and 0 < self.element_diameter_m < min(room_m, self.pitch_diameter_m)
            and 0 <= self.contact_angle_rad < math.pi / 2
        ):
            raise ValueError(f"bearing {self.designation!r} cannot be built")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearing:
    """A bearing of an asset and the waveform channel that is measured at it.

    Its inner ring turns with the shaft, whose speed the channel `speed_channel` tells.
    """

    name: str
    channel: str
    speed_channel: str
    geometry: BearingGeometry


@dataclass(frozen=True)
class AssetType:
    """Everything the house knows of a kind of machine.

    Beside the channels it declares it has those that are made of them, found by `channel`:
    ``<channel>.raw``, what the sensor of a conditioned channel delivered, and
    ``<waveform>.<feature>``, one of `WAVEFORM_FEATURES` or a band's RMS.

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
    bearings: tuple[Bearing, ...] = ()

    def __post_init__(self) -> None:
        for kind, names in (
            ("channel", [c.name for c in self.channels]),
            ("alert rule", [r.name for r in self.alert_rules]),
            ("set-point", [s.name for s in self.setpoints]),
            ("bearing", [b.name for b in self.bearings]),
            ("bearing's channel", [b.channel for b in self.bearings]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"asset type {self.name!r} names a {kind} twice")
        for declared in (*self.alert_rules, *self.health_limits):
            if self.channel(declared.channel).kind is ValueKind.TEXT:
                raise ValueError(f"channel {declared.channel!r} holds text, which has no limit")
        for bearing in self.bearings:
            if self.channel(bearing.channel).rate_hz is None:
                raise ValueError(f"channel {bearing.channel!r} of a bearing is no waveform")
            if self.channel(bearing.speed_channel).quantity != "angular_velocity":
                raise ValueError(f"channel {bearing.speed_channel!r} of a bearing is no speed")

    @cached_property
    def _channels(self) -> dict[str, Channel]:
        return {channel.name: channel for channel in self.channels}

    @cached_property
    def _derived_channels(self) -> dict[str, Channel]:
        return {}

    def channel(self, name: str) -> Channel:
        """Return the channel called `name`, declared or made of a declared one.

        Raises
        ------
        NotFound
            ``channel.unknown``
        """
        found = self._channels.get(name) or self._derived(name)
        if found is None:
            raise NotFound(
                "channel.unknown",
                f"asset type {self.name!r} has no channel {name!r}",
                hint=f"its channels: {', '.join(self._channels)}",
                value=name,
            )
        return found

    def _derived(self, name: str) -> Channel | None:
        remembered = self._derived_channels.get(name)
        if remembered is not None:
            return remembered
        origin_name, _, suffix = name.rpartition(".")
        origin = self._channels.get(origin_name)
        found = None if origin is None else _derived_channel(origin, suffix)
        # Names come from outside: what is remembered of them is bounded.
        if found is not None and len(self._derived_channels) < DERIVED_REMEMBERED_MAX:
            self._derived_channels[name] = found
        return found

    def derived(self, names: Iterable[str]) -> tuple[Channel, ...]:
        """Return those channels of `names` that are made of declared ones, in their order."""
        made = (self._derived(name) for name in names if name not in self._channels)
        return tuple(channel for channel in made if channel is not None)

    def bearing_at(self, channel: str) -> Bearing | None:
        """Return the bearing at which the waveform `channel` is measured, if one is declared."""
        return next((bearing for bearing in self.bearings if bearing.channel == channel), None)

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


# --- channels that are made of declared ones ----------------------------------------------

RAW: Final = "raw"
"""``<channel>.raw``: what the sensor of a conditioned channel delivered."""
SAME_QUANTITY: Final = ""
WAVEFORM_FEATURES: Final[Mapping[str, tuple[str, str]]] = {
    "rms": ("RMS", SAME_QUANTITY),
    "peak": ("peak", SAME_QUANTITY),
    "crest_factor": ("crest factor", "ratio"),
    "kurtosis": ("kurtosis", "ratio"),
    "velocity_rms": ("RMS velocity", "velocity"),
    "envelope_rms": ("RMS of the envelope", SAME_QUANTITY),
    "bpfo": ("envelope at the outer ring's defect frequency", SAME_QUANTITY),
    "bpfi": ("envelope at the inner ring's defect frequency", SAME_QUANTITY),
    "bsf": ("envelope at the rolling elements' defect frequency", SAME_QUANTITY),
    "ftf": ("envelope at the cage's frequency", SAME_QUANTITY),
    "bpfo_prominence": ("outer ring's defect lines over their surroundings", "ratio"),
    "bpfi_prominence": ("inner ring's defect lines over their surroundings", "ratio"),
    "bsf_prominence": ("rolling elements' defect lines over their surroundings", "ratio"),
    "ftf_prominence": ("cage's lines over their surroundings", "ratio"),
}
"""What is told of each window of a waveform: its title, and its quantity where it is another
than the waveform's. `ml.vibration` computes them. Beside these, ``band_<low>_<high>`` is the RMS
of what lies from `low` to `high` Hz.
"""
RATIO_MAX: Final = 1e9
DERIVED_REMEMBERED_MAX: Final = 1_024
_BAND = re.compile(r"band_(0|[1-9][0-9]{0,6})_([1-9][0-9]{0,6})")


def band_of(feature: str) -> tuple[int, int] | None:
    """Return the (low, high), Hz, of a feature ``band_<low>_<high>``, None for any other."""
    matched = _BAND.fullmatch(feature)
    if matched is None or int(matched[1]) >= int(matched[2]):
        return None
    return int(matched[1]), int(matched[2])


def _derived_channel(origin: Channel, suffix: str) -> Channel | None:
    """Return the channel that is made of `origin` under `suffix`, if there is such a thing."""
    if suffix == RAW:
        return Channel(
            name=f"{origin.name}.{RAW}",
            title=f"{origin.title}, as delivered",
            quantity=origin.quantity,
            input_unit=origin.input_unit,
            physical_min=-math.inf,
            physical_max=math.inf,
            rate_hz=origin.rate_hz,
            kind=origin.kind,
        )
    if origin.rate_hz is None:
        return None
    band = band_of(suffix)
    known = WAVEFORM_FEATURES.get(suffix)
    if band is not None:
        title, quantity = f"RMS from {band[0]} to {band[1]} Hz", SAME_QUANTITY
    elif known is None or (known[1] == "velocity" and origin.quantity != "acceleration"):
        return None
    else:
        title, quantity = known
    same = quantity == SAME_QUANTITY
    # An amplitude, with its mean or without, is at most the width of the range; a velocity that
    # an acceleration integrates to has no such bound.
    high = origin.physical_max - origin.physical_min if same else RATIO_MAX
    return Channel(
        name=f"{origin.name}.{suffix}",
        title=f"{origin.title}, {title}",
        quantity=origin.quantity if same else quantity,
        input_unit=origin.input_unit if same else SI_UNITS[quantity],
        physical_min=0.0,
        physical_max=high,
    )


# --- what an author writes ----------------------------------------------------------------


def channel(
    name: str,
    title: str,
    quantity: str,
    input_unit: str,
    physical: tuple[float, float],
    *,
    rate_hz: float | None = None,
    kind: ValueKind = ValueKind.NUMBER,
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
        rate_hz=rate_hz,
        kind=kind,
    )


def code_channel(name: str, title: str, codes: tuple[int, int]) -> Channel:
    """Return a channel of whole numbers that stand for something, such as a state or an alarm.

    Parameters
    ----------
    codes : the lowest and the highest that there is
    """
    return channel(name, title, "ratio", "1", codes, kind=ValueKind.INTEGER)


def flag_channel(name: str, title: str) -> Channel:
    """Return a channel that is true or false; its mean is the share of time that it was true."""
    return channel(name, title, "ratio", "1", (0, 1), kind=ValueKind.BOOLEAN)


def text_channel(name: str, title: str) -> Channel:
    """Return a channel of texts, such as the name of the program that runs."""
    return channel(name, title, "ratio", "1", (-math.inf, math.inf), kind=ValueKind.TEXT)


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
