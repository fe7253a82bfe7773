"""The anomaly detector: its features, its fit, its export, and its figures on real recordings."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.asset_types import asset_type
from ml.anomaly import (
    AnomalyDetector,
    AnomalySettings,
    DetectionFigures,
    WatchedRecording,
    assess,
    detection_figures,
    fit_anomaly_detector,
    is_fault_free,
    watched_deviations,
)
from ml.deviation import baseline_of, deviations
from ml.model_card import Training
from ml.onnx_export import anomaly_onnx
from ml.train_anomaly import (
    ASSET_TYPE,
    CHANNELS,
    COLUMNS,
    MODEL,
    main,
    read_recordings,
    train,
)
from tests.recordings import REPOSITORY, SKAB_COLUMNS, data_folder

SETTINGS = AnomalySettings(baseline_s=100, window_s=10, limit_quantile=0.99, settled_s=None)
CORRELATION = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])


def recording(seed: int, fault_at: int | None = None, size: float = 3.0) -> WatchedRecording:
    """Return 1,000 s of three channels, two of them correlated; a fault moves these two apart."""
    random = np.random.default_rng(seed)
    values = random.multivariate_normal(np.array([10.0, 350.0, -5.0]), CORRELATION, 1_000)
    faulty = np.zeros(1_000, np.bool_)
    if fault_at is not None:
        faulty[fault_at : fault_at + 200] = True
        values[faulty] += [size, -size, 0.0]
    return WatchedRecording(f"r{seed}", values, faulty)


def fitted() -> AnomalyDetector:
    return fit_anomaly_detector([recording(n, 600) for n in range(4)], ("a", "b", "c"), SETTINGS)


# --- features -----------------------------------------------------------------------------


def test_a_deviation_is_told_in_the_baseline_s_own_spread() -> None:
    seconds = np.array([[1.0], [3.0]] * 50)
    baseline = baseline_of(seconds)
    assert (baseline.mean[0], baseline.deviation[0]) == (2.0, 1.0)
    found = deviations(np.full((20, 1), 5.0), baseline, 10)
    assert np.isnan(found[:9]).all()
    assert (found[9:] == 3.0).all()


def test_what_was_hardly_measured_or_stood_still_gives_no_answer() -> None:
    seconds = np.column_stack([np.arange(100.0), np.full(100, 7.0), np.arange(100.0)])
    seconds[:60, 2] = np.nan
    baseline = baseline_of(seconds)
    assert np.isfinite(baseline.deviation).tolist() == [True, False, False]
    window = seconds[:10].copy()
    window[:6, 0] = np.nan  # four of ten seconds are too few
    assert np.isnan(deviations(window, baseline, 10)[-1]).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_a_deviation_knows_nothing_of_later_seconds(seed: int, upto: int) -> None:
    seconds = np.random.default_rng(seed).normal(0, 1, (60, 2))
    baseline = baseline_of(seconds[:20])
    whole = deviations(seconds, baseline, 5)
    np.testing.assert_array_equal(deviations(seconds[:upto], baseline, 5), whole[:upto])


# --- detector -----------------------------------------------------------------------------


def test_what_breaks_a_correlation_is_an_anomaly_and_what_keeps_it_is_none() -> None:
    detector = fitted()
    # As far for each channel alone; the first two belong together.
    together, apart = assess(detector, np.array([[0.4, 0.4, 0.0], [0.4, -0.4, 0.0]])).ratio
    assert together < 1 < apart
    assert apart > 10 * together


def test_contributions_add_up_to_the_ratio_and_health_is_its_share() -> None:
    found = np.random.default_rng(3).normal(0, 2, (50, 3))
    said = assess(fitted(), found)
    np.testing.assert_allclose(said.contributions.sum(axis=1), said.ratio)
    np.testing.assert_allclose(said.health, np.minimum(1, 1 / said.ratio))
    assert assess(fitted(), np.zeros((1, 3))).health.tolist() == [1.0]
    assert np.isnan(assess(fitted(), np.array([[np.nan, 0.0, 0.0]])).ratio[0])


def test_a_fault_is_found_and_silence_kept_on_recordings_that_were_not_fitted() -> None:
    figures = detection_figures(fitted(), recording(99, 600))
    assert figures.miss_ratio < 0.06, "the window has to fill"
    assert figures.false_alarm_ratio < 0.06
    sound = detection_figures(fitted(), recording(98))
    assert (sound.hits, sound.misses) == (0, 0)
    assert sound.false_alarm_ratio < 0.05


def test_only_seconds_without_a_fault_after_the_baseline_are_fitted() -> None:
    faulty = recording(1, 600)
    assert np.flatnonzero(is_fault_free(faulty, SETTINGS)).tolist() == list(range(100, 600))
    settled = AnomalySettings(baseline_s=100, settled_s=30)
    chosen = np.flatnonzero(is_fault_free(faulty, settled))
    assert chosen.tolist() == [*range(100, 600), *range(830, 1_000)]
    with pytest.raises(ValueError, match="fault-free seconds for 3 channels"):
        fit_anomaly_detector([recording(1, 110)], ("a", "b", "c"), SETTINGS)


def test_figures_of_nothing_are_no_division_by_zero() -> None:
    none = DetectionFigures(0, 0, 0, 0)
    assert (none.f1, none.false_alarm_ratio, none.miss_ratio) == (0.0, 0.0, 0.0)
    assert DetectionFigures(6, 2, 2, 10).f1 == 0.75


# --- ONNX -----------------------------------------------------------------------------------


def test_onnx_says_what_numpy_says() -> None:
    detector = fitted()
    content = anomaly_onnx(detector, "m", "1", ["pump"])
    assert content == anomaly_onnx(fitted(), "m", "1", ["pump"]), "the same bytes again"
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = np.random.default_rng(3).normal(0, 3, (257, 3))
    ratio, contributions, health = session.run(
        ["ratio", "contributions", "health"], {"deviations": found.astype(np.float32)}
    )
    said = assess(detector, found.astype(np.float32).astype(np.float64))
    scale = float(np.abs(said.contributions).max())
    np.testing.assert_allclose(contributions, said.contributions, atol=2e-6 * scale)
    np.testing.assert_allclose(ratio, said.ratio, rtol=1e-4, atol=2e-6 * scale)
    np.testing.assert_allclose(health, said.health, rtol=1e-4)
    told = json.loads(session.get_modelmeta().custom_metadata_map["heddle"])
    assert told["channels"] == ["a", "b", "c"]
    assert (told["baseline_s"], told["window_s"]) == (100, 10)


# --- the recordings -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def training() -> Training:
    recordings, fault_free = read_recordings(data_folder() / "skab" / "data")
    return train(recordings, fault_free)


def test_on_recordings_it_has_not_seen_it_beats_the_usual_t2_and_q(training: Training) -> None:
    assert len(training.unseen) == 20
    # T2 and Q of each recording's own first 400 s reach 0.77 (and an isolation forest 0.29).
    assert training.total.f1 >= 0.82
    assert training.total.false_alarm_ratio <= 0.11
    # Most recordings, not a few, carry it.
    assert float(np.median([one.f1 for one in training.unseen.values()])) >= 0.85


def test_the_card_that_is_published_is_the_one_that_training_gives(
    training: Training, tmp_path: Path
) -> None:
    published = REPOSITORY / "docs" / "models" / MODEL
    assert main(["--recordings", str(data_folder() / "skab" / "data"), "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "model.json").read_text())
    expected = json.loads((published / "model.json").read_text())
    # Another processor may round the last bit of the artefact otherwise; nothing else may differ.
    for differing in (told, expected):
        differing.pop("sha256")
    assert told == expected
    assert told["metrics"]["f1"] == round(training.total.f1, 4)
    artefact = (published / "model.onnx").read_bytes()
    card = (published / "card.md").read_text()
    assert hashlib.sha256(artefact).hexdigest() in card
    assert f"**{training.total.f1:.3f}**" in card
    fresh, kept = (
        onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        for content in ((tmp_path / "model.onnx").read_bytes(), artefact)
    )
    found = {"deviations": np.eye(len(CHANNELS), dtype=np.float32)}
    for one, other in zip(fresh.run(None, found), kept.run(None, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_the_channels_are_those_of_the_asset_type() -> None:
    assert COLUMNS == SKAB_COLUMNS
    described = asset_type(ASSET_TYPE)
    assert [described.channel(name).name for name in CHANNELS] == list(CHANNELS)


def test_a_recording_s_features_are_finite_once_the_window_is_full() -> None:
    recordings, _ = read_recordings(data_folder() / "skab" / "data")
    found = watched_deviations(recordings[0], AnomalySettings())
    assert np.isfinite(found[30:]).all(axis=1).mean() > 0.95
