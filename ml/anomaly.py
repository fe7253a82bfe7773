"""An anomaly detector: how improbable a machine's deviations are together.

Deviations of channels from a machine's baseline (`ml.deviation`) vary together while nothing is
wrong: everything warms up, the supply's voltage moves the current. The covariance of fault-free
deviations says how; the squared Mahalanobis distance says how far a set of deviations lies outside
it. It is Hotelling's T2 over all components, so that no part of the residual is left to a Q.

References
----------
H. Hotelling, Multivariate quality control, in Techniques of Statistical Analysis, 1947.
J. E. Jackson, G. S. Mudholkar, Control procedures for residuals associated with principal
component analysis, Technometrics 21 (1979) 341-349.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from ml.deviation import FloatArray, baseline_of, deviations

SHRINKAGE: Final = 0.02
"""By so much of its diagonal the covariance is made larger, so that it can be inverted whatever
the channels; a share of what each varies by itself."""


@dataclass(frozen=True, slots=True)
class AnomalySettings:
    """What is chosen before a detector is fitted.

    Parameters
    ----------
    baseline_s : seconds from the beginning of a watch that make the baseline
    window_s : over so many seconds a deviation is taken
    limit_quantile : of the fault-free scores; beyond it lies the anomaly
    settled_s : after a fault so many seconds are not yet counted as fault-free; None: none are
    """

    baseline_s: int = 400
    window_s: int = 30
    limit_quantile: float = 0.95
    settled_s: int | None = 30


@dataclass(frozen=True, eq=False)
class AnomalyDetector:
    """A fitted detector.

    Parameters
    ----------
    precision : inverse covariance of fault-free deviations, shape (n_channels, n_channels)
    limit : score from which on a set of deviations is an anomaly
    """

    channels: tuple[str, ...]
    settings: AnomalySettings
    precision: FloatArray
    limit: float


@dataclass(frozen=True, eq=False)
class Assessment:
    """What a detector says of sets of deviations.

    Parameters
    ----------
    ratio : score over limit, shape (n,); an anomaly above 1
    contributions : of each channel to the ratio, shape (n, n_channels); they add up to it, and
        one may be negative where a channel makes the others' deviations more plausible
    health : 1 within the limit, its inverse share beyond, shape (n,)
    """

    ratio: FloatArray
    contributions: FloatArray
    health: FloatArray


@dataclass(frozen=True, eq=False)
class WatchedRecording:
    """A recording from the beginning of a watch, second by second.

    Parameters
    ----------
    second_means : SI, shape (n_seconds, n_channels)
    is_faulty : shape (n_seconds,), as labelled
    """

    name: str
    second_means: FloatArray
    is_faulty: np.ndarray[tuple[int], np.dtype[np.bool_]]


def watched_deviations(recording: WatchedRecording, settings: AnomalySettings) -> FloatArray:
    """Return the deviations of a recording from its own baseline, shape (n_seconds, n_channels)."""
    return _deviations(recording, settings.baseline_s, settings.window_s)


@lru_cache(maxsize=512)
def _deviations(recording: WatchedRecording, baseline_s: int, window_s: int) -> FloatArray:
    # Remembered, because cross-validation asks for the same ones again and again.
    baseline = baseline_of(recording.second_means[:baseline_s])
    return deviations(recording.second_means, baseline, window_s)


def is_fault_free(
    recording: WatchedRecording, settings: AnomalySettings
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which seconds after the baseline are fault-free, and have settled after a fault."""
    faulty = recording.is_faulty
    seconds = np.arange(len(faulty))
    # Seconds since the last faulty one; before the first fault there is none.
    last = np.maximum.accumulate(np.where(faulty, seconds, -1))
    settled = last < 0
    if settings.settled_s is not None:
        settled |= seconds - last > settings.settled_s
    chosen: np.ndarray[tuple[int], np.dtype[np.bool_]] = (
        ~faulty & settled & (seconds >= settings.baseline_s)
    )
    return chosen


def fit_anomaly_detector(
    recordings: Sequence[WatchedRecording], channels: Sequence[str], settings: AnomalySettings
) -> AnomalyDetector:
    """Return the detector that the fault-free seconds of `recordings` make.

    Raises
    ------
    ValueError
        they hold fewer fault-free seconds than ten for each channel
    """
    parts = []
    for recording in recordings:
        found = watched_deviations(recording, settings)
        parts.append(found[is_fault_free(recording, settings) & np.isfinite(found).all(axis=1)])
    sound = np.concatenate(parts)
    if len(sound) < 10 * len(channels):
        raise ValueError(f"{len(sound)} fault-free seconds for {len(channels)} channels")
    covariance = sound.T @ sound / len(sound)
    covariance += SHRINKAGE * np.diag(np.diag(covariance))
    precision = np.linalg.inv(covariance)
    precision = (precision + precision.T) / 2
    scores = np.einsum("ij,jk,ik->i", sound, precision, sound)
    limit = float(np.quantile(scores, settings.limit_quantile))
    return AnomalyDetector(tuple(channels), settings, precision, limit)


def assess(detector: AnomalyDetector, found: FloatArray) -> Assessment:
    """Return what `detector` says of deviations, shape (n, n_channels); NaN where one is NaN."""
    contributions = found * (found @ detector.precision) / detector.limit
    ratio = contributions.sum(axis=1)
    with np.errstate(divide="ignore"):
        health = np.minimum(1.0, 1.0 / np.maximum(ratio, 0.0))
    return Assessment(ratio, contributions, health)


# --- how good it is -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DetectionFigures:
    """Seconds after the baseline, each counted once.

    Parameters
    ----------
    hits, misses : faulty seconds that were told, and that were not
    false_alarms, silences : other seconds
    """

    hits: int
    misses: int
    false_alarms: int
    silences: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where nothing was told."""
        told = 2 * self.hits + self.misses + self.false_alarms
        return 2 * self.hits / told if told else 0.0

    @property
    def false_alarm_ratio(self) -> float:
        """Share of the seconds without a fault that were told."""
        return self.false_alarms / max(self.false_alarms + self.silences, 1)

    @property
    def miss_ratio(self) -> float:
        """Share of the faulty seconds that were not told."""
        return self.misses / max(self.hits + self.misses, 1)

    def __add__(self, other: DetectionFigures) -> DetectionFigures:
        return DetectionFigures(
            self.hits + other.hits,
            self.misses + other.misses,
            self.false_alarms + other.false_alarms,
            self.silences + other.silences,
        )


def detection_figures(detector: AnomalyDetector, recording: WatchedRecording) -> DetectionFigures:
    """Return how `detector` did on a recording; a second without an answer counts as silence."""
    ratio = assess(detector, watched_deviations(recording, detector.settings)).ratio
    watched = slice(detector.settings.baseline_s, None)
    told = np.nan_to_num(ratio[watched], nan=0.0) > 1
    faulty = recording.is_faulty[watched]
    return DetectionFigures(
        hits=int((told & faulty).sum()),
        misses=int((~told & faulty).sum()),
        false_alarms=int((told & ~faulty).sum()),
        silences=int((~told & ~faulty).sum()),
    )


def chosen_settings(
    recordings: Sequence[WatchedRecording],
    channels: Sequence[str],
    candidates: Sequence[AnomalySettings],
) -> AnomalySettings:
    """Return the candidate with the best F1 when each recording is left out in turn."""
    scores = [
        sum(
            (
                detection_figures(fit_anomaly_detector(others, channels, settings), left_out)
                for left_out, others in leave_one_out(recordings)
            ),
            start=DetectionFigures(0, 0, 0, 0),
        ).f1
        for settings in candidates
    ]
    return candidates[int(np.argmax(scores))]


def leave_one_out(
    recordings: Sequence[WatchedRecording],
) -> list[tuple[WatchedRecording, list[WatchedRecording]]]:
    """Return each recording with all the others."""
    return [
        (recording, [other for other in recordings if other is not recording])
        for recording in recordings
    ]
