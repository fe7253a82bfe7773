"""What a source's ``conditioning`` declares, read from YAML into steps.

Limits, tolerances and bands are in the channel's unit after its ``unit`` step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from domain.asset_model import AssetType
from domain.errors import HeddleError, InvalidInput
from domain.frames import Quality
from domain.texts import NAME_LENGTH_MAX, check_text
from domain.units import unit
from edge_agent.conditioning.calibration import (
    CERTIFICATES_MAX,
    Calibration,
    Certificate,
    overlap,
)
from edge_agent.conditioning.dead_band import DeadBand
from edge_agent.conditioning.drift import TERMS_MAX, Drift
from edge_agent.conditioning.flat_line import FlatLine
from edge_agent.conditioning.measuring_range import MeasuringRange
from edge_agent.conditioning.redundancy import SENSORS_MAX, SENSORS_MIN, Redundancy
from edge_agent.conditioning.resampling import METHODS, Resampling
from edge_agent.conditioning.samples import MARKS, Step
from edge_agent.conditioning.spike import READINGS_MAX, READINGS_MIN, SpikeFilter
from edge_agent.conditioning.stage import ChannelConditioning, conditioned_type
from edge_agent.conditioning.units import UnitChange
from edge_agent.live import DeliveredChannel
from edge_agent.yaml_section import Section

VALUE_MAX: Final = 1e300
SECONDS_MIN: Final = 0.001
SECONDS_MAX: Final = 30 * 24 * 3600.0
AGE_SECONDS: Final = 60.0
SILENCE_SECONDS: Final = 600.0
BEGINNING_NS: Final = -(2**63)
END_NS: Final = 2**63 - 1


def read_conditioning(
    section: Section, delivered: Sequence[DeliveredChannel], asset_type: AssetType
) -> list[ChannelConditioning]:
    """Return what `section` declares for each channel, after noting what is wrong."""
    known = {channel.name: channel for channel in delivered}
    declared: list[ChannelConditioning] = []
    units = {name: channel.unit for name, channel in known.items()}
    pending: list[tuple[str, Section, ChannelConditioning]] = []
    for name in section.present():
        channel_section = section.section(name)
        if channel_section is None:
            continue
        found = _channel(section, channel_section, name, known, asset_type)
        if found is not None:
            units[name] = found.channel.unit
            pending.append((name, channel_section, found))
    for name, channel_section, found in pending:
        declared.append(_with_others(name, channel_section, found, known, units))
    for _, channel_section, _ in pending:
        channel_section.finish()
    return declared


def _channel(
    parent: Section,
    section: Section,
    name: str,
    known: Mapping[str, DeliveredChannel],
    asset_type: AssetType,
) -> ChannelConditioning | None:
    """Return what looks at the channel alone."""
    channel = known.get(name)
    if channel is None:
        if not section.has("redundancy"):
            told = f"the source delivers no channel {name!r}"
            parent.fault(name, "conditioning.channel_unknown", told, f"it has {', '.join(known)}")
            return None
        fused_type = parent.attempt(name, lambda: asset_type.channel(name))
        if fused_type is None:
            return None
        channel = DeliveredChannel(name, _first_unit(section, known) or fused_type.input_unit)
    if channel.value_type in ("str", "b1"):
        told = f"channel {name!r} holds no numbers"
        parent.fault(name, "conditioning.not_numeric", told)
        return None
    keep_raw = section.has("keep_raw") and _flag(section, "keep_raw")
    unit_change = _unit(section, channel)
    if unit_change is not None:
        channel = replace(channel, unit=unit_change.wanted.symbol)
    steps = _declared(
        unit_change,
        _calibration(section),
        _range(section),
        _spike(section),
        _flat_line(section),
    )
    thinning = _declared(_resampling(section), _dead_band(section))
    if channel.rate_hz is not None:
        apart = [step for step in (*steps, *thinning) if not step.fits_waveforms]
        if apart or section.has("drift") or section.has("redundancy"):
            told = f"{name!r} is a waveform: it may have a unit, a calibration and a range"
            parent.fault(name, "conditioning.waveform", told)
            return None
    found = ChannelConditioning(
        channel=channel,
        alone=steps,
        thinning=thinning,
        keep_raw=keep_raw,
    )
    return _typed(found)


def _declared(*steps: Step | None) -> tuple[Step, ...]:
    return tuple(step for step in steps if step is not None)


def _typed(found: ChannelConditioning) -> ChannelConditioning:
    value_type = conditioned_type(found.channel.value_type, changes_values=found.changes_values)
    return replace(found, channel=replace(found.channel, value_type=value_type))


def _with_others(
    name: str,
    section: Section,
    found: ChannelConditioning,
    known: Mapping[str, DeliveredChannel],
    units: Mapping[str, str],
) -> ChannelConditioning:
    """Return `found` with what looks at other channels, too."""
    drift = _drift(section, name, known)
    redundancy = _redundancy(section, name, known, units)
    return _typed(replace(found, drift=drift, redundancy=redundancy))


# --- steps --------------------------------------------------------------------------------


def _unit(section: Section, channel: DeliveredChannel) -> UnitChange | None:
    if not section.has("unit"):
        return None
    symbol = section.text("unit")
    delivered = unit(channel.unit)
    if symbol is None:
        return None
    wanted = section.attempt("unit", lambda: unit(symbol, quantity=delivered.quantity))
    return None if wanted is None or wanted == delivered else UnitChange(delivered, wanted)


def _calibration(section: Section) -> Calibration | None:
    if not section.has("calibration"):
        return None
    certificates: list[Certificate] = []
    mark: Quality | None = Quality.UNCERTAIN
    sections = section.sections("calibration")
    if len(sections) > CERTIFICATES_MAX:
        told = f"more than {CERTIFICATES_MAX} certificates"
        section.fault("calibration", "configuration.too_many", told)
        return None
    for one in sections:
        found = _certificate(one)
        one.finish()
        if found is not None:
            certificates.append(found)
    if section.has("calibration_outside"):
        mark = _mark(section, "calibration_outside", "uncertain")
    certificates.sort(key=lambda one: one.from_ns)
    clash = overlap(certificates)
    if clash is not None:
        told = f"{clash[0].certificate!r} and {clash[1].certificate!r} are valid at the same time"
        section.fault("calibration", "calibration.overlap", told, "let one end before the next")
        return None
    if len(certificates) != len(sections) or not certificates or mark is None:
        return None
    return Calibration(tuple(certificates), mark)


def _certificate(section: Section) -> Certificate | None:
    number = section.text("certificate")
    if number is not None:
        section.attempt("certificate", lambda: check_text("certificate", number, NAME_LENGTH_MAX))
    gain = section.number("gain", -VALUE_MAX, VALUE_MAX, 1.0)
    offset = section.number("offset", -VALUE_MAX, VALUE_MAX, 0.0)
    from_ns = _time_ns(section, "valid_from", BEGINNING_NS)
    until_ns = _time_ns(section, "valid_until", END_NS)
    if gain == 0.0:
        section.fault("gain", "calibration.gain", "a gain of 0 leaves nothing of a value")
        return None
    if number is None or gain is None or offset is None or from_ns is None or until_ns is None:
        return None
    if from_ns >= until_ns:
        told = "the certificate ends before it begins"
        section.fault("valid_until", "calibration.validity", told)
        return None
    return Certificate(number, gain, offset, from_ns, until_ns)


def _range(section: Section) -> MeasuringRange | None:
    part = _part(section, "range")
    if part is None:
        return None
    low = part.number("low", -VALUE_MAX, VALUE_MAX)
    high = part.number("high", -VALUE_MAX, VALUE_MAX)
    mark = _mark(part, "mark", "bad")
    part.finish()
    if low is None or high is None or mark is None:
        return None
    if low >= high:
        part.fault("high", "range.empty", f"nothing lies between {low:g} and {high:g}")
        return None
    return MeasuringRange(low, high, mark)


def _spike(section: Section) -> SpikeFilter | None:
    part = _part(section, "spike")
    if part is None:
        return None
    readings = part.whole_number("readings", READINGS_MIN, READINGS_MAX, 7)
    deviations = part.number("deviations", 0.1, 1_000, 3.0)
    least = part.number("least", 0, VALUE_MAX, 0)
    replaced = part.has("replace") and _flag(part, "replace")
    mark = _mark(part, "mark", "uncertain")
    part.finish()
    if readings is None or deviations is None or least is None or mark is None:
        return None
    return SpikeFilter(readings, deviations, least, replaced, mark)


def _flat_line(section: Section) -> FlatLine | None:
    part = _part(section, "flat_line")
    if part is None:
        return None
    duration_ns = _duration_ns(part, "seconds")
    tolerance = part.number("tolerance", 0, VALUE_MAX, 0)
    mark = _mark(part, "mark", "uncertain")
    part.finish()
    if duration_ns is None or tolerance is None or mark is None:
        return None
    return FlatLine(duration_ns, tolerance, mark)


def _drift(section: Section, name: str, known: Mapping[str, DeliveredChannel]) -> Drift | None:
    part = _part(section, "drift")
    if part is None:
        return None
    constant: float | None = 0.0
    terms: dict[str, float] = {}
    if part.has("estimate"):
        estimate = part.section("estimate")
        if estimate is not None:
            constant = estimate.number("constant", -VALUE_MAX, VALUE_MAX, 0)
            of = estimate.section("of")
            for channel in of.present() if of is not None else ():
                coefficient = None if of is None else of.number(channel, -VALUE_MAX, VALUE_MAX)
                if coefficient is not None:
                    terms[channel] = coefficient
            estimate.finish()
    else:
        reference = part.text("reference")
        if reference is not None:
            terms[reference] = 1.0
    limit = part.number("limit", 0, VALUE_MAX)
    time_constant_ns = _duration_ns(part, "seconds")
    age_ns = _duration_ns(part, "age_seconds", AGE_SECONDS)
    mark = _mark(part, "mark", "uncertain")
    part.finish()
    for other in terms:
        _check_other(section, "drift", other, name, known)
    if len(terms) > TERMS_MAX:
        told = f"an estimate from more than {TERMS_MAX} channels"
        section.fault("drift", "configuration.too_many", told)
    if not terms or constant is None or limit is None or mark is None:
        return None
    if time_constant_ns is None or age_ns is None:
        return None
    return Drift(constant, terms, limit, time_constant_ns, age_ns, mark)


def _redundancy(
    section: Section,
    name: str,
    known: Mapping[str, DeliveredChannel],
    units: Mapping[str, str],
) -> Redundancy | None:
    part = _part(section, "redundancy")
    if part is None:
        return None
    sensors = part.texts("sensors") or []
    tolerance = part.number("tolerance", 0, VALUE_MAX)
    age_ns = _duration_ns(part, "age_seconds", AGE_SECONDS)
    weights = [1.0] * len(sensors)
    if part.has("weights"):
        given = part.section("weights")
        if given is not None:
            for n, sensor in enumerate(sensors):
                weights[n] = given.number(sensor, 1e-12, 1e12, 1.0) or 1.0
            given.finish()
    part.finish()
    if not SENSORS_MIN <= len(sensors) <= SENSORS_MAX or len(set(sensors)) != len(sensors):
        told = f"{SENSORS_MIN} or {SENSORS_MAX} different sensors can be fused"
        section.fault("redundancy", "redundancy.sensors", told)
        return None
    for sensor in sensors:
        if sensor != name:
            _check_other(section, "redundancy", sensor, name, known)
    different = {units[sensor] for sensor in (*sensors, name) if sensor in units}
    if len(different) > 1:
        told = f"the sensors are in {', '.join(sorted(different))}"
        section.fault("redundancy", "redundancy.units", told, "give each the same 'unit'")
        return None
    if tolerance is None or age_ns is None:
        return None
    return Redundancy(tuple(sensors), tolerance, tuple(weights), age_ns)


def _resampling(section: Section) -> Resampling | None:
    part = _part(section, "resample")
    if part is None:
        return None
    period_ns = _duration_ns(part, "seconds")
    method = part.choice("method", METHODS, METHODS[0])
    part.finish()
    return None if period_ns is None or method is None else Resampling(period_ns, method)


def _dead_band(section: Section) -> DeadBand | None:
    part = _part(section, "dead_band")
    if part is None:
        return None
    band = part.number("band", 0, VALUE_MAX)
    silence_ns = _duration_ns(part, "silence_seconds", SILENCE_SECONDS)
    part.finish()
    return None if band is None or silence_ns is None else DeadBand(band, silence_ns)


# --- pieces -------------------------------------------------------------------------------


def _part(section: Section, key: str) -> Section | None:
    """Return the mapping at `key`, None where there is nothing or, after noting it, no mapping."""
    return section.section(key) if section.has(key) else None


def _first_unit(section: Section, known: Mapping[str, DeliveredChannel]) -> str | None:
    """Return the unit of the first sensor that is fused into a channel nobody delivers."""
    part = _part(section, "redundancy")
    sensors = None if part is None or not part.has("sensors") else part.texts("sensors")
    first = known.get(sensors[0]) if sensors else None
    return None if first is None else first.unit


def _check_other(
    section: Section, key: str, other: str, name: str, known: Mapping[str, DeliveredChannel]
) -> None:
    channel = known.get(other)
    if channel is None or other == name:
        told = f"{other!r} is no other channel of the source"
        section.fault(key, "conditioning.channel_unknown", told, f"it has {', '.join(known)}")
    elif channel.value_type in ("str", "b1") or channel.rate_hz is not None:
        told = f"channel {other!r} holds no single numbers"
        section.fault(key, "conditioning.not_numeric", told)


def _flag(section: Section, key: str) -> bool:
    value = section.plain(key)
    if not isinstance(value, bool):
        section.fault(key, "configuration.wrong_type", f"{key!r} is neither true nor false")
    return value is True


def _mark(section: Section, key: str, default: str) -> Quality | None:
    word = section.choice(key, tuple(MARKS), default)
    return None if word is None else MARKS[word]


def _duration_ns(section: Section, key: str, default: float | None = None) -> int | None:
    seconds = section.number(key, SECONDS_MIN, SECONDS_MAX, default)
    return None if seconds is None else round(seconds * 1e9)


def _time_ns(section: Section, key: str, default: int) -> int | None:
    if not section.has(key):
        return default
    text = section.text(key)
    return None if text is None else section.attempt(key, lambda: _parsed_ns(text))


def _parsed_ns(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        fault: HeddleError = InvalidInput(
            "calibration.time", f"{text!r} is no time with a zone", hint="2026-01-01T00:00:00Z"
        )
        raise fault
    return round(moment.timestamp() * 1_000_000) * 1_000
