"""Each step of conditioning: what it finds, and that it neither looks ahead nor at window edges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.frames import Column, Quality
from domain.units import UNITS
from edge_agent.conditioning.calibration import Calibration, Certificate
from edge_agent.conditioning.dead_band import DeadBand
from edge_agent.conditioning.drift import Drift
from edge_agent.conditioning.flat_line import FlatLine
from edge_agent.conditioning.measuring_range import MeasuringRange
from edge_agent.conditioning.redundancy import Redundancy
from edge_agent.conditioning.resampling import Resampling
from edge_agent.conditioning.samples import Applied, Samples, Step
from edge_agent.conditioning.spike import SpikeFilter
from edge_agent.conditioning.units import UnitChange
from tests.edge_agent.windows import SECOND_NS

GOOD, UNCERTAIN, BAD, MISSING = (int(quality) for quality in Quality)
NAN = float("nan")


def samples(
    values: list[float], qualities: list[int] | None = None, times_s: list[float] | None = None
) -> Samples:
    """Return readings, one a second from 0 unless told otherwise, NaN as MISSING."""
    times = np.arange(len(values)) if times_s is None else np.array(times_s)
    held = np.array(values, np.float64)
    marks = np.zeros(len(held), np.uint8) if qualities is None else np.array(qualities, np.uint8)
    marks = np.where(np.isnan(held), np.uint8(Quality.MISSING), marks)
    return Samples((times * SECOND_NS).astype(np.int64), held, marks)


def found_by(step: Step, readings: Samples) -> Applied:
    return step.apply(readings)


def counted(applied: Applied) -> dict[str, int]:
    return {code: count for code, count in applied.counts.items() if count}


# --- one by one ---------------------------------------------------------------------------


def test_a_unit_is_changed_by_its_exact_map() -> None:
    to_fahrenheit = UnitChange(UNITS["degC"], UNITS["degF"])
    applied = to_fahrenheit.apply(samples([0.0, 100.0, -40.0]))
    assert applied.samples.values == pytest.approx([32.0, 212.0, -40.0], rel=1e-14)
    back = UnitChange(UNITS["degF"], UNITS["degC"]).apply(applied.samples)
    assert back.samples.values == pytest.approx([0.0, 100.0, -40.0], abs=1e-12)


def test_each_reading_is_corrected_by_the_certificate_of_its_time() -> None:
    calibration = Calibration(
        (
            Certificate("A-1", 2.0, 1.0, 10 * SECOND_NS, 20 * SECOND_NS),
            Certificate("A-2", 3.0, 0.0, 30 * SECOND_NS, 40 * SECOND_NS),
        )
    )
    applied = calibration.apply(samples([1.0] * 6, times_s=[9, 10, 19.9, 20, 30, 40]))
    assert applied.samples.values.tolist() == [3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    assert applied.samples.qualities.tolist() == [UNCERTAIN, GOOD, GOOD, UNCERTAIN, GOOD, UNCERTAIN]
    assert counted(applied) == {"calibration.not_yet_valid": 1, "calibration.expired": 2}


def test_what_lies_beyond_the_measuring_range_is_marked_and_its_limits_are_not() -> None:
    applied = MeasuringRange(0.0, 10.0).apply(samples([-0.1, 0.0, 10.0, 10.1, NAN]))
    assert applied.samples.qualities.tolist() == [BAD, GOOD, GOOD, BAD, MISSING]
    assert counted(applied) == {"range.below": 1, "range.above": 1}
    assert applied.samples.values[:4].tolist() == [-0.1, 0.0, 10.0, 10.1]


def test_a_spike_is_marked_or_replaced_by_the_median() -> None:
    noisy = [1.0, 1.1, 0.9, 1.0, 1.1, 9.0, 1.0, 0.9]
    marked = SpikeFilter(readings=5, deviations=3.0, least=0.0).apply(samples(noisy))
    assert marked.samples.qualities.tolist() == [GOOD] * 5 + [UNCERTAIN] + [GOOD] * 2
    assert marked.samples.values.tolist() == noisy
    assert counted(marked) == {"spike.found": 1}
    replaced = SpikeFilter(5, 3.0, 0.0, replace_value=True).apply(samples(noisy))
    assert (
        replaced.samples.values[5] == 1.0 + 0.1
    )  # the median of 0.9, 1.0, 1.0, 1.1, 9.0 … with it
    assert replaced.samples.qualities[5] == UNCERTAIN
    assert counted(replaced) == {"spike.replaced": 1}


def test_a_step_of_the_process_is_a_spike_until_half_the_window_has_seen_it() -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, 40)
    level = np.where(np.arange(40) < 20, 1.0, 5.0) + noise
    applied = SpikeFilter(7, 4.0, 0.2).apply(samples(level.tolist()))
    assert np.flatnonzero(applied.samples.qualities).tolist() == [20, 21, 22]


def test_a_window_of_equal_values_judges_nothing_unless_a_least_departure_is_declared() -> None:
    stuck = samples([1.0] * 6 + [1.5])
    assert not counted(SpikeFilter(5, 3.0, 0.0).apply(stuck))
    assert counted(SpikeFilter(5, 3.0, 0.4).apply(stuck)) == {"spike.found": 1}


def test_a_flat_line_is_marked_once_it_lasts() -> None:
    applied = FlatLine(3 * SECOND_NS).apply(samples([1, 2, 2, 2, 2, 2, 3, 3]))
    assert applied.samples.qualities.tolist() == [0, 0, 0, 0, UNCERTAIN, UNCERTAIN, 0, 0]
    assert counted(applied) == {"flat_line.found": 2}


def test_drift_against_a_redundant_sensor_is_marked_and_an_unknown_reference_counted() -> None:
    drift = Drift(0.0, {"twin": 1.0}, 0.5, 10 * SECOND_NS, 5 * SECOND_NS)
    times = list(range(100))
    true = np.sin(np.arange(100) / 7)
    drifting = true + np.maximum(np.arange(100) - 30, 0) * 0.05
    marked, step, counts = drift.apply(samples(drifting.tolist()), {"twin": samples(true.tolist())})
    first = int(np.flatnonzero(marked.qualities)[0])
    # A ramp's smoothed value runs one time constant behind it: 0.5 is passed near 30 + 10 + 9.
    assert 45 <= first <= 55
    assert (marked.qualities[first:] == UNCERTAIN).all()
    assert counts == {"drift.found": 100 - first, "drift.no_reference": 0}
    late = samples([1.0], times_s=[times[-1] + 5.5])
    _, _, counts = step.apply(late, {})
    assert counts == {"drift.no_reference": 1}


def test_drift_against_an_estimate_from_other_channels() -> None:
    drift = Drift(2.0, {"current": 3.0, "level": -1.0}, 0.1, SECOND_NS, 60 * SECOND_NS)
    current, level = samples([1.0] * 20), samples([0.5] * 20)
    for flow, found in ((4.5, 0), (4.7, 19)):
        marked, _, counts = drift.apply(samples([flow] * 20), {"current": current, "level": level})
        assert counts["drift.found"] == found
        assert int((marked.qualities > 0).sum()) == found


def fuse(tolerance: float, *sensors: Samples) -> tuple[Samples, dict[str, int]]:
    names = tuple("abc"[: len(sensors)])
    redundancy = Redundancy(names, tolerance, (1.0,) * len(sensors), 60 * SECOND_NS)
    fused, _, counts = redundancy.apply(dict(zip(names, sensors, strict=True)))
    return fused, {code: count for code, count in counts.items() if count}


def test_of_three_sensors_the_majority_is_averaged_and_the_other_outvoted() -> None:
    fused, counts = fuse(0.5, samples([1.0]), samples([1.2]), samples([9.0]))
    assert (fused.values.tolist(), fused.qualities.tolist()) == ([pytest.approx(1.1)], [GOOD])
    assert counts == {"redundancy.outvoted": 1}


def test_three_sensors_that_all_disagree_give_their_median_as_uncertain() -> None:
    fused, counts = fuse(0.5, samples([1.0]), samples([5.0]), samples([9.0]))
    assert (fused.values.tolist(), fused.qualities.tolist()) == ([5.0], [UNCERTAIN])
    assert counts == {"redundancy.disagreement": 1}


def test_two_sensors_that_disagree_have_no_majority() -> None:
    fused, counts = fuse(0.5, samples([1.0, 1.0]), samples([1.5, 1.6]))
    assert fused.values == pytest.approx([1.25, 1.3])
    assert fused.qualities.tolist() == [GOOD, UNCERTAIN]
    assert counts == {"redundancy.disagreement": 1}


def test_a_sensor_that_is_left_alone_is_uncertain_and_none_is_missing() -> None:
    fused, counts = fuse(0.5, samples([1.0, 1.0, NAN]), samples([1.0, 7.0, 7.0], [0, BAD, BAD]))
    assert fused.values[:2].tolist() == [1.0, 1.0]
    assert np.isnan(fused.values[2])
    assert fused.qualities.tolist() == [GOOD, UNCERTAIN, MISSING]
    assert counts == {"redundancy.single": 1, "redundancy.none": 1}


def test_a_sensor_that_fell_silent_votes_until_its_age_is_over() -> None:
    redundancy = Redundancy(("a", "b"), 0.5, (1.0, 3.0), 2 * SECOND_NS)
    first, redundancy, _ = redundancy.apply({"a": samples([1.0]), "b": samples([1.2])})
    assert first.values == pytest.approx([(1.0 + 3 * 1.2) / 4])  # weighted
    later, _, counts = redundancy.apply({"a": samples([1.0, 1.0], times_s=[2, 2.5])})
    assert later.qualities.tolist() == [GOOD, UNCERTAIN]
    assert counts["redundancy.single"] == 1


def test_resampling_gives_one_value_a_period_at_its_end() -> None:
    readings = samples(
        [1, 3, 5, 100, NAN, 7, 8, 2], [0, 0, 1, 2, 3, 1, 2, 0], [0, 1, 2, 10, 11, 20, 21, 30]
    )
    mean = Resampling(10 * SECOND_NS).apply(readings)
    assert (mean.samples.times_ns // SECOND_NS).tolist() == [10, 20, 30]
    # GOOD ones where there are any; nothing usable: as the last reading was; UNCERTAIN alone.
    assert mean.samples.values[[0, 2]].tolist() == [2.0, 7.0]
    assert np.isnan(mean.samples.values[1])
    assert mean.samples.qualities.tolist() == [UNCERTAIN, MISSING, UNCERTAIN]
    last = Resampling(10 * SECOND_NS, "last").apply(readings)
    assert last.samples.values[[0, 2]].tolist() == [3.0, 7.0]
    late = mean.step.apply(samples([1.0, 2.0], times_s=[29, 41]))
    assert late.samples.values.tolist() == [2.0]
    assert late.counts == {"resample.late": 1}


def test_a_dead_band_tells_moves_other_qualities_and_now_and_then_anything() -> None:
    band = DeadBand(0.5, 4 * SECOND_NS)
    applied = band.apply(
        samples([1.0, 1.5, 1.6, 1.4, 1.4, 1.3, NAN, NAN], [0, 0, 0, 0, 1, 1, 3, 3])
    )
    assert (applied.samples.times_ns // SECOND_NS).tolist() == [0, 2, 4, 6]
    assert counted(applied) == {"dead_band.suppressed": 4}
    quiet = band.apply(samples([1.0] * 9))
    assert (quiet.samples.times_ns // SECOND_NS).tolist() == [0, 4, 8]


# --- what holds for every step ------------------------------------------------------------

STEPS: dict[str, Callable[[], Step]] = {
    "unit": lambda: UnitChange(UNITS["bar"], UNITS["psi"]),
    "calibration": lambda: Calibration(
        (Certificate("A", 1.5, 0.1, 5 * SECOND_NS, 25 * SECOND_NS),)
    ),
    "range": lambda: MeasuringRange(-1.0, 1.0),
    "spike": lambda: SpikeFilter(5, 2.0, 0.1),
    "spike-replaced": lambda: SpikeFilter(5, 2.0, 0.1, replace_value=True),
    "flat-line": lambda: FlatLine(3 * SECOND_NS, 0.2),
    "resampling-mean": lambda: Resampling(4 * SECOND_NS),
    "resampling-last": lambda: Resampling(4 * SECOND_NS, "last"),
    "dead-band": lambda: DeadBand(0.5, 6 * SECOND_NS),
}

VALUES = st.one_of(
    st.sampled_from([0.0, 0.1, 1.0, 5.0, NAN]),
    st.floats(-3, 3, allow_nan=False).map(lambda value: round(value, 2)),
)
STREAMS = st.lists(
    st.tuples(st.integers(0, 2), VALUES, st.sampled_from([GOOD, GOOD, GOOD, UNCERTAIN, BAD])),
    max_size=40,
)


def stream_of(drawn: list[tuple[int, float, int]]) -> Samples:
    """Return readings whose times do not go back, some of them equal."""
    seconds = np.cumsum([step for step, _, _ in drawn]).astype(float).tolist()
    return samples([value for _, value, _ in drawn], [mark for _, _, mark in drawn], seconds)


def part_of(stream: Samples, start: int, stop: int) -> Samples:
    return stream.chosen(np.arange(start, stop))


def columns(parts: list[Samples]) -> tuple[Column, Column, Column]:
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.followed_by(part)
    return joined.times_ns, joined.values, joined.qualities


def run(step: Step, parts: list[Samples]) -> tuple[list[Samples], Counter[str], Step]:
    out: list[Samples] = []
    counts: Counter[str] = Counter()
    for part in parts:
        applied = step.apply(part)
        step = applied.step
        out.append(applied.samples)
        counts.update(applied.counts)
    return out, +counts, step


@pytest.mark.parametrize("name", sorted(STEPS))
@settings(max_examples=60, deadline=None)
@given(STREAMS, st.lists(st.integers(0, 40), max_size=6))
def test_where_windows_are_cut_changes_nothing(
    name: str, drawn: list[tuple[int, float, int]], cuts: list[int]
) -> None:
    stream = stream_of(drawn)
    edges = [0, *sorted(min(at, len(stream)) for at in cuts), len(stream)]
    whole, whole_counts, _ = run(STEPS[name](), [stream])
    parts, part_counts, _ = run(
        STEPS[name](), [part_of(stream, low, high) for low, high in pairwise(edges)]
    )
    for expected, found in zip(columns(whole), columns(parts), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert part_counts == whole_counts


@pytest.mark.parametrize("name", sorted(STEPS))
@settings(max_examples=60, deadline=None)
@given(STREAMS, st.integers(0, 40))
def test_nothing_looks_ahead(name: str, drawn: list[tuple[int, float, int]], upto: int) -> None:
    stream = stream_of(drawn)
    upto = min(upto, len(stream))
    known, _, _ = run(STEPS[name](), [part_of(stream, 0, upto)])
    whole, _, _ = run(STEPS[name](), [stream])
    upto_now = len(columns(known)[0])
    for early, late in zip(columns(known), columns(whole), strict=True):
        np.testing.assert_array_equal(late[:upto_now], early)


@pytest.mark.parametrize("name", ["range", "spike", "flat-line", "dead-band"])
@settings(max_examples=60, deadline=None)
@given(STREAMS)
def test_what_marks_or_leaves_out_does_so_once(
    name: str, drawn: list[tuple[int, float, int]]
) -> None:
    once = after_step(name, stream_of(drawn))
    twice = after_step(name, once)
    for expected, found in zip(columns([once]), columns([twice]), strict=True):
        np.testing.assert_array_equal(found, expected)


def after_step(name: str, stream: Samples) -> Samples:
    return STEPS[name]().apply(stream).samples


@settings(max_examples=60, deadline=None)
@given(STREAMS)
def test_no_step_makes_a_quality_better(drawn: list[tuple[int, float, int]]) -> None:
    stream = stream_of(drawn)
    for name in ("unit", "calibration", "range", "spike", "spike-replaced", "flat-line"):
        after = STEPS[name]().apply(stream).samples
        assert (after.qualities >= stream.qualities).all(), name
        np.testing.assert_array_equal(after.times_ns, stream.times_ns)


@settings(max_examples=60, deadline=None)
@given(STREAMS, st.permutations([0, 1, 2]))
def test_a_fused_value_lies_among_its_sensors_and_their_order_does_not_matter(
    drawn: list[tuple[int, float, int]], order: list[int]
) -> None:
    stream = stream_of(drawn)
    names = ("a", "b", "c")
    offsets = {"a": 0.0, "b": 0.3, "c": -0.4}
    sensors = {
        name: Samples(stream.times_ns, stream.values + offsets[name], stream.qualities)
        for name in names
    }
    straight = Redundancy(names, 0.5, (1.0, 2.0, 3.0), 10 * SECOND_NS)
    shuffled = Redundancy(
        tuple(names[n] for n in order),
        0.5,
        tuple((1.0, 2.0, 3.0)[n] for n in order),
        10 * SECOND_NS,
    )
    fused, _, counts = straight.apply(sensors)
    other, _, other_counts = shuffled.apply(sensors)
    np.testing.assert_allclose(other.values, fused.values, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(other.qualities, fused.qualities)
    assert other_counts == counts
    known = np.isfinite(fused.values)
    for time_ns, value in zip(fused.times_ns[known], fused.values[known], strict=True):
        at = np.searchsorted(stream.times_ns, time_ns, side="right") - 1
        assert stream.values[at] - 0.4 - 1e-9 <= value <= stream.values[at] + 0.3 + 1e-9
