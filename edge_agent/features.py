"""Features of waveforms beside the machine: always told, the waveform itself only when it matters.

`ml.vibration` computes them, the same code that training uses; this file cuts a waveform into
pieces to analyse, wherever windows end, and decides which of its samples go on: all, none, or
those around a change, from some seconds before it. `docs/conditioning.md` is the reference of
what may be declared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import numpy as np

from domain.asset_model import AssetType, band_of
from domain.frames import ByteArray, FloatArray, IntArray, Quality
from domain.units import SI_UNITS, Unit, unit
from edge_agent.conditioning.alignment import Held
from edge_agent.conditioning.samples import BoolArray, Samples
from edge_agent.live import DeliveredChannel
from edge_agent.live.window import ChannelWindow, Window
from edge_agent.waveform_gate import Change, WaveformGate
from edge_agent.yaml_section import Section
from ml.vibration import (
    DEFECTS,
    SAMPLES_MIN,
    VELOCITY_BAND_HZ,
    DefectOrders,
    defect_orders,
    waveform_features,
)

SAMPLES_MAX: Final = 1_000_000
"""Samples of one piece: those of a frame."""
PIECES_AT_ONCE: Final = 16
FEATURES_MAX: Final = 64
SPEED_AGE_SECONDS: Final = 60.0
ALWAYS: Final = "always"
NEVER: Final = "never"
ON_CHANGE: Final = "on_change"
GAP: Final = "waveform.gap"
"""Samples that no feature tells of, because the waveform broke off before a piece was full."""
KEPT_BACK: Final = "waveform.kept_back"


@dataclass(frozen=True, kw_only=True)
class WaveformAnalysis:
    """What is told of one waveform.

    Parameters
    ----------
    channel : the waveform
    sample_count : of one piece
    names, bands_hz : the features, and the bands whose RMS is told
    units : the SI symbol of each of them
    factor : from the waveform's unit to SI
    envelope_band_hz, orders : see `ml.vibration`
    speed_channel : tells the shaft's speed, where it is not `speed_rad_per_s`
    speed_unit : of that channel
    waveform : ALWAYS, NEVER or ON_CHANGE
    """

    channel: DeliveredChannel
    rate_hz: float
    sample_count: int
    names: tuple[str, ...]
    bands_hz: tuple[tuple[int, int], ...]
    units: Mapping[str, str]
    factor: float
    envelope_band_hz: tuple[float, float] | None = None
    orders: DefectOrders | None = None
    speed_channel: str | None = None
    speed_unit: Unit | None = None
    speed_rad_per_s: float = float("nan")
    speed_age_ns: int = 0
    waveform: str = ALWAYS
    gate: WaveformGate | None = None


@dataclass
class _Piece:
    """The samples that have come since the last full piece."""

    next_ns: int = 0
    values: FloatArray = field(default_factory=lambda: np.empty(0))
    qualities: ByteArray = field(default_factory=lambda: np.empty(0, np.uint8))


class FeatureStage:
    """Adds features of a source's waveforms to its windows; see `edge_agent.live.window.Stage`."""

    def __init__(self, analyses: Sequence[WaveformAnalysis]) -> None:
        self._analyses = {one.channel.name: one for one in analyses}
        self._pieces = {name: _Piece() for name in self._analyses}
        self._gates = {name: one.gate for name, one in self._analyses.items() if one.gate}
        self._speeds = {one.speed_channel: Held() for one in analyses if one.speed_channel}
        self._counts: Counter[tuple[str, str]] = Counter()

    def take_counts(self) -> Mapping[tuple[str, str], int]:
        """Return how many samples were kept back or left out since last asked."""
        counts, self._counts = self._counts, Counter()
        return counts

    def request_waveforms(self) -> None:
        """Let the waveforms around now go on, as if they had changed: something is wrong."""
        for gate in self._gates.values():
            gate.request()

    def apply(self, window: Window) -> Window:
        """Return `window` with features, and with those samples of waveforms that go on."""
        speeds = {
            channel.channel.name: _speed_samples(channel)
            for channel in window.channels
            if channel.channel.name in self._speeds
        }
        out: list[ChannelWindow] = []
        for channel in window.channels:
            analysis = self._analyses.get(channel.channel.name)
            if analysis is None:
                out.append(channel)
                continue
            out += self._analysed(analysis, channel, speeds)
        for name, held in self._speeds.items():
            self._speeds[name] = held.after(speeds.get(name))
        return replace(window, channels=tuple(_joined(out)))

    def _analysed(
        self, analysis: WaveformAnalysis, run: ChannelWindow, speeds: Mapping[str, Samples]
    ) -> list[ChannelWindow]:
        """Return what `run` adds: features of the pieces it fills, and samples that go on."""
        name = analysis.channel.name
        found = self._features(analysis, run, speeds)
        if analysis.waveform == ALWAYS:
            return [run, *found.channels]
        gate = self._gates.get(name)
        passed = [] if gate is None else gate.passed(run, found.ends_ns, found.values)
        self._counts[name, KEPT_BACK] += len(run) - sum(len(part) for part in passed)
        return [*passed, *found.channels]

    def _features(
        self, analysis: WaveformAnalysis, run: ChannelWindow, speeds: Mapping[str, Samples]
    ) -> _Found:
        piece = self._piece(analysis, run)
        count, rate_hz = analysis.sample_count, analysis.rate_hz
        full = len(piece.values) // count
        first_ns = int(run.times_ns[0]) - round((len(piece.values) - len(run)) * 1e9 / rate_hz)
        ends_ns = first_ns + np.rint((np.arange(1, full + 1) * count - 1) * 1e9 / rate_hz).astype(
            np.int64
        )
        windows = piece.values[: full * count].reshape(full, count)
        qualities = piece.qualities[: full * count].reshape(full, count)
        piece.values = piece.values[full * count :].copy()
        piece.qualities = piece.qualities[full * count :].copy()
        if not full:
            return _Found((), ends_ns, {})
        values = self._values(analysis, windows, ends_ns, speeds)
        # A sample that is BAD or absent harms its whole piece, and says so.
        unsound = (qualities >= Quality.BAD) | ~np.isfinite(windows)
        harmed: BoolArray = np.asarray(unsound.any(axis=1))
        doubted: BoolArray = np.asarray(qualities.any(axis=1))
        return _Found(
            tuple(
                _feature_channel(analysis, name, ends_ns, column, harmed, doubted)
                for name, column in values.items()
            ),
            ends_ns,
            {name: np.where(harmed, np.nan, column) for name, column in values.items()},
        )

    def _piece(self, analysis: WaveformAnalysis, run: ChannelWindow) -> _Piece:
        """Return the piece with the samples of `run` added, or begun by them after a gap."""
        piece = self._pieces[analysis.channel.name]
        start_ns = int(run.times_ns[0])
        # Half a sample is within the rounding of times; more is a gap.
        if len(piece.values) and abs(start_ns - piece.next_ns) > 0.5e9 / analysis.rate_hz:
            self._counts[analysis.channel.name, GAP] += len(piece.values)
            piece.values, piece.qualities = np.empty(0), np.empty(0, np.uint8)
        piece.values = np.concatenate(
            (piece.values, np.asarray(run.values, np.float64) * analysis.factor)
        )
        piece.qualities = np.concatenate((piece.qualities, run.qualities))
        piece.next_ns = start_ns + round(len(run) * 1e9 / analysis.rate_hz)
        return piece

    def _values(
        self,
        analysis: WaveformAnalysis,
        windows: FloatArray,
        ends_ns: IntArray,
        speeds: Mapping[str, Samples],
    ) -> dict[str, FloatArray]:
        speed = np.full(len(windows), analysis.speed_rad_per_s)
        if analysis.speed_channel is not None and analysis.speed_unit is not None:
            held = self._speeds[analysis.speed_channel]
            told = speeds.get(analysis.speed_channel)
            delivered, _ = held.at(ends_ns, told, analysis.speed_age_ns)
            speed = np.abs(delivered * analysis.speed_unit.factor)
        parts = [
            waveform_features(
                windows[start : start + PIECES_AT_ONCE],
                analysis.rate_hz,
                analysis.names,
                bands_hz=analysis.bands_hz,
                envelope_band_hz=analysis.envelope_band_hz,
                orders=analysis.orders,
                speed_rad_per_s=speed[start : start + PIECES_AT_ONCE],
            )
            for start in range(0, len(windows), PIECES_AT_ONCE)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True, eq=False)
class _Found:
    """Features of the pieces that a run has filled.

    Parameters
    ----------
    ends_ns : time of each piece's last sample, shape (n_pieces,)
    values : SI by feature, shape (n_pieces,); NaN where nothing can be told
    """

    channels: tuple[ChannelWindow, ...]
    ends_ns: IntArray
    values: Mapping[str, FloatArray]


def _joined(channels: Sequence[ChannelWindow]) -> list[ChannelWindow]:
    """Return `channels` with those of one feature, from several runs, as one."""
    out: list[ChannelWindow] = []
    places: dict[str, int] = {}
    for channel in channels:
        at = places.get(channel.channel.name)
        if channel.channel.rate_hz is not None or at is None:
            places[channel.channel.name] = len(out)
            out.append(channel)
            continue
        earlier = out[at]
        out[at] = ChannelWindow(
            earlier.channel,
            np.concatenate((earlier.times_ns, channel.times_ns)),
            np.concatenate((earlier.values, channel.values)),
            np.concatenate((earlier.qualities, channel.qualities)),
        )
    return out


def _feature_channel(
    analysis: WaveformAnalysis,
    name: str,
    ends_ns: IntArray,
    values: FloatArray,
    harmed: BoolArray,
    doubted: BoolArray,
) -> ChannelWindow:
    absent = ~np.isfinite(values)
    qualities = np.where(harmed, Quality.BAD, np.where(doubted, Quality.UNCERTAIN, Quality.GOOD))
    qualities = np.where(absent, Quality.MISSING, qualities).astype(np.uint8)
    described = DeliveredChannel(f"{analysis.channel.name}.{name}", analysis.units[name])
    return ChannelWindow(described, ends_ns, np.where(absent, np.nan, values), qualities)


def _speed_samples(channel: ChannelWindow) -> Samples:
    values = np.asarray(channel.values, np.float64)
    return Samples(channel.times_ns, values, channel.qualities)


# --- what is declared ---------------------------------------------------------------------


def configure(
    section: Section, channels: Sequence[DeliveredChannel], asset_type: AssetType
) -> FeatureStage | None:
    """Return the stage that a source's ``features`` declares, None where there is none.

    None also after noting what is wrong.
    """
    if not section.has("features") or not channels:
        return None
    features = section.section("features")
    if features is None:
        return None
    known = {channel.name: channel for channel in channels}
    analyses: list[WaveformAnalysis] = []
    for name in features.present():
        part = features.section(name)
        if part is None:
            continue
        channel = known.get(name)
        if channel is None or channel.rate_hz is None:
            told = f"the source delivers no waveform {name!r}"
            features.fault(name, "features.no_waveform", told)
            continue
        analysis = _analysis(part, channel, channel.rate_hz, known, asset_type)
        part.finish()
        if analysis is not None:
            analyses.append(analysis)
    return FeatureStage(analyses) if analyses else None


def _analysis(
    section: Section,
    channel: DeliveredChannel,
    rate_hz: float,
    known: Mapping[str, DeliveredChannel],
    asset_type: AssetType,
) -> WaveformAnalysis | None:
    seconds = section.number("seconds", SAMPLES_MIN / rate_hz, SAMPLES_MAX / rate_hz, 1.0)
    wanted = section.texts("names")
    waveform = section.choice("waveform", (ALWAYS, NEVER, ON_CHANGE), ALWAYS)
    if seconds is None or wanted is None or waveform is None:
        return None
    names = tuple(dict.fromkeys(wanted))
    if len(names) > FEATURES_MAX:
        section.fault("names", "configuration.too_many", f"more than {FEATURES_MAX} features")
        return None
    quantities: dict[str, str] = {}
    for name in names:
        found = section.attempt("names", partial(asset_type.channel, f"{channel.name}.{name}"))
        if found is not None and found.rate_hz is None:
            quantities[name] = found.quantity
        elif found is not None:
            told = f"{name!r} is no feature of a waveform"
            section.fault("names", "features.unknown", told)
    if len(quantities) < len(names) or not _fits(section, names, rate_hz):
        return None
    found_unit = unit(channel.unit)
    if found_unit.offset:
        told = f"a waveform in {channel.unit!r} has no amplitude"
        section.fault("names", "features.unit", told)
        return None
    analysis = WaveformAnalysis(
        channel=channel,
        rate_hz=rate_hz,
        sample_count=round(seconds * rate_hz),
        names=tuple(name for name in names if band_of(name) is None),
        bands_hz=tuple(band for name in names if (band := band_of(name)) is not None),
        units={name: SI_UNITS[quantity] for name, quantity in quantities.items()},
        factor=found_unit.factor,
        waveform=waveform,
    )
    completed = _with_bearing(section, analysis, known, asset_type)
    gate = _gate(section, names, rate_hz, round(seconds * 1e9)) if waveform == ON_CHANGE else None
    if completed is None or (waveform == ON_CHANGE and gate is None):
        return None
    return replace(completed, gate=gate)


def _fits(section: Section, names: Sequence[str], rate_hz: float) -> bool:
    """Whether every band, and that of the velocity, lies below half of the rate."""
    fits = True
    for name in names:
        band = band_of(name)
        if (band is not None and band[1] > rate_hz / 2) or (
            name == "velocity_rms" and rate_hz / 2 <= VELOCITY_BAND_HZ[0]
        ):
            told = f"{name!r} reaches beyond half of {rate_hz:g} Hz"
            section.fault("names", "features.band", told)
            fits = False
    return fits


def _with_bearing(
    section: Section,
    analysis: WaveformAnalysis,
    known: Mapping[str, DeliveredChannel],
    asset_type: AssetType,
) -> WaveformAnalysis | None:
    """Return `analysis` with the envelope's band, and a bearing and its speed, where needed."""
    of_bearing = [name for name in analysis.names if name.removesuffix("_prominence") in DEFECTS]
    if not of_bearing and "envelope_rms" not in analysis.names:
        return analysis
    band = section.section("envelope_band")
    if band is None:
        return None
    low = band.number("low_hz", 0, analysis.rate_hz / 2)
    high = band.number("high_hz", 0, analysis.rate_hz / 2)
    band.finish()
    if low is None or high is None:
        return None
    if low >= high:
        band.fault("high_hz", "features.band", f"nothing lies between {low:g} and {high:g} Hz")
        return None
    analysis = replace(analysis, envelope_band_hz=(low, high))
    if not of_bearing:
        return analysis
    bearing = asset_type.bearing_at(analysis.channel.name)
    if bearing is None:
        told = f"asset type {asset_type.name!r} declares no bearing at {analysis.channel.name!r}"
        section.fault("names", "features.no_bearing", told)
        return None
    geometry = bearing.geometry
    orders = defect_orders(
        element_count=geometry.element_count,
        element_diameter_m=geometry.element_diameter_m,
        pitch_diameter_m=geometry.pitch_diameter_m,
        contact_angle_rad=geometry.contact_angle_rad,
    )
    return _with_speed(section, replace(analysis, orders=orders), bearing.speed_channel, known)


def _with_speed(
    section: Section,
    analysis: WaveformAnalysis,
    speed_channel: str,
    known: Mapping[str, DeliveredChannel],
) -> WaveformAnalysis | None:
    """Return `analysis` with the shaft's speed: what its channel tells, or a declared value."""
    part = section.section("speed") if section.has("speed") else None
    if section.has("speed") and part is None:
        return None
    if part is not None and part.has("value"):
        value = part.number("value", 0, 1e6)
        symbol = part.text("unit")
        found = symbol and part.attempt(
            "unit", lambda: unit(symbol or "", quantity="angular_velocity")
        )
        part.finish()
        return (
            None
            if value is None or not found
            else replace(analysis, speed_rad_per_s=found.to_si(value))
        )
    age = SPEED_AGE_SECONDS
    if part is not None:
        told_age = part.number("age_seconds", 0.001, 3600.0, SPEED_AGE_SECONDS)
        part.finish()
        age = SPEED_AGE_SECONDS if told_age is None else told_age
    channel = known.get(speed_channel)
    if channel is None:
        told = f"the source delivers no {speed_channel!r}, by which the shaft's speed is known"
        hint = "declare speed: {value: 1800, unit: rpm}"
        section.fault("speed", "features.no_speed", told, hint)
        return None
    return replace(
        analysis,
        speed_channel=speed_channel,
        speed_unit=unit(channel.unit),
        speed_age_ns=round(age * 1e9),
    )


def _gate(
    section: Section, names: Sequence[str], rate_hz: float, piece_ns: int
) -> WaveformGate | None:
    """Return what decides on samples, from ``change``, ``before_seconds`` and the like."""
    before = section.number("before_seconds", 0, SAMPLES_MAX / rate_hz, 2.0)
    after = section.number("after_seconds", 0, 3600, 2.0)
    pause = section.number("at_most_every_seconds", 0, 7 * 24 * 3600, 600.0)
    part = section.section("change")
    if part is None:
        return None
    of = part.texts("of")
    ratio = part.number("ratio", 1e-6, 1e6)
    memory = part.number("memory_seconds", 0.001, 30 * 24 * 3600, 600.0)
    part.finish()
    if None in (before, after, pause, of, ratio, memory):
        return None
    for name in of or ():
        if name not in names:
            told = f"{name!r} is none of the features that are told"
            part.fault("of", "features.unknown", told, f"one of: {', '.join(names)}")
            return None
    change = Change(tuple(of or ()), float(ratio or 0), round(float(memory or 0) * 1e9))
    return WaveformGate(
        change,
        piece_ns=piece_ns,
        before_ns=round(float(before or 0) * 1e9),
        after_ns=round(float(after or 0) * 1e9),
        pause_ns=round(float(pause or 0) * 1e9),
    )
